//! The thread: reads what the socket program tells ten times a second and passes it on to the peers; after a takeover
//! has the peers' clients told; and keeps what was found at the start true.

use std::cell::RefCell;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Context, Result};
use aya::maps::{MapData, RingBuf};
use failover_common::abi::{FLOW_EVENTS_BYTES, FlowEvent, FlowEventKind, FlowKey, FlowOrigin, StaleAction};
use tokio::sync::mpsc::{self, UnboundedReceiver};
use zerocopy::TryFromBytes;

use super::leaving;
use super::memory::{self, Memory};
use super::peers::{PeerStore, Shared};
use super::sockets;
use super::tickle::{Rounds, Segment, Sender, Sent};
use crate::clock::{self, Timer};
use crate::config::{Config, VirtualRouter};
use crate::dataplane::{Entries, maps};
use crate::replication::{Change, News, Record, Replication};

/// How often the ring is read, and peers are told.
const FLUSH_NS: u64 = 100_000_000;
/// And when there are none to tell.
const IDLE_FLUSH_NS: u64 = 1_000_000_000;
/// How often what was found at the start is looked for again, while there is any.
const LOOK_NS: u64 = 30_000_000_000;
/// How often the ring is read while clients' SYNs may be dropped, who are to be asked again soon.
const LEAVING_FLUSH_NS: u64 = 5_000_000;
/// After this they ask again by themselves (RFC 6298 2.1: one second).
const REFUSED_KEPT_NS: u64 = 1_000_000_000;
/// Of more at once, the rest waits for that second.
const REFUSED_MAX: usize = 65_536;
/// Batches that wait for the replication; more are lost, and cost a whole table.
const NEWS_MAX: usize = 16;

/// What the other threads want. Unbounded: takeovers are paced by the election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// The addresses of that virtual router were taken over: their clients are to be told.
    TookOver(usize),
    /// That many connections of this node were reset.
    Destroyed(u64),
    /// Peers are to be told now what happened.
    Flush,
}

/// The thread's state.
pub struct Flows {
    config: Arc<Config>,
    entries: Entries,
    events: Option<RingBuf<MapData>>,
    shared: Rc<RefCell<Shared>>,
    rounds: Rounds,
    senders: HashMap<Ipv4Addr, Sender>,
    /// Connections that nobody reports the end of.
    found: HashSet<FlowKey>,
    /// Clients whose SYN this node dropped as it let the address go, with the time: they wait for whoever has it next.
    refused: HashMap<FlowKey, u64>,
    /// Until when more of them are expected: this node has just reset connections.
    leaving_until_ns: u64,
    events_lost: u64,
}

