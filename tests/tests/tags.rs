//! Ring 4: a station of VLAN 50 on the same wire, whose tag is in the frame's metadata and not in its bytes, beside native
//! XDP. What it asks and advertises is another VLAN's: it is neither answered nor heard, and goes on to whoever it is for.
//!
//! That a frame reached a packet socket on the node is the witness for both: what the program answers or drops reaches none.

use std::io;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aya::Ebpf;
use aya::programs::Xdp;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::XdpLink;
use failover_common::abi::{INTERFACES, Interface};
use failover_tests::answers::longest_silence;
use failover_tests::arp_probe::{self, ArpProbe};
use failover_tests::daemon::Daemon;
use failover_tests::fixtures::frame;
use failover_tests::frames::{ARP, FrameSocket};
use failover_tests::lab::{INTERFACE, Lab, VIP};
use failover_tests::netns::{Netns, finish, run};
use failover_tests::requirements::{Built, require};
use failover_tests::tagged::Tagged;
use failover_tests::wait;
use failover_userspace::dataplane::maps::{self, Raw};
use failover_userspace::dataplane::pins;
use failover_userspace::ethtool;

/// EtherType of whatever comes, and of what goes.
const ALL: u16 = 0x0003;
const VLAN_50: u16 = 50;
/// VLAN id 0 with priority 3: a priority tag, no VLAN (IEEE 802.1Q 6.9).
const PRIORITY_3: u16 = 3 << 13;
const STRANGER: &str = "stranger";
/// Frames of each kind that have to arrive.
const COUNT: usize = 20;

/// An Active on edge-a, an untagged client, and a station that the controller has not heard of.
struct Scene {
    // Dropped in this order: the controller before its namespace.
    arp: ArpProbe,
    daemon: Daemon,
    mac: [u8; 6],
    stranger: FrameSocket,
    stranger_mac: [u8; 6],
    /// Sees what the program lets pass on edge-a.
    seen: FrameSocket,
    lab: Lab,
    built: Built,
}

impl Scene {
    /// `None` after saying why the test is skipped.
    fn start(test: &str) -> Result<Option<Self>> {
        let Some(built) = require(test, &["ip", "bpftool", "ethtool"]) else { return Ok(None) };
        let mut lab = Lab::new(&built)?;
        lab.add_station(STRANGER, "192.0.2.101/24")?;
        let mut daemon = lab.daemon("edge-a", 150, "100ms", "")?;
        daemon.start_and_wait()?;
        let scene = Self {
            arp: lab.arp_probe()?,
            daemon,
            mac: lab.mac("edge-a")?,
            stranger: FrameSocket::open(lab.station(STRANGER)?, INTERFACE, ARP)?,
            stranger_mac: lab.mac(STRANGER)?,
            seen: FrameSocket::open(lab.station("edge-a")?, INTERFACE, ALL)?,
            lab,
            built,
        };
        wait::until("the node to answer", || scene.arp.owner() == Some(scene.mac))
            .with_context(|| scene.daemon.log())?;
        Ok(Some(scene))
    }

    /// Waits until the node is Active and answers the client.
    fn settle(&self) -> Result<()> {
        let is_active = || self.daemon.state(0).is_ok_and(|state| state == "Active");
        wait::until("an Active that answers", || is_active() && self.arp.owner() == Some(self.mac))
            .with_context(|| self.daemon.log())
    }

    fn tag(&self, tag: u16) -> Result<Tagged> {
        Tagged::start(&self.built, self.lab.station(STRANGER)?, INTERFACE, tag)
    }

    /// The stranger's question for the virtual address.
    fn question(&self) -> Vec<u8> {
        arp_probe::request(self.stranger_mac, [192, 0, 2, 101], VIP.octets())
    }

    /// Sends the frame again and again until that many of it have reached a packet socket on the node.
    fn send_until_seen(&self, sent: &[u8]) -> Result<()> {
        let mut count = 0;
        wait::until("the frames to reach a packet socket on the node", || {
            let _ = self.stranger.send(sent);
            while let Ok(Some(frame)) = self.seen.receive(Duration::ZERO) {
                count += usize::from(frame == sent);
            }
            count >= COUNT
        })
        .with_context(|| format!("{count} of {COUNT} were seen\n{}", self.daemon.log()))
    }

