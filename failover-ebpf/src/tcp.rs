//! TCP to a virtual address under a live lease: segments of connections that the node before this one took with it
//! are answered with a reset, everything else goes on.
//!
//! The order is: what anybody here may know of passes, then what may not be answered passes, and what is left is stale.
//! Deliberately absent: the clients that say nothing. The controller makes them speak.

use failover_common::abi::{Counter, FlowEvent, FlowEventKind, FlowKey, StaleAction, StalePolicy};
use failover_common::address::Address;
use failover_common::stale::{is_memory_whole, is_split, is_taken_over};
use failover_common::wire::ethernet::{EthernetHeader, Link};
use failover_common::wire::ipv4::{Ipv4Header, is_unicast};
use failover_common::wire::tcp::{self, ACK, Ends, FIN, RESET_LEN, RST, Reset, SYN, TcpHeader};

use crate::{Cut, Kernel, OwnVip, Socket, Verdict};

/// Ethernet's minimum without the check sequence: nothing is cut below it.
const FRAME_LEN_MIN: usize = 60;

/// A segment whose lengths agree.
struct Segment {
    ip: Ipv4Header,
    tcp: TcpHeader,
    /// Where the TCP header is.
    at: usize,
    /// Bytes of header and payload, from the IP length.
    len: usize,
    key: FlowKey,
}

#[inline(always)]
pub(crate) fn handle<F: Cut + ?Sized, K: Kernel>(
    frame: &mut F,
    link: &Link,
    ip: &Ipv4Header,
    own: &OwnVip<K>,
    kernel: &K,
) -> Verdict {
    let policy = kernel.stale(own.router);
    if policy.action == StaleAction::Pass {
        return Verdict::Pass;
    }
    let segment = match Segment::read(frame, link, ip) {
        Ok(segment) => segment,
        Err(counter) => return pass(kernel, counter),
    };
    if !concerns(policy, segment.key.local_port) {
        return Verdict::Pass;
    }
    if segment.tcp.has(RST) {
        return over(&segment, link, own, kernel);
    }
    if segment.tcp.has(SYN) {
        return begin(&segment, link, policy, own, kernel);
    }
    let counter = match find(&segment, own, kernel) {
        Ok(known_by) => return pass(kernel, known_by),
        Err(counter) => counter,
    };
    if let Err(refusal) = check(frame, link, &segment, own, kernel) {
        return pass(kernel, refusal);
    }
    let interval_cs = kernel.settings(own.router).advert_interval_cs;
    if is_split(&kernel.takeover(own.router), kernel.heard(own.router), interval_cs, own.now_ns) {
        // Not passed: this node's kernel would reset what may live on the other.
        kernel.count(Counter::TcpSplit);
        return Verdict::Drop;
    }
    end(frame, link, &segment, counter, policy, own, kernel)
}

impl Segment {
    #[inline(always)]
    fn read<F: Cut + ?Sized>(frame: &F, link: &Link, ip: &Ipv4Header) -> Result<Self, Counter> {
        if ip.is_fragment() {
            return Err(Counter::TcpFragment);
        }
        let len = ip.payload_len(frame, link.payload).ok_or(Counter::TcpBadLength)?;
        let at = link.payload + ip.header_len();
        let tcp: TcpHeader = frame.read(at).ok_or(Counter::TcpBadLength)?;
        if tcp.header_len() < size_of::<TcpHeader>() || tcp.header_len() > len {
            return Err(Counter::TcpBadLength);
        }
        let key = FlowKey {
            local: Address::from_ipv4(ip.destination),
            remote: Address::from_ipv4(ip.source),
            local_port: tcp.destination_port.get(),
            remote_port: tcp.source_port.get(),
        };
        Ok(Self { ip: *ip, tcp, at, len, key })
    }
}

/// Whether the port is one that resets are about.
#[inline(always)]
fn concerns(policy: &StalePolicy, port: u16) -> bool {
    // Port 0 is nobody's, and fills the list up.
    policy.ports[0] == 0 || (port != 0 && policy.ports.contains(&port))
}

