//! What steady virtual routers cost, and whether their adverts are on time.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::Setting;
use super::cost::{self, Used};
use super::pair::{self, Pair};
use crate::node::{Node, System};
use crate::requirements::Built;

/// How often the client's tape is read.
const READ: Duration = Duration::from_millis(20);

/// A window of a steady pair.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Load {
    /// Whose.
    pub system: System,
    /// How many virtual routers, how often.
    pub setting: Setting,
    /// Length of the window, nanoseconds.
    pub window_ns: u64,
    /// The node that advertises everything.
    pub active: Daemon,
    /// The node that listens to everything.
    pub backup: Daemon,
    /// The kernel's threads between the two: the switch, the receiving kernels, the client.
    pub wire: Used,
    /// The whole machine's processors, nanoseconds that they were not idle.
    pub machine_ns: u64,
    /// What the client heard.
    pub adverts: Punctuality,
}

/// One daemon in the window.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Daemon {
    /// CPU time and wake-ups in the window.
    pub used: Used,
    /// Resident memory at its end, KiB.
    pub resident_kib: u64,
    /// At most so far, KiB.
    pub resident_max_kib: u64,
    /// Bytes of its BPF maps.
    pub maps_bytes: u64,
    /// Changes of role in the window; nothing failed.
    pub role_changes: u64,
}

/// How regular adverts came.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Punctuality {
    /// How many, of edge-a.
    pub heard: u64,
    /// How many of edge-b, which has nothing to say.
    pub of_backup: u64,
    /// How many the client missed because it was too slow. What follows is worth nothing then.
    pub missed: u32,
    /// Each time between two adverts of one virtual router that was longer than the interval by more than a tenth of it,
    /// as microseconds above the interval.
    pub late_us: Vec<f64>,
    /// The longest time above the interval, microseconds.
    pub worst_us: f64,
    /// How many were shorter than the interval by more than a tenth of it.
    pub early: u64,
}

/// Starts a pair and watches it for `window`, `rounds` times.
pub(super) fn measure(built: &Built, system: System, setting: Setting, window: Duration) -> Result<Load> {
    let mut pair = Pair::start(built, system, setting)?;
    let wire_threads = cost::wire_threads()?;
    let processes = [pair.a.processes(), pair.b.processes()];
    let used =
        |processes: &[Vec<_>; 2]| -> Result<[Used; 2]> { Ok([Used::of(&processes[0])?, Used::of(&processes[1])?]) };
    let changes = [pair::role_changes(&pair.a)?, pair::role_changes(&pair.b)?];
    pair.hearing.drain(drop)?;
    pair.hearing.missed()?;
    let start = Instant::now();
    let before = (used(&processes)?, Used::of(&wire_threads)?, cost::busy_ns()?);
    let mut last_ns = vec![None; setting.routers];
    let mut adverts = Punctuality::default();
    while start.elapsed() < window {
        thread::sleep(READ);
        let interval_ns = setting.interval().as_nanos() as i64;
        pair.hearing.drain(|advert| {
            if !advert.is_from_a {
                adverts.of_backup += 1;
                return;
            }
            adverts.heard += 1;
            if let Some(last_ns) = last_ns[advert.router].replace(advert.at_ns) {
                adverts.note(advert.at_ns as i64 - last_ns as i64 - interval_ns, interval_ns);
            }
        })?;
    }
    let after = (used(&processes)?, Used::of(&wire_threads)?, cost::busy_ns()?);
    let window_ns = start.elapsed().as_nanos() as u64;
    adverts.missed = pair.hearing.missed()?;
    let daemon = |node: &Node, edge: usize| -> Result<Daemon> {
        let [resident_kib, resident_max_kib] = cost::resident_kib(&processes[edge])?;
        Ok(Daemon {
            used: after.0[edge].since(before.0[edge]),
            resident_kib,
            resident_max_kib,
            maps_bytes: pair::maps_bytes(node)?,
            role_changes: pair::role_changes(node)? - changes[edge],
        })
    };
    Ok(Load {
        system,
        setting,
        window_ns,
        active: daemon(&pair.a, 0)?,
        backup: daemon(&pair.b, 1)?,
        wire: after.1.since(before.1),
        machine_ns: after.2.saturating_sub(before.2),
        adverts,
    })
}

impl Punctuality {
    fn note(&mut self, above_ns: i64, interval_ns: i64) {
        let above_us = above_ns as f64 / 1e3;
        self.worst_us = self.worst_us.max(above_us);
        if above_ns > interval_ns / 10 {
            self.late_us.push(above_us);
        }
        self.early += u64::from(above_ns < -interval_ns / 10);
    }
}

impl Load {
    /// A share of one core, per cent.
    pub fn percent(&self, cpu_ns: u64) -> f64 {
        cpu_ns as f64 * 100.0 / self.window_ns as f64
    }

    /// How often in a second.
    pub fn per_second(&self, count: u64) -> f64 {
        count as f64 * 1e9 / self.window_ns as f64
    }
}
