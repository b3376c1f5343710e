//! The section of the document: tables, bars and plots, from the raw results alone.
//!
//! Deliberately absent: measuring.

use std::fmt::Write;

use anyhow::Result;

use super::frames::Flood;
use super::generator::Source;
use super::pair::Side;
use super::transfer::Load;
use super::{Rates, Results, rate, transfer};
use crate::bench::Bar;
use crate::bench::plot::{Chart, Plot, Scale, bars as bar_plot};
use crate::bench::stats::Summary;

const ANSWERS: &str = "stack-answers.svg";
const TRANSFER: &str = "stack-transfer.svg";
/// A responder that is as busy as this has no more to give.
const BUSY: f64 = 0.95;

/// What was promised.
pub fn bars(results: &Results) -> Vec<Bar> {
    let bar = |(flood, what, limit)| {
        let rate = |side| median(&results.rates(flood, Source::LiveFrames, side)?.samples, rate::Sample::rate);
        let times = rate(Side::Failover)? / rate(Side::Kernel)?;
        Some(Bar::at_least(what, limit, times, "times the kernel's"))
    };
    let promised = [(Flood::Arp, "ARP answers a second", 5.0), (Flood::Stale, "resets a second", 3.0)];
    promised.into_iter().filter_map(bar).collect()
}

/// The section of the document.
pub fn section(results: &Results) -> String {
    format!("{HEAD}{}{AFTER_RATES}{}{TAIL}", rates(results), transfers(results))
}

/// Its plots.
///
/// # Errors
/// When one cannot be drawn.
pub fn plots(results: &Results) -> Result<Vec<Plot>> {
    let sides = Side::ALL.map(Side::title);
    let answers = Chart {
        file: ANSWERS,
        title: "Answers a second",
        unit: "thousand answers a second",
        sides: &sides,
        rows: kinds().map(|(flood, source)| (kind(flood, source), results.rates_of(flood, source))).collect(),
        limit: None,
    };
    let transfer = Chart {
        file: TRANSFER,
        title: "A TCP transfer under a flood",
        unit: "10^6 bytes a second",
        sides: &sides[..3],
        rows: results.loads().map(|load| (load.title(), results.transfers_of(load))).collect(),
        limit: None,
    };
    Ok(vec![bar_plot(&answers, Scale::Linear)?, bar_plot(&transfer, Scale::Linear)?])
}

fn kinds() -> impl Iterator<Item = (Flood, Source)> {
    Flood::ALL.into_iter().flat_map(|flood| Source::ALL.map(|source| (flood, source)))
}

fn kind(flood: Flood, source: Source) -> String {
    format!("{}, {}", flood.title(), source.title())
}

impl Results {
    fn rates(&self, flood: Flood, source: Source, side: Side) -> Option<&Rates> {
        self.rates.iter().find(|row| (row.flood, row.source, row.side) == (flood, source, side))
    }

    /// Thousand answers a second, of each side.
    fn rates_of(&self, flood: Flood, source: Source) -> Vec<Vec<f64>> {
        let samples = |side| self.rates(flood, source, side).map_or(&[][..], |row| &row.samples);
        Side::ALL.map(|side| samples(side).iter().map(|sample| sample.rate() / 1e3).collect()).into()
    }

    fn transfers(&self, load: Load, side: Side) -> &[transfer::Sample] {
        self.transfers.iter().find(|row| (row.load, row.side) == (load, side)).map_or(&[], |row| &row.samples)
    }

    /// 10^6 bytes a second, of each side.
    fn transfers_of(&self, load: Load) -> Vec<Vec<f64>> {
        let rates = |side| self.transfers(load, side).iter().map(transfer::Sample::rate_mb).collect();
        Side::ALL[..3].iter().map(|side| rates(*side)).collect()
    }

    /// In the order of measuring.
    fn loads(&self) -> impl Iterator<Item = Load> {
        self.transfers.iter().filter(|row| row.side == Side::Failover).map(|row| row.load)
    }
}

