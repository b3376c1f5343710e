//! The link that holds the program on an interface, kept open: what the kernel says of it, and whether the pin is there
//! that keeps it when the controller dies. Before Linux 6.6 a tc program has no link: its pin is the program's own, and
//! what holds it is a filter (`tc`).
//!
//! Deliberately absent: attaching (`dataplane`), and what follows from what was seen (`fence`).

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, statat};

use super::{bpf, tc};
use crate::interface::Interface;

/// Of bpf(2).
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
/// `enum bpf_link_type`.
const BPF_LINK_TYPE_XDP: u32 = 6;
const BPF_LINK_TYPE_TCX: u32 = 11;

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

/// What holds a program on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// A link of XDP.
    Xdp,
    /// A link of tc's.
    Tcx,
    /// A filter of tc's. The kernel does not tell where a program has one.
    Filter,
}

/// Where which program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// By what.
    pub hook: Hook,
    /// The program's id.
    pub program_id: u32,
    /// The interface's index in whatever network namespace it is; 0: on none, or by a filter.
    pub ifindex: u32,
}

impl Attachment {
    /// Of what is pinned; `None`: it is nothing that holds a program on an interface.
    ///
    /// # Errors
    /// Those of bpf(2) and of the file system.
    pub fn of(pin: &Path) -> io::Result<Option<Self>> {
        let fd = bpf::open(pin)?;
        let hook = hook(&fd)?;
        let Info { id, program_id, ifindex, .. } = info(&fd)?;
        Ok(hook.map(|hook| match hook {
            Hook::Xdp | Hook::Tcx => Self { hook, program_id, ifindex },
            Hook::Filter => Self { hook, program_id: id, ifindex: 0 },
        }))
    }

    /// Whether it is on that interface of this network namespace.
    ///
    /// # Errors
    /// Those of asking the kernel.
    pub fn is_on(&self, interface: &Interface) -> io::Result<bool> {
        let is_there = self.ifindex == interface.index;
        Ok(match self.hook {
            Hook::Xdp => is_there && interface.xdp_program == Some(self.program_id),
            Hook::Tcx => is_there && tc::programs(&interface.name)?.contains(&self.program_id),
            Hook::Filter => tc::filter(interface.index)? == Some(self.program_id),
        })
    }
}

/// See the module.
#[derive(Debug)]
pub struct Link {
    fd: OwnedFd,
    hook: Hook,
    pin: PathBuf,
    /// The directory of the pin, which stays the same when something is mounted over it.
    directory: OwnedFd,
    /// File system and inode of the pin.
    place: (u64, u64),
    ifindex: u32,
    program_id: u32,
}

/// The beginning of the kernel's `bpf_link_info`, as of a link of XDP and of tc's; it fills in what there is room for. Of a
/// program (`bpf_prog_info`) the first two are the same.
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
        let (fd, directory) = (bpf::open(pin)?, open_directory(pin)?);
        let hook = hook(&fd)?.ok_or_else(|| io::Error::other("it holds no program on an interface"))?;
        Ok(Self { fd, hook, pin: pin.to_path_buf(), directory, place: place(CWD, pin)?, ifindex, program_id })
    }

    /// Looks. Waits for the kernel's lock on all links (RTNL): not on the election thread.
    ///
    /// # Errors
    /// Those of bpf(2).
    pub fn look(&self) -> io::Result<Sight> {
        let program_id = match self.hook {
            Hook::Xdp | Hook::Tcx => {
                let info = info(&self.fd)?;
                (info.ifindex == self.ifindex).then_some(info.program_id)
            }
            Hook::Filter => tc::filter(self.ifindex)?,
        };
        match program_id {
            None => return Ok(Sight::Detached),
            Some(program_id) if program_id != self.program_id => return Ok(Sight::Replaced { program_id }),
            Some(_) => {}
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

    /// What it is that holds the program.
    pub fn hook(&self) -> Hook {
        self.hook
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
        bpf::pin(&self.fd, &self.pin)?;
        self.directory = open_directory(&self.pin)?;
        self.place = place(CWD, &self.pin)?;
        Ok(())
    }
}

/// What a pinned thing holds a program by. Links and programs are numbered and described alike, but have different files.
fn hook(fd: &OwnedFd) -> io::Result<Option<Hook>> {
    let file = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
    Ok(match file.to_str() {
        Some("anon_inode:bpf-prog") => Some(Hook::Filter),
        Some("anon_inode:bpf-link") => match info(fd)?.kind {
            BPF_LINK_TYPE_XDP => Some(Hook::Xdp),
            BPF_LINK_TYPE_TCX => Some(Hook::Tcx),
            _ => None,
        },
        _ => None,
    })
}

fn info(link: &OwnedFd) -> io::Result<Info> {
    let mut info = Info::default();
    let (fd, len) = (link.as_raw_fd() as u32, size_of::<Info>() as u32);
    let attributes = InfoAttributes { fd, len, info: (&raw mut info) as u64 };
    // SAFETY: the attributes are this command's, and it writes no more than there is room for.
    unsafe { bpf::call(BPF_OBJ_GET_INFO_BY_FD, &attributes) }?;
    Ok(info)
}

fn open_directory(pin: &Path) -> io::Result<OwnedFd> {
    let directory = pin.parent().unwrap_or(Path::new("/"));
    Ok(rustix::fs::open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

fn place(directory: impl AsFd, path: &Path) -> io::Result<(u64, u64)> {
    let stat = statat(directory, path, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok((stat.st_dev, stat.st_ino))
}
