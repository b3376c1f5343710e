//! Scheduling of the threads that must not be late: real-time, or what an ordinary thread can ask for.

use std::{io, thread};

/// Whether [`enable`] will do, tried on a thread that then ends: before anything is loaded.
///
/// # Errors
/// Those of [`enable`].
pub fn try_out(priority: u8) -> anyhow::Result<()> {
    thread::spawn(move || enable(priority)).join().unwrap_or_else(|_| anyhow::bail!("trying SCHED_FIFO panicked"))
}

/// About what such a thread does at a time, and the kernel's least. Everybody else's is a millisecond or more.
const SLICE_NS: u64 = 100_000;

/// Puts the calling thread under SCHED_FIFO at `priority` (1 to 99) and locks the process's
/// memory. 0 only asks for short turns.
///
/// # Errors
/// With what to do about it: both need a capability or a limit.
pub fn enable(priority: u8) -> anyhow::Result<()> {
    if priority == 0 {
        ask_for_short_turns();
        return Ok(());
    }
    let parameters = libc::sched_param { sched_priority: i32::from(priority) };
    // SAFETY: 0 is the calling thread; the pointer is to a live, initialised struct.
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) } != 0 {
        anyhow::bail!(
            "realtime_priority = {priority}: SCHED_FIFO was refused ({}); run as root or with CAP_SYS_NICE, and in a \
             cgroup that has a real-time budget",
            io::Error::last_os_error()
        );
    }
    rustix::mm::mlockall(rustix::mm::MlockAllFlags::CURRENT | rustix::mm::MlockAllFlags::FUTURE).map_err(|error| {
        anyhow::anyhow!("realtime_priority = {priority}: mlockall was refused ({error}); needs CAP_IPC_LOCK")
    })
}

/// An ordinary thread that wants the CPU for a short time is let in before those that want it for long (EEVDF, Linux 6.12
/// and later). Earlier kernels take no notice, and one that refuses leaves things as they are.
fn ask_for_short_turns() {
    // SAFETY: no pointers; 0 is the calling thread.
    let (policy, nice) = unsafe { (libc::sched_getscheduler(0), libc::getpriority(libc::PRIO_PROCESS, 0)) };
    if policy != libc::SCHED_OTHER {
        // Whoever started us has chosen something else.
        return;
    }
    // SAFETY: a `sched_attr` of zeros is a valid one.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    attributes.size = size_of::<libc::sched_attr>() as u32;
    attributes.sched_policy = libc::SCHED_OTHER as u32;
    attributes.sched_nice = nice;
    attributes.sched_runtime = SLICE_NS;
    // SAFETY: the pointer is to a live `sched_attr` of the size that it says.
    let _ = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
}
