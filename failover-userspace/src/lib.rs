//! The controller as a library; `main.rs` is the command around it.

pub mod config;
pub mod election;