/// RFC 9293 3.10.7.1: never answered. The client knows that the flow is over.
#[inline(always)]
fn over<K: Kernel>(segment: &Segment, link: &Link, own: &OwnVip<K>, kernel: &K) -> Verdict {
    if has_good_source(segment, link, own, kernel) {
        kernel.forget_peer_flow(&segment.key);
        kernel.note_use(&segment.key, own.now_ns, true);
    }
    pass(kernel, Counter::TcpReset)
}

/// The beginning of a flow, towards this node or (SYN and ACK) from it: remembered, because its end may be where no
/// lookup of sockets reaches.
#[inline(always)]
fn begin<K: Kernel>(segment: &Segment, link: &Link, policy: &StalePolicy, own: &OwnVip<K>, kernel: &K) -> Verdict {
    if own.now_ns < policy.leaving_until_ns && !segment.tcp.has(ACK) {
        kernel.count(Counter::TcpLeaving);
        tell_refused(segment, link, own, kernel);
        return Verdict::Drop;
    }
    if has_good_source(segment, link, own, kernel) {
        kernel.remember_handshake(&segment.key, own.now_ns);
        kernel.forget_peer_flow(&segment.key);
    }
    pass(kernel, Counter::TcpSyn)
}

/// Tells of a SYN that is being dropped under no lease, if this node has just let the address go.
#[inline(always)]
pub(crate) fn refuse<F: Cut + ?Sized, K: Kernel>(frame: &F, link: &Link, ip: &Ipv4Header, own: &OwnVip<K>, kernel: &K) {
    let policy = kernel.stale(own.router);
    if own.now_ns >= policy.leaving_until_ns {
        return;
    }
    if let Ok(segment) = Segment::read(frame, link, ip)
        && segment.tcp.has(SYN)
        && !segment.tcp.has(ACK)
        && concerns(policy, segment.key.local_port)
    {
        tell_refused(&segment, link, own, kernel);
    }
}

/// Its sender will get a segment: only one that could have sent it.
#[inline(always)]
fn tell_refused<K: Kernel>(segment: &Segment, link: &Link, own: &OwnVip<K>, kernel: &K) {
    if has_good_source(segment, link, own, kernel) && kernel.take_reset_token(own.now_ns) {
        kernel.emit_flow(&FlowEvent { key: segment.key, kind: FlowEventKind::Refused, send_next: 0 });
    }
}

/// Why the flow is known, or what a reset of it counts as.
#[inline(always)]
fn find<K: Kernel>(segment: &Segment, own: &OwnVip<K>, kernel: &K) -> Result<Counter, Counter> {
    match kernel.find_socket(&segment.ip, &segment.tcp) {
        Socket::Flow => return Ok(Counter::TcpSocket),
        Socket::Cookie => return Ok(Counter::TcpCookie),
        Socket::None => {}
    }
    let takeover = kernel.takeover(own.router);
    let peers_ns = kernel.peer_flow_ns(&segment.key).filter(|since_ns| is_taken_over(&takeover, *since_ns));
    // No socket is no proof: other namespaces, DNAT, IPVS, TPROXY, forwarded traffic. But a handshake that is older than
    // what a peer told was another flow's with the same ends.
    if let Some(at_ns) = kernel.handshake_ns(&segment.key)
        && peers_ns.is_none_or(|since_ns| at_ns > since_ns)
    {
        kernel.note_use(&segment.key, own.now_ns, segment.tcp.has(FIN));
        return Ok(Counter::TcpHandshakeSeen);
    }
    if peers_ns.is_some() {
        return Err(Counter::ResetPeerFlow);
    }
    if is_memory_whole(&takeover, kernel.handshakes_missed()) {
        return Err(Counter::ResetUnknownFlow);
    }
    Ok(Counter::TcpUnproven)
}

/// Whether the segment may be answered at all.
///
/// # Errors
/// The counter of what is wrong with it.
#[inline(always)]
fn check<F: Cut + ?Sized, K: Kernel>(
    frame: &F,
    link: &Link,
    segment: &Segment,
    own: &OwnVip<K>,
    kernel: &K,
) -> Result<(), Counter> {
    let Segment { ip, tcp, at, len, .. } = segment;
    if !has_good_source(segment, link, own, kernel) {
        return Err(Counter::TcpBadSource);
    }
    if !ip.checksum_holds(frame, link.payload) || !tcp::checksum_holds(frame, ip, *at, tcp, *len) {
        return Err(Counter::TcpBadChecksum);
    }
    let holds = |at: usize, header_len: usize| frame.options_hold(at + 20, header_len - 20);
    if !holds(link.payload, ip.header_len()) || !holds(*at, tcp.header_len()) {
        return Err(Counter::TcpBadOptions);
    }
    // A socket buffer notes where its TCP header is: it is not cut before that (bpf_skb_change_tail), and its checksum is
    // finished there. A reset has no IP options, so a segment with some is the kernel's to answer.
    if kernel.is_socket_buffer() && ip.header_len() > size_of::<Ipv4Header>() {
        return Err(Counter::TcpGeneric);
    }
    Ok(())
}

