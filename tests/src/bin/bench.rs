//! The bench. Started by `cargo xtask bench`.
//!
//! Deliberately absent: what is measured, which is `failover_tests::bench`; a pass or fail.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use failover_tests::bench::results::{Measured, Results};
use failover_tests::bench::{Effort, document, failover, scale, stack, xdp};
use failover_tests::machine;
use failover_tests::requirements::Built;

/// Measures failover, keepalived and the kernel's own stack, side by side.
#[derive(Parser)]
struct Cli {
    /// Only this part
    part: Option<Part>,
    /// How often each measurement is repeated, instead of its own number
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Write this run's raw results here
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The directory of the document
    #[arg(long, value_name = "DIR")]
    docs: PathBuf,
    /// The sources that are measured
    #[arg(long, value_name = "ID")]
    commit: String,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// What a client sees of a takeover
    Failover,
    /// Nanoseconds per frame
    Xdp,
    /// Answers per second
    Stack,
    /// What many virtual routers cost
    Scale,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    let built = Built::from_env()?;
    println!("{}", machine::conditions());
    let (effort, commit) = (Effort::Full { rounds: cli.rounds }, cli.commit.as_str());
    let mut measured = Results::default();
    // From the shortest to the longest. Each is kept as soon as it is done, whatever becomes of the next.
    if cli.wants(Part::Xdp) {
        measured.xdp = vec![Measured::with(commit, || xdp::measure(&built, effort)).context("xdp")?];
        cli.keep(&measured)?;
    }
    if cli.wants(Part::Stack) {
        measured.stack = vec![Measured::with(commit, || stack::measure(&built, effort)).context("stack")?];
        cli.keep(&measured)?;
    }
    if cli.wants(Part::Scale) {
        measured.scale = vec![Measured::with(commit, || scale::measure(&built, effort)).context("scale")?];
        cli.keep(&measured)?;
    }
    if cli.wants(Part::Failover) {
        measured.failover = vec![Measured::with(commit, || failover::measure(&built, effort)).context("failover")?];
        cli.keep(&measured)?;
    }
    println!("\n{}", document::bars(&measured));
    Ok(())
}

impl Cli {
    fn wants(&self, part: Part) -> bool {
        self.part.is_none_or(|only| only == part)
    }

    fn keep(&self, measured: &Results) -> Result<()> {
        self.json.as_ref().map_or(Ok(()), |file| measured.write(file))?;
        document::write(&self.docs, measured.clone())
    }
}
