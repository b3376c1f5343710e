//! What this node remembers of TCP connections, and what that saves from a reset: handshakes that it saw, flows that peers
//! told of, another owner of the address.

use failover_common::abi::{FlowEvent, FlowEventKind, FlowOrigin, Heard, Lease, Settings};
use failover_sim::segment::{ACK, SYN, Segment, assert_resets};
use failover_tests::fixtures::{
    LONG_NS, VIP, active, backup, dropped, flow_key, frame, is_reset, passes, passes_as, resetting, resetting_with,
    version_3,
};
use failover_tests::testrun::{Options, Outcome, TestRun, Verdict, now_ns};

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
        assert_eq!((node.flows.handshakes(), node.flows.remembered()), (1, 1), "{handshake}");
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
    assert_eq!((node.flows.handshakes(), node.flows.remembered()), (1, 1));
    went_on(&node.send(&Segment::from_port(40_001, SYN).frame()), "tcp_syn");
    assert_eq!((node.flows.handshakes(), node.flows.remembered()), (2, 2));
}

#[test]
fn a_handshake_without_a_lease_is_not_remembered() {
    let Some(mut node) = resetting(&version_3()) else { return };
    node.give_lease(0, 0);
    for name in HANDSHAKES {
        dropped(&mut node, name, "vip_fenced");
    }
    assert_eq!((node.flows.handshakes(), node.flows.remembered()), (0, 0));
    node.give_lease(0, LONG_NS);
    is_reset(&mut node, "tcp ack", "reset_unknown_flow");
}

#[test]
fn a_node_about_to_leave_takes_no_new_connections() {
    let Some(mut node) = resetting(&version_3()) else { return };
    passes_as(&mut node, "tcp syn", "tcp_syn");
    node.edit(0, |entry| entry.stale.leaving_until_ns = u64::MAX);
    for name in ["tcp syn", "tcp syn, ecn", "tcp syn, options", "tcp syn, second address"] {
        dropped(&mut node, name, "tcp_leaving");
    }
    assert_eq!((node.flows.handshakes(), node.flows.remembered()), (1, 1));
    passes_as(&mut node, "tcp ack", "tcp_handshake_seen");
    passes_as(&mut node, "tcp rst", "tcp_reset");
    passes(&mut node, "ip udp");
    node.edit(0, |entry| entry.stale.leaving_until_ns = 0);
    passes_as(&mut node, "tcp syn, second address", "tcp_syn");
}

#[test]
fn clients_whose_syn_a_leaving_node_drops_are_told_of() {
    let Some(mut node) = resetting(&version_3()) else { return };
    passes_as(&mut node, "tcp syn", "tcp_syn");
    assert_eq!(node.flows.events(), [], "a node that stays has nothing to tell");
    node.edit(0, |entry| entry.stale.leaving_until_ns = u64::MAX);
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
    node.edit(0, |entry| entry.stale.leaving_until_ns = 0);
    dropped(&mut node, "tcp syn", "vip_fenced");
    assert_eq!(node.flows.events(), [], "a Backup tells of nobody");
}

#[test]
fn when_a_handshake_could_not_be_remembered_an_unknown_flow_is_no_stale_one() {
    let options = Options { flows_max: 64, ..Options::default() };
    let Some(mut node) = resetting_with(&version_3(), options) else { return };
    for port in 1..65 {
        went_on(&node.send(&Segment::from_port(port, SYN).frame()), "tcp_syn");
    }
    assert_eq!((node.flows.handshakes(), node.flows.count().missed), (64, 0));
    is_reset(&mut node, "tcp ack", "reset_unknown_flow");

    // One more: it lives, and nobody knows it.
    went_on(&node.send(&Segment::from_port(65, SYN).frame()), "tcp_syn");
    assert_eq!((node.flows.handshakes(), node.flows.count().missed), (64, 1));
    went_on(&node.send(&Segment::from_port(65, ACK).frame()), "tcp_unproven");
    passes_as(&mut node, "tcp ack", "tcp_unproven");
    passes_as(&mut node, "tcp no ack, fin", "tcp_unproven");

    // A flood of SYNs makes it no worse: who was known stays known.
    for port in 1_000..1_256 {
        went_on(&node.send(&Segment::from_port(port, SYN).frame()), "tcp_syn");
    }
    assert_eq!((node.flows.handshakes(), node.flows.remembered()), (64, 64));
    for port in 1..65 {
        went_on(&node.send(&Segment::from_port(port, ACK).frame()), "tcp_handshake_seen");
    }

    // The next takeover counts anew.
    let missed = node.flows.count().missed;
    assert_eq!(missed, 257);
    node.edit(0, |entry| entry.takeover.missed_before = missed);
    is_reset(&mut node, "tcp ack", "reset_unknown_flow");
}

#[test]
fn without_a_takeover_nothing_unknown_is_stale() {
    let Some(mut node) = resetting(&version_3()) else { return };
    is_reset(&mut node, "tcp ack", "reset_unknown_flow");
    node.edit(0, |entry| entry.takeover = Default::default());
    passes_as(&mut node, "tcp ack", "tcp_unproven");
    // Nor is what a peer tells of: the flow may be this node's by now.
    node.flows.add_flow(&flow_key(), FlowOrigin::Peer);
    passes_as(&mut node, "tcp ack", "tcp_unproven");
}

