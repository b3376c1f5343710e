//! Which mutants were caught, and of what sources: what has not changed since need not be caught again.
//!
//! The record is in the target directory, never in the repository: a fresh clone tries them all. Deliberately absent: any
//! opinion on which sources a mutation could matter to. A change to any of them tries all mutants again.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::{Mutation, Outcome, Row};
use crate::exec;
use crate::mirror;

/// All that the simulator is built from, below the root.
const SOURCES: [&str; 7] = [
    "Cargo.lock",
    "Cargo.toml",
    "failover-common",
    "failover-ebpf",
    "failover-userspace",
    "tests/data/frames.txt",
    "tests/sim",
];

/// See the module.
pub struct Caught {
    file: PathBuf,
    sources: u64,
    entries: BTreeMap<String, Entry>,
}

/// A mutant that was caught.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Entry {
    key: String,
    seed: u64,
    what: String,
}

impl Caught {
    /// The record in `file`, empty if there is none, for the sources below `root` and the compiler of `build`.
    pub fn read(file: &Path, root: &Path, build: &Command) -> Result<Self> {
        let text = fs::read_to_string(file).unwrap_or_default();
        // Of another version of this program, perhaps: then nothing is known.
        let entries = toml::from_str(&text).unwrap_or_default();
        let mut hasher = DefaultHasher::new();
        for source in SOURCES {
            for path in mirror::files_of(&root.join(source))? {
                path.strip_prefix(root).unwrap_or(&path).hash(&mut hasher);
                fs::read(&path).with_context(|| format!("reading {}", path.display()))?.hash(&mut hasher);
            }
        }
        exec::describe(build).hash(&mut hasher);
        exec::output_of(exec::command("rustc").arg("-vV")).hash(&mut hasher);
        Ok(Self { file: file.into(), sources: hasher.finish(), entries })
    }

    /// The rows that are known, and the mutations that have to be tried.
    pub fn divide(&self, mutations: Vec<Mutation>) -> (Vec<Row>, Vec<Mutation>) {
        let (mut known, mut unknown) = (Vec::new(), Vec::new());
        for mutation in mutations {
            match self.entries.get(&mutation.name) {
                Some(entry) if entry.key == self.key(&mutation) => {
                    let outcome = Outcome::Caught { seed: entry.seed, what: entry.what.clone() };
                    known.push(Row { name: mutation.name.clone(), outcome, seconds: 0.0, mutation });
                }
                _ => unknown.push(mutation),
            }
        }
        (known, unknown)
    }

    /// Adds what was caught now to the record.
    pub fn write(&self, rows: &[Row]) -> Result<()> {
        let mut entries = self.entries.clone();
        for row in rows {
            match row.caught() {
                Some((seed, what)) => {
                    let entry = Entry { key: self.key(&row.mutation), seed, what: what.into() };
                    entries.insert(row.name.clone(), entry);
                }
                None => drop(entries.remove(&row.name)),
            }
        }
        mirror::write_if_different(&self.file, toml::to_string(&entries)?.as_bytes())
    }

    fn key(&self, mutation: &Mutation) -> String {
        let mut hasher = DefaultHasher::new();
        (self.sources, &mutation.edits).hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    }
}
