//! Two nodes of one make, a client and an observer that ask all the time, and a stranger, on one
//! switch.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ipnet::Ipv4Net;

use crate::answers::{alone_since, doubles, hand_overs};
use crate::arp_probe::{ArpProbe, answers_of};
use crate::faults::{Bite, Fault, Outcome, Setting};
use crate::hogs;
use crate::lab::{INTERFACE, Lab, VIP};
use crate::node::{Node, Plan, System};
use crate::requirements::Built;
use crate::udp::{UdpClient, UdpService};
use crate::wait;

/// A second owner would show itself in this time: edge-b's patience is 361 ms.
const SETTLE: Duration = Duration::from_millis(400);
/// The threads that measure.
const INSTRUMENTS: [&str; 4] = ["arp-probe", "udp-client", "udp-service", "udp-service"];
/// Of each millisecond, for each of them.
const RUNTIME: Duration = Duration::from_micros(200);
/// Interval of questions with an answer at the least, for one to be called served.
const RECENT: Duration = Duration::from_millis(50);

/// See the module. edge-a has priority 150, edge-b 100.
pub struct Scene {
    // Dropped in this order: nodes before their namespaces.
    pub(super) a: Node,
    pub(super) b: Node,
    arp: ArpProbe,
    udp: UdpClient,
    _services: [UdpService; 2],
    mac_a: [u8; 6],
    mac_b: [u8; 6],
    pub(super) lab: Lab,
    /// When the last fault began and healed.
    began: Instant,
    healed: Option<Instant>,
}

/// A fault that was played, or could not be.
#[derive(Clone, Debug)]
pub enum Played {
    /// What came of it.
    Seen(Outcome),
    /// Why this machine cannot do it.
    Impossible(String),
}

impl Scene {
    /// Starts everything, and waits until edge-a serves.
    ///
    /// # Errors
    /// When something cannot be made, or edge-a does not get there.
    pub fn new(built: &Built, system: System, setting: Setting) -> Result<Self> {
        let mut lab = Lab::new(built)?;
        lab.add_station("stranger", "192.0.2.66/24")?;
        // Not the client: its kernel would learn from the answers where the address is, as no user's does.
        lab.add_station("observer", "192.0.2.101/24")?;
        let service = |name, mark| UdpService::start(lab.station(name)?, VIP, mark);
        let services = [service("edge-a", b'a')?, service("edge-b", b'b')?];
        // A neighbour as routers are, which ask again after hours: it knows what it is told.
        for name in ["delay_first_probe_time", "gc_stale_time"] {
            lab.station("client")?.set_sysctl(&format!("ipv4/neigh/{INTERFACE}/{name}"), "3600")?;
        }
        let arp = ArpProbe::start(lab.station("observer")?, INTERFACE, lab.mac("observer")?, VIP)?;
        let udp = UdpClient::start(lab.station("client")?, VIP)?;
        hogs::prefer(&INSTRUMENTS, RUNTIME)?;
        let Setting { advert_ms, realtime } = setting;
        let routers = [vec![Ipv4Net::new(VIP, 24)?]];
        let node = |name, priority, realtime| {
            Node::start(system, &lab, name, &Plan { priority, advert_ms, realtime, routers: &routers })
        };
        let scene = Self {
            a: node("edge-a", 150, realtime[0])?,
            b: node("edge-b", 100, realtime[1])?,
            arp,
            udp,
            _services: services,
            mac_a: lab.mac("edge-a")?,
            mac_b: lab.mac("edge-b")?,
            lab,
            began: Instant::now(),
            healed: None,
        };
        scene.settle(scene.began).with_context(|| format!("edge-a does not serve alone\n{}", scene.logs()))?;
        Ok(scene)
    }

    /// Does it to edge-a while that serves, lasting for `length`, and watches until edge-a serves alone again.
    ///
    /// # Errors
    /// When it cannot be done, or did not bite.
    pub fn play(&mut self, fault: &Fault, length: Duration) -> Result<Played> {
        self.settle(Instant::now()).with_context(|| format!("edge-a does not serve alone\n{}", self.logs()))?;
        let active_before = self.became_active();
        (self.began, self.healed) = (Instant::now(), None);
        let bite = (fault.inflict)(self, length).with_context(|| format!("{}\n{}", fault.name, self.logs()))?;
        let witness = match bite {
            Bite::Witness(witness) => witness,
            Bite::Impossible(reason) => return Ok(Played::Impossible(reason)),
        };
        let healed = *self.healed.get_or_insert_with(Instant::now);
        let alone_after = self.settle(healed).map(|at| at.saturating_duration_since(healed));
        let questions = self.arp.since(self.began);
        let (during, after) = questions.split_at(questions.partition_point(|question| question.asked < healed));
        Ok(Played::Seen(Outcome {
            outage: self.udp.outage(self.began),
            asked: questions.len(),
            unanswered: questions.iter().filter(|question| question.answers.is_empty()).count(),
            pause: questions.windows(2).map(|pair| pair[1].asked - pair[0].asked).max().unwrap_or_default(),
            arp: [self.mac_a, self.mac_b].map(|mac| answers_of(&questions, mac).len()),
            udp: [b'a', b'b'].map(|mark| self.udp.count(self.began, mark)),
            during: doubles(during),
            after: doubles(after),
            hand_overs: hand_overs(&questions),
            became_active: self.became_active() - active_before,
            alone_after,
            witness,
        }))
    }

    /// Waits until edge-a has answered alone, and served, for a while since then. Returns from when on; `None` when it
    /// does not come to that.
    fn settle(&self, since: Instant) -> Option<Instant> {
        let mut settled = None;
        let is_settled = || {
            let questions = self.arp.since(since);
            let last = questions.iter().rev().find(|question| !question.answers.is_empty())?.asked;
            let alone = alone_since(&questions, self.mac_a)?;
            (last.elapsed() < RECENT && last - alone >= SETTLE && self.udp.is_served(RECENT)).then_some(alone)
        };
        let waited = wait::until("edge-a to serve alone", || {
            settled = is_settled();
            settled.is_some()
        });
        waited.ok().and(settled)
    }

    /// From here on the fault is being healed.
    pub(super) fn heals(&mut self) {
        self.healed = Some(Instant::now());
    }

    /// The fault lasts. That is a time of its own, not a wait for something.
    pub(super) fn last(&self, length: Duration) {
        thread::sleep(length);
    }

    /// Waits until edge-b has answered since the fault began.
    pub(super) fn wait_for_b(&self) -> Result<()> {
        let has_answered = || !answers_of(&self.arp.since(self.began), self.mac_b).is_empty();
        wait::until("edge-b to answer", has_answered)
    }

    fn became_active(&self) -> usize {
        self.a.became_active() + self.b.became_active()
    }

    /// What both nodes have logged.
    pub fn logs(&self) -> String {
        format!("edge-a:\n{}\nedge-b:\n{}", self.a.log(), self.b.log())
    }
}
