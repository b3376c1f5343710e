//! What the faults do: to a message on its way, and to a node.
//!
//! Deliberately absent: which there are (`scenario`).

use crate::MS;
use crate::node::Ambush;
use crate::scenario::{DELAY_MAX_NS, DELAY_MIN_NS, Fault, Kind, NEWS_MAX_NS};
use crate::trace::Note;
use crate::world::{Event, Simulation, Station};

/// How long after the first a second copy of a message may come.
const SECOND_COPY_NS: u64 = 20 * MS;

impl Simulation<'_> {
    /// Puts a message on the wire between two stations: 0, 1 or 2 times to arrive after so long.
    pub fn ways(&self, from: usize, to: usize, message: u64) -> Vec<u64> {
        let number = |what: u64, end: u64| self.number(&[message, to as u64, what], end);
        let mut delay_ns = DELAY_MIN_NS + number(0, DELAY_MAX_NS - DELAY_MIN_NS + 1);
        let mut copies = 1;
        for (place, fault) in self.active_faults() {
            let place = place as u64;
            let is_lost = match fault.kind {
                Kind::Cut { from: cut_from, to: cut_to } => (from, to) == (cut_from, cut_to),
                Kind::Isolate { node } | Kind::LinkDown { node } => from == node || to == node,
                Kind::Split { side } => side >> from & 1 != side >> to & 1,
                Kind::Loss { percent } => number(100 + place, 100) < u64::from(percent),
                Kind::Late { most_ns } => {
                    delay_ns += number(200 + place, most_ns);
                    false
                }
                Kind::Twice { percent } => {
                    copies += usize::from(number(300 + place, 100) < u64::from(percent));
                    false
                }
                _ => false,
            };
            if is_lost {
                return Vec::new();
            }
        }
        (0..copies).map(|copy| delay_ns + number(1, SECOND_COPY_NS) * u64::from(copy > 0)).collect()
    }

    /// A fault begins.
    pub fn begin(&self, fault: &Fault) {
        self.note(Note::Begins(fault.kind));
        match fault.kind {
            Kind::Cut { .. } | Kind::Split { .. } | Kind::Isolate { .. } => {}
            Kind::Loss { .. } | Kind::Late { .. } | Kind::Twice { .. } => {}
            Kind::LinkDown { node } => self.set_link(node),
            Kind::Crash { node } => self.when_idle(node, |simulation| match simulation.station(node) {
                Station::Ours(_) => simulation.kill(node),
                Station::Peer(peer) => peer.kill(),
            }),
            Kind::Stop { node } => self.when_idle(node, |simulation| match simulation.station(node) {
                Station::Ours(_) => simulation.stop(node),
                Station::Peer(_) => simulation.stop_peer(node),
            }),
            Kind::Reconfigure { node, priority } => self.when_idle(node, |simulation| {
                match simulation.station(node) {
                    Station::Ours(ours) => {
                        simulation.kill(node);
                        ours.reconfigure(priority);
                    }
                    Station::Peer(peer) => peer.set_priority(priority),
                }
                simulation.judge().reconfigured(node, priority);
            }),
            Kind::Stall { node, calls } => self.ambush(fault, node, calls, false),
            Kind::Freeze { node, calls } => self.ambush(fault, node, calls, true),
            Kind::SendsFail { node } => self.fail_sends(node, true),
            Kind::Detach { node } => self.set_program(node),
        }
    }

    /// A fault ends.
    pub fn end(&self, fault: &Fault) {
        self.note(Note::Ends(fault.kind));
        match fault.kind {
            Kind::LinkDown { node } => self.set_link(node),
            Kind::Crash { node } | Kind::Stop { node } | Kind::Reconfigure { node, .. } => self.start(node),
            Kind::Stall { node, .. } | Kind::Freeze { node, .. } => {
                if let Station::Ours(ours) = self.station(node) {
                    ours.ambush.set(None);
                }
            }
            Kind::SendsFail { node } => self.fail_sends(node, false),
            Kind::Detach { node } => self.set_program(node),
            _ => {}
        }
    }

    /// A controller, of whatever kind.
    pub fn start(&self, place: usize) {
        match self.station(place) {
            Station::Ours(_) => self.launch(place),
            Station::Peer(_) => self.launch_peer(place),
        }
    }

    /// Who is in the middle of something, or stalled, is left alone: it could not obey a signal, and the next fault will
    /// find it.
    fn when_idle(&self, place: usize, then: impl FnOnce(&Self)) {
        let is_idle = match self.station(place) {
            Station::Ours(ours) => !ours.is_busy() && ours.stalled_until_ns.get() <= self.now_ns(),
            Station::Peer(_) => true,
        };
        if is_idle {
            then(self);
        }
    }

    fn ambush(&self, fault: &Fault, place: usize, calls: u8, whole: bool) {
        let until_ns = fault.end_ns();
        match self.station(place) {
            Station::Ours(ours) if calls > 0 => ours.ambush.set(Some(Ambush { calls, for_ns: fault.for_ns, whole })),
            Station::Ours(_) => {
                self.stall(place, until_ns, whole);
                self.plan_wake(place);
            }
            Station::Peer(peer) => {
                peer.stalled_until_ns.set(until_ns.max(peer.stalled_until_ns.get()));
                if whole {
                    peer.frozen_until_ns.set(until_ns.max(peer.frozen_until_ns.get()));
                }
                self.plan_wake(place);
            }
        }
    }

    fn fail_sends(&self, place: usize, begins: bool) {
        if let Station::Ours(ours) = self.station(place) {
            let failing = ours.sends_failing.get();
            ours.sends_failing.set(if begins { failing + 1 } else { failing - 1 });
        }
    }

    /// As the faults that are going on have it; the next look shows it: one of two in an interval, or much later where the
    /// kernel's lock is somebody else's. A node that nobody looks after keeps its program: what is taken from a dead one is
    /// nobody's to notice.
    fn set_program(&self, place: usize) {
        let Station::Ours(ours) = self.station(place) else { return };
        let detached = |fault: &Fault| matches!(fault.kind, Kind::Detach { node } if node == place);
        let is_attached = !self.active_faults().any(|(_, fault)| detached(fault));
        if is_attached || (ours.is_running() && ours.stalled_until_ns.get() <= self.now_ns()) {
            ours.is_attached.set(is_attached);
            if is_attached {
                ours.is_deaf.set(false);
            }
        }
        let is_late = self.number(&[self.now_ns(), place as u64, 9], 3) == 0;
        let most_ns = if is_late { 6 * ours.interval_ns() } else { ours.interval_ns() / 2 };
        let look_at_ns = self.now_ns() + self.number(&[self.now_ns(), place as u64, 8], most_ns);
        self.judge().disturbed(look_at_ns);
        self.judge().looked_at_by(place, look_at_ns);
        self.queue(look_at_ns, Event::Look { place });
    }

    /// As the faults that are going on have it; a controller learns of it a little later.
    fn set_link(&self, place: usize) {
        let down = |fault: &Fault| matches!(fault.kind, Kind::LinkDown { node } if node == place);
        let has_link = !self.active_faults().any(|(_, fault)| down(fault));
        match self.station(place) {
            Station::Ours(ours) => {
                ours.has_link.set(has_link);
                let news_at_ns = self.now_ns() + self.number(&[self.now_ns(), place as u64, 7], NEWS_MAX_NS);
                self.judge().disturbed(news_at_ns);
                self.queue(news_at_ns, Event::News { place });
            }
            Station::Peer(peer) => peer.has_link.set(has_link),
        }
    }
}
