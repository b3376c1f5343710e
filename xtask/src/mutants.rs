//! Proof that the simulator can fail: one defect at a time is put into a copy of the sources, and the simulator built from
//! it must find a seed that shows it.
//!
//! The defects are `tests/data/mutations.toml`. A mutation that does not apply or compile, and a simulator that neither
//! holds nor names a broken invariant, are errors: nothing was caught then. Deliberately absent: mutations made by
//! machine, most of which are equivalent to the original or caught by the compiler.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::exec::{self, Captured};
use crate::mirror::write_if_different;

/// Where the mutations are, below the root.
pub const FILE: &str = "tests/data/mutations.toml";

/// One defect.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mutation {
    /// What is wrong then.
    pub name: String,
    /// How it is done.
    pub edits: Vec<Edit>,
}

/// The replacement of a text that a file has exactly once.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// From the workspace's root.
    pub file: String,
    /// The text.
    pub find: String,
    /// What takes its place.
    pub replace: String,
}

/// The copy of the sources, and the commands that make and run the simulator in it.
pub struct Rig<'a> {
    /// The sources as they are.
    pub root: &'a Path,
    /// The copy.
    pub tree: &'a Path,
    /// Builds the simulator.
    pub build: &'a dyn Fn() -> Command,
    /// Runs it over so many seeds.
    pub run: &'a dyn Fn(u64) -> Command,
    /// Where they begin.
    pub first_seed: u64,
    /// How many a mutant may take.
    pub seeds: u64,
    /// After which a run is given up: a defect can keep virtual time from passing.
    pub patience: Duration,
}

/// What came of a mutation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A seed showed it.
    Caught {
        /// How many were run until then.
        seeds: u64,
        /// What the simulator said of the last.
        what: String,
    },
    /// None did.
    Survived,
    /// It could not be judged.
    Broken(String),
}

/// A row of the table.
#[derive(Clone, Debug)]
pub struct Row {
    /// The mutation's name.
    pub name: String,
    /// What came of it.
    pub outcome: Outcome,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mutations {
    mutation: Vec<Mutation>,
}

/// All mutations of the workspace at `root`.
pub fn read(root: &Path) -> Result<Vec<Mutation>> {
    let Mutations { mutation } =
        toml::from_str(&exec::read(&root.join(FILE))?).with_context(|| format!("in {FILE}"))?;
    Ok(mutation)
}

impl Mutation {
    /// The changed files, by their names below `root`.
    pub fn apply(&self, root: &Path) -> Result<BTreeMap<&str, String>> {
        let mut changed: BTreeMap<&str, String> = BTreeMap::new();
        for Edit { file, find, replace } in &self.edits {
            let text = match changed.remove(file.as_str()) {
                Some(text) => text,
                None => exec::read(&root.join(file))?,
            };
            let count = if find.is_empty() { 0 } else { text.matches(find.as_str()).count() };
            ensure!(count == 1, "{file} has {count} times what is looked for, not once: {find}");
            ensure!(find != replace, "{file}: replaced by itself: {find}");
            changed.insert(file, text.replacen(find.as_str(), replace, 1));
        }
        ensure!(!changed.is_empty(), "it has no edits");
        Ok(changed)
    }
}

impl Rig<'_> {
    /// Makes sure that the simulator holds over so many seeds without a mutation: else it would catch them all.
    pub fn check_unspoilt(&self, seeds: u64) -> Result<()> {
        match self.judge(seeds) {
            Outcome::Survived => Ok(()),
            Outcome::Caught { what, .. } => bail!("the simulator fails without a mutation: {what}"),
            Outcome::Broken(why) => bail!("without a mutation: {why}"),
        }
    }

    /// Builds and runs one mutant, then takes the mutation back.
    pub fn try_one(&self, mutation: &Mutation) -> Row {
        let outcome = self.spoil_and_judge(mutation).unwrap_or_else(|error| Outcome::Broken(format!("{error:#}")));
        Row { name: mutation.name.clone(), outcome }
    }

    fn spoil_and_judge(&self, mutation: &Mutation) -> Result<Outcome> {
        let changed = mutation.apply(self.root)?;
        for (name, text) in &changed {
            write_if_different(&self.tree.join(name), text.as_bytes())?;
        }
        let outcome = self.judge(self.seeds);
        for name in changed.keys() {
            write_if_different(&self.tree.join(name), exec::read(&self.root.join(name))?.as_bytes())?;
        }
        Ok(outcome)
    }

    fn judge(&self, seeds: u64) -> Outcome {
        let built = exec::capture(&mut (self.build)(), &self.log(), BUILD_PATIENCE);
        match built {
            Ok(Captured { code: Some(0), .. }) => {}
            Ok(built) => return Outcome::Broken(format!("it does not build:\n{}", built.output)),
            Err(error) => return Outcome::Broken(format!("{error:#}")),
        }
        match exec::capture(&mut (self.run)(seeds), &self.log(), self.patience) {
            Ok(ran) => verdict(&ran, self.first_seed),
            Err(error) => Outcome::Broken(format!("{error:#}")),
        }
    }

    fn log(&self) -> PathBuf {
        self.tree.with_file_name("output")
    }
}

/// What a run of the simulator says: 0, all seeds held; 1 and a line `seed N: WHAT`, one did not.
fn verdict(ran: &Captured, first_seed: u64) -> Outcome {
    let failed = ran.output.lines().find_map(|line| {
        let (seed, what) = line.strip_prefix("seed ")?.split_once(": ")?;
        Some((seed.parse::<u64>().ok()?, what))
    });
    match (ran.code, failed) {
        (Some(0), None) => Outcome::Survived,
        (Some(1), Some((seed, what))) if seed >= first_seed => {
            Outcome::Caught { seeds: seed - first_seed + 1, what: what.to_string() }
        }
        (code, _) => {
            let how = code.map_or("was killed".to_string(), |code| format!("ended with exit code {code}"));
            let tail: Vec<&str> = ran.output.lines().rev().take(TAIL_LINES).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            Outcome::Broken(format!("the simulator {how}, and its last words fit no verdict:\n{}", tail.join("\n")))
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, outcome } = self;
        let (seeds, what) = match outcome {
            Outcome::Caught { seeds, what } => (seeds.to_string(), what.as_str()),
            Outcome::Survived => ("-".into(), "NOT CAUGHT"),
            Outcome::Broken(why) => ("-".into(), why.as_str()),
        };
        write!(f, "{seeds:>6}  {name:<NAME_WIDTH$}  {what}")
    }
}

/// The head of the table that rows make.
pub fn head() -> String {
    format!("{:>6}  {:<NAME_WIDTH$}  {}", "seeds", "mutation", "caught by")
}

/// The longest name's length.
const NAME_WIDTH: usize = 58;
const BUILD_PATIENCE: Duration = Duration::from_secs(1800);
/// Of the output of a simulator that died.
const TAIL_LINES: usize = 20;

#[cfg(test)]
mod tests;
