//! The loaded program, at both hooks, against the same code on the host: whatever the frame and the maps, both give the same verdict, the
//! same bytes, and leave the same behind. So what holds of the one (simulation, fuzzing) holds of the other.
//!
//! The clock is the one difference: times in the maps are far from now, and what either writes is `now`.
//! `FAILOVER_SEED` takes the seed that a failure prints. Deliberately absent: what is right. Other tests say that.

use std::collections::BTreeMap;
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::thread;

use failover_common::abi::{COUNTER_NAMES, Event, FlowEvent, Heard};
use failover_ebpf::{Verdict as HostVerdict, handle};
use failover_sim::host_frame::HostFrame;
use failover_sim::host_kernel::HostKernel;
use failover_sim::map_state::{MapState, OPTIONS};
use failover_sim::random::{Choices, Random, seed};
use failover_tests::fixtures::frames;
use failover_tests::mutation::{LEN_MIN, make};
use failover_tests::testrun::{Hook, LOOPBACK, TestRun, Verdict, now_ns};
use rustix::thread::UnshareFlags;

const NANO: u64 = 1_000_000_000;
/// What the kernel runs: an Ethernet header at least, and a page with its own rest at most.
const LEN: RangeInclusive<usize> = LEN_MIN..=3_000;
/// An input of the fuzz target `frame_path` begins with that many bytes that choose the maps.
const STATE: usize = 64;

/// All that one frame did, with `now` as the time.
#[derive(Debug, PartialEq, Eq)]
struct Done {
    verdict: Verdict,
    frame: Vec<u8>,
    counted: Vec<(&'static str, u64)>,
    events: Vec<Event>,
    flow_events: Vec<FlowEvent>,
    after: MapState,
}

/// The two that must agree.
struct Pair {
    loaded: TestRun,
    host: HostKernel,
}

impl Pair {
    fn new(hook: Hook) -> Option<Self> {
        let loaded = TestRun::load_for(hook, OPTIONS)?;
        Some(Self { loaded, host: HostKernel::new(OPTIONS).expect("memory for two entries") })
    }

    /// Runs the frame through both, and returns what both did.
    fn send(&mut self, before: &MapState, sent: &[u8]) -> Result<Done, String> {
        self.loaded.set_state(before);
        self.host.set_state(before);
        let outcome = self.loaded.send(sent);
        self.host.now_ns = *outcome.clock.start();
        let loaded_now = |time| if outcome.clock.contains(&time) { self.host.now_ns } else { time };
        let events = outcome.events.iter().map(|event| Event { at_ns: loaded_now(event.at_ns), ..*event }).collect();
        let loaded = Done {
            verdict: outcome.verdict,
            frame: outcome.frame,
            counted: outcome.counted,
            events,
            flow_events: self.loaded.flows.events(),
            after: self.loaded.state(before).map_times(loaded_now),
        };
        let host = send_to_host(&self.host, sent);
        if loaded == host { Ok(host) } else { Err(format!("loaded {loaded:#?}\nhost {host:#?}")) }
    }
}

fn send_to_host(host: &HostKernel, sent: &[u8]) -> Done {
    let before = host.counters().values();
    let mut frame = HostFrame(sent.to_vec());
    let verdict = match handle(&mut frame, host) {
        HostVerdict::Pass => Verdict::Pass,
        HostVerdict::Drop => Verdict::Drop,
        HostVerdict::Transmit => Verdict::Transmit,
    };
    let deltas = before.into_iter().zip(host.counters().values()).map(|(before, after)| after - before);
    Done {
        verdict,
        frame: frame.0,
        counted: COUNTER_NAMES.into_iter().zip(deltas).filter(|(_, delta)| *delta != 0).collect(),
        events: std::iter::from_fn(|| host.next_event()).collect(),
        flow_events: std::iter::from_fn(|| host.next_flow_event()).collect(),
        after: host.state(),
    }
}

/// Times that stay as far from now as they are, however slow the machine: to come, past, never.
fn times() -> [u64; 5] {
    let now_ns = now_ns();
    [now_ns + 600 * NANO, now_ns.saturating_sub(30 * NANO), now_ns.saturating_sub(600 * NANO), u64::MAX, 0]
}

/// The frames that fuzzing found, by the names of their files.
fn fuzzed() -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/frame_path");
    let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("the directory can be walked").path()).collect();
    paths.sort();
    let frame = |path: &PathBuf| fs::read(path).expect("it can be read").into_iter().skip(STATE).collect();
    paths.iter().map(|path| (path.display().to_string(), frame(path))).collect()
}

