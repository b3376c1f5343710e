//! Time: what happens next, to whom, and what is looked at after each step.
//!
//! A controller in the middle of a call may let time pass for the others (`node`), so the loop here runs inside itself;
//! everything it touches is in cells. Deliberately absent: what stations do, and what is right.

use std::cell::{Cell, RefCell, RefMut};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;

use crate::judge::{Judge, Seen};
use crate::node::{Node, address_of};
use crate::peer::{Advert, Peer};
use crate::random::Random;
use crate::scenario::{DELAY_MAX_NS, Fault, LATENCY_MAX_NS, LATENCY_MIN_NS, Scenario, Time};
use crate::trace::{Note, Trace};
use crate::{Failure, MS, Totals};

/// More steps than any scenario takes that is drawn.
const STEPS_MAX: u64 = 3_000_000;

/// What waits in the queue.
#[derive(Clone, Debug)]
pub enum Event {
    /// A controller starts for the first time.
    Start { place: usize },
    /// A fault of the scenario.
    Begins { fault: usize },
    /// It is over.
    Ends { fault: usize },
    /// A controller learns of its link.
    News { place: usize },
    /// A node's program is looked at.
    Look { place: usize },
    /// A controller learns of its program.
    Sight { place: usize },
    /// A frame arrives; whether as the wire without faults would have had it.
    Arrives { from: usize, to: usize, in_time: bool, frame: Rc<[u8]> },
}

/// One of ours, or not.
pub enum Station {
    /// Ours.
    Ours(Box<Node>),
    /// Like keepalived.
    Peer(Box<Peer>),
}

/// One run.
pub struct Simulation<'a> {
    scenario: &'a Scenario,
    now_ns: Cell<u64>,
    /// By time, then in the order in which they were put in.
    queue: RefCell<BinaryHeap<Reverse<(u64, u64, usize)>>>,
    events: RefCell<Vec<Option<Event>>>,
    stations: Vec<Station>,
    active: RefCell<Vec<bool>>,
    messages: Cell<u64>,
    steps: Cell<u64>,
    judge: RefCell<Judge>,
    trace: RefCell<Trace>,
    violation: RefCell<Option<String>>,
}

/// What a run that held was like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What was seen.
    pub totals: Totals,
    /// Stands for everything that happened.
    pub digest: u64,
}

/// Lets a scenario happen.
///
/// # Errors
/// When something happened that must not.
pub fn play(scenario: &Scenario) -> Result<Outcome, Box<Failure>> {
    let simulation = Simulation::new(scenario);
    simulation.run();
    let trace = simulation.trace.into_inner();
    match simulation.violation.into_inner() {
        Some(what) => Err(Box::new(Failure { scenario: scenario.clone(), what, last_events: trace.to_string() })),
        None => {
            let mut totals = simulation.judge.into_inner().totals;
            totals.simulated_ns = simulation.now_ns.get();
            totals.steps = simulation.steps.get();
            Ok(Outcome { totals, digest: trace.digest() })
        }
    }
}

impl<'a> Simulation<'a> {
    fn new(scenario: &'a Scenario) -> Self {
        let station = |(place, plan): (usize, &_)| match plan {
            crate::NodePlan { is_keepalived: true, .. } => Station::Peer(Box::new(Peer::new(plan, scenario.version))),
            _ => Station::Ours(Box::new(Node::new(place, plan, scenario.version, scenario.ring_events))),
        };
        let simulation = Self {
            scenario,
            now_ns: Cell::new(0),
            queue: RefCell::default(),
            events: RefCell::default(),
            stations: scenario.nodes.iter().enumerate().map(station).collect(),
            active: RefCell::new(vec![false; scenario.faults.len()]),
            messages: Cell::new(0),
            steps: Cell::new(0),
            judge: RefCell::new(Judge::new(scenario)),
            trace: RefCell::default(),
            violation: RefCell::default(),
        };
        for (place, plan) in scenario.nodes.iter().enumerate() {
            if let Some(start_ns) = plan.start_ns {
                simulation.queue(start_ns, Event::Start { place });
            }
        }
        for (fault, Fault { at_ns, .. }) in scenario.faults.iter().enumerate() {
            simulation.queue(*at_ns, Event::Begins { fault });
            simulation.queue(scenario.faults[fault].end_ns(), Event::Ends { fault });
        }
        simulation
    }

