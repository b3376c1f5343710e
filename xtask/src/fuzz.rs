//! `cargo xtask fuzz`, and a bounded run of all targets as a ring of `cargo xtask test`: finds or installs cargo-fuzz, and
//! calls it.
//!
//! It works on a stable compiler too: cargo-fuzz asks for unstable flags, which `RUSTC_BOOTSTRAP` admits. New inputs are
//! kept in the target directory, and those that fail in `tests/fuzz/artifacts`; the repository's corpus is only read.
//! Deliberately absent: the targets, which are in `tests/fuzz`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::exec;
use crate::packages::{Package, Packages, may_install};
use crate::paths::Paths;
use crate::report::{Case, Outcome, Report};
use crate::rings::{Ring, Selection};

/// What is installed; any version is used.
const INSTALL: &str = "cargo install cargo-fuzz --version 0.13.2 --locked";
/// Of each target, in a bounded run: seconds of work.
const RUNS: u32 = 20_000;
/// A bounded run takes less than a minute.
const PATIENCE: Duration = Duration::from_secs(900);

/// Runs one target until it fails or the time is over.
pub fn fuzz(paths: &Paths, packages: &Packages, target: &str, seconds: Option<u64>) -> Result<()> {
    let targets = targets(paths)?;
    if !targets.iter().any(|known| known == target) {
        bail!("there is no fuzz target {target}: there are {}", targets.join(", "));
    }
    let tool = Tool::find_or_install(packages)?;
    let found = paths.target.join("fuzz/corpus").join(target);
    println!("new inputs go to {}", paths.shown(&found).display());
    let mut command = tool.run(paths, target, &found)?;
    command.args(seconds.map(|seconds| format!("-max_total_time={seconds}")));
    exec::run(&mut command, &format!("fuzzing {target}"))
}

/// The bounded run: the corpus and some thousands of inputs more, the same every time; as many targets side by side as
/// there are cores.
pub fn ring(paths: &Paths, packages: &Packages, selection: &Selection, report: &mut Report) {
    match try_ring(paths, packages, selection, report) {
        Ok(()) => {}
        Err(error) => report.add(Ring::Fuzz, 0.0, [Case::failed(format!("fuzzing: {error:#}"))]),
    }
}

fn try_ring(paths: &Paths, packages: &Packages, selection: &Selection, report: &mut Report) -> Result<()> {
    let wanted: Vec<String> = targets(paths)?.into_iter().filter(|target| selection.has_name(&label(target))).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    println!("\nring {}", Ring::Fuzz);
    let tool = match Tool::find_or_install(packages) {
        Ok(tool) => tool,
        Err(error) => {
            let reason = format!("{error:#}");
            println!("skipped: fuzzing: {reason}");
            report.add(Ring::Fuzz, 0.0, [Case::skipped("fuzzing", reason)]);
            return Ok(());
        }
    };
    let started = Instant::now();
    exec::run(&mut tool.cargo_fuzz(paths, "build"), "building the fuzz targets")?;
    report.built(started.elapsed().as_secs_f64());
    let started = Instant::now();
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(target) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
            let case = tool.bounded(paths, target);
            println!("{:>8.1} s  {}: {:?}", case.seconds, case.name, case.outcome);
            done.lock().unwrap_or_else(PoisonError::into_inner).push(case);
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let cases = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    report.add(Ring::Fuzz, started.elapsed().as_secs_f64(), cases);
    Ok(())
}

/// The targets, as tests are named.
pub fn names(paths: &Paths) -> Result<Vec<String>> {
    Ok(targets(paths)?.iter().map(|target| label(target)).collect())
}

fn label(target: &str) -> String {
    format!("fuzz::{target}")
}