    /// Whether the stranger gets an answer, asking for as long as it takes.
    fn is_answered(&self) -> Result<()> {
        wait::until("an answer to the stranger", || {
            let _ = self.stranger.send(&self.question());
            self.answers() > 0
        })
    }

    /// Answers for the virtual address that the stranger has got and not looked at.
    fn answers(&self) -> usize {
        let mut count = 0;
        while let Ok(Some(frame)) = self.stranger.receive(Duration::from_millis(2)) {
            let is_to_it = frame[..6] == self.stranger_mac && frame[20..22] == [0, 2];
            count += usize::from(is_to_it && frame[28..32] == VIP.octets());
        }
        count
    }

    /// The untagged client is answered by the node and nobody else, then and now.
    fn client_is_answered(&self, since: Instant) -> Result<()> {
        self.arp.answers_alone_for(self.mac, Duration::from_millis(300)).with_context(|| self.daemon.log())?;
        let silence = longest_silence(&self.arp.since(since));
        ensure!(silence < 25, "{silence} of the client's questions in a row were not answered\n{}", self.daemon.log());
        Ok(())
    }

    fn asks_in_vain(&self) -> Result<()> {
        self.settle()?;
        let since = Instant::now();
        self.send_until_seen(&self.question())?;
        let answers = self.answers();
        ensure!(answers == 0, "the stranger got {answers} answers");
        self.client_is_answered(since)
    }
}

#[test]
fn f2_a_question_of_another_vlan_is_not_answered() -> Result<()> {
    let Some(scene) = Scene::start("a question of another VLAN")? else { return Ok(()) };
    scene.is_answered().context("untagged")?;
    let _tagged = scene.tag(VLAN_50)?;
    // What was under way untagged.
    scene.answers();
    scene.asks_in_vain()
}

#[test]
fn f2_nor_after_a_crash_an_upgrade_and_a_program_that_somebody_detached() -> Result<()> {
    let Some(mut scene) = Scene::start("a question of another VLAN, later")? else { return Ok(()) };
    let _tagged = scene.tag(VLAN_50)?;
    let pin = pins::link(scene.daemon.pin_path(), INTERFACE);
    // Adopted: one bound program in the place of another.
    scene.daemon.kill()?;
    scene.daemon.start_again()?;
    scene.asks_in_vain().context("after a crash")?;
    // One that asks no driver, as of an earlier version.
    scene.daemon.kill()?;
    let mut earlier = Ebpf::load_file(&scene.built.pass_object)?;
    let program: &mut Xdp = earlier.program_mut("pass").context("no program \"pass\"")?.try_into()?;
    program.load()?;
    let link = program.attach_to_link(XdpLink::try_from(FdLink::from(PinnedLink::from_pin(&pin)?))?)?;
    let _ = FdLink::try_from(program.take_link(link)?)?;
    scene.daemon.start_again()?;
    scene.asks_in_vain().context("after an upgrade")?;
    ensure!(!scene.daemon.log().contains("cannot be replaced in its place"), "a gap: {}", scene.daemon.log());
    run("bpftool", &["link", "detach", "pinned", pin.to_str().context("a path that is no UTF-8")?])?;
    wait::until("the program to be back", || scene.daemon.log().contains("the XDP program is in its place again"))?;
    scene.asks_in_vain().context("after it was detached")
}

#[test]
fn f2_nor_on_an_interface_that_was_made_anew() -> Result<()> {
    let Some(mut scene) = Scene::start("a question of another VLAN, made anew")? else { return Ok(()) };
    let node = scene.lab.station("edge-a")?;
    node.ip(&["link", "delete", INTERFACE])?;
    wait::until("the interface to be missed", || scene.daemon.log().contains("the interface is gone"))?;
    scene.lab.connect("edge-a")?;
    node.ip(&["address", "add", "192.0.2.1/24", "dev", INTERFACE])?;
    scene.mac = scene.lab.mac("edge-a")?;
    scene.settle()?;
    scene.seen = FrameSocket::open(node, INTERFACE, ALL)?;
    let _tagged = scene.tag(VLAN_50)?;
    scene.asks_in_vain()
}

#[test]
fn f2_a_priority_tag_is_no_vlan() -> Result<()> {
    let Some(scene) = Scene::start("a priority tag")? else { return Ok(()) };
    let _tagged = scene.tag(PRIORITY_3)?;
    scene.is_answered()
}

