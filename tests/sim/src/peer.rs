//! A router that behaves like keepalived: RFC 9568's state machine in a process, no lease and no kernel program. Whoever
//! was its Active goes on answering while it is stopped or dead, as its kernel still has the address.
//!
//! Written from the RFC, as a second opinion. Deliberately absent: its fall-backs and options.

use std::cell::{Cell, RefCell};

use failover_common::abi::ChecksumForm;
use failover_common::wire::ethernet::Mac;
use failover_common::wire::vrrp::{ADVERT_FRAME_LEN_MAX, AdvertFrame};

use crate::clock::Clock;
use crate::node::address_of;
use crate::scenario::NodePlan;
use crate::timer::rfc;
use crate::world::Simulation;

/// An advert as far as it matters.
#[derive(Clone, Copy, Debug)]
pub struct Advert {
    /// The sender's place.
    pub from: usize,
    /// 0: it gives up.
    pub priority: u8,
    /// Centiseconds.
    pub interval_cs: u16,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Down,
    Backup { fires_at_ns: u64, interval_cs: u16 },
    Active { advertises_at_ns: u64 },
}

/// See the module. Its times are its own clock's.
pub struct Peer {
    plan: RefCell<NodePlan>,
    version: u8,
    clock: Clock,
    state: Cell<State>,
    inbox: RefCell<Vec<Advert>>,
    /// Whether its kernel has the address.
    pub has_address: Cell<bool>,
    /// Whether its process is there.
    pub is_running: Cell<bool>,
    /// When it next runs, true time.
    pub wakes_at_ns: Cell<u64>,
    /// It does nothing before.
    pub stalled_until_ns: Cell<u64>,
    /// Its kernel does nothing before.
    pub frozen_until_ns: Cell<u64>,
    /// Carrier.
    pub has_link: Cell<bool>,
}

impl Peer {
    /// A peer that has not been started.
    pub fn new(plan: &NodePlan, version: u8) -> Self {
        Self {
            plan: RefCell::new(plan.clone()),
            version,
            clock: Clock { start_ns: plan.clock_start_ns, drift_ppm: plan.drift_ppm },
            state: Cell::new(State::Down),
            inbox: RefCell::default(),
            has_address: Cell::new(false),
            is_running: Cell::new(false),
            wakes_at_ns: Cell::new(u64::MAX),
            stalled_until_ns: Cell::new(0),
            frozen_until_ns: Cell::new(0),
            has_link: Cell::new(true),
        }
    }

    /// Whether it thinks that it is Active.
    pub fn is_active(&self) -> bool {
        matches!(self.state.get(), State::Active { .. })
    }

    /// Whether its kernel answers.
    pub fn answers(&self, now_ns: u64) -> bool {
        self.has_address.get() && now_ns >= self.frozen_until_ns.get()
    }

    /// Its process is gone; its address is not.
    pub fn kill(&self) {
        self.is_running.set(false);
        self.state.set(State::Down);
        self.inbox.borrow_mut().clear();
        self.wakes_at_ns.set(u64::MAX);
    }

    /// Another priority, at once: what its scripts do.
    pub fn set_priority(&self, priority: u8) {
        self.plan.borrow_mut().priority = priority;
    }

    /// An advert comes in.
    pub fn receive(&self, advert: Advert) {
        if self.is_running.get() {
            self.inbox.borrow_mut().push(advert);
        }
    }

    /// When it has something to do, true time.
    pub fn due_ns(&self, now_ns: u64) -> Option<u64> {
        if !self.inbox.borrow().is_empty() {
            return Some(now_ns);
        }
        match self.state.get() {
            State::Down => None,
            State::Backup { fires_at_ns, .. } => Some(self.clock.reaches(fires_at_ns)),
            State::Active { advertises_at_ns } => Some(self.clock.reaches(advertises_at_ns)),
        }
    }

