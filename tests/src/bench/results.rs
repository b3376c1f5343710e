//! What was measured, part by part, as it is kept beside the document: the next run of one part leaves the others, and a
//! run on another processor those of this one.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::{failover, scale, stack, xdp};
use crate::machine;

/// All parts that were measured: of each the newest first, one of each processor.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Results {
    /// What a client sees of a takeover.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failover: Vec<Measured<failover::Results>>,
    /// Nanoseconds per frame.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub xdp: Vec<Measured<xdp::Results>>,
    /// Answers per second.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stack: Vec<Measured<stack::Results>>,
    /// What many virtual routers cost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scale: Vec<Measured<scale::Results>>,
}

/// One part, and what it was measured on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured<T> {
    /// When it began, RFC 3339.
    pub at: String,
    /// The machine, its kernel and its keepalived.
    pub machine: String,
    /// The sources that were measured.
    pub commit: String,
    /// What was measured.
    pub results: T,
}

/// Puts what is newer first, and takes out what was measured on the same processor.
fn renew<T>(part: &mut Vec<Measured<T>>, mut newer: Vec<Measured<T>>) {
    part.retain(|old| newer.iter().all(|new| new.processor() != old.processor()));
    newer.append(part);
    *part = newer;
}

impl<T> Measured<T> {
    /// Cores and model: what comes before the kernel.
    fn processor(&self) -> &str {
        self.machine.split(", Linux").next().unwrap_or(&self.machine)
    }

    /// Measures here and now.
    ///
    /// # Errors
    /// What `measure` says.
    pub fn with(commit: &str, measure: impl FnOnce() -> Result<T>) -> Result<Self> {
        let at = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        Ok(Self { at, machine: machine::conditions(), commit: commit.into(), results: measure()? })
    }
}

impl Results {
    /// What is kept in `file`: nothing, when there is no such file.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn read(file: &Path) -> Result<Self> {
        let text = match fs::read_to_string(file) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            text => text.with_context(|| format!("reading {}", file.display()))?,
        };
        serde_json::from_str(&text).with_context(|| {
            format!("{} is not what this bench writes: remove it, and measure all parts", file.display())
        })
    }

    /// Takes over what `newer` has.
    pub fn update(&mut self, newer: Self) {
        let Self { failover, xdp, stack, scale } = newer;
        renew(&mut self.failover, failover);
        renew(&mut self.xdp, xdp);
        renew(&mut self.stack, stack);
        renew(&mut self.scale, scale);
    }

    /// Writes them as JSON.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, file: &Path) -> Result<()> {
        let mut text = serde_json::to_string(self).context("results as JSON")?;
        text.push('\n');
        fs::write(file, text).with_context(|| format!("writing {}", file.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(machine: &str, results: u32) -> Measured<u32> {
        Measured { at: String::new(), machine: machine.into(), commit: String::new(), results }
    }

    #[test]
    fn the_newest_comes_first_and_takes_the_place_of_its_processors() {
        let all = |part: &[Measured<u32>]| part.iter().map(|measured| measured.results).collect::<Vec<_>>();
        let mut part = vec![measured("2 cores (X), Linux 6.1", 1), measured("4 cores (X), Linux 6.1", 2)];
        renew(&mut part, vec![measured("2 cores (Y), Linux 6.1", 3)]);
        assert_eq!(all(&part), [3, 1, 2]);
        renew(&mut part, vec![measured("2 cores (X), Linux 6.2", 4)]);
        assert_eq!(all(&part), [4, 3, 2]);
        renew(&mut part, Vec::new());
        assert_eq!(all(&part), [4, 3, 2]);
    }
}
