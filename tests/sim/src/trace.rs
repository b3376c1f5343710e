//! What happened, as far as a person needs it to understand a failure, and a number that stands for all of it.
//!
//! Deliberately absent: what is kept of it for longer than the last events.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use failover_common::abi::State;

use crate::scenario::{Kind, Time};

/// So many of the last events are shown with a failure.
const SHOWN: usize = 60;

/// One thing that happened. Nodes by their place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// A fault began.
    Begins(Kind),
    /// A fault ended.
    Ends(Kind),
    /// A controller was started; whether it found a live lease.
    Started { node: usize, resumed: bool },
    /// An advert went out.
    Sent { node: usize, priority: u8 },
    /// One arrived.
    Heard { node: usize, from: usize, priority: u8 },
    /// One did not, or not in time.
    Lost { node: usize, from: usize },
    /// A controller is stalled.
    Stalled { node: usize, until_ns: u64 },
    /// A controller is of another state.
    Role { node: usize, state: State },
    /// A node begins to answer.
    Answers { node: usize },
    /// A node ceased to.
    Silent { node: usize },
}

/// The last notes, and a hash of all.
#[derive(Default)]
pub struct Trace {
    last: VecDeque<(u64, Note)>,
    hash: DefaultHasher,
}

impl Trace {
    /// Notes it.
    pub fn note(&mut self, at_ns: u64, note: Note) {
        at_ns.hash(&mut self.hash);
        hash_of(&note, &mut self.hash);
        if self.last.len() == SHOWN {
            self.last.pop_front();
        }
        self.last.push_back((at_ns, note));
    }

    /// Stands for everything that was noted.
    pub fn digest(&self) -> u64 {
        self.hash.finish()
    }
}

fn hash_of(note: &Note, hash: &mut DefaultHasher) {
    std::mem::discriminant(note).hash(hash);
    match *note {
        Note::Begins(kind) | Note::Ends(kind) => std::mem::discriminant(&kind).hash(hash),
        Note::Started { node, resumed } => (node, resumed).hash(hash),
        Note::Sent { node, priority } => (node, priority).hash(hash),
        Note::Heard { node, from, priority } => (node, from, priority).hash(hash),
        Note::Lost { node, from } => (node, from).hash(hash),
        Note::Stalled { node, until_ns } => (node, until_ns).hash(hash),
        Note::Role { node, state } => (node, state as u32).hash(hash),
        Note::Answers { node } | Note::Silent { node } => node.hash(hash),
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.last.iter().try_for_each(|(at_ns, note)| writeln!(f, "  {:>22}  {note:?}", Time(*at_ns).to_string()))
    }
}
