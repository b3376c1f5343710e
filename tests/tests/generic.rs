//! Ring 4: generic mode, a program at tc ingress. It sees what the frame's bytes do not have; it answers, fences, resets
//! and is put back as the native one does; and it comes in the place of what an earlier version left.

use std::io::{ErrorKind, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aya::Ebpf;
use aya::programs::Xdp;
use aya::programs::links::FdLink;
use aya::programs::xdp::XdpMode;
use failover_tests::answers;
use failover_tests::arp_probe::{self, ArpProbe};
use failover_tests::daemon::Daemon;
use failover_tests::echo::TcpEcho;
use failover_tests::fixtures::frame;
use failover_tests::frames::{ARP, FrameSocket};
use failover_tests::lab::{INTERFACE, Lab, VIP};
use failover_tests::netns::{Netns, finish, run};
use failover_tests::requirements::{Built, require};
use failover_tests::tagged::Tagged;
use failover_tests::wait;
use failover_userspace::dataplane::{pins, tc};

/// Of the VLAN that is not ours.
const TAG: u16 = 50;
const IPV4: u16 = 0x0800;
const ALL: u16 = 0x0003;
/// At 100 ms adverts: three times the longest that any router waits.
const SETTLE: Duration = Duration::from_millis(1_200);

/// A lab, whose far ends need no program for this, and nodes in generic mode.
struct Scene {
    // Dropped in this order: controllers before their namespaces.
    daemons: Vec<Daemon>,
    lab: Lab,
    built: Built,
}

impl Scene {
    /// With controllers on the nodes of these priorities, edge-a first. `None` after saying why the test is skipped.
    fn start(test: &str, priorities: &[u8], more: &str) -> Result<Option<Self>> {
        let Some(built) = require(test, &["ip", "bpftool", "ethtool"]) else { return Ok(None) };
        let lab = Lab::new(&built)?;
        for port in ["edge-a", "edge-b", "client"] {
            lab.switch().ip(&["link", "set", port, "xdpdrv", "off"])?;
        }
        let mut scene = Self { daemons: Vec::new(), lab, built };
        for (node, priority) in ["edge-a", "edge-b"].into_iter().zip(priorities) {
            let mut daemon = scene.lab.daemon(node, *priority, "100ms", more)?;
            daemon.edit_config("xdp_mode = \"native\"", "xdp_mode = \"generic\"")?;
            daemon.start_and_wait()?;
            scene.daemons.push(daemon);
        }
        scene.wait_for_state(0, "Active")?;
        Ok(Some(scene))
    }

    fn wait_for_state(&self, daemon: usize, state: &str) -> Result<()> {
        let is_there = || self.daemons[daemon].state(0).is_ok_and(|now| now == state);
        wait::until(state, is_there).with_context(|| self.logs())
    }

    /// Waits until the node owns the address and has done so for a while.
    fn settle_on(&self, arp: &ArpProbe, node: &str) -> Result<()> {
        let mac = self.lab.mac(node)?;
        let settled = wait::until(node, || arp.owner() == Some(mac)).and_then(|()| arp.answers_alone_for(mac, SETTLE));
        settled.with_context(|| self.logs())
    }

    fn wait_for_line(&self, daemon: usize, line: &str) -> Result<()> {
        wait::until(line, || self.daemons[daemon].log().contains(line)).with_context(|| self.logs())
    }

    fn logs(&self) -> String {
        self.daemons.iter().map(|daemon| format!("{}:\n{}\n", daemon.name(), daemon.log())).collect()
    }
}

/// Our programs at the tc ingress of a node's interface.
fn programs(node: &Netns) -> Result<Vec<u32>> {
    node.enter(|| Ok(tc::programs(INTERFACE)?))
}

fn has_xdp(node: &Netns) -> Result<bool> {
    Ok(node.ip(&["link", "show", INTERFACE])?.contains("xdp"))
}

/// Waits for a frame that is like that.
fn wait_for_frame(socket: &FrameSocket, what: &str, is_like: impl Fn(&[u8]) -> bool) -> Result<()> {
    wait::until(what, || {
        while let Ok(Some(frame)) = socket.receive(Duration::ZERO) {
            if is_like(&frame) {
                return true;
            }
        }
        false
    })
}

/// Its filter, where it has one (before Linux 6.6), is taken off from inside.
fn untag(station: &Netns, tagged: Tagged) -> Result<()> {
    station.enter(|| {
        drop(tagged);
        Ok(())
    })
}

/// An ARP reply in the virtual address's name, to this address (RFC 826: operation at 20, sender's address at 28, target's
/// at 38): no announcement.
fn is_answer(frame: &[u8], to: [u8; 4]) -> bool {
    frame.get(20..22) == Some(&[0, 2]) && frame.get(28..32) == Some(&VIP.octets()) && frame.get(38..42) == Some(&to)
}

#[test]
fn f2_generic_a_question_of_another_vlan_is_not_answered() -> Result<()> {
    let Some(scene) = Scene::start("question of another VLAN", &[150], "")? else { return Ok(()) };
    let (node, other, client) =
        (scene.lab.station("edge-a")?, scene.lab.station("edge-b")?, scene.lab.station("client")?);
    let seen = FrameSocket::open(node, INTERFACE, ALL)?;
    let from_other = FrameSocket::open(other, INTERFACE, ARP)?;
    let from_client = FrameSocket::open(client, INTERFACE, ARP)?;
    let ask = |socket: &FrameSocket, station: &str, address: [u8; 4]| -> Result<()> {
        Ok(socket.send(&arp_probe::request(scene.lab.mac(station)?, address, VIP.octets()))?)
    };
    let (asker, client_asker) = ([192, 0, 2, 77], [192, 0, 2, 78]);
    let tagged = Tagged::start(&scene.built, other, INTERFACE, TAG)?;
    ask(&from_other, "edge-b", asker)?;
    wait_for_frame(&seen, "the tagged question", |frame| frame.get(28..32) == Some(&asker))?;
    // What came later is answered; so what came before is done.
    ask(&from_client, "client", client_asker)?;
    wait_for_frame(&from_client, "the untagged question's answer", |frame| is_answer(frame, client_asker))?;
    ensure!(scene.daemons[0].counter("arp_answered")? == 1, "{}", scene.daemons[0].status()?["counters"]);
    // Without the tag the same question is answered, and is the first that is.
    untag(other, tagged)?;
    ask(&from_other, "edge-b", asker)?;
    wait_for_frame(&from_other, "the same question's answer without a tag", |frame| is_answer(frame, asker))?;
    ensure!(scene.daemons[0].counter("arp_answered")? == 2, "{}", scene.daemons[0].status()?["counters"]);
    // A tag that has a priority and no VLAN is none.
    let _tagged = Tagged::start(&scene.built, other, INTERFACE, 3 << 13)?;
    ask(&from_other, "edge-b", asker)?;
    wait::until("an answer", || scene.daemons[0].counter("arp_answered").is_ok_and(|count| count == 3))
}

#[test]
fn f2_generic_adverts_of_another_vlan_are_not_heard_and_pass() -> Result<()> {
    let Some(scene) = Scene::start("adverts of another VLAN", &[150], "")? else { return Ok(()) };
    let (node, other) = (scene.lab.station("edge-a")?, scene.lab.station("edge-b")?);
    // Bound to a protocol: behind the hook, where a VLAN device would get them.
    let behind = FrameSocket::open(node, INTERFACE, IPV4)?;
    let socket = FrameSocket::open(other, INTERFACE, ARP)?;
    let better = frame("v3 owner");
    let arp = scene.lab.arp_probe()?;
    let before = scene.daemons[0].status()?["virtual_routers"][0]["transitions"].clone();
    let tagged = Tagged::start(&scene.built, other, INTERFACE, TAG)?;
    for _ in 0..10 {
        socket.send(&better)?;
        wait_for_frame(&behind, "the tagged advert", |frame| frame == better)?;
    }
    scene.settle_on(&arp, "edge-a")?;
    let daemon = &scene.daemons[0];
    ensure!(daemon.counter("advert_valid")? == 0, "{}", daemon.status()?["counters"]);
    ensure!(daemon.status()?["virtual_routers"][0]["transitions"] == before, "a change of role: {}", daemon.log());
    // The same without a tag ends the lease.
    untag(other, tagged)?;
    socket.send(&better)?;
    scene.wait_for_state(0, "Backup")
}

#[test]
fn f2_generic_a_killed_controller_is_fenced_and_unloaded() -> Result<()> {
    let Some(mut scene) = Scene::start("kill -9 in generic mode", &[150, 100], "")? else { return Ok(()) };
    let arp = scene.lab.arp_probe()?;
    scene.settle_on(&arp, "edge-a")?;
    let killed = Instant::now();
    scene.daemons[0].kill()?;
    scene.settle_on(&arp, "edge-b")?;
    let questions = arp.since(killed);
    ensure!(answers::doubles(&questions).count == 0, "two nodes answered\n{}", scene.logs());
    let a = &scene.daemons[0];
    ensure!(a.counter("arp_silenced")? > 0, "edge-a was not asked");
    // Attached, and fencing the address that is still there.
    let node = scene.lab.station("edge-a")?;
    ensure!(a.status()?["interfaces"][0]["attached"] == true, "{}", a.status()?);
    ensure!(a.status_table()?.contains("tc program"), "{}", a.status_table()?);
    ensure!(node.ip(&["address", "show", "dev", INTERFACE])?.contains(&VIP.to_string()));
    ensure!(programs(node)?.len() == 1 && !has_xdp(node)?);
    finish(&mut a.unload_command())?;
    ensure!(programs(node)?.is_empty(), "the program is left");
    ensure!(!node.ip(&["address", "show", "dev", INTERFACE])?.contains(&VIP.to_string()), "the address is left");
    // And a stop takes everything along.
    ensure!(scene.daemons[1].stop()?.success(), "{}", scene.logs());
    ensure!(programs(scene.lab.station("edge-b")?)?.is_empty(), "the program is left on edge-b");
    Ok(())
}

#[test]
fn f2_generic_a_program_that_is_detached_is_attached_again() -> Result<()> {
    let Some(mut scene) = Scene::start("detached in generic mode", &[150, 100], "")? else { return Ok(()) };
    let arp = scene.lab.arp_probe()?;
    scene.settle_on(&arp, "edge-a")?;
    let since = Instant::now();
    for (number, node) in ["edge-a", "edge-b"].into_iter().enumerate() {
        let pin = pins::link(scene.daemons[number].pin_path(), INTERFACE);
        detach(&pin, scene.lab.station(node)?)?;
        scene.wait_for_line(number, "somebody detached the tc program from the interface")?;
        scene.wait_for_line(number, "the tc program is in its place again")?;
        ensure!(programs(scene.lab.station(node)?)?.len() == 1);
    }
    scene.settle_on(&arp, "edge-a")?;
    scene.daemons[0].kill()?;
    scene.settle_on(&arp, "edge-b")?;
    ensure!(answers::doubles(&arp.since(since)).count == 0, "two nodes answered\n{}", scene.logs());
    Ok(())
}

/// What somebody might do: to a link, or, before Linux 6.6, to the qdisc with the filter.
fn detach(pin: &Path, node: &Netns) -> Result<()> {
    let pin = pin.to_str().context("a path that is no UTF-8")?;
    if run("bpftool", &["link", "detach", "pinned", pin]).is_err() {
        finish(node.command("tc").args(["qdisc", "del", "dev", INTERFACE, "clsact"]))?;
    }
    Ok(())
}

#[test]
fn f2_generic_xdp_of_an_earlier_version_is_replaced_in_place() -> Result<()> {
    let Some(mut scene) = Scene::start("upgrade from generic XDP", &[150], "")? else { return Ok(()) };
    let node = scene.lab.station("edge-a")?;
    let arp = scene.lab.arp_probe()?;
    scene.settle_on(&arp, "edge-a")?;
    scene.daemons[0].kill()?;
    // As one left it that had its program there: any one will do, for as long as the lease lives.
    let pin = pins::link(scene.daemons[0].pin_path(), INTERFACE);
    let mut earlier = Ebpf::load_file(&scene.built.pass_object)?;
    let program: &mut Xdp = earlier.program_mut("pass").context("no program \"pass\"")?.try_into()?;
    program.load()?;
    let id = node.enter(|| Ok(program.attach(INTERFACE, XdpMode::Skb)?))?;
    node.enter(|| pins::remove_link(&pin))?;
    FdLink::try_from(program.take_link(id)?)?.pin(&pin)?;
    drop(earlier);
    ensure!(has_xdp(node)? && programs(node)?.is_empty(), "the earlier version's program is not there");

    scene.daemons[0].start_again()?;
    let is_upgraded = || !has_xdp(node).unwrap_or(true) && programs(node).is_ok_and(|programs| programs.len() == 1);
    wait::until("the tc program alone", is_upgraded).with_context(|| scene.logs())?;
    scene.settle_on(&arp, "edge-a")?;
    ensure!(scene.daemons[0].status()?["interfaces"][0]["attached"] == true, "{}", scene.daemons[0].status()?);
    // A later upgrade replaces the tc program by the tc program.
    let before = programs(node)?;
    scene.daemons[0].kill()?;
    scene.daemons[0].start_again()?;
    let is_replaced = || programs(node).is_ok_and(|now| now.len() == 1 && now != before);
    wait::until("another tc program", is_replaced).with_context(|| scene.logs())?;
    scene.settle_on(&arp, "edge-a")
}

#[test]
fn f2_generic_the_program_of_another_pin_path_is_left_alone() -> Result<()> {
    let Some(scene) = Scene::start("two controllers on one interface", &[150], "")? else { return Ok(()) };
    let node = scene.lab.station("edge-a")?;
    let before = programs(node)?;
    let config = scene.daemons[0].config();
    let other = config.with_file_name("other.toml");
    let pin_path = scene.daemons[0].pin_path().to_string_lossy().into_owned();
    let text = std::fs::read_to_string(config)?;
    std::fs::write(&other, text.replace(&pin_path, &format!("{pin_path}-other")).replace("vrid = 51", "vrid = 52"))?;
    let mut command = node.command("timeout");
    let refused = command.arg("10").arg(&scene.built.failover).args(["run", "--config"]).arg(&other).output()?;
    let told = String::from_utf8_lossy(&refused.stderr);
    ensure!(refused.status.code() == Some(2), "{}: {told}", refused.status);
    ensure!(told.contains("already carries failover's tc program") && told.contains(":8: "), "{told}");
    ensure!(programs(node)? == before);
    Ok(())
}

/// A client that was silent while the address went over, and then sends more than fits into a frame at once: its kernel
/// leaves checksums and parts to the hardware, and a reset has to come of that.
#[test]
fn f2_generic_a_segment_that_was_to_be_sent_in_parts_is_reset() -> Result<()> {
    const STALE: &str = "[virtual_router.stale_connections]\naction = \"reset\"";
    let Some(scene) = Scene::start("bulk data in generic mode", &[150, 100], STALE)? else { return Ok(()) };
    let (client, b) = (scene.lab.station("client")?, scene.lab.station("edge-b")?);
    // Off while the far end had a program.
    finish(client.command("ethtool").args(["-K", INTERFACE, "tx", "on", "tso", "on", "gso", "on"]))?;
    // What leaves for the client has its checksum finished here, as by a network card.
    finish(scene.lab.switch().command("ethtool").args(["-K", "client", "tx", "off"]))?;
    let service = SocketAddrV4::new(VIP, 7);
    let (_echo_a, _echo_b) = (TcpEcho::start(scene.lab.station("edge-a")?, service)?, TcpEcho::start(b, service)?);
    let arp = scene.lab.arp_probe()?;
    scene.settle_on(&arp, "edge-a")?;
    let mut stream = client.enter(|| Ok(TcpStream::connect(service)?))?;
    scene.lab.set_cable("edge-a", false)?;
    scene.settle_on(&arp, "edge-b")?;

    let errors = client.kernel_counter("Tcp", "InCsumErrors")?;
    let resets_of_kernel = b.kernel_counter("Tcp", "OutRsts")?;
    let seen = FrameSocket::open(b, INTERFACE, ALL)?;
    stream.set_nonblocking(true)?;
    let mut end = None;
    let sent = stream.write(&[7; 100_000])?;
    ensure!(sent > 1_500, "{sent} bytes fit into a frame");
    wait_for_frame(&seen, "a segment longer than a frame", |frame| {
        frame.len() > 1_514 && frame.get(30..34) == Some(&VIP.octets())
    })?;
    wait::until("a reset", || {
        end = stream.write(&[7]).err().filter(|error| error.kind() != ErrorKind::WouldBlock);
        end.is_some()
    })
    .with_context(|| format!("{}\n{}", scene.daemons[1].status().unwrap_or_default()["counters"], scene.logs()))?;
    ensure!(end.as_ref().is_some_and(|end| end.kind() == ErrorKind::ConnectionReset), "{end:?}");
    let counter = |name| scene.daemons[1].counter(name);
    ensure!(counter("reset_unknown_flow")? > 0, "{}", scene.daemons[1].status()?["counters"]);
    ensure!(b.kernel_counter("Tcp", "OutRsts")? == resets_of_kernel, "the kernel reset it, not the program");
    ensure!(client.kernel_counter("Tcp", "InCsumErrors")? == errors, "a wrong checksum");
    Ok(())
}
