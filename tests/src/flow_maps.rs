//! What a loaded copy of the program remembers of TCP connections: its maps as typed values.
//!
//! Deliberately absent: what the values mean (`failover_common::abi`), and when they change.

use std::collections::BTreeMap;

use aya::maps::{Map, MapData, MapError, PerCpuArray, PerCpuValues, RingBuf};
use failover_common::abi::{
    FLOW_EVENTS, FLOWS, Flow, FlowEvent, FlowKey, FlowOrigin, HANDSHAKE_COUNT, HANDSHAKES, Handshake, HandshakeCount,
    RESET_BUDGET, ResetBudget,
};
use failover_userspace::dataplane::maps::{Raw, RawArray, RawHash};
use zerocopy::{Immutable, IntoBytes, TryFromBytes};

const KEY: usize = size_of::<FlowKey>();
type RawBudget = Raw<{ size_of::<ResetBudget>() }>;

/// `FLOWS`, `HANDSHAKES`, `HANDSHAKE_COUNT`, `RESET_BUDGET` and `FLOW_EVENTS`.
pub struct FlowMaps {
    flows: RawHash<KEY, { size_of::<Flow>() }>,
    handshakes: RawHash<KEY, { size_of::<Handshake>() }>,
    count: RawArray<{ size_of::<HandshakeCount>() }>,
    budgets: PerCpuArray<MapData, RawBudget>,
    events: RingBuf<MapData>,
}

impl FlowMaps {
    /// Takes the maps by name.
    ///
    /// # Panics
    /// When one has another type or layout.
    pub(crate) fn take(take: &mut impl FnMut(&'static str) -> Map) -> Self {
        let (flows @ Map::HashMap(_), handshakes @ Map::HashMap(_)) = (take(FLOWS), take(HANDSHAKES)) else {
            panic!("FLOWS or HANDSHAKES is no plain hash");
        };
        Self {
            flows: flows.try_into().expect("FLOWS has this layout"),
            handshakes: handshakes.try_into().expect("HANDSHAKES has this layout"),
            count: take(HANDSHAKE_COUNT).try_into().expect("HANDSHAKE_COUNT has this layout"),
            events: take(FLOW_EVENTS).try_into().expect("FLOW_EVENTS is a ring"),
            budgets: take(RESET_BUDGET).try_into().expect("RESET_BUDGET has this layout"),
        }
    }

    /// Takes everything out of the ring.
    ///
    /// # Panics
    /// When a record is none.
    pub fn events(&mut self) -> Vec<FlowEvent> {
        let mut events = Vec::new();
        while let Some(record) = self.events.next() {
            let bytes = <[u8; size_of::<FlowEvent>()]>::try_from(&record[..]).expect("a record has an event's size");
            events.push(Raw(bytes).read().expect("an event holds declared values"));
        }
        events
    }

    /// An established connection, if it is known.
    pub fn flow(&self, key: &FlowKey) -> Option<Flow> {
        found(self.flows.get(&Raw::of(key), 0)).map(|raw| raw.read().expect("a flow holds declared values"))
    }

    /// Makes an established connection known; whose it is.
    pub fn add_flow(&mut self, key: &FlowKey, origin: FlowOrigin) -> Flow {
        self.add_flow_since(key, origin, 11)
    }

    /// The same, and since when.
    pub fn add_flow_since(&mut self, key: &FlowKey, origin: FlowOrigin, since_ns: u64) -> Flow {
        let flow = Flow { since_ns, origin, peer: 3, sync: 5, send_next: 7, has_send_next: 1, _pad: 0 };
        self.flows.insert(Raw::of(key), Raw::of(&flow), 0).expect("FLOWS takes an entry");
        flow
    }

    /// How many established connections are known.
    pub fn flows(&self) -> usize {
        self.flows.keys().count()
    }

    /// All of them, in the keys' order.
    pub fn all_flows(&self) -> BTreeMap<FlowKey, Flow> {
        all(&self.flows)
    }

    /// Makes these known, and no others.
    pub fn set_flows(&mut self, flows: &BTreeMap<FlowKey, Flow>) {
        set_all(&mut self.flows, flows);
    }

    /// A handshake, if it is remembered.
    pub fn handshake(&self, key: &FlowKey) -> Option<Handshake> {
        found(self.handshakes.get(&Raw::of(key), 0)).map(|raw| raw.read().expect("valid for any bytes"))
    }

    /// How many handshakes are remembered.
    pub fn handshakes(&self) -> usize {
        self.handshakes.keys().count()
    }

    /// All of them, in the keys' order.
    pub fn all_handshakes(&self) -> BTreeMap<FlowKey, Handshake> {
        all(&self.handshakes)
    }

    /// Remembers these, and no others, without counting them.
    pub fn set_handshakes(&mut self, handshakes: &BTreeMap<FlowKey, Handshake>) {
        set_all(&mut self.handshakes, handshakes);
    }

    /// Forgets all handshakes, but not how many there were.
    pub fn forget_handshakes(&mut self) {
        self.set_handshakes(&BTreeMap::new());
    }

    /// How many were ever remembered, and how many were not.
    pub fn count(&self) -> HandshakeCount {
        self.count.get(&0, 0).expect("HANDSHAKE_COUNT has an entry").read().expect("valid for any bytes")
    }

    /// How many were ever remembered.
    pub fn remembered(&self) -> u64 {
        self.count().remembered
    }

    /// Says how many were not.
    pub fn set_missed(&mut self, missed: u64) {
        self.set_count(HandshakeCount { missed, ..self.count() });
    }

    /// Says how many were remembered and how many were not.
    pub fn set_count(&mut self, count: HandshakeCount) {
        self.count.set(0, Raw::of(&count), 0).expect("HANDSHAKE_COUNT takes an entry");
    }

    /// The token buckets, by CPU.
    pub fn budgets(&self) -> Vec<ResetBudget> {
        let values = self.budgets.get(&0, 0).expect("RESET_BUDGET has an entry");
        values.iter().map(|raw| raw.read().expect("valid for any bytes")).collect()
    }

    /// Fills, or empties, all token buckets.
    pub fn set_budgets(&mut self, budget: ResetBudget) {
        let raw: Vec<RawBudget> = self.budgets().iter().map(|_| Raw::of(&budget)).collect();
        let values = PerCpuValues::try_from(raw).expect("one for each CPU");
        self.budgets.set(0, values, 0).expect("RESET_BUDGET takes an entry");
    }
}

fn all<V: TryFromBytes + Immutable, const N: usize>(map: &RawHash<KEY, N>) -> BTreeMap<FlowKey, V> {
    let entries = map.iter().map(|entry| entry.expect("the map can be walked"));
    entries.map(|(key, value)| (key.read().expect("any bytes"), value.read().expect("declared values"))).collect()
}

fn set_all<V: IntoBytes + Immutable, const N: usize>(map: &mut RawHash<KEY, N>, values: &BTreeMap<FlowKey, V>) {
    let keys: Vec<_> = map.keys().map(|key| key.expect("the map can be walked")).collect();
    for key in keys {
        map.remove(&key).expect("the map gives up an entry");
    }
    for (key, value) in values {
        map.insert(Raw::of(key), Raw::of(value), 0).expect("the map takes an entry");
    }
}

fn found<T>(result: Result<T, MapError>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(MapError::KeyNotFound) => None,
        Err(error) => panic!("looking up a flow: {error}"),
    }
}
