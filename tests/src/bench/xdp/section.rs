//! The section of the document: method, figures, what was promised, what was tried.
//!
//! Deliberately absent: measuring.

use std::fmt::Write;

use anyhow::Result;

use super::paths::Path;
use super::{Price, Results, SCALES, Samples, Series};
use crate::bench::Bar;
use crate::bench::plot::{self, Chart, Plot, Scale};
use crate::bench::stats::Summary;

const FILE: &str = "xdp.svg";
/// By how much a cost may change with the number of addresses, percent.
const CHANGE_MAX_PERCENT: f64 = 20.0;

/// What was promised: each cost at the number of addresses where it is greatest, and how far it depends on them.
pub fn bars(results: &Results) -> Vec<Bar> {
    let limited = Path::ALL.into_iter().filter_map(|path| Some((path, path.limit_ns()?)));
    let bar = |(path, limit_ns): (Path, f64)| {
        let greatest = costs_ns(results, path).into_iter().reduce(f64::max)?;
        Some(Bar::at_most(path.name(), limit_ns, greatest, "ns"))
    };
    let mut bars: Vec<Bar> = limited.filter_map(bar).collect();
    let changes = Path::ALL.into_iter().filter_map(|path| Some((path, change_percent(results, path)?)));
    if let Some((path, percent)) = changes.max_by(|(_, one), (_, other)| one.total_cmp(other)) {
        let what = format!("with 4,096 addresses or 100 instead of 1, the most: {}", path.name());
        bars.push(Bar::at_most(what, CHANGE_MAX_PERCENT, percent, "%"));
    }
    bars
}

/// What the path costs at each number of addresses.
fn costs_ns(results: &Results, path: Path) -> Vec<f64> {
    of_path(results, path).filter_map(|series| series.samples.cost_ns()).collect()
}

/// The most by which the cost with many addresses differs from that with one, percent of it.
fn change_percent(results: &Results, path: Path) -> Option<f64> {
    let costs = costs_ns(results, path);
    let (one, more) = costs.split_first()?;
    more.iter().map(|cost| 100.0 * (cost - one).abs() / one).reduce(f64::max)
}

fn of_path(results: &Results, path: Path) -> impl Iterator<Item = &Series> {
    results.series.iter().filter(move |series| series.path == path)
}

/// The section of the document.
pub fn section(results: &Results) -> String {
    let mut text = String::from("## xdp: nanoseconds per frame\n\n");
    let count = results.series.first().map_or(0, |series| series.samples.program_ns.len());
    let _ = writeln!(
        text,
        "Each way through the loaded program by BPF_PROG_TEST_RUN, {} runs to a sample, {count} samples.\n{METHOD}",
        results.repeat
    );
    let _ = writeln!(text, "| way | bar |{}", SCALES.map(|scale| format!(" {} |", scale_name(scale))).concat());
    let _ = writeln!(text, "|---|---|{}", "---|".repeat(SCALES.len()));
    for path in Path::ALL {
        let bar = path.limit_ns().map_or(String::new(), |limit_ns| format!("{limit_ns} ns"));
        let cells = of_path(results, path).map(|series| format!(" {} |", cell(&series.samples)));
        let _ = writeln!(text, "| {} | {bar} |{}", path.name(), cells.collect::<String>());
    }
    let _ = writeln!(text, "\n![Nanoseconds per frame](benchmarks/{FILE})\n\n{PRICES}");
    for Price { program, samples } in &results.prices {
        let _ = writeln!(text, "| {} | {} |", price_name(program), cell(samples));
    }
    text + TRIED
}

fn scale_name((addresses, routers): (u32, u32)) -> String {
    let addresses = if addresses == 1 { "1 address".to_owned() } else { format!("{addresses} addresses") };
    let routers = if routers == 1 { "1 router".to_owned() } else { format!("{routers} routers") };
    format!("{addresses}, {routers}")
}

fn price_name(program: &str) -> &str {
    match program {
        "clock" => "the clock, `bpf_ktime_get_boot_ns`",
        "lookup" => "a hit in a hash of 4,096 keys of 24 bytes",
        "socket" => "a hit of `bpf_skc_lookup_tcp`, and its release",
        other => other,
    }
}

