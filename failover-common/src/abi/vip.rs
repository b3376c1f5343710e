//! A virtual address: which router it belongs to, and what happened for it.
//!
//! Deliberately absent: whether it is answered. That is its router's lease.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::pin_layout;
use crate::address::Address;

/// Finds a virtual address from a frame.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct VipKey {
    /// The interface the frame came in on.
    pub ifindex: u32,
    /// The VLANs it came in, as [`VlanId`](crate::wire::ethernet::VlanId); 0: untagged.
    pub vlan: u32,
    /// The address.
    pub address: Address,
}

/// One virtual address. `router` and `is_own` are written when it is configured, the rest by the
/// XDP program.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Vip {
    /// Index of its virtual router.
    pub router: u32,
    /// 1: the interface's own address (the router is its owner), never put on or taken off it.
    pub is_own: u32,
    /// ARP requests and probes answered.
    pub arp_replies: u64,
    /// TCP segments answered with a reset.
    pub resets: u64,
    /// IP packets dropped because there was no live lease.
    pub fenced: u64,
}

pin_layout!(VipKey, size = 24, align = 4, fields = [ifindex: u32, vlan: u32, address: Address]);
pin_layout!(Vip, size = 32, align = 8, fields = [router: u32, is_own: u32, arp_replies: u64, resets: u64, fenced: u64]);
