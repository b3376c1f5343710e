//! IPv4: adverts go to the election, packets to a virtual address go on only under a live lease,
//! and TCP among them is looked at.
//!
//! Deliberately absent: what TCP needs to be judged. Fencing needs no more than the destination, so
//! a fragment, an option or a lying length cannot slip past it.

use failover_common::abi::Counter;
use failover_common::wire::ethernet::Link;
use failover_common::wire::ipv4::Ipv4Header;
use failover_common::wire::tcp::PROTOCOL as TCP;
use failover_common::wire::vrrp::{GROUP_IPV4, PROTOCOL};

use crate::{Cut, Kernel, OwnVip, Verdict, tcp, vrrp};

#[inline(always)]
pub(crate) fn handle<F: Cut + ?Sized, K: Kernel>(frame: &mut F, link: &Link, kernel: &K) -> Verdict {
    let Some(ip) = frame.read::<Ipv4Header>(link.payload) else { return Verdict::Pass };
    if !ip.is_version_4() {
        return Verdict::Pass;
    }
    if ip.protocol == PROTOCOL && ip.destination == GROUP_IPV4 {
        return vrrp::handle(frame, link, &ip, kernel);
    }
    let Some(own) = OwnVip::find(kernel, link.vlan, ip.destination) else { return Verdict::Pass };
    if !own.is_addressed(link) {
        return Verdict::Pass;
    }
    if !own.is_live {
        // This node may not serve the address.
        if ip.protocol == TCP {
            tcp::refuse(frame, link, &ip, &own, kernel);
        }
        kernel.count(Counter::VipFenced);
        kernel.count_fenced(own.vip);
        return Verdict::Drop;
    }
    if ip.protocol == TCP { tcp::handle(frame, link, &ip, &own, kernel) } else { Verdict::Pass }
}
