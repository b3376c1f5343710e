//! What a new Active tells the clients of the node it took over from: who gets which segment when, and the sending.
//!
//! A client of a dead node may be silent for hours, and one that speaks may be deep in its retransmission back-off.
//! Either answers a tickle at once with its own numbers, and the XDP program answers that with an exact reset.
//!
//! Deliberately absent: a clock. Time comes in as an argument.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};

use failover_common::abi::FlowKey;
use failover_common::wire::tcp::{Ends, Reset, tickle};
use rustix::net::sockopt::set_socket_send_buffer_size_force;
use socket2::{Domain, Protocol, Socket, Type};

use super::memory;

/// Each client is asked so often: any of the two ways may lose one.
const ROUNDS: usize = 3;
/// Between a flow's rounds. Stacks limit their answers; Linux gives one in 500 ms (tcp_invalid_ratelimit) to what
/// carries no data.
const GAP_NS: u64 = 600_000_000;
/// Packets go out in slices of this length,
const SLICE_NS: u64 = 1_000_000;
/// so many in each: 100,000 a second, some 80 Mbit/s on the wire.
const SLICE_PACKETS: u64 = 100;
/// Slices that a late caller may make up for.
const CATCH_UP_SLICES: u64 = 10;
/// Packets for neighbours that do not answer ARP wait in the kernel for 3 s, in this buffer, and the rest must not
/// wait for them.
const SEND_BUFFER_LEN: usize = 8 << 20;

/// A segment for a client, from the virtual address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// A reset with this number, the server's SND.NXT. If it has moved on since, the client ignores it.
    Reset(u32),
    /// A tickle, with the server's SND.NXT when the connection was established if that is known.
    Tickle(Option<u32>),
}

/// What became of a segment.
#[derive(Debug)]
pub enum Sent {
    /// The kernel has it.
    Out,
    /// No room; a little later there may be.
    Later,
    /// It can't be sent to this client.
    Failed(io::Error),
}

/// Sends from one virtual address, whether or not this machine has it.
#[derive(Debug)]
pub struct Sender(Socket);

impl Sender {
    /// Opens it in the calling thread's network namespace.
    ///
    /// # Errors
    /// Without CAP_NET_RAW, and those of the system calls.
    pub fn open(address: Ipv4Addr) -> io::Result<Self> {
        let context =
            |what: &'static str| move |error: io::Error| io::Error::new(error.kind(), format!("{what}: {error}"));
        // IPPROTO_RAW: the IP header comes from us, and nothing is received.
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))
            .map_err(context("opening a raw socket (needs CAP_NET_RAW)"))?;
        // Bound, so that routes and rules that choose by source see the address that real answers have.
        socket.set_freebind_v4(true)?;
        socket.bind(&SocketAddrV4::new(address, 0).into()).map_err(context("binding the raw socket"))?;
        socket.set_nonblocking(true)?;
        let _ = set_socket_send_buffer_size_force(&socket, SEND_BUFFER_LEN);
        Ok(Self(socket))
    }

    /// Hands one segment of a flow to the kernel, whose routes decide on the way, as for any traffic.
    pub fn send(&self, key: &FlowKey, segment: Segment) -> Sent {
        let (IpAddr::V4(local), IpAddr::V4(remote)) = (key.local.to_ip(), key.remote.to_ip()) else {
            return Sent::Failed(io::Error::new(io::ErrorKind::Unsupported, "not an IPv4 connection"));
        };
        let ends = Ends {
            source: local.octets(),
            destination: remote.octets(),
            source_port: key.local_port,
            destination_port: key.remote_port,
        };
        // The port means nothing to a raw socket.
        let to = SocketAddrV4::new(remote, 0).into();
        let sent = match segment {
            Segment::Reset(sequence) => self.0.send_to(&Reset { sequence, acknowledgment: None }.packet(&ends), &to),
            Segment::Tickle(send_next) => self.0.send_to(&tickle(&ends, send_next), &to),
        };
        match sent {
            Ok(_) => Sent::Out,
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOBUFS | libc::EINTR)) => {
                Sent::Later
            }
            Err(error) => Sent::Failed(error),
        }
    }
}

/// The senders of all addresses, each opened when it is first needed.
#[derive(Debug, Default)]
pub struct Senders {
    /// `None`: it could not be opened, which was told.
    senders: HashMap<Ipv4Addr, Option<Sender>>,
}

impl Senders {
    /// Sends one segment of a flow from its own address.
    pub fn send(&mut self, key: &FlowKey, segment: Segment) -> Sent {
        let Some(local) = memory::local(key) else {
            return Sent::Failed(rustix::io::Errno::AFNOSUPPORT.into());
        };
        let sender = self.senders.entry(local).or_insert_with(|| {
            let sender = Sender::open(local);
            if let Err(error) = &sender {
                tracing::warn!(address = %local, %error, "no raw socket: the address's silent clients are not told");
            }
            sender.ok()
        });
        match sender {
            Some(sender) => sender.send(key, segment),
            None => Sent::Failed(rustix::io::Errno::BADF.into()),
        }
    }

