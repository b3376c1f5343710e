//! The directory of the pins: bpffs under it, a lock that says whether a controller lives, and the
//! links that keep the program attached when none does.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use aya::programs::links::PinnedLink;
use rustix::fd::OwnedFd;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open, statfs};

/// Where links are pinned, one per interface.
const LINKS: &str = "links";
/// Where bpffs belongs.
const BPFFS: &str = "/sys/fs/bpf";
/// statfs(2)'s f_type of bpffs (BPF_FS_MAGIC).
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

/// Held by the controller as long as it lives; the kernel drops it with the process.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held, not used")] OwnedFd);

/// Makes the directory, mounting bpffs at its usual place first if that is missing.
///
/// # Errors
/// When the path is not on a bpffs, or cannot be made.
pub fn prepare(pin_path: &Path) -> Result<()> {
    if pin_path.starts_with(BPFFS) && Path::new(BPFFS).is_dir() && !is_bpffs(Path::new(BPFFS)) {
        rustix::mount::mount("bpf", BPFFS, "bpf", rustix::mount::MountFlags::empty(), None::<&std::ffi::CStr>)
            .with_context(|| format!("mounting bpffs at {BPFFS} (needs root)"))?;
    }
    let existing = pin_path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    if !is_bpffs(existing) {
        bail!(
            "pin_path {} is not on a bpffs, and maps can be pinned nowhere else: use a path below {BPFFS}",
            pin_path.display()
        );
    }
    let links = links(pin_path);
    fs::create_dir_all(&links).with_context(|| format!("making {} (needs root)", links.display()))
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| stat.f_type as u64 == BPF_FS_MAGIC)
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

/// The id of the program that a pinned link runs; `None` when there is no such pin.
///
/// # Errors
/// When the pin is no link.
pub fn link_program(pin_path: &Path, interface: &str) -> Result<Option<u32>> {
    let path = link(pin_path, interface);
    if !path.exists() {
        return Ok(None);
    }
    let link = PinnedLink::from_pin(&path).with_context(|| format!("opening the pinned link {}", path.display()))?;
    let link = aya::programs::links::FdLink::from(link);
    let info = link.info().with_context(|| format!("asking the kernel about {}", path.display()))?;
    Ok(Some(info.program_id()))
}

/// Removes every pin but those to `keep`; the directories stay. The program is detached when the last handle to its
/// link is closed, which is now unless a controller lives.
///
/// # Errors
/// The first file that could not be removed; the others are gone.
pub fn remove_contents(pin_path: &Path, keep: &[&str]) -> Result<()> {
    let mut first_error = None;
    for directory in [links(pin_path), pin_path.to_path_buf()] {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        let goes = |entry: &fs::DirEntry| {
            entry.file_type().is_ok_and(|kind| !kind.is_dir()) && !keep.iter().any(|name| entry.file_name() == *name)
        };
        for entry in entries.flatten().filter(goes) {
            if let Err(error) = fs::remove_file(entry.path()) {
                first_error.get_or_insert((entry.path(), error));
            }
        }
    }
    match first_error {
        Some((path, error)) => Err(error).with_context(|| format!("removing {}", path.display())),
        None => Ok(()),
    }
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
