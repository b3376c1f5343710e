//! Every bit of the headers of stale segments, flipped one at a time, as they are and with the checksums put right again;
//! and twenty thousand changes that nobody thought of. Whatever comes of it, what is sent back is a reset by the RFC, and
//! only where one may go.

use failover_common::abi::{COUNTER_NAMES, FlowOrigin};
use failover_sim::random::{Choices, Random, seed};
use failover_sim::segment::{RST, SYN, assert_resets, layers, mend, pseudo_header_sum};
use failover_tests::fixtures::{
    CLIENT_MAC, NODE_MAC, SECOND_VIP, VIP, flow_key, frame, frames, resetting, resetting_with, version_3,
};
use failover_tests::testrun::{Options, Outcome, TestRun, Verdict};

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
            let (ip, tcp) = layers(sent);
            assert_eq!(sent[tcp + 13] & (RST | SYN), 0, "no reset for a reset, or a SYN");
            assert_eq!((&sent[..6], sent[6] & 1, sent[ip + 9]), (&NODE_MAC[..], 0, 6));
            assert_eq!(u16::from_be_bytes([sent[ip + 6], sent[ip + 7]]) & 0x3fff, 0, "no reset for a fragment");
            let (source, destination) = (&sent[ip + 12..ip + 16], &sent[ip + 16..ip + 20]);
            assert!(!matches!(source[0], 0 | 127 | 224..) && source != VIP && source != SECOND_VIP, "{source:?}");
            assert!(destination == VIP || destination == SECOND_VIP);
            let mut right = sent.to_vec();
            mend(&mut right);
            // Zero has two forms, and a local stack leaves the pseudo-header's sum: those are the fixtures'.
            assert!(right == sent || is_special(sent), "a wrong checksum");
        }
        Verdict::Pass => {
            assert_eq!(outcome.frame, sent, "passed, and changed");
            assert!(outcome.counted.iter().map(|(_, delta)| delta).sum::<u64>() <= 1, "{:?}", outcome.counted);
        }
        Verdict::Drop => panic!("dropped: {:?}", outcome.counted),
    }
    assert_eq!(outcome.events, []);
}

/// Whether the checksum is one that is right without being what RFC 1071 makes of the segment.
fn is_special(sent: &[u8]) -> bool {
    let (_, tcp) = layers(sent);
    let field = &sent[tcp + 16..tcp + 18];
    field == [0xff, 0xff] || field == pseudo_header_sum(sent).to_be_bytes()
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

/// A segment of the fixtures with a few things changed.
fn make(random: &mut Random, known: &[Vec<u8>]) -> Vec<u8> {
    let mut made = known[random.below(known.len())].clone();
    for _ in 0..random.below(4) {
        let at = random.below(made.len().min(140));
        match random.below(6) {
            0 => made[at] = random.next() as u8,
            1 => made[at] ^= 1 << random.below(8),
            2 => made[at] = [0, 1, 5, 6, 0x7f, 0x80, 0xff][random.below(7)],
            3 => made.truncate(at.max(14)),
            4 => {
                let len = random.below(80);
                made.extend(random.bytes(len));
            }
            // The head of one with the rest of another.
            _ => {
                let other = &known[random.below(known.len())];
                made.truncate(at.min(other.len()));
                made.extend(&other[made.len()..]);
            }
        }
    }
    if !random.chance(4) {
        mend(&mut made);
    }
    made
}

#[test]
fn whatever_comes_in_no_rule_is_broken() {
    // Too many handshakes to be remembered would make flows unproven.
    let options = Options { flows_max: 65_536, ..Options::default() };
    let Some(mut node) = resetting_with(&version_3(), options) else { return };
    let seed = seed();
    let mut random = Random(seed);
    let known: Vec<Vec<u8>> = frames().filter(|(name, _)| name.starts_with("tcp ")).map(|(_, frame)| frame).collect();
    for number in 0..20_000 {
        if random.chance(2) {
            node.flows.forget_handshakes();
        }
        let sent = make(&mut random, &known);
        let outcome = node.send(&sent);
        let checked = std::panic::catch_unwind(|| check(&sent, &outcome));
        assert!(checked.is_ok(), "frame {number} of FAILOVER_SEED={seed}: {outcome:02x?}\nsent {sent:02x?}");
    }
    // The witness: each way out was taken many times.
    let counters = node.counters();
    println!("{counters:?}");
    for (name, times) in COUNTER_NAMES.into_iter().zip(counters.values()) {
        let is_a_way = WAYS.contains(&name);
        assert_eq!(times >= 20, is_a_way, "{name}: {times} times");
        assert!(times == 0 || is_a_way, "{name}: {times} times");
    }
}

/// What a node without sockets counts that has not long been Active and hears no other.
const WAYS: [&str; 9] = [
    "reset_unknown_flow",
    "tcp_handshake_seen",
    "tcp_syn",
    "tcp_reset",
    "tcp_fragment",
    "tcp_bad_length",
    "tcp_bad_checksum",
    "tcp_bad_source",
    "tcp_bad_options",
];
