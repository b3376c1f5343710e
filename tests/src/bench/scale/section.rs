//! The section of the document, its bars and plots, from the raw results alone.

use std::fmt::Write;

use anyhow::Result;

use super::{Load, Results, Round, Setting, Takeover};
use crate::bench::Bar;
use crate::bench::plot::{self, Chart, Plot, Scale};
use crate::bench::stats::Summary;
use crate::node::System;

/// Both, ours first.
const SYSTEMS: [System; 2] = [System::Ours, System::Keepalived];

/// The CPU time of both daemons, and the takeover of many addresses.
pub fn bars(results: &Results) -> Vec<Bar> {
    let mut bars = Vec::new();
    let most = results.settings().into_iter().map(|setting| setting.routers).max();
    for setting in results.settings().into_iter().filter(|setting| Some(setting.routers) == most) {
        for (role, cpu) in [("Active", cpu_active as fn(&Load) -> f64), ("Backup", cpu_backup)] {
            let median = |system| Some(Summary::of(&results.of(system, setting, cpu))?.p50);
            if let (Some(ours), Some(theirs)) = (median(System::Ours), median(System::Keepalived)) {
                let what =
                    format!("CPU of the {role}, {} routers, {} ms adverts", setting.routers, setting.interval_ms);
                bars.push(Bar::at_most(what, 0.5, ours / theirs, "of keepalived's"));
            }
        }
    }
    let ours = |takeover: &&Takeover| takeover.system == System::Ours;
    for many in results.takeovers.iter().filter(ours).filter(|takeover| takeover.setting.addresses > 1) {
        let is_one =
            |one: &&Takeover| one.setting.addresses == 1 && one.setting.interval_ms == many.setting.interval_ms;
        let Some(one) = results.takeovers.iter().filter(ours).find(is_one) else { continue };
        let (Some(one), Some(many_ms)) = (Summary::of(&all(one, answers)), Summary::of(&all(many, answers))) else {
            continue;
        };
        let what = format!(
            "takeover of {} addresses, {} ms adverts: the last answer beyond the median of one address",
            grouped(many.setting.addresses),
            many.setting.interval_ms
        );
        bars.push(Bar::at_most(what, 10.0, many_ms.max - one.p50, "ms"));
    }
    bars
}

/// The section of the document.
pub fn section(results: &Results) -> String {
    let mut text = String::from(METHOD);
    text += "\n### Steady\n\n";
    text += &cost_table(results);
    for alike in results.restless.chunk_by(|one, other| one == other) {
        let (Setting { routers, interval_ms, .. }, why) = &alike[0];
        let _ = writeln!(
            text,
            "Of keepalived's pairs with {routers} routers at {interval_ms} ms, {} could not be measured: {why}.\n",
            alike.len()
        );
    }
    text += PUNCTUALITY;
    text += &punctuality_table(results);
    text += "\n![CPU time by virtual routers](benchmarks/scale-cpu.svg)\n\n";
    text += TAKEOVER;
    text += &takeover_table(results);
    text += "\n![Takeover of many addresses](benchmarks/scale-takeover.svg)\n\n";
    text += FINDINGS;
    text
}

/// CPU by virtual routers; takeovers.
///
/// # Errors
/// When one cannot be drawn.
pub fn plots(results: &Results) -> Result<Vec<Plot>> {
    let names = SYSTEMS.map(System::name);
    let mut rows = Vec::new();
    for setting in results.settings() {
        for (role, cpu) in [("Active", cpu_active as fn(&Load) -> f64), ("Backup", cpu_backup)] {
            let label = format!("{role}, {} at {} ms", setting.routers, setting.interval_ms);
            rows.push((label, SYSTEMS.map(|system| results.of(system, setting, cpu)).to_vec()));
        }
    }
    let title = "CPU time of the daemon by virtual routers";
    let cpu = Chart { file: "scale-cpu.svg", title, unit: "% of one core", sides: &names, rows, limit: None };
    let mut rows: Vec<(String, Vec<Vec<f64>>)> = Vec::new();
    for takeover in &results.takeovers {
        let Setting { addresses, interval_ms, .. } = takeover.setting;
        let label = format!("{} address(es), {interval_ms} ms", grouped(addresses));
        let side = usize::from(takeover.system == System::Keepalived);
        let last = takeover.rounds.iter().filter_map(|round| Some(Summary::of(&round.answer_ms)?.max.max(0.01)));
        let row = rows.iter().position(|row| row.0 == label).unwrap_or_else(|| {
            rows.push((label, vec![Vec::new(); SYSTEMS.len()]));
            rows.len() - 1
        });
        rows[row].1[side].extend(last);
    }
    let title = "Takeover: the last address to be answered, each round";
    let unit = "ms above the protocol's floor";
    let takeovers = Chart { file: "scale-takeover.svg", title, unit, sides: &names, rows, limit: None };
    Ok(vec![plot::bars(&cpu, Scale::Logarithmic)?, plot::distribution(&takeovers, Scale::Logarithmic)?])
}