    fn listen(&self, now_ns: u64, interval_cs: u16) {
        let fires_at_ns = now_ns + rfc::active_down_ns(self.version, self.plan.borrow().priority, interval_cs);
        self.state.set(State::Backup { fires_at_ns, interval_cs });
        self.has_address.set(false);
    }

    fn frame(&self, place: usize, priority: u8) -> Vec<u8> {
        let mut buffer = [0; ADVERT_FRAME_LEN_MAX];
        let advert = AdvertFrame {
            source_mac: Mac([2, 0, 0, 0, 0, 1 + place as u8]),
            source: address_of(place),
            version: self.version,
            vrid: 51,
            priority,
            interval_cs: self.plan.borrow().interval_cs,
            addresses: &[[192, 0, 2, 200]],
            password: None,
            checksum_form: ChecksumForm::PseudoHeader,
        };
        let len = advert.emit(&mut buffer).expect("one address fits");
        buffer[..len].to_vec()
    }
}

impl Simulation<'_> {
    /// Its process starts, and takes the address off that another left.
    pub fn launch_peer(&self, place: usize) {
        let peer = self.peer(place);
        if !peer.is_running.replace(true) {
            let interval_cs = peer.plan.borrow().interval_cs;
            peer.listen(peer.clock.local(self.now_ns()), interval_cs);
            self.plan_wake(place);
        }
    }

    /// SIGTERM.
    pub fn stop_peer(&self, place: usize) {
        let peer = self.peer(place);
        if peer.is_active() {
            self.transmit_peer(place, 0);
        }
        peer.has_address.set(false);
        peer.kill();
    }

    /// It has something to do: what came in first.
    pub fn wake_peer(&self, place: usize) {
        let peer = self.peer(place);
        let now_ns = peer.clock.local(self.now_ns());
        for advert in std::mem::take(&mut *peer.inbox.borrow_mut()) {
            self.peer_hears(place, now_ns, advert);
        }
        let (own_priority, own_interval_ns) = (peer.plan.borrow().priority, peer.plan.borrow().interval_ns());
        match peer.state.get() {
            State::Backup { fires_at_ns, .. } if now_ns >= fires_at_ns => {
                peer.state.set(State::Active { advertises_at_ns: now_ns + own_interval_ns });
                peer.has_address.set(true);
                self.transmit_peer(place, own_priority);
            }
            State::Active { advertises_at_ns } if now_ns >= advertises_at_ns => {
                peer.state.set(State::Active { advertises_at_ns: now_ns + own_interval_ns });
                self.transmit_peer(place, own_priority);
            }
            State::Down | State::Backup { .. } | State::Active { .. } => {}
        }
        self.plan_wake(place);
    }

    /// RFC 9568 6.4.2 and 6.4.3.
    fn peer_hears(&self, place: usize, now_ns: u64, advert: Advert) {
        let peer = self.peer(place);
        let NodePlan { priority, preempt, interval_cs, .. } = *peer.plan.borrow();
        match peer.state.get() {
            State::Down => {}
            State::Backup { interval_cs, .. } if advert.priority == 0 => {
                let fires_at_ns = now_ns + rfc::skew_ns(peer.version, priority, interval_cs);
                peer.state.set(State::Backup { fires_at_ns, interval_cs });
            }
            State::Backup { .. } if !preempt || advert.priority >= priority => peer.listen(now_ns, advert.interval_cs),
            State::Backup { .. } => {}
            State::Active { .. } => {
                let is_better =
                    advert.priority > priority || (advert.priority == priority && advert.from > place && priority > 0);
                if is_better {
                    peer.listen(now_ns, advert.interval_cs);
                } else {
                    // A release, or one to be told.
                    let advertises_at_ns = now_ns + u64::from(interval_cs) * failover_common::lease::NS_PER_CS;
                    peer.state.set(State::Active { advertises_at_ns });
                    self.transmit_peer(place, priority);
                }
            }
        }
    }

    fn transmit_peer(&self, place: usize, priority: u8) {
        if self.peer(place).has_link.get() {
            self.transmit(place, &self.peer(place).frame(place, priority));
        }
    }
}
