//! This machine's TCP sockets on the virtual addresses: listed, and reset, through NETLINK_SOCK_DIAG (sock_diag(7)).
//!
//! All of it is about the network namespace of the calling thread, and waits for the kernel. Deliberately absent:
//! memory. Every answer is as of now.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use failover_common::abi::FlowKey;
use failover_common::address::Address;
use rustix::io::Errno;
use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use zerocopy::IntoBytes;

use message::{Answer, INET, INET6, Messages, Request, SOCK_DESTROY, SOCK_DIAG_BY_FAMILY, Socket};

pub mod message;

/// ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING, by their numbers in the kernel's tcp_states.h.
/// Not LISTEN and TIME_WAIT, nor the states of a handshake.
const CONNECTED: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;
const SYN_RECV: u32 = 1 << 3;
/// How often something is asked again when the kernel could not answer in one piece.
const ATTEMPTS: u32 = 5;
/// Requests in one datagram. Their answers, at most one each, fit into the smallest usual receive buffer.
const BATCH: usize = 64;
/// Looks at what there is while destroying: connections that were being made come up once or twice.
const PASSES: u32 = 3;
/// The kernel puts no more into one datagram of a dump (SKB_WITH_OVERHEAD(32768)).
const BUFFER_LEN: usize = 32 * 1024;
/// It answers inside the request. No answer for this long means that there will be none.
const PATIENCE: Duration = Duration::from_secs(5);

/// What became of the connections that were to be reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destroyed {
    /// They were destroyed, as far as time allowed.
    Done {
        /// Destroyed by us; what closed meanwhile is not counted.
        count: usize,
        /// Still there at the last look; `None` when the time was over before they could be counted.
        left: Option<usize>,
    },
    /// This kernel has no CONFIG_INET_DIAG_DESTROY: nothing was done.
    Unsupported,
}

impl fmt::Display for Destroyed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done { count, left: Some(left) } => write!(f, "{count} connections reset, {left} left"),
            Self::Done { count, left: None } => write!(f, "{count} connections reset, no time to count what is left"),
            Self::Unsupported => write!(f, "connections cannot be reset: this kernel has no CONFIG_INET_DIAG_DESTROY"),
        }
    }
}

/// The TCP connections of this network namespace whose local address is one of these: established or closing, of
/// AF_INET and of AF_INET6 (where a dual-stack listener's are). Neither listeners nor TIME_WAIT nor handshakes.
///
/// # Errors
/// When the kernel has no INET_DIAG, or a system call fails.
pub fn list(addresses: &[Ipv4Addr]) -> Result<Vec<FlowKey>> {
    let sockets = dump(&wanted(addresses), CONNECTED, None).context("listing the TCP sockets")?;
    Ok(sockets.iter().map(Socket::key).collect())
}

/// Resets the TCP connections of this network namespace whose local address is one of these and that are `theirs`, as
/// `ss -K` does: the kernel sends each client an exact reset and the process gets ECONNABORTED. Half-made ones are
/// forgotten without a word; listeners live on. Whose they are is asked when they are found, and once more right before:
/// an address may have been taken again meanwhile. Returns when `budget` is used up, at most one batch of 64 late.
///
/// # Errors
/// Without CAP_NET_ADMIN, when the kernel has no INET_DIAG, or when a system call fails.
pub fn destroy(addresses: &[Ipv4Addr], is_theirs: impl Fn(&FlowKey) -> bool, budget: Duration) -> Result<Destroyed> {
    let deadline = Instant::now() + budget;
    let wanted = wanted(addresses);
    let mut netlink = Netlink::open().context("opening a netlink socket")?;
    let (mut count, mut left) = (0, None);
    for _ in 0..PASSES {
        let mut sockets = match dump(&wanted, CONNECTED | SYN_RECV, Some(deadline)) {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => break,
            sockets => sockets.context("listing the TCP sockets to reset")?,
        };
        sockets.retain(|socket| is_theirs(&socket.key()));
        left = Some(sockets.len());
        for batch in sockets.chunks(BATCH) {
            if Instant::now() >= deadline {
                return Ok(Destroyed::Done { count, left });
            }
            let batch: Vec<_> = batch.iter().filter(|socket| is_theirs(&socket.key())).collect();
            if batch.is_empty() {
                continue;
            }
            let failed = persist(|| netlink.destroy(&batch)).context("resetting TCP sockets")?;
            if failed.contains(&libc::EOPNOTSUPP) {
                return Ok(Destroyed::Unsupported);
            }
            if failed.contains(&libc::EPERM) {
                bail!("resetting TCP sockets: not permitted; it needs CAP_NET_ADMIN");
            }
            count += batch.len() - failed.len();
            let not_gone = failed.iter().filter(|errno| **errno != libc::ENOENT).count();
            left = left.map(|left| left + not_gone - batch.len());
        }
        if sockets.is_empty() {
            break;
        }
    }
    Ok(Destroyed::Done { count, left })
}

