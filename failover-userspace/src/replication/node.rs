//! What this node's connections share, and the numbers told about them.
//!
//! Deliberately absent: the connections.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use failover_common::abi;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::auth::Key;
use super::outbox::Outbox;
use super::{News, Settings, Store, address, wire};

const REPORT_PERIOD: Duration = Duration::from_millis(100);
/// How long the last changes may take to be confirmed when this node stops.
const FAREWELL: Duration = Duration::from_millis(500);
const FAREWELL_STEP: Duration = Duration::from_millis(5);

/// This node.
pub struct Node<S> {
    pub key: Key,
    /// What to dial from; `None`: whatever the kernel takes.
    pub source: Option<SocketAddr>,
    pub peers: Vec<Peer>,
    /// Never borrowed across an await.
    pub store: RefCell<S>,
    refused: Cell<u64>,
}

/// One configured peer: what goes to it, what comes from it.
pub struct Peer {
    /// In the configuration.
    pub index: u32,
    pub address: SocketAddr,
    /// Never borrowed across an await.
    pub outbox: RefCell<Outbox>,
    /// Something was put into the outbox, or it may send again.
    pub has_work: Notify,
    /// The peer has just dialled this node: it is there, and may be dialled at once.
    pub is_there: Notify,
    pub is_sending: Cell<bool>,
    pub is_receiving: Cell<bool>,
    /// Why hearing of its flows ended, as last logged; `None` once it is logged that they are heard of.
    pub told_end: RefCell<Option<String>>,
    pub sent_bytes: Cell<u64>,
    pub received_bytes: Cell<u64>,
    pub syncs: Cell<u64>,
    /// Accepted connections that proved nothing yet.
    pub unproved: Cell<u32>,
    /// Held for the accepted connection that serves the peer; gone, it ends.
    pub receiver: Cell<Option<oneshot::Sender<Infallible>>>,
    /// The number of its last table.
    pub sync: Cell<u32>,
}

impl<S: Store> Node<S> {
    /// # Errors
    /// When the kernel has no random bytes.
    pub fn new(settings: &Settings, store: S) -> std::io::Result<Self> {
        let ip = settings.listen.ip();
        let peers = settings.peers.iter().zip(0..).map(|(address, index)| Peer::new(index, *address));
        Ok(Self {
            key: settings.key.clone(),
            source: (!ip.is_unspecified()).then(|| SocketAddr::new(ip, 0)),
            peers: peers.collect::<Result<_, _>>()?,
            store: RefCell::new(store),
            refused: Cell::new(0),
        })
    }

    /// Counts something that was refused.
    pub fn refuse(&self) {
        self.refused.set(self.refused.get() + 1);
    }

    /// Hands changes to all peers until their sender is gone, and waits a little for the last to be confirmed.
    pub async fn feed(&self, mut news: mpsc::Receiver<News>) {
        while let Some(news) = news.recv().await {
            let now = Instant::now();
            match news {
                News::Changes(changes) => {
                    let bodies = wire::encode(wire::coalesce(changes));
                    self.peers.iter().for_each(|peer| peer.outbox.borrow_mut().push(&bodies, now));
                }
                News::Lost => self.peers.iter().for_each(|peer| peer.outbox.borrow_mut().miss(now)),
            }
            self.peers.iter().for_each(|peer| peer.has_work.notify_one());
        }
        let is_done = || self.peers.iter().all(|peer| peer.outbox.borrow().is_done());
        let done = async {
            while !is_done() {
                sleep(FAREWELL_STEP).await;
            }
        };
        // Too late is too late: the next Active finds out by itself.
        let _ = timeout(FAREWELL, done).await;
    }

    /// Tells the store of each number that changed.
    pub async fn report(&self) -> Infallible {
        let mut period = interval(REPORT_PERIOD);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = vec![None; self.peers.len()];
        let mut told_refused = None;
        loop {
            period.tick().await;
            let mut store = self.store.borrow_mut();
            for (peer, told) in self.peers.iter().zip(&mut told) {
                let now = Some(peer.status());
                if *told != now {
                    *told = now;
                    store.report(peer.index, &peer.status());
                }
            }
            if told_refused.replace(self.refused.get()) != Some(self.refused.get()) {
                store.report_refused(self.refused.get());
            }
        }
    }
}

impl Peer {
    fn new(index: u32, address: SocketAddr) -> std::io::Result<Self> {
        Ok(Self {
            index,
            address,
            outbox: RefCell::default(),
            has_work: Notify::new(),
            is_there: Notify::new(),
            is_sending: Cell::new(false),
            is_receiving: Cell::new(false),
            told_end: RefCell::default(),
            sent_bytes: Cell::new(0),
            received_bytes: Cell::new(0),
            syncs: Cell::new(0),
            unproved: Cell::new(0),
            receiver: Cell::new(None),
            // Not from zero: a store that outlives this process may have numbers of the one before.
            sync: Cell::new(u32::from_ne_bytes(super::auth::random()?)),
        })
    }

    fn status(&self) -> abi::Peer {
        abi::Peer {
            address: address(self.address.ip()),
            port: self.address.port(),
            is_sending: self.is_sending.get().into(),
            is_receiving: self.is_receiving.get().into(),
            lag_ms: self.outbox.borrow().lag_ms(Instant::now()),
            sent_bytes: self.sent_bytes.get(),
            received_bytes: self.received_bytes.get(),
            syncs: self.syncs.get(),
        }
    }
}
