//! ARP for the virtual addresses: answered here while the lease lives, by nobody on this node
//! when it does not, and defended against others while it does.
//!
//! Deliberately absent: announcing. A gratuitous ARP is the controller's to send.

use failover_common::abi::{ChecksumForm, Counter, EVENT_GAP_NS, Event, EventKind};
use failover_common::address::Address;
use failover_common::wire::Frame;
use failover_common::wire::arp::{ArpPacket, REPLY, REQUEST};
use failover_common::wire::ethernet::{EthernetHeader, Link};

use crate::{Kernel, OwnVip, Verdict, emit};

#[inline(always)]
pub(crate) fn handle<F: Frame + ?Sized, K: Kernel>(frame: &mut F, link: &Link, kernel: &K) -> Verdict {
    let Some(arp) = frame.read::<ArpPacket>(link.payload) else { return Verdict::Pass };
    let operation = arp.operation.get();
    if !arp.is_ipv4_over_ethernet() || !(operation == REQUEST || operation == REPLY) {
        return Verdict::Pass;
    }
    // Who claims an address of ours comes first. Under no lease of ours the claim is the Active's,
    // and the kernel's neighbour table may learn it, but a question is still a question.
    if let Some(own) = OwnVip::find(kernel, link.vlan, arp.sender_ip)
        && own.is_live
    {
        return claimed(&arp, &own, kernel);
    }
    if operation == REPLY || arp.sender_ip == arp.target_ip {
        return Verdict::Pass;
    }
    match OwnVip::find(kernel, link.vlan, arp.target_ip) {
        Some(own) if !own.is_addressed(link) => Verdict::Pass,
        Some(own) if own.is_live => answer(frame, link, &arp, &own, kernel),
        Some(_) => {
            // A leftover kernel address must not answer either: the frame ends here.
            kernel.count(Counter::ArpSilenced);
            Verdict::Drop
        }
        None => Verdict::Pass,
    }
}

/// Turns the request into its answer, in place and at the same length, tags kept.
#[inline(always)]
fn answer<F: Frame + ?Sized, K: Kernel>(
    frame: &mut F,
    link: &Link,
    arp: &ArpPacket,
    own: &OwnVip<K>,
    kernel: &K,
) -> Verdict {
    // A relayed or forged sender, or a form that nobody uses: the kernel's own ARP may judge it.
    let is_plain = arp.hardware_type.get() == 1;
    if !is_plain || arp.sender_mac != link.header.source || arp.sender_mac.is_group() {
        return Verdict::Pass;
    }
    let header = EthernetHeader { destination: link.header.source, source: own.mac, ..link.header };
    if frame.write(link.payload, &arp.answer(own.mac)).is_none() || frame.write(0, &header).is_none() {
        return Verdict::Pass;
    }
    kernel.count(Counter::ArpAnswered);
    kernel.count_arp_reply(own.vip);
    Verdict::Transmit
}

/// Somebody says that a virtual address is theirs, under our live lease.
#[inline(always)]
fn claimed<K: Kernel>(arp: &ArpPacket, own: &OwnVip<K>, kernel: &K) -> Verdict {
    if arp.sender_mac == own.mac {
        return Verdict::Pass;
    }
    kernel.count(Counter::ArpConflict);
    let at_ns = own.now_ns;
    kernel.count_conflict(own.router);
    // A frozen node's kernel may still ask for others in the address's name. Only who answers for it, or announces it,
    // acts as its owner.
    if arp.operation.get() == REPLY || arp.sender_ip == arp.target_ip {
        kernel.note_foreign(own.router, at_ns);
    }
    if at_ns.saturating_sub(kernel.heard(own.router).last_event_ns) < EVENT_GAP_NS {
        kernel.count(Counter::EventSuppressed);
        return Verdict::Drop;
    }
    kernel.note_event(own.router, at_ns);
    emit(
        kernel,
        &Event {
            at_ns,
            address: Address::from_ipv4(arp.sender_ip),
            router: own.index,
            address_digest: 0,
            interval_cs: 0,
            mac: arp.sender_mac.0,
            priority: 0,
            checksum_form: ChecksumForm::Unknown,
            kind: EventKind::Conflict,
            _pad: [0; 5],
        },
    );
    Verdict::Drop
}
