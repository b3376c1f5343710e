//! What the programs cost the kernel's verifier, and the record that they are held to (`data/verifier.toml`).
//!
//! The verifier gives up on a program after 1,000,000 processed instructions and refuses one with more than 512 bytes of
//! stack. Both limits are reached in silence; the record makes each larger step towards them somebody's decision.
//! Deliberately absent: a verdict on load times, which are the machine's; and the verifier's log, which aya does not hand
//! out for a program that was accepted.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use aya::maps::Map;
use aya::programs::{Program, ProgramInfo};
use aya::{Ebpf, EbpfLoader};
use aya_obj::Object;
use aya_obj::generated::{
    BPF_ADD, BPF_ALU, BPF_ALU64, BPF_K, BPF_LD, BPF_LDX, BPF_MOV, BPF_ST, BPF_STX, BPF_X, bpf_insn,
};
use failover_common::abi::{FLOWS, HANDSHAKES};
use failover_userspace::dataplane::bound;
use serde::{Deserialize, Serialize};

use crate::netns::Netns;

/// Writes the record anew.
pub const UPDATE: &str = "FAILOVER_UPDATE_BUDGET=1 cargo xtask test verifier_budget";
/// By how much a figure may differ from the record, percent.
const TOLERANCE_PERCENT: u64 = 20;
/// The frame pointer, read-only, at the upper end of a function's stack.
const R10: usize = 10;

/// What one program costs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// Instructions that the verifier processed, over all paths.
    pub processed_instructions: u64,
    /// Its length after the verifier's rewriting.
    pub translated_instructions: u64,
    /// Its length in machine code; 0 without a JIT compiler.
    pub jitted_bytes: u64,
    /// The stack of the program and of the deepest function that it may call. From the object: the kernel does not tell.
    pub stack_bytes: u64,
    /// How long the kernel took to load it. For people.
    pub load_us: u64,
}

/// What all programs of the object cost, and where that was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Costs {
    /// The kernel's release: another kernel's verifier takes other paths.
    pub kernel: String,
    /// The architecture that the JIT compiler wrote for.
    pub architecture: String,
    /// The processor: what the load times are worth.
    pub processor: String,
    /// By the programs' names.
    pub programs: BTreeMap<String, Cost>,
}

/// How the costs differ from the record by more than they may.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// What grew, and whatever else has to be decided upon: one line each.
    pub failures: Vec<String>,
    /// What shrank: one line each.
    pub remarks: Vec<String>,
}

impl Costs {
    /// Loads each program of the object, as the controller does but with small tables, and drops it.
    ///
    /// # Errors
    /// When the kernel refuses one, is older than 5.16 (which counts no processed instructions), or the object has a
    /// program of a type that the controller does not load.
    pub fn measure(object: &Path) -> Result<Self> {
        let bytes = fs::read(object).with_context(|| format!("reading {}", object.display()))?;
        let stacks = stacks(&bytes)?;
        let mut loader = EbpfLoader::new();
        loader.map_max_entries(FLOWS, 1024).map_max_entries(HANDSHAKES, 1024);
        let mut ebpf = loader.load(&bytes).context("loading the maps")?;
        let names = ebpf.programs().map(|(name, _)| name);
        let names: Vec<String> = names.chain([bound::PROGRAM]).map(ToString::to_string).collect();
        let mut programs = BTreeMap::new();
        for name in names {
            let stack_bytes = *stacks.get(&name).with_context(|| format!("{name} is no function of the object"))?;
            let measured = if name == bound::PROGRAM { load_bound(&ebpf, &bytes) } else { load(&mut ebpf, &name) };
            let cost = Cost { stack_bytes, ..measured.with_context(|| format!("loading the program {name}"))? };
            programs.insert(name, cost);
        }
        let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
        Ok(Self { kernel, architecture: std::env::consts::ARCH.into(), processor: processor(), programs })
    }

    /// Reads the record.
    ///
    /// # Errors
    /// When it is missing or malformed.
    pub fn read_record() -> Result<Self> {
        let path = record();
        let text =
            fs::read_to_string(&path).with_context(|| format!("reading {} ({UPDATE} writes it)", path.display()));
        toml::from_str(&text?).with_context(|| format!("in {} ({UPDATE} writes it anew)", path.display()))
    }

