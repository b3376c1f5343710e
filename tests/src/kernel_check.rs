//! What is asked of a kernel that is not this machine's: does it take the programs, at which cost, and does an address
//! go over. `cargo xtask vm` runs it in guests.
//!
//! Deliberately absent: an opinion on times. Under emulation they say nothing.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use aya::programs::{ProgramInfo, loaded_programs};
use aya_obj::generated::bpf_prog_type;
use serde::Serialize;

use failover_userspace::dataplane::bound;

use crate::answers;
use crate::arp_probe::{ArpProbe, answers_of};
use crate::daemon::Daemon;
use crate::lab::{INTERFACE, Lab};
use crate::requirements::Built;

/// An emulated processor takes ten to twenty times as long for everything.
const PATIENCE: Duration = Duration::from_secs(240);
const POLL: Duration = Duration::from_millis(100);
/// As many as a virtual router may have.
const ADDRESSES_MAX: usize = 20;
/// Long enough for the emulated machine to keep it, short enough to wait for.
const ADVERT_INTERVAL: &str = "500ms";
/// Lines of the verifier's log that are shown: what it stumbled over, and why.
const REFUSAL_LINES: usize = 3;
const REFUSAL_LINE_CHARACTERS: usize = 160;

/// A configuration to load.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Its name in results.
    pub name: &'static str,
    /// Virtual addresses in all.
    pub addresses: usize,
    /// Of each virtual router but the last.
    pub each: usize,
}

/// All that are tried: 1, 8 and 64 virtual routers of one address, and 4,096 addresses.
pub const LOADS: [Load; 4] = [
    Load { name: "1 router", addresses: 1, each: 1 },
    Load { name: "8 routers", addresses: 8, each: 1 },
    Load { name: "64 routers", addresses: 64, each: 1 },
    Load { name: "4096 addresses", addresses: 4096, each: ADDRESSES_MAX },
];

/// One thing that was tried.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// What.
    pub check: String,
    /// Whether it did as it should.
    pub passed: bool,
    /// How long it took, emulated.
    pub seconds: f64,
    /// What was loaded for it.
    pub programs: Vec<Loaded>,
    /// Warnings of the controller; why it failed.
    pub said: Vec<String>,
}

/// A program as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Loaded {
    /// Its name.
    pub name: String,
    /// Instructions that the verifier processed; `None` before Linux 5.16.
    pub verified: Option<u32>,
    /// Its length, after the verifier's rewriting, in bytes.
    pub translated: Option<u32>,
    /// Its length in machine code, in bytes; 0 without a JIT compiler.
    pub jitted: u32,
}

/// Loads one configuration and waits until all of its virtual routers are Active.
pub fn load(built: &Built, load: Load) -> Outcome {
    outcome(load.name, |said, programs| {
        let lab = Lab::new(built)?;
        let mut node = lab.daemon_with("edge-a", &load.routers())?;
        let before = ids()?;
        start(&mut node, said)?;
        *programs = loaded_since(&before)?;
        become_active(&node)?;
        warnings(&node.log(), said);
        ensure!(node.stop()?.success(), "it did not stop well:\n{}", node.log());
        Ok(())
    })
}

/// One of the two modes, and what its checks are called.
#[derive(Clone, Copy, Debug)]
pub struct Mode {
    /// As in a configuration.
    xdp_mode: &'static str,
    load: &'static str,
    takeover: &'static str,
}

/// The native one, or before Linux 6.8, where a veth has none that tells VLANs apart, the generic one.
pub const NATIVE: Mode = Mode { xdp_mode: "native", load: LOADS[0].name, takeover: "takeover" };
/// The generic one.
pub const GENERIC: Mode = Mode { xdp_mode: "generic", load: "generic", takeover: "generic takeover" };

/// Two nodes: the first is killed (-9), the second takes over, and the first never answers again.
/// Two outcomes: the load of one virtual router, and the takeover.
pub fn takeover(built: &Built, mode: Mode) -> Vec<Outcome> {
    let mut nodes = None;
    let loaded = outcome(mode.load, |said, programs| {
        let lab = Lab::new(built)?;
        let mut a = lab.daemon("edge-a", 150, ADVERT_INTERVAL, "")?;
        choose(&a, mode)?;
        let before = ids()?;
        start(&mut a, said)?;
        *programs = loaded_since(&before)?;
        become_active(&a)?;
        warnings(&a.log(), said);
        nodes = Some((a, lab));
        Ok(())
    });
    let Some((a, lab)) = nodes else { return vec![loaded] };
    let taken = outcome(mode.takeover, |said, _| {
        let milliseconds = take_over(&lab, a, mode)?;
        said.push(format!("answered by the other node {milliseconds} ms after kill -9"));
        Ok(())
    });
    vec![loaded, taken]
}

