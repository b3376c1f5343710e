//! Ring 4: what an operator does and gets told: refusals, `status`, `unload`, bpftool, conflicts,
//! many virtual routers.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use failover_tests::answers;
use failover_tests::arp_probe::{self, ArpProbe};
use failover_tests::daemon::Daemon;
use failover_tests::frames::{ARP, FrameSocket, claim};
use failover_tests::lab::{INTERFACE, Lab, VIP};
use failover_tests::netns::{finish, run};
use failover_tests::requirements::{Built, require};
use failover_tests::wait;
use rustix::process::Signal;

const NEEDS: [&str; 3] = ["ip", "bpftool", "ethtool"];

fn single(test: &str) -> Result<Option<(Lab, Daemon)>> {
    let Some(built) = require(test, &NEEDS) else { return Ok(None) };
    let lab = Lab::new(&built)?;
    let daemon = lab.daemon("edge-a", 150, "100ms", "")?;
    Ok(Some((lab, daemon)))
}

/// Starts it, waits until it has ended, and asserts that it refused: exit 2, nothing loaded.
fn assert_refused(daemon: &mut Daemon, expected: &[&str]) -> Result<()> {
    daemon.start()?;
    let status = daemon.wait()?;
    let log = daemon.log();
    ensure!(status.code() == Some(2), "{status}: {log}");
    for part in expected {
        ensure!(log.contains(part), "{part:?} is missing in: {log}");
    }
    ensure!(daemon.status().is_err(), "something is loaded");
    Ok(())
}

#[test]
fn an_interface_that_does_not_exist_is_refused_by_file_and_line() -> Result<()> {
    let Some((lab, _)) = single("no such interface")? else { return Ok(()) };
    let routers =
        "[[virtual_router]]\nname = \"web\"\ninterface = \"eth7\"\nvrid = 1\naddresses = [\"192.0.2.10/24\"]\n";
    let mut daemon = lab.daemon_with("edge-a", routers)?;
    let at = format!("{}:8: interface \"eth7\" does not exist; there are eth0, lo", daemon.config().display());
    assert_refused(&mut daemon, &[&at])
}

#[test]
fn an_interface_without_an_address_is_refused() -> Result<()> {
    let Some((lab, mut daemon)) = single("no address")? else { return Ok(()) };
    lab.station("edge-a")?.ip(&["address", "flush", "dev", INTERFACE])?;
    assert_refused(&mut daemon, &[":8: interface \"eth0\" has no IPv4 address of its own"])
}

#[test]
fn somebody_elses_xdp_program_is_named_and_left_alone() -> Result<()> {
    let Some((lab, mut daemon)) = single("foreign program")? else { return Ok(()) };
    let node = lab.station("edge-a")?;
    let pin = format!("/sys/fs/bpf/{}-foreign", node.name());
    let object = Built::from_env()?.pass_object;
    run("bpftool", &["prog", "load", object.to_str().context("path")?, &pin])?;
    let attached = finish(node.command("bpftool").args(["net", "attach", "xdpdrv", "pinned", &pin, "dev", INTERFACE]));
    std::fs::remove_file(&pin)?;
    attached?;
    let id = || -> Result<String> {
        let json: serde_json::Value = serde_json::from_str(&node.ip(&["-json", "link", "show", INTERFACE])?)?;
        Ok(json[0]["xdp"]["prog"]["id"].to_string())
    };
    let before = id()?;
    ensure!(before != "null", "the program did not get attached");
    let message = format!("interface \"eth0\" already carries an XDP program that is not ours, id {before}");
    assert_refused(&mut daemon, &[":8: ", &message])?;
    ensure!(id()? == before, "it was replaced");
    Ok(())
}

#[test]
fn a_second_controller_with_the_same_pins_is_refused() -> Result<()> {
    let Some((_lab, mut daemon)) = single("second controller")? else { return Ok(()) };
    daemon.start_and_wait()?;
    let inside = finish(&mut daemon.run_command());
    let error = format!("{:#}", inside.err().context("a second controller started")?);
    ensure!(error.contains("another controller (process "), "{error}");
    wait::until("Active", || daemon.state(0).is_ok_and(|state| state == "Active"))
}

