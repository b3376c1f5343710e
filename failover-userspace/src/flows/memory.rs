//! The table of flows in the kernel, and what people see of the work on it.
//!
//! Three write it: the socket program puts this node's flows in and out, the XDP program takes out what a client has
//! ended or begun anew, this side puts in and out what peers tell, and what was there before anything watched. This side
//! looks at the origin before it writes; what changes between the two is a flow that two nodes have at once.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context, Result};
use aya::maps::MapData;
use failover_common::abi::{
    FLOW_STATUS, FLOWS, Flow, FlowKey, FlowOrigin, FlowStatus, HANDSHAKES, Handshake, PEERS, Peer,
};
use zerocopy::{FromBytes, TryFromBytes};

use super::batch;
use crate::clock;
use crate::config::Config;
use crate::dataplane::maps::{self, Raw, RawArray, RawCounters, RawHash};
use crate::replication::Record;

/// `BPF_NOEXIST` (bpf(2)).
const ONLY_NEW: u64 = 1;

type Flows = RawHash<{ size_of::<FlowKey>() }, { size_of::<Flow>() }>;

/// The maps.
pub struct Memory {
    flows: Flows,
    /// The same map, for reading it whole.
    table: MapData,
    handshakes: RawHash<{ size_of::<FlowKey>() }, { size_of::<Handshake>() }>,
    handshake_table: MapData,
    counters: RawCounters,
    status: RawArray<{ size_of::<FlowStatus>() }>,
    peers: RawHash<4, { size_of::<Peer>() }>,
    shown: FlowStatus,
}

impl Memory {
    /// Opens the pinned maps.
    ///
    /// # Errors
    /// When one is missing.
    pub fn open(pin_path: &Path) -> Result<Self> {
        Ok(Self {
            flows: maps::hash(maps::open(pin_path, FLOWS)?)?,
            table: maps::open(pin_path, FLOWS)?,
            handshakes: maps::hash(maps::open(pin_path, HANDSHAKES)?)?,
            handshake_table: maps::open(pin_path, HANDSHAKES)?,
            counters: maps::open_counters(pin_path)?,
            status: maps::array(maps::open(pin_path, FLOW_STATUS)?)?,
            peers: maps::hash(maps::open(pin_path, PEERS)?)?,
            shown: FlowStatus::default(),
        })
    }

    /// Calls `each` for every flow.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn for_each(&self, each: impl FnMut(FlowKey, Flow)) -> Result<()> {
        for_each(&self.table, each)
    }

    /// One flow.
    pub fn get(&self, key: &FlowKey) -> Option<Flow> {
        self.flows.get(&Raw::of(key), 0).ok()?.read().ok()
    }

    /// Puts in a connection that was there before anything watched; `false` when it is known already.
    pub fn put_found(&mut self, key: &FlowKey) -> bool {
        if self.get(key).is_some_and(|flow| flow.origin == FlowOrigin::Peer) {
            self.remove(key);
        }
        self.put(key, &flow(FlowOrigin::Found, 0, 0, None), ONLY_NEW)
    }

    /// Puts in a peer's flow, or confirms it. One that this node serves itself stays its own.
    pub fn put_peer(&mut self, peer: u32, sync: u32, record: &Record) -> bool {
        let new = flow(FlowOrigin::Peer, peer, sync, record.send_next);
        match self.get(&record.key) {
            None => self.put(&record.key, &new, ONLY_NEW),
            Some(old) if old.origin != FlowOrigin::Peer => true,
            Some(old) if old.peer == peer => self.put(&record.key, &Flow { since_ns: old.since_ns, ..new }, 0),
            Some(_) => self.put(&record.key, &new, 0),
        }
    }

    /// Takes a peer's flow out.
    pub fn remove_peer(&mut self, peer: u32, key: &FlowKey) {
        if self.get(key).is_some_and(|flow| flow.origin == FlowOrigin::Peer && flow.peer == peer) {
            self.remove(key);
        }
    }

    /// Takes out every flow for which `is_gone` holds.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn remove_all(&mut self, mut is_gone: impl FnMut(&FlowKey, &Flow) -> bool) -> Result<()> {
        let mut gone = Vec::new();
        self.for_each(|key, flow| {
            if is_gone(&key, &flow) {
                gone.push(key);
            }
        })?;
        gone.iter().for_each(|key| self.remove(key));
        Ok(())
    }

    /// Takes out a connection that was found, unless it is something else by now.
    pub fn remove_found(&mut self, key: &FlowKey) {
        if self.get(key).is_some_and(|flow| flow.origin == FlowOrigin::Found) {
            self.remove(key);
        }
    }

    /// Takes one out.
    fn remove(&mut self, key: &FlowKey) {
        // One that is gone already is no error.
        let _ = self.flows.remove(&Raw::of(key));
    }

    fn put(&mut self, key: &FlowKey, flow: &Flow, flags: u64) -> bool {
        self.flows.insert(Raw::of(key), Raw::of(flow), flags).is_ok()
    }

    /// Events of flows that were lost so far. One that cannot be read was not.
    pub fn events_lost(&self) -> u64 {
        maps::sum_counters(&self.counters).map_or(0, |counters| counters.flow_event_lost)
    }

    /// Changes what people see.
    pub fn show(&mut self, change: impl FnOnce(&mut FlowStatus)) {
        let before = self.shown;
        change(&mut self.shown);
        if self.shown != before {
            // A map that cannot be written shows older numbers.
            let _ = self.status.set(0, Raw::of(&self.shown), 0);
        }
    }

    /// Changes what people see of a peer.
    pub fn show_peer(&mut self, index: u32, peer: &Peer) {
        let _ = self.peers.insert(Raw::of(&index), Raw::of(peer), 0);
    }

    /// Whether the peers are those of an earlier controller, in the same order; then starts their numbers anew.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn has_peers(&mut self, config: &Config) -> Result<bool> {
        let mut known = Vec::new();
        for entry in &self.peers {
            let (index, peer) = entry.context("reading PEERS")?;
            known.push((index.read::<u32>()?, peer.read::<Peer>()?));
        }
        known.sort_by_key(|(index, _)| *index);
        known.iter().for_each(|(index, _)| drop(self.peers.remove(&Raw::of(index))));
        let _ = self.status.set(0, Raw::of(&self.shown), 0);
        let known = known.iter().map(|(_, peer)| SocketAddr::new(peer.address.to_ip(), peer.port));
        let configured = config.replication.iter().flat_map(|replication| &replication.peers);
        Ok(known.eq(configured.map(|peer| SocketAddr::new(peer.ip().to_canonical(), peer.port()))))
    }

    /// Takes out handshakes of flows that are over, or that nothing came of.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn forget_handshakes(&mut self, now_ns: u64) -> Result<()> {
        let mut over = Vec::new();
        for_each_handshake(&self.handshake_table, |key, handshake| {
            if is_over(&handshake, now_ns) {
                over.push(key);
            }
        })?;
        for key in over.iter().map(Raw::of) {
            // Once more: its flow may have begun anew since.
            let handshake = self.handshakes.get(&key, 0).ok().and_then(|raw| raw.read().ok());
            if handshake.is_some_and(|handshake| is_over(&handshake, now_ns)) {
                let _ = self.handshakes.remove(&key);
            }
        }
        Ok(())
    }
}