/// A steady pair in one line.
pub(super) fn load_line(load: &Load) -> String {
    let Setting { routers, interval_ms, .. } = load.setting;
    format!(
        "{:<10} {routers:>3} routers, {interval_ms:>3} ms: Active {:.2}% {:.0}/s, Backup {:.2}% {:.0}/s, wire {:.2}%; {} of {} \
         adverts late, worst {:.1} ms, {} role changes",
        load.system.name(),
        cpu_active(load),
        load.per_second(load.active.used.wakeups),
        cpu_backup(load),
        load.per_second(load.backup.used.wakeups),
        load.percent(load.wire.cpu_ns),
        load.adverts.late_us.len(),
        load.adverts.heard,
        load.adverts.worst_us / 1e3,
        role_changes(load),
    )
}

/// Takeovers in one line.
pub(super) fn takeover_line(takeover: &Takeover) -> String {
    let Setting { addresses, interval_ms, .. } = takeover.setting;
    if let Some(failure) = &takeover.failure {
        return format!("{:<10} {addresses:>4} addresses, {interval_ms:>3} ms: {failure}", takeover.system.name());
    }
    format!(
        "{:<10} {addresses:>4} addresses, {interval_ms:>3} ms: adverts {}, answered {}, announced {} ms above the floor (median, \
         p99, max)",
        takeover.system.name(),
        percentiles(&all(takeover, adverts)),
        percentiles(&all(takeover, answers)),
        percentiles(&all(takeover, announcements)),
    )
}

fn cpu_active(load: &Load) -> f64 {
    load.percent(load.active.used.cpu_ns)
}

fn cpu_backup(load: &Load) -> f64 {
    load.percent(load.backup.used.cpu_ns)
}

fn role_changes(load: &Load) -> u64 {
    load.active.role_changes + load.backup.role_changes
}

fn adverts(round: &Round) -> &[f64] {
    &round.advert_ms
}

fn answers(round: &Round) -> &[f64] {
    &round.answer_ms
}

fn announcements(round: &Round) -> &[f64] {
    &round.announced_ms
}

fn all(takeover: &Takeover, samples: fn(&Round) -> &[f64]) -> Vec<f64> {
    takeover.rounds.iter().flat_map(samples).copied().collect()
}

impl Results {
    /// What was measured steadily, in the order of the measurement.
    fn settings(&self) -> Vec<Setting> {
        let mut settings: Vec<Setting> = Vec::new();
        for load in &self.loads {
            if !settings.contains(&load.setting) {
                settings.push(load.setting);
            }
        }
        settings
    }

    /// A figure of each round.
    fn of(&self, system: System, setting: Setting, figure: impl Fn(&Load) -> f64) -> Vec<f64> {
        let loads = self.loads.iter().filter(|load| load.system == system && load.setting == setting);
        loads.map(figure).collect()
    }
}

/// A column's name, decimal places and figure.
type Column<'a> = (&'a str, usize, &'a dyn Fn(&Load) -> f64);

