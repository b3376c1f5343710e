//! `cargo xtask build-and-load`: builds, then becomes the controller on this node's interfaces, or plays the lab.
//!
//! Deliberately absent: supervision (systemd's job) and anything the controller does.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::compile::{self, Host};
use crate::exec;
use crate::lab::{self, LabVerb};
use crate::packages::Packages;
use crate::paths::{Paths, Profile};

/// Runs the controller as `config` says, or the lab's story without one.
pub fn build_and_load(paths: &Paths, packages: &Packages, config: Option<&Path>) -> Result<()> {
    match config {
        None => lab::lab(paths, packages, &LabVerb::Story),
        Some(config) => on_this_node(paths, packages, config),
    }
}

fn on_this_node(paths: &Paths, packages: &Packages, config: &Path) -> Result<()> {
    let config = absolute(config)?;
    exec::require_root("loading an XDP program", &format!("build-and-load --config {}", config.display()))?;
    compile::all(paths, packages, Profile::Release, Host::Product)?;
    let mut command = exec::command(paths.failover(Profile::Release));
    command.args(["run", "--config"]).arg(config);
    Err(exec::replace(&mut command, "running the controller"))
}

/// A mistyped name is told before minutes of building, not after.
fn absolute(config: &Path) -> Result<PathBuf> {
    config.canonicalize().with_context(|| format!("the configuration {} cannot be used", config.display()))
}
