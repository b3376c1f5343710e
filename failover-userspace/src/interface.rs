//! An interface: what failover knows of it.
//!
//! Deliberately absent: asking the kernel for it (`interfaces`).

use std::net::Ipv4Addr;

use failover_common::wire::ethernet::Mac;
use ipnet::Ipv4Net;

use crate::unfit::Unfit;

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
    /// Why it cannot serve a virtual address, if it can't.
    pub unfit: Option<Unfit>,
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
            unfit: None,
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
