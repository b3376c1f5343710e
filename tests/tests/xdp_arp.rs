//! ARP for the virtual addresses: answered under a live lease and by nobody without one; claims by others.
//! RFC 826, RFC 5227, RFC 9568 6.4 and 8.1.2.

use std::thread::sleep;
use std::time::Duration;

use failover_common::abi::{EventKind, Heard, Lease, Settings, VirtualRouter};
use failover_common::address::Address;
use failover_tests::fixtures::{LONG_NS, PEER_MAC, SECOND_VIP, VIP, active, backup, dropped, frame, passes, version_3};
use failover_tests::testrun::{Options, TestRun, Verdict, now_ns};

fn answered(node: &mut TestRun, name: &str, answer: &str) {
    let outcome = node.send(&frame(name));
    assert_eq!(outcome.verdict, Verdict::Transmit, "{name}");
    assert_eq!(outcome.frame, frame(answer), "{name}");
    assert!(outcome.counted_only(&["arp_answered"]), "{name}: {:?}", outcome.counted);
    assert_eq!(outcome.events, [], "{name}");
}

/// Requests that want an answer, and it.
const REQUESTS: [(&str, &str); 6] = [
    ("arp request", "arp request, answer"),
    ("arp request to the node", "arp request, answer"),
    ("arp request of 42 bytes", "arp request of 42 bytes, answer"),
    ("arp request, dirty padding", "arp request, dirty padding, answer"),
    ("arp probe", "arp probe, answer"),
    ("arp request, priority tag", "arp request, priority tag, answer"),
];

#[test]
fn without_a_live_lease_nobody_on_this_node_answers() {
    let Some(mut node) = backup(&version_3()) else { return };
    let now_ns = now_ns();
    let live = now_ns + LONG_NS;
    let table = [
        ("no lease", Lease::default(), 0),
        ("a lease that is over", Lease { until_ns: now_ns, claimed_after_ns: 0 }, 0),
        ("a claim older than a superior advert", Lease { until_ns: live, claimed_after_ns: 0 }, 7),
        ("a claim upon another advert", Lease { until_ns: live, claimed_after_ns: 8 }, 7),
    ];
    for (what, lease, last_superior_ns) in table {
        node.edit(0, |entry| (entry.lease, entry.heard.last_superior_ns) = (lease, last_superior_ns));
        for (request, _) in REQUESTS {
            dropped(&mut node, request, "arp_silenced");
        }
        assert_eq!(node.vip(VIP).arp_replies, 0, "{what}");
    }
    node.edit(0, |entry| entry.lease.claimed_after_ns = 7);
    answered(&mut node, "arp request", "arp request, answer");
}

#[test]
fn a_request_is_answered_whole_under_a_live_lease() {
    let Some(mut node) = active(&version_3()) else { return };
    let before = node.router(0);
    for (replies, (request, answer)) in (1..).zip(REQUESTS) {
        answered(&mut node, request, answer);
        assert_eq!(node.vip(VIP).arp_replies, replies, "{request}");
    }
    assert_eq!(node.vip(SECOND_VIP).arp_replies, 0);
    assert_eq!(node.send(&frame("arp request, second address")).verdict, Verdict::Transmit);
    assert_eq!((node.vip(VIP).arp_replies, node.vip(SECOND_VIP).arp_replies), (6, 1));
    assert_eq!(node.router(0), before, "answering changes no state");
}

#[test]
fn the_answer_gives_the_configured_hardware_address() {
    // RFC 9568 7.3: the virtual router's own.
    let virtual_mac = [0x00, 0x00, 0x5e, 0x00, 0x01, 51];
    let Some(mut node) = active(&Settings { mac: virtual_mac, ..version_3() }) else { return };
    let mut expected = frame("arp request, answer");
    expected[6..12].copy_from_slice(&virtual_mac);
    expected[22..28].copy_from_slice(&virtual_mac);
    assert_eq!(node.send(&frame("arp request")).frame, expected);
    passes(&mut node, "arp request to the node");
}

#[test]
fn what_is_no_request_for_an_address_of_ours_passes() {
    let names = [
        "arp other address",
        "arp announcement, other address",
        "arp hardware type 256",
        "arp protocol ipv6",
        "arp hardware length 8",
        "arp protocol length 16",
        "arp reply",
        "arp operation 0",
        "arp operation 3",
        "arp vlan 10",
        "arp vlans 100 200",
    ];
    let Some(mut node) = active(&version_3()) else { return };
    for name in names {
        passes(&mut node, name);
    }
    passes(&mut node, "arp hardware type 6");
    answered(&mut node, "arp request", "arp request, answer");
    node.edit(0, |entry| entry.lease = Lease::default());
    for name in names {
        passes(&mut node, name);
    }
    dropped(&mut node, "arp request", "arp_silenced");
}

#[test]
fn without_a_lease_a_request_of_hardware_type_6_is_not_answered_either() {
    let Some(mut node) = backup(&version_3()) else { return };
    dropped(&mut node, "arp hardware type 6", "arp_silenced");
}

#[test]
fn a_request_from_one_virtual_address_for_another_is_answered_by_the_others_lease() {
    // The sender's address is a virtual router's that another node serves, the address asked for is another router's.
    let Some(mut node) = TestRun::load(Options::default()) else { return };
    node.configure(0, &version_3(), &[VIP]);
    node.configure(1, &Settings { vrid: 52, ..version_3() }, &[SECOND_VIP]);
    let request = "arp request from one address for the other";
    dropped(&mut node, request, "arp_silenced");
    node.give_lease(0, LONG_NS);
    let outcome = node.send(&frame(request));
    assert_eq!((outcome.verdict, outcome.counted), (Verdict::Transmit, vec![("arp_answered", 1)]));
}

