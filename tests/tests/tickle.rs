//! Ring 4: what a client's kernel does with the segments that a new Active sends it unasked.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use failover_common::abi::FlowKey;
use failover_tests::frames::FrameSocket;
use failover_tests::lab::{INTERFACE, Lab, VIP};
use failover_tests::netns::finish;
use failover_tests::requirements::require;
use failover_tests::wait::PATIENCE;
use failover_userspace::flows::tickle::{Segment, Sender, Sent};

const PORT: u16 = 80;
const IPV4: u16 = 0x0800;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// Ports, numbers and flags of a TCP segment, read by RFC 9293 3.1's offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    source_port: u16,
    destination_port: u16,
    sequence: u32,
    acknowledgment: u32,
    flags: u8,
}

fn tcp_of(frame: &[u8]) -> Option<Seen> {
    let ip = frame.get(14..)?;
    if *ip.get(9)? != 6 {
        return None;
    }
    let tcp = ip.get(usize::from(ip[0] & 0x0f) * 4..)?;
    let word = |at: usize| Some(u32::from_be_bytes(tcp.get(at..at + 4)?.try_into().ok()?));
    let ports = word(0)?;
    Some(Seen {
        source_port: (ports >> 16) as u16,
        destination_port: ports as u16,
        sequence: word(4)?,
        acknowledgment: word(8)?,
        flags: *tcp.get(13)?,
    })
}

/// The next segment that is `wanted`.
fn next(frames: &FrameSocket, wanted: impl Fn(&Seen) -> bool) -> Result<Seen> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        let frame = frames.receive(PATIENCE)?.context("no frame")?;
        if let Some(seen) = tcp_of(&frame).filter(&wanted) {
            return Ok(seen);
        }
    }
    bail!("waited {PATIENCE:?} for a segment")
}

/// A connection of the client to the old Active, and its numbers as they were on the wire.
struct Connection {
    client: TcpStream,
    _server: TcpStream,
    key: FlowKey,
    /// The server's SND.NXT when it was established.
    established: u32,
    /// What an ACK of the client has to say now: its SEQ and its ACK.
    numbers: (u32, u32),
}

/// The old Active serves, until it vanishes; the new one has the address's traffic, but not the address: its kernel
/// answers nothing by itself.
struct Takeover {
    lab: Lab,
    listener: TcpListener,
    at_client: FrameSocket,
    at_old: FrameSocket,
    at_new: FrameSocket,
    sender: Sender,
}

impl Takeover {
    fn new(test: &str) -> Result<Option<Self>> {
        let Some(built) = require(test, &["ip", "ss", "bpftool"]) else { return Ok(None) };
        let lab = Lab::new(&built)?;
        let old = lab.station("edge-a")?;
        old.ip(&["address", "add", &format!("{VIP}/24"), "dev", INTERFACE])?;
        Ok(Some(Self {
            listener: old.enter(|| Ok(TcpListener::bind((VIP, PORT))?))?,
            at_client: FrameSocket::open(lab.station("client")?, INTERFACE, IPV4)?,
            at_old: FrameSocket::open(old, INTERFACE, IPV4)?,
            at_new: FrameSocket::open(lab.station("edge-b")?, INTERFACE, IPV4)?,
            sender: lab.station("edge-b")?.enter(|| Ok(Sender::open(VIP)?))?,
            lab,
        }))
    }

    /// Connects, and both sides send something: `asked` bytes, then `answered` bytes.
    fn connect(&self, asked: usize, answered: usize) -> Result<Connection> {
        let mut client = self.lab.station("client")?.enter(|| Ok(TcpStream::connect((VIP, PORT))?))?;
        let (mut server, peer) = self.listener.accept()?;
        let of_client = |seen: &Seen| seen.source_port == peer.port() && seen.flags & SYN != 0;
        let of_server = |seen: &Seen| seen.destination_port == peer.port() && seen.flags & SYN != 0;
        let (syn, syn_ack) = (next(&self.at_old, of_client)?, next(&self.at_client, of_server)?);
        let mut buffer = [0; 64];
        client.write_all(&vec![b'?'; asked])?;
        server.read_exact(&mut buffer[..asked])?;
        server.write_all(&vec![b'!'; answered])?;
        client.read_exact(&mut buffer[..answered])?;
        client.set_read_timeout(Some(PATIENCE))?;
        let SocketAddr::V4(peer) = peer else { bail!("{peer} is no IPv4 address") };
        let established = syn_ack.sequence.wrapping_add(1);
        let now = (syn.sequence.wrapping_add(1 + asked as u32), established.wrapping_add(answered as u32));
        let key =
            FlowKey { local: VIP.into(), remote: (*peer.ip()).into(), local_port: PORT, remote_port: peer.port() };
        Ok(Connection { client, _server: server, key, established, numbers: now })
    }

    /// Pulls the old Active's cable and sends the client's segments to the new one.
    fn happen(&self) -> Result<()> {
        self.lab.set_cable("edge-a", false)?;
        let mac = self.lab.mac("edge-b")?.map(|byte| format!("{byte:02x}")).join(":");
        let vip = VIP.to_string();
        let client = self.lab.station("client")?;
        client.ip(&["neighbor", "replace", &vip, "lladdr", &mac, "dev", INTERFACE, "nud", "permanent"]).map(drop)
    }

