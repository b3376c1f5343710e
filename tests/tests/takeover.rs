//! Ring 4: two of ours and a client. Whatever happens to the Active, exactly one node answers, and
//! from the moment the other does, the old one never again.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use failover_tests::answers;
use failover_tests::arp_probe::{self, ArpProbe, Question};
use failover_tests::daemon::Daemon;
use failover_tests::lab::{INTERFACE, Lab, VIP};
use failover_tests::requirements::require;
use failover_tests::wait;
use failover_userspace::dataplane::pins;
use rustix::process::Signal;

/// Three adverts of 100 ms: in that time a second owner would show itself.
const SETTLE: Duration = Duration::from_millis(300);

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
    fn start(test: &str, advert_interval: &str, more: &str) -> Result<Option<Self>> {
        let Some(built) = require(test, &["ip", "bpftool", "ethtool"]) else { return Ok(None) };
        let lab = Lab::new(&built)?;
        let mut a = lab.daemon("edge-a", 150, advert_interval, more)?;
        let mut b = lab.daemon("edge-b", 100, advert_interval, more)?;
        a.start_and_wait()?;
        b.start_and_wait()?;
        let (mac_a, mac_b) = (lab.mac("edge-a")?, lab.mac("edge-b")?);
        let arp = lab.arp_probe()?;
        let pair = Self { arp, a, b, mac_a, mac_b, lab };
        pair.wait_for_owner(mac_a)?;
        // Answering comes before: the kernel's address follows on another thread.
        let node = pair.lab.station("edge-a")?;
        let has_address =
            || node.ip(&["address", "show", "dev", INTERFACE]).is_ok_and(|text| text.contains(&VIP.to_string()));
        wait::until("the address on edge-a", has_address).with_context(|| pair.a.log())?;
        Ok(Some(pair))
    }

    fn wait_for_owner(&self, mac: [u8; 6]) -> Result<()> {
        let what = if mac == self.mac_a { "edge-a to answer" } else { "edge-b to answer" };
        let waited = wait::until(what, || self.arp.owner() == Some(mac));
        waited.with_context(|| format!("edge-a:\n{}\nedge-b:\n{}", self.a.log(), self.b.log()))
    }

    /// Waits until `mac` owns the address and has done so for three adverts.
    fn settle_on(&self, mac: [u8; 6]) -> Result<()> {
        self.wait_for_owner(mac)?;
        self.arp.answers_alone_for(mac, SETTLE)
    }

    /// The questions since then, after asserting that no two nodes answered one, and that the old
    /// owner was silent from the new one's first answer on.
    fn assert_single_owner(&self, since: Instant, old: [u8; 6], new: [u8; 6]) -> Result<Vec<Question>> {
        let questions = self.arp.since(since);
        let by_new = arp_probe::answers_of(&questions, new);
        let first = *by_new.first().context("the new owner never answered")?;
        let later: Vec<_> = arp_probe::answers_of(&questions, old).into_iter().filter(|at| *at > first).collect();
        ensure!(answers::doubles(&questions).count == 0, "two nodes answered one question");
        ensure!(later.is_empty(), "the old owner answered {} times after the new one", later.len());
        ensure!(by_new.len() > 50, "the probe saw only {} answers", by_new.len());
        Ok(questions)
    }
}

#[test]
fn after_a_cable_cut_the_backup_takes_over_and_gives_back() -> Result<()> {
    let Some(pair) = Pair::start("cable cut", "100ms", "")? else { return Ok(()) };
    let cut = Instant::now();
    pair.lab.set_cable("edge-a", false)?;
    pair.settle_on(pair.mac_b)?;
    pair.assert_single_owner(cut, pair.mac_a, pair.mac_b)?;
    wait::until("Fault on edge-a", || pair.a.state(0).is_ok_and(|state| state == "Fault"))?;

    let back = Instant::now();
    pair.lab.set_cable("edge-a", true)?;
    pair.settle_on(pair.mac_a)?;
    pair.assert_single_owner(back, pair.mac_b, pair.mac_a)?;
    ensure!(pair.b.state(0)? == "Backup");
    Ok(())
}