#[test]
fn status_says_3_when_nothing_is_loaded_and_unload_is_not_an_error() -> Result<()> {
    let Some((_lab, daemon)) = single("nothing loaded")? else { return Ok(()) };
    let failover = Built::from_env()?.failover;
    let status = Command::new(&failover).args(["status", "--pin-path"]).arg(daemon.pin_path()).output()?;
    ensure!(status.status.code() == Some(3), "{status:?}");
    finish(Command::new(&failover).args(["unload", "--pin-path"]).arg(daemon.pin_path())).map(drop)
}

#[test]
fn unload_takes_away_what_a_killed_controller_left() -> Result<()> {
    let Some((lab, mut daemon)) = single("unload")? else { return Ok(()) };
    let node = lab.station("edge-a")?;
    daemon.start_and_wait()?;
    let addresses = || node.ip(&["address", "show", "dev", INTERFACE]);
    wait::until("the address", || addresses().is_ok_and(|text| text.contains("192.0.2.10/24")))?;
    let refused = finish(daemon.unload_command().arg("--log=error")).err().context("unloaded a running controller")?;
    ensure!(format!("{refused:#}").contains("is running with pin_path"), "{refused:#}");

    daemon.kill()?;
    let text = finish(&mut daemon.unload_command())?;
    ensure!(text.contains("1 address(es) taken off"), "{text}");
    ensure!(!addresses()?.contains("192.0.2.10"), "the address is left");
    ensure!(addresses()?.contains("192.0.2.1/24"), "the node's own address is gone");
    ensure!(!node.ip(&["link", "show", INTERFACE])?.contains("xdp"), "the program is left");
    ensure!(!daemon.pin_path().exists(), "pins are left");
    Ok(())
}

#[test]
fn a_controller_that_starts_after_its_lease_ran_out_cleans_up() -> Result<()> {
    let Some((lab, mut daemon)) = single("late restart")? else { return Ok(()) };
    daemon.start_and_wait()?;
    let is_active = |daemon: &Daemon| daemon.state(0).is_ok_and(|state| state == "Active");
    wait::until("Active", || is_active(&daemon))?;
    daemon.kill()?;
    wait::until("the lease to run out", || {
        daemon.status().is_ok_and(|status| status["virtual_routers"][0]["lease_remaining_ms"] == 0)
    })?;
    // A better router has taken over meanwhile.
    let mut other = lab.daemon("edge-b", 200, "100ms", "")?;
    other.start_and_wait()?;
    wait::until("edge-b to be Active", || is_active(&other))?;
    daemon.start_and_wait()?;
    let node = lab.station("edge-a")?;
    let is_gone = || node.ip(&["address", "show", "dev", INTERFACE]).is_ok_and(|text| !text.contains("192.0.2.10"));
    wait::until("the leftover address to go", is_gone)?;
    ensure!(daemon.state(0)? == "Backup");
    Ok(())
}

#[test]
fn bpftool_shows_named_fields() -> Result<()> {
    let Some((_lab, mut daemon)) = single("bpftool")? else { return Ok(()) };
    daemon.start_and_wait()?;
    wait::until("Active", || daemon.state(0).is_ok_and(|state| state == "Active"))?;
    let entry = daemon.map_dump("VIRTUAL_ROUTERS")?[0]["formatted"]["value"].clone();
    ensure!(entry["settings"]["vrid"] == 51 && entry["settings"]["priority"] == 150, "{entry}");
    ensure!(entry["report"]["state"] == "Active", "the state should be shown by name: {entry}");
    ensure!(entry["lease"]["until_ns"].as_u64() > Some(0), "{entry}");
    let vip = daemon.map_dump("VIPS")?[0]["formatted"].clone();
    ensure!(vip["key"]["address"]["bytes"][12] == 192 && vip["value"]["router"] == 0, "{vip}");
    let counters = daemon.map_dump("COUNTERS")?[0]["formatted"]["values"][0]["value"].clone();
    ensure!(counters["advert_valid"].is_u64(), "{counters}");
    let meta = daemon.map_dump("META")?[0]["formatted"]["value"].clone();
    ensure!(meta["abi_version"] == 3, "{meta}");
    Ok(())
}

