//! A packet socket in a namespace: whole frames out and in, as an observer that shares no code
//! with what it observes.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::time::Duration;

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, SockFilter, Socket, Type};

use crate::netns::Netns;
use crate::wait;

/// EtherType of ARP.
pub const ARP: u16 = 0x0806;

/// A packet socket bound to one interface.
#[derive(Debug)]
pub struct FrameSocket(Socket);

impl FrameSocket {
    /// Opens it on `interface` of the namespace, receiving frames of that EtherType; of none with 0.
    ///
    /// # Errors
    /// When the namespace or the interface does not exist, or a system call fails.
    pub fn open(netns: &Netns, interface: &str, ether_type: u16) -> Result<Self> {
        netns.enter(|| {
            let index = rustix::net::netdevice::name_to_index(
                rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?,
                interface,
            )
            .with_context(|| format!("looking up {interface}"))?;
            let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(i32::from(ether_type.to_be()))))
                .context("opening a packet socket")?;
            socket.bind(&link_address(index, ether_type)).context("binding a packet socket")?;
            socket.set_nonblocking(true)?;
            Ok(Self(socket))
        })
    }

    /// The socket itself, for whoever reads it in another way.
    pub fn into_socket(self) -> Socket {
        self.0
    }

    /// Sends one frame.
    ///
    /// # Errors
    /// Those of send(2).
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.0.send(frame).map(drop)
    }

    /// Sends as many of the frames as the kernel takes at once, and says how many.
    ///
    /// # Errors
    /// Those of sendmmsg(2), when it took none.
    pub fn send_all(&self, frames: &[Vec<u8>]) -> io::Result<usize> {
        let part = |frame: &Vec<u8>| libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: frame.len() };
        let mut parts: Vec<libc::iovec> = frames.iter().map(part).collect();
        let message = |part: &mut libc::iovec| {
            // SAFETY: a `mmsghdr` of zeros is a valid one, without address, parts and control data.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            (message.msg_hdr.msg_iov, message.msg_hdr.msg_iovlen) = (part, 1);
            message
        };
        let mut messages: Vec<libc::mmsghdr> = parts.iter_mut().map(message).collect();
        // SAFETY: each message has one part, which is a frame that lives as long as the call; sending only reads it.
        let sent = unsafe { libc::sendmmsg(self.0.as_raw_fd(), messages.as_mut_ptr(), messages.len() as u32, 0) };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    /// Only lets frames through that the classic BPF program accepts.
    ///
    /// # Errors
    /// When the kernel refuses the program.
    pub fn keep_only(&self, program: &[SockFilter]) -> io::Result<()> {
        self.0.attach_filter(program)
    }

    /// Receives one frame; `None` when `timeout` passes first.
    ///
    /// # Errors
    /// Those of recv(2).
    pub fn receive(&self, timeout: Duration) -> io::Result<Option<Vec<u8>>> {
        if !wait::readable(&self.0, timeout) {
            return Ok(None);
        }
        let mut buffer = [MaybeUninit::uninit(); 2048];
        match self.0.recv(&mut buffer) {
            Ok(len) => {
                // SAFETY: recv wrote that many bytes.
                Ok(Some(buffer[..len].iter().map(|byte| unsafe { byte.assume_init() }).collect()))
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn link_address(ifindex: u32, ether_type: u16) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: `sockaddr_ll` is one of the platform's socket address types.
    let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = ether_type.to_be();
    address.sll_ifindex = ifindex as i32;
    // SAFETY: the storage holds a `sockaddr_ll` of that family and length.
    unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t) }
}

/// A gratuitous ARP of this operation (1: request, 2: reply), written out: RFC 826, RFC 5227 1.1.
pub fn claim(operation: u8, mac: [u8; 6], address: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(mac);
    frame.extend([0x08, 0x06, 0x00, 0x01, 0x08, 0x00, 6, 4, 0x00, operation]);
    frame.extend(mac);
    frame.extend(address);
    frame.extend([0xff; 6]);
    frame.extend(address);
    frame.resize(60, 0);
    frame
}
