//! The program on an interface: which of its two forms, in which mode, in the place of an earlier one or anew.
//!
//! Deliberately absent: loading of the plain form (`dataplane`), and where VLAN tags are (`tags`).

use std::os::fd::AsFd;
use std::path::Path;

use anyhow::{Context, Result};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::{XdpLink, XdpMode as AttachMode};
use aya::programs::{SchedClassifier, Xdp};
use failover_common::abi::{Interface as InterfaceValue, XdpMode as Mode};

use super::link::{Hook, Link, Sight};
use super::maps::Raw;
use super::tags::{self, Tags};
use super::{DataPlane, HANDOVER, OBJECT, XDP, bound, padded, pins, refusal, suits, tc, unpadded};
use crate::config::XdpMode;
use crate::interface::Interface;
use crate::netdev;
use crate::startup::Refusal;

impl DataPlane {
    /// Attaches the program to an interface, the one at `place` in the plan, or puts it in the place of the one that an
    /// earlier controller left there, without a gap.
    ///
    /// # Errors
    /// What the kernel says, for the interface and the mode. A [`Refusal`] when native mode is wanted and VLANs could not be
    /// told apart.
    pub fn attach(&mut self, place: usize, interface: &Interface) -> Result<()> {
        let path = pins::link(&self.pin_path, &interface.name);
        let pinned = pins::pinned(&self.pin_path, &interface.name)?;
        let before = self.known_interface(interface.index)?;
        let is_ours = pinned.map_or(Ok(false), |pinned| pinned.is_on(interface))?;
        let keep = before.filter(|before| is_ours && suits(before.xdp_mode, self.xdp_mode));
        let wanted = keep.map_or_else(|| first_mode(self.xdp_mode, interface), |before| before.xdp_mode);
        let (wanted, is_switched_off) = self.tell_vlans_apart(interface, wanted)?;
        let in_place = keep.filter(|before| before.xdp_mode == wanted).and(pinned).map(|pinned| pinned.hook);
        let attached = self.put_on(interface, wanted, &path, pinned.is_some(), in_place);
        let was_off = is_switched_off || before.is_some_and(|before| before.offload_switched_off != 0);
        if is_switched_off && attached.is_err() || was_off && matches!(attached, Ok(Mode::Generic)) {
            tags::put_offload_back(interface.index);
        }
        let xdp_mode = attached?;
        let is_off = was_off && xdp_mode == Mode::Native;
        let program_id = self.program_id(interface.index, xdp_mode)?;
        let (name, offload_switched_off) = (padded(&interface.name), u32::from(is_off));
        let value = InterfaceValue { name, xdp_mode, program_id, offload_switched_off };
        self.attached(place, interface.index, value)
    }

    /// Puts the program on the interface, in the place of a pinned one of the same mode that is held by `in_place`, or anew.
    fn put_on(
        &mut self,
        interface: &Interface,
        wanted: Mode,
        path: &Path,
        is_pinned: bool,
        in_place: Option<Hook>,
    ) -> Result<Mode> {
        if let Some(hook) = in_place
            && self.replace(interface, wanted, hook, path)?
        {
            return Ok(wanted);
        }
        if is_pinned {
            pins::remove_link(path)?;
        }
        self.attach_new(interface, wanted, path)
    }

    /// Makes sure that the program sees which VLAN a frame of the interface belongs to, before it is attached there in that
    /// mode: by a program that asks the driver, or by having tags left in frames. Returns the mode in which it does, and
    /// whether `rx-vlan-offload` was switched off for it.
    fn tell_vlans_apart(&mut self, interface: &Interface, wanted: Mode) -> Result<(Mode, bool)> {
        if wanted == Mode::Generic || self.bind(interface) {
            return Ok((wanted, false));
        }
        let name = &interface.name;
        match tags::keep_in_frame(interface) {
            Tags::InFrame { is_switched_off } => {
                if is_switched_off {
                    tracing::info!(
                        interface = %name,
                        "switched rx-vlan-offload off, or native XDP would take frames of other VLANs for untagged ones; \
                         it is switched on again when failover ends"
                    );
                }
                Ok((Mode::Native, is_switched_off))
            }
            Tags::Hidden(why) if self.xdp_mode == XdpMode::Native => Err(Refusal(format!(
                "interface \"{name}\" cannot serve with xdp_mode = \"native\": {why}. Frames of other VLANs would be answered \
                 and heard as if they were untagged. Use xdp_mode = \"auto\" or \"generic\""
            ))
            .into()),
            Tags::Hidden(why) => {
                tracing::warn!(interface = %name, "using generic mode, which is slower: {why}");
                Ok((Mode::Generic, false))
            }
        }
    }

