//! `cargo xtask bench`: builds and becomes the bench.
//!
//! Deliberately absent: what is measured, which is the program `bench` of the package failover-tests.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::compile::{self, Host};
use crate::exec;
use crate::lab::name_artifacts;
use crate::packages::Packages;
use crate::paths::{Paths, Profile};
use crate::setup::{self, Need};
use crate::sim;

/// What to measure.
#[derive(Clone, Debug, Args)]
pub struct BenchOptions {
    /// Only this part: failover, xdp, stack or scale
    #[arg(value_parser = ["failover", "xdp", "stack", "scale"])]
    part: Option<String>,
    /// How often each measurement is repeated, instead of its own number
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Write this run's raw results here, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Measures, and writes docs/benchmarks.md.
pub fn bench(paths: &Paths, packages: &Packages, options: &BenchOptions) -> Result<()> {
    exec::require_root("the bench (network namespaces, XDP)", "bench")?;
    setup::programs(Need::Tests, packages)?;
    compile::all(paths, packages, Profile::Release, Host::ProductAndLab)?;
    let mut command = exec::command(paths.bench());
    command.arg("--docs").arg(paths.root.join("docs")).arg("--commit").arg(sim::commit(paths)).args(&options.part);
    if let Some(rounds) = options.rounds {
        command.arg("--rounds").arg(rounds.to_string());
    }
    if let Some(file) = &options.json {
        command.arg("--json").arg(file);
    }
    Err(exec::replace(name_artifacts(paths, &mut command), "running the bench"))
}
