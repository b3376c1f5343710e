//! Who gets the CPU: hogs that take it, and instruments that must have it all the same.

use std::fs;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

use crate::wait;

/// How a thread is scheduled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// As everything is.
    Normal,
    /// SCHED_FIFO at this priority; a hog is on a core of its own as long as there are cores.
    Fifo(u8),
}

/// Spins on that many threads of each class for that long, and returns the CPU time that they got. Nothing need run
/// to end them.
///
/// # Errors
/// When a thread cannot be started or scheduled so.
pub fn hog(hogs: &[(usize, Class)], length: Duration) -> Result<Duration> {
    let end = Instant::now() + length;
    thread::scope(|scope| {
        let all = hogs.iter().flat_map(|(count, class)| (0..*count).map(move |number| (number, *class)));
        let threads = all.map(|(number, class)| {
            thread::Builder::new().name("hog".into()).spawn_scoped(scope, move || spin(number, class, end))
        });
        let threads: Vec<_> = threads.collect::<io::Result<_>>().context("starting the hogs")?;
        let times = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| anyhow::bail!("a hog panicked")));
        times.sum()
    })
}

fn spin(number: usize, class: Class, end: Instant) -> Result<Duration> {
    if class != Class::Normal {
        pin(number % cores())?;
        schedule(None, class)?;
    }
    while Instant::now() < end {
        std::hint::spin_loop();
    }
    let used = clock_gettime(ClockId::ThreadCPUTime);
    Ok(Duration::new(used.tv_sec.cast_unsigned(), used.tv_nsec as u32))
}

/// How many cores this process may use.
pub fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Binds the calling thread to a core.
///
/// # Errors
/// When there is none of that number.
pub fn pin(core: usize) -> Result<()> {
    pin_thread(None, core)
}

/// Binds a thread to a core; without one the calling thread.
///
/// # Errors
/// As [`pin`].
pub fn pin_thread(thread: Option<Pid>, core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(thread, &set).with_context(|| format!("binding a thread to core {core}"))
}

/// Schedules a thread, a kernel's perhaps; without one the calling thread.
///
/// # Errors
/// When the kernel refuses.
pub fn schedule(thread: Option<Pid>, class: Class) -> Result<()> {
    let (policy, priority) = match class {
        Class::Normal => (libc::SCHED_OTHER, 0),
        Class::Fifo(priority) => (libc::SCHED_FIFO, priority),
    };
    let parameters = libc::sched_param { sched_priority: i32::from(priority) };
    // SAFETY: 0 is the calling thread; the pointer is to a live, initialised struct.
    let refused = unsafe { libc::sched_setscheduler(Pid::as_raw(thread), policy, &raw const parameters) } != 0;
    ensure!(!refused, "{class:?} was refused: {}", io::Error::last_os_error());
    Ok(())
}

/// Schedules this process's new threads of these names, each named as often as there are, before every other
/// (SCHED_DEADLINE, `runtime` of each millisecond at least), so that what they measure is not their own want of CPU.
/// Unlike SCHED_FIFO it is not held back when real-time hogs have used up the kernel's budget (sched_rt_runtime_us).
///
/// # Errors
/// When the kernel refuses, or there are not as many.
pub fn prefer(names: &[&str], runtime: Duration) -> Result<()> {
    /// `struct sched_attr` of sched_setattr(2), in its first form.
    #[repr(C)]
    struct Attributes {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime_ns: u64,
        deadline_ns: u64,
        period_ns: u64,
    }
    let attributes = Attributes {
        size: size_of::<Attributes>() as u32,
        policy: libc::SCHED_DEADLINE as u32,
        // Time that others leave may be used, too: the kernel books a flood's packets on whoever is interrupted.
        flags: libc::SCHED_FLAG_RECLAIM as u64,
        nice: 0,
        priority: 0,
        runtime_ns: runtime.as_nanos() as u64,
        deadline_ns: 1_000_000,
        period_ns: 1_000_000,
    };
    // A thread gets its name after it has started.
    wait::until(&format!("the threads {}", names.join(", ")), || threads(names).len() == names.len())?;
    for id in threads(names) {
        // SAFETY: the pointer is to a live, initialised struct of the size that it says.
        let refused = unsafe { libc::syscall(libc::SYS_sched_setattr, id, &raw const attributes, 0) } != 0;
        ensure!(!refused, "SCHED_DEADLINE was refused: {}", io::Error::last_os_error());
    }
    Ok(())
}

/// The ids of this process's threads of these names that are not preferred yet.
fn threads(names: &[&str]) -> Vec<libc::c_long> {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let named = tasks.filter(|task| {
        let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        names.contains(&name.trim())
    });
    let ids = named.filter_map(|task| task.file_name().to_str()?.parse().ok());
    // SAFETY: no pointers.
    ids.filter(|id: &libc::c_long| unsafe { libc::sched_getscheduler(*id as libc::pid_t) } != libc::SCHED_DEADLINE)
        .collect()
}
