//! What an interface's driver tells an XDP program of a frame beside its bytes: asked of the kernel's generic netlink family
//! `netdev` (Documentation/netlink/specs/netdev.yaml; Linux 6.3).
//!
//! Of the network namespace of the calling thread. Deliberately absent: everything else that the family knows.

use std::io;
use std::time::Duration;

use rustix::net::netlink::{GENERIC, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::attributes::attribute;

/// GENL_ID_CTRL, CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_NAME, CTRL_ATTR_FAMILY_ID (linux/genetlink.h).
const CONTROL: (u16, u8) = (0x10, 3);
const FAMILY_NAME: u16 = 2;
const FAMILY_ID: u16 = 1;
/// NETDEV_CMD_DEV_GET, NETDEV_A_DEV_IFINDEX, NETDEV_A_DEV_XDP_RX_METADATA_FEATURES (linux/netdev.h).
const DEVICE_GET: u8 = 1;
const IFINDEX: u16 = 1;
const RX_METADATA: u16 = 5;
/// NETDEV_XDP_RX_METADATA_VLAN_TAG, of Linux 6.8.
const VLAN_TAG: u64 = 4;
/// Before the attributes: `struct nlmsghdr` and `struct genlmsghdr`.
const HEADER_LEN: usize = 20;
/// An answer has some hundred bytes.
const BUFFER_LEN: usize = 8 * 1024;
/// The kernel answers inside the request.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether the driver tells a program the VLAN tag of a frame. A kernel that does not know the question has no such driver.
pub fn tells_vlan_tag(ifindex: u32) -> bool {
    ask(ifindex).unwrap_or_else(|error| {
        tracing::debug!(ifindex, %error, "the kernel does not say what the driver tells XDP programs");
        false
    })
}

fn ask(ifindex: u32) -> io::Result<bool> {
    let named = exchange(CONTROL, FAMILY_NAME, b"netdev\0")?;
    let family =
        attribute(&named, FAMILY_ID).and_then(|bytes| Some(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?)));
    let family = family.ok_or_else(cut_short)?;
    let device = exchange((family, DEVICE_GET), IFINDEX, &ifindex.to_ne_bytes())?;
    Ok(tells(&device))
}

fn tells(device: &[u8]) -> bool {
    let features = attribute(device, RX_METADATA).and_then(|bytes| bytes.try_into().ok()).map(u64::from_ne_bytes);
    features.is_some_and(|features| features & VLAN_TAG != 0)
}

/// Sends a request with one attribute, and returns the attributes of the one answer.
fn exchange((family, command): (u16, u8), kind: u16, value: &[u8]) -> io::Result<Vec<u8>> {
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(GENERIC))?;
    // Connected to the kernel, it hears nobody else.
    rustix::net::connect(&socket, &SocketAddrNetlink::new(0, 0))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
    rustix::net::send(&socket, &request((family, command), kind, value), SendFlags::empty())?;
    let mut buffer = vec![0; BUFFER_LEN];
    let (len, _) = rustix::net::recv(&socket, &mut buffer[..], RecvFlags::empty())?;
    attributes(&buffer[..len]).map(<[u8]>::to_vec)
}

fn request((family, command): (u16, u8), kind: u16, value: &[u8]) -> Vec<u8> {
    let len = HEADER_LEN + 4 + value.len().next_multiple_of(4);
    let mut bytes = (len as u32).to_ne_bytes().to_vec();
    bytes.extend(family.to_ne_bytes());
    bytes.extend((libc::NLM_F_REQUEST as u16).to_ne_bytes());
    // Sequence and port: there is one request, and the kernel knows who asks.
    bytes.extend([0; 8]);
    // Command, version, reserved.
    bytes.extend([command, 1, 0, 0]);
    bytes.extend((4 + value.len() as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(len, 0);
    bytes
}

/// Those of a message, which is an error instead if the kernel says so.
fn attributes(message: &[u8]) -> io::Result<&[u8]> {
    let kind = message.get(4..6).ok_or_else(cut_short)?;
    if kind == (libc::NLMSG_ERROR as u16).to_ne_bytes() {
        let errno = message.get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
        return Err(io::Error::from_raw_os_error(errno.ok_or_else(cut_short)?.saturating_neg()));
    }
    message.get(HEADER_LEN..).ok_or_else(cut_short)
}

fn cut_short() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer is cut short")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Attributes as linux/netlink.h lays them out: length with header, kind, value, padding.
    fn packed(attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, value) in attributes {
            bytes.extend((4 + value.len() as u16).to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(*value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    #[test]
    fn f2_a_driver_tells_vlan_tags_if_its_features_say_so() {
        let device = |features: u64| packed(&[(1, &7_u32.to_ne_bytes()), (3, &[0; 8]), (5, &features.to_ne_bytes())]);
        // Timestamps and hashes are 1 and 2.
        assert!(tells(&device(4)) && tells(&device(7)));
        assert!(!tells(&device(3)) && !tells(&device(0)));
        // Linux 6.3 to 6.6 have no such attribute.
        assert!(!tells(&packed(&[(1, &7_u32.to_ne_bytes()), (3, &[0xff; 8])])) && !tells(&[]));
        let whole = device(7);
        assert!((0..whole.len()).all(|len| !tells(&whole[..len])), "cut short");
        assert!(!tells(&[0; 64]), "an attribute without length");
    }

    #[test]
    fn a_request_is_padded_and_an_error_is_told() {
        let bytes = request((0x10, 3), 2, b"netdev\0");
        assert_eq!((bytes.len(), &bytes[..4], &bytes[20..24]), (32, &32_u32.to_ne_bytes()[..], &[11, 0, 2, 0][..]));
        let refused = [&36_u32.to_ne_bytes()[..], &2_u16.to_ne_bytes(), &[0; 10], &(-95_i32).to_ne_bytes()].concat();
        assert_eq!(attributes(&refused).unwrap_err().raw_os_error(), Some(95));
        assert!(attributes(&refused[..18]).is_err() && attributes(&[]).is_err());
    }
}
