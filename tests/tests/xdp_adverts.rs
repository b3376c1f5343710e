//! Adverts, refused and accepted: RFC 9568 7.1 with its errata, RFC 3768 7.1, RFC 2338's password.
//!
//! Every refused frame has priority 200: accepted by mistake, it would end the lease it is sent against.

use failover_common::abi::{ChecksumForm, EventKind, Heard, Lease, RouterKey, Settings, VirtualRouter};
use failover_common::address::Address;
use failover_tests::fixtures::{
    LONG_NS, NODE, PEER, PEER_MAC, active, backup, dropped, frame, passes, version_2, version_2_with_password,
    version_3,
};
use failover_tests::testrun::{Outcome, Verdict};

/// Sends each frame against a live lease, and expects it dropped, counted there and nowhere else, and nothing else
/// moved. Then the same node gets a good frame, and it does move.
fn refuses(settings: &Settings, table: &[(&str, &str)], good: &str) {
    let Some(mut node) = active(settings) else { return };
    let before = node.router(0);
    for (name, counter) in table {
        dropped(&mut node, name, counter);
        assert_eq!(node.router(0), before, "{name}");
    }
    accepted(&node.send(&frame(good)), good);
    assert!(!node.is_live(0), "{good} was to end the lease");
    assert_eq!(node.router(0).heard.adverts, 1);
}

fn accepted(outcome: &Outcome, name: &str) {
    assert_eq!(outcome.verdict, Verdict::Drop, "{name}: adverts of ours end here");
    assert!(outcome.counted.contains(&("advert_valid", 1)), "{name}: counted {:?}", outcome.counted);
}

#[test]
fn a_ttl_below_255_is_refused() {
    let table = ["v3 ttl 0", "v3 ttl 1", "v3 ttl 64", "v3 ttl 254"].map(|name| (name, "advert_bad_ttl"));
    refuses(&version_3(), &table, "v3 message");
}

#[test]
fn another_version_is_refused() {
    let table = ["v3 version 0", "v3 version 2", "v3 version 4", "v2"].map(|name| (name, "advert_bad_version"));
    refuses(&version_3(), &table, "v3 message");
    refuses(&version_2(), &[("v3 message", "advert_bad_version")], "v2");
}

#[test]
fn a_type_other_than_advertisement_is_refused() {
    let table = ["v3 type 0", "v3 type 2", "v3 type 15"].map(|name| (name, "advert_bad_type"));
    refuses(&version_3(), &table, "v3 message");
    refuses(&version_2(), &[("v2 type 3", "advert_bad_type")], "v2");
}

#[test]
fn an_incomplete_message_is_refused() {
    let table = [
        "v3 count above addresses",
        "v3 count above packet, in padding",
        "v3 count 255",
        "v3 packet beyond frame",
        "v3 packet below addresses",
        "v3 packet below header",
        "v3 packet without payload",
        "v3 total length 0",
        "v3 total length 65535",
    ];
    refuses(&version_3(), &table.map(|name| (name, "advert_bad_length")), "v3 message");
    refuses(&version_2(), &[("v2 without authentication data", "advert_bad_length")], "v2");
}

#[test]
fn a_wrong_checksum_is_refused() {
    let table =
        ["v3 checksum 0", "v3 checksum off by one", "v3 checksum of another source", "v3 checksum over trailer"];
    refuses(&version_3(), &table.map(|name| (name, "advert_bad_checksum")), "v3 message");
    let table = ["v2 checksum", "v2 pseudo-header"].map(|name| (name, "advert_bad_checksum"));
    refuses(&version_2(), &table, "v2");
}

#[test]
fn an_advert_without_addresses_is_refused() {
    refuses(&version_3(), &[("v3 no address", "advert_no_address")], "v3 message");
    refuses(&version_2(), &[("v2 no address", "advert_no_address")], "v2");
}

