//! What is said of other routers, and how often: a line a minute of each kind, so that whoever causes them does not fill
//! a disk.
//!
//! Deliberately absent: what is done about it. That is the election's.

use failover_common::wire::vrrp::{PRIORITY_OWNER, PRIORITY_RELEASE};

/// What is wrong when an advert of `priority` comes to a router of `own_priority`: RFC 9568 2.5 and 8.3.2 and erratum
/// 8298 ask for a log line where routers are Active side by side, or own the same addresses. `None`: nothing is.
/// `is_serving`: this node holds its lease; `beats`: the advert ends that.
pub fn rivalry(own_priority: u8, is_serving: bool, priority: u8, beats: bool) -> Option<&'static str> {
    if own_priority == PRIORITY_OWNER && priority == PRIORITY_OWNER {
        Some("two routers say that they own the addresses: only one may have priority 255")
    } else if is_serving && !beats && priority != PRIORITY_RELEASE {
        Some(
            "another router advertises while this one serves: it does not hear this one's adverts, or refuses them, or \
             they come too late",
        )
    } else {
        None
    }
}

/// Lets one message through a minute.
#[derive(Default)]
pub struct Quiet {
    told_at_ns: Option<u64>,
}

impl Quiet {
    /// Whether the message at hand is the one.
    pub fn is_due(&mut self, now_ns: u64) -> bool {
        const GAP_NS: u64 = 60_000_000_000;
        let is_due = self.told_at_ns.is_none_or(|told_at_ns| now_ns.saturating_sub(told_at_ns) >= GAP_NS);
        if is_due {
            self.told_at_ns = Some(now_ns);
        }
        is_due
    }
}

/// A hardware address for people.
pub struct Hex(pub [u8; 6]);

impl std::fmt::Display for Hex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_said_of_adverts_that_belong_there() {
        for (own, is_serving, priority, beats, what) in [
            (150, false, 100, false, "a Backup hears one that it is about to preempt"),
            (150, false, 200, true, "a Backup hears its Active"),
            (150, true, 200, true, "an Active is preempted"),
            (150, true, 0, false, "somebody gives up"),
            (255, false, 254, false, "an owner comes back"),
            (255, true, 0, false, "somebody gives up to an owner"),
        ] {
            assert_eq!(rivalry(own, is_serving, priority, beats), None, "{what}");
        }
    }

    #[test]
    fn two_actives_and_two_owners_are_told_of() {
        for (own, priority) in [(150, 100), (150, 150), (150, 1), (255, 254), (255, 1)] {
            let told = rivalry(own, true, priority, false).expect("a second Active");
            assert!(told.starts_with("another router advertises while this one serves"), "{own}, {priority}: {told}");
        }
        for (is_serving, beats) in [(true, false), (true, true), (false, true), (false, false)] {
            let told = rivalry(255, is_serving, 255, beats).expect("a second owner");
            assert!(told.starts_with("two routers say that they own the addresses"), "{told}");
        }
    }

    #[test]
    fn a_flood_is_one_line_a_minute() {
        const MINUTE_NS: u64 = 60_000_000_000;
        let mut quiet = Quiet::default();
        let mut told = Vec::new();
        for second in 0..=125 {
            if quiet.is_due(MINUTE_NS + second * 1_000_000_000) {
                told.push(second);
            }
        }
        assert_eq!(told, [0, 60, 120]);
    }
}
