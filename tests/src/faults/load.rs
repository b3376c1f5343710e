//! No CPU for the nodes, both of which are on the machine that is starved.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::faults::{Bite, Scene};
use crate::hogs::{Class, cores, hog};

const NORMAL: (usize, Class) = (16, Class::Normal);
/// Of the real-time hogs, of which there is one to a core.
const PRIORITY: u8 = 60;

pub(super) fn normal(scene: &mut Scene, length: Duration) -> Result<Bite> {
    starve(scene, length, &[NORMAL])
}

pub(super) fn realtime(scene: &mut Scene, length: Duration) -> Result<Bite> {
    starve(scene, length, &[NORMAL, (cores(), Class::Fifo(PRIORITY))])
}

fn starve(scene: &mut Scene, length: Duration, hogs: &[(usize, Class)]) -> Result<Bite> {
    let used = hog(hogs, length)?;
    scene.heals();
    let machine = length * cores() as u32;
    // What they did not get, others got, and the nodes as little.
    ensure!(used > machine / 8, "the hogs got {used:?} of {machine:?}");
    Ok(Bite::Witness(format!("the hogs got {:.1} of {:.1} s of CPU time", used.as_secs_f64(), machine.as_secs_f64())))
}