/// Runs `test` where no socket is, not even a listener on all addresses.
fn without_sockets(test: impl FnOnce() + Send + 'static) {
    let in_namespace = thread::spawn(|| {
        // SAFETY: NEWNET alone; it changes no file descriptor and no memory of other threads.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.expect("a network namespace");
        test();
    });
    if let Err(panic) = in_namespace.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Whether the kernel makes a socket buffer of the bytes for a test (bpf_prog_test_run_skb): only with a whole header of
/// IPv4 or IPv6, where the EtherType says one of them, and of something in any case.
fn is_run(hook: Hook, frame: &[u8]) -> bool {
    let payload = match frame.get(12..14) {
        Some([0x08, 0x00]) => 20,
        Some([0x86, 0xdd]) => 40,
        _ => 1,
    };
    hook == Hook::Xdp || frame.len() >= 14 + payload
}

/// What was seen, and how often: the counters' names and the verdicts.
#[derive(Default)]
struct Seen(BTreeMap<String, u64>);

impl Seen {
    fn add(&mut self, done: &Done) {
        *self.0.entry(format!("{:?}", done.verdict)).or_default() += 1;
        for (name, delta) in &done.counted {
            *self.0.entry((*name).into()).or_default() += delta;
        }
    }
}

/// What no frame can bring about here: there are no sockets, no flow begins by itself, and the rings are emptied.
const UNREACHED: [&str; 5] = ["tcp_socket", "tcp_cookie", "flow_table_full", "flow_event_lost", "event_lost"];

/// Sends `count` frames in states that nobody thought of; in half of them the router has heard what it heard before.
fn agree(hook: Hook, seed: u64, count: u32, mut next: impl FnMut(&mut Random) -> (String, Vec<u8>)) {
    let Some(mut pair) = Pair::new(hook) else { return };
    let mut random = Random(seed);
    let mut seen = Seen::default();
    let mut heard = None;
    for number in 0..count {
        let (what, sent) = next(&mut random);
        if !is_run(hook, &sent) {
            continue;
        }
        let mut state = MapState::choose(&mut random, &times(), &sent);
        state.is_socket_buffer = hook == Hook::Tc;
        if let Some(before) = heard.filter(|_| random.chance(2)) {
            let Heard { last_superior_ns, last_advert_ns, last_event_ns, last_foreign_ns, .. } = state.routers[0].heard;
            state.routers[0].heard =
                Heard { last_superior_ns, last_advert_ns, last_event_ns, last_foreign_ns, ..before };
        }
        match pair.send(&state, &sent) {
            Ok(done) => {
                seen.add(&done);
                heard = Some(done.after.routers[0].heard);
            }
            Err(difference) => {
                panic!(
                    "frame {number} ({what}) at {hook:?} of FAILOVER_SEED={seed}: {difference}\nfound {state:#?}\nsent {sent:02x?}"
                )
            }
        }
    }
    println!("{:?}", seen.0);
    // The witness: each way out was taken more than once.
    for name in COUNTER_NAMES.into_iter().chain(["Pass", "Drop", "Transmit"]) {
        let times = seen.0.get(name).copied().unwrap_or_default();
        let is_unreached = UNREACHED.contains(&name) || (name == "tcp_generic" && hook == Hook::Xdp);
        assert_eq!(times >= 5, !is_unreached, "{name}: {times} times");
    }
}

#[test]
fn known_frames_do_the_same_loaded_and_on_the_host() {
    without_sockets(|| {
        let known: Vec<_> = frames().map(|(name, frame)| (name.to_owned(), frame)).chain(fuzzed()).collect();
        let known: Vec<_> = known.into_iter().filter(|(_, frame)| LEN.contains(&frame.len())).collect();
        let rounds = 64;
        for hook in [Hook::Xdp, Hook::Tc] {
            let mut in_order = known.iter().cycle();
            agree(hook, seed(), rounds * known.len() as u32, |_| in_order.next().expect("it never ends").clone());
        }
    });
}

#[test]
fn frames_that_nobody_thought_of_do_the_same_loaded_and_on_the_host() {
    without_sockets(|| {
        let known: Vec<_> = frames().map(|(_, frame)| frame).collect();
        for hook in [Hook::Xdp, Hook::Tc] {
            agree(hook, seed(), 50_000, |random| ("made".into(), make(random, &known)));
        }
    });
}

/// On the host alone: a program that is bound to a device cannot be run on a frame of ours.
#[test]
fn f2_a_frame_of_a_hidden_vlan_passes_whatever_the_maps_hold_and_leaves_nothing_behind() {
    let mut host = HostKernel::new(OPTIONS).expect("memory for two entries");
    let known: Vec<_> = frames().map(|(_, frame)| frame).collect();
    let (seed, mut random) = (seed(), Random(seed()));
    // Frames that were something to us without the tag.
    let mut witnesses = 0;
    for number in 0..20_000 {
        let sent = make(&mut random, &known);
        let before = MapState::choose(&mut random, &times(), &sent);
        host.now_ns = now_ns();
        host.has_hidden_vlan = false;
        host.set_state(&before);
        let untagged = send_to_host(&host, &sent);
        witnesses += u32::from(untagged.verdict != Verdict::Pass);
        host.has_hidden_vlan = true;
        host.set_state(&before);
        let unchanged = host.state();
        let done = send_to_host(&host, &sent);
        let nothing = Done {
            verdict: Verdict::Pass,
            frame: sent.clone(),
            counted: vec![],
            events: vec![],
            flow_events: vec![],
            after: unchanged,
        };
        assert_eq!(done, nothing, "frame {number} of FAILOVER_SEED={seed}: {sent:02x?}");
    }
    assert!(witnesses > 1_000, "{witnesses} frames prove nothing");
}

#[test]
fn a_ring_that_nobody_reads_is_full_at_the_same_event() {
    without_sockets(|| {
        let Some(mut pair) = Pair::new(Hook::Xdp) else { return };
        // Each makes an event: a release, and an advert after it.
        let sent = ["v3 release", "v3 message"].map(failover_tests::fixtures::frame);
        let past = times()[1];
        let mut state = MapState::choose(&mut Random(seed()), &[past; 2], &sent[0]);
        state.routers[0].settings = failover_tests::fixtures::version_3();
        pair.loaded.set_state(&state);
        pair.host.set_state(&state);
        for sent in sent.iter().cycle().take(100) {
            let event_free = |heard: &mut Heard| heard.last_event_ns = past;
            pair.loaded.edit(0, |entry| event_free(&mut entry.heard));
            pair.host.edit(0, |entry| event_free(&mut entry.heard));
            pair.host.now_ns = now_ns();
            let (verdict, _) = pair.loaded.run(LOOPBACK, sent);
            assert_eq!((verdict, send_to_host_unread(&pair.host, sent)), (Verdict::Drop, HostVerdict::Drop));
        }
        let (loaded, host) = (pair.loaded.counters(), pair.host.counters());
        assert_eq!(loaded, host);
        // 4,096 bytes are 73 records of 56 and a rest.
        assert_eq!((loaded.advert_valid, loaded.event_lost), (100, 27));
        let drained = std::iter::from_fn(|| pair.host.next_event()).count();
        assert_eq!((pair.loaded.drain().len(), drained), (73, 73));
    });
}

fn send_to_host_unread(host: &HostKernel, sent: &[u8]) -> HostVerdict {
    handle(&mut HostFrame(sent.to_vec()), host)
}
