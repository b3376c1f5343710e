//! What was measured, part by part, as it is kept beside the document: the next run of one part leaves the others.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::{failover, scale, stack, xdp};
use crate::machine;

/// All parts that were measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Results {
    /// What a client sees of a takeover.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failover: Option<Measured<failover::Results>>,
    /// Nanoseconds per frame.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub xdp: Option<Measured<xdp::Results>>,
    /// Answers per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stack: Option<Measured<stack::Results>>,
    /// What many virtual routers cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<Measured<scale::Results>>,
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

impl<T> Measured<T> {
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

    /// Takes over the parts that `newer` has.
    pub fn update(&mut self, newer: Self) {
        let Self { failover, xdp, stack, scale } = newer;
        self.failover = failover.or(self.failover.take());
        self.xdp = xdp.or(self.xdp.take());
        self.stack = stack.or(self.stack.take());
        self.scale = scale.or(self.scale.take());
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
