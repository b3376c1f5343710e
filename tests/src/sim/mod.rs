//! The simulation: many routers on one wire, on a virtual clock, with the faults that a seed draws.
//!
//! What runs is what ships: each node has the frame path (`failover_ebpf::handle`) over the memory that the controller
//! maps, and the controller's own driver of the election ([`failover_userspace::router`]); adverts and ARP requests are
//! whole frames. Made up are the clock, the wire, the faults, and a peer that behaves like keepalived.
//!
//! `scenario` draws, `world` lets time pass, `node` and `peer` are the stations, `judge` knows the invariants,
//! `timer` the RFC's Active_Down_Timer, `shrink` makes a failure small. Deliberately absent: threads, sleeping, the machine's clock, and
//! sockets; what two CPUs do at the same nanosecond.

mod clock;
mod faults;
mod judge;
mod node;
mod peer;
mod report;
pub mod scenario;
mod shrink;
mod timer;
mod trace;
mod world;

pub use report::{Failure, Totals, commit};
pub use scenario::{Fault, Kind, NodePlan, Scenario};
pub use shrink::shrink;
pub use world::{Outcome, play};

/// A microsecond, in nanoseconds.
pub const US: u64 = 1_000;
/// A millisecond, in nanoseconds.
pub const MS: u64 = 1_000_000;
/// A second, in nanoseconds.
pub const SECOND: u64 = 1_000_000_000;
