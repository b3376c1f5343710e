//! The simulation: many routers on one wire, on a virtual clock, with the faults that a seed draws.
//!
//! What runs is what ships: each node has the frame path (`failover_ebpf::handle`) over the memory that the controller
//! maps, and the controller's own driver of the election ([`failover_userspace::router`]); adverts and ARP requests are
//! whole frames. Made up are the clock, the wire, the faults, and a peer that behaves like keepalived.
//!
//! `scenario` draws, `world` lets time pass, `node` and `peer` are the stations, `judge` knows the invariants,
//! `timer` the RFC's Active_Down_Timer, `shrink` makes a failure small.
//!
//! Below it is what fuzzing and the differential tests use, too: `host_frame` and `host_kernel` are the frame path's other
//! side in memory, `map_state` all that a frame can find there, `fixtures` and `segment` frames, `random` chance that can
//! be repeated. A crate of its own, so that a mutant builds little.
//!
//! Deliberately absent: threads, sleeping, the machine's clock, and sockets; what two CPUs do at the same nanosecond.

mod clock;
mod faults;
pub mod fixtures;
pub mod host_frame;
pub mod host_kernel;
mod judge;
pub mod map_state;
mod node;
mod peer;
pub mod random;
mod report;
pub mod scenario;
pub mod segment;
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
