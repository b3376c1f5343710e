//! Frames out, one by one or many at once, and the multicast group in: one packet socket and one membership per
//! interface. And sockets that listen for what a filter lets through.
//!
//! Deliberately absent: receiving adverts. They come through the kernel program's ring.

use std::io::{self, IoSlice};
use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

use failover_common::wire::vrrp::GROUP_IPV4;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockAddr, SockAddrStorage, SockFilter, Socket, Type};

/// Highest priority that needs no capability beyond CAP_NET_RAW's usual ones: the first band of
/// the default queueing discipline.
const SOCKET_PRIORITY: u32 = 6;

/// Of frames that nobody has read yet, as bytes of the kernel's memory: some hundred frames. The kernel gives twice as many.
const LISTEN_BYTES: usize = 32 * 1024;

/// What a socket is for: how many of its frames may wait in the interface, as bytes of the kernel's memory (about 1 kB
/// each). The kernel gives twice what is asked for, up to `net.core.wmem_max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// All virtual routers' at once.
    Adverts = 256 * 1024,
    /// Never so many that an advert finds no room: queues and rings take 256 frames or more.
    Announcements = 32 * 1024,
}

/// A packet socket bound to one interface. Closing it leaves the multicast group.
#[derive(Debug)]
pub struct FrameSender {
    socket: Socket,
    _membership: Socket,
}

impl FrameSender {
    /// Opens it, and joins the adverts' group, so that switches and the network card let them
    /// through.
    ///
    /// # Errors
    /// Those of the system calls, with which one it was.
    pub fn open(ifindex: u32, purpose: Purpose) -> io::Result<Self> {
        // Protocol 0: nothing is received on it.
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))
            .map_err(context("opening a packet socket (needs CAP_NET_RAW)"))?;
        socket.bind(&link_address(ifindex, 0)).map_err(context("binding the packet socket"))?;
        socket.set_nonblocking(true)?;
        // The traffic class inside the queueing discipline; DSCP CS6 is in the frame itself.
        let _ = socket.set_priority(SOCKET_PRIORITY);
        let _ = socket.set_send_buffer_size(purpose as usize);
        let membership = Socket::new(Domain::IPV4, Type::DGRAM, None).map_err(context("opening a UDP socket"))?;
        membership
            .join_multicast_v4_n(&Ipv4Addr::from(GROUP_IPV4), &InterfaceIndexOrAddress::Index(ifindex))
            .map_err(context("joining 224.0.0.18"))?;
        Ok(Self { socket, _membership: membership })
    }

    /// Hands one whole frame to the kernel.
    ///
    /// # Errors
    /// ENETDOWN, ENXIO (interface down or gone), ENOBUFS (queue full or no carrier), and others
    /// of send(2): the frame did not go out.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.socket.send(frame).map(drop)
    }

    /// Hands over whole frames of which each matters and none is urgent: where the interface has no room, it waits a
    /// little. Blocks for 20 ms at most.
    ///
    /// # Errors
    /// As [`Self::send`], of the first that did not go out, with how many were left.
    pub fn send_patiently(&self, frames: &[&[u8]]) -> Result<(), (usize, io::Error)> {
        const PAUSE: Duration = Duration::from_micros(200);
        let is_full = |error: &io::Error| [Some(libc::EAGAIN), Some(libc::ENOBUFS)].contains(&error.raw_os_error());
        let mut pauses_left = 100;
        for (number, frame) in frames.iter().enumerate() {
            while let Err(error) = self.send(frame) {
                if pauses_left == 0 || !is_full(&error) {
                    return Err((frames.len() - number, error));
                }
                pauses_left -= 1;
                thread::sleep(PAUSE);
            }
        }
        Ok(())
    }

    /// Hands whole frames to the kernel, in this order and in as few system calls as it allows, and says of each what
    /// [`Self::send`] would.
    pub fn send_all(&self, frames: &[&[u8]]) -> Vec<io::Result<()>> {
        if let [frame] = frames {
            return vec![self.send(frame)];
        }
        let parts: Vec<_> = frames.iter().map(|frame| [IoSlice::new(frame)]).collect();
        let mut nothing: Vec<_> = frames.iter().map(|_| SendAncillaryBuffer::default()).collect();
        let mut messages: Vec<_> = parts.iter().zip(&mut nothing).map(|(part, no)| MMsgHdr::new(part, no)).collect();
        let mut sent = Vec::with_capacity(frames.len());
        while sent.len() < frames.len() {
            // It stops at the first that it cannot send, and tells why when that is the first of a call.
            match sendmmsg(&self.socket, &mut messages[sent.len()..], SendFlags::empty()) {
                Ok(count) => sent.extend((0..count.max(1)).map(|_| Ok(()))),
                Err(error) => sent.push(Err(error.into())),
            }
        }
        sent
    }
}

/// A socket that gets the frames of one EtherType that an interface gives to the kernel and that `filter` lets through.
/// Reading from it never waits.
///
/// # Errors
/// Those of the system calls, with which one it was.
pub fn listen(ifindex: u32, ether_type: u16, filter: &[SockFilter]) -> io::Result<Socket> {
    // Protocol 0: nothing before the filter is there.
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))
        .map_err(context("opening a packet socket (needs CAP_NET_RAW)"))?;
    let _ = socket.set_recv_buffer_size(LISTEN_BYTES);
    socket.attach_filter(filter).map_err(context("filtering a packet socket"))?;
    socket.bind(&link_address(ifindex, ether_type)).map_err(context("binding a packet socket"))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn context(what: &'static str) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// `sockaddr_ll`, which no safe wrapper makes. Protocol 0: nothing is received.
fn link_address(ifindex: u32, ether_type: u16) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: `sockaddr_ll` is one of the platform's socket address types.
    let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = ifindex as i32;
    address.sll_protocol = ether_type.to_be();
    // SAFETY: the storage holds a `sockaddr_ll` of that family and length.
    unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t) }
}
