//! `cargo xtask sim`: the simulation, and the proof that it can fail.
//!
//! Deliberately absent: the simulation, which is the program `sim` of the package failover-tests; and how a mutant is made
//! and judged (`mutants.rs`).

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::compile;
use crate::exec;
use crate::mirror::mirror;
use crate::mutants::{self, Mutation, Outcome, Rig, Row};
use crate::paths::{Paths, Profile};
use crate::report::{Counts, Report, Ring};

/// Which runs.
#[derive(Clone, Debug, Args)]
pub struct SimOptions {
    /// Run only this seed, and print what happens
    #[arg(long, value_name = "N", conflicts_with_all = ["runs", "first", "mutants"])]
    seed: Option<u64>,
    /// How many seeds
    #[arg(long, value_name = "M")]
    runs: Option<u64>,
    /// The first of them
    #[arg(long, value_name = "N")]
    first: Option<u64>,
    /// Prove that the simulation can fail: it must catch each defect of tests/data/mutations.toml
    #[arg(long)]
    mutants: bool,
}

/// `sim`: builds the simulation and becomes it, or tries the mutants.
pub fn sim(paths: &Paths, options: &SimOptions) -> Result<()> {
    if options.mutants {
        let runs = options.runs.unwrap_or(MUTANT_RUNS);
        let rows = try_mutants(paths, &mutants::read(&paths.root)?, options.first.unwrap_or(FIRST_SEED), runs)?;
        let missed = rows.iter().filter(|row| !row.is_caught()).count();
        println!("{} of {} mutations caught within {runs} seeds", rows.len() - missed, rows.len());
        if missed > 0 {
            bail!("the simulation misses {missed} of the defects that it must find");
        }
        return Ok(());
    }
    let mut build = compile::host_cargo(paths, "build", Profile::Release);
    if !paths.xdp_object().exists() {
        // It needs none; naming it where it is saves the other verbs another build.
        build.env_remove("FAILOVER_EBPF_OBJECT");
    }
    exec::run(build.args(PACKAGE), "building the simulation")?;
    let mut command = exec::command(paths.sim());
    command.env("FAILOVER_COMMIT", commit(paths));
    for (name, value) in [("--seed", options.seed), ("--runs", options.runs), ("--first", options.first)] {
        if let Some(value) = value {
            command.arg(name).arg(value.to_string());
        }
    }
    Err(exec::replace(&mut command, "running the simulation"))
}

/// What a failing simulation says it was built from.
pub fn commit(paths: &Paths) -> String {
    let describe = ["describe", "--always", "--dirty", "--exclude=*"];
    let name = exec::output_of(exec::command("git").current_dir(&paths.root).args(describe));
    name.map_or("unknown".into(), |name| name.trim_end().to_string())
}

/// The mutants as a part of ring 3: those whose names contain one of `filters`.
pub fn ring(paths: &Paths, filters: &[String], report: &mut Report) {
    let started = Instant::now();
    let is_wanted = |mutation: &Mutation| {
        let name = label(&mutation.name);
        filters.is_empty() || filters.iter().any(|filter| name.contains(filter))
    };
    let tried = mutants::read(&paths.root).and_then(|mut mutations| {
        mutations.retain(is_wanted);
        if mutations.is_empty() { Ok(Vec::new()) } else { try_mutants(paths, &mutations, FIRST_SEED, MUTANT_RUNS) }
    });
    match tried {
        Ok(rows) if rows.is_empty() => {}
        Ok(rows) => {
            let (caught, missed): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row.is_caught());
            let (passed, failed) = (caught.len() as u64, missed.len() as u64);
            let seconds = started.elapsed().as_secs_f64();
            let names = missed.into_iter().map(|row| label(&row.name));
            report.counted(Ring::Simulated, Counts { passed, failed, skipped: 0, seconds }, names);
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            report.step_failed(Ring::Simulated, "sim mutants: see the error above".into());
        }
    }
}

/// A mutation among the tests.
fn label(name: &str) -> String {
    format!("sim mutants: {name}")
}

/// Prints the table as it grows.
fn try_mutants(paths: &Paths, mutations: &[Mutation], first: u64, runs: u64) -> Result<Vec<Row>> {
    let directory = paths.target.join("mutants");
    let (tree, target) = (directory.join("tree"), directory.join("target"));
    mirror(&paths.root, &tree, &paths.target).context("copying the sources for the mutants")?;
    let build = || {
        let mut command = exec::cargo();
        command.current_dir(&tree).args(["build", "--quiet", "--locked", "--release", "--target-dir"]).arg(&target);
        command.args(QUICK_BUILD.iter().flat_map(|setting| ["--config", setting])).args(PACKAGE);
        command
    };
    let run = |runs: u64| {
        let mut command = exec::command(target.join("release/sim"));
        command.args(["--first", &first.to_string(), "--runs", &runs.to_string()]);
        command
    };
    let (root, tree) = (&paths.root, &tree);
    let rig = Rig { root, tree, build: &build, run: &run, first_seed: first, seeds: runs, patience: PATIENCE };
    exec::announce(&build());
    exec::announce(&run(runs));
    println!("{}", mutants::head());
    let one = |mutation: &Mutation| {
        let row = rig.try_one(mutation);
        println!("{row}");
        row
    };
    let rows: Vec<Row> = mutations.iter().map(one).collect();
    if let Some(most) = rows.iter().filter_map(Row::seeds).max() {
        rig.check_unspoilt(most)?;
        println!("seeds {first} to {} hold without a mutation", first + most - 1);
    }
    Ok(rows)
}

impl Row {
    fn is_caught(&self) -> bool {
        self.seeds().is_some()
    }

    fn seeds(&self) -> Option<u64> {
        if let Outcome::Caught { seeds, .. } = self.outcome { Some(seeds) } else { None }
    }
}

const PACKAGE: [&str; 4] = ["--package", "failover-tests", "--bin", "sim"];
/// Where seeds begin.
const FIRST_SEED: u64 = 1;
/// Seeds that a mutant may take: ten times what any does, so that none slips through when a change gives each seed another
/// course. Those that are caught cost no more for it.
const MUTANT_RUNS: u64 = 50_000;
/// A run takes a minute at most.
const PATIENCE: Duration = Duration::from_secs(600);
/// The shipped semantics (no debug assertions), built anew in seconds: only what a mutation touches is compiled, and other
/// people's crates hardly count for the time of a run.
const QUICK_BUILD: [&str; 4] = [
    "profile.release.opt-level=2",
    "profile.release.package.\"*\".opt-level=0",
    "profile.release.debug=false",
    "profile.release.incremental=true",
];
