//! Nodes on loopback addresses, each on a thread of its own.

mod sessions;
mod support;
mod vectors;
