//! `cargo xtask sim`: the simulation, and the proof that it can fail.
//!
//! Deliberately absent: the simulation, which is the program `sim` of the package failover-tests; and how a mutant is made
//! and judged (`mutants.rs`).

use std::process::Command;
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
    for (name, value) in [("--seed", options.seed), ("--runs", options.runs), ("--first", options.first)] {
        if let Some(value) = value {
            command.arg(name).arg(value.to_string());
        }
    }
    Err(exec::replace(&mut command, "running the simulation"))
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
    let run = || {
        let mut command: Command = exec::command(target.join("release/sim"));
        command.args(["--first", &first.to_string(), "--runs", &runs.to_string()]);
        command
    };
    let rig = Rig { root: &paths.root, tree: &tree, build: &build, run: &run, first_seed: first, patience: PATIENCE };
    exec::announce(&build());
    exec::announce(&run());
    rig.check_unspoilt()?;
    println!("{runs} seeds hold without a mutation\n\n{}", mutants::head());
    let one = |mutation: &Mutation| {
        let row = rig.try_one(mutation);
        println!("{row}");
        row
    };
    Ok(mutations.iter().map(one).collect())
}

impl Row {
    fn is_caught(&self) -> bool {
        matches!(self.outcome, Outcome::Caught { .. })
    }
}

const PACKAGE: [&str; 4] = ["--package", "failover-tests", "--bin", "sim"];
/// Where seeds begin.
const FIRST_SEED: u64 = 1;
/// Seeds that a mutant may take. Many times what each does take, so that another change does not make one slip through.
const MUTANT_RUNS: u64 = 2_000;
/// A run takes seconds.
const PATIENCE: Duration = Duration::from_secs(300);
/// The shipped semantics (no debug assertions), built anew in seconds: only what a mutation touches is compiled, and other
/// people's crates hardly count for the time of a run.
const QUICK_BUILD: [&str; 4] = [
    "profile.release.opt-level=1",
    "profile.release.package.\"*\".opt-level=0",
    "profile.release.debug=false",
    "profile.release.incremental=true",
];
