//! The socket program: attached so that the kernel's TCP tells of the connections of the virtual addresses.
//!
//! Deliberately absent: a pin. Without a controller nobody would read what it tells, and the next one asks the kernel
//! for what it missed.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use anyhow::{Context, Result};
use aya::Ebpf;
use aya::maps::{MapData, RingBuf};
use aya::programs::{CgroupAttachMode, SockOps};
use failover_common::abi::{FLOW_ADDRESSES, FLOW_EVENTS, StaleAction};
use failover_common::address::Address;
use rustix::net::{AddressFamily, SocketType};

use super::maps::{self, Raw};
use super::refusal;
use crate::config::Config;

/// The program's name in the object.
const PROGRAM: &str = "flows";

/// The ring of what happens to flows.
pub struct FlowEvents {
    /// The ring. The XDP program writes to it, too.
    pub ring: RingBuf<MapData>,
    /// Whether the socket program does.
    pub is_watched: bool,
}

/// Attaches it. `None` when no virtual router wants its connections remembered. That it cannot be attached is told.
///
/// # Errors
/// When the maps are not there.
pub fn watch(ebpf: &mut Ebpf, config: &Config) -> Result<Option<FlowEvents>> {
    if !name_addresses(config)? {
        return Ok(None);
    }
    let ring = RingBuf::try_from(ebpf.take_map(FLOW_EVENTS).context("the object has no FLOW_EVENTS")?)?;
    let attached = attach(ebpf);
    if let Err(error) = &attached {
        tracing::warn!(
            error = format!("{error:#}"),
            "connections cannot be remembered: after a takeover, clients that say nothing are not told"
        );
    }
    Ok(Some(FlowEvents { ring, is_watched: attached.is_ok() }))
}

/// Lists the addresses whose connections are remembered; `false` when there are none.
fn name_addresses(config: &Config) -> Result<bool> {
    let mut known = maps::hash::<16, 4>(maps::open(&config.data_plane.pin_path, FLOW_ADDRESSES)?)?;
    let mut is_any = false;
    for (index, router) in (0_u32..).zip(&config.virtual_routers) {
        for net in &router.addresses {
            let address = Address::from(net.addr());
            if router.stale_connections.action == StaleAction::Reset {
                known.insert(Raw::of(&address), Raw::of(&index), 0)?;
                is_any = true;
            } else {
                // An earlier controller may have listed it.
                let _ = known.remove(&Raw::of(&address));
            }
        }
    }
    Ok(is_any)
}

fn attach(ebpf: &mut Ebpf) -> Result<()> {
    let path = cgroup_root()?;
    let root = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
    let program: &mut SockOps = ebpf.program_mut(PROGRAM).context("the object has no socket program")?.try_into()?;
    program.load().map_err(|error| refusal::explain(PROGRAM, error))?;
    // A link to a group always stands beside others, and takes no flag that says so (cgroup_bpf_link_attach).
    let attached = program.attach(root, CgroupAttachMode::Single);
    attached.with_context(|| format!("attaching the socket program to {}", path.display()))?;
    Ok(())
}

/// Where the tree of version 2 control groups is mounted: every socket's group is below it.
fn cgroup_root() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("reading the mount table")?;
    let root = mounts.lines().find_map(|line| {
        // Device, mount point, type; a space in a path is octal (fstab(5)).
        let mut fields = line.split(' ').skip(1);
        let (path, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(path.replace("\\040", " ")))
    });
    root.context("no cgroup2 file system is mounted: mount one (`mount -t cgroup2 none /sys/fs/cgroup`)")
}

/// The kernel's name of this network namespace; 0, nobody's, when it has none (before Linux 5.14).
pub fn netns_cookie() -> u64 {
    read_netns_cookie().unwrap_or(0)
}

fn read_netns_cookie() -> io::Result<u64> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    let mut cookie = 0_u64;
    let mut len = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the descriptor is open; the option writes a u64, and `len` says that there is room for one.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}
