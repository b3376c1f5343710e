//! `cargo xtask test`: every ring of tests that can run here, then one table.
//!
//! Rings 2 and 4 need root; without it only the others run, and a line says so. A ring that fails does not keep the
//! next from running. Deliberately absent: the tests, and the reading of their output (`report.rs`).

use std::io::{ErrorKind, PipeReader, Read, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::compile::{self, Host};
use crate::exec;
use crate::fuzz;
use crate::lab::name_artifacts;
use crate::miri;
use crate::packages::Packages;
use crate::paths::{Paths, Profile};
use crate::report::{Report, Ring, ring_of_target};
use crate::setup::{self, Need};
use crate::sim;

/// Runs all rings, of each the tests whose names contain one of `filters` (all without one).
pub fn test(paths: &Paths, packages: &Packages, filters: &[String]) -> Result<()> {
    let started = Instant::now();
    let root = exec::is_root();
    let mut report = Report::default();
    let prepared = if root { prepare(paths, packages) } else { Ok(()) };
    if let Err(error) = &prepared {
        eprintln!("error: {error:#}\nrings 2 and 4 cannot run; ring 1 still can");
        report.step_failed(Ring::Namespaces, "rings 2 and 4: see the error above".into());
    }
    plain(paths, filters, &mut report)?;
    miri::test(paths, filters, &mut report)?;
    fuzz::test(paths, packages, filters, &mut report)?;
    if root && prepared.is_ok() {
        privileged(paths, filters, &mut report)?;
    }
    sim::ring(paths, filters, &mut report);
    println!("\n{:.0} s in all, with setting up and building\n", started.elapsed().as_secs_f64());
    if !root {
        println!("skipped: rings 2 and 4 need root (run with sudo)");
    }
    println!("{report}");
    if report.failed() > 0 {
        bail!("some tests failed");
    }
    if report.is_empty() && !filters.is_empty() {
        bail!("no test that can run here has a name that contains {}", filters.join(" or "));
    }
    Ok(())
}

fn prepare(paths: &Paths, packages: &Packages) -> Result<()> {
    setup::programs(Need::Tests, packages)?;
    compile::all(paths, packages, Profile::Release, Host::ProductAndLab)
}

/// Ring 1, as anybody may run it: stable toolchain, no root, no eBPF object.
fn plain(paths: &Paths, filters: &[String], report: &mut Report) -> Result<()> {
    let workspace = ["--workspace", "--exclude", "failover-tests", "--exclude", "failover-ebpf"];
    // Its own run: in one with the rest, cargo would give it the features that the others ask of shared crates.
    let frame_path = ["--package", "failover-ebpf"];
    for packages in [workspace.as_slice(), frame_path.as_slice()] {
        let mut command = exec::cargo();
        command.current_dir(&paths.root).args(["test", "--no-fail-fast"]).args(packages);
        command.arg("--").args(filters);
        step(&mut command, report, |_| Ring::Plain)?;
    }
    Ok(())
}

/// Rings 2 to 4: the loaded program, the simulation, the namespaces.
fn privileged(paths: &Paths, filters: &[String], report: &mut Report) -> Result<()> {
    let mut command = compile::host_cargo(paths, "test", Profile::Release);
    command.args(["--no-fail-fast", "--package", "failover-tests", "--"]);
    // One at a time: they share namespaces' names, pins and the machine's two or more cores.
    command.arg("--test-threads=1").args(filters);
    // What cannot run here fails; it is not skipped.
    command.env("FAILOVER_REQUIRE", "1").env("FAILOVER_COMMIT", sim::commit(paths));
    step(name_artifacts(paths, &mut command), report, ring_of_target)
}

/// Runs one cargo command, its output on the terminal and in the report.
pub fn step(command: &mut Command, report: &mut Report, ring_of: fn(&str) -> Ring) -> Result<()> {
    exec::announce(command);
    let before = report.failed();
    let status = stream(command, |line| report.line(line, ring_of))?;
    if !status.success() && report.failed() == before {
        let words: Vec<String> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
        let ring = ring_of(report.target());
        report.step_failed(ring, format!("cargo {} did not finish ({status}); see above", words.join(" ")));
    }
    Ok(())
}

/// Copies both of the command's outputs to the terminal as they come, and hands over each whole line.
///
/// One pipe for both keeps cargo's `Running ...` (standard error) ahead of that program's results.
fn stream(command: &mut Command, mut each_line: impl FnMut(&str)) -> Result<ExitStatus> {
    if exec::colours() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    let (reader, writer) = std::io::pipe().context("making a pipe for the tests' output")?;
    command.stdin(Stdio::null()).stdout(writer.try_clone().context("sharing the pipe")?).stderr(writer);
    let mut child = command.spawn().with_context(|| format!("cannot run {}", exec::describe(command)))?;
    // The command holds the pipe's writing end too; as long as it does, reading never ends.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let (sender, chunks) = mpsc::channel();
    thread::spawn(move || read_chunks(reader, &sender));
    let mut terminal = std::io::stdout();
    let mut line = Vec::new();
    let mut ended = None;
    loop {
        match chunks.recv_timeout(LAST_WORDS) {
            Ok(chunk) => {
                // A closed terminal is no reason to stop testing.
                let _ = terminal.write_all(&chunk).and_then(|()| terminal.flush());
                for byte in chunk {
                    if byte == b'\n' {
                        each_line(&String::from_utf8_lossy(&line));
                        line.clear();
                    } else {
                        line.push(byte);
                    }
                }
            }
            // A process that a test left behind keeps the pipe open for ever.
            Err(RecvTimeoutError::Timeout) if ended.is_some() => break,
            Err(RecvTimeoutError::Timeout) => {
                ended = child.try_wait().context("waiting for the tests to end")?;
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    each_line(&String::from_utf8_lossy(&line));
    match ended {
        Some(status) => Ok(status),
        None => child.wait().context("waiting for the tests to end"),
    }
}

fn read_chunks(mut reader: PipeReader, sender: &Sender<Vec<u8>>) {
    let mut chunk = [0; 8192];
    loop {
        match reader.read(&mut chunk) {
            Ok(0) => break,
            Ok(length) => {
                if sender.send(chunk[..length].to_vec()).is_err() {
                    break;
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
}

/// How long after the command's end its last output may still arrive.
const LAST_WORDS: Duration = Duration::from_millis(300);
