//! The directory of the pins: bpffs under it, a lock that says whether a controller lives, and the
//! links that keep the program attached when none does.
//!
//! Deliberately absent: whether pins there are safe (`startup::pin_path`).

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::fd::OwnedFd;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::dataplane::link::{Attachment, Hook};
use crate::dataplane::tc;
use crate::startup::pin_path::{self as place, BPFFS, Place};

/// Where links are pinned, one per interface.
const LINKS: &str = "links";

/// Held by the controller as long as it lives; the kernel drops it with the process.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held, not used")] OwnedFd);

/// What was made for the pins. It is taken away again when this is dropped, unless it is in use by then.
#[derive(Debug, Default)]
pub struct Prepared {
    is_mounted: bool,
    /// Outer ones first.
    directories: Vec<PathBuf>,
}

/// Makes the directory, mounting bpffs at its usual place first if that is missing. Nobody but this user may look into
/// what is made.
///
/// # Errors
/// When pins there would not be safe, or the directory cannot be made.
pub fn prepare(pin_path: &Path) -> Result<Prepared> {
    let mut prepared = Prepared::default();
    if place::find(pin_path)? == Place::Missing {
        mount_bpffs(Path::new(BPFFS))?;
        prepared.is_mounted = true;
    }
    prepared.make(pin_path)?;
    place::check_owner(pin_path)?;
    prepared.make(&links(pin_path))?;
    Ok(prepared)
}

/// Mounts a bpffs of which others see nothing.
///
/// # Errors
/// Those of mount(2).
pub fn mount_bpffs(at: &Path) -> Result<()> {
    mount("bpf", at, "bpf", MountFlags::empty(), Some(c"mode=0700"))
        .with_context(|| format!("mounting bpffs at {} (needs root)", at.display()))
}

impl Prepared {
    fn make(&mut self, directory: &Path) -> Result<()> {
        let missing: Vec<_> = directory.ancestors().take_while(|path| !path.exists()).collect();
        for path in missing.into_iter().rev() {
            let made = fs::DirBuilder::new().mode(0o700).create(path);
            made.with_context(|| format!("making {} (needs root)", path.display()))?;
            self.directories.push(path.to_path_buf());
        }
        Ok(())
    }

    /// It is in use: it stays.
    pub fn keep(mut self) {
        self.is_mounted = false;
        self.directories.clear();
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        for directory in self.directories.iter().rev() {
            let _ = fs::remove_dir(directory);
        }
        if self.is_mounted {
            let _ = unmount(BPFFS, UnmountFlags::DETACH);
        }
    }
}

/// Takes the controller's lock; `None` when another controller has it.
///
/// # Errors
/// When the directory cannot be opened.
pub fn lock(pin_path: &Path) -> Result<Option<Lock>> {
    let directory = open(pin_path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .with_context(|| format!("opening {}", pin_path.display()))?;
    // `failover status` holds it for a moment, to see whether it can.
    for _ in 0..10 {
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(Lock(directory))),
            Err(rustix::io::Errno::WOULDBLOCK) => std::thread::sleep(Duration::from_millis(10)),
            Err(error) => return Err(error).with_context(|| format!("locking {}", pin_path.display())),
        }
    }
    Ok(None)
}

/// Whether a controller holds the lock.
pub fn is_locked(pin_path: &Path) -> bool {
    open(pin_path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).is_ok_and(|directory| {
        flock(&directory, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK)
    })
}

fn links(pin_path: &Path) -> PathBuf {
    pin_path.join(LINKS)
}

/// Where the link on an interface is pinned.
pub fn link(pin_path: &Path, interface: &str) -> PathBuf {
    // bpffs refuses dots in names; VLAN interfaces have one.
    links(pin_path).join(interface.replace('.', ":"))
}

/// What the pin of an interface holds; `None` when there is no such pin.
///
/// # Errors
/// When it cannot be opened or asked.
pub fn pinned(pin_path: &Path, interface: &str) -> Result<Option<Attachment>> {
    let path = link(pin_path, interface);
    if path.exists() { attachment(&path) } else { Ok(None) }
}

fn attachment(path: &Path) -> Result<Option<Attachment>> {
    Attachment::of(path).with_context(|| format!("asking the kernel about the pinned link {}", path.display()))
}

/// Every pinned link that is attached to an interface, and every program that may be by a filter. A link whose interface
/// is gone, or that was detached, is not.
///
/// # Errors
/// When one cannot be opened or asked.
pub fn attached(pin_path: &Path) -> Result<Vec<Attachment>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(links(pin_path)).into_iter().flatten() {
        let path = entry.with_context(|| format!("reading {}", links(pin_path).display()))?.path();
        found.extend(attachment(&path)?.filter(|there| there.ifindex != 0 || there.hook == Hook::Filter));
    }
    Ok(found)
}

/// Removes the pin of a link, and the filter of a program. A link goes when nobody has it open.
///
/// # Errors
/// Those of the file system and of netlink.
pub fn remove_link(path: &Path) -> Result<()> {
    let filter = attachment(path).ok().flatten().filter(|there| there.hook == Hook::Filter);
    if let Some(filter) = filter {
        tc::remove_filters(filter.program_id)?;
    }
    fs::remove_file(path).with_context(|| format!("removing {}", path.display()))
}

/// Removes every pin but those to `keep`; the directories stay. The program is detached when the last handle to its
/// link is closed, which is now unless a controller lives.
///
/// # Errors
/// The first file that could not be removed; the others are gone.
pub fn remove_contents(pin_path: &Path, keep: &[&str]) -> Result<()> {
    let mut removed = Ok(());
    for directory in [links(pin_path), pin_path.to_path_buf()] {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        let goes = |entry: &fs::DirEntry| {
            entry.file_type().is_ok_and(|kind| !kind.is_dir()) && !keep.iter().any(|name| entry.file_name() == *name)
        };
        for entry in entries.flatten().filter(goes) {
            // One that fails keeps no other from going.
            removed = removed.and(remove_link(&entry.path()));
        }
    }
    removed
}

/// Removes every pin and the directories.
///
/// # Errors
/// As [`remove_contents`].
pub fn remove_all(pin_path: &Path) -> Result<()> {
    remove_contents(pin_path, &[])?;
    for directory in [links(pin_path), pin_path.to_path_buf()] {
        match fs::remove_dir(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("removing {}", directory.display()));
            }
            _ => {}
        }
    }
    Ok(())
}
