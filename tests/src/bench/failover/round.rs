//! One takeover, read from what the client saw of it.
//!
//! The protocol's floor: from an Active's last advert a Backup has to wait 3 * Advertisement_Interval + Skew_Time, from its
//! release (priority 0) Skew_Time (RFC 9568 6.4.2, 6.1). Deliberately absent: the wait for it.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::Event;
use crate::watcher::{Seen, What};

/// What came of one event. Times are milliseconds; of several addresses, the latest's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// The client's longest time between two answers.
    pub outage_ms: f64,
    /// From the floor to the new node's first answer.
    pub above_ms: f64,
    /// From the floor to the new node's first advert.
    pub advert_ms: f64,
    /// From the floor to its first announcement.
    pub announced_ms: f64,
    /// ARP questions since the event that both nodes answered.
    pub doubles: u32,
    /// And all.
    pub questions: u32,
    /// The longest time in which the client did not ask.
    pub pause_ms: f64,
    /// How long this machine took to do it.
    pub done_ms: f64,
}

/// What is known beforehand.
pub(super) struct Known<'a> {
    pub(super) event: Event,
    /// When it was about to happen, on the watcher's clock.
    pub(super) began_ns: u64,
    pub(super) interval_ns: u64,
    /// Of the node that takes over.
    pub(super) priority: u8,
    /// Hardware addresses of the node that it happens to, and of the other.
    pub(super) old: [u8; 6],
    pub(super) new: [u8; 6],
    /// The addresses that are asked for, with their VRIDs.
    pub(super) asked: &'a [(u8, Ipv4Addr)],
}

impl Known<'_> {
    /// The round as far as the client tells; `None` while the other node has not answered for all addresses.
    pub(super) fn read(&self, seen: &[Seen]) -> Option<Round> {
        let each = self.asked.iter().map(|(vrid, address)| self.read_one(seen, *vrid, *address));
        let each: Vec<Round> = each.collect::<Option<_>>()?;
        let most = |field: fn(&Round) -> f64| each.iter().map(field).fold(f64::MIN, f64::max);
        Some(Round {
            outage_ms: most(|round| round.outage_ms),
            above_ms: most(|round| round.above_ms),
            advert_ms: most(|round| round.advert_ms),
            announced_ms: most(|round| round.announced_ms),
            pause_ms: self.pause_ms(seen),
            ..each[0]
        })
    }

    fn read_one(&self, seen: &[Seen], vrid: u8, address: Ipv4Addr) -> Option<Round> {
        let first = |wanted: What| {
            let since = seen.iter().filter(|seen| seen.at_ns >= self.began_ns && same(seen.what, wanted));
            since.map(|seen| seen.at_ns).min()
        };
        let served_ns = first(What::Answer { address, by: self.new })?;
        let advert_ns = first(What::Advert { vrid, priority: 0, by: self.new })?;
        let announced_ns = first(What::Announcement { address, by: self.new })?;
        let adverts = seen.iter().filter(|seen| seen.at_ns < advert_ns);
        let last = adverts.filter(|seen| same(seen.what, What::Advert { vrid, priority: 0, by: self.old }));
        let last = last.max_by_key(|seen| seen.at_ns)?;
        let patience_ns = match (self.event, last.what) {
            (Event::Stop, What::Advert { priority: 0, .. }) => 0,
            _ => 3 * self.interval_ns,
        };
        let skew_ns = (256 - u64::from(self.priority)) * self.interval_ns / 256;
        let above = |at_ns: u64| ms(at_ns as f64 - (last.at_ns + patience_ns + skew_ns) as f64);
        Some(Round {
            outage_ms: self.outage_ms(seen, address, served_ns),
            above_ms: above(served_ns),
            advert_ms: above(advert_ns),
            announced_ms: above(announced_ns),
            doubles: 0,
            questions: 0,
            pause_ms: 0.0,
            done_ms: 0.0,
        })
    }

    /// The longest gap between answers, whoever gave them, until the new node served.
    fn outage_ms(&self, seen: &[Seen], address: Ipv4Addr, served_ns: u64) -> f64 {
        let is_answer = |seen: &&Seen| matches!(seen.what, What::Answer { address: of, .. } if of == address);
        let answers = seen.iter().filter(is_answer).map(|seen| seen.at_ns).filter(|at_ns| *at_ns <= served_ns);
        self.longest_gap_ms(answers.collect())
    }

    fn pause_ms(&self, seen: &[Seen]) -> f64 {
        self.longest_gap_ms(seen.iter().filter(|seen| seen.what == What::Asked).map(|seen| seen.at_ns).collect())
    }

    /// Of those that ended after it began.
    fn longest_gap_ms(&self, mut times: Vec<u64>) -> f64 {
        times.sort_unstable();
        let gaps = times.windows(2).filter(|pair| pair[1] >= self.began_ns).map(|pair| pair[1] - pair[0]);
        ms(gaps.max().unwrap_or_default() as f64)
    }
}

