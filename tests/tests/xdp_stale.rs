//! TCP segments for the virtual addresses that belong to no connection here: what is never answered, and RFC 9293
//! 3.10.7.1's reset for the rest, byte for byte; what the configuration makes of them.
//!
//! Deliberately absent: what makes a connection known (`xdp_stale_memory.rs`, `xdp_stale_sockets.rs`).

use failover_common::abi::{FlowOrigin, Lease, Settings, StaleAction, Takeover};
use failover_sim::segment::{ACK, SYN, Segment, assert_resets};
use failover_tests::fixtures::{
    CLIENT_PORT, LONG_NS, SECOND_VIP, VIP, active, backup, dropped, flow_key, frame, frames, is_reset, passes,
    passes_as, resetting, version_3,
};
use failover_tests::testrun::{TestRun, Verdict, now_ns};

/// What begins or ends a connection, and what is not fit to be answered, by the one counter for it.
const REFUSED: [(&str, &[&str]); 7] = [
    ("tcp_reset", &["tcp rst", "tcp rst ack"]),
    (
        "tcp_fragment",
        &[
            "tcp first fragment",
            "tcp first fragment, df",
            "tcp middle fragment",
            "tcp last fragment",
            "tcp last fragment, offset 8",
        ],
    ),
    (
        "tcp_bad_checksum",
        &[
            "tcp wrong checksum",
            "tcp wrong last byte",
            "tcp wrong checksum, zero",
            "tcp wrong partial checksum",
            "tcp wrong complemented partial checksum",
            "tcp checksum over padding",
            "tcp wrong ip checksum",
            "tcp wrong ip checksum, option",
        ],
    ),
    (
        "tcp_bad_source",
        &[
            "tcp from 192.0.2.10",
            "tcp from 192.0.2.11",
            "tcp from 224.0.0.1",
            "tcp from 239.255.255.255",
            "tcp from 255.255.255.255",
            "tcp from 240.0.0.1",
            "tcp from 254.1.2.3",
            "tcp from 127.0.0.1",
            "tcp from 127.255.255.254",
            "tcp from 0.0.0.0",
            "tcp from 0.1.2.3",
            "tcp from multicast mac",
            "tcp from broadcast mac",
            "tcp to multicast mac",
            "tcp to broadcast mac",
        ],
    ),
    (
        "tcp_bad_length",
        &[
            "tcp total length 20",
            "tcp total length 21",
            "tcp total length 33",
            "tcp total length 39",
            "tcp total length 0",
            "tcp total length 19",
            "tcp total length 47",
            "tcp total length 65535",
            "tcp data offset 0",
            "tcp data offset 1",
            "tcp data offset 2",
            "tcp data offset 3",
            "tcp data offset 4",
            "tcp data offset 6",
            "tcp data offset 15",
            "tcp data offset 7, data",
            "tcp ip header past packet",
            "tcp ip header of 16 bytes",
        ],
    ),
    (
        "tcp_bad_options",
        &[
            "tcp option length 0",
            "tcp option length 1",
            "tcp option past the header",
            "tcp option far past the header",
            "tcp option without length",
            "tcp option length 0 in the last words",
            "tcp option without length in the last byte",
            "tcp option past the header into data",
            "tcp ip option length 0",
            "tcp ip option length 1",
            "tcp ip option past the header",
            "tcp ip option far past the header",
            "tcp ip option without length",
            "tcp ip option without length in the last byte",
        ],
    ),
    ("tcp_syn", &["tcp syn", "tcp syn, ecn", "tcp syn, options", "tcp syn ack", "tcp syn, second address"]),
];

fn refused() -> impl Iterator<Item = (&'static str, &'static str)> {
    REFUSED.into_iter().flat_map(|(counter, names)| names.iter().map(move |name| (*name, counter)))
}

/// The segments that `frames.txt` has a reset for, in these VLANs.
fn stale(vlan: u32) -> Vec<&'static str> {
    let names = frames().filter_map(|(name, _)| name.strip_suffix(", reset"));
    names.filter(|name| vlan_of(name) == vlan).collect()
}

