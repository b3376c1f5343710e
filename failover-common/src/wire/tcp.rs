//! TCP segments (RFC 9293): the header, what makes one fit to be answered, the reset that answers it, and the two
//! segments that a new Active sends unasked.
//!
//! Deliberately absent: state. Nothing here knows a connection.

use zerocopy::byteorder::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::checksum::Sum;
use super::ipv4::{DONT_FRAGMENT, Ipv4Header};
use super::{Emit, Frame};

/// IP protocol number.
pub const PROTOCOL: u8 = 6;
/// The flag FIN (RFC 9293 3.1), as the others in the header's 14th byte.
pub const FIN: u8 = 0x01;
/// The flag SYN.
pub const SYN: u8 = 0x02;
/// The flag RST.
pub const RST: u8 = 0x04;
/// The flag ACK.
pub const ACK: u8 = 0x10;
/// Bytes of an IPv4 packet with a reset: two headers without options.
pub const RESET_LEN: usize = 40;
/// Bytes of an IPv4 packet with a tickle: two headers, timestamps, one byte.
pub const TICKLE_LEN: usize = 53;

/// What resets and tickles start with.
const TTL: u8 = 64;
/// No header that can be told is longer: the options' lengths are in units of 4 bytes, at most 10 of them.
const OPTIONS_MAX: usize = 40;

/// The fixed 20 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
pub struct TcpHeader {
    /// Sender's port.
    pub source_port: U16,
    /// Receiver's port.
    pub destination_port: U16,
    /// SEG.SEQ.
    pub sequence: U32,
    /// SEG.ACK; means nothing without the flag ACK.
    pub acknowledgment: U32,
    /// Header length in 4-byte words in the high half, zero in the low half.
    pub data_offset: u8,
    /// [`FIN`], [`SYN`], [`RST`], [`ACK`] and others.
    pub flags: u8,
    /// Window.
    pub window: U16,
    /// Over pseudo-header, header and payload.
    pub checksum: U16,
    /// Urgent pointer.
    pub urgent: U16,
}

impl TcpHeader {
    /// Bytes of the header with its options, as the segment says: 0 to 60. Below 20 it lies.
    #[inline(always)]
    pub fn header_len(&self) -> usize {
        usize::from(self.data_offset >> 4) * 4
    }

    /// Whether any of these flags is set.
    #[inline(always)]
    pub fn has(&self, flags: u8) -> bool {
        self.flags & flags != 0
    }

    /// Leaves the checksum of a bare header to whoever sends it, in Linux's way: see [`checksum_holds`].
    #[inline(always)]
    pub fn leave_checksum(&mut self, ends: &Ends) {
        let tcp_len = size_of::<Self>() as u16;
        self.checksum = U16::new(pseudo_sum(ends.source, ends.destination, tcp_len).folded());
    }

    /// SEG.LEN of a segment that takes `tcp_len` bytes of its IP packet: payload, SYN and FIN (RFC 9293 3.4).
    #[inline(always)]
    pub fn segment_len(&self, tcp_len: usize) -> u32 {
        let payload = tcp_len.saturating_sub(self.header_len()) as u32;
        payload + u32::from(self.has(SYN)) + u32::from(self.has(FIN))
    }
}

/// The sum over a pseudo-header (RFC 9293 3.1).
#[inline(always)]
pub fn pseudo_sum(source: [u8; 4], destination: [u8; 4], tcp_len: u16) -> Sum {
    let mut sum = Sum::default();
    sum.add_four(source);
    sum.add_four(destination);
    sum.add(u16::from(PROTOCOL));
    sum.add(tcp_len);
    sum
}

/// Whether the segment of `tcp_len` bytes at `offset` carries its right checksum.
///
/// Or what a local stack leaves there for the hardware to finish: the sum of the pseudo-header, not complemented
/// (Linux's CHECKSUM_PARTIAL). That is what comes over a veth, and from the guests of this host.
#[inline(always)]
pub fn checksum_holds<F: Frame + ?Sized>(
    frame: &F,
    ip: &Ipv4Header,
    offset: usize,
    tcp: &TcpHeader,
    tcp_len: usize,
) -> bool {
    if !has_whole_checksum(ip, tcp, tcp_len) {
        return true;
    }
    let Some(mut sum) = frame.sum(offset, tcp_len) else { return false };
    sum.add_sum(pseudo_sum(ip.source, ip.destination, tcp_len as u16));
    sum.folded() == 0xffff
}

/// Whether the checksum is not one that is left to the hardware.
#[inline(always)]
pub fn has_whole_checksum(ip: &Ipv4Header, tcp: &TcpHeader, tcp_len: usize) -> bool {
    tcp.checksum.get() != pseudo_sum(ip.source, ip.destination, tcp_len as u16).folded()
}

/// Whether a chain of IPv4 or TCP options (RFC 791 3.1, RFC 9293 3.2: the same form) keeps inside the `len` bytes at
/// `offset`: each has a length of at least two, and none runs past the end.
#[inline(always)]
pub fn options_hold<F: Frame + ?Sized>(frame: &F, offset: usize, len: usize) -> bool {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    let (mut length_is_next, mut skip) = (false, 0);
    // Byte after byte: offsets that come from the packet would cost the kernel's verifier a state each.
    for index in 0..OPTIONS_MAX {
        if index >= len {
            break;
        }
        let Some(byte) = frame.read::<u8>(offset + index) else { return false };
        if length_is_next {
            if byte < 2 {
                return false;
            }
            (length_is_next, skip) = (false, byte - 2);
        } else if skip > 0 {
            skip -= 1;
        } else {
            match byte {
                END => return true,
                NO_OPERATION => {}
                _ => length_is_next = true,
            }
        }
    }
    skip == 0 && !length_is_next
}