fn rates(results: &Results) -> String {
    let mut text = String::from(
        "| flood, generator | side | answers a second, thousands: median (least to greatest) | times the kernel's | \
         ns of the node's core for each | its core busy | frames sent a second, thousands | the limit was |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for (flood, source) in kinds() {
        let kernel = results.rates(flood, source, Side::Kernel);
        let kernel = kernel.and_then(|row| median(&row.samples, rate::Sample::rate));
        for row in Side::ALL.into_iter().filter_map(|side| results.rates(flood, source, side)) {
            let all = |figure: fn(&rate::Sample) -> f64| median(&row.samples, figure).unwrap_or_default();
            let times = kernel.map_or(String::new(), |kernel| format!("{:.1}", all(rate::Sample::rate) / kernel));
            let busy = all(rate::Sample::busy);
            let _ = writeln!(
                text,
                "| {} | {} | {} | {times} | {:.0} | {:.0}% | {:.0} | {} |",
                kind(flood, source),
                row.side.title(),
                spread(row.samples.iter().map(|sample| sample.rate() / 1e3)),
                all(rate::Sample::cost_ns),
                100.0 * busy,
                all(rate::Sample::offered) / 1e3,
                if busy < BUSY { "the client's core" } else { "the node's core" },
            );
        }
    }
    let judged: u64 = results.rates.iter().flat_map(|row| &row.samples).map(|sample| sample.judged).sum();
    let _ = writeln!(text, "\nOf the answers, {judged} were compared with what they have to be; all were right.");
    if !results.stuck.is_empty() {
        let sides: Vec<_> = results.stuck.iter().map(|side| side.title()).collect();
        let _ = writeln!(
            text,
            "Links that took no more frames for 20 s (not understood yet), and were made anew: {}.",
            sides.join(", ")
        );
    }
    text
}

fn transfers(results: &Results) -> String {
    let mut text = String::from(
        "| beside the transfer | side | 10^6 bytes a second: median (least to greatest) | of its own without a flood | \
         frames sent a second, thousands | answers a second, thousands |\n|---|---|---|---|---|---|\n",
    );
    let alone = |side| {
        let load = results.loads().find(|load| load.offered == 0)?;
        median(results.transfers(load, side), transfer::Sample::rate_mb)
    };
    for load in results.loads() {
        for side in &Side::ALL[..3] {
            let samples = results.transfers(load, *side);
            let part = median(samples, transfer::Sample::rate_mb).zip(alone(*side));
            let part = part.map_or(String::new(), |(rate, alone)| format!("{:.0}%", 100.0 * rate / alone));
            let thousands = |figure: fn(&transfer::Sample) -> f64| median(samples, figure).unwrap_or_default() / 1e3;
            let (sent, answered) = (thousands(transfer::Sample::offered), thousands(transfer::Sample::answered));
            let rates = spread(samples.iter().map(transfer::Sample::rate_mb));
            let _ = writeln!(
                text,
                "| {} | {} | {rates} | {part} | {sent:.0} | {answered:.0} |",
                load.title(),
                side.title()
            );
        }
    }
    text
}

fn median<S>(samples: &[S], figure: impl Fn(&S) -> f64) -> Option<f64> {
    Some(Summary::of(&samples.iter().map(figure).collect::<Vec<_>>())?.p50)
}

fn spread(samples: impl Iterator<Item = f64>) -> String {
    let summary = Summary::of(&samples.collect::<Vec<_>>());
    summary.map_or(String::new(), |Summary { p50, min, max, .. }| format!("{p50:.0} ({min:.0} to {max:.0})"))
}

const HEAD: &str = "\
## Stack: answers from the wire

How many ARP requests for the virtual address, and how many TCP segments of connections that nobody here has, a node answers in a second: failover's XDP program, native on a veth, and the kernel's own ARP and TCP on the same link under the same flood.

### Method

