//! What a run of tests came to: every test of every ring, and the table at the end.
//!
//! Deliberately absent: running anything.

use std::fmt;

use crate::rings::Ring;

/// One test, or what counts as one: a fuzz target, a mutant.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// What it is called, with its program before it.
    pub name: String,
    /// How long it took.
    pub seconds: f64,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It did what it should.
    Passed,
    /// It did not.
    Failed,
    /// It could not run here, because.
    Skipped(String),
}

/// Everything that was run.
#[derive(Debug, Default)]
pub struct Report {
    cases: Vec<(Ring, Case)>,
    /// What each ring took from its start to its end.
    seconds: Vec<(Ring, f64)>,
    build_seconds: f64,
}

#[derive(Default)]
struct Counts {
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Case {
    /// A step that could not even try its tests.
    pub fn failed(name: impl Into<String>) -> Self {
        Self { name: name.into(), seconds: 0.0, outcome: Outcome::Failed }
    }

    /// A step that cannot run here.
    pub fn skipped(name: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { name: name.into(), seconds: 0.0, outcome: Outcome::Skipped(reason.into()) }
    }
}

impl Report {
    /// Counts the tests of a step, which took so long.
    pub fn add(&mut self, ring: Ring, seconds: f64, cases: impl IntoIterator<Item = Case>) {
        self.cases.extend(cases.into_iter().map(|case| (ring, case)));
        match self.seconds.iter_mut().find(|(known, _)| *known == ring) {
            Some((_, sum)) => *sum += seconds,
            None => self.seconds.push((ring, seconds)),
        }
    }

    /// Counts time that went into building.
    pub fn built(&mut self, seconds: f64) {
        self.build_seconds += seconds;
    }

    /// The number of failures so far.
    pub fn failed(&self) -> usize {
        self.counts(|_| true).failed
    }

    /// Whether not one test was seen.
    pub fn is_empty(&self) -> bool {
        self.cases.is_empty()
    }

    fn counts(&self, of: impl Fn(Ring) -> bool) -> Counts {
        let mut counts = Counts::default();
        for (_, case) in self.cases.iter().filter(|(ring, _)| of(*ring)) {
            match case.outcome {
                Outcome::Passed => counts.passed += 1,
                Outcome::Failed => counts.failed += 1,
                Outcome::Skipped(_) => counts.skipped += 1,
            }
        }
        counts
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<32} {:>7} {:>7} {:>8} {:>8}", "ring", "passed", "failed", "skipped", "seconds")?;
        writeln!(f, "{:<32} {:>33.1}", "building", self.build_seconds)?;
        for ring in Ring::ALL {
            let Some((_, seconds)) = self.seconds.iter().find(|(known, _)| *known == ring) else { continue };
            let Counts { passed, failed, skipped } = self.counts(|other| other == ring);
            let ring = ring.to_string();
            writeln!(f, "{ring:<32} {passed:>7} {failed:>7} {skipped:>8} {seconds:>8.1}")?;
        }
        let mut slowest: Vec<&Case> = self.cases.iter().map(|(_, case)| case).collect();
        slowest.sort_by(|one, other| other.seconds.total_cmp(&one.seconds));
        writeln!(f, "\nthe slowest:")?;
        for case in slowest.into_iter().take(SLOWEST) {
            writeln!(f, "{:>8.1} s  {}", case.seconds, case.name)?;
        }
        writeln!(f)?;
        for (_, case) in &self.cases {
            match &case.outcome {
                Outcome::Passed => {}
                Outcome::Failed => writeln!(f, "failed: {}", case.name)?,
                Outcome::Skipped(reason) => writeln!(f, "skipped: {}: {reason}", case.name)?,
            }
        }
        let Counts { passed, failed, skipped } = self.counts(|_| true);
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

/// How many of the slowest are named.
const SLOWEST: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(name: &str, seconds: f64) -> Case {
        Case { name: name.into(), seconds, outcome: Outcome::Passed }
    }

    #[test]
    fn steps_of_a_ring_are_added_up_and_rings_are_in_order() {
        let mut report = Report::default();
        report.add(Ring::Namespaces, 9.0, [passed("takeover kill_9", 3.0), Case::failed("takeover stop")]);
        report.add(Ring::Units, 1.5, [passed("one", 0.5), Case::skipped("two", "no root")]);
        report.add(Ring::Units, 1.0, [passed("three", 4.0)]);
        report.built(7.0);
        let text = report.to_string();
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["building", "7.0"]);
        assert_eq!(lines[2], ["1", "units", "and", "properties", "2", "0", "1", "2.5"]);
        assert_eq!(lines[3], ["4", "namespaces", "and", "peers", "1", "1", "0", "9.0"]);
        assert!(text.contains("failed: takeover stop\nskipped: two: no root\n"), "{text}");
        assert!(text.ends_with("\n3 passed, 1 failed, 1 skipped"), "{text}");
        assert_eq!(report.failed(), 1);
    }

    #[test]
    fn the_slowest_ten_are_named_slowest_first() {
        let mut report = Report::default();
        report.add(Ring::Units, 1.0, (0..20).map(|number| passed(&format!("t{number}"), f64::from(number))));
        let text = report.to_string();
        let (_, slowest) = text.split_once("the slowest:\n").unwrap();
        let names: Vec<&str> = slowest.lines().take(11).filter_map(|line| line.split_whitespace().nth(2)).collect();
        assert_eq!(names, ["t19", "t18", "t17", "t16", "t15", "t14", "t13", "t12", "t11", "t10"]);
    }
}