fn wanted(addresses: &[Ipv4Addr]) -> HashSet<Address> {
    addresses.iter().copied().map(Address::from).collect()
}

/// All sockets in those states on those addresses. The kernel walks its whole table for each family, whatever it is
/// asked for; choosing here costs little more.
fn dump(wanted: &HashSet<Address>, states: u32, deadline: Option<Instant>) -> io::Result<Vec<Socket>> {
    let mut sockets = Vec::new();
    for family in [INET, INET6] {
        // A socket for each attempt: what is left of a broken dump goes with it.
        let found = persist(|| Netlink::open()?.dump(wanted, family, states, deadline))?;
        sockets.extend(found);
    }
    Ok(sockets)
}

/// Repeats what was disturbed: by a change of the table (NLM_F_DUMP_INTR, here EINTR), by too many answers at once, or
/// by a signal.
fn persist<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 1..ATTEMPTS {
        match attempt() {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::ENOBUFS)) => {}
            result => return result,
        }
    }
    attempt()
}

/// A socket to the kernel's sock_diag.
struct Netlink {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(SOCK_DIAG))?;
        // Connected to the kernel, it hears nobody else.
        rustix::net::connect(&socket, &SocketAddrNetlink::new(0, 0))?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        Ok(Self { socket, sequence: 0, buffer: vec![0; BUFFER_LEN] })
    }

    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// The next datagram.
    fn receive(&mut self) -> io::Result<Messages<'_>> {
        // With this flag the length is the datagram's, also when the buffer is shorter.
        let (_, len) = rustix::net::recv(&self.socket, &mut self.buffer[..], RecvFlags::TRUNC)?;
        let datagram = self.buffer.get(..len).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("the kernel answered with {len} bytes at once"))
        })?;
        Ok(Messages(datagram))
    }

    fn dump(
        mut self,
        wanted: &HashSet<Address>,
        family: u8,
        states: u32,
        deadline: Option<Instant>,
    ) -> io::Result<Vec<Socket>> {
        let sequence = self.next_sequence();
        let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
        let request = Request { states, ..Request::new(SOCK_DIAG_BY_FAMILY, flags, sequence, family) };
        rustix::net::send(&self.socket, request.as_bytes(), SendFlags::empty())?;
        let mut sockets = Vec::new();
        loop {
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            for message in self.receive()? {
                let (header, answer) = message?;
                if header.flags & libc::NLM_F_DUMP_INTR as u16 != 0 {
                    return Err(Errno::INTR.into());
                }
                match answer {
                    Answer::Socket(socket) if socket.is_in(states) && wanted.contains(&socket.key().local) => {
                        sockets.push(socket);
                    }
                    Answer::Socket(_) | Answer::Other => {}
                    Answer::End(0) => return Ok(sockets),
                    Answer::End(libc::ENOENT) => {
                        let missing = "this kernel has no CONFIG_INET_DIAG (modules inet_diag and tcp_diag)";
                        return Err(io::Error::new(io::ErrorKind::Unsupported, missing));
                    }
                    Answer::End(errno) => return Err(io::Error::from_raw_os_error(errno)),
                }
            }
        }
    }

    /// Destroys these and returns the errno of each that could not be.
    ///
    /// The request carries the socket's cookie. Without it, the kernel would look for the ends alone, and find the
    /// listener where the connection has closed meanwhile.
    fn destroy(&mut self, batch: &[&Socket]) -> io::Result<Vec<i32>> {
        let first = self.sequence.wrapping_add(1);
        let mut requests = Vec::with_capacity(batch.len() * size_of::<Request>());
        for (index, socket) in batch.iter().enumerate() {
            // The kernel works through the datagram in order. Who fails is answered anyway, so that one
            // acknowledgment is enough: the last one's.
            let ack = if index + 1 == batch.len() { libc::NLM_F_ACK } else { 0 };
            let flags = (libc::NLM_F_REQUEST | ack) as u16;
            let request = Request::new(SOCK_DESTROY, flags, self.next_sequence(), socket.family);
            requests.extend_from_slice(Request { id: socket.id, ..request }.as_bytes());
        }
        let last = self.sequence;
        rustix::net::send(&self.socket, &requests, SendFlags::empty())?;
        let mut failed = Vec::new();
        loop {
            for message in self.receive()? {
                let (header, Answer::End(errno)) = message? else { continue };
                // Those of an earlier attempt are over.
                if header.sequence.wrapping_sub(first) >= batch.len() as u32 {
                    continue;
                }
                if errno != 0 {
                    failed.push(errno);
                }
                if header.sequence == last {
                    return Ok(failed);
                }
            }
        }
    }
}
