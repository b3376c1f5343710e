//! Real sockets: whatever the kernel of this network namespace has a socket for is never stale, and nothing else is known
//! by a listener alone. BPF_PROG_TEST_RUN looks sockets up in the calling thread's network namespace.

use std::fs;
use std::net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use failover_common::abi::FlowOrigin;
use failover_sim::segment::{ACK, FIN, SYN, Segment, assert_resets};
use failover_tests::fixtures::{flow_key, frame, frames, is_reset, passes_as, resetting, version_3};
use failover_tests::frames::FrameSocket;
use failover_tests::netns::Netns;
use failover_tests::testrun::{Options, TestRun, Verdict};
use failover_tests::wait;
use socket2::{Domain, Protocol, Socket, Type};

const SERVICE: &str = "192.0.2.10:80";
/// Behind the veth pair.
const FAR_CLIENT: &str = "198.51.100.7:45000";
const IPV4: u16 = 0x0800;
/// `TCP_SYN_RECV`, `TCP_TIME_WAIT` in the kernel's include/net/tcp_states.h.
const SYN_RECV: &str = "03";
const TIME_WAIT: &str = "06";

/// Runs `test` in a network namespace of its own that has the virtual address and the client's, with a node that resets.
fn in_namespace(test: impl FnOnce(&Netns, &mut TestRun) -> Result<()> + Send) {
    if TestRun::load(Options::default()).is_none() {
        return;
    }
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let name = format!("stale-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    let netns = Netns::new(&name).expect("a network namespace");
    let inside = || {
        for address in ["192.0.2.10/32", "192.0.2.100/32"] {
            netns.ip(&["addr", "add", address, "dev", "lo"])?;
        }
        let mut node = resetting(&version_3()).context("it could be loaded a moment ago")?;
        test(&netns, &mut node)
    };
    netns.enter(inside).unwrap_or_else(|error| panic!("{error:#}"));
}

fn listen(address: &str) -> Result<TcpListener> {
    let address: SocketAddr = address.parse()?;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into()).with_context(|| format!("binding {address}"))?;
    socket.listen(16)?;
    Ok(socket.into())
}

/// A connection from 192.0.2.100 to the service: the client's end, and the server's.
fn connect(listener: &TcpListener) -> Result<(TcpStream, TcpStream)> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.bind(&"192.0.2.100:0".parse::<SocketAddr>()?.into())?;
    socket.connect(&SERVICE.parse::<SocketAddr>()?.into()).context("connecting to the service")?;
    let (server, _) = listener.accept()?;
    Ok((socket.into(), server))
}

/// A segment of that client's connection; its numbers don't matter to a lookup.
fn segment_from(client: SocketAddrV4) -> Segment {
    Segment {
        client,
        server: SERVICE.parse().expect("an address"),
        sequence: 0x0102_0304,
        acknowledgement: 0x0506_0708,
        control: ACK,
        data: b"",
    }
}

fn segment_of(client: &TcpStream) -> Result<Segment> {
    let SocketAddr::V4(address) = client.local_addr()? else { bail!("a client of IPv6") };
    Ok(segment_from(address))
}

#[track_caller]
fn known(node: &mut TestRun, segment: &Segment, counter: &str) {
    let sent = segment.frame();
    let outcome = node.send(&sent);
    assert_eq!((outcome.verdict, &outcome.frame), (Verdict::Pass, &sent), "{segment:?}: {:?}", outcome.counted);
    assert!(outcome.counted_only(&[counter]), "not {counter}: {:?}", outcome.counted);
}

#[track_caller]
fn stale(node: &mut TestRun, segment: &Segment) {
    let sent = segment.frame();
    let outcome = node.send(&sent);
    assert_eq!(outcome.verdict, Verdict::Transmit, "{segment:?}: {:?}", outcome.counted);
    assert_resets(&sent, &outcome.frame);
    assert!(outcome.counted_only(&["reset_unknown_flow"]), "{:?}", outcome.counted);
}

/// Waits until the kernel has no socket for the segment's flow any more.
fn until_stale(node: &mut TestRun, segment: &Segment) -> Result<()> {
    let sent = segment.frame();
    wait::until("the socket to be gone", || node.send(&sent).verdict == Verdict::Transmit)?;
    stale(node, segment);
    Ok(())
}

/// Whether this thread's network namespace has an IPv4 socket of the service for that client in that state.
fn has_socket(client: SocketAddrV4, state: &str) -> bool {
    let port = format!(":{:04X}", client.port());
    let table = fs::read_to_string("/proc/thread-self/net/tcp").unwrap_or_default();
    table.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        matches!(words[..], [_, local, remote, now, ..] if local.ends_with(":0050") && remote.ends_with(&port) && now == state)
    })
}

