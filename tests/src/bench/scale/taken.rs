//! How long many addresses take to move when the Active's cable is cut.
//!
//! The client hears the adverts, so it knows when each virtual router's Active_Down_Interval ends at the Backup: the
//! protocol's floor. From then on it asks by ARP for one address of every fourth router, others in each round, until the
//! Backup answers. All addresses' announcements are heard besides, and after each takeover all are asked for once.

use std::collections::HashSet;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::Setting;
use super::pair::{PRIORITIES, Pair, last_words};
use crate::arp_probe::request;
use crate::frames::{ARP, FrameSocket};
use crate::lab::INTERFACE;
use crate::node::System;
use crate::requirements::Built;
use crate::tape::{self, Tape};

/// Between two questions for one address of many, and so how exactly an answer's time is known.
const PERIOD: Duration = Duration::from_millis(1);
/// The same where there is only one.
const PERIOD_OF_ONE: Duration = Duration::from_micros(200);
/// Every so manyth router is asked for in a round: questions for all would keep the machine from answering.
const SAMPLED: usize = 4;
/// A question is asked this long before the floor, so that the first answer cannot come unasked.
const AHEAD_NS: u64 = 1_000_000;
/// Everything has moved by then, or will not.
const PATIENCE: Duration = Duration::from_secs(20);
/// And been announced: keepalived's second set of announcements comes 5 s after the first.
const ANNOUNCED: Duration = Duration::from_secs(7);
/// Requests of one system call.
const BURST: usize = 128;
/// What send(2) says when the client's own interface has no room.
const FULL: [Option<i32>; 2] = [Some(libc::ENOBUFS), Some(libc::EAGAIN)];
/// The client's address.
const ASKER: [u8; 4] = [192, 0, 2, 100];

/// The rounds of one setting.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Takeover {
    /// Whose.
    pub system: System,
    /// How many addresses, how often adverts.
    pub setting: Setting,
    /// One cut each.
    pub rounds: Vec<Round>,
    /// Why there are none: the pair did not get to serve.
    pub failure: Option<String>,
}

/// One cable cut. Milliseconds above the floor of the virtual router.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Round {
    /// Of each virtual router: when the client heard the Backup's first advert.
    pub advert_ms: Vec<f64>,
    /// Of each virtual router that was asked for: when one of its addresses was first answered by the Backup.
    pub answer_ms: Vec<f64>,
    /// Of each virtual router: when the last of its addresses was first announced, of those that were.
    pub announced_ms: Vec<f64>,
    /// Addresses that were not announced within seconds.
    pub unannounced: usize,
    /// How many addresses were asked for afterwards.
    pub asked: usize,
    /// And answered by the Backup.
    pub answered: usize,
}

/// Cuts the cable of edge-a that often.
pub(super) fn measure(built: &Built, system: System, setting: Setting, rounds: u32) -> Result<Takeover> {
    ensure!(setting.networks() == 1, "one cable is cut, so one network");
    let mut pair = Pair::start(built, system, setting)?;
    let rounds = (0..rounds as usize).map(|number| {
        if number > 0 {
            pair.lab.set_cable("edge-a", true)?;
            pair.settle()?;
        }
        round(&mut pair, number)
    });
    let rounds = rounds.collect::<Result<_>>()?;
    Ok(Takeover { system, setting, rounds, failure: None })
}

/// What the client knows so far; times are CLOCK_REALTIME nanoseconds.
struct Watch {
    setting: Setting,
    mac: [u8; 6],
    mac_b: [u8; 6],
    socket: FrameSocket,
    arp: Tape,
    /// Which routers are asked for, and for which of their addresses.
    number: usize,
    last_of_a: Vec<Option<u64>>,
    first_of_b: Vec<Option<u64>>,
    answered: Vec<Option<u64>>,
    announced: HashSet<[u8; 4]>,
    last_announced: Vec<Option<u64>>,
    answers: HashSet<[u8; 4]>,
}

fn round(pair: &mut Pair, number: usize) -> Result<Round> {
    let setting = pair.setting;
    let mut watch = Watch::new(pair, number)?;
    let until = Instant::now() + 4 * setting.interval();
    while Instant::now() < until {
        watch.hear(pair)?;
        thread::sleep(PERIOD);
    }
    // What came before was for other reasons.
    watch.first_of_b.fill(None);
    pair.lab.set_cable("edge-a", false)?;
    let cut = Instant::now();
    while !watch.is_answered() || (watch.unannounced() > 0 && cut.elapsed() < ANNOUNCED) {
        ensure!(cut.elapsed() < PATIENCE, "not every virtual router was taken over; edge-b:\n{}", last_words(&pair.b));
        let start = Instant::now();
        watch.hear(pair)?;
        watch.ask()?;
        thread::sleep(watch.period().saturating_sub(start.elapsed()));
    }
    let (asked, answered) = watch.ask_for_all(pair)?;
    ensure!(pair.hearing.missed()? + watch.arp.missed()? == 0, "the client was too slow to hear everything");
    let floor = |router: usize| watch.floor_ns(router).unwrap_or_default();
    let above = |at_ns: u64, router: usize| (at_ns as f64 - floor(router) as f64) / 1e6;
    let each = |times: &[Option<u64>]| {
        (0..setting.routers).filter_map(|router| Some(above(times[router]?, router))).collect::<Vec<_>>()
    };
    Ok(Round {
        advert_ms: each(&watch.first_of_b),
        answer_ms: watch.sampled().filter_map(|router| Some(above(watch.answered[router]?, router))).collect(),
        announced_ms: each(&watch.last_announced),
        unannounced: watch.unannounced(),
        asked,
        answered,
    })
}

