//! The mount and the directory of the pins. They are the fence of a controller that was killed, so they have to be there
//! without it, and nobody else may take them away.
//!
//! Deliberately absent: making them (`dataplane::pins`).

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::{major, minor, statfs};

use super::Refusal;

/// Where bpffs belongs.
pub const BPFFS: &str = "/sys/fs/bpf";
/// statfs(2)'s f_type of bpffs (BPF_FS_MAGIC).
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
/// The inode of the initial PID namespace, the same on every boot (PROC_PID_INIT_INO, linux/proc_ns.h).
const INITIAL_PID_NAMESPACE: u64 = 0xeffffffc;
/// What containers need.
const RECIPE: &str = "a container needs the host's bpffs and PID namespace: `-v /sys/fs/bpf:/sys/fs/bpf --pid=host` \
                      (docs/operations.md)";
const WHY: &str = "the pinned XDP program is what fences the addresses when failover is killed";

/// What there is for the pins.
#[derive(Debug, PartialEq, Eq)]
pub enum Place {
    /// The path is on a bpffs.
    Mounted,
    /// A bpffs is to be mounted at [`BPFFS`].
    Missing,
}

/// A mount table, as far as it matters here.
#[derive(Debug, Default, PartialEq, Eq)]
struct Mounts {
    /// No two mounts of a kernel have the same, in whatever namespaces they are.
    ids: BTreeSet<u64>,
    /// Major and minor number of what is mounted.
    devices: BTreeSet<(u32, u32)>,
}

/// Looks for a bpffs at `pin_path` that outlives this process: one that process 1 has, too. Which mount namespace this
/// is does not matter: a systemd unit has one of its own with the host's bpffs in it.
///
/// # Errors
/// A [`Refusal`] when there is none, or when it can't be told.
pub fn find(pin_path: &Path) -> Result<Place> {
    let existing = pin_path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let place = if is_bpffs(existing) {
        Place::Mounted
    } else if pin_path.starts_with(BPFFS) && Path::new(BPFFS).is_dir() {
        Place::Missing
    } else {
        let refusal = format!(
            "pin_path {} is not on a bpffs, and maps can be pinned nowhere else: use a path below {BPFFS}",
            pin_path.display()
        );
        return Err(Refusal(refusal).into());
    };
    let device = fs::metadata(existing).with_context(|| format!("looking at {}", existing.display()))?.dev();
    let pid_namespace = fs::metadata("/proc/self/ns/pid").context("looking at /proc/self/ns/pid")?.ino();
    let own = fs::read_to_string("/proc/self/mountinfo").context("reading /proc/self/mountinfo")?;
    let own = Mounts::parse(&own);
    let first = fs::read_to_string("/proc/1/mountinfo").map(|text| Mounts::parse(&text));
    let device = (major(device), minor(device));
    match refusal(pin_path, &place, device, pid_namespace == INITIAL_PID_NAMESPACE, &own, first) {
        Some(refusal) => Err(refusal.into()),
        None => Ok(place),
    }
}

fn refusal(
    pin_path: &Path,
    place: &Place,
    device: (u32, u32),
    is_host: bool,
    own: &Mounts,
    first: io::Result<Mounts>,
) -> Option<Refusal> {
    let pin_path = pin_path.display();
    if !is_host {
        return Some(Refusal(format!(
            "pin_path {pin_path}: this process is in a container (a PID namespace of its own), so it can't be told whether \
             the bpffs there outlives the container: {WHY}; {RECIPE}"
        )));
    }
    let first = match first {
        Ok(first) => first,
        Err(error) => {
            return Some(Refusal(format!(
                "pin_path {pin_path}: /proc/1/mountinfo cannot be read ({error}), so it can't be told whether the bpffs \
                 there outlives failover: {WHY}; {RECIPE}"
            )));
        }
    };
    match place {
        Place::Mounted if !first.devices.contains(&device) => Some(Refusal(format!(
            "pin_path {pin_path}: the bpffs there is not the host's: only this mount namespace has it, and it is gone with \
             the last process here: {WHY}. Start failover where the host's bpffs is seen, not under `unshare -m`; {RECIPE}"
        ))),
        Place::Missing if own.ids.is_disjoint(&first.ids) => Some(Refusal(format!(
            "pin_path {pin_path}: no bpffs is seen at {BPFFS}, and this is a mount namespace of its own: a bpffs mounted \
             here would be hidden from the host and gone with the last process here: {WHY}. `ip netns exec` does this: use \
             `nsenter --net=/run/netns/NAME failover run ...`; {RECIPE}"
        ))),
        _ => None,
    }
}

impl Mounts {
    /// Of a `mountinfo`, proc_pid_mountinfo(5).
    fn parse(text: &str) -> Self {
        let mut mounts = Self::default();
        for line in text.lines() {
            let mut fields = line.split(' ');
            mounts.ids.extend(fields.next().and_then(|id| id.parse::<u64>().ok()));
            let device = fields.nth(1).and_then(|device| device.split_once(':'));
            mounts.devices.extend(device.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?))));
        }
        mounts
    }
}

