//! The pinned maps: their types, names and capacities. What bpftool shows and `failover status`
//! reads is exactly this.
//!
//! Rules: `#[repr(C)]`, explicit padding, layout asserted at compile time, one writer per
//! sub-structure. A change of any layout or meaning raises [`ABI_VERSION`].
//!
//! Deliberately absent: how to reach a map (aya on either side).

mod counter;
mod event;
mod filter;
mod flow;
mod meta;
mod router;
mod vip;

pub use counter::{COUNTER_NAMES, Counter, Counters};
pub use event::{EVENT_GAP_NS, Event, EventKind};
pub use filter::{VIP_FILTER_ALL, VIP_FILTER_WORDS, VipFilter, vip_filter, vip_filter_place};
pub use flow::{
    Flow, FlowEvent, FlowEventKind, FlowKey, FlowOrigin, FlowStatus, Handshake, HandshakeCount, Peer, ResetBudget,
};
pub use meta::{Interface, Meta, XdpMode};
pub use router::{
    AUTHENTICATION_NONE, AUTHENTICATION_SIMPLE, ChecksumForm, FAMILY_IPV4, Heard, Lease, Report, RouterKey, Settings,
    StaleAction, StalePolicy, State, Takeover, VirtualRouter,
};
pub use vip::{Vip, VipKey};

/// The layout and meaning of everything in this module. Written to [`Meta`] at load, compared
/// before a pinned map is trusted.
pub const ABI_VERSION: u32 = 3;

/// Array of [`VirtualRouter`], one entry per configured virtual router, memory-mapped by the
/// controller so that a lease is one aligned store.
pub const VIRTUAL_ROUTERS: &str = "VIRTUAL_ROUTERS";
/// Hash of [`VipKey`] to [`Vip`].
pub const VIPS: &str = "VIPS";
/// Hash of [`RouterKey`] to the index in [`VIRTUAL_ROUTERS`].
pub const ROUTER_INDEX: &str = "ROUTER_INDEX";
/// Per-CPU array of one [`Counters`].
pub const COUNTERS: &str = "COUNTERS";
/// Array of one [`Meta`].
pub const META: &str = "META";
/// Hash of interface index to [`Interface`], for people and `failover status`.
pub const INTERFACES: &str = "INTERFACES";
/// Ring buffer of [`Event`].
pub const EVENTS: &str = "EVENTS";
/// Hash of [`FlowKey`] to [`Flow`]: established connections, this node's and its peers'.
pub const FLOWS: &str = "FLOWS";
/// Hash of [`FlowKey`] to [`Handshake`].
pub const HANDSHAKES: &str = "HANDSHAKES";
/// Array of one [`HandshakeCount`].
pub const HANDSHAKE_COUNT: &str = "HANDSHAKE_COUNT";
/// Per-CPU array of one [`ResetBudget`].
pub const RESET_BUDGET: &str = "RESET_BUDGET";
/// Hash of [`Address`](crate::address::Address) to the index of the virtual router whose flows are
/// remembered: what the socket program looks at, which knows no interface.
pub const FLOW_ADDRESSES: &str = "FLOW_ADDRESSES";
/// Ring buffer of [`FlowEvent`], not pinned: what a dead controller did not read is looked up anew.
pub const FLOW_EVENTS: &str = "FLOW_EVENTS";
/// Array of one [`FlowStatus`], for people and `failover status`.
pub const FLOW_STATUS: &str = "FLOW_STATUS";
/// Hash of a peer's index in the configuration to [`Peer`], for people and `failover status`.
pub const PEERS: &str = "PEERS";

/// Virtual routers of one node; the array is made as long as the configuration needs.
pub const VIRTUAL_ROUTERS_MAX: u32 = 256;
/// Addresses of one virtual router. RFC 9568 allows 255 in an advert; keepalived's users stay
/// below 20 and put more into another virtual router.
pub const ADDRESSES_PER_ROUTER_MAX: usize = 20;
/// Every router with every address.
pub const VIPS_MAX: u32 = VIRTUAL_ROUTERS_MAX * ADDRESSES_PER_ROUTER_MAX as u32;
/// Interfaces of one node: at most one per virtual router.
pub const INTERFACES_MAX: u32 = VIRTUAL_ROUTERS_MAX;
/// Bytes of the ring, a power of two: more than 9,000 records of 48 bytes with their 8-byte
/// headers. A full ring costs a wake-up, never a state: the map is the truth.
pub const EVENTS_BYTES: u32 = 512 * 1024;
/// Entries of [`FLOWS`] and of [`HANDSHAKES`], unless configured.
pub const FLOWS_MAX_DEFAULT: u32 = 262_144;
/// Bytes of [`FLOW_EVENTS`]: more than 18,000 records of 44 bytes (56 with padding and header), what 90,000 connections a
/// second make in the 100 ms between two looks. A full ring costs a resynchronisation.
pub const FLOW_EVENTS_BYTES: u32 = 1024 * 1024;
/// Nodes that flows are replicated to.
pub const PEERS_MAX: u32 = 16;
/// Ports of one virtual router to which resets can be narrowed.
pub const STALE_PORTS_MAX: usize = 16;

/// Asserts size, alignment and the absence of implicit padding of one shared type.
macro_rules! pin_layout {
    ($ty:ty, size = $size:literal, align = $align:literal, fields = [$($field:ident: $fty:ty),+ $(,)?]) => {
        const _: () = {
            assert!(size_of::<$ty>() == $size);
            assert!(align_of::<$ty>() == $align);
            assert!(0 $(+ size_of::<$fty>())+ == size_of::<$ty>(), "implicit padding");
            $( let _: fn(&$ty) -> &$fty = |it| &it.$field; )+
        };
    };
}
use pin_layout;