    /// Loads the program that asks the interface's driver for VLANs, and says whether there is one now.
    fn bind(&mut self, interface: &Interface) -> bool {
        if self.bound.contains_key(&interface.index) {
            return true;
        }
        if !netdev::tells_vlan_tag(interface.index) {
            return false;
        }
        match self.load_bound(interface.index) {
            Ok(program) => {
                self.bound.insert(interface.index, program);
                true
            }
            Err(error) => {
                tracing::warn!(
                    interface = %interface.name, error = format!("{error:#}"),
                    "the driver would tell XDP programs of VLANs, but the kernel refuses the program that asks"
                );
                false
            }
        }
    }

    fn load_bound(&self, ifindex: u32) -> Result<Xdp> {
        let maps: Vec<_> = self.all_maps.iter().map(|(name, descriptor)| (name.as_str(), descriptor.as_fd())).collect();
        bound::load(OBJECT, &maps, ifindex, &self.pin_path.join(HANDOVER))
    }

    /// Puts the program in the place of the pinned one, without a gap. `false`: that is not to be had, and what is pinned is
    /// as it was.
    fn replace(&mut self, interface: &Interface, mode: Mode, hook: Hook, path: &Path) -> Result<bool> {
        let replaced = match (mode, hook) {
            (Mode::Native, Hook::Xdp) => return self.replace_xdp(interface, path),
            (Mode::Generic, Hook::Tcx) => tc::replace(self.tc()?, path),
            // Generic XDP, as earlier versions had it, goes when its pin is another's.
            (Mode::Generic, Hook::Xdp | Hook::Filter) => tc::attach(self.tc()?, &interface.name, path),
            (Mode::Native, Hook::Tcx | Hook::Filter) => return Ok(false),
        };
        replaced.with_context(|| format!("replacing the program on {}", interface.name))?;
        Ok(true)
    }

    /// `false`: this kernel does not do that with a program that is bound to an interface.
    fn replace_xdp(&mut self, interface: &Interface, path: &Path) -> Result<bool> {
        let is_bound = self.bound.contains_key(&interface.index);
        match replace(self.xdp(interface.index)?, path) {
            Ok(()) => Ok(true),
            Err(error) if is_bound => {
                tracing::warn!(
                    interface = %interface.name, error = format!("{error:#}"),
                    "the program on the interface cannot be replaced in its place: detaching it and attaching anew"
                );
                Ok(false)
            }
            Err(error) => Err(error).with_context(|| format!("replacing the program on {}", interface.name)),
        }
    }

    /// Attaches it where none of ours is. Returns the mode, which is generic where the driver has no native one.
    fn attach_new(&mut self, interface: &Interface, wanted: Mode, path: &Path) -> Result<Mode> {
        let name = &interface.name;
        if wanted == Mode::Native {
            match attach_pinned(self.xdp(interface.index)?, name, path) {
                Ok(()) => return Ok(Mode::Native),
                Err(error) if self.xdp_mode == XdpMode::Native => {
                    return Err(error).with_context(|| {
                        format!("attaching to {name} in native mode; xdp_mode = \"auto\" would use generic")
                    });
                }
                Err(error) => {
                    tracing::warn!(interface = %name, error = format!("{error:#}"), "no native XDP, using generic mode: slower");
                }
            }
        }
        tc::attach(self.tc()?, name, path).with_context(|| format!("attaching to {name} in generic mode"))?;
        Ok(Mode::Generic)
    }

    /// Puts the program back on an interface from which somebody took it, in the mode that it had.
    ///
    /// # Errors
    /// What the kernel says, for example because another program is there.
    pub fn attach_again(&mut self, place: usize, ifindex: u32, name: &str) -> Result<()> {
        let before = self.known_interface(ifindex)?.context("the interface is not known")?;
        // The pin keeps the name that the interface had first.
        let path = pins::link(&self.pin_path, &unpadded(&before.name));
        let program_id = self.program_id(ifindex, before.xdp_mode)?;
        let sight = Link::open(&path, ifindex, program_id).and_then(|link| link.look());
        match (sight, before.xdp_mode) {
            (Ok(Sight::Attached), _) => {}
            (Ok(Sight::Replaced { .. }), Mode::Native) => replace(self.xdp(ifindex)?, &path)?,
            (_, Mode::Native) => {
                let _ = std::fs::remove_file(&path);
                attach_pinned(self.xdp(ifindex)?, name, &path)?;
            }
            (_, Mode::Generic) => tc::attach(self.tc()?, name, &path)?,
        }
        self.attached(place, ifindex, InterfaceValue { program_id, ..before })
    }

