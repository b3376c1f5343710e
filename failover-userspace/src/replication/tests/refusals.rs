//! What must be refused: strangers, forgeries, repetitions. Each is counted and changes nothing; each test sees
//! something genuine get through as well.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::support::{Node, Table, answer, at, ends, flow, ip, keep_log, logged, opened, shared_key, wait};
use crate::replication::auth::{self, HELLO, Key, REPLY, Seal, Session};
use crate::replication::wire::{self, Kind};
use crate::replication::{Change, Settings};

/// Longer than any frame.
const TRAILER: usize = 20_000;

fn connect(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(from.into(), 0).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream
}

/// Reads until the other side closes.
fn closed_by_peer(mut stream: &TcpStream) {
    match stream.read_to_end(&mut Vec::new()) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("still open: {error}"),
    }
}

fn frame(seal: &mut Seal, kind: Kind, body: &[u8]) -> Vec<u8> {
    let mut frame = (1 + body.len() as u32).to_be_bytes().to_vec();
    frame.push(kind as u8);
    frame.extend(body);
    let tag = seal.tag(&frame);
    frame.extend(tag);
    frame
}

fn changes(changes: impl IntoIterator<Item = Change>) -> Vec<u8> {
    wire::encode(changes)[0].to_vec()
}

/// A dialer that has the key and says what it is told to.
struct Dialer {
    stream: TcpStream,
    session: Session,
}

impl Dialer {
    fn new(from: Ipv4Addr, to: Ipv4Addr) -> Self {
        let mut stream = connect(from, at(to));
        let hello = auth::hello(&auth::random().unwrap());
        stream.write_all(&hello).unwrap();
        let mut reply = [0; REPLY];
        stream.read_exact(&mut reply).unwrap();
        assert!(shared_key().is_reply(&hello, &reply, ends(from, to)));
        let session = shared_key().session(&hello, &reply, ends(from, to));
        Self { stream, session }
    }

    fn frame(&mut self, kind: Kind, body: &[u8]) -> Vec<u8> {
        frame(&mut self.session.flows, kind, body)
    }

    fn send(&mut self, kind: Kind, body: &[u8]) {
        let frame = self.frame(kind, body);
        self.stream.write_all(&frame).unwrap();
    }

    /// A heartbeat and the beginning of a table.
    fn begin(from: Ipv4Addr, to: Ipv4Addr) -> Self {
        let mut dialer = Self::new(from, to);
        dialer.send(Kind::Heartbeat, &[]);
        dialer.send(Kind::SyncBegin, &[]);
        dialer
    }
}

#[test]
fn a_flipped_bit_in_any_byte_of_a_session_is_refused() {
    let (a, b_ip) = (ip(), ip());
    let b = Node::start(b_ip, &[a]);
    let body = changes([opened(1), opened(2)]);
    let length = HELLO + 21 + 21 + 20 + body.len() + 1;
    for at_byte in 0..length {
        let bit = 1 << (at_byte % 8);
        let mut stream = connect(a, at(b_ip));
        let mut hello = auth::hello(&auth::random().unwrap());
        let honest_hello = hello;
        if let Some(byte) = hello.get_mut(at_byte) {
            *byte ^= bit;
        }
        stream.write_all(&hello).unwrap();
        let mut reply = [0; REPLY];
        if at_byte >= 8 {
            stream.read_exact(&mut reply).unwrap();
        }
        let mut seal = shared_key().session(&honest_hello, &reply, ends(a, b_ip)).flows;
        let frames = [(Kind::Heartbeat, &[][..]), (Kind::SyncBegin, &[]), (Kind::Changes, &body)];
        let mut rest: Vec<u8> = frames.into_iter().flat_map(|(kind, body)| frame(&mut seal, kind, body)).collect();
        assert_eq!(HELLO + rest.len(), length);
        if let Some(byte) = at_byte.checked_sub(HELLO).and_then(|at| rest.get_mut(at)) {
            *byte ^= bit;
        }
        // So that a greater length is not merely waited for.
        rest.resize(rest.len() + TRAILER, 0);
        // It may be closed by then.
        let _ = stream.write_all(&rest);
        closed_by_peer(&stream);
        b.wait("a refusal", |table| table.refused == at_byte as u64 + 1);
        assert_eq!(b.table().opened, 0, "byte {at_byte}");
    }
    // The same without a flip.
    let mut honest = Dialer::begin(a, b_ip);
    honest.send(Kind::Changes, &body);
    b.wait("the flows", |table| table.opened == 2);
    assert_eq!(b.table().refused, length as u64);
}

