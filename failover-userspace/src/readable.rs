//! Watching a file descriptor for readability.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers `inner` with the current runtime's reactor.
///
/// # Errors
/// Those of the reactor.
pub fn readable<T: AsFd + AsRawFd>(inner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: an `AsFd` value owns or borrows one open descriptor for as long as it lives, and
    // `AsRawFd` of the types used here (`OwnedFd`, aya's `RingBuf`) names the same one each time.
    let watched = unsafe { AsyncFd::register_with_interest(inner, Interest::READABLE) };
    Ok(watched?)
}