impl Watch {
    fn new(pair: &Pair, number: usize) -> Result<Self> {
        let client = pair.lab.station("client")?;
        let routers = pair.setting.routers;
        Ok(Self {
            setting: pair.setting,
            mac: pair.lab.mac("client")?,
            mac_b: pair.lab.mac("edge-b")?,
            socket: FrameSocket::open(client, INTERFACE, 0)?,
            arp: Tape::open(client, INTERFACE, ARP, &tape::everything())?,
            number,
            last_of_a: vec![None; routers],
            first_of_b: vec![None; routers],
            answered: vec![None; routers],
            announced: HashSet::new(),
            last_announced: vec![None; routers],
            answers: HashSet::new(),
        })
    }

    /// When the Backup's timer for the router ends, counted from when the client heard edge-a's last advert: RFC 9568
    /// 6.1.
    fn floor_ns(&self, router: usize) -> Option<u64> {
        let interval_ns = self.setting.interval().as_nanos() as u64;
        let skew_ns = (256 - u64::from(PRIORITIES[1])) * interval_ns / 256;
        Some(self.last_of_a[router]? + 3 * interval_ns + skew_ns)
    }

    fn is_answered(&self) -> bool {
        self.sampled().all(|router| self.answered[router].is_some())
    }

    fn period(&self) -> Duration {
        if self.setting.routers == 1 { PERIOD_OF_ONE } else { PERIOD }
    }

    fn sampled(&self) -> impl Iterator<Item = usize> {
        let (routers, number) = (self.setting.routers, self.number);
        (0..routers).filter(move |router| routers == 1 || router % SAMPLED == number % SAMPLED)
    }

    fn unannounced(&self) -> usize {
        self.setting.addresses - self.announced.len()
    }

    fn hear(&mut self, pair: &mut Pair) -> Result<()> {
        pair.hearing.drain(|advert| {
            if advert.is_from_a {
                self.last_of_a[advert.router] = Some(advert.at_ns);
            } else {
                self.first_of_b[advert.router].get_or_insert(advert.at_ns);
            }
        })?;
        self.arp.drain(|at_ns, frame| {
            // RFC 826: operation at 20, sender's hardware address at 22 and address at 28, target's at 38.
            let (Some(arp), Some(sender)) = (frame.get(..42), frame.get(28..32)) else { return };
            let address: [u8; 4] = sender.try_into().unwrap_or_default();
            let (Some(router), true) = (self.setting.router_of(address), arp[22..28] == self.mac_b) else { return };
            if arp[28..32] == arp[38..42] {
                if self.announced.insert(address) {
                    self.last_announced[router] = Some(at_ns);
                }
            } else if arp[20..22] == [0, 2] {
                self.answered[router].get_or_insert(at_ns);
                self.answers.insert(address);
            }
        })
    }

    /// Asks for one address of each router that is due and was not answered yet.
    fn ask(&self) -> Result<()> {
        let now_ns = unix_ns();
        let is_due = |router: &usize| {
            let floor_ns = self.floor_ns(*router);
            self.answered[*router].is_none() && floor_ns.is_some_and(|floor_ns| now_ns + AHEAD_NS >= floor_ns)
        };
        let address = |router: usize| {
            let addresses: Vec<_> = self.setting.addresses(router).collect();
            addresses[self.number % addresses.len()].octets()
        };
        let due = self.sampled().filter(is_due);
        let questions: Vec<_> = due.map(|router| request(self.mac, ASKER, address(router))).collect();
        self.send(&questions)
    }

    /// All addresses once more: how many there are, and how many were answered.
    fn ask_for_all(&mut self, pair: &mut Pair) -> Result<(usize, usize)> {
        let all: Vec<_> = (0..self.setting.routers).flat_map(|router| self.setting.addresses(router)).collect();
        self.answers.clear();
        for _ in 0..3 {
            let left: Vec<_> =
                all.iter().filter(|address| !self.answers.contains(&address.octets())).copied().collect();
            for some in left.chunks(BURST) {
                let questions: Vec<_> = some.iter().map(|address| request(self.mac, ASKER, address.octets())).collect();
                self.send(&questions)?;
                thread::sleep(PERIOD);
                self.hear(pair)?;
            }
            thread::sleep(10 * PERIOD);
            self.hear(pair)?;
        }
        Ok((all.len(), self.answers.len()))
    }

    /// What the wire does not take is asked again next time.
    fn send(&self, frames: &[Vec<u8>]) -> Result<()> {
        for some in frames.chunks(BURST) {
            match self.socket.send_all(some) {
                Err(error) if !FULL.contains(&error.raw_os_error()) => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }
}

fn unix_ns() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}
