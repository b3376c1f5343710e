//! Twenty thousand frames that nobody thought of, half of them against a live lease: what must hold whatever comes in.
//!
//! `FAILOVER_SEED` takes the seed that a failure prints. Deliberately absent: expectations of single frames.

use std::collections::BTreeMap;

use failover_common::abi::{Heard, Lease, VirtualRouter};
use failover_common::lease::is_live;
use failover_tests::fixtures::{LONG_NS, backup, frame, frames, version_3};
use failover_tests::random::{Random, seed};
use failover_tests::testrun::{LOOPBACK, Outcome, TestRun, Verdict, now_ns};

const FRAMES: u32 = 20_000;
/// The kernel runs no frame that is shorter than an Ethernet header.
const LEN_MIN: usize = 14;
/// Longer than any header that is read.
const LEN_MAX: usize = 2_000;

/// A frame: random bytes behind a random or a known EtherType, or a known frame with a few things changed.
fn make(random: &mut Random, known: &[Vec<u8>]) -> Vec<u8> {
    if random.chance(8) {
        let more = if random.chance(10) { LEN_MAX - LEN_MIN } else { 100 };
        let len = LEN_MIN + random.below(more);
        let mut made = random.bytes(len);
        if random.chance(2) {
            made[12..14].copy_from_slice(&[[0x08, 0x00], [0x08, 0x06], [0x81, 0x00], [0x88, 0xa8]][random.below(4)]);
        }
        return made;
    }
    let mut made = known[random.below(known.len())].clone();
    for _ in 0..random.below(4) {
        change(&mut made, random, known);
    }
    // Without this, hardly any change of an advert would get past the checksums.
    if random.chance(2) {
        mend(&mut made);
    }
    made
}

fn change(made: &mut Vec<u8>, random: &mut Random, known: &[Vec<u8>]) {
    let at = random.below(made.len());
    match random.below(8) {
        0 => made[at] = random.next() as u8,
        1 => made[at] ^= 1 << random.below(8),
        2 => made[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
        // Where the headers are.
        3 => {
            let at = 12 + random.below(50);
            if let Some(byte) = made.get_mut(at) {
                *byte = random.next() as u8;
            }
        }
        4 => made.truncate(at.max(LEN_MIN)),
        5 => {
            let len = random.below(80);
            made.extend(random.bytes(len));
        }
        // Tags: one or two, of VLANs or of priority alone.
        6 => {
            let tag = [[0x81, 0x00, 0xa0, 0x00], [0x81, 0x00, 0x00, 0x0a], [0x88, 0xa8, 0x00, 0x00]][random.below(3)];
            made.splice(12..12, tag);
        }
        // The link layer of one with the rest of another.
        _ => {
            let other = &known[random.below(known.len())];
            made.truncate(LEN_MIN);
            made.extend(&other[LEN_MIN..]);
        }
    }
}

/// Puts right checksums into what looks like an untagged IPv4 packet with VRRP in it. By RFC 1071's definition.
fn mend(made: &mut [u8]) {
    if made.len() < 34 || made[12..14] != [0x08, 0x00] {
        return;
    }
    let message = 14 + usize::from(made[14] & 15) * 4;
    if message < 34 || made.len() < message + 8 {
        return;
    }
    made[24..26].fill(0);
    let sum = internet_checksum(&made[14..message]);
    made[24..26].copy_from_slice(&sum);
    if made[23] == 112 {
        let end = (message + 8 + usize::from(made[message + 3]) * 4).min(made.len());
        made[message + 6..message + 8].fill(0);
        let sum = internet_checksum(&made[message..end]);
        made[message + 6..message + 8].copy_from_slice(&sum);
    }
}

fn internet_checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks(2).map(|word| u64::from(word[0]) << 8 | word.get(1).map_or(0, |low| u64::from(*low)));
    let mut sum: u64 = words.sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    (!(sum as u16)).to_be_bytes()
}

/// A lease that lives, or one of the ways in which it does not.
fn lease(random: &mut Random, heard: &Heard) -> Lease {
    let (now_ns, last) = (now_ns(), heard.last_superior_ns);
    match random.below(8) {
        0 => Lease::default(),
        1 => Lease { until_ns: now_ns, claimed_after_ns: last },
        2 => Lease { until_ns: now_ns + LONG_NS, claimed_after_ns: last.wrapping_sub(1) },
        3 => Lease { until_ns: u64::MAX, claimed_after_ns: last + 1 },
        _ => Lease { until_ns: now_ns + LONG_NS, claimed_after_ns: last },
    }
}

fn lives(entry: &VirtualRouter) -> bool {
    is_live(now_ns(), entry.lease.until_ns, entry.lease.claimed_after_ns, entry.heard.last_superior_ns)
}

