//! IPv4 addresses onto an interface and off it, all of a virtual router in one system call.
//!
//! The kernel works messages off inside their sender's call, which may have to wait for the RTNL lock: this blocks.
//! Deliberately absent: what is there already (`interface`).

use std::io;
use std::net::Ipv4Addr;

use anyhow::{Context, Result, bail};
use ipnet::Ipv4Net;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressMessage;
use rtnetlink::AddressMessageBuilder;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{Socket, SocketAddr};
use rustix::io::Errno;

/// A netlink socket for nothing else.
pub struct Addresses {
    socket: Socket,
    /// Of the next message.
    sequence: u32,
}

impl Addresses {
    /// Opens it.
    ///
    /// # Errors
    /// Those of the system calls.
    pub fn open() -> Result<Self> {
        let open = || {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            // Port 0 is the kernel.
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok::<_, io::Error>(socket)
        };
        Ok(Self { socket: open().context("opening a netlink socket for addresses")?, sequence: 1 })
    }

    /// Puts addresses on an interface; one that is there already is no error.
    ///
    /// # Errors
    /// What the kernel says of the first that it refused, with the address; the others are there.
    pub fn put(&mut self, index: u32, nets: &[Ipv4Net]) -> Result<()> {
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        let refused = self.change(index, nets, flags, RouteNetlinkMessage::NewAddress, &[Errno::EXIST])?;
        let Some((net, error)) = refused else { return Ok(()) };
        Err(error).with_context(|| format!("putting {net} on interface {index}"))
    }

    /// Takes addresses off an interface; one that is not there is no error, and neither is an interface that is gone.
    ///
    /// # Errors
    /// What the kernel says of the first that it left, with the address; the others are off.
    pub fn take_off(&mut self, index: u32, nets: &[Ipv4Net]) -> Result<()> {
        let tolerated = [Errno::ADDRNOTAVAIL, Errno::NODEV];
        let left = self.change(index, nets, 0, RouteNetlinkMessage::DelAddress, &tolerated)?;
        let Some((net, error)) = left else { return Ok(()) };
        Err(error).with_context(|| format!("taking {net} off interface {index}"))
    }

    /// One message for each address, in one call. Returns the first that the kernel refused for a reason that is not
    /// tolerated.
    fn change(
        &mut self,
        index: u32,
        nets: &[Ipv4Net],
        flags: u16,
        kind: fn(AddressMessage) -> RouteNetlinkMessage,
        tolerated: &[Errno],
    ) -> Result<Option<(Ipv4Net, io::Error)>> {
        let Some((_, rest)) = nets.split_first() else { return Ok(None) };
        let first = self.sequence;
        let last = first.wrapping_add(rest.len() as u32);
        let mut bytes = Vec::new();
        for net in nets {
            let message = AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(net.addr(), net.prefix_len());
            let mut message = NetlinkMessage::from(kind(message.build()));
            // Refusals come anyway, and in order: with the last one's answer all are there.
            let ack = if self.sequence == last { NLM_F_ACK } else { 0 };
            (message.header.flags, message.header.sequence_number) = (NLM_F_REQUEST | flags | ack, self.sequence);
            message.finalize();
            let start = bytes.len();
            bytes.resize(start + message.buffer_len(), 0);
            message.serialize(&mut bytes[start..]);
            self.sequence = self.sequence.wrapping_add(1);
        }
        self.socket.send(&bytes, 0).context("asking the kernel to change addresses")?;
        let mut refused = None;
        loop {
            let (answer, _) = self.socket.recv_from_full().context("hearing what became of addresses")?;
            let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer)?;
            let (sequence, NetlinkPayload::Error(verdict)) = (answer.header.sequence_number, answer.payload) else {
                bail!("the kernel answered a change of addresses with something else");
            };
            // What an earlier call did not stay to hear is nobody's.
            let Some(net) = nets.get(sequence.wrapping_sub(first) as usize) else { continue };
            let error = verdict.to_io();
            if verdict.code.is_some() && refused.is_none() && !is_one_of(&error, tolerated) {
                refused = Some((*net, error));
            }
            if sequence == last {
                return Ok(refused);
            }
        }
    }
}

fn is_one_of(error: &io::Error, tolerated: &[Errno]) -> bool {
    tolerated.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
