//! The kernel program: loaded, attached and pinned so that it outlives the controller; and what an
//! earlier controller left pinned, adopted or cleared away.
//!
//! Deliberately absent: when to claim or to release. That is the election's; this module only
//! keeps the lease that an adopted router still holds.

mod attach;
pub mod bound;
mod bpf;
mod entries;
pub mod link;
pub mod maps;
pub mod pins;
mod refusal;
mod sockets;
mod tags;
pub mod tc;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use aya::maps::{Map, MapData, RingBuf};
use aya::programs::Xdp;
use aya::{Ebpf, EbpfLoader};
use failover_common::abi::{
    ABI_VERSION, AUTHENTICATION_NONE, AUTHENTICATION_SIMPLE, EVENTS, FAMILY_IPV4, FLOWS, HANDSHAKE_COUNT, HANDSHAKES,
    INTERFACES, Interface as InterfaceValue, META, Meta, ROUTER_INDEX, Report, RouterKey, STALE_PORTS_MAX, Settings,
    StaleAction, StalePolicy, VIPS, VIRTUAL_ROUTERS, Vip, VipKey, XdpMode as Mode, vip_filter,
};
use failover_common::address::Address;

use crate::clock;
use crate::config::{Config, DataPlane as DataPlaneConfig, StaleConnections, Version, VirtualRouter, XdpMode};
use crate::fence::Fences;
use crate::interface::Interface;
use crate::plan::Plan;
use crate::startup::Refusal;
pub use entries::{Entries, Entry};
use link::Hook;
use maps::{Raw, Snapshot};
pub use sockets::FlowEvents;
pub use tags::put_offloads_back;

/// The compiled program; empty when this binary was built without it.
static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/failover-xdp"));
/// The XDP program's name in the object.
const XDP: &str = "failover";
/// Below `pin_path`, for a moment: how [`bound`] hands a program over.
const HANDOVER: &str = "handover";

/// The loaded program. Dropping it leaves everything pinned and attached: that is the fence.
pub struct DataPlane {
    pin_path: PathBuf,
    xdp_mode: XdpMode,
    ebpf: Ebpf,
    /// The programs that are bound to an interface, by its index; the others run the one of `ebpf`.
    bound: BTreeMap<u32, Xdp>,
    /// Interfaces on which `rx-vlan-offload` does not stay off, which is told once.
    stays_on: BTreeSet<u32>,
    /// All maps of the object, for those programs.
    all_maps: Vec<(String, OwnedFd)>,
    /// The pinned maps, by name: pins may go.
    maps: Vec<(&'static str, MapData)>,
    fences: Arc<Fences>,
    _lock: pins::Lock,
}

/// What an earlier controller left, looked at and not touched yet.
pub struct Found {
    lock: pins::Lock,
    prepared: pins::Prepared,
    before: Option<Snapshot>,
    /// Whether it describes the same virtual routers, so that their leases carry on.
    pub adopted: bool,
}

/// What [`DataPlane::start`] yields.
pub struct Started {
    /// The program, for attaching it again.
    pub data_plane: DataPlane,
    /// Its links.
    pub fences: Arc<Fences>,
    /// The entries, in the order of the configuration.
    pub entries: Entries,
    /// The events.
    pub events: RingBuf<MapData>,
    /// The events of flows, when any are remembered.
    pub flow_events: Option<FlowEvents>,
    /// Whether the entries are an earlier controller's, with leases that may be live.
    pub adopted: bool,
    /// For each virtual router, the addresses that are the interface's own and stay.
    pub own: Vec<Vec<Ipv4Addr>>,
}

impl Found {
    /// Takes the controller's lock and reads what is pinned. `known` are all interfaces of this network namespace.
    ///
    /// # Errors
    /// When this binary has no program, pins would not be safe there, another controller runs with
    /// them or they fence another network namespace, or an interface has somebody else's program.
    pub fn look(config: &Config, plan: &Plan, known: &BTreeMap<String, Interface>) -> Result<Self> {
        if OBJECT.is_empty() {
            bail!("this failover was built without its XDP program: build it with `cargo xtask build`");
        }
        let pin_path = &config.data_plane.pin_path;
        let prepared = pins::prepare(pin_path)?;
        let Some(lock) = pins::lock(pin_path)? else {
            let pid = maps::read_meta(pin_path).map_or(0, |meta| meta.controller_pid);
            bail!("another controller (process {pid}) runs with pin_path {}", pin_path.display());
        };
        check_other_namespaces(pin_path, known)?;
        check_foreign_programs(pin_path, plan)?;
        // Interface indexes of another network namespace mean nothing here.
        let before = Snapshot::read(pin_path).ok().filter(|before| before.meta.netns_inode == netns_inode());
        let adopted = before.as_ref().is_some_and(|before| is_adoptable(before, config, plan));
        Ok(Self { lock, prepared, before, adopted })
    }