fn vlan_of(name: &str) -> u32 {
    match name {
        "tcp vlan 10" => 10,
        "tcp vlans 100 200" => 100 << 16 | 200,
        _ => 0,
    }
}

#[test]
fn every_segment_of_the_fixtures_is_expected_to_do_something() {
    let all: Vec<&str> = frames().map(|(name, _)| name).filter(|name| name.starts_with("tcp ")).collect();
    let answered: Vec<&str> = all.iter().filter_map(|name| name.strip_suffix(", reset")).collect();
    for name in all.iter().filter(|name| !name.ends_with(", reset")) {
        let times = refused().filter(|(known, _)| known == name).count();
        assert_eq!(times + usize::from(answered.contains(name)), 1, "{name}");
    }
    assert!(refused().count() + answered.len() * 2 == all.len() && answered.len() > 40);
}

#[test]
fn what_must_not_be_answered_goes_on_with_one_reason() {
    let Some(mut node) = resetting(&version_3()) else { return };
    let before = node.router(0);
    for (name, counter) in refused() {
        // Each against a node that remembers nothing: some of them are handshakes.
        node.flows.forget_handshakes();
        passes_as(&mut node, name, counter);
        assert_eq!(node.router(0), before, "{name}");
    }
    assert_eq!((node.vip(VIP).resets, node.vip(SECOND_VIP).resets), (0, 0));
    node.flows.forget_handshakes();
    is_reset(&mut node, "tcp ack", "reset_unknown_flow");
    assert_eq!((node.vip(VIP).resets, node.vip(SECOND_VIP).resets), (1, 0));
}

#[test]
fn what_is_not_tcp_or_not_to_this_node_is_not_looked_at() {
    let Some(mut node) = resetting(&version_3()) else { return };
    let names = [
        "ip udp",
        "ip icmp",
        "ip large",
        "ip first fragment",
        "ip last fragment",
        "ip vrrp unicast",
        "ip other mac",
        "ip other address",
        "ip from the address",
        "ip vlan 10",
        "ip version 6",
        "ip 19 bytes",
        "ipv6 mapped",
        "tcp vlan 10",
        "tcp vlans 100 200",
    ];
    for name in names {
        passes(&mut node, name);
    }
    // A host that bridges or sniffs sees other stations' frames.
    for control in [ACK, SYN] {
        let sent = Segment::from_port(CLIENT_PORT, control).frame_to([0x02, 0, 0, 0, 0, 0xee]);
        let outcome = node.send(&sent);
        assert_eq!((outcome.verdict, outcome.frame, outcome.counted), (Verdict::Pass, sent, vec![]));
    }
    assert_eq!(node.flows.handshakes(), 0);
    is_reset(&mut node, "tcp ack", "reset_unknown_flow");
}

#[test]
fn every_stale_segment_is_answered_by_the_rfcs_reset() {
    let Some(mut node) = resetting(&version_3()) else { return };
    let before = node.router(0);
    let names = stale(0);
    for name in &names {
        is_reset(&mut node, name, "reset_unknown_flow");
    }
    let to_second = names.iter().filter(|name| name.contains("second address")).count() as u64;
    assert_eq!((node.vip(SECOND_VIP).resets, to_second), (1, 1));
    assert_eq!(node.vip(VIP).resets, names.len() as u64 - 1);
    // Not once for each flow: an old SEG.ACK makes a reset miss.
    for _ in 0..3 {
        is_reset(&mut node, "tcp ack", "reset_unknown_flow");
    }
    assert_eq!(node.vip(VIP).resets, names.len() as u64 + 2);
    assert_eq!(node.router(0), before, "answering changes no state");
    assert_eq!((node.flows.flows(), node.flows.handshakes(), node.flows.remembered()), (0, 0, 0));
}

#[test]
fn tags_of_vlans_are_kept() {
    for vlan in [10, 100 << 16 | 200] {
        let Some(mut node) = resetting(&Settings { vlan, ..version_3() }) else { return };
        let names = stale(vlan);
        assert_eq!(names.len(), 1);
        is_reset(&mut node, names[0], "reset_unknown_flow");
        passes(&mut node, "tcp ack");
    }
}