#[test]
fn what_a_peer_tells_after_the_takeover_is_no_proof() {
    let Some(mut node) = resetting(&version_3()) else { return };
    let flow = node.flows.add_flow(&flow_key(), FlowOrigin::Peer);
    node.flows.set_missed(1);
    node.edit(0, |entry| entry.takeover.at_ns = flow.since_ns);
    passes_as(&mut node, "tcp ack", "tcp_unproven");
    node.edit(0, |entry| entry.takeover.at_ns = flow.since_ns + 1);
    is_reset(&mut node, "tcp ack", "reset_peer_flow");
}

#[test]
fn a_node_without_peers_looks_for_no_flows_of_theirs() {
    for (has_peers, counter) in [(true, "reset_peer_flow"), (false, "reset_unknown_flow")] {
        let options = Options { has_peers, ..Options::default() };
        let Some(mut node) = resetting_with(&version_3(), options) else { return };
        node.flows.add_flow_since(&flow_key(), FlowOrigin::Peer, 1);
        is_reset(&mut node, "tcp ack", counter);
        // One that begins anew is no longer the peer's.
        passes_as(&mut node, "tcp syn", "tcp_syn");
        assert_eq!(node.flows.flow(&flow_key()).is_some(), !has_peers);
    }
}

#[test]
fn an_old_handshake_does_not_hide_a_flow_that_was_the_peers_since() {
    let Some(mut node) = resetting(&version_3()) else { return };
    passes_as(&mut node, "tcp syn", "tcp_syn");
    let since_ns = now_ns();
    node.flows.add_flow_since(&flow_key(), FlowOrigin::Peer, since_ns);
    node.edit(0, |entry| entry.takeover.at_ns = since_ns + 1);
    is_reset(&mut node, "tcp ack", "reset_peer_flow");
    // And one that the peer told of after the takeover does not hide the handshake.
    node.edit(0, |entry| entry.takeover.at_ns = since_ns);
    passes_as(&mut node, "tcp ack", "tcp_handshake_seen");
}

#[test]
fn a_flow_that_is_known_by_its_handshake_is_seen_to_live_and_to_end() {
    let Some(mut node) = resetting(&version_3()) else { return };
    passes_as(&mut node, "tcp syn", "tcp_syn");
    let known = |node: &TestRun| node.flows.handshake(&flow_key()).expect("it is remembered");
    assert_eq!((known(&node).used_ns, known(&node).ended_ns), (0, 0));
    let outcome = node.send(&frame("tcp ack"));
    assert!(outcome.clock.contains(&known(&node).used_ns), "{:?} not in {:?}", known(&node), outcome.clock);
    assert_eq!(known(&node).ended_ns, 0);
    for name in ["tcp fin", "tcp rst"] {
        let outcome = node.send(&frame(name));
        assert!(outcome.clock.contains(&known(&node).ended_ns), "{name}: {:?}", known(&node));
    }
    // What follows an end is still known, and ends it no less.
    let ended = known(&node);
    passes_as(&mut node, "tcp ack", "tcp_handshake_seen");
    assert_eq!(known(&node).ended_ns, ended.ended_ns);
    assert!(known(&node).used_ns > ended.used_ns);
    // The same ends, begun anew; and a SYN for a flow that lives, which may be forged, changes nothing.
    let outcome = node.send(&frame("tcp syn"));
    let begun = known(&node);
    assert!(outcome.clock.contains(&begun.at_ns) && begun.ended_ns == 0 && begun.used_ns == 0, "{begun:?}");
    passes_as(&mut node, "tcp ack", "tcp_handshake_seen");
    let used = known(&node);
    passes_as(&mut node, "tcp syn", "tcp_syn");
    assert_eq!(known(&node), used);
}

#[test]
fn a_peers_flow_is_reset_whatever_is_remembered() {
    let Some(mut node) = resetting(&version_3()) else { return };
    let flow = node.flows.add_flow(&flow_key(), FlowOrigin::Peer);
    for inserted in [0, u64::MAX] {
        node.flows.set_missed(inserted);
        for name in ["tcp ack", "tcp no ack, fin and data", "tcp timestamps"] {
            let outcome = node.send(&frame(name));
            assert_eq!(outcome.verdict, Verdict::Transmit, "{name}");
            assert_eq!(outcome.frame, frame(&format!("{name}, reset")));
            assert!(outcome.counted_only(&["reset_peer_flow"]), "{name}: {:?}", outcome.counted);
            assert_eq!(node.flows.flow(&flow_key()), Some(flow), "{name}: it is still to be told");
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
        assert_eq!(node.flows.flow(&flow_key()), Some(flow), "it is the controller's to take out");
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
    dropped(&mut node, "tcp ack", "tcp_split");
    dropped(&mut node, "tcp no ack, fin", "tcp_split");
    passes_as(&mut node, "tcp syn", "tcp_syn");
    passes_as(&mut node, "tcp ack", "tcp_handshake_seen");
    node.flows.forget_handshakes();
    let peers = node.flows.add_flow(&flow_key(), FlowOrigin::Peer);
    dropped(&mut node, "tcp ack", "tcp_split");
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
                dropped(&mut node, "tcp ack", "tcp_split");
            } else {
                is_reset(&mut node, "tcp ack", "reset_unknown_flow");
            }
        }
    }
}
