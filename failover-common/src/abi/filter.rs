//! Which addresses may be virtual ones: what the XDP program looks at before it looks one up, so that a packet to
//! somebody else costs next to nothing. A constant of the program: addresses change with the configuration only, and a
//! configuration is loaded with a program of its own.
//!
//! Deliberately absent: certainty. An address whose bit is set is looked up in [`VIPS`](super::VIPS).

use crate::address::Address;

/// Words of a [`VipFilter`].
pub const VIP_FILTER_WORDS: usize = (1 << 16) / 64;

/// A bit for each place that an address can have. Unset: no address of that place is a virtual one.
pub type VipFilter = [u64; VIP_FILTER_WORDS];

/// Any address may be a virtual one.
pub const VIP_FILTER_ALL: VipFilter = [u64::MAX; VIP_FILTER_WORDS];

/// The filter that lets these addresses through.
pub fn vip_filter(addresses: impl IntoIterator<Item = Address>) -> VipFilter {
    let mut filter = [0; VIP_FILTER_WORDS];
    for address in addresses {
        let (word, bit) = vip_filter_place(&address);
        filter[word] |= bit;
    }
    filter
}

/// The index of an address's word, below [`VIP_FILTER_WORDS`], and its bit in there. With n virtual addresses, another one
/// has the place of one of them in n of 65,536 cases.
#[inline(always)]
pub const fn vip_filter_place(address: &Address) -> (usize, u64) {
    // In whatever byte order: it is the same machine that asks. Multiplied (2^32 by the golden ratio, Knuth's hash), so
    // that addresses that end alike, as those of several networks do, have different places.
    let [.., a, b, c, d] = address.bytes;
    let place = u32::from_ne_bytes([a, b, c, d]).wrapping_mul(0x9e37_79b1) >> 16;
    (place as usize / 64, 1 << (place % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lets(filter: &VipFilter, address: [u8; 4]) -> bool {
        let (word, bit) = vip_filter_place(&Address::from_ipv4(address));
        filter[word] & bit != 0
    }

    #[test]
    fn what_is_in_is_let_through() {
        let vips = (0..=u16::MAX).step_by(13).map(|n| [10, 0, (n >> 8) as u8, n as u8]);
        let filter = vip_filter(vips.clone().map(Address::from_ipv4));
        assert!(vips.clone().all(|address| lets(&filter, address)));
        assert_eq!(vip_filter([]), [0; VIP_FILTER_WORDS]);
    }

    #[test]
    fn what_is_not_in_is_seldom_let_through() {
        let filter = vip_filter((0..16).flat_map(|c| (0..=255).map(move |d| Address::from_ipv4([10, 0, c, d]))));
        // 4,096 of 65,536 places: 1 in 16, also of addresses that end like them.
        let others = (0..16).flat_map(|c| (0..=255).map(move |d| [192, 0, c, d]));
        let through = others.filter(|address| lets(&filter, *address)).count();
        assert!(through < 4_096 / 8, "{through} of 4,096");
        let one = vip_filter([Address::from_ipv4([192, 0, 2, 10])]);
        assert!(!lets(&one, [10, 0, 2, 10]) && !lets(&one, [192, 0, 2, 11]));
    }
}