/// Whether it came from another station to this one, and from an address that one host can have and that is not here.
#[inline(always)]
fn has_good_source<K: Kernel>(segment: &Segment, link: &Link, own: &OwnVip<K>, kernel: &K) -> bool {
    let to_this_node = link.header.destination == own.mac;
    let from_another = !link.header.source.is_group() && link.header.source != own.mac;
    to_this_node
        && from_another
        && is_unicast(segment.ip.source)
        && segment.key.remote != kernel.settings(own.router).own_address
        && OwnVip::find(kernel, link.vlan, segment.ip.source).is_none()
}

/// What the policy has for a stale segment.
#[inline(always)]
fn end<F: Cut + ?Sized, K: Kernel>(
    frame: &mut F,
    link: &Link,
    segment: &Segment,
    counter: Counter,
    policy: &StalePolicy,
    own: &OwnVip<K>,
    kernel: &K,
) -> Verdict {
    let refusal = if own.now_ns < kernel.takeover(own.router).at_ns.saturating_add(policy.hold_ns()) {
        Some(Counter::StaleHeld)
    } else if policy.action == StaleAction::Drop {
        Some(Counter::StaleDropped)
    } else if !kernel.take_reset_token(own.now_ns) {
        Some(Counter::ResetBudgetSpent)
    } else {
        None
    };
    if let Some(refusal) = refusal {
        kernel.count(refusal);
        return Verdict::Drop;
    }
    if rewrite(frame, link, segment, own, kernel).is_none() {
        // Half of it may be rewritten: nobody may see that.
        return Verdict::Drop;
    }
    kernel.count(counter);
    kernel.count_reset(own.vip);
    Verdict::Transmit
}

/// Turns the segment into its reset, in place, tags kept: never longer than it was, nothing of it left behind.
#[inline(always)]
fn rewrite<F: Cut + ?Sized, K: Kernel>(
    frame: &mut F,
    link: &Link,
    segment: &Segment,
    own: &OwnVip<K>,
    kernel: &K,
) -> Option<()> {
    let ends = Ends {
        source: segment.ip.destination,
        destination: segment.ip.source,
        source_port: segment.key.local_port,
        destination_port: segment.key.remote_port,
    };
    let (ip, mut tcp) = Reset::answering(&segment.tcp, segment.len).headers(&ends);
    if kernel.is_socket_buffer() && !tcp::has_whole_checksum(&segment.ip, &segment.tcp, segment.len) {
        // Whoever sends the buffer finishes the reset's checksum as it would have the segment's.
        tcp.leave_checksum(&ends);
    }
    let ethernet = EthernetHeader { destination: link.header.source, source: own.mac, ..link.header };
    let end = link.payload + RESET_LEN;
    let len = frame.len().min(end.max(FRAME_LEN_MIN));
    frame.write(0, &ethernet)?;
    frame.write(link.payload, &ip)?;
    frame.write(link.payload + size_of::<Ipv4Header>(), &tcp)?;
    // Without tags, the longest padding: 60 bytes less 14, 20 and 20. At most six, by their binary digits.
    let padding = len.saturating_sub(end);
    if padding & 4 != 0 {
        frame.write(end, &[0_u8; 4])?;
    }
    if padding & 2 != 0 {
        frame.write(end + (padding & 4), &[0_u8; 2])?;
    }
    if padding & 1 != 0 {
        frame.write(end + (padding & 6), &0_u8)?;
    }
    frame.cut(len)
}

#[inline(always)]
fn pass<K: Kernel>(kernel: &K, counter: Counter) -> Verdict {
    kernel.count(counter);
    Verdict::Pass
}