    /// True time.
    pub fn now_ns(&self) -> u64 {
        self.now_ns.get()
    }

    /// The one of ours at that place.
    ///
    /// # Panics
    /// When it is not ours.
    pub fn ours(&self, place: usize) -> &Node {
        match &self.stations[place] {
            Station::Ours(node) => node,
            Station::Peer(_) => panic!("{place} is not ours"),
        }
    }

    /// The other kind.
    ///
    /// # Panics
    /// When it is ours.
    pub fn peer(&self, place: usize) -> &Peer {
        match &self.stations[place] {
            Station::Peer(peer) => peer,
            Station::Ours(_) => panic!("{place} is ours"),
        }
    }

    /// Whoever is there.
    pub fn station(&self, place: usize) -> &Station {
        &self.stations[place]
    }

    /// Who knows what is right.
    pub fn judge(&self) -> RefMut<'_, Judge> {
        self.judge.borrow_mut()
    }

    /// Notes it.
    pub fn note(&self, note: Note) {
        self.trace.borrow_mut().note(self.now_ns(), note);
    }

    /// The first violation is the one that counts.
    pub fn expect(&self, verdict: Result<(), String>) {
        if let Err(what) = verdict {
            self.violation.borrow_mut().get_or_insert(what);
        }
    }

    /// A number below `end` that hangs on the seed and on `of` alone: leaving a fault out changes nothing else.
    pub fn number(&self, of: &[u64], end: u64) -> u64 {
        let mixed = of.iter().fold(self.scenario.seed, |state, word| Random(state ^ word.rotate_left(17)).next());
        mixed % end.max(1)
    }

    /// The faults that are going on.
    pub fn active_faults(&self) -> impl Iterator<Item = (usize, &Fault)> {
        let active = self.active.borrow().clone();
        self.scenario.faults.iter().enumerate().filter(move |(place, _)| active[*place])
    }

    /// Something is to happen at a true time.
    pub fn queue(&self, at_ns: u64, event: Event) {
        let mut events = self.events.borrow_mut();
        let order = events.len();
        events.push(Some(event));
        self.queue.borrow_mut().push(Reverse((at_ns.max(self.now_ns()), order as u64, order)));
    }

    /// A frame from a station to all others.
    pub fn transmit(&self, from: usize, frame: &[u8]) {
        let advert = read(frame);
        let message = self.messages.replace(self.messages.get() + 1);
        self.note(Note::Sent { node: from, priority: advert.priority });
        if let Station::Ours(node) = &self.stations[from] {
            let local_ns = node.clock().local(self.now_ns());
            let is_claim = advert.priority != 0 && node.reported() != failover_common::abi::State::Active;
            let is_deaf_claim = is_claim && node.is_deaf.get();
            let verdict = self.judge().sent(from, local_ns, advert.priority, self.now_ns(), is_deaf_claim);
            self.expect(verdict);
        }
        let frame: Rc<[u8]> = frame.into();
        for to in (0..self.stations.len()).filter(|to| *to != from) {
            let ways = self.ways(from, to, message);
            if ways.is_empty() {
                self.lose(from, to);
            }
            for (copy, delay_ns) in ways.into_iter().enumerate() {
                let is_late = copy == 0 && delay_ns > DELAY_MAX_NS;
                if is_late {
                    self.lose(from, to);
                    self.judge().disturbed(self.now_ns() + delay_ns);
                }
                let in_time = copy == 0 && !is_late;
                let arrival = Event::Arrives { from, to, in_time, frame: frame.clone() };
                self.queue(self.now_ns() + delay_ns, arrival);
            }
        }
    }

    /// An advert did not even leave.
    pub fn lose_all(&self, from: usize) {
        (0..self.stations.len()).filter(|to| *to != from).for_each(|to| self.lose(from, to));
    }

    fn lose(&self, from: usize, to: usize) {
        self.note(Note::Lost { node: to, from });
        self.judge().lost(from, to);
    }

    fn arrive(&self, from: usize, to: usize, in_time: bool, frame: &[u8]) {
        let (advert, now_ns) = (read(frame), self.now_ns());
        let hears = match &self.stations[to] {
            Station::Ours(node) => {
                let is_bare = node.is_loaded.get() && !node.is_attached.get();
                node.has_link.get() && node.frozen_until_ns.get() <= now_ns && !is_bare
            }
            Station::Peer(peer) => peer.has_link.get() && peer.frozen_until_ns.get() <= now_ns,
        };
        if !hears {
            if let Station::Ours(node) = &self.stations[to]
                && node.has_link.get()
                && node.frozen_until_ns.get() <= now_ns
            {
                // No program takes it: the kernel gets it, and who listens there.
                node.is_deaf.set(true);
            }
            self.lose(from, to);
            return;
        }
        match &self.stations[to] {
            Station::Ours(node) if !node.is_loaded.get() => return,
            Station::Ours(node) => {
                node.receive(now_ns, frame);
                self.judge().heard(to, node.clock().local(now_ns), &advert);
            }
            Station::Peer(peer) => peer.receive(advert),
        }
        self.note(Note::Heard { node: to, from, priority: advert.priority });
        if in_time {
            self.judge().arrived(from, to, now_ns);
        }
        self.plan_wake(to);
    }

    /// Sets when a station's controller next runs. A wake-up that is planned stays, if it can be kept.
    pub fn plan_wake(&self, place: usize) {
        let now_ns = self.now_ns();
        let (due_ns, stalled_until_ns, wakes_at_ns) = match &self.stations[place] {
            // It looks itself when it is done.
            Station::Ours(node) if node.is_busy() => return,
            Station::Ours(node) => (node.due_ns(now_ns), node.stalled_until_ns.get(), &node.wakes_at_ns),
            Station::Peer(peer) => (peer.due_ns(now_ns), peer.stalled_until_ns.get(), &peer.wakes_at_ns),
        };
        let spread_ns = LATENCY_MAX_NS - LATENCY_MIN_NS + 1;
        let latency_ns = LATENCY_MIN_NS + self.number(&[now_ns, place as u64, 3], spread_ns);
        let due_ns = due_ns.map_or(u64::MAX, |at_ns| at_ns.max(stalled_until_ns).max(now_ns) + latency_ns);
        let planned_ns = wakes_at_ns.get();
        let is_kept = planned_ns > now_ns && planned_ns > stalled_until_ns;
        wakes_at_ns.set(if is_kept { due_ns.min(planned_ns) } else { due_ns });
    }

    /// Lets time pass until then.
    pub fn advance(&self, until_ns: u64) {
        while self.violation.borrow().is_none() && self.step(until_ns) {}
        self.now_ns.set(self.now_ns().max(until_ns));
    }

    /// The next thing that happens, if it does by then.
    fn step(&self, until_ns: u64) -> bool {
        let queued = self.queue.borrow().peek().map(|Reverse((at_ns, ..))| *at_ns);
        let wake = (0..self.stations.len()).map(|place| (self.wakes_at_ns(place), place)).min();
        let wake = wake.filter(|(at_ns, _)| *at_ns != u64::MAX);
        let Some(next_ns) = queued.into_iter().chain(wake.map(|(at_ns, _)| at_ns)).min() else { return false };
        if next_ns > until_ns {
            return false;
        }
        self.steps.set(self.steps.get() + 1);
        if self.steps.get() > STEPS_MAX {
            self.expect(Err("time stands still".into()));
            return false;
        }
        let now_ns = next_ns.max(self.now_ns());
        self.expect(self.judge().before(now_ns));
        self.now_ns.set(now_ns);
        match wake {
            Some((at_ns, place)) if queued.is_none_or(|queued_ns| at_ns < queued_ns) => self.wake_station(place),
            _ => self.happen(),
        }
        self.look();
        true
    }

    fn wakes_at_ns(&self, place: usize) -> u64 {
        match &self.stations[place] {
            Station::Ours(node) if node.is_busy() => u64::MAX,
            Station::Ours(node) => node.wakes_at_ns.get(),
            Station::Peer(peer) => peer.wakes_at_ns.get(),
        }
    }

    fn wake_station(&self, place: usize) {
        match &self.stations[place] {
            Station::Ours(node) => {
                node.wakes_at_ns.set(u64::MAX);
                self.wake(place);
            }
            Station::Peer(peer) => {
                peer.wakes_at_ns.set(u64::MAX);
                self.wake_peer(place);
            }
        }
    }

    fn happen(&self) {
        let Some(Reverse((_, _, index))) = self.queue.borrow_mut().pop() else { return };
        let Some(event) = self.events.borrow_mut()[index].take() else { return };
        match event {
            Event::Start { place } => self.start(place),
            Event::Begins { fault } => {
                self.active.borrow_mut()[fault] = true;
                self.begin(&self.scenario.faults[fault]);
            }
            Event::Ends { fault } => {
                self.active.borrow_mut()[fault] = false;
                self.end(&self.scenario.faults[fault]);
            }
            Event::News { place } => self.tell(place),
            Event::Look { place } => {
                let node = self.ours(place);
                node.is_seen.set(node.is_attached.get());
                self.tell_sight(place);
            }
            Event::Sight { place } => self.tell_sight(place),
            Event::Arrives { from, to, in_time, frame } => self.arrive(from, to, in_time, &frame),
        }
    }

    /// News wait until the controller can hear them.
    fn tell(&self, place: usize) {
        let node = self.ours(place);
        let stalled_until_ns = node.stalled_until_ns.get();
        if node.is_busy() || stalled_until_ns > self.now_ns() {
            let again_ns = stalled_until_ns.max(self.now_ns()) + LATENCY_MIN_NS;
            self.judge().disturbed(again_ns);
            self.queue(again_ns, Event::News { place });
        } else {
            self.tell_link(place);
        }
    }

    /// So does what was seen of the program.
    fn tell_sight(&self, place: usize) {
        let node = self.ours(place);
        let stalled_until_ns = node.stalled_until_ns.get();
        if node.is_busy() || stalled_until_ns > self.now_ns() {
            let again_ns = stalled_until_ns.max(self.now_ns()) + LATENCY_MIN_NS;
            self.judge().disturbed(again_ns);
            self.queue(again_ns, Event::Sight { place });
        } else {
            self.tell_program(place);
        }
    }

    fn look(&self) {
        let now_ns = self.now_ns();
        let seen: Vec<Seen> = self.stations.iter().map(|station| station.look(now_ns)).collect();
        let mut judge = self.judge();
        for (place, seen) in seen.iter().enumerate() {
            match (judge.is_answering(place), seen.answers) {
                (false, true) => self.note(Note::Answers { node: place }),
                (true, false) => self.note(Note::Silent { node: place }),
                _ => {}
            }
        }
        let verdict = judge.check(now_ns, &seen);
        self.expect(verdict);
    }

    fn run(&self) {
        // A disturbance may find itself prolonged while it lasts.
        loop {
            let healed_ns = self.judge().healed_at_ns;
            self.advance(healed_ns);
            if self.judge().healed_at_ns == healed_ns || self.violation.borrow().is_some() {
                break;
            }
        }
        self.advance(self.now_ns() + self.scenario.settles_ns());
        let settled = self.answering();
        self.expect(self.one_serves(&settled));
        self.advance(self.now_ns() + 5 * self.scenario.interval_max_ns());
        if settled != self.answering() {
            self.expect(Err(format!(
                "nothing is wrong any more, and yet {settled:?} gave way to {:?}",
                self.answering()
            )));
        }
    }

    fn answering(&self) -> Vec<usize> {
        let now_ns = self.now_ns();
        (0..self.stations.len()).filter(|place| self.stations[*place].look(now_ns).answers).collect()
    }

    /// In the end: one answers, the same one is Active, and with preemption it is the best.
    fn one_serves(&self, answering: &[usize]) -> Result<(), String> {
        let is_active = |place: &usize| match &self.stations[*place] {
            Station::Ours(node) => node.state.get() == failover_common::abi::State::Active,
            Station::Peer(peer) => peer.is_active(),
        };
        let active: Vec<usize> = (0..self.stations.len()).filter(is_active).collect();
        let is_running = |place: &usize| match &self.stations[*place] {
            Station::Ours(node) => node.is_running(),
            Station::Peer(peer) => peer.is_running.get(),
        };
        let running: Vec<usize> = (0..self.stations.len()).filter(is_running).collect();
        if running.is_empty() {
            return Ok(());
        }
        let after = Time(self.scenario.settles_ns());
        if answering.len() != 1 || active != answering {
            return Err(format!("{after} after all was well again {answering:?} answer and {active:?} are Active"));
        }
        let judge = self.judge();
        let best = running.iter().map(|place| judge.priority(*place)).max();
        if self.scenario.nodes.iter().all(|node| node.preempt) && Some(judge.priority(active[0])) != best {
            return Err(format!("{after} after all was well again {active:?} is Active, which is not the best"));
        }
        Ok(())
    }
}

