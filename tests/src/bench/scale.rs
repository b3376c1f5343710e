//! What many virtual routers cost, and how long many addresses take to move: ours and keepalived's, in turn.
//!
//! `pair` sets up, `load` watches a steady pair, `taken` cuts the Active's cable, `cost` counts, `section` tells.
//! Deliberately absent: other makes' configuration tricks. Each has what its users have by default.

mod cost;
mod load;
mod pair;
mod section;
mod taken;

use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::Effort;
use crate::node::System;
use crate::requirements::Built;

pub use cost::Used;
pub use load::{Daemon, Load, Punctuality};
pub use section::{bars, plots, section};
pub use taken::{Round, Takeover};

/// How both nodes are set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Virtual routers.
    pub routers: usize,
    /// Addresses of all of them together.
    pub addresses: usize,
    /// Between two adverts of each.
    pub interval_ms: u32,
}

/// Raw results.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    /// Steady pairs.
    pub loads: Vec<Load>,
    /// Steady pairs of keepalived that were not to be had: the setting, and why.
    pub restless: Vec<(Setting, String)>,
    /// Takeovers.
    pub takeovers: Vec<Takeover>,
}

/// What is measured, and how long.
struct Plan {
    loads: Vec<Setting>,
    load_rounds: u32,
    window: Duration,
    takeovers: Vec<Setting>,
    takeover_rounds: u32,
}

impl Plan {
    fn of(effort: Effort) -> Self {
        let setting = |routers, addresses, interval_ms| Setting { routers, addresses, interval_ms };
        match effort {
            Effort::Quick => Self {
                loads: vec![setting(8, 8, 100)],
                load_rounds: 1,
                window: Duration::from_millis(300),
                takeovers: vec![setting(8, 40, 100)],
                takeover_rounds: 1,
            },
            Effort::Full { rounds } => Self {
                loads: [10, 100].iter().flat_map(|ms| [1, 64, 256].map(|count| setting(count, count, *ms))).collect(),
                load_rounds: rounds.unwrap_or(3),
                window: Duration::from_secs(5),
                takeovers: vec![setting(1, 1, 100), setting(205, 4_096, 100)],
                takeover_rounds: rounds.unwrap_or(10),
            },
        }
    }
}

/// Measures.
///
/// # Errors
/// When a pair does not get to serve, or the client could not follow.
pub fn measure(built: &Built, effort: Effort) -> Result<Results> {
    let plan = Plan::of(effort);
    let (mut loads, mut restless, mut takeovers) = (Vec::new(), Vec::new(), Vec::new());
    for setting in &plan.loads {
        for _ in 0..plan.load_rounds {
            for system in [System::Ours, System::Keepalived] {
                match load::measure(built, system, *setting, plan.window) {
                    // How keepalived bears it is a result, too.
                    Err(error) if system == System::Keepalived => {
                        println!("scale: keepalived, {setting:?}: {}", first_line(&error));
                        restless.push((*setting, first_line(&error)));
                    }
                    load => {
                        let load = load.with_context(|| format!("{system:?}, {setting:?}"))?;
                        println!("scale: {}", section::load_line(&load));
                        loads.push(load);
                    }
                }
            }
        }
    }
    for setting in &plan.takeovers {
        for system in [System::Ours, System::Keepalived] {
            let takeover = taken::measure(built, system, *setting, plan.takeover_rounds);
            let takeover = match takeover {
                Err(error) if system == System::Keepalived => {
                    Takeover { system, setting: *setting, rounds: Vec::new(), failure: Some(first_line(&error)) }
                }
                takeover => takeover.with_context(|| format!("{system:?}, {setting:?}"))?,
            };
            println!("scale: {}", section::takeover_line(&takeover));
            takeovers.push(takeover);
        }
    }
    Ok(Results { loads, restless, takeovers })
}

fn first_line(error: &anyhow::Error) -> String {
    error.root_cause().to_string().lines().next().unwrap_or_default().into()
}