/// The numbers of the reset that answers a segment (RFC 9293 3.5.2 group 1, 3.10.7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset {
    /// SEG.SEQ.
    pub sequence: u32,
    /// SEG.ACK, or `None` where the flag ACK is not set.
    pub acknowledgment: Option<u32>,
}

impl Reset {
    /// For a segment that is no reset and takes `tcp_len` bytes of its IP packet: `<SEQ=SEG.ACK><CTL=RST>` when it has
    /// an acknowledgment, else `<SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK>`.
    #[inline(always)]
    pub fn answering(segment: &TcpHeader, tcp_len: usize) -> Self {
        if segment.has(ACK) {
            return Self { sequence: segment.acknowledgment.get(), acknowledgment: None };
        }
        let acknowledgment = segment.sequence.get().wrapping_add(segment.segment_len(tcp_len));
        Self { sequence: 0, acknowledgment: Some(acknowledgment) }
    }

    /// The IPv4 and TCP header that carry it.
    #[inline(always)]
    pub fn headers(&self, ends: &Ends) -> (Ipv4Header, TcpHeader) {
        let flags = if self.acknowledgment.is_some() { RST | ACK } else { RST };
        let mut tcp = ends.header(self.sequence, self.acknowledgment.unwrap_or(0), flags, 5);
        let mut sum = pseudo_sum(ends.source, ends.destination, 20);
        sum.add_header(zerocopy::transmute!(tcp));
        tcp.checksum = U16::new(sum.checksum());
        (ends.ip_header(RESET_LEN as u16), tcp)
    }

    /// The packet, for sending unasked: to a client whose numbers are known.
    pub fn packet(&self, ends: &Ends) -> [u8; RESET_LEN] {
        let mut packet = [0; RESET_LEN];
        let (ip, tcp) = self.headers(ends);
        let mut emit = Emit::new(&mut packet);
        // Both fit by the sizes of their types: 20 + 20.
        let _ = emit.put(&ip);
        let _ = emit.put(&tcp);
        packet
    }
}

/// Sender and receiver of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The sender's address.
    pub source: [u8; 4],
    /// The receiver's address.
    pub destination: [u8; 4],
    /// The sender's port.
    pub source_port: u16,
    /// The receiver's port.
    pub destination_port: u16,
}

impl Ends {
    #[inline(always)]
    fn ip_header(&self, total_len: u16) -> Ipv4Header {
        let mut ip = Ipv4Header {
            version_and_len: 0x45,
            type_of_service: 0,
            total_len: U16::new(total_len),
            id: U16::new(0),
            fragment: U16::new(DONT_FRAGMENT),
            ttl: TTL,
            protocol: PROTOCOL,
            checksum: U16::new(0),
            source: self.source,
            destination: self.destination,
        };
        let mut sum = Sum::default();
        sum.add_header(zerocopy::transmute!(ip));
        ip.checksum = U16::new(sum.checksum());
        ip
    }

    #[inline(always)]
    fn header(&self, sequence: u32, acknowledgment: u32, flags: u8, words: u8) -> TcpHeader {
        TcpHeader {
            source_port: U16::new(self.source_port),
            destination_port: U16::new(self.destination_port),
            sequence: U32::new(sequence),
            acknowledgment: U32::new(acknowledgment),
            data_offset: words << 4,
            flags,
            window: U16::new(0),
            checksum: U16::new(0),
            urgent: U16::new(0),
        }
    }
}

/// A tickle: a segment that its receiver cannot accept and so answers with its own numbers (RFC 9293 3.5.2 group 3),
/// which XDP then answers with an exact reset.
///
/// `send_next` is the server's SND.NXT when the connection was established, if it is known. The segment ends one below
/// it, to the left of the window, so that firewalls on the way know the connection and no receiver gets as far as to
/// look at the acknowledgment, which is wrong. Else both numbers are 0, as CTDB sends.
///
/// The timestamps are for stacks that drop segments without them (RFC 7323 3.2); where none were negotiated they are
/// ignored. To half of the receivers TSval 1 is an old one. Linux from 6.14 on (TCPPAWSOldAck) and the BSDs drop a bare
/// ACK with an old timestamp without a word, but answer data: hence a byte of garbage, as in a keep-alive (RFC 9293
/// 3.8.4).
pub fn tickle(ends: &Ends, send_next: Option<u32>) -> [u8; TICKLE_LEN] {
    /// Two NOPs, kind 8, length 10, TSval 1, TSecr 0 (RFC 7323 appendix A). Then the byte.
    const TIMESTAMPS_AND_BYTE: [u8; 13] = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 0];
    let mut packet = [0; TICKLE_LEN];
    let sequence = send_next.map_or(0, |send_next| send_next.wrapping_sub(2));
    let mut tcp = ends.header(sequence, 0, ACK, 8);
    let mut sum = pseudo_sum(ends.source, ends.destination, (TICKLE_LEN - 20) as u16);
    sum.add_header(zerocopy::transmute!(tcp));
    sum.add_bytes(&TIMESTAMPS_AND_BYTE);
    tcp.checksum = U16::new(sum.checksum());
    let mut emit = Emit::new(&mut packet);
    // All fit by the sizes of their types: 20 + 20 + 13.
    let _ = emit.put(&ends.ip_header(TICKLE_LEN as u16));
    let _ = emit.put(&tcp);
    let _ = emit.put(&TIMESTAMPS_AND_BYTE);
    packet
}

#[cfg(test)]
mod tests;
