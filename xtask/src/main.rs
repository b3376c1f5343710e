//! The project's own commands. One file per verb; `cargo xtask --help` lists them.
//!
//! xtask finds or installs what a verb needs, then calls cargo and the project's programs. It links none of the
//! project's crates, so it builds in seconds and works before they do.

mod bench;
mod compile;
mod exec;
mod faults;
mod fuzz;
mod lab;
mod ledger;
mod linker;
mod lint;
mod load;
mod miri;
mod mirror;
mod mutants;
mod nextest;
mod packages;
mod paths;
mod report;
mod rings;
mod setup;
mod sim;
mod test;
mod tidy;
mod toolchain;
mod vm;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::bench::BenchOptions;
use crate::lab::LabVerb;
use crate::packages::Packages;
use crate::paths::{Paths, Profile};
use crate::sim::SimOptions;
use crate::test::TestOptions;
use crate::vm::VmOptions;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Builds, runs and tests failover; installs what that needs, saying so first",
    after_help = "Environment:\n  \
                  FAILOVER_NO_INSTALL=1   install nothing: say what is missing, and stop\n  \
                  FAILOVER_BPF_RUSTC      the compiler for the XDP program, instead of the first usable one\n  \
                  CARGO_TARGET_DIR        where everything is built"
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Build the eBPF objects and the programs that embed them
    Build {
        /// Build the host programs without optimisation (the eBPF objects are always optimised)
        #[arg(long)]
        debug: bool,
    },
    /// Build, then run the controller on this node, or the lab
    BuildAndLoad {
        /// Run the controller as this file says
        #[arg(long, value_name = "FILE", conflicts_with = "lab")]
        config: Option<PathBuf>,
        /// Play the lab's story (the default)
        #[arg(long)]
        lab: bool,
    },
    /// Two nodes and a client in network namespaces
    Lab {
        #[command(subcommand)]
        verb: Option<LabVerb>,
    },
    /// Do everything to a pair of nodes that can happen, ours and keepalived's, and measure
    Faults {
        /// Only these faults; `list` lists them
        #[arg(value_name = "NAME", conflicts_with = "write")]
        names: Vec<String>,
        /// Write docs/faults.md
        #[arg(long)]
        write: bool,
    },
    /// Measure ours beside keepalived and the kernel's own stack, and write docs/benchmarks.md
    Bench(BenchOptions),
    /// Run every ring of tests that can run here
    Test(TestOptions),
    /// Many routers on a virtual clock, with the faults that each seed draws
    Sim(SimOptions),
    /// Feed a fuzz target with whatever libFuzzer thinks of, until it fails or the time is over
    Fuzz {
        /// Which: a file of tests/fuzz/fuzz_targets
        target: String,
        /// Stop after this time; without it, on Ctrl-C
        #[arg(long, value_name = "N")]
        seconds: Option<u64>,
    },
    /// Boot kernels that Debian packages, and run the project's own tests in them
    Vm(VmOptions),
    /// Check formatting, lints, documentation and the project's own rules
    Lint,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    let paths = Paths::find()?;
    let packages = Packages::detect();
    match &cli.verb {
        Verb::Build { debug: true } => compile::build(&paths, &packages, Profile::Debug),
        Verb::Build { debug: false } => compile::build(&paths, &packages, Profile::Release),
        // --lab says what no --config means anyway.
        Verb::BuildAndLoad { config, lab: _ } => load::build_and_load(&paths, &packages, config.as_deref()),
        Verb::Lab { verb } => lab::lab(&paths, &packages, verb.as_ref().unwrap_or(&LabVerb::Story)),
        Verb::Faults { names, write } => faults::faults(&paths, &packages, names, *write),
        Verb::Bench(options) => bench::bench(&paths, &packages, options),
        Verb::Test(options) => test::test(&paths, &packages, options),
        Verb::Sim(options) => sim::sim(&paths, options),
        Verb::Fuzz { target, seconds } => fuzz::fuzz(&paths, &packages, target, *seconds),
        Verb::Vm(options) => vm::vm(&paths, &packages, options),
        Verb::Lint => lint::lint(&paths, &packages),
    }
}
