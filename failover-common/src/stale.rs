//! The rules that say whether a TCP segment of an unknown flow may be called stale.
//!
//! The invariant, in one line: *nothing that lives on this node, or might, is ever reset.* A flow that no socket here
//! has is stale when a peer told before the takeover that it was the peer's; or when this node saw no handshake of it,
//! as long as it has missed none since the takeover.
//!
//! Deliberately absent: packets and maps, which are `failover-ebpf/src/tcp.rs`'s.

use crate::abi::{Heard, ResetBudget, Takeover};
use crate::lease::{LEASE_INTERVALS, NS_PER_CS};

/// Resets that one CPU may send in a burst: a hundredth of a second's.
const BURST_PER_SECOND: u64 = 100;
const NANO: u64 = 1_000_000_000;

/// Whether every flow that began on this node since it took over is known by its handshake: something was taken over,
/// and no handshake has been missed since.
#[inline(always)]
pub const fn is_memory_whole(takeover: &Takeover, missed: u64) -> bool {
    takeover.at_ns != 0 && missed == takeover.missed_before
}

/// Whether a flow that a peer told of at `since_ns` was the peer's when this node took over. What is told later is a
/// socket that the peer has left over, and the flow may be another one with the same ends by now.
#[inline(always)]
pub const fn is_taken_over(takeover: &Takeover, since_ns: u64) -> bool {
    since_ns < takeover.at_ns
}

/// Whether another station acted as owner of the address since the takeover, and may still think that it is: it would
/// have fallen silent a lease and an interval after it was last heard.
#[inline(always)]
pub const fn is_split(takeover: &Takeover, heard: &Heard, own_interval_cs: u16, now_ns: u64) -> bool {
    let interval_cs = if heard.interval_cs > own_interval_cs { heard.interval_cs } else { own_interval_cs };
    let patience_ns = (LEASE_INTERVALS + 1) * interval_cs as u64 * NS_PER_CS;
    heard.last_foreign_ns > takeover.at_ns && now_ns < heard.last_foreign_ns.saturating_add(patience_ns)
}

/// Takes one token: whether there was one, and the bucket as it is then.
#[inline(always)]
pub const fn take_token(bucket: &ResetBudget, resets_per_second: u64, now_ns: u64) -> (bool, ResetBudget) {
    let resets_per_second = if resets_per_second > NANO { NANO } else { resets_per_second };
    // A burst of at least one, or a low rate would never send any.
    let burst = if resets_per_second < BURST_PER_SECOND { 1 } else { resets_per_second / BURST_PER_SECOND };
    let full_nano = burst * NANO;
    let tokens_nano = if bucket.filled_ns == 0 {
        full_nano
    } else {
        // At most a second's worth counts, so that the product fits (the target has no 128-bit multiplication).
        let elapsed_ns = now_ns.saturating_sub(bucket.filled_ns);
        let elapsed_ns = if elapsed_ns > NANO { NANO } else { elapsed_ns };
        let tokens_nano = bucket.tokens_nano.saturating_add(elapsed_ns * resets_per_second);
        if tokens_nano > full_nano { full_nano } else { tokens_nano }
    };
    if tokens_nano < NANO {
        return (false, ResetBudget { tokens_nano, filled_ns: now_ns });
    }
    (true, ResetBudget { tokens_nano: tokens_nano - NANO, filled_ns: now_ns })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAKEOVER: Takeover = Takeover { at_ns: 1_000, missed_before: 10 };

    #[test]
    fn the_memory_is_whole_until_a_handshake_is_missed() {
        assert!(is_memory_whole(&TAKEOVER, 10));
        assert!(!is_memory_whole(&TAKEOVER, 11));
        assert!(!is_memory_whole(&Takeover::default(), 0), "nothing was taken over");
    }

    #[test]
    fn only_what_was_told_before_was_taken_over() {
        assert!(is_taken_over(&TAKEOVER, 999));
        assert!(!is_taken_over(&TAKEOVER, 1_000));
        assert!(!is_taken_over(&Takeover::default(), 0));
    }

    #[test]
    fn another_owner_counts_after_the_takeover_and_until_its_lease_must_be_over() {
        let heard = |last_foreign_ns, interval_cs| Heard { last_foreign_ns, interval_cs, ..Heard::default() };
        assert!(!is_split(&TAKEOVER, &heard(0, 0), 10, 2_000));
        assert!(!is_split(&TAKEOVER, &heard(1_000, 10), 10, 1_001), "before, or at, the takeover");
        // Four intervals of 100 ms.
        assert!(is_split(&TAKEOVER, &heard(2_000, 10), 10, 400_001_999));
        assert!(!is_split(&TAKEOVER, &heard(2_000, 10), 10, 400_002_000));
        // The longer interval of the two.
        assert!(is_split(&TAKEOVER, &heard(2_000, 100), 10, 4_000_001_999));
        assert!(is_split(&TAKEOVER, &heard(2_000, 1), 10, 400_001_999));
    }

    #[test]
    fn a_bucket_gives_a_burst_then_the_rate() {
        // 1,000 a second: a burst of 10, then one each millisecond.
        let mut bucket = ResetBudget::default();
        for _ in 0..10 {
            let (taken, next) = take_token(&bucket, 1_000, 5_000_000_000);
            assert!(taken);
            bucket = next;
        }
        assert!(!take_token(&bucket, 1_000, 5_000_000_000).0);
        assert!(!take_token(&bucket, 1_000, 5_000_999_999).0);
        let (taken, next) = take_token(&bucket, 1_000, 5_001_000_000);
        assert!(taken);
        assert!(!take_token(&next, 1_000, 5_001_000_000).0);
        // A long silence fills no more than the burst, and time that stands still or runs back fills nothing.
        let (_, next) = take_token(&next, 1_000, u64::MAX);
        assert_eq!(next.tokens_nano, 9 * 1_000_000_000);
        assert!(!take_token(&ResetBudget { tokens_nano: 0, filled_ns: 100 }, 1_000, 50).0);
    }

    #[test]
    fn a_refused_token_loses_no_time() {
        let mut bucket = ResetBudget { tokens_nano: 0, filled_ns: 1 };
        let mut taken = 0;
        // Asked every 100 us for a second at 1,000 a second.
        for at_ns in (1..=1_000_000_001_u64).step_by(100_000) {
            let (yes, next) = take_token(&bucket, 1_000, at_ns);
            taken += u64::from(yes);
            bucket = next;
        }
        assert_eq!(taken, 1_000);
    }

    #[test]
    fn low_rates_still_send() {
        assert!(take_token(&ResetBudget::default(), 1, 7).0);
        let (_, empty) = take_token(&ResetBudget::default(), 1, 7);
        assert!(!take_token(&empty, 1, 1_000_000_006).0);
        assert!(take_token(&empty, 1, 1_000_000_007).0);
    }
}