/// The cost, and the least and the greatest difference of two samples.
fn cell(samples: &Samples) -> String {
    let spread = Summary::of(&samples.differences_ns());
    let Some((cost_ns, spread)) = samples.cost_ns().zip(spread) else { return "not measured".into() };
    format!("{cost_ns:.1} ns ({:.1} to {:.1})", spread.min, spread.max)
}

/// Its plot.
///
/// # Errors
/// When it cannot be drawn.
pub fn plots(results: &Results) -> Result<Vec<Plot>> {
    let sides = SCALES.map(scale_name);
    let row = |path: Path| {
        let sides = of_path(results, path).map(|series| series.samples.differences_ns()).collect();
        (path.name().to_owned(), sides)
    };
    let chart = Chart {
        file: FILE,
        title: "Nanoseconds per frame, empty program subtracted",
        unit: "ns",
        sides: &sides.each_ref().map(String::as_str),
        rows: Path::ALL.into_iter().map(row).collect(),
        limit: None,
    };
    Ok(vec![plot::bars(&chart, Scale::Linear)?])
}

const METHOD: &str = "\
The frame is made anew for each run by a program of the bench that goes on to the one that is measured (a tail call); the same with a program that only passes, measured just before, is subtracted.
Time is what the thread used of its CPU, to which it is bound.
Every sample is checked: the frame, as the last run left it, its verdict, and that exactly the counters of this way moved by exactly as many.
Programs and maps are loaded anew for each sample, as it is chance where the kernel puts the machine code and how a hash table spreads its keys.

Cells are the difference of the medians, and the least and the greatest difference of a sample from the one before it.
Everything is in the cache, and no driver is part of it: a card's costs more than all of this, and a first touch of a cold packet tens of nanoseconds.
";

const PRICES: &str = "\
What the kernel takes for what the program cannot do without, measured alike:

| what | costs |
|---|---|";

const TRIED: &str = "
An unrelated packet pays for no lookup, an answered ARP request for one and the clock, a stale segment for two, the clock and a search for a socket, and with replication for a third.

What made it cheaper, on the Xeon that it was developed on, nanoseconds with 4,096 addresses (one to five samples each, while others used the machine):

| step | unrelated TCP | ARP answered | valid advert | live socket | stale, reset |
|---|---|---|---|---|---|
| before | 17.5 | 71.3 | 72.4 | 77.2 | 166.1 |
| headers read and written by words; LLVM takes what has no alignment apart into bytes | 9.1 | 49.5 | 63.0 | 63.5 | 139.7 |
| the last 32 bytes of a checksum added up instead of one `bpf_csum_diff` for each 4 | 8.8 | 48.7 | 65.3 | 63.3 | 126.5 |
| addresses aligned and compared by words, padding zeroed by words | 8.9 | 49.6 | 57.8 | 63.2 | 117.5 |

By leaving one thing out at a time, of a stale segment's reset 9 ns were the checksum of the segment, 9 the table of peers' flows, 7 the look whether its source is an address of ours, 3 the IP header's checksum, 2 the token; the options and the address's own counter could not be told from nothing.

Then, on an EPYC of the first generation, nanoseconds with 4,096 addresses (one sample before, thirty after):

| step | unrelated TCP | ARP, not ours | ARP answered | live socket | stale, reset |
|---|---|---|---|---|---|
| before | 30.7 | 51.9 | 101.0 | 145.2 | 314.3 |
| a bitmap says which addresses are looked up at all; peers' flows are only looked for where there are peers | 14.1 | 21.4 | 88.3 | 147.9 | 280.2 |

What remains: on that EPYC four bars are not met that the Xeon met, or all but met, before this last step.
Of the 148 ns for a segment with a live socket, 99 are the clock, one lookup and the socket, and the kernel asks as much for them whoever calls; the processor runs at 2 GHz, and returns from each call through a thunk (its mitigation of Retbleed).
An entry's place instead of a bit in the bitmap would save the lookup of an address of ours, too: not built.

What was tried and gained nothing:

- the instruction set's third version (`-Ctarget-cpu=v3`): fewer instructions, the same time;
- adding up headers from where they were read to instead of from the packet: nothing for IPv4; for TCP the verifier gives up (a million instructions);
- the last 31 bytes of a checksum in pieces of 16, 8 and 4 instead of 4 each;
- a token bucket without a division: a nanosecond, at the edge of what can be told.

What was left alone:

- a coarse clock would be cheaper (not measured here), but it stands still while the kernel is not ticking, as in a virtual machine that was paused: the lease would seem to live.
";
