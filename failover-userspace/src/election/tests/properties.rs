//! Any sequence of inputs, and what must hold after each action of each step.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// 100 cs; every peer uses the same, so that three of them after an advert its sender is silent.
const INTERVAL: u64 = SECOND;

#[derive(Clone, Copy, Debug)]
enum Op {
    Advert {
        peer: usize,
        priority: u8,
        late_ns: u64,
    },
    Advance(u64),
    Timeout,
    /// Sleeps until the next deadline first, so that the protocol gets somewhere.
    DueTimeout,
    SendFails,
    SendOk,
    /// The next advert leaves that much later than it was asked for.
    SlowSend(u64),
    LinkUp,
    LinkDown,
    FenceBack,
    FenceLost,
    Conflict,
    Shutdown,
    Startup,
    Resume {
        left_ns: u64,
    },
}

const PEERS: [Address; 3] = [LESSER_ADDRESS, GREATER_ADDRESS, Address::from_ipv4([192, 0, 2, 200])];

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..PEERS.len(), prop_oneof![Just(0), Just(50), Just(99), Just(100), Just(101), Just(255)], 0..5 * MS)
            .prop_map(|(peer, priority, late_ns)| Op::Advert { peer, priority, late_ns }),
        4 => prop_oneof![0..3 * MS, 0..SECOND, 0..20 * SECOND].prop_map(Op::Advance),
        2 => Just(Op::Timeout),
        8 => Just(Op::DueTimeout),
        1 => Just(Op::SendFails),
        2 => Just(Op::SendOk),
        1 => prop_oneof![0..5 * MS, 0..10 * SECOND].prop_map(Op::SlowSend),
        1 => Just(Op::LinkUp),
        1 => Just(Op::LinkDown),
        2 => Just(Op::FenceBack),
        1 => Just(Op::FenceLost),
        1 => Just(Op::Conflict),
        1 => Just(Op::Shutdown),
        3 => Just(Op::Startup),
        1 => (1..4 * SECOND).prop_map(|left_ns| Op::Resume { left_ns }),
    ]
}

fn router() -> impl Strategy<Value = Parameters> {
    (
        prop_oneof![Just(2), Just(3)],
        prop_oneof![3 => Just(OWN_PRIORITY), 1 => Just(255)],
        any::<bool>(),
        prop_oneof![2 => Just(0), 1 => 0..10 * SECOND],
        prop::option::of(0..SECOND),
    )
        .prop_map(|(version, priority, preempt, preempt_delay_ns, turn_ns)| Parameters {
            version,
            priority,
            turn_ns,
            preempt,
            preempt_delay_ns,
            ..parameters()
        })
}

/// What one step did, for the comparison of two runs.
type Trace = Vec<(State, Option<u64>, Vec<Action>)>;

/// The router, the world around it, and a memory of its own of what happened.
struct Checker {
    election: Election,
    priority: u8,
    now: u64,
    /// The time that the router was told with the step at hand; a slow send makes `now` later.
    told: u64,
    sends: Sends,
    /// Whether the kernel program is there.
    is_fenced: bool,
    slow_send_ns: u64,
    /// What the kernel was last told, or found by `Resume`.
    lease_until: u64,
    addresses_taken: bool,
    announced_at: Option<u64>,
    /// `before_send_ns` of the adverts that left in this term as Active, and how many were tried.
    sent: Vec<u64>,
    tried: usize,
    /// Since when others can know that we want to serve and don't yet.
    asked_at: Option<u64>,
    /// Per peer: until when it may hold a lease.
    peers: [u64; PEERS.len()],
    /// The last advert heard was a release. Section 6.4.2 then lets us take over from whoever did
    /// not object; `lease` has a case for those who did not get round to it.
    released: bool,
    trace: Trace,
}

impl Checker {
    fn new(parameters: Parameters) -> Self {
        Self {
            priority: parameters.priority,
            election: Election::new(parameters),
            // Not 0: a lease of 0 and an early clock must not look alike.
            now: 1_000 * SECOND,
            told: 0,
            sends: Sends::Succeed,
            is_fenced: true,
            slow_send_ns: 0,
            lease_until: 0,
            addresses_taken: false,
            announced_at: None,
            sent: Vec::new(),
            tried: 0,
            asked_at: None,
            peers: [0; PEERS.len()],
            released: false,
            trace: Vec::new(),
        }
    }

    fn run(parameters: Parameters, ops: &[Op]) -> Self {
        let mut checker = Self::new(parameters);
        for op in ops {
            checker.step(*op);
        }
        checker
    }

