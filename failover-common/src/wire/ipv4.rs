//! The IPv4 header (RFC 791), options included in its length and skipped.

use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Frame;
use super::checksum::Sum;

/// The fixed 20 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
pub struct Ipv4Header {
    /// Version in the high half, header length in 4-byte words in the low half.
    pub version_and_len: u8,
    /// DSCP and ECN.
    pub type_of_service: u8,
    /// Header and payload.
    pub total_len: U16,
    /// Identification.
    pub id: U16,
    /// Flags in the 3 high bits, fragment offset in 8-byte units in the rest.
    pub fragment: U16,
    /// Time to live.
    pub ttl: u8,
    /// What follows.
    pub protocol: u8,
    /// Over the header.
    pub checksum: U16,
    /// Sender.
    pub source: [u8; 4],
    /// Receiver.
    pub destination: [u8; 4],
}

/// The flag "don't fragment".
pub const DONT_FRAGMENT: u16 = 0x4000;
/// The flag "more fragments" and the offset: non-zero in every fragment.
const FRAGMENT_MASK: u16 = 0x3fff;

impl Ipv4Header {
    /// Whether the version is 4.
    #[inline(always)]
    pub fn is_version_4(&self) -> bool {
        self.version_and_len >> 4 == 4
    }

    /// Bytes of the header with its options: 0 to 60, as the packet says. Below 20 it lies.
    #[inline(always)]
    pub fn header_len(&self) -> usize {
        usize::from(self.version_and_len & 0x0f) * 4
    }

    /// Whether this is a part of a larger packet.
    #[inline(always)]
    pub fn is_fragment(&self) -> bool {
        self.fragment.get() & FRAGMENT_MASK != 0
    }

    /// Bytes after the header, or `None` when the lengths contradict each other or the frame.
    #[inline(always)]
    pub fn payload_len<F: Frame + ?Sized>(&self, frame: &F, offset: usize) -> Option<usize> {
        let total_len = usize::from(self.total_len.get());
        if self.header_len() < 20 || total_len < self.header_len() || offset + total_len > frame.len() {
            return None;
        }
        Some(total_len - self.header_len())
    }

    /// Whether this header, which is at `offset`, carries its right checksum, options included. One with a length below 20
    /// does not.
    #[inline(always)]
    pub fn checksum_holds<F: Frame + ?Sized>(&self, frame: &F, offset: usize) -> bool {
        const FIXED_LEN: usize = size_of::<Ipv4Header>();
        if self.header_len() < FIXED_LEN {
            return false;
        }
        let mut sum = Sum::default();
        sum.add_header(zerocopy::transmute!(*self));
        if self.header_len() > FIXED_LEN {
            let Some(options) = frame.sum(offset + FIXED_LEN, self.header_len() - FIXED_LEN) else { return false };
            sum.add_sum(options);
        }
        sum.folded() == 0xffff
    }
}

/// An address that one host can have: not 0/8, not loopback, not multicast or above.
#[inline(always)]
pub fn is_unicast(address: [u8; 4]) -> bool {
    (1..224).contains(&address[0]) && address[0] != 127
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The header that RFC 1071's readers all know: total length 115, id 0, DF, TTL 64, UDP,
    /// 192.168.0.1 to 192.168.0.199, checksum b861.
    const KNOWN: [u8; 20] = [
        0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0x00, 0x01, 0xc0, 0xa8,
        0x00, 0xc7,
    ];

    fn header(bytes: &[u8]) -> Ipv4Header {
        bytes.read(0).unwrap()
    }

    #[test]
    fn known_checksum_holds_and_any_flip_breaks_it() {
        assert!(header(&KNOWN).checksum_holds(&KNOWN[..], 0));
        for bit in 0..160 {
            let mut bad = KNOWN;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(!header(&bad).checksum_holds(&bad[..], 0) || header(&bad).header_len() != 20, "bit {bit}");
        }
    }

    #[test]
    fn a_checksum_of_options_counts_and_one_of_less_than_a_header_does_not() {
        // One option word of four no-operations (RFC 791 3.1), with the checksum made anew: b861 - 0100 - 0202.
        let mut with_options = [0; 24];
        with_options[..20].copy_from_slice(&KNOWN);
        with_options[0] = 0x46;
        with_options[20..].copy_from_slice(&[1; 4]);
        with_options[10..12].copy_from_slice(&0xb55f_u16.to_be_bytes());
        assert!(header(&with_options).checksum_holds(&with_options[..], 0));
        assert!(!header(&with_options).checksum_holds(&with_options[..23], 0), "cut short");
        with_options[23] = 2;
        assert!(!header(&with_options).checksum_holds(&with_options[..], 0));
        // The same 20 bytes, of which only 16 are said to be the header's.
        let mut short = KNOWN;
        short[0] = 0x44;
        short[10..12].copy_from_slice(&0xb961_u16.to_be_bytes());
        assert!(!header(&short).checksum_holds(&short[..], 0));
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        let mut frame = [0; 115];
        frame[..20].copy_from_slice(&KNOWN);
        assert_eq!(header(&frame).payload_len(&frame[..], 0), Some(95));
        assert_eq!(header(&frame).payload_len(&frame[..114], 0), None, "longer than the frame");
        frame[0] = 0x44;
        assert_eq!(header(&frame).payload_len(&frame[..], 0), None, "header below 20 bytes");
        frame[0] = 0x46;
        assert_eq!(header(&frame).payload_len(&frame[..], 0), Some(91), "one option word");
        frame[3] = 23;
        assert_eq!(header(&frame).payload_len(&frame[..], 0), None, "total below the header");
    }

    #[test]
    fn fragments_are_told_from_df() {
        assert!(!header(&KNOWN).is_fragment());
        for (high, low) in [(0x20, 0x00), (0x00, 0x01), (0x20, 0xb9)] {
            let mut fragment = KNOWN;
            (fragment[6], fragment[7]) = (high, low);
            assert!(header(&fragment).is_fragment());
        }
    }
}
