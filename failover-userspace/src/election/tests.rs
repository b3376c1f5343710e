//! The election, tested from the documents: RFC 9568 with its verified errata, RFC 3768 for
//! version 2, and the contract in `mod.rs`. Every expected time is worked out by hand beside it.
//!
//! - `transitions`: every input in every state, refusals first
//! - `rfc`: what the RFCs ask, one sentence per test
//! - `lease`: what this crate adds: the lease, the hold, the lapse, the resumption
//! - `delay_and_defence`: the preemption delay, and answers to losing adverts and conflicts
//! - `fence`: the kernel program goes, and comes back
//! - `properties`: any sequence of inputs, and what must hold after each
//! - `simulation`: three routers, their kernels and a wire on one clock
//!
//! Here: one router, and a driver that applies its actions.

mod delay_and_defence;
mod fence;
mod lease;
mod properties;
mod rfc;
mod simulation;
mod transitions;

use failover_common::abi::State;
use failover_common::address::Address;

use super::{Action, Election, HeardAdvert, Input, Parameters, Reason, Transition};

const US: u64 = 1_000;
const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;

/// The contract's 2 ms, written down here so that nobody shortens them unnoticed.
const HOLD: u64 = 2 * MS;

const OWN_PRIORITY: u8 = 100;
const LESSER_ADDRESS: Address = Address::from_ipv4([192, 0, 2, 1]);
const OWN_ADDRESS: Address = Address::from_ipv4([192, 0, 2, 2]);
const GREATER_ADDRESS: Address = Address::from_ipv4([192, 0, 2, 3]);

/// (256 - 100) / 256 of an interval of 1 s.
const SKEW: u64 = 609_375_000;
/// 3 x 1 s + `SKEW`.
const DOWN: u64 = 3_609_375_000;

/// Priority 100, version 3, adverts every second, preempting without delay: RFC 9568's defaults.
fn parameters() -> Parameters {
    Parameters {
        own_address: OWN_ADDRESS,
        priority: OWN_PRIORITY,
        version: 3,
        advert_interval_cs: 100,
        turn_ns: None,
        preempt: true,
        preempt_delay_ns: 0,
    }
}

/// The owner of the addresses.
fn owner() -> Parameters {
    Parameters { priority: 255, ..parameters() }
}

/// An advert with an interval of 1 s from a greater address than ours, so that only its priority
/// can make it lose.
fn advert(received_at_ns: u64, priority: u8) -> HeardAdvert {
    HeardAdvert { received_at_ns, source: GREATER_ADDRESS, priority, interval_cs: 100 }
}

/// What the driver's socket does with the adverts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sends {
    Succeed,
    Fail,
}

/// One router and the driver of `mod.rs`: one input, then all actions, in order.
struct Driver {
    election: Election,
    sends: Sends,
    /// How long the socket takes: `AdvertSent` comes that much later than its `before_send_ns`.
    send_takes_ns: u64,
    /// `last_sign_ns` of every report so far; the returned actions have it blanked.
    last_signs: Vec<Option<u64>>,
}

impl Driver {
    fn new(parameters: Parameters) -> Self {
        Self { election: Election::new(parameters), sends: Sends::Succeed, send_takes_ns: 0, last_signs: Vec::new() }
    }

    /// A router that heard Startup at 0.
    fn started(parameters: Parameters) -> Self {
        let mut driver = Self::new(parameters);
        driver.input(0, Input::Startup);
        driver
    }

    /// The default router, which heard nobody and took over at `DOWN`: leased until `DOWN` + 3 s.
    fn active() -> Self {
        let mut driver = Self::started(parameters());
        driver.timeout(DOWN);
        assert_eq!(driver.state(), State::Active);
        driver
    }

    fn state(&self) -> State {
        self.election.state()
    }

    fn deadline(&self) -> Option<u64> {
        self.election.next_deadline()
    }

    fn input(&mut self, now_ns: u64, input: Input) -> Vec<Action> {
        self.election.handle(now_ns, input);
        self.apply(now_ns)
    }

    /// An advert that is handled the moment it is received.
    fn hear(&mut self, advert: HeardAdvert) -> Vec<Action> {
        self.input(advert.received_at_ns, Input::Advert(advert))
    }

    fn timeout(&mut self, now_ns: u64) -> Vec<Action> {
        self.election.handle_timeout(now_ns);
        self.apply(now_ns)
    }

    /// Sleeps until the next deadline and handles it.
    fn next_timeout(&mut self) -> (u64, Vec<Action>) {
        let deadline = self.deadline().expect("something must be due");
        (deadline, self.timeout(deadline))
    }

    fn apply(&mut self, now_ns: u64) -> Vec<Action> {
        let mut applied = Vec::new();
        while let Some(action) = self.election.poll_action() {
            assert!(applied.len() < 16, "the actions never end: {applied:?}");
            applied.push(match action {
                Action::Report(transition) => {
                    self.last_signs.push(transition.last_sign_ns);
                    Action::Report(Transition { last_sign_ns: None, ..transition })
                }
                other => other,
            });
            if matches!(action, Action::SendAdvert { .. }) {
                let answer = match self.sends {
                    Sends::Succeed => Input::AdvertSent { before_send_ns: now_ns },
                    Sends::Fail => Input::AdvertFailed,
                };
                self.election.handle(now_ns + self.send_takes_ns, answer);
            }
        }
        applied
    }
}

/// An advert of the default router.
const SEND: Action = Action::SendAdvert { priority: OWN_PRIORITY };
const RELEASE: Action = Action::SendAdvert { priority: 0 };
const NO_LEASE: Action = Action::SetLease { until_ns: 0 };

fn lease(until_ns: u64) -> Action {
    Action::SetLease { until_ns }
}

fn report(from: State, to: State, reason: Reason) -> Action {
    Action::Report(Transition { from, to, reason, last_sign_ns: None })
}

fn superior(priority: u8) -> Reason {
    Reason::Superior { source: GREATER_ADDRESS, priority }
}

/// Whether a lease is stored that can let the kernel answer.
fn leases(actions: &[Action]) -> bool {
    actions.iter().any(|action| matches!(action, Action::SetLease { until_ns } if *until_ns != 0))
}

fn count(actions: &[Action], wanted: Action) -> usize {
    actions.iter().filter(|action| **action == wanted).count()
}
