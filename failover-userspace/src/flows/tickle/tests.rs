//! The pacing of the rounds: times by hand, then any pattern of stalls.

use std::collections::HashMap;

use failover_common::address::Address;
use proptest::prelude::*;

use super::*;

const MS: u64 = 1_000_000;

/// What was sent: when, to which flow.
type Log = Vec<(u64, u16, Segment)>;

fn key(port: u16) -> FlowKey {
    FlowKey {
        local: Address::from_ipv4([192, 0, 2, 10]),
        remote: Address::from_ipv4([198, 51, 100, 7]),
        local_port: 80,
        remote_port: port,
    }
}

fn unknown(ports: std::ops::Range<u16>) -> impl Iterator<Item = (FlowKey, Option<u32>)> {
    ports.map(|port| (key(port), None))
}

fn run(rounds: &mut Rounds, now_ns: u64) -> Log {
    let mut log = Vec::new();
    let send = |key: &FlowKey, segment| {
        log.push((now_ns, key.remote_port, segment));
        Sent::Out
    };
    rounds.run(now_ns, |_| true, send);
    log
}

/// The ports of what a run sent.
fn ports(log: &Log) -> Vec<u16> {
    log.iter().map(|(_, port, _)| *port).collect()
}

#[test]
fn a_flow_gets_three_tickles_600_ms_apart() {
    let mut rounds = Rounds::default();
    assert_eq!(rounds.next_ns(), None);
    rounds.add(5 * MS, unknown(1..3));
    for at_ms in [5, 605, 1205] {
        assert_eq!(rounds.next_ns(), Some(at_ms * MS));
        assert_eq!(run(&mut rounds, at_ms * MS - 1), []);
        let tickle = Segment::Tickle(None);
        assert_eq!(run(&mut rounds, at_ms * MS), [(at_ms * MS, 1, tickle), (at_ms * MS, 2, tickle)]);
    }
    assert_eq!(rounds.next_ns(), None);
}

#[test]
fn a_known_number_makes_a_reset_before_the_first_tickle() {
    let mut rounds = Rounds::default();
    rounds.add(0, [(key(1), Some(77)), (key(2), None)]);
    let tickle = Segment::Tickle(Some(77));
    assert_eq!(run(&mut rounds, 0), [(0, 1, Segment::Reset(77)), (0, 1, tickle), (0, 2, Segment::Tickle(None))]);
    for at_ns in [600 * MS, 1_200 * MS] {
        assert_eq!(run(&mut rounds, at_ns), [(at_ns, 1, tickle), (at_ns, 2, Segment::Tickle(None))]);
    }
    assert_eq!(rounds.next_ns(), None);
}

#[test]
fn a_slice_has_a_hundred_packets_and_a_stall_makes_up_for_ten_slices() {
    let mut rounds = Rounds::default();
    rounds.add(0, unknown(0..2_500));
    assert_eq!(ports(&run(&mut rounds, 0)), (0..100).collect::<Vec<_>>());
    assert_eq!(rounds.next_ns(), Some(MS));
    assert_eq!(ports(&run(&mut rounds, MS - 1)), [] as [u16; 0]);
    // The slices of 1, 2 and 3 ms.
    assert_eq!(ports(&run(&mut rounds, 3 * MS + 500_000)), (100..400).collect::<Vec<_>>());
    assert_eq!(rounds.next_ns(), Some(4 * MS));
    assert_eq!(ports(&run(&mut rounds, 100 * MS)), (400..1_400).collect::<Vec<_>>());
    assert_eq!(rounds.next_ns(), Some(101 * MS));
    assert_eq!(ports(&run(&mut rounds, 101 * MS)), (1_400..1_500).collect::<Vec<_>>());
    // The second round of the first hundred waits behind the first round of the rest.
    assert_eq!(ports(&run(&mut rounds, 601 * MS)), (1_500..2_500).collect::<Vec<_>>());
    assert_eq!(ports(&run(&mut rounds, 602 * MS)), (0..100).collect::<Vec<_>>());
    // The next were told at 3.5 ms.
    assert_eq!(rounds.next_ns(), Some(603 * MS + 500_000));
}