#[test]
fn a_truncated_session_changes_nothing() {
    let (a, b_ip) = (ip(), ip());
    let b = Node::start(b_ip, &[a]);
    let body = changes([opened(1)]);
    let whole = 20 + 1 + body.len();
    for length in 0..whole {
        let mut dialer = Dialer::begin(a, b_ip);
        let frame = dialer.frame(Kind::Changes, &body);
        dialer.stream.write_all(&frame[..length]).unwrap();
        dialer.stream.shutdown(Shutdown::Write).unwrap();
        closed_by_peer(&dialer.stream);
        assert_eq!(b.table().opened, 0, "cut to {length}");
    }
    for length in 0..HELLO {
        let mut stream = connect(a, at(b_ip));
        stream.write_all(&auth::hello(&[1; 32])[..length]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        closed_by_peer(&stream);
        b.wait("a refusal", |table| table.refused == length as u64 + 1);
    }
    let mut honest = Dialer::begin(a, b_ip);
    honest.send(Kind::Changes, &body);
    b.wait("the flow", |table| table.opened == 1);
}

#[test]
fn a_frame_is_good_once() {
    let (a, b_ip) = (ip(), ip());
    let b = Node::start(b_ip, &[a]);
    let mut dialer = Dialer::begin(a, b_ip);
    let frame = dialer.frame(Kind::Changes, &changes([opened(1)]));
    dialer.stream.write_all(&frame).unwrap();
    b.wait("the flow", |table| table.opened == 1);
    dialer.stream.write_all(&frame).unwrap();
    closed_by_peer(&dialer.stream);
    b.wait("a refusal", |table| table.refused == 1);
    assert_eq!(b.table().opened, 1);
}

#[test]
fn messages_out_of_place_are_refused() {
    let (a, b_ip) = (ip(), ip());
    let b = Node::start(b_ip, &[a]);
    let body = changes([opened(1)]);
    let sessions: [&[(Kind, &[u8])]; 7] = [
        &[(Kind::SyncBegin, &[])],
        &[(Kind::Changes, &body)],
        &[(Kind::Heartbeat, &[]), (Kind::Changes, &body)],
        &[(Kind::Heartbeat, &[]), (Kind::SyncEnd, &[])],
        &[(Kind::Heartbeat, &[]), (Kind::SyncBegin, &[]), (Kind::Ack, &[0; 8])],
        &[(Kind::Heartbeat, &[]), (Kind::SyncBegin, &[]), (Kind::SyncEnd, &[]), (Kind::SyncEnd, &[])],
        &[(Kind::Heartbeat, &[]), (Kind::SyncBegin, &[]), (Kind::Changes, &body[1..])],
    ];
    for (index, session) in sessions.into_iter().enumerate() {
        let mut dialer = Dialer::new(a, b_ip);
        for (kind, body) in session {
            dialer.send(*kind, body);
        }
        closed_by_peer(&dialer.stream);
        b.wait("a refusal", |table| table.refused == index as u64 + 1);
    }
    assert_eq!(b.table().calls(), [0, 0, 1, 0], "the one SyncEnd that was in its place");
    let mut honest = Dialer::begin(a, b_ip);
    honest.send(Kind::Changes, &body);
    b.wait("the flow", |table| table.opened == 1);
}

/// Passes one connection on, from an address of its own, and keeps what was said.
fn record(listener: TcpListener, from: Ipv4Addr, to: SocketAddr) -> [Arc<Mutex<Vec<u8>>>; 2] {
    let said: [Arc<Mutex<Vec<u8>>>; 2] = Default::default();
    let recorded = said.clone();
    std::thread::spawn(move || {
        let (dialled, _) = listener.accept().unwrap();
        let onward = connect(from, to);
        let ways = [(dialled.try_clone().unwrap(), onward.try_clone().unwrap()), (onward, dialled)];
        for ((mut from, mut to), said) in ways.into_iter().zip(recorded) {
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(length @ 1..) = from.read(&mut buffer) {
                    said.lock().unwrap().extend(&buffer[..length]);
                    let _ = to.write_all(&buffer[..length]);
                }
                let _ = to.shutdown(Shutdown::Write);
            });
        }
    });
    said
}

