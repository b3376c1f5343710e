//! The project's own commands. One file per verb; `cargo xtask --help` lists them.
//!
//! xtask finds or installs what a verb needs, then calls cargo and the project's programs. It links none of the
//! project's crates, so it builds in seconds and works before they do.

mod compile;
mod exec;
mod linker;
mod packages;
mod paths;
mod toolchain;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::packages::Packages;
use crate::paths::{Paths, Profile};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Builds, runs and tests failover; installs what that needs, saying so first"
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
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    let paths = Paths::find()?;
    let packages = Packages::detect();
    match cli.verb {
        Verb::Build { debug } => compile::build(
            &paths,
            &packages,
            if debug {
                Profile::Debug
            } else {
                Profile::Release
            },
        ),
    }
}
