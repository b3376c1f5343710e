//! TCP segments of connections that a test made itself, and what RFC 9293 3.10.7.1 says that a reset must be. Checksums
//! are by RFC 1071's definition.
//!
//! Deliberately absent: anything of the program's. The two share no code but `abi`'s key.

use std::net::SocketAddrV4;

use failover_common::abi::FlowKey;
use failover_common::address::Address;

use crate::fixtures::{CLIENT, CLIENT_MAC, NODE_MAC, VIP};

/// RFC 9293 3.1: no more data from the sender.
pub const FIN: u8 = 0x01;
/// Synchronise.
pub const SYN: u8 = 0x02;
/// Reset.
pub const RST: u8 = 0x04;
/// The acknowledgement number is one.
pub const ACK: u8 = 0x10;

/// A segment from a client to a service.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// Who sends it.
    pub client: SocketAddrV4,
    /// To whom.
    pub server: SocketAddrV4,
    /// SEG.SEQ.
    pub sequence: u32,
    /// SEG.ACK.
    pub acknowledgement: u32,
    /// The control bits.
    pub control: u8,
    /// The data.
    pub data: &'static [u8],
}

impl Segment {
    /// From a port of 192.0.2.100 to port 80 of the first virtual address.
    pub fn from_port(port: u16, control: u8) -> Self {
        Self {
            client: SocketAddrV4::new(CLIENT.into(), port),
            server: SocketAddrV4::new(VIP.into(), 80),
            sequence: 0x0506_0708,
            acknowledgement: 0xfffe_fdfc,
            control,
            data: b"",
        }
    }

    /// The flow it belongs to.
    pub fn key(&self) -> FlowKey {
        FlowKey {
            local: Address::from(*self.server.ip()),
            remote: Address::from(*self.client.ip()),
            local_port: self.server.port(),
            remote_port: self.client.port(),
        }
    }

    /// As a frame from the client's hardware address to the node's, padded to 60 bytes.
    pub fn frame(&self) -> Vec<u8> {
        self.frame_to(NODE_MAC)
    }

    /// The same to another hardware address.
    pub fn frame_to(&self, mac: [u8; 6]) -> Vec<u8> {
        let mut frame = [&mac[..], &CLIENT_MAC, &[0x08, 0x00]].concat();
        let total_len = 40 + self.data.len() as u16;
        frame.extend([0x45, 0x00]);
        frame.extend(total_len.to_be_bytes());
        frame.extend([0x00, 0x07, 0x40, 0x00, 64, 6, 0, 0]);
        frame.extend(self.client.ip().octets());
        frame.extend(self.server.ip().octets());
        frame.extend(self.client.port().to_be_bytes());
        frame.extend(self.server.port().to_be_bytes());
        frame.extend(self.sequence.to_be_bytes());
        frame.extend(self.acknowledgement.to_be_bytes());
        // Window 501, checksum to come, urgent pointer 0.
        frame.extend([0x50, self.control, 0x01, 0xf5, 0, 0, 0, 0]);
        frame.extend(self.data);
        mend(&mut frame);
        frame.resize(frame.len().max(60), 0);
        frame
    }
}

/// The network and transport layer's places: after up to two VLAN tags and the IP header's length.
///
/// # Panics
/// When the frame ends before the first.
pub fn layers(frame: &[u8]) -> (usize, usize) {
    let is_tag = |at: usize| matches!(frame[at..at + 2], [0x81, 0x00] | [0x88, 0xa8]);
    let mut ip = 14;
    while ip < 22 && is_tag(ip - 2) {
        ip += 4;
    }
    (ip, ip + 4 * usize::from(frame[ip] & 0x0f))
}

