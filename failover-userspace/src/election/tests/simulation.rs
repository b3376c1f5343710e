//! Three routers, their kernels and one wire, on one clock. No message is lost; each takes 50 us.
//!
//! The kernel's part is what `failover_common::lease` says: it hears every advert, whatever the
//! controller does, and remembers the last one that beats its router. The one thing that must
//! never happen is checked after every event: two kernels answering.

use failover_common::lease::{beats, is_live};

use super::*;

const LATENCY: u64 = 50 * US;

/// Priorities far enough apart for their skews (1 s / 256 each) to outlast the wire.
const PRIORITIES: [u8; 3] = [200, 150, 100];
const A: usize = 0;
const B: usize = 1;
const C: usize = 2;

/// What the frame path keeps for one router.
#[derive(Clone, Copy, Default)]
struct Kernel {
    lease_until_ns: u64,
    claimed_after_ns: u64,
    last_superior_ns: u64,
}

struct Router {
    parameters: Parameters,
    /// `None`: crashed. Its kernel lives on.
    controller: Option<Election>,
    kernel: Kernel,
    /// Adverts that the kernel has seen and the controller has not.
    ring: Vec<HeardAdvert>,
    /// The controller does nothing until then.
    stalled_until: u64,
}

impl Router {
    fn is_live(&self, now: u64) -> bool {
        let Kernel { lease_until_ns, claimed_after_ns, last_superior_ns } = self.kernel;
        is_live(now, lease_until_ns, claimed_after_ns, last_superior_ns)
    }

    /// When its controller has something to do.
    fn wakes_at(&self, now: u64) -> Option<u64> {
        let deadline = self.controller.as_ref()?.next_deadline();
        let due = if self.ring.is_empty() { deadline } else { Some(now) };
        due.map(|due| due.max(self.stalled_until).max(now))
    }
}

struct World {
    now: u64,
    routers: Vec<Router>,
    /// In flight, in the order of arrival: the latency is the same for all.
    wire: Vec<(u64, usize, HeardAdvert)>,
    /// When which router began to answer.
    began: Vec<(u64, usize)>,
    reasons: Vec<(u64, usize, Reason)>,
}

impl World {
    /// Everybody starts at 0.
    fn new(preempt: bool) -> Self {
        Self::with_priorities(PRIORITIES, preempt)
    }

    fn with_priorities(priorities: [u8; 3], preempt: bool) -> Self {
        let router = |(last_byte, priority)| Router {
            parameters: Parameters {
                own_address: Address::from_ipv4([192, 0, 2, last_byte]),
                priority,
                preempt,
                ..parameters()
            },
            controller: None,
            kernel: Kernel::default(),
            ring: Vec::new(),
            stalled_until: 0,
        };
        let routers = (1..).zip(priorities).map(router).collect();
        let mut world = Self { now: 0, routers, wire: Vec::new(), began: Vec::new(), reasons: Vec::new() };
        for index in [A, B, C] {
            world.start(index);
        }
        world
    }

    /// A new controller, as the driver starts it: resuming when it finds its lease live.
    fn start(&mut self, index: usize) {
        let router = &mut self.routers[index];
        router.controller = Some(Election::new(router.parameters.clone()));
        router.ring.clear();
        let lease_until_ns = router.kernel.lease_until_ns;
        let input = if router.is_live(self.now) { Input::Resume { lease_until_ns } } else { Input::Startup };
        self.input(index, input);
    }

    fn crash(&mut self, index: usize) {
        self.routers[index].controller = None;
        self.routers[index].ring.clear();
    }

    fn stall(&mut self, index: usize, until: u64) {
        self.routers[index].stalled_until = until;
    }

    fn input(&mut self, index: usize, input: Input) {
        let claimed_after_ns = self.routers[index].kernel.last_superior_ns;
        if let Some(controller) = &mut self.routers[index].controller {
            controller.handle(self.now, input);
        }
        self.apply(index, claimed_after_ns);
    }

    /// One wake-up of a controller: the ring first, then the clock.
    fn wake(&mut self, index: usize) {
        let claimed_after_ns = self.routers[index].kernel.last_superior_ns;
        for heard in std::mem::take(&mut self.routers[index].ring) {
            if let Some(controller) = &mut self.routers[index].controller {
                controller.handle(self.now, Input::Advert(heard));
            }
            self.apply(index, claimed_after_ns);
        }
        if let Some(controller) = &mut self.routers[index].controller {
            controller.handle_timeout(self.now);
        }
        self.apply(index, claimed_after_ns);
    }

