//! `cargo xtask faults`: builds and becomes the fault lab.
//!
//! Deliberately absent: the faults, which are the program `faults` of the package failover-tests.

use anyhow::Result;

use crate::compile::{self, Host};
use crate::exec;
use crate::lab::name_artifacts;
use crate::packages::Packages;
use crate::paths::{Paths, Profile};
use crate::setup::{self, Need};

/// Plays the faults of these names, all without one; with `write`, the document is written.
pub fn faults(paths: &Paths, packages: &Packages, names: &[String], write: bool) -> Result<()> {
    exec::require_root("the fault lab (network namespaces, XDP)", "faults")?;
    setup::programs(Need::Tests, packages)?;
    compile::all(paths, packages, Profile::Release, Host::ProductAndLab)?;
    let mut command = exec::command(paths.faults());
    command.args(names);
    if write {
        command.arg("--write").arg(paths.root.join("docs/faults.md"));
    }
    Err(exec::replace(name_artifacts(paths, &mut command), "running the fault lab"))
}
