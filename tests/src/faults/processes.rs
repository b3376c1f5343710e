//! What happens to the Active's controller as a process.

use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::Signal;

use crate::faults::{Bite, Scene};
use crate::freezer::Freezer;
use crate::wait;

/// A takeover by silence is certain after this: 300 ms and edge-b's skew of 61 ms.
const DETECTED: Duration = Duration::from_millis(361);

pub(super) fn kill(scene: &mut Scene, length: Duration) -> Result<Bite> {
    let processes = scene.a.processes();
    scene.a.kill()?;
    scene.wait_for_b()?;
    scene.last(length);
    scene.heals();
    scene.a.start_again()?;
    let again = scene.a.processes();
    ensure!(!again.is_empty() && again.iter().all(|pid| !processes.contains(pid)), "{processes:?} then {again:?}");
    Ok(Bite::Witness(format!("{} process(es) gone, another one later", processes.len())))
}

pub(super) fn stop(scene: &mut Scene, length: Duration) -> Result<Bite> {
    let is_stopped = |scene: &Scene| scene.a.process_states().chars().all(|state| state == 'T');
    scene.a.signal(Signal::STOP)?;
    wait::until("the process to be stopped", || is_stopped(scene))?;
    scene.last(length);
    if length > DETECTED {
        scene.wait_for_b()?;
    }
    let states = scene.a.process_states();
    ensure!(is_stopped(scene), "no longer stopped: {states}");
    scene.heals();
    scene.a.signal(Signal::CONT)?;
    Ok(Bite::Witness(format!("state {states} from the first to the last moment")))
}

pub(super) fn freeze(scene: &mut Scene, length: Duration) -> Result<Bite> {
    let Some(mut freezer) = Freezer::new()? else {
        return Ok(Bite::Impossible("no mounted cgroup hierarchy has a freezer".into()));
    };
    freezer.freeze(&scene.a.processes())?;
    scene.last(length);
    scene.wait_for_b()?;
    ensure!(freezer.is_frozen(), "no longer frozen");
    scene.heals();
    freezer.thaw()?;
    Ok(Bite::Witness("the kernel called the group frozen from the first to the last moment".into()))
}

pub(super) fn replace(scene: &mut Scene, length: Duration) -> Result<Bite> {
    let directory = scene.lab.directory().to_path_buf();
    scene.a.replace(&directory)?;
    scene.heals();
    scene.last(length);
    wait::until("the new program", || scene.a.is_replaced(&directory))?;
    Ok(Bite::Witness("the new program runs".into()))
}

pub(super) fn restart(scene: &mut Scene, length: Duration) -> Result<Bite> {
    let processes = scene.a.processes();
    scene.a.stop()?;
    scene.heals();
    scene.a.start_again()?;
    scene.last(length);
    ensure!(scene.a.processes().iter().all(|pid| !processes.contains(pid)), "the old process is still there");
    Ok(Bite::Witness("other processes run".into()))
}