- A node and a client, each in a network namespace, at the two ends of one veth pair. Each side has a pair of its own; they are flooded in turn, in each round all of them.
- *failover* is the product: a controller that took the address over from another router a moment ago, `action = \"reset\"`. Its budget for resets, 100,000 a second on each CPU unless configured, is 100,000,000 here (`resets_per_second`), or it would be what is measured.
  *kernel* has the address on its interface, no XDP program, and nothing that listens. GRO is on, because a veth without XDP takes frames that are no socket buffers only then. Its resets and ARP answers have no limit of their own; there are no firewall rules, and `rp_filter` is 0.
  *kernel behind an empty XDP program* is the same with a program that passes everything, instead of GRO.
  *XDP, addresses swapped* sends each frame back with the addresses swapped and nothing looked at: what the link leaves for any XDP program.
- ARP: broadcast requests from 64 addresses. Stale segments: ACK without data from 64 connections, right in every field. All are 60 bytes long.
- Each end of the pair receives in a kernel thread of its own (threaded NAPI), bound to a core: the node's to core 0, the client's to core 1. The generator has the last core, which with two cores is the client's. Both threads are SCHED_FIFO, as a network card's soft interrupts come before what is scheduled; so core 0 does nothing but answer.
- Answers are counted by an XDP program at the client's end, where they arrive. One of 512 passes and is compared, byte by byte, with what it has to be.
- *live frames*: BPF_PROG_TEST_RUN makes the frames, as if the client's end had sent them by XDP_TX. They never were socket buffers, as a card's are not. What the counter has counted it makes into the next question, whichever side gave the answer, so that two cores are enough to outrun every side: with answers dropped instead, the generator's core was the limit at 3.3 million a second. Frames that find the veth's ring of 256 full are lost, and counted as sent.
  *packet socket*: sendmmsg(2) of 64 frames at a time, answers dropped. The frames are socket buffers, which the kernel takes as they are, and which a veth has to convert for XDP.
- Each figure is over two seconds, after a quarter of one unmeasured.
- *ns of the node's core* is the running time of the node's receiving thread over the answers that arrived. It tells what the node could do where its core was not the limit.

### Answers

![answers a second](benchmarks/stack-answers.svg)

";

const AFTER_RATES: &str = "
### A transfer under a flood

One TCP connection from the client to the virtual address sends as fast as it can, while the generator sends live frames at a steady rate.
Its reader shares core 0 with the node's receiving thread, which is scheduled as any other here; its writer shares the client's core with generator and counter. The generator runs in the row without a flood, too, so that it takes as much of the core.
A veth with any XDP program copies each segment that passes; this, and not failover, is why both sides with XDP begin lower (a card's driver builds its frames for XDP to begin with). So the third column compares each side with itself.

![a transfer under a flood](benchmarks/stack-transfer.svg)

";

const TAIL: &str = "
The generator's core is shared with the writer, so a side whose transfer goes on is sent fewer frames (the last column but one).

### What limits, and what was tried

- The row *addresses swapped* is the link alone: the veth's ring, its way out, and fetching a frame that another core wrote. What failover's row has above it is the program's: the lookup of the address, the clock that the lease is compared with, and the counters; for a reset also the lookup of a socket, the table of handshakes, and three checksums.
- So the bar for ARP stands and falls with the program's time for an answer, which the part xdp measures alone. On the program as it was before that work the profile (perf, ARP, live frames) gave it half of the node's time.
- An empty XDP program before the kernel changes next to nothing: both sides pay the same for the link.
- Neither side is limited by its own rules here. As failover comes, resets end at 100,000 a second on each CPU, which is a sixth of what the kernel sends without any limit; that is meant.
- Frames from a packet socket are made no faster than the sides answer. What their rows compare is the node's time for an answer, in which failover's advantage is least: a veth makes an XDP frame of each socket buffer before the program sees it.
- Of the bench's own limits, these had to go: answers that were lost before they were counted, because the generator's time slice let their ring run over (the receiving thread now comes first); one system call for a few frames, each of which patches kernel code (now one for a whole flood); pages that were not used again (the largest batch); and a generator that was slower than the program (answers go back as questions).
";
