//! What is run in a guest, and what came of it.
//!
//! The program `kernel` of failover-tests prints a line of JSON for each thing that it tried; the tests are libtest's.
//! Deliberately absent: the checks and tests themselves.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::compile;
use crate::exec;
use crate::lab::name_artifacts;
use crate::paths::{Paths, Profile};

/// The tests of rings 2 and 4 that are run on every kernel: what touches the kernel's own parts, each of which has
/// changed between versions. By test program.
///
/// Not the others: an emulated second is full of pauses, and a test that counts milliseconds fails for them.
const CORE: [(&str, &[&str]); 14] = [
    ("xdp_adverts", &["adverts_reach_their_virtual_router_by_vrid"]),
    (
        "xdp_arp",
        &["a_request_is_answered_whole_under_a_live_lease", "without_a_live_lease_nobody_on_this_node_answers"],
    ),
    (
        "xdp_fence",
        &["without_a_lease_nothing_reaches_a_virtual_address", "an_address_belongs_to_the_vlan_it_is_configured_in"],
    ),
    ("xdp_lease", &["a_superior_advert_ends_a_live_lease_on_the_spot", "a_lease_ends_by_the_clock_alone"]),
    ("xdp_maps", &["every_map_has_its_name_and_its_types"]),
    ("xdp_stale", &["every_stale_segment_is_answered_by_the_rfcs_reset"]),
    (
        "xdp_stale_sockets",
        &["a_live_connection_is_known_and_a_closed_one_is_not", "the_last_ack_of_a_handshake_with_a_cookie_is_known"],
    ),
    ("xdp_stale_memory", &["a_peers_flow_is_reset_whatever_is_remembered"]),
    ("sockets", &["destroying_resets_the_clients_and_spares_the_rest"]),
    ("batch", &["every_entry_comes_once"]),
    (
        "takeover",
        &[
            "after_a_cable_cut_the_backup_takes_over_and_gives_back",
            "a_killed_controller_leaves_a_silent_node_behind",
            "traffic_to_a_killed_node_is_fenced",
        ],
    ),
    ("operation", &["unload_takes_away_what_a_killed_controller_left", "bpftool_shows_named_fields"]),
    (
        "generic",
        &[
            "f2_generic_a_question_of_another_vlan_is_not_answered",
            "f2_generic_a_killed_controller_is_fenced_and_unloaded",
            "f2_generic_a_program_that_is_detached_is_attached_again",
            "f2_generic_xdp_of_an_earlier_version_is_replaced_in_place",
        ],
    ),
    ("flows", &["after_a_crash_the_next_controller_knows_what_lives", "who_has_another_key_is_not_believed"]),
];

/// `kernel`'s exit status when it was refused: nothing else can run.
const REFUSED: i32 = 3;
/// Of one test, seconds: emulated, loading alone takes up to ten.
const PATIENCE: u64 = 150;

/// How much is asked of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Load, attach, take over once.
    Quick,
    /// All loads and the tests.
    Full,
}

/// One thing that `kernel` tried.
#[derive(Clone, Debug, Deserialize)]
pub struct Outcome {
    /// What.
    pub check: String,
    /// Whether it did as it should.
    pub passed: bool,
    /// How long it took.
    pub seconds: f64,
    /// The programs that were loaded for it.
    pub programs: Vec<Loaded>,
    /// Warnings, or why it failed.
    pub said: Vec<String>,
}

/// A program as the guest's kernel describes it.
#[derive(Clone, Debug, Deserialize)]
pub struct Loaded {
    /// Its name.
    pub name: String,
    /// Instructions that the verifier processed; from Linux 5.16 on it tells.
    pub verified: Option<u32>,
    /// Bytes of machine code.
    pub jitted: u32,
}

/// All that came of one guest.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// In the order of the runs.
    pub outcomes: Vec<Outcome>,
    /// Names of tests.
    pub passed: Vec<String>,
    /// Names of tests that failed, or never came to an end.
    pub failed: Vec<String>,
}

/// The test programs of failover-tests, by their names.
pub type Programs = BTreeMap<String, PathBuf>;

/// The command that builds what asks a kernel, and the tests: as the rings do, so that nothing is built twice.
pub fn build(paths: &Paths) -> Command {
    let mut command = compile::host_cargo(paths, "test", Profile::Release);
    command.args(["--no-run", "--package", "failover-tests", "--package", "failover-sim", "--config"]);
    command.arg(paths.root.join(".config/quick.toml"));
    command
}

/// Builds the test programs and says where they are.
pub fn build_tests(paths: &Paths) -> Result<Programs> {
    let mut command = build(paths);
    command.args(["--message-format", "json-render-diagnostics"]);
    exec::announce(&command);
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("building the tests")?;
    if !output.status.success() {
        bail!("building the tests failed ({}); tried: {}", output.status, exec::describe(&command));
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().filter_map(program_in).collect())
}

/// The name and the file of a test program in one of cargo's messages.
fn program_in(message: &str) -> Option<(String, PathBuf)> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    let is_test = message["target"]["kind"][0] == "test";
    let name = is_test.then(|| message["target"]["name"].as_str()).flatten()?;
    Some((name.into(), message["executable"].as_str()?.into()))
}

