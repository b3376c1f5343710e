//! Ring 4: Accept_Mode (RFC 9568 6.1, 6.4.3): whether an Active takes packets to its addresses for its own, and what
//! becomes of them when it does not; and frames to the virtual router's hardware address, which nobody has here.
//!
//! Deliberately absent: the fence of a node that is not Active; that is `xdp_fence.rs`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use failover_common::wire::checksum::checksum;
use failover_tests::daemon::Daemon;
use failover_tests::frames::FrameSocket;
use failover_tests::lab::{INTERFACE, Lab, VIP};
use failover_tests::requirements::require;
use failover_tests::wait;

/// EtherType of IPv4.
const IPV4: u16 = 0x0800;
/// ETH_P_ALL: frames of every type, also those that leave.
const ALL: u16 = 0x0003;
/// What ICMP's destination unreachable (type 3) says: RFC 792.
const HOST_UNREACHABLE: u8 = 1;
const PORT_UNREACHABLE: u8 = 3;
/// RFC 9568 7.3, VRID 51.
const VIRTUAL_ROUTER_MAC: [u8; 6] = [0x00, 0x00, 0x5e, 0x00, 0x01, 51];

/// An Active on edge-a that also forwards, as a router does.
struct Scene {
    // Dropped in this order: the controller before its namespace.
    _daemon: Daemon,
    client: FrameSocket,
    node: FrameSocket,
    mac: [u8; 6],
    client_mac: [u8; 6],
    lab: Lab,
}

impl Scene {
    fn new(test: &str, accept: bool) -> Result<Option<Self>> {
        let Some(built) = require(test, &["ip", "bpftool", "ethtool"]) else { return Ok(None) };
        let lab = Lab::new(&built)?;
        let edge_a = lab.station("edge-a")?;
        edge_a.set_sysctl("ipv4/ip_forward", "1")?;
        let mut daemon = lab.daemon("edge-a", 150, "100ms", &format!("accept = {accept}"))?;
        daemon.start_and_wait()?;
        let (mac, client_mac) = (lab.mac("edge-a")?, lab.mac("client")?);
        let arp = lab.arp_probe()?;
        wait::until("edge-a to answer", || arp.owner() == Some(mac)).with_context(|| daemon.log())?;
        drop(arp);
        let has_address =
            || edge_a.ip(&["address", "show", "dev", INTERFACE]).is_ok_and(|text| text.contains("192.0.2.10/24"));
        wait::until("the address, or none", || has_address() == accept)?;
        let client = FrameSocket::open(lab.station("client")?, INTERFACE, IPV4)?;
        let node = FrameSocket::open(edge_a, INTERFACE, ALL)?;
        Ok(Some(Self { _daemon: daemon, client, node, mac, client_mac, lab }))
    }

    /// Sends a datagram from that port of the client to port 53 of the address, where nobody listens.
    fn ask(&self, mac: [u8; 6], address: [u8; 4], port: u16) -> Result<()> {
        let mut datagram = [&mac[..], &self.client_mac, &[0x08, 0x00]].concat();
        // RFC 791: 28 bytes, TTL 64, UDP.
        datagram.extend([0x45, 0, 0, 28, 0, 1, 0, 0, 64, 17, 0, 0, 192, 0, 2, 100]);
        datagram.extend(address);
        let sum = checksum(&datagram[14..34]);
        datagram[24..26].copy_from_slice(&sum.to_be_bytes());
        // RFC 768: 8 bytes, no checksum.
        datagram.extend(port.to_be_bytes());
        datagram.extend([0, 53, 0, 8, 0, 0]);
        datagram.resize(60, 0);
        Ok(self.client.send(&datagram)?)
    }

    /// The next destination unreachable that the client gets: its sender, its code, and the port that had asked.
    fn unreachable(&self) -> Result<([u8; 6], u8, u16)> {
        let mut found = None;
        wait::until("destination unreachable", || {
            let Ok(Some(frame)) = self.client.receive(Duration::from_millis(100)) else { return false };
            // Ethernet 14, IP 20, ICMP 8, and of what it answers: IP 20, UDP 8.
            if frame.len() >= 70 && (frame[23], frame[34]) == (1, 3) {
                let mac = std::array::from_fn(|at| frame[6 + at]);
                found = Some((mac, frame[35], u16::from_be_bytes([frame[62], frame[63]])));
            }
            found.is_some()
        })?;
        found.context("no code")
    }

    /// How many IPv4 packets to the address have left edge-a, until one to the other has.
    fn forwarded(&self, address: [u8; 4], witness: [u8; 4]) -> Result<usize> {
        let (mut forwarded, mut witnessed) = (0, false);
        wait::until("a packet to be forwarded", || {
            while let Ok(Some(frame)) = self.node.receive(Duration::ZERO) {
                if frame.len() >= 34 && frame[6..12] == self.mac && frame[12..14] == [0x08, 0x00] {
                    forwarded += usize::from(frame[30..34] == address);
                    witnessed |= frame[30..34] == witness;
                }
            }
            witnessed
        })?;
        Ok(forwarded)
    }
}

#[test]
fn with_accept_on_the_active_takes_packets_to_the_address_for_its_own() -> Result<()> {
    let Some(scene) = Scene::new("accept on", true)? else { return Ok(()) };
    scene.ask(scene.mac, VIP.octets(), 5000)?;
    // Its own stack says that nobody listens there.
    let answer = scene.unreachable()?;
    ensure!(answer == (scene.mac, PORT_UNREACHABLE, 5000), "{answer:?}");
    Ok(())
}

#[test]
fn with_accept_off_the_active_neither_takes_nor_forwards_packets_to_the_address() -> Result<()> {
    let Some(scene) = Scene::new("accept off", false)? else { return Ok(()) };
    scene.ask(scene.mac, VIP.octets(), 5000)?;
    // It looks for the address's owner on the link, finds none, and gives up.
    let answer = scene.unreachable()?;
    ensure!(answer == (scene.mac, HOST_UNREACHABLE, 5000), "{answer:?}");
    // It does forward: this one to edge-b.
    let other = [192, 0, 2, 2];
    scene.ask(scene.mac, other, 5001)?;
    ensure!(scene.forwarded(VIP.octets(), other)? == 0, "a packet to the virtual address left again");
    Ok(())
}

#[test]
fn a_frame_to_the_virtual_routers_hardware_address_is_taken_by_no_backup_and_no_active() -> Result<()> {
    let Some(scene) = Scene::new("virtual MAC", true)? else { return Ok(()) };
    let mut backup = scene.lab.daemon("edge-b", 100, "100ms", "")?;
    backup.start_and_wait()?;
    // No switch has learned where it is: all stations get the frame.
    for port in 5000..5005 {
        scene.ask(VIRTUAL_ROUTER_MAC, VIP.octets(), port)?;
    }
    let mut arrived = 0;
    wait::until("the frames to arrive at edge-a", || {
        while let Ok(Some(frame)) = scene.node.receive(Duration::ZERO) {
            arrived += usize::from(frame[..6] == VIRTUAL_ROUTER_MAC);
        }
        arrived == 5
    })?;
    scene.ask(scene.mac, VIP.octets(), 6000)?;
    let first = scene.unreachable()?;
    ensure!(first == (scene.mac, PORT_UNREACHABLE, 6000), "{first:?}");
    ensure!(backup.state(0)? == "Backup");
    Ok(())
}
