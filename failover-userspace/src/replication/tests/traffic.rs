//! What replication costs on the wire, for the README: bytes with IPv4 and TCP headers, both directions. In a network
//! namespace of its own, with segments of the size that Ethernet has:
//!
//! ```text
//! unshare -n sh -c 'ip link set lo up mtu 1500; ethtool -K lo tso off gso off; cargo test -p failover-userspace \
//!     --lib --release traffic -- --ignored --nocapture'
//! ```

use std::time::{Duration, Instant};

use super::support::{Node, closed, ip, opened};
use crate::replication::Change;

/// Bytes and packets that went over the loopback interface.
fn loopback() -> [u64; 2] {
    let text = std::fs::read_to_string("/proc/net/dev").unwrap();
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix("lo:")).unwrap();
    let mut numbers = line.split_whitespace().map(|number| number.parse().unwrap());
    [numbers.next().unwrap(), numbers.next().unwrap()]
}

fn told(what: &str, before: [u64; 2], seconds: u64) {
    let [bytes, packets] = loopback();
    println!("{what}: {} bytes, {} packets", (bytes - before[0]) / seconds, (packets - before[1]) / seconds);
}

#[test]
#[ignore = "measures; nothing else may use the loopback interface"]
fn traffic() {
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
        std::thread::sleep(Duration::from_secs(10));
        told(&format!("idle, a second, {what}"), before, 10);

        // Each second 1,000 open and the 1,000 of a second ago close.
        let (before, start) = (loopback(), Instant::now());
        for batch in 0..100 {
            let young = 100_000 + batch * 100;
            let changes = (young..young + 100).map(opened).map(strip).chain((young - 1_000..young - 900).map(closed));
            a.change(changes.collect());
            std::thread::sleep((Duration::from_millis(100) * (batch + 1)).saturating_sub(start.elapsed()));
        }
        told(&format!("1,000 flows opened and 1,000 closed, a second, {what}"), before, 10);
        b.wait_for_flows_of(&a, 0);
    }
}