#[test]
fn status_json_has_what_the_contract_lists() -> Result<()> {
    let Some((_lab, mut daemon)) = single("status")? else { return Ok(()) };
    daemon.start_and_wait()?;
    wait::until("Active", || daemon.state(0).is_ok_and(|state| state == "Active"))?;
    let status = daemon.status()?;
    ensure!(status["schema"] == 1 && status["node"] == daemon.name() && status["controller_alive"] == true, "{status}");
    ensure!(status["interfaces"][0]["name"] == "eth0" && status["interfaces"][0]["xdp_mode"] == "native", "{status}");
    ensure!(status["interfaces"][0]["program_id"].as_u64() > Some(0), "{status}");
    let router = &status["virtual_routers"][0];
    for (key, value) in [("name", "web"), ("interface", "eth0"), ("family", "ipv4"), ("state", "Active")] {
        ensure!(router[key] == value, "{key}: {router}");
    }
    for (key, value) in
        [("vrid", 51), ("version", 3), ("priority", 150), ("advert_interval_ms", 100), ("transitions", 2)]
    {
        ensure!(router[key] == value, "{key}: {router}");
    }
    ensure!(router["active"]["address"] == "192.0.2.1" && router["active"]["priority"] == 150, "{router}");
    let remaining_ms = router["lease_remaining_ms"].as_u64().context("no lease")?;
    ensure!((1..=300).contains(&remaining_ms), "a lease of at most three intervals: {remaining_ms}");
    ensure!(router["since_unix_ms"].as_u64() > Some(1_700_000_000_000), "{router}");
    let address = &router["addresses"][0];
    ensure!(address["address"] == "192.0.2.10" && address["answering"] == true, "{address}");
    ensure!(address["arp_replies"].is_u64() && address["resets"] == 0, "{address}");
    ensure!(status["counters"]["advert_bad_ttl"] == 0, "{status}");
    Ok(())
}

#[test]
fn a_foreign_claim_of_the_address_is_answered_with_an_announcement() -> Result<()> {
    let Some((lab, mut daemon)) = single("conflict")? else { return Ok(()) };
    daemon.start_and_wait()?;
    let arp = lab.arp_probe()?;
    let mac = lab.mac("edge-a")?;
    wait::until("edge-a to answer", || arp.owner() == Some(mac))?;
    // The announcements of the takeover are over: five rounds.
    let wire = FrameSocket::open(lab.station("client")?, INTERFACE, ARP)?;
    wait::until("the announcements to end", || !is_announced(&wire, mac, Duration::from_millis(500)))?;
    wire.send(&claim(2, lab.mac("client")?, VIP.octets()))?;
    wait::until("a new announcement", || is_announced(&wire, mac, Duration::from_millis(500)))?;
    ensure!(daemon.counter("arp_conflict")? == 1);
    ensure!(daemon.log().contains("another station claims the address"), "{}", daemon.log());
    Ok(())
}

/// Whether a gratuitous ARP for the virtual address comes from `mac` within that time.
fn is_announced(wire: &FrameSocket, mac: [u8; 6], time: Duration) -> bool {
    let end = std::time::Instant::now() + time;
    while let Some(left) = end.checked_duration_since(std::time::Instant::now()) {
        let Ok(Some(frame)) = wire.receive(left) else { continue };
        if frame.len() >= 42 && frame[6..12] == mac && frame[28..32] == VIP.octets() && frame[38..42] == VIP.octets() {
            return true;
        }
    }
    false
}

