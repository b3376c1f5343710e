//! Ring 4: what a node sends, byte by byte as the wire carries it: adverts of both versions, announcements, and in which
//! order; where adverts come from; the group that they need.
//!
//! The bytes are laid by hand from RFC 9568 5 and 7.2, RFC 3768 5 and RFC 826. Deliberately absent: when they are sent.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use failover_common::wire::arp;
use failover_common::wire::ethernet::Mac;
use failover_tests::daemon::Daemon;
use failover_tests::frames::FrameSocket;
use failover_tests::lab::{INTERFACE, Lab, VIP};
use failover_tests::requirements::require;
use failover_tests::wait;

const NEEDS: [&str; 3] = ["ip", "bpftool", "ethtool"];
/// ETH_P_ALL: frames of every type.
const ALL: u16 = 0x0003;
/// Where 224.0.0.18 goes on Ethernet (RFC 1112 6.4).
const GROUP_MAC: [u8; 6] = [0x01, 0x00, 0x5e, 0x00, 0x00, 0x12];

/// edge-a with a controller that is not started, and the client's view of the wire.
struct Scene {
    // Dropped in this order: the controller before its namespace.
    daemon: Daemon,
    wire: FrameSocket,
    mac: [u8; 6],
    lab: Lab,
}

impl Scene {
    fn new(test: &str, priority: u8, advert_interval: &str, more: &str) -> Result<Option<Self>> {
        let Some(built) = require(test, &NEEDS) else { return Ok(None) };
        let lab = Lab::new(&built)?;
        let daemon = lab.daemon("edge-a", priority, advert_interval, more)?;
        let wire = FrameSocket::open(lab.station("client")?, INTERFACE, ALL)?;
        Ok(Some(Self { daemon, wire, mac: lab.mac("edge-a")?, lab }))
    }

    /// The next frame from edge-a that is VRRP, or ARP in a virtual address's name.
    fn next(&self) -> Result<Vec<u8>> {
        let mut next = None;
        wait::until("a frame from edge-a", || {
            let received = self.wire.receive(Duration::from_millis(100)).ok().flatten();
            next = received.filter(|frame| frame[6..12] == self.mac && (is_vrrp(frame) || is_arp_of_vip(frame)));
            next.is_some()
        })
        .with_context(|| self.daemon.log())?;
        next.context("no frame")
    }

    fn next_advert(&self) -> Result<Vec<u8>> {
        loop {
            let frame = self.next()?;
            if is_vrrp(&frame) {
                return Ok(frame);
            }
        }
    }

    /// The whole frame of an advert, from the IP header's checksum on given.
    fn advert(&self, ip_len: u8, ip_checksum: [u8; 2], source: Ipv4Addr, message: &[u8]) -> Vec<u8> {
        // RFC 9568 5.1.1: TTL 255, protocol 112, to 224.0.0.18. CS6, DF and id 0 are this project's.
        let mut frame = [&GROUP_MAC[..], &self.mac, &[0x08, 0x00]].concat();
        frame.extend([0x45, 0xc0, 0x00, ip_len, 0x00, 0x00, 0x40, 0x00, 255, 112]);
        frame.extend(ip_checksum);
        frame.extend(source.octets());
        frame.extend([224, 0, 0, 18]);
        frame.extend(message);
        frame
    }
}

fn is_vrrp(frame: &[u8]) -> bool {
    frame.len() >= 34 && frame[12..14] == [0x08, 0x00] && frame[23] == 112
}

fn is_arp_of_vip(frame: &[u8]) -> bool {
    frame.len() >= 42 && frame[12..14] == [0x08, 0x06] && frame[28..31] == [192, 0, 2] && (10..20).contains(&frame[31])
}

/// The version 3 advert of VRID 51 for 192.0.2.10, 100 ms. The IP header sums to 45c0+0020+4000+ff70+c000+0201+e000+0012
/// = 32763, folded 2766, complement d899.
fn version_3(scene: &Scene, priority: u8, checksum: [u8; 2]) -> Vec<u8> {
    let [high, low] = checksum;
    let message = [0x31, 51, priority, 1, 0x00, 10, high, low, 192, 0, 2, 10];
    scene.advert(0x20, [0xd8, 0x99], Ipv4Addr::new(192, 0, 2, 1), &message)
}

#[test]
fn a_version_3_advert_and_its_release_byte_for_byte() -> Result<()> {
    let Some(mut scene) = Scene::new("version 3 bytes", 150, "100ms", "")? else { return Ok(()) };
    scene.daemon.start_and_wait()?;
    // 3133+9601+000a+c000+020a = 18948, folded 8949, complement 76b6.
    let expected = version_3(&scene, 150, [0x76, 0xb6]);
    for number in 0..20 {
        let sent = scene.next_advert()?;
        ensure!(sent == expected, "advert {number}:\n{sent:02x?}\n{expected:02x?}");
    }
    scene.daemon.stop()?;
    // 3133+0001+000a+c000+020a = f348, complement 0cb7.
    let release = version_3(&scene, 0, [0x0c, 0xb7]);
    let mut sent = scene.next_advert()?;
    while sent == expected {
        sent = scene.next_advert()?;
    }
    ensure!(sent == release, "{sent:02x?}\n{release:02x?}");
    Ok(())
}

