//! The peers' flows, as the replication tells of them.
//!
//! Deliberately absent: the protocol (`crate::replication`), and what becomes of the flows after a takeover (`telling`).

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::rc::Rc;

use anyhow::Result;
use failover_common::abi::{FlowKey, FlowOrigin, Peer};

use super::memory::{self, Memory};
use crate::clock;
use crate::replication::{Record, Store};

/// A peer's flows are kept for this long after it was last heard. Whoever takes over from a dead peer does so within
/// minutes at most (three intervals of 40.95 s); what is older describes nobody.
const KEPT_NS: u64 = 180_000_000_000;

/// What the thread and the replication share.
pub struct Shared {
    /// The table.
    pub memory: Memory,
    /// For each peer that is not heard, since when; 0 for one that is.
    silent_since_ns: Vec<u64>,
    /// Whether a full table was told of.
    is_full: bool,
}

impl Shared {
    /// With peers of whom nothing was heard yet.
    pub fn new(memory: Memory, peers: usize) -> Self {
        Self { memory, silent_since_ns: vec![clock::now_ns(); peers], is_full: false }
    }

    /// Forgets the flows of peers that have been silent for long.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub fn expire(&mut self, now_ns: u64) -> Result<()> {
        let is_over = |since_ns: &u64| *since_ns != 0 && now_ns.saturating_sub(*since_ns) >= KEPT_NS;
        let over: Vec<bool> = self.silent_since_ns.iter().map(is_over).collect();
        if !over.contains(&true) {
            return Ok(());
        }
        self.memory.remove_all(|_, flow| {
            flow.origin == FlowOrigin::Peer && over.get(flow.peer as usize).copied().unwrap_or(true)
        })?;
        // Nothing is left of them: look again after as long.
        self.silent_since_ns
            .iter_mut()
            .zip(over)
            .filter(|(_, over)| *over)
            .for_each(|(since_ns, _)| *since_ns = now_ns);
        Ok(())
    }
}

/// The replication's side of the table.
pub struct PeerStore {
    shared: Rc<RefCell<Shared>>,
    /// The addresses whose flows are remembered, with the ports they are narrowed to; none: all.
    ports: HashMap<Ipv4Addr, Vec<u16>>,
}

impl PeerStore {
    /// For these addresses.
    pub fn new(shared: Rc<RefCell<Shared>>, ports: HashMap<Ipv4Addr, Vec<u16>>) -> Self {
        Self { shared, ports }
    }

    /// Whether a flow is one of the addresses of this node: a peer cannot fill the table with others.
    fn concerns(&self, key: &FlowKey) -> bool {
        let ports = memory::local(key).and_then(|address| self.ports.get(&address));
        ports.is_some_and(|ports| ports.is_empty() || ports.contains(&key.local_port))
    }
}

impl Store for PeerStore {
    fn own_flows(&mut self) -> Result<Vec<Record>> {
        let mut own = Vec::new();
        self.shared.borrow().memory.for_each(|key, flow| {
            if flow.origin != FlowOrigin::Peer {
                own.push(Record { key, send_next: (flow.has_send_next != 0).then_some(flow.send_next) });
            }
        })?;
        Ok(own)
    }

    fn peer_opened(&mut self, peer: u32, sync: u32, record: Record) {
        if !self.concerns(&record.key) {
            return;
        }
        let mut shared = self.shared.borrow_mut();
        if !shared.memory.put_peer(peer, sync, &record) && !shared.is_full {
            shared.is_full = true;
            tracing::warn!(
                "the table of flows is full: clients of peers' further connections are not told; raise flows_max"
            );
        }
    }

    fn peer_closed(&mut self, peer: u32, key: &FlowKey) {
        self.shared.borrow_mut().memory.remove_peer(peer, key);
    }

    fn peer_synced(&mut self, peer: u32, sync: u32) {
        let gone = self
            .shared
            .borrow_mut()
            .memory
            .remove_all(|_, flow| flow.origin == FlowOrigin::Peer && flow.peer == peer && flow.sync != sync);
        if let Err(error) = gone {
            tracing::warn!(error = format!("{error:#}"), "a peer's closed connections stay in the table of flows");
        }
    }

    fn report(&mut self, peer: u32, status: &Peer) {
        let mut shared = self.shared.borrow_mut();
        shared.memory.show_peer(peer, status);
        if let Some(since_ns) = shared.silent_since_ns.get_mut(peer as usize) {
            match (status.is_receiving, *since_ns) {
                (0, 0) => *since_ns = clock::now_ns(),
                (0, _) => {}
                _ => *since_ns = 0,
            }
        }
    }

    fn report_refused(&mut self, total: u64) {
        self.shared.borrow_mut().memory.show(|status| status.replication_refused = total);
    }
}