#[test]
fn a_killed_controller_leaves_a_silent_node_behind() -> Result<()> {
    let Some(mut pair) = Pair::start("kill -9", "100ms", "")? else { return Ok(()) };
    let killed = Instant::now();
    pair.a.kill()?;
    pair.settle_on(pair.mac_b)?;
    pair.assert_single_owner(killed, pair.mac_a, pair.mac_b)?;

    // It was asked, has the address, and said nothing.
    let addresses = pair.lab.station("edge-a")?.ip(&["address", "show", "dev", INTERFACE])?;
    ensure!(addresses.contains("192.0.2.10/24"), "the address should still be there:\n{addresses}");
    let silenced = pair.a.counter("arp_silenced")?;
    ensure!(silenced > 0, "edge-a was not asked");
    let status = pair.a.status()?;
    ensure!(status["controller_alive"] == false, "{status}");
    ensure!(status["virtual_routers"][0]["addresses"][0]["answering"] == false, "{status}");

    let again = Instant::now();
    pair.a.start_and_wait()?;
    pair.settle_on(pair.mac_a)?;
    pair.assert_single_owner(again, pair.mac_b, pair.mac_a).map(drop)
}

#[test]
fn traffic_to_a_killed_node_is_fenced() -> Result<()> {
    let Some(mut pair) = Pair::start("fence", "100ms", "")? else { return Ok(()) };
    pair.a.kill()?;
    pair.settle_on(pair.mac_b)?;
    // A client with an old neighbour entry: the kernel of edge-a would answer this.
    let client = pair.lab.station("client")?;
    let mac = pair.mac_a.map(|byte| format!("{byte:02x}")).join(":");
    client.ip(&["neighbour", "replace", "192.0.2.10", "lladdr", &mac, "dev", INTERFACE])?;
    let before = pair.a.counter("vip_fenced")?;
    let connected = client.enter(|| {
        let address = std::net::SocketAddr::from((VIP, 9));
        Ok(std::net::TcpStream::connect_timeout(&address, Duration::from_millis(300)))
    })?;
    let error = connected.err().context("a connection through a fenced node")?;
    ensure!(error.kind() == std::io::ErrorKind::TimedOut, "answered: {error}");
    ensure!(pair.a.counter("vip_fenced")? > before, "nothing arrived at edge-a");
    Ok(())
}

#[test]
fn a_stopped_controller_is_replaced_and_does_not_depose_its_successor_when_it_wakes() -> Result<()> {
    let Some(pair) = Pair::start("SIGSTOP", "100ms", "preempt = false")? else { return Ok(()) };
    let stopped = Instant::now();
    pair.a.signal(Signal::STOP)?;
    pair.settle_on(pair.mac_b)?;
    pair.a.signal(Signal::CONT)?;
    wait::until("edge-a to step back", || pair.a.state(0).is_ok_and(|state| state == "Backup"))?;
    // preempt = false: it stays there, although it has the higher priority.
    pair.settle_on(pair.mac_b)?;
    pair.assert_single_owner(stopped, pair.mac_a, pair.mac_b)?;
    ensure!(pair.a.log().contains("stalled until its lease ran out"), "{}", pair.a.log());
    Ok(())
}

#[test]
fn a_planned_stop_detaches_when_another_node_serves() -> Result<()> {
    let Some(mut pair) = Pair::start("planned stop, in order", "100ms", "")? else { return Ok(()) };
    let link = pins::link(pair.a.pin_path(), INTERFACE);
    ensure!(link.exists(), "{} is not there", link.display());
    let stopping = Instant::now();
    pair.a.signal(Signal::TERM)?;
    wait::until("the program to be detached", || !link.exists())?;
    // Seen late, it passes all the same; detached at the release, as it must not be, it is seen a skew too early.
    let detached = Instant::now();
    let first =
        *arp_probe::answers_of(&pair.arp.since(stopping), pair.mac_b).first().context("edge-b has not answered")?;
    ensure!(first < detached, "detached {:?} before edge-b answered", first - detached);
    let addresses = pair.lab.station("edge-a")?.ip(&["-o", "address", "show", "dev", INTERFACE])?;
    ensure!(!addresses.contains(&format!("{VIP}/")), "no program, but the address: {addresses}");
    ensure!(pair.a.wait()?.success(), "{}", pair.a.log());
    pair.settle_on(pair.mac_b)
}

