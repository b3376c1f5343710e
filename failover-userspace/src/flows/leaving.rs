//! What this node's own clients are told when it lets an address go: a reset with the right numbers, from the kernel
//! that has them.
//!
//! Deliberately absent: the clients of other nodes (`thread`).

use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

use failover_common::abi::StaleAction;
use failover_common::lease::NS_PER_CS;
use failover_common::wire::vrrp::PRIORITY_RELEASE;
use tokio::sync::mpsc::UnboundedSender;

use super::sockets::{self, Destroyed};
use super::thread::{Wish, is_of};
use crate::clock;
use crate::config::VirtualRouter;
use crate::dataplane::Entry;

/// Nobody waits longer for an address because of the connections on it. 10,000 take a tenth of it.
const BUDGET: Duration = Duration::from_secs(1);

/// Resets this node's connections on the virtual router's addresses, unless it is configured to leave connections
/// alone, and says whether there were any. From then on new ones are kept away: the next node is to have them.
pub fn reset_connections(router: &VirtualRouter, entry: &Entry, wishes: &UnboundedSender<Wish>) -> bool {
    if router.stale_connections.action != StaleAction::Reset {
        return false;
    }
    entry.set_leaving(true);
    let addresses: Vec<Ipv4Addr> = router.addresses.iter().map(ipnet::Ipv4Net::addr).collect();
    match sockets::destroy(&addresses, |key| is_of(router, key), BUDGET) {
        Ok(Destroyed::Done { count: 0, .. }) => return false,
        Ok(Destroyed::Done { count, left }) => {
            tracing::info!(instance = %router.name, count, ?left, "reset the connections of the addresses that are let go");
            let _ = wishes.send(Wish::Destroyed(count as u64));
        }
        Ok(Destroyed::Unsupported) => tracing::warn!(
            instance = %router.name,
            "this kernel cannot reset its connections (no CONFIG_INET_DIAG_DESTROY): their clients learn of the move when \
             they next speak"
        ),
        Err(error) => tracing::warn!(
            instance = %router.name,
            error = format!("{error:#}"),
            "connections were not reset: their clients learn of the move when they next speak"
        ),
    }
    true
}

/// Waits until another router advertises for the addresses, as far as this node's kernel hears, and as long as one
/// may take that is there: a skew, which is at most an interval (RFC 9568 6.1).
pub fn wait_for_successor(router: &VirtualRouter, entry: &Entry, released_ns: u64) {
    const MARGIN_NS: u64 = 100_000_000;
    const PATIENCE_MAX_NS: u64 = 3_000_000_000;
    let interval_ns = u64::from(router.advert_interval_cs) * NS_PER_CS;
    let deadline_ns = released_ns + (interval_ns + MARGIN_NS).min(PATIENCE_MAX_NS);
    while !has_successor(entry, released_ns) && clock::now_ns() < deadline_ns {
        thread::sleep(Duration::from_millis(1));
    }
}

/// Whether another router has advertised since, and not to give up.
pub(super) fn has_successor(entry: &Entry, since_ns: u64) -> bool {
    let heard = entry.heard();
    heard.last_advert_ns > since_ns && heard.priority != PRIORITY_RELEASE
}
