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
        for (refused, hint) in refused(&self.before, &now) {
            tracing::warn!(refused, seconds = PERIOD.as_secs(), "adverts refused: {hint}");
        }
        self.before = now;
    }
}

/// How many adverts each check refused between two looks, if any, and the hint.
fn refused(before: &Counters, now: &Counters) -> Vec<(u64, &'static str)> {
    let refused = HINTS.map(|(counter, hint)| (now.get(counter).saturating_sub(before.get(counter)), hint));
    refused.into_iter().filter(|(refused, _)| *refused > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The checks of RFC 9568 7.1 with errata 8299 and 8301, and of RFC 3768 7.1, in a counter each.
    fn one_of_each() -> [(Counters, &'static str); 9] {
        let none = Counters::default();
        [
            (Counters { advert_bad_ttl: 1, ..none }, "TTL"),
            (Counters { advert_bad_version: 1, ..none }, "version"),
            (Counters { advert_bad_type: 1, ..none }, "type"),
            (Counters { advert_bad_length: 1, ..none }, "shorter"),
            (Counters { advert_bad_checksum: 1, ..none }, "checksum"),
            (Counters { advert_no_address: 1, ..none }, "no address"),
            (Counters { advert_zero_interval: 1, ..none }, "interval of 0"),
            (Counters { advert_bad_authentication: 1, ..none }, "password"),
            (Counters { advert_other_interval: 1, ..none }, "another interval"),
        ]
    }

    #[test]
    fn every_check_that_the_rfcs_want_logged_has_its_line() {
        for (now, word) in one_of_each() {
            let told = refused(&Counters::default(), &now);
            let [(1, hint)] = told[..] else { panic!("{word}: {told:?}") };
            assert!(hint.contains(word), "{word}: {hint}");
        }
    }

    #[test]
    fn a_flood_is_one_line_and_what_was_told_is_not_told_again() {
        for (counted, _) in one_of_each() {
            let mut flood = Counters::default();
            (0..100_000).for_each(|_| flood.add(&counted));
            let told = refused(&counted, &flood);
            assert!(matches!(told[..], [(99_999, _)]), "{told:?}");
            assert_eq!(refused(&flood, &flood), []);
        }
    }

    #[test]
    fn what_was_not_refused_is_not_told() {
        let now = Counters { advert_valid: 7, advert_superior: 7, arp_silenced: 7, ..Counters::default() };
        assert_eq!(refused(&Counters::default(), &now), []);
    }
}
