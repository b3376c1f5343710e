//! ARP for IPv4 over Ethernet (RFC 826), its probes and announcements (RFC 5227).

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Emit;
use super::ethernet::{ETHER_TYPE_ARP, EthernetHeader, Mac};

/// `operation` of a request, a probe, and an announcement in request form.
pub const REQUEST: u16 = 1;
/// `operation` of a reply, and an announcement in reply form.
pub const REPLY: u16 = 2;
/// Bytes of an announcement: Ethernet's minimum without the check sequence, zero padded.
pub const ANNOUNCEMENT_LEN: usize = 60;

/// An ARP packet, 28 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
pub struct ArpPacket {
    /// 1: Ethernet. 6, IEEE 802 networks, means the same to Linux (`arp_process`).
    pub hardware_type: U16,
    /// 0x0800: IPv4.
    pub protocol_type: U16,
    /// 6.
    pub hardware_len: u8,
    /// 4.
    pub protocol_len: u8,
    /// [`REQUEST`], [`REPLY`], or something nobody here handles.
    pub operation: U16,
    /// The sender's hardware address.
    pub sender_mac: Mac,
    /// The sender's address; 0.0.0.0 in a probe (RFC 5227 2.1.1).
    pub sender_ip: [u8; 4],
    /// The target's hardware address; nothing in a request.
    pub target_mac: Mac,
    /// The address asked for.
    pub target_ip: [u8; 4],
}

impl ArpPacket {
    fn new(operation: u16, sender_mac: Mac, sender_ip: [u8; 4], target_mac: Mac, target_ip: [u8; 4]) -> Self {
        Self {
            hardware_type: U16::new(1),
            protocol_type: U16::new(0x0800),
            hardware_len: 6,
            protocol_len: 4,
            operation: U16::new(operation),
            sender_mac,
            sender_ip,
            target_mac,
            target_ip,
        }
    }

    /// Whether it speaks of IPv4 addresses on Ethernet.
    #[inline(always)]
    pub fn is_ipv4_over_ethernet(&self) -> bool {
        matches!(self.hardware_type.get(), 1 | 6)
            && self.protocol_type.get() == 0x0800
            && self.hardware_len == 6
            && self.protocol_len == 4
    }

    /// The answer to this request, from `mac`. A probe's answer keeps 0.0.0.0 as its target
    /// (RFC 826: sender and target are swapped; RFC 5227 2.1.1 asks no more).
    #[inline(always)]
    pub fn answer(&self, mac: Mac) -> Self {
        Self {
            operation: U16::new(REPLY),
            sender_mac: mac,
            sender_ip: self.target_ip,
            target_mac: self.sender_mac,
            target_ip: self.sender_ip,
            ..*self
        }
    }
}

/// Builds a gratuitous ARP frame for `ip` at `mac`: broadcast, sender and target address both the
/// virtual one, sender and target hardware address both `mac` (RFC 9568 6.4.1 and 6.4.2 with errata
/// 7947 and 7949; Linux calls a reply gratuitous only then, and learns from another a second too
/// late or never). Neighbours differ in which form they learn from, so both are sent: `operation`
/// is [`REQUEST`] or [`REPLY`].
pub fn announcement(operation: u16, mac: Mac, ip: [u8; 4]) -> [u8; ANNOUNCEMENT_LEN] {
    let mut frame = [0; ANNOUNCEMENT_LEN];
    let mut emit = Emit::new(&mut frame);
    let header = EthernetHeader { destination: Mac::BROADCAST, source: mac, ether_type: U16::new(ETHER_TYPE_ARP) };
    // Both fit into 60 bytes by the sizes of their types: 14 + 28.
    let _ = emit.put(&header);
    let _ = emit.put(&ArpPacket::new(operation, mac, ip, mac, ip));
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: Mac = Mac([0x02, 0, 0, 0, 0, 0x0a]);
    const ASKER: Mac = Mac([0x02, 0, 0, 0, 0, 0xc1]);

    #[test]
    fn an_answer_swaps_sender_and_target() {
        let request = ArpPacket::new(REQUEST, ASKER, [192, 0, 2, 100], Mac::default(), [192, 0, 2, 10]);
        let expected: [u8; 28] = [
            0, 1, 8, 0, 6, 4, 0, 2, // a reply
            0x02, 0, 0, 0, 0, 0x0a, 192, 0, 2, 10, // from the node, for the address asked
            0x02, 0, 0, 0, 0, 0xc1, 192, 0, 2, 100, // to the asker
        ];
        assert_eq!(request.answer(NODE).as_bytes(), expected);
    }

    #[test]
    fn the_announcement_byte_for_byte() {
        let mut expected = std::vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0, 0, 0, 0, 0x0a, 0x08, 0x06];
        expected.extend([0, 1, 8, 0, 6, 4, 0, 1]);
        expected.extend([0x02, 0, 0, 0, 0, 0x0a, 192, 0, 2, 10]);
        expected.extend([0x02, 0, 0, 0, 0, 0x0a, 192, 0, 2, 10]);
        expected.resize(60, 0);
        assert_eq!(announcement(REQUEST, NODE, [192, 0, 2, 10])[..], expected[..]);
        expected[21] = 2;
        assert_eq!(announcement(REPLY, NODE, [192, 0, 2, 10])[..], expected[..]);
    }

    #[test]
    fn other_hardware_or_protocols_are_not_ours() {
        let good = ArpPacket::new(REQUEST, ASKER, [0; 4], Mac::default(), [192, 0, 2, 10]);
        assert!(good.is_ipv4_over_ethernet());
        assert!(ArpPacket { hardware_type: U16::new(6), ..good }.is_ipv4_over_ethernet());
        assert!(!ArpPacket { hardware_type: U16::new(7), ..good }.is_ipv4_over_ethernet());
        assert!(!ArpPacket { protocol_type: U16::new(0x86dd), ..good }.is_ipv4_over_ethernet());
        assert!(!ArpPacket { hardware_len: 8, ..good }.is_ipv4_over_ethernet());
        assert!(!ArpPacket { protocol_len: 16, ..good }.is_ipv4_over_ethernet());
    }
}