/// The targets' names.
fn targets(paths: &Paths) -> Result<Vec<String>> {
    let directory = directory(paths).join("fuzz_targets");
    let failed = || format!("reading the directory {}", directory.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(&directory).with_context(failed)? {
        names.extend(entry.with_context(failed)?.path().file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

fn directory(paths: &Paths) -> PathBuf {
    paths.root.join("tests/fuzz")
}

/// cargo-fuzz, and what it is told to build with.
struct Tool {
    program: PathBuf,
    sanitizer: &'static str,
}

impl Tool {
    fn find_or_install(packages: &Packages) -> Result<Self> {
        if exec::find_program("c++").is_none() {
            packages.install(&[Package::new("g++", "gcc-c++", "gcc")], "libFuzzer is built with it")?;
        }
        let find = || exec::cargo_program_candidates("cargo-fuzz").into_iter().next();
        if find().is_none() {
            if !may_install() {
                bail!("missing: cargo-fuzz, and FAILOVER_NO_INSTALL is set; install it with `{INSTALL}`");
            }
            eprintln!("installing cargo-fuzz with cargo (it runs the fuzz targets; about a minute)");
            exec::run(&mut exec::cargo_install(INSTALL), "installing cargo-fuzz")?;
        }
        let program = find().context("installed cargo-fuzz, and still do not find it")?;
        let sanitizer = if has_address_sanitizer() {
            println!("fuzzing with AddressSanitizer");
            "address"
        } else {
            println!("fuzzing without AddressSanitizer: this toolchain comes without its runtime");
            "none"
        };
        Ok(Self { program, sanitizer })
    }

    /// `cargo fuzz VERB`, with what `build` and `run` have in common.
    fn cargo_fuzz(&self, paths: &Paths, verb: &str) -> Command {
        let mut command = exec::command(&self.program);
        // There, cargo finds the profile that is meant for fuzzing.
        command.current_dir(directory(paths)).args([verb, "--fuzz-dir", ".", "--features", "libfuzzer"]);
        command.args(["--sanitizer", self.sanitizer, "--codegen-units", "16", "--target-dir"]);
        command.arg(paths.target.join("fuzz")).env("RUSTC_BOOTSTRAP", "1");
        // These would take the place of cargo-fuzz's own.
        command.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS").env_remove("CARGO_BUILD_TARGET");
        command
    }

    /// A run that starts with the repository's corpus, and with what `found` has and gets; libFuzzer's own options come
    /// behind.
    fn run(&self, paths: &Paths, target: &str, found: &Path) -> Result<Command> {
        fs::create_dir_all(found).with_context(|| format!("making {}", found.display()))?;
        let mut command = self.cargo_fuzz(paths, "run");
        command.arg(target).arg(found).arg(Path::new("corpus").join(target)).args(["--", "-print_funcs=0"]);
        Ok(command)
    }

    fn bounded(&self, paths: &Paths, target: &str) -> Case {
        let started = Instant::now();
        let result = self.try_bounded(paths, target);
        let outcome = match &result {
            Ok(()) => Outcome::Passed,
            Err(error) => {
                eprintln!("error: {error:#}");
                Outcome::Failed
            }
        };
        Case { name: label(target), seconds: started.elapsed().as_secs_f64(), outcome }
    }

    fn try_bounded(&self, paths: &Paths, target: &str) -> Result<()> {
        let found = paths.target.join("fuzz/bounded").join(target);
        if found.exists() {
            fs::remove_dir_all(&found).with_context(|| format!("emptying {}", found.display()))?;
        }
        let mut command = self.run(paths, target, &found)?;
        command.args([format!("-runs={RUNS}").as_str(), "-seed=1", "-verbosity=0"]);
        let log = found.with_extension("log");
        let ran = exec::capture(&mut command, &log, PATIENCE)?;
        if ran.code != Some(0) {
            bail!("fuzzing {target} failed; the input is named here:\n{}", ran.output);
        }
        Ok(())
    }
}

/// Whether the active toolchain ships the runtime (`librustc-stable_rt.asan.a` and the like).
fn has_address_sanitizer() -> bool {
    let Some(libraries) = exec::output_of(exec::command("rustc").args(["--print", "target-libdir"])) else {
        return false;
    };
    let Ok(entries) = fs::read_dir(libraries.trim_end()) else { return false };
    entries.flatten().any(|entry| entry.file_name().to_string_lossy().ends_with("_rt.asan.a"))
}