/// The script for a guest.
pub fn script(paths: &Paths, extent: Extent, programs: &Programs) -> Result<String> {
    let mut kernel = exec::command(kernel_program(paths));
    kernel.arg(if extent == Extent::Quick { "quick" } else { "full" });
    let mut script = format!("{}\nstatus=$?\n", exec::describe(name_artifacts(paths, &mut kernel)));
    if extent == Extent::Full {
        script += &format!("[ $status -ne {REFUSED} ] || exit $status\n");
        for (program, tests) in CORE {
            let file =
                programs.get(program).with_context(|| format!("failover-tests has no test program {program}"))?;
            for test in tests {
                let mut command = exec::command("timeout");
                command.arg(PATIENCE.to_string()).arg(file).args(["--exact", test]).env("FAILOVER_REQUIRE", "1");
                command.env("FAILOVER_SLOWNESS", "6");
                script += &format!("{} || status=1\n", exec::describe(name_artifacts(paths, &mut command)));
            }
        }
    }
    Ok(script + "exit $status\n")
}

/// The program that asks a kernel.
pub fn kernel_program(paths: &Paths) -> PathBuf {
    paths.failover(Profile::Release).parent().unwrap_or(Path::new("")).join("kernel")
}

/// What a guest printed, understood.
pub fn findings(output: &str, extent: Extent) -> Findings {
    let outcomes = output.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let mut findings = Findings { outcomes, ..Findings::default() };
    if extent == Extent::Full && findings.is_loaded() {
        for name in CORE.iter().flat_map(|(_, tests)| *tests) {
            let is_passed = output.contains(&format!("test {name} ... ok"));
            (if is_passed { &mut findings.passed } else { &mut findings.failed }).push((*name).into());
        }
    }
    findings
}

impl Findings {
    /// Whether the kernel took the programs at all.
    pub fn is_loaded(&self) -> bool {
        self.outcomes.first().is_some_and(|outcome| outcome.passed)
    }

    /// Whether all that was tried did as it should.
    pub fn is_good(&self) -> bool {
        self.is_loaded() && self.failed.is_empty() && self.outcomes.iter().all(|outcome| outcome.passed)
    }

    /// One paragraph for a person, each line indented.
    pub fn described(&self) -> String {
        let mut text = String::new();
        for outcome in &self.outcomes {
            let verdict = if outcome.passed { "ok" } else { "FAILED" };
            text += &format!("  {:<16} {verdict:<6} {:>6.1} s", outcome.check, outcome.seconds);
            for program in &outcome.programs {
                let verified = program.verified.map_or("?".into(), |count| count.to_string());
                text += &format!("  {}: {verified} instructions verified, {} bytes", program.name, program.jitted);
            }
            text += "\n";
            for line in outcome.said.iter().flat_map(|said| said.lines()) {
                text += &format!("      {line}\n");
            }
        }
        let run = self.passed.len() + self.failed.len();
        if run > 0 {
            text += &format!("  tests: {} of {run} passed\n", self.passed.len());
        }
        for name in &self.failed {
            text += &format!("      failed: {name}\n");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOADED: &str = r#"{"check":"1 router","passed":true,"seconds":12.2,"programs":[{"name":"failover","verified":195669,"translated":33280,"jitted":20144},{"name":"flows","verified":null,"translated":null,"jitted":0}],"said":[]}"#;
    const REFUSED: &str = r#"{"check":"1 router","passed":false,"seconds":4.2,"programs":[],"said":["R5 offset is outside of the packet"]}"#;

    #[test]
    fn outcomes_are_read_among_other_lines() {
        let findings = findings(&format!("$ something\n{LOADED}\n{{not json\n"), Extent::Quick);
        assert!(findings.is_good());
        assert_eq!(findings.outcomes[0].programs[0].verified, Some(195_669));
        assert_eq!(
            findings.described(),
            "  1 router         ok       12.2 s  failover: 195669 instructions verified, 20144 bytes  \
             flows: ? instructions verified, 0 bytes\n"
        );
    }

    #[test]
    fn a_refusal_says_why_and_no_test_counts() {
        let findings = findings(REFUSED, Extent::Full);
        assert!(!findings.is_good() && findings.failed.is_empty());
        assert!(findings.described().ends_with("FAILED    4.2 s\n      R5 offset is outside of the packet\n"));
    }

    #[test]
    fn a_test_without_a_verdict_has_failed() {
        let (_, tests) = CORE[0];
        let text = format!("{LOADED}\ntest {} ... ok\n", tests[0]);
        let findings = findings(&text, Extent::Full);
        assert_eq!(findings.passed, [tests[0]]);
        assert!(!findings.failed.is_empty() && !findings.is_good());
    }

    #[test]
    fn cargos_messages_name_the_test_programs() {
        let message = r#"{"reason":"compiler-artifact","target":{"kind":["test"],"name":"takeover"},"executable":"/t/takeover-1"}"#;
        assert_eq!(program_in(message), Some(("takeover".into(), "/t/takeover-1".into())));
        assert_eq!(program_in(&message.replace("[\"test\"]", "[\"bin\"]")), None);
        assert_eq!(program_in(r#"{"reason":"build-finished","success":true}"#), None);
    }

    #[test]
    fn nothing_has_two_names() {
        let mut names: Vec<&str> = CORE.iter().flat_map(|(_, tests)| *tests).copied().collect();
        names.sort_unstable();
        let before = names.len();
        names.dedup();
        assert_eq!(names.len(), before);
    }
}