#[test]
fn a_live_connection_is_known_and_a_closed_one_is_not() {
    in_namespace(|_, node| {
        is_reset(node, "tcp ack", "reset_unknown_flow");
        let listener = listen(SERVICE)?;
        // A listener has no connection; cookies are not in use (no overflow of its queue).
        is_reset(node, "tcp ack", "reset_unknown_flow");
        let (client, server) = connect(&listener)?;
        let segment = segment_of(&client)?;
        for control in [ACK, ACK | FIN, FIN, 0] {
            known(node, &Segment { control, data: b"0123456", ..segment }, "tcp_socket");
        }
        // Another client's port, and the service's other address.
        is_reset(node, "tcp ack", "reset_unknown_flow");
        stale(node, &Segment { server: "192.0.2.11:80".parse()?, ..segment });
        // A port that nobody listens on.
        stale(node, &Segment { server: "192.0.2.10:81".parse()?, ..segment });

        drop(listener);
        known(node, &segment, "tcp_socket");
        // A reset from either side: no TIME-WAIT.
        socket2::SockRef::from(&server).set_linger(Some(Duration::ZERO))?;
        drop(server);
        until_stale(node, &segment)?;
        drop(client);
        stale(node, &segment);
        Ok(())
    });
}

#[test]
fn a_listener_that_is_restarted_keeps_its_connections() {
    in_namespace(|_, node| {
        let listener = listen(SERVICE)?;
        let (client, _server) = connect(&listener)?;
        drop(listener);
        let listener = listen(SERVICE)?;
        known(node, &segment_of(&client)?, "tcp_socket");
        let (second, _second_server) = connect(&listener)?;
        known(node, &segment_of(&second)?, "tcp_socket");
        known(node, &segment_of(&client)?, "tcp_socket");
        is_reset(node, "tcp ack", "reset_unknown_flow");
        Ok(())
    });
}

#[test]
fn a_connection_of_an_ipv6_listener_is_known() {
    in_namespace(|_, node| {
        let listener = listen("[::]:80")?;
        is_reset(node, "tcp ack", "reset_unknown_flow");
        let (client, server) = connect(&listener)?;
        ensure!(server.local_addr()?.is_ipv6(), "the server's socket is one of IPv6");
        let segment = segment_of(&client)?;
        known(node, &segment, "tcp_socket");
        socket2::SockRef::from(&server).set_linger(Some(Duration::ZERO))?;
        drop(server);
        until_stale(node, &segment)
    });
}

#[test]
fn a_connection_in_time_wait_is_known() {
    in_namespace(|_, node| {
        let listener = listen(SERVICE)?;
        let (client, server) = connect(&listener)?;
        let segment = segment_of(&client)?;
        // Who closes first waits.
        drop(server);
        drop(client);
        wait::until("the server's socket to be in TIME-WAIT", || has_socket(segment.client, TIME_WAIT))?;
        known(node, &segment, "tcp_socket");
        drop(listener);
        known(node, &Segment { control: ACK | FIN, ..segment }, "tcp_socket");
        is_reset(node, "tcp ack", "reset_unknown_flow");
        Ok(())
    });
}

#[test]
fn a_socket_here_counts_more_than_what_a_peer_told() {
    in_namespace(|_, node| {
        let listener = listen(SERVICE)?;
        let (client, _server) = connect(&listener)?;
        let segment = segment_of(&client)?;
        let flow = node.flows.add_flow(&segment.key(), FlowOrigin::Peer);
        known(node, &segment, "tcp_socket");
        ensure!(node.flows.flow(&segment.key()).is_none_or(|after| after == flow), "it was reset");
        node.flows.set_missed(u64::MAX);
        known(node, &segment, "tcp_socket");
        node.flows.add_flow(&flow_key(), FlowOrigin::Peer);
        is_reset(node, "tcp ack", "reset_peer_flow");
        passes_as(node, "tcp other ports", "tcp_unproven");
        Ok(())
    });
}

/// A veth pair in the namespace: its near end has the node's hardware address and the route to the client, its far
/// end is returned, to send and receive frames on.
fn far_end(netns: &Netns, client: &str) -> Result<FrameSocket> {
    netns.ip(&["link", "add", "near", "address", "02:00:00:00:00:0a", "type", "veth", "peer", "name", "far"])?;
    for name in ["near", "far"] {
        netns.ip(&["link", "set", name, "up"])?;
    }
    netns.ip(&["route", "add", client, "dev", "near"])?;
    netns.ip(&["neigh", "add", client, "lladdr", "02:00:00:00:00:c1", "dev", "near", "nud", "permanent"])?;
    FrameSocket::open(netns, "far", IPV4)
}

/// The TCP header of the next segment to that port that came to the far end.
fn next_segment(far: &FrameSocket, port: u16) -> Result<[u8; 20]> {
    let started = Instant::now();
    while started.elapsed() < wait::PATIENCE {
        let Some(frame) = far.receive(Duration::from_millis(100))? else { continue };
        if frame.len() >= 54 && frame[36..38] == port.to_be_bytes() {
            return Ok(frame[34..54].try_into()?);
        }
    }
    bail!("no segment to port {port} came")
}

