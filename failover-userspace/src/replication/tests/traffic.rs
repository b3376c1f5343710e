//! What replication costs on the wire, for the README: bytes with IPv4 and TCP headers, both directions, in a network
//! namespace of its own with segments of the size that Ethernet has. Printed, not judged: what is judged is that both
//! nodes end with the same table. A second of each load, ten with `FAILOVER_TEST_LONG=1`.

use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::thread::UnshareFlags;

use super::support::{Node, closed, ip, opened};
use crate::replication::Change;

/// Bytes and packets that went over the loopback interface of this thread's namespace.
fn loopback() -> [u64; 2] {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix("lo:")).unwrap();
    let mut numbers = line.split_whitespace().map(|number| number.parse().unwrap());
    [numbers.next().unwrap(), numbers.next().unwrap()]
}

fn told(what: &str, before: [u64; 2], seconds: u64) {
    let [bytes, packets] = loopback();
    println!("{what}: {} bytes, {} packets", (bytes - before[0]) / seconds, (packets - before[1]) / seconds);
}

/// Moves this thread, and those that it starts, where nobody else uses the loopback interface.
fn enter_own_namespace() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("needs root".into());
    }
    // SAFETY: file descriptors and memory stay shared; only this thread's network namespace changes.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.map_err(|error| error.to_string())?;
    for words in ["ip link set lo up mtu 1500", "ethtool -K lo tso off gso off"] {
        let mut words = words.split(' ');
        let status = Command::new(words.next().unwrap()).args(words).status();
        if !status.as_ref().is_ok_and(std::process::ExitStatus::success) {
            return Err(format!("needs ip and ethtool: {status:?}"));
        }
    }
    Ok(())
}

#[test]
fn traffic() {
    if let Err(reason) = enter_own_namespace() {
        // Not through a macro: those are captured, and a skip has to be seen.
        let _ = writeln!(std::io::stderr(), "skipped traffic: {reason}");
        return;
    }
    let seconds = if std::env::var_os("FAILOVER_TEST_LONG").is_some_and(|value| value == "1") { 10 } else { 1 };
    for (what, without) in [("with sequence numbers", false), ("without", true)] {
        let strip = |change| match change {
            Change::Opened(mut record) => {
                record.send_next = if without { None } else { Some(record.send_next.unwrap_or(7)) };
                Change::Opened(record)
            }
            closed @ Change::Closed(_) => closed,
        };
        let (a_ip, b_ip) = (ip(), ip());
        let a = Node::start(a_ip, &[b_ip]);
        a.change((0..10_000).map(opened).map(strip).collect());
        let before = loopback();
        let b = Node::start(b_ip, &[a_ip]);
        b.wait_for_flows_of(&a, 0);
        a.wait("confirmation", |table| table.status(0).lag_ms == 0 && table.status(0).is_sending == 1);
        told(&format!("a table of 10,000 flows, {what}, and b's empty one"), before, 1);

        let before = loopback();
        std::thread::sleep(Duration::from_secs(seconds));
        told(&format!("idle, a second, {what}"), before, seconds);

        // Each second 1,000 open and the 1,000 of a second ago close.
        let (before, start) = (loopback(), Instant::now());
        for batch in 0..10 * seconds as u32 {
            let young = 100_000 + batch * 100;
            let changes = (young..young + 100).map(opened).map(strip).chain((young - 1_000..young - 900).map(closed));
            a.change(changes.collect());
            std::thread::sleep((Duration::from_millis(100) * (batch + 1)).saturating_sub(start.elapsed()));
        }
        told(&format!("1,000 flows opened and 1,000 closed, a second, {what}"), before, seconds);
        b.wait_for_flows_of(&a, 0);
    }
}
