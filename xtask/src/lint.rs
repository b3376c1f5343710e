//! `cargo xtask lint`: every check that runs no project code. All of them run; the failures are listed at the end.
//!
//! Deliberately absent: the project's own rules, which are `tidy.rs` and `ledger.rs`.

use std::time::Duration;

use anyhow::{Result, bail, ensure};

use crate::compile;
use crate::exec;
use crate::ledger;
use crate::packages::Packages;
use crate::paths::Paths;
use crate::setup;
use crate::tidy;
use crate::toolchain::BpfRustc;

/// Runs all checks.
pub fn lint(paths: &Paths, packages: &Packages) -> Result<()> {
    setup::cargo_components()?;
    let checks: [(&str, Check); 6] = [
        ("formatting", formatting),
        ("clippy", clippy),
        ("the eBPF programs", ebpf),
        ("documentation", documentation),
        ("tidy", tidy_check),
        ("the ledger of the RFCs", ledger_check),
    ];
    let mut failed = Vec::new();
    for (name, check) in checks {
        if let Err(error) = check(paths, packages) {
            eprintln!("error: {error:#}");
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("lint: {} of {} checks failed: {}", failed.len(), checks.len(), failed.join(", "));
    }
    println!("lint: all {} checks passed", checks.len());
    Ok(())
}

type Check = fn(&Paths, &Packages) -> Result<()>;

fn formatting(paths: &Paths, _: &Packages) -> Result<()> {
    let mut command = exec::cargo();
    command.current_dir(&paths.root).args(["fmt", "--all", "--check"]);
    exec::run(&mut command, "checking the formatting (`cargo fmt --all` repairs it)")
}

/// The host crates with their tests, and the frame path's library as plain code.
fn clippy(paths: &Paths, _: &Packages) -> Result<()> {
    let mut command = exec::cargo();
    command.current_dir(&paths.root);
    command.args(["clippy", "--release", "--workspace", "--all-targets", "--", "-D", "warnings"]);
    exec::run(&mut command, "clippy")
}

/// The eBPF binaries, which only the BPF compiler can read: with its own clippy if it has one, else by its warnings.
fn ebpf(paths: &Paths, packages: &Packages) -> Result<()> {
    let compiler = BpfRustc::find_or_install(packages)?;
    let parts = (compiler.sibling("cargo"), compiler.sibling("cargo-clippy"), compiler.sibling("clippy-driver"));
    if let (Some(cargo), Some(clippy), Some(_)) = parts {
        eprintln!("the eBPF programs, with clippy:");
        let checked = compile::ebpf_cargo(paths, &compiler, "clippy");
        let mut command = exec::with_program(&checked, clippy);
        // cargo-clippy calls back the cargo that called it: here, that of its own toolchain.
        command.env("CARGO", cargo).arg("--target-dir").arg(paths.target.join("bpf-lint"));
        return exec::run(command.args(["--", "-D", "warnings"]), "clippy for the eBPF programs");
    }
    eprintln!("the eBPF programs, by the compiler's warnings ({} has no clippy):", compiler.rustc.display());
    // The build that all verbs use: cargo repeats the warnings of what is built already.
    let mut command = compile::ebpf_build(paths, &compiler, packages)?;
    command.env("CARGO_TERM_COLOR", "never");
    exec::announce(&command);
    let built = exec::capture(&mut command, &paths.target.join("bpf-lint.log"), PATIENCE)?;
    let is_clean = built.code == Some(0) && !built.output.lines().any(|line| line.starts_with("warning"));
    ensure!(is_clean, "the eBPF programs do not compile without warnings:\n{}", built.output);
    Ok(())
}

fn documentation(paths: &Paths, _: &Packages) -> Result<()> {
    let mut command = exec::cargo();
    command
        .current_dir(&paths.root)
        .args(["doc", "--release", "--no-deps", "--workspace"])
        .env("RUSTDOCFLAGS", "-D warnings");
    exec::run(&mut command, "building the documentation")
}

fn tidy_check(paths: &Paths, _: &Packages) -> Result<()> {
    let findings = tidy::scan(&paths.root)?;
    for remark in &findings.remarks {
        eprintln!("note: {remark}");
    }
    if findings.errors.is_empty() {
        return Ok(());
    }
    bail!("tidy:\n  {}", findings.errors.join("\n  "))
}

fn ledger_check(paths: &Paths, _: &Packages) -> Result<()> {
    let wrong = ledger::check(&paths.root)?;
    if wrong.is_empty() {
        return Ok(());
    }
    bail!("the ledger of the RFCs:\n  {}", wrong.join("\n  "))
}

/// For a build from nothing on a slow machine.
const PATIENCE: Duration = Duration::from_secs(1800);