#[test]
fn an_interval_of_zero_is_refused() {
    let table = ["v3 interval 0", "v3 interval 0, reserved bits"].map(|name| (name, "advert_zero_interval"));
    refuses(&version_3(), &table, "v3 message");
    refuses(&version_2(), &[("v2 interval 0", "advert_zero_interval")], "v2");
}

#[test]
fn version_2_with_another_authentication_is_refused() {
    let table = ["v2 password", "v2 type 2"].map(|name| (name, "advert_bad_authentication"));
    refuses(&version_2(), &table, "v2");
    let table =
        ["v2", "v2 data without type", "v2 type 2", "v2 wrong password", "v2 wrong 8th byte", "v2 longest password"];
    let table = table.map(|name| (name, "advert_bad_authentication"));
    refuses(&version_2_with_password(b"1111\0\0\0\0"), &table, "v2 password");
    let table = ["v2 password", "v2 wrong 8th byte"].map(|name| (name, "advert_bad_authentication"));
    refuses(&version_2_with_password(b"11112222"), &table, "v2 longest password");
}

#[test]
fn version_2_with_another_interval_is_refused() {
    refuses(&version_2(), &[("v2 interval 2", "advert_other_interval")], "v2");
    let every_two_seconds = Settings { advert_interval_cs: 200, ..version_2() };
    refuses(&every_two_seconds, &[("v2", "advert_other_interval")], "v2 interval 2");
}

#[test]
fn a_broken_ip_header_or_a_fragment_is_refused() {
    let table = ["v3 ip checksum", "v3 ip checksum in option", "v3 first fragment"];
    refuses(&version_3(), &table.map(|name| (name, "advert_bad_ip")), "v3 message");
}

#[test]
fn a_source_that_no_router_can_have_is_refused() {
    let table = ["0.0.0.0", "127.0.0.1", "224.0.0.18", "240.0.0.1", "255.255.255.255"];
    let names = table.map(|address| format!("v3 from {address}"));
    let table: Vec<_> = names.iter().map(|name| (name.as_str(), "advert_bad_source")).collect();
    refuses(&version_3(), &table, "v3 message");
}

#[test]
fn the_first_check_that_fails_is_the_one_that_counts() {
    let table = [
        ("v3 all wrong", "advert_bad_ip"),
        ("v3 wrong from ttl", "advert_bad_ttl"),
        ("v3 wrong from version", "advert_bad_version"),
        ("v3 wrong from type", "advert_bad_type"),
        ("v3 wrong from length", "advert_bad_length"),
        ("v3 wrong from checksum", "advert_bad_checksum"),
        ("v3 wrong from address count", "advert_no_address"),
    ];
    refuses(&version_3(), &table, "v3 message");
}

#[test]
fn every_truncation_of_an_advert_is_refused_or_none_of_ours() {
    for (settings, name) in [(version_3(), "v3 message"), (version_2(), "v2")] {
        let Some(mut node) = active(&settings) else { return };
        let before = node.router(0);
        let whole = frame(name);
        // Ethernet 14, IPv4 20, VRRP 8: before that no VRID says whose it is.
        for len in 14..whole.len() {
            let outcome = node.send(&whole[..len]);
            let (verdict, counted): (_, &[&str]) =
                if len < 42 { (Verdict::Pass, &[]) } else { (Verdict::Drop, &["advert_bad_length"]) };
            assert_eq!(outcome.verdict, verdict, "{name}, {len} bytes");
            assert!(outcome.counted_only(counted), "{name}, {len} bytes: {:?}", outcome.counted);
            assert_eq!((outcome.events.len(), node.router(0)), (0, before), "{name}, {len} bytes");
        }
        accepted(&node.send(&whole), name);
    }
}