    /// Closes them: what could not be opened is tried again.
    pub fn clear(&mut self) {
        self.senders.clear();
    }
}

/// Who is told next, and when. For any number of takeovers at once, which share one rate.
#[derive(Debug, Default)]
pub struct Rounds {
    /// For each round those who wait for it, in the order in which they may have it.
    queues: [VecDeque<Waiting>; ROUNDS],
    /// When the next slice starts.
    slice_ns: u64,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    key: FlowKey,
    send_next: Option<u32>,
    /// The number of the reset that goes before the first tickle.
    reset: Option<u32>,
    /// Not before.
    due_ns: u64,
}

impl Rounds {
    /// Adds flows, each with the server's SND.NXT when it was established if that is known. One that is in already gets
    /// both its rounds: [`Self::retain`] first where that can be.
    pub fn add(&mut self, now_ns: u64, flows: impl IntoIterator<Item = (FlowKey, Option<u32>)>) {
        let waiting = |(key, send_next)| Waiting { key, send_next, reset: send_next, due_ns: now_ns };
        self.queues[0].extend(flows.into_iter().map(waiting));
    }

    /// Forgets the flows that are not to be `kept`: those of an address that this node no longer holds.
    pub fn retain(&mut self, mut kept: impl FnMut(&FlowKey) -> bool) {
        for queue in &mut self.queues {
            queue.retain(|waiting| kept(&waiting.key));
        }
    }

    /// When [`Self::run`] has something to do; `None`: never, all is done.
    pub fn next_ns(&self) -> Option<u64> {
        let due_ns = self.queues.iter().filter_map(|queue| queue.front()).map(|waiting| waiting.due_ns).min()?;
        Some(due_ns.max(self.slice_ns))
    }

    /// Sends what is due: at most 100 packets for each millisecond since the last call, and at most 1,000.
    ///
    /// A flow that is not `still_wanted` when its turn comes is forgotten. `send` gets one segment at a time; after
    /// [`Sent::Later`] the same one comes again in the next slice, after the others it counts as done.
    pub fn run(
        &mut self,
        now_ns: u64,
        mut still_wanted: impl FnMut(&FlowKey) -> bool,
        mut send: impl FnMut(&FlowKey, Segment) -> Sent,
    ) {
        let mut budget = self.open_slices(now_ns);
        while let Some((round, mut waiting)) = self.take_due(now_ns, budget) {
            if !still_wanted(&waiting.key) {
                continue;
            }
            budget -= waiting.packets();
            if !waiting.tell(&mut send) {
                self.queues[round].push_front(waiting);
                return;
            }
            if let Some(next) = self.queues.get_mut(round + 1) {
                next.push_back(Waiting { due_ns: now_ns.saturating_add(GAP_NS), ..waiting });
            }
        }
    }

    /// The first that is due, if its packets keep within the budget. Who was never told goes before who was.
    fn take_due(&mut self, now_ns: u64, budget: u64) -> Option<(usize, Waiting)> {
        let is_due = |queue: &VecDeque<Waiting>| queue.front().is_some_and(|waiting| waiting.due_ns <= now_ns);
        let round = self.queues.iter().position(is_due)?;
        let queue = &mut self.queues[round];
        queue.pop_front_if(|waiting| waiting.packets() <= budget).map(|waiting| (round, waiting))
    }

    fn open_slices(&mut self, now_ns: u64) -> u64 {
        let Some(start_ns) = self.next_ns().filter(|start_ns| *start_ns <= now_ns) else { return 0 };
        let slices = (now_ns - start_ns) / SLICE_NS + 1;
        self.slice_ns = start_ns.saturating_add(slices * SLICE_NS);
        slices.min(CATCH_UP_SLICES) * SLICE_PACKETS
    }
}

impl Waiting {
    /// How many it gets next.
    fn packets(&self) -> u64 {
        1 + u64::from(self.reset.is_some())
    }

    /// Sends them; `false` when there was no room for the next one.
    fn tell(&mut self, send: &mut impl FnMut(&FlowKey, Segment) -> Sent) -> bool {
        if let Some(sequence) = self.reset {
            if matches!(send(&self.key, Segment::Reset(sequence)), Sent::Later) {
                return false;
            }
            self.reset = None;
        }
        !matches!(send(&self.key, Segment::Tickle(self.send_next)), Sent::Later)
    }
}

#[cfg(test)]
mod tests;
