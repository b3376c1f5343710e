//! What an advert does to the lease, and which adverts wake the controller: RFC 9568 6.4.3, and the rule that the
//! kernel may end a lease but never begin or extend one.

use std::thread::sleep;
use std::time::Duration;

use failover_common::abi::{Event, EventKind, Lease, Settings};
use failover_common::address::Address;
use failover_tests::fixtures::{LONG_NS, VIP, active, backup, frame, version_2, version_3};
use failover_tests::testrun::{Options, TestRun, Verdict, now_ns};

/// Longer than the least time between two events of one virtual router, a millisecond.
fn event_gap() {
    sleep(Duration::from_millis(2));
}

/// Whether the node serves its first address: both halves of it, which must never disagree.
fn serves(node: &mut TestRun) -> bool {
    let arp = node.send(&frame("arp request"));
    let ip = node.send(&frame("ip tcp"));
    match (arp.verdict, ip.verdict) {
        (Verdict::Transmit, Verdict::Pass) => {
            assert!(arp.counted_only(&["arp_answered"]) && ip.counted_only(&[]), "{arp:?} {ip:?}");
            true
        }
        (Verdict::Drop, Verdict::Drop) => {
            assert!(arp.counted_only(&["arp_silenced"]) && ip.counted_only(&["vip_fenced"]), "{arp:?} {ip:?}");
            false
        }
        verdicts => panic!("ARP and IP disagree: {verdicts:?}"),
    }
}

#[test]
fn a_superior_advert_ends_a_live_lease_on_the_spot() {
    let v3 = version_3();
    let owner = Settings { priority: 255, ..v3 };
    let table = [
        (v3, "v3 message"),
        (v3, "v3 pseudo-header"),
        (v3, "v3 priority 101"),
        (v3, "v3 tie 192.0.2.9"),
        (v3, "v3 tie 200.0.0.1"),
        (v3, "v3 owner"),
        // Erratum 8298: two owners must not ignore each other.
        (owner, "v3 owner"),
        (version_2(), "v2"),
    ];
    for (settings, name) in table {
        let Some(mut node) = active(&settings) else { return };
        assert!(node.is_live(0) && serves(&mut node), "{name}");
        let lease = node.router(0).lease;

        let outcome = node.send(&frame(name));
        assert_eq!(outcome.verdict, Verdict::Drop, "{name}");
        let counted = ["advert_valid", "advert_superior", "lease_ended"];
        assert!(outcome.counted_only(&counted), "{name}: {:?}", outcome.counted);
        assert_eq!(outcome.events.len(), 1, "{name}");
        let entry = node.router(0);
        assert_eq!(entry.heard.last_superior_ns, outcome.events[0].at_ns, "{name}");
        assert_eq!(entry.lease, lease, "{name}: the controller's words stay as they were");
        assert!(!node.is_live(0) && !serves(&mut node), "{name}");

        // There is none left to end.
        let again = node.send(&frame(name));
        assert!(again.counted_only(&["advert_valid", "advert_superior"]), "{name}: {:?}", again.counted);
    }
}

#[test]
fn an_inferior_advert_leaves_the_lease_and_is_told() {
    let v3 = version_3();
    let owner = Settings { priority: 255, ..v3 };
    let table = [
        (v3, "v3 steady"),
        (v3, "v3 priority 99"),
        (v3, "v3 tie 192.0.2.1"),
        (v3, "v3 tie 10.0.0.200"),
        (v3, "v3 release"),
        (owner, "v3 message"),
        (Settings { priority: 201, ..version_2() }, "v2"),
    ];
    for (settings, name) in table {
        let Some(mut node) = active(&settings) else { return };
        let lease = node.router(0).lease;
        for round in 0..3 {
            let outcome = node.send(&frame(name));
            assert_eq!(outcome.verdict, Verdict::Drop, "{name}");
            assert!(outcome.counted_only(&["advert_valid"]), "{name}: {:?}", outcome.counted);
            // RFC 9568 6.4.3: the Active answers each with an advert of its own.
            let [event] = outcome.events[..] else { panic!("{name}, round {round}: {:?}", outcome.events) };
            assert_eq!((event.kind, event.at_ns), (EventKind::Advert, node.router(0).heard.last_advert_ns), "{name}");
            event_gap();
        }
        let entry = node.router(0);
        assert_eq!((entry.lease, entry.heard.last_superior_ns, entry.heard.adverts), (lease, 0, 3), "{name}");
        assert!(node.is_live(0) && serves(&mut node), "{name}");

        node.edit(0, |entry| entry.settings.priority = 1);
        let outcome = node.send(&frame(name));
        assert_eq!(node.is_live(0), name == "v3 release", "{name}: against priority 1 {:?}", outcome.counted);
    }
}

