//! Real-time scheduling of the threads that must not be late.

use std::{io, thread};

/// Whether [`enable`] will do, tried on a thread that then ends: before anything is loaded.
///
/// # Errors
/// Those of [`enable`].
pub fn try_out(priority: u8) -> anyhow::Result<()> {
    thread::spawn(move || enable(priority)).join().unwrap_or_else(|_| anyhow::bail!("trying SCHED_FIFO panicked"))
}

/// Puts the calling thread under SCHED_FIFO at `priority` (1 to 99) and locks the process's
/// memory. 0 does nothing.
///
/// # Errors
/// With what to do about it: both need a capability or a limit.
pub fn enable(priority: u8) -> anyhow::Result<()> {
    if priority == 0 {
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
