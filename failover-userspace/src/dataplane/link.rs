//! The link that holds the program on an interface, kept open: what the kernel says of it, and whether the pin is there
//! that keeps it when the controller dies.
//!
//! Deliberately absent: attaching (`dataplane`), and what follows from what was seen (`fence`).

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, statat};

/// Commands of bpf(2).
const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_LINK_DETACH: libc::c_int = 34;
/// `enum bpf_link_type`.
const BPF_LINK_TYPE_XDP: u32 = 6;

/// What a look at a link found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// Our program, attached and pinned.
    Attached,
    /// On no interface, or on another one.
    Detached,
    /// Another program in the place of ours.
    Replaced {
        /// Its id.
        program_id: u32,
    },
    /// Attached, but not pinned: with the controller the program would go.
    Unpinned,
    /// Attached, and frames that it always takes get past it (`canary`).
    Idle,
    /// Attached and pinned, but something is mounted over the pin: nobody finds it there.
    Covered,
}

/// Where a link has which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The program's id.
    pub program_id: u32,
    /// The interface's index in whatever network namespace it is; 0: on none.
    pub ifindex: u32,
}

impl Attachment {
    /// Of a pinned link; `None`: it is no XDP link.
    ///
    /// # Errors
    /// Those of bpf(2) and of the file system.
    pub fn of(pin: &Path) -> io::Result<Option<Self>> {
        let info = info(&open(pin)?)?;
        let is_xdp = info.kind == BPF_LINK_TYPE_XDP;
        Ok(is_xdp.then_some(Self { program_id: info.program_id, ifindex: info.ifindex }))
    }
}

/// See the module.
#[derive(Debug)]
pub struct Link {
    fd: OwnedFd,
    pin: PathBuf,
    /// The directory of the pin, which stays the same when something is mounted over it.
    directory: OwnedFd,
    /// File system and inode of the pin.
    place: (u64, u64),
    ifindex: u32,
    program_id: u32,
}

/// The beginning of the kernel's `bpf_link_info`, as of an XDP link; it fills in what there is room for.
#[repr(C)]
#[derive(Default)]
struct Info {
    kind: u32,
    id: u32,
    program_id: u32,
    _pad: u32,
    ifindex: u32,
    _rest: [u32; 27],
}

/// `bpf_attr` of the commands that name a path.
#[repr(C)]
struct PathAttributes {
    path: u64,
    fd: u32,
    flags: u32,
}

/// `bpf_attr` of the command that detaches.
#[repr(C)]
struct DetachAttributes {
    fd: u32,
}

/// `bpf_attr` of the command that asks for information.
#[repr(C)]
struct InfoAttributes {
    fd: u32,
    len: u32,
    info: u64,
}

impl Link {
    /// Opens a pinned link that is expected to hold that program on that interface.
    ///
    /// # Errors
    /// Those of bpf(2) and of the file system.
    pub fn open(pin: &Path, ifindex: u32, program_id: u32) -> io::Result<Self> {
        let (fd, directory) = (open(pin)?, open_directory(pin)?);
        Ok(Self { fd, pin: pin.to_path_buf(), directory, place: place(CWD, pin)?, ifindex, program_id })
    }

    /// Looks. Waits for the kernel's lock on all links (RTNL): not on the election thread.
    ///
    /// # Errors
    /// Those of bpf(2).
    pub fn look(&self) -> io::Result<Sight> {
        let info = info(&self.fd)?;
        if info.ifindex != self.ifindex {
            return Ok(Sight::Detached);
        }
        if info.program_id != self.program_id {
            return Ok(Sight::Replaced { program_id: info.program_id });
        }
        if place(CWD, &self.pin).is_ok_and(|place| place == self.place) {
            return Ok(Sight::Attached);
        }
        let name = self.pin.file_name().unwrap_or_default();
        let is_below = place(&self.directory, Path::new(name)).is_ok_and(|place| place == self.place);
        Ok(if is_below { Sight::Covered } else { Sight::Unpinned })
    }

    /// The interface's index.
    pub fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// Takes the program off the interface, now: a link that is closed may take its time.
    ///
    /// # Errors
    /// Those of bpf(2).
    pub fn detach(&self) -> io::Result<()> {
        bpf(BPF_LINK_DETACH, &DetachAttributes { fd: self.fd.as_raw_fd() as u32 }).map(drop)
    }

    /// Pins it again where it was.
    ///
    /// # Errors
    /// Those of bpf(2) and of the file system.
    pub fn pin_again(&mut self) -> io::Result<()> {
        if let Some(directory) = self.pin.parent() {
            fs::create_dir_all(directory)?;
        }
        // Whatever has the name now is not this link.
        let _ = fs::remove_file(&self.pin);
        let path = CString::new(self.pin.as_os_str().as_bytes())?;
        let attributes = PathAttributes { path: path.as_ptr() as u64, fd: self.fd.as_raw_fd() as u32, flags: 0 };
        bpf(BPF_OBJ_PIN, &attributes)?;
        self.directory = open_directory(&self.pin)?;
        self.place = place(CWD, &self.pin)?;
        Ok(())
    }
}

fn open(pin: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let attributes = PathAttributes { path: path.as_ptr() as u64, fd: 0, flags: 0 };
    let fd = bpf(BPF_OBJ_GET, &attributes)?;
    // SAFETY: the kernel has just made this descriptor, for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn info(link: &OwnedFd) -> io::Result<Info> {
    let mut info = Info::default();
    let (fd, len) = (link.as_raw_fd() as u32, size_of::<Info>() as u32);
    bpf(BPF_OBJ_GET_INFO_BY_FD, &InfoAttributes { fd, len, info: (&raw mut info) as u64 })?;
    Ok(info)
}

fn open_directory(pin: &Path) -> io::Result<OwnedFd> {
    let directory = pin.parent().unwrap_or(Path::new("/"));
    Ok(rustix::fs::open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

fn place(directory: impl rustix::fd::AsFd, path: &Path) -> io::Result<(u64, u64)> {
    let stat = statat(directory, path, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// bpf(2), which no library of ours offers for links.
fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<i32> {
    // SAFETY: the pointer is to a live struct of that size, as the command takes it; what it points to lives in the caller.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attributes, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}