#[test]
fn a_claim_or_renewal_in_ignorance_of_a_superior_advert_is_void() {
    let Some(mut node) = active(&version_3()) else { return };
    let ignorant = node.router(0).lease;
    node.send(&frame("v3 message"));
    let heard = node.router(0).heard.last_superior_ns;
    let until_ns = now_ns() + LONG_NS;
    let table = [
        ("a renewal", Lease { until_ns, ..ignorant }),
        ("a claim upon an older advert", Lease { until_ns, claimed_after_ns: heard - 1 }),
        ("a claim upon an advert never heard", Lease { until_ns, claimed_after_ns: heard + 1 }),
        ("a lease without end", Lease { until_ns: u64::MAX, ..ignorant }),
    ];
    for (what, lease) in table {
        node.edit(0, |entry| entry.lease = lease);
        assert!(!serves(&mut node), "{what}");
    }
    node.edit(0, |entry| entry.lease = Lease { until_ns, claimed_after_ns: heard });
    assert!(serves(&mut node), "a claim that knows of the advert");

    let outcome = node.send(&frame("v3 message"));
    assert!(outcome.counted.contains(&("lease_ended", 1)), "{:?}", outcome.counted);
    assert!(!serves(&mut node), "the next one ends this, too");
}

#[test]
fn a_lease_ends_by_the_clock_alone() {
    let Some(mut node) = backup(&version_3()) else { return };
    assert!(!serves(&mut node), "there was none");
    node.give_lease(0, 50_000_000);
    let until_ns = node.router(0).lease.until_ns;
    let mut served = 0;
    while now_ns() < until_ns {
        let arp = node.send(&frame("arp request"));
        // A frame that came in after the end, by the clock read before it, or before it, by the one read after.
        if *arp.clock.start() >= until_ns {
            assert_eq!(arp.verdict, Verdict::Drop);
        } else if *arp.clock.end() < until_ns {
            assert_eq!(arp.verdict, Verdict::Transmit);
            served += 1;
        }
    }
    assert!(served > 0, "nothing was served in 50 ms");
    assert!(!serves(&mut node), "past the end");
    assert_eq!(node.router(0).lease.until_ns, until_ns, "the program extends nothing");
}

#[test]
fn a_lease_that_is_over_cannot_be_ended() {
    let Some(mut node) = backup(&version_3()) else { return };
    let ended = Lease { until_ns: now_ns(), claimed_after_ns: 0 };
    for lease in [Lease::default(), ended] {
        node.edit(0, |entry| entry.lease = lease);
        let outcome = node.send(&frame("v3 message"));
        assert!(outcome.counted_only(&["advert_valid", "advert_superior"]), "{lease:?}: {:?}", outcome.counted);
        assert_eq!(node.router(0).heard.last_superior_ns, node.router(0).heard.last_advert_ns);
    }
    node.give_lease(0, LONG_NS);
    let outcome = node.send(&frame("v3 message"));
    assert!(outcome.counted.contains(&("lease_ended", 1)), "{:?}", outcome.counted);
}

#[test]
fn a_lease_of_another_virtual_router_is_not_touched() {
    let Some(mut node) = active(&version_3()) else { return };
    node.configure(1, &Settings { vrid: 52, ..version_3() }, &[[192, 0, 2, 77]]);
    node.give_lease(1, LONG_NS);
    node.send(&frame("v3 message"));
    assert!(!node.is_live(0) && node.is_live(1));
    assert_eq!(node.send(&frame("arp request")).verdict, Verdict::Drop);
    assert_eq!(node.send(&frame("arp other address")).verdict, Verdict::Transmit);
}

#[test]
fn a_steady_advert_is_told_once_and_timestamped_always() {
    let Some(mut node) = backup(&version_3()) else { return };
    let first = node.send(&frame("v3 steady"));
    let [Event { at_ns, .. }] = first.events[..] else { panic!("{:?}", first.events) };
    for adverts in 2..10 {
        event_gap();
        let outcome = node.send(&frame("v3 steady"));
        assert!(outcome.counted_only(&["advert_valid"]), "{:?}", outcome.counted);
        assert_eq!(outcome.events, []);
        let heard = node.router(0).heard;
        assert!(outcome.clock.contains(&heard.last_advert_ns));
        assert_eq!((heard.adverts, heard.last_event_ns, heard.last_superior_ns), (adverts, at_ns, 0));
    }
    event_gap();
    assert_eq!(node.send(&frame("v3 steady, priority")).events.len(), 1);
}

