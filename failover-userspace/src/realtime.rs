//! Scheduling of the threads that must not be late: real-time, or what an ordinary thread can ask for.

use std::{io, thread};

use rustix::process::getpriority_process;

/// Whether [`enable`] will do, tried on a thread that then ends: before anything is loaded.
///
/// # Errors
/// Those of [`enable`].
pub fn try_out(priority: u8) -> anyhow::Result<()> {
    thread::spawn(move || enable(priority)).join().unwrap_or_else(|_| anyhow::bail!("trying SCHED_FIFO panicked"))
}

/// About what such a thread does at a time, and the kernel's least. Everybody else's is a millisecond or more.
const SLICE_NS: u64 = 100_000;

/// What the kernel gives its own urgent workers: what does not fit into one slice waits for no CPU hog, either.
const NICE: i32 = -20;

/// Puts the calling thread under SCHED_FIFO at `priority` (1 to 99) and locks the process's
/// memory. 0 only asks for short turns that come early.
///
/// # Errors
/// With what to do about it: both need a capability or a limit.
pub fn enable(priority: u8) -> anyhow::Result<()> {
    if priority == 0 {
        ask_for_early_turns();
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
/// and later). Earlier kernels take the niceness only, and one that refuses leaves things as they are.
fn ask_for_early_turns() {
    // SAFETY: no pointers; 0 is the calling thread.
    let is_ordinary = unsafe { libc::sched_getscheduler(0) } == libc::SCHED_OTHER;
    let Some(nice) = getpriority_process(None).ok().filter(|_| is_ordinary) else {
        // Whoever started us has chosen something else.
        return;
    };
    // So has whoever gave us another niceness; and without CAP_SYS_NICE there is none to be had.
    if nice != 0 || !ask(NICE) {
        ask(nice);
    }
}

/// Whether the kernel took it.
fn ask(nice: i32) -> bool {
    // SAFETY: a `sched_attr` of zeros is a valid one.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    attributes.size = size_of::<libc::sched_attr>() as u32;
    attributes.sched_policy = libc::SCHED_OTHER as u32;
    attributes.sched_nice = nice;
    attributes.sched_runtime = SLICE_NS;
    // SAFETY: the pointer is to a live `sched_attr` of the size that it says.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) == 0 }
}

#[cfg(test)]
mod tests {
    use rustix::process::setpriority_process;

    use super::*;

    /// The niceness of a new thread that first chooses one itself, or not, and then asks.
    fn nice_after(chosen: Option<i32>) -> i32 {
        // `None` is the calling thread: on Linux each has a niceness of its own.
        let asking = thread::spawn(move || {
            chosen.map_or(Ok(()), |nice| setpriority_process(None, nice)).expect("a thread may be nicer");
            enable(0).expect("nothing that could be refused");
            getpriority_process(None).expect("one's own is no secret")
        });
        asking.join().expect("the thread")
    }

    #[test]
    fn an_ordinary_thread_is_let_in_before_the_others() {
        if thread::spawn(|| setpriority_process(None, -20).is_ok()).join().expect("the thread") {
            assert_eq!(nice_after(Some(0)), -20);
        } else {
            // Who lacks CAP_SYS_NICE stays as it was.
            assert_eq!(nice_after(None), getpriority_process(None).expect("one's own is no secret"));
        }
    }

    #[test]
    fn whoever_chose_a_niceness_keeps_it() {
        assert_eq!(nice_after(Some(19)), 19);
    }
}