impl Station {
    fn look(&self, now_ns: u64) -> Seen {
        match self {
            Self::Ours(node) => {
                let is_held_up = node.is_busy()
                    || node.stalled_until_ns.get() > now_ns
                    || node.ambush.get().is_some()
                    || node.sends_failing.get() > 0;
                let has_program = node.is_attached.get();
                let is_at_work = node.is_running() && !is_held_up && node.has_link.get() && node.link_told.get();
                Seen {
                    answers: node.answers(now_ns),
                    is_well: is_at_work && has_program && node.sight_told.get(),
                    is_bare: !has_program,
                    is_at_work,
                    lease_until_ns: has_program.then(|| node.lease_until_ns()),
                }
            }
            Self::Peer(peer) => Seen {
                answers: peer.answers(now_ns),
                is_well: peer.is_running.get() && peer.stalled_until_ns.get() <= now_ns && peer.has_link.get(),
                is_bare: false,
                is_at_work: true,
                lease_until_ns: None,
            },
        }
    }
}

impl Scenario {
    /// After so long without a fault one node must serve: the longest Active_Down_Interval, and what a preempt delay
    /// adds; then the hold, wake-ups and messages.
    fn settles_ns(&self) -> u64 {
        let interval_ns = self.interval_max_ns();
        let down_ns = 4 * interval_ns.max(if self.version == 2 { 1_000 * MS } else { 0 });
        let delay_ns = self.nodes.iter().map(|node| node.preempt_delay_ms * MS).max().unwrap_or(0);
        let preempt_ns = if delay_ns > 0 { delay_ns + 2 * interval_ns } else { 0 };
        down_ns + preempt_ns + 5 * MS
    }
}

/// What matters of an advert, by its place in the frame (RFC 9568 5.1 and 5.2): Ethernet 14 bytes, IPv4 20.
fn read(frame: &[u8]) -> Advert {
    let interval = u16::from_be_bytes([frame[38], frame[39]]);
    let version = frame[34] >> 4;
    Advert {
        from: usize::from(frame[29]) - usize::from(address_of(0)[3]),
        priority: frame[36],
        interval_cs: if version == 2 { (interval & 0xff) * 100 } else { interval & 0x0fff },
    }
}
