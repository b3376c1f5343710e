//! Nodes tell their peers which established TCP connections they serve, so that a new Active can reach the clients of a
//! dead one.
//!
//! Each node dials every peer and sends its own flows over that connection; what it accepts are the peers' flows. It is
//! TCP because order, retransmission, flow and congestion control are then the kernel's. A peer is known by its IP
//! address, and proves that it has the key (`auth.rs`). A connection starts with the whole table and goes on with
//! changes (`outbox.rs`, `wire.rs`); one that breaks is dialled again.
//!
//! What is bounded, per peer: changes that wait (4 MiB, then a table instead), one encoded table, frames that are not
//! confirmed, connections that have not proved anything (2), frames (16 KiB), the rate (4 MB/s).
//!
//! Deliberately absent: where flows come from and what becomes of them, which is the [`Store`]; and the configuration.

pub mod auth;
pub mod link;
mod listener;
mod node;
mod outbox;
mod receiver;
mod sender;
#[cfg(test)]
mod tests;
pub mod wire;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::rc::Rc;

use anyhow::{Context, Result, bail};
use failover_common::abi::{self, FlowKey};
use failover_common::address::Address;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, LocalSet};

pub use self::auth::Key;
use self::node::Node;

/// What the configuration says.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where peers dial this node. Peers are dialled from this address, unless it is unspecified.
    pub listen: SocketAddr,
    /// The peers: connections come from these and from no others. Each has an IP address of its own, which the
    /// configuration sees to: of two with one address the first alone would be heard.
    pub peers: Vec<SocketAddr>,
    /// What all nodes share.
    pub key: Key,
}

/// An established flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Which.
    pub key: FlowKey,
    /// [`abi::Flow::send_next`], if known.
    pub send_next: Option<u32>,
}

/// What happened to a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Established.
    Opened(Record),
    /// Its socket is closed.
    Closed(FlowKey),
}

impl Change {
    /// The flow.
    pub fn key(&self) -> &FlowKey {
        match self {
            Self::Opened(record) => &record.key,
            Self::Closed(key) => key,
        }
    }
}

/// What the caller tells of its own flows.
#[derive(Clone, Debug)]
pub enum News {
    /// What happened since the last news, in order; about ten such batches a second. Of several changes to one flow the
    /// last is enough, and it must be there: a flow that opened and closed is told as closed, for a table may have been
    /// read in between.
    Changes(Vec<Change>),
    /// Something happened that nobody can tell: the peers are sent the whole table.
    Lost,
}

/// Where flows come from and go to. Called on the replication's own thread only; must not block for long.
pub trait Store {
    /// Every flow that this node serves now: whatever happened before is in it, whatever happens after comes as
    /// [`News`].
    ///
    /// # Errors
    /// When it can't be read. That connection ends and is tried again in a second.
    fn own_flows(&mut self) -> Result<Vec<Record>>;
    /// A peer serves a flow. `sync` is the number of the peer's table that confirms it.
    fn peer_opened(&mut self, peer: u32, sync: u32, record: Record);
    /// A peer serves a flow no more. It may be one that nobody told of.
    fn peer_closed(&mut self, peer: u32, key: &FlowKey);
    /// A peer's table is complete: what it has not confirmed with this number is gone. Numbers of one peer differ from
    /// table to table; they start anywhere and wrap.
    fn peer_synced(&mut self, peer: u32, sync: u32);
    /// A peer's numbers changed; at most ten times a second.
    fn report(&mut self, peer: u32, status: &abi::Peer);
    /// Connections and messages refused so far: strangers, forged, replayed, broken.
    fn report_refused(&mut self, total: u64);
}

/// The replication, bound to its address.
#[derive(Debug)]
pub struct Replication {
    settings: Settings,
    listener: TcpListener,
}

impl Replication {
    /// Binds the address, also before it is on this machine. From then on peers can connect; they are served once it
    /// runs.
    ///
    /// # Errors
    /// When the address can't be bound; says what to do.
    pub fn bind(settings: Settings) -> Result<Self> {
        let listener = listener::listen(settings.listen).with_context(|| {
            format!("listening for peers on {}: the port has to be free (`ss -ltnp` says who has it)", settings.listen)
        })?;
        Ok(Self { settings, listener })
    }

    /// Replicates until the sender of `news` is gone, then waits up to 500 ms for peers to confirm the last of it.
    /// Needs a tokio runtime; the current thread runs all of it, and each peer is a task of its own.
    ///
    /// # Errors
    /// When it can't be started. No peer can end it.
    pub async fn run<S: Store + 'static>(self, store: S, news: mpsc::Receiver<News>) -> Result<()> {
        let listener = tokio::net::TcpListener::from_std(self.listener).context("using the replication's listener")?;
        let node = Node::new(&self.settings, store).context("asking the kernel for random bytes")?;
        LocalSet::new().run_until(run(Rc::new(node), listener, news)).await
    }
}

async fn run<S: Store + 'static>(
    node: Rc<Node<S>>,
    listener: tokio::net::TcpListener,
    news: mpsc::Receiver<News>,
) -> Result<()> {
    let mut tasks = JoinSet::<Infallible>::new();
    tasks.spawn_local(receiver::keep_accepting(Rc::clone(&node), listener));
    for index in 0..node.peers.len() {
        tasks.spawn_local(sender::keep_sending(Rc::clone(&node), index));
    }
    tokio::select! {
        () = node.feed(news) => Ok(()),
        never = node.report() => match never {},
        Some(Err(error)) = tasks.join_next() => bail!("a task of the replication ended: {error}"),
    }
}

/// An IP address as the maps have it.
fn address(ip: IpAddr) -> Address {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) => Address { bytes: ip.octets() },
    }
}
