//! What the kernel knows of an interface, asked through rtnetlink.
//!
//! Deliberately absent: any memory of it, every answer is as of now; changing it (`addresses`).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result};
use failover_common::wire::ethernet::Mac;
use futures_util::StreamExt;
use ipnet::Ipv4Net;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp};
use rtnetlink::Handle;

/// An IPv4 address on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// With its prefix length.
    pub net: Ipv4Net,
    /// The kernel's IFA_F_SECONDARY: not the first of its subnet.
    pub is_secondary: bool,
}

/// An interface, as of when it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's name.
    pub name: String,
    /// The kernel's index; another one when the interface was made anew.
    pub index: u32,
    /// The hardware address.
    pub mac: Mac,
    /// Administratively up, with carrier.
    pub is_up: bool,
    /// Whether it is one end of a veth pair.
    pub is_veth: bool,
    /// The id of the XDP program on it.
    pub xdp_program: Option<u32>,
    /// In the kernel's order.
    pub addresses: Vec<InterfaceAddress>,
}

impl Interface {
    /// The address that adverts come from: the first that is no virtual one, a primary one if
    /// there is any (RFC 9568 5.1.1.1). The owner's virtual address is its own, hence not in
    /// `virtual_addresses`.
    pub fn primary_address(&self, virtual_addresses: &[Ipv4Addr]) -> Option<Ipv4Addr> {
        let mut own = self.addresses.iter().filter(|address| !virtual_addresses.contains(&address.net.addr()));
        let first = own.clone().next();
        own.find(|address| !address.is_secondary).or(first).map(|address| address.net.addr())
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(addresses: &[(&str, bool)]) -> Interface {
        Interface {
            name: "eth0".into(),
            index: 2,
            mac: Mac::default(),
            is_up: true,
            is_veth: false,
            xdp_program: None,
            addresses: addresses
                .iter()
                .map(|(net, is_secondary)| InterfaceAddress { net: net.parse().unwrap(), is_secondary: *is_secondary })
                .collect(),
        }
    }

    #[test]
    fn a_virtual_address_is_never_the_source_of_adverts() {
        let vip = Ipv4Addr::new(192, 0, 2, 10);
        assert_eq!(interface(&[]).primary_address(&[vip]), None);
        assert_eq!(interface(&[("192.0.2.10/24", false)]).primary_address(&[vip]), None);
        let both = interface(&[("192.0.2.10/24", false), ("192.0.2.1/24", true)]);
        assert_eq!(both.primary_address(&[vip]), Some(Ipv4Addr::new(192, 0, 2, 1)));
        let two = interface(&[("192.0.2.9/24", true), ("192.0.2.1/24", false)]);
        assert_eq!(two.primary_address(&[vip]), Some(Ipv4Addr::new(192, 0, 2, 1)));
    }
}