#[test]
fn an_advert_from_the_own_address_is_refused_and_told_but_not_in_a_flood() {
    let Some(mut node) = active(&version_3()) else { return };
    let before = node.router(0);
    let outcome = node.send(&frame("v3 from own address"));
    assert_eq!(outcome.verdict, Verdict::Drop);
    assert!(outcome.counted_only(&["advert_bad_source"]), "{:?}", outcome.counted);
    let [event] = outcome.events[..] else { panic!("one event, not {:?}", outcome.events) };
    assert_eq!((event.kind, event.router, event.mac), (EventKind::OwnAdvert, 0, PEER_MAC));
    assert_eq!(event.address, Address::from_ipv4(NODE));
    assert!(outcome.clock.contains(&event.at_ns));

    // Within the gap of a millisecond, however slow this machine is.
    let soon_ns = event.at_ns + 1_000_000_000;
    node.edit(0, |entry| entry.heard.last_event_ns = soon_ns);
    let again = node.send(&frame("v3 from own address"));
    assert!(again.counted_only(&["advert_bad_source", "event_suppressed"]), "{:?}", again.counted);
    assert_eq!(again.events, []);

    // Nothing but the time of the event moved.
    let heard = Heard { last_event_ns: soon_ns, ..before.heard };
    assert_eq!(node.router(0), VirtualRouter { heard, ..before });
    node.edit(0, |entry| entry.heard.last_event_ns = 0);
    accepted(&node.send(&frame("v3 message")), "v3 message");
}

#[test]
fn an_advert_of_somebody_else_passes_untouched() {
    let Some(mut node) = active(&version_3()) else { return };
    let before = node.router(0);
    let table = [
        "v3 vrid 52",
        "v3 vlan 10",
        "v3 vlans 100 200",
        "v3 three tags",
        "v3 other group",
        "v3 protocol 113",
        "v3 later fragment",
    ];
    for name in table {
        passes(&mut node, name);
        assert_eq!(node.router(0), before, "{name}");
    }
    // Each of them is superior, and the VRID is heard where it is configured.
    node.configure(1, &Settings { vrid: 52, ..version_3() }, &[]);
    node.configure(1, &Settings { vlan: 10, ..version_3() }, &[]);
    node.configure(1, &Settings { vlan: 100 << 16 | 200, ..version_3() }, &[]);
    for name in ["v3 vrid 52", "v3 vlan 10", "v3 vlans 100 200"] {
        accepted(&node.send(&frame(name)), name);
        assert_eq!(node.router(0), before, "{name}: another virtual router's");
    }
    assert_eq!(node.router(1).heard.adverts, 3);
    accepted(&node.send(&frame("v3 message")), "v3 message");
    assert!(!node.is_live(0));
}

