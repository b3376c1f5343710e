//! The table of flows in the kernel, and what people see of the work on it.
//!
//! Three write it: the socket program puts this node's flows in and out, the XDP program takes out what a client has
//! ended or begun anew, this side puts in and out what peers tell, and what was there before anything watched. This side
//! never touches a flow of another origin than the one it deals with.

use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context, Result};
use aya::maps::MapData;
use failover_common::abi::{FLOW_STATUS, FLOWS, Flow, FlowKey, FlowOrigin, FlowStatus, PEERS, Peer};
use zerocopy::TryFromBytes;

use super::batch;
use crate::clock;
use crate::dataplane::maps::{self, Raw, RawArray, RawHash};
use crate::replication::Record;

/// `BPF_NOEXIST` (bpf(2)).
const ONLY_NEW: u64 = 1;

type Flows = RawHash<{ size_of::<FlowKey>() }, { size_of::<Flow>() }>;

/// The maps.
pub struct Memory {
    flows: Flows,
    /// The same map, for reading it whole.
    table: MapData,
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
            Some(old) if old.peer == peer => {
                self.put(&record.key, &Flow { since_ns: old.since_ns, reset_ns: old.reset_ns, ..new }, 0)
            }
            Some(_) => self.put(&record.key, &new, 0),
        }
    }

    /// Takes a peer's flow out.
    pub fn remove_peer(&mut self, peer: u32, key: &FlowKey) {
        if self.get(key).is_some_and(|flow| flow.origin == FlowOrigin::Peer && flow.peer == peer) {
            self.remove(key);
        }
    }

    /// Takes out every flow for which `is_gone` holds, and says which.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn remove_all(&mut self, mut is_gone: impl FnMut(&FlowKey, &Flow) -> bool) -> Result<Vec<FlowKey>> {
        let mut gone = Vec::new();
        self.for_each(|key, flow| {
            if is_gone(&key, &flow) {
                gone.push(key);
            }
        })?;
        gone.iter().for_each(|key| self.remove(key));
        Ok(gone)
    }

    /// Takes one out.
    pub fn remove(&mut self, key: &FlowKey) {
        // One that is gone already is no error.
        let _ = self.flows.remove(&Raw::of(key));
    }

    fn put(&mut self, key: &FlowKey, flow: &Flow, flags: u64) -> bool {
        self.flows.insert(Raw::of(key), Raw::of(flow), flags).is_ok()
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

    /// Forgets peers that are configured no more, and numbers of an earlier controller.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn forget_peers(&mut self) -> Result<()> {
        let known: Vec<_> = self.peers.keys().collect::<Result<_, _>>().context("reading PEERS")?;
        known.iter().for_each(|index| drop(self.peers.remove(index)));
        let _ = self.status.set(0, Raw::of(&self.shown), 0);
        Ok(())
    }
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
        std::net::IpAddr::V4(address) => Some(address),
        std::net::IpAddr::V6(_) => None,
    }
}

fn flow(origin: FlowOrigin, peer: u32, sync: u32, send_next: Option<u32>) -> Flow {
    Flow {
        since_ns: clock::now_ns(),
        reset_ns: 0,
        origin,
        peer,
        sync,
        send_next: send_next.unwrap_or(0),
        has_send_next: u32::from(send_next.is_some()),
        _pad: 0,
    }
}
