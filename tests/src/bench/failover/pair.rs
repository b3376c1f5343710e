//! Two nodes of one make that stay up, a client and an observer; and one round after the other with them.
//!
//! edge-a (priority 150) takes the addresses back after each round, so that each happens to it. Deliberately absent: fixed
//! sleeps. A round begins when the pair is at rest, at another phase of the interval each time.

use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ipnet::Ipv4Net;

use super::round::{Known, Round};
use super::{Event, Setting, hogs};
use crate::answers::{alone_since, doubles};
use crate::arp_probe::ArpProbe;
use crate::hogs::prefer;
use crate::lab::{INTERFACE, Lab, VIP};
use crate::node::{FIRST_VRID, Node, Plan, System};
use crate::requirements::Built;
use crate::wait;
use crate::watcher::{Seen, Watcher, What, now_ns};

const PRIORITIES: [u8; 2] = [150, 100];
/// The addresses, where there are many: TEST-NET-2, RFC 5737.
const MANY: [u8; 3] = [198, 51, 100];
/// Of each millisecond, for the observer and the client. Two pairs' are less than the kernel gives.
const RUNTIMES: [Duration; 2] = [Duration::from_micros(200), Duration::from_micros(600)];
/// An address that was answered within this time is served.
const RECENT: Duration = Duration::from_millis(50);
/// After a kill both may answer: this many questions of the observer show it.
const QUESTIONS_AFTER_KILL: usize = 50;
/// Hogs need a while until their number tells.
const HOGS_BITE: Duration = Duration::from_millis(200);
/// In this time and ten intervals a pair comes to rest, and a takeover is over; or never.
const PATIENCE: Duration = Duration::from_secs(5);

/// What became of a round.
pub(super) enum Played {
    /// It was played.
    Seen(Round),
    /// Nobody served all addresses afterwards.
    Lost,
    /// It could not begin.
    Restless,
}

pub(super) struct Pair {
    // Dropped in this order: nodes before their namespaces.
    nodes: [Node; 2],
    arp: ArpProbe,
    watcher: Watcher,
    macs: [[u8; 6]; 2],
    asked: Vec<(u8, Ipv4Addr)>,
    setting: Setting,
    lab: Lab,
}

impl Pair {
    /// Starts everything; it comes to rest later.
    pub(super) fn start(built: &Built, system: System, setting: Setting) -> Result<Self> {
        let mut lab = Lab::new(built)?;
        // Not the client: its kernel would learn from the answers where the address is, as no user's does.
        lab.add_station("observer", "192.0.2.101/24")?;
        let client = lab.station("client")?;
        client.ip(&[
            "route",
            "add",
            &format!("{}/24", Ipv4Addr::from([MANY[0], MANY[1], MANY[2], 0])),
            "dev",
            INTERFACE,
        ])?;
        // A neighbour as routers are, which ask again after hours: it knows what it is told.
        for name in ["delay_first_probe_time", "gc_stale_time"] {
            client.set_sysctl(&format!("ipv4/neigh/{INTERFACE}/{name}"), "3600")?;
        }
        let routers = routers(setting)?;
        let asked = asked(&routers);
        let addresses: Vec<_> = asked.iter().map(|(_, address)| *address).collect();
        let watcher = Watcher::start(client, &addresses)?;
        let arp = ArpProbe::start(lab.station("observer")?, INTERFACE, lab.mac("observer")?, addresses[0])?;
        prefer(&["arp-probe"], RUNTIMES[0])?;
        prefer(&["watcher"], RUNTIMES[1])?;
        let node = |name, priority| {
            let Setting { advert_ms, realtime, .. } = setting;
            Node::start(system, &lab, name, &Plan { priority, advert_ms, realtime, routers: &routers })
        };
        let nodes = [node("edge-a", PRIORITIES[0])?, node("edge-b", PRIORITIES[1])?];
        let macs = [lab.mac("edge-a")?, lab.mac("edge-b")?];
        Ok(Self { nodes, arp, watcher, macs, asked, setting, lab })
    }

    /// While it is the other make's turn.
    pub(super) fn rest(&self, rests: bool) {
        self.watcher.rest(rests);
    }

    /// One round. `phase` is the part of an advert interval at which it happens, 0 to 1.
    ///
    /// # Errors
    /// When it cannot be done or undone.
    pub(super) fn play(&mut self, event: Event, phase: f64) -> Result<Played> {
        if !self.comes_to_rest(Duration::ZERO) {
            return Ok(Played::Restless);
        }
        let hogs = hogs(self.setting.hogs)?;
        if self.setting.hogs > 0 && !self.comes_to_rest(HOGS_BITE) {
            return Ok(Played::Restless);
        }
        thread::sleep(self.until_phase(phase));
        let interval = self.interval();
        let (began, began_ns) = (Instant::now(), now_ns());
        self.watcher.forget_before(began_ns.saturating_sub((4 * interval + RECENT).as_nanos() as u64));
        self.inflict(event)?;
        let done_ms = began.elapsed().as_secs_f64() * 1e3;
        let known = Known {
            event,
            began_ns,
            interval_ns: interval.as_nanos() as u64,
            priority: PRIORITIES[1],
            old: self.macs[0],
            new: self.macs[1],
            asked: &self.asked,
        };
        let mut round = None;
        while round.is_none() && began.elapsed() < self.patience() {
            thread::sleep(interval / 10);
            round = known.read(&self.watcher.seen());
        }
        if event == Event::Kill {
            let taken = Instant::now();
            wait::until("the observer", || self.arp.since(taken).len() >= QUESTIONS_AFTER_KILL)?;
        }
        let questions = self.arp.since(began);
        drop(hogs);
        self.heal(event)?;
        let Some(round) = round else { return Ok(Played::Lost) };
        let doubles = doubles(&questions).count as u32;
        Ok(Played::Seen(Round { doubles, questions: questions.len() as u32, done_ms, ..round }))
    }

