//! The controller as a library; `main.rs` is the command around it.
//!
//! Dependencies inside: `main` -> `controller` -> {`router`, `host`, `dataplane`} -> `election`,
//! which points nowhere but to `failover-common`.

mod addresses;
#[cfg(feature = "command")]
pub mod cli;
mod clock;
pub mod config;
pub mod controller;
pub mod dataplane;
pub mod election;
pub mod flows;
mod host;
pub mod interface;
mod packet;
mod plan;
mod readable;
mod realtime;
mod refusals;
pub mod replication;
pub mod router;
pub mod status;
mod told;
pub mod unload;
