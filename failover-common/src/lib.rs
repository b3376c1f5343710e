//! What the kernel program, the controller and the tests share: wire formats, the map ABI, and the
//! rules of the lease.
//!
//! No allocation, no I/O, no clock, no `unsafe`. Anything that needs one of those belongs to
//! `failover-ebpf` or `failover-userspace`.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod abi;
pub mod address;
pub mod lease;
pub mod stale;
pub mod wire;