/// Sends a SYN from the far client and returns the sequence number of the service's SYN,ACK.
fn shake_hands(far: &FrameSocket, syn: &Segment) -> Result<u32> {
    far.send(&syn.frame()).context("sending a SYN")?;
    let answer = next_segment(far, syn.client.port())?;
    ensure!(answer[13] & (SYN | ACK) == SYN | ACK, "another answer than SYN,ACK: {answer:02x?}");
    Ok(u32::from_be_bytes(answer[4..8].try_into()?))
}

#[test]
fn the_kernel_answers_with_the_same_numbers() {
    // Another implementation of RFC 9293 3.10.7.1, without the program: Linux, for an address of its own.
    in_namespace(|netns, _| {
        netns.ip(&["addr", "del", "192.0.2.100/32", "dev", "lo"])?;
        netns.ip(&["addr", "add", "192.0.2.11/32", "dev", "lo"])?;
        let far = far_end(netns, "192.0.2.100")?;
        let pairs = frames().filter_map(|(name, reset)| Some((name.strip_suffix(", reset")?, reset)));
        // Tags are no business of TCP's, and what comes by a cable has a checksum.
        let mut compared = 0;
        for (name, reset) in
            pairs.filter(|(name, _)| !["tag", "vlan", "partial"].iter().any(|word| name.contains(word)))
        {
            let ours = &reset[34..54];
            far.send(&frame(name)).with_context(|| format!("sending {name}"))?;
            let theirs = next_segment(&far, u16::from_be_bytes([ours[2], ours[3]])).context(name)?;
            // Ports, sequence and acknowledgement numbers, data offset, control bits, window. The rest is the checksum,
            // which a veth pair leaves unfinished.
            ensure!(theirs[..16] == ours[..16], "{name}: Linux sends {theirs:02x?}, expected {ours:02x?}");
            compared += 1;
        }
        ensure!(compared > 40, "only {compared} were compared");
        Ok(())
    });
}

#[test]
fn a_connection_half_open_is_known() {
    in_namespace(|netns, node| {
        let far = far_end(netns, "198.51.100.7")?;
        let _listener = listen(SERVICE)?;
        let syn = Segment { control: SYN, acknowledgement: 0, ..segment_from(FAR_CLIENT.parse()?) };
        let last = Segment { control: ACK, sequence: syn.sequence + 1, ..syn };
        stale(node, &last);
        let sequence = shake_hands(&far, &syn)?;
        wait::until("a socket in SYN-RECEIVED", || has_socket(syn.client, SYN_RECV))?;
        known(node, &Segment { acknowledgement: sequence.wrapping_add(1), ..last }, "tcp_socket");
        Ok(())
    });
}

#[test]
fn the_last_ack_of_a_handshake_with_a_cookie_is_known() {
    in_namespace(|netns, node| {
        let far = far_end(netns, "198.51.100.7")?;
        // 2: always (the kernel's ip-sysctl.rst). This is the calling thread's network namespace's.
        fs::write("/proc/sys/net/ipv4/tcp_syncookies", "2").context("forcing SYN cookies on")?;
        let listener = listen(SERVICE)?;
        let syn = Segment { control: SYN, acknowledgement: 0, ..segment_from(FAR_CLIENT.parse()?) };
        let cookie = shake_hands(&far, &syn)?;
        ensure!(!has_socket(syn.client, SYN_RECV), "with cookies, a SYN makes no socket");
        let last = Segment { control: ACK, sequence: syn.sequence + 1, acknowledgement: cookie.wrapping_add(1), ..syn };
        known(node, &last, "tcp_cookie");
        known(node, &Segment { data: b"GET / HTTP/1.1\r\n", ..last }, "tcp_cookie");
        known(node, &last, "tcp_cookie");

        // A cookie's low 24 bits carry its hash: this bit makes another, of none of the four MSS values.
        stale(node, &Segment { acknowledgement: last.acknowledgement ^ 0x0080_0000, ..last });
        stale(node, &Segment { acknowledgement: 0, ..last });
        // Another client's.
        let other: SocketAddrV4 = "198.51.100.7:45001".parse()?;
        stale(node, &Segment { client: other, ..last });
        // Without ACK there is no cookie.
        stale(node, &Segment { control: FIN, ..last });
        known(node, &last, "tcp_cookie");

        // The kernel agrees about the cookie.
        far.send(&last.frame())?;
        ensure!(wait::readable(&listener, wait::PATIENCE), "the cookie did not make a connection");
        let (server, _) = listener.accept()?;
        known(node, &last, "tcp_socket");
        socket2::SockRef::from(&server).set_linger(Some(Duration::ZERO))?;
        drop(server);
        drop(listener);
        until_stale(node, &last)
    });
}
