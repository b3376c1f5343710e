//! Who loaded the program, and where it is attached. Written by userspace, for people and for the
//! next controller; the XDP program reads none of it.

use zerocopy::{Immutable, IntoBytes, KnownLayout, TryFromBytes};

use super::pin_layout;

/// The node, and the layout its maps have.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, TryFromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Meta {
    /// [`ABI_VERSION`](super::ABI_VERSION) of the controller that made the maps.
    pub abi_version: u32,
    /// Process id of the controller that last ran.
    pub controller_pid: u32,
    /// When it started, milliseconds since 1970.
    pub started_unix_ms: u64,
    /// The kernel's boot id: bpffs does not survive a reboot, a copy of it might.
    pub boot_id: [u8; 16],
    /// The inode of the network namespace that the interfaces are in, as in `net:[4026531833]`.
    pub netns_inode: u64,
    /// The node's name, UTF-8, zero padded.
    pub node_name: [u8; 64],
}

pin_layout!(Meta, size = 104, align = 8, fields = [
    abi_version: u32, controller_pid: u32, started_unix_ms: u64, boot_id: [u8; 16], netns_inode: u64,
    node_name: [u8; 64],
]);

/// How the program is attached.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, TryFromBytes, IntoBytes, Immutable, KnownLayout)]
pub enum XdpMode {
    /// In the driver, before a socket buffer exists.
    Native = 1,
    /// At tc ingress, on socket buffers: works everywhere, costs more. Earlier versions: by generic XDP.
    Generic = 2,
}

/// One interface that the program is attached to.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, TryFromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Interface {
    /// The kernel's name of it, zero padded (IFNAMSIZ).
    pub name: [u8; 16],
    /// How the program is attached.
    pub xdp_mode: XdpMode,
    /// The program's id, as `bpftool prog` shows it.
    pub program_id: u32,
    /// 1: its `rx-vlan-offload` was on; failover switched it off, and switches it on again when it goes.
    pub offload_switched_off: u32,
}

pin_layout!(Interface, size = 28, align = 4, fields = [
    name: [u8; 16], xdp_mode: XdpMode, program_id: u32, offload_switched_off: u32,
]);
