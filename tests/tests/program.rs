//! Ring 4: the kernel program is taken away from under a controller that lives. It is missed within an interval, put back
//! and told of; where it can't be put back the node holds nothing. What a dead controller leaves is fenced all the same.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use failover_tests::answers;
use failover_tests::arp_probe::{self, ArpProbe};
use failover_tests::daemon::Daemon;
use failover_tests::lab::{INTERFACE, Lab};
use failover_tests::netns::{finish, run};
use failover_tests::requirements::require;
use failover_tests::wait;
use failover_userspace::dataplane::{maps, pins};
use rustix::process::Signal;

/// At 100 ms adverts: three times the longest that any router waits. Who is deaf shows it in a third of that.
const SETTLE: Duration = Duration::from_millis(1_200);

/// Two nodes, of which `a` (priority 150) is Active and `b` (priority 100) listens.
struct Pair {
    // Dropped in this order: controllers before their namespaces.
    arp: ArpProbe,
    a: Daemon,
    b: Daemon,
    mac_a: [u8; 6],
    mac_b: [u8; 6],
    lab: Lab,
}

impl Pair {
    /// `None` after saying why the test is skipped.
    fn start(test: &str, advert_interval: &str) -> Result<Option<Self>> {
        let Some(built) = require(test, &["ip", "bpftool", "ethtool"]) else { return Ok(None) };
        let lab = Lab::new(&built)?;
        let mut a = lab.daemon("edge-a", 150, advert_interval, "")?;
        let mut b = lab.daemon("edge-b", 100, advert_interval, "")?;
        a.start_and_wait()?;
        b.start_and_wait()?;
        let (mac_a, mac_b) = (lab.mac("edge-a")?, lab.mac("edge-b")?);
        let arp = lab.arp_probe()?;
        let pair = Self { arp, a, b, mac_a, mac_b, lab };
        pair.settle_on(pair.mac_a)?;
        Ok(Some(pair))
    }

    /// Waits until `mac` owns the address and has done so for a while.
    fn settle_on(&self, mac: [u8; 6]) -> Result<()> {
        let settled = wait::until("the owner", || self.arp.owner() == Some(mac))
            .and_then(|()| self.arp.answers_alone_for(mac, SETTLE));
        settled.with_context(|| format!("edge-a:\n{}\nedge-b:\n{}", self.a.log(), self.b.log()))
    }

    /// No question since then had two answers.
    fn assert_single_owner(&self, since: Instant) -> Result<()> {
        let doubles = answers::doubles(&self.arp.since(since)).count;
        ensure!(
            doubles == 0,
            "two nodes answered {doubles} questions\nedge-a:\n{}\nedge-b:\n{}",
            self.a.log(),
            self.b.log()
        );
        Ok(())
    }

    /// After kill -9 of the Active the other takes over, and the dead one is silent.
    fn assert_fenced_when_killed(mut self) -> Result<()> {
        let killed = Instant::now();
        self.a.kill()?;
        self.settle_on(self.mac_b)?;
        self.assert_single_owner(killed)
    }
}

fn wait_for_line(daemon: &Daemon, line: &str) -> Result<()> {
    wait::until(line, || daemon.log().contains(line)).with_context(|| daemon.log())
}

/// `bpftool link detach`.
fn detach(daemon: &Daemon) -> Result<()> {
    let pin = pins::link(daemon.pin_path(), INTERFACE);
    run("bpftool", &["link", "detach", "pinned", text(&pin)?]).map(drop)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is no UTF-8")
}

/// What `status` says of the program on the one interface: id and whether it is attached.
fn program(daemon: &Daemon) -> Result<(Option<u64>, bool)> {
    let status = daemon.status()?;
    let interface = &status["interfaces"][0];
    let is_attached = interface["attached"].as_bool().with_context(|| status.to_string())?;
    Ok((interface["program_id"].as_u64(), is_attached))
}

