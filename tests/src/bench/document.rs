//! docs/benchmarks.md and its plots, made from the raw results.
//!
//! Deliberately absent: what a part's figures mean. Each part writes its own section.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::plot::Plot;
use super::results::{Measured, Results};
use super::{Bar, failover, scale, stack, xdp};

/// Writes `benchmarks.md`, `benchmarks/results.json` and the plots into `directory`; parts that `newer` lacks stay as
/// they were.
///
/// # Errors
/// When a file cannot be read or written.
pub fn write(directory: &Path, newer: Results) -> Result<()> {
    let beside = directory.join("benchmarks");
    fs::create_dir_all(&beside).with_context(|| format!("making {}", beside.display()))?;
    let file = beside.join("results.json");
    let mut results = Results::read(&file)?;
    results.update(newer);
    results.write(&file)?;
    for Plot { file, svg } in plots(&results)? {
        let path = beside.join(file);
        fs::write(&path, svg).with_context(|| format!("writing {}", path.display()))?;
    }
    let path = directory.join("benchmarks.md");
    fs::write(&path, document(&results)).with_context(|| format!("writing {}", path.display()))
}

fn plots(results: &Results) -> Result<Vec<Plot>> {
    let mut all = Vec::new();
    all.extend(results.failover.iter().map(|part| failover::plots(&part.results)).collect::<Result<Vec<_>>>()?);
    all.extend(results.xdp.iter().map(|part| xdp::plots(&part.results)).collect::<Result<Vec<_>>>()?);
    all.extend(results.stack.iter().map(|part| stack::plots(&part.results)).collect::<Result<Vec<_>>>()?);
    all.extend(results.scale.iter().map(|part| scale::plots(&part.results)).collect::<Result<Vec<_>>>()?);
    Ok(all.into_iter().flatten().collect())
}

/// The whole document.
pub fn document(results: &Results) -> String {
    let mut text = String::from(HEAD);
    let _ = write!(text, "## The bars\n\n{}", bars(results));
    let measured = [
        ("failover", results.failover.is_some()),
        ("xdp", results.xdp.is_some()),
        ("stack", results.stack.is_some()),
        ("scale", results.scale.is_some()),
    ];
    let missing: Vec<_> = measured.iter().filter(|(_, is_there)| !is_there).map(|(part, _)| *part).collect();
    if !missing.is_empty() {
        let _ = writeln!(text, "\nNot measured yet: {}.", missing.join(", "));
    }
    text += &section(results.failover.as_ref(), failover::section);
    text += &section(results.xdp.as_ref(), xdp::section);
    text += &section(results.stack.as_ref(), stack::section);
    text += &section(results.scale.as_ref(), scale::section);
    text
}

/// What was promised of the parts that were measured.
pub fn bars(results: &Results) -> String {
    let mut text = String::from("| part | what | bar | measured | met |\n|---|---|---|---|---|\n");
    let parts = [
        ("failover", results.failover.as_ref().map(|part| failover::bars(&part.results))),
        ("xdp", results.xdp.as_ref().map(|part| xdp::bars(&part.results))),
        ("stack", results.stack.as_ref().map(|part| stack::bars(&part.results))),
        ("scale", results.scale.as_ref().map(|part| scale::bars(&part.results))),
    ];
    for (part, bars) in parts {
        for Bar { what, promise, measured, is_met } in bars.unwrap_or_default() {
            let met = if is_met { "yes" } else { "**no**" };
            let _ = writeln!(text, "| {part} | {what} | {promise} | {measured} | {met} |");
        }
    }
    text
}

fn section<T>(part: Option<&Measured<T>>, section: fn(&T) -> String) -> String {
    let Some(Measured { at, machine, commit, results }) = part else { return String::new() };
    format!("\n{}\nMeasured {at} at {commit} on {machine}.\n", section(results).trim_end())
}

const HEAD: &str = "\
# Benchmarks

What failover costs and how fast it is: beside keepalived, and beside the kernel's own network stack.
`cargo xtask bench` measures everything and writes this file, `cargo xtask bench failover|xdp|stack|scale` one part; `--rounds N` sets how often, `--json FILE` keeps the run's raw results elsewhere, too.
Every figure and plot here is made from [benchmarks/results.json](benchmarks/results.json).

The two sides of a comparison are measured in turn in one run, on one machine, with nothing else running.
Each figure is what was measured, with its spread; a percentile is one of the samples (nearest rank).
All links are veth pairs between network namespaces: no cable, no network card, no switch. What a card's driver costs is in none of these figures.

";
