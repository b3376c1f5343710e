//! NETLINK_SOCK_DIAG's messages as bytes: linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h.
//!
//! Deliberately absent: attributes. None is asked for, and those that come are skipped with the message.

use std::io;

use failover_common::abi::FlowKey;
use failover_common::address::Address;
use zerocopy::byteorder::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// AF_INET.
pub const INET: u8 = libc::AF_INET as u8;
/// AF_INET6, whose sockets may have v4-mapped addresses.
pub const INET6: u8 = libc::AF_INET6 as u8;
/// The message types of linux/sock_diag.h.
pub const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// As above: do what `ss -K` does.
pub const SOCK_DESTROY: u16 = 21;

/// `struct nlmsghdr`, host byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Header {
    /// Bytes of the message, this header included.
    pub len: u32,
    /// What the payload is.
    pub kind: u16,
    /// `NLM_F_*`.
    pub flags: u16,
    /// The request's, repeated in the answers.
    pub sequence: u32,
    /// The asker's netlink port; the kernel fills it in.
    pub port: u32,
}

/// `struct inet_diag_sockid`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SocketId {
    /// The socket's own port.
    pub local_port: U16,
    /// The other end's.
    pub remote_port: U16,
    /// The socket's own address, of AF_INET in the first four bytes.
    pub local: [u8; 16],
    /// The other end's.
    pub remote: [u8; 16],
    /// The interface that it is bound to.
    pub interface: u32,
    /// The kernel's name of this one socket, never used twice.
    pub cookie: [u32; 2],
}

/// `struct inet_diag_req_v2` with its header.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Request {
    /// The netlink header.
    pub header: Header,
    /// [`INET`] or [`INET6`].
    pub family: u8,
    /// IPPROTO_TCP.
    pub protocol: u8,
    /// Attributes asked for: none.
    pub extensions: u8,
    /// Zero.
    pub _pad: u8,
    /// Of a dump: a bit for each state, by its number.
    pub states: u32,
    /// Which socket; zeros in a dump.
    pub id: SocketId,
}

/// `struct inet_diag_msg`: one socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Socket {
    /// [`INET`] or [`INET6`].
    pub family: u8,
    /// The number of its TCP state.
    pub state: u8,
    /// Which timer runs.
    pub timer: u8,
    /// Retransmissions so far.
    pub retransmits: u8,
    /// Which socket.
    pub id: SocketId,
    /// When the timer ends, milliseconds.
    pub expires_ms: u32,
    /// Bytes received and not read.
    pub receive_queue: u32,
    /// Bytes sent and not acknowledged.
    pub send_queue: u32,
    /// Its owner.
    pub uid: u32,
    /// Its inode; 0 when no process has it.
    pub inode: u32,
}

const _: () = assert!(size_of::<Header>() == 16 && size_of::<SocketId>() == 48);
const _: () = assert!(size_of::<Request>() == 72 && size_of::<Socket>() == 72);

impl Request {
    /// A request of that type; the rest is the caller's to fill in.
    pub fn new(kind: u16, flags: u16, sequence: u32, family: u8) -> Self {
        let header = Header { len: size_of::<Self>() as u32, kind, flags, sequence, port: 0 };
        let protocol = libc::IPPROTO_TCP as u8;
        Self { header, family, protocol, extensions: 0, _pad: 0, states: 0, id: SocketId::default() }
    }
}

impl Socket {
    /// Whether its state is one of `states`, a bit for each.
    pub fn is_in(&self, states: u32) -> bool {
        1_u32.checked_shl(self.state.into()).is_some_and(|state| states & state != 0)
    }

    /// Its two ends, v4-mapped in either family.
    pub fn key(&self) -> FlowKey {
        FlowKey {
            local: self.address(self.id.local),
            remote: self.address(self.id.remote),
            local_port: self.id.local_port.get(),
            remote_port: self.id.remote_port.get(),
        }
    }

    fn address(&self, bytes: [u8; 16]) -> Address {
        match (self.family, bytes) {
            (INET, [a, b, c, d, ..]) => Address::from_ipv4([a, b, c, d]),
            _ => Address { bytes },
        }
    }
}

/// One message of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A socket of a dump.
    Socket(Socket),
    /// The dump is over, or the request is done. An errno, or 0.
    End(i32),
    /// Something else, to be skipped.
    Other,
}

/// The messages of one datagram. Ends after the first that is cut short, which is an error.
#[derive(Clone, Debug)]
pub struct Messages<'a>(pub &'a [u8]);

impl Iterator for Messages<'_> {
    type Item = io::Result<(Header, Answer)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let message = take(&mut self.0);
        if message.is_err() {
            self.0 = &[];
        }
        Some(message)
    }
}

fn take(rest: &mut &[u8]) -> io::Result<(Header, Answer)> {
    let (header, _) = Header::read_from_prefix(rest).map_err(|_| cut_short())?;
    let len = header.len as usize;
    let payload = rest.get(size_of::<Header>()..len).ok_or_else(cut_short)?;
    // Messages start at multiples of four; the last one may lack the padding.
    *rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    Ok((header, answer(&header, payload)?))
}