    /// Puts the program on in generic mode instead of native, where it does not run. `false`: that is no way out, because
    /// it is in generic mode already, or has to be native.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn attach_generic(&mut self, place: usize, ifindex: u32, name: &str) -> Result<bool> {
        let before = self.known_interface(ifindex)?.context("the interface is not known")?;
        if self.xdp_mode != XdpMode::Auto || before.xdp_mode == Mode::Generic {
            return Ok(false);
        }
        let path = pins::link(&self.pin_path, &unpadded(&before.name));
        // The other goes when its pin is this one's.
        tc::attach(self.tc()?, name, &path).with_context(|| format!("attaching to {name} in generic mode"))?;
        let program_id = self.program_id(ifindex, Mode::Generic)?;
        let value = InterfaceValue { program_id, xdp_mode: Mode::Generic, offload_switched_off: 0, ..before };
        self.attached(place, ifindex, value)?;
        if before.offload_switched_off != 0 {
            tags::put_offload_back(ifindex);
        }
        Ok(true)
    }

    /// The program of native mode for an interface, loaded when it is first wanted.
    fn xdp(&mut self, ifindex: u32) -> Result<&mut Xdp> {
        if let Some(program) = self.bound.get_mut(&ifindex) {
            return Ok(program);
        }
        let program: &mut Xdp = self.ebpf.program_mut(XDP).context("the object has no XDP program")?.try_into()?;
        if program.fd().is_err() {
            program.load().map_err(|error| refusal::explain(XDP, error))?;
        }
        Ok(program)
    }

    /// The program of generic mode, likewise.
    fn tc(&mut self) -> Result<&mut SchedClassifier> {
        let program = self.ebpf.program_mut(tc::PROGRAM).context("the object has no tc program")?;
        let program: &mut SchedClassifier = program.try_into()?;
        if program.fd().is_err() {
            program.load().map_err(|error| refusal::explain(tc::PROGRAM, error))?;
        }
        Ok(program)
    }

    fn program_id(&mut self, ifindex: u32, xdp_mode: Mode) -> Result<u32> {
        let info = match xdp_mode {
            Mode::Native => self.xdp(ifindex)?.info()?,
            Mode::Generic => self.tc()?.info()?,
        };
        Ok(info.id())
    }

    fn known_interface(&self, ifindex: u32) -> Result<Option<InterfaceValue>> {
        let raw = self.known_interfaces()?.get(&Raw::of(&ifindex), 0).ok();
        Ok(raw.and_then(|raw| raw.read().ok()))
    }

    /// The program is on the interface, and its link is pinned.
    fn attached(&mut self, place: usize, ifindex: u32, value: InterfaceValue) -> Result<()> {
        let path = pins::link(&self.pin_path, &unpadded(&value.name));
        let link = Link::open(&path, ifindex, value.program_id);
        let link = link.with_context(|| format!("opening the link {}", path.display()))?;
        let set = self.fences.set(place, link);
        set.with_context(|| format!("listening on {} for what gets past the program", unpadded(&value.name)))?;
        self.known_interfaces()?.insert(Raw::of(&ifindex), Raw::of(&value), 0)?;
        Ok(())
    }
}

/// The mode to try on an interface that has none yet.
fn first_mode(wanted: XdpMode, interface: &Interface) -> Mode {
    match wanted {
        XdpMode::Native => Mode::Native,
        XdpMode::Generic => Mode::Generic,
        XdpMode::Auto if interface.is_veth => {
            tracing::warn!(
                interface = %interface.name,
                "a veth sends an XDP answer only if its other end runs an XDP program, which cannot be seen from here: \
                 using generic mode; set xdp_mode = \"native\" if it does"
            );
            Mode::Generic
        }
        XdpMode::Auto => Mode::Native,
    }
}

fn replace(program: &mut Xdp, path: &Path) -> Result<()> {
    let link = FdLink::from(PinnedLink::from_pin(path)?);
    let id = program.attach_to_link(XdpLink::try_from(link)?)?;
    // The pin holds the link; this handle must not detach it when it goes.
    let _ = FdLink::try_from(program.take_link(id)?);
    Ok(())
}

fn attach_pinned(program: &mut Xdp, interface: &str, path: &Path) -> Result<()> {
    let id = program.attach(interface, AttachMode::Driver)?;
    // aya falls back to netlink, whose attachment would end with this process.
    let link = FdLink::try_from(program.take_link(id)?)
        .context("this kernel has no XDP links that can be pinned (needs Linux 5.9)")?;
    link.pin(path).with_context(|| format!("pinning the link at {}", path.display()))?;
    Ok(())
}
