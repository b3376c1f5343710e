//! Every bit of the headers of stale segments, flipped one at a time: as they are, and with the checksums put right again.
//! Whatever comes of it, what is sent back is a reset by the RFC, and only where one may go.

use failover_common::abi::FlowOrigin;
use failover_tests::fixtures::{CLIENT_MAC, NODE_MAC, SECOND_VIP, VIP, flow_key, frame, resetting, version_3};
use failover_tests::segment::{RST, SYN, assert_resets, mend};
use failover_tests::testrun::{Outcome, TestRun, Verdict};

/// All of them without padding: each bit is a header's, or data.
const SEGMENTS: [(&str, usize); 4] = [
    ("tcp ack of 54 bytes", 54),
    ("tcp timestamps and sack", 94),
    ("tcp no ack, longest headers", 134),
    ("tcp no ack, data most", 54),
];

/// What must hold of any segment that is not the node's to answer, or is.
fn check(sent: &[u8], outcome: &Outcome) {
    match outcome.verdict {
        Verdict::Transmit => {
            assert_resets(sent, &outcome.frame);
            assert!(outcome.frame.len() <= sent.len());
            assert!(outcome.counted == [("reset_unknown_flow", 1)] || outcome.counted == [("reset_peer_flow", 1)]);
            let tcp = 14 + 4 * usize::from(sent[14] & 0x0f);
            assert_eq!(sent[tcp + 13] & (RST | SYN), 0, "no reset for a reset, or a SYN");
            assert_eq!((&sent[..6], sent[6] & 1, sent[23]), (&NODE_MAC[..], 0, 6));
            assert_eq!(u16::from_be_bytes([sent[20], sent[21]]) & 0x3fff, 0, "no reset for a fragment");
            let source = [sent[26], sent[27], sent[28], sent[29]];
            assert!(!matches!(source[0], 0 | 127 | 224..) && source != VIP && source != SECOND_VIP, "{source:?}");
            assert!(sent[30..34] == VIP || sent[30..34] == SECOND_VIP);
        }
        Verdict::Pass => {
            assert_eq!(outcome.frame, sent, "passed, and changed");
            assert!(outcome.counted.iter().map(|(_, delta)| delta).sum::<u64>() <= 1, "{:?}", outcome.counted);
        }
        Verdict::Drop => panic!("dropped: {:?}", outcome.counted),
    }
    assert_eq!(outcome.events, []);
}

/// Sends the frame with each bit flipped, and returns which flips were answered with a reset.
fn flip(node: &mut TestRun, name: &str, headers: usize, change: fn(&mut [u8])) -> Vec<(usize, u8)> {
    let good = frame(name);
    let mut answered = Vec::new();
    for at in 0..headers {
        for bit in 0..8 {
            // Some flips make a handshake.
            node.flows.forget_handshakes();
            let mut sent = good.clone();
            sent[at] ^= 1 << bit;
            change(&mut sent);
            let outcome = node.send(&sent);
            let checked = std::panic::catch_unwind(|| check(&sent, &outcome));
            assert!(checked.is_ok(), "{name}, byte {at}, bit {bit}: {outcome:02x?}\nsent {sent:02x?}");
            if outcome.verdict == Verdict::Transmit {
                answered.push((at, bit));
            }
        }
    }
    answered
}

#[test]
fn a_flipped_bit_is_answered_only_where_no_checksum_covers_it() {
    let Some(mut node) = resetting(&version_3()) else { return };
    // The source's hardware address, but its group bit.
    let uncovered: Vec<(usize, u8)> =
        (6..12).flat_map(|at| (0..8).map(move |bit| (at, bit))).filter(|flip| *flip != (6, 0)).collect();
    assert_eq!((uncovered.len(), CLIENT_MAC[0] & 1), (47, 0));
    for (name, headers) in SEGMENTS {
        assert_eq!(flip(&mut node, name, headers, |_| ()), uncovered, "{name}");
    }
}

#[test]
fn with_right_checksums_what_is_answered_is_answered_right() {
    for origin in [None, Some(FlowOrigin::Peer)] {
        let Some(mut node) = resetting(&version_3()) else { return };
        for (name, headers) in SEGMENTS {
            if let Some(origin) = origin {
                node.flows.add_flow(&flow_key(), origin);
            }
            let answered = flip(&mut node, name, headers, mend);
            println!("{name}: {} of {} flips were answered", answered.len(), headers * 8);
            // All numbers of the TCP header, most addresses of clients and all their ports.
            let tcp = 14 + 4 * usize::from(frame(name)[14] & 0x0f);
            let numbers = (tcp + 4..tcp + 12).flat_map(|at| (0..8).map(move |bit| (at, bit)));
            let client = (27..30).chain(tcp..tcp + 2).flat_map(|at| (0..8).map(move |bit| (at, bit)));
            for flip in numbers.chain(client) {
                assert!(answered.contains(&flip), "{name}: {flip:?} is a stale segment like any other");
            }
            assert!(node.counters().tcp_syn > 0 && node.counters().tcp_reset > 0, "{name}");
        }
    }
}
