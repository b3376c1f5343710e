//! The rules that decide whether this node may answer: the lease, and who beats whom.
//!
//! The invariant, in one line: *a lease is only ever stored from an advert that was sent, and ends
//! before a peer that heard that advert may take over.* The kernel program, the controller and the
//! simulator all call these functions; nobody has a copy.
//!
//! Deliberately absent: storage. Where the two words live is `abi::router`, who writes them is
//! said there.

use crate::address::Address;

/// Nanoseconds in a centisecond, the unit of RFC 9568's Max Advertise Interval.
pub const NS_PER_CS: u64 = 10_000_000;

/// How many advert intervals a lease lasts: what RFC 9568 6.1 makes peers wait (3 x
/// Active_Adver_Interval), without the skew that they wait on top.
pub const LEASE_INTERVALS: u64 = 3;

/// The end of a lease, in CLOCK_BOOTTIME nanoseconds.
///
/// `before_send_ns` must be read *before* the advert was handed to the kernel: a peer starts to
/// count when it receives it, which is later.
#[inline(always)]
pub const fn lease_until_ns(before_send_ns: u64, advert_interval_cs: u16) -> u64 {
    before_send_ns.saturating_add(LEASE_INTERVALS * advert_interval_cs as u64 * NS_PER_CS)
}

/// Whether a node may answer for its virtual addresses at `now_ns`.
///
/// `last_superior_ns` is when the kernel last heard an advert that beats this node, and
/// `claimed_after_ns` is what that was when the controller claimed. While they differ, a claim made
/// in ignorance of such an advert, and a renewal after one, are void without anybody having to take
/// them back.
#[inline(always)]
pub const fn is_live(now_ns: u64, lease_until_ns: u64, claimed_after_ns: u64, last_superior_ns: u64) -> bool {
    now_ns < lease_until_ns && claimed_after_ns == last_superior_ns
}

/// Whether a peer's advert deposes this node: RFC 9568 6.4.3, priority greater, or equal and the
/// sender's primary address greater. Priority 0 (a release) never does.
#[inline(always)]
pub fn beats(peer_priority: u8, peer: &Address, own_priority: u8, own: &Address) -> bool {
    peer_priority > own_priority || (peer_priority == own_priority && peer_priority != 0 && peer > own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_lasts_three_intervals_from_before_the_send() {
        // 100 cs = 1 s, so 3 s after second 5.
        assert_eq!(lease_until_ns(5_000_000_000, 100), 8_000_000_000);
        // 1 cs: 30 ms.
        assert_eq!(lease_until_ns(0, 1), 30_000_000);
        assert_eq!(lease_until_ns(u64::MAX - 1, 4095), u64::MAX);
    }

    #[test]
    fn a_lease_is_dead_at_its_last_nanosecond_and_after_a_superior_advert() {
        assert!(!is_live(100, 100, 7, 7));
        assert!(!is_live(101, 100, 7, 7));
        assert!(!is_live(99, 100, 7, 8));
        assert!(!is_live(0, 0, 0, 0), "an untouched entry must not answer");
        assert!(is_live(99, 100, 7, 7));
    }

    #[test]
    fn greater_priority_wins_then_the_greater_address() {
        let low = Address::from_ipv4([192, 0, 2, 1]);
        let high = Address::from_ipv4([192, 0, 2, 2]);
        assert!(!beats(99, &high, 100, &low));
        assert!(!beats(100, &low, 100, &high));
        assert!(!beats(100, &low, 100, &low), "one's own advert beats nobody");
        assert!(!beats(0, &high, 0, &low), "a release claims nothing");
        assert!(beats(101, &low, 100, &high));
        assert!(beats(100, &high, 100, &low));
    }
}
