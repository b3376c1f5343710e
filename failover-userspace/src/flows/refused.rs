//! Clients whose SYN this node dropped as it let the addresses go: asked again as soon as another node is there.
//!
//! Deliberately absent: which SYNs are dropped, which the XDP program knows.

use std::collections::HashMap;
use std::sync::Arc;

use failover_common::abi::FlowKey;

use super::leaving;
use super::thread::is_of;
use super::tickle::{Segment, Senders};
use crate::clock;
use crate::config::Config;
use crate::dataplane::Entries;

/// After this they ask again by themselves (RFC 6298 2.1: one second).
const KEPT_NS: u64 = 1_000_000_000;
/// Of more at once, the rest waits for that second.
const WAITING_MAX: usize = 65_536;
/// So many at a time, 100,000 a second.
const ASK_AGAIN_MAX: usize = 500;

/// See the module.
pub struct Refused {
    config: Arc<Config>,
    entries: Entries,
    senders: Senders,
    /// With the time when they were told of.
    waiting: HashMap<FlowKey, u64>,
    /// Until when more are expected: connections have just been reset.
    expected_until_ns: u64,
}

impl Refused {
    /// Nobody.
    pub fn new(config: Arc<Config>, entries: Entries) -> Self {
        Self { config, entries, senders: Senders::default(), waiting: HashMap::new(), expected_until_ns: 0 }
    }

    /// Some will come: connections were just reset.
    pub fn expect(&mut self) {
        self.expected_until_ns = clock::now_ns() + KEPT_NS;
    }

    /// Whether some wait, or will come.
    pub fn is_expected(&self, now_ns: u64) -> bool {
        now_ns < self.expected_until_ns || !self.waiting.is_empty()
    }

    /// One.
    pub fn add(&mut self, key: FlowKey) {
        if self.waiting.len() < WAITING_MAX {
            self.waiting.insert(key, clock::now_ns());
        }
    }

    /// Clients whose SYN was dropped would ask again after a second. A segment that acknowledges nothing of theirs makes
    /// them answer with a reset (RFC 9293 3.10.7.3), and Linux ask again at once; so that is what they get, as soon as
    /// another node is there to be asked.
    pub fn ask_again(&mut self) {
        let Self { config, entries, senders, waiting, .. } = self;
        if waiting.is_empty() {
            return;
        }
        let left: Vec<_> = (0_u32..)
            .zip(&config.virtual_routers)
            .filter(|(index, _)| is_succeeded(entries, *index))
            .map(|(_, router)| router)
            .collect();
        let (now_ns, mut budget) = (clock::now_ns(), ASK_AGAIN_MAX);
        waiting.retain(|key, at_ns| {
            let is_due = budget > 0 && left.iter().any(|router| is_of(router, key));
            if is_due {
                budget -= 1;
                // One that does not go out is only asked later.
                let _ = senders.send(key, Segment::Tickle(None));
            }
            !is_due && now_ns.saturating_sub(*at_ns) < KEPT_NS
        });
    }
}

/// Whether another router has advertised since this node took the addresses, which it has no more.
fn is_succeeded(entries: &Entries, index: u32) -> bool {
    entries.entry(index).is_some_and(|entry| leaving::has_successor(&entry, entry.takeover().at_ns))
}
