//! CLOCK_BOOTTIME, the one clock: what the kernel program stamps with, what leases end by, and a
//! timer on it that tokio can wait for. Also the wall clock, for people.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fd::OwnedFd;
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;

use crate::readable::readable;

const NS_PER_S: u64 = 1_000_000_000;

/// Nanoseconds since boot, suspended time included: a machine that wakes up finds its lease over.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec as u64 * NS_PER_S + now.tv_nsec as u64
}

/// Milliseconds since 1970.
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// An absolute timer. tokio's own resolves a millisecond, which is a tenth of an advert interval.
pub struct Timer(AsyncFd<OwnedFd>);

impl Timer {
    /// A timer that is not armed.
    ///
    /// # Errors
    /// Those of timerfd_create(2), and a missing tokio reactor.
    pub fn new() -> io::Result<Self> {
        let fd = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        Ok(Self(readable(fd)?))
    }

    /// Arms it for `at_ns` of [`now_ns`]'s clock; a time that has passed fires at once. `None`
    /// disarms it.
    ///
    /// # Errors
    /// Those of timerfd_settime(2).
    pub fn arm(&self, at_ns: Option<u64>) -> io::Result<()> {
        // Zero would disarm.
        let at_ns = at_ns.map_or(0, |at_ns| at_ns.max(1));
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let at = Timespec { tv_sec: (at_ns / NS_PER_S) as i64, tv_nsec: (at_ns % NS_PER_S) as i64 };
        let spec = Itimerspec { it_interval: zero, it_value: at };
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::ABSTIME, &spec)?;
        Ok(())
    }

    /// Waits until it fires. Cancel safe.
    ///
    /// # Errors
    /// Those of the reactor.
    pub async fn fired(&self) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            let mut expirations = [0; 8];
            match ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut expirations)?)) {
                Ok(read) => return read.map(drop),
                Err(_would_block) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_past_deadline_fires_and_none_before_it() {
        let timer = Timer::new().unwrap();
        let at_ns = now_ns() + 5_000_000;
        timer.arm(Some(at_ns)).unwrap();
        timer.fired().await.unwrap();
        assert!(now_ns() >= at_ns);
        timer.arm(Some(1)).unwrap();
        timer.fired().await.unwrap();
    }
}
