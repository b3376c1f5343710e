//! Asks a kernel what it makes of failover; one line of JSON for each thing tried. Started by `cargo xtask vm`.
//!
//! Deliberately absent: the checks, which are `kernel_check`'s.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use failover_tests::kernel_check::{LOADS, Outcome, load, takeover};
use failover_tests::requirements::Built;

/// Asks the running kernel what it makes of failover.
#[derive(Parser)]
struct Cli {
    /// How much
    #[arg(value_enum)]
    extent: Extent,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Extent {
    /// Load once and take over once
    Quick,
    /// All loads as well
    Full,
}

fn main() -> ExitCode {
    match run(Cli::parse().extent) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("kernel: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(extent: Extent) -> Result<bool> {
    let built = Built::from_env()?;
    let mut passed = true;
    let mut print = |outcome: &Outcome| -> Result<()> {
        passed &= outcome.passed;
        println!("{}", serde_json::to_string(outcome)?);
        Ok(())
    };
    for outcome in takeover(&built) {
        print(&outcome)?;
    }
    // The first was loaded for the takeover.
    let more = if extent == Extent::Full { &LOADS[1..] } else { &[] };
    for one in more {
        print(&load(&built, *one))?;
    }
    Ok(passed)
}
