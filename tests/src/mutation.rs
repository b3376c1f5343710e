//! Frames that nobody thought of: random bytes, and known frames with a few things changed.
//!
//! Deliberately absent: what must become of them.

use std::ops::Range;

use failover_sim::random::{Choices, Random};
use failover_sim::segment;

/// The kernel runs no frame that is shorter than an Ethernet header.
pub const LEN_MIN: usize = 14;
/// Longer than any header that is read.
const LEN_MAX: usize = 2_000;

/// A frame: random bytes behind a random or a known EtherType, or a known frame with a few things changed.
pub fn make(random: &mut Random, known: &[Vec<u8>]) -> Vec<u8> {
    if random.chance(8) {
        let more = if random.chance(10) { LEN_MAX - LEN_MIN } else { 100 };
        let len = LEN_MIN + random.below(more);
        let mut made = random.bytes(len);
        if random.chance(2) {
            made[12..14].copy_from_slice(&random.pick(&[[0x08, 0x00], [0x08, 0x06], [0x81, 0x00], [0x88, 0xa8]]));
        }
        return made;
    }
    let mut made = known[random.below(known.len())].clone();
    for _ in 0..random.below(4) {
        change(&mut made, random, known);
    }
    // Without this, hardly any change of an advert or a segment would get past the checksums.
    if random.chance(2) {
        mend(&mut made);
    }
    made
}

fn change(made: &mut Vec<u8>, random: &mut Random, known: &[Vec<u8>]) {
    let at = random.below(made.len());
    match random.below(8) {
        0 => made[at] = random.next() as u8,
        1 => made[at] ^= 1 << random.below(8),
        2 => made[at] = random.pick(&[0, 1, 0x7f, 0x80, 0xff]),
        // Where the headers are.
        3 => {
            let at = 12 + random.below(50);
            if let Some(byte) = made.get_mut(at) {
                *byte = random.next() as u8;
            }
        }
        4 => made.truncate(at.max(LEN_MIN)),
        5 => {
            let len = random.below(80);
            made.extend(random.bytes(len));
        }
        // Tags: one or two, of VLANs or of priority alone.
        6 => {
            let tag = random.pick(&[[0x81, 0x00, 0xa0, 0x00], [0x81, 0x00, 0x00, 0x0a], [0x88, 0xa8, 0x00, 0x00]]);
            made.splice(12..12, tag);
        }
        // The link layer of one with the rest of another.
        _ => {
            let other = &known[random.below(known.len())];
            made.truncate(LEN_MIN);
            made.extend(&other[LEN_MIN..]);
        }
    }
}

/// Puts right checksums into what looks like IPv4, and like TCP or a VRRP message in it.
fn mend(made: &mut [u8]) {
    if made.len() < 34 {
        return;
    }
    let (ip, message) = segment::layers(made);
    if message < ip + 20 || made.len() < message + 8 {
        return;
    }
    match made[ip + 9] {
        6 => segment::mend(made),
        112 => {
            let end = (message + 8 + usize::from(made[message + 3]) * 4).min(made.len());
            put_checksum(made, ip + 10, ip..message);
            put_checksum(made, message + 6, message..end);
        }
        _ => put_checksum(made, ip + 10, ip..message),
    }
}

/// By RFC 1071's definition.
fn put_checksum(made: &mut [u8], at: usize, covered: Range<usize>) {
    made[at..at + 2].fill(0);
    let checksum = !segment::sum(&made[covered]);
    made[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
}
