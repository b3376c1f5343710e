//! One address type for both families, so that IPv6 changes no map and no event.
//!
//! Deliberately absent: text. Userspace prints through `core::net`.

use core::cmp::Ordering;
use core::hash::{Hash, Hasher};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// An IP address as 16 bytes in network byte order; IPv4 as `::ffff:a.b.c.d` (RFC 4291 2.5.5.2).
///
/// `Ord` compares the bytes, which is RFC 9568 6.4.3's "greater than (unsigned, network byte
/// order)" within one family.
///
/// Aligned and compared by words: the BPF backend would take it apart into bytes.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Address {
    /// The 16 bytes.
    pub bytes: [u8; 16],
}

impl Address {
    /// The v4-mapped form of four bytes in network byte order.
    #[inline(always)]
    pub const fn from_ipv4(bytes: [u8; 4]) -> Self {
        // By words: the BPF backend writes bytes one by one, in a loop where it can.
        let words = [0, 0, 0xffff_u32.to_be(), u32::from_ne_bytes(bytes)];
        Self { bytes: zerocopy::transmute!(words) }
    }

    /// The address as the standard library has it; v4-mapped becomes IPv4.
    pub fn to_ip(self) -> IpAddr {
        let v6 = Ipv6Addr::from(self.bytes);
        v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4)
    }
}

impl Address {
    /// The address as a number.
    #[inline(always)]
    const fn number(self) -> u128 {
        u128::from_be_bytes(self.bytes)
    }
}

impl PartialEq for Address {
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        self.number() == other.number()
    }
}

impl Eq for Address {}

impl PartialOrd for Address {
    #[inline(always)]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Address {
    #[inline(always)]
    fn cmp(&self, other: &Self) -> Ordering {
        self.number().cmp(&other.number())
    }
}

impl Hash for Address {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.number().hash(hasher);
    }
}

impl From<Ipv4Addr> for Address {
    fn from(address: Ipv4Addr) -> Self {
        Self::from_ipv4(address.octets())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv4_is_mapped_and_comes_back() {
        let address = Address::from(Ipv4Addr::new(192, 0, 2, 10));
        assert_eq!(address.bytes, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 10]);
        assert_eq!(address.to_ip(), IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)));
    }

    #[test]
    fn order_is_unsigned_and_by_network_bytes() {
        let lower = Address::from_ipv4([10, 0, 0, 200]);
        let greater = Address::from_ipv4([10, 0, 1, 1]);
        assert!(lower < greater);
        assert!(Address::from_ipv4([127, 0, 0, 1]) < Address::from_ipv4([128, 0, 0, 1]));
    }

    #[test]
    fn every_byte_counts_the_first_most() {
        let mut before = Address { bytes: [0; 16] };
        for index in (0..16).rev() {
            let mut bytes = [0; 16];
            bytes[index] = 1;
            let address = Address { bytes };
            assert!(address > before && address != before && before != Address { bytes: [0xff; 16] });
            before = address;
        }
    }
}
