//! `docs/kernels.md`: what each kernel made of it.
//!
//! Deliberately absent: running anything.

use super::checks::{Findings, Outcome};
use super::kernels::Kernel;

/// One kernel's part.
#[derive(Debug)]
pub struct Row {
    /// Which.
    pub kernel: &'static Kernel,
    /// Its package's version.
    pub version: String,
    /// What came of it, or why there was nothing.
    pub findings: Result<Findings, String>,
}

const HEAD: &str = "\
# Kernels

What Debian's kernels make of failover: whether they take its programs, what that costs their verifiers, and whether the core of rings 2 and 4 passes there.
`cargo xtask vm --all --write` writes this file; `cargo xtask vm KERNEL` runs one of them, `cargo xtask vm KERNEL -- COMMAND` anything in it.

## Method

- Each kernel is the plain one of Debian's packages, booted by qemu (10.0, tcg, 2 processors, 3 GiB) with this machine's files as its root, shared by 9p; what is written stays in the guest's memory.
- *Load*: two stations and a switch in namespaces; `failover run` with this configuration loads, attaches natively to a veth, and all of its virtual routers become Active.
- *Generic*: one router, and the takeover, in generic mode.
- *Takeover*: of two nodes at 500 ms adverts the Active is killed (-9); the other answers, and the first never again.
- *Verified*: instructions that the verifier processed for the XDP, the tc and the socket program, as the kernel tells (from 5.16 on). The limit is 1,000,000. Bytes are machine code.
- *Tests*: those of rings 2 and 4 that touch what differs between kernels; the list is in `xtask/src/vm/checks.rs`.
- An emulated processor is ten to twenty times as slow: no time is judged.

";

/// The whole document.
pub fn document(rows: &[Row], commit: &str) -> String {
    let mut text = format!("{HEAD}Measured once each, at {commit}.\n\n");
    text += "| kernel | package | 1 router | 8 | 64 | 4,096 addresses | takeover | generic | generic takeover | verified: XDP, tc, sockets | bytes: XDP, tc, sockets | tests |\n";
    text += "|---|---|---|---|---|---|---|---|---|---|---|---|\n";
    for row in rows {
        text += &line(row);
    }
    text += "\n## What was said\n";
    for row in rows {
        text += &notes(row);
    }
    text
}

fn line(row: &Row) -> String {
    let Row { kernel, version, findings } = row;
    let Ok(findings) = findings else {
        return format!("| {} | {version} | - | - | - | - | - | - | - | - | - | did not run |\n", kernel.name);
    };
    let cell =
        |check: &str| findings.outcomes.iter().find(|outcome| outcome.check == check).map_or("-".into(), verdict);
    let checks = ["1 router", "8 routers", "64 routers", "4096 addresses", "takeover", "generic", "generic takeover"];
    let checks = checks.map(cell).join(" | ");
    let run = findings.passed.len() + findings.failed.len();
    let tests = if run == 0 { "-".into() } else { format!("{} of {run}", findings.passed.len()) };
    let verified = most(&findings.outcomes, |program| program.verified);
    let jitted = most(&findings.outcomes, |program| Some(program.jitted));
    format!("| {} | {version} | {checks} | {verified} | {jitted} | {tests} |\n", kernel.name)
}

fn verdict(outcome: &Outcome) -> String {
    let verdict = match (outcome.passed, outcome.programs.is_empty()) {
        (true, _) => "yes",
        (false, true) => "**refused**",
        (false, false) => "**failed**",
    };
    verdict.into()
}

/// For each of the programs the largest figure of all loads.
fn most(outcomes: &[Outcome], figure: impl Fn(&super::checks::Loaded) -> Option<u32>) -> String {
    let of = |name: &str| {
        let programs = outcomes.iter().flat_map(|outcome| &outcome.programs).filter(|program| program.name == name);
        programs.filter_map(&figure).max().map_or("-".into(), |count| count.to_string())
    };
    ["failover", "failover_tc", "flows"].map(of).join(", ")
}

fn notes(row: &Row) -> String {
    let mut lines: Vec<String> = Vec::new();
    match &row.findings {
        Err(error) => lines.extend(error.lines().map(Into::into)),
        Ok(findings) => {
            for outcome in &findings.outcomes {
                let said = outcome.said.iter().flat_map(|said| said.lines());
                lines.extend(said.map(|line| format!("{}: {line}", outcome.check)));
            }
            lines.extend(findings.failed.iter().map(|name| format!("failed: {name}")));
        }
    }
    if lines.is_empty() {
        return String::new();
    }
    format!("\n### {}\n\n```text\n{}\n```\n", row.kernel.name, lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::super::checks::{Extent, findings};
    use super::*;

    fn row(findings: Result<Findings, String>) -> Row {
        Row { kernel: Kernel::named("6.1").unwrap(), version: "6.1.192-3".into(), findings }
    }

    #[test]
    fn a_row_has_the_largest_figures_of_all_loads() {
        let text = r#"{"check":"1 router","passed":true,"seconds":1,"programs":[{"name":"failover","verified":7,"jitted":70}],"said":[]}
{"check":"8 routers","passed":true,"seconds":1,"programs":[{"name":"failover","verified":9,"jitted":60}],"said":["a warning"]}"#;
        let row = row(Ok(findings(text, Extent::Quick)));
        assert_eq!(line(&row), "| 6.1 | 6.1.192-3 | yes | yes | - | - | - | - | - | 9, -, - | 70, -, - | - |\n");
        assert_eq!(notes(&row), "\n### 6.1\n\n```text\n8 routers: a warning\n```\n");
    }

    #[test]
    fn a_guest_that_did_not_run_has_a_row_too() {
        let row = row(Err("no boot".into()));
        assert!(line(&row).ends_with("did not run |\n"));
        assert!(document(&[row], "abc").contains("```text\nno boot\n```"));
    }
}
