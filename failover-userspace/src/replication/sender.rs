//! Tells one peer of this node's flows: dials it, for ever, and sends what the outbox has.
//!
//! Deliberately absent: what is sent and in which order, which is `outbox.rs`.

use std::cell::Cell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep_until, timeout};

use super::auth::{self, HELLO, REPLY, Session};
use super::link::{self, End, HANDSHAKE_TIMEOUT, Reader, Writer};
use super::node::{Node, Peer};
use super::outbox::Next;
use super::wire::{self, Kind, Message};
use super::{Change, Store};

const REDIAL: Duration = Duration::from_secs(1);

/// Dials the peer, again and again. Each reason for a failure is logged once, until something else happens.
pub async fn keep_sending<S: Store>(node: Rc<Node<S>>, index: usize) -> Infallible {
    let peer = &node.peers[index];
    let mut told = None;
    loop {
        let Err(end) = connection(&node, peer).await;
        peer.outbox.borrow_mut().disconnect();
        let reason = end.to_string();
        if peer.is_sending.take() || told.as_ref() != Some(&reason) {
            tracing::warn!(peer = %peer.address, reason, "this node's flows are not replicated to a peer; trying each second");
            told = Some(reason);
        } else {
            tracing::debug!(peer = %peer.address, reason, "not replicated to a peer, as before");
        }
        if matches!(end, End::Refused(_)) {
            node.refuse();
        }
        // Soon, or as soon as the peer is there for certain.
        let _ = timeout(REDIAL, peer.is_there.notified()).await;
    }
}

/// One connection, from dialling to its end.
async fn connection<S: Store>(node: &Node<S>, peer: &Peer) -> Result<Infallible, End> {
    let silent = |_| Err(End::Silent("dialling", HANDSHAKE_TIMEOUT));
    let (stream, session) = timeout(HANDSHAKE_TIMEOUT, open(node, peer)).await.unwrap_or_else(silent)?;
    let (read, write) = stream.into_split();
    peer.outbox.borrow_mut().connect();
    // The first that ends ends both, and with them the connection.
    tokio::select! {
        end = send(node, peer, Writer::new(write, session.flows)) => end,
        end = read_acks(peer, Reader::new(read, session.acknowledgements)) => end,
    }
}

/// Connects, from the address that the peer knows this node by, and checks that the peer has the key.
async fn open<S: Store>(node: &Node<S>, peer: &Peer) -> Result<(TcpStream, Session), End> {
    let mut stream = connect(node.source, peer.address).await?;
    let ends = link::ends(&stream)?;
    let hello = auth::hello(&auth::random().map_err(End::broken("asking the kernel for random bytes"))?);
    stream.write_all(&hello).await.map_err(End::broken("writing the first message"))?;
    let mut reply = [0; REPLY];
    let hint = "waiting for the peer's answer (a node closes when it doesn't have this one's address in `peers`, is of \
                another version, or has too many connections from here that proved nothing)";
    stream.read_exact(&mut reply).await.map_err(End::broken(hint))?;
    if !node.key.is_reply(&hello, &reply, ends) {
        return Err(End::Refused("it has another key, or the addresses are translated on the way"));
    }
    add(&peer.sent_bytes, HELLO);
    add(&peer.received_bytes, REPLY);
    Ok((stream, node.key.session(&hello, &reply, ends)))
}

async fn connect(source: Option<SocketAddr>, to: SocketAddr) -> Result<TcpStream, End> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.map_err(End::broken("making a socket"))?;
    if let Some(source) = source {
        socket.bind(source).map_err(End::broken("dialling from the address of `listen`"))?;
    }
    let stream = socket.connect(to).await.map_err(End::broken("connecting"))?;
    stream.set_nodelay(true).map_err(End::broken("setting TCP_NODELAY"))?;
    Ok(stream)
}

/// Sends what there is to send, and heartbeats.
async fn send<S: Store>(node: &Node<S>, peer: &Peer, mut writer: Writer) -> Result<Infallible, End> {
    // Proves at once that this side has the key, however long the table takes to read.
    let mut is_heartbeat_due = true;
    loop {
        if is_heartbeat_due {
            peer.outbox.borrow_mut().count_heartbeat();
            writer.send(Kind::Heartbeat, &[], &peer.sent_bytes).await?;
        }
        is_heartbeat_due = false;
        let next = peer.outbox.borrow_mut().next(Instant::now());
        match next {
            Next::Send(kind, body) => writer.send(kind, &body, &peer.sent_bytes).await?,
            Next::ReadTable => read_table(node, peer)?,
            Next::Wait => tokio::select! {
                () = peer.has_work.notified() => {}
                () = sleep_until(writer.heartbeat_at()) => is_heartbeat_due = true,
            },
        }
    }
}

fn read_table<S: Store>(node: &Node<S>, peer: &Peer) -> Result<(), End> {
    let flows = node.store.borrow_mut().own_flows().map_err(End::Store)?;
    let bodies = wire::encode(flows.into_iter().map(Change::Opened));
    peer.outbox.borrow_mut().start_table(bodies, Instant::now());
    add(&peer.syncs, 1);
    Ok(())
}

/// Reads acknowledgements: there is one for each frame, so a peer without any for long is dead.
async fn read_acks(peer: &Peer, mut reader: Reader) -> Result<Infallible, End> {
    loop {
        let Message::Ack(frames) = reader.next_in_time(&peer.received_bytes).await? else {
            return Err(End::Refused("a message that only a dialer sends"));
        };
        if !peer.outbox.borrow_mut().confirm(frames) {
            return Err(End::Refused("an acknowledgement of what was not sent"));
        }
        // The first frame was a heartbeat. From the second on the peer is being told of flows.
        if frames > 1 && !peer.is_sending.replace(true) {
            tracing::info!(peer = %peer.address, "this node's flows are replicated to a peer");
        }
        peer.has_work.notify_one();
    }
}

fn add(total: &Cell<u64>, more: usize) {
    total.set(total.get() + more as u64);
}
