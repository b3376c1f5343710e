//! What must hold of any bytes, one function for each kind: libFuzzer calls them through `fuzz_targets/`, and
//! `tests/corpus.rs` with what libFuzzer has found so far, on any toolchain.
//!
//! A function panics when something does not hold. Expectations are independent of the code they are about, where that
//! is not the round trip itself. Deliberately absent: what is right for single inputs. The crates' own tests say that.

mod bytes;
mod config;
mod frame_path;
mod maps;
mod replication;
mod sock_diag;
mod wire;

pub use config::config;
pub use frame_path::frame_path;
pub use maps::maps;
pub use replication::replication;
pub use sock_diag::sock_diag;
pub use wire::wire;

/// What is done with an input.
pub type Target = fn(&[u8]);

/// All of them, by the names of their binaries and of their directories in `corpus/`.
pub const TARGETS: [(&str, Target); 6] = [
    ("wire", wire),
    ("frame_path", frame_path),
    ("config", config),
    ("replication", replication),
    ("sock_diag", sock_diag),
    ("maps", maps),
];
