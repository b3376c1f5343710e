//! What this node's own clients are told when it lets an address go: a reset with the right numbers, from the kernel
//! that has them.
//!
//! Deliberately absent: the clients of other nodes (`telling`).

use std::convert::Infallible;
use std::iter;
use std::net::Ipv4Addr;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::Duration;

use failover_common::abi::{FlowKey, StaleAction};
use failover_common::lease::NS_PER_CS;
use failover_common::wire::vrrp::{PRIORITY_OWNER, PRIORITY_RELEASE};
use tokio::sync::mpsc::{UnboundedSender, WeakUnboundedSender};
use tokio::sync::oneshot;

use super::sockets::{self, Destroyed};
use super::thread::{Wish, is_of};
use crate::clock;
use crate::config::{Config, VirtualRouter};
use crate::dataplane::{Entries, Entry};

/// For those that leave together: no longer than this do their addresses stay because of the connections on them, nor do
/// those that leave meanwhile wait for their turn. 10,000 connections take a tenth of it.
const BUDGET: Duration = Duration::from_secs(1);
/// For how long new connections are kept away: the budget, a skew, and the second in which clients ask again.
const LEAVING_NS: u64 = 5_000_000_000;
/// Within this time of its first advert a router has put its addresses on and announced them.
const SETTLING: Duration = Duration::from_millis(100);

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

/// A virtual router that lets its addresses go.
#[derive(Debug)]
pub struct Left {
    /// Its index in the configuration.
    pub router: usize,
    /// Dropped when its connections are reset.
    pub done: oneshot::Sender<Infallible>,
}

/// Resets the connections of whoever is `left`, until nobody can be any more. The kernel walks its whole table of sockets
/// for each look, milliseconds of a CPU; so all who left meanwhile are looked for at once.
pub fn serve(config: &Config, entries: &Entries, left: &Receiver<Left>, wishes: &WeakUnboundedSender<Wish>) {
    while let Ok(first) = left.recv() {
        let mut left: Vec<Left> = iter::once(first).chain(left.try_iter()).collect();
        let Some(wishes) = wishes.upgrade() else { return };
        // Who has none to reset waits for nobody.
        left.retain(|left| is_concerned(&config.virtual_routers[left.router]));
        let entry = |left: &Left| Some((&config.virtual_routers[left.router], entries.entry(left.router as u32)?));
        let routers: Vec<_> = left.iter().filter_map(entry).collect();
        // Taken again meanwhile, they live on.
        reset_connections(&routers, |entry| !entry.is_live(clock::now_ns()), &wishes);
    }
}

/// Resets this node's connections on the virtual routers' addresses, of those routers that it `is_meant` of when it comes
/// to them. Connections that are configured to be left alone are.
pub fn reset_connections(
    routers: &[(&VirtualRouter, Entry)],
    is_meant: impl Fn(&Entry) -> bool,
    wishes: &UnboundedSender<Wish>,
) {
    let routers: Vec<_> = routers.iter().filter(|(router, _)| is_concerned(router)).collect();
    let nets = routers.iter().flat_map(|(router, _)| &router.addresses);
    let addresses: Vec<Ipv4Addr> = nets.map(ipnet::Ipv4Net::addr).collect();
    if addresses.is_empty() {
        return;
    }
    let is_theirs = |key: &FlowKey| routers.iter().any(|(router, entry)| is_of(router, key) && is_meant(entry));
    match sockets::destroy(&addresses, is_theirs, BUDGET) {
        Ok(Destroyed::Done { count: 0, .. }) => {}
        Ok(Destroyed::Done { count, left }) => {
            tracing::info!(count, ?left, "reset the connections of the addresses that are let go");
            let _ = wishes.send(Wish::Destroyed(count as u64));
        }
        Ok(Destroyed::Unsupported) => tracing::warn!(
            "this kernel cannot reset its connections (no CONFIG_INET_DIAG_DESTROY): their clients learn of the move when \
             they next speak"
        ),
        Err(error) => tracing::warn!(
            error = format!("{error:#}"),
            "connections were not reset: their clients learn of the move when they next speak"
        ),
    }
}

/// Waits until other routers have the addresses and have had the time to set them up, as far as this node's kernel hears,
/// and as long as one may take that is there: a skew, which is at most an interval (RFC 9568 6.1), but no more than three
/// seconds. Not for an owner's, which stay where they are.
pub fn wait_for_successors(left: &[(&VirtualRouter, Entry)], released_ns: u64) {
    const PATIENCE_MAX_NS: u64 = 3_000_000_000;
    let mut has_any = false;
    for (router, entry) in left.iter().filter(|(router, _)| router.priority != PRIORITY_OWNER) {
        let interval_ns = u64::from(router.advert_interval_cs) * NS_PER_CS;
        let patience_ns = (interval_ns + SETTLING.as_nanos() as u64).min(PATIENCE_MAX_NS);
        while !has_successor(entry, released_ns) && clock::now_ns() < released_ns + patience_ns {
            thread::sleep(Duration::from_millis(1));
        }
        has_any |= has_successor(entry, released_ns);
    }
    if has_any {
        thread::sleep(SETTLING);
    }
}

/// Whether another router has the addresses that this one had: it has advertised since, and not to give up.
pub(super) fn has_successor(entry: &Entry, since_ns: u64) -> bool {
    let heard = entry.heard();
    heard.last_advert_ns > since_ns && heard.priority != PRIORITY_RELEASE && !entry.is_live(clock::now_ns())
}
