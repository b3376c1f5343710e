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

use std::iter;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

pub use self::document::{bars, plots, section};
use self::frames::Flood;
use self::generator::{Source, Stuck};
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
    /// Sides whose link took no more frames, so that they were set up anew.
    #[serde(default)]
    stuck: Vec<Side>,
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
    let mut links = Side::ALL.map(|side| Link { built, side, pair: None, stuck: 0 });
    let mut results = Results::default();
    for _ in 0..plan.rounds {
        for (flood, source) in Flood::ALL.into_iter().flat_map(|flood| Source::ALL.map(|source| (flood, source))) {
            for link in &mut links {
                let sample = link.sample(|pair| rate::sample(pair, flood, source, plan.rate))?;
                results.add_rate(flood, source, link.side, sample);
            }
        }
        for load in &plan.loads {
            for link in links.iter_mut().filter(|link| link.side != Side::Reflector) {
                let sample = link.sample(|pair| transfer::sample(pair, *load, plan.transfer))?;
                results.add_transfer(*load, link.side, sample);
            }
        }
    }
    results.stuck = links.iter().flat_map(|link| iter::repeat_n(link.side, link.stuck)).collect();
    Ok(results)
}

/// One side's pair, as long as it works.
struct Link<'a> {
    built: &'a Built,
    side: Side,
    pair: Option<Pair>,
    /// How often it was set up anew.
    stuck: usize,
}

impl Link<'_> {
    /// One sample. Now and then a veth takes no more frames and never recovers (seen once in about 20 rounds): the sample
    /// is taken again then, with another pair, and once only.
    fn sample<T>(&mut self, mut sample: impl FnMut(&mut Pair) -> Result<T>) -> Result<T> {
        match sample(self.pair()?) {
            Err(error) if error.is::<Stuck>() => {
                println!("{}: the link is stuck, and made anew: {error:#}", self.side.title());
                // Gone before the next one comes, which has its names.
                self.pair = None;
                self.stuck += 1;
                sample(self.pair()?)
            }
            sample => sample,
        }
    }

    fn pair(&mut self) -> Result<&mut Pair> {
        if self.pair.is_none() {
            self.pair = Some(Pair::new(self.built, self.side)?);
        }
        self.pair.as_mut().context("no pair")
    }
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