#[test]
fn a_recorded_session_is_of_no_use_to_either_side() {
    let (a_ip, b_ip) = (ip(), ip());
    let b = Node::start(b_ip, &[a_ip]);
    // On the peer's address, at another port.
    let between = SocketAddr::new(b_ip.into(), 7701);
    let [to_b, to_a] = record(TcpListener::bind(between).unwrap(), a_ip, at(b_ip));
    let settings = || Settings { listen: at(a_ip), peers: vec![between], key: shared_key() };
    let a = Node::start_with(settings(), Table::default());
    a.change((0..10).map(opened).collect());
    b.wait_for_flows_of(&a, 0);
    drop(a);
    b.wait("the end of the connection", |table| table.status(0).is_receiving == 0);
    let heard = b.table().of_peer(0);
    let calls = b.table().calls();
    assert_eq!((heard.len(), b.table().refused), (10, 0));

    let mut replay = connect(a_ip, at(b_ip));
    replay.write_all(&to_b.lock().unwrap()).unwrap();
    closed_by_peer(&replay);
    b.wait("a refusal", |table| table.refused == 1);
    assert_eq!(b.table().of_peer(0), heard);
    assert_eq!(b.table().calls(), calls);

    let listener = TcpListener::bind(between).unwrap();
    let mut served = Table::default();
    served.serve(0..10);
    let a = Node::start_with(settings(), served);
    let (mut dialled, _) = listener.accept().unwrap();
    dialled.write_all(&to_a.lock().unwrap()).unwrap();
    let mut said = Vec::new();
    let _ = dialled.read_to_end(&mut said);
    assert_eq!(said.len(), HELLO, "nothing is told to somebody who proves nothing");
    a.wait("a refusal", |table| table.refused == 1);
    assert_eq!(a.table().calls(), [0; 4]);
    assert!(!a.is_sending(0));
}

#[test]
fn another_key_is_refused_on_both_sides() {
    let (a_ip, b_ip) = (ip(), ip());
    let b = Node::start(b_ip, &[a_ip]);
    let other = Key::new(b"another key of at least 32 bytes' length").unwrap();
    let settings = Settings { listen: at(a_ip), peers: vec![at(b_ip)], key: other };
    let a = Node::start_with(settings, Table::default());
    a.change(vec![opened(1)]);
    // The witness: both met, in both directions.
    a.wait("refusals", |table| table.refused >= 2);
    b.wait("refusals", |table| table.refused >= 2);
    for node in [&a, &b] {
        assert_eq!(node.table().calls(), [0; 4]);
    }
}

#[test]
fn a_stranger_is_closed_and_counted_though_it_has_the_key() {
    keep_log();
    let (a_ip, b_ip, stranger_ip) = (ip(), ip(), ip());
    let b = Node::start(b_ip, &[a_ip]);
    let stranger = Node::start(stranger_ip, &[b_ip]);
    stranger.change(vec![opened(1)]);
    b.wait("a refusal", |table| table.refused > 0);
    assert!(!stranger.is_sending(0));
    let reasons = ["WARN", "address in `peers`", "another version", "too many connections"];
    wait("the reasons that it may have", || logged(at(b_ip), &reasons) == 1);
    let a = Node::start(a_ip, &[b_ip]);
    a.change(vec![opened(2)]);
    b.wait_for_flows_of(&a, 0);
    assert_eq!(b.table().heard.len(), 1);
    assert_eq!(stranger.table().reads, 0);
}

/// A station between two nodes hands a node's own connection back to it, from the peer's address.
#[test]
fn a_node_does_not_hear_itself() {
    let (a_ip, b_ip) = (ip(), ip());
    let [said, _] = record(TcpListener::bind(at(b_ip)).unwrap(), b_ip, at(a_ip));
    let mut served = Table::default();
    served.serve(0..10);
    let a = Node::start_with(Settings { listen: at(a_ip), peers: vec![at(b_ip)], key: shared_key() }, served);
    // The dialer refuses the answer; the acceptor, then, that nothing follows.
    a.wait("refusals", |table| table.refused >= 2);
    assert_eq!(said.lock().unwrap().len(), HELLO);
    assert_eq!(a.table().calls(), [0; 4]);
}

#[test]
fn a_node_that_is_its_own_peer_refuses_itself() {
    let a_ip = ip();
    let a = Node::start(a_ip, &[a_ip]);
    a.wait("refusals of both sides", |table| table.refused >= 2);
    assert_eq!(a.table().calls(), [0; 4]);
}

#[test]
fn few_connections_may_wait_without_a_proof_and_not_for_long() {
    let (a, b_ip) = (ip(), ip());
    let b = Node::start(b_ip, &[a]);
    let waiting = [connect(a, at(b_ip)), connect(a, at(b_ip))];
    closed_by_peer(&connect(a, at(b_ip)));
    b.wait("the third to be refused", |table| table.refused == 1);
    waiting.iter().for_each(closed_by_peer);
    b.wait("the first two to be refused", |table| table.refused == 3);
    let mut honest = Dialer::begin(a, b_ip);
    honest.send(Kind::Changes, &changes([opened(1)]));
    b.wait("the flow", |table| table.opened == 1);
}