    fn send(&self, connection: &Connection, segment: Segment) -> Result<()> {
        match self.sender.send(&connection.key, segment) {
            Sent::Out => Ok(()),
            other => bail!("{segment:?}: {other:?}"),
        }
    }

    /// The client's next segment of this connection that reaches the new Active.
    fn answer(&self, connection: &Connection) -> Result<Seen> {
        next(&self.at_new, |seen| seen.source_port == connection.key.remote_port)
    }

    /// Tickles a connection; the answer must carry its numbers.
    fn assert_answered(&self, connection: &Connection, send_next: Option<u32>) -> Result<()> {
        self.send(connection, Segment::Tickle(send_next))?;
        let answer = self.answer(connection)?;
        let (sequence, acknowledgment) = connection.numbers;
        let (source_port, destination_port) = (connection.key.remote_port, PORT);
        let expected = Seen { source_port, destination_port, sequence, acknowledgment, flags: ACK };
        ensure!(answer == expected, "with {send_next:?}: {answer:?}, not {expected:?}");
        Ok(())
    }

    /// Which segments the client's kernel refused for their checksum.
    fn checksum_errors(&self) -> Result<u64> {
        let text = self.lab.station("client")?.enter(|| Ok(std::fs::read_to_string("/proc/thread-self/net/snmp")?))?;
        let [names, values] = text.lines().filter(|line| line.starts_with("Tcp:")).collect::<Vec<_>>()[..] else {
            bail!("no Tcp in {text}");
        };
        let at = names.split(' ').position(|name| name == "InCsumErrors").context("no InCsumErrors")?;
        Ok(values.split(' ').nth(at).context("no value")?.parse()?)
    }
}

/// What reading says, which waits.
fn read_error(connection: &mut Connection) -> Option<ErrorKind> {
    connection.client.read(&mut [0; 64]).err().map(|error| error.kind())
}

#[test]
fn a_tickle_is_answered_with_the_numbers_and_a_reset_with_them_ends_it() -> Result<()> {
    let Some(takeover) = Takeover::new("tickle")? else { return Ok(()) };
    let client = takeover.lab.station("client")?;
    let mut connections = Vec::new();
    for timestamps in ["1", "0"] {
        client.enter(|| Ok(std::fs::write("/proc/sys/net/ipv4/tcp_timestamps", timestamps)?))?;
        for (asked, answered) in [(0, 0), (3, 0), (0, 5), (3, 5)] {
            for is_known in [true, false] {
                connections.push((timestamps, is_known, takeover.connect(asked, answered)?));
            }
        }
    }
    takeover.happen()?;
    for (timestamps, is_known, connection) in &mut connections {
        // `ss` says whether timestamps were negotiated.
        let port = format!("sport = :{}", connection.key.remote_port);
        let text = finish(client.command("ss").args(["-tionH", &port]))?;
        ensure!(text.split_whitespace().any(|word| word == "ts") == (*timestamps == "1"), "{text}");
        takeover.assert_answered(connection, is_known.then_some(connection.established))?;
        // As the XDP program answers that.
        takeover.send(connection, Segment::Reset(connection.numbers.1))?;
        ensure!(read_error(connection) == Some(ErrorKind::ConnectionReset));
    }
    ensure!(takeover.checksum_errors()? == 0);
    Ok(())
}

#[test]
fn a_direct_reset_needs_the_right_number() -> Result<()> {
    let Some(takeover) = Takeover::new("direct reset")? else { return Ok(()) };
    let (mut silent, mut answered) = (takeover.connect(3, 0)?, takeover.connect(3, 5)?);
    takeover.happen()?;
    // Exact where the server never sent anything.
    takeover.send(&silent, Segment::Reset(silent.established))?;
    ensure!(read_error(&mut silent) == Some(ErrorKind::ConnectionReset));
    // Old where it did: ignored. The tickle behind it shows that it arrived, and that the connection is unharmed.
    takeover.send(&answered, Segment::Reset(answered.established))?;
    takeover.assert_answered(&answered, Some(answered.established))?;
    answered.client.set_nonblocking(true)?;
    ensure!(read_error(&mut answered) == Some(ErrorKind::WouldBlock));
    ensure!(takeover.checksum_errors()? == 0);
    Ok(())
}

#[test]
fn each_tickle_is_answered() -> Result<()> {
    let Some(takeover) = Takeover::new("each tickle")? else { return Ok(()) };
    let connection = takeover.connect(3, 5)?;
    takeover.happen()?;
    for send_next in [None, Some(connection.established), None] {
        takeover.assert_answered(&connection, send_next)?;
    }
    Ok(())
}

#[test]
fn a_client_without_a_route_fails_alone() -> Result<()> {
    let Some(takeover) = Takeover::new("no route")? else { return Ok(()) };
    let connection = takeover.connect(0, 0)?;
    takeover.happen()?;
    let lost = FlowKey { remote: Ipv4Addr::new(203, 0, 113, 9).into(), ..connection.key };
    let sent = takeover.sender.send(&lost, Segment::Tickle(None));
    ensure!(matches!(&sent, Sent::Failed(error) if error.kind() == ErrorKind::NetworkUnreachable), "{sent:?}");
    takeover.assert_answered(&connection, None)?;
    Ok(())
}
