//! The frame path: what happens to one frame, as plain code over two traits.
//!
//! [`Frame`] is bounded access to the bytes, [`Kernel`] is everything else the path needs (maps,
//! clock, ring). The binary implements both with packet pointers and BPF maps; a test can
//! implement them with a slice and a struct. Rules: what is not understood passes untouched, only
//! frames of our virtual routers and addresses are answered or dropped, nothing here ever extends
//! a lease.
//!
//! Deliberately absent: `unsafe` (in `kernel.rs`, of the binary), and any decision to become
//! Active.
#![no_std]
#![forbid(unsafe_code)]

mod arp;
mod ipv4;
mod tcp;
mod vrrp;

use failover_common::abi::{
    Counter, Event, FlowEvent, FlowKey, Heard, Lease, RouterKey, Settings, StalePolicy, Takeover, VipKey,
};
use failover_common::address::Address;
use failover_common::lease::is_live;
use failover_common::wire::Frame;
use failover_common::wire::ethernet::{ETHER_TYPE_ARP, ETHER_TYPE_IPV4, Link, Mac, VlanId};
use failover_common::wire::ipv4::Ipv4Header;
use failover_common::wire::tcp::TcpHeader;

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// On to the kernel, untouched.
    Pass,
    /// Gone.
    Drop,
    /// Back out where it came in, as rewritten.
    Transmit,
}

/// A frame whose tail can be cut off.
pub trait Cut: Frame {
    /// Leaves the first `len` bytes; `None` when that cannot be done.
    fn cut(&mut self, len: usize) -> Option<()>;
}

/// What the kernel's sockets have for a TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Socket {
    /// Nothing that knows its flow: no socket, or a listener that would refuse it.
    None,
    /// The flow's own, in whatever state.
    Flow,
    /// A listener, and the segment ends a handshake with one of its SYN cookies.
    Cookie,
}

/// The rest of the world, as one frame sees it.
///
/// `Router` and `Vip` are handles to map entries: the kernel's are pointers.
pub trait Kernel {
    /// A virtual router's entry.
    type Router: Copy;
    /// A virtual address's entry.
    type Vip: Copy;

    /// CLOCK_BOOTTIME nanoseconds (`bpf_ktime_get_boot_ns`).
    fn now_ns(&self) -> u64;
    /// The interface the frame came in on.
    fn ifindex(&self) -> u32;
    /// Whether the frame belongs to a VLAN of which its bytes say nothing: the tag is in a socket buffer's metadata, or
    /// in a NIC's descriptor. Asked only about frames that look like ours, which are few.
    fn has_hidden_vlan(&self) -> bool;
    /// Counts one exit.
    fn count(&self, counter: Counter);
    /// Looks up a virtual address.
    fn find_vip(&self, key: &VipKey) -> Option<Self::Vip>;
    /// The index of the virtual router that the address belongs to.
    fn vip_router(&self, vip: Self::Vip) -> u32;
    /// Counts an answer given for the address.
    fn count_arp_reply(&self, vip: Self::Vip);
    /// Counts a packet to the address that was dropped.
    fn count_fenced(&self, vip: Self::Vip);
    /// The index of the virtual router that an advert belongs to.
    fn find_router(&self, key: &RouterKey) -> Option<u32>;
    /// The entry at an index.
    fn router(&self, index: u32) -> Option<Self::Router>;
    /// The lease, each word read once.
    fn lease(&self, router: Self::Router) -> Lease;
    /// The settings.
    fn settings(&self, router: Self::Router) -> &Settings;
    /// What was heard before; the reference ends before `set_heard`.
    fn heard(&self, router: Self::Router) -> &Heard;
    /// When the last superior advert came: one word, read once.
    fn last_superior_ns(&self, router: Self::Router) -> u64;
    /// Stores [`Heard`] but its conflicts and `last_superior_ns`.
    fn set_heard(&self, router: Self::Router, heard: &Heard);
    /// Stores when a superior advert came, after `set_heard`: who sees this also sees the advert.
    /// Never called with anything else, or it could bring a lease back that another CPU ended.
    fn set_last_superior(&self, router: Self::Router, at_ns: u64);
    /// Counts a foreign claim of one of the router's addresses.
    fn count_conflict(&self, router: Self::Router);
    /// Notes when an event was last emitted for the router.
    fn note_event(&self, router: Self::Router, at_ns: u64);
    /// Notes when another owner of the router's addresses was last noticed.
    fn note_foreign(&self, router: Self::Router, at_ns: u64);
    /// Hands an event to the controller; `false` when the ring is full.
    fn emit(&self, event: &Event) -> bool;