#[test]
fn a_time_without_work_is_not_made_up_for() {
    let mut rounds = Rounds::default();
    rounds.add(0, unknown(0..1));
    assert_eq!(ports(&run(&mut rounds, 0)), [0]);
    rounds.add(300 * MS, unknown(1..201));
    assert_eq!(rounds.next_ns(), Some(300 * MS));
    assert_eq!(run(&mut rounds, 300 * MS).len(), 100);
    assert_eq!(rounds.next_ns(), Some(301 * MS));
}

#[test]
fn a_reset_and_its_tickle_are_not_parted_by_a_slice() {
    let mut rounds = Rounds::default();
    rounds.add(0, unknown(0..1));
    rounds.add(0, (1..60).map(|port| (key(port), Some(7))));
    // 1 and 49 times 2; one packet more would fit.
    assert_eq!(run(&mut rounds, 0).len(), 99);
    assert_eq!(run(&mut rounds, MS)[..2], [(MS, 50, Segment::Reset(7)), (MS, 50, Segment::Tickle(Some(7)))]);
}

#[test]
fn where_there_was_no_room_it_goes_on_with_the_next_slice() {
    let mut rounds = Rounds::default();
    rounds.add(0, [(key(1), Some(7)), (key(2), None)]);
    let mut sent = Vec::new();
    // No room for the second packet, at first.
    for (at_ns, room) in [(0, 1), (MS, 0), (2 * MS, 9)] {
        assert_eq!(rounds.next_ns(), Some(at_ns));
        let mut room = room;
        let send = |key: &FlowKey, segment| {
            if room == 0 {
                return Sent::Later;
            }
            room -= 1;
            sent.push((at_ns, key.remote_port, segment));
            Sent::Out
        };
        rounds.run(at_ns, |_| true, send);
    }
    let expected =
        [(0, 1, Segment::Reset(7)), (2 * MS, 1, Segment::Tickle(Some(7))), (2 * MS, 2, Segment::Tickle(None))];
    assert_eq!(sent, expected);
    // The gap counts from what was sent.
    assert_eq!(rounds.next_ns(), Some(602 * MS));
}

#[test]
fn who_cannot_be_reached_is_tried_in_each_round_and_holds_up_nobody() {
    let mut rounds = Rounds::default();
    rounds.add(0, unknown(1..3));
    for at_ns in [0, 600 * MS, 1_200 * MS] {
        let mut tried = Vec::new();
        let send = |key: &FlowKey, _| {
            tried.push(key.remote_port);
            Sent::Failed(io::ErrorKind::HostUnreachable.into())
        };
        rounds.run(at_ns, |_| true, send);
        assert_eq!(tried, [1, 2]);
    }
    assert_eq!(rounds.next_ns(), None);
}

#[test]
fn who_is_not_wanted_any_more_is_forgotten() {
    let mut rounds = Rounds::default();
    rounds.add(0, unknown(1..5));
    assert_eq!(ports(&run(&mut rounds, 0)), [1, 2, 3, 4]);
    rounds.retain(|key| key.remote_port != 1);
    let mut log = Vec::new();
    let send = |key: &FlowKey, _| {
        log.push(key.remote_port);
        Sent::Out
    };
    rounds.run(600 * MS, |key| key.remote_port != 3, send);
    assert_eq!(log, [2, 4]);
    assert_eq!(ports(&run(&mut rounds, 1_200 * MS)), [2, 4]);
    assert_eq!(rounds.next_ns(), None);
}

