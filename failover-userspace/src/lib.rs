//! The controller as a library; `main.rs` is the command around it.
//!
//! Dependencies inside: `main` -> `controller` -> {`router`, `host`, `dataplane`} -> `election`,
//! which points nowhere but to `failover-common`.

#[cfg(feature = "command")]
mod addresses;
mod attributes;
mod canary;
#[cfg(feature = "command")]
pub mod cli;
mod clock;
pub mod config;
#[cfg(feature = "command")]
pub mod controller;
pub mod dataplane;
pub mod election;
pub mod ethtool;
mod fence;
pub mod flows;
#[cfg(feature = "command")]
mod host;
pub mod interface;
#[cfg(feature = "command")]
mod interfaces;
mod netdev;
pub mod packet;
mod plan;
mod readable;
pub mod realtime;
#[cfg(feature = "command")]
mod refusals;
pub mod replication;
pub mod router;
pub mod startup;
pub mod status;
mod told;
pub mod unfit;
#[cfg(feature = "command")]
pub mod unload;
