//! The rings of tests, and which of them, and which of their tests, a user asked for.
//!
//! Deliberately absent: running anything.

use std::collections::BTreeSet;
use std::fmt;

/// A ring of tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ring {
    /// Plain unit and property tests: no root.
    Units,
    /// Frames through the loaded program.
    Frames,
    /// Many routers on a virtual clock, and the mutants that it must catch.
    Simulation,
    /// Real daemons in network namespaces.
    Namespaces,
    /// Each fuzz target for a bounded time.
    Fuzz,
    /// Undefined behaviour in what kernel program and controller share.
    Miri,
}

/// What a user asked for: rings, and parts of tests' names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    rings: BTreeSet<Ring>,
    names: Vec<String>,
}

impl Ring {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 6] = [Self::Units, Self::Frames, Self::Simulation, Self::Namespaces, Self::Fuzz, Self::Miri];

    /// What one types.
    pub fn word(self) -> &'static str {
        match self {
            Self::Units => "units",
            Self::Frames => "frames",
            Self::Simulation => "simulation",
            Self::Namespaces => "namespaces",
            Self::Fuzz => "fuzz",
            Self::Miri => "miri",
        }
    }

    /// From 1, innermost first.
    pub fn number(self) -> usize {
        self as usize + 1
    }

    /// Whether it needs root.
    pub fn needs_root(self) -> bool {
        matches!(self, Self::Frames | Self::Namespaces)
    }

    fn meant_by(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|ring| ring.word() == word || ring.number().to_string() == word)
    }
}

impl fmt::Display for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let more = match self {
            Self::Units => " and properties",
            Self::Frames => " through the loaded program",
            Self::Simulation => " and its mutants",
            Self::Namespaces => " and peers",
            Self::Fuzz | Self::Miri => "",
        };
        write!(f, "{} {}{more}", self.number(), self.word())
    }
}

impl Selection {
    /// A word that names a ring (`frames`, or `2`) selects it; any other is a part of a test's name.
    pub fn from_words(words: &[String]) -> Self {
        let mut selection = Self::default();
        for word in words {
            match Ring::meant_by(word) {
                Some(ring) => drop(selection.rings.insert(ring)),
                None => selection.names.push(word.clone()),
            }
        }
        selection
    }

    /// Whether tests of this ring may be among those asked for.
    pub fn has_ring(&self, ring: Ring) -> bool {
        self.rings.is_empty() || self.rings.contains(&ring)
    }

    /// Whether a test of this name was asked for, if its ring was.
    pub fn has_name(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|part| name.contains(part))
    }

    /// The parts of names.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// nextest's expression for the tests of `of` that were asked for.
    pub fn filterset(&self, of: &str) -> String {
        // Other characters have a meaning in an expression, and none in a test's name.
        let is_plain = |part: &&String| part.chars().all(|c| c.is_alphanumeric() || c == '_' || c == ':');
        let parts: Vec<String> = self.names.iter().filter(is_plain).map(|part| format!("test(~{part})")).collect();
        match (self.names.is_empty(), parts.is_empty()) {
            (true, _) => of.to_string(),
            (false, true) => "none()".to_string(),
            (false, false) => format!("({of}) & ({})", parts.join(" | ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(words: &[&str]) -> Selection {
        Selection::from_words(&words.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn a_ring_is_asked_for_by_word_or_number() {
        let asked = selection(&["frames", "4"]);
        let has: Vec<Ring> = Ring::ALL.into_iter().filter(|ring| asked.has_ring(*ring)).collect();
        assert_eq!(has, [Ring::Frames, Ring::Namespaces]);
        assert!(asked.has_name("anything"));
        assert!(Ring::ALL.into_iter().all(|ring| selection(&[]).has_ring(ring)));
        assert_eq!(Ring::Frames.to_string(), "2 frames through the loaded program");
    }

    #[test]
    fn other_words_are_parts_of_names() {
        let asked = selection(&["kill", "arp"]);
        assert!(Ring::ALL.into_iter().all(|ring| asked.has_ring(ring)));
        assert!(asked.has_name("an_arp_request") && asked.has_name("kill_9") && !asked.has_name("stop"));
    }

    #[test]
    fn an_expression_asks_for_names() {
        assert_eq!(selection(&["2"]).filterset("kind(test)"), "kind(test)");
        let expected = "(kind(test)) & (test(~arp) | test(~a::b))";
        assert_eq!(selection(&["arp", "a::b"]).filterset("kind(test)"), expected);
        assert_eq!(selection(&["sim mutants: the lease"]).filterset("all()"), "none()");
    }
}
