//! IPv4: adverts go to the election, packets to a virtual address go on only under a live lease.
//!
//! Deliberately absent: TCP. Fencing needs no more than the destination, so a fragment, an option
//! or a lying length cannot slip past it.

use failover_common::abi::Counter;
use failover_common::wire::Frame;
use failover_common::wire::ethernet::Link;
use failover_common::wire::ipv4::Ipv4Header;
use failover_common::wire::vrrp::{GROUP_IPV4, PROTOCOL};

use crate::{Kernel, OwnVip, Verdict, vrrp};

#[inline(always)]
pub(crate) fn handle<F: Frame + ?Sized, K: Kernel>(frame: &F, link: &Link, kernel: &K) -> Verdict {
    let Some(ip) = frame.read::<Ipv4Header>(link.payload) else { return Verdict::Pass };
    if !ip.is_version_4() {
        return Verdict::Pass;
    }
    if ip.protocol == PROTOCOL && ip.destination == GROUP_IPV4 {
        return vrrp::handle(frame, link, &ip, kernel);
    }
    fence(link, ip.destination, kernel)
}

/// Drops what comes for a virtual address that this node may not serve.
#[inline(always)]
fn fence<K: Kernel>(link: &Link, destination: [u8; 4], kernel: &K) -> Verdict {
    let Some(own) = OwnVip::find(kernel, link.vlan, destination) else { return Verdict::Pass };
    if own.is_live || !own.is_addressed(link) {
        return Verdict::Pass;
    }
    kernel.count(Counter::VipFenced);
    kernel.count_fenced(own.vip);
    Verdict::Drop
}
