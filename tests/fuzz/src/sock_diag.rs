//! What the kernel says about this machine's sockets.
//!
//! Input: one datagram of NETLINK_SOCK_DIAG.

use failover_userspace::flows::sockets::message::{Answer, INET, Messages};

/// What is before an IPv4 address in IPv6's form (RFC 4291 2.5.5.2).
const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/// Any datagram: it ends, at the first message that is cut short, and every socket has the ends that its bytes say.
pub fn sock_diag(datagram: &[u8]) {
    let mut at = 0;
    let mut messages = Messages(datagram);
    while let Some(message) = messages.next() {
        let Ok((header, answer)) = message else {
            assert!(messages.next().is_none(), "something followed what was cut short");
            return;
        };
        let len = u32::from_ne_bytes(datagram[at..at + 4].try_into().expect("four bytes")) as usize;
        assert_eq!(header.len as usize, len);
        assert!(len >= 16 && at + len <= datagram.len(), "a message of {len} bytes at {at}");
        let payload = &datagram[at + 16..at + len];
        match answer {
            Answer::Socket(socket) => {
                let key = socket.key();
                assert_eq!((key.local_port.to_be_bytes(), key.remote_port.to_be_bytes()), ends(payload, 4, 6));
                if payload[0] == INET {
                    let (local, remote) = (key.local.bytes, key.remote.bytes);
                    assert_eq!((&local[12..], &remote[12..]), (&payload[8..12], &payload[24..28]));
                    assert_eq!((&local[..12], &remote[..12]), (&MAPPED[..], &MAPPED[..]));
                } else {
                    assert_eq!((key.local.bytes, key.remote.bytes), ends(payload, 8, 24));
                }
                assert_eq!(socket.is_in(u32::MAX), payload[1] < 32);
            }
            Answer::End(errno) => {
                let said = payload.get(..4).map(|bytes| i32::from_ne_bytes(bytes.try_into().expect("four bytes")));
                assert_eq!(i64::from(errno), (-i64::from(said.unwrap_or(0))).min(i64::from(i32::MAX)));
            }
            Answer::Other => {}
        }
        at += len.next_multiple_of(4);
    }
    assert!(at >= datagram.len());
}

fn ends<const N: usize>(payload: &[u8], local: usize, remote: usize) -> ([u8; N], [u8; N]) {
    let end = |at: usize| payload[at..at + N].try_into().expect("that many bytes");
    (end(local), end(remote))
}