#[test]
fn the_reset_comes_from_the_configured_hardware_address() {
    // RFC 9568 7.3: the virtual router's own.
    let mac = [0x00, 0x00, 0x5e, 0x00, 0x01, 51];
    let Some(mut node) = resetting(&Settings { mac, ..version_3() }) else { return };
    let sent = Segment::from_port(CLIENT_PORT, ACK).frame_to(mac);
    let outcome = node.send(&sent);
    assert_eq!((outcome.verdict, &outcome.frame[6..12]), (Verdict::Transmit, &mac[..]));
    assert_resets(&sent, &outcome.frame);
    passes(&mut node, "tcp ack");
}

/// Sends all that `frames.txt` has for the untagged virtual addresses.
fn each(node: &mut TestRun, check: fn(&mut TestRun, &str)) {
    let names: Vec<_> = refused().map(|(name, _)| name).chain(stale(0)).collect();
    assert!(names.len() > 100);
    for name in names {
        check(node, name);
    }
}

#[test]
fn without_a_live_lease_everything_is_fenced_and_nothing_remembered() {
    let Some(mut node) = resetting(&version_3()) else { return };
    let live = now_ns() + LONG_NS;
    for lease in [
        Lease::default(),
        Lease { until_ns: now_ns(), claimed_after_ns: 0 },
        Lease { until_ns: live, claimed_after_ns: 1 },
    ] {
        node.edit(0, |entry| entry.lease = lease);
        each(&mut node, |node, name| dropped(node, name, "vip_fenced"));
    }
    assert_eq!((node.flows.handshakes(), node.flows.remembered(), node.vip(VIP).resets), (0, 0, 0));
    node.give_lease(0, LONG_NS);
    is_reset(&mut node, "tcp ack", "reset_unknown_flow");
}

#[test]
fn action_pass_is_as_if_the_program_were_not_there() {
    // What a node has that was never told what to do.
    let Some(mut node) = active(&version_3()) else { return };
    node.edit(0, |entry| entry.takeover = Takeover { at_ns: now_ns(), missed_before: 0 });
    let peers = node.flows.add_flow(&flow_key(), FlowOrigin::Peer);
    each(&mut node, passes);
    assert_eq!(node.flows.flow(&flow_key()), Some(peers));
    assert_eq!((node.flows.handshakes(), node.flows.remembered(), node.vip(VIP).resets), (0, 0, 0));
    node.edit(0, |entry| entry.stale.action = StaleAction::Reset);
    is_reset(&mut node, "tcp ack", "reset_peer_flow");
}

#[test]
fn action_drop_is_silence_for_what_would_be_reset() {
    let Some(mut node) = resetting(&version_3()) else { return };
    node.edit(0, |entry| entry.stale.action = StaleAction::Drop);
    for name in stale(0) {
        dropped(&mut node, name, "stale_dropped");
    }
    node.flows.add_flow(&flow_key(), FlowOrigin::Peer);
    dropped(&mut node, "tcp ack", "stale_dropped");
    passes_as(&mut node, "tcp rst", "tcp_reset");
    passes_as(&mut node, "tcp syn", "tcp_syn");
    passes_as(&mut node, "tcp ack", "tcp_handshake_seen");
    assert_eq!(node.vip(VIP).resets, 0);
}

#[test]
fn for_the_hold_time_after_the_takeover_nothing_is_reset() {
    let Some(mut node) = resetting(&version_3()) else { return };
    node.edit(0, |entry| entry.stale.hold_ms = 60_000);
    for name in stale(0) {
        dropped(&mut node, name, "stale_held");
    }
    passes_as(&mut node, "tcp rst", "tcp_reset");
    passes_as(&mut node, "tcp syn", "tcp_syn");
    passes_as(&mut node, "tcp ack", "tcp_handshake_seen");
    node.flows.forget_handshakes();
    // A peer's flow is what may still be taken over.
    node.flows.add_flow(&flow_key(), FlowOrigin::Peer);
    dropped(&mut node, "tcp ack", "stale_held");
    assert_eq!(node.vip(VIP).resets, 0);

    // At its last nanosecond it is over.
    node.edit(0, |entry| {
        entry.stale.hold_ms = 1;
        entry.takeover.at_ns = now_ns() - 1_000_000;
    });
    is_reset(&mut node, "tcp ack", "reset_peer_flow");
    is_reset(&mut node, "tcp other ports", "reset_unknown_flow");
}