#[test]
fn a_request_whose_sender_cannot_be_trusted_is_not_answered_here() {
    let names = [
        "arp sender is not ethernet source",
        "arp multicast sender",
        "arp broadcast sender",
        "arp request to another station",
    ];
    let Some(mut node) = active(&version_3()) else { return };
    for name in names {
        passes(&mut node, name);
    }
    assert_eq!(node.vip(VIP).arp_replies, 0);
    answered(&mut node, "arp request", "arp request, answer");
    // Without a lease the kernel must not get to judge it: it may still have the address.
    node.edit(0, |entry| entry.lease = Lease::default());
    for name in &names[..3] {
        dropped(&mut node, name, "arp_silenced");
    }
    // A frame to another station's MAC is not for this node's kernel either: a bridging host only carries it.
    for name in &names[3..] {
        passes(&mut node, name);
    }
}

#[test]
fn every_truncation_of_a_request_passes() {
    for live_ns in [0, LONG_NS] {
        let Some(mut node) = backup(&version_3()) else { return };
        node.give_lease(0, live_ns);
        for (name, arp_at) in [("arp request", 14), ("arp request, priority tag", 18)] {
            let whole = frame(name);
            for len in 14..arp_at + 28 {
                let outcome = node.send(&whole[..len]);
                assert_eq!(outcome.verdict, Verdict::Pass, "{name}, {len} bytes");
                assert_eq!(outcome.frame, &whole[..len], "{name}, {len} bytes");
                assert!(outcome.counted_only(&[]), "{name}, {len} bytes: {:?}", outcome.counted);
            }
            let expected = if live_ns == 0 { Verdict::Drop } else { Verdict::Transmit };
            assert_eq!(node.send(&whole[..arp_at + 28]).verdict, expected, "{name}");
        }
    }
}

/// ARP from another station that says that 192.0.2.10 is its own, and whether it answers for it: a question is also asked
/// by the kernel of a node that let the address go, or froze.
const CLAIMS: [(&str, bool); 4] = [
    ("arp announcement, request form", true),
    ("arp announcement, reply form", true),
    ("arp reply to a client", true),
    ("arp request from the address", false),
];

#[test]
fn without_a_lease_another_stations_claim_passes() {
    let Some(mut node) = backup(&version_3()) else { return };
    for (name, _) in CLAIMS {
        passes(&mut node, name);
    }
    passes(&mut node, "arp announcement, own");
    assert_eq!(node.router(0).heard, Heard::default());
    node.give_lease(0, LONG_NS);
    assert_eq!(node.send(&frame(CLAIMS[0].0)).verdict, Verdict::Drop);
}

#[test]
fn under_a_live_lease_another_stations_claim_is_a_conflict() {
    for (name, is_foreign_owner) in CLAIMS {
        let Some(mut node) = active(&version_3()) else { return };
        let before = node.router(0);
        let sent = frame(name);
        let outcome = node.send(&sent);
        assert_eq!((outcome.verdict, &outcome.frame), (Verdict::Drop, &sent), "{name}");
        assert!(outcome.counted_only(&["arp_conflict"]), "{name}: {:?}", outcome.counted);
        let [event] = outcome.events[..] else { panic!("{name}: {:?}", outcome.events) };
        assert_eq!((event.kind, event.router, event.mac), (EventKind::Conflict, 0, PEER_MAC), "{name}");
        assert_eq!(event.address, Address::from_ipv4(VIP), "{name}");
        assert!(outcome.clock.contains(&event.at_ns), "{name}");
        let last_foreign_ns = if is_foreign_owner { event.at_ns } else { 0 };
        let heard = Heard { last_event_ns: event.at_ns, conflicts: 1, last_foreign_ns, ..before.heard };
        assert_eq!(node.router(0), VirtualRouter { heard, ..before }, "{name}: nothing else");
    }
}

#[test]
fn a_second_conflict_within_a_millisecond_is_counted_but_not_told() {
    let Some(mut node) = active(&version_3()) else { return };
    let claim = frame("arp announcement, reply form");
    for round in 0.. {
        assert!(round < 1000, "two frames never took less than a millisecond");
        sleep(Duration::from_millis(2));
        let told = node.send(&claim);
        assert_eq!((told.verdict, told.events.len()), (Verdict::Drop, 1));
        let second = node.send(&claim);
        assert_eq!(node.router(0).heard.conflicts, 2 * (round + 1));
        assert_eq!(second.verdict, Verdict::Drop);
        if second.clock.end() - told.clock.start() < 1_000_000 {
            assert!(second.counted_only(&["arp_conflict", "event_suppressed"]), "{:?}", second.counted);
            assert_eq!(second.events, []);
            break;
        }
    }
    sleep(Duration::from_millis(2));
    assert_eq!(node.send(&claim).events.len(), 1);
}

#[test]
fn this_nodes_own_claim_is_no_conflict() {
    let Some(mut node) = active(&version_3()) else { return };
    passes(&mut node, "arp announcement, own");
    assert_eq!(node.router(0).heard, Heard::default());
    assert_eq!(node.send(&frame("arp announcement, request form")).verdict, Verdict::Drop);
}

#[test]
fn a_conflict_neither_ends_the_lease_nor_stops_the_answers() {
    let Some(mut node) = active(&version_3()) else { return };
    for (name, _) in CLAIMS {
        node.send(&frame(name));
    }
    assert!(node.is_live(0));
    assert_eq!(node.router(0).heard.conflicts, 4);
    answered(&mut node, "arp request", "arp request, answer");
}
