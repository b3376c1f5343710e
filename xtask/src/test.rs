//! `cargo xtask test`: builds what the wanted tests need, runs them ring by ring, then prints one table.
//!
//! A ring that fails does not keep the next from running. Deliberately absent: the tests, and how a ring of its own kind
//! runs (`sim.rs`, `fuzz.rs`, `miri.rs`).

use std::process::Command;
use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;

use crate::compile::{self, Host};
use crate::exec;
use crate::fuzz;
use crate::lab::name_artifacts;
use crate::miri;
use crate::nextest;
use crate::packages::Packages;
use crate::paths::{Paths, Profile};
use crate::report::{Case, Report};
use crate::rings::{Ring, Selection};
use crate::setup::{self, Need};
use crate::sim;

/// Which tests.
#[derive(Clone, Debug, Args)]
pub struct TestOptions {
    /// A ring (units, frames, simulation, namespaces, fuzz, miri, or its number), or a part of a test's name
    #[arg(value_name = "RING|NAME")]
    words: Vec<String>,
    /// Only list them
    #[arg(long)]
    list: bool,
    /// Show what tests print while they run, one test at a time
    #[arg(long)]
    no_capture: bool,
}

/// Test programs of libtest's that are built together, and those of their tests that belong to one ring.
struct Suite {
    ring: Ring,
    build: Build,
    packages: &'static [&'static str],
    /// nextest's expression.
    filter: &'static str,
    /// Tests side by side; `None`: one for each core.
    wide: Option<usize>,
}

/// How ours is compiled. What is not ours is as it ships, and so is built once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Build {
    /// As xtask was for this run of it.
    Tool,
    /// With debug assertions and overflow checks.
    Checked,
    /// As it ships, but for the tests' own code.
    Shipped,
}

const TOOL: &[&str] = &["--package", "xtask"];
/// As anybody may run them: no root, no eBPF object.
const PLAIN: &[&str] =
    &["--package", "failover-common", "--package", "failover-userspace", "--package", "failover-fuzz"];
const PRIVILEGED: &[&str] = &["--package", "failover-tests", "--package", "failover-sim"];

/// Tests side by side where most wait: for a lease to end, for a timer of TCP's.
const WAITING: Option<usize> = Some(4);

const SUITES: [Suite; 6] = [
    Suite { ring: Ring::Units, build: Build::Tool, packages: TOOL, filter: "all()", wide: WAITING },
    Suite { ring: Ring::Units, build: Build::Checked, packages: PLAIN, filter: "all()", wide: WAITING },
    Suite { ring: Ring::Units, build: Build::Shipped, packages: PRIVILEGED, filter: "not kind(test)", wide: None },
    Suite {
        ring: Ring::Frames,
        build: Build::Shipped,
        packages: PRIVILEGED,
        filter: "kind(test) & binary(/^xdp_/)",
        wide: None,
    },
    Suite {
        ring: Ring::Simulation,
        build: Build::Shipped,
        packages: PRIVILEGED,
        filter: "kind(test) & package(failover-sim)",
        wide: None,
    },
    Suite {
        ring: Ring::Namespaces,
        build: Build::Shipped,
        packages: PRIVILEGED,
        filter: "kind(test) & package(failover-tests) - binary(/^xdp_/)",
        wide: WAITING,
    },
];

/// Runs the tests that were asked for.
pub fn test(paths: &Paths, packages: &Packages, options: &TestOptions) -> Result<()> {
    let started = Instant::now();
    let selection = Selection::from_words(&options.words);
    let is_root = exec::is_root();
    nextest::find_or_install()?;
    if options.list {
        return list(paths, &selection);
    }
    let mut report = Report::default();
    let mut suites: Vec<&Suite> = SUITES.iter().filter(|suite| selection.has_ring(suite.ring)).collect();
    if let Err(error) = prepare(paths, packages, &suites, is_root) {
        eprintln!("error: {error:#}\nrings 2 and 4 cannot run; the others still can");
        report.add(Ring::Namespaces, 0.0, [Case::failed("rings 2 and 4: see the error above")]);
        suites.retain(|suite| !suite.ring.needs_root());
    }
    suites.retain(|suite| is_root || !suite.ring.needs_root());
    build(paths, &mut suites, &mut report);
    report.built(started.elapsed().as_secs_f64());
    for suite in suites {
        run(paths, suite, &selection, options, &mut report);
    }
    if selection.has_ring(Ring::Simulation) {
        sim::ring(paths, &selection, &mut report);
    }
    if selection.has_ring(Ring::Fuzz) {
        fuzz::ring(paths, packages, &selection, &mut report);
    }
    if selection.has_ring(Ring::Miri) {
        miri::ring(paths, &selection, &mut report);
    }
    finish(&report, &selection, is_root, started)
}