    fn apply(&mut self, index: usize, claimed_after_ns: u64) {
        let now = self.now;
        let router = &mut self.routers[index];
        let Some(controller) = &mut router.controller else { return };
        let was_live = router.kernel;
        while let Some(action) = controller.poll_action() {
            match action {
                Action::SendAdvert { priority } => {
                    let heard = HeardAdvert {
                        received_at_ns: now + LATENCY,
                        source: router.parameters.own_address,
                        priority,
                        interval_cs: router.parameters.advert_interval_cs,
                    };
                    self.wire.push((now + LATENCY, index, heard));
                    controller.handle(now, Input::AdvertSent { before_send_ns: now });
                }
                Action::SetLease { until_ns } => {
                    router.kernel.lease_until_ns = until_ns;
                    router.kernel.claimed_after_ns = claimed_after_ns;
                }
                Action::Report(transition) => self.reasons.push((now, index, transition.reason)),
                Action::TakeAddresses | Action::DropAddresses | Action::Announce => {}
            }
        }
        let Kernel { lease_until_ns, claimed_after_ns, last_superior_ns } = was_live;
        let began = router.is_live(now) && !is_live(now, lease_until_ns, claimed_after_ns, last_superior_ns);
        if began {
            self.began.push((now, index));
        }
        self.check();
    }

    fn deliver(&mut self, from: usize, heard: HeardAdvert) {
        for (index, router) in self.routers.iter_mut().enumerate() {
            if index == from {
                continue;
            }
            let own = &router.parameters;
            if beats(heard.priority, &heard.source, own.priority, &own.own_address) {
                router.kernel.last_superior_ns = self.now;
            }
            if router.controller.is_some() {
                router.ring.push(heard);
            }
        }
    }

    fn check(&self) {
        let live: Vec<_> = (0..self.routers.len()).filter(|index| self.routers[*index].is_live(self.now)).collect();
        assert!(live.len() <= 1, "{live:?} all answer at {}\n{:#?}", self.now, self.reasons);
    }

    fn run_until(&mut self, end: u64) {
        let mut events_now = 0;
        loop {
            let arrival = self.wire.first().map(|(at, ..)| *at);
            let wakes = self.routers.iter().filter_map(|router| router.wakes_at(self.now));
            let Some(next) = wakes.chain(arrival).min().filter(|next| *next <= end) else { break };
            events_now = if next == self.now { events_now + 1 } else { 0 };
            assert!(events_now < 20, "time stands still at {next}");
            self.now = next;
            while self.wire.first().is_some_and(|(at, ..)| *at <= next) {
                let (_, from, heard) = self.wire.remove(0);
                self.deliver(from, heard);
            }
            self.check();
            for index in 0..self.routers.len() {
                if self.routers[index].wakes_at(next).is_some_and(|at| at <= next) {
                    self.wake(index);
                }
            }
        }
        self.now = end;
        self.check();
    }

    fn states(&self) -> Vec<Option<State>> {
        self.routers.iter().map(|router| router.controller.as_ref().map(Election::state)).collect()
    }

    fn live(&self) -> Option<usize> {
        self.routers.iter().position(|router| router.is_live(self.now))
    }
}

/// A's Active_Down_Interval: 3 s + 56/256 s. Everybody started at 0 and nobody is there, so A, the
/// first to time out, sends its first advert then, and one every second after that.
const A_TAKES_OVER: u64 = 3_218_750_000;

const SETTLED: [Option<State>; 3] = [Some(State::Active), Some(State::Backup), Some(State::Backup)];

#[test]
fn the_highest_priority_serves_after_three_intervals_and_its_skew() {
    let mut world = World::new(true);
    world.run_until(60 * SECOND);
    assert_eq!(world.began, [(A_TAKES_OVER, A)]);
    assert_eq!(world.states(), SETTLED);
}

#[test]
fn a_crashed_active_is_replaced_by_the_second_best_at_the_time_the_rfc_says() {
    let mut world = World::new(true);
    world.run_until(10 * SECOND);
    world.crash(A);
    // A's last advert left at 9.218750 s and was heard at 9.218800 s; its lease ends at 12.218750 s.
    world.run_until(12_218_750_000 - 1);
    assert_eq!(world.live(), Some(A), "the lease outlives the controller");
    world.run_until(12_218_750_000);
    assert_eq!(world.live(), None);
    // B waits 3 s + 106/256 s = 3.4140625 s from 9.218800 s.
    world.run_until(60 * SECOND);
    assert_eq!(world.began, [(A_TAKES_OVER, A), (12_632_862_500, B)]);
    assert_eq!(world.states(), [None, Some(State::Active), Some(State::Backup)]);
}

#[test]
fn when_both_better_routers_are_gone_the_third_serves() {
    let mut world = World::new(true);
    world.run_until(10 * SECOND);
    world.crash(A);
    world.crash(B);
    // C waits 3 s + 156/256 s = 3.609375 s from 9.218800 s.
    world.run_until(60 * SECOND);
    assert_eq!(world.began, [(A_TAKES_OVER, A), (12_828_175_000, C)]);
}

