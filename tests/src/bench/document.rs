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
    let parts = [
        results.failover.first().map(|part| failover::plots(&part.results)),
        results.xdp.first().map(|part| xdp::plots(&part.results)),
        results.stack.first().map(|part| stack::plots(&part.results)),
        results.scale.first().map(|part| scale::plots(&part.results)),
    ];
    let plots = parts.into_iter().flatten().collect::<Result<Vec<_>>>()?;
    Ok(plots.into_iter().flatten().collect())
}

/// The whole document.
pub fn document(results: &Results) -> String {
    let mut text = String::from(HEAD);
    let _ = write!(text, "## The bars\n\n{}", bars(results));
    let measured = [
        ("failover", !results.failover.is_empty()),
        ("xdp", !results.xdp.is_empty()),
        ("stack", !results.stack.is_empty()),
        ("scale", !results.scale.is_empty()),
    ];
    let missing: Vec<_> = measured.iter().filter(|(_, is_there)| !is_there).map(|(part, _)| *part).collect();
    if !missing.is_empty() {
        let _ = writeln!(text, "\nNot measured yet: {}.", missing.join(", "));
    }
    let elsewhere = bars_elsewhere(results);
    if !elsewhere.is_empty() {
        let _ = write!(text, "\n### The same on other processors\n\n{ELSEWHERE}{elsewhere}");
    }
    text += &section(results.failover.first(), failover::section);
    text += &section(results.xdp.first(), xdp::section);
    text += &section(results.stack.first(), stack::section);
    text += &section(results.scale.first(), scale::section);
    text
}

/// What was promised of the parts that were measured, by the newest measurement of each.
pub fn bars(results: &Results) -> String {
    let mut text = String::from(BARS_HEAD);
    let all = all_bars(results);
    for part in all.iter().filter(|part| part.is_newest) {
        part.write(&mut text);
    }
    text
}

/// The same by those on other processors.
fn bars_elsewhere(results: &Results) -> String {
    let mut text = String::new();
    for part in all_bars(results).iter().filter(|part| !part.is_newest) {
        let _ = write!(text, "\n{}:\n\n{BARS_HEAD}", part.measured);
        part.write(&mut text);
    }
    text
}

/// The bars of one measurement.
struct Bars {
    part: &'static str,
    bars: Vec<Bar>,
    measured: String,
    is_newest: bool,
}

impl Bars {
    fn write(&self, text: &mut String) {
        for Bar { what, promise, measured, is_met } in &self.bars {
            let met = if *is_met { "yes" } else { "**no**" };
            let _ = writeln!(text, "| {} | {what} | {promise} | {measured} | {met} |", self.part);
        }
    }
}

fn all_bars(results: &Results) -> Vec<Bars> {
    fn of<T>(part: &'static str, measured: &[Measured<T>], bars: fn(&T) -> Vec<Bar>) -> Vec<Bars> {
        let of_one = |(number, one): (usize, &Measured<T>)| Bars {
            part,
            bars: bars(&one.results),
            measured: when_and_where(one),
            is_newest: number == 0,
        };
        measured.iter().enumerate().map(of_one).collect()
    }
    let parts = [
        of("failover", &results.failover, failover::bars),
        of("xdp", &results.xdp, xdp::bars),
        of("stack", &results.stack, stack::bars),
        of("scale", &results.scale, scale::bars),
    ];
    parts.into_iter().flatten().collect()
}

fn section<T>(part: Option<&Measured<T>>, section: fn(&T) -> String) -> String {
    let Some(part) = part else { return String::new() };
    format!("\n{}\n\n{}.\n", section(&part.results).trim_end(), when_and_where(part))
}

fn when_and_where<T>(Measured { at, machine, commit, .. }: &Measured<T>) -> String {
    format!("Measured {at} at {commit} on {machine}")
}

const BARS_HEAD: &str = "| part | what | bar | measured | met |\n|---|---|---|---|---|\n";

const ELSEWHERE: &str = "\
The newest measurement of each other processor, of the sources as they were; their raw results are kept, too.
All other figures and the plots here are the newest's.
";

const HEAD: &str = "\
# Benchmarks

What failover costs and how fast it is: beside keepalived, and beside the kernel's own network stack.
`cargo xtask bench` measures everything and writes this file, `cargo xtask bench failover|xdp|stack|scale` one part; `--rounds N` sets how often, `--json FILE` keeps the run's raw results elsewhere, too.
Every figure and plot here is made from [benchmarks/results.json](benchmarks/results.json).

The two sides of a comparison are measured in turn in one run, on one machine, with nothing else running.
Each figure is what was measured, with its spread; a percentile is one of the samples (nearest rank).
All links are veth pairs between network namespaces: no cable, no network card, no switch. What a card's driver costs is in none of these figures.

";