/// A row for each setting, in which each figure stands for both.
fn table(results: &Results, figures: &[Column<'_>]) -> String {
    let mut text = String::from("| adverts | routers |");
    for (name, ..) in figures {
        for system in SYSTEMS {
            let _ = write!(text, " {name}, {} |", system.name());
        }
    }
    let _ = writeln!(text, "\n|---|---|{}", "---|".repeat(2 * figures.len()));
    for setting in results.settings() {
        let _ = write!(text, "| {} ms | {} |", setting.interval_ms, setting.routers);
        for (_, digits, figure) in figures {
            for system in SYSTEMS {
                let _ = write!(text, " {} |", spread(&results.of(system, setting, figure), *digits));
            }
        }
        text.push('\n');
    }
    text
}

fn cost_table(results: &Results) -> String {
    let wakes_active = |load: &Load| load.per_second(load.active.used.wakeups);
    let wakes_backup = |load: &Load| load.per_second(load.backup.used.wakeups);
    let memory = |load: &Load| load.active.resident_kib as f64 / 1024.0;
    let memory_max = |load: &Load| load.active.resident_max_kib as f64 / 1024.0;
    let wire = |load: &Load| load.percent(load.wire.cpu_ns);
    let mut text = table(
        results,
        &[("Active %", 2, &cpu_active), ("Backup %", 2, &cpu_backup), ("switch, receivers and client %", 2, &wire)],
    );
    text.push('\n');
    text += &table(
        results,
        &[
            ("Active wake-ups/s", 0, &wakes_active),
            ("Backup wake-ups/s", 0, &wakes_backup),
            ("resident MiB", 1, &memory),
            ("at most MiB", 1, &memory_max),
        ],
    );
    let maps = results.loads.iter().filter(|load| load.system == System::Ours).map(|load| load.active.maps_bytes);
    let maps: Vec<f64> = maps.map(|bytes| bytes as f64 / f64::from(1 << 20)).collect();
    let _ = writeln!(
        text,
        "\nfailover's BPF maps take {} MiB of kernel memory besides, most of it room for the 262,144 connections and as many \
         handshakes of `flows_max`.\n",
        spread(&maps, 1)
    );
    text
}

fn punctuality_table(results: &Results) -> String {
    let late = |load: &Load| load.adverts.late_us.len() as f64 * 100.0 / load.adverts.heard.max(1) as f64;
    let worst = |load: &Load| load.adverts.worst_us / 1e3;
    let heard = |load: &Load| {
        let due = load.setting.routers as f64 * load.window_ns as f64 / 1e6 / f64::from(load.setting.interval_ms);
        load.adverts.heard as f64 * 100.0 / due
    };
    let changes = |load: &Load| role_changes(load) as f64;
    table(
        results,
        &[
            ("heard, % of due", 1, &heard),
            ("late, % of heard", 2, &late),
            ("worst, ms above the interval", 1, &worst),
            ("role changes", 0, &changes),
        ],
    )
}

fn takeover_table(results: &Results) -> String {
    let mut text = String::from(
        "| adverts | addresses | | rounds | first advert | first answer | all announced | not answered | not announced |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    for takeover in &results.takeovers {
        let Setting { addresses, interval_ms, .. } = takeover.setting;
        let _ = writeln!(
            text,
            "| {interval_ms} ms | {} | {} | {} | {} | {} | {} | {} | {} |",
            grouped(addresses),
            takeover.system.name(),
            takeover.rounds.len(),
            percentiles(&all(takeover, adverts)),
            percentiles(&all(takeover, answers)),
            percentiles(&all(takeover, announcements)),
            takeover.rounds.iter().map(|round| round.asked - round.answered).sum::<usize>(),
            takeover.rounds.iter().map(|round| round.unannounced).sum::<usize>(),
        );
    }
    for Takeover { system, setting, failure, .. } in &results.takeovers {
        if let Some(failure) = failure {
            let _ =
                writeln!(text, "\n{} was not measured with {} addresses: {failure}.", system.name(), setting.addresses);
        }
    }
    text
}

/// The median, and from the least to the greatest.
fn spread(samples: &[f64], digits: usize) -> String {
    let Some(Summary { min, p50, max, .. }) = Summary::of(samples) else { return "-".into() };
    let [min, p50, max] = [min, p50, max].map(|value| format!("{value:.digits$}"));
    if min == max { p50 } else { format!("{p50} ({min} to {max})") }
}

/// The median, the 99th percentile and the greatest.
fn percentiles(samples: &[f64]) -> String {
    let Some(Summary { p50, p99, max, .. }) = Summary::of(samples) else { return "-".into() };
    format!("{p50:.2} / {p99:.2} / {max:.2}")
}

/// With a comma between thousands.
fn grouped(number: usize) -> String {
    if number < 1_000 { number.to_string() } else { format!("{},{:03}", number / 1_000, number % 1_000) }
}

const METHOD: &str = "\
## Scale: many virtual routers

Two nodes of one make, with 1, 64 or 256 virtual routers of one address each, and a client on the same switch that hears all adverts with the kernel's time of arrival.
VRIDs end at 255, so 256 routers are 128 on each of two interfaces, for both makes.
keepalived is configured as its users do, an instance for each router, `vrrp_version 3`, all else by default, and without `--log-detail`; both makes start with edge-a (priority 150) before edge-b (100).
Each pair is watched for 5 s once edge-a alone has advertised everything for half a second; failover and keepalived in turn.

CPU time is the scheduler's account of all threads and processes of a daemon, in nanoseconds: system calls included, and with them the way of an advert down to the interface.
The switch's ports hand frames on in kernel threads of their own (threaded NAPI), so what lies behind the interface is on no daemon's account; it has its own column, which contains the switch, the client's kernel, and what the receiving node does in interrupts: XDP there, a skb and a raw socket here.
A wake-up is a voluntary context switch of any thread.
";

const PUNCTUALITY: &str = "\
An advert is late when it comes more than a tenth of the interval after it was due, counted from the one before.
A role change here is one too many: nothing failed.

";

const TAKEOVER: &str = "\
### Takeover of many addresses

4,096 addresses on 205 virtual routers of one interface (RFC 9568 allows an advert 255 addresses; both makes stop at 20), and one address on one.
The Active's cable is cut.
The floor of each virtual router is its Active_Down_Interval, counted from when the client heard the Active's last advert.
From then on the client asks by ARP for one address of every fourth router, once a millisecond (five times, for the one address) until the new Active answers; routers and addresses change from round to round.
It also hears when each address is announced, and asks for all of them afterwards.
Milliseconds above the floor: median / 99th percentile / greatest of all routers in all rounds.

";

const FINDINGS: &str = "\
### What was found and done

What is cheap by design: a Backup's kernel checks and timestamps an advert without waking anybody, so its controller looks about once in three intervals for all routers of a turn together; adverts are built once; one packet socket per interface receives nothing.

What was not, with 256 routers and 4,096 addresses; the figures of this list are of development (two builds in turn, two runs each, all but the last two items' under SCHED_RR beside other work):

- Deadlines drifted, because each interval began when the last advert had been sent. Counted from when it was due, 256 routers at 10 ms wake their controller 101 times a second instead of 151 to 181, and no advert was late where up to 256 in 100,000 had been.
- Adverts that are due together now go out in one system call, and wishes and log lines wait until every router has its lease. The CPU time of the Active fell from 2.7 to 3.2% of a core to 2.3 to 2.7%.
- Of 205 routers that take over together most came more than half a millisecond after their deadlines, and then have to advertise first and hold for 2 ms. Median of the first answer at 100 ms adverts: 7.0 ms before, 1.1 ms after; 99th percentile 14 ms before, 4.7 ms after.
- 8,192 announcements a round overflowed the interface's queue: many were lost, each with a line in the log, and so were adverts, which were tried again a tenth of an interval later. The announcements' socket may now fill a part of the queue only, and waits for room. Last address announced: 500 ms before, 170 ms after.
- Virtual routers that advertise together are missed together, and then wait for each other's addresses. Now they take five turns in an interval, and a takeover is spread over it. Each turn begins with cold caches: 256 routers at 100 ms adverts took the Active 1.6% of a core instead of 1.2, with ten turns 1.9 (ours alone, on a Xeon). Announced at the median of 4,096 addresses: 76 ms before, 48 after.
- Adverts that come one after another let the patience of their Backups end one after another. A wake-up now looks after all who are due within 0.2 ms: the Backup of 256 routers at 10 ms took 4.6% of a core before, 2.8 after.

What remains: the last announcement is behind 4,096 addresses that the kernel puts on one interface, one by one.
The client's neighbours that have the old node's hardware address in their tables wait for it.
At 10 ms adverts a takeover of 4,096 addresses is not published: both nodes, the switch and the client share two cores here, and the host threads of the two nodes, which run at the election's priority, can take the CPU for longer than a lease of 30 ms.

keepalived is measured without `--log-detail`: with it, each announcement is a line in its log.
";