#[test]
fn a_short_stop_changes_nothing() -> Result<()> {
    let Some(pair) = Pair::start("short SIGSTOP", "500ms", "")? else { return Ok(()) };
    let before = pair.b.status()?["virtual_routers"][0]["transitions"].clone();
    let stopped = Instant::now();
    pair.a.signal(Signal::STOP)?;
    // Below the lease of 1.5 s even if the last advert went out 500 ms ago.
    pair.arp.answers_alone_for(pair.mac_a, Duration::from_millis(600))?;
    pair.a.signal(Signal::CONT)?;
    pair.settle_on(pair.mac_a)?;
    ensure!(pair.b.status()?["virtual_routers"][0]["transitions"] == before, "edge-b changed its role");
    let questions = pair.arp.since(stopped);
    ensure!(arp_probe::answers_of(&questions, pair.mac_b).is_empty(), "edge-b answered");
    Ok(())
}

#[test]
fn a_planned_stop_hands_over_within_the_skew_and_leaves_nothing_behind() -> Result<()> {
    let Some(mut pair) = Pair::start("SIGTERM", "1s", "")? else { return Ok(()) };
    let stopped = Instant::now();
    let status = pair.a.stop()?;
    ensure!(status.success(), "exit status {status}");
    pair.settle_on(pair.mac_b)?;
    pair.assert_single_owner(stopped, pair.mac_a, pair.mac_b)?;
    // Not by silence: that would have taken 3.6 s, and says so.
    ensure!(pair.b.log().contains("gave up (priority 0)"), "{}", pair.b.log());

    ensure!(!pair.a.pin_path().exists(), "pins are left at {}", pair.a.pin_path().display());
    let node = pair.lab.station("edge-a")?;
    let addresses = node.ip(&["address", "show", "dev", INTERFACE])?;
    ensure!(!addresses.contains("192.0.2.10"), "the address is left:\n{addresses}");
    let link = node.ip(&["link", "show", "dev", INTERFACE])?;
    ensure!(!link.contains("xdp"), "a program is left:\n{link}");
    Ok(())
}

#[test]
fn without_preemption_the_better_router_waits() -> Result<()> {
    let Some(mut pair) = Pair::start("nopreempt", "100ms", "preempt = false")? else { return Ok(()) };
    pair.a.stop()?;
    pair.settle_on(pair.mac_b)?;
    pair.a.start_and_wait()?;
    let since = Instant::now();
    // Witness that edge-a hears edge-b, and then three active-down intervals of patience.
    wait::until("edge-a to hear edge-b", || pair.a.counter("advert_valid").is_ok_and(|count| count > 3))?;
    pair.arp.answers_alone_for(pair.mac_b, 3 * Duration::from_millis(342))?;
    ensure!(arp_probe::answers_of(&pair.arp.since(since), pair.mac_a).is_empty());
    ensure!(pair.a.state(0)? == "Backup");
    Ok(())
}

#[test]
fn a_controller_that_crashes_and_returns_within_its_lease_carries_on() -> Result<()> {
    let Some(mut pair) = Pair::start("crash and return", "1s", "")? else { return Ok(()) };
    let before = pair.b.status()?["virtual_routers"][0]["transitions"].clone();
    let crashed = Instant::now();
    pair.a.kill()?;
    pair.a.start_and_wait()?;
    wait::until("a sign of the new controller", || pair.a.log().contains("found the lease live"))?;
    // Past the patience that edge-b had at the crash.
    pair.arp.answers_alone_for(pair.mac_a, Duration::from_millis(3700))?;
    let questions = pair.assert_single_owner(crashed, pair.mac_b, pair.mac_a)?;
    let answered = questions.iter().filter(|question| !question.answers.is_empty()).count();
    ensure!(
        answered + 3 >= questions.len(),
        "{} of {} questions unanswered",
        questions.len() - answered,
        questions.len()
    );
    ensure!(pair.b.status()?["virtual_routers"][0]["transitions"] == before, "edge-b changed its role");
    Ok(())
}

