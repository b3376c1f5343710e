//! bpf(2), as far as no library offers it: commands by their own attributes, and pins of any kind.
//!
//! Deliberately absent: what a pin is of (`link`), and loading (`bound`).

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_OBJ_GET: libc::c_int = 7;

/// `bpf_attr` of the commands that name a path.
#[repr(C)]
struct PathAttributes {
    path: u64,
    fd: u32,
    flags: u32,
}

/// One command.
///
/// # Errors
/// The kernel's.
///
/// # Safety
/// The attributes are the command's, and what they point to lives and may be read or written as it does.
pub(super) unsafe fn call<T>(command: libc::c_int, attributes: &T) -> io::Result<i32> {
    // SAFETY: a live struct of that size; the rest is the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attributes, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

/// One command that makes a descriptor.
///
/// # Errors
/// The kernel's.
///
/// # Safety
/// As [`call`]; the command is such a one.
pub(super) unsafe fn descriptor<T>(command: libc::c_int, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise.
    let descriptor = unsafe { call(command, attributes) }?;
    // SAFETY: the kernel has just made it, for us.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Opens what is pinned.
///
/// # Errors
/// The kernel's.
pub(super) fn open(pin: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let attributes = PathAttributes { path: path.as_ptr() as u64, fd: 0, flags: 0 };
    // SAFETY: the attributes are this command's, and the path lives.
    unsafe { descriptor(BPF_OBJ_GET, &attributes) }
}

/// Pins a link, a program or a map.
///
/// # Errors
/// The kernel's.
pub(super) fn pin(object: impl AsFd, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let fd = object.as_fd().as_raw_fd() as u32;
    // SAFETY: as in `open`.
    unsafe { call(BPF_OBJ_PIN, &PathAttributes { path: path.as_ptr() as u64, fd, flags: 0 }) }.map(drop)
}
