//! What happens to links, and to the switch.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::faults::filter::Filter;
use crate::faults::{Bite, Scene};
use crate::lab::INTERFACE;

/// The port is shut and open for this long each: longer than the other node's patience.
const PORT_FLAP: Duration = Duration::from_millis(500);
/// The carrier is away and there for this long each: shorter than anybody's patience.
const LINK_FLAP: Duration = Duration::from_millis(100);

pub(super) fn nothing_from_active(scene: &mut Scene, length: Duration) -> Result<Bite> {
    cut(scene, length, "iifname \"edge-a\"")
}

pub(super) fn nothing_to_active(scene: &mut Scene, length: Duration) -> Result<Bite> {
    cut(scene, length, "oifname \"edge-a\"")
}

pub(super) fn nothing_to_backup(scene: &mut Scene, length: Duration) -> Result<Bite> {
    cut(scene, length, "oifname \"edge-b\"")
}

fn cut(scene: &mut Scene, length: Duration, matches: &str) -> Result<Bite> {
    let filter = Filter::dropping(scene.lab.switch(), matches)?;
    scene.last(length);
    let dropped = filter.count("dropped")?;
    ensure!(dropped > 0, "nothing was dropped");
    scene.heals();
    drop(filter);
    Ok(Bite::Witness(format!("the switch dropped {dropped} frames")))
}

/// What a bridge does with `mcast_flood off`, or with snooping and a querier that nobody answers.
pub(super) fn no_multicast(scene: &mut Scene, length: Duration) -> Result<Bite> {
    let adverts = "ip daddr 224.0.0.18 counter name";
    let chains = format!(
        "chain in {{ type filter hook prerouting priority 0; {adverts} came; }}\n\
         chain out {{ type filter hook forward priority 0; oifname {{ \"edge-a\", \"edge-b\" }} {adverts} went; }}"
    );
    let flood = |scene: &Scene, flag: &str| {
        let set = |port| scene.lab.switch().ip(&["link", "set", port, "type", "bridge_slave", "mcast_flood", flag]);
        set("edge-a").and(set("edge-b"))
    };
    flood(scene, "off")?;
    let filter = Filter::new(scene.lab.switch(), "bridge", &["came", "went"], &chains)?;
    scene.last(length);
    scene.wait_for_b()?;
    let (came, went) = (filter.count("came")?, filter.count("went")?);
    ensure!(came > 0 && went == 0, "{came} adverts came to the switch, {went} went on");
    scene.heals();
    flood(scene, "on")?;
    Ok(Bite::Witness(format!("{came} adverts came to the switch, none went to a node")))
}

pub(super) fn flapping_port(scene: &mut Scene, length: Duration) -> Result<Bite> {
    flap(scene, length, PORT_FLAP, |scene, open| scene.lab.set_forwarding("edge-a", open))
}

pub(super) fn flapping_link(scene: &mut Scene, length: Duration) -> Result<Bite> {
    flap(scene, length, LINK_FLAP, |scene, plugged| scene.lab.set_cable("edge-a", plugged))
}

fn flap(scene: &mut Scene, length: Duration, pause: Duration, set: fn(&Scene, bool) -> Result<()>) -> Result<Bite> {
    let began = Instant::now();
    let mut flaps = 0;
    while began.elapsed() < length {
        set(scene, false)?;
        scene.last(pause);
        scene.heals();
        set(scene, true)?;
        scene.last(pause);
        flaps += 1;
    }
    Ok(Bite::Witness(format!("{flaps} times")))
}

/// A loop somewhere behind the switch: everything that the Active sends comes to the Backup twice, and back to itself.
pub(super) fn duplicates(scene: &mut Scene, length: Duration) -> Result<Bite> {
    let rules = "counter name doubled dup to \"edge-b\" dup to \"edge-a\"";
    let chain = format!("chain loop {{ type filter hook ingress device \"edge-a\" priority 0; {rules}; }}");
    let filter = Filter::new(scene.lab.switch(), "netdev", &["doubled"], &chain)?;
    scene.last(length);
    let doubled = filter.count("doubled")?;
    ensure!(doubled > 0, "nothing was doubled");
    let own = scene.a.counter("advert_bad_source")?;
    ensure!(own != Some(0), "no advert came back to its sender");
    scene.heals();
    drop(filter);
    Ok(Bite::Witness(format!("the switch doubled {doubled} frames")))
}

pub(super) fn down_and_up(scene: &mut Scene, length: Duration) -> Result<Bite> {
    let set = |scene: &Scene, to| scene.lab.station("edge-a")?.ip(&["link", "set", INTERFACE, to]);
    set(scene, "down")?;
    scene.wait_for_b()?;
    scene.last(length);
    let port = scene.lab.port("edge-a")?["operstate"].clone();
    ensure!(port == "LOWERLAYERDOWN" || port == "DOWN", "the port is {port}");
    scene.heals();
    set(scene, "up")?;
    Ok(Bite::Witness(format!("the switch called its port {port}")))
}
