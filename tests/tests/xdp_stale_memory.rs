//! What this node remembers of TCP connections, and what that saves from a reset: handshakes that it saw, flows that peers
//! told of, another owner of the address.

use failover_common::abi::{Flow, FlowEvent, FlowEventKind, FlowOrigin, Heard, Lease, Settings};
use failover_tests::fixtures::{
    LONG_NS, VIP, active, backup, dropped, flow_key, frame, is_reset, passes, passes_as, resetting, resetting_with,
    version_3,
};
use failover_tests::segment::{ACK, SYN, Segment, assert_resets};
use failover_tests::testrun::{Options, Outcome, Verdict, now_ns};

const HANDSHAKES: [&str; 4] = ["tcp syn", "tcp syn, ecn", "tcp syn, options", "tcp syn ack"];

#[track_caller]
fn went_on(outcome: &Outcome, counter: &str) {
    assert!(outcome.verdict == Verdict::Pass && outcome.counted_only(&[counter]), "not {counter}: {outcome:?}");
}

#[test]
fn a_flow_whose_handshake_was_seen_is_known() {
    for handshake in HANDSHAKES {
        let Some(mut node) = resetting(&version_3()) else { return };
        is_reset(&mut node, "tcp ack", "reset_unknown_flow");
        let outcome = node.send(&frame(handshake));
        went_on(&outcome, "tcp_syn");
        let remembered = node.flows.handshake(&flow_key()).unwrap_or_else(|| panic!("{handshake}: not remembered"));
        assert!(outcome.clock.contains(&remembered.at_ns), "{handshake}: {remembered:?} not in {:?}", outcome.clock);
        assert_eq!((node.flows.handshakes(), node.flows.inserted()), (1, 1), "{handshake}");
        for name in ["tcp ack", "tcp data, odd", "tcp fin", "tcp no ack, fin", "tcp no flags", "tcp timestamps"] {
            passes_as(&mut node, name, "tcp_handshake_seen");
        }
        // Another port, another service, another address: other flows.
        is_reset(&mut node, "tcp other ports", "reset_unknown_flow");
        is_reset(&mut node, "tcp second address", "reset_unknown_flow");
        let sent = Segment::from_port(40_001, ACK).frame();
        let outcome = node.send(&sent);
        assert_eq!(outcome.verdict, Verdict::Transmit, "{handshake}: {:?}", outcome.counted);
        assert_resets(&sent, &outcome.frame);
    }
}

#[test]
fn a_retransmitted_syn_counts_once() {
    let Some(mut node) = resetting(&version_3()) else { return };
    for name in ["tcp syn", "tcp syn", "tcp syn, options", "tcp syn ack", "tcp syn"] {
        passes_as(&mut node, name, "tcp_syn");
    }
    assert_eq!((node.flows.handshakes(), node.flows.inserted()), (1, 1));
    went_on(&node.send(&Segment::from_port(40_001, SYN).frame()), "tcp_syn");
    assert_eq!((node.flows.handshakes(), node.flows.inserted()), (2, 2));
}

#[test]
fn a_handshake_without_a_lease_is_not_remembered() {
    let Some(mut node) = resetting(&version_3()) else { return };
    node.give_lease(0, 0);
    for name in HANDSHAKES {
        dropped(&mut node, name, "vip_fenced");
    }
    assert_eq!((node.flows.handshakes(), node.flows.inserted()), (0, 0));
    node.give_lease(0, LONG_NS);
    is_reset(&mut node, "tcp ack", "reset_unknown_flow");
}

#[test]
fn a_node_about_to_leave_takes_no_new_connections() {
    let Some(mut node) = resetting(&version_3()) else { return };
    passes_as(&mut node, "tcp syn", "tcp_syn");
    node.edit(0, |entry| entry.stale.is_leaving = 1);
    for name in ["tcp syn", "tcp syn, ecn", "tcp syn, options", "tcp syn, second address"] {
        dropped(&mut node, name, "tcp_leaving");
    }
    assert_eq!((node.flows.handshakes(), node.flows.inserted()), (1, 1));
    passes_as(&mut node, "tcp ack", "tcp_handshake_seen");
    passes_as(&mut node, "tcp rst", "tcp_reset");
    passes(&mut node, "ip udp");
    node.edit(0, |entry| entry.stale.is_leaving = 0);
    passes_as(&mut node, "tcp syn, second address", "tcp_syn");
}

