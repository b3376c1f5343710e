//! What this node's own clients are told when it lets an address go: a reset with the right numbers, from the kernel
//! that has them.
//!
//! Deliberately absent: the clients of other nodes (`telling`).

use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

use failover_common::abi::{FlowKey, StaleAction};
use failover_common::lease::NS_PER_CS;
use failover_common::wire::vrrp::{PRIORITY_OWNER, PRIORITY_RELEASE};
use tokio::sync::mpsc::UnboundedSender;

use super::sockets::{self, Destroyed};
use super::thread::{Wish, is_of};
use crate::clock;
use crate::config::VirtualRouter;
use crate::dataplane::Entry;

/// Nobody waits longer for an address because of the connections on it. 10,000 take a tenth of it.
const BUDGET: Duration = Duration::from_secs(1);
/// For how long new connections are kept away: the budget, a skew, and the second in which clients ask again.
const LEAVING_NS: u64 = 5_000_000_000;

/// Whether connections end when the addresses go. An owner's addresses stay (RFC 9568 6.1, priority 255).
fn is_concerned(router: &VirtualRouter) -> bool {
    router.stale_connections.action == StaleAction::Reset && router.priority != PRIORITY_OWNER
}

/// Keeps new connections away for a while: whoever has the addresses next is to have them.
pub fn keep_away(router: &VirtualRouter, entry: &Entry, now_ns: u64) {
    if is_concerned(router) {
        entry.set_leaving_until(now_ns + LEAVING_NS);
    }
}

/// Resets this node's connections on the virtual routers' addresses, as long as `is_meant`, and says whether there were
/// any. Connections that are configured to be left alone are.
pub fn reset_connections(
    routers: &[&VirtualRouter],
    is_meant: impl Fn() -> bool,
    wishes: &UnboundedSender<Wish>,
) -> bool {
    let routers: Vec<_> = routers.iter().filter(|router| is_concerned(router)).collect();
    let nets = routers.iter().flat_map(|router| &router.addresses);
    let addresses: Vec<Ipv4Addr> = nets.map(ipnet::Ipv4Net::addr).collect();
    if addresses.is_empty() {
        return false;
    }
    let is_theirs = |key: &FlowKey| routers.iter().any(|router| is_of(router, key));
    match sockets::destroy(&addresses, is_theirs, is_meant, BUDGET) {
        Ok(Destroyed::Done { count: 0, .. }) => false,
        Ok(Destroyed::Done { count, left }) => {
            tracing::info!(count, ?left, "reset the connections of the addresses that are let go");
            let _ = wishes.send(Wish::Destroyed(count as u64));
            true
        }
        Ok(Destroyed::Unsupported) => {
            tracing::warn!(
                "this kernel cannot reset its connections (no CONFIG_INET_DIAG_DESTROY): their clients learn of the move \
                 when they next speak"
            );
            false
        }
        Err(error) => {
            tracing::warn!(
                error = format!("{error:#}"),
                "connections were not reset: their clients learn of the move when they next speak"
            );
            false
        }
    }
}

/// Waits until another router has the addresses, as far as this node's kernel hears, and as long as one may take that is
/// there: a skew, which is at most an interval (RFC 9568 6.1).
pub fn wait_for_successor(router: &VirtualRouter, entry: &Entry, released_ns: u64) {
    const MARGIN_NS: u64 = 100_000_000;
    const PATIENCE_MAX_NS: u64 = 3_000_000_000;
    let interval_ns = u64::from(router.advert_interval_cs) * NS_PER_CS;
    let deadline_ns = released_ns + (interval_ns + MARGIN_NS).min(PATIENCE_MAX_NS);
    while !has_successor(entry) && clock::now_ns() < deadline_ns {
        thread::sleep(Duration::from_millis(1));
    }
}

/// Whether another router has the addresses that this one had: it advertises, and not to give up.
pub(super) fn has_successor(entry: &Entry) -> bool {
    let heard = entry.heard();
    let is_later = heard.last_advert_ns > entry.takeover().at_ns;
    is_later && heard.priority != PRIORITY_RELEASE && !entry.is_live(clock::now_ns())
}
