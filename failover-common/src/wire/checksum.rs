//! The Internet checksum (RFC 1071).

/// A running sum of 16-bit words in network byte order.
///
/// The sum is kept unfolded in 64 bits: 2^32 pairs of words fit before it could overflow.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// Adds one word.
    #[inline(always)]
    pub fn add(&mut self, word: u16) {
        self.0 += u64::from(word);
    }

    /// Adds four bytes, two words.
    #[inline(always)]
    pub fn add_four(&mut self, bytes: [u8; 4]) {
        // Whole: a one's complement sum of longer words folds to that of their halves (RFC 1071 2C).
        self.0 += u64::from(u32::from_be_bytes(bytes));
    }

    /// Adds a header of 20 bytes, as IPv4 and TCP have them.
    #[inline(always)]
    pub fn add_header(&mut self, header: [[u8; 4]; 5]) {
        header.into_iter().for_each(|word| self.add_four(word));
    }

    /// Adds what was summed elsewhere over an even number of bytes.
    #[inline(always)]
    pub fn add_sum(&mut self, other: Self) {
        self.0 += other.0;
    }

    /// Adds bytes; an odd last one counts as a word's high half.
    pub fn add_bytes(&mut self, bytes: &[u8]) {
        let mut words = bytes.chunks_exact(2);
        for word in &mut words {
            self.add(u16::from_be_bytes([word[0], word[1]]));
        }
        if let [last] = words.remainder() {
            self.add(u16::from_be_bytes([*last, 0]));
        }
    }

    /// The one's complement sum, end-around carries folded in. Over bytes that include a correct
    /// checksum it is 0xffff.
    #[inline(always)]
    pub fn folded(self) -> u16 {
        let mut sum = (self.0 >> 32) + (self.0 & 0xffff_ffff);
        sum = (sum >> 16) + (sum & 0xffff);
        sum = (sum >> 16) + (sum & 0xffff);
        sum = (sum >> 16) + (sum & 0xffff);
        sum as u16
    }

    /// What goes into the checksum field when that field was summed as zero.
    #[inline(always)]
    pub fn checksum(self) -> u16 {
        !self.folded()
    }
}

/// The checksum of bytes whose checksum field is zero.
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = Sum::default();
    sum.add_bytes(bytes);
    sum.checksum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_1071_section_3_example() {
        // 0001 f203 f4f5 f6f7: sum 2ddf0, folded ddf2.
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        let mut sum = Sum::default();
        sum.add_bytes(&bytes);
        assert_eq!(sum.folded(), 0xddf2);
        assert_eq!(checksum(&bytes), 0x220d);
    }

    #[test]
    fn carries_ripple_to_the_end() {
        let mut sum = Sum(0xffff_ffff_ffff);
        sum.add(1);
        // 2^48 is 1 modulo 2^16 - 1.
        assert_eq!(sum.folded(), 1);
        assert_eq!(checksum(&[0xff, 0xff, 0xff, 0xff]), 0);
        assert_eq!(checksum(&[0x12]), !0x1200);
    }
}
