//! What this node's own clients are told when it lets an address go: a reset with the right numbers, from the kernel
//! that has them.
//!
//! Deliberately absent: the clients of other nodes (`thread`).

use std::net::Ipv4Addr;
use std::time::Duration;

use failover_common::abi::StaleAction;
use tokio::sync::mpsc::UnboundedSender;

use super::sockets::{self, Destroyed};
use super::thread::{Wish, is_of};
use crate::config::VirtualRouter;

/// Nobody waits longer for an address because of the connections on it. 10,000 take a tenth of it.
const BUDGET: Duration = Duration::from_secs(1);

/// Resets this node's connections on the virtual router's addresses, unless it is configured to leave connections
/// alone.
pub fn reset_connections(router: &VirtualRouter, wishes: &UnboundedSender<Wish>) {
    if router.stale_connections.action != StaleAction::Reset {
        return;
    }
    let addresses: Vec<Ipv4Addr> = router.addresses.iter().map(ipnet::Ipv4Net::addr).collect();
    match sockets::destroy(&addresses, |key| is_of(router, key), BUDGET) {
        Ok(Destroyed::Done { count: 0, .. }) => {}
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
}
