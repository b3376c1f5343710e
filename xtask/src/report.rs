//! What a run of tests came to: reads libtest's lines as they stream by, and prints the table at the end.
//!
//! Deliberately absent: running anything.

use std::fmt;

/// A ring of tests, from the innermost out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ring {
    /// Plain unit and property tests: no root.
    Plain = 1,
    /// Frames through the loaded program.
    Loaded = 2,
    /// Many routers on a virtual clock.
    Simulated = 3,
    /// Real daemons in network namespaces.
    Namespaces = 4,
}

/// The counts of one `test result:` line.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    /// Tests that did what they should.
    pub passed: u64,
    /// Tests that did not.
    pub failed: u64,
    /// Tests that were not run.
    pub skipped: u64,
    /// The time they took, without building.
    pub seconds: f64,
}

/// Everything that was run.
#[derive(Debug, Default)]
pub struct Report {
    rows: Vec<(Ring, Counts)>,
    failures: Vec<String>,
    skips: Vec<String>,
    target: String,
}

impl Report {
    /// Takes in one line of cargo's or libtest's output; `ring_of` places the test program it belongs to.
    pub fn line(&mut self, line: &str, ring_of: impl Fn(&str) -> Ring) {
        let line = without_colours(line);
        let line = line.trim();
        if let Some(target) = target_in(line) {
            self.target = target.to_string();
        } else if let Some(counts) = counts_in(line) {
            self.add(ring_of(&self.target), counts);
        } else if let Some((name, verdict)) = verdict_in(line) {
            match verdict {
                Verdict::Failed => self.failures.push(format!("{}: {name}", self.target)),
                Verdict::Ignored(reason) => self.skips.push(format!("{}: {name}: {reason}", self.target)),
            }
        }
    }

    /// Counts the tests of a step that is not libtest's; `failures` names those that failed.
    pub fn counted(&mut self, ring: Ring, counts: Counts, failures: impl IntoIterator<Item = String>) {
        self.add(ring, counts);
        self.failures.extend(failures);
    }

    /// Counts a step that failed without a failing test: it did not build, or died.
    pub fn step_failed(&mut self, ring: Ring, what: String) {
        self.add(ring, Counts { failed: 1, ..Counts::default() });
        self.failures.push(what);
    }

    /// Counts a step that is no program of libtest's, by the seconds it took.
    pub fn step_passed(&mut self, ring: Ring, seconds: f64) {
        self.add(ring, Counts { passed: 1, seconds, ..Counts::default() });
    }

    /// Counts a step that cannot run here; `what` says why.
    pub fn step_skipped(&mut self, ring: Ring, what: String) {
        self.add(ring, Counts { skipped: 1, ..Counts::default() });
        self.skips.push(what);
    }

    /// The test program that was announced last.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The number of failures so far.
    pub fn failed(&self) -> u64 {
        self.total().failed
    }

    /// Whether not one test was seen.
    pub fn is_empty(&self) -> bool {
        let Counts { passed, failed, skipped, .. } = self.total();
        passed + failed + skipped == 0
    }

    fn total(&self) -> Counts {
        let mut total = Counts::default();
        for (_, counts) in &self.rows {
            total.add(*counts);
        }
        total
    }

    fn add(&mut self, ring: Ring, counts: Counts) {
        match self.rows.iter_mut().find(|(known, _)| *known == ring) {
            Some((_, sum)) => sum.add(counts),
            None => self.rows.push((ring, counts)),
        }
        self.rows.sort_by_key(|(ring, _)| *ring);
    }
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.seconds += other.seconds;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<32} {:>7} {:>7} {:>8} {:>8}", "ring", "passed", "failed", "skipped", "seconds")?;
        for (ring, counts) in &self.rows {
            let Counts { passed, failed, skipped, seconds } = counts;
            let ring = ring.to_string();
            writeln!(f, "{ring:<32} {passed:>7} {failed:>7} {skipped:>8} {seconds:>8.1}")?;
        }
        for name in &self.failures {
            writeln!(f, "failed: {name}")?;
        }
        for name in &self.skips {
            writeln!(f, "skipped: {name}")?;
        }
        let Counts { passed, failed, skipped, .. } = self.total();
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

impl fmt::Display for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "1 units and properties",
            Self::Loaded => "2 frames through the program",
            Self::Simulated => "3 simulation",
            Self::Namespaces => "4 namespaces and peers",
        })
    }
}

/// The ring of a test program of failover-tests, by its name.
pub fn ring_of_target(target: &str) -> Ring {
    let name = target.rsplit('/').next().unwrap_or(target);
    if target.starts_with("unittests") || target.starts_with("Doc-tests") {
        Ring::Plain
    } else if name.starts_with("xdp") {
        Ring::Loaded
    } else if name.starts_with("sim") {
        Ring::Simulated
    } else {
        Ring::Namespaces
    }
}

enum Verdict<'a> {
    Failed,
    Ignored(&'a str),
}

/// The test program in `Running tests/xdp.rs (target/...)` or `Doc-tests failover_common`.
fn target_in(line: &str) -> Option<&str> {
    if line.starts_with("Doc-tests ") {
        return Some(line);
    }
    let (target, _) = line.strip_prefix("Running ")?.rsplit_once(" (")?;
    Some(target)
}

