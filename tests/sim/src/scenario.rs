//! What is simulated: nodes, wire and faults, drawn from one seed. A plain value, so that a failure can be made smaller
//! and a case can be written by hand.
//!
//! Deliberately absent: what happens then.

use std::fmt;

use failover_common::lease::NS_PER_CS;

use crate::random::Random;
use crate::{MS, SECOND, US};

/// What one message takes on a wire that has no fault, most.
pub const DELAY_MAX_NS: u64 = 200 * US;
/// And least.
pub const DELAY_MIN_NS: u64 = 20 * US;
/// After how long a controller that is well wakes up, most.
pub const LATENCY_MAX_NS: u64 = 200 * US;
/// And least.
pub const LATENCY_MIN_NS: u64 = 10 * US;
/// After how long a controller learns that its link is up or down, most.
pub const NEWS_MAX_NS: u64 = 20 * MS;

/// The most routers of a scenario.
pub const NODES_MAX: usize = 8;

/// Everything that a run depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// Of every delay, loss and wake-up.
    pub seed: u64,
    /// VRRP's.
    pub version: u8,
    /// The routers; their addresses rise with their place.
    pub nodes: Vec<NodePlan>,
    /// Room for so many events in each kernel's ring.
    pub ring_events: u32,
    /// In no order.
    pub faults: Vec<Fault>,
}

/// One router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePlan {
    /// Not ours: no lease, no kernel program.
    pub is_keepalived: bool,
    /// 1 to 255.
    pub priority: u8,
    /// Centiseconds.
    pub interval_cs: u16,
    /// RFC 9568 6.1, Preempt_Mode.
    pub preempt: bool,
    /// Milliseconds.
    pub preempt_delay_ms: u64,
    /// How much faster than true time its clock runs.
    pub drift_ppm: i32,
    /// What its clock shows at the start, nanoseconds.
    pub clock_start_ns: u64,
    /// When its controller first starts, true nanoseconds; `None`: never.
    pub start_ns: Option<u64>,
}

/// Something that goes wrong for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// From then on, true nanoseconds.
    pub at_ns: u64,
    /// For so long.
    pub for_ns: u64,
    /// What.
    pub kind: Kind,
}

/// What goes wrong. Nodes by their place.
#[expect(missing_docs, reason = "fields by their usual names")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing gets from one to the other.
    Cut { from: usize, to: usize },
    /// Nothing gets to or from it.
    Isolate { node: usize },
    /// Nothing gets from those whose bit is set to the others, or back.
    Split { side: u8 },
    /// So many of a hundred messages are lost.
    Loss { percent: u8 },
    /// Each message takes up to that much longer, so that they overtake each other.
    Late { most_ns: u64 },
    /// So many of a hundred messages arrive again, up to 20 ms later.
    Twice { percent: u8 },
    /// The controller is killed, and started again at the end: kernel program and lease live on.
    Crash { node: usize },
    /// The controller stops as one should, and starts again at the end.
    Stop { node: usize },
    /// The controller is killed, and started at the end with another priority: nothing old is adopted.
    Reconfigure { node: usize, priority: u8 },
    /// The controller does nothing: at its next so-manieth look at the clock or attempt to send (0: at once).
    Stall { node: usize, calls: u8 },
    /// The same, and the kernel does nothing either: a machine that is paused.
    Freeze { node: usize, calls: u8 },
    /// No advert goes out.
    SendsFail { node: usize },
    /// No carrier; the controller is told.
    LinkDown { node: usize },
    /// The kernel program is on the interface no more, until somebody attaches it again.
    Detach { node: usize },
}

impl Fault {
    /// When it is over.
    pub fn end_ns(&self) -> u64 {
        self.at_ns + self.for_ns
    }

    /// Whether it is about that node.
    pub fn names(&self, place: usize) -> bool {
        match self.kind {
            Kind::Cut { from, to } => from == place || to == place,
            Kind::Split { .. } => true,
            Kind::Loss { .. } | Kind::Late { .. } | Kind::Twice { .. } => false,
            Kind::Isolate { node }
            | Kind::Crash { node }
            | Kind::Stop { node }
            | Kind::Reconfigure { node, .. }
            | Kind::Stall { node, .. }
            | Kind::Freeze { node, .. }
            | Kind::SendsFail { node }
            | Kind::LinkDown { node }
            | Kind::Detach { node } => node == place,
        }
    }
}

impl NodePlan {
    /// The advert interval in nanoseconds.
    pub fn interval_ns(&self) -> u64 {
        u64::from(self.interval_cs) * NS_PER_CS
    }
}

impl Scenario {
    /// The scenario of a seed.
    pub fn draw(seed: u64) -> Self {
        let mut draw = Draw(Random(seed));
        let version = if draw.one_in(7) { 2 } else { 3 };
        // Few as often as many.
        let count = 2 + draw.below(NODES_MAX as u64 - 1).min(draw.below(NODES_MAX as u64 - 1)) as usize;
        let nodes = draw.nodes(version, count);
        let ring_events = if draw.one_in(6) { 1 + draw.below(3) as u32 } else { 1000 };
        let unit_ns = nodes.iter().map(NodePlan::interval_ns).max().unwrap_or(SECOND);
        let mut faults: Vec<Fault> = (0..1 + draw.below(8)).map(|_| draw.fault(count, unit_ns)).collect();
        // With chance of its own, so that the seeds of other faults stay what they were.
        let mut draw = Draw(Random(seed ^ 0x0de7_ac4e_d000));
        if draw.one_in(6) {
            faults.push(Fault {
                kind: Kind::Detach { node: draw.below(count as u64) as usize },
                ..draw.fault(count, unit_ns)
            });
        }
        Self { seed, version, nodes, ring_events, faults }
    }

