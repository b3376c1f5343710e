//! Miri over `failover-common`, a ring of `cargo xtask test`: undefined behaviour in what the kernel program, the controller and
//! the tests share.
//!
//! Deliberately absent: installing it. Miri belongs to a nightly toolchain, and which one is the user's choice.

use std::process::Command;
use std::time::Instant;

use crate::exec;
use crate::paths::Paths;
use crate::report::{Case, Outcome, Report};
use crate::rings::{Ring, Selection};

const NAME: &str = "Miri over failover-common";
/// Inputs of each property: an interpreter is a thousand times slower.
const CASES: &str = "16";

/// Runs the crate's tests that were asked for, on the first toolchain that has Miri; together they count as one.
pub fn ring(paths: &Paths, selection: &Selection, report: &mut Report) {
    let Some(mut command) = cargos().into_iter().find_map(with_miri) else {
        let reason = "no installed toolchain has Miri (`rustup +nightly component add miri rust-src`)";
        println!("skipped: {NAME}: {reason}");
        report.add(Ring::Miri, 0.0, [Case::skipped(NAME, reason)]);
        return;
    };
    command.current_dir(&paths.root).args(["test", "--no-fail-fast", "--package", "failover-common", "--target-dir"]);
    command.arg(paths.target.join("miri")).arg("--").args(selection.names());
    // proptest looks for a file with earlier failures.
    command.env("MIRIFLAGS", "-Zmiri-disable-isolation").env("PROPTEST_CASES", CASES);
    let started = Instant::now();
    let result = exec::run(&mut command, NAME);
    let seconds = started.elapsed().as_secs_f64();
    let outcome = match &result {
        Ok(()) => Outcome::Passed,
        Err(error) => {
            eprintln!("error: {error:#}");
            Outcome::Failed
        }
    };
    report.add(Ring::Miri, seconds, [Case { name: NAME.into(), seconds, outcome }]);
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
