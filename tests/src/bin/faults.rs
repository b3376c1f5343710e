//! The fault lab: everything that is done to a pair of nodes, ours and keepalived's in turn, and what a
//! client saw of it. Started by `cargo xtask faults`.
//!
//! Deliberately absent: a pass or fail on a time. What is judged is who answers.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use failover_tests::faults::{FAULTS, Fault, Played, Row, Scene, System, document, lines};
use failover_tests::machine::conditions;
use failover_tests::requirements::Built;

/// Does every fault to a pair of nodes, ours and keepalived's.
#[derive(Parser)]
struct Cli {
    /// Only these faults; `list` lists them
    names: Vec<String>,
    /// Write the table here as a document
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("faults: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    if cli.names == ["list"] {
        FAULTS.iter().for_each(|fault| println!("{:<20} {}", fault.name, fault.title));
        return Ok(());
    }
    for name in &cli.names {
        ensure!(FAULTS.iter().any(|fault| fault.name == name), "no fault {name}; `list` lists them");
    }
    let built = Built::from_env()?;
    println!("{}", conditions());
    let wanted = |fault: &&Fault| cli.names.is_empty() || cli.names.iter().any(|name| name == fault.name);
    let (mut rows, mut broken) = (Vec::new(), Vec::new());
    for fault in FAULTS.iter().filter(wanted) {
        let play = |system| -> Result<Played> { Scene::new(&built, system, fault.setting)?.play(fault, fault.length) };
        let ours = play(System::Ours).with_context(|| format!("{}, failover", fault.name))?;
        let keepalived = play(System::Keepalived).with_context(|| format!("{}, keepalived", fault.name))?;
        if let Played::Seen(outcome) = &ours
            && let Err(error) = outcome.check(fault)
        {
            broken.push(format!("{error:#}"));
        }
        let row = Row { fault, ours, keepalived };
        print!("{}", lines(&row));
        rows.push(row);
    }
    if let Some(path) = &cli.write {
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(path, document(&rows)).with_context(|| format!("writing {}", path.display()))?;
    }
    if !broken.is_empty() {
        bail!("what must hold did not:\n{}", broken.join("\n"));
    }
    Ok(())
}