fn answer(header: &Header, payload: &[u8]) -> io::Result<Answer> {
    Ok(match i32::from(header.kind) {
        libc::NLMSG_ERROR => Answer::End(errno(payload).ok_or_else(cut_short)?),
        // Old kernels end a dump without a word on how it went.
        libc::NLMSG_DONE => Answer::End(errno(payload).unwrap_or(0)),
        kind if kind == i32::from(SOCK_DIAG_BY_FAMILY) => {
            Answer::Socket(Socket::read_from_prefix(payload).map_err(|_| cut_short())?.0)
        }
        _ => Answer::Other,
    })
}

/// The kernel says it negated.
fn errno(payload: &[u8]) -> Option<i32> {
    i32::read_from_prefix(payload).ok().map(|(errno, _)| errno.saturating_neg())
}

fn cut_short() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer is cut short")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message as linux/netlink.h lays it out.
    fn message(kind: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = (16 + payload.len() as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0, 0]);
        bytes.extend(7_u32.to_ne_bytes());
        bytes.extend(9_u32.to_ne_bytes());
        bytes.extend(payload);
        bytes
    }

    fn answers(bytes: &[u8]) -> Vec<Answer> {
        Messages(bytes).map(|message| message.unwrap().1).collect()
    }

    /// `struct inet_diag_msg` by hand: 192.0.2.10:80 to 198.51.100.7:40000, ESTABLISHED.
    fn socket(family: u8, local: [u8; 16], remote: [u8; 16]) -> Vec<u8> {
        let mut bytes = vec![family, 1, 0, 0, 0, 80, 0x9c, 0x40];
        bytes.extend(local);
        bytes.extend(remote);
        bytes.extend([0; 4]);
        bytes.extend([1, 0, 0, 0, 2, 0, 0, 0]);
        bytes.extend([0; 20]);
        bytes
    }

    #[test]
    fn a_socket_of_either_family_is_the_same_flow() {
        let v4 = |address: [u8; 4]| std::array::from_fn(|at| address.get(at).copied().unwrap_or(0));
        let mapped = |[a, b, c, d]: [u8; 4]| [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d];
        let expected = FlowKey {
            local: Address { bytes: mapped([192, 0, 2, 10]) },
            remote: Address { bytes: mapped([198, 51, 100, 7]) },
            local_port: 80,
            remote_port: 40000,
        };
        let sockets = [
            socket(2, v4([192, 0, 2, 10]), v4([198, 51, 100, 7])),
            socket(10, expected.local.bytes, expected.remote.bytes),
        ];
        for bytes in sockets {
            // An attribute behind it is skipped.
            let message = message(20, &[&bytes[..], &[5, 0, 8, 0, 1, 0, 0, 0]].concat());
            let [Answer::Socket(socket)] = answers(&message)[..] else { panic!("no socket") };
            assert_eq!(socket.key(), expected);
            assert!(socket.is_in(1 << 1) && !socket.is_in(!(1 << 1)));
        }
    }

    #[test]
    fn a_state_that_has_no_bit_is_in_no_set() {
        let mut bytes = socket(2, [0; 16], [0; 16]);
        bytes[1] = 200;
        let [Answer::Socket(socket)] = answers(&message(20, &bytes))[..] else { panic!("no socket") };
        assert!(!socket.is_in(u32::MAX));
    }

    #[test]
    fn errors_acknowledgments_and_ends_are_told() {
        let mut bytes = message(2, &(-95_i32).to_ne_bytes());
        bytes.extend(message(2, &0_i32.to_ne_bytes()));
        bytes.extend(message(3, &(-2_i32).to_ne_bytes()));
        bytes.extend(message(3, &[]));
        bytes.extend(message(1, &[]));
        let end = Answer::End;
        assert_eq!(answers(&bytes), [end(95), end(0), end(2), end(0), Answer::Other]);
        // A length that is no multiple of four is padded.
        let bytes = [message(1, &[0]), vec![0; 3], message(2, &i32::MIN.to_ne_bytes())].concat();
        assert_eq!(answers(&bytes), [Answer::Other, end(i32::MAX)]);
    }

    #[test]
    fn what_is_cut_short_is_an_error_and_the_end() {
        let whole = message(20, &socket(2, [0; 16], [0; 16]));
        for len in 1..whole.len() {
            let read: Vec<_> = Messages(&whole[..len]).collect();
            assert!(matches!(read[..], [Err(_)]), "{len} bytes");
        }
        for len in [0_u32, 15, 16, 19, 87, u32::MAX] {
            let mut lying = whole.clone();
            lying[..4].copy_from_slice(&len.to_ne_bytes());
            assert!(Messages(&lying).next().unwrap().is_err(), "length {len}");
        }
    }
}