    /// Addresses that a controller before us put on interfaces. Where nothing is adopted they have
    /// to go before the program does: they are fenced only as long as it is there. What can't be
    /// read is guessed from the configuration.
    pub fn leftovers(&self, config: &Config, plan: &Plan) -> Vec<(u32, Ipv4Addr)> {
        let has_pins = maps::MAP_NAMES.iter().any(|name| maps::pin(&config.data_plane.pin_path, name).exists());
        if self.adopted || !has_pins {
            return Vec::new();
        }
        let mut addresses = self.before.as_ref().map(put_addresses).unwrap_or_default();
        for (router, place) in config.virtual_routers.iter().zip(&plan.routers) {
            let is_owner = router.priority == failover_common::wire::vrrp::PRIORITY_OWNER;
            let ifindex = plan.interfaces[place.interface].index;
            let nets = router.addresses.iter().filter(|_| !is_owner);
            addresses.extend(nets.map(|net| (ifindex, net.addr())));
        }
        addresses
    }

    /// The addresses of a virtual router that are its interface's own: it is their owner (RFC 9568
    /// 6.1, priority 255), and no controller put them there.
    fn own(&self, config: &VirtualRouter, interface: &Interface) -> Vec<Ipv4Addr> {
        let put = self.before.as_ref().map(put_addresses).unwrap_or_default();
        let own = own_addresses(config, interface);
        own.into_iter().filter(|address| !put.contains(&(interface.index, *address))).collect()
    }
}

/// The addresses of an owner that are on its interface.
pub fn own_addresses(config: &VirtualRouter, interface: &Interface) -> Vec<Ipv4Addr> {
    let is_owner = config.priority == failover_common::wire::vrrp::PRIORITY_OWNER;
    let addresses = config.addresses.iter().map(ipnet::Ipv4Net::addr).filter(|_| is_owner);
    addresses.filter(|address| interface.addresses.iter().any(|there| there.net.addr() == *address)).collect()
}

impl DataPlane {
    /// Loads the maps and attaches the program to every interface of the plan.
    ///
    /// # Errors
    /// When the kernel refuses. Unless something was adopted, nothing is
    /// left loaded then.
    pub fn start(config: &Config, plan: &Plan, mut found: Found) -> Result<Started> {
        let (pin_path, adopted) = (config.data_plane.pin_path.clone(), found.adopted);
        let prepared = std::mem::take(&mut found.prepared);
        let started = Self::load_and_attach(config, plan, found);
        if started.is_ok() || adopted {
            prepared.keep();
        } else {
            put_offloads_back(&pin_path);
            let _ = pins::remove_all(&pin_path);
        }
        started
    }

