//! What the kernel tells the controller through the ring: that something it acts on has changed.
//!
//! Deliberately absent: steady adverts. They only move `Heard`, so a thousand healthy routers
//! wake nobody.

use zerocopy::{Immutable, IntoBytes, KnownLayout, TryFromBytes};

use super::{ChecksumForm, pin_layout};
use crate::address::Address;

/// Least time between two events of one virtual router that only ask for a look: a flood of them
/// wakes the controller a thousand times a second, not a million. What is not told for it is in the
/// map, so after an event the controller looks there when the time is over.
pub const EVENT_GAP_NS: u64 = 1_000_000;

/// What happened.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, TryFromBytes, IntoBytes, Immutable, KnownLayout)]
pub enum EventKind {
    /// A valid advert that differs from the one before, or that arrived while this node held a
    /// live lease.
    Advert = 1,
    /// Somebody else's ARP claimed a virtual address while this node held it.
    Conflict = 2,
    /// An advert with this node's own source address: a loop, or two nodes with one address.
    OwnAdvert = 3,
}

/// One record of the ring buffer.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, TryFromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Event {
    /// When the frame was seen, CLOCK_BOOTTIME (`bpf_ktime_get_boot_ns`).
    pub at_ns: u64,
    /// Advert: the sender's primary address. Conflict: the address that was claimed.
    pub address: Address,
    /// Index of the virtual router.
    pub router: u32,
    /// [`digest`](crate::wire::vrrp::AddressDigest) of the advert's addresses.
    pub address_digest: u32,
    /// The advert's interval, in centiseconds for either version.
    pub interval_cs: u16,
    /// The sender's Ethernet source (advert) or the claimed hardware address (conflict).
    pub mac: [u8; 6],
    /// The advert's priority.
    pub priority: u8,
    /// Which checksum the advert had.
    pub checksum_form: ChecksumForm,
    /// What happened.
    pub kind: EventKind,
    /// Zero.
    pub _pad: [u8; 5],
}

pin_layout!(Event, size = 48, align = 8, fields = [
    at_ns: u64, address: Address, router: u32, address_digest: u32, interval_cs: u16, mac: [u8; 6],
    priority: u8, checksum_form: ChecksumForm, kind: EventKind, _pad: [u8; 5],
]);
