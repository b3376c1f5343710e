//! Ethernet II with up to two VLAN tags (IEEE 802.1Q, 802.1ad).

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Frame;

/// EtherType of IPv4.
pub const ETHER_TYPE_IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ETHER_TYPE_ARP: u16 = 0x0806;
/// EtherType of a customer VLAN tag.
const ETHER_TYPE_VLAN: u16 = 0x8100;
/// EtherType of a service VLAN tag.
const ETHER_TYPE_QINQ: u16 = 0x88a8;

/// A hardware address.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// All ones.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// Where 224.0.0.18 is sent to (RFC 1112 6.4).
    pub const VRRP_IPV4: Self = Self([0x01, 0x00, 0x5e, 0x00, 0x00, 0x12]);

    /// Broadcast or multicast: the group bit.
    #[inline(always)]
    pub fn is_group(&self) -> bool {
        self.0[0] & 1 != 0
    }
}

/// The first 14 bytes of a frame.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
pub struct EthernetHeader {
    /// Receiver.
    pub destination: Mac,
    /// Sender.
    pub source: Mac,
    /// What follows.
    pub ether_type: U16,
}

/// One VLAN tag, from its control information to the next EtherType.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
struct VlanTag {
    control: U16,
    ether_type: U16,
}

/// The VLANs a frame is in: the outer tag's VID in the high half, the inner (or only) one's in the
/// low half. 0 is untagged, and also a priority tag (VID 0), which names no VLAN (802.1Q 9.6).
pub type VlanId = u32;

/// A frame's link layer, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The header; its EtherType may be a VLAN tag's.
    pub header: EthernetHeader,
    /// The VLANs.
    pub vlan: VlanId,
    /// The EtherType after the tags.
    pub ether_type: u16,
    /// Where the network layer starts: 14, 18 or 22.
    pub payload: usize,
}

impl Link {
    /// Reads the header and up to two tags. `None` when the frame ends first. A third tag stays in
    /// `ether_type`, which then is nothing that anybody here handles.
    #[inline(always)]
    pub fn read<F: Frame + ?Sized>(frame: &F) -> Option<Self> {
        let header: EthernetHeader = frame.read(0)?;
        let mut link = Self { header, vlan: 0, ether_type: header.ether_type.get(), payload: 14 };
        if is_tag(link.ether_type) {
            let tag: VlanTag = frame.read(14)?;
            link.vlan = u32::from(tag.control.get() & 0x0fff);
            link.ether_type = tag.ether_type.get();
            link.payload = 18;
            if is_tag(link.ether_type) {
                let tag: VlanTag = frame.read(18)?;
                link.vlan = link.vlan << 16 | u32::from(tag.control.get() & 0x0fff);
                link.ether_type = tag.ether_type.get();
                link.payload = 22;
            }
        }
        Some(link)
    }
}

#[inline(always)]
fn is_tag(ether_type: u16) -> bool {
    ether_type == ETHER_TYPE_VLAN || ether_type == ETHER_TYPE_QINQ
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNTAGGED: [u8; 14] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0x08, 0x06];

    fn tagged(tags: &[(u16, u16)], then: u16) -> std::vec::Vec<u8> {
        let mut frame = UNTAGGED[..12].to_vec();
        for (ether_type, control) in tags {
            frame.extend(ether_type.to_be_bytes());
            frame.extend(control.to_be_bytes());
        }
        frame.extend(then.to_be_bytes());
        frame
    }

    #[test]
    fn every_truncation_is_none() {
        let frame = tagged(&[(0x88a8, 100), (0x8100, 200)], 0x0800);
        for end in 0..frame.len() {
            assert_eq!(Link::read(&frame[..end]), None, "{end} bytes");
        }
        assert!(Link::read(&frame[..]).is_some());
    }

    #[test]
    fn untagged() {
        let link = Link::read(&UNTAGGED[..]).unwrap();
        assert_eq!((link.ether_type, link.vlan, link.payload), (0x0806, 0, 14));
        assert_eq!(link.header.source, Mac([7, 8, 9, 10, 11, 12]));
    }

    #[test]
    fn one_tag_two_tags_and_priority_bits() {
        let one = tagged(&[(0x8100, 0xe00a)], 0x0806);
        let link = Link::read(&one[..]).unwrap();
        assert_eq!((link.ether_type, link.vlan, link.payload), (0x0806, 10, 18));

        let two = tagged(&[(0x88a8, 100), (0x8100, 200)], 0x0800);
        let link = Link::read(&two[..]).unwrap();
        assert_eq!((link.ether_type, link.vlan, link.payload), (0x0800, 100 << 16 | 200, 22));

        let priority_only = tagged(&[(0x8100, 0xe000)], 0x0806);
        assert_eq!(Link::read(&priority_only[..]).unwrap().vlan, 0);
    }

    #[test]
    fn a_third_tag_is_nothing_we_know() {
        let three = tagged(&[(0x88a8, 1), (0x8100, 2), (0x8100, 3)], 0x0806);
        assert_eq!(Link::read(&three[..]).unwrap().ether_type, 0x8100);
    }
}
