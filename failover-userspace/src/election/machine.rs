//! The state machine: one exhaustive match over state and input, and the leaf functions it calls.
//!
//! Deliberately absent: anything about *how*. It cannot reach a map, a frame or a thread.

use std::collections::VecDeque;

use failover_common::abi;
use failover_common::lease::{beats, lease_until_ns};
use failover_common::wire::vrrp::{PRIORITY_OWNER, PRIORITY_RELEASE};

use super::timing::{PREEMPT_HOLD_NS, active_down_ns, interval_ns, next_turn_ns, skew_ns};
use super::{Action, HeardAdvert, Input, Parameters, Reason, Transition};

/// Least time between two announcements in defence of the addresses. RFC 5227 2.4 (c) lets a host
/// that must keep its address defend it at every conflict, but at a limited rate.
const DEFENCE_GAP_NS: u64 = 100_000_000;
/// A Backup that takes over this much after its timer is late: the next one may be about to, or have
/// just begun. Well above what a thread's wake-up takes, well below the millisecond that a takeover
/// may cost.
const LATE_NS: u64 = 500_000;
/// Part of an interval after which a failed advert is tried again.
const RETRY_DIVISOR: u64 = 10;

/// RFC 9568 6.4's states, each with its own deadlines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not taking part.
    Initialize,
    /// Taking part as soon as the interface is up and the kernel program is on it.
    Fault,
    /// Listening.
    Backup {
        /// Active_Down_Timer.
        active_down_at_ns: u64,
        /// Active_Adver_Interval, learned.
        active_interval_cs: u16,
        /// From when on a lower-priority Active that lives is preempted; `None` until one was heard.
        preempt_at_ns: Option<u64>,
        /// The last advert of somebody who has not given up since.
        other: Option<HeardAdvert>,
        /// Whether the last advert was priority 0.
        released: bool,
    },
    /// Advertising.
    Active {
        /// Adver_Timer.
        advertise_at_ns: u64,
        /// How far the right to answer is.
        claim: Claim,
    },
}

/// An Active's way to its lease. It is only ever taken from an advert that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    /// Nobody else can be answering: the first advert that is sent brings the lease, if it goes out
    /// in time.
    WithAdvert {
        /// After this, another Backup's timer may have fired, too.
        by_ns: u64,
    },
    /// Somebody else may be answering: the lease comes at `at_ns`, if an advert was sent by then.
    Hold {
        /// When.
        at_ns: u64,
        /// The lease that the last sent advert stands for; 0: none sent.
        until_ns: u64,
    },
    /// Ours until then.
    Held {
        /// When it ends.
        until_ns: u64,
    },
}

/// One virtual router's election. See the module for how to drive it.
#[derive(Clone, Debug)]
pub struct Election {
    parameters: Parameters,
    state: State,
    actions: VecDeque<Action>,
    /// Comes after all actions: nothing that matters waits for a log line.
    report: Option<Transition>,
    defended_at_ns: Option<u64>,
    /// When an announcement is due that the gap held back.
    announce_at_ns: Option<u64>,
    last_sign_ns: Option<u64>,
    has_link: bool,
    has_fence: bool,
}

impl Election {
    /// A virtual router in Initialize.
    pub fn new(parameters: Parameters) -> Self {
        Self {
            parameters,
            state: State::Initialize,
            actions: VecDeque::new(),
            report: None,
            defended_at_ns: None,
            announce_at_ns: None,
            last_sign_ns: None,
            has_link: true,
            has_fence: true,
        }
    }

    /// The state, as people and maps know it.
    pub fn state(&self) -> abi::State {
        match self.state {
            State::Initialize => abi::State::Initialize,
            State::Fault => abi::State::Fault,
            State::Backup { .. } => abi::State::Backup,
            State::Active { .. } => abi::State::Active,
        }
    }

    /// Changes the address that breaks ties and that adverts come from.
    pub fn set_own_address(&mut self, own_address: failover_common::address::Address) {
        self.parameters.own_address = own_address;
    }