    fn step(&mut self, op: Op) {
        let input = match op {
            Op::Advance(ns) => {
                self.now += ns;
                return;
            }
            Op::SendFails => {
                self.sends = Sends::Fail;
                return;
            }
            Op::SendOk => {
                self.sends = Sends::Succeed;
                return;
            }
            Op::SlowSend(ns) => {
                self.slow_send_ns = ns;
                return;
            }
            Op::Timeout => return self.timeout(),
            Op::DueTimeout => {
                self.now = self.now.max(self.election.next_deadline().unwrap_or(0));
                return self.timeout();
            }
            Op::Advert { peer, priority, late_ns } => {
                let received_at_ns = self.now;
                self.now += late_ns;
                self.remember(peer, priority, received_at_ns);
                Input::Advert(HeardAdvert { received_at_ns, source: PEERS[peer], priority, interval_cs: 100 })
            }
            Op::LinkUp => Input::LinkUp,
            Op::LinkDown => Input::LinkDown,
            Op::FenceBack | Op::FenceLost => {
                self.is_fenced = matches!(op, Op::FenceBack);
                if self.is_fenced { Input::FenceBack } else { Input::FenceLost }
            }
            Op::Conflict => Input::Conflict,
            Op::Shutdown => Input::Shutdown,
            Op::Startup => {
                self.is_fenced |= self.election.state() == State::Initialize;
                Input::Startup
            }
            Op::Resume { left_ns } => {
                if self.election.state() == State::Initialize {
                    self.is_fenced = true;
                    self.lease_until = self.now + left_ns;
                    self.addresses_taken = true;
                }
                Input::Resume { lease_until_ns: self.now + left_ns }
            }
        };
        let from = self.election.state();
        self.told = self.now;
        self.election.handle(self.told, input);
        self.apply(from, input == Input::Shutdown);
    }

    fn remember(&mut self, peer: usize, priority: u8, received_at_ns: u64) {
        self.peers[peer] = if priority == 0 { 0 } else { received_at_ns + 3 * INTERVAL };
        self.released = priority == 0;
    }

    fn timeout(&mut self) {
        let from = self.election.state();
        let due = self.election.next_deadline();
        let lapsed = from == State::Active && self.lease_until != 0 && self.now >= self.lease_until;
        self.told = self.now;
        self.election.handle_timeout(self.told);
        let acted = self.apply(from, false);
        if due.is_none_or(|due| self.told < due) && !lapsed {
            assert!(!acted && self.election.next_deadline() == due, "an early timeout changed something");
        }
        if let Some(next) = self.election.next_deadline() {
            assert!(next > self.told, "due again at {next}, now is {}", self.told);
        }
        // What a second call at the same time does: nothing.
        let next = self.election.next_deadline();
        self.election.handle_timeout(self.told);
        assert_eq!(self.election.poll_action(), None, "a repeated timeout acted");
        assert_eq!(self.election.next_deadline(), next);
    }

    /// Polls and applies everything, and checks it. Says whether there was anything.
    fn apply(&mut self, from: State, shutdown: bool) -> bool {
        if from != State::Active {
            self.sent.clear();
            self.tried = 0;
            self.asked_at = None;
        }
        let mut actions = Vec::new();
        while let Some(action) = self.election.poll_action() {
            assert!(!matches!(actions.last(), Some(Action::Report(_))), "{action:?} after the report");
            actions.push(action);
            assert!(actions.len() <= 8, "too many actions: {actions:?}");
            match action {
                Action::SendAdvert { priority } => self.send(priority, from, shutdown),
                Action::SetLease { until_ns: 0 } => self.lease_until = 0,
                Action::SetLease { until_ns } => self.check_lease(until_ns, from),
                Action::TakeAddresses => {
                    assert!(self.lease_until > self.now, "addresses without a lease");
                    self.addresses_taken = true;
                }
                Action::DropAddresses => {
                    assert_eq!(self.lease_until, 0, "the addresses went before the lease");
                    self.addresses_taken = false;
                }
                Action::Announce => self.check_announcement(),
                Action::Report(transition) => {
                    assert_eq!((transition.from, transition.to), (from, self.election.state()));
                    assert!(transition.last_sign_ns.is_none_or(|sign| sign <= self.now));
                }
            }
        }
        let sends = actions.iter().filter(|action| matches!(action, Action::SendAdvert { .. })).count();
        assert!(sends <= 1, "{actions:?}");
        self.check_state(from, &actions);
        self.trace.push((self.election.state(), self.election.next_deadline(), actions.clone()));
        !actions.is_empty()
    }