    fn load_and_attach(config: &Config, plan: &Plan, found: Found) -> Result<Started> {
        let pin_path = &config.data_plane.pin_path;
        let adopted = found.adopted;
        if !adopted {
            // Handshakes are remembered by their ends, whatever is configured: what lives here is still known.
            let memory = [HANDSHAKES, HANDSHAKE_COUNT];
            let is_usable = found.before.as_ref().is_some_and(|before| {
                before.meta.boot_id == boot_id() && before.flows_max == config.data_plane.flows_max
            });
            if found.before.is_some() {
                put_offloads_back(pin_path);
            }
            clear(pin_path, if is_usable { &memory } else { &[] })?;
        }
        let places = plan.routers.iter().zip(&config.virtual_routers);
        let own: Vec<_> = places.map(|(place, router)| found.own(router, &plan.interfaces[place.interface])).collect();
        let (mut ebpf, maps) = load(config, plan.routers.len() as u32)?;
        let all_maps = all_maps(&ebpf)?;
        let mut array = |name| match ebpf.take_map(name) {
            Some(Map::Array(data)) => Ok(data),
            _ => bail!("the object has no array {name}"),
        };
        let (routers, handshakes) = (array(VIRTUAL_ROUTERS)?, array(HANDSHAKE_COUNT)?);
        let entries =
            Entries::map(&routers, &handshakes, plan.routers.len() as u32).context("mapping VIRTUAL_ROUTERS")?;
        let events = RingBuf::try_from(ebpf.take_map(EVENTS).context("the object has no EVENTS")?)?;
        let fences = Arc::new(Fences::new(config, plan));
        let mut data_plane = Self {
            pin_path: pin_path.clone(),
            xdp_mode: config.data_plane.xdp_mode,
            ebpf,
            bound: BTreeMap::new(),
            stays_on: BTreeSet::new(),
            all_maps,
            maps,
            fences: fences.clone(),
            _lock: found.lock,
        };
        data_plane.write_meta(config)?;
        for (index, router) in plan.routers.iter().enumerate() {
            let entry = entries.entry(index as u32).context("an entry past the end")?;
            let config = &config.virtual_routers[index];
            let interface = &plan.interfaces[router.interface];
            entry.set_settings(&settings(config, interface, router.own_address));
            let (before, policy) = (entry.stale(), stale_policy(&config.stale_connections));
            if before.action == StaleAction::Pass || before.ports != policy.ports {
                // Handshakes of connections that are looked at from now on may not have been remembered.
                entry.forget_takeover();
            }
            entry.set_stale(&policy);
            if !adopted {
                entry.set_report(&Report { name: padded(&config.name), ..Report::default() });
            }
            data_plane.index_router(index as u32, config, interface.index, &own[index], adopted)?;
        }
        for (place, interface) in plan.interfaces.iter().enumerate() {
            data_plane.attach(place, interface)?;
        }
        let flow_events = sockets::watch(&mut data_plane.ebpf, config)?;
        Ok(Started { data_plane, fences, entries, events, flow_events, adopted, own })
    }

    /// Points an interface's frames at a virtual router: its VRID and its addresses. Counters of
    /// addresses that are there already stay.
    ///
    /// # Errors
    /// Those of the map updates.
    fn index_router(
        &mut self,
        index: u32,
        config: &VirtualRouter,
        ifindex: u32,
        own: &[Ipv4Addr],
        keep: bool,
    ) -> Result<()> {
        let key = RouterKey { ifindex, vlan: 0, vrid: config.vrid, family: FAMILY_IPV4, _pad: [0; 2] };
        let data = self.map(ROUTER_INDEX)?;
        maps::hash::<{ size_of::<RouterKey>() }, 4>(data)?.insert(Raw::of(&key), Raw::of(&index), 0)?;
        let mut vips = self.vips()?;
        for net in &config.addresses {
            let key = VipKey { ifindex, vlan: 0, address: Address::from(net.addr()) };
            if keep && vips.get(&Raw::of(&key), 0).is_ok() {
                continue;
            }
            let vip = Vip { router: index, is_own: u32::from(own.contains(&net.addr())), ..Vip::default() };
            vips.insert(Raw::of(&key), Raw::of(&vip), 0)?;
        }
        Ok(())
    }

    fn map(&self, name: &str) -> Result<MapData> {
        let known = self.maps.iter().find(|(known, _)| *known == name);
        maps::again(&known.with_context(|| format!("no map {name}"))?.1)
    }

    fn vips(&self) -> Result<maps::RawHash<{ size_of::<VipKey>() }, { size_of::<Vip>() }>> {
        maps::hash(self.map(VIPS)?)
    }

    /// Moves a virtual router to the interface that came back under its name.
    ///
    /// # Errors
    /// Those of the map updates.
    pub fn move_router(
        &mut self,
        index: u32,
        config: &VirtualRouter,
        from: u32,
        to: u32,
        own: &[Ipv4Addr],
    ) -> Result<()> {
        let key = RouterKey { ifindex: from, vlan: 0, vrid: config.vrid, family: FAMILY_IPV4, _pad: [0; 2] };
        let data = self.map(ROUTER_INDEX)?;
        let _ = maps::hash::<{ size_of::<RouterKey>() }, 4>(data)?.remove(&Raw::of(&key));
        let mut vips = self.vips()?;
        for net in &config.addresses {
            let key = VipKey { ifindex: from, vlan: 0, address: Address::from(net.addr()) };
            let _ = vips.remove(&Raw::of(&key));
        }
        self.index_router(index, config, to, own, false)
    }

