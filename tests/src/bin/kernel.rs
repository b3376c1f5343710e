//! Asks a kernel what it makes of failover; one line of JSON for each thing tried. Started by `cargo xtask vm`.
//!
//! Deliberately absent: the checks, which are `kernel_check`'s.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use failover_tests::kernel_check::{GENERIC, LOADS, NATIVE, Outcome, load, takeover};
use failover_tests::requirements::Built;

/// Exit status when not even one virtual router could be loaded: nothing else can run on this kernel.
const REFUSED: u8 = 3;

/// Asks the running kernel what it makes of failover.
#[derive(Parser)]
struct Cli {
    /// How much
    #[arg(value_enum)]
    extent: Extent,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Extent {
    /// Load once and take over once in each mode
    Quick,
    /// All loads as well
    Full,
}

fn main() -> ExitCode {
    match run(Cli::parse().extent) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("kernel: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(extent: Extent) -> Result<u8> {
    let built = Built::from_env()?;
    let mut passed = true;
    let mut print = |outcome: &Outcome| -> Result<()> {
        passed &= outcome.passed;
        println!("{}", serde_json::to_string(outcome)?);
        Ok(())
    };
    let first = takeover(&built, NATIVE);
    first.iter().try_for_each(&mut print)?;
    if first.first().is_none_or(|loaded| !loaded.passed) {
        return Ok(REFUSED);
    }
    takeover(&built, GENERIC).iter().try_for_each(&mut print)?;
    // The first was loaded for the takeover.
    let more = if extent == Extent::Full { &LOADS[1..] } else { &[] };
    for one in more {
        print(&load(&built, *one))?;
    }
    Ok(if passed { 0 } else { 1 })
}
