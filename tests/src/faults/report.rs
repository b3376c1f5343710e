//! The table of faults for a terminal, and as a document.

use std::fmt::Write;
use std::time::Duration;

use crate::faults::{Fault, Group, Outcome, Played};
use crate::machine::conditions;

/// One fault, done to ours and to keepalived.
pub struct Row {
    /// Which.
    pub fault: &'static Fault,
    /// What came of it with ours.
    pub ours: Played,
    /// And with keepalived.
    pub keepalived: Played,
}

/// An outage that the instruments may have made themselves.
const UNSEEN: Duration = Duration::from_millis(20);

/// A row for a terminal.
pub fn lines(row: &Row) -> String {
    let line = |make, played: &Played| format!("  {make:<10} {}\n", details(played));
    format!(
        "{}: {}\n{}{}",
        row.fault.name,
        row.fault.title,
        line("failover", &row.ours),
        line("keepalived", &row.keepalived)
    )
}

/// The whole document.
pub fn document(rows: &[Row]) -> String {
    let mut text = String::from(HEAD);
    let _ = writeln!(text, "Measured once each, on {}.\n", conditions());
    text += COLUMNS;
    for row in rows {
        let Row { fault, ours, keepalived } = row;
        let mark = if fault.apart { " (apart)" } else { "" };
        let _ = write!(text, "| {}{mark}", fault.title);
        for cell in [outage, both, alone] {
            let _ = write!(text, " | {} | {}", cell(ours), cell(keepalived));
        }
        let _ = writeln!(text, " | {} |", hurts(row));
    }
    text += "\n## Each fault\n";
    for row in rows {
        text += &section(row);
    }
    text
}

/// Where ours is hurt, if this run shows it.
fn hurts(Row { fault, ours, .. }: &Row) -> &'static str {
    match ours {
        Played::Impossible(_) => "",
        Played::Seen(outcome) if outcome.outage < UNSEEN && outcome.during.count + outcome.after.count == 0 => {
            "nothing"
        }
        Played::Seen(_) if fault.hurts.is_empty() => "not understood: see the figures",
        Played::Seen(_) => fault.hurts,
    }
}

fn section(Row { fault, ours, keepalived }: &Row) -> String {
    // What an upgrade takes is its own affair.
    let length = if fault.group == Group::Upgrades { String::new() } else { format!(" For {:?}.", fault.length) };
    let why = if fault.why.is_empty() { String::new() } else { format!("{}\n\n", fault.why) };
    format!(
        "\n### {}\n\n{}{length}\n\n{why}- failover: {}.\n- keepalived: {}.\n",
        fault.title,
        fault.what,
        details(ours),
        details(keepalived)
    )
}

fn outage(played: &Played) -> String {
    match played {
        Played::Seen(outcome) => ms(outcome.outage),
        Played::Impossible(_) => "not possible here".into(),
    }
}

/// Questions that both answered while it lasted, and after it healed.
fn both(played: &Played) -> String {
    let Played::Seen(Outcome { during, after, .. }) = played else { return String::new() };
    let part = |count, longest| if count == 0 { "0".into() } else { format!("{count} ({})", ms(longest)) };
    match during.count + after.count {
        0 => "never".into(),
        _ => format!("{}, then {}", part(during.count, during.longest), part(after.count, after.longest)),
    }
}

fn alone(played: &Played) -> String {
    let Played::Seen(outcome) = played else { return String::new() };
    outcome.alone_after.map_or_else(|| "no".into(), ms)
}

fn details(played: &Played) -> String {
    let outcome = match played {
        Played::Seen(outcome) => outcome,
        Played::Impossible(reason) => return format!("not possible here: {reason}"),
    };
    let Outcome {
        asked, unanswered, pause, arp: [arp_a, arp_b], udp: [udp_a, udp_b], hand_overs, became_active, ..
    } = outcome;
    format!(
        "outage {}; both answered {}; alone again {}; {asked} ARP questions, at most {} apart, {unanswered} of them without an answer, {arp_a} \
         answers from edge-a and {arp_b} from edge-b; UDP {udp_a} and {udp_b}; the address went over {} times, with {} late \
         answers; a node became Active {became_active} times; witness: {}",
        ms(outcome.outage),
        both(played),
        alone(played),
        ms(*pause),
        hand_overs.count,
        hand_overs.late,
        outcome.witness
    )
}

fn ms(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    if ms < 100.0 { format!("{ms:.1} ms") } else { format!("{ms:.0} ms") }
}

const COLUMNS: &str = "\
| fault | outage, failover | keepalived | both answered, failover | keepalived | alone again, failover | keepalived | what hurts failover |
|---|---|---|---|---|---|---|---|
";

const HEAD: &str = "\
# Faults

What is done to the Active of a pair of nodes, and what a client sees of it: failover, and keepalived under the same fault, one after the other in the same run.
`cargo xtask faults` plays the table, `cargo xtask faults NAME...` a part of it, and with `--write` this file is written.
`cargo xtask test` plays the same faults in short against failover, and asserts what must hold: where the nodes hear each other no two of them answer, and after every fault there is one.

## Method

- edge-a (priority 150, Active), edge-b (priority 100), a client, an observer and a stranger in network namespaces, behind a bridge; preemption, defaults otherwise.
  Adverts every 100 ms unless said, so that the Backup's patience is 361 ms; every 10 ms, it is 36 ms.
- *outage*: the client's longest time without an answer to UDP, which it asks for every millisecond.
  It believes announcements of the address (gratuitous ARP) and asks for it again only after an hour, as many a router does.
- *both answered*: questions of the observer (ARP, broadcast, every 2 ms) that both nodes answered, and how long the longest row of them was; those while the fault lasted, then those after it healed.
- *apart*: the nodes cannot hear each other, or one not the other. The protocol makes two Actives then, and no implementation of it can help that. All other double answers can be avoided.
- *alone again*: from where it heals until edge-a is the only one that answers. It takes the address back, so that after a takeover this includes its own 341 ms of listening.
- *late answers*: of the node before, after the first of the next one.
- What asks and what serves is scheduled before everything else (SCHED_DEADLINE), so that no figure is its own want of CPU.
  How far apart the observer's questions were at most says how well that went.
  Both nodes, and all else, share one machine: what starves the Active starves the Backup, unless said.
- Each fault has a witness that it bit, at the end of its lines below.

";
