//! Hears of the peers' flows: accepts their connections, and tells the store.
//!
//! Deliberately absent: what becomes of the flows.

use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use super::auth::{self, Ends, HELLO, REPLY};
use super::link::{self, End, HANDSHAKE_TIMEOUT, Reader, SILENCE, Writer};
use super::node::{Node, Peer};
use super::wire::{Kind, Message};
use super::{Change, Store};

/// Connections of one peer that have not proved that they are the peer's.
const UNPROVED_MAX: u32 = 2;
/// How long a connection after another must last to be news: a peer that comes and goes would fill the log.
const STEADY: Duration = SILENCE;
/// After an error of accept(2), which is mostly a lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections of the peers; closes all others.
pub async fn keep_accepting<S: Store + 'static>(node: Rc<Node<S>>, listener: TcpListener) -> Infallible {
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "accepting a connection of replication failed");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let ip = from.ip().to_canonical();
        let Some(index) = node.peers.iter().position(|peer| peer.address.ip().to_canonical() == ip) else {
            tracing::debug!(%from, "closed a connection to the replication port: not an address in `peers`");
            node.refuse();
            continue;
        };
        let peer = &node.peers[index];
        if peer.unproved.get() >= UNPROVED_MAX {
            node.refuse();
            continue;
        }
        peer.unproved.set(peer.unproved.get() + 1);
        tokio::task::spawn_local(serve(Rc::clone(&node), index, stream));
    }
}

/// One connection, from accepting to its end.
async fn serve<S: Store>(node: Rc<Node<S>>, index: usize, stream: TcpStream) {
    let peer = &node.peers[index];
    let silent = |_| Err(End::Silent("waiting for its first messages", HANDSHAKE_TIMEOUT));
    let opened = timeout(HANDSHAKE_TIMEOUT, open(&node, peer, stream)).await.unwrap_or_else(silent);
    peer.unproved.set(peer.unproved.get() - 1);
    let mut table = match opened {
        Ok((reader, writer)) => {
            let since = Instant::now();
            Table { node: &node, index, reader, writer, since, frames: 1, number: None, is_open: false }
        }
        Err(end) => {
            // Whatever it was, it was nobody who has the key.
            node.refuse();
            tracing::debug!(peer = %peer.address, reason = %end, "closed a connection of replication");
            return;
        }
    };
    // Whoever is stored here serves the peer; dropping it tells the one before.
    let (mine, replaced) = oneshot::channel();
    peer.receiver.replace(Some(mine));
    peer.is_there.notify_one();
    if !peer.is_receiving.replace(true) && peer.told_end.borrow().is_none() {
        tracing::info!(peer = %peer.address, "hearing of a peer's flows");
    }
    let end = tokio::select! {
        // First: what an old connection still has to say must not follow what the new one said.
        biased;
        _ = replaced => return,
        Err(end) = table.receive() => end,
    };
    peer.is_receiving.set(false);
    if matches!(end, End::Refused(_)) {
        node.refuse();
    }
    tell_end(peer, end.to_string());
}

/// Each reason is logged once, until something else happens.
fn tell_end(peer: &Peer, reason: String) {
    let mut told = peer.told_end.borrow_mut();
    if told.as_ref() == Some(&reason) {
        tracing::debug!(peer = %peer.address, reason, "hearing no more of a peer's flows, as before");
    } else {
        tracing::warn!(peer = %peer.address, reason, "hearing no more of a peer's flows; those it told of stay");
        *told = Some(reason);
    }
}

/// Answers the hello, and waits for the first frame: it is the dialer's proof, and says nothing.
async fn open<S: Store>(node: &Node<S>, peer: &Peer, mut stream: TcpStream) -> Result<(Reader, Writer), End> {
    let mut hello = [0; HELLO];
    stream.read_exact(&mut hello).await.map_err(End::broken("reading its first message"))?;
    if !auth::is_hello(&hello) {
        return Err(End::Refused("not this protocol, or another version of it"));
    }
    let Ends { dialer: acceptor, acceptor: dialer } = link::ends(&stream)?;
    let ends = Ends { dialer, acceptor };
    let nonce = auth::random().map_err(End::broken("asking the kernel for random bytes"))?;
    let reply = node.key.reply(&hello, &nonce, ends);
    stream.set_nodelay(true).map_err(End::broken("setting TCP_NODELAY"))?;
    stream.write_all(&reply).await.map_err(End::broken("answering"))?;
    let session = node.key.session(&hello, &reply, ends);
    let (read, write) = stream.into_split();
    let (mut reader, mut writer) = (Reader::new(read, session.flows), Writer::new(write, session.acknowledgements));
    if reader.next(&peer.received_bytes).await? != Message::Heartbeat {
        return Err(End::Refused("a session that doesn't begin with a heartbeat"));
    }
    peer.received_bytes.set(peer.received_bytes.get() + HELLO as u64);
    peer.sent_bytes.set(peer.sent_bytes.get() + REPLY as u64);
    writer.send(Kind::Ack, &1_u64.to_be_bytes(), &peer.sent_bytes).await?;
    Ok((reader, writer))
}

/// A peer's flows, as one connection tells them.
struct Table<'a, S> {
    node: &'a Node<S>,
    index: usize,
    reader: Reader,
    writer: Writer,
    /// Of the proof.
    since: Instant,
    /// Processed on this connection.
    frames: u64,
    /// Of the last resynchronisation on this connection.
    number: Option<u32>,
    /// Whether it has not ended.
    is_open: bool,
}

impl<S: Store> Table<'_, S> {
    async fn receive(&mut self) -> Result<Infallible, End> {
        let peer = &self.node.peers[self.index];
        loop {
            let message = self.reader.next_in_time(&peer.received_bytes).await?;
            self.apply(message)?;
            // Something is heard each second.
            if self.since.elapsed() >= STEADY && peer.told_end.take().is_some() {
                tracing::info!(peer = %peer.address, "hearing of a peer's flows again");
            }
            self.frames += 1;
            let frames = self.frames.to_be_bytes();
            let ack = self.writer.send(Kind::Ack, &frames, &peer.sent_bytes);
            timeout(SILENCE, ack).await.unwrap_or(Err(End::Silent("acknowledging", SILENCE)))?;
        }
    }

    /// A message was read whole and is genuine before anything of it reaches the store.
    fn apply(&mut self, message: Message) -> Result<(), End> {
        let peer = &self.node.peers[self.index];
        let mut store = self.node.store.borrow_mut();
        match (message, self.number) {
            (Message::Heartbeat, _) => {}
            (Message::SyncBegin, _) => {
                // Counted here, over connections: two tables never have one number.
                let number = peer.sync.get().wrapping_add(1);
                peer.sync.set(number);
                (self.number, self.is_open) = (Some(number), true);
            }
            (Message::Changes(changes), Some(number)) => {
                for change in changes {
                    match change {
                        Change::Opened(record) => store.peer_opened(peer.index, number, record),
                        Change::Closed(key) => store.peer_closed(peer.index, &key),
                    }
                }
            }
            (Message::SyncEnd, Some(number)) if self.is_open => {
                self.is_open = false;
                store.peer_synced(peer.index, number);
            }
            (Message::Changes(_) | Message::SyncEnd, _) => return Err(End::Refused("changes before a table began")),
            (Message::Ack(_), _) => return Err(End::Refused("a message that only an acceptor sends")),
        }
        Ok(())
    }
}
