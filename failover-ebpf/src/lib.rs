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
mod vrrp;

use failover_common::abi::{Counter, Event, Heard, Lease, RouterKey, Settings, VipKey};
use failover_common::address::Address;
use failover_common::lease::is_live;
use failover_common::wire::Frame;
use failover_common::wire::ethernet::{ETHER_TYPE_ARP, ETHER_TYPE_IPV4, Link, Mac, VlanId};

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
    /// Hands an event to the controller; `false` when the ring is full.
    fn emit(&self, event: &Event) -> bool;
}

/// Decides about one frame, and rewrites it when the verdict is [`Verdict::Transmit`].
#[inline(always)]
pub fn handle<F: Frame + ?Sized, K: Kernel>(frame: &mut F, kernel: &K) -> Verdict {
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
    is_live: bool,
}

impl<K: Kernel> OwnVip<K> {
    #[inline(always)]
    fn find(kernel: &K, vlan: VlanId, address: [u8; 4]) -> Option<Self> {
        let key = VipKey { ifindex: kernel.ifindex(), vlan, address: Address::from_ipv4(address) };
        let vip = kernel.find_vip(&key)?;
        let index = kernel.vip_router(vip);
        let router = kernel.router(index)?;
        let is_live = holds_lease(kernel, router, kernel.now_ns());
        Some(Self { vip, index, router, mac: Mac(kernel.settings(router).mac), is_live })
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

/// Least time between two events of one virtual router that only ask for a look: a flood of them
/// wakes the controller a thousand times a second, not a million.
const EVENT_GAP_NS: u64 = 1_000_000;

/// Emits an event, counting a full ring.
#[inline(always)]
fn emit<K: Kernel>(kernel: &K, event: &Event) {
    if !kernel.emit(event) {
        kernel.count(Counter::EventLost);
    }
}