#[test]
fn every_change_that_the_controller_acts_on_is_told() {
    let Some(mut node) = backup(&version_3()) else { return };
    node.send(&frame("v3 steady"));
    let steady = node.router(0).heard;
    let changes = [
        "v3 steady, priority",
        "v3 steady, source",
        "v3 steady, interval",
        "v3 steady, addresses",
        "v3 steady, fewer addresses",
        "v3 steady, checksum form",
        "v3 steady, release",
    ];
    for name in changes {
        // There, and back again.
        for name in [name, "v3 steady"] {
            event_gap();
            let outcome = node.send(&frame(name));
            let [event] = outcome.events[..] else { panic!("{name}: {:?}", outcome.events) };
            let heard = node.router(0).heard;
            assert_eq!((event.at_ns, heard.last_event_ns), (heard.last_advert_ns, heard.last_advert_ns), "{name}");
            assert_eq!((event.address, event.priority), (heard.source, heard.priority), "{name}");
            assert_eq!((event.interval_cs, event.address_digest), (heard.interval_cs, heard.address_digest), "{name}");
            assert_eq!(event.checksum_form, heard.checksum_form, "{name}");
            event_gap();
            assert_eq!(node.send(&frame(name)).events, [], "{name}: the second is steady");
        }
    }
    event_gap();
    assert_eq!(node.send(&frame("v3 steady, order of addresses")).events, [], "an order is no change");
    let heard = node.router(0).heard;
    assert_eq!((heard.source, heard.priority, heard.address_digest), (steady.source, 50, steady.address_digest));
}

#[test]
fn what_changed_is_what_is_published() {
    let Some(mut node) = backup(&version_3()) else { return };
    node.send(&frame("v3 steady"));
    let steady = node.router(0).heard;
    node.send(&frame("v3 steady, priority"));
    assert_eq!(node.router(0).heard.priority, 60);
    node.send(&frame("v3 steady, source"));
    assert_eq!(node.router(0).heard.source, Address::from_ipv4([192, 0, 2, 8]));
    node.send(&frame("v3 steady, interval"));
    assert_eq!(node.router(0).heard.interval_cs, 200);
    node.send(&frame("v3 steady, addresses"));
    assert_ne!(node.router(0).heard.address_digest, steady.address_digest);
    node.send(&frame("v3 steady, release"));
    assert_eq!((node.router(0).heard.priority, node.router(0).heard.adverts), (0, 6));
}

#[test]
fn an_event_within_a_millisecond_of_another_is_left_out() {
    let Some(mut node) = active(&version_3()) else { return };
    // Tried again as long as this machine takes more than a millisecond for two frames.
    for _ in 0..1000 {
        event_gap();
        let told = node.send(&frame("v3 steady"));
        assert_eq!(told.events.len(), 1);
        let second = node.send(&frame("v3 steady"));
        if second.clock.end() - told.clock.start() < 1_000_000 {
            assert!(second.counted_only(&["advert_valid", "event_suppressed"]), "{:?}", second.counted);
            assert_eq!(second.events, []);
            let heard = node.router(0).heard;
            assert!(heard.last_advert_ns > heard.last_event_ns, "it is published none the less");
            return;
        }
    }
    panic!("two frames never took less than a millisecond");
}

#[test]
fn a_superior_advert_under_a_lease_and_a_release_are_always_told() {
    let Some(mut node) = active(&version_3()) else { return };
    for urgent in ["v3 message", "v3 release"] {
        // The last event is as recent as can be.
        node.edit(0, |entry| entry.heard.last_event_ns = now_ns() + LONG_NS);
        let outcome = node.send(&frame("v3 steady, priority"));
        assert_eq!(outcome.events, [], "{urgent}: an ordinary one has to wait");
        assert!(outcome.counted.contains(&("event_suppressed", 1)));
        let outcome = node.send(&frame(urgent));
        assert_eq!(outcome.events.len(), 1, "{urgent}");
        assert!(outcome.clock.contains(&node.router(0).heard.last_event_ns), "{urgent}");
    }
}

#[test]
fn a_full_ring_is_counted_and_loses_no_state() {
    let Some(mut node) = TestRun::load(Options { ring_bytes: 4096, ..Options::default() }) else { return };
    node.configure(0, &version_3(), &[VIP]);
    let mut sent = 0;
    // A release after something else is always told.
    while node.counters().event_lost == 0 {
        node.run(1, &frame("v3 release"));
        node.run(1, &frame("v3 steady"));
        sent += 2;
        assert!(sent < 1000, "4,096 bytes hold no 500 events");
    }
    node.give_lease(0, LONG_NS);
    let (verdict, _) = node.run(1, &frame("v3 message"));
    let heard = node.router(0).heard;
    assert_eq!((verdict, node.counters().event_lost), (Verdict::Drop, 2));
    assert_eq!((heard.adverts, heard.priority), (sent + 1, 200));
    assert_eq!(heard.last_superior_ns, heard.last_advert_ns);
    assert!(!node.is_live(0), "a full ring saves no lease");

    let events = node.drain();
    // A record of 48 bytes and its header of 8 take 56 of 4,096.
    assert!((60..=73).contains(&events.len()), "{} events", events.len());
    assert!(events.iter().all(|event| event.kind == EventKind::Advert && event.priority != 200));
    assert_eq!(node.send(&frame("v3 release")).events.len(), 1, "there is room again");
}
