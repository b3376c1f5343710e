//! The whole frame path as one function: map state and frame in, verdict and frame out. The same code runs in the
//! kernel, which `tests/tests/xdp_differential.rs` shows to do the same.
//!
//! Input: 64 bytes that choose the map state, then the frame.

use std::cell::RefCell;

use failover_common::abi::{FlowOrigin, Settings, StaleAction, VirtualRouter};
use failover_ebpf::{Verdict, handle};
use failover_sim::fixtures::{SECOND_VIP, VIP};
use failover_sim::host_frame::HostFrame;
use failover_sim::host_kernel::HostKernel;
use failover_sim::map_state::{MapState, OPTIONS};
use failover_sim::segment::assert_resets;

use crate::bytes::Bytes;

/// Bytes that choose the map state: more than there are choices.
pub const STATE: usize = 64;
/// The clock stands still.
const NOW_NS: u64 = 1_000_000_000_000;
/// What any time in a map may be: to come, past, about now, about a millisecond ago, never.
const TIMES: [u64; 9] = [
    NOW_NS + 600_000_000_000,
    NOW_NS - 600_000_000_000,
    NOW_NS,
    NOW_NS + 1,
    NOW_NS - 1,
    NOW_NS - 999_999,
    NOW_NS - 1_000_000,
    u64::MAX,
    0,
];

thread_local! {
    /// One for all inputs: it is emptied by [`HostKernel::set_state`].
    static NODE: RefCell<HostKernel> = RefCell::new(HostKernel::new(OPTIONS).expect("memory for two entries"));
}

/// Whatever comes in: no panic, no lease extended or taken, nothing answered or served without one, nothing passed
/// that was changed.
pub fn frame_path(bytes: &[u8]) {
    let mut rest = Bytes(bytes);
    let choices = rest.slice(STATE);
    let sent = rest.0;
    let before = MapState::choose(&mut Bytes(choices), &TIMES, sent);
    NODE.with_borrow_mut(|node| {
        node.now_ns = NOW_NS;
        node.set_state(&before);
        let counted_before = node.counters();
        let mut frame = HostFrame(sent.to_vec());
        let verdict = handle(&mut frame, node);
        let counted: Vec<u64> = node
            .counters()
            .values()
            .iter()
            .zip(counted_before.values())
            .map(|(after, before)| after - before)
            .collect();
        let after = node.state();
        let events = std::iter::from_fn(|| node.next_event()).count();
        let flow_events = std::iter::from_fn(|| node.next_flow_event()).count();
        assert!(counted.iter().all(|times| *times <= 1) && events <= 1 && flow_events <= 1, "{counted:?}");
        for (before, after) in before.routers.iter().zip(&after.routers) {
            check_router(before, after);
        }
        check_memory(&before, &after);
        if is_fenced(sent, &before) == Some(true) {
            assert_eq!(verdict, Verdict::Drop, "served without a lease");
        }
        match verdict {
            Verdict::Pass => assert_eq!(frame.0, sent, "passed, and changed"),
            Verdict::Drop => {
                assert_eq!(frame.0, sent, "dropped, and changed");
                assert!(counted.iter().any(|times| *times > 0), "dropped without a reason");
            }
            Verdict::Transmit => check_answer(sent, &frame.0, &before, &after),
        }
    });
}

/// A lease is live before its end, unless a superior advert came that the claim did not know (ARCHITECTURE.md,
/// invariant 3).
fn lives(router: &VirtualRouter) -> bool {
    NOW_NS < router.lease.until_ns && router.lease.claimed_after_ns == router.heard.last_superior_ns
}

/// The controller's words stay, and a lease can only end.
fn check_router(before: &VirtualRouter, after: &VirtualRouter) {
    let controllers = |router: &VirtualRouter| {
        let VirtualRouter { lease, settings, report, takeover, stale, heard: _ } = *router;
        (lease, settings, report, takeover, stale)
    };
    assert_eq!(controllers(before), controllers(after));
    let (was, is) = (before.heard, after.heard);
    for (was, is) in [
        (was.last_superior_ns, is.last_superior_ns),
        (was.last_advert_ns, is.last_advert_ns),
        (was.last_event_ns, is.last_event_ns),
        (was.last_foreign_ns, is.last_foreign_ns),
    ] {
        assert!(is == was || is == NOW_NS);
    }
    // Nobody claims after an advert that is still to come.
    let is_possible = before.lease.claimed_after_ns != NOW_NS;
    assert!(!lives(after) || lives(before) || !is_possible, "a dead lease came to life");
    assert!(is.adverts - was.adverts <= 1 && is.conflicts - was.conflicts <= 1);
    // RFC 9568 6.4.3: a greater priority, or the same and a greater address; a release (0) beats nobody.
    let Settings { priority, own_address, .. } = before.settings;
    let is_greater = is.priority > priority || (is.priority == priority && is.source.bytes > own_address.bytes);
    let beats = is.adverts > was.adverts && is.priority > 0 && is_greater;
    assert_eq!(is.last_superior_ns, if beats { NOW_NS } else { was.last_superior_ns });
    assert_eq!(is.last_advert_ns, if is.adverts > was.adverts { NOW_NS } else { was.last_advert_ns });
}

