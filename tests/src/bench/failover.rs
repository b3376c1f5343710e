//! Deliberately absent: all of it, so far.

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use super::plot::Plot;
use super::{Bar, Effort};
use crate::requirements::Built;

/// Raw results.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {}

/// Measures.
///
/// # Errors
/// Always.
pub fn measure(_built: &Built, _effort: Effort) -> Result<Results> {
    bail!("not built yet")
}

/// What was promised.
pub fn bars(_results: &Results) -> Vec<Bar> {
    Vec::new()
}

/// The section of the document.
pub fn section(_results: &Results) -> String {
    String::new()
}

/// Its plots.
///
/// # Errors
/// When one cannot be drawn.
pub fn plots(_results: &Results) -> Result<Vec<Plot>> {
    Ok(Vec::new())
}
