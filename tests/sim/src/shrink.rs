//! Makes a failing scenario small: what can be left out and it still fails, is.
//!
//! Deliberately absent: cleverness. Each change is tried, and kept when the run still fails, whatever with.

use crate::Failure;
use crate::scenario::Scenario;
use crate::world::play;

/// So many runs at most.
const TRIES: usize = 2_000;

/// The smallest failure that leaving out leads to.
pub fn shrink(mut failure: Box<Failure>) -> Box<Failure> {
    let mut tries = 0;
    loop {
        let candidates = smaller(&failure.scenario);
        let found = candidates.into_iter().find_map(|scenario| {
            tries += 1;
            if tries > TRIES { None } else { play(&scenario).err() }
        });
        match found {
            Some(smaller) => failure = smaller,
            None => return failure,
        }
    }
}

/// Each a little simpler.
fn smaller(scenario: &Scenario) -> Vec<Scenario> {
    let mut found = Vec::new();
    let mut with = |change: &dyn Fn(&mut Scenario)| {
        let mut candidate = scenario.clone();
        change(&mut candidate);
        if candidate != *scenario {
            found.push(candidate);
        }
    };
    for fault in 0..scenario.faults.len() {
        with(&|scenario| {
            scenario.faults.remove(fault);
        });
    }
    for node in 0..scenario.nodes.len() {
        with(&|scenario| scenario.nodes[node].start_ns = None);
        with(&|scenario| scenario.nodes[node].drift_ppm = 0);
        with(&|scenario| scenario.nodes[node].preempt_delay_ms = 0);
        with(&|scenario| scenario.nodes[node].preempt = true);
        with(&|scenario| scenario.nodes[node].start_ns = scenario.nodes[node].start_ns.map(|_| 0));
        with(&|scenario| scenario.nodes[node].clock_start_ns = crate::SECOND);
    }
    with(&|scenario| scenario.ring_events = 1000);
    // The last node, when nothing speaks of it any more.
    with(&|scenario| {
        let last = scenario.nodes.len() - 1;
        if last > 1 && scenario.nodes[last].start_ns.is_none() && !scenario.faults.iter().any(|fault| fault.names(last))
        {
            scenario.nodes.pop();
        }
    });
    for fault in 0..scenario.faults.len() {
        with(&|scenario| scenario.faults[fault].for_ns = (scenario.faults[fault].for_ns / 2).max(crate::MS));
        with(&|scenario| scenario.faults[fault].at_ns -= scenario.faults[fault].at_ns / 4);
    }
    found
}
