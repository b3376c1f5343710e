//! The budget for resets: token buckets, one for each CPU. What is stale is dropped above it; what lives never notices.

use failover_common::abi::{FlowOrigin, ResetBudget, StaleAction};
use failover_sim::segment::{ACK, RST, Segment};
use failover_tests::fixtures::{VIP, flow_key, frame, is_reset, passes_as, resetting_with, version_3};
use failover_tests::testrun::{Options, TestRun, Verdict, now_ns};
use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};

/// Keeps this thread on the CPU that it is on: each CPU has a bucket of its own.
fn stay_on_this_cpu() {
    let mut here = CpuSet::new();
    here.set(sched_getcpu());
    sched_setaffinity(None, &here).expect("a thread may stay where it is");
}

fn with_rate(resets_per_second: u64) -> Option<TestRun> {
    stay_on_this_cpu();
    resetting_with(&version_3(), Options { resets_per_second, ..Options::default() })
}

#[test]
fn above_the_budget_stale_segments_are_dropped() {
    // 100 a second: a burst of one, and the next token after 10 ms.
    let Some(mut node) = with_rate(100) else { return };
    let refill_ns = 10_000_000;
    let first = node.send(&frame("tcp ack"));
    assert!(first.counted_only(&["reset_unknown_flow"]), "a bucket starts full: {first:?}");
    let mut last = first;
    for round in 0.. {
        assert!(round < 1000, "two frames never took less than 10 ms");
        let outcome = node.send(&frame("tcp ack"));
        if outcome.clock.end() - last.clock.start() < refill_ns {
            assert_eq!((outcome.verdict, outcome.frame), (Verdict::Drop, frame("tcp ack")), "{:?}", outcome.counted);
            assert_eq!(outcome.counted, [("reset_budget_spent", 1)]);
            break;
        }
        // However long it took, no more than one token was there.
        if outcome.verdict == Verdict::Transmit {
            last = outcome;
        }
    }
}

/// A bucket that cannot fill before the next look: time runs back for it.
fn empty() -> ResetBudget {
    ResetBudget { tokens_nano: 0, filled_ns: u64::MAX }
}

#[test]
fn with_the_budget_spent_everything_else_goes_on_as_before() {
    let Some(mut node) = with_rate(100) else { return };
    passes_as(&mut node, "tcp syn, second address", "tcp_syn");
    let resets = |node: &mut TestRun, name: &str, verdict: Verdict| {
        node.flows.set_budgets(empty());
        let outcome = node.send(&frame(name));
        assert_eq!(outcome.verdict, verdict, "{name}: {:?}", outcome.counted);
        assert_eq!(outcome.frame, frame(name), "{name}");
        outcome.counted
    };
    assert_eq!(resets(&mut node, "tcp ack", Verdict::Drop), [("reset_budget_spent", 1)]);
    node.flows.add_flow(&flow_key(), FlowOrigin::Peer);
    assert_eq!(resets(&mut node, "tcp ack", Verdict::Drop), [("reset_budget_spent", 1)]);
    assert_eq!(resets(&mut node, "tcp second address", Verdict::Pass), [("tcp_handshake_seen", 1)]);
    assert_eq!(resets(&mut node, "tcp wrong checksum", Verdict::Pass), [("tcp_bad_checksum", 1)]);
    assert_eq!(resets(&mut node, "tcp rst", Verdict::Pass), [("tcp_reset", 1)]);
    assert_eq!(resets(&mut node, "tcp syn", Verdict::Pass), [("tcp_syn", 1)]);
    assert_eq!(resets(&mut node, "tcp ack", Verdict::Pass), [("tcp_handshake_seen", 1)]);
    assert_eq!(node.vip(VIP).resets, 0);
    // Silence costs no token.
    node.flows.forget_handshakes();
    node.edit(0, |entry| entry.stale.action = StaleAction::Drop);
    assert_eq!(resets(&mut node, "tcp ack", Verdict::Drop), [("stale_dropped", 1)]);
}

#[test]
fn a_flood_gets_a_burst_and_then_the_rate() {
    // 1,000 a second: a burst of ten, then one each millisecond.
    let Some(mut node) = with_rate(1_000) else { return };
    let stale = |port| Segment::from_port(port, ACK).frame();
    let started_ns = now_ns();
    let mut resets = 0;
    for port in 1..=2_000 {
        let outcome = node.send(&stale(port));
        match outcome.verdict {
            Verdict::Transmit => resets += 1,
            Verdict::Drop => assert!(outcome.counted_only(&["reset_budget_spent"]), "{:?}", outcome.counted),
            Verdict::Pass => panic!("neither answered nor dropped: {:?}", outcome.counted),
        }
    }
    let elapsed_ms = (now_ns() - started_ns) / 1_000_000;
    assert!((10..=11 + elapsed_ms).contains(&resets), "{resets} resets in {elapsed_ms} ms");
    assert_eq!(node.vip(VIP).resets, resets);
    let spent = node.counters().reset_budget_spent;
    assert_eq!(spent + resets, 2_000);
    // Only this CPU's bucket was touched.
    let touched = node.flows.budgets().iter().filter(|budget| budget.filled_ns != 0).count();
    assert_eq!(touched, 1);
}

#[test]
fn a_clients_reset_takes_no_token_and_wakes_no_flow() {
    let Some(mut node) = with_rate(100) else { return };
    for port in 1..100 {
        let outcome = node.send(&Segment::from_port(port, RST).frame());
        assert!(outcome.verdict == Verdict::Pass && outcome.counted_only(&["tcp_reset"]), "{outcome:?}");
    }
    assert!(node.flows.budgets().iter().all(|budget| *budget == ResetBudget::default()));
    assert_eq!(node.flows.handshakes(), 0);
    is_reset(&mut node, "tcp ack", "reset_unknown_flow");
}
