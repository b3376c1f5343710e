//! Ring 4: the fault lab in short. Whatever is done to the Active, no two nodes answer unless they
//! cannot hear each other, and when it is over there is one. `cargo xtask faults` measures the same
//! faults for longer, with keepalived beside ours.

use std::io::Write;

use anyhow::{Context, Result, bail, ensure};
use failover_tests::faults::{FAULTS, Fault, Group, Outcome, Played, Scene, Setting, System};
use failover_tests::requirements::{Built, require};

const NEEDS: [&str; 5] = ["ip", "bpftool", "ethtool", "nft", "keepalived"];

/// Plays a group's faults against ours, one scene for each setting.
fn hold(group: Group) -> Result<()> {
    let Some(built) = require(&format!("faults: {group:?}"), &NEEDS) else { return Ok(()) };
    let mut scene: Option<(Setting, Scene)> = None;
    for (fault, length) in FAULTS.iter().filter_map(|fault| Some((fault, fault.length_in_tests?))) {
        if fault.group != group {
            continue;
        }
        if scene.as_ref().is_none_or(|(setting, _)| *setting != fault.setting) {
            // The old one first: they share names of threads.
            drop(scene.take());
            scene = Some((fault.setting, Scene::new(&built, System::Ours, fault.setting)?));
        }
        let (_, scene) = scene.as_mut().context("it was just made")?;
        match scene.play(fault, length)? {
            Played::Seen(outcome) => {
                println!("{}: {outcome:?}", fault.name);
                outcome.check(fault).with_context(|| scene.logs())?;
            }
            // Not through a macro: those are captured, and a skip has to be seen.
            Played::Impossible(reason) => writeln!(std::io::stderr(), "skipped {}: {reason}", fault.name)?,
        }
    }
    Ok(())
}

#[test]
fn of_a_controller_that_is_killed_stopped_or_frozen() -> Result<()> {
    hold(Group::Processes)
}

#[test]
fn of_a_controller_that_is_replaced() -> Result<()> {
    hold(Group::Upgrades)
}

#[test]
fn of_links_and_switches() -> Result<()> {
    hold(Group::Links)
}

#[test]
fn of_floods() -> Result<()> {
    hold(Group::Floods)
}

#[test]
fn of_hogs() -> Result<()> {
    hold(Group::Load)
}

fn fault(name: &str) -> Result<&'static Fault> {
    FAULTS.iter().find(|fault| fault.name == name).with_context(|| format!("no fault {name}"))
}

fn keepalived(built: &Built, name: &str) -> Result<Outcome> {
    let fault = fault(name)?;
    let mut scene = Scene::new(built, System::Keepalived, fault.setting)?;
    match scene.play(fault, fault.length_in_tests.context("not for tests")?)? {
        Played::Seen(outcome) => {
            ensure!(outcome.alone_after.is_some(), "{name}: keepalived did not recover\n{}", scene.logs());
            Ok(outcome)
        }
        Played::Impossible(reason) => bail!("{name}: {reason}"),
    }
}

/// The witness of all of the above: where a second owner is, the client sees it, and the check says so.
#[test]
fn the_client_sees_a_second_owner_where_there_is_one() -> Result<()> {
    let Some(built) = require("faults: keepalived", &NEEDS) else { return Ok(()) };
    for name in ["kill", "stop-1s"] {
        let outcome = keepalived(&built, name)?;
        println!("{name}: {outcome:?}");
        ensure!(outcome.during.count > 50, "{name}: {outcome:?}");
        ensure!(outcome.hand_overs.late > 50, "{name}: {outcome:?}");
        let told = outcome.check(fault(name)?).err().with_context(|| format!("{name} passed: {outcome:?}"))?;
        ensure!(told.to_string().contains("two nodes answered one question"), "{told}");
    }
    Ok(())
}