/// Whether they are the same; of adverts whatever their priority.
fn same(seen: What, wanted: What) -> bool {
    match (seen, wanted) {
        (What::Advert { vrid, by, .. }, What::Advert { vrid: of, by: from, .. }) => (vrid, by) == (of, from),
        _ => seen == wanted,
    }
}

fn ms(ns: f64) -> f64 {
    // Microseconds are all that is meant.
    (ns / 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: [u8; 6] = [2, 0, 0, 0, 0, 0xa];
    const B: [u8; 6] = [2, 0, 0, 0, 0, 0xb];
    const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);

    fn known(event: Event) -> Known<'static> {
        // Priority 128: a skew of half an interval.
        Known {
            event,
            began_ns: 12_000_000,
            interval_ns: 10_000_000,
            priority: 128,
            old: A,
            new: B,
            asked: &[(51, VIP)],
        }
    }

    fn seen(each: &[(u64, What)]) -> Vec<Seen> {
        each.iter().map(|(at_us, what)| Seen { at_ns: at_us * 1_000, what: *what }).collect()
    }

    fn answer(by: [u8; 6]) -> What {
        What::Answer { address: VIP, by }
    }

    fn advert(priority: u8, by: [u8; 6]) -> What {
        What::Advert { vrid: 51, priority, by }
    }

    const ANNOUNCED: What = What::Announcement { address: VIP, by: B };

    #[test]
    fn the_floor_of_a_cut_is_three_intervals_and_the_skew_after_the_last_advert() {
        let mut all = seen(&[
            (1_000, advert(150, A)),
            (11_000, advert(150, A)),
            (11_900, answer(A)),
            (12_100, answer(A)),
            // 11 + 30 + 5 = 46 ms.
            (46_200, advert(128, B)),
            (46_300, ANNOUNCED),
        ]);
        all.extend(seen(&[(12_000, What::Asked), (12_200, What::Asked), (12_700, What::Asked)]));
        assert_eq!(known(Event::Cut).read(&all), None);
        all.extend(seen(&[(46_450, answer(B)), (56_200, advert(128, B)), (90_000, answer(B))]));
        let round = known(Event::Cut).read(&all).expect("B has answered");
        assert_eq!((round.advert_ms, round.announced_ms, round.above_ms), (0.2, 0.3, 0.45));
        assert_eq!((round.outage_ms, round.pause_ms), (34.35, 0.5));
    }

    #[test]
    fn the_floor_of_a_stop_is_the_skew_after_the_release() {
        let mut all = seen(&[
            (11_000, advert(150, A)),
            (12_000, answer(A)),
            (13_000, advert(0, A)),
            (18_500, advert(128, B)),
            (18_600, ANNOUNCED),
            (18_700, answer(B)),
        ]);
        let round = known(Event::Stop).read(&all).expect("B has answered");
        assert_eq!((round.advert_ms, round.above_ms, round.outage_ms), (0.5, 0.7, 6.7));
        // One that said nothing is waited for as if it were dead: 11 + 35 = 46 ms.
        all.remove(2);
        let round = known(Event::Stop).read(&all).expect("B has answered");
        assert_eq!(round.above_ms, -27.3);
    }

    #[test]
    fn of_several_addresses_the_latest_counts() {
        let other = Ipv4Addr::new(192, 0, 2, 11);
        let asked = [(51, VIP), (52, other)];
        let known = Known { asked: &asked, ..known(Event::Kill) };
        let mut all = seen(&[
            (11_000, advert(150, A)),
            (11_500, What::Advert { vrid: 52, priority: 150, by: A }),
            (46_100, advert(128, B)),
            (46_100, ANNOUNCED),
            (46_200, answer(B)),
            (46_600, What::Advert { vrid: 52, priority: 128, by: B }),
        ]);
        assert_eq!(known.read(&all), None);
        all.extend(seen(&[
            (46_700, What::Announcement { address: other, by: B }),
            (46_800, What::Answer { address: other, by: B }),
        ]));
        // The floors are 46 and 46.5 ms.
        let round = known.read(&all).expect("B has answered");
        assert_eq!((round.advert_ms, round.announced_ms, round.above_ms), (0.1, 0.2, 0.3));
    }
}