    /// Makes this the record.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_record(&self) -> Result<()> {
        let path = record();
        let head = format!("# What the programs cost the kernel's verifier. Written by\n#   {UPDATE}\n");
        let text = toml::to_string(self).context("writing the costs as TOML")?;
        fs::write(&path, head + &text).with_context(|| format!("writing {}", path.display()))
    }

    /// What differs from `record` by more than it may.
    pub fn differences(&self, record: &Self) -> Differences {
        let mut differences = Differences::default();
        for name in record.programs.keys().filter(|name| !self.programs.contains_key(*name)) {
            differences.failures.push(format!("{name}: in the record, and not in the object"));
        }
        for (name, cost) in &self.programs {
            let Some(recorded) = record.programs.get(name) else {
                differences.failures.push(format!("{name}: in the object, and not in the record"));
                continue;
            };
            let is_same_code = self.architecture == record.architecture;
            let figures = [
                ("processed instructions", cost.processed_instructions, recorded.processed_instructions, true),
                ("translated instructions", cost.translated_instructions, recorded.translated_instructions, true),
                ("jitted bytes", cost.jitted_bytes, recorded.jitted_bytes, is_same_code),
                ("bytes of stack", cost.stack_bytes, recorded.stack_bytes, true),
            ];
            for (what, now, before, _) in figures.into_iter().filter(|figure| figure.3) {
                differences.compare(&format!("{name}: {what}"), now, before);
            }
        }
        if self.kernel != record.kernel {
            let remark = format!("the record is of Linux {}, this is {}", record.kernel, self.kernel);
            let other = format!("{remark}: the verifier's part of a difference may be the kernel's");
            (if differences.failures.is_empty() { &mut differences.remarks } else { &mut differences.failures })
                .push(other);
        }
        differences
    }
}

impl Differences {
    fn compare(&mut self, what: &str, now: u64, before: u64) {
        let scaled = 100 * now;
        if scaled > (100 + TOLERANCE_PERCENT) * before {
            self.failures.push(format!("{what} grew from {before} to {now}{}", percent(now, before)));
        } else if scaled < (100 - TOLERANCE_PERCENT) * before {
            self.remarks.push(format!("{what} shrank from {before} to {now}{}", percent(now, before)));
        }
    }
}

fn percent(now: u64, before: u64) -> String {
    if before == 0 { String::new() } else { format!(" ({:+.0}%)", 100.0 * (now as f64 / before as f64 - 1.0)) }
}

fn record() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/verifier.toml")
}

fn load(ebpf: &mut Ebpf, name: &str) -> Result<Cost> {
    let started = Instant::now();
    let info: ProgramInfo = match ebpf.program_mut(name).context("it is gone")? {
        Program::Xdp(program) => program.load().and_then(|()| program.info())?,
        Program::SchedClassifier(program) => program.load().and_then(|()| program.info())?,
        Program::SockOps(program) => program.load().and_then(|()| program.info())?,
        other => bail!("it is of type {:?}, which the controller does not load", other.prog_type()),
    };
    cost(&info, started)
}

/// The one that is bound to an interface needs one whose driver has XDP.
fn load_bound(ebpf: &Ebpf, object: &[u8]) -> Result<Cost> {
    let netns = Netns::new(&format!("budget-{}", process::id()))?;
    netns.ip(&["link", "add", "eth0", "index", "9", "type", "veth", "peer", "name", "eth1"])?;
    let maps: Vec<_> = ebpf.maps().filter_map(|(name, map)| Some((name, descriptor(map)?))).collect();
    let pin = PathBuf::from(format!("/sys/fs/bpf/{}", netns.name()));
    netns.enter(|| {
        let started = Instant::now();
        let program = bound::load(object, &maps, 9, &pin)?;
        cost(&program.info()?, started)
    })
}

fn descriptor(map: &Map) -> Option<BorrowedFd<'_>> {
    let (Map::Array(data) | Map::HashMap(data) | Map::PerCpuArray(data) | Map::RingBuf(data)) = map else {
        return None;
    };
    Some(data.fd().as_fd())
}

