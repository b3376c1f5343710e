//! The bench's own programs (failover-ebpf/bench/frame.rs), loaded: one frame again and again, made anew each time.
//!
//! Deliberately absent: what is sent, and what should come of it (`paths.rs`).

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use aya::maps::{Array, HashMap, Map, MapData, ProgramArray};
use aya::programs::{TestRun as _, Xdp};
use aya::{Ebpf, TestRunOptions};
use rustix::time::{ClockId, clock_gettime};

use crate::testrun::{Hook, LOOPBACK, Verdict, context};

/// The longest frame.
const LEN_MAX: usize = 1024;

/// The programs of the object that take a frame and are no preparation for another.
const EMPTY: &str = "pass";
const RESTORE: &str = "restore";

/// The loaded programs.
pub(super) struct Harness {
    ebpf: Ebpf,
    measured: ProgramArray<MapData>,
    frame: Array<MapData, [u64; 1 + LEN_MAX / 8]>,
}

/// What a row of runs came to.
pub(super) struct Ran {
    /// The last one's verdict.
    pub verdict: Verdict,
    /// The frame as the last one left it.
    pub frame: Vec<u8>,
    /// Of one run, all that the kernel does for it included.
    pub ns: f64,
}

impl Harness {
    pub(super) fn load(object: &Path) -> Result<Self> {
        let mut ebpf = Ebpf::load_file(object).with_context(|| format!("loading {}", object.display()))?;
        let names: Vec<String> = ebpf.programs().map(|(name, _)| name.to_owned()).collect();
        for name in names {
            let program: &mut Xdp = ebpf.program_mut(&name).context("a program that was there")?.try_into()?;
            program.load().with_context(|| format!("loading the program {name}"))?;
        }
        let (measured, frame) =
            (ProgramArray::try_from(take(&mut ebpf, "MEASURED")?)?, take(&mut ebpf, "FRAME")?.try_into()?);
        Ok(Self { ebpf, measured, frame })
    }

    /// Fills what the programs look up: the `entries` of a table and one key of them, and a connection's ends as `struct
    /// bpf_sock_tuple` has them.
    pub(super) fn fill(&mut self, entries: &[[u32; 6]], key: [u32; 6], ends: [u32; 3]) -> Result<()> {
        let mut table: HashMap<_, [u32; 6], [u64; 4]> = take(&mut self.ebpf, "TABLE")?.try_into()?;
        for entry in entries {
            table.insert(entry, [0; 4], 0)?;
        }
        Array::<_, [u32; 6]>::try_from(take(&mut self.ebpf, "KEY")?)?.set(0, key, 0)?;
        Ok(Array::<_, [u32; 3]>::try_from(take(&mut self.ebpf, "ENDS")?)?.set(0, ends, 0)?)
    }

    /// What is sent from now on.
    pub(super) fn send(&mut self, frame: &[u8]) -> Result<()> {
        ensure!(frame.len().is_multiple_of(4) && frame.len() <= LEN_MAX, "a frame of {} bytes", frame.len());
        let mut words = [0; 1 + LEN_MAX / 8];
        words[0] = frame.len() as u64;
        for (word, bytes) in words[1..].iter_mut().zip(frame.chunks(8)) {
            let mut whole = [0; 8];
            whole[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_ne_bytes(whole);
        }
        Ok(self.frame.set(0, words, 0)?)
    }

    /// Where it goes from now on.
    pub(super) fn lead_to(&mut self, program: &Xdp) -> Result<()> {
        Ok(self.measured.set(0, program.fd()?, 0)?)
    }

    /// To a program of its own.
    pub(super) fn lead_to_own(&mut self, name: &str) -> Result<()> {
        let program: &Xdp = program(&self.ebpf, name)?;
        Ok(self.measured.set(0, program.fd()?, 0)?)
    }

    /// To the empty program.
    pub(super) fn lead_nowhere(&mut self) -> Result<()> {
        self.lead_to_own(EMPTY)
    }

    /// Sends it so many times.
    pub(super) fn run(&self, repeat: u32) -> Result<Ran> {
        let (input, mut frame) = (vec![0; 60], vec![0; 2 * LEN_MAX]);
        let context = context(LOOPBACK, input.len());
        let options = TestRunOptions {
            data_in: Some(&input),
            data_out: Some(&mut frame),
            ctx_in: Some(&context),
            repeat,
            ..TestRunOptions::new()
        };
        // The kernel's own figure has no fractions. The time on the clock has waiting in it: before and after the runs the
        // kernel changes the code that calls the program, and waits until nobody runs it.
        let started = cpu_time_ns();
        let result = program(&self.ebpf, RESTORE)?.test_run(options).context("running the bench's program")?;
        let ns = (cpu_time_ns() - started) / f64::from(repeat);
        let Ok(verdict) = Verdict::of(Hook::Xdp, result.return_value) else {
            bail!("the frame was not made anew, or led nowhere")
        };
        frame.truncate(result.data_size_out as usize);
        Ok(Ran { verdict, frame, ns })
    }
}

fn program<'a>(ebpf: &'a Ebpf, name: &str) -> Result<&'a Xdp> {
    Ok(ebpf.program(name).with_context(|| format!("the bench's object has no program {name}"))?.try_into()?)
}

fn take(ebpf: &mut Ebpf, name: &str) -> Result<Map> {
    ebpf.take_map(name).with_context(|| format!("the bench's object has no map {name}"))
}

/// What this thread has used of the CPU, nanoseconds.
fn cpu_time_ns() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as f64 * 1e9 + now.tv_nsec as f64
}
