//! The bench: what failover costs and how fast it is, beside keepalived and beside the kernel's own stack.
//!
//! Each part measures, and makes its section of the document and its plots from the raw results alone:
//! `failover` what a client sees of a takeover, `xdp` nanoseconds per frame, `stack` answers per second,
//! `scale` what many virtual routers cost. `results` keeps what was measured, `document` and `plot` show it.
//! Deliberately absent: a pass or fail. A bar that is not met is a line in the document.

pub mod document;
pub mod failover;
pub mod plot;
pub mod results;
pub mod scale;
pub mod stack;
pub mod stats;
pub mod xdp;

/// How long to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// A second or two in all: shows that it still runs, and no more.
    Quick,
    /// What is published.
    Full {
        /// Repetitions of each measurement, instead of the part's own number.
        rounds: Option<u32>,
    },
}

/// A figure that was promised, and what was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// Of what.
    pub what: String,
    /// What was promised, in words: "at most 15 ns".
    pub promise: String,
    /// What was measured, with its unit: "12.3 ns".
    pub measured: String,
    /// Whether the promise is kept.
    pub is_met: bool,
}

impl Bar {
    /// A figure that should be no greater than `limit`.
    pub fn at_most(what: impl Into<String>, limit: f64, measured: f64, unit: &str) -> Self {
        Self {
            what: what.into(),
            promise: format!("at most {limit} {unit}"),
            measured: format!("{measured:.2} {unit}"),
            is_met: measured <= limit,
        }
    }

    /// A figure that should be no less than `limit`.
    pub fn at_least(what: impl Into<String>, limit: f64, measured: f64, unit: &str) -> Self {
        Self {
            what: what.into(),
            promise: format!("at least {limit} {unit}"),
            measured: format!("{measured:.2} {unit}"),
            is_met: measured >= limit,
        }
    }
}
