//! What a client sees of a takeover, ours and keepalived's in turn.
//!
//! `pair` keeps two nodes up and does to the Active what can happen to it, `round` reads from what the client saw how
//! long that took, `section` tells. Deliberately absent: who is right when both answer (the fault lab judges that).

mod pair;
mod round;
mod section;

use std::ops::Range;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::Effort;
use crate::node::System;
use crate::requirements::Built;
use crate::workers::Workers;

use pair::{Pair, Played};
pub use round::Round;
pub use section::{bars, plots, section};

/// Hogs of the CPU, where there are.
const HOGS: usize = 16;
/// Rounds of one make before it is the other's turn.
const TURN: u32 = 5;
/// Under real-time scheduling: ours and keepalived's alike.
const REALTIME: u8 = 50;

/// What happens to the Active.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// Its link loses the carrier.
    Cut,
    /// kill -9 of all processes of its controller.
    Kill,
    /// SIGTERM.
    Stop,
}

/// How both nodes are set up, and what else runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Between two adverts.
    pub advert_ms: u32,
    /// Virtual routers.
    pub routers: u32,
    /// Addresses of each.
    pub addresses: u32,
    /// Processes that take all CPU time that they get.
    pub hogs: usize,
    /// `realtime_priority` of ours, `vrrp_rt_priority` of keepalived. 0: neither.
    pub realtime: u8,
}

/// One event, done again and again to one make in one setting.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Series {
    /// Whose.
    pub system: System,
    /// See there.
    pub setting: Setting,
    /// See there.
    pub event: Event,
    /// What came of each.
    pub rounds: Vec<Round>,
    /// Rounds that did not come about: the pair did not come to rest within seconds.
    pub restless: u32,
    /// Rounds in which nobody had taken over after seconds.
    pub lost: u32,
}

/// Raw results.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    /// In the order of measuring.
    pub series: Vec<Series>,
}

/// One row of the table: a setting, what is done, how often.
#[derive(Clone, Debug)]
struct Row {
    setting: Setting,
    rounds: Vec<(Event, u32)>,
}

/// Measures.
///
/// # Errors
/// When a pair cannot be set up or brought back.
pub fn measure(built: &Built, effort: Effort) -> Result<Results> {
    let mut series = Vec::new();
    for row in rows(effort) {
        series.extend(play(built, &row).with_context(|| format!("{:?}", row.setting))?);
    }
    Ok(Results { series })
}

/// What is measured.
fn rows(effort: Effort) -> Vec<Row> {
    let one = Setting { advert_ms: 10, routers: 1, addresses: 1, hogs: 0, realtime: 0 };
    let Effort::Full { rounds } = effort else {
        return vec![Row { setting: one, rounds: vec![(Event::Cut, 1), (Event::Stop, 1)] }];
    };
    let many = Setting { routers: 10, addresses: 20, ..one };
    let (starved, starved_realtime) =
        (Setting { hogs: HOGS, ..one }, Setting { hogs: HOGS, realtime: REALTIME, ..one });
    let row = |setting: Setting, advert_ms, [cut, kill, stop]: [u32; 3]| Row {
        setting: Setting { advert_ms, ..setting },
        rounds: [(Event::Cut, cut), (Event::Kill, kill), (Event::Stop, stop)]
            .map(|(event, own)| (event, rounds.unwrap_or(own)))
            .into(),
    };
    vec![
        row(one, 10, [100, 30, 30]),
        row(one, 100, [30, 30, 30]),
        row(one, 1000, [5, 5, 5]),
        row(many, 10, [30, 30, 30]),
        row(many, 100, [30, 30, 30]),
        row(starved_realtime, 10, [30, 30, 30]),
        row(starved_realtime, 100, [30, 30, 30]),
        row(Setting { realtime: REALTIME, ..one }, 10, [30, 10, 10]),
        row(starved, 100, [30, 30, 30]),
        row(starved, 1000, [5, 5, 5]),
        row(Setting { hogs: HOGS, realtime: REALTIME, ..many }, 100, [10, 10, 10]),
    ]
}

/// Both makes in turn, a few rounds each.
fn play(built: &Built, row: &Row) -> Result<Vec<Series>> {
    let mut sides = [Side::start(built, System::Ours, row)?, Side::start(built, System::Keepalived, row)?];
    let mut all = Vec::new();
    for (event, count) in &row.rounds {
        for first in (0..*count).step_by(TURN as usize) {
            for side in &mut sides {
                side.play(*event, first..(first + TURN).min(*count), *count)?;
            }
        }
        for side in &mut sides {
            let next = Series::none(side.series.system, row.setting);
            let series = std::mem::replace(&mut side.series, next);
            println!("failover: {}", section::line(&series));
            all.push(series);
        }
    }
    Ok(all)
}

/// One make's pair, and what came of its rounds.
struct Side<'a> {
    built: &'a Built,
    pair: Option<Pair>,
    series: Series,
}

impl<'a> Side<'a> {
    fn start(built: &'a Built, system: System, row: &Row) -> Result<Self> {
        let mut side = Self { built, pair: None, series: Series::none(system, row.setting) };
        side.renew()?;
        Ok(side)
    }

    /// Another pair instead of one that does not come to rest.
    fn renew(&mut self) -> Result<()> {
        // The old one first: there is not enough of the scheduler's budget for both.
        drop(self.pair.take());
        self.pair = Some(Pair::start(self.built, self.series.system, self.series.setting)?);
        Ok(())
    }

    /// These of `count` rounds, spread over the phases of an interval.
    fn play(&mut self, event: Event, rounds: Range<u32>, count: u32) -> Result<()> {
        self.series.event = event;
        for number in rounds {
            let pair = self.pair.as_mut().context("no pair")?;
            pair.rest(false);
            let played = pair.play(event, f64::from(number) / f64::from(count));
            pair.rest(true);
            match played? {
                Played::Seen(round) => self.series.rounds.push(round),
                Played::Lost => self.series.lost += 1,
                Played::Restless => {
                    self.series.restless += 1;
                    self.renew()?;
                }
            }
        }
        Ok(())
    }
}

impl Series {
    fn none(system: System, setting: Setting) -> Self {
        Self { system, setting, event: Event::Cut, rounds: Vec::new(), restless: 0, lost: 0 }
    }
}

/// Takes all CPU time, until dropped.
fn hogs(count: usize) -> Result<Workers> {
    let mut workers = Workers::new();
    for _ in 0..count {
        workers.spawn("hog", || (0..1_000).for_each(|_| std::hint::spin_loop()))?;
    }
    Ok(workers)
}