/// What must hold of one frame.
fn check(sent: &[u8], outcome: &Outcome, before: &VirtualRouter, was_live: bool, after: &VirtualRouter) {
    let counted = |name| outcome.counted.iter().find(|(known, _)| *known == name).map_or(0, |(_, delta)| *delta);
    // The controller's words stay, and no lease comes to life; one that ends was ended by a superior advert.
    assert_eq!((after.lease, after.settings, after.report), (before.lease, before.settings, before.report));
    assert!(was_live || !lives(after), "a dead lease came to life");
    assert_eq!(was_live && !lives(after), counted("lease_ended") == 1);
    assert!(after.heard.last_superior_ns >= before.heard.last_superior_ns);
    assert_eq!(after.heard.last_superior_ns != before.heard.last_superior_ns, counted("advert_superior") == 1);
    assert_eq!(after.heard.adverts - before.heard.adverts, counted("advert_valid"));
    assert_eq!(counted("event_lost"), 0);
    match outcome.verdict {
        Verdict::Pass => {
            assert_eq!(outcome.frame, sent, "passed, and changed");
            assert_eq!((&outcome.counted[..], outcome.events.len()), (&[][..], 0));
            assert_eq!(after, before);
        }
        Verdict::Drop => {
            assert_eq!(outcome.frame, sent, "dropped, and changed");
            let exits = outcome.counted.iter().filter(|(name, _)| EXITS.contains(name)).map(|(_, delta)| delta);
            assert_eq!(exits.sum::<u64>(), 1, "one reason, counted once: {:?}", outcome.counted);
        }
        Verdict::Transmit => {
            assert!(was_live, "answered without a lease");
            assert!(outcome.counted_only(&["arp_answered"]), "{:?}", outcome.counted);
            assert_eq!(outcome.frame.len(), sent.len());
            assert_eq!((&outcome.frame[..6], &outcome.frame[6..12]), (&sent[6..12], &before.settings.mac[..]));
            assert_eq!(sent[6] & 1, 0, "answered to a group");
            assert_eq!(after, before);
        }
    }
}

/// Why a frame is dropped; the other counters say more about one of these.
const EXITS: [&str; 16] = [
    "advert_valid",
    "advert_bad_ttl",
    "advert_bad_version",
    "advert_bad_type",
    "advert_bad_length",
    "advert_bad_checksum",
    "advert_no_address",
    "advert_zero_interval",
    "advert_bad_authentication",
    "advert_other_interval",
    "advert_bad_ip",
    "advert_bad_source",
    "arp_answered",
    "arp_silenced",
    "arp_conflict",
    "vip_fenced",
];

#[test]
fn whatever_comes_in_no_rule_is_broken() {
    let Some(mut node) = backup(&version_3()) else { return };
    let seed = seed();
    let mut random = Random(seed);
    let known: Vec<Vec<u8>> = frames().map(|(_, frame)| frame).collect();
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    for number in 0..FRAMES {
        let sent = make(&mut random, &known);
        let lease = lease(&mut random, &node.router(0).heard);
        node.edit(0, |entry| entry.lease = lease);
        let (before, was_live) = (node.router(0), node.is_live(0));
        let outcome = node.send(&sent);
        let after = node.router(0);
        let checked = std::panic::catch_unwind(|| check(&sent, &outcome, &before, was_live, &after));
        assert!(
            checked.is_ok(),
            "frame {number} of FAILOVER_SEED={seed}, lease {}: {outcome:?}\nsent {}",
            if was_live { "live" } else { "dead" },
            hex(&sent),
        );
        for (name, delta) in &outcome.counted {
            *seen.entry(name).or_default() += delta;
        }
        *seen.entry(verdict_name(outcome.verdict)).or_default() += 1;
    }
    println!("{seen:?}");
    // The witness: each way out was taken many times. Version 2's are not open to a version 3 router.
    let others = ["advert_bad_authentication", "advert_other_interval"];
    let ways = EXITS.into_iter().chain(["PASS", "DROP", "TX", "lease_ended", "event_suppressed"]);
    for way in ways.filter(|way| !others.contains(way)) {
        assert!(seen.get(way).is_some_and(|times| *times >= 5), "{way} was hardly taken: {seen:?}");
    }
}

fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "PASS",
        Verdict::Drop => "DROP",
        Verdict::Transmit => "TX",
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_single_byte_of_an_advert_matters_or_is_known_not_to() {
    let Some(node) = backup(&version_3()) else { return };
    let good = frame("v3 message");
    // The link layer; everything else is under a checksum or an identity that is compared.
    let free = 0..12;
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            let adverts = valid(&node);
            node.run(LOOPBACK, &bad);
            assert_eq!(valid(&node) == adverts + 1, free.contains(&at), "byte {at}, bit {bit}");
        }
    }
    let adverts = valid(&node);
    node.run(LOOPBACK, &good);
    assert_eq!(valid(&node), adverts + 1);
}

fn valid(node: &TestRun) -> u64 {
    node.counters().advert_valid
}
