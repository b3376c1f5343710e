//! Answers per second from the wire, to ARP requests and to TCP segments of no connection: the XDP program beside the
//! kernel's own ARP and TCP, on the same link and under the same flood; and what the flood leaves of a TCP transfer.
//!
//! Deliberately absent: a network card. Whatever its driver costs, both sides would pay.

mod client;
mod document;
mod frames;
mod generator;
mod pair;
mod rate;
mod transfer;

use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};

pub use self::document::{bars, plots, section};
use self::frames::Flood;
use self::generator::Source;
use self::pair::{Pair, Side};
use self::transfer::Load;
use super::Effort;
use crate::requirements::Built;

/// Frames a second while bytes are transferred: what the kernel answers with ease, and more than it can.
const OFFERED: [u64; 3] = [100_000, 300_000, 1_000_000];

/// Raw results.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Results {
    /// Answers per second.
    rates: Vec<Rates>,
    /// Bytes per second under a flood.
    transfers: Vec<Transfers>,
}

/// One side under one kind of flood.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Rates {
    flood: Flood,
    source: Source,
    side: Side,
    samples: Vec<rate::Sample>,
}

/// One side's transfer under one kind of flood.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Transfers {
    load: Load,
    side: Side,
    samples: Vec<transfer::Sample>,
}

/// How much is measured.
struct Plan {
    rounds: u32,
    rate: Duration,
    transfer: Duration,
    loads: Vec<Load>,
}

impl Plan {
    fn of(effort: Effort) -> Self {
        let load = |flood| move |offered| Load { flood, offered };
        let all = || Flood::ALL.into_iter().flat_map(|flood| OFFERED.into_iter().map(load(flood)));
        let none = Load { flood: Flood::Arp, offered: 0 };
        match effort {
            Effort::Quick => {
                let time = Duration::from_millis(30);
                Self { rounds: 1, rate: time, transfer: time, loads: [none].into_iter().chain(all().take(1)).collect() }
            }
            Effort::Full { rounds } => Self {
                rounds: rounds.unwrap_or(5),
                rate: Duration::from_secs(2),
                transfer: Duration::from_secs(1),
                loads: [none].into_iter().chain(all()).collect(),
            },
        }
    }
}

/// Measures: in each round every kind of flood, and under each the sides in turn.
///
/// # Errors
/// When a side cannot be set up, or gives a wrong answer.
pub fn measure(built: &Built, effort: Effort) -> Result<Results> {
    let plan = Plan::of(effort);
    let mut pairs = Side::ALL.into_iter().map(|side| Pair::new(built, side)).collect::<Result<Vec<_>>>()?;
    let mut results = Results::default();
    for _ in 0..plan.rounds {
        for (flood, source) in Flood::ALL.into_iter().flat_map(|flood| Source::ALL.map(|source| (flood, source))) {
            for pair in &mut pairs {
                results.add_rate(flood, source, pair.side, rate::sample(pair, flood, source, plan.rate)?);
            }
        }
        for load in &plan.loads {
            for pair in pairs.iter_mut().filter(|pair| pair.side != Side::Reflector) {
                results.add_transfer(*load, pair.side, transfer::sample(pair, *load, plan.transfer)?);
            }
        }
    }
    Ok(results)
}

impl Results {
    fn add_rate(&mut self, flood: Flood, source: Source, side: Side, sample: rate::Sample) {
        println!(
            "{}, {}, {}: {:.0} answers a second to {:.0} frames, {:.0} ns each, responder {:.0}% busy, {} judged",
            flood.title(),
            source.title(),
            side.title(),
            sample.rate(),
            sample.offered(),
            sample.cost_ns(),
            100.0 * sample.busy(),
            sample.judged
        );
        let is_row = |row: &&mut Rates| (row.flood, row.source, row.side) == (flood, source, side);
        match self.rates.iter_mut().find(is_row) {
            Some(row) => row.samples.push(sample),
            None => self.rates.push(Rates { flood, source, side, samples: vec![sample] }),
        }
    }

    fn add_transfer(&mut self, load: Load, side: Side, sample: transfer::Sample) {
        println!(
            "transfer under {}, {}: {:.0} MB/s, {:.0} answers a second to {:.0} frames",
            load.title(),
            side.title(),
            sample.rate_mb(),
            sample.answered(),
            sample.offered()
        );
        match self.transfers.iter_mut().find(|row| (row.load, row.side) == (load, side)) {
            Some(row) => row.samples.push(sample),
            None => self.transfers.push(Transfers { load, side, samples: vec![sample] }),
        }
    }
}