fn detached_on_the_backup(advert_interval: &str) -> Result<()> {
    let Some(pair) = Pair::start("detached on the Backup", advert_interval)? else { return Ok(()) };
    let since = Instant::now();
    detach(&pair.b)?;
    wait_for_line(&pair.b, "somebody detached the XDP program from the interface")?;
    wait_for_line(&pair.b, "the XDP program is in its place again")?;
    pair.settle_on(pair.mac_a)?;
    pair.assert_single_owner(since)?;
    ensure!(arp_probe::answers_of(&pair.arp.since(since), pair.mac_b).is_empty(), "edge-b answered\n{}", pair.b.log());
    ensure!(pair.b.state(0)? == "Backup", "{}", pair.b.log());
    ensure!(matches!(program(&pair.b)?, (Some(_), true)), "{}", pair.b.status()?);
    Ok(())
}

#[test]
fn f5_a_program_that_is_detached_on_the_backup_is_attached_again() -> Result<()> {
    detached_on_the_backup("100ms")
}

#[test]
fn f5_a_program_that_is_detached_on_the_backup_is_attached_again_at_10_ms_adverts() -> Result<()> {
    detached_on_the_backup("10ms")
}

#[test]
fn f5_a_program_that_is_detached_on_the_active_is_back_within_the_lease_and_fences_after_kill_9() -> Result<()> {
    let Some(pair) = Pair::start("detached on the Active", "100ms")? else { return Ok(()) };
    let before = pair.a.status()?["virtual_routers"][0]["transitions"].clone();
    let since = Instant::now();
    detach(&pair.a)?;
    wait_for_line(&pair.a, "somebody detached the XDP program from the interface")?;
    wait_for_line(&pair.a, "the XDP program is in its place again")?;
    pair.settle_on(pair.mac_a)?;
    pair.assert_single_owner(since)?;
    ensure!(pair.a.status()?["virtual_routers"][0]["transitions"] == before, "a change of role: {}", pair.a.log());
    pair.assert_fenced_when_killed()
}

#[test]
fn f5_an_unpinned_link_is_pinned_again() -> Result<()> {
    let Some(pair) = Pair::start("unpinned", "100ms")? else { return Ok(()) };
    for daemon in [&pair.a, &pair.b] {
        let pin = pins::link(daemon.pin_path(), INTERFACE);
        std::fs::remove_file(&pin)?;
        wait_for_line(daemon, "somebody unpinned the XDP program's link: pinned it again")?;
        ensure!(pin.exists(), "{}", daemon.log());
    }
    pair.settle_on(pair.mac_a)?;
    pair.assert_fenced_when_killed()
}

#[test]
fn f5_a_pin_directory_that_is_emptied_is_filled_again() -> Result<()> {
    let Some(pair) = Pair::start("emptied", "100ms")? else { return Ok(()) };
    pins::remove_contents(pair.a.pin_path(), &[])?;
    wait_for_line(&pair.a, "somebody unpinned maps: pinned them again")?;
    // Those that went after the controller had looked come back when it looks again.
    let is_there = |name: &str| maps::pin(pair.a.pin_path(), name).exists();
    wait::until("all maps", || maps::MAP_NAMES.into_iter().all(is_there))?;
    ensure!(matches!(program(&pair.a)?, (Some(_), true)), "{}", pair.a.status()?);
    pair.settle_on(pair.mac_a)?;
    pair.assert_fenced_when_killed()
}

/// Something that is mounted, until dropped.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = run("umount", &[&self.0.to_string_lossy()]);
    }
}

#[test]
fn f5_a_bpffs_mounted_over_the_pins_is_a_fault_until_it_is_gone() -> Result<()> {
    let Some(pair) = Pair::start("mounted over", "100ms")? else { return Ok(()) };
    let since = Instant::now();
    let mounted = Mounted(pair.a.pin_path().to_path_buf());
    run("mount", &["-t", "bpf", "none", text(&mounted.0)?])?;
    wait_for_line(&pair.a, "something is mounted over the XDP program's pin")?;
    pair.settle_on(pair.mac_b)?;
    pair.assert_single_owner(since)?;
    ensure!(pair.a.status().is_err(), "status names a program that nobody finds: {}", pair.a.status()?);
    drop(mounted);
    wait_for_line(&pair.a, "the XDP program is in its place again")?;
    pair.settle_on(pair.mac_a)?;
    pair.assert_single_owner(since)?;
    pair.assert_fenced_when_killed()
}

