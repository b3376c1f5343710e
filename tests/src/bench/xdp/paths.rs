//! The ways of a frame through the program: what is sent, what the node is then, and what must come of it.
//!
//! Deliberately absent: time.

use std::net::SocketAddrV4;

use anyhow::{Result, ensure};
use failover_common::abi::Lease;
use serde::{Deserialize, Serialize};

use crate::fixtures::{CLIENT_PORT, LONG_NS, NODE, frame};
use crate::testrun::{TestRun, Verdict};
use failover_sim::segment::{ACK, Segment, mend, sum};

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Path {
    /// TCP to an address that is none of ours.
    OtherTcp,
    /// UDP to one.
    OtherUdp,
    /// A request for an address of ours, under a lease.
    ArpAnswered,
    /// A request for another's.
    ArpOther,
    /// An advert like the one before, to a Backup.
    Advert,
    /// An advert with TTL 254.
    AdvertBadTtl,
    /// An advert whose checksum is one too low.
    AdvertBadChecksum,
    /// A segment of a connection that a socket here has.
    Socket,
    /// A bare acknowledgement of a connection that nobody here knows.
    Stale,
    /// The same on a node that has peers, whose flows are looked for.
    StalePeers,
    /// The same, without peers, with timestamps and 512 bytes of data.
    StaleData,
    /// TCP to an address of ours without a lease.
    Fenced,
}

impl Path {
    pub(super) const ALL: [Self; 12] = [
        Self::OtherTcp,
        Self::OtherUdp,
        Self::ArpOther,
        Self::ArpAnswered,
        Self::Advert,
        Self::AdvertBadTtl,
        Self::AdvertBadChecksum,
        Self::Socket,
        Self::Stale,
        Self::StalePeers,
        Self::StaleData,
        Self::Fenced,
    ];

    /// What people call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::OtherTcp => "unrelated TCP, passed",
            Self::OtherUdp => "unrelated UDP, passed",
            Self::ArpOther => "ARP request, not ours",
            Self::ArpAnswered => "ARP request, answered",
            Self::Advert => "valid advert, nothing new",
            Self::AdvertBadTtl => "advert refused: TTL",
            Self::AdvertBadChecksum => "advert refused: checksum",
            Self::Socket => "segment with a live socket",
            Self::Stale => "stale segment, reset",
            Self::StalePeers => "stale segment, reset, with replication",
            Self::StaleData => "stale, timestamps, 512 B of data",
            Self::Fenced => "TCP fenced, no lease",
        }
    }

    /// Whether it is one of a node with replication, which is off unless configured.
    pub(super) fn has_peers(self) -> bool {
        self == Self::StalePeers
    }

    /// What it may cost, nanoseconds.
    pub(super) fn limit_ns(self) -> Option<f64> {
        match self {
            Self::OtherTcp | Self::OtherUdp => Some(15.0),
            Self::ArpAnswered | Self::AdvertBadTtl | Self::AdvertBadChecksum => Some(60.0),
            Self::Socket => Some(90.0),
            Self::Stale => Some(120.0),
            Self::ArpOther | Self::Advert | Self::StalePeers | Self::StaleData | Self::Fenced => None,
        }
    }

    /// The frame, as long as Ethernet wants it; `known` is of a connection that has a socket.
    pub(super) fn frame(self, known: &Segment) -> Vec<u8> {
        let mut frame = match self {
            Self::OtherTcp => to_node(known),
            Self::OtherUdp => as_udp(to_node(known)),
            Self::ArpOther => frame("arp other address"),
            Self::ArpAnswered => frame("arp request"),
            Self::Advert => frame("v3 message"),
            Self::AdvertBadTtl => frame("v3 ttl 254"),
            Self::AdvertBadChecksum => frame("v3 checksum off by one"),
            Self::Socket => known.frame(),
            Self::Stale | Self::StalePeers | Self::Fenced => frame("tcp ack"),
            Self::StaleData => stale_data(),
        };
        frame.resize(frame.len().max(60).next_multiple_of(4), 0);
        frame
    }

    /// What must come of it: the verdict, and the counters that go up by one for each.
    pub(super) fn expected(self) -> (Verdict, &'static [&'static str]) {
        match self {
            Self::OtherTcp | Self::OtherUdp | Self::ArpOther => (Verdict::Pass, &[]),
            Self::ArpAnswered => (Verdict::Transmit, &["arp_answered"]),
            Self::Advert => (Verdict::Drop, &["advert_valid", "advert_superior"]),
            Self::AdvertBadTtl => (Verdict::Drop, &["advert_bad_ttl"]),
            Self::AdvertBadChecksum => (Verdict::Drop, &["advert_bad_checksum"]),
            Self::Socket => (Verdict::Pass, &["tcp_socket"]),
            Self::Stale | Self::StalePeers | Self::StaleData => (Verdict::Transmit, &["reset_unknown_flow"]),
            Self::Fenced => (Verdict::Drop, &["vip_fenced"]),
        }
    }

    /// Makes the node what the path needs, and looks whether the frame goes it.
    pub(super) fn prepare(self, node: &mut TestRun, frame: &[u8]) -> Result<()> {
        if matches!(self, Self::Advert | Self::Fenced) {
            node.edit(0, |entry| entry.lease = Lease::default());
        } else {
            node.give_lease(0, LONG_NS);
        }
        if self == Self::Advert {
            // The first one is news.
            node.send(frame);
        }
        let outcome = node.send(frame);
        let (verdict, counters) = self.expected();
        ensure!(
            outcome.verdict == verdict && outcome.counted_only(counters) && outcome.events.is_empty(),
            "{}: another way was gone: {:?}, {:?}, {:?}",
            self.name(),
            outcome.verdict,
            outcome.counted,
            outcome.events
        );
        Ok(())
    }
}

/// The same segment to the node's own address.
fn to_node(segment: &Segment) -> Vec<u8> {
    Segment { server: SocketAddrV4::new(NODE.into(), 80), ..*segment }.frame()
}

/// The packet as UDP with 12 bytes of data (RFC 768), without a checksum of its own.
fn as_udp(mut frame: Vec<u8>) -> Vec<u8> {
    frame[23] = 17;
    frame[24..26].fill(0);
    let checksum = !sum(&frame[14..34]);
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    frame[38..42].copy_from_slice(&[0, 20, 0, 0]);
    frame
}

/// A segment of a connection that negotiated timestamps (RFC 7323 appendix A).
fn stale_data() -> Vec<u8> {
    const TIMESTAMPS: [u8; 12] = [1, 1, 8, 10, 0, 1, 2, 3, 4, 5, 6, 7];
    static OPTIONS_AND_DATA: [u8; 12 + 512] = [0x61; 12 + 512];
    let mut frame = Segment { data: &OPTIONS_AND_DATA, ..Segment::from_port(CLIENT_PORT, ACK) }.frame();
    frame[46] = 0x80;
    frame[54..66].copy_from_slice(&TIMESTAMPS);
    mend(&mut frame);
    frame
}