impl Flows {
    /// Makes the table true: what an earlier controller left is compared with the sockets there are.
    ///
    /// # Errors
    /// When the maps cannot be opened.
    pub fn new(config: Arc<Config>, entries: Entries, events: Option<RingBuf<MapData>>) -> Result<Self> {
        let mut memory = Memory::open(&config.data_plane.pin_path)?;
        memory.forget_peers()?;
        let peers = config.replication.as_ref().map_or(0, |replication| replication.peers.len());
        let shared = Rc::new(RefCell::new(Shared::new(memory, peers)));
        let mut flows = Self {
            config,
            entries,
            events,
            shared,
            rounds: Rounds::default(),
            senders: HashMap::new(),
            found: HashSet::new(),
            refused: HashMap::new(),
            leaving_until_ns: 0,
            events_lost: 0,
        };
        flows.events_lost = flows.read_events_lost();
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
            let next_ns = self.rounds.next_ns().map_or(flush_ns, |next_ns| next_ns.min(flush_ns));
            timer.arm(Some(next_ns)).context("arming the timer")?;
            tokio::select! {
                biased;
                wish = wishes.recv() => match wish {
                    Some(Wish::TookOver(router)) => self.take_over(router),
                    Some(Wish::Destroyed(count)) => {
                        self.shared.borrow_mut().memory.show(|status| status.destroyed += count);
                        self.leaving_until_ns = clock::now_ns() + REFUSED_KEPT_NS;
                        flush_ns = 0;
                    }
                    Some(Wish::Flush) => flush_ns = 0,
                    None => break,
                },
                fired = timer.fired() => fired.context("waiting for the timer")?,
            }
            let now_ns = clock::now_ns();
            self.tell_clients(now_ns);
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
        if now_ns < self.leaving_until_ns || !self.refused.is_empty() {
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
        self.ask_again();
        if news.is_closed() {
            return;
        }
        let events_lost = self.read_events_lost();
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
        // More than fit into it, so that a busy node cannot keep this loop.
        for _ in 0..FLOW_EVENTS_BYTES / 32 {
            let Some(item) = events.next() else { break };
            let Ok(event) = FlowEvent::try_read_from_bytes(&item) else { continue };
            if event.kind == FlowEventKind::Refused {
                if self.refused.len() < REFUSED_MAX {
                    self.refused.insert(event.key, clock::now_ns());
                }
                continue;
            }
            self.found.remove(&event.key);
            let change = match event.kind {
                FlowEventKind::Opened => Change::Opened(Record { key: event.key, send_next: Some(event.send_next) }),
                FlowEventKind::Closed | FlowEventKind::Refused => Change::Closed(event.key),
            };
            changes.insert(event.key, change);
        }
        changes.into_values().collect()
    }

    /// Clients whose SYN was dropped would ask again after a second. A segment that acknowledges nothing of theirs makes
    /// them answer with a reset (RFC 9293 3.10.7.3), and Linux ask again at once; so that is what they get, as soon as
    /// another node is there to be asked.
    fn ask_again(&mut self) {
        let Self { config, entries, senders, refused, .. } = self;
        let now_ns = clock::now_ns();
        let has_successor = |key: &FlowKey, at_ns| {
            let mut routers = (0_u32..).zip(&config.virtual_routers).filter(|(_, router)| is_of(router, key));
            routers.any(|(index, _)| entries.entry(index).is_some_and(|entry| leaving::has_successor(&entry, at_ns)))
        };
        refused.retain(|key, at_ns| {
            let is_due = has_successor(key, *at_ns);
            if is_due {
                // One that does not go out is only asked later.
                let _ = send(senders, key, Segment::Tickle(None));
            }
            !is_due && now_ns.saturating_sub(*at_ns) < REFUSED_KEPT_NS
        });
    }

    fn read_events_lost(&self) -> u64 {
        maps::read_counters(&self.config.data_plane.pin_path).map_or(0, |counters| counters.flow_event_lost)
    }

    /// Clients of the node that had the addresses before.
    fn take_over(&mut self, router: usize) {
        let Some(config) = self.config.virtual_routers.get(router) else { return };
        if config.stale_connections.action != StaleAction::Reset {
            return;
        }
        let mut clients = Vec::new();
        let read = self.shared.borrow().memory.for_each(|key, flow| {
            if flow.origin == FlowOrigin::Peer && is_of(config, &key) {
                clients.push((key, (flow.has_send_next != 0).then_some(flow.send_next)));
            }
        });
        if let Err(error) = read {
            tracing::warn!(instance = %config.name, error = format!("{error:#}"), "silent clients of the node before are not told");
        }
        if !clients.is_empty() {
            tracing::info!(instance = %config.name, clients = clients.len(), "telling the clients of the node before that their connections are over");
        }
        // A second takeover starts anew.
        self.rounds.retain(|key| !is_of(config, key));
        self.rounds.add(clock::now_ns(), clients);
    }

    /// What is due of the rounds.
    fn tell_clients(&mut self, now_ns: u64) {
        if self.rounds.next_ns().is_none_or(|next_ns| next_ns > now_ns) {
            return;
        }
        let Self { config, entries, rounds, senders, shared, .. } = self;
        let live: Vec<_> = (0_u32..)
            .zip(&config.virtual_routers)
            .map(|(index, router)| (router, entries.entry(index).is_some_and(|entry| entry.is_live(now_ns))))
            .collect();
        let is_held = |key: &FlowKey| live.iter().any(|(router, is_live)| *is_live && is_of(router, key));
        let (mut resets, mut tickles) = (0, 0);
        let mut shared = shared.borrow_mut();
        // The XDP program takes a flow out whose client has ended it or begun it anew.
        let memory = &shared.memory;
        let is_wanted =
            |key: &FlowKey| is_held(key) && memory.get(key).is_some_and(|flow| flow.origin == FlowOrigin::Peer);
        rounds.run(now_ns, is_wanted, |key, segment| {
            let sent = send(senders, key, segment);
            if matches!(sent, Sent::Out) {
                match segment {
                    Segment::Reset(_) => resets += 1,
                    Segment::Tickle(_) => tickles += 1,
                }
            }
            sent
        });
        shared.memory.show(|status| {
            status.direct_resets += resets;
            status.tickles += tickles;
        });
    }

    /// What was found and is no more; and what silent peers left.
    fn look(&mut self, news: &mpsc::Sender<News>) {
        if let Err(error) = self.shared.borrow_mut().expire(clock::now_ns()) {
            tracing::warn!(error = format!("{error:#}"), "a silent peer's flows stay in the table");
        }
        if self.found.is_empty() {
            return;
        }
        let Ok(there) = sockets::list(&self.addresses()) else { return };
        let there: HashSet<_> = there.into_iter().collect();
        let gone: Vec<_> = self.found.difference(&there).copied().collect();
        for key in &gone {
            self.found.remove(key);
            self.shared.borrow_mut().memory.remove(key);
        }
        self.tell_peers(news, gone.into_iter().map(Change::Closed).collect());
    }

    /// What is there already. The socket program is attached by now, so nothing falls between the two; and what it tells
    /// of meanwhile stays as it tells it.
    fn find(&mut self) -> Result<()> {
        let attached_ns = clock::now_ns();
        if self.events.is_none() {
            return Ok(());
        }
        let there: HashSet<_> = sockets::list(&self.addresses())?.into_iter().collect();
        let remembered = remembered(&self.config);
        let mut shared = self.shared.borrow_mut();
        let has_peers = self.config.replication.is_some();
        shared.memory.remove_all(|key, flow| match flow.origin {
            FlowOrigin::Peer => !has_peers || !memory::local(key).is_some_and(|local| remembered.contains_key(&local)),
            FlowOrigin::Socket | FlowOrigin::Found => flow.since_ns < attached_ns,
        })?;
        for key in there {
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

/// Sends through the address's socket, which is opened when it is first needed.
fn send(senders: &mut HashMap<Ipv4Addr, Sender>, key: &FlowKey, segment: Segment) -> Sent {
    let Some(local) = memory::local(key) else {
        return Sent::Failed(rustix::io::Errno::AFNOSUPPORT.into());
    };
    let sender = match senders.entry(local) {
        Entry::Occupied(sender) => sender.into_mut(),
        Entry::Vacant(place) => match Sender::open(local) {
            Ok(sender) => place.insert(sender),
            Err(error) => {
                tracing::warn!(address = %local, %error, "no raw socket: its silent clients are not told");
                return Sent::Failed(error);
            }
        },
    };
    sender.send(key, segment)
}