#[test]
fn a_valid_advert_is_published_with_its_time_and_told() {
    let expected = Heard {
        last_superior_ns: 0,
        last_advert_ns: 0,
        last_event_ns: 0,
        adverts: 1,
        source: Address::from_ipv4(PEER),
        address_digest: 0,
        interval_cs: 100,
        priority: 200,
        checksum_form: ChecksumForm::Message,
        conflicts: 0,
        last_foreign_ns: 0,
    };
    let v3 = version_3();
    let table = [
        (v3, "v3 message", expected),
        (v3, "v3 pseudo-header", Heard { checksum_form: ChecksumForm::PseudoHeader, ..expected }),
        (v3, "v3 router alert option", expected),
        (v3, "v3 forty bytes of options", expected),
        (v3, "v3 zero padding", expected),
        (v3, "v3 dirty padding", expected),
        (v3, "v3 trailer", expected),
        (v3, "v3 reserved bits", expected),
        (v3, "v3 one address", expected),
        (v3, "v3 255 addresses", expected),
        (v3, "v3 shortest interval", Heard { interval_cs: 1, ..expected }),
        (v3, "v3 longest interval", Heard { interval_cs: 4095, ..expected }),
        (v3, "v3 owner", Heard { priority: 255, ..expected }),
        (v3, "v3 priority tag", expected),
        (version_2(), "v2", expected),
        (version_2(), "v2 data without type", expected),
        (version_2_with_password(b"1111\0\0\0\0"), "v2 password", expected),
        (version_2_with_password(b"11112222"), "v2 longest password", expected),
    ];
    for (settings, name, expected) in table {
        let Some(mut node) = backup(&settings) else { return };
        let sent = frame(name);
        let outcome = node.send(&sent);
        assert_eq!((outcome.verdict, &outcome.frame), (Verdict::Drop, &sent), "{name}");
        assert!(outcome.counted_only(&["advert_valid", "advert_superior"]), "{name}: {:?}", outcome.counted);

        let entry = node.router(0);
        let heard = entry.heard;
        assert!(outcome.clock.contains(&heard.last_advert_ns), "{name}: {heard:?} not in {:?}", outcome.clock);
        assert_eq!(
            (heard.last_superior_ns, heard.last_event_ns),
            (heard.last_advert_ns, heard.last_advert_ns),
            "{name}"
        );
        let timeless = Heard { last_superior_ns: 0, last_advert_ns: 0, last_event_ns: 0, ..heard };
        assert_eq!(timeless, Heard { address_digest: heard.address_digest, ..expected }, "{name}");
        assert_eq!((entry.lease, entry.settings), (Lease::default(), settings), "{name}: not the program's to write");

        let [event] = outcome.events[..] else { panic!("{name}: one event, not {:?}", outcome.events) };
        assert_eq!((event.kind, event.router, event.mac), (EventKind::Advert, 0, PEER_MAC), "{name}");
        assert_eq!((event.at_ns, event.address), (heard.last_advert_ns, heard.source), "{name}");
        assert_eq!((event.priority, event.interval_cs), (heard.priority, heard.interval_cs), "{name}");
        assert_eq!(event.checksum_form, heard.checksum_form, "{name}");
        assert_eq!(event.address_digest, heard.address_digest, "{name}");
    }
}

#[test]
fn the_digest_tells_sets_of_addresses_apart_and_nothing_else() {
    let digest = |settings: &Settings, name: &str| {
        let mut node = backup(settings)?;
        accepted(&node.send(&frame(name)), name);
        Some(node.router(0).heard.address_digest)
    };
    let v3 = version_3();
    let Some(both) = digest(&v3, "v3 message") else { return };
    let same =
        ["v3 pseudo-header", "v3 steady, order of addresses", "v3 trailer", "v3 forty bytes of options", "v3 owner"];
    for name in same {
        assert_eq!(digest(&v3, name), Some(both), "{name}");
    }
    assert_eq!(digest(&version_2(), "v2"), Some(both), "version 2 lists the same addresses");
    assert_eq!(digest(&version_2(), "v2 data without type"), Some(both), "authentication data is no address");
    for name in ["v3 one address", "v3 steady, addresses", "v3 255 addresses"] {
        assert_ne!(digest(&v3, name), Some(both), "{name}");
    }
}

#[test]
fn adverts_reach_their_virtual_router_by_vrid() {
    let Some(mut node) = active(&version_3()) else { return };
    node.configure(1, &Settings { vrid: 52, ..version_3() }, &[]);
    node.give_lease(1, LONG_NS);
    let first = node.router(0);
    let outcome = node.send(&frame("v3 vrid 52"));
    accepted(&outcome, "v3 vrid 52");
    assert_eq!(outcome.events.iter().map(|event| event.router).collect::<Vec<_>>(), [1]);
    assert_eq!((node.router(0), node.is_live(0), node.is_live(1)), (first, true, false));
}

#[test]
fn an_index_beyond_the_array_passes_the_frame() {
    let Some(mut node) = backup(&version_3()) else { return };
    let key = RouterKey { ifindex: 1, vlan: 0, vrid: 52, family: 4, _pad: [0; 2] };
    node.point(&key, 7);
    passes(&mut node, "v3 vrid 52");
    node.point(&key, 1);
    node.edit(1, |entry| entry.settings = Settings { vrid: 52, ..version_3() });
    accepted(&node.send(&frame("v3 vrid 52")), "v3 vrid 52");
}