/// A veth's default is the fastest mode that it has, which may be generic already.
fn choose(node: &Daemon, mode: Mode) -> Result<()> {
    let is_generic = mode.xdp_mode == GENERIC.xdp_mode;
    if is_generic && bound::is_known() { node.edit_config("\"native\"", "\"generic\"") } else { Ok(()) }
}

fn take_over(lab: &Lab, mut a: Daemon, mode: Mode) -> Result<u128> {
    let (mac_a, mac_b) = (lab.mac("edge-a")?, lab.mac("edge-b")?);
    let mut b = lab.daemon("edge-b", 100, ADVERT_INTERVAL, "")?;
    choose(&b, mode)?;
    start(&mut b, &mut Vec::new())?;
    let arp = lab.arp_probe()?;
    owned_by(&arp, mac_a).context("edge-a does not answer")?;
    let killed = Instant::now();
    a.kill()?;
    owned_by(&arp, mac_b).with_context(|| format!("edge-b does not answer; its log:\n{}", b.log()))?;
    let took = killed.elapsed().as_millis();
    // As long again, in which the old owner could show itself.
    thread::sleep(Duration::from_secs(2));
    let questions = arp.since(killed);
    let first = *answers_of(&questions, mac_b).first().context("edge-b never answered")?;
    ensure!(answers_of(&questions, mac_a).iter().all(|at| *at <= first), "edge-a answered after edge-b");
    ensure!(answers::doubles(&questions).count == 0, "two nodes answered one question");
    ensure!(b.stop()?.success(), "edge-b did not stop well:\n{}", b.log());
    Ok(took)
}

impl Load {
    fn routers(&self) -> String {
        let all: Vec<usize> = (0..self.addresses).collect();
        all.chunks(self.each)
            .enumerate()
            .map(|(number, addresses)| {
                let addresses: Vec<String> =
                    addresses.iter().map(|i| format!("198.18.{}.{}/32", i / 250, i % 250 + 1)).collect();
                format!(
                    "[[virtual_router]]\nname = \"r{number}\"\ninterface = \"{INTERFACE}\"\nvrid = {}\npriority = 150\n\
                     addresses = {addresses:?}\n",
                    number + 1
                )
            })
            .collect()
    }
}

fn outcome(check: &str, run: impl FnOnce(&mut Vec<String>, &mut Vec<Loaded>) -> Result<()>) -> Outcome {
    let started = Instant::now();
    let (mut said, mut programs) = (Vec::new(), Vec::new());
    let result = run(&mut said, &mut programs);
    if let Err(error) = &result {
        said.push(format!("{error:#}"));
    }
    let seconds = (started.elapsed().as_secs_f64() * 10.0).round() / 10.0;
    Outcome { check: check.into(), passed: result.is_ok(), seconds, programs, said }
}

/// Waits until it has loaded. When it ends instead, `said` gets what the kernel's verifier said, if that was it.
fn start(node: &mut Daemon, said: &mut Vec<String>) -> Result<()> {
    node.start()?;
    let started = Instant::now();
    while !node.state(0).is_ok_and(|state| state != "Initialize") {
        if node.has_ended()? {
            let log = node.log();
            let refusal = refusal(&log);
            let reason = if refusal.is_empty() { &log } else { "the controller ended" };
            said.extend(refusal);
            bail!("{reason}");
        }
        ensure!(started.elapsed() < PATIENCE, "not loaded after {PATIENCE:?}; its log:\n{}", node.log());
        thread::sleep(POLL);
    }
    Ok(())
}

fn become_active(node: &Daemon) -> Result<()> {
    let started = Instant::now();
    loop {
        let status = node.status()?;
        let routers = status["virtual_routers"].as_array().context("no virtual routers in the status")?;
        if routers.iter().all(|router| router["state"] == "Active") {
            return Ok(());
        }
        ensure!(started.elapsed() < PATIENCE, "not all Active after {PATIENCE:?}; its log:\n{}", node.log());
        thread::sleep(POLL);
    }
}