#[test]
fn after_a_partition_heals_one_router_is_left() -> Result<()> {
    let Some(pair) = Pair::start("partition", "100ms", "")? else { return Ok(()) };
    pair.lab.set_forwarding("edge-a", false)?;
    pair.settle_on(pair.mac_b)?;
    // Carrier stays: edge-a cannot know.
    ensure!(pair.a.state(0)? == "Active");
    pair.lab.set_forwarding("edge-a", true)?;
    wait::until("edge-b to step back", || pair.b.state(0).is_ok_and(|state| state == "Backup"))?;
    let healed = Instant::now();
    pair.settle_on(pair.mac_a)?;
    let questions = pair.arp.since(healed);
    ensure!(arp_probe::answers_of(&questions, pair.mac_b).is_empty(), "edge-b still answers");
    ensure!(pair.b.counter("lease_ended")? >= 1, "the kernel did not end the lease");
    Ok(())
}

#[test]
fn an_interface_that_is_made_anew_is_taken_up_again() -> Result<()> {
    let Some(pair) = Pair::start("interface anew", "100ms", "")? else { return Ok(()) };
    let node = pair.lab.station("edge-a")?;
    node.ip(&["link", "delete", INTERFACE])?;
    pair.settle_on(pair.mac_b)?;
    wait::until("Fault on edge-a", || pair.a.state(0).is_ok_and(|state| state == "Fault"))?;
    pair.lab.connect("edge-a")?;
    node.ip(&["address", "add", "192.0.2.1/24", "dev", INTERFACE])?;
    let mac = pair.lab.mac("edge-a")?;
    wait::until("edge-a to answer", || pair.arp.owner() == Some(mac)).with_context(|| pair.a.log())?;
    let interfaces = pair.a.status()?["interfaces"].clone();
    ensure!(interfaces.as_array().is_some_and(|all| all.len() == 1), "{interfaces}");
    Ok(())
}

#[test]
fn an_address_that_somebody_removes_is_put_back() -> Result<()> {
    let Some(pair) = Pair::start("address removed", "100ms", "")? else { return Ok(()) };
    let node = pair.lab.station("edge-a")?;
    let is_there = || node.ip(&["address", "show", "dev", INTERFACE]).is_ok_and(|text| text.contains("192.0.2.10/24"));
    wait::until("the address", is_there)?;
    node.ip(&["address", "delete", "192.0.2.10/24", "dev", INTERFACE])?;
    wait::until("the address again", is_there)?;
    ensure!(pair.a.log().contains("put back"), "{}", pair.a.log());
    Ok(())
}

#[test]
fn what_the_ring_kept_over_a_crash_does_not_depose_anybody() -> Result<()> {
    let Some(mut pair) = Pair::start("stale events", "100ms", "preempt = false")? else { return Ok(()) };
    pair.a.kill()?;
    pair.settle_on(pair.mac_b)?;
    // The first advert of edge-b is in edge-a's pinned ring by now, and is soon older than any timer.
    wait::until("adverts on edge-a", || pair.a.counter("advert_valid").is_ok_and(|count| count > 5))?;
    let again = Instant::now();
    pair.a.start_and_wait()?;
    pair.arp.answers_alone_for(pair.mac_b, 3 * Duration::from_millis(342))?;
    ensure!(arp_probe::answers_of(&pair.arp.since(again), pair.mac_a).is_empty(), "edge-a answered");
    ensure!(pair.a.state(0)? == "Backup", "{}", pair.a.log());
    Ok(())
}

#[test]
fn an_interface_that_is_renamed_keeps_serving_and_is_left_clean() -> Result<()> {
    let Some(mut pair) = Pair::start("rename", "100ms", "")? else { return Ok(()) };
    let node = pair.lab.station("edge-a")?;
    node.ip(&["link", "set", INTERFACE, "name", "wan0"])?;
    pair.settle_on(pair.mac_a)?;
    ensure!(pair.a.stop()?.success(), "{}", pair.a.log());
    pair.settle_on(pair.mac_b)?;
    let addresses = pair.lab.station("edge-a")?.ip(&["address", "show", "dev", "wan0"])?;
    ensure!(!addresses.contains("192.0.2.10"), "the address is left, and nothing fences it:\n{addresses}");
    Ok(())
}
