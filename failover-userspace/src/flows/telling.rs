//! Clients of the node whose addresses this one took over: collected when the hold is over, told in rounds.
//!
//! Deliberately absent: the pacing and the segments (`tickle`).

use std::cell::RefCell;
use std::sync::Arc;

use failover_common::abi::{FlowKey, FlowOrigin, StaleAction};
use failover_common::stale::{is_split, is_taken_over};

use super::memory::Memory;
use super::peers::Shared;
use super::thread::is_of;
use super::tickle::{Rounds, Segment, Senders, Sent};
use crate::clock;
use crate::config::Config;
use crate::dataplane::{Entries, Entry};

/// Virtual routers that are taken over within this time have the table read for them once, and not in the midst of it.
const TOGETHER_NS: u64 = 10_000_000;

/// See the module.
pub struct Telling {
    config: Arc<Config>,
    entries: Entries,
    rounds: Rounds,
    senders: Senders,
    /// Virtual routers that were taken over, and from when on their clients are told: `hold` gives a state sync time.
    held: Vec<(u64, usize)>,
}

impl Telling {
    /// Nobody to tell.
    pub fn new(config: Arc<Config>, entries: Entries) -> Self {
        Self { config, entries, rounds: Rounds::default(), senders: Senders::default(), held: Vec::new() }
    }

    /// When [`Self::run`] has something to do.
    pub fn next_ns(&self) -> Option<u64> {
        let held_ns = self.held.iter().map(|(due_ns, _)| *due_ns).min();
        [self.rounds.next_ns(), held_ns].into_iter().flatten().min()
    }

    /// Does what is due.
    pub fn run(&mut self, now_ns: u64, shared: &RefCell<Shared>) {
        let memory = &mut shared.borrow_mut().memory;
        self.take_over_due(now_ns, memory);
        self.tell(now_ns, memory);
    }

    /// Notes a takeover, for when its hold is over. Without peers there is nobody to tell, and reading the table takes a
    /// CPU from everybody for as long as it takes.
    pub fn hold(&mut self, router: usize) {
        let (Some(entry), Some(config)) = (self.entries.entry(router as u32), self.config.virtual_routers.get(router))
        else {
            return;
        };
        if self.config.replication.is_none() || config.stale_connections.action != StaleAction::Reset {
            return;
        }
        self.held.retain(|(_, held)| *held != router);
        let hold_ns = (config.stale_connections.hold.as_nanos() as u64).max(TOGETHER_NS);
        self.held.push((entry.takeover().at_ns + hold_ns, router));
    }

    /// Clients of the node that had the addresses before.
    fn take_over_due(&mut self, now_ns: u64, memory: &Memory) {
        let (due, held): (Vec<_>, _) = self.held.iter().copied().partition(|(due_ns, _)| *due_ns <= now_ns);
        self.held = held;
        if due.is_empty() {
            return;
        }
        let (config, entries) = (&self.config, &self.entries);
        let of = |(_, router): (u64, usize)| {
            Some((&config.virtual_routers[router], entries.entry(router as u32)?.takeover(), Vec::new()))
        };
        let mut taken: Vec<_> = due.into_iter().filter_map(of).collect();
        let read = memory.for_each(|key, flow| {
            if flow.origin != FlowOrigin::Peer {
                return;
            }
            let mut taken = taken.iter_mut();
            let of = taken.find(|(router, takeover, _)| is_taken_over(takeover, flow.since_ns) && is_of(router, &key));
            if let Some((_, _, clients)) = of {
                clients.push((key, (flow.has_send_next != 0).then_some(flow.send_next)));
            }
        });
        if let Err(error) = read {
            tracing::warn!(error = format!("{error:#}"), "silent clients of the node before are not told");
        }
        for (router, _, clients) in taken {
            if !clients.is_empty() {
                let clients = clients.len();
                tracing::info!(instance = %router.name, clients, "telling the clients of the node before that their connections are over");
            }
            // A second takeover starts anew.
            self.rounds.retain(|key| !is_of(router, key));
            self.rounds.add(clock::now_ns(), clients);
        }
    }

    /// What is due of the rounds.
    fn tell(&mut self, now_ns: u64, memory: &mut Memory) {
        let Self { config, entries, rounds, senders, .. } = self;
        match rounds.next_ns() {
            Some(next_ns) if next_ns <= now_ns => {}
            Some(_) => return,
            None => return senders.clear(),
        }
        let held: Vec<_> = (0_u32..)
            .zip(&config.virtual_routers)
            .filter(|(index, _)| entries.entry(*index).is_some_and(|entry| may_tell(&entry, now_ns)))
            .map(|(_, router)| router)
            .collect();
        // The XDP program takes a flow out whose client has ended it or begun it anew.
        let known: &Memory = memory;
        let is_wanted = |key: &FlowKey| {
            held.iter().any(|router| is_of(router, key))
                && known.get(key).is_some_and(|flow| flow.origin == FlowOrigin::Peer)
        };
        let (mut resets, mut tickles, mut unsent) = (0, 0, 0);
        rounds.run(now_ns, is_wanted, |key, segment| {
            let sent = senders.send(key, segment);
            match (&sent, segment) {
                (Sent::Out, Segment::Reset(_)) => resets += 1,
                (Sent::Out, Segment::Tickle(_)) => tickles += 1,
                (Sent::Failed(_), _) => unsent += 1,
                (Sent::Later, _) => {}
            }
            sent
        });
        memory.show(|status| {
            status.direct_resets += resets;
            status.tickles += tickles;
            status.unsent += unsent;
        });
    }
}

/// Whether clients may be told now: under a live lease, and by the only owner.
fn may_tell(entry: &Entry, now_ns: u64) -> bool {
    let interval_cs = entry.settings().advert_interval_cs;
    entry.is_live(now_ns) && !is_split(&entry.takeover(), &entry.heard(), interval_cs, now_ns)
}