    /// What stale segments get.
    fn stale(&self, router: Self::Router) -> &StalePolicy;
    /// Since when this node is Active.
    fn takeover(&self, router: Self::Router) -> Takeover;
    /// Looks for a socket of this network namespace (`bpf_skc_lookup_tcp`, `bpf_tcp_check_syncookie`).
    fn find_socket(&self, ip: &Ipv4Header, tcp: &TcpHeader) -> Socket;
    /// When the flow's handshake was seen, if it was.
    fn handshake_ns(&self, key: &FlowKey) -> Option<u64>;
    /// Remembers a handshake, or counts it as missed.
    fn remember_handshake(&self, key: &FlowKey, at_ns: u64);
    /// Notes that a flow known by its handshake is used; or, as far as can be seen, ends.
    fn note_use(&self, key: &FlowKey, at_ns: u64, is_end: bool);
    /// How many handshakes were missed.
    fn handshakes_missed(&self) -> u64;
    /// Since when a peer tells that the flow is its own, if one does.
    fn peer_flow_ns(&self, key: &FlowKey) -> Option<u64>;
    /// Whether the frame is a socket buffer: with what that may have left undone, and notes of where its headers are.
    fn is_socket_buffer(&self) -> bool;
    /// Forgets a peer's flow; this node's own stay.
    fn forget_peer_flow(&self, key: &FlowKey);
    /// Takes one of this CPU's tokens for a reset; `false` when there is none.
    fn take_reset_token(&self, now_ns: u64) -> bool;
    /// Tells of a flow.
    fn emit_flow(&self, event: &FlowEvent);
    /// Counts a reset sent from the address.
    fn count_reset(&self, vip: Self::Vip);
}

/// Decides about one frame, and rewrites it when the verdict is [`Verdict::Transmit`].
#[inline(always)]
pub fn handle<F: Cut + ?Sized, K: Kernel>(frame: &mut F, kernel: &K) -> Verdict {
    let Some(link) = Link::read(frame) else { return Verdict::Pass };
    match link.ether_type {
        ETHER_TYPE_IPV4 => ipv4::handle(frame, &link, kernel),
        ETHER_TYPE_ARP => arp::handle(frame, &link, kernel),
        _ => Verdict::Pass,
    }
}

/// An address found to be one of ours.
struct OwnVip<K: Kernel> {
    vip: K::Vip,
    index: u32,
    router: K::Router,
    mac: Mac,
    now_ns: u64,
    is_live: bool,
}

impl<K: Kernel> OwnVip<K> {
    #[inline(always)]
    fn find(kernel: &K, vlan: VlanId, address: [u8; 4]) -> Option<Self> {
        let key = VipKey { ifindex: kernel.ifindex(), vlan, address: Address::from_ipv4(address) };
        let vip = kernel.find_vip(&key)?;
        if kernel.has_hidden_vlan() {
            return None;
        }
        let index = kernel.vip_router(vip);
        let router = kernel.router(index)?;
        let now_ns = kernel.now_ns();
        let is_live = holds_lease(kernel, router, now_ns);
        Some(Self { vip, index, router, mac: Mac(kernel.settings(router).mac), now_ns, is_live })
    }
}

impl<K: Kernel> OwnVip<K> {
    /// Whether the frame is for this node at all. One to another station's MAC (this host bridges,
    /// or sniffs) is not for us to judge.
    #[inline(always)]
    fn is_addressed(&self, link: &Link) -> bool {
        link.header.destination == self.mac || link.header.destination.is_group()
    }
}

/// Whether this node may answer for the router's addresses now.
#[inline(always)]
fn holds_lease<K: Kernel>(kernel: &K, router: K::Router, now_ns: u64) -> bool {
    let lease = kernel.lease(router);
    is_live(now_ns, lease.until_ns, lease.claimed_after_ns, kernel.last_superior_ns(router))
}

/// Emits an event, counting a full ring.
#[inline(always)]
fn emit<K: Kernel>(kernel: &K, event: &Event) {
    if !kernel.emit(event) {
        kernel.count(Counter::EventLost);
    }
}
