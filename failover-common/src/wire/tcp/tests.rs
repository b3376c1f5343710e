use std::vec::Vec;

use zerocopy::IntoBytes;

use super::*;

const ENDS: Ends =
    Ends { source: [192, 0, 2, 10], destination: [192, 0, 2, 100], source_port: 80, destination_port: 40_000 };

/// RFC 1071 by its definition, one word after the other.
fn ones_complement(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// What a receiver does: both sums must come to all ones.
fn assert_sums(packet: &[u8]) {
    assert_eq!(ones_complement(&packet[..20]), 0xffff, "IPv4");
    let mut with_pseudo: Vec<u8> = packet[12..20].to_vec();
    with_pseudo.extend([0, 6]);
    with_pseudo.extend((packet.len() as u16 - 20).to_be_bytes());
    with_pseudo.extend(&packet[20..]);
    assert_eq!(ones_complement(&with_pseudo), 0xffff, "TCP");
}

fn segment(flags: u8, sequence: u32, acknowledgment: u32) -> TcpHeader {
    TcpHeader { flags, ..ENDS.header(sequence, acknowledgment, 0, 5) }
}

#[test]
fn with_an_acknowledgment_the_reset_takes_its_number() {
    for flags in [ACK, ACK | FIN, ACK | SYN, ACK | 0x08] {
        let reset = Reset::answering(&segment(flags, 7, 0xdead_beef), 20);
        assert_eq!(reset, Reset { sequence: 0xdead_beef, acknowledgment: None }, "flags {flags:02x}");
    }
}

#[test]
fn without_one_it_acknowledges_all_that_came() {
    // 20 bytes of header: 100 bytes are 80 of payload.
    let acknowledgment = |flags, sequence, tcp_len| Reset::answering(&segment(flags, sequence, 9), tcp_len);
    let expected = |acknowledgment| Reset { sequence: 0, acknowledgment: Some(acknowledgment) };
    assert_eq!(acknowledgment(0, 1_000, 20), expected(1_000));
    assert_eq!(acknowledgment(0, 1_000, 100), expected(1_080));
    assert_eq!(acknowledgment(FIN, 1_000, 100), expected(1_081));
    assert_eq!(acknowledgment(SYN, 1_000, 20), expected(1_001));
    assert_eq!(acknowledgment(SYN | FIN, 1_000, 21), expected(1_003));
    assert_eq!(acknowledgment(FIN, 0xffff_ffff, 20), expected(0), "modulo 2^32");
}

#[test]
fn a_reset_byte_for_byte() {
    // By hand from RFC 791 3.1 and RFC 9293 3.1: TOS 0, length 40, id 0, DF, TTL 64; window 0.
    let mut expected = [
        0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 10, 192, 0, 2, 100, // IPv4
        0, 80, 0x9c, 0x40, 0x01, 0x02, 0x03, 0x04, 0, 0, 0, 0, 0x50, 0x04, 0, 0, 0, 0, 0, 0, // TCP
    ];
    let reset = Reset { sequence: 0x0102_0304, acknowledgment: None };
    let packet = reset.packet(&ENDS);
    assert_sums(&packet);
    expected[10..12].copy_from_slice(&packet[10..12]);
    expected[36..38].copy_from_slice(&packet[36..38]);
    assert_eq!(packet, expected);
    let with_acknowledgment = Reset { sequence: 0, acknowledgment: Some(0x0a0b_0c0d) }.packet(&ENDS);
    assert_sums(&with_acknowledgment);
    assert_eq!(with_acknowledgment[24..34], [0, 0, 0, 0, 0x0a, 0x0b, 0x0c, 0x0d, 0x50, 0x14]);
}

#[test]
fn a_tickle_byte_for_byte() {
    let packet = tickle(&ENDS, Some(0x0102_0304));
    assert_sums(&packet);
    assert_eq!(packet[..10], [0x45, 0, 0, 53, 0, 0, 0x40, 0, 64, 6]);
    assert_eq!(packet[20..36], [0, 80, 0x9c, 0x40, 0x01, 0x02, 0x03, 0x02, 0, 0, 0, 0, 0x80, 0x10, 0, 0]);
    assert_eq!(packet[40..], [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 0], "RFC 7323 appendix A, and a byte");
    let unknown = tickle(&ENDS, None);
    assert_sums(&unknown);
    assert_eq!(unknown[24..32], [0; 8]);
    assert_eq!(tickle(&ENDS, Some(0))[24..28], [0xff, 0xff, 0xff, 0xfe], "modulo 2^32");
}

#[test]
fn option_chains_that_keep_inside() {
    let holds = |bytes: &[u8]| options_hold(bytes, 0, bytes.len());
    assert!(holds(&[]));
    assert!(holds(&[0, 0, 0, 0]));
    assert!(holds(&[1; 40]));
    assert!(holds(&[2, 4, 5, 0xb4]));
    assert!(holds(&[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0]));
    assert!(holds(&[0, 0xff, 0xff, 0xff]), "nothing counts behind the end");
    assert!(holds(&[254, 2, 1, 1]), "unknown kinds are skipped by their length (RFC 9293 3.2)");
    assert!(holds(&[30, 40].iter().copied().chain([0; 38]).collect::<Vec<u8>>()));
}

#[test]
fn option_chains_that_lie() {
    let holds = |bytes: &[u8]| options_hold(bytes, 0, bytes.len());
    assert!(!holds(&[8, 0, 1, 1]), "length 0");
    assert!(!holds(&[8, 1, 1, 1]), "length 1");
    assert!(!holds(&[8, 5, 1, 1]), "past the end");
    assert!(!holds(&[1, 1, 1, 8]), "no length");
    assert!(!holds(&[8, 255, 0, 0]));
    assert!(!holds(&[2, 4, 5, 0xb4, 8, 10, 0, 0]), "the second");
    // A length byte that lies behind the options, in the payload, does not count.
    assert!(!options_hold(&[1, 1, 1, 8, 2, 0][..], 0, 4));
}

#[test]
fn header_lengths() {
    assert_eq!(ENDS.header(0, 0, 0, 5).header_len(), 20);
    assert_eq!(ENDS.header(0, 0, 0, 15).header_len(), 60);
    assert_eq!(TcpHeader { data_offset: 0x4f, ..ENDS.header(0, 0, 0, 5) }.header_len(), 16);
    assert_eq!(ENDS.header(1, 2, SYN, 5).as_bytes().len(), 20);
}