#[test]
fn clients_whose_syn_a_leaving_node_drops_are_told_of() {
    let Some(mut node) = resetting(&version_3()) else { return };
    passes_as(&mut node, "tcp syn", "tcp_syn");
    assert_eq!(node.flows.events(), [], "a node that stays has nothing to tell");
    node.edit(0, |entry| entry.stale.is_leaving = 1);
    let refused = FlowEvent { key: flow_key(), kind: FlowEventKind::Refused, send_next: 0 };
    dropped(&mut node, "tcp syn", "tcp_leaving");
    assert_eq!(node.flows.events(), [refused]);
    // The lease is gone, the next node is not there yet.
    node.edit(0, |entry| entry.lease = Lease::default());
    dropped(&mut node, "tcp syn", "vip_fenced");
    assert_eq!(node.flows.events(), [refused]);
    for name in ["tcp ack", "tcp syn ack", "tcp rst", "tcp first fragment", "ip udp"] {
        dropped(&mut node, name, "vip_fenced");
    }
    assert_eq!(node.flows.events(), [], "nobody asks for a new connection");
    node.edit(0, |entry| entry.stale.is_leaving = 0);
    dropped(&mut node, "tcp syn", "vip_fenced");
    assert_eq!(node.flows.events(), [], "a Backup tells of nobody");
}

#[test]
fn when_not_all_handshakes_can_be_remembered_an_unknown_flow_is_no_stale_one() {
    let options = Options { flows_max: 64, ..Options::default() };
    let Some(mut node) = resetting_with(&version_3(), options) else { return };
    // Half of the capacity is certain to be remembered.
    for port in 1..32 {
        went_on(&node.send(&Segment::from_port(port, SYN).frame()), "tcp_syn");
    }
    assert_eq!(node.flows.inserted(), 31);
    is_reset(&mut node, "tcp ack", "reset_unknown_flow");
    went_on(&node.send(&Segment::from_port(32, SYN).frame()), "tcp_syn");
    passes_as(&mut node, "tcp ack", "tcp_unproven");
    passes_as(&mut node, "tcp no ack, fin", "tcp_unproven");
    went_on(&node.send(&Segment::from_port(32, ACK).frame()), "tcp_handshake_seen");

    // A flood of SYNs makes it no worse, and no larger.
    for port in 1_000..1_256 {
        went_on(&node.send(&Segment::from_port(port, SYN).frame()), "tcp_syn");
    }
    assert!(node.flows.handshakes() <= 64, "{} remembered", node.flows.handshakes());
    assert_eq!(node.flows.inserted(), 288);
    passes_as(&mut node, "tcp ack", "tcp_unproven");
    went_on(&node.send(&Segment::from_port(1_255, ACK).frame()), "tcp_handshake_seen");

    // The next takeover counts anew.
    node.edit(0, |entry| entry.takeover.handshakes_before = 288);
    is_reset(&mut node, "tcp ack", "reset_unknown_flow");
}

#[test]
fn half_of_the_capacity_is_counted_from_the_takeover() {
    let Some(mut node) = resetting_with(&version_3(), Options { flows_max: 1000, ..Options::default() }) else {
        return;
    };
    node.edit(0, |entry| entry.takeover.handshakes_before = 7_000);
    for (inserted, is_whole) in [(7_000, true), (7_499, true), (7_500, false), (u64::MAX, false)] {
        node.flows.set_inserted(inserted);
        if is_whole {
            is_reset(&mut node, "tcp ack", "reset_unknown_flow");
        } else {
            passes_as(&mut node, "tcp ack", "tcp_unproven");
        }
    }
    // Never taken over: nothing is known of what came before.
    node.flows.set_inserted(0);
    node.edit(0, |entry| entry.takeover = Default::default());
    passes_as(&mut node, "tcp ack", "tcp_unproven");
}

