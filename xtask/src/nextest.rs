//! cargo-nextest: finds or installs it, has it build and run a suite of tests, reads what came of each.
//!
//! How many tests run side by side, and which run alone, is in `.config/nextest.toml` and `test.rs`. Deliberately absent:
//! which suites there are.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::exec;
use crate::packages::may_install;
use crate::paths::Paths;
use crate::report::{Case, Outcome};

/// What is installed; any version that reads `.config/nextest.toml` is used.
const INSTALL: &str = "cargo install cargo-nextest --version 0.9.143 --locked";

/// Finds `cargo nextest`, installing it when there is none.
pub fn find_or_install() -> Result<()> {
    let is_there = || exec::output_of(exec::cargo().args(["nextest", "--version"])).is_some();
    if is_there() {
        return Ok(());
    }
    if !may_install() {
        bail!("missing: cargo-nextest, and FAILOVER_NO_INSTALL is set; install it with `{INSTALL}`");
    }
    eprintln!("installing cargo-nextest with cargo (it runs the tests; some minutes)");
    exec::run(&mut exec::cargo_install(INSTALL), "installing cargo-nextest")?;
    if !is_there() {
        bail!("installed cargo-nextest, and `cargo nextest --version` still does not run");
    }
    Ok(())
}

/// `cargo nextest VERB`; what it builds and runs comes behind.
pub fn command(paths: &Paths, verb: &str) -> Command {
    let mut command = exec::cargo();
    command.current_dir(&paths.root).args(["nextest", verb, "--no-pager"]);
    command
}

/// Runs a suite and returns what came of each test, and the seconds it took.
///
/// # Errors
/// When nextest did not get to run its tests, or ended badly without naming one that failed.
pub fn run(paths: &Paths, command: &mut Command) -> Result<(Vec<Case>, f64)> {
    let junit = paths.root.join(JUNIT);
    if let Err(error) = fs::remove_file(&junit)
        && error.kind() != ErrorKind::NotFound
    {
        return Err(error).with_context(|| format!("removing {}", junit.display()));
    }
    let started = Instant::now();
    let ran = exec::run(command.args(["--no-tests", "pass"]), "running the tests");
    let seconds = started.elapsed().as_secs_f64();
    let cases = if junit.exists() { cases_in(&exec::read(&junit)?)? } else { Vec::new() };
    if !cases.iter().any(|case| case.outcome == Outcome::Failed) {
        ran?;
    }
    Ok((cases, seconds))
}

/// The tests in a report of nextest's: a `testsuite` for each program, a `testcase` for each test.
fn cases_in(junit: &str) -> Result<Vec<Case>> {
    let failed = || format!("reading {}", PathBuf::from(JUNIT).display());
    let document = roxmltree::Document::parse(junit).with_context(failed)?;
    let mut cases = Vec::new();
    for node in document.descendants().filter(|node| node.has_tag_name("testcase")) {
        let attribute = |name| node.attribute(name).with_context(|| format!("a testcase without {name}"));
        let is_bad = node.children().any(|child| child.has_tag_name("failure") || child.has_tag_name("error"));
        cases.push(Case {
            name: format!("{} {}", attribute("classname")?, attribute("name")?),
            seconds: attribute("time")?.parse().with_context(failed)?,
            outcome: if is_bad { Outcome::Failed } else { Outcome::Passed },
        });
    }
    Ok(cases)
}

/// Where `.config/nextest.toml` has it, below the root.
const JUNIT: &str = "target/nextest/default/junit.xml";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_programs_tests_times_and_failures() {
        let cases = cases_in(
            r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="nextest-run" tests="2" failures="1" errors="0" uuid="1" timestamp="2026-11-29T12:00:00Z" time="1.5">
    <testsuite name="failover-tests::xdp_arp" tests="2" disabled="0" errors="0" failures="1">
        <testcase name="a_request_is_answered" classname="failover-tests::xdp_arp" timestamp="t" time="0.250"></testcase>
        <testcase name="a_short_one_passes" classname="failover-tests::xdp_arp" timestamp="t" time="1.250">
            <failure message="m" type="test failure">x</failure><system-err>&lt;text&gt;</system-err>
        </testcase>
    </testsuite>
</testsuites>"#,
        )
        .unwrap();
        let case = |name: &str, seconds, outcome| Case { name: name.into(), seconds, outcome };
        let expected = [
            case("failover-tests::xdp_arp a_request_is_answered", 0.25, Outcome::Passed),
            case("failover-tests::xdp_arp a_short_one_passes", 1.25, Outcome::Failed),
        ];
        assert_eq!(cases, expected);
    }

    #[test]
    fn what_is_no_report_is_refused() {
        assert!(cases_in("").is_err());
        assert!(cases_in("<testsuites><testsuite><testcase name=\"x\"/></testsuite></testsuites>").is_err());
    }
}
