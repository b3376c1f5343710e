//! Ring 3: the simulation. Thirty thousand seeds hold; the same seed is the same run; and what the simulation found in the
//! product stays found, each a case with a name.
//!
//! That it can fail is shown by `cargo xtask sim --mutants`. Deliberately absent: the simulation itself
//! (`failover_sim`).

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use failover_sim::{Fault, Kind, MS, NodePlan, SECOND, Scenario, Totals, play, shrink};

/// How many seeds are played.
const SEEDS: u64 = 30_000;

#[test]
fn thirty_thousand_seeds_hold() {
    let (next, totals) = (AtomicU64::new(1), Mutex::new(Totals::default()));
    let run = || {
        let mut own = Totals::default();
        while let seed = next.fetch_add(1, Ordering::Relaxed)
            && seed <= SEEDS
        {
            let outcome = play(&Scenario::draw(seed)).unwrap_or_else(|failure| panic!("{}", shrink(failure)));
            own.add(&outcome.totals);
        }
        totals.lock().unwrap().add(&own);
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(run);
        }
    });
    let totals = totals.into_inner().unwrap();
    println!("measured: {SEEDS} seeds, {totals}");
    // Else nothing was simulated that could go wrong.
    assert!(totals.takeovers > SEEDS && totals.lost > SEEDS && totals.doubles > 0, "{totals}");
}

#[test]
fn the_same_seed_is_the_same_run_and_another_is_not() {
    let digest =
        |seed| play(&Scenario::draw(seed)).map(|outcome| outcome.digest).unwrap_or_else(|failure| panic!("{failure}"));
    for seed in 1..100 {
        assert_eq!(digest(seed), digest(seed), "seed {seed}");
        assert_ne!(digest(seed), digest(seed + 1), "seed {seed}");
    }
}

/// A router that preempts, with a clock as good as the world's.
fn router(priority: u8, interval_cs: u16) -> NodePlan {
    NodePlan {
        is_keepalived: false,
        priority,
        interval_cs,
        preempt: true,
        preempt_delay_ms: 0,
        drift_ppm: 0,
        clock_start_ns: SECOND,
        start_ns: Some(0),
    }
}

fn scenario(nodes: impl Into<Vec<NodePlan>>, faults: impl Into<Vec<Fault>>) -> Scenario {
    Scenario { seed: 1, version: 3, nodes: nodes.into(), ring_events: 1000, faults: faults.into() }
}

fn fault(at_ms: u64, for_ms: u64, kind: Kind) -> Fault {
    Fault { at_ns: at_ms * MS, for_ns: for_ms * MS, kind }
}

fn holds(scenario: &Scenario) {
    if let Err(failure) = play(scenario) {
        panic!("{failure}");
    }
}

/// Its advert left when a lower router had taken over, who gave way; then it went to listen, and nobody answered for an
/// Active_Down_Interval.
#[test]
fn an_active_that_is_stalled_inside_a_send_serves_again() {
    for calls in 1..=12 {
        let stall = fault(1_000, 5_400, Kind::Stall { node: 0, calls });
        holds(&scenario([router(254, 100), router(244, 100)], [Fault { at_ns: stall.at_ns + 4 * SECOND, ..stall }]));
    }
}

/// It took the lease at once when it woke, since the hold that began with its advert was long over; so was the advert.
#[test]
fn a_router_that_is_stalled_while_it_preempts_asks_again() {
    for calls in 1..=12 {
        let late_start = NodePlan { start_ns: Some(2 * SECOND), ..router(104, 100) };
        let stall = fault(6_300, 5_600, Kind::Stall { node: 0, calls });
        holds(&scenario([late_start, router(6, 100)], [Fault { at_ns: stall.at_ns - 950 * MS, ..stall }]));
    }
}

/// The kernel tells of one advert in a millisecond. The second of two Backups that had taken over behind a cut was not
/// answered until the Active's next advert.
#[test]
fn two_lower_routers_that_speak_within_a_millisecond_are_both_answered() {
    let cut = |from, to| fault(2_000, 4_000, Kind::Cut { from, to });
    let nodes = [router(200, 10), router(100, 10), router(99, 10)];
    for seed in 1..=20 {
        let cuts = [cut(0, 1), cut(0, 2), cut(1, 2), cut(2, 1)];
        holds(&Scenario { seed, ..scenario(nodes.clone(), cuts) });
    }
}

/// What had been heard before the link went was told after it had come back, and put the timer back.
#[test]
fn a_link_that_was_down_for_a_while_is_a_new_start() {
    let faults = [fault(10_200, 1_500, Kind::LinkDown { node: 1 }), fault(11_000, 60_000, Kind::Crash { node: 0 })];
    holds(&scenario([router(204, 100), router(79, 100)], faults));
}

/// Each lower advert put the timer back until the delay was over, and the delay began with the first that was told, which
/// after a restart is not the first that came.
#[test]
fn a_preempt_delay_is_not_longer_than_it_says() {
    let delayed = NodePlan { preempt_delay_ms: 3_400, ..router(155, 100) };
    holds(&scenario([delayed, router(104, 100)], [fault(10_000, 9_000, Kind::Crash { node: 0 })]));
}

/// A lower router had spoken up once, so that one was left alone for the delay although the Active had just given up.
#[test]
fn a_release_ends_the_preempt_delay() {
    let nodes = [NodePlan { preempt_delay_ms: 4_900, ..router(68, 100) }, router(203, 100), router(33, 100)];
    let faults =
        [fault(6_600, 5_300, Kind::Freeze { node: 2, calls: 0 }), fault(12_300, 9_000, Kind::Stop { node: 1 })];
    holds(&scenario(nodes, faults));
}
