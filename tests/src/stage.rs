//! The lab as the tests of TCP connections use it: an echo service on both nodes, a crowd of clients, everything that
//! watches, and a service in another namespace behind a node.

use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::arp_probe::{self, ArpProbe};
use crate::capture::Capture;
use crate::crowd::{Crowd, End, Plan, Role};
use crate::daemon::Daemon;
use crate::echo::TcpEcho;
use crate::lab::{INTERFACE, Lab, VIP};
use crate::netns::{Netns, finish};
use crate::requirements::{allow_files, require};
use crate::wait;

/// How a connection ends that was reset.
pub const RESET: End = End::Errno(libc::ECONNRESET);
/// The echo service of both nodes.
pub const SERVICE: SocketAddrV4 = SocketAddrV4::new(VIP, 7);
/// A hundred clients of which half are busy; scenarios say what is different.
pub const CROWD: Plan =
    Plan { to: SERVICE, first_port: 10_000, busy: 50, idle: 50, brief: 0, pause: Duration::from_millis(20) };
/// How long what must not happen is watched for: a reset to every retransmission of a busy client, and three rounds of
/// tickles.
pub const WHILE: Duration = Duration::from_secs(3);
/// Very many clients of one kind.
pub const MANY: u16 = 1000;
/// Three connections for each client, and the rest of a process.
const FILES: u64 = 3 * 2 * MANY as u64 + 200;

/// The lab with an echo service on both nodes and everything that watches.
pub struct Stage {
    /// Who answers ARP.
    pub arp: ArpProbe,
    /// The service on edge-a.
    pub echo_a: TcpEcho,
    /// The service on edge-b.
    pub echo_b: TcpEcho,
    /// edge-a's hardware address.
    pub mac_a: [u8; 6],
    /// edge-b's.
    pub mac_b: [u8; 6],
    /// The namespaces.
    pub lab: Lab,
}

impl Stage {
    /// `None` after saying why the test is skipped. `more` are programs that it needs besides.
    ///
    /// # Errors
    /// When something cannot be made.
    pub fn new(test: &str, more: &[&str]) -> Result<Option<Self>> {
        let programs = [["ip", "bpftool", "ethtool", "ss", "tcpdump"].as_slice(), more].concat();
        let Some(built) = require(test, &programs) else { return Ok(None) };
        allow_files(FILES)?;
        let lab = Lab::new(&built)?;
        Ok(Some(Self {
            arp: lab.arp_probe()?,
            echo_b: TcpEcho::start(lab.station("edge-b")?, SERVICE)?,
            echo_a: TcpEcho::start(lab.station("edge-a")?, SERVICE)?,
            mac_a: lab.mac("edge-a")?,
            mac_b: lab.mac("edge-b")?,
            lab,
        }))
    }

    /// Both of ours. edge-b is there first, so that edge-a is Active by a takeover.
    ///
    /// # Errors
    /// When one does not get there, with its log.
    pub fn ours(&self, data_plane: &str) -> Result<(Daemon, Daemon)> {
        let mut b = self.lab.replicating_daemon("edge-b", 100, data_plane)?;
        let mut a = self.lab.replicating_daemon("edge-a", 150, data_plane)?;
        b.start_and_wait()?;
        self.wait_for_owner(self.mac_b).with_context(|| b.log())?;
        a.start_and_wait()?;
        self.wait_for_owner(self.mac_a).with_context(|| a.log())?;
        Ok((a, b))
    }

    /// Waits until the address is answered from `mac`.
    ///
    /// # Errors
    /// When it never is.
    pub fn wait_for_owner(&self, mac: [u8; 6]) -> Result<()> {
        let what = if mac == self.mac_a { "edge-a to answer" } else { "edge-b to answer" };
        wait::until(what, || self.arp.owner() == Some(mac))
    }

    /// When edge-b first answered ARP after `since`.
    ///
    /// # Errors
    /// When it never does.
    pub fn first_answer_of_b(&self, since: Instant) -> Result<Instant> {
        self.wait_for_owner(self.mac_b)?;
        arp_probe::answers_of(&self.arp.since(since), self.mac_b).first().copied().context("edge-b never answered")
    }

    /// Clients that are all served by now.
    ///
    /// # Errors
    /// When one is not.
    pub fn crowd(&self, plan: &Plan) -> Result<Crowd> {
        let since = Instant::now();
        let crowd = Crowd::start(self.lab.station("client")?, plan)?;
        crowd.wait_until_served(since)?;
        // Their round trip is known by then, and with it the retransmissions' time.
        crowd.wait_for_each("ten echoes", |member| member.role == Role::Idle || member.echoes >= 10)?;
        Ok(crowd)
    }

    /// What the client's interface carries, from now on.
    ///
    /// # Errors
    /// When tcpdump cannot be started.
    pub fn capture(&self) -> Result<Capture> {
        Capture::start(self.lab.station("client")?, self.lab.directory(), INTERFACE, VIP)
    }

    /// Segments that the client's kernel threw away for their checksums.
    ///
    /// # Errors
    /// When its counters cannot be read.
    pub fn checksum_errors(&self) -> Result<u64> {
        let client = self.lab.station("client")?;
        Ok(client.kernel_counter("Tcp", "InCsumErrors")? + client.kernel_counter("IpExt", "InCsumErrors")?)
    }
}

/// Waits until a node knows that many connections of its peers.
///
/// # Errors
/// When it never does, with its log.
pub fn wait_for_peer_flows(daemon: &Daemon, count: u16) -> Result<()> {
    let known = || daemon.status().is_ok_and(|status| status["flows"]["peers"] == count);
    let waited = wait::until(&format!("{count} replicated flows"), known);
    waited.with_context(|| format!("{:?}\n{}", daemon.status().map(|status| status["flows"].clone()), daemon.log()))
}

/// Another namespace behind the node, whose echo service is VIP:8080 for everyone else (DNAT), and whose own connections
/// come from the VIP (SNAT). It goes when dropped.
///
/// # Errors
/// When one of the commands fails.
pub fn service_behind_nat(node: &Netns) -> Result<(Netns, TcpEcho)> {
    let service = Netns::new(&format!("{}-svc", node.name()))?;
    node.ip(&["link", "add", "svc", "type", "veth", "peer", "name", "eth0", "netns", service.name()])?;
    node.ip(&["address", "add", "198.51.100.1/24", "dev", "svc"])?;
    node.ip(&["link", "set", "svc", "up"])?;
    service.ip(&["address", "add", "198.51.100.2/24", "dev", "eth0"])?;
    service.ip(&["link", "set", "eth0", "up"])?;
    service.ip(&["route", "add", "default", "via", "198.51.100.1"])?;
    node.set_sysctl("ipv4/ip_forward", "1")?;
    let nft = |words: &str| finish(node.command("nft").args(words.split_whitespace())).map(drop);
    nft("add table ip nat")?;
    nft("add chain ip nat prerouting { type nat hook prerouting priority -100 ; }")?;
    nft(&format!("add rule ip nat prerouting ip daddr {VIP} tcp dport 8080 dnat to 198.51.100.2:7"))?;
    nft("add chain ip nat postrouting { type nat hook postrouting priority 100 ; }")?;
    nft(&format!("add rule ip nat postrouting ip saddr 198.51.100.2 oifname {INTERFACE} snat to {VIP}"))?;
    let echo = TcpEcho::start(&service, SocketAddrV4::new([198, 51, 100, 2].into(), 7))?;
    Ok((service, echo))
}
