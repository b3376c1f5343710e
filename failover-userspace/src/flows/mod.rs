//! TCP connections to the virtual addresses, as userspace deals with them: what sockets there are, what the kernel
//! program's table holds, and what a dead node's clients are told.
//!
//! Deliberately absent: the judgement of a segment, which is the XDP program's.

pub mod batch;
pub mod sockets;
pub mod tickle;
