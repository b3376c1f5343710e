//! What the kernel says of its interfaces, asked through rtnetlink.
//!
//! Deliberately absent: any memory of it, every answer is as of now; changing it (`addresses`).

mod fitness;

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, Result};
use failover_common::wire::ethernet::Mac;
use futures_util::StreamExt;
use ipnet::Ipv4Net;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkMessage, LinkXdp};
use rtnetlink::Handle;
use rustix::net::netdevice::index_to_name;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::interface::{Interface, InterfaceAddress};

/// Asks for all interfaces, by name, with their IPv4 addresses.
///
/// # Errors
/// Those of the netlink socket.
pub async fn list(netlink: &Handle) -> Result<BTreeMap<String, Interface>> {
    let mut messages = Vec::new();
    let mut links = netlink.link().get().execute();
    while let Some(link) = links.next().await {
        messages.push(link.context("listing the interfaces")?);
    }
    let mut interfaces: BTreeMap<u32, Interface> =
        messages.iter().map(|link| (link.header.index, from_link(link))).collect();
    let kinds = messages.iter().map(|link| fitness::kind_of(link).cloned());
    let names = messages.iter().map(|link| (link.header.index, interfaces[&link.header.index].name.clone()));
    let links: fitness::Links = names.zip(kinds).map(|((index, name), kind)| (index, (name, kind))).collect();
    for link in &messages {
        if let Some(interface) = interfaces.get_mut(&link.header.index) {
            interface.unfit = fitness::unfit(link, &links);
        }
    }
    let mut addresses = netlink.address().get().execute();
    while let Some(address) = addresses.next().await {
        let address = address.context("listing the addresses")?;
        if let (Some(interface), Some(net)) = (interfaces.get_mut(&address.header.index), ipv4_of(&address)) {
            let is_secondary = address.header.flags.contains(AddressHeaderFlags::Secondary);
            interface.addresses.push(InterfaceAddress { net, is_secondary });
        }
    }
    Ok(interfaces.into_values().map(|interface| (interface.name.clone(), interface)).collect())
}

/// The name of the interface with that index in this network namespace, without waiting for anything; `None`: there is
/// none.
pub fn name_of(index: u32) -> Option<String> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None).ok()?;
    index_to_name(&socket, index).ok()
}

/// The interface that a netlink message speaks of, without its addresses and what others say of it.
fn from_link(link: &LinkMessage) -> Interface {
    let mut interface = Interface {
        name: String::new(),
        index: link.header.index,
        mac: Mac::default(),
        is_up: link.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
        is_veth: matches!(fitness::kind_of(link), Some(InfoKind::Veth)),
        unfit: None,
        xdp_program: None,
        addresses: Vec::new(),
    };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => interface.name.clone_from(name),
            LinkAttribute::Address(bytes) => {
                interface.mac = bytes.as_slice().try_into().map_or(Mac::default(), Mac);
            }
            LinkAttribute::Xdp(attributes) => {
                interface.xdp_program = attributes.iter().find_map(|attribute| match attribute {
                    LinkXdp::ProgId(id) => Some(*id),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    interface
}

/// The IPv4 address that a netlink message speaks of.
pub fn ipv4_of(message: &AddressMessage) -> Option<Ipv4Net> {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
        _ => None,
    })?;
    Ipv4Net::new(local, message.header.prefix_len).ok()
}