#[test]
fn a_router_that_comes_back_preempts_two_milliseconds_after_its_first_advert() {
    let mut world = World::new(true);
    world.run_until(10 * SECOND);
    world.crash(A);
    world.run_until(20 * SECOND);
    world.start(A);
    // Its timer runs from 20 s to 23.218750 s, its advert reaches B at 23.218800 s, its lease
    // begins at 23.220750 s.
    world.run_until(23_218_800_000 - 1);
    assert_eq!(world.live(), Some(B));
    world.run_until(23_218_800_000);
    assert_eq!(world.live(), None);
    world.run_until(60 * SECOND);
    assert_eq!(world.began, [(A_TAKES_OVER, A), (12_632_862_500, B), (23_220_750_000, A)]);
    assert_eq!(world.states(), SETTLED);
}

#[test]
fn without_preempt_mode_a_router_that_comes_back_leaves_things_as_they_are() {
    let mut world = World::new(false);
    world.run_until(10 * SECOND);
    world.crash(A);
    world.run_until(20 * SECOND);
    world.start(A);
    world.run_until(60 * SECOND);
    assert_eq!(world.began, [(A_TAKES_OVER, A), (12_632_862_500, B)]);
    assert_eq!(world.states(), [Some(State::Backup), Some(State::Active), Some(State::Backup)]);
}

#[test]
fn a_controller_restarted_within_its_lease_goes_on_as_if_nothing_had_happened() {
    let mut world = World::new(true);
    world.run_until(10 * SECOND);
    world.crash(A);
    world.run_until(12 * SECOND);
    world.start(A);
    world.run_until(60 * SECOND);
    assert_eq!(world.began, [(A_TAKES_OVER, A)]);
    assert_eq!(world.states(), SETTLED);
}

#[test]
fn a_release_is_followed_by_the_second_best_after_its_skew() {
    let mut world = World::new(true);
    world.run_until(10 * SECOND);
    world.input(A, Input::Shutdown);
    assert_eq!(world.live(), None);
    // Heard at 10.000050 s, and 106/256 s = 414.0625 ms later.
    world.run_until(60 * SECOND);
    assert_eq!(world.began, [(A_TAKES_OVER, A), (10_414_112_500, B)]);
}

#[test]
fn an_active_that_stalls_for_ten_seconds_steps_back_before_it_preempts_again() {
    let mut world = World::new(true);
    world.run_until(10 * SECOND);
    world.stall(A, 20 * SECOND);
    world.run_until(20 * SECOND - 1);
    assert_eq!(world.live(), Some(B));
    assert_eq!(world.states()[A], Some(State::Active), "it cannot know");
    world.run_until(60 * SECOND);
    assert_eq!(world.began[..2], [(A_TAKES_OVER, A), (12_632_862_500, B)]);
    let b = world.routers[B].parameters.own_address;
    assert!(world.reasons.contains(&(20 * SECOND, A, Reason::LapsedToOther { source: b })), "{:?}", world.reasons);
    // Once more in its place, through advert and hold, and no sooner than that.
    assert_eq!(world.began.len(), 3, "{:?}", world.began);
    assert!(world.began[2].1 == A && world.began[2].0 >= 20 * SECOND + HOLD, "{:?}", world.began);
    assert_eq!(world.states(), SETTLED);
}

#[test]
fn without_preempt_mode_an_active_that_stalled_leaves_the_addresses_where_they_went() {
    let mut world = World::new(false);
    world.run_until(10 * SECOND);
    world.stall(A, 20 * SECOND);
    world.run_until(60 * SECOND);
    assert_eq!(world.began, [(A_TAKES_OVER, A), (12_632_862_500, B)]);
    assert_eq!(world.states(), [Some(State::Backup), Some(State::Active), Some(State::Backup)]);
}

#[test]
fn an_active_that_stalled_and_heard_nothing_still_waits_for_the_others_kernel_to_let_go() {
    let mut world = World::new(true);
    world.run_until(10 * SECOND);
    world.stall(A, 20 * SECOND);
    world.run_until(20 * SECOND - 1);
    // Whatever told it about B is lost.
    world.routers[A].ring.clear();
    world.run_until(60 * SECOND);
    assert_eq!(world.began, [(A_TAKES_OVER, A), (12_632_862_500, B), (20 * SECOND + HOLD, A)]);
    assert!(world.reasons.contains(&(20 * SECOND, A, Reason::Lapsed)), "{:?}", world.reasons);
    assert_eq!(world.states(), SETTLED);
}

#[test]
fn a_backup_that_stalled_past_its_deadline_deposes_nobody() {
    let mut world = World::new(true);
    world.run_until(10 * SECOND);
    world.stall(B, 20 * SECOND);
    world.run_until(60 * SECOND);
    assert_eq!(world.began, [(A_TAKES_OVER, A)]);
    assert_eq!(world.states(), SETTLED);
}

#[test]
fn a_backup_that_is_late_does_not_lease_while_a_lower_one_has_just_begun() {
    let mut world = World::new(true);
    world.run_until(10 * SECOND);
    world.crash(A);
    // C takes over at 12.828175 s because B sleeps; B wakes 25 us later, 25 us before C's advert arrives.
    world.stall(B, 12_828_200_000);
    world.run_until(20 * SECOND);
}