/// What is known of connections: a peer's flow may go, a handshake may come and be used.
fn check_memory(before: &MapState, after: &MapState) {
    for (key, flow) in &before.flows {
        let is_peers = flow.origin == FlowOrigin::Peer;
        assert!(after.flows.get(key).map_or(is_peers, |now| now == flow), "{flow:?} is not the frame path's");
    }
    assert!(after.flows.len() <= before.flows.len() && after.handshakes.len() <= OPTIONS.flows_max as usize);
    assert!(before.handshakes.keys().all(|key| after.handshakes.contains_key(key)), "a handshake was forgotten");
    let (was, is) = (before.count, after.count);
    assert!(is.remembered - was.remembered + is.missed - was.missed <= 1);
    assert!(after.budget.tokens_nano <= before.budget.tokens_nano || before.budget.filled_ns == 0);
}

/// Whether it is IPv4 to this node, for an address that the node may not serve now. `None`: it ends too early.
fn is_fenced(sent: &[u8], before: &MapState) -> Option<bool> {
    let (mut at, mut vlan) = (14, 0);
    while at < 22 && matches!(sent.get(at - 2..at)?, [0x81, 0x00] | [0x88, 0xa8]) {
        let tag = sent.get(at..at + 4)?;
        vlan = vlan << 16 | u32::from(u16::from_be_bytes([tag[0] & 0x0f, tag[1]]));
        at += 4;
    }
    let ip = sent.get(at..at + 20)?;
    if sent[at - 2..at] != [0x08, 0x00] || ip[0] >> 4 != 4 {
        return Some(false);
    }
    let of = |router: &VirtualRouter| {
        let addresses = if router.settings.vlan == 0 { [VIP, SECOND_VIP].as_slice() } else { &[VIP] };
        let is_for_it = sent[..6] == router.settings.mac || sent[0] & 1 == 1;
        vlan == router.settings.vlan
            && is_for_it
            && addresses.iter().any(|address| ip[16..] == *address)
            && !lives(router)
    };
    Some(before.routers.iter().any(of))
}

/// An answer is ARP's or a reset, and only where one may go.
fn check_answer(sent: &[u8], answer: &[u8], before: &MapState, after: &MapState) {
    assert!(answer.len() <= sent.len() && (answer.len() >= 60 || answer.len() == sent.len()), "{}", answer.len());
    assert_eq!(answer[..6], sent[6..12], "to whom it came from");
    assert_eq!(sent[6] & 1, 0, "answered to a group");
    let vips = before.vips.iter().zip(&after.vips);
    let changed: Vec<_> = vips.filter(|(before, after)| before != after).collect();
    let [(vip, counted)] = changed[..] else { panic!("an answer is one address's: {changed:?}") };
    let router = &before.routers[vip.router as usize];
    assert!(lives(router), "answered without a lease");
    assert_eq!(answer[6..12], router.settings.mac);
    assert_eq!(after.routers, before.routers, "an answer changes no router");
    if counted.resets > vip.resets {
        assert_resets(sent, answer);
        assert_eq!(router.stale.action, StaleAction::Reset);
    } else {
        check_arp(sent, answer, router);
    }
}

/// RFC 826: operation 2, the ends swapped, this node's hardware address; everything else as it was.
fn check_arp(sent: &[u8], answer: &[u8], router: &VirtualRouter) {
    let at = (14..=22).step_by(4).find(|at| sent[at - 2..*at] == [0x08, 0x06]).expect("ARP, behind up to two tags");
    assert_eq!(answer.len(), sent.len());
    assert_eq!(sent[at..at + 8], [0, 1, 8, 0, 6, 4, 0, 1], "a request for IPv4 over Ethernet");
    assert_eq!(answer[12..at + 7], sent[12..at + 7]);
    assert_eq!(answer[at + 7], 2);
    assert_eq!(
        (&answer[at + 8..at + 14], &answer[at + 14..at + 18]),
        (&router.settings.mac[..], &sent[at + 24..at + 28])
    );
    assert_eq!(answer[at + 18..at + 28], sent[at + 8..at + 18]);
    assert_eq!(answer[at + 28..], sent[at + 28..]);
}
