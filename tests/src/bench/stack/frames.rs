//! What is sent in a flood, and what its answers must be: scapy's frames but for what tells one from the other.
//!
//! Deliberately absent: anything of the program's.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use crate::fixtures::frame;
use crate::frames::ARP;
use failover_sim::segment::mend;

/// Different frames of a flood: as many addresses that ask, or connections.
pub const FRAMES: u8 = 64;
/// Ethernet's minimum without the check sequence; the same in failover-ebpf's `bench/flood.rs`.
pub const FRAME_LEN: usize = 60;

/// A kind of flood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Flood {
    /// Broadcast requests for the virtual address, from 64 addresses.
    Arp,
    /// ACK without data, of 64 connections that no socket has.
    Stale,
}

impl Flood {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Arp, Self::Stale];

    /// Its name in tables.
    pub fn title(self) -> &'static str {
        match self {
            Self::Arp => "ARP requests",
            Self::Stale => "stale segments",
        }
    }

    /// Its index among the counted answers.
    pub fn index(self) -> usize {
        self as usize
    }

    /// Of its frames.
    pub fn ether_type(self) -> u16 {
        match self {
            Self::Arp => ARP,
            Self::Stale => libc::ETH_P_IP as u16,
        }
    }

    /// What is sent, in turn.
    pub fn questions(self) -> Vec<Vec<u8>> {
        match self {
            // The sender's address.
            Self::Arp => numbered(&frame("arp request"), |request, number| request[31] += number),
            // The client's port, and what it acknowledges.
            Self::Stale => numbered(&frame("tcp ack"), |segment, number| {
                segment[35] += number;
                segment[45] = number;
                mend(segment);
            }),
        }
    }

    /// The answers to them, without padding.
    pub fn answers(self) -> Vec<Vec<u8>> {
        match self {
            Self::Arp => numbered(&frame("arp request, answer")[..42], |reply, number| reply[41] += number),
            Self::Stale => numbered(&frame("tcp ack, reset")[..54], |reset, number| {
                reset[37] += number;
                reset[41] = number;
                mend(reset);
            }),
        }
    }
}

/// As many of the frame as are sent, each changed by its number.
fn numbered(frame: &[u8], change: impl Fn(&mut [u8], u8)) -> Vec<Vec<u8>> {
    let changed = |number| {
        let mut frame = frame.to_vec();
        change(&mut frame, number);
        frame
    };
    (0..FRAMES).map(changed).collect()
}

/// Looks whether the frame is one of the answers; padding, if any, must be zeros.
///
/// # Errors
/// When it is not.
pub fn judge(answers: &[Vec<u8>], frame: &[u8]) -> Result<()> {
    let is_frame =
        |answer: &Vec<u8>| frame.strip_prefix(&answer[..]).is_some_and(|padding| padding.iter().all(|byte| *byte == 0));
    ensure!(answers.iter().any(is_frame), "not an answer: {frame:02x?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use failover_sim::segment::assert_resets;

    #[test]
    fn the_answers_are_right() {
        let pairs = |flood: Flood| flood.questions().into_iter().zip(flood.answers());
        for (segment, mut reset) in pairs(Flood::Stale) {
            reset.resize(FRAME_LEN, 0);
            assert_resets(&segment, &reset);
        }
        for (request, reply) in pairs(Flood::Arp) {
            // RFC 826: the sender's pair becomes the target's, and who is asked for answers.
            assert_eq!((&request[22..32], &request[38..42]), (&reply[32..42], &reply[28..32]));
        }
    }

    #[test]
    fn the_questions_differ_and_fit() {
        for flood in Flood::ALL {
            let questions = flood.questions();
            assert!(questions.iter().all(|question| question.len() == FRAME_LEN));
            let mut different = questions.clone();
            different.sort();
            different.dedup();
            assert_eq!(different.len(), usize::from(FRAMES));
        }
    }

    #[test]
    fn a_wrong_answer_is_found() {
        for flood in Flood::ALL {
            let answers = flood.answers();
            let right = &answers[7];
            judge(&answers, right).unwrap();
            for at in 0..right.len() {
                let mut wrong = right.clone();
                wrong[at] ^= 0x80;
                judge(&answers, &wrong).unwrap_err();
            }
            judge(&answers, &[right, &[1][..]].concat()).unwrap_err();
        }
    }
}
