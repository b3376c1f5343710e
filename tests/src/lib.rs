//! What the tests of a real kernel and the lab share: namespaces, nodes, peers, a client that
//! notices everything.
//!
//! Deliberately absent: a stand-in for anything that this machine can run.

pub mod arp_probe;
pub mod client;
pub mod daemon;
pub mod frames;
pub mod keepalived;
pub mod lab;
pub mod netns;
pub mod requirements;
pub mod wait;
