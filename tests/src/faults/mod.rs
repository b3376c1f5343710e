//! The fault lab: everything that is done to a pair of nodes, what a client sees of it, and the
//! same done to a pair of keepalived.
//!
//! `table.rs` lists the faults; `processes`, `links`, `floods` and `load` do them, each with a
//! witness that it bit; `scene` watches; `report` prints. Deliberately absent: a step of the
//! machine's real-time clock, which others use; nothing here reads it.

mod filter;
pub(crate) mod floods;
mod links;
mod load;
mod outcome;
mod processes;
mod report;
mod scene;
mod table;

use std::time::Duration;

use anyhow::Result;

pub use crate::node::System;
pub use outcome::Outcome;
pub use report::{Row, document, lines};
pub use scene::{Played, Scene};
pub use table::FAULTS;

/// What is done to whom. Faults of a group can be played one after the other in one scene.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// The Active's controller is killed, stopped, frozen.
    Processes,
    /// Or replaced.
    Upgrades,
    /// Links, and the switch between the nodes.
    Links,
    /// Strangers that send as much as they can.
    Floods,
    /// No CPU.
    Load,
}

/// How both nodes are set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Between two adverts.
    pub advert_ms: u32,
    /// edge-a's and edge-b's: `realtime_priority` of ours, `vrrp_rt_priority` of keepalived. 0: neither.
    pub realtime: [u8; 2],
}

/// One row of the table.
#[derive(Debug)]
pub struct Fault {
    /// For the command line.
    pub name: &'static str,
    /// For people.
    pub title: &'static str,
    /// See there.
    pub group: Group,
    /// See there.
    pub setting: Setting,
    /// Whether the nodes cannot hear each other while it lasts, so that the protocol makes two Actives.
    pub apart: bool,
    /// How long it lasts.
    pub length: Duration,
    /// And in the tests; `None`: they leave it to a shorter one of the kind.
    pub length_in_tests: Option<Duration>,
    /// Does it, marks where it heals, and says how one can tell that it bit.
    pub inflict: fn(&mut Scene, Duration) -> Result<Bite>,
    /// What is done, for the document.
    pub what: &'static str,
    /// Where it hurts ours, if it does, in few words. How much is measured.
    pub hurts: &'static str,
    /// And why.
    pub why: &'static str,
}

/// Whether a fault could be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bite {
    /// It bit, as this witness says.
    Witness(String),
    /// This machine cannot do it, for this reason.
    Impossible(String),
}