    /// When [`Self::handle_timeout`] has something to do; `None`: not by time alone.
    pub fn next_deadline(&self) -> Option<u64> {
        match self.state {
            State::Initialize | State::Fault => None,
            State::Backup { .. } => self.takeover_at_ns(),
            State::Active { advertise_at_ns, claim: Claim::Hold { at_ns, .. } } => Some(advertise_at_ns.min(at_ns)),
            State::Active { advertise_at_ns, claim: Claim::WithAdvert { .. } } => Some(advertise_at_ns),
            State::Active { advertise_at_ns, claim: Claim::Held { until_ns } } => {
                let gives_up_at_ns = if self.has_fence { u64::MAX } else { self.gives_up_at_ns(until_ns) };
                let announce_at_ns = self.announce_at_ns.unwrap_or(u64::MAX);
                Some(advertise_at_ns.min(announce_at_ns).min(gives_up_at_ns))
            }
        }
    }

    /// The next thing to do; `None` when all is done.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front().or_else(|| self.report.take().map(Action::Report))
    }

    /// One input. `now_ns` is the clock; an advert also says when it was received.
    pub fn handle(&mut self, now_ns: u64, input: Input) {
        let had_fence = self.has_fence;
        match input {
            // Who starts has looked, and has just attached the program.
            Input::Startup | Input::Resume { .. } if self.state == State::Initialize => {
                (self.has_link, self.has_fence) = (true, true);
            }
            Input::LinkUp | Input::LinkDown => self.has_link = input == Input::LinkUp,
            Input::FenceBack | Input::FenceLost => self.has_fence = input == Input::FenceBack,
            _ => {}
        }
        let is_fit = self.has_link && self.has_fence;
        match (self.state, input) {
            (State::Initialize, Input::Startup) => self.start(now_ns, Reason::Startup),
            (State::Fault, Input::LinkUp) if is_fit => self.start(now_ns, Reason::LinkUp),
            (State::Fault, Input::FenceBack) if is_fit => self.start(now_ns, Reason::FenceBack),
            (State::Initialize, Input::Resume { lease_until_ns }) => self.resume(now_ns, lease_until_ns),
            (State::Initialize, Input::LinkDown) => self.enter(State::Fault, Reason::LinkDown),
            (State::Initialize, Input::LinkUp | Input::FenceBack | Input::FenceLost)
            | (State::Fault, Input::LinkUp | Input::LinkDown | Input::FenceBack | Input::FenceLost) => {}
            (State::Fault | State::Backup { .. }, Input::Shutdown) => self.enter(State::Initialize, Reason::Shutdown),
            (State::Initialize, Input::Shutdown) => {}

            (State::Backup { .. }, Input::Advert(advert)) => self.backup_hears(advert),
            (State::Backup { .. }, Input::LinkDown) => self.enter(State::Fault, Reason::LinkDown),
            // Deaf since some time: what the timer counts from is not the last advert there was.
            (State::Backup { .. }, Input::FenceLost) => self.enter(State::Fault, Reason::FenceLost),

            (State::Active { claim, .. }, Input::Advert(advert)) => self.active_hears(now_ns, claim, advert),
            (State::Active { claim, .. }, Input::AdvertSent { before_send_ns }) => {
                self.sent(now_ns, claim, before_send_ns);
            }
            (State::Active { claim, .. }, Input::AdvertFailed) => self.failed(now_ns, claim),
            (State::Active { claim, .. }, Input::Conflict) => self.defend(now_ns, claim),
            (State::Active { .. }, Input::LinkDown) => {
                self.give_up();
                self.enter(State::Fault, Reason::LinkDown);
            }
            // Attached again in time, nobody notices. No advert renews the lease until then, so nobody has to.
            (State::Active { claim: Claim::Held { until_ns }, .. }, Input::FenceLost)
                if now_ns < self.gives_up_at_ns(until_ns) => {}
            (State::Active { .. }, Input::FenceLost) => self.lose_fence(),
            (State::Active { claim: Claim::Held { until_ns }, .. }, Input::FenceBack)
                if !had_fence && now_ns < until_ns =>
            {
                self.advertise(now_ns);
            }
            (State::Active { .. }, Input::Shutdown) => self.shut_down(),

            // Answers to adverts of a state that was left meanwhile, and news that change nothing.
            (
                State::Initialize | State::Fault | State::Backup { .. },
                Input::AdvertSent { .. } | Input::AdvertFailed | Input::Conflict,
            )
            | (State::Initialize | State::Fault, Input::Advert(_))
            | (State::Fault | State::Backup { .. } | State::Active { .. }, Input::Startup | Input::Resume { .. })
            | (State::Backup { .. } | State::Active { .. }, Input::LinkUp | Input::FenceBack) => {}
        }
    }

    /// Time has passed. Before this, the driver feeds every advert the kernel has seen: a late
    /// driver must not depose a healthy peer.
    pub fn handle_timeout(&mut self, now_ns: u64) {
        match self.state {
            State::Backup { .. } if self.takeover_at_ns().is_some_and(|at_ns| now_ns >= at_ns) => self.promote(now_ns),
            State::Active { claim: Claim::Held { until_ns }, .. }
                if !self.has_fence && now_ns >= self.gives_up_at_ns(until_ns) =>
            {
                self.lose_fence();
            }
            State::Active { claim: Claim::Held { until_ns }, .. } if now_ns >= until_ns => self.lapse(now_ns, 0),
            State::Active { advertise_at_ns, claim } => {
                if let Claim::Hold { at_ns, until_ns } = claim
                    && now_ns >= at_ns
                {
                    self.end_hold(now_ns, advertise_at_ns, until_ns);
                }
                if now_ns >= advertise_at_ns {
                    // Counted from when it was due, so that a thread's wake-ups do not add up; a stall is not made up for.
                    self.advertise(if now_ns < advertise_at_ns + LATE_NS { advertise_at_ns } else { now_ns });
                }
                if matches!(claim, Claim::Held { .. }) && self.announce_at_ns.is_some_and(|at_ns| now_ns >= at_ns) {
                    self.announce(now_ns);
                }
            }
            State::Initialize | State::Fault | State::Backup { .. } => {}
        }
    }

    /// RFC 9568 6.4.1.
    fn start(&mut self, now_ns: u64, reason: Reason) {
        if self.parameters.priority == PRIORITY_OWNER {
            // Nothing is known of the others yet, so the hold applies.
            let claim = Claim::Hold { at_ns: now_ns + PREEMPT_HOLD_NS, until_ns: 0 };
            self.become_active(now_ns, claim, Reason::Owner);
            return;
        }
        let active_interval_cs = self.parameters.advert_interval_cs;
        self.enter(
            State::Backup {
                active_down_at_ns: now_ns + self.active_down_ns(active_interval_cs),
                active_interval_cs,
                preempt_at_ns: None,
                other: None,
                released: false,
            },
            reason,
        );
    }

    fn resume(&mut self, now_ns: u64, until_ns: u64) {
        self.last_sign_ns = Some(now_ns);
        self.enter(State::Active { advertise_at_ns: now_ns, claim: Claim::Held { until_ns } }, Reason::Resumed);
        self.actions.push_back(Action::TakeAddresses);
    }

    /// RFC 9568 6.4.2, "If an ADVERTISEMENT is received".
    fn backup_hears(&mut self, advert: HeardAdvert) {
        let State::Backup { active_down_at_ns, active_interval_cs, preempt_at_ns, other, released } = &mut self.state
        else {
            return;
        };
        let parameters = &self.parameters;
        self.last_sign_ns = self.last_sign_ns.max(Some(advert.received_at_ns));
        if advert.priority == PRIORITY_RELEASE {
            let skew_ns = skew_ns(parameters.version, parameters.priority, *active_interval_cs);
            *active_down_at_ns = advert.received_at_ns + skew_ns;
            *other = other.filter(|other| other.source != advert.source);
            // Nobody may be serving: no time for delays.
            (*preempt_at_ns, *released) = (None, true);
            return;
        }
        (*other, *released) = (Some(advert), false);
        let is_lower = advert.priority < parameters.priority;
        if is_lower && (parameters.preempt || parameters.priority == PRIORITY_OWNER) {
            // Discarded: the timer runs on and this node takes over when it fires, or when the delay is over.
            preempt_at_ns.get_or_insert(advert.received_at_ns.saturating_add(parameters.preempt_delay_ns));
            return;
        }
        *preempt_at_ns = None;
        *active_interval_cs = advert.interval_cs;
        *active_down_at_ns =
            advert.received_at_ns + active_down_ns(parameters.version, parameters.priority, advert.interval_cs);
    }

    /// When a Backup takes over: as its timer says; but a lower-priority Active is left alone until the delay is over, or
    /// it is silent for an Active_Down_Interval itself.
    fn takeover_at_ns(&self) -> Option<u64> {
        let State::Backup { active_down_at_ns, preempt_at_ns, other, .. } = self.state else { return None };
        let left_alone_until_ns = preempt_at_ns.map_or(0, |preempt_at_ns| {
            let silent_at_ns = other.map_or(0, |other| other.received_at_ns + self.active_down_ns(other.interval_cs));
            preempt_at_ns.min(silent_at_ns)
        });
        Some(active_down_at_ns.max(left_alone_until_ns))
    }

    /// RFC 9568 6.4.2, "If the Active_Down_Timer fires".
    fn promote(&mut self, now_ns: u64) {
        let State::Backup { other, released, .. } = self.state else { return };
        let alive = other.filter(|other| now_ns < other.received_at_ns + self.active_down_ns(other.interval_cs));
        let by_ns = self.takeover_at_ns().unwrap_or(now_ns) + LATE_NS;
        let reason = match alive {
            Some(_) => Reason::Preempting,
            None if released => Reason::Released,
            None => Reason::Silence,
        };
        // Whoever may be answering must hear us first (ARCHITECTURE.md, invariant 5).
        let claim = if alive.is_some() || now_ns > by_ns {
            Claim::Hold { at_ns: now_ns + PREEMPT_HOLD_NS, until_ns: 0 }
        } else {
            Claim::WithAdvert { by_ns }
        };
        self.become_active(now_ns, claim, reason);
    }

    fn become_active(&mut self, now_ns: u64, claim: Claim, reason: Reason) {
        self.enter(State::Active { advertise_at_ns: now_ns, claim }, reason);
        self.advertise(now_ns);
    }

    /// RFC 9568 6.4.3, "If an ADVERTISEMENT is received".
    fn active_hears(&mut self, now_ns: u64, claim: Claim, advert: HeardAdvert) {
        let parameters = &self.parameters;
        if advert.priority == PRIORITY_RELEASE {
            match claim {
                Claim::Held { until_ns } if now_ns >= until_ns => self.lapse_is_due(now_ns),
                _ => self.advertise(now_ns),
            }
            return;
        }
        if beats(advert.priority, &advert.source, parameters.priority, &parameters.own_address) {
            let reason = Reason::Superior { source: advert.source, priority: advert.priority };
            let was_serving = matches!(claim, Claim::Held { until_ns } if advert.received_at_ns < until_ns);
            self.step_back(advert, reason, was_serving);
            return;
        }
        // Ours: who was stalled past its own lease is no Active any more. The other took over by
        // the rules, and is left to serve until Backup's rules say otherwise.
        if let Claim::Held { until_ns } = claim
            && advert.received_at_ns >= until_ns
        {
            self.step_back(advert, Reason::LapsedToOther { source: advert.source }, false);
            return;
        }
        // RFC 9568 6.4.3: a losing router is told at once.
        self.defend(now_ns, claim);
    }

    /// Only `handle_timeout` declares a lapse, after every advert that may say who serves by now.
    fn lapse_is_due(&mut self, now_ns: u64) {
        if let State::Active { advertise_at_ns, .. } = &mut self.state {
            *advertise_at_ns = now_ns;
        }
    }

    fn defend(&mut self, now_ns: u64, claim: Claim) {
        if let Claim::Held { until_ns } = claim
            && now_ns >= until_ns
        {
            self.lapse_is_due(now_ns);
            return;
        }
        self.advertise(now_ns);
        let Claim::Held { .. } = claim else { return };
        match self.defended_at_ns {
            // The last word must be ours, so a claim within the gap is answered at its end.
            Some(at_ns) if now_ns < at_ns + DEFENCE_GAP_NS => self.announce_at_ns = Some(at_ns + DEFENCE_GAP_NS),
            _ => self.announce(now_ns),
        }
    }

    fn announce(&mut self, now_ns: u64) {
        (self.defended_at_ns, self.announce_at_ns) = (Some(now_ns), None);
        self.actions.push_back(Action::Announce);
    }

    /// An Active that has to listen again.
    fn step_back(&mut self, advert: HeardAdvert, reason: Reason, was_serving: bool) {
        self.actions.push_back(Action::SetLease { until_ns: 0 });
        if was_serving && self.has_fence {
            // RFC 9568 6.4.3 sends none. But after a split the neighbours may look for the addresses here, and the better
            // router never hear that there was one: the answer to this is its announcement (`defend`; keepalived has
            // higher_prio_send_advert and garp_lower_prio_repeat for it).
            self.actions.push_back(Action::SendAdvert { priority: self.parameters.priority });
        }
        self.actions.push_back(Action::DropAddresses);
        self.last_sign_ns = Some(advert.received_at_ns);
        if !self.has_fence {
            // This one was heard, but maybe not the next.
            self.enter(State::Fault, Reason::FenceLost);
            return;
        }
        let own_interval_cs = self.parameters.advert_interval_cs;
        self.enter(
            State::Backup {
                active_down_at_ns: advert.received_at_ns + self.active_down_ns(own_interval_cs),
                active_interval_cs: own_interval_cs,
                preempt_at_ns: None,
                other: Some(advert),
                released: false,
            },
            reason,
        );
        self.backup_hears(advert);
    }

    /// An advert now; the next one at this router's turn, or without turns an interval after `from_ns`. A turn only makes
    /// the time of RFC 9568 6.4.3 shorter.
    fn advertise(&mut self, from_ns: u64) {
        let interval_ns = interval_ns(self.parameters.advert_interval_cs);
        let next_ns = self.parameters.turn_ns.map(|turn_ns| next_turn_ns(from_ns, turn_ns, interval_ns));
        if let State::Active { advertise_at_ns, .. } = &mut self.state {
            *advertise_at_ns = next_ns.unwrap_or(from_ns + interval_ns);
            self.actions.push_back(Action::SendAdvert { priority: self.parameters.priority });
        }
    }

    /// An advert went out: what it is worth depends on how far the claim is.
    fn sent(&mut self, now_ns: u64, before: Claim, before_send_ns: u64) {
        let until_ns = lease_until_ns(before_send_ns, self.parameters.advert_interval_cs);
        let after = match before {
            Claim::WithAdvert { by_ns } if now_ns <= by_ns => Claim::Held { until_ns },
            Claim::WithAdvert { .. } => Claim::Hold { at_ns: now_ns + PREEMPT_HOLD_NS, until_ns },
            // The others hear of it only now, whenever it was decided; or what they heard before is so long ago that one of
            // them may have taken over since.
            Claim::Hold { until_ns: old_ns, .. } if now_ns >= old_ns => {
                Claim::Hold { at_ns: now_ns + PREEMPT_HOLD_NS, until_ns }
            }
            Claim::Hold { at_ns, .. } => Claim::Hold { at_ns, until_ns },
            // It ran out between the decision to send and the send. A lower router that took over meanwhile gives way to
            // this advert, so listening now would leave nobody.
            Claim::Held { until_ns: old_ns } if now_ns >= old_ns => return self.lapse(now_ns, until_ns),
            Claim::Held { .. } => Claim::Held { until_ns },
        };
        self.set_claim(after);
        if let Claim::Held { until_ns } = after {
            self.last_sign_ns = Some(before_send_ns);
            self.actions.push_back(Action::SetLease { until_ns });
            if matches!(before, Claim::WithAdvert { .. }) {
                self.actions.push_back(Action::TakeAddresses);
            }
        }
    }

    /// An advert did not go out: no lease comes of it, and it is tried again soon.
    fn failed(&mut self, now_ns: u64, claim: Claim) {
        let retry_ns = interval_ns(self.parameters.advert_interval_cs) / RETRY_DIVISOR;
        if matches!(claim, Claim::WithAdvert { .. }) {
            // By the time one does go out, another router may have taken over.
            self.set_claim(Claim::Hold { at_ns: now_ns + retry_ns + PREEMPT_HOLD_NS, until_ns: 0 });
        }
        if let State::Active { advertise_at_ns, .. } = &mut self.state {
            *advertise_at_ns = now_ns + retry_ns;
        }
    }

    /// The other had its time to hear us.
    fn end_hold(&mut self, now_ns: u64, advertise_at_ns: u64, until_ns: u64) {
        if now_ns < until_ns {
            self.set_claim(Claim::Held { until_ns });
            self.last_sign_ns = Some(now_ns);
            self.actions.push_back(Action::SetLease { until_ns });
            self.actions.push_back(Action::TakeAddresses);
        } else {
            // Nothing was sent, or too long ago: the next advert starts the hold again.
            self.set_claim(Claim::Hold { at_ns: advertise_at_ns.max(now_ns) + PREEMPT_HOLD_NS, until_ns: 0 });
        }
    }

    /// The lease ran out before it was renewed, and no advert since says that another serves. One
    /// may be about to: so this node asks first and answers later.
    /// `until_ns` is what an advert is worth that was sent too late to renew it.
    fn lapse(&mut self, now_ns: u64, until_ns: u64) {
        self.announce_at_ns = None;
        self.actions.push_back(Action::SetLease { until_ns: 0 });
        self.set_claim(Claim::Hold { at_ns: now_ns + PREEMPT_HOLD_NS, until_ns });
        self.report(abi::State::Active, Reason::Lapsed);
        if now_ns + PREEMPT_HOLD_NS >= until_ns {
            self.advertise(now_ns);
        }
    }

    fn set_claim(&mut self, to: Claim) {
        if let State::Active { claim, .. } = &mut self.state {
            *claim = to;
        }
    }

    /// RFC 9568 6.4.3, Shutdown: silent first, then the word, then the addresses.
    fn shut_down(&mut self) {
        self.actions.push_back(Action::SetLease { until_ns: 0 });
        self.actions.push_back(Action::SendAdvert { priority: PRIORITY_RELEASE });
        self.actions.push_back(Action::DropAddresses);
        self.enter(State::Initialize, Reason::Shutdown);
    }

    /// Until when an Active without the kernel program waits for it: nothing would end its lease, so the addresses are to
    /// be off the interface before anybody else may take them.
    fn gives_up_at_ns(&self, until_ns: u64) -> u64 {
        until_ns.saturating_sub(interval_ns(self.parameters.advert_interval_cs))
    }

    /// The kernel program is missing, and not back in time. Nothing is released: this node is deaf, and somebody else may
    /// be Active by now, whom a release would get another one.
    fn lose_fence(&mut self) {
        self.give_up();
        self.enter(State::Fault, Reason::FenceLost);
    }

    fn give_up(&mut self) {
        self.actions.push_back(Action::SetLease { until_ns: 0 });
        self.actions.push_back(Action::DropAddresses);
    }

    fn enter(&mut self, state: State, reason: Reason) {
        let from = self.state();
        self.announce_at_ns = None;
        self.state = state;
        self.report(from, reason);
    }

    fn report(&mut self, from: abi::State, reason: Reason) {
        let to = self.state();
        self.report = Some(Transition { from, to, reason, last_sign_ns: self.last_sign_ns });
    }

    fn active_down_ns(&self, interval_cs: u16) -> u64 {
        active_down_ns(self.parameters.version, self.parameters.priority, interval_cs)
    }
}