#[test]
fn f2_a_router_of_another_vlan_is_not_heard_and_its_adverts_are_not_eaten() -> Result<()> {
    let Some(scene) = Scene::start("a router of another VLAN")? else { return Ok(()) };
    let since = Instant::now();
    let tagged = scene.tag(VLAN_50)?;
    // Version 3, router 51, priority 200, for 192.0.2.200 instead of .10: 0xbe more in the sum, less in its complement.
    let mut advert = frame("v3 one address");
    assert_eq!((&advert[40..42], &advert[42..]), (&[0x44, 0x5c][..], &[192, 0, 2, 10][..]));
    advert[40..42].copy_from_slice(&[0x43, 0x9e]);
    advert[45] = 200;
    scene.send_until_seen(&advert)?;
    scene.client_is_answered(since)?;
    ensure!(scene.daemon.state(0)? == "Active", "{}", scene.daemon.log());
    for counter in ["advert_valid", "advert_superior", "lease_ended"] {
        ensure!(scene.daemon.counter(counter)? == 0, "{counter}: {}", scene.daemon.status()?["counters"]);
    }
    // Untagged, the very same advert is heard.
    drop(tagged);
    wait::until("the advert to be heard", || {
        let _ = scene.stranger.send(&advert);
        scene.daemon.counter("advert_superior").is_ok_and(|count| count > 0)
    })
}

/// The kernel's own tool is the judge.
fn is_rx_vlan_offload_on(node: &Netns) -> Result<bool> {
    let features = finish(node.command("ethtool").args(["-k", INTERFACE]))?;
    let line = features.lines().find(|line| line.starts_with("rx-vlan-offload")).context("no rx-vlan-offload")?;
    Ok(line.starts_with("rx-vlan-offload: on"))
}

#[test]
fn f2_rx_vlan_offload_is_switched_off_and_on() -> Result<()> {
    let Some(built) = require("rx-vlan-offload", &["ip", "bpftool", "ethtool"]) else { return Ok(()) };
    let lab = Lab::new(&built)?;
    let node = lab.station("edge-a")?;
    let json: serde_json::Value = serde_json::from_str(&node.ip(&["-json", "link", "show", INTERFACE])?)?;
    let index = json[0]["ifindex"].as_u64().context("no index")? as u32;
    for is_on in [false, true] {
        let is_told = node.enter(|| {
            ensure!(ethtool::set_rx_vlan_offload(index, is_on)?, "not obeyed");
            Ok(ethtool::rx_vlan_offload(index)?)
        })?;
        ensure!(is_told == is_on && is_rx_vlan_offload_on(node)? == is_on, "{is_on}: told {is_told}");
    }
    // The loopback has none, and never will.
    let fixed = node.enter(|| Ok(ethtool::set_rx_vlan_offload(1, true)))?;
    ensure!(fixed.is_err_and(|error| error.kind() == io::ErrorKind::Unsupported), "the loopback has it");
    Ok(())
}

#[test]
fn f2_rx_vlan_offload_is_put_back_by_a_stop_and_by_unload() -> Result<()> {
    let Some(mut scene) = Scene::start("rx-vlan-offload put back")? else { return Ok(()) };
    for ends in [
        |daemon: &mut Daemon| daemon.stop().map(drop),
        |daemon: &mut Daemon| {
            daemon.kill()?;
            finish(&mut daemon.unload_command()).map(drop)
        },
    ] {
        if scene.daemon.status().is_err() {
            scene.daemon.start_and_wait()?;
        }
        let node = scene.lab.station("edge-a")?;
        // As on a NIC where it had to be switched off.
        finish(node.command("ethtool").args(["-K", INTERFACE, "rxvlan", "off"]))?;
        let mut known = maps::hash::<4, { size_of::<Interface>() }>(maps::open(scene.daemon.pin_path(), INTERFACES)?)?;
        let (index, value) = known.iter().next().context("no interface")??;
        let value = Interface { offload_switched_off: 1, ..value.read()? };
        known.insert(index, Raw::of(&value), 0)?;
        ends(&mut scene.daemon)?;
        ensure!(is_rx_vlan_offload_on(node)?, "{}", scene.daemon.log());
    }
    Ok(())
}
