//! TCP connections to the virtual addresses: what this node's sockets serve, what its peers serve,
//! and whose handshakes this node saw. A segment of a flow that nobody here knows is stale.
//!
//! Deliberately absent: the judgement, which is the XDP program's (`failover-ebpf/src/tcp.rs`).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, TryFromBytes};

use super::pin_layout;
use crate::address::Address;

/// The two ends of a connection. "Local" is the virtual address, on whichever node.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FlowKey {
    /// The virtual address.
    pub local: Address,
    /// The client's address.
    pub remote: Address,
    /// The service's port, host byte order.
    pub local_port: u16,
    /// The client's port, host byte order.
    pub remote_port: u16,
}

/// Who serves a flow.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, TryFromBytes, IntoBytes, Immutable, KnownLayout)]
pub enum FlowOrigin {
    /// A socket of this node, whose life the kernel reports.
    Socket = 1,
    /// A socket of this node that was there before anything watched; looked for now and then.
    Found = 2,
    /// Another node, which told of it. Once this node holds the address, the flow is stale.
    Peer = 3,
}

/// An established connection.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, TryFromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Flow {
    /// When this node learned of it, CLOCK_BOOTTIME nanoseconds.
    pub since_ns: u64,
    /// Who serves it.
    pub origin: FlowOrigin,
    /// Of a peer's flow: the index of the peer in the configuration.
    pub peer: u32,
    /// Of a peer's flow: the number of the resynchronisation that last confirmed it.
    pub sync: u32,
    /// The server's SND.NXT (RFC 9293 3.3.1) when the connection was established. Exact until the
    /// server has sent something.
    pub send_next: u32,
    /// Whether `send_next` is known: 1, or 0.
    pub has_send_next: u32,
    /// Zero.
    pub _pad: u32,
}

/// A handshake of a flow that this node saw while it held the address: the flow is alive here,
/// socket or not (another namespace, DNAT, IPVS, a connection made from the address).
///
/// Written by the XDP program, taken out by the controller when it is over or nothing followed.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Handshake {
    /// When its SYN was seen, CLOCK_BOOTTIME nanoseconds.
    pub at_ns: u64,
    /// When a later segment was last seen that no socket here took, or 0.
    pub used_ns: u64,
    /// When it ended, as far as this node can tell: its socket closed, or a FIN or RST of the client;
    /// or 0.
    pub ended_ns: u64,
}

/// How many handshakes there were.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct HandshakeCount {
    /// Remembered, since the map was made.
    pub remembered: u64,
    /// Not remembered, because the map was full: from then on an unknown flow may be alive here
    /// ([`crate::stale::is_memory_whole`]).
    pub missed: u64,
}

/// One CPU's token bucket for resets.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ResetBudget {
    /// Resets that may be sent now, in billionths of one.
    pub tokens_nano: u64,
    /// When that was worked out, CLOCK_BOOTTIME nanoseconds; 0: never, the bucket is full.
    pub filled_ns: u64,
}

/// What happened to a flow of this node.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, TryFromBytes, IntoBytes, Immutable, KnownLayout)]
pub enum FlowEventKind {
    /// Established.
    Opened = 1,
    /// Its socket is closed.
    Closed = 2,
    /// A client's SYN was dropped, because this node was letting the address go: who serves it next should be asked
    /// again.
    Refused = 3,
}

/// One record of the ring `FLOW_EVENTS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, TryFromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FlowEvent {
    /// Which flow.
    pub key: FlowKey,
    /// What happened.
    pub kind: FlowEventKind,
    /// Opened: [`Flow::send_next`].
    pub send_next: u32,
}

/// What userspace does about stale flows, in numbers. Written by the controller.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FlowStatus {
    /// Tickle ACKs sent to clients of other nodes after a takeover.
    pub tickles: u64,
    /// Resets sent to clients of other nodes after a takeover, unasked, with replicated numbers.
    pub direct_resets: u64,
    /// Of both, those that could not be sent: no route to the client, no socket.
    pub unsent: u64,
    /// Connections of this node that it reset before it let an address go.
    pub destroyed: u64,
    /// Replication messages and connections that were refused: strangers, forged, replayed, broken.
    pub replication_refused: u64,
}

/// What is known of replication with one configured peer. Written by the controller.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Peer {
    /// Its address.
    pub address: Address,
    /// Its port, host byte order.
    pub port: u16,
    /// 1: this node's flows are being sent to it.
    pub is_sending: u8,
    /// 1: its flows are being received.
    pub is_receiving: u8,
    /// How old the oldest change is that it has not confirmed, milliseconds; 0: it has all.
    pub lag_ms: u32,
    /// Bytes sent to it.
    pub sent_bytes: u64,
    /// Bytes received from it.
    pub received_bytes: u64,
    /// Whole tables sent to it: when a connection was made, and after a gap.
    pub syncs: u64,
}

pin_layout!(FlowKey, size = 36, align = 4, fields = [
    local: Address, remote: Address, local_port: u16, remote_port: u16,
]);
pin_layout!(Flow, size = 32, align = 8, fields = [
    since_ns: u64, origin: FlowOrigin, peer: u32, sync: u32, send_next: u32, has_send_next: u32,
    _pad: u32,
]);
pin_layout!(Handshake, size = 24, align = 8, fields = [at_ns: u64, used_ns: u64, ended_ns: u64]);
pin_layout!(HandshakeCount, size = 16, align = 8, fields = [remembered: u64, missed: u64]);
pin_layout!(ResetBudget, size = 16, align = 8, fields = [tokens_nano: u64, filled_ns: u64]);
pin_layout!(FlowEvent, size = 44, align = 4, fields = [key: FlowKey, kind: FlowEventKind, send_next: u32]);
pin_layout!(FlowStatus, size = 40, align = 8, fields = [
    tickles: u64, direct_resets: u64, unsent: u64, destroyed: u64, replication_refused: u64,
]);
pin_layout!(Peer, size = 48, align = 8, fields = [
    address: Address, port: u16, is_sending: u8, is_receiving: u8, lag_ms: u32, sent_bytes: u64, received_bytes: u64,
    syncs: u64,
]);
