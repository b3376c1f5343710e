//! Frames by name, and the node they are sent to.
//!
//! The bytes are `tests/data/frames.txt`, written by `make_frames.py` beside it with scapy. Deliberately absent: building
//! frames.

use failover_common::abi::{AUTHENTICATION_NONE, AUTHENTICATION_SIMPLE, FAMILY_IPV4, FlowKey, Settings};
use failover_common::address::Address;

use crate::host_kernel::LOOPBACK;

/// This node's hardware address.
pub const NODE_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x0a];
/// The other router's.
pub const PEER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x0b];
/// The client's.
pub const CLIENT_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0xc1];
/// This node's primary address.
pub const NODE: [u8; 4] = [192, 0, 2, 5];
/// The other router's.
pub const PEER: [u8; 4] = [192, 0, 2, 9];
/// The first virtual address.
pub const VIP: [u8; 4] = [192, 0, 2, 10];
/// The second.
pub const SECOND_VIP: [u8; 4] = [192, 0, 2, 11];
/// The client's address.
pub const CLIENT: [u8; 4] = [192, 0, 2, 100];
/// The client's port in TCP segments, unless their name says otherwise; the service's is 80.
pub const CLIENT_PORT: u16 = 40_000;

const FRAMES: &str = include_str!("../../data/frames.txt");

/// All frames, in the file's order.
pub fn frames() -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    let lines = FRAMES.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_once(" = ")).map(|(name, hex)| (name, bytes(name, hex)))
}

/// The frame of that name.
///
/// # Panics
/// When `data/frames.txt` has none, or two.
pub fn frame(name: &str) -> Vec<u8> {
    let mut found = frames().filter(|(known, _)| *known == name);
    let (_, frame) = found.next().unwrap_or_else(|| panic!("frames.txt has no frame \"{name}\""));
    assert!(found.next().is_none(), "frames.txt has two frames \"{name}\"");
    frame
}

fn bytes(name: &str, hex: &str) -> Vec<u8> {
    let digits: Option<Vec<u8>> = hex.chars().map(|digit| digit.to_digit(16).map(|value| value as u8)).collect();
    let digits = digits.unwrap_or_else(|| panic!("frame \"{name}\" is not hexadecimal"));
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// Version 3, VRID 51, priority 100, 100 cs.
pub fn version_3() -> Settings {
    Settings {
        own_address: Address::from_ipv4(NODE),
        password: [0; 8],
        ifindex: LOOPBACK,
        vlan: 0,
        mac: NODE_MAC,
        advert_interval_cs: 100,
        vrid: 51,
        version: 3,
        family: FAMILY_IPV4,
        priority: 100,
        authentication: AUTHENTICATION_NONE,
        _pad: [0; 3],
    }
}

/// The same in version 2.
pub fn version_2() -> Settings {
    Settings { version: 2, ..version_3() }
}

/// The same with a password.
pub fn version_2_with_password(password: &[u8; 8]) -> Settings {
    Settings { authentication: AUTHENTICATION_SIMPLE, password: *password, ..version_2() }
}

/// The flow of the TCP segments, unless their name says otherwise.
pub fn flow_key() -> FlowKey {
    FlowKey {
        local: Address::from_ipv4(VIP),
        remote: Address::from_ipv4(CLIENT),
        local_port: 80,
        remote_port: CLIENT_PORT,
    }
}
