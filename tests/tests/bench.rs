//! Ring 4: every part of the bench, for a second or two, so that none rots: it measures, its raw results come back from
//! JSON as they were, and the document and the plots can be made of them. `cargo xtask bench` measures in earnest.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use failover_tests::bench::results::{Measured, Results};
use failover_tests::bench::{Effort, document, failover, scale, stack, xdp};
use failover_tests::requirements::{Built, require};

const NEEDS: [&str; 4] = ["ip", "bpftool", "ethtool", "keepalived"];

/// Measures, and makes the document of it in an empty directory.
fn show(part: &str, measure: impl FnOnce(&Built) -> Result<Results>) -> Result<()> {
    let Some(built) = require(&format!("bench: {part}"), &NEEDS) else { return Ok(()) };
    let results = measure(&built)?;
    let directory = tempfile::tempdir()?;
    document::write(directory.path(), results.clone())?;
    let document = fs::read_to_string(directory.path().join("benchmarks.md"))?;
    println!("{document}");
    ensure!(document.contains("\n## "), "the document has no section of {part}");
    ensure!(document.contains(&format!("\n| {part} | ")), "the document has no bar of {part}");
    ensure!(!document.contains("NaN") && !document.contains(" inf "), "the document has a figure that is none");
    let kept = Results::read(&directory.path().join("benchmarks/results.json"))?;
    ensure!(format!("{kept:?}") == format!("{results:?}"), "the raw results did not come back as they were");
    pictures_are_there(&document, directory.path())
}

/// Each picture that the document shows is beside it, and there is one.
fn pictures_are_there(document: &str, directory: &Path) -> Result<()> {
    let shown: Vec<_> = document.split("](").skip(1).filter_map(|rest| rest.split_once(')')).collect();
    let pictures: Vec<_> = shown.into_iter().map(|(file, _)| file).filter(|file| file.ends_with(".svg")).collect();
    ensure!(!pictures.is_empty(), "the document shows no picture");
    for picture in pictures {
        let svg =
            fs::read_to_string(directory.join(picture)).with_context(|| format!("the document shows {picture}"))?;
        ensure!(svg.starts_with("<svg"), "{picture} is no picture");
    }
    Ok(())
}

#[test]
fn a_client_sees_takeovers() -> Result<()> {
    let measure = |built: &Built| Measured::with("test", || failover::measure(built, Effort::Quick));
    show("failover", |built| Ok(Results { failover: vec![measure(built)?], ..Results::default() }))
}

#[test]
fn frames_take_nanoseconds() -> Result<()> {
    let measure = |built: &Built| Measured::with("test", || xdp::measure(built, Effort::Quick));
    show("xdp", |built| Ok(Results { xdp: vec![measure(built)?], ..Results::default() }))
}

#[test]
fn floods_are_answered() -> Result<()> {
    let measure = |built: &Built| Measured::with("test", || stack::measure(built, Effort::Quick));
    show("stack", |built| Ok(Results { stack: vec![measure(built)?], ..Results::default() }))
}

#[test]
fn many_routers_cost() -> Result<()> {
    let measure = |built: &Built| Measured::with("test", || scale::measure(built, Effort::Quick));
    show("scale", |built| Ok(Results { scale: vec![measure(built)?], ..Results::default() }))
}

/// Prose that changes without a measurement: `FAILOVER_UPDATE_BENCHMARKS=1 cargo xtask test published_document` writes it.
#[test]
fn the_published_document_is_made_of_the_published_results() -> Result<()> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    if std::env::var_os("FAILOVER_UPDATE_BENCHMARKS").is_some() {
        return document::write(&docs, Results::default());
    }
    let document = document::document(&Results::read(&docs.join("benchmarks/results.json"))?);
    let published = fs::read_to_string(docs.join("benchmarks.md"))?;
    for (made, published) in document.lines().zip(published.lines()) {
        ensure!(made == published, "docs/benchmarks.md is not what its results make:\n{made}\n{published}");
    }
    ensure!(document == published, "docs/benchmarks.md is longer or shorter than what its results make");
    Ok(())
}
