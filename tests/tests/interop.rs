//! Ring 4: ours and the real keepalived, both ways round. Exactly one owner, takeover in both
//! directions, and no second Active for longer than one advert.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use failover_tests::arp_probe::{ArpProbe, answers_of};
use failover_tests::daemon::Daemon;
use failover_tests::keepalived::{Instance, Keepalived};
use failover_tests::lab::Lab;
use failover_tests::requirements::require;
use failover_tests::wait;

/// One way to set both up alike.
struct Dialect {
    name: &'static str,
    version: u8,
    /// For keepalived, in seconds, and for ours.
    interval: (&'static str, &'static str),
    advert: Duration,
    /// Lines for keepalived's instance, and for our virtual router.
    more: (&'static str, &'static str),
}

const V2_PASSWORD: Dialect = Dialect {
    name: "version 2 with password",
    version: 2,
    interval: ("1", "1s"),
    advert: Duration::from_secs(1),
    more: ("authentication {\n    auth_type PASS\n    auth_pass 1111\n  }", "version = 2\npassword = \"1111\""),
};
const V2_OPEN: Dialect = Dialect { name: "version 2", more: ("", "version = 2"), ..V2_PASSWORD };
const V3_DEFAULT: Dialect = Dialect {
    name: "version 3, keepalived's default checksum",
    version: 3,
    interval: ("0.1", "100ms"),
    advert: Duration::from_millis(100),
    more: ("", ""),
};
const V3_AS_V2: Dialect =
    Dialect { name: "version 3, v3_checksum_as_v2", more: ("v3_checksum_as_v2", ""), ..V3_DEFAULT };

/// Ours on edge-a, keepalived on edge-b.
struct Peers {
    arp: ArpProbe,
    ours: Daemon,
    theirs: Option<Keepalived>,
    their_priority: u8,
    mac_ours: [u8; 6],
    mac_theirs: [u8; 6],
    lab: Lab,
    dialect: &'static Dialect,
}

impl Peers {
    fn new(dialect: &'static Dialect, our_priority: u8, their_priority: u8) -> Result<Option<Self>> {
        let Some(built) = require(dialect.name, &["ip", "bpftool", "ethtool", "keepalived"]) else { return Ok(None) };
        let lab = Lab::new(&built)?;
        let ours = lab.daemon("edge-a", our_priority, dialect.interval.1, dialect.more.1)?;
        let (mac_ours, mac_theirs) = (lab.mac("edge-a")?, lab.mac("edge-b")?);
        let arp = lab.arp_probe()?;
        Ok(Some(Self { arp, ours, theirs: None, their_priority, mac_ours, mac_theirs, lab, dialect }))
    }

    fn start_theirs(&mut self) -> Result<()> {
        let instance = Instance {
            version: self.dialect.version,
            priority: self.their_priority,
            advert_int: self.dialect.interval.0,
            more: self.dialect.more.0,
            global: "",
        };
        self.theirs = Some(Keepalived::start(self.lab.station("edge-b")?, self.lab.directory(), &instance)?);
        Ok(())
    }

    fn their_state(&self) -> Option<String> {
        self.theirs.as_ref().and_then(Keepalived::state)
    }

    /// Waits until one owns the address, alone, for three adverts, and both say so.
    fn settle(&self, ours_active: bool, since: Instant) -> Result<()> {
        let (new, old) = if ours_active { (self.mac_ours, self.mac_theirs) } else { (self.mac_theirs, self.mac_ours) };
        let settled = || -> Result<()> {
            wait::until("the new owner", || self.arp.owner() == Some(new))?;
            if self.theirs.is_some() {
                let expected = if ours_active { "BACKUP" } else { "MASTER" };
                wait::until(&format!("keepalived's {expected}"), || self.their_state().as_deref() == Some(expected))?;
            }
            // It says BACKUP before it takes the address off.
            wait::until("the old owner's silence", || {
                let recent = Instant::now().checked_sub(self.dialect.advert).unwrap_or(since);
                answers_of(&self.arp.since(recent), old).is_empty()
            })?;
            self.arp.answers_alone_for(new, 3 * self.dialect.advert)?;
            self.assert_overlap_of_one_advert(since, old, new)
        };
        settled().with_context(|| {
            let theirs = self.theirs.as_ref().map(Keepalived::log).unwrap_or_default();
            format!("{}\nours:\n{}\nkeepalived:\n{theirs}", self.dialect.name, self.ours.log())
        })
    }

    /// Between the new owner's first answer and the old one's last is at most one advert.
    fn assert_overlap_of_one_advert(&self, since: Instant, old: [u8; 6], new: [u8; 6]) -> Result<()> {
        let questions = self.arp.since(since);
        let first = *answers_of(&questions, new).first().context("the new owner never answered")?;
        let last = answers_of(&questions, old).last().copied();
        let overlap = last.and_then(|last| last.checked_duration_since(first)).unwrap_or_default();
        ensure!(overlap <= self.dialect.advert, "both answered for {overlap:?}");
        Ok(())
    }
}