    fn known_interfaces(&self) -> Result<maps::RawHash<4, { size_of::<InterfaceValue>() }>> {
        maps::hash(self.map(INTERFACES)?)
    }

    /// Pins those maps again whose pins are gone, and says how many.
    ///
    /// # Errors
    /// When one cannot be pinned.
    pub fn pin_maps_again(&mut self) -> Result<usize> {
        let mut count = 0;
        for (name, data) in &self.maps {
            let path = maps::pin(&self.pin_path, name);
            if !path.exists() {
                data.pin(&path).with_context(|| format!("pinning {}", path.display()))?;
                count += 1;
            }
        }
        Ok(count)
    }

    /// Forgets an interface that is gone.
    ///
    /// # Errors
    /// Those of the map.
    pub fn forget_interface(&mut self, ifindex: u32) -> Result<()> {
        // What was bound to it is of no use to another.
        self.bound.remove(&ifindex);
        let _ = self.known_interfaces()?.remove(&Raw::of(&ifindex));
        Ok(())
    }

    fn write_meta(&mut self, config: &Config) -> Result<()> {
        let meta = Meta {
            abi_version: ABI_VERSION,
            controller_pid: std::process::id(),
            started_unix_ms: clock::unix_ms(),
            boot_id: boot_id(),
            netns_inode: netns_inode(),
            node_name: padded(&config.node.name),
        };
        let mut map = maps::array::<{ size_of::<Meta>() }>(self.map(META)?)?;
        Ok(map.set(0, Raw::of(&meta), 0)?)
    }

    /// What the program on that interface of the plan is, for people.
    pub fn program(&self, interface: usize) -> &'static str {
        self.fences.program(interface)
    }

    /// Detaches and unpins everything, and puts back what was switched off.
    ///
    /// # Errors
    /// The first pin that could not be removed.
    pub fn unload(self) -> Result<()> {
        let known = self.known_interfaces();
        let removed = pins::remove_all(&self.pin_path);
        self.fences.close();
        tags::switch_on_again(&known?);
        removed
    }
}

/// A virtual router's settings as the kernel program needs them.
pub fn settings(config: &VirtualRouter, interface: &Interface, own_address: Ipv4Addr) -> Settings {
    Settings {
        own_address: Address::from(own_address),
        password: config.password.unwrap_or_default(),
        ifindex: interface.index,
        vlan: 0,
        mac: interface.mac.0,
        advert_interval_cs: config.advert_interval_cs,
        vrid: config.vrid,
        version: match config.version {
            Version::V2 => 2,
            Version::V3 => 3,
        },
        family: FAMILY_IPV4,
        priority: config.priority,
        authentication: if config.password.is_some() { AUTHENTICATION_SIMPLE } else { AUTHENTICATION_NONE },
        _pad: [0; 3],
    }
}

/// What stale segments get, as the kernel program needs it.
fn stale_policy(config: &StaleConnections) -> StalePolicy {
    let mut ports = [0; STALE_PORTS_MAX];
    for (port, configured) in ports.iter_mut().zip(&config.ports) {
        *port = *configured;
    }
    StalePolicy { leaving_until_ns: 0, hold_ms: config.hold.as_millis() as u32, action: config.action, ports }
}