fn owned_by(arp: &ArpProbe, mac: [u8; 6]) -> Result<()> {
    let started = Instant::now();
    while arp.owner() != Some(mac) {
        ensure!(started.elapsed() < PATIENCE, "waited {PATIENCE:?}");
        thread::sleep(POLL);
    }
    Ok(())
}

/// Which program, what the verifier stumbled over and why, and how far it had come: the log's end, without its statistics.
fn refusal(log: &str) -> Vec<String> {
    let lines: Vec<&str> = log.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let Some(end) = lines.iter().rposition(|line| line.starts_with("processed ") && line.contains(" insns ")) else {
        return Vec::new();
    };
    let is_statistics = |line: &&&str| line.starts_with("verification time") || line.starts_with("stack depth");
    let mut said: Vec<&str> =
        lines[..end].iter().rev().filter(|line| !is_statistics(line)).take(REFUSAL_LINES).copied().collect();
    said.reverse();
    said.push(lines[end]);
    let program = ["XDP", "socket"].into_iter().find(|kind| log.contains(&format!("refused the {kind} program")));
    let shown = |line: &str| line.chars().take(REFUSAL_LINE_CHARACTERS).collect();
    let program = program.map(|kind| format!("the kernel refused the {kind} program:"));
    program.into_iter().chain(said.into_iter().map(shown)).collect()
}

/// What the controller says that this kernel lacks.
fn warnings(log: &str, said: &mut Vec<String>) {
    let lines = log.lines().filter_map(|line| line.split_once(" WARN ").map(|(_, rest)| rest.trim().to_string()));
    said.extend(lines);
}

fn ids() -> Result<BTreeSet<u32>> {
    loaded_programs().map(|info| Ok(info?.id())).collect()
}

fn loaded_since(before: &BTreeSet<u32>) -> Result<Vec<Loaded>> {
    let infos: Vec<ProgramInfo> = loaded_programs().collect::<Result<_, _>>()?;
    let is_ours = |info: &&ProgramInfo| {
        let kinds = [
            bpf_prog_type::BPF_PROG_TYPE_XDP,
            bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS,
            bpf_prog_type::BPF_PROG_TYPE_SOCK_OPS,
        ];
        !before.contains(&info.id()) && kinds.contains(&info.program_type())
    };
    let loaded = |info: &ProgramInfo| Loaded {
        name: info.name_as_str().unwrap_or("?").into(),
        verified: info.verified_instruction_count(),
        translated: info.size_translated(),
        jitted: info.size_jitted(),
    };
    Ok(infos.iter().filter(is_ours).map(loaded).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deciding_lines_of_a_refusal_are_found() {
        let log = "INFO loading\nError: the kernel's verifier refused the XDP program: 0: R1=ctx()\n; a line of source\n\
                   41: (61) r1 = *(u32 *)(r2 -4)\ninvalid access to packet, off=-4 size=4, R2(id=1,off=0,r=0)\nR2 offset is outside of the packet\n\
                   verification time 9 usec\nstack depth 304+0\nprocessed 6011 insns (limit 1000000) max_states_per_insn 4 total_states 10 peak_states 9 mark_read 2\n\n";
        let found = refusal(log);
        assert_eq!(found.len(), 1 + REFUSAL_LINES + 1);
        assert_eq!(found[0], "the kernel refused the XDP program:");
        assert_eq!(found[2], "invalid access to packet, off=-4 size=4, R2(id=1,off=0,r=0)");
        assert!(found[4].starts_with("processed 6011 insns"));
        assert!(refusal("Error: no such interface\n").is_empty());
    }

    #[test]
    fn warnings_are_told_from_the_rest() {
        let mut said = Vec::new();
        warnings("2026 INFO a\n2026 WARN no cookie: off\n", &mut said);
        assert_eq!(said, ["no cookie: off"]);
    }

    #[test]
    fn the_largest_load_is_within_what_a_configuration_may_have() {
        let text = LOADS[3].routers();
        assert_eq!(text.matches("[[virtual_router]]").count(), 205);
        assert_eq!(text.matches("/32").count(), 4096);
        assert!(text.contains("\"198.18.16.96/32\"]"), "the last address");
    }
}
