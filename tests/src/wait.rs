//! Waiting for a condition, never for a time.

use std::env;
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(2);
/// Long enough for anything that happens at all on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// [`PATIENCE`], or as many times that as `FAILOVER_SLOWNESS` says: an emulated machine takes its time for everything.
fn patience() -> Duration {
    let slowness = env::var("FAILOVER_SLOWNESS").ok().and_then(|text| text.parse().ok());
    PATIENCE * slowness.unwrap_or(1)
}

/// Waits until `condition` holds; `what` completes "waited 20s for ...".
///
/// # Errors
/// When it never does.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) -> Result<()> {
    let (start, patience) = (Instant::now(), patience());
    while !condition() {
        if start.elapsed() > patience {
            bail!("waited {patience:?} for {what}");
        }
        thread::sleep(POLL);
    }
    Ok(())
}

/// Asserts that `condition` goes on holding for a while that the protocol gives a meaning to.
///
/// # Errors
/// As soon as it does not.
pub fn holds_for(what: &str, time: Duration, mut condition: impl FnMut() -> bool) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < time {
        if !condition() {
            bail!("after {:?}: no more {what}", start.elapsed());
        }
        thread::sleep(POLL);
    }
    Ok(())
}

/// Waits until there is something to read, or the time has passed. A socket's own receive timeout
/// counts in the kernel's ticks, which here are as long as what is to be measured.
pub fn readable(fd: impl AsFd, time: Duration) -> bool {
    let timeout = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) };
    poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)).is_ok_and(|ready| ready > 0)
}
