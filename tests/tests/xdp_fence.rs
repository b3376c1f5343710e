//! The fence: what comes for a virtual address goes on under a live lease only; what is not ours goes on always.

use std::process::Command;
use std::thread;

use failover_common::abi::{Lease, Settings, VipKey, vip_filter};
use failover_common::address::Address;
use failover_tests::fixtures::{LONG_NS, SECOND_VIP, VIP, active, backup, dropped, frame, frames, passes, version_3};
use failover_tests::testrun::{LOOPBACK, Options, TestRun, Verdict};
use rustix::thread::UnshareFlags;

/// Everything that a node without a live lease must not let through.
const FENCED: [&str; 19] = [
    "ip tcp",
    "ip udp",
    "ip icmp",
    "ip large",
    "ip first fragment",
    "ip last fragment",
    "ip options",
    "ip forty bytes of options",
    "ip header length 0",
    "ip header length 60",
    "ip total length 0",
    "ip total length 65535",
    "ip wrong checksum",
    "ip ttl 0",
    "ip header only",
    "ip vrrp unicast",
    "ip broadcast mac",
    "ip multicast mac",
    "ip priority tag",
];

/// What is not the fence's to judge, with a lease or without.
const FREE: [&str; 17] = [
    "ip other mac",
    "ip other address",
    "ip from the address",
    "ip vlan 10",
    "ip vlans 100 200",
    "ip version 6",
    "ip 19 bytes",
    "ipv6",
    "ipv6 mapped",
    "lldp",
    "stp",
    "link layer ipv4",
    "link layer arp",
    "link layer vlan",
    "link layer half a tag",
    "zeros",
    "ones",
];

#[test]
fn without_a_lease_nothing_reaches_a_virtual_address() {
    let Some(mut node) = backup(&version_3()) else { return };
    let before = node.router(0);
    for (already, name) in (0..).zip(FENCED) {
        assert_eq!(node.vip(VIP).fenced, already, "{name}");
        dropped(&mut node, name, "vip_fenced");
    }
    assert_eq!((node.vip(VIP).fenced, node.vip(SECOND_VIP).fenced), (19, 0));
    assert_eq!(node.router(0), before);
}

#[test]
fn three_tags_are_more_than_this_program_looks_behind() {
    // Linux takes off any number of tags with VID 0, so a station that sends such frames reaches an address that was left
    // over. Nobody else is served by it, and no switch makes them: a known limit.
    let Some(mut node) = backup(&version_3()) else { return };
    passes(&mut node, "ip three priority tags");
    passes(&mut node, "arp request, three priority tags");
    dropped(&mut node, "ip tcp", "vip_fenced");
}

#[test]
fn under_a_live_lease_it_all_goes_on_untouched() {
    let Some(mut node) = active(&version_3()) else { return };
    for name in FENCED {
        passes(&mut node, name);
    }
    assert_eq!(node.vip(VIP).fenced, 0);
    node.edit(0, |entry| entry.lease = Lease::default());
    dropped(&mut node, "ip tcp", "vip_fenced");
}

#[test]
fn what_is_not_to_a_virtual_address_of_this_node_always_goes_on() {
    let Some(mut node) = backup(&version_3()) else { return };
    for live_ns in [0, LONG_NS] {
        node.give_lease(0, live_ns);
        for name in FREE {
            passes(&mut node, name);
        }
    }
    assert_eq!(node.vip(VIP).fenced, 0);
    node.edit(0, |entry| entry.lease = Lease::default());
    dropped(&mut node, "ip tcp", "vip_fenced");
}

#[test]
fn every_truncation_goes_on_until_the_address_is_there() {
    let Some(mut node) = backup(&version_3()) else { return };
    let whole = frame("ip tcp");
    for len in 14..whole.len() {
        let outcome = node.send(&whole[..len]);
        let expected = if len < 34 { Verdict::Pass } else { Verdict::Drop };
        assert_eq!((outcome.verdict, &outcome.frame[..]), (expected, &whole[..len]), "{len} bytes");
    }
}

#[test]
fn a_node_without_virtual_routers_passes_every_frame() {
    let Some(mut node) = TestRun::load(Options::default()) else { return };
    for (name, _) in frames() {
        passes(&mut node, name);
    }
    node.configure(0, &version_3(), &[VIP]);
    dropped(&mut node, "ip tcp", "vip_fenced");
}

#[test]
fn a_virtual_address_whose_router_is_beyond_the_array_is_nobodys() {
    let Some(mut node) = TestRun::load(Options { routers: 1, ..Options::default() }) else { return };
    node.configure(0, &version_3(), &[VIP]);
    let key = VipKey { ifindex: LOOPBACK, vlan: 0, address: Address::from_ipv4(SECOND_VIP) };
    node.add_vip(&key, 7);
    passes(&mut node, "arp request, second address");
    assert_eq!(node.send(&frame("arp request")).verdict, Verdict::Drop);
}