/// Whether a flow is over: it ended, and nothing has come since for as long as Linux's connection tracking waits in its
/// longest closing states; or nothing ever followed; or nothing has come for as long as it keeps an established one.
fn is_over(handshake: &Handshake, now_ns: u64) -> bool {
    /// nf_conntrack_tcp_timeout_{fin_wait,time_wait,syn_sent}.
    const CLOSING_NS: u64 = 120_000_000_000;
    /// nf_conntrack_tcp_timeout_established.
    const ESTABLISHED_NS: u64 = 432_000_000_000_000;
    let Handshake { at_ns, used_ns, ended_ns } = *handshake;
    let idle_ns = now_ns.saturating_sub(at_ns.max(used_ns).max(ended_ns));
    let is_open = used_ns != 0 && ended_ns == 0;
    idle_ns > if is_open { ESTABLISHED_NS } else { CLOSING_NS }
}

fn for_each_handshake(table: &MapData, mut each: impl FnMut(FlowKey, Handshake)) -> Result<()> {
    batch::for_each::<{ size_of::<FlowKey>() }, { size_of::<Handshake>() }>(table, |key, handshake| {
        if let (Ok(key), Ok(handshake)) = (FlowKey::read_from_bytes(&key), Handshake::read_from_bytes(&handshake)) {
            each(key, handshake);
        }
    })
    .context("reading the table of handshakes")
}

/// Calls `each` for every flow of the map.
///
/// # Errors
/// When it cannot be read.
pub fn for_each(table: &MapData, mut each: impl FnMut(FlowKey, Flow)) -> Result<()> {
    batch::for_each::<{ size_of::<FlowKey>() }, { size_of::<Flow>() }>(table, |key, flow| {
        // What holds another version's values is not ours.
        if let (Ok(key), Ok(flow)) = (FlowKey::try_read_from_bytes(&key), Flow::try_read_from_bytes(&flow)) {
            each(key, flow);
        }
    })
    .context("reading the table of flows")
}

/// The IPv4 address of this end.
pub fn local(key: &FlowKey) -> Option<Ipv4Addr> {
    match key.local.to_ip() {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

fn flow(origin: FlowOrigin, peer: u32, sync: u32, send_next: Option<u32>) -> Flow {
    Flow {
        since_ns: clock::now_ns(),
        origin,
        peer,
        sync,
        send_next: send_next.unwrap_or(0),
        has_send_next: u32::from(send_next.is_some()),
        _pad: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn a_handshake_is_kept_as_long_as_its_flow_may_live() {
        let handshake = |at_ns, used_ns, ended_ns| Handshake { at_ns, used_ns, ended_ns };
        // Nothing followed: two minutes.
        assert!(!is_over(&handshake(S, 0, 0), 121 * S));
        assert!(is_over(&handshake(S, 0, 0), 121 * S + 1));
        // In use: five days since the last segment.
        assert!(!is_over(&handshake(S, 10 * S, 0), 432_010 * S));
        assert!(is_over(&handshake(S, 10 * S, 0), 432_010 * S + 1));
        // Ended: two minutes since anything came.
        assert!(!is_over(&handshake(S, 10 * S, 5 * S), 130 * S));
        assert!(is_over(&handshake(S, 10 * S, 5 * S), 130 * S + 1));
        // A clock that was read before.
        assert!(!is_over(&handshake(S, 10 * S, 5 * S), 0));
    }
}