/// What fences another network namespace is not taken away from it.
fn check_other_namespaces(pin_path: &Path, known: &BTreeMap<String, Interface>) -> Result<()> {
    let meta = maps::read_meta(pin_path).ok();
    let mut elsewhere = None;
    for link in pins::attached(pin_path)? {
        let is_here = match link.hook {
            Hook::Xdp | Hook::Tcx => {
                let interface = known.values().find(|here| here.index == link.ifindex);
                interface.map_or(Ok(false), |here| link.is_on(here))?
            }
            // Where its filters are can only be seen from there.
            Hook::Filter => meta.as_ref().is_none_or(|meta| meta.netns_inode == netns_inode()),
        };
        if !is_here {
            elsewhere = Some(link);
        }
    }
    let Some(link) = elsewhere else { return Ok(()) };
    let inode = meta.map_or_else(String::new, |meta| format!(" (net:[{}])", meta.netns_inode));
    let interface = if link.ifindex == 0 { "an interface".into() } else { format!("interface {}", link.ifindex) };
    Err(Refusal(format!(
        "pin_path {path} holds what an ended controller left in another network namespace{inode}: program {} fences \
         {interface} there, and two nodes would answer if it went. Start failover there again, or run `failover unload \
         --pin-path {path}` there (`nsenter --net=/run/netns/NAME`; `lsns -t net` lists them); or give this one another \
         pin_path",
        link.program_id,
        path = pin_path.display(),
    ))
    .into())
}

/// An interface may carry our XDP program, or none, and of failover's tc programs only ours. Somebody else's is never
/// replaced.
fn check_foreign_programs(pin_path: &Path, plan: &Plan) -> Result<()> {
    let ours = pins::attached(pin_path)?;
    for interface in &plan.interfaces {
        let programs = tc::programs(&interface.name);
        let programs = programs.with_context(|| format!("asking the kernel for tc programs on {}", interface.name))?;
        if let Some(id) = programs.iter().find(|id| !ours.iter().any(|link| link.program_id == **id)) {
            return Err(plan.problem(
                &interface.name,
                format!(
                    "interface \"{}\" already carries failover's tc program, id {id}, of another pin_path (`bpftool net \
                     show`): stop or unload that one, or use another interface",
                    interface.name
                ),
            ));
        }
        let Some(program_id) = interface.xdp_program else { continue };
        let pinned = pins::pinned(pin_path, &interface.name)?;
        if pinned.is_none_or(|pinned| pinned.hook != Hook::Xdp || pinned.program_id != program_id) {
            return Err(plan.problem(
                &interface.name,
                format!(
                    "interface \"{}\" already carries an XDP program that is not ours, id {program_id} (`bpftool prog show id \
                     {program_id}`): detach it, or use another interface; it is never replaced by force",
                    interface.name
                ),
            ));
        }
    }
    Ok(())
}

/// Whether the maps describe the same virtual routers, in the same order, on the same interfaces.
fn is_adoptable(before: &Snapshot, config: &Config, plan: &Plan) -> bool {
    let routers = &before.virtual_routers;
    let wanted = config.data_plane.xdp_mode;
    before.meta.boot_id == boot_id()
        && before.flows_max == config.data_plane.flows_max
        && before.interfaces.iter().all(|(_, interface)| suits(interface.xdp_mode, wanted))
        && routers.len() == plan.routers.len()
        && routers.iter().zip(&config.virtual_routers).zip(&plan.routers).all(|((entry, config), router)| {
            let now = settings(config, &plan.interfaces[router.interface], router.own_address);
            let addresses = before.vips.iter().filter(|(_, vip)| config_index(vip, routers, entry)).count();
            entry.report.name == padded(&config.name)
                && entry.settings.ifindex == now.ifindex
                && (entry.settings.vrid, entry.settings.version) == (now.vrid, now.version)
                && entry.settings.advert_interval_cs == now.advert_interval_cs
                && addresses == config.addresses.len()
                && config.addresses.iter().all(|net| {
                    let key = VipKey { ifindex: now.ifindex, vlan: 0, address: Address::from(net.addr()) };
                    before.vips.iter().any(|(known, _)| *known == key)
                })
        })
}

fn config_index(
    vip: &Vip,
    routers: &[failover_common::abi::VirtualRouter],
    entry: &failover_common::abi::VirtualRouter,
) -> bool {
    routers.get(vip.router as usize).is_some_and(|of| std::ptr::eq(of, entry))
}

/// Clears away what an earlier controller left and this one cannot use, all but the maps to `keep`. Its addresses are
/// gone already.
fn clear(pin_path: &Path, keep: &[&str]) -> Result<()> {
    if !maps::MAP_NAMES.iter().any(|name| maps::pin(pin_path, name).exists()) {
        return Ok(());
    }
    tracing::warn!(
        pin_path = %pin_path.display(),
        "found the maps of an earlier controller with another configuration or version: starting anew"
    );
    // The directory stays: it is locked, and made anew it would be another one.
    pins::remove_contents(pin_path, keep)
}

