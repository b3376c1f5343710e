//! Whether the kernel program runs, heard by what it misses: adverts and ARP requests that it always takes reach a packet
//! socket only when it doesn't. It may be attached and still not run, as virtio's without `mrg_rxbuf`; or run and be told
//! another interface's index, as on a bond's ports.
//!
//! Costs: a filter of a few instructions for each IPv4 and ARP packet that the program passes; no lock, and nothing on an
//! advert's way.
//!
//! Deliberately absent: whether it is attached (`dataplane::link`), and what follows (`fence`).

use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};

use failover_common::wire::Frame;
use failover_common::wire::arp::{ArpPacket, REQUEST};
use failover_common::wire::ethernet::{ETHER_TYPE_ARP, ETHER_TYPE_IPV4, Link};
use failover_common::wire::ipv4::Ipv4Header;
use failover_common::wire::vrrp::{self, GROUP_IPV4};
use socket2::{SockFilter, Socket};

use crate::clock;
use crate::config::VirtualRouter;
use crate::packet;

/// What was on its way when the program was attached got past it.
const GRACE_NS: u64 = 20_000_000;
/// Frames that are read at a time: more than a socket's buffer holds, so that all are.
const FRAMES_MAX: usize = 256;
/// Enough for the headers that are judged, with IPv4's longest.
const LEN: usize = 128;

/// What the program takes, on one interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Virtual routers' identifiers.
    pub vrids: Vec<u8>,
    /// Virtual addresses, sorted.
    pub addresses: Vec<[u8; 4]>,
}

/// The sockets on one interface.
#[derive(Debug)]
pub struct Canary {
    adverts: Socket,
    requests: Socket,
    taken: Taken,
    since_ns: u64,
    /// Whether what came before that has been read.
    is_settled: AtomicBool,
}

impl Canary {
    /// Listens on an interface to which the program was attached just now.
    ///
    /// # Errors
    /// Those of the system calls.
    pub fn open(ifindex: u32, taken: Taken) -> io::Result<Self> {
        let adverts = packet::listen(ifindex, ETHER_TYPE_IPV4, &filter(&IS_VRRP))?;
        let requests = packet::listen(ifindex, ETHER_TYPE_ARP, &filter(&IS_ARP_REQUEST))?;
        Ok(Self { adverts, requests, taken, since_ns: clock::now_ns() + GRACE_NS, is_settled: AtomicBool::new(false) })
    }

    /// Whether a frame got past the program since it was last asked. Never waits.
    pub fn sings(&self) -> bool {
        // All are read, so that what is told next is news.
        let past = [&self.adverts, &self.requests].map(|socket| self.reads_one_past(socket));
        if clock::now_ns() < self.since_ns {
            return false;
        }
        // The first time from then on, they may have come before.
        self.is_settled.swap(true, Ordering::SeqCst) && past.contains(&true)
    }

    fn reads_one_past(&self, socket: &Socket) -> bool {
        let mut is_past = false;
        for _ in 0..FRAMES_MAX {
            let mut buffer = [MaybeUninit::<u8>::uninit(); LEN];
            let Ok(len) = socket.recv(&mut buffer) else { break };
            // SAFETY: the kernel has written so many bytes, and `MaybeUninit<u8>` has the layout of `u8`.
            let frame = unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast::<u8>(), len.min(LEN)) };
            is_past |= self.taken.has(frame);
        }
        is_past
    }
}

impl Taken {
    /// By the program for those virtual routers of one interface.
    pub fn by<'a>(routers: impl Iterator<Item = &'a VirtualRouter> + Clone) -> Self {
        let addresses = routers.clone().flat_map(|router| &router.addresses).map(|net| net.addr().octets());
        let mut taken = Self { vrids: routers.map(|router| router.vrid).collect(), addresses: addresses.collect() };
        taken.addresses.sort_unstable();
        taken
    }

    /// Whether the program never passes that frame (`failover_ebpf`'s `vrrp` and `arp`).
    fn has(&self, frame: &[u8]) -> bool {
        self.is_taken(frame).unwrap_or(false)
    }

    fn is_taken(&self, frame: &[u8]) -> Option<bool> {
        let link = Link::read(frame)?;
        match link.ether_type {
            ETHER_TYPE_IPV4 => {
                let ip: Ipv4Header = frame.read(link.payload)?;
                let is_advert = ip.is_version_4() && ip.protocol == vrrp::PROTOCOL && ip.destination == GROUP_IPV4;
                let vrid = vrrp::vrid(frame, &ip, link.payload)?;
                Some(is_advert && self.vrids.contains(&vrid))
            }
            ETHER_TYPE_ARP => {
                let arp: ArpPacket = frame.read(link.payload)?;
                let is_question = arp.is_ipv4_over_ethernet()
                    && arp.hardware_type.get() == 1
                    && arp.operation.get() == REQUEST
                    && arp.sender_ip != arp.target_ip
                    && arp.sender_mac == link.header.source
                    && !arp.sender_mac.is_group();
                // One to another station's MAC is nobody's here; a claim is its own matter.
                let is_ours = |ip| self.addresses.binary_search(ip).is_ok();
                Some(
                    is_question
                        && link.header.destination.is_group()
                        && is_ours(&arp.target_ip)
                        && !is_ours(&arp.sender_ip),
                )
            }
            _ => None,
        }
    }
}

// Classic BPF, linux/filter.h: codes, and what it knows beside the bytes.
const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_GREATER: u16 = 0x25;
const RETURN: u16 = 0x06;
const PACKET_TYPE: u32 = -0x1000_i32 as u32 + 4;
/// linux/if_packet.h: what is above it is another host's, or never came in by the interface. A frame of a VLAN that has no
/// device here counts as another host's; its tag is gone by the time that packet sockets get it (the kernel's
/// `__netif_receive_skb_core`).
const PACKET_MULTICAST: u32 = 2;

/// The protocol of an IPv4 header behind an Ethernet header, RFC 791 3.1.
const IS_VRRP: (u16, u32, u32) = (LOAD_BYTE, 14 + 9, vrrp::PROTOCOL as u32);
/// The operation of an ARP packet there, RFC 826.
const IS_ARP_REQUEST: (u16, u32, u32) = (LOAD_HALF, 14 + 6, REQUEST as u32);

/// Takes what came in for this host, of no other VLAN (whose frames are not for the program), with a value at an offset.
fn filter((load, offset, value): &(u16, u32, u32)) -> [SockFilter; 6] {
    [
        SockFilter::new(*load, 0, 0, *offset),
        SockFilter::new(JUMP_IF_EQUAL, 0, 3, *value),
        SockFilter::new(LOAD_WORD, 0, 0, PACKET_TYPE),
        SockFilter::new(JUMP_IF_GREATER, 1, 0, PACKET_MULTICAST),
        SockFilter::new(RETURN, 0, 0, LEN as u32),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}
