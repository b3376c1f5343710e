//! What processes cost: CPU time to the nanosecond, wake-ups, memory.
//!
//! CPU time is the scheduler's own account of each process (its CPU clock), not the sum of ticks. What the kernel does
//! in interrupts meanwhile is on whoever was interrupted.

use std::fs;

use anyhow::{Context, Result};
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use crate::hogs::{Class, schedule};

/// What a daemon has used since it started, all its processes and threads together.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Used {
    /// Nanoseconds of CPU time.
    pub cpu_ns: u64,
    /// How often a thread went to sleep by itself, and so was woken.
    pub wakeups: u64,
    /// How often it was made to wait.
    pub preemptions: u64,
}

impl Used {
    pub(super) fn of(processes: &[Pid]) -> Result<Self> {
        let mut used = Self::default();
        for pid in processes {
            used.cpu_ns += cpu_ns(*pid)?;
            for task in fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero()))? {
                // A thread may end while it is looked at.
                let Ok(status) = fs::read_to_string(task?.path().join("status")) else { continue };
                used.wakeups += number(&status, "voluntary_ctxt_switches:").unwrap_or_default();
                used.preemptions += number(&status, "nonvoluntary_ctxt_switches:").unwrap_or_default();
            }
        }
        Ok(used)
    }

    pub(super) fn since(self, before: Self) -> Self {
        Self {
            cpu_ns: self.cpu_ns - before.cpu_ns,
            wakeups: self.wakeups.saturating_sub(before.wakeups),
            preemptions: self.preemptions.saturating_sub(before.preemptions),
        }
    }
}

/// Resident memory of processes, KiB: now, and at most so far.
pub(super) fn resident_kib(processes: &[Pid]) -> Result<[u64; 2]> {
    let mut sum = [0; 2];
    for pid in processes {
        let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero()))?;
        for (sum, name) in sum.iter_mut().zip(["VmRSS:", "VmHWM:"]) {
            *sum += number(&status, name).with_context(|| format!("no {name} in a process's status"))?;
        }
    }
    Ok(sum)
}

/// The kernel's threads that hand frames on for the switch's ports.
pub(super) fn wire_threads() -> Result<Vec<Pid>> {
    let mut threads = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| Pid::from_raw(name.parse().ok()?)) else { continue };
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if ["napi/edge-", "napi/client"].iter().any(|prefix| name.starts_with(prefix)) {
            threads.push(pid);
        }
    }
    Ok(threads)
}

/// Puts them before everything else: a wire waits for no daemon.
pub(super) fn prefer_wire() -> Result<()> {
    wire_threads()?.into_iter().try_for_each(|thread| schedule(Some(thread), Class::Fifo(1)))
}

/// Nanoseconds that the machine's processors were not idle, since boot.
pub(super) fn busy_ns() -> Result<u64> {
    let text = fs::read_to_string("/proc/uptime")?;
    let seconds = |word: Option<&str>| word.and_then(|word| word.parse::<f64>().ok()).context("/proc/uptime");
    let mut words = text.split_whitespace();
    let (up_s, idle_s) = (seconds(words.next())?, seconds(words.next())?);
    let cores = crate::hogs::cores() as f64;
    Ok(((up_s * cores - idle_s).max(0.0) * 1e9) as u64)
}

/// A process's CPU clock: clock_getcpuclockid(3).
fn cpu_ns(pid: Pid) -> Result<u64> {
    let mut clock: libc::clockid_t = 0;
    // SAFETY: the pointer is to a live clock id.
    let refused = unsafe { libc::clock_getcpuclockid(pid.as_raw_nonzero().get(), &raw mut clock) };
    anyhow::ensure!(refused == 0, "process {pid:?} has no CPU clock: {}", std::io::Error::from_raw_os_error(refused));
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec.
    let read = unsafe { libc::clock_gettime(clock, &raw mut time) };
    anyhow::ensure!(read == 0, "reading a CPU clock: {}", std::io::Error::last_os_error());
    Ok(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// The number behind a name at the start of a line.
fn number(status: &str, name: &str) -> Option<u64> {
    let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}
