//! Ring 4: routers that do not fit together, and what an operator reads of it (RFC 9568 2.5, 7.1, 8.3.2 and erratum
//! 8298): what differs, once a minute at most, and nothing where nothing does.
//!
//! The other router is edge-b without a controller: it sends frames of `data/frames.txt`, from 192.0.2.9.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use failover_tests::daemon::Daemon;
use failover_tests::fixtures::frame;
use failover_tests::frames::{ARP, FrameSocket};
use failover_tests::lab::{INTERFACE, Lab};
use failover_tests::requirements::require;
use failover_tests::wait;

const OTHER_INTERVAL: &str = "the peer advertises at another interval";
const OTHER_ADDRESSES: &str = "the peer lists other addresses";
const SECOND_ACTIVE: &str = "another router advertises while this one serves";
const SECOND_OWNER: &str = "two routers say that they own the addresses";
const FALSE_OWNER: &str = "priority 255 says that the addresses are the interface's own";

struct Scene {
    // Dropped in this order: the controller before its namespace.
    daemon: Daemon,
    other: FrameSocket,
    lab: Lab,
}

impl Scene {
    /// The addresses, the interval and the version of the frames.
    fn new(test: &str, priority: u8) -> Result<Option<Self>> {
        let Some(built) = require(test, &["ip", "bpftool", "ethtool"]) else { return Ok(None) };
        let lab = Lab::new(&built)?;
        let router = format!(
            "[[virtual_router]]\nname = \"web\"\ninterface = \"eth0\"\nvrid = 51\npriority = {priority}\n\
             addresses = [\"192.0.2.10/24\", \"192.0.2.11/24\"]\n"
        );
        let daemon = lab.daemon_with("edge-a", &router)?;
        let other = FrameSocket::open(lab.station("edge-b")?, INTERFACE, ARP)?;
        Ok(Some(Self { daemon, other, lab }))
    }

    /// Sends the frame of that name and waits until it is counted, and then for the millisecond in which the next would
    /// not be told to the controller.
    fn send(&self, name: &str) -> Result<()> {
        let before = self.daemon.counter("advert_valid")?;
        self.other.send(&frame(name))?;
        wait::until(name, || self.daemon.counter("advert_valid").is_ok_and(|count| count > before))?;
        std::thread::sleep(Duration::from_millis(2));
        Ok(())
    }

    fn told(&self, what: &str) -> usize {
        self.daemon.log().matches(what).count()
    }

    fn wait_for(&self, what: &str) -> Result<()> {
        wait::until(what, || self.told(what) > 0).with_context(|| self.daemon.log())
    }

    fn wait_for_state(&self, state: &str) -> Result<()> {
        let is_there = || self.daemon.state(0).is_ok_and(|now| now == state);
        wait::until(state, is_there).with_context(|| self.daemon.log())
    }

    /// Until the controller has read all that was sent before: this comes through the same ring, and is told of.
    fn wait_until_read(&self) -> Result<()> {
        let own = [192, 0, 2, 1];
        let mut loop_back = frame("v3 from own address");
        loop_back[26..30].copy_from_slice(&own);
        // From .5 to .1: the header's complement grows by 4.
        loop_back[25] += 4;
        wait::until("the advert to be told of", || {
            let _ = self.other.send(&loop_back);
            self.told("this node's own address as its source") > 0
        })
        .with_context(|| self.daemon.log())
    }
}

#[test]
fn a_peer_that_is_configured_alike_is_not_told_of() -> Result<()> {
    let Some(mut scene) = Scene::new("alike", 100)? else { return Ok(()) };
    scene.daemon.start_and_wait()?;
    // One that is better, of the same interval and addresses, in either order.
    for name in ["v3 message", "v3 owner", "v3 priority 101", "v3 message"] {
        scene.send(name)?;
    }
    scene.wait_until_read()?;
    ensure!(scene.daemon.counter("advert_valid")? == 4, "{}", scene.daemon.status()?);
    for what in [OTHER_INTERVAL, OTHER_ADDRESSES, SECOND_ACTIVE, SECOND_OWNER, FALSE_OWNER, "adverts refused"] {
        ensure!(scene.told(what) == 0, "{what}: {}", scene.daemon.log());
    }
    Ok(())
}

