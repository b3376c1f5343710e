//! `rx-vlan-offload` of an interface: whether the NIC takes VLAN tags off frames. Asked for and set as `ethtool -K` does on
//! any kernel, ETHTOOL_GFLAGS and ETHTOOL_SFLAGS of SIOCETHTOOL (linux/ethtool.h).
//!
//! Of the network namespace of the calling thread; waits for the kernel's lock on all links (RTNL). Deliberately absent:
//! other features, and when to switch this one (`dataplane`).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::netdevice::index_to_name;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

const SIOCETHTOOL: libc::Ioctl = 0x8946;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_SFLAGS: u32 = 0x26;
const ETH_FLAG_RXVLAN: u32 = 1 << 8;

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Whether the NIC takes VLAN tags off frames.
///
/// # Errors
/// When there is no interface with that index, or the kernel refuses.
pub fn rx_vlan_offload(ifindex: u32) -> io::Result<bool> {
    let (socket, name) = open(ifindex)?;
    Ok(call(&socket, &name, ETHTOOL_GFLAGS, 0)? & ETH_FLAG_RXVLAN != 0)
}

/// Has it do so, or not, and says whether it obeys: some drivers take the wish and go on.
///
/// # Errors
/// When there is no such interface; EOPNOTSUPP when the feature is `[fixed]`.
pub fn set_rx_vlan_offload(ifindex: u32, is_on: bool) -> io::Result<bool> {
    let (socket, name) = open(ifindex)?;
    let flags = call(&socket, &name, ETHTOOL_GFLAGS, 0)?;
    let wanted = if is_on { flags | ETH_FLAG_RXVLAN } else { flags & !ETH_FLAG_RXVLAN };
    call(&socket, &name, ETHTOOL_SFLAGS, wanted)?;
    Ok(call(&socket, &name, ETHTOOL_GFLAGS, 0)? & ETH_FLAG_RXVLAN == wanted & ETH_FLAG_RXVLAN)
}

fn open(ifindex: u32) -> io::Result<(OwnedFd, String)> {
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let name = index_to_name(&socket, ifindex)?;
    Ok((socket, name))
}

fn call(socket: &OwnedFd, name: &str, command: u32, data: u32) -> io::Result<u32> {
    let mut value = Value { command, data };
    // SAFETY: an `ifreq` of zeros is a valid one.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: the pointer is to a live `ifreq` with a name that ends in zero and a live value of the command's type.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(value.data) }
}
