//! What the tests of a real kernel and the lab share: namespaces, nodes, peers, a client that
//! notices everything, and the loaded program frame by frame.
//!
//! Deliberately absent: a stand-in for anything that this machine can run.

pub mod answers;
pub mod arp_probe;
pub mod bench;
pub mod budget;
pub mod capture;
pub mod client;
pub mod crowd;
pub mod daemon;
pub mod echo;
pub mod faults;
pub mod fixtures;
pub mod flood;
pub mod flow_maps;
pub mod frames;
pub mod freezer;
pub mod hogs;
pub mod keepalived;
pub mod kernel_check;
pub mod lab;
pub mod machine;
mod map_state;
pub mod mutation;
pub mod netns;
pub mod node;
pub mod requirements;
pub mod stage;
pub mod tagged;
pub mod tape;
pub mod testrun;
pub mod udp;
pub mod wait;
pub mod watcher;
mod workers;