#[test]
fn an_advert_that_does_not_go_out_renews_nothing_and_is_told_once() -> Result<()> {
    let Some((lab, mut daemon)) = single("failing sends")? else { return Ok(()) };
    let mut other = lab.daemon("edge-b", 100, "100ms", "")?;
    daemon.start_and_wait()?;
    other.start_and_wait()?;
    let arp = lab.arp_probe()?;
    let (first, second) = (lab.mac("edge-a")?, lab.mac("edge-b")?);
    wait::until("edge-a to answer", || arp.owner() == Some(first))?;
    // A queue without room: send(2) fails with ENOBUFS. What XDP sends goes past it.
    let node = lab.station("edge-a")?;
    let since = std::time::Instant::now();
    finish(node.command("tc").args(["qdisc", "add", "dev", INTERFACE, "root", "pfifo", "limit", "0"]))?;
    wait::until("edge-b to answer", || arp.owner() == Some(second)).with_context(|| daemon.log())?;
    arp.answers_alone_for(second, Duration::from_millis(300))?;
    ensure!(answers::doubles(&arp.since(since)).count == 0, "two nodes answered one question");
    finish(node.command("tc").args(["qdisc", "delete", "dev", INTERFACE, "root"]))?;
    wait::until("edge-a to answer again", || arp.owner() == Some(first)).with_context(|| daemon.log())?;
    let log = daemon.log();
    ensure!(log.matches("an advert did not go out").count() == 1, "{log}");
    ensure!(log.contains("No buffer space available") && log.contains("adverts go out again"), "{log}");
    Ok(())
}

#[test]
fn many_virtual_routers_on_two_interfaces_move_together() -> Result<()> {
    const ROUTERS: usize = 40;
    let Some(built) = require("many routers", &NEEDS) else { return Ok(()) };
    let lab = Lab::new(&built)?;
    // A second interface on each node, back to back.
    let (a, b) = (lab.station("edge-a")?, lab.station("edge-b")?);
    a.ip(&["link", "add", "eth1", "type", "veth", "peer", "name", "eth1", "netns", b.name()])?;
    for (node, address) in [(a, "198.51.100.1/24"), (b, "198.51.100.2/24")] {
        node.ip(&["address", "add", address, "dev", "eth1"])?;
        node.ip(&["link", "set", "eth1", "up"])?;
    }
    let routers = |priority: u8| -> String {
        (1..=ROUTERS)
            .map(|vrid| {
                let (interface, net) = if vrid % 2 == 0 { ("eth0", "192.0.2") } else { ("eth1", "198.51.100") };
                format!(
                    "[[virtual_router]]\nname = \"r{vrid}\"\ninterface = \"{interface}\"\nvrid = {vrid}\npriority = {priority}\n\
                     advert_interval = \"100ms\"\naddresses = [\"{net}.{}/24\", \"{net}.{}/24\"]\n",
                    10 + vrid,
                    100 + vrid
                )
            })
            .collect()
    };
    let mut first = lab.daemon_with("edge-a", &routers(150))?;
    let mut second = lab.daemon_with("edge-b", &routers(100))?;
    first.start_and_wait()?;
    second.start_and_wait()?;
    let all = |daemon: &Daemon, state: &str| {
        let Ok(status) = daemon.status() else { return false };
        let routers = status["virtual_routers"].as_array().cloned().unwrap_or_default();
        routers.len() == ROUTERS && routers.iter().all(|router| router["state"] == state)
    };
    let addresses = |node: &failover_tests::netns::Netns| -> Result<usize> {
        Ok(node.ip(&["-brief", "-4", "address", "show"])?.split_whitespace().filter(|word| word.contains('/')).count())
    };
    wait::until("edge-a to be Active for all", || all(&first, "Active") && all(&second, "Backup"))?;
    // Loopback, two of its own, and all virtual ones.
    wait::until("all addresses on edge-a", || addresses(a).is_ok_and(|count| count == 3 + 2 * ROUTERS))?;
    first.signal(Signal::STOP)?;
    wait::until("edge-b to be Active for all", || all(&second, "Active"))?;
    first.signal(Signal::CONT)?;
    wait::until("edge-a to be Active again", || all(&first, "Active") && all(&second, "Backup"))?;
    wait::until("no address left on edge-b", || addresses(b).is_ok_and(|count| count == 3))?;
    Ok(())
}

