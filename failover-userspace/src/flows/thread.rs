//! The thread: reads what the programs tell ten times a second and passes it on, to the peers and to those who tell
//! clients; and keeps what was found at the start true.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread;

use anyhow::{Context, Result};
use aya::maps::{MapData, RingBuf};
use failover_common::abi::{FLOW_EVENTS_BYTES, FlowEvent, FlowEventKind, FlowKey, FlowOrigin, StaleAction};
use tokio::sync::mpsc::{self, UnboundedReceiver, WeakUnboundedSender};
use zerocopy::TryFromBytes;

use super::leaving::{self, Left};
use super::memory::{self, Memory};
use super::peers::{PeerStore, Shared};
use super::refused::Refused;
use super::sockets;
use super::telling::Telling;
use crate::clock::{self, Timer};
use crate::config::{Config, VirtualRouter};
use crate::dataplane::{Entries, FlowEvents};
use crate::replication::{Change, News, Record, Replication};

/// How often the ring is read, and peers are told.
const FLUSH_NS: u64 = 100_000_000;
/// And when there are none to tell.
const IDLE_FLUSH_NS: u64 = 1_000_000_000;
/// How often what was found at the start is looked for again, while there is any.
const LOOK_NS: u64 = 30_000_000_000;
/// How often the ring is read while clients' SYNs may be dropped, who are to be asked again soon.
const LEAVING_FLUSH_NS: u64 = 5_000_000;
/// Batches that wait for the replication; more are lost, and cost a whole table.
const NEWS_MAX: usize = 16;

/// What the other threads want. Unbounded: takeovers are paced by the election.
#[derive(Debug)]
pub enum Wish {
    /// The addresses of that virtual router were taken over: their clients are to be told.
    TookOver(usize),
    /// The addresses of that virtual router go: this node's connections on them are to be reset.
    Leave {
        /// Which.
        left: Left,
        /// Whether its interface is gone: no reset gets out, so the peers have to go on knowing the clients.
        is_gone: bool,
    },
    /// That many connections of this node were reset.
    Destroyed(u64),
    /// Peers are to be told now what happened.
    Flush,
}

/// The thread's state.
pub struct Flows {
    config: Arc<Config>,
    events: Option<RingBuf<MapData>>,
    /// Whether the kernel's TCP tells of connections.
    is_watched: bool,
    shared: Rc<RefCell<Shared>>,
    telling: Telling,
    refused: Refused,
    /// Virtual routers whose interface is gone with the addresses.
    gone: HashSet<usize>,
    /// To the thread that resets connections.
    leaving: Sender<Left>,
    /// Connections that nobody reports the end of.
    found: HashSet<FlowKey>,
    events_lost: u64,
}

impl Flows {
    /// Makes the table true: what an earlier controller left is compared with the sockets there are.
    ///
    /// # Errors
    /// When the maps cannot be opened.
    pub fn new(
        config: Arc<Config>,
        entries: Entries,
        events: Option<FlowEvents>,
        wishes: WeakUnboundedSender<Wish>,
    ) -> Result<Self> {
        let (leaving, left) = std::sync::mpsc::channel();
        let known = (config.clone(), entries.clone());
        let serve = move || leaving::serve(&known.0, &known.1, &left, &wishes);
        thread::Builder::new()
            .name("leave".into())
            .spawn(serve)
            .context("starting the thread that resets connections")?;
        let memory = Memory::open(&config.data_plane.pin_path)?;
        let peers = config.replication.as_ref().map_or(0, |replication| replication.peers.len());
        let shared = Rc::new(RefCell::new(Shared::new(memory, peers)));
        let (events, is_watched) = events.map_or((None, false), |events| (Some(events.ring), events.is_watched));
        let mut flows = Self {
            telling: Telling::new(config.clone(), entries.clone()),
            refused: Refused::new(config.clone(), entries),
            config,
            events,
            is_watched,
            shared,
            gone: HashSet::new(),
            leaving,
            found: HashSet::new(),
            events_lost: 0,
        };
        flows.events_lost = flows.shared.borrow().memory.events_lost();
        if let Err(error) = flows.find() {
            tracing::warn!(
                error = format!("{error:#}"),
                "connections that were there before are not known: after a takeover their clients are not told"
            );
        }
        Ok(flows)
    }

