//! `sim`: plays the simulation's seeds, and shows what failed. See `failover_sim`.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use failover_sim::{Scenario, Totals, play, shrink};

/// Many routers on one wire and a virtual clock, with the faults that a seed draws.
#[derive(Parser)]
struct Options {
    /// Play this seed alone, and show its scenario
    #[arg(long, value_name = "N", conflicts_with_all = ["runs", "first"])]
    seed: Option<u64>,
    /// Play so many seeds
    #[arg(long, value_name = "M", default_value_t = 10_000)]
    runs: u64,
    /// The first of them
    #[arg(long, value_name = "N", default_value_t = 1)]
    first: u64,
    /// Show a failure as it came, not as small as it gets
    #[arg(long)]
    as_it_is: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let seeds = match options.seed {
        Some(seed) => seed..seed + 1,
        None => options.first..options.first + options.runs,
    };
    let (started, count) = (Instant::now(), seeds.end - seeds.start);
    let mut totals = Totals::default();
    for seed in seeds {
        let scenario = Scenario::draw(seed);
        if options.seed.is_some() {
            print!("{scenario}");
        }
        match play(&scenario) {
            Ok(outcome) => totals.add(&outcome.totals),
            Err(failure) => {
                println!("{failure}");
                if !options.as_it_is {
                    println!("the same, as small as it gets:\n{}", shrink(failure));
                }
                return ExitCode::FAILURE;
            }
        }
    }
    println!("{count} seeds held in {:.1} s: {totals}", started.elapsed().as_secs_f64());
    ExitCode::SUCCESS
}
