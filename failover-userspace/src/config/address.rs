//! Virtual addresses: one element of `addresses` to a prefix that a host can have.
//!
//! Deliberately absent: whether it is taken elsewhere, which unique.rs checks, and whether the
//! interface has a route to it.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::Ipv4Net;

/// Reads an address such as `192.0.2.10/24`; without a prefix length it stands alone, as /32.
///
/// # Errors
/// What it is instead, to follow the address in a message.
pub(super) fn parse(text: &str) -> Result<Ipv4Net, String> {
    let (address, length) = text.split_once('/').unwrap_or((text, "32"));
    if address.parse::<Ipv6Addr>().is_ok() {
        return Err("is an IPv6 address: IPv6 is not supported yet".to_owned());
    }
    // The standard parser refuses leading zeros, which other tools read as octal.
    let address: Option<Ipv4Addr> = address.parse().ok();
    let net = address.zip(prefix_length(length)).and_then(|(address, length)| Ipv4Net::new(address, length).ok());
    let net = net.ok_or(r#"is not an IPv4 address with a prefix length of 1 to 32, such as "192.0.2.10/24""#)?;
    match kind_no_host_has(net) {
        Some(kind) => Err(format!("is {kind}: a virtual address is one that a host can have")),
        None => Ok(net),
    }
}

fn prefix_length(text: &str) -> Option<u8> {
    let plain = (1..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let length = text.parse().ok()?;
    (plain && (1..=32).contains(&length)).then_some(length)
}

/// What keeps an address from being a host's own, if anything does.
fn kind_no_host_has(net: Ipv4Net) -> Option<String> {
    let address = net.addr();
    if address.is_unspecified() {
        Some("the unspecified address".to_owned())
    } else if address.is_loopback() {
        Some("a loopback address".to_owned())
    } else if address.is_multicast() {
        Some("a multicast address".to_owned())
    } else if address.is_broadcast() {
        Some("the broadcast address of every network".to_owned())
    } else if net.prefix_len() > 30 {
        // RFC 3021: a /31 has no network or broadcast address, and a /32 is one host.
        None
    } else if address == net.network() {
        Some(format!("the network address of {}", net.trunc()))
    } else if address == net.broadcast() {
        Some(format!("the broadcast address of {}", net.trunc()))
    } else {
        None
    }
}