/// The one's complement sum of 16-bit words (RFC 1071).
pub fn sum(words: &[u8]) -> u16 {
    let sum: u64 =
        words.chunks(2).map(|word| u64::from(word[0]) << 8 | word.get(1).map_or(0, |low| u64::from(*low))).sum();
    let mut sum = sum;
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

/// What a local stack leaves in the checksum's place for hardware to finish: the sum of the pseudo-header
/// (CHECKSUM_PARTIAL).
///
/// # Panics
/// When the packet's total length is below its header's.
pub fn pseudo_header_sum(frame: &[u8]) -> u16 {
    let (ip, tcp) = layers(frame);
    let end = ip + usize::from(u16::from_be_bytes([frame[ip + 2], frame[ip + 3]]));
    sum(&covered(frame, ip, tcp, end)[..12])
}

/// What TCP's checksum covers (RFC 9293 3.1): pseudo-header, header and data.
fn covered(frame: &[u8], ip: usize, tcp: usize, end: usize) -> Vec<u8> {
    let len = ((end - tcp) as u16).to_be_bytes();
    [&frame[ip + 12..ip + 20], &[0, 6], &len, &frame[tcp..end]].concat()
}

/// Puts right checksums into an IPv4 packet with TCP, as far as its lengths make sense.
pub fn mend(frame: &mut [u8]) {
    if frame.len() < 34 {
        return;
    }
    let (ip, tcp) = layers(frame);
    let Some(total_len) = frame.get(ip + 2..ip + 4) else { return };
    let end = ip + usize::from(u16::from_be_bytes([total_len[0], total_len[1]]));
    if tcp < ip + 20 || tcp > frame.len() {
        return;
    }
    frame[ip + 10..ip + 12].fill(0);
    let checksum = !sum(&frame[ip..tcp]);
    frame[ip + 10..ip + 12].copy_from_slice(&checksum.to_be_bytes());
    if tcp + 20 > end || end > frame.len() {
        return;
    }
    frame[tcp + 16..tcp + 18].fill(0);
    let checksum = !sum(&covered(frame, ip, tcp, end));
    frame[tcp + 16..tcp + 18].copy_from_slice(&checksum.to_be_bytes());
}

/// Asserts that `answer` is what RFC 9293 3.10.7.1 wants for `sent`, from the node, in the form that DESIGN.md section 8
/// gives it.
///
/// # Panics
/// When it is not.
#[track_caller]
pub fn assert_resets(sent: &[u8], answer: &[u8]) {
    let context = format!("sent {sent:02x?}\nanswer {answer:02x?}");
    let (ip, tcp) = layers(sent);
    assert_eq!(answer.len(), sent.len().min(60.max(ip + 40)), "length: {context}");
    assert_eq!((&answer[..6], &answer[6..12]), (&sent[6..12], &sent[..6]), "hardware addresses: {context}");
    assert_eq!(answer[12..ip], sent[12..ip], "tags: {context}");

    let (to, from) = answer.split_at(ip + 20);
    assert_eq!(to[ip..ip + 10], [0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6], "IP header: {context}");
    assert_eq!(
        (&to[ip + 12..ip + 16], &to[ip + 16..]),
        (&sent[ip + 16..ip + 20], &sent[ip + 12..ip + 16]),
        "{context}"
    );
    assert_eq!(sum(&to[ip..]), 0xffff, "IP checksum: {context}");
    assert_eq!(sum(&covered(answer, ip, ip + 20, ip + 40)), 0xffff, "TCP checksum: {context}");
    assert_eq!((&from[..2], &from[2..4]), (&sent[tcp + 2..tcp + 4], &sent[tcp..tcp + 2]), "ports: {context}");
    assert_eq!((&from[14..16], &from[18..20]), (&[0; 2][..], &[0; 2][..]), "window, urgent pointer: {context}");
    assert!(from[20..].iter().all(|byte| *byte == 0), "padding: {context}");

    let word = |bytes: &[u8], at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    let control = sent[tcp + 13];
    assert_eq!(control & (RST | SYN), 0, "a reset for a reset, or for a SYN: {context}");
    let total_len = u16::from_be_bytes([sent[ip + 2], sent[ip + 3]]);
    let header_len = tcp - ip + 4 * usize::from(sent[tcp + 12] >> 4);
    let (sequence, acknowledgement, expected) = if control & ACK == 0 {
        let segment_len = u32::from(total_len) - header_len as u32 + u32::from(control & FIN != 0);
        (0, word(sent, tcp + 4).wrapping_add(segment_len), RST | ACK)
    } else {
        (word(sent, tcp + 8), 0, RST)
    };
    assert_eq!((word(from, 4), word(from, 8)), (sequence, acknowledgement), "numbers: {context}");
    assert_eq!((from[12], from[13]), (0x50, expected), "offset and control bits: {context}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{frame, frames};

    #[test]
    fn the_fixtures_resets_obey_the_rules() {
        let pairs: Vec<_> =
            frames().filter_map(|(name, answer)| Some((name.strip_suffix(", reset")?, answer))).collect();
        assert!(pairs.len() > 40);
        for (name, answer) in pairs {
            assert_resets(&frame(name), &answer);
        }
    }

    #[test]
    fn a_made_segment_is_scapys() {
        let segment = Segment {
            client: "192.0.2.100:40000".parse().unwrap(),
            server: "192.0.2.10:80".parse().unwrap(),
            sequence: 0x0102_0304,
            acknowledgement: 0xa1b2_c3d4,
            control: ACK | 0x08,
            data: b"0123456",
        };
        let mut scapys = frame("tcp data, odd");
        // Only the TTL is another.
        scapys[22] = 64;
        mend(&mut scapys);
        assert_eq!(segment.frame(), scapys);
        let untouched = frame("tcp two priority tags, data");
        let mut mended = untouched.clone();
        mend(&mut mended);
        assert_eq!(mended, untouched);
    }
}
