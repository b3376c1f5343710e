//! A frame on the host, with the same bounds as the loaded program's packet pointers have.
//!
//! Deliberately absent: room to grow. The frame path only ever cuts.

use failover_common::wire::checksum::Sum;
use failover_common::wire::{Frame, Header};
use failover_ebpf::Cut;

/// Of `failover-ebpf/src/kernel.rs`: no header that is read or written starts later.
const OFFSET_MAX: usize = 0x7ff;
/// Of the same: no chunk that is summed starts later.
const SUM_OFFSET_MAX: usize = 0x7fff;
/// Of the same: sizes of the chunks, and how many there are at most.
const CHUNKS: [(usize, usize); 4] = [(512, 64), (32, 16), (4, 8), (1, 3)];
/// The kernel cuts no frame below its Ethernet header (`bpf_xdp_adjust_tail`).
const LEN_MIN: usize = 14;

/// One frame, from its Ethernet header to its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFrame(pub Vec<u8>);

impl Frame for HostFrame {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn read<T: Header>(&self, offset: usize) -> Option<T> {
        if offset > OFFSET_MAX { None } else { self.0.as_slice().read(offset) }
    }

    fn write<T: Header>(&mut self, offset: usize, header: &T) -> Option<()> {
        if offset > OFFSET_MAX { None } else { self.0.as_mut_slice().write(offset, header) }
    }

    fn sum(&self, offset: usize, len: usize) -> Option<Sum> {
        let (mut at, mut left) = (offset, len);
        for (size, most) in CHUNKS {
            let count = (left / size).min(most);
            if count > 0 && at + (count - 1) * size > SUM_OFFSET_MAX {
                return None;
            }
            at += count * size;
            left -= count * size;
        }
        // Nothing is read where nothing is summed, not even the offset.
        if len == 0 { Some(Sum::default()) } else { self.0.as_slice().sum(offset, len) }
    }
}

impl Cut for HostFrame {
    fn cut(&mut self, len: usize) -> Option<()> {
        if len > self.0.len() || (len < LEN_MIN && len != self.0.len()) {
            return None;
        }
        self.0.truncate(len);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_end_where_the_program_stops_looking() {
        let mut frame = HostFrame(vec![7; 4_000]);
        assert_eq!(frame.read::<[u8; 2]>(0x7ff), Some([7, 7]));
        assert_eq!(frame.read::<[u8; 2]>(0x800), None);
        assert_eq!((frame.write(0x7ff, &[1_u8, 2]), frame.write(0x800, &[3_u8, 4])), (Some(()), None));
        assert_eq!(frame.0[0x7ff..0x803], [1, 2, 7, 7]);
        assert_eq!(HostFrame(vec![7; 5]).read::<[u8; 2]>(4), None);
    }

    #[test]
    fn a_sum_ends_at_the_last_chunk_that_the_program_starts() {
        let frame = HostFrame(vec![0; 66_000]);
        // From 34, 64 chunks of 512 bytes end at 32,802, where nothing may start.
        assert!(frame.sum(34, 32_768).is_some());
        assert!(frame.sum(34, 32_769).is_none());
        // From 0x7fff one chunk, of whatever size it is.
        assert!(frame.sum(0x7fff, 512).is_some());
        assert!(frame.sum(0x7fff, 513).is_none());
        assert!(frame.sum(0x8000, 1).is_none());
        assert!(frame.sum(70_000, 0).is_some());
        assert!(HostFrame(vec![0; 40]).sum(34, 7).is_none());
    }

    #[test]
    fn a_frame_is_cut_and_never_grows() {
        let mut frame = HostFrame(vec![7; 60]);
        assert_eq!((frame.cut(61), frame.cut(13), frame.cut(14)), (None, None, Some(())));
        assert_eq!(frame.0, [7; 14]);
    }
}
