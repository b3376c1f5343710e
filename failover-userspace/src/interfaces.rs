//! What the kernel says of its interfaces, asked through rtnetlink.
//!
//! Deliberately absent: any memory of it, every answer is as of now; changing it (`addresses`).

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, Result};
use failover_common::wire::ethernet::Mac;
use futures_util::StreamExt;
use ipnet::Ipv4Net;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp};
use rtnetlink::Handle;

use crate::interface::{Interface, InterfaceAddress};

/// Asks for all interfaces, by name, with their IPv4 addresses.
///
/// # Errors
/// Those of the netlink socket.
pub async fn list(netlink: &Handle) -> Result<BTreeMap<String, Interface>> {
    let mut interfaces = BTreeMap::new();
    let mut links = netlink.link().get().execute();
    while let Some(link) = links.next().await {
        let link = from_link(&link.context("listing the interfaces")?);
        interfaces.insert(link.index, link);
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

/// The interface that a netlink message speaks of, without its addresses.
fn from_link(link: &LinkMessage) -> Interface {
    let mut interface = Interface {
        name: String::new(),
        index: link.header.index,
        mac: Mac::default(),
        is_up: link.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
        is_veth: false,
        xdp_program: None,
        addresses: Vec::new(),
    };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => interface.name.clone_from(name),
            LinkAttribute::Address(bytes) => {
                interface.mac = bytes.as_slice().try_into().map_or(Mac::default(), Mac);
            }
            LinkAttribute::LinkInfo(infos) => {
                interface.is_veth = infos.iter().any(|info| matches!(info, LinkInfo::Kind(InfoKind::Veth)));
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