/// The counts in `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s`.
fn counts_in(line: &str) -> Option<Counts> {
    let rest = line.strip_prefix("test result: ")?;
    let (_, numbers) = rest.split_once(". ")?;
    let mut counts = Counts::default();
    for part in numbers.split("; ") {
        if let Some(seconds) = part.strip_prefix("finished in ") {
            counts.seconds = seconds.strip_suffix('s')?.parse().ok()?;
            continue;
        }
        let (number, what) = part.split_once(' ')?;
        match what {
            "passed" => counts.passed = number.parse().ok()?,
            "failed" => counts.failed = number.parse().ok()?,
            "ignored" => counts.skipped = number.parse().ok()?,
            _ => {}
        }
    }
    Some(counts)
}

/// A test that did not pass, in `test NAME ... FAILED` or `test NAME ... ignored, REASON`.
fn verdict_in(line: &str) -> Option<(&str, Verdict<'_>)> {
    let (name, verdict) = line.strip_prefix("test ")?.split_once(" ... ")?;
    if verdict == "FAILED" {
        return Some((name, Verdict::Failed));
    }
    let reason = verdict.strip_prefix("ignored")?;
    let reason = reason.strip_prefix(", ").unwrap_or("no reason given");
    Some((name, Verdict::Ignored(reason)))
}

/// The text without the escape sequences that colour it.
fn without_colours(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut characters = line.chars();
    while let Some(c) = characters.next() {
        if c == '\x1b' {
            // ESC [ parameters letter
            characters.by_ref().skip(1).find(char::is_ascii_alphabetic);
        } else {
            plain.push(c);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
     Running unittests src/lib.rs (target/debug/deps/failover_common-0123456789abcdef)

running 3 tests
test wire::arp::tests::a_request_is_read ... ok
test wire::arp::tests::a_short_one_is_refused ... FAILED
test slow ... ignored, takes an hour

failures:

test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.25s

   Doc-tests failover_common
test result: ok. 4 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.50s
";

    fn report(output: &str, ring_of: fn(&str) -> Ring) -> Report {
        let mut report = Report::default();
        for line in output.lines() {
            report.line(line, ring_of);
        }
        report
    }

    #[test]
    fn results_are_added_up_and_names_kept() {
        let report = report(OUTPUT, |_| Ring::Plain);
        let expected = Counts { passed: 5, failed: 1, skipped: 1, seconds: 1.75 };
        assert_eq!(report.rows, [(Ring::Plain, expected)]);
        assert_eq!(report.failures, ["unittests src/lib.rs: wire::arp::tests::a_short_one_is_refused"]);
        assert_eq!(report.skips, ["unittests src/lib.rs: slow: takes an hour"]);
        assert!(report.to_string().ends_with("\n5 passed, 1 failed, 1 skipped"));
    }

    #[test]
    fn a_program_is_placed_in_its_ring_by_its_name() {
        let output = "Running tests/xdp.rs (target/release/deps/xdp-1)\n\
                      test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s\n\
                      Running tests/interop.rs (target/release/deps/interop-1)\n\
                      test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 9.00s\n";
        let rings: Vec<Ring> = report(output, ring_of_target).rows.iter().map(|row| row.0).collect();
        assert_eq!(rings, [Ring::Loaded, Ring::Namespaces]);
        assert_eq!(ring_of_target("unittests src/lib.rs"), Ring::Plain);
        assert_eq!(ring_of_target("xdp/main.rs"), Ring::Namespaces);
    }

    #[test]
    fn colours_do_not_hide_a_line() {
        let line = "test result: \x1b[32mok\x1b[0m. 7 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; \
                    finished in 12.03s";
        let counts = counts_in(&without_colours(line));
        assert_eq!(counts, Some(Counts { passed: 7, failed: 0, skipped: 0, seconds: 12.03 }));
    }

    #[test]
    fn other_lines_count_nothing() {
        for line in ["", "running 3 tests", "test result: ", "test result: ok. many passed", "   Compiling x v1 (/p)"] {
            assert_eq!(counts_in(line), None, "{line}");
            assert_eq!(target_in(line), None, "{line}");
        }
    }

    #[test]
    fn a_step_of_another_kind_counts_in_its_ring() {
        let mut report = Report::default();
        report.counted(Ring::Simulated, Counts { passed: 2, failed: 1, skipped: 0, seconds: 3.0 }, ["one".into()]);
        report.counted(Ring::Simulated, Counts { passed: 4, ..Counts::default() }, []);
        assert_eq!(report.rows, [(Ring::Simulated, Counts { passed: 6, failed: 1, skipped: 0, seconds: 3.0 })]);
        assert_eq!((report.failed(), report.failures.as_slice()), (1, ["one".to_string()].as_slice()));
    }

    #[test]
    fn a_step_that_dies_is_a_failure() {
        let mut report = Report::default();
        report.step_failed(Ring::Namespaces, "cargo test did not build".into());
        assert_eq!(report.failed(), 1);
        assert!(report.to_string().contains("failed: cargo test did not build"));
    }

    #[test]
    fn a_step_without_libtest_counts_as_one_test() {
        let mut report = Report::default();
        report.step_passed(Ring::Plain, 1.5);
        report.step_skipped(Ring::Plain, "miri: not installed".into());
        assert_eq!(report.rows, [(Ring::Plain, Counts { passed: 1, failed: 0, skipped: 1, seconds: 1.5 })]);
        assert!(report.to_string().contains("\nskipped: miri: not installed\n"));
    }
}
