//! `cargo xtask sim`: the simulation, and the proof that it can fail.
//!
//! Deliberately absent: the simulation, which is the program `sim` of the package failover-sim; and how a mutant is made
//! and judged (`mutants.rs`).

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::compile;
use crate::exec;
use crate::mirror::mirror;
use crate::mutants::{self, Caught, Mutation, Rig, Row, Seeds};
use crate::paths::{Paths, Profile};
use crate::report::{self, Case, Report};
use crate::rings::{Ring, Selection};

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
    /// With --mutants: note in that file which seeds caught them, to be played first by `cargo xtask test`
    #[arg(long, requires = "mutants")]
    record: bool,
}

/// `sim`: builds the simulation and becomes it, or tries the mutants.
pub fn sim(paths: &Paths, options: &SimOptions) -> Result<()> {
    if options.mutants {
        return all_mutants(paths, options);
    }
    let mut build = compile::host_cargo(paths, "build", Profile::Release);
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

/// Every mutant, each over as many seeds as it takes.
fn all_mutants(paths: &Paths, options: &SimOptions) -> Result<()> {
    let seeds = Seeds::From { first: options.first.unwrap_or(FIRST_SEED), count: options.runs.unwrap_or(MUTANT_RUNS) };
    let rows = try_mutants(paths, mutants::read(&paths.root)?, seeds)?;
    let missed = rows.iter().filter(|row| row.caught().is_none()).count();
    println!("{} of {} mutations caught by {seeds}", rows.len() - missed, rows.len());
    if options.record {
        mutants::record(&paths.root, &rows)?;
        println!("noted in {}", mutants::FILE);
    }
    if missed > 0 {
        bail!("the simulation misses {missed} of the defects that it must find");
    }
    Ok(())
}

/// The mutants as a part of ring 3: those that were asked for. What was caught before, and nothing of what it depends on
/// has changed since, is not tried again.
pub fn ring(paths: &Paths, selection: &Selection, report: &mut Report) {
    let started = Instant::now();
    let tried = mutants::read(&paths.root).and_then(|mut mutations| {
        mutations.retain(|mutation| selection.has_name(&label(&mutation.name)));
        if mutations.is_empty() { Ok(Vec::new()) } else { try_unless_known(paths, mutations) }
    });
    let seconds = started.elapsed().as_secs_f64();
    match tried {
        Ok(rows) if rows.is_empty() => {}
        Ok(rows) => {
            let cases = rows.iter().map(|row| Case {
                name: label(&row.name),
                seconds: row.seconds,
                outcome: if row.caught().is_some() { report::Outcome::Passed } else { report::Outcome::Failed },
            });
            report.add(Ring::Simulation, seconds, cases);
        }
        Err(error) => report.add(Ring::Simulation, seconds, [Case::failed(format!("sim mutants: {error:#}"))]),
    }
}

/// The mutants, as tests are named.
pub fn names(paths: &Paths) -> Result<Vec<String>> {
    Ok(mutants::read(&paths.root)?.iter().map(|mutation| label(&mutation.name)).collect())
}

/// A mutation among the tests.
fn label(name: &str) -> String {
    format!("sim mutants: {name}")
}

fn try_unless_known(paths: &Paths, mutations: Vec<Mutation>) -> Result<Vec<Row>> {
    let known = Caught::read(
        &paths.target.join("mutants/caught.toml"),
        &paths.root,
        &build_command(paths, Path::new(""), Path::new("")),
    )?;
    let (mut rows, unknown) = known.divide(mutations);
    for row in &rows {
        println!("{row}, and nothing has changed since");
    }
    if !unknown.is_empty() {
        let tried = try_mutants(paths, unknown, Seeds::RecordedFirst { first: FIRST_SEED, count: MUTANT_RUNS })?;
        known.write(&tried)?;
        rows.extend(tried);
    }
    Ok(rows)
}

/// Prints the table as it grows.
fn try_mutants(paths: &Paths, mutations: Vec<Mutation>, seeds: Seeds) -> Result<Vec<Row>> {
    let count = thread::available_parallelism().map_or(1, usize::from).min(mutations.len());
    let mut rigs = Vec::new();
    for number in 0..count {
        let rig = rig(paths, number, seeds)?;
        if number == 0 {
            // What is not ours has to be there before the others copy it.
            exec::run(&mut (rig.build)(), "building the simulation as it is")?;
        }
        rigs.push(rig);
    }
    println!("{}", mutants::head());
    let rows = mutants::try_all(&rigs, mutations, |row| println!("{row}"))?;
    println!("without a mutation, these seeds hold");
    Ok(rows)
}

/// A copy of the sources, and how it is built and run. The first is built in the directory of all other builds, where
/// what is not ours is built already; each other one in a directory that starts as a copy of that.
fn rig(paths: &Paths, number: usize, seeds: Seeds) -> Result<Rig<'_>> {
    let directory = paths.target.join("mutants");
    let tree = directory.join(format!("tree-{number}"));
    mirror(&paths.root, &tree, &paths.target).context("copying the sources for the mutants")?;
    let mut target = paths.target.clone();
    if number > 0 {
        target = directory.join(format!("target-{number}"));
        copy_builds(&paths.target, &target)?;
    }
    let (build, program) = (build_command(paths, &tree, &target), target.join("release/sim"));
    Ok(Rig {
        root: &paths.root,
        tree,
        build: Box::new(move || exec::with_program(&build, build.get_program())),
        run: Box::new(move |first, count| {
            let mut command = exec::command(&program);
            command.args(["--as-it-is", "--first", &first.to_string(), "--runs", &count.to_string()]);
            command
        }),
        seeds,
        patience: PATIENCE,
    })
}

/// Gives `to` what is built in `from`. Compiled crates are never changed in place, so links to them will do; what cargo
/// notes of them is copied.
fn copy_builds(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        return Ok(());
    }
    let release = to.join("release");
    fs::create_dir_all(&release).with_context(|| format!("making {}", release.display()))?;
    for (directory, how) in [("deps", "-al"), (".fingerprint", "-a"), ("build", "-a")] {
        let mut copy = exec::command("cp");
        copy.arg(how).arg(from.join("release").join(directory)).arg(&release);
        exec::run(&mut copy, "copying what is built for the mutants")?;
    }
    Ok(())
}

fn build_command(paths: &Paths, tree: &Path, target: &Path) -> Command {
    let mut command = compile::host_cargo(paths, "build", Profile::Release);
    command.current_dir(tree).args(["--quiet", "--locked", "--target-dir"]).arg(target).args(PACKAGE);
    for package in SPOILT {
        command.arg("--config").arg(format!("profile.release.package.{package}.opt-level=1"));
    }
    command.args(["--config", "profile.release.incremental=true", "--config", "profile.release.debug=false"]);
    command
}

const PACKAGE: [&str; 4] = ["--package", "failover-sim", "--bin", "sim"];
/// Where seeds begin.
const FIRST_SEED: u64 = 1;
/// Seeds that a mutant may take: ten times what any does, so that none slips through when a change gives each seed another
/// course. Those that are caught cost no more for it.
const MUTANT_RUNS: u64 = 50_000;
/// A run takes a minute at most.
const PATIENCE: Duration = Duration::from_secs(600);
/// Ours, of what the simulator is made of: with the shipped semantics (no debug assertions), but built anew in seconds.
/// Only what a mutation touches is compiled, and most mutants play few seeds.
const SPOILT: [&str; 4] = ["failover-common", "failover-ebpf", "failover-sim", "failover-userspace"];