    fn inflict(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Cut => self.lab.pull_cable("edge-a"),
            Event::Kill => self.nodes[0].kill(),
            // Its end is not waited for: nobody else does.
            Event::Stop => self.nodes[0].terminate(),
        }
    }

    fn heal(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Cut => self.lab.set_cable("edge-a", true),
            Event::Kill => self.nodes[0].start_again(),
            Event::Stop => {
                self.nodes[0].stop()?;
                self.nodes[0].start_again()
            }
        }
    }

    /// Waits for it, `first` at the least.
    fn comes_to_rest(&self, first: Duration) -> bool {
        let since = Instant::now();
        thread::sleep(first);
        while since.elapsed() < self.patience() {
            if self.is_at_rest() {
                return true;
            }
            thread::sleep(Duration::from_millis(5));
        }
        false
    }

    fn patience(&self) -> Duration {
        PATIENCE + 10 * self.interval()
    }

    /// edge-a alone advertises and answers, and edge-b is a Backup: for three intervals, and a while.
    fn is_at_rest(&self) -> bool {
        let (now, window) = (now_ns(), (3 * self.interval()).max(RECENT).as_nanos() as u64);
        let seen: Vec<Seen> = self.watcher.seen().into_iter().filter(|seen| seen.at_ns + window > now).collect();
        let is_alone = seen.iter().all(|seen| match seen.what {
            What::Answer { by, .. } | What::Advert { by, .. } | What::Announcement { by, .. } => by == self.macs[0],
            What::Asked => true,
        });
        let is_served = |(_, wanted): &(u8, Ipv4Addr)| {
            let answers =
                seen.iter().filter(|seen| matches!(seen.what, What::Answer { address, .. } if address == *wanted));
            answers.map(|seen| seen.at_ns).max().is_some_and(|at_ns| at_ns + RECENT.as_nanos() as u64 > now)
        };
        let is_advertised = |number: u32| {
            let wanted = FIRST_VRID + number as u8;
            let adverts = seen.iter().filter(|seen| matches!(seen.what, What::Advert { vrid, .. } if vrid == wanted));
            adverts.count() >= 2
        };
        is_alone
            && self.asked.iter().all(is_served)
            && (0..self.setting.routers).all(is_advertised)
            && Instant::now().checked_sub(RECENT).is_some_and(|since| self.answers_alone(since))
            && self.nodes[1].is_backup()
    }

    fn answers_alone(&self, since: Instant) -> bool {
        let questions = self.arp.since(since);
        let first = questions.iter().find(|question| !question.answers.is_empty());
        alone_since(&questions, self.macs[0]).is_some_and(|alone| first.is_some_and(|first| alone <= first.asked))
    }

    /// From now until that phase of edge-a's interval.
    fn until_phase(&self, phase: f64) -> Duration {
        let is_advert = |seen: &&Seen| matches!(seen.what, What::Advert { by, .. } if by == self.macs[0]);
        let last_ns = self.watcher.seen().iter().rev().find(is_advert).map_or(0, |seen| seen.at_ns);
        let interval_ns = self.interval().as_nanos() as u64;
        let wanted_ns = (phase * interval_ns as f64) as u64;
        let since_ns = now_ns().saturating_sub(last_ns) % interval_ns;
        Duration::from_nanos((wanted_ns + interval_ns - since_ns) % interval_ns)
    }

    fn interval(&self) -> Duration {
        Duration::from_millis(u64::from(self.setting.advert_ms))
    }
}

/// The addresses of each virtual router.
fn routers(setting: Setting) -> Result<Vec<Vec<Ipv4Net>>> {
    if setting.routers * setting.addresses == 1 {
        return Ok(vec![vec![Ipv4Net::new(VIP, 24)?]]);
    }
    let [a, b, c] = MANY;
    let mut last = 0..=u8::MAX;
    last.next();
    let mut address = || Ok(Ipv4Net::new(Ipv4Addr::from([a, b, c, last.next().context("too many addresses")?]), 32)?);
    (0..setting.routers).map(|_| (0..setting.addresses).map(|_| address()).collect()).collect()
}

/// The first address of the first virtual router, the middle one of the middle one, the last one of the last.
fn asked(routers: &[Vec<Ipv4Net>]) -> Vec<(u8, Ipv4Addr)> {
    let places = [(0, 0), (routers.len() / 2, routers[0].len() / 2), (routers.len() - 1, routers[0].len() - 1)];
    let mut all: Vec<_> =
        places.into_iter().map(|(router, place)| (FIRST_VRID + router as u8, routers[router][place].addr())).collect();
    all.dedup();
    all
}
