//! The node of ring 2, and what is expected of one frame. The frames themselves are `failover_sim::fixtures`.

use failover_common::abi::{Settings, StaleAction, Takeover};
pub use failover_sim::fixtures::*;

use crate::testrun::{Options, TestRun, Verdict, now_ns};

/// A lease that no test outlives.
pub const LONG_NS: u64 = 600_000_000_000;

/// A node with one virtual router of these settings, at index 0, and both virtual addresses, without a lease. `None`:
/// the test is skipped, as said on standard error.
pub fn backup(settings: &Settings) -> Option<TestRun> {
    let mut node = TestRun::load(Options::default())?;
    node.configure(0, settings, &[VIP, SECOND_VIP]);
    Some(node)
}

/// The same with a live lease.
pub fn active(settings: &Settings) -> Option<TestRun> {
    let mut node = backup(settings)?;
    node.give_lease(0, LONG_NS);
    Some(node)
}

/// The same, just made Active, that resets what is stale.
pub fn resetting(settings: &Settings) -> Option<TestRun> {
    resetting_with(settings, Options::default())
}

/// The same, loaded in that way.
pub fn resetting_with(settings: &Settings, options: Options) -> Option<TestRun> {
    let mut node = TestRun::load(options)?;
    node.configure(0, settings, &[VIP, SECOND_VIP]);
    node.edit(0, |entry| {
        entry.stale.action = StaleAction::Reset;
        entry.takeover = Takeover { at_ns: now_ns(), missed_before: 0 };
    });
    node.give_lease(0, LONG_NS);
    Some(node)
}

/// Sends the frame and expects it to go on, `counter` one higher, and nothing told.
///
/// # Panics
/// When something else happens.
#[track_caller]
pub fn passes_as(node: &mut TestRun, name: &str, counter: &str) {
    nothing_happens(node, name, Verdict::Pass, &[counter]);
}

/// Sends the frame and expects the reset that `data/tcp_frames.py` has for it, and `counter` one higher.
///
/// # Panics
/// When something else happens.
#[track_caller]
pub fn is_reset(node: &mut TestRun, name: &str, counter: &str) {
    let outcome = node.send(&frame(name));
    assert_eq!(outcome.verdict, Verdict::Transmit, "{name}: counted {:?}", outcome.counted);
    assert_eq!(outcome.frame, frame(&format!("{name}, reset")), "{name}");
    assert!(outcome.counted_only(&[counter]), "{name}: expected {counter}, counted {:?}", outcome.counted);
    assert_eq!(outcome.events, [], "{name}");
}

/// Sends the frame and expects it to go on as if the program were not there.
///
/// # Panics
/// When it does not.
#[track_caller]
pub fn passes(node: &mut TestRun, name: &str) {
    nothing_happens(node, name, Verdict::Pass, &[]);
}

/// Sends the frame and expects it dropped, `counter` one higher, and nothing told.
///
/// # Panics
/// When something else happens.
#[track_caller]
pub fn dropped(node: &mut TestRun, name: &str, counter: &str) {
    nothing_happens(node, name, Verdict::Drop, &[counter]);
}

#[track_caller]
fn nothing_happens(node: &mut TestRun, name: &str, verdict: Verdict, counters: &[&str]) {
    let sent = frame(name);
    let outcome = node.send(&sent);
    assert_eq!(outcome.verdict, verdict, "{name}: counted {:?}", outcome.counted);
    assert_eq!(outcome.frame, sent, "{name}: changed");
    assert!(outcome.counted_only(counters), "{name}: expected {counters:?}, counted {:?}", outcome.counted);
    assert_eq!(outcome.events, [], "{name}");
}
