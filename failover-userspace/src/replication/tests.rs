//! Nodes on loopback addresses, each on a thread of its own.

mod refusals;
mod sessions;
mod support;
mod traffic;
mod vectors;