    /// Serves until the wishes' senders are gone, and all that is left to tell has been told.
    ///
    /// # Errors
    /// When its timer fails.
    pub async fn run(self, replication: Option<Replication>, wishes: UnboundedReceiver<Wish>) -> Result<()> {
        let (news, news_in) = mpsc::channel(NEWS_MAX);
        let store = PeerStore::new(self.shared.clone(), remembered(&self.config));
        let replicate = async {
            if let Some(replication) = replication
                && let Err(error) = replication.run(store, news_in).await
            {
                tracing::error!(
                    error = format!("{error:#}"),
                    "replication ended: peers don't know this node's connections"
                );
            }
        };
        let (worked, ()) = tokio::join!(self.work(wishes, news), replicate);
        worked
    }

    async fn work(mut self, mut wishes: UnboundedReceiver<Wish>, news: mpsc::Sender<News>) -> Result<()> {
        let timer = Timer::new().context("making a timer")?;
        let mut flush_ns = clock::now_ns();
        let mut look_ns = flush_ns + LOOK_NS;
        loop {
            let next_ns = self.telling.next_ns().map_or(flush_ns, |next_ns| next_ns.min(flush_ns));
            timer.arm(Some(next_ns)).context("arming the timer")?;
            tokio::select! {
                biased;
                wish = wishes.recv() => match wish {
                    Some(Wish::TookOver(router)) => {
                        self.gone.remove(&router);
                        self.telling.hold(router);
                    }
                    Some(Wish::Leave { left, is_gone }) => self.leave(left, is_gone),
                    Some(Wish::Destroyed(count)) => {
                        self.shared.borrow_mut().memory.show(|status| status.destroyed += count);
                        self.refused.expect();
                        flush_ns = 0;
                    }
                    Some(Wish::Flush) => flush_ns = 0,
                    None => break,
                },
                fired = timer.fired() => fired.context("waiting for the timer")?,
            }
            let now_ns = clock::now_ns();
            self.telling.run(now_ns, &self.shared);
            if now_ns >= look_ns {
                look_ns = now_ns + LOOK_NS;
                self.look(&news);
            }
            if now_ns >= flush_ns {
                flush_ns = now_ns + self.flush_period_ns(now_ns);
                self.flush(&news);
            }
        }
        self.flush(&news);
        Ok(())
    }

    fn flush_period_ns(&self, now_ns: u64) -> u64 {
        if self.refused.is_expected(now_ns) {
            LEAVING_FLUSH_NS
        } else if self.config.replication.is_some() {
            FLUSH_NS
        } else {
            IDLE_FLUSH_NS
        }
    }

    /// Passes on what the socket program told.
    fn flush(&mut self, news: &mpsc::Sender<News>) {
        let changes = self.drain();
        self.refused.ask_again();
        if news.is_closed() {
            return;
        }
        let events_lost = self.shared.borrow().memory.events_lost();
        if events_lost != self.events_lost {
            // What cannot be told now is told at the next flush.
            if news.try_send(News::Lost).is_ok() {
                self.events_lost = events_lost;
            }
        } else {
            self.tell_peers(news, changes);
        }
    }

    /// Hands changes to the replication; when it is too far behind, it gets the whole table later.
    fn tell_peers(&mut self, news: &mpsc::Sender<News>, changes: Vec<Change>) {
        if !changes.is_empty() && news.try_send(News::Changes(changes)).is_err() {
            self.events_lost = u64::MAX;
        }
    }

