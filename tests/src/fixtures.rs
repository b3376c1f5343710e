//! The frames of ring 2 by name, and the node they are sent to.
//!
//! The bytes are `data/frames.txt`, written by `data/make_frames.py` with scapy. Deliberately absent: building frames.

use failover_common::abi::{
    AUTHENTICATION_NONE, AUTHENTICATION_SIMPLE, FAMILY_IPV4, FlowKey, Settings, StaleAction, Takeover,
};
use failover_common::address::Address;

use crate::testrun::{LOOPBACK, Options, TestRun, Verdict, now_ns};

/// This node's hardware address.
pub const NODE_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x0a];
/// The other router's.
pub const PEER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x0b];
/// The client's.
pub const CLIENT_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0xc1];
/// This node's primary address.
pub const NODE: [u8; 4] = [192, 0, 2, 5];
/// The other router's.
pub const PEER: [u8; 4] = [192, 0, 2, 9];
/// The first virtual address.
pub const VIP: [u8; 4] = [192, 0, 2, 10];
/// The second.
pub const SECOND_VIP: [u8; 4] = [192, 0, 2, 11];
/// The client's address.
pub const CLIENT: [u8; 4] = [192, 0, 2, 100];
/// The client's port in TCP segments, unless their name says otherwise; the service's is 80.
pub const CLIENT_PORT: u16 = 40_000;
/// A lease that no test outlives.
pub const LONG_NS: u64 = 600_000_000_000;

const FRAMES: &str = include_str!("../data/frames.txt");

/// All frames, in the file's order.
pub fn frames() -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    let lines = FRAMES.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_once(" = ")).map(|(name, hex)| (name, bytes(name, hex)))
}

/// The frame of that name.
///
/// # Panics
/// When `data/frames.txt` has none, or two.
pub fn frame(name: &str) -> Vec<u8> {
    let mut found = frames().filter(|(known, _)| *known == name);
    let (_, frame) = found.next().unwrap_or_else(|| panic!("frames.txt has no frame \"{name}\""));
    assert!(found.next().is_none(), "frames.txt has two frames \"{name}\"");
    frame
}

fn bytes(name: &str, hex: &str) -> Vec<u8> {
    let digits: Option<Vec<u8>> = hex.chars().map(|digit| digit.to_digit(16).map(|value| value as u8)).collect();
    let digits = digits.unwrap_or_else(|| panic!("frame \"{name}\" is not hexadecimal"));
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// Version 3, VRID 51, priority 100, 100 cs.
pub fn version_3() -> Settings {
    Settings {
        own_address: Address::from_ipv4(NODE),
        password: [0; 8],
        ifindex: LOOPBACK,
        vlan: 0,
        mac: NODE_MAC,
        advert_interval_cs: 100,
        vrid: 51,
        version: 3,
        family: FAMILY_IPV4,
        priority: 100,
        authentication: AUTHENTICATION_NONE,
        _pad: [0; 3],
    }
}

/// The same in version 2.
pub fn version_2() -> Settings {
    Settings { version: 2, ..version_3() }
}

/// The same with a password.
pub fn version_2_with_password(password: &[u8; 8]) -> Settings {
    Settings { authentication: AUTHENTICATION_SIMPLE, password: *password, ..version_2() }
}

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

/// The flow of the TCP segments, unless their name says otherwise.
pub fn flow_key() -> FlowKey {
    FlowKey {
        local: Address::from_ipv4(VIP),
        remote: Address::from_ipv4(CLIENT),
        local_port: 80,
        remote_port: CLIENT_PORT,
    }
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
