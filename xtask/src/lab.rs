//! `cargo xtask lab`: builds and becomes the lab, two nodes and a client in network namespaces.
//!
//! Deliberately absent: the lab itself, which is the program `lab` of the package failover-tests.

use std::process::Command;

use anyhow::{Result, bail};
use clap::Subcommand;

use crate::compile::{self, Host};
use crate::exec;
use crate::packages::Packages;
use crate::paths::{Paths, Profile};
use crate::setup::{self, Need};

/// What to do with the lab.
#[derive(Clone, Debug, Subcommand)]
pub enum LabVerb {
    /// Set it up, play the story of failures with measured times, take it down (the default)
    Story,
    /// Set it up and leave it for playing with
    Up,
    /// Take it down
    Down,
    /// Open a shell, or run COMMAND, in one of its nodes
    Shell {
        /// The node's name
        node: String,
        /// What to run there instead of a shell
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
}

/// Builds what the lab needs, then becomes it.
pub fn lab(paths: &Paths, packages: &Packages, verb: &LabVerb) -> Result<()> {
    let words = verb.words();
    exec::require_root("the lab (network namespaces, XDP)", &format!("lab {}", words.join(" ")))?;
    if verb.wants_fresh_build() || !paths.lab().exists() {
        setup::programs(Need::Lab, packages)?;
        compile::all(paths, packages, Profile::Release, Host::ProductAndLab)?;
    }
    if !paths.lab().exists() {
        bail!("failover-tests is built, and {} is not there", paths.lab().display());
    }
    let mut command = exec::command(paths.lab());
    command.args(words);
    Err(exec::replace(name_artifacts(paths, &mut command), "running the lab"))
}

/// Tells the lab and the tests where the built programs are.
pub fn name_artifacts<'a>(paths: &Paths, command: &'a mut Command) -> &'a mut Command {
    command
        .env("FAILOVER_BIN", paths.failover(Profile::Release))
        .env("FAILOVER_XDP_OBJECT", paths.xdp_object())
        .env("FAILOVER_LAB_PASS_OBJECT", paths.lab_pass_object())
        .env("FAILOVER_LAB_TAG_OBJECT", paths.lab_tag_object())
        .env("FAILOVER_BENCH_FRAME_OBJECT", paths.bench_frame_object())
        .env("FAILOVER_BENCH_FLOOD_OBJECT", paths.bench_flood_object())
}

impl LabVerb {
    /// A lab that is up is looked into and taken down with what it was set up with.
    fn wants_fresh_build(&self) -> bool {
        matches!(self, Self::Story | Self::Up)
    }

    fn words(&self) -> Vec<&str> {
        match self {
            Self::Story => vec!["story"],
            Self::Up => vec!["up"],
            Self::Down => vec!["down"],
            Self::Shell { node, command } => {
                let mut words = vec!["shell", node.as_str()];
                words.extend(command.iter().map(String::as_str));
                words
            }
        }
    }
}
