//! Tells of refused adverts, now and then: RFC 9568 7.1 asks for a log line, rate-limited. A peer
//! whose adverts are refused becomes a second Active, so somebody has to look.

use std::path::{Path, PathBuf};
use std::time::Duration;

use failover_common::abi::{Counter, Counters};
use tokio::time::Instant;

use crate::dataplane::maps;

/// How often the counters are looked at.
const PERIOD: Duration = Duration::from_secs(10);

/// Each refusal that a misconfigured peer causes, and what to compare.
const HINTS: [(Counter, &str); 10] = [
    (Counter::AdvertBadTtl, "TTL below 255: it was forwarded, or its sender is no router on this link"),
    (Counter::AdvertBadVersion, "another VRRP version: compare `version` with the peer's"),
    (Counter::AdvertBadType, "a type other than 1"),
    (Counter::AdvertBadLength, "shorter than its address count says"),
    (Counter::AdvertBadChecksum, "a wrong checksum"),
    (Counter::AdvertNoAddress, "no address in it"),
    (Counter::AdvertZeroInterval, "an interval of 0"),
    (Counter::AdvertBadAuthentication, "another password, or none: compare `password` with the peer's"),
    (Counter::AdvertOtherInterval, "another interval: version 2 needs the same `advert_interval` on all routers"),
    (Counter::AdvertBadIp, "a fragment, or a wrong IPv4 header checksum"),
];

/// The counters as last looked at.
pub struct Refusals {
    pin_path: PathBuf,
    before: Counters,
    next_look: Instant,
}

impl Refusals {
    /// Counts from now on.
    pub fn new(pin_path: &Path) -> Self {
        let before = maps::read_counters(pin_path).unwrap_or_default();
        Self { pin_path: pin_path.to_path_buf(), before, next_look: Instant::now() + PERIOD }
    }

    /// When [`Self::look`] is due.
    pub fn next_look(&self) -> Instant {
        self.next_look
    }

    /// Looks, and tells what was refused since.
    pub fn look(&mut self) {
        self.next_look = Instant::now() + PERIOD;
        let Ok(now) = maps::read_counters(&self.pin_path) else { return };
        for (counter, hint) in HINTS {
            let refused = now.get(counter).saturating_sub(self.before.get(counter));
            if refused > 0 {
                tracing::warn!(refused, seconds = PERIOD.as_secs(), "adverts refused: {hint}");
            }
        }
        self.before = now;
    }
}
