//! An input as a source of choices and values: what is used up reads as zeros.
//!
//! Deliberately absent: anything but the input's own order, so that a part of it keeps its meaning while others change.

use failover_sim::random::Choices;

/// What is left of an input.
pub struct Bytes<'a>(pub &'a [u8]);

impl<'a> Bytes<'a> {
    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.slice(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        u8::from_be_bytes(self.array())
    }

    /// The next two, in network byte order.
    pub fn short(&mut self) -> u16 {
        u16::from_be_bytes(self.array())
    }

    /// The next eight, in network byte order.
    pub fn long(&mut self) -> u64 {
        u64::from_be_bytes(self.array())
    }

    /// The next `len` bytes, or what there is.
    pub fn slice(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

impl Choices for Bytes<'_> {
    /// One byte each.
    fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end
    }
}