#[test]
fn a_newer_connection_takes_the_place_of_the_older_once_it_is_proved() {
    let (a, b_ip) = (ip(), ip());
    let b = Node::start(b_ip, &[a]);
    let mut older = Dialer::begin(a, b_ip);
    older.send(Kind::Changes, &changes([opened(1)]));
    b.wait("the older one's flow", |table| table.opened == 1);
    let mut newer = Dialer::new(a, b_ip);
    older.send(Kind::Changes, &changes([opened(2)]));
    b.wait("the older one's second flow", |table| table.opened == 2);
    newer.send(Kind::Heartbeat, &[]);
    closed_by_peer(&older.stream);
    newer.send(Kind::SyncBegin, &[]);
    newer.send(Kind::Changes, &changes([opened(3)]));
    newer.send(Kind::SyncEnd, &[]);
    b.wait("the newer one's table", |table| table.synced == 1);
    assert_eq!(b.table().of_peer(0).into_keys().collect::<Vec<_>>(), [flow(3)]);
    b.wait("the status", |table| table.status(0).is_receiving == 1);
    assert_eq!(b.table().refused, 0);
}

#[test]
fn silence_ends_a_connection_on_either_side() {
    let (a_ip, b_ip) = (ip(), ip());
    let listener = TcpListener::bind(at(b_ip)).unwrap();
    let a = Node::start(a_ip, &[b_ip]);
    let mute_dialer = Dialer::begin(b_ip, a_ip);
    a.wait("the mute dialer", |table| table.status(0).is_receiving == 1);
    let (mute_acceptor, _) = answer(&listener, &shared_key());
    closed_by_peer(&mute_dialer.stream);
    closed_by_peer(&mute_acceptor);
    a.wait("the end", |table| table.status(0).is_receiving == 0);
    // It dials again.
    let _again = answer(&listener, &shared_key());
    assert_eq!(a.table().refused, 0, "silence is no offence");
}

#[test]
fn acknowledgements_that_are_wrong_end_the_connection() {
    let (a_ip, b_ip) = (ip(), ip());
    let listener = TcpListener::bind(at(b_ip)).unwrap();
    let a = Node::start(a_ip, &[b_ip]);
    let lies: [fn(&mut Session) -> Vec<u8>; 4] = [
        |session| frame(&mut session.acknowledgements, Kind::Ack, &1_000_u64.to_be_bytes()),
        |session| frame(&mut session.acknowledgements, Kind::Ack, &0_u64.to_be_bytes()),
        |session| frame(&mut session.acknowledgements, Kind::Heartbeat, &[]),
        |session| frame(&mut session.flows, Kind::Ack, &1_u64.to_be_bytes()),
    ];
    for (index, lie) in lies.into_iter().enumerate() {
        let (mut stream, mut session) = answer(&listener, &shared_key());
        stream.write_all(&lie(&mut session)).unwrap();
        closed_by_peer(&stream);
        a.wait("a refusal", |table| table.refused == index as u64 + 1);
        assert!(!a.is_sending(0));
    }
    let (mut stream, mut session) = answer(&listener, &shared_key());
    for number in 1..=2_u64 {
        let ack = frame(&mut session.acknowledgements, Kind::Ack, &number.to_be_bytes());
        wait("two frames", || stream.peek(&mut [0; 42]).unwrap() == 42);
        stream.write_all(&ack).unwrap();
    }
    wait("the true one to count", || a.is_sending(0));
}

#[test]
fn a_peer_that_comes_and_goes_is_logged_once_until_it_stays_or_goes_for_another_reason() {
    keep_log();
    let (a, b_ip) = (ip(), ip());
    let _b = Node::start(b_ip, &[a]);
    let (comes, goes, stays) = ("hearing of a peer's flows", "hearing no more of a peer's flows", "flows again");
    let lines = || [logged(at(a), &["INFO", comes]), logged(at(a), &["WARN", goes])];
    let end = |dialer: Dialer| {
        dialer.stream.shutdown(Shutdown::Write).unwrap();
        closed_by_peer(&dialer.stream);
    };
    for round in 0..4 {
        end(Dialer::begin(a, b_ip));
        wait("the repetition", || logged(at(a), &["DEBUG", goes, "as before"]) == round);
    }
    assert_eq!(lines(), [1, 1]);

    // Another reason: twice the end of a table.
    let mut wrong = Dialer::begin(a, b_ip);
    wrong.send(Kind::SyncEnd, &[]);
    wrong.send(Kind::SyncEnd, &[]);
    closed_by_peer(&wrong.stream);
    wait("the other reason", || logged(at(a), &["WARN", goes, "refused: changes before a table began"]) == 1);
    assert_eq!(lines(), [1, 2]);

    let steady = RefCell::new(Dialer::begin(a, b_ip));
    wait("what stays to be logged", || {
        steady.borrow_mut().send(Kind::Heartbeat, &[]);
        logged(at(a), &["INFO", comes, stays]) == 1
    });
    end(steady.into_inner());
    wait("its end", || lines() == [2, 3]);
}