#[test]
fn a_peers_flow_is_reset_whatever_is_remembered() {
    let Some(mut node) = resetting(&version_3()) else { return };
    let flow = node.flows.add_flow(&flow_key(), FlowOrigin::Peer);
    for inserted in [0, u64::MAX] {
        node.flows.set_inserted(inserted);
        for name in ["tcp ack", "tcp no ack, fin and data", "tcp timestamps"] {
            let outcome = node.send(&frame(name));
            assert_eq!(outcome.verdict, Verdict::Transmit, "{name}");
            assert_eq!(outcome.frame, frame(&format!("{name}, reset")));
            assert!(outcome.counted_only(&["reset_peer_flow"]), "{name}: {:?}", outcome.counted);
            let after = node.flows.flow(&flow_key()).expect("it is still known");
            assert!(outcome.clock.contains(&after.reset_ns), "{name}: {after:?} not in {:?}", outcome.clock);
            assert_eq!(after, Flow { reset_ns: after.reset_ns, ..flow }, "{name}");
        }
    }
    assert_eq!(node.vip(VIP).resets, 6);
    // Another flow is nothing that the peer told of.
    passes_as(&mut node, "tcp other ports", "tcp_unproven");
    assert_eq!((node.flows.flows(), node.flows.handshakes()), (1, 0));
}

#[test]
fn what_is_not_fit_to_be_answered_is_not_for_a_peers_flow_either() {
    let Some(mut node) = resetting(&version_3()) else { return };
    let flow = node.flows.add_flow(&flow_key(), FlowOrigin::Peer);
    for (name, counter) in [
        ("tcp first fragment", "tcp_fragment"),
        ("tcp wrong checksum", "tcp_bad_checksum"),
        ("tcp to broadcast mac", "tcp_bad_source"),
        ("tcp total length 47", "tcp_bad_length"),
        ("tcp option length 0", "tcp_bad_options"),
    ] {
        passes_as(&mut node, name, counter);
        assert_eq!(node.flows.flow(&flow_key()), Some(flow), "{name}");
    }
    is_reset(&mut node, "tcp ack", "reset_peer_flow");
}

#[test]
fn a_new_handshake_or_the_clients_reset_ends_a_peers_flow() {
    for (name, counter) in [
        ("tcp syn", "tcp_syn"),
        ("tcp syn, options", "tcp_syn"),
        ("tcp rst", "tcp_reset"),
        ("tcp rst ack", "tcp_reset"),
    ] {
        let Some(mut node) = resetting(&version_3()) else { return };
        node.flows.add_flow(&flow_key(), FlowOrigin::Peer);
        let others = Segment::from_port(40_001, ACK).key();
        node.flows.add_flow(&others, FlowOrigin::Peer);
        passes_as(&mut node, name, counter);
        assert_eq!(node.flows.flow(&flow_key()), None, "{name}");
        assert!(node.flows.flow(&others).is_some(), "{name}: another's");
    }
    // Whoever begins it, it lives here.
    for name in HANDSHAKES {
        let Some(mut node) = resetting(&version_3()) else { return };
        node.flows.add_flow(&flow_key(), FlowOrigin::Peer);
        is_reset(&mut node, "tcp ack", "reset_peer_flow");
        passes_as(&mut node, name, "tcp_syn");
        passes_as(&mut node, "tcp ack", "tcp_handshake_seen");
    }
}

#[test]
fn this_nodes_own_flows_are_the_kernels_to_end() {
    for origin in [FlowOrigin::Socket, FlowOrigin::Found] {
        let Some(mut node) = resetting(&version_3()) else { return };
        let flow = node.flows.add_flow(&flow_key(), origin);
        // The socket is gone, whatever is written here.
        is_reset(&mut node, "tcp ack", "reset_unknown_flow");
        // A reset may be forged, and a SYN be an old one.
        passes_as(&mut node, "tcp rst", "tcp_reset");
        passes_as(&mut node, "tcp syn", "tcp_syn");
        let after = node.flows.flow(&flow_key()).expect("it is the controller's to take out");
        assert_eq!(after, Flow { reset_ns: after.reset_ns, ..flow });
    }
}

