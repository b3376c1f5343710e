//! Wire formats: fixed headers as byte-aligned structs, and one trait for bounded access to a
//! frame, so that the kernel program, the controller and the tests run the same parsers.
//!
//! Deliberately absent: allocation, and formats that nobody here reads or writes.

pub mod arp;
pub mod checksum;
pub mod ethernet;
pub mod ipv4;
pub mod tcp;
pub mod vrrp;

use checksum::Sum;
use vrrp::Words;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// What every header type is: plain bytes of any value, at any alignment.
pub trait Header: FromBytes + IntoBytes + Immutable + KnownLayout + Unaligned + Copy {}
impl<T: FromBytes + IntoBytes + Immutable + KnownLayout + Unaligned + Copy> Header for T {}

/// Bounded access to one frame, from its Ethernet header to its end.
///
/// Implemented for byte slices here and for the kernel's packet pointers in `failover-ebpf`. Reads
/// copy: nothing holds a reference into a frame that is being rewritten.
pub trait Frame {
    /// Bytes from the Ethernet header to the end.
    fn len(&self) -> usize;

    /// Whether there is nothing.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes at `offset` as a header; `None` past the end.
    fn read<T: Header>(&self, offset: usize) -> Option<T>;

    /// Replaces the bytes at `offset`; `None`, and nothing written, past the end.
    fn write<T: Header>(&mut self, offset: usize, header: &T) -> Option<()>;

    /// The sum of `len` bytes from `offset`; an odd last one counts as a word's high half (RFC 1071). `None` past the
    /// end.
    fn sum(&self, offset: usize, len: usize) -> Option<Sum>;

    /// [`tcp::options_hold`], for the kernel's frame to have it in a function of its own.
    #[inline(always)]
    fn options_hold(&self, offset: usize, len: usize) -> bool {
        tcp::options_hold(self, offset, len)
    }

    /// [`vrrp::read_words`], likewise.
    #[inline(always)]
    fn words(&self, offset: usize, len: usize) -> Option<Words> {
        vrrp::read_words(self, offset, len)
    }
}

impl Frame for [u8] {
    fn len(&self) -> usize {
        <[u8]>::len(self)
    }

    fn read<T: Header>(&self, offset: usize) -> Option<T> {
        let (header, _) = T::read_from_prefix(self.get(offset..)?).ok()?;
        Some(header)
    }

    fn write<T: Header>(&mut self, offset: usize, header: &T) -> Option<()> {
        header.write_to_prefix(self.get_mut(offset..)?).ok()
    }

    fn sum(&self, offset: usize, len: usize) -> Option<Sum> {
        let mut sum = Sum::default();
        sum.add_bytes(self.get(offset..)?.get(..len)?);
        Some(sum)
    }
}

/// A cursor over a buffer that a frame is built into.
///
/// `None` means that the buffer is too small; callers size theirs from the `*_LEN` constants.
pub(crate) struct Emit<'a> {
    buffer: &'a mut [u8],
    at: usize,
}

impl<'a> Emit<'a> {
    /// Starts at the buffer's beginning.
    pub(crate) fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, at: 0 }
    }

    /// Appends one header and says where it went.
    pub(crate) fn put<T: Header>(&mut self, header: &T) -> Option<usize> {
        let at = self.at;
        self.buffer.write(at, header)?;
        self.at += size_of::<T>();
        Some(at)
    }

    /// What was written so far.
    pub(crate) fn written(&mut self) -> &mut [u8] {
        &mut self.buffer[..self.at]
    }
}
