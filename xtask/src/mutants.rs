//! Proof that the simulator can fail: one defect at a time is put into a copy of the sources, and the simulator built from
//! it must find a seed that shows it.
//!
//! The defects are `tests/data/mutations.toml`. A mutation that does not apply or compile, and a simulator that neither
//! holds nor names a broken invariant, are errors: nothing was caught then. Each copy of the sources works on its own.
//! Deliberately absent: mutations made by machine, most of which are equivalent to the original or caught by the compiler.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::exec::{self, Captured};
use crate::mirror::write_if_different;

mod caught;

pub use caught::Caught;

/// Where the mutations are, below the root.
pub const FILE: &str = "tests/data/mutations.toml";

/// One defect.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mutation {
    /// What is wrong then.
    pub name: String,
    /// A seed that showed it: the first to be played.
    pub seed: Option<u64>,
    /// How it is done.
    pub edits: Vec<Edit>,
}

/// The replacement of a text that a file has exactly once.
#[derive(Clone, Debug, Deserialize, Hash)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// From the workspace's root.
    pub file: String,
    /// The text.
    pub find: String,
    /// What takes its place.
    pub replace: String,
}

/// Which seeds are played until one shows the defect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seeds {
    /// So many, from the first.
    From {
        /// The first.
        first: u64,
        /// How many at most.
        count: u64,
    },
    /// The one that the mutation names; if that does not show it, as above.
    RecordedFirst {
        /// The first of the others.
        first: u64,
        /// How many of them at most.
        count: u64,
    },
}

/// The copy of the sources, and the commands that make and run the simulator in it.
pub struct Rig<'a> {
    /// The sources as they are.
    pub root: &'a Path,
    /// The copy, its own.
    pub tree: PathBuf,
    /// Builds the simulator.
    pub build: Box<dyn Fn() -> Command + Sync>,
    /// Runs it over seeds: the first, and how many.
    pub run: Box<dyn Fn(u64, u64) -> Command + Sync>,
    /// Which a mutant plays.
    pub seeds: Seeds,
    /// After which a run is given up: a defect can keep virtual time from passing.
    pub patience: Duration,
}