/// Whether the path is on a bpffs.
pub fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| stat.f_type as u64 == BPF_FS_MAGIC)
}

/// Refuses a pin directory that somebody else could take away or fill: it, and what it is in on its bpffs, has to be
/// root's or this user's, and nobody else's to write. What is above it may be sticky, as a bpffs is at its root.
///
/// # Errors
/// A [`Refusal`], or when the directory can't be looked at.
pub fn check_owner(pin_path: &Path) -> Result<()> {
    for directory in pin_path.ancestors().take_while(|directory| is_bpffs(directory)) {
        let there = fs::metadata(directory).with_context(|| format!("looking at {}", directory.display()))?;
        let may_be_sticky = directory != pin_path;
        if let Some(what) = intruder(there.uid(), there.mode(), may_be_sticky) {
            return Err(Refusal(format!(
                "pin_path {}: {} {what}. Whoever it is could detach the program or keep failover from starting. Have it \
                 removed, or use another pin_path",
                pin_path.display(),
                directory.display(),
            ))
            .into());
        }
    }
    Ok(())
}

/// Who else could change a directory.
fn intruder(uid: u32, mode: u32, may_be_sticky: bool) -> Option<String> {
    let own = rustix::process::geteuid().as_raw();
    if uid != 0 && uid != own {
        return Some(format!("belongs to user {uid}"));
    }
    let is_sticky = may_be_sticky && mode & 0o1000 != 0;
    (mode & 0o022 != 0 && !is_sticky).then(|| format!("may be written by others (mode {:04o})", mode & 0o7777))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "22 27 0:21 / /proc rw,relatime - proc proc rw\n\
                        27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
                        46 45 0:39 / /sys/fs/bpf rw,relatime shared:7 - bpf bpf rw,mode=700\n";

    fn judge(place: &Place, device: (u32, u32), own: &str) -> Option<String> {
        let first = Ok(Mounts::parse(HOST));
        let judged = refusal(Path::new("/sys/fs/bpf/failover"), place, device, true, &Mounts::parse(own), first);
        judged.map(|refusal| refusal.to_string())
    }

    #[test]
    fn f4_the_mount_counts_and_not_the_namespace() {
        assert_eq!(judge(&Place::Mounted, (0, 39), HOST), None);
        // A systemd unit with a mount namespace of its own: other mounts of the same file systems.
        let unit = "522 527 254:0 / / ro,relatime master:1 - ext4 /dev/vda rw\n\
                    546 545 0:39 / /sys/fs/bpf rw,relatime master:7 - bpf bpf rw,mode=700\n";
        assert_eq!(judge(&Place::Mounted, (0, 39), unit), None);
        let private = judge(&Place::Mounted, (0, 61), unit).expect("a bpffs that only this process has");
        assert!(private.contains("is not the host's") && private.contains("-v /sys/fs/bpf:/sys/fs/bpf"), "{private}");
    }

    #[test]
    fn f4_a_bpffs_is_mounted_only_where_process_1_sees_it() {
        assert_eq!(judge(&Place::Missing, (0, 22), HOST), None);
        // As seen after chroot(2): fewer mounts, the same ones.
        assert_eq!(judge(&Place::Missing, (0, 22), "22 27 0:21 / /proc rw,relatime - proc proc rw\n"), None);
        // `ip netns exec`: other mounts, whatever is mounted.
        let hidden = judge(&Place::Missing, (0, 22), "622 627 0:22 / /sys rw,relatime - sysfs sysfs rw\n");
        let hidden = hidden.expect("a mount that nobody else would see");
        assert!(hidden.contains("nsenter --net=/run/netns/NAME"), "{hidden}");
    }

    #[test]
    fn f4_what_cannot_be_told_is_refused() {
        let path = Path::new("/sys/fs/bpf/failover");
        let host = || Mounts::parse(HOST);
        let container = refusal(path, &Place::Mounted, (0, 39), false, &host(), Ok(host())).expect("a container");
        assert!(container.to_string().contains("-v /sys/fs/bpf:/sys/fs/bpf --pid=host"), "{container}");
        let denied = Err(io::ErrorKind::PermissionDenied.into());
        let unknown = refusal(path, &Place::Mounted, (0, 39), true, &host(), denied).expect("process 1 is hidden");
        assert!(unknown.to_string().contains("/proc/1/mountinfo cannot be read (permission denied)"), "{unknown}");
    }

    #[test]
    fn f37_a_directory_is_roots_or_this_users_and_nobody_elses_to_write() {
        let own = rustix::process::geteuid().as_raw();
        for (uid, mode, may_be_sticky) in [(0, 0o700, false), (own, 0o755, false), (0, 0o1777, true)] {
            assert_eq!(intruder(uid, mode, may_be_sticky), None);
        }
        assert_eq!(intruder(own + 1, 0o700, false), Some(format!("belongs to user {}", own + 1)));
        for mode in [0o770, 0o702, 0o1777] {
            let told = intruder(0, mode, false).expect("others may write");
            assert!(told.starts_with("may be written by others"), "{told}");
        }
        assert!(intruder(0, 0o777, true).is_some(), "others could rename it");
    }
}