#[test]
fn the_filter_of_the_load_lets_its_addresses_through_and_no_other() {
    let named = |vips: &[[u8; 4]]| vip_filter(vips.iter().map(|vip| Address::from_ipv4(*vip)));
    let load = |filter| {
        let mut node = TestRun::load(Options { filter, ..Options::default() })?;
        node.configure(0, &version_3(), &[VIP, SECOND_VIP]);
        Some(node)
    };
    let Some(mut node) = load(named(&[VIP, SECOND_VIP])) else { return };
    dropped(&mut node, "ip tcp", "vip_fenced");
    dropped(&mut node, "tcp second address", "vip_fenced");
    dropped(&mut node, "arp request, second address", "arp_silenced");
    node.give_lease(0, LONG_NS);
    assert_eq!(node.send(&frame("arp request, second address")).verdict, Verdict::Transmit);

    let Some(mut node) = load(named(&[VIP])) else { return };
    dropped(&mut node, "ip tcp", "vip_fenced");
    dropped(&mut node, "arp request", "arp_silenced");
    passes(&mut node, "tcp second address");
    passes(&mut node, "arp request, second address");
}

#[test]
fn an_address_belongs_to_the_vlan_it_is_configured_in() {
    for (vlan, arp, ip) in
        [(10, "arp vlan 10", "ip vlan 10"), (100 << 16 | 200, "arp vlans 100 200", "ip vlans 100 200")]
    {
        let Some(mut node) = backup(&Settings { vlan, ..version_3() }) else { return };
        for name in ["arp request", "ip tcp", "arp request, priority tag", "ip priority tag", "v3 message"] {
            passes(&mut node, name);
        }
        assert_eq!(node.send(&frame(arp)).verdict, Verdict::Drop);
        assert_eq!(node.send(&frame(ip)).verdict, Verdict::Drop);
        node.give_lease(0, LONG_NS);
        assert_eq!(node.send(&frame(arp)).verdict, Verdict::Transmit);
        assert_eq!(node.send(&frame(ip)).verdict, Verdict::Pass);
    }
}

#[test]
fn an_address_belongs_to_the_interface_it_is_configured_on() {
    if TestRun::load(Options::default()).is_none() {
        return;
    }
    // A thread of its own, so that its network namespace goes with it.
    let in_namespace = thread::spawn(|| {
        // SAFETY: NEWNET alone; it changes no file descriptor and no memory of other threads.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.expect("a network namespace");
        let made = Command::new("ip").args(["link", "add", "left", "type", "veth", "peer", "name", "right"]).status();
        assert!(made.expect("ip(8) runs").success(), "no veth");
        let [left, right] = ["left", "right"].map(ifindex);

        let mut node = TestRun::load(Options::default()).expect("it could a moment ago");
        node.configure(0, &Settings { ifindex: left, ..version_3() }, &[VIP, SECOND_VIP]);
        for (name, on_left) in
            [("arp request", Verdict::Drop), ("ip tcp", Verdict::Drop), ("v3 message", Verdict::Drop)]
        {
            for ifindex in [LOOPBACK, right] {
                let outcome = node.send_on(ifindex, &frame(name));
                assert_eq!(
                    (outcome.verdict, outcome.counted),
                    (Verdict::Pass, vec![]),
                    "{name} on interface {ifindex}"
                );
            }
            assert_eq!(node.send_on(left, &frame(name)).verdict, on_left, "{name}");
        }

        // The same VRID and address on another interface are another virtual router's.
        node.configure(1, &Settings { ifindex: right, ..version_3() }, &[VIP, SECOND_VIP]);
        node.give_lease(1, LONG_NS);
        assert_eq!(node.send_on(left, &frame("arp request")).verdict, Verdict::Drop);
        assert_eq!(node.send_on(right, &frame("arp request")).verdict, Verdict::Transmit);
        assert_eq!(node.send_on(left, &frame("v3 message")).verdict, Verdict::Drop);
        assert!(node.is_live(1), "the advert was heard on the other interface");
        assert_eq!(node.send_on(right, &frame("v3 message")).verdict, Verdict::Drop);
        assert!(!node.is_live(1));
    });
    if let Err(panic) = in_namespace.join() {
        std::panic::resume_unwind(panic);
    }
}

/// The index of an interface of this thread's network namespace.
fn ifindex(name: &str) -> u32 {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None);
    rustix::net::netdevice::name_to_index(socket.expect("a socket"), name).expect("the interface exists")
}
