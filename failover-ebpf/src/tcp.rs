//! TCP to a virtual address under a live lease: segments of connections that the node before this one took with it
//! are answered with a reset, everything else goes on.
//!
//! The order is: what anybody here may know of passes, then what may not be answered passes, and what is left is stale.
//! Deliberately absent: the clients that say nothing. The controller makes them speak.

use failover_common::abi::{Counter, FlowEvent, FlowEventKind, FlowKey, StaleAction, StalePolicy};
use failover_common::address::Address;
use failover_common::stale::{is_memory_whole, is_split};
use failover_common::wire::ethernet::{EthernetHeader, Link};
use failover_common::wire::ipv4::{Ipv4Header, is_unicast};
use failover_common::wire::tcp::{self, ACK, Ends, RESET_LEN, RST, Reset, SYN, TcpHeader};

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
        // RFC 9293 3.10.7.1: never answered. The client knows that the flow is over.
        kernel.forget_peer_flow(&segment.key);
        return pass(kernel, Counter::TcpReset);
    }
    if segment.tcp.has(SYN) {
        return begin(&segment, policy, own, kernel);
    }
    let counter = match find(&segment, own, kernel) {
        Ok(known_by) => return pass(kernel, known_by),
        Err(counter) => counter,
    };
    if let Err(refusal) = check(frame, link, &segment, own, kernel) {
        return pass(kernel, refusal);
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

/// The beginning of a flow, towards this node or (SYN and ACK) from it: remembered, because its end may be where no
/// lookup of sockets reaches.
#[inline(always)]
fn begin<K: Kernel>(segment: &Segment, policy: &StalePolicy, own: &OwnVip<K>, kernel: &K) -> Verdict {
    if policy.is_leaving != 0 && !segment.tcp.has(ACK) {
        kernel.count(Counter::TcpLeaving);
        tell_refused(segment.key, kernel);
        return Verdict::Drop;
    }
    if !kernel.knows_handshake(&segment.key) {
        kernel.remember_handshake(&segment.key, own.now_ns);
    }
    kernel.forget_peer_flow(&segment.key);
    pass(kernel, Counter::TcpSyn)
}

/// Tells of a SYN that is being dropped under no lease, if this node has just let the address go.
#[inline(always)]
pub(crate) fn refuse<F: Cut + ?Sized, K: Kernel>(frame: &F, link: &Link, ip: &Ipv4Header, own: &OwnVip<K>, kernel: &K) {
    let policy = kernel.stale(own.router);
    if policy.is_leaving == 0 {
        return;
    }
    if let Ok(segment) = Segment::read(frame, link, ip)
        && segment.tcp.has(SYN)
        && !segment.tcp.has(ACK)
        && concerns(policy, segment.key.local_port)
    {
        tell_refused(segment.key, kernel);
    }
}

#[inline(always)]
fn tell_refused<K: Kernel>(key: FlowKey, kernel: &K) {
    kernel.emit_flow(&FlowEvent { key, kind: FlowEventKind::Refused, send_next: 0 });
}

/// Why the flow is known, or what a reset of it counts as.
#[inline(always)]
fn find<K: Kernel>(segment: &Segment, own: &OwnVip<K>, kernel: &K) -> Result<Counter, Counter> {
    match kernel.find_socket(&segment.ip, &segment.tcp) {
        Socket::Flow => return Ok(Counter::TcpSocket),
        Socket::Cookie => return Ok(Counter::TcpCookie),
        Socket::None => {}
    }
    // No socket is no proof: other namespaces, DNAT, IPVS, TPROXY, forwarded traffic.
    if kernel.knows_handshake(&segment.key) {
        return Ok(Counter::TcpHandshakeSeen);
    }
    let takeover = kernel.takeover(own.router);
    let is_peers = kernel.is_peer_flow(&segment.key);
    if !is_peers && !is_memory_whole(&takeover, kernel.handshakes_inserted(), kernel.handshakes_capacity()) {
        return Ok(Counter::TcpUnproven);
    }
    let interval_cs = kernel.settings(own.router).advert_interval_cs;
    if is_split(&takeover, kernel.heard(own.router), interval_cs, own.now_ns) {
        return Ok(Counter::TcpSplit);
    }
    Err(if is_peers { Counter::ResetPeerFlow } else { Counter::ResetUnknownFlow })
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
    let Segment { ip, tcp, at, len, key } = segment;
    let is_own = key.remote == kernel.settings(own.router).own_address;
    let to_this_node = link.header.destination == own.mac;
    let from_another = !link.header.source.is_group() && link.header.source != own.mac;
    if is_own || !to_this_node || !from_another || !is_unicast(ip.source) {
        return Err(Counter::TcpBadSource);
    }
    if OwnVip::find(kernel, link.vlan, ip.source).is_some() {
        return Err(Counter::TcpBadSource);
    }
    // At most 22 bytes before the IP header, and 60 in either header.
    let ip_at = kernel.blur(link.payload, 0x1f);
    if !ip.checksum_holds(frame, ip_at) {
        return Err(Counter::TcpBadChecksum);
    }
    let (at, len) = (kernel.blur(*at, 0x7f), kernel.blur(*len, 0xffff));
    if !tcp::checksum_holds(frame, ip, at, tcp, len) {
        return Err(Counter::TcpBadChecksum);
    }
    let ip_options = kernel.blur(ip.header_len() - 20, 0x3f);
    if !tcp::options_hold(frame, ip_at + 20, ip_options) {
        return Err(Counter::TcpBadOptions);
    }
    let tcp_options = kernel.blur(tcp.header_len() - 20, 0x3f);
    if !tcp::options_hold(frame, at + 20, tcp_options) {
        return Err(Counter::TcpBadOptions);
    }
    Ok(())
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
    let refusal = if own.now_ns < kernel.takeover(own.router).at_ns.saturating_add(policy.hold_ns) {
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
    if rewrite(frame, link, segment, own).is_none() {
        // Half of it may be rewritten: nobody may see that.
        return Verdict::Drop;
    }
    if counter == Counter::ResetPeerFlow {
        kernel.note_reset(&segment.key, own.now_ns);
    }
    kernel.count(counter);
    kernel.count_reset(own.vip);
    Verdict::Transmit
}

/// Turns the segment into its reset, in place, tags kept: never longer than it was, nothing of it left behind.
#[inline(always)]
fn rewrite<F: Cut + ?Sized, K: Kernel>(frame: &mut F, link: &Link, segment: &Segment, own: &OwnVip<K>) -> Option<()> {
    let ends = Ends {
        source: segment.ip.destination,
        destination: segment.ip.source,
        source_port: segment.key.local_port,
        destination_port: segment.key.remote_port,
    };
    let (ip, tcp) = Reset::answering(&segment.tcp, segment.len).headers(&ends);
    let ethernet = EthernetHeader { destination: link.header.source, source: own.mac, ..link.header };
    let end = link.payload + RESET_LEN;
    let len = frame.len().min(end.max(FRAME_LEN_MIN));
    frame.write(0, &ethernet)?;
    frame.write(link.payload, &ip)?;
    frame.write(link.payload + size_of::<Ipv4Header>(), &tcp)?;
    // Without tags, the longest padding: 60 bytes less 14, 20 and 20.
    for index in 0..6 {
        if end + index < len {
            frame.write(end + index, &0_u8)?;
        }
    }
    frame.cut(len)
}

#[inline(always)]
fn pass<K: Kernel>(kernel: &K, counter: Counter) -> Verdict {
    kernel.count(counter);
    Verdict::Pass
}