#[test]
fn another_interval_is_told_of_once_and_learned() -> Result<()> {
    let Some(mut scene) = Scene::new("another interval", 20)? else { return Ok(()) };
    scene.daemon.start_and_wait()?;
    for name in ["v3 steady", "v3 steady, interval", "v3 steady", "v3 steady, interval"] {
        scene.send(name)?;
    }
    scene.wait_for(OTHER_INTERVAL)?;
    scene.wait_until_read()?;
    ensure!(scene.told(OTHER_INTERVAL) == 1 && scene.told(OTHER_ADDRESSES) == 0, "{}", scene.daemon.log());
    ensure!(scene.daemon.counter("advert_valid")? == 4, "none is refused: {}", scene.daemon.status()?);
    ensure!(scene.daemon.state(0)? == "Backup");
    Ok(())
}

#[test]
fn other_addresses_are_told_of_once_and_not_refused() -> Result<()> {
    let Some(mut scene) = Scene::new("other addresses", 20)? else { return Ok(()) };
    scene.daemon.start_and_wait()?;
    for name in ["v3 steady", "v3 steady, addresses", "v3 steady, fewer addresses", "v3 steady, addresses"] {
        scene.send(name)?;
    }
    scene.wait_for(OTHER_ADDRESSES)?;
    scene.wait_until_read()?;
    ensure!(scene.told(OTHER_ADDRESSES) == 1 && scene.told(OTHER_INTERVAL) == 0, "{}", scene.daemon.log());
    ensure!(scene.daemon.counter("advert_valid")? == 4, "none is refused: {}", scene.daemon.status()?);
    Ok(())
}

#[test]
fn a_refused_peer_is_told_of_with_what_to_compare() -> Result<()> {
    let Some(mut scene) = Scene::new("refused", 100)? else { return Ok(()) };
    scene.daemon.start_and_wait()?;
    for _ in 0..100 {
        scene.other.send(&frame("v2"))?;
    }
    scene.wait_for("adverts refused: another VRRP version: compare `version`")?;
    // All of them in one look of ten seconds, or in two.
    ensure!(scene.told("adverts refused") <= 2, "{}", scene.daemon.log());
    ensure!(scene.daemon.counter("advert_bad_version")? == 100);
    Ok(())
}

#[test]
fn a_second_active_is_told_of_once() -> Result<()> {
    let Some(mut scene) = Scene::new("second Active", 150)? else { return Ok(()) };
    scene.daemon.start_and_wait()?;
    // To a Backup that is going to preempt it, it is nothing special.
    scene.send("v3 steady")?;
    scene.wait_for_state("Active")?;
    wait::until("the lease", || {
        scene.daemon.status().is_ok_and(|status| status["virtual_routers"][0]["addresses"][0]["answering"] == true)
    })?;
    ensure!(scene.told(SECOND_ACTIVE) == 0, "{}", scene.daemon.log());
    // That one gives up: nor is this.
    scene.send("v3 release")?;
    for _ in 0..10 {
        scene.send("v3 steady")?;
    }
    scene.wait_for(SECOND_ACTIVE)?;
    scene.wait_until_read()?;
    ensure!(scene.told(SECOND_ACTIVE) == 1 && scene.told(SECOND_OWNER) == 0, "{}", scene.daemon.log());
    Ok(())
}

#[test]
fn a_second_owner_is_told_of_whichever_wins() -> Result<()> {
    // The other one is 192.0.2.9: lesser than 192.0.2.10, greater than 192.0.2.1.
    for (own, is_owner, state) in [("192.0.2.10/24", true, "Active"), ("192.0.2.1/24", false, "Backup")] {
        let Some(mut scene) = Scene::new("second owner", 255)? else { return Ok(()) };
        let node = scene.lab.station("edge-a")?;
        node.ip(&["address", "flush", "dev", INTERFACE])?;
        node.ip(&["address", "add", own, "dev", INTERFACE])?;
        if is_owner {
            node.ip(&["address", "add", "192.0.2.11/24", "dev", INTERFACE])?;
        }
        scene.daemon.start_and_wait()?;
        scene.wait_for_state("Active")?;
        ensure!(scene.told(SECOND_OWNER) == 0, "{}", scene.daemon.log());
        scene.send("v3 owner")?;
        scene.wait_for(SECOND_OWNER)?;
        scene.wait_for_state(state)?;
        // RFC 9568 5.2.4: only one of the two has the addresses that it says are its own.
        ensure!((scene.told(FALSE_OWNER) == 0) == is_owner, "{}", scene.daemon.log());
    }
    Ok(())
}