    fn send(&mut self, priority: u8, from: State, shutdown: bool) {
        self.now += std::mem::take(&mut self.slow_send_ns);
        // The driver lets none out that claims or renews while the program is missing.
        let goes_out = self.sends == Sends::Succeed && self.is_fenced;
        let answer = if goes_out { Input::AdvertSent { before_send_ns: self.now } } else { Input::AdvertFailed };
        if priority == 0 {
            assert!(shutdown && from == State::Active, "a release from {from:?}");
            assert_eq!(self.lease_until, 0, "released before the lease was ended");
        } else if from == State::Active && self.election.state() == State::Backup {
            assert_eq!(self.lease_until, 0, "the last word before the lease was ended");
        } else {
            assert_eq!(self.election.state(), State::Active, "only an Active advertises");
            assert_eq!(priority, self.priority);
            self.tried += 1;
            if goes_out {
                self.sent.push(self.now);
                if self.now >= self.lease_until {
                    self.asked_at = self.asked_at.or(Some(self.now));
                }
            }
        }
        self.election.handle(self.now, answer);
    }

    fn check_lease(&mut self, until_ns: u64, from: State) {
        assert_eq!(self.election.state(), State::Active);
        assert!(self.is_fenced, "a lease without a fence");
        let send = until_ns - 3 * INTERVAL;
        assert!(self.sent.contains(&send), "a lease of {until_ns} from no advert of {:?}", self.sent);
        let renewal = send < self.lease_until;
        let held = self.asked_at.is_some_and(|asked_at| self.now >= asked_at + HOLD);
        if !renewal && !held {
            // At once: only out of Backup, only with the first advert, only when everybody is silent.
            assert_eq!(from, State::Backup, "leased at once without a takeover");
            assert_eq!(self.tried, 1, "leased at once with a second advert");
            for (peer, lease_end) in self.peers.into_iter().enumerate() {
                assert!(self.released || self.now >= lease_end, "leased at once while peer {peer} may be serving");
            }
        }
        self.lease_until = until_ns;
        self.asked_at = None;
    }

    fn check_announcement(&mut self) {
        assert!(self.told < self.lease_until, "announced without a lease");
        assert!(self.announced_at.is_none_or(|at| self.told >= at + 100 * MS), "announced too often");
        self.announced_at = Some(self.told);
    }

    fn check_state(&self, from: State, actions: &[Action]) {
        let state = self.election.state();
        if state != State::Active {
            assert_eq!(self.lease_until, 0, "{state:?} with a lease");
            assert!(!self.addresses_taken, "{state:?} with addresses");
        }
        match state {
            State::Backup | State::Active => assert!(self.election.next_deadline().is_some(), "{state:?} sleeps"),
            State::Initialize | State::Fault => assert_eq!(self.election.next_deadline(), None),
        }
        if from != state {
            assert!(matches!(actions.last(), Some(Action::Report(_))), "{from:?} to {state:?} unreported");
        }
    }

    /// Nobody else is left and the socket works: it must serve, soon.
    fn must_serve_in_the_end(&mut self) {
        self.step(Op::Startup);
        self.step(Op::LinkUp);
        self.step(Op::FenceBack);
        self.step(Op::SendOk);
        self.step(Op::SlowSend(0));
        assert!(matches!(self.election.state(), State::Backup | State::Active));
        // Takeover, a retry, a lapse for want of earlier ones, a hold begun in vain, the hold.
        for _ in 0..8 {
            self.step(Op::DueTimeout);
        }
        assert_eq!(self.election.state(), State::Active);
        assert!(self.now < self.lease_until && self.addresses_taken, "nobody serves");
        // And stay so.
        for _ in 0..10 {
            self.step(Op::DueTimeout);
            assert!(self.now < self.lease_until);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_of_inputs_breaks_a_rule(parameters in router(), ops in vec(op(), 1..60)) {
        let mut checker = Checker::run(parameters, &ops);
        checker.must_serve_in_the_end();
    }

    #[test]
    fn the_same_inputs_give_the_same_actions(parameters in router(), ops in vec(op(), 1..60)) {
        let once = Checker::run(parameters.clone(), &ops);
        let again = Checker::run(parameters, &ops);
        prop_assert_eq!(once.trace, again.trace);
    }
}