/// The addresses that a controller put on interfaces, as its maps tell.
pub fn put_addresses(snapshot: &Snapshot) -> Vec<(u32, Ipv4Addr)> {
    let put = snapshot.vips.iter().filter(|(_, vip)| vip.is_own == 0);
    put.filter_map(|(key, _)| match key.address.to_ip() {
        std::net::IpAddr::V4(address) => Some((key.ifindex, address)),
        std::net::IpAddr::V6(_) => None,
    })
    .collect()
}

fn load(config: &Config, routers: u32) -> Result<(Ebpf, Vec<(&'static str, MapData)>)> {
    let DataPlaneConfig { pin_path, flows_max, resets_per_second, .. } = &config.data_plane;
    let rate = u64::from(*resets_per_second);
    let cookie = sockets::netns_cookie();
    let addresses = config.virtual_routers.iter().flat_map(|router| &router.addresses);
    let filter = vip_filter(addresses.map(|net| Address::from(net.addr())));
    let has_peers = u32::from(config.replication.is_some());
    let mut loader = EbpfLoader::new();
    loader.map_max_entries(VIRTUAL_ROUTERS, routers);
    loader.map_max_entries(FLOWS, *flows_max).map_max_entries(HANDSHAKES, *flows_max);
    loader.override_global("RESETS_PER_SECOND", &rate, true).override_global("NETNS_COOKIE", &cookie, true);
    loader.override_global("VIP_FILTER", &filter, true).override_global("HAS_PEERS", &has_peers, true);
    for name in maps::MAP_NAMES {
        loader.map_pin_path(name, maps::pin(pin_path, name));
    }
    let ebpf = loader.load(OBJECT).context("loading the maps into the kernel")?;
    // Pinned now, by us or before: either way it has to be what we think it is.
    let open = |name| Ok((name, maps::open(pin_path, name)?));
    let handles = maps::MAP_NAMES.into_iter().map(open).collect::<Result<_>>()?;
    Ok((ebpf, handles))
}

/// Handles to all maps of the object, those that are not pinned included.
fn all_maps(ebpf: &Ebpf) -> Result<Vec<(String, OwnedFd)>> {
    let handle = |(name, map): (&str, &Map)| {
        let (Map::Array(data) | Map::HashMap(data) | Map::PerCpuArray(data) | Map::RingBuf(data)) = map else {
            bail!("the object's map {name} is of a type that no program here has");
        };
        Ok((name.to_owned(), data.fd().as_fd().try_clone_to_owned()?))
    };
    ebpf.maps().map(handle).collect()
}

/// Whether a mode that is in use is one that the configuration allows.
fn suits(used: Mode, wanted: XdpMode) -> bool {
    match wanted {
        XdpMode::Auto => true,
        XdpMode::Native => used == Mode::Native,
        XdpMode::Generic => used == Mode::Generic,
    }
}

/// A name as the fixed, zero-padded bytes that maps hold; longer ones are cut at a character.
pub fn padded<const N: usize>(name: &str) -> [u8; N] {
    let mut bytes = [0; N];
    let end = (0..=name.len().min(N)).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    bytes[..end].copy_from_slice(&name.as_bytes()[..end]);
    bytes
}

/// The text in zero-padded bytes.
pub fn unpadded(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// The kernel's id of this boot, zero when it tells none.
fn boot_id() -> [u8; 16] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16).unwrap_or(0).to_be_bytes()
}

/// The inode of this network namespace, zero when it can't be looked at. Two that exist have not the same.
fn netns_inode() -> u64 {
    std::fs::metadata("/proc/self/ns/net").map_or(0, |there| there.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_padded_and_cut_at_characters() {
        assert_eq!(padded::<4>("ab"), *b"ab\0\0");
        assert_eq!(padded::<4>("abcdef"), *b"abcd");
        assert_eq!(padded::<4>("abcü"), *b"abc\0", "half a character is none");
        assert_eq!(unpadded(b"ab\0\0"), "ab");
        assert_eq!(unpadded(b"abcd"), "abcd");
    }
}
