//! `failover unload`: takes away what a dead controller left.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::addresses::Addresses;
use crate::dataplane::maps::{self, Snapshot};
use crate::dataplane::{self, pins};
use crate::interfaces;

/// What there was to take away.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is loaded there.
    Nothing,
    /// Detached and unpinned, with that many addresses taken off.
    Unloaded(usize),
}

/// Takes the addresses off, puts back what was switched off, detaches the program and removes the pins.
///
/// # Errors
/// When a controller is running, something could not be removed, or, without `force`, it can't be
/// told which addresses are to go: without the program nothing fences them.
pub async fn unload(pin_path: &Path, force: bool) -> Result<Outcome> {
    if !pin_path.exists() {
        return Ok(Outcome::Nothing);
    }
    let Some(_lock) = pins::lock(pin_path)? else {
        let pid = maps::read_meta(pin_path).map_or(0, |meta| meta.controller_pid);
        bail!(
            "a controller (process {pid}) is running with pin_path {}: stop it, it unloads by itself",
            pin_path.display()
        );
    };
    // Addresses first: while the program is attached they are fenced.
    let removed = match Snapshot::read(pin_path) {
        Ok(snapshot) => remove_addresses(pin_path, &snapshot, force).await?,
        Err(_) if force => 0,
        Err(error) => {
            return Err(error.context(
                "the maps cannot be read, so it can't be told which addresses are to go: take them off by hand and use \
                 --force",
            ));
        }
    };
    dataplane::put_offloads_back(pin_path);
    pins::remove_all(pin_path)?;
    Ok(Outcome::Unloaded(removed))
}

async fn remove_addresses(pin_path: &Path, snapshot: &Snapshot, force: bool) -> Result<usize> {
    let (connection, netlink, _) = rtnetlink::new_connection().context("opening a netlink socket")?;
    tokio::spawn(connection);
    let known = interfaces::list(&netlink).await?;
    for (index, there) in &snapshot.interfaces {
        let name = dataplane::unpadded(&there.name);
        let interface = known.values().find(|here| here.index == *index);
        let is_here = match (interface, pins::pinned(pin_path, &name)?) {
            (Some(here), Some(pinned)) => pinned.is_on(here)?,
            (here, _) => here.is_some_and(|here| here.xdp_program.is_none()),
        };
        if !is_here && !force {
            bail!(
                "interface {name} (index {index}) is not here with our program on it: use the network namespace that the \
                 controller ran in, or --force if the interface is gone"
            );
        }
    }
    let (mut addresses, mut removed) = (Addresses::open()?, 0);
    for (ifindex, address) in dataplane::put_addresses(snapshot) {
        let interface = known.values().find(|interface| interface.index == ifindex);
        let there = interface.and_then(|state| state.addresses.iter().find(|there| there.net.addr() == address));
        if let Some(there) = there {
            addresses.take_off(ifindex, &[there.net])?;
            removed += 1;
        }
    }
    Ok(removed)
}