/// Long enough that no test outlives four of them.
fn patient() -> Settings {
    Settings { advert_interval_cs: 4_000, ..version_3() }
}

/// Sends what another station sends under this node's lease, and expects that it is taken for an owner, or not.
fn another_owner(name: &str, counter: &str, is_owner: bool) {
    let Some(mut node) = resetting(&patient()) else { return };
    is_reset(&mut node, "tcp ack", "reset_unknown_flow");
    let outcome = node.send(&frame(name));
    assert!(outcome.verdict == Verdict::Drop && outcome.counted.contains(&(counter, 1)), "{name}: {outcome:?}");
    assert!(node.is_live(0), "{name}");
    let last_foreign_ns = node.router(0).heard.last_foreign_ns;
    if !is_owner {
        assert_eq!(last_foreign_ns, 0, "{name}");
        is_reset(&mut node, "tcp ack", "reset_unknown_flow");
        return;
    }
    assert!(outcome.clock.contains(&last_foreign_ns), "{name}: {last_foreign_ns} not in {:?}", outcome.clock);
    passes_as(&mut node, "tcp ack", "tcp_split");
    passes_as(&mut node, "tcp no ack, fin", "tcp_split");
    passes_as(&mut node, "tcp syn", "tcp_syn");
    passes_as(&mut node, "tcp ack", "tcp_handshake_seen");
    node.flows.forget_handshakes();
    let peers = node.flows.add_flow(&flow_key(), FlowOrigin::Peer);
    passes_as(&mut node, "tcp ack", "tcp_split");
    assert_eq!(node.flows.flow(&flow_key()), Some(peers), "{name}: not reset");

    // What was heard before the takeover says nothing about after it.
    node.edit(0, |entry| entry.takeover.at_ns = last_foreign_ns);
    is_reset(&mut node, "tcp ack", "reset_peer_flow");
}

#[test]
fn while_another_owner_is_heard_nothing_is_reset() {
    another_owner("v3 steady", "advert_valid", true);
    another_owner("v3 tie 192.0.2.1", "advert_valid", true);
    another_owner("arp announcement, request form", "arp_conflict", true);
    another_owner("arp announcement, reply form", "arp_conflict", true);
    another_owner("arp reply to a client", "arp_conflict", true);
}

#[test]
fn a_release_or_a_question_makes_no_other_owner() {
    another_owner("v3 release", "advert_valid", false);
    another_owner("v3 steady, release", "advert_valid", false);
    another_owner("arp request from the address", "arp_conflict", false);
    another_owner("v3 ttl 64", "advert_bad_ttl", false);
}

#[test]
fn without_a_lease_the_others_are_the_owners() {
    let Some(mut node) = backup(&version_3()) else { return };
    for name in ["v3 steady", "arp announcement, reply form"] {
        node.send(&frame(name));
        assert_eq!(node.router(0).heard.last_foreign_ns, 0, "{name}");
    }
    assert_eq!(node.router(0).heard.adverts, 1);
    // This node's own announcement, come back.
    let Some(mut node) = active(&version_3()) else { return };
    passes(&mut node, "arp announcement, own");
    assert_eq!(node.router(0).heard, Heard::default());
}

#[test]
fn another_owner_is_believed_in_for_four_intervals() {
    let Some(mut node) = resetting(&version_3()) else { return };
    // 100 ms and 1 s: the longer one counts, whosever it is.
    for (own_cs, heard_cs) in [(10, 100), (100, 10), (100, 0)] {
        for (ago_ns, is_split) in [(4_000_000_000, false), (0, true)] {
            // Of the second, a hundred times as much is left as a frame takes on the slowest machine.
            let scale = if is_split { 40 } else { 1 };
            node.edit(0, |entry| {
                entry.takeover.at_ns = 1;
                entry.settings.advert_interval_cs = own_cs * scale;
                entry.heard.interval_cs = heard_cs * scale;
                entry.heard.last_foreign_ns = now_ns() - ago_ns;
            });
            if is_split {
                passes_as(&mut node, "tcp ack", "tcp_split");
            } else {
                is_reset(&mut node, "tcp ack", "reset_unknown_flow");
            }
        }
    }
}