#[test]
fn takeovers_share_one_rate() {
    let mut rounds = Rounds::default();
    rounds.add(0, unknown(0..150));
    assert_eq!(run(&mut rounds, 0).len(), 100);
    rounds.add(500_000, unknown(1_000..1_100));
    assert_eq!(run(&mut rounds, 900_000), []);
    let expected: Vec<u16> = (100..150).chain(1_000..1_050).collect();
    assert_eq!(ports(&run(&mut rounds, MS)), expected);
}

/// Runs until all is done: waits for each of these times in turn, then for the time that it asks for. `rooms` is how
/// much there is room for in each call.
fn play(flows: &[(u16, bool)], stalls: &[u64], rooms: &[usize]) -> Log {
    let (mut rounds, mut log, mut now_ns) = (Rounds::default(), Log::new(), 0);
    let add = |rounds: &mut Rounds, now_ns, part: &[(u16, bool)]| {
        rounds.add(now_ns, part.iter().map(|(port, known)| (key(*port), known.then_some(9))));
    };
    let (first, second) = flows.split_at(flows.len() / 2);
    add(&mut rounds, now_ns, first);
    for step in 0.. {
        if step == 3 {
            add(&mut rounds, now_ns, second);
        }
        let next_ns = rounds.next_ns();
        if next_ns.is_none() && step > 3 {
            return log;
        }
        now_ns = match stalls.get(step) {
            Some(stall_ns) => now_ns + stall_ns,
            None => now_ns.max(next_ns.unwrap_or(now_ns)),
        };
        let mut room = rooms.get(step).copied().unwrap_or(usize::MAX);
        let send = |key: &FlowKey, segment| {
            if room == 0 {
                return Sent::Later;
            }
            room -= 1;
            log.push((now_ns, key.remote_port, segment));
            Sent::Out
        };
        rounds.run(now_ns, |_| true, send);
    }
    log
}

/// In any stretch of time no more than its slices and ten to make up for.
fn assert_rate(log: &Log) -> Result<(), TestCaseError> {
    let mut calls: Vec<(u64, u64)> = Vec::new();
    for (at_ns, ..) in log {
        match calls.last_mut() {
            Some((last_ns, count)) if last_ns == at_ns => *count += 1,
            _ => calls.push((*at_ns, 1)),
        }
    }
    for (index, (from_ns, _)) in calls.iter().enumerate() {
        let mut sum = 0;
        for (to_ns, count) in &calls[index..] {
            sum += count;
            let slices = (to_ns - from_ns).div_ceil(MS) + 10;
            prop_assert!(sum <= 100 * slices, "{sum} packets from {from_ns} to {to_ns}");
        }
    }
    Ok(())
}

fn stall_ns() -> impl Strategy<Value = u64> {
    prop_oneof![0..2 * MS, 0..30 * MS, 0..2_000 * MS, Just(MS), Just(0)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn whatever_stalls_each_flow_has_three_rounds_apart_and_the_rate_holds(
        known in prop::collection::vec(any::<bool>(), 1..1_500),
        stalls in prop::collection::vec(stall_ns(), 0..60),
        rooms in prop::collection::vec(prop_oneof![Just(usize::MAX), 0..200_usize], 0..60),
    ) {
        let flows: Vec<_> = (0..).zip(known).collect();
        let log = play(&flows, &stalls, &rooms);
        assert_rate(&log)?;
        let mut of_flow: HashMap<u16, Vec<(u64, Segment)>> = HashMap::new();
        for (at_ns, port, segment) in &log {
            of_flow.entry(*port).or_default().push((*at_ns, *segment));
        }
        for (port, known) in &flows {
            let mut sent = &of_flow[port][..];
            let tickle = Segment::Tickle(known.then_some(9));
            if *known {
                prop_assert_eq!(sent[0].1, Segment::Reset(9));
                sent = &sent[1..];
            }
            prop_assert!(sent.len() == 3 && sent.iter().all(|(_, segment)| *segment == tickle), "{:?}", sent);
            prop_assert!(sent.windows(2).all(|pair| pair[1].0 - pair[0].0 >= 600 * MS), "{:?}", sent);
        }
    }
}
