//! The protocol's arithmetic, in integers: what a wrong unit here would do to everybody is why it
//! stands alone.

use failover_common::lease::{LEASE_INTERVALS, NS_PER_CS};

/// How long an Active that preempts a live one waits between its first advert and its own lease:
/// the time for the advert to arrive and for the other node's kernel program to let go.
pub const PREEMPT_HOLD_NS: u64 = 2_000_000;

/// An interval in nanoseconds.
pub const fn interval_ns(interval_cs: u16) -> u64 {
    interval_cs as u64 * NS_PER_CS
}

/// Skew_Time. Version 3: (256 - priority) * Active_Adver_Interval / 256 (RFC 9568 6.1). Version 2:
/// (256 - priority) / 256 seconds, whatever the interval (RFC 3768 6.1).
pub const fn skew_ns(version: u8, priority: u8, active_interval_cs: u16) -> u64 {
    let base_ns = if version == 2 { 1_000_000_000 } else { interval_ns(active_interval_cs) };
    (256 - priority as u64) * base_ns / 256
}

/// Active_Down_Interval: 3 * Active_Adver_Interval + Skew_Time (RFC 9568 6.1).
pub const fn active_down_ns(version: u8, priority: u8, active_interval_cs: u16) -> u64 {
    LEASE_INTERVALS * interval_ns(active_interval_cs) + skew_ns(version, priority, active_interval_cs)
}

/// Parts of an interval in which the virtual routers of a node take turns. More would be more wake-ups, each with cold
/// caches.
const TURNS: usize = 5;

/// When in each interval it is the turn of one virtual router of `count`; `None`: it is the only one.
///
/// Those that advertise together are missed together: the last one's addresses would have to wait for all others'.
pub fn turn_ns(index: usize, count: usize, interval_cs: u16) -> Option<u64> {
    let turns = count.min(TURNS);
    (turns > 1).then(|| (index % turns) as u64 * interval_ns(interval_cs) / turns as u64)
}

/// The first turn after `from_ns`, an interval later at most. `turn_ns` is less than an interval.
pub const fn next_turn_ns(from_ns: u64, turn_ns: u64, interval_ns: u64) -> u64 {
    let elapsed_ns = (from_ns + interval_ns - turn_ns) % interval_ns;
    from_ns + interval_ns - elapsed_ns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_spread_over_the_interval() {
        assert_eq!(turn_ns(0, 1, 10), None);
        // 100 ms among three, and among five at most.
        assert_eq!([0, 1, 2].map(|index| turn_ns(index, 3, 10)), [0, 33_333_333, 66_666_666].map(Some));
        assert_eq!([0, 4, 5, 253].map(|index| turn_ns(index, 256, 10)), [0, 80_000_000, 0, 60_000_000].map(Some));
        // The shortest interval and the longest.
        assert_eq!([1, 4_095].map(|interval_cs| turn_ns(4, 5, interval_cs)), [8_000_000, 32_760_000_000].map(Some));
    }

    #[test]
    fn the_next_turn_is_within_an_interval() {
        for (from_ns, next_ns) in [(0, 30), (29, 30), (30, 130), (31, 130), (129, 130), (130, 230), (1_000, 1_030)] {
            assert_eq!(next_turn_ns(from_ns, 30, 100), next_ns, "after {from_ns}");
        }
        assert_eq!([0, 1, 99, 100].map(|from_ns| next_turn_ns(from_ns, 0, 100)), [100, 100, 100, 200]);
    }

    // By hand, from the formulas; 106/256 = 0.4140625, 156/256 = 0.609375, 1/256 = 0.00390625.
    #[test]
    fn skew_and_active_down_interval() {
        assert_eq!(skew_ns(3, 150, 100), 414_062_500);
        assert_eq!(active_down_ns(3, 100, 100), 3_609_375_000);
        assert_eq!(active_down_ns(3, 255, 100), 3_003_906_250);
        assert_eq!(active_down_ns(3, 254, 1), 30_078_125);
        assert_eq!(active_down_ns(3, 1, 4095), 122_850_000_000 + 40_790_039_062);
        assert_eq!(active_down_ns(2, 100, 100), 3_609_375_000);
        assert_eq!(active_down_ns(2, 100, 500), 15_609_375_000, "version 2's skew is of a second");
    }

    #[test]
    fn a_lower_priority_always_waits_longer() {
        for version in [2, 3] {
            for interval_cs in [1, 10, 100] {
                for priority in 1..255 {
                    assert!(skew_ns(version, priority, interval_cs) > skew_ns(version, priority + 1, interval_cs));
                }
                assert!(skew_ns(version, 255, interval_cs) > 0, "the lease must end before the patience of any peer");
            }
        }
    }
}
