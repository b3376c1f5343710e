//! One virtual router's entry: the lease, what the kernel heard, what it must compare with, and
//! what people want to see.
//!
//! Each sub-structure has one writer, so nothing needs a lock: `lease`, `settings`, `report`,
//! `takeover` and `stale` belong to the controller (through a memory map, field by field), `heard` to the XDP program.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, TryFromBytes};

use super::{STALE_PORTS_MAX, pin_layout};
use crate::address::Address;

/// [`Settings::family`] and [`RouterKey::family`] of an IPv4 virtual router.
pub const FAMILY_IPV4: u8 = 4;
/// [`Settings::authentication`]: none (RFC 3768 5.3.6, type 0; the only value of version 3).
pub const AUTHENTICATION_NONE: u8 = 0;
/// [`Settings::authentication`]: RFC 2338's simple text password, as keepalived still sends it.
pub const AUTHENTICATION_SIMPLE: u8 = 1;

/// Finds a virtual router from an advert.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RouterKey {
    /// The interface the advert came in on.
    pub ifindex: u32,
    /// The VLANs it came in, as [`VlanId`](crate::wire::ethernet::VlanId).
    pub vlan: u32,
    /// RFC 9568 5.2.3.
    pub vrid: u8,
    /// [`FAMILY_IPV4`]: IPv4 and IPv6 virtual routers may share a VRID.
    pub family: u8,
    /// Zero.
    pub _pad: [u8; 2],
}

pin_layout!(RouterKey, size = 12, align = 4, fields = [ifindex: u32, vlan: u32, vrid: u8, family: u8, _pad: [u8; 2]]);

/// The right to answer. Written by the controller alone; see [`is_live`](crate::lease::is_live).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Lease {
    /// CLOCK_BOOTTIME nanoseconds; at and after it the node is silent. 0: none. The store to this
    /// word is what takes or gives up all of the router's addresses.
    pub until_ns: u64,
    /// [`Heard::last_superior_ns`] as it was before the decision to claim.
    pub claimed_after_ns: u64,
}

/// Which bytes a version 3 advert's checksum covers.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, TryFromBytes, IntoBytes, Immutable, KnownLayout)]
pub enum ChecksumForm {
    /// Nothing heard yet.
    #[default]
    Unknown = 0,
    /// The VRRP message alone (RFC 9568 5.2.8; always so in version 2).
    Message = 1,
    /// The message and a pseudo-header, as RFC 5798 was widely read; keepalived's default.
    PseudoHeader = 2,
}

/// The last valid advert, and what followed from it. Written by the XDP program alone.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, TryFromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Heard {
    /// When an advert that beats this node last came, CLOCK_BOOTTIME nanoseconds; 0: never. A
    /// lease that was claimed after another one than this is dead.
    pub last_superior_ns: u64,
    /// When the last valid advert came, CLOCK_BOOTTIME nanoseconds; 0: never.
    pub last_advert_ns: u64,
    /// When the last event was put into the ring for this router.
    pub last_event_ns: u64,
    /// Valid adverts so far.
    pub adverts: u64,
    /// Its sender.
    pub source: Address,
    /// Digest of the addresses it lists.
    pub address_digest: u32,
    /// Its interval, centiseconds.
    pub interval_cs: u16,
    /// Its priority.
    pub priority: u8,
    /// Its checksum's form.
    pub checksum_form: ChecksumForm,
    /// Foreign ARP claims of this router's addresses while it held them.
    pub conflicts: u64,
    /// When another station last acted as owner while this node held the lease: an advert that is
    /// no release, or an ARP claim. 0: never.
    pub last_foreign_ns: u64,
}

/// What the XDP program compares with and answers from. Written by the controller alone.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Settings {
    /// This node's primary address on the interface: the source of its adverts.
    pub own_address: Address,
    /// Version 2 with [`AUTHENTICATION_SIMPLE`]: the password, zero padded.
    pub password: [u8; 8],
    /// The interface.
    pub ifindex: u32,
    /// The VLANs, as [`VlanId`](crate::wire::ethernet::VlanId); 0: untagged.
    pub vlan: u32,
    /// The hardware address that ARP answers give.
    pub mac: [u8; 6],
    /// Centiseconds, for either version.
    pub advert_interval_cs: u16,
    /// RFC 9568 5.2.3.
    pub vrid: u8,
    /// 2 or 3.
    pub version: u8,
    /// [`FAMILY_IPV4`].
    pub family: u8,
    /// This node's priority now.
    pub priority: u8,
    /// [`AUTHENTICATION_NONE`] or [`AUTHENTICATION_SIMPLE`].
    pub authentication: u8,
    /// Zero.
    pub _pad: [u8; 3],
}