/// All but the stack, which the kernel does not tell.
fn cost(info: &ProgramInfo, started: Instant) -> Result<Cost> {
    let load_us = started.elapsed().as_micros() as u64;
    let processed = info.verified_instruction_count().context("the kernel counts no instructions: it needs 5.16")?;
    let translated = info.size_translated().context("the kernel hides the translated program")?;
    Ok(Cost {
        processed_instructions: processed.into(),
        translated_instructions: u64::from(translated) / size_of::<bpf_insn>() as u64,
        jitted_bytes: info.size_jitted().into(),
        stack_bytes: 0,
        load_us,
    })
}

/// For each program of the object the deepest use of its stack, and that of the deepest other function on top.
fn stacks(object: &[u8]) -> Result<BTreeMap<String, u64>> {
    let object = Object::parse(object).context("reading the object")?;
    let depths = || object.functions.values().map(|function| (&function.name, stack_bytes(&function.instructions)));
    let is_program = |name: &str| object.programs.contains_key(name) || name == bound::PROGRAM;
    let library = depths().filter(|(name, _)| !is_program(name)).map(|(_, bytes)| bytes).max().unwrap_or(0);
    let programs = depths().filter(|(name, _)| is_program(name));
    let stacks: BTreeMap<_, _> = programs.map(|(name, bytes)| (name.clone(), bytes + library)).collect();
    ensure!(!stacks.is_empty(), "the object has no program");
    Ok(stacks)
}

/// How far below the frame pointer a function reaches: by the offset of an access, or of a pointer that is made from it.
/// In the order of the text, as compilers write such pointers; the verifier's figure for these programs is the same.
fn stack_bytes(instructions: &[bpf_insn]) -> u64 {
    // What each register points to, relative to the frame pointer, where it is such a pointer.
    let mut pointers: [Option<i32>; 16] = [None; 16];
    pointers[R10] = Some(0);
    let mut lowest = 0;
    for instruction in instructions {
        let code = u32::from(instruction.code);
        let (to, from) = (usize::from(instruction.dst_reg()), usize::from(instruction.src_reg()));
        let class = code & 0x07;
        let reached = match class {
            BPF_ST | BPF_STX => pointers[to].map(|at| at + i32::from(instruction.off)),
            BPF_LDX => pointers[from].map(|at| at + i32::from(instruction.off)),
            BPF_ALU64 if code == BPF_ALU64 | BPF_ADD | BPF_K => pointers[to].map(|at| at + instruction.imm),
            _ => None,
        };
        lowest = reached.unwrap_or(0).min(lowest);
        if matches!(class, BPF_LD | BPF_LDX | BPF_ALU | BPF_ALU64) {
            pointers[to] = match code {
                _ if code == BPF_ALU64 | BPF_MOV | BPF_X => pointers[from],
                _ if code == BPF_ALU64 | BPF_ADD | BPF_K => reached,
                _ => None,
            };
        }
    }
    u64::from(lowest.unsigned_abs())
}

