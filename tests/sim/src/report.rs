//! What a run tells: figures, or a failure that can be made again.
//!
//! Deliberately absent: judging.

use std::fmt;

use crate::scenario::{Scenario, Time};

/// What was seen in one run, or in many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// True time that passed.
    pub simulated_ns: u64,
    /// Things that happened.
    pub steps: u64,
    /// Takeovers: nodes that began to advertise.
    pub takeovers: u64,
    /// Adverts that did not arrive, or too late.
    pub lost: u64,
    /// Times that two nodes answered because adverts were lost, or crossed.
    pub doubles: u64,
    /// The longest of them.
    pub double_ns: u64,
}

impl Totals {
    /// Takes another run in.
    pub fn add(&mut self, other: &Self) {
        self.simulated_ns += other.simulated_ns;
        self.steps += other.steps;
        self.takeovers += other.takeovers;
        self.lost += other.lost;
        self.doubles += other.doubles;
        self.double_ns = self.double_ns.max(other.double_ns);
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.simulated_ns as f64 / 3.6e12;
        let Self { steps, takeovers, lost, doubles, .. } = self;
        write!(
            f,
            "{hours:.1} simulated hours, {steps} steps, {takeovers} takeovers, {lost} adverts lost or late, {doubles} \
             overlaps of nodes that adverts did not reach, the longest {}",
            Time(self.double_ns)
        )
    }
}

/// Something happened that must not.
#[derive(Clone, Debug)]
pub struct Failure {
    /// In this scenario.
    pub scenario: Scenario,
    /// This.
    pub what: String,
    /// After these.
    pub last_events: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scenario, what, last_events } = self;
        writeln!(f, "seed {}: {what}", scenario.seed)?;
        writeln!(f, "commit {}", commit())?;
        write!(f, "{scenario}last events:\n{last_events}")
    }
}

/// The commit that was built, as far as the environment tells (`FAILOVER_COMMIT`, set by xtask).
pub fn commit() -> String {
    std::env::var("FAILOVER_COMMIT").unwrap_or_else(|_| "unknown".into())
}