    /// What the ring holds; of several changes to one flow the last.
    fn drain(&mut self) -> Vec<Change> {
        let Some(events) = &mut self.events else { return Vec::new() };
        let mut changes = HashMap::new();
        let (config, gone) = (&self.config, &self.gone);
        let is_gone = |key: &FlowKey| gone.iter().any(|router| is_of(&config.virtual_routers[*router], key));
        // More than fit into it, so that a busy node cannot keep this loop.
        for _ in 0..FLOW_EVENTS_BYTES / 32 {
            let Some(item) = events.next() else { break };
            let Ok(event) = FlowEvent::try_read_from_bytes(&item) else { continue };
            let key = event.key;
            let change = match event.kind {
                FlowEventKind::Refused => {
                    self.refused.add(key);
                    continue;
                }
                FlowEventKind::Opened => {
                    self.found.remove(&key);
                    Change::Opened(Record { key, send_next: Some(event.send_next) })
                }
                FlowEventKind::Closed => {
                    if self.found.remove(&key) {
                        self.shared.borrow_mut().memory.remove_found(&key);
                    }
                    if is_gone(&key) {
                        continue;
                    }
                    Change::Closed(key)
                }
            };
            changes.insert(key, change);
        }
        changes.into_values().collect()
    }

    /// Has this node's connections reset, on a thread of their own: many take as long as a second.
    fn leave(&mut self, left: Left, is_gone: bool) {
        if is_gone {
            self.gone.insert(left.router);
        }
        // Without that thread, whoever waits hears at once that there is nothing to wait for.
        let _ = self.leaving.send(left);
    }

    /// What was found and is no more; and what silent peers left.
    fn look(&mut self, news: &mpsc::Sender<News>) {
        if let Err(error) = self.shared.borrow_mut().expire(clock::now_ns()) {
            tracing::warn!(error = format!("{error:#}"), "a silent peer's flows stay in the table");
        }
        if let Err(error) = self.shared.borrow_mut().memory.forget_handshakes(clock::now_ns()) {
            tracing::warn!(error = format!("{error:#}"), "handshakes that are over stay in memory");
        }
        if self.found.is_empty() {
            return;
        }
        let Ok(there) = sockets::list(&self.addresses()) else { return };
        let there: HashSet<_> = there.into_iter().collect();
        let gone: Vec<_> = self.found.difference(&there).copied().collect();
        for key in &gone {
            self.found.remove(key);
            self.shared.borrow_mut().memory.remove_found(key);
        }
        self.tell_peers(news, gone.into_iter().map(Change::Closed).collect());
    }

    /// What is there already. The socket program is attached by now, so nothing falls between the two; and what it tells
    /// of meanwhile stays as it tells it.
    fn find(&mut self) -> Result<()> {
        let attached_ns = clock::now_ns();
        let remembered = remembered(&self.config);
        let mut shared = self.shared.borrow_mut();
        let is_same = shared.memory.has_peers(&self.config)?;
        shared.memory.remove_all(|key, flow| match flow.origin {
            FlowOrigin::Peer => !is_same || !memory::local(key).is_some_and(|local| remembered.contains_key(&local)),
            FlowOrigin::Socket | FlowOrigin::Found => flow.since_ns < attached_ns,
        })?;
        if !self.is_watched {
            return Ok(());
        }
        for key in sockets::list(&self.addresses())? {
            if shared.memory.put_found(&key) {
                self.found.insert(key);
            }
        }
        Ok(())
    }

    fn addresses(&self) -> Vec<Ipv4Addr> {
        remembered(&self.config).into_keys().collect()
    }
}

/// The addresses whose flows are remembered, with the ports they are narrowed to; none: all.
fn remembered(config: &Config) -> HashMap<Ipv4Addr, Vec<u16>> {
    let routers = config.virtual_routers.iter().filter(|router| router.stale_connections.action == StaleAction::Reset);
    routers
        .flat_map(|router| router.addresses.iter().map(|net| (net.addr(), router.stale_connections.ports.clone())))
        .collect()
}

/// Whether the flow is one of the virtual router's that resets are about.
pub(super) fn is_of(router: &VirtualRouter, key: &FlowKey) -> bool {
    let ports = &router.stale_connections.ports;
    let is_local = |local| router.addresses.iter().any(|net| net.addr() == local);
    memory::local(key).is_some_and(is_local) && (ports.is_empty() || ports.contains(&key.local_port))
}
