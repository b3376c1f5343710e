//! Miri over `failover-common`, in `cargo xtask test`: undefined behaviour in what the kernel program, the controller and
//! the tests share.
//!
//! Deliberately absent: installing it. Miri belongs to a nightly toolchain, and which one is the user's choice.

use std::process::Command;

use anyhow::Result;

use crate::exec;
use crate::paths::Paths;
use crate::report::{Report, Ring};
use crate::test::step;

/// Inputs of each property: an interpreter is a thousand times slower.
const CASES: &str = "16";

/// Runs the crate's tests whose names contain one of `filters`, on the first toolchain that has Miri.
pub fn test(paths: &Paths, filters: &[String], report: &mut Report) -> Result<()> {
    let Some(mut command) = cargos().into_iter().find_map(with_miri) else {
        let what =
            "Miri over failover-common: no installed toolchain has it (`rustup +nightly component add miri rust-src`)";
        println!("skipped: {what}");
        report.step_skipped(Ring::Plain, what.into());
        return Ok(());
    };
    command.current_dir(&paths.root).args(["test", "--no-fail-fast", "--package", "failover-common", "--target-dir"]);
    command.arg(paths.target.join("miri")).arg("--").args(filters);
    // proptest looks for a file with earlier failures.
    command.env("MIRIFLAGS", "-Zmiri-disable-isolation").env("PROPTEST_CASES", CASES);
    step(&mut command, report, |_| Ring::Plain)
}

/// `cargo` of each toolchain: the active one, then rustup's.
fn cargos() -> Vec<Command> {
    let listed = exec::output_of(exec::command("rustup").args(["toolchain", "list", "--quiet"])).unwrap_or_default();
    let others = listed.split_whitespace().map(|name| {
        let mut command = exec::command("rustup");
        command.args(["run", name, "cargo"]);
        // They name the active toolchain's.
        for name in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN"] {
            command.env_remove(name);
        }
        command
    });
    std::iter::once(exec::cargo()).chain(others).collect()
}

/// The same with `miri`, if that runs.
fn with_miri(mut cargo: Command) -> Option<Command> {
    cargo.arg("miri");
    let mut version = exec::with_program(&cargo, cargo.get_program());
    exec::output_of(version.arg("--version")).map(|_| cargo)
}