/// As `/proc/cpuinfo` calls it.
fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or("unknown", |(_, name)| name).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs() -> Costs {
        let cost = |processed_instructions, stack_bytes| Cost {
            processed_instructions,
            translated_instructions: 1_000,
            jitted_bytes: 5_000,
            stack_bytes,
            load_us: 10,
        };
        Costs {
            kernel: "6.18.0".into(),
            architecture: "x86_64".into(),
            processor: "any".into(),
            programs: BTreeMap::from([("failover".into(), cost(300_000, 400)), ("flows".into(), cost(700, 100))]),
        }
    }

    fn changed(change: impl FnOnce(&mut Cost)) -> Differences {
        let mut now = costs();
        change(now.programs.get_mut("failover").unwrap());
        now.differences(&costs())
    }

    #[test]
    fn the_record_itself_and_a_fifth_more_or_less_are_in_order() {
        assert_eq!(costs().differences(&costs()), Differences::default());
        assert_eq!(changed(|cost| cost.processed_instructions = 360_000), Differences::default());
        assert_eq!(changed(|cost| cost.processed_instructions = 240_000), Differences::default());
        assert_eq!(changed(|cost| cost.load_us = 10_000), Differences::default());
    }

    #[test]
    fn each_figure_that_grows_by_more_is_a_failure() {
        let grown = |change: fn(&mut Cost)| {
            let differences = changed(change);
            assert_eq!((differences.failures.len(), differences.remarks.len()), (1, 0));
            differences.failures.concat()
        };
        let processed = grown(|cost| cost.processed_instructions = 360_001);
        assert_eq!(processed, "failover: processed instructions grew from 300000 to 360001 (+20%)");
        let translated = grown(|cost| cost.translated_instructions = 1_500);
        assert_eq!(translated, "failover: translated instructions grew from 1000 to 1500 (+50%)");
        let jitted = grown(|cost| cost.jitted_bytes = 10_000);
        assert_eq!(jitted, "failover: jitted bytes grew from 5000 to 10000 (+100%)");
        let stack = grown(|cost| cost.stack_bytes = 481);
        assert_eq!(stack, "failover: bytes of stack grew from 400 to 481 (+20%)");
    }

    #[test]
    fn what_shrinks_is_said() {
        let differences = changed(|cost| cost.stack_bytes = 319);
        let remarks = vec!["failover: bytes of stack shrank from 400 to 319 (-20%)".into()];
        assert_eq!(differences, Differences { failures: vec![], remarks });
    }

    #[test]
    fn a_program_that_comes_or_goes_is_a_failure() {
        let (mut one, both) = (costs(), costs());
        one.programs.remove("flows");
        assert_eq!(one.differences(&both).failures, ["flows: in the record, and not in the object"]);
        assert_eq!(both.differences(&one).failures, ["flows: in the object, and not in the record"]);
    }

    #[test]
    fn another_kernel_is_held_to_the_record_and_named() {
        let mut now = costs();
        now.kernel = "6.12.0".into();
        let same = now.differences(&costs());
        assert_eq!((same.failures.len(), same.remarks.len()), (0, 1));
        now.programs.get_mut("flows").unwrap().processed_instructions = 1_000_000;
        let failures = now.differences(&costs()).failures;
        assert!(failures[0].starts_with("flows: processed instructions grew") && failures.len() == 2, "{failures:?}");
        assert!(failures[1].starts_with("the record is of Linux 6.18.0, this is 6.12.0"), "{failures:?}");
    }

    #[test]
    fn machine_code_is_compared_with_that_of_the_same_architecture() {
        let mut now = costs();
        now.programs.get_mut("failover").unwrap().jitted_bytes = 10_000;
        assert_eq!(now.differences(&costs()).failures.len(), 1);
        now.architecture = "aarch64".into();
        assert_eq!(now.differences(&costs()), Differences::default());
    }

    /// Code, registers, offset and immediate as in the kernel's documentation (instruction-set.rst).
    fn instruction(code: u8, destination: u8, source: u8, off: i16, imm: i32) -> bpf_insn {
        bpf_insn { code, _bitfield_align_1: [], _bitfield_1: bpf_insn::new_bitfield_1(destination, source), off, imm }
    }

    #[test]
    fn the_stack_reaches_as_far_as_what_is_accessed_or_pointed_to() {
        // *(u64 *)(r10 - 168) = r1
        let store = instruction(0x7b, 10, 1, -168, 0);
        // r1 = *(u64 *)(r10 - 24)
        let load = instruction(0x79, 1, 10, -24, 0);
        // r2 = r10; r2 += -240
        let (copy, lower) = (instruction(0xbf, 2, 10, 0, 0), instruction(0x07, 2, 0, 0, -240));
        // r2 = r1; *(u64 *)(r2 - 400) = r1
        let (other, elsewhere) = (instruction(0xbf, 2, 1, 0, 0), instruction(0x7b, 2, 1, -400, 0));
        assert_eq!(stack_bytes(&[]), 0);
        assert_eq!(stack_bytes(&[load]), 24);
        assert_eq!(stack_bytes(&[store, load]), 168);
        assert_eq!(stack_bytes(&[store, copy, load, lower]), 240);
        // *(u64 *)(r2 - 8) = r1
        assert_eq!(stack_bytes(&[copy, lower, instruction(0x7b, 2, 1, -8, 0)]), 248);
        // if r2 == 0 goto +1 leaves r2 as it is.
        assert_eq!(stack_bytes(&[copy, instruction(0x15, 2, 0, 1, 0), lower]), 240);
        assert_eq!(stack_bytes(&[store, lower]), 168, "not made from the frame pointer");
        assert_eq!(stack_bytes(&[store, copy, other, lower, elsewhere]), 168, "overwritten");
    }
}