#[test]
fn with_accept_off_the_address_is_answered_for_and_not_put_on_the_interface() -> Result<()> {
    let Some(built) = require("accept off", &NEEDS) else { return Ok(()) };
    let lab = Lab::new(&built)?;
    let mut daemon = lab.daemon("edge-a", 150, "100ms", "accept = false")?;
    daemon.start_and_wait()?;
    let arp: ArpProbe = lab.arp_probe()?;
    let mac = lab.mac("edge-a")?;
    wait::until("edge-a to answer", || arp.owner() == Some(mac))?;
    let addresses = lab.station("edge-a")?.ip(&["address", "show", "dev", INTERFACE])?;
    ensure!(!addresses.contains("192.0.2.10"), "{addresses}");
    let questions = arp.since(std::time::Instant::now() - Duration::from_millis(100));
    ensure!(!arp_probe::answers_of(&questions, mac).is_empty());
    Ok(())
}

#[test]
fn the_owner_serves_its_own_address_and_keeps_it() -> Result<()> {
    let Some(built) = require("owner", &NEEDS) else { return Ok(()) };
    let lab = Lab::new(&built)?;
    let node = lab.station("edge-a")?;
    // The owner's virtual address is its interface's own, and its only one.
    node.ip(&["address", "flush", "dev", INTERFACE])?;
    node.ip(&["address", "add", "192.0.2.10/24", "dev", INTERFACE])?;
    let mut daemon = lab.daemon("edge-a", 255, "100ms", "")?;
    daemon.start_and_wait()?;
    let arp = lab.arp_probe()?;
    let mac = lab.mac("edge-a")?;
    wait::until("the owner to answer", || arp.owner() == Some(mac))?;
    ensure!(daemon.stop()?.success());
    let addresses = node.ip(&["address", "show", "dev", INTERFACE])?;
    ensure!(addresses.contains("192.0.2.10/24"), "its own address was taken off:\n{addresses}");
    Ok(())
}

#[test]
fn a_crash_followed_by_a_start_that_fails_leaves_no_address_unfenced() -> Result<()> {
    let Some((lab, _)) = single("failing restart")? else { return Ok(()) };
    let node = lab.station("edge-a")?;
    // A veth whose peer has a large MTU has generic XDP and no native.
    node.ip(&["link", "add", "big0", "mtu", "9000", "type", "veth", "peer", "name", "far0", "mtu", "9000"])?;
    node.ip(&["address", "add", "198.51.100.1/24", "dev", "big0"])?;
    node.ip(&["link", "set", "big0", "up"])?;
    node.ip(&["link", "set", "far0", "up"])?;
    let routers = "[[virtual_router]]\nname = \"web\"\ninterface = \"big0\"\nvrid = 51\nadvert_interval = \"100ms\"\n\
                   addresses = [\"198.51.100.10/24\"]\n";
    let mut daemon = lab.daemon_with("edge-a", routers)?;
    daemon.edit_config("native", "generic")?;
    let has_address = || node.ip(&["address", "show", "dev", "big0"]).is_ok_and(|text| text.contains("198.51.100.10"));
    daemon.start_and_wait()?;
    wait::until("the address", has_address)?;
    daemon.kill()?;
    ensure!(has_address(), "kill -9 should leave it");

    daemon.edit_config("generic", "native")?;
    daemon.start()?;
    let status = daemon.wait()?;
    ensure!(status.code() == Some(1) && daemon.log().contains("native mode"), "{status}: {}", daemon.log());
    ensure!(!has_address(), "the address is left, and nothing fences it");
    ensure!(!daemon.pin_path().exists(), "pins are left");
    Ok(())
}

#[test]
fn a_restart_with_another_configuration_takes_the_old_addresses_off() -> Result<()> {
    let Some((lab, mut daemon)) = single("other configuration")? else { return Ok(()) };
    let node = lab.station("edge-a")?;
    daemon.start_and_wait()?;
    let has = |net: &str| node.ip(&["address", "show", "dev", INTERFACE]).is_ok_and(|text| text.contains(net));
    wait::until("the address", || has("192.0.2.10/24"))?;
    daemon.kill()?;
    daemon.edit_config("192.0.2.10/24", "192.0.2.11/24")?;
    daemon.start_and_wait()?;
    wait::until("the new address", || has("192.0.2.11/24"))?;
    ensure!(!has("192.0.2.10/24"), "the old address is left");
    Ok(())
}