#[test]
fn f5_a_backup_that_wakes_up_without_its_program_claims_nothing() -> Result<()> {
    let Some(pair) = Pair::start("another program", "100ms")? else { return Ok(()) };
    let pass = format!("{}-pass", pair.b.pin_path().display());
    let load = |object: &Path| run("bpftool", &["prog", "load", text(object)?, &pass]);
    load(&failover_tests::requirements::Built::from_env()?.pass_object)?;
    let node = pair.lab.station("edge-b")?;
    let bpftool = |words: &[&str]| finish(node.command("bpftool").args(words));

    let since = Instant::now();
    pair.b.signal(Signal::STOP)?;
    detach(&pair.b)?;
    let attached = bpftool(&["net", "attach", "xdpdrv", "pinned", &pass, "dev", INTERFACE]);
    std::fs::remove_file(&pass)?;
    attached?;
    // Longer than it would wait: its timer has fired when it wakes up, and it has heard nothing.
    pair.arp.answers_alone_for(pair.mac_a, SETTLE)?;
    pair.b.signal(Signal::CONT)?;
    wait_for_line(&pair.b, "could not be attached again")?;
    pair.settle_on(pair.mac_a)?;
    ensure!(arp_probe::answers_of(&pair.arp.since(since), pair.mac_b).is_empty(), "edge-b answered\n{}", pair.b.log());
    ensure!(pair.b.state(0)? == "Fault", "{}", pair.b.log());
    ensure!(program(&pair.b)? == (None, false), "{}", pair.b.status()?);
    ensure!(pair.b.status_table()?.contains("NOT attached"), "{}", pair.b.status_table()?);

    bpftool(&["net", "detach", "xdpdrv", "dev", INTERFACE])?;
    wait_for_line(&pair.b, "the XDP program is in its place again")?;
    wait::until("Backup", || pair.b.state(0).is_ok_and(|state| state == "Backup"))?;
    pair.settle_on(pair.mac_a)
}

/// Takes an entry out of a pinned map, so that the program no longer knows what it is for: it passes what it took before,
/// as one does that is not run or is told another interface's index.
fn forget(daemon: &Daemon, map: &str) -> Result<()> {
    let pin = maps::pin(daemon.pin_path(), map);
    let dump: serde_json::Value =
        serde_json::from_str(&run("bpftool", &["-j", "map", "dump", "pinned", text(&pin)?])?)?;
    let entries = dump.as_array().with_context(|| format!("no entries: {dump}"))?;
    ensure!(!entries.is_empty(), "{map} is empty");
    for entry in entries {
        let key = entry["key"].as_array().with_context(|| entry.to_string())?;
        let bytes: Vec<_> = key.iter().filter_map(serde_json::Value::as_str).collect();
        let words = [&["map", "delete", "pinned", text(&pin)?, "key", "hex"], &bytes[..]].concat();
        let words: Vec<_> = words.into_iter().map(|word| word.trim_start_matches("0x")).collect();
        run("bpftool", &words)?;
    }
    Ok(())
}

const IDLE: &str = "the XDP program is attached, and frames get past it that it always takes";

#[test]
fn f31_a_backup_whose_program_hears_nothing_claims_nothing() -> Result<()> {
    let Some(mut pair) = Pair::start("a deaf Backup", "100ms")? else { return Ok(()) };
    let since = Instant::now();
    forget(&pair.b, "ROUTER_INDEX")?;
    wait_for_line(&pair.b, IDLE)?;
    wait::until("Fault", || pair.b.state(0).is_ok_and(|state| state == "Fault")).with_context(|| pair.b.log())?;
    pair.settle_on(pair.mac_a)?;
    pair.assert_single_owner(since)?;
    // A start puts the entry back.
    pair.b.kill()?;
    pair.b.start_and_wait()?;
    pair.assert_fenced_when_killed()
}

#[test]
fn f31_an_active_whose_program_answers_nothing_lets_go() -> Result<()> {
    let Some(pair) = Pair::start("a mute Active", "100ms")? else { return Ok(()) };
    let since = Instant::now();
    forget(&pair.a, "VIPS")?;
    // Whoever asks for the address shows it.
    wait_for_line(&pair.a, IDLE)?;
    pair.settle_on(pair.mac_b)?;
    pair.assert_single_owner(since)?;
    ensure!(pair.a.state(0)? == "Fault", "{}", pair.a.log());
    Ok(())
}