/// What came of a mutation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A seed showed it.
    Caught {
        /// Which.
        seed: u64,
        /// What the simulator said of it.
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
    /// How long it took to build and play.
    pub seconds: f64,
    /// The mutation itself.
    pub mutation: Mutation,
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

/// Notes in the file which seed caught each mutation, and leaves all else as it is.
pub fn record(root: &Path, rows: &[Row]) -> Result<()> {
    let path = root.join(FILE);
    let mut document: toml_edit::DocumentMut = exec::read(&path)?.parse().with_context(|| format!("in {FILE}"))?;
    let mutations = document["mutation"].as_array_of_tables_mut().context("it has no mutations")?;
    for table in mutations.iter_mut() {
        let row = rows.iter().find(|row| table["name"].as_str() == Some(&row.name));
        if let Some((seed, _)) = row.and_then(Row::caught) {
            table["seed"] = toml_edit::value(i64::try_from(seed)?);
        }
    }
    write_if_different(&path, document.to_string().as_bytes())
}

/// Has the rigs build and play them all, side by side, and tells `each` as it is done. The rows are in the mutations'
/// order. At the end the simulator without a mutation must hold over the seeds that caught one: else it would catch them
/// all.
pub fn try_all(rigs: &[Rig<'_>], mutations: Vec<Mutation>, each: impl Fn(&Row) + Sync) -> Result<Vec<Row>> {
    let waiting: Mutex<VecDeque<_>> = Mutex::new(mutations.into_iter().enumerate().collect());
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let rows = Mutex::new(Vec::new());
    let (next, rows, each) = (&next, &rows, &each);
    thread::scope(|scope| {
        for rig in rigs {
            scope.spawn(move || {
                while let Some((number, mutation)) = next() {
                    let row = rig.try_one(mutation);
                    each(&row);
                    rows.lock().unwrap_or_else(PoisonError::into_inner).push((number, row));
                }
            });
        }
    });
    let mut rows = std::mem::take(&mut *rows.lock().unwrap_or_else(PoisonError::into_inner));
    rows.sort_by_key(|(number, _)| *number);
    let rows: Vec<Row> = rows.into_iter().map(|(_, row)| row).collect();
    if let Some(rig) = rigs.first() {
        rig.check_unspoilt(&rows)?;
    }
    Ok(rows)
}

impl Rig<'_> {
    fn check_unspoilt(&self, rows: &[Row]) -> Result<()> {
        let caught: BTreeSet<u64> = rows.iter().filter_map(|row| Some(row.caught()?.0)).collect();
        self.build().map_err(|why| anyhow::anyhow!("without a mutation: {why}"))?;
        let ranges: Vec<(u64, u64)> = match (self.seeds, caught.last()) {
            (_, None) => Vec::new(),
            (Seeds::From { first, .. }, Some(last)) => vec![(first, last - first + 1)],
            (Seeds::RecordedFirst { .. }, Some(_)) => caught.iter().map(|seed| (*seed, 1)).collect(),
        };
        for (first, count) in ranges {
            match self.judge(first, count) {
                Outcome::Survived => {}
                Outcome::Caught { what, .. } => bail!("the simulator fails without a mutation: {what}"),
                Outcome::Broken(why) => bail!("without a mutation: {why}"),
            }
        }
        Ok(())
    }

    /// Builds and plays one mutant, then takes the mutation back.
    fn try_one(&self, mutation: Mutation) -> Row {
        let started = Instant::now();
        let outcome = self.spoil_and_judge(&mutation).unwrap_or_else(|error| Outcome::Broken(format!("{error:#}")));
        Row { name: mutation.name.clone(), outcome, seconds: started.elapsed().as_secs_f64(), mutation }
    }

    fn spoil_and_judge(&self, mutation: &Mutation) -> Result<Outcome> {
        let changed = mutation.apply(self.root)?;
        for (name, text) in &changed {
            write_if_different(&self.tree.join(name), text.as_bytes())?;
        }
        let outcome = match self.build() {
            Ok(()) => self.judge_mutant(mutation.seed),
            Err(why) => Outcome::Broken(why),
        };
        for name in changed.keys() {
            write_if_different(&self.tree.join(name), exec::read(&self.root.join(name))?.as_bytes())?;
        }
        Ok(outcome)
    }

    fn build(&self) -> Result<(), String> {
        match exec::capture(&mut (self.build)(), &self.log(), BUILD_PATIENCE) {
            Ok(Captured { code: Some(0), .. }) => Ok(()),
            Ok(built) => Err(format!("it does not build:\n{}", built.output)),
            Err(error) => Err(format!("{error:#}")),
        }
    }

    fn judge_mutant(&self, recorded: Option<u64>) -> Outcome {
        let (first, count) = match self.seeds {
            Seeds::From { first, count } => (first, count),
            Seeds::RecordedFirst { first, count } => {
                if let Some(seed) = recorded
                    && let outcome @ Outcome::Caught { .. } = self.judge(seed, 1)
                {
                    return outcome;
                }
                (first, count)
            }
        };
        self.judge(first, count)
    }

    fn judge(&self, first: u64, count: u64) -> Outcome {
        match exec::capture(&mut (self.run)(first, count), &self.log(), self.patience) {
            Ok(ran) => verdict(&ran, first),
            Err(error) => Outcome::Broken(format!("{error:#}")),
        }
    }

    fn log(&self) -> PathBuf {
        self.tree.with_extension("log")
    }
}

impl Row {
    /// The seed that showed it, and what the simulator said.
    pub fn caught(&self) -> Option<(u64, &str)> {
        if let Outcome::Caught { seed, what } = &self.outcome { Some((*seed, what)) } else { None }
    }
}

impl fmt::Display for Seeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::From { first, count } | Self::RecordedFirst { first, count }) = self;
        write!(f, "seeds {first} to {}", first + count - 1)
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
        (Some(1), Some((seed, what))) if seed >= first_seed => Outcome::Caught { seed, what: what.to_string() },
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
        let Self { name, outcome, mutation, .. } = self;
        let (seed, what) = match outcome {
            Outcome::Caught { seed, what } => (seed.to_string(), what.as_str()),
            Outcome::Survived => ("-".into(), "NOT CAUGHT"),
            Outcome::Broken(why) => ("-".into(), why.as_str()),
        };
        write!(f, "{seed:>6}  {name:<NAME_WIDTH$}  {what}")?;
        match (mutation.seed, self.caught()) {
            (Some(old), Some((new, _))) if old != new => {
                write!(f, "; not by seed {old} as {FILE} has it: `cargo xtask sim --mutants --record`")
            }
            _ => Ok(()),
        }
    }
}

/// The head of the table that rows make.
pub fn head() -> String {
    format!("{:>6}  {:<NAME_WIDTH$}  {}", "seed", "mutation", "caught by")
}

/// The longest name's length.
const NAME_WIDTH: usize = 58;
const BUILD_PATIENCE: Duration = Duration::from_secs(1800);
/// Of the output of a simulator that died.
const TAIL_LINES: usize = 20;

#[cfg(test)]
mod tests;
