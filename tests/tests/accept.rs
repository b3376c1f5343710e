//! Ring 4: Accept_Mode (RFC 9568 6.1, 6.4.3): whether an Active takes packets to its addresses for its own, and what
//! becomes of them when it does not.
//!
//! Deliberately absent: the fence of a node that is not Active; that is `xdp_fence.rs`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use failover_tests::daemon::Daemon;
use failover_tests::fixtures::frame;
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

/// An Active on edge-a that also forwards, as a router does.
struct Scene {
    // Dropped in this order: the controller before its namespace.
    _daemon: Daemon,
    client: FrameSocket,
    node: FrameSocket,
    mac: [u8; 6],
    client_mac: [u8; 6],
    _lab: Lab,
}

impl Scene {
    fn new(test: &str, accept: bool) -> Result<Option<Self>> {
        let Some(built) = require(test, &["ip", "bpftool", "ethtool"]) else { return Ok(None) };
        let lab = Lab::new(&built)?;
        lab.station("edge-a")?.set_sysctl("ipv4/ip_forward", "1")?;
        let mut daemon = lab.daemon("edge-a", 150, "100ms", &format!("accept = {accept}"))?;
        daemon.start_and_wait()?;
        let (mac, client_mac) = (lab.mac("edge-a")?, lab.mac("client")?);
        let arp = lab.arp_probe()?;
        wait::until("edge-a to answer", || arp.owner() == Some(mac)).with_context(|| daemon.log())?;
        let node = lab.station("edge-a")?;
        let has_address =
            || node.ip(&["address", "show", "dev", INTERFACE]).is_ok_and(|text| text.contains("192.0.2.10/24"));
        wait::until("the address, or none", || has_address() == accept)?;
        drop(arp);
        let client = FrameSocket::open(lab.station("client")?, INTERFACE, IPV4)?;
        let node = FrameSocket::open(lab.station("edge-a")?, INTERFACE, ALL)?;
        Ok(Some(Self { _daemon: daemon, client, node, mac, client_mac, _lab: lab }))
    }

    /// A datagram from the client to port 53 of that address, to edge-a's hardware address.
    fn ask(&self, address: [u8; 4]) -> Result<()> {
        let mut datagram = frame("ip udp");
        datagram[..6].copy_from_slice(&self.mac);
        datagram[6..12].copy_from_slice(&self.client_mac);
        // The checksums of IP and UDP cover the address: both change by the difference (RFC 1624).
        for checksum_at in [24, 40] {
            let checksum = u32::from(u16::from_be_bytes([datagram[checksum_at], datagram[checksum_at + 1]]));
            let (old, new) = (u32::from(datagram[33]), u32::from(address[3]));
            let sum = (!checksum & 0xffff) + (!old & 0xffff) + new;
            let folded = (sum & 0xffff) + (sum >> 16);
            let folded = (folded & 0xffff) + (folded >> 16);
            datagram[checksum_at..checksum_at + 2].copy_from_slice(&(!folded as u16).to_be_bytes());
        }
        datagram[30..34].copy_from_slice(&address);
        Ok(self.client.send(&datagram)?)
    }

    /// The code of the first destination unreachable that edge-a sends back for a packet to that address.
    fn unreachable(&self, address: [u8; 4]) -> Result<u8> {
        let mut code = None;
        wait::until("destination unreachable", || {
            let Ok(Some(frame)) = self.client.receive(Duration::from_millis(100)) else { return false };
            let is_it = frame.len() >= 62
                && frame[6..12] == self.mac
                && (frame[23], frame[34]) == (1, 3)
                && frame[58..62] == address;
            code = is_it.then(|| frame[35]);
            code.is_some()
        })?;
        code.context("no code")
    }

    /// How many IPv4 packets to each of two addresses have left edge-a, until one to the second has.
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
    scene.ask(VIP.octets())?;
    // Nobody listens: its own stack says so, and nobody else's can.
    ensure!(scene.unreachable(VIP.octets())? == PORT_UNREACHABLE);
    Ok(())
}

#[test]
fn with_accept_off_the_active_neither_takes_nor_forwards_packets_to_the_address() -> Result<()> {
    let Some(scene) = Scene::new("accept off", false)? else { return Ok(()) };
    scene.ask(VIP.octets())?;
    // It looks for the address's owner on the link, finds none, and gives up.
    ensure!(scene.unreachable(VIP.octets())? == HOST_UNREACHABLE);
    // It does forward: this one to edge-b.
    let other = [192, 0, 2, 2];
    scene.ask(other)?;
    ensure!(scene.forwarded(VIP.octets(), other)? == 0, "a packet to the virtual address left again");
    Ok(())
}
