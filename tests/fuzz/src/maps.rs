//! What is pinned: bytes of maps as values, as `failover status` shows them, and as a controller finds them.
//!
//! Input: a snapshot's values one after another.

use failover_common::abi::{
    Counters, Event, Flow, FlowEvent, FlowKey, FlowStatus, Handshake, HandshakeCount, Interface, Meta, Peer, RouterKey,
    Vip, VipKey, VirtualRouter,
};
use failover_common::lease::is_live;
use failover_sim::random::Choices;
use failover_userspace::dataplane::maps::{Raw, Snapshot};
use failover_userspace::dataplane::{Entries, padded, unpadded};
use failover_userspace::status::Status;
use zerocopy::{Immutable, IntoBytes, TryFromBytes};

use crate::bytes::Bytes;

/// The next bytes as a value, if they are one.
macro_rules! value {
    ($rest:expr, $type:ty) => {
        value::<$type, { size_of::<$type>() }>(&mut $rest)
    };
}

/// Any bytes: no panic, nothing that is not a value becomes one, and what is shown is what they say.
pub fn maps(bytes: &[u8]) {
    let mut rest = Bytes(bytes);
    let now_ns = rest.long();
    let router = value!(rest, VirtualRouter);
    mapped(&mut rest, router, now_ns);
    let meta = value!(rest, Meta);
    let interface = value!(rest, Interface);
    let vip = value!(rest, Vip).zip(value!(rest, VipKey));
    let peer = value!(rest, Peer);
    let _ = value!(rest, Event);
    let _ = value!(rest, FlowEvent);
    let _ = value!(rest, FlowKey);
    let _ = value!(rest, Flow);
    let _ = value!(rest, Handshake);
    let _ = value!(rest, RouterKey);
    let Some(meta) = meta else { return };
    let snapshot = Snapshot {
        meta,
        virtual_routers: router.into_iter().collect(),
        vips: vip.map(|(vip, key)| (key, vip)).into_iter().collect(),
        interfaces: interface.into_iter().map(|interface| (u32::from(rest.byte()), interface)).collect(),
        counters: value!(rest, Counters).expect("valid for any bytes"),
        flows_max: rest.short().into(),
        own_flows: rest.long(),
        peer_flows: rest.long(),
        handshakes: value!(rest, HandshakeCount).expect("valid for any bytes"),
        flow_status: value!(rest, FlowStatus).expect("valid for any bytes"),
        peers: peer.into_iter().map(|peer| (0, peer)).collect(),
    };
    shown(&Status::new(snapshot, rest.chance(2), now_ns), router, now_ns);
}

/// The bytes as a value, which has no others.
fn value<T: TryFromBytes + IntoBytes + Immutable, const N: usize>(rest: &mut Bytes<'_>) -> Option<T> {
    let raw = Raw(rest.array::<N>());
    let value: T = raw.read().ok()?;
    assert_eq!(value.as_bytes(), raw.0);
    Some(value)
}

/// The contract's JSON tells of the lease and the state what the map has.
fn shown(status: &Status, router: Option<VirtualRouter>, now_ns: u64) {
    let json = status.json();
    assert!(status.table().ends_with('\n'));
    let Some(VirtualRouter { lease, heard, report, .. }) = router else { return };
    let shown = &json["virtual_routers"][0];
    let is_live = is_live(now_ns, lease.until_ns, lease.claimed_after_ns, heard.last_superior_ns);
    let remaining_ms = if is_live { (lease.until_ns - now_ns) / 1_000_000 } else { 0 };
    assert_eq!(shown["lease_remaining_ms"], remaining_ms);
    if is_live || json["controller_alive"] == true {
        assert_eq!(shown["state"], format!("{:?}", report.state));
    } else {
        assert_eq!(shown["state"], "Initialize");
    }
    let name = unpadded(&report.name);
    assert_eq!(shown["name"], name);
    // Bytes that are no text are replaced, and may be longer then.
    if report.name.starts_with(name.as_bytes()) {
        assert_eq!(unpadded(&padded::<32>(&name)), name);
    }
}

/// An entry in memory that is shared with a program which writes what it likes.
fn mapped(rest: &mut Bytes<'_>, router: Option<VirtualRouter>, now_ns: u64) {
    thread_local!(static ENTRIES: Entries = Entries::anonymous(1).expect("memory for an entry"));
    ENTRIES.with(|entries| {
        let entry = entries.entry(0).expect("it was asked for");
        let at = entries.router_ptr(0).expect("it was asked for").cast::<[u8; size_of::<VirtualRouter>()]>();
        let bytes = router.map_or_else(|| rest.array(), |router| Raw::of(&router).0);
        // SAFETY: the mapping is one `VirtualRouter` long and lives as long as `entries`; nobody holds a reference into
        // it, and readers check what they find.
        unsafe { at.write(bytes) };
        let _ = (entry.settings(), entry.takeover(), entry.is_live(now_ns), entry.last_advert_ns());
        if let Some(router) = router {
            assert_eq!((entry.lease(), entry.heard()), (router.lease, router.heard));
            assert_eq!((entry.report(), entry.stale()), (router.report, router.stale));
        } else {
            let _ = (entry.lease(), entry.heard(), entry.report(), entry.stale());
        }
    });
}
