//! Adverts of the virtual routers configured here: checked, timestamped, published; and the one
//! decision the kernel makes alone, to end this node's lease when a better router speaks.
//!
//! Deliberately absent: timers and promotion. They are the election's, in userspace.

use failover_common::abi::{
    ChecksumForm, Counter, EVENT_GAP_NS, Event, EventKind, FAMILY_IPV4, Heard, RouterKey, Settings,
};
use failover_common::address::Address;
use failover_common::lease::beats;
use failover_common::wire::Frame;
use failover_common::wire::ethernet::Link;
use failover_common::wire::ipv4::Ipv4Header;
use failover_common::wire::vrrp::{self, Advert};

use crate::{Kernel, Verdict, emit, holds_lease};

/// An advert for a VRID that is not configured here may be another daemon's on this host: it
/// passes, as does another VLAN's. All others end here, counted.
#[inline(always)]
pub(crate) fn handle<F: Frame + ?Sized, K: Kernel>(frame: &F, link: &Link, ip: &Ipv4Header, kernel: &K) -> Verdict {
    let Some(vrid) = vrrp::vrid(frame, ip, link.payload) else { return Verdict::Pass };
    let key = RouterKey { ifindex: kernel.ifindex(), vlan: link.vlan, vrid, family: FAMILY_IPV4, _pad: [0; 2] };
    let Some(index) = kernel.find_router(&key) else { return Verdict::Pass };
    if kernel.has_hidden_vlan() {
        return Verdict::Pass;
    }
    let Some(router) = kernel.router(index) else { return Verdict::Pass };
    let settings = kernel.settings(router);
    match vrrp::check(frame, ip, link.payload, settings) {
        Ok(advert) => {
            kernel.count(Counter::AdvertValid);
            publish(link, &advert, index, router, settings, kernel);
        }
        Err(refusal) => {
            kernel.count(refusal);
            if refusal == Counter::AdvertBadSource && Address::from_ipv4(ip.source) == settings.own_address {
                report_own(link, ip, index, router, kernel);
            }
        }
    }
    Verdict::Drop
}

/// Stores what was heard, ends the lease if the advert beats this node, and wakes the controller
/// if it has something to do.
#[inline(always)]
fn publish<K: Kernel>(link: &Link, advert: &Advert, index: u32, router: K::Router, settings: &Settings, kernel: &K) {
    let at_ns = kernel.now_ns();
    let held = holds_lease(kernel, router, at_ns);
    let superior = beats(advert.priority, &advert.source, settings.priority, &settings.own_address);
    let before = kernel.heard(router);
    let released = advert.priority == vrrp::PRIORITY_RELEASE && before.priority != vrrp::PRIORITY_RELEASE;
    let urgent = released || (held && superior);
    let wanted = urgent || held || differs(advert, before);
    let due = urgent || at_ns.saturating_sub(before.last_event_ns) >= EVENT_GAP_NS;
    let heard = Heard {
        last_superior_ns: 0,
        last_advert_ns: at_ns,
        last_event_ns: if wanted && due { at_ns } else { before.last_event_ns },
        adverts: before.adverts + 1,
        source: advert.source,
        address_digest: advert.address_digest.0,
        interval_cs: advert.interval_cs,
        priority: advert.priority,
        checksum_form: advert.checksum_form,
        conflicts: before.conflicts,
        // Who advertises under our lease thinks that it is Active, unless it says that it gives up.
        last_foreign_ns: if held && advert.priority != vrrp::PRIORITY_RELEASE { at_ns } else { before.last_foreign_ns },
    };
    kernel.set_heard(router, &heard);
    if superior {
        kernel.set_last_superior(router, at_ns);
        kernel.count(Counter::AdvertSuperior);
        if held {
            kernel.count(Counter::LeaseEnded);
        }
    }
    if wanted && !due {
        kernel.count(Counter::EventSuppressed);
    } else if wanted {
        emit(kernel, &advert_event(link, advert, at_ns, index));
    }
}

/// Whether the controller would act on the difference.
#[inline(always)]
fn differs(advert: &Advert, before: &Heard) -> bool {
    advert.source != before.source
        || advert.priority != before.priority
        || advert.interval_cs != before.interval_cs
        || advert.address_digest.0 != before.address_digest
        || advert.checksum_form != before.checksum_form
}

#[inline(always)]
fn advert_event(link: &Link, advert: &Advert, at_ns: u64, index: u32) -> Event {
    Event {
        at_ns,
        address: advert.source,
        router: index,
        address_digest: advert.address_digest.0,
        interval_cs: advert.interval_cs,
        mac: link.header.source.0,
        priority: advert.priority,
        checksum_form: advert.checksum_form,
        kind: EventKind::Advert,
        _pad: [0; 5],
    }
}

/// Tells of an advert with our own source address: it is a loop in the network or a second node
/// with the same address, and a person has to find out which.
#[inline(always)]
fn report_own<K: Kernel>(link: &Link, ip: &Ipv4Header, index: u32, router: K::Router, kernel: &K) {
    let at_ns = kernel.now_ns();
    if at_ns.saturating_sub(kernel.heard(router).last_event_ns) < EVENT_GAP_NS {
        kernel.count(Counter::EventSuppressed);
        return;
    }
    kernel.note_event(router, at_ns);
    let event = Event {
        at_ns,
        address: Address::from_ipv4(ip.source),
        router: index,
        address_digest: 0,
        interval_cs: 0,
        mac: link.header.source.0,
        priority: 0,
        checksum_form: ChecksumForm::Unknown,
        kind: EventKind::OwnAdvert,
        _pad: [0; 5],
    };
    emit(kernel, &event);
}