fn finish(report: &Report, selection: &Selection, is_root: bool, started: Instant) -> Result<()> {
    println!("\n{:.0} s in all\n", started.elapsed().as_secs_f64());
    if !is_root && Ring::ALL.into_iter().any(|ring| ring.needs_root() && selection.has_ring(ring)) {
        println!("skipped: rings 2 and 4 need root (run with sudo)");
    }
    println!("{report}");
    if report.failed() > 0 {
        bail!("some tests failed");
    }
    if report.is_empty() {
        bail!("no test that can run here has a name that contains {}", selection.names().join(" or "));
    }
    Ok(())
}

/// What rings 2 and 4 need besides their tests: other programs, the eBPF objects, the product.
fn prepare(paths: &Paths, packages: &Packages, suites: &[&Suite], is_root: bool) -> Result<()> {
    if !is_root || !suites.iter().any(|suite| suite.ring.needs_root()) {
        return Ok(());
    }
    setup::programs(Need::Tests, packages)?;
    compile::all(paths, packages, Profile::Release, Host::Product)
}

/// Builds each suite's programs; one that does not build is reported and left out.
fn build(paths: &Paths, suites: &mut Vec<&Suite>, report: &mut Report) {
    let mut built: Vec<(&[&str], bool)> = Vec::new();
    suites.retain(|suite| {
        if let Some((_, is_good)) = built.iter().find(|(packages, _)| *packages == suite.packages) {
            return *is_good;
        }
        let result = exec::run(suite.command(paths, "run").arg("--no-run"), "building the tests");
        if let Err(error) = &result {
            report.add(suite.ring, 0.0, [Case::failed(format!("{error:#}"))]);
        }
        built.push((suite.packages, result.is_ok()));
        result.is_ok()
    });
}

fn run(paths: &Paths, suite: &Suite, selection: &Selection, options: &TestOptions, report: &mut Report) {
    println!("\nring {}", suite.ring);
    let mut command = suite.command(paths, "run");
    command.args(["--filterset", &selection.filterset(suite.filter)]);
    if options.no_capture {
        command.arg("--no-capture");
    } else if let Some(wide) = suite.wide {
        command.args(["--test-threads", &wide.to_string()]);
    }
    // What cannot run here fails; it is not skipped.
    command.env("FAILOVER_REQUIRE", "1").env("FAILOVER_COMMIT", sim::commit(paths));
    match nextest::run(paths, name_artifacts(paths, &mut command)) {
        Ok((cases, seconds)) => report.add(suite.ring, seconds, cases),
        Err(error) => report.add(suite.ring, 0.0, [Case::failed(format!("{error:#}"))]),
    }
}

/// A line for each test: its program and its name. Of the fuzz targets and mutants, their names.
fn list(paths: &Paths, selection: &Selection) -> Result<()> {
    for suite in SUITES.iter().filter(|suite| selection.has_ring(suite.ring)) {
        let mut command = suite.command(paths, "list");
        command.args(["--message-format", "oneline", "--filterset", &selection.filterset(suite.filter)]);
        exec::run(&mut command, "listing the tests")?;
    }
    let others = [(Ring::Simulation, sim::names(paths)?), (Ring::Fuzz, fuzz::names(paths)?)];
    for (ring, names) in others {
        for name in names.iter().filter(|name| selection.has_ring(ring) && selection.has_name(name)) {
            println!("{name}");
        }
    }
    Ok(())
}

impl Suite {
    fn command(&self, paths: &Paths, verb: &str) -> Command {
        let mut command = nextest::command(paths, verb);
        command.args(self.packages);
        compile::with_object(paths, &mut command).arg("--release");
        match self.build {
            Build::Tool => {}
            Build::Checked => drop(command.arg("--config").arg(paths.root.join(".config/checked.toml"))),
            Build::Shipped => drop(command.arg("--config").arg(paths.root.join(".config/quick.toml"))),
        }
        command
    }
}