/// RFC 9568's states, and Fault: held down by something else than the protocol.
#[repr(u32)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, TryFromBytes, IntoBytes, Immutable, KnownLayout)]
pub enum State {
    /// Not taking part.
    #[default]
    Initialize = 0,
    /// Listening to an Active.
    Backup = 1,
    /// Serving, as far as the lease allows.
    Active = 2,
    /// The interface is down or gone.
    Fault = 3,
}

/// What people want to see. Written by the controller alone, read by `failover status`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, TryFromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Report {
    /// The virtual router's name, UTF-8, zero padded.
    pub name: [u8; 32],
    /// When the state was entered, milliseconds since 1970.
    pub since_unix_ms: u64,
    /// Adverts sent.
    pub adverts_sent: u64,
    /// Changes of state since the entry was made.
    pub transitions: u32,
    /// The election's state. Whether the node *answers* is the lease's business.
    pub state: State,
}

/// What a segment gets that belongs to no flow known here.
#[repr(u32)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, TryFromBytes, IntoBytes, Immutable, KnownLayout)]
pub enum StaleAction {
    /// Nothing: it goes on to the kernel, and no flow is remembered.
    #[default]
    Pass = 0,
    /// RFC 9293 3.10.7.1's reset.
    Reset = 1,
    /// Silence.
    Drop = 2,
}

impl StaleAction {
    /// The word in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Reset => "reset",
            Self::Drop => "drop",
        }
    }
}

/// What becomes of stale TCP segments. Written by the controller alone.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, TryFromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct StalePolicy {
    /// Until then, CLOCK_BOOTTIME nanoseconds, SYNs are dropped and told of: this node is letting the
    /// addresses go, and the next one is to have them. 0: it stays.
    pub leaving_until_ns: u64,
    /// For this long after a takeover they are dropped instead of reset, milliseconds.
    pub hold_ms: u32,
    /// What they get.
    pub action: StaleAction,
    /// The service's ports that this is about, host byte order, then zeros; none: all ports.
    pub ports: [u16; STALE_PORTS_MAX],
}

impl StalePolicy {
    /// `hold_ms` in nanoseconds.
    #[inline(always)]
    pub const fn hold_ns(&self) -> u64 {
        self.hold_ms as u64 * 1_000_000
    }
}

/// When this node last took the addresses over from another. Written by the controller alone, before
/// the lease.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Takeover {
    /// CLOCK_BOOTTIME nanoseconds; 0: never, nobody else was heard.
    pub at_ns: u64,
    /// [`HandshakeCount::missed`](super::HandshakeCount) then.
    pub missed_before: u64,
}

/// The entry. 256 bytes: four cache lines, shared with no other router.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, TryFromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct VirtualRouter {
    /// The right to answer.
    pub lease: Lease,
    /// What the kernel heard.
    pub heard: Heard,
    /// What the kernel compares with.
    pub settings: Settings,
    /// What people see.
    pub report: Report,
    /// From when on connections are this node's.
    pub takeover: Takeover,
    /// What stale TCP segments get.
    pub stale: StalePolicy,
}

pin_layout!(Lease, size = 16, align = 8, fields = [until_ns: u64, claimed_after_ns: u64]);
pin_layout!(Heard, size = 72, align = 8, fields = [
    last_superior_ns: u64, last_advert_ns: u64, last_event_ns: u64, adverts: u64, source: Address, address_digest: u32,
    interval_cs: u16, priority: u8, checksum_form: ChecksumForm, conflicts: u64,
    last_foreign_ns: u64,
]);
pin_layout!(Settings, size = 48, align = 4, fields = [
    own_address: Address, password: [u8; 8], ifindex: u32, vlan: u32, mac: [u8; 6], advert_interval_cs: u16,
    vrid: u8, version: u8, family: u8, priority: u8, authentication: u8, _pad: [u8; 3],
]);
pin_layout!(Report, size = 56, align = 8, fields = [
    name: [u8; 32], since_unix_ms: u64, adverts_sent: u64, transitions: u32, state: State,
]);
pin_layout!(StalePolicy, size = 48, align = 8, fields = [
    leaving_until_ns: u64, hold_ms: u32, action: StaleAction, ports: [u16; STALE_PORTS_MAX],
]);
pin_layout!(Takeover, size = 16, align = 8, fields = [at_ns: u64, missed_before: u64]);
pin_layout!(VirtualRouter, size = 256, align = 8, fields = [
    lease: Lease, heard: Heard, settings: Settings, report: Report, takeover: Takeover, stale: StalePolicy,
]);