#[test]
fn the_pseudo_header_is_summed_where_that_is_configured() -> Result<()> {
    let Some(mut scene) = Scene::new("pseudo-header bytes", 150, "100ms", "checksum = \"pseudo-header\"")? else {
        return Ok(());
    };
    scene.daemon.start_and_wait()?;
    // As above, and c000+0201+e000+0012+0070+000c = 1a28f, folded a290: 8949+a290 = 12bd9, folded 2bda, complement d425.
    let expected = version_3(&scene, 150, [0xd4, 0x25]);
    let sent = scene.next_advert()?;
    ensure!(sent == expected, "{sent:02x?}\n{expected:02x?}");
    Ok(())
}

#[test]
fn a_version_2_advert_byte_for_byte_with_a_password_and_without() -> Result<()> {
    // 2133+9601+0101+c000+020a+3131+3131 = 1dca1, folded dca2, complement 235d; without the password and its type
    // 2133+9601+0001+c000+020a = 1793f, folded 7940, complement 86bf.
    let cases = [
        ("password = \"1111\"", [1, 1, 0x23, 0x5d], *b"1111\0\0\0\0"),
        // RFC 3768 5.3.10: without authentication the data is zero.
        ("", [0, 1, 0x86, 0xbf], [0; 8]),
    ];
    for (more, [kind, seconds, high, low], data) in cases {
        let more = format!("version = 2\n{more}");
        let Some(mut scene) = Scene::new("version 2 bytes", 150, "1s", &more)? else { return Ok(()) };
        scene.daemon.start_and_wait()?;
        let mut message = vec![0x21, 51, 150, 1, kind, seconds, high, low, 192, 0, 2, 10];
        message.extend(data);
        // Eight bytes more than version 3's: 3276b, folded 276e, complement d891.
        let expected = scene.advert(0x28, [0xd8, 0x91], Ipv4Addr::new(192, 0, 2, 1), &message);
        let sent = scene.next_advert()?;
        ensure!(sent == expected, "{more}:\n{sent:02x?}\n{expected:02x?}");
    }
    Ok(())
}

/// RFC 826, RFC 9568 6.4.2 with erratum 7949: both protocol addresses the virtual one, both hardware addresses the one
/// that frames for it shall go to.
fn gratuitous(mac: [u8; 6], operation: u8, address: [u8; 4]) -> Vec<u8> {
    let mut frame = [&[0xff; 6][..], &mac, &[0x08, 0x06, 0x00, 0x01, 0x08, 0x00, 6, 4, 0x00, operation]].concat();
    for _ in 0..2 {
        frame.extend(mac);
        frame.extend(address);
    }
    frame.resize(60, 0);
    frame
}

/// What must come from a node that becomes Active, from the first frame on.
fn assert_takeover(scene: &Scene, priority: u8, addresses: &[[u8; 4]]) -> Result<()> {
    let first = scene.next()?;
    ensure!(is_vrrp(&first) && first[36] == priority, "no advert comes first: {first:02x?}");
    // Every address in one form before any in the other: no address waits for another's second.
    for operation in [1, 2] {
        for address in addresses {
            let mut frame = scene.next()?;
            while is_vrrp(&frame) {
                frame = scene.next()?;
            }
            // RFC 9568 8.1.2: not before the address is configured.
            let there = scene.lab.station("edge-a")?.ip(&["address", "show", "dev", INTERFACE])?;
            ensure!(there.contains(&format!("inet {}/", Ipv4Addr::from(*address))), "{address:?}: {there}");
            let expected = gratuitous(scene.mac, operation, *address);
            ensure!(frame == expected, "{address:?}, operation {operation}:\n{frame:02x?}\n{expected:02x?}");
        }
    }
    Ok(())
}

#[test]
fn a_new_active_advertises_first_and_then_announces_every_address_in_both_forms() -> Result<()> {
    let Some(built) = require("takeover on the wire", &NEEDS) else { return Ok(()) };
    let lab = Lab::new(&built)?;
    let router = "[[virtual_router]]\nname = \"web\"\ninterface = \"eth0\"\nvrid = 51\npriority = 150\n\
                  advert_interval = \"100ms\"\naddresses = [\"192.0.2.10/24\", \"192.0.2.11/24\", \"192.0.2.12/32\"]\n";
    let daemon = lab.daemon_with("edge-a", router)?;
    let wire = FrameSocket::open(lab.station("client")?, INTERFACE, ALL)?;
    let mut scene = Scene { daemon, wire, mac: lab.mac("edge-a")?, lab };
    scene.daemon.start_and_wait()?;
    assert_takeover(&scene, 150, &[[192, 0, 2, 10], [192, 0, 2, 11], [192, 0, 2, 12]])
}

