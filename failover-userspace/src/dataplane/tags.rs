//! Where the VLAN tag of a frame is when a native XDP program sees it. A program that took another VLAN's frame for an
//! untagged one would answer and hear in the wrong network, so native mode needs an answer to that:
//!
//! | what the interface can do | which program | what is changed |
//! |---|---|---|
//! | its driver tells a program that is bound to it (Linux 6.8: veth, ice, mlx5 and others) | `failover_bound` | nothing |
//! | `rx-vlan-offload` is off, or there is none (virtio-net): the tag is in the bytes | `failover` | nothing |
//! | `rx-vlan-offload` is on, and can be switched off | `failover` | off until failover goes |
//! | `rx-vlan-offload` is on, `[fixed]` | none: generic mode, or refused | nothing |
//! | it is one of [`EXCEPTIONS`] and its driver tells nothing | none: generic mode, or refused | nothing |
//!
//! Deliberately absent: tags of 802.1ad, which NICs take off only where somebody asked for it (`rx-vlan-stag-hw-parse`).

use std::io;
use std::path::Path;

use failover_common::abi::{INTERFACES, Interface as InterfaceValue, XdpMode as Mode};

use super::maps::{self, Raw};
use super::{DataPlane, netns_inode, unpadded};
use crate::ethtool;
use crate::interface::Interface;

type IsOne = fn(&Interface) -> bool;
/// Kinds of interfaces whose frames come with the tag beside their bytes whatever `rx-vlan-offload` says, and why.
const EXCEPTIONS: [(IsOne, &str); 1] = [(
    |interface| interface.is_veth,
    "a veth hands VLAN tags over beside the frame, as its other end's kernel has them, and this kernel does not tell XDP \
     programs of them (Linux 6.8 does)",
)];

/// Where the tag is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Tags {
    /// In the frame.
    InFrame {
        /// Whether that was made so now, and is to be put back.
        is_switched_off: bool,
    },
    /// Where a native program does not see it: why.
    Hidden(String),
}

/// Has tags left in the frames of an interface whose driver does not tell them.
pub(super) fn keep_in_frame(interface: &Interface) -> Tags {
    if let Some((_, reason)) = EXCEPTIONS.iter().find(|(is_one, _)| is_one(interface)) {
        return Tags::Hidden((*reason).into());
    }
    match ethtool::rx_vlan_offload(interface.index) {
        Ok(true) => switched_off(ethtool::set_rx_vlan_offload(interface.index, false)),
        Ok(false) => Tags::InFrame { is_switched_off: false },
        Err(error) => Tags::Hidden(format!("whether it takes VLAN tags off frames cannot be told ({error})")),
    }
}

fn switched_off(obeyed: io::Result<bool>) -> Tags {
    let why = match obeyed {
        Ok(true) => return Tags::InFrame { is_switched_off: true },
        Ok(false) => "the driver keeps it on".into(),
        Err(error) => error.to_string(),
    };
    Tags::Hidden(format!(
        "the NIC takes VLAN tags off frames before an XDP program sees them, and rx-vlan-offload cannot be switched off \
         ({why})"
    ))
}

/// Looks again at an interface whose tags are to be in its frames, and says whether somebody had switched
/// `rx-vlan-offload` on again: it is off by then.
///
/// # Errors
/// When it is on and stays so, or the interface is gone.
fn keep_off(ifindex: u32) -> io::Result<bool> {
    if !ethtool::rx_vlan_offload(ifindex)? {
        return Ok(false);
    }
    if ethtool::set_rx_vlan_offload(ifindex, false)? {
        Ok(true)
    } else {
        Err(io::Error::other("the driver keeps it on"))
    }
}

impl DataPlane {
    /// Looks whether tags are still left in the frames of the interfaces that need it, and sees to it. Waits for the
    /// kernel's lock on all links (RTNL).
    pub fn keep_tags_in_frames(&mut self) {
        let Ok(mut known) = self.known_interfaces() else { return };
        let interfaces: Vec<_> = known.iter().flatten().collect();
        for (index, value) in interfaces {
            let (Ok(ifindex), Ok(value)) = (index.read::<u32>(), value.read::<InterfaceValue>()) else { continue };
            if value.xdp_mode == Mode::Generic || self.bound.contains_key(&ifindex) {
                continue;
            }
            let interface = unpadded(&value.name);
            match keep_off(ifindex) {
                Ok(false) => drop(self.stays_on.remove(&ifindex)),
                Ok(true) => {
                    self.stays_on.remove(&ifindex);
                    tracing::warn!(
                        interface,
                        "somebody switched rx-vlan-offload on: switched it off again, or frames of other VLANs would be \
                         taken for untagged ones"
                    );
                    let value = InterfaceValue { offload_switched_off: 1, ..value };
                    let _ = known.insert(index, Raw::of(&value), 0);
                }
                Err(error) if is_gone(&error) => {}
                Err(error) if self.stays_on.insert(ifindex) => tracing::error!(
                    interface, %error,
                    "rx-vlan-offload is on and cannot be switched off: frames of other VLANs are taken for untagged ones; \
                     trying again every second"
                ),
                Err(_) => {}
            }
        }
    }
}

/// The interface went, which is told of elsewhere.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENXIO | libc::ENODEV))
}

/// Switches `rx-vlan-offload` on again where a controller of this network namespace switched it off, as far as the pinned
/// maps tell. Call it before they go.
pub fn put_offloads_back(pin_path: &Path) {
    if maps::read_meta(pin_path).is_ok_and(|meta| meta.netns_inode == netns_inode())
        && let Ok(known) = maps::open(pin_path, INTERFACES).and_then(maps::hash)
    {
        switch_on_again(&known);
    }
}

pub(super) fn switch_on_again(known: &maps::RawHash<4, { size_of::<InterfaceValue>() }>) {
    for (index, value) in known.iter().flatten() {
        let (Ok(ifindex), Ok(value)) = (index.read(), value.read::<InterfaceValue>()) else { continue };
        if value.offload_switched_off != 0 {
            put_offload_back(ifindex);
        }
    }
}

pub(super) fn put_offload_back(ifindex: u32) {
    match ethtool::set_rx_vlan_offload(ifindex, true) {
        Ok(_) => tracing::info!(ifindex, "switched rx-vlan-offload on again, as it was"),
        Err(error) => tracing::warn!(ifindex, %error, "rx-vlan-offload stays off: it could not be switched on again"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f2_what_stays_on_hides_tags() {
        assert_eq!(switched_off(Ok(true)), Tags::InFrame { is_switched_off: true });
        let fixed = switched_off(Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)));
        assert!(
            matches!(&fixed, Tags::Hidden(why) if why.contains("cannot be switched off (Operation not")),
            "{fixed:?}"
        );
        assert!(matches!(switched_off(Ok(false)), Tags::Hidden(why) if why.contains("keeps it on")));
    }
}