#[test]
fn ports_narrow_it() {
    let Some(mut node) = resetting(&version_3()) else { return };
    // 40,000 is the client's port, and 20,480 is 80 in the wrong byte order.
    node.edit(0, |entry| entry.stale.ports[..4].copy_from_slice(&[443, 40_000, 20_480, 81]));
    for name in ["tcp ack", "tcp data, odd", "tcp no ack, fin", "tcp syn", "tcp syn ack", "tcp rst", "tcp ack"] {
        passes(&mut node, name);
    }
    assert_eq!((node.flows.handshakes(), node.flows.remembered()), (0, 0));
    // 1 is the port of this one.
    passes(&mut node, "tcp other ports");
    node.edit(0, |entry| {
        entry.stale.ports = [443, 444, 445, 446, 447, 448, 449, 450, 451, 452, 453, 454, 455, 456, 1, 80];
    });
    is_reset(&mut node, "tcp other ports", "reset_unknown_flow");
    is_reset(&mut node, "tcp ack", "reset_unknown_flow");
    passes_as(&mut node, "tcp syn", "tcp_syn");
    assert_eq!(node.flows.handshakes(), 1);
}

#[test]
fn each_virtual_router_has_its_own_policy() {
    let Some(mut node) = backup(&version_3()) else { return };
    node.configure(1, &Settings { vrid: 52, ..version_3() }, &[SECOND_VIP]);
    for index in [0, 1] {
        node.edit(index, |entry| entry.takeover.at_ns = now_ns());
    }
    node.edit(1, |entry| entry.stale.action = StaleAction::Reset);
    node.give_lease(0, LONG_NS);
    node.give_lease(1, LONG_NS);
    passes(&mut node, "tcp ack");
    is_reset(&mut node, "tcp second address", "reset_unknown_flow");
    node.edit(0, |entry| {
        entry.stale.action = StaleAction::Drop;
        entry.takeover.at_ns = now_ns();
    });
    dropped(&mut node, "tcp ack", "stale_dropped");
    node.edit(1, |entry| entry.lease = Lease::default());
    dropped(&mut node, "tcp second address", "vip_fenced");
}

#[test]
fn every_truncation_of_a_stale_segment_goes_on_until_it_is_whole() {
    let Some(mut node) = resetting(&version_3()) else { return };
    for (name, whole_len) in [("tcp ack", 54), ("tcp data, trailer", 61), ("tcp no ack, longest headers", 141)] {
        let whole = frame(name);
        let answer = frame(&format!("{name}, reset"));
        for len in 14..=whole.len() {
            let sent = &whole[..len];
            let outcome = node.send(sent);
            if len < whole_len {
                assert_eq!((outcome.verdict, &outcome.frame[..]), (Verdict::Pass, sent), "{name}, {len} bytes");
                // Without an IPv4 header there is nothing to judge.
                let counters: &[&str] = if len < 34 { &[] } else { &["tcp_bad_length"] };
                assert!(outcome.counted_only(counters), "{name}, {len} bytes: {:?}", outcome.counted);
            } else {
                assert_eq!(outcome.verdict, Verdict::Transmit, "{name}, {len} bytes: {:?}", outcome.counted);
                // After 54 bytes a reset is padding.
                assert_eq!(outcome.frame, answer[..len.min(60)], "{name}, {len} bytes");
                assert!(outcome.counted_only(&["reset_unknown_flow"]), "{name}, {len} bytes: {:?}", outcome.counted);
            }
        }
    }
}