#[test]
fn an_owner_that_starts_advertises_first_and_then_announces() -> Result<()> {
    let Some(mut scene) = Scene::new("owner on the wire", 255, "1s", "")? else { return Ok(()) };
    let node = scene.lab.station("edge-a")?;
    node.ip(&["address", "flush", "dev", INTERFACE])?;
    node.ip(&["address", "add", "192.0.2.10/24", "dev", INTERFACE])?;
    scene.daemon.start_and_wait()?;
    assert_takeover(&scene, 255, &[VIP.octets()])
}

#[test]
fn adverts_come_from_the_primary_address_and_never_from_a_virtual_one() -> Result<()> {
    let Some(mut scene) = Scene::new("primary address", 150, "100ms", "")? else { return Ok(()) };
    let node = scene.lab.station("edge-a")?;
    // Without this the kernel takes the other addresses off with the first.
    node.set_sysctl("ipv4/conf/all/promote_secondaries", "1")?;
    scene.daemon.start_and_wait()?;
    let addresses = || node.ip(&["address", "show", "dev", INTERFACE]);
    wait::until("the virtual address", || addresses().is_ok_and(|text| text.contains("192.0.2.10/24")))?;
    let source = |frame: &[u8]| frame[26..30].to_vec();
    for _ in 0..5 {
        let sent = scene.next_advert()?;
        ensure!(source(&sent) == [192, 0, 2, 1], "{sent:02x?}");
    }

    node.ip(&["address", "add", "192.0.2.7/24", "dev", INTERFACE])?;
    node.ip(&["address", "delete", "192.0.2.1/24", "dev", INTERFACE])?;
    // 6 more than from .1: the IP header's complement is 6 less.
    let expected = scene.advert(
        0x20,
        [0xd8, 0x93],
        Ipv4Addr::new(192, 0, 2, 7),
        &[0x31, 51, 150, 1, 0x00, 10, 0x76, 0xb6, 192, 0, 2, 10],
    );
    let mut sent = scene.next_advert()?;
    while sent != expected {
        ensure!(source(&sent) != VIP.octets(), "a virtual address is nobody's primary address: {sent:02x?}");
        ensure!(source(&sent) == [192, 0, 2, 1], "{sent:02x?}");
        sent = scene.next_advert()?;
    }
    Ok(())
}

#[test]
fn the_group_is_joined_while_it_runs_and_left_after() -> Result<()> {
    let Some(mut scene) = Scene::new("membership", 150, "100ms", "")? else { return Ok(()) };
    let is_member = |scene: &Scene| -> Result<bool> {
        Ok(scene.lab.station("edge-a")?.ip(&["maddress", "show", "dev", INTERFACE])?.contains("inet  224.0.0.18"))
    };
    ensure!(!is_member(&scene)?);
    scene.daemon.start_and_wait()?;
    ensure!(is_member(&scene)?, "{}", scene.lab.station("edge-a")?.ip(&["maddress", "show", "dev", INTERFACE])?);
    scene.daemon.stop()?;
    ensure!(!is_member(&scene)?);
    Ok(())
}

#[test]
fn linux_follows_each_form_of_the_announcement_at_once() -> Result<()> {
    let Some(built) = require("announcement forms", &NEEDS) else { return Ok(()) };
    let lab = Lab::new(&built)?;
    let client = lab.station("client")?;
    let neighbour = || client.ip(&["neighbour", "show", "192.0.2.10", "dev", INTERFACE]);
    let wire = FrameSocket::open(lab.station("edge-a")?, INTERFACE, ALL)?;
    let mac = lab.mac("edge-a")?;
    let text = mac.map(|byte| format!("{byte:02x}")).join(":");
    for operation in [arp::REQUEST, arp::REPLY] {
        // As fresh as can be: within a second Linux lets only what it calls gratuitous change an entry.
        let old = "02:00:00:00:00:99";
        client.ip(&["neighbour", "replace", "192.0.2.10", "lladdr", old, "dev", INTERFACE, "nud", "reachable"])?;
        ensure!(neighbour()?.contains(old));
        wire.send(&arp::announcement(operation, Mac(mac), VIP.octets()))?;
        wait::until("the client to follow", || neighbour().is_ok_and(|entry| entry.contains(&text)))
            .with_context(|| format!("operation {operation}: {:?}", neighbour()))?;
    }
    Ok(())
}