/// keepalived is Active; ours is better, takes over, and hands back.
fn ours_is_better(dialect: &'static Dialect) -> Result<()> {
    let Some(mut peers) = Peers::new(dialect, 150, 100)? else { return Ok(()) };
    let start = Instant::now();
    peers.start_theirs()?;
    peers.settle(false, start)?;

    let preempting = Instant::now();
    peers.ours.start_and_wait()?;
    peers.settle(true, preempting)?;
    ensure!(peers.ours.state(0)? == "Active");

    let stopping = Instant::now();
    peers.ours.stop()?;
    peers.settle(false, stopping)
}

/// Ours is Active; keepalived is better, takes over, and hands back.
fn theirs_is_better(dialect: &'static Dialect) -> Result<()> {
    let Some(mut peers) = Peers::new(dialect, 100, 150)? else { return Ok(()) };
    let start = Instant::now();
    peers.ours.start_and_wait()?;
    wait::until("ours to answer", || peers.arp.owner() == Some(peers.mac_ours))?;
    ensure!(answers_of(&peers.arp.since(start), peers.mac_theirs).is_empty());

    let preempting = Instant::now();
    peers.start_theirs()?;
    peers.settle(false, preempting)?;
    ensure!(peers.ours.state(0)? == "Backup");
    let status = peers.ours.status()?;
    ensure!(status["virtual_routers"][0]["active"]["address"] == "192.0.2.2", "{status}");

    let stopping = Instant::now();
    peers.theirs.take().context("keepalived was started")?.stop()?;
    peers.settle(true, stopping)
}

/// Ours is Active and better when keepalived starts: it stays.
fn theirs_joins(dialect: &'static Dialect) -> Result<()> {
    let Some(mut peers) = Peers::new(dialect, 150, 100)? else { return Ok(()) };
    peers.ours.start_and_wait()?;
    wait::until("ours to answer", || peers.arp.owner() == Some(peers.mac_ours))?;
    let joining = Instant::now();
    peers.start_theirs()?;
    wait::until("keepalived to start", || peers.their_state().is_some())?;
    // It would promote itself after this if it did not hear us.
    wait::until("keepalived's patience to pass", || joining.elapsed() > 5 * peers.dialect.advert)?;
    let joined = Instant::now();
    peers.settle(true, joined)?;
    // In keepalived's default form it refuses our first adverts, and speaks up once: that is when
    // ours learns the form.
    let theirs = answers_of(&peers.arp.since(joining), peers.mac_theirs);
    let spoke = theirs.last().zip(theirs.first()).map_or(Duration::ZERO, |(last, first)| *last - *first);
    ensure!(spoke <= peers.dialect.advert, "both answered for {spoke:?}");
    Ok(())
}

#[test]
fn version_2_with_password_ours_is_better() -> Result<()> {
    ours_is_better(&V2_PASSWORD)
}

#[test]
fn version_2_with_password_theirs_is_better() -> Result<()> {
    theirs_is_better(&V2_PASSWORD)
}

#[test]
fn version_2_without_password_theirs_joins() -> Result<()> {
    theirs_joins(&V2_OPEN)
}

#[test]
fn version_3_default_checksum_ours_is_better() -> Result<()> {
    ours_is_better(&V3_DEFAULT)
}

#[test]
fn version_3_default_checksum_theirs_is_better() -> Result<()> {
    theirs_is_better(&V3_DEFAULT)
}

#[test]
fn version_3_default_checksum_theirs_joins_a_router_that_sends_the_other_form() -> Result<()> {
    theirs_joins(&V3_DEFAULT)
}

#[test]
fn version_3_checksum_as_v2_ours_is_better() -> Result<()> {
    ours_is_better(&V3_AS_V2)
}

#[test]
fn version_3_checksum_as_v2_theirs_is_better() -> Result<()> {
    theirs_is_better(&V3_AS_V2)
}

#[test]
fn another_password_is_refused_and_counted() -> Result<()> {
    static OTHER: Dialect = Dialect {
        more: ("authentication {\n    auth_type PASS\n    auth_pass 2222\n  }", V2_PASSWORD.more.1),
        ..V2_PASSWORD
    };
    let Some(mut peers) = Peers::new(&OTHER, 100, 150)? else { return Ok(()) };
    peers.ours.start_and_wait()?;
    peers.start_theirs()?;
    // One is all that may come: a keepalived that is Active puts its next advert off whenever it
    // refuses one of ours.
    let refused = || peers.ours.counter("advert_bad_authentication").is_ok_and(|count| count > 0);
    wait::until("a refused advert", refused)?;
    ensure!(peers.ours.counter("advert_valid")? == 0);
    Ok(())
}
