//! What is refused at start because this machine, as the process sees it, would make two owners: the clock and the
//! mount of the pins. Looked at before anything is loaded, pinned, attached or mounted.
//!
//! Deliberately absent: what is wrong with the configuration (`config`, `plan`), which has a line; what is pinned already
//! (`dataplane`).

pub mod clock;
pub mod pin_path;

/// A start that cannot be made safe here: what was tried, why it is refused, what to do.
#[derive(Debug)]
pub struct Refusal(pub String);

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refusal {}
