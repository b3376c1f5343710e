//! TCP connections to the virtual addresses, as userspace deals with them: what sockets there are, what the kernel
//! program's table holds, what peers are told, and what a dead node's clients are told.
//!
//! It all runs on a thread of its own, at ordinary priority: nothing here may be on an advert's way. Deliberately
//! absent: the judgement of a segment, which is the XDP program's.

pub mod batch;
pub mod leaving;
pub mod memory;
mod peers;
mod refused;
pub mod sockets;
mod telling;
mod thread;
pub mod tickle;

pub use thread::{Flows, Wish};
