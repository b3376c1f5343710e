//! A packet socket in a namespace: whole frames out and in, as an observer that shares no code
//! with what it observes.

use std::io;
use std::mem::MaybeUninit;
use std::time::Duration;

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

use crate::netns::Netns;
use crate::wait;

/// EtherType of ARP.
pub const ARP: u16 = 0x0806;

/// A packet socket bound to one interface.
#[derive(Debug)]
pub struct FrameSocket(Socket);

impl FrameSocket {
    /// Opens it on `interface` of the namespace, receiving frames of that EtherType.
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

    /// Sends one frame.
    ///
    /// # Errors
    /// Those of send(2).
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.0.send(frame).map(drop)
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