    /// The longest advert interval, nanoseconds.
    pub fn interval_max_ns(&self) -> u64 {
        self.nodes.iter().map(NodePlan::interval_ns).max().unwrap_or(0)
    }

    /// When the last planned fault is over, and everybody has been started.
    pub fn faults_end_ns(&self) -> u64 {
        let starts = self.nodes.iter().filter_map(|node| node.start_ns);
        self.faults.iter().map(Fault::end_ns).chain(starts).max().unwrap_or(0)
    }
}

/// Draws.
struct Draw(Random);

impl Draw {
    fn below(&mut self, end: u64) -> u64 {
        self.0.next() % end.max(1)
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// Short times as likely as long ones.
    fn spread(&mut self, least: u64, most: u64) -> u64 {
        let doublings = (most / least.max(1)).max(1).ilog2();
        let low = least << self.below(u64::from(doublings) + 1);
        (low + self.below(low)).min(most)
    }

    fn nodes(&mut self, version: u8, count: usize) -> Vec<NodePlan> {
        let intervals: &[u16] = if version == 2 { &[100] } else { &[1, 1, 10, 10, 10, 100, 100, 100, 100, 500] };
        let interval_cs = self.pick(intervals);
        let (is_mixed, has_delay, preempt) = (self.one_in(7), self.one_in(5), !self.one_in(4));
        let (has_keepalived, owner) = (self.one_in(5), self.below(60) as usize);
        let with_interval = |draw: &mut Self| if is_mixed { draw.pick(intervals) } else { interval_cs };
        let one = |(place, draw): (usize, &mut Self)| {
            let interval_cs = with_interval(draw);
            let interval_ms = u64::from(interval_cs) * 10;
            NodePlan {
                is_keepalived: has_keepalived && place == 0,
                priority: if place == owner { 255 } else { 1 + draw.below(254) as u8 },
                interval_cs,
                preempt: preempt != draw.one_in(9),
                preempt_delay_ms: if has_delay { draw.below(6 * interval_ms) } else { 0 },
                drift_ppm: draw.below(401) as i32 - 200,
                clock_start_ns: SECOND + draw.below(1_000 * SECOND),
                start_ns: Some(draw.below(3 * u64::from(interval_cs) * NS_PER_CS)),
            }
        };
        (0..count).map(|place| one((place, self))).collect()
    }

    fn fault(&mut self, nodes: usize, unit_ns: u64) -> Fault {
        // No process is started again within a millisecond.
        let (at_ns, for_ns) = (self.below(40 * unit_ns), self.spread((unit_ns / 20).max(MS), 12 * unit_ns));
        Fault { at_ns, for_ns, kind: self.kind(nodes, unit_ns) }
    }

    fn kind(&mut self, nodes: usize, unit_ns: u64) -> Kind {
        let node = self.below(nodes as u64) as usize;
        // Most stalls are noticed where they begin; the others hit a moment between two steps.
        let calls = if self.one_in(2) { 0 } else { 1 + self.below(12) as u8 };
        match self.below(18) {
            0 => Kind::Cut { from: node, to: (node + 1 + self.below(nodes as u64 - 1) as usize) % nodes },
            1 => Kind::Isolate { node },
            2 => Kind::Split { side: self.below(1 << nodes) as u8 },
            3 => Kind::Loss { percent: 5 + self.below(70) as u8 },
            4 => Kind::Late { most_ns: self.spread(MS, (2 * unit_ns).min(200 * MS)) },
            5 => Kind::Twice { percent: 10 + self.below(90) as u8 },
            6..=8 => Kind::Crash { node },
            9 => Kind::Stop { node },
            10 => Kind::Reconfigure { node, priority: 1 + self.below(254) as u8 },
            11..=14 => Kind::Stall { node, calls },
            15 => Kind::Freeze { node, calls },
            16 => Kind::SendsFail { node },
            _ => Kind::LinkDown { node },
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "VRRP version {}, rings of {} events", self.version, self.ring_events)?;
        for (place, node) in self.nodes.iter().enumerate() {
            writeln!(f, "  node {place}: {node}")?;
        }
        let mut faults = self.faults.clone();
        faults.sort_by_key(|fault| fault.at_ns);
        faults.iter().try_for_each(|fault| writeln!(f, "  {fault}"))
    }
}

impl fmt::Display for NodePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { priority, interval_cs, drift_ppm, preempt_delay_ms, .. } = self;
        let what = if self.is_keepalived { "like keepalived, " } else { "" };
        let preempt = if self.preempt { "preempts" } else { "does not preempt" };
        write!(f, "{what}priority {priority}, interval {} ms, {preempt}", u32::from(*interval_cs) * 10)?;
        if *preempt_delay_ms > 0 {
            write!(f, " after {preempt_delay_ms} ms")?;
        }
        match self.start_ns {
            Some(start_ns) => write!(f, ", clock {drift_ppm:+} ppm, starts at {}", Time(start_ns)),
            None => write!(f, ", never starts"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "from {} for {}: {:?}", Time(self.at_ns), Time(self.for_ns), self.kind)
    }
}

/// A true time, for people.
pub struct Time(pub u64);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06} ms", self.0 / MS, self.0 % MS)
    }
}
