//! The loaded program, at either hook, as a function: one frame in; the verdict, the whole frame out, what was counted and what was
//! told to the controller come back (BPF_PROG_TEST_RUN).
//!
//! Every [`TestRun`] is a copy of its own: its own program, its own maps, nothing attached, nothing pinned, gone when
//! dropped. Deliberately absent: frames, and what this node is called in them (`fixtures.rs`).

use std::io::Write;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use aya::maps::{Map, MapData, MapInfo, PerCpuArray, RingBuf};
use aya::programs::{Program, TestRun as _, Xdp};
use aya::{Ebpf, EbpfLoader, TestRunOptions};
use failover_common::abi::{
    COUNTER_NAMES, COUNTERS, Counters, EVENTS, Event, FAMILY_IPV4, FLOWS, HANDSHAKES, Lease, ROUTER_INDEX, RouterKey,
    Settings, VIPS, VIRTUAL_ROUTERS, Vip, VipKey, VirtualRouter,
};
use failover_common::address::Address;
use failover_common::lease::is_live;
pub use failover_sim::host_kernel::{LOOPBACK, Options};
use failover_userspace::dataplane::maps::{MAP_NAMES, Raw, RawArray, RawHash, array, hash};
use rustix::time::{ClockId, clock_gettime};

use crate::flow_maps::FlowMaps;

/// At which hook the program is tried, by its name in the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// `failover`, in native mode.
    Xdp,
    /// `failover_tc`, in generic mode.
    Tc,
}

/// More than the program may return of a frame: a frame that grew is seen, not cut.
const GROWTH: usize = 64;

type Routers = RawArray<{ size_of::<VirtualRouter>() }>;
type Vips = RawHash<{ size_of::<VipKey>() }, { size_of::<Vip>() }>;
type Index = RawHash<{ size_of::<RouterKey>() }, 4>;
type PerCpuCounters = PerCpuArray<MapData, Raw<{ size_of::<Counters>() }>>;

/// What the program said about a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// XDP_PASS, TC_ACT_UNSPEC: on to the kernel.
    Pass,
    /// XDP_DROP, TC_ACT_SHOT: gone.
    Drop,
    /// XDP_TX, TC_ACT_REDIRECT: back out.
    Transmit,
}

impl Hook {
    fn program(self) -> &'static str {
        match self {
            Self::Xdp => "failover",
            Self::Tc => "failover_tc",
        }
    }
}

impl Verdict {
    /// Of a program's return value.
    ///
    /// # Errors
    /// The value, when it is another one.
    pub fn of(hook: Hook, returned: u32) -> Result<Self, u32> {
        match (hook, returned) {
            (Hook::Xdp, 1) | (Hook::Tc, 2) => Ok(Self::Drop),
            (Hook::Xdp, 2) | (Hook::Tc, u32::MAX) => Ok(Self::Pass),
            (Hook::Xdp, 3) | (Hook::Tc, 7) => Ok(Self::Transmit),
            (_, other) => Err(other),
        }
    }
}

/// All that one frame did, but for map entries: those are asked for.
#[derive(Debug)]
pub struct Outcome {
    /// What becomes of the frame.
    pub verdict: Verdict,
    /// The frame afterwards, whole.
    pub frame: Vec<u8>,
    /// Counters that moved, by the names that bpftool and `failover status` print, and by how much.
    pub counted: Vec<(&'static str, u64)>,
    /// What came out of the ring.
    pub events: Vec<Event>,
    /// CLOCK_BOOTTIME before and after the run.
    pub clock: RangeInclusive<u64>,
}

impl Outcome {
    /// Whether exactly these counters moved, by one each.
    pub fn counted_only(&self, names: &[&str]) -> bool {
        self.counted.len() == names.len() && names.iter().all(|name| self.counted.contains(&(*name, 1)))
    }
}

/// One loaded copy of the program and its maps.
pub struct TestRun {
    ebpf: Ebpf,
    hook: Hook,
    routers: Routers,
    vips: Vips,
    index: Index,
    counters: PerCpuCounters,
    events: RingBuf<MapData>,
    /// What is remembered of TCP connections.
    pub flows: FlowMaps,
    /// All maps as the kernel knows them.
    infos: Vec<(&'static str, MapInfo)>,
}

impl TestRun {
    /// Loads a copy. `None`: this machine or user cannot, the reason was printed, the test is skipped.
    ///
    /// # Panics
    /// When it must be possible (`FAILOVER_REQUIRE`), or the kernel refuses the program.
    pub fn load(options: Options) -> Option<Self> {
        Self::load_for(Hook::Xdp, options)
    }

    /// The same of the program for another hook.
    ///
    /// # Panics
    /// As [`Self::load`].
    pub fn load_for(hook: Hook, options: Options) -> Option<Self> {
        let object = match find_object() {
            Ok(path) => path,
            Err(reason) => {
                assert!(std::env::var_os("FAILOVER_REQUIRE").is_none(), "cannot run: {reason}");
                // Not eprintln: the test harness would keep it to itself.
                let _ = writeln!(std::io::stderr(), "skipped: {reason}");
                return None;
            }
        };
        let mut loader = EbpfLoader::new();
        loader.map_max_entries(VIRTUAL_ROUTERS, options.routers).map_max_entries(EVENTS, options.ring_bytes);
        loader.map_max_entries(FLOWS, options.flows_max).map_max_entries(HANDSHAKES, options.flows_max);
        let has_peers = u32::from(options.has_peers);
        loader.override_global("RESETS_PER_SECOND", &options.resets_per_second, true);
        loader.override_global("VIP_FILTER", &options.filter, true).override_global("HAS_PEERS", &has_peers, true);
        let mut ebpf =
            loader.load_file(&object).unwrap_or_else(|error| panic!("loading {}: {error}", object.display()));
        let infos = MAP_NAMES.into_iter().map(|name| (name, info(&ebpf, name))).collect();
        let mut take = |name| ebpf.take_map(name).unwrap_or_else(|| panic!("the object has no {name}"));
        let (Map::Array(routers), Map::HashMap(vips), Map::HashMap(index)) =
            (take(VIRTUAL_ROUTERS), take(VIPS), take(ROUTER_INDEX))
        else {
            panic!("a map is of another type");
        };
        let counters = take(COUNTERS).try_into().expect("COUNTERS is per CPU");
        let events = take(EVENTS).try_into().expect("EVENTS is a ring");
        let flows = FlowMaps::take(&mut take);
        let loaded = match ebpf.program_mut(hook.program()).expect("the program") {
            Program::Xdp(program) => program.load(),
            Program::SchedClassifier(program) => program.load(),
            other => panic!("a program of type {:?}", other.prog_type()),
        };
        if let Err(error) = loaded {
            panic!("the kernel refused the program: {error:?}");
        }
        Some(Self {
            ebpf,
            hook,
            routers: array(routers).expect("VIRTUAL_ROUTERS has this layout"),
            vips: hash(vips).expect("VIPS has this layout"),
            index: hash(index).expect("ROUTER_INDEX has this layout"),
            counters,
            events,
            flows,
            infos,
        })
    }

    /// Configures the virtual router at `index` with `settings` and these addresses.
    pub fn configure(&mut self, index: u32, settings: &Settings, addresses: &[[u8; 4]]) {
        let Settings { ifindex, vlan, vrid, .. } = *settings;
        self.edit(index, |entry| entry.settings = *settings);
        self.point(&RouterKey { ifindex, vlan, vrid, family: FAMILY_IPV4, _pad: [0; 2] }, index);
        for address in addresses {
            self.add_vip(&VipKey { ifindex, vlan, address: Address::from_ipv4(*address) }, index);
        }
    }

    /// Points adverts to an index, which need not exist.
    pub fn point(&mut self, key: &RouterKey, index: u32) {
        self.index.insert(Raw::of(key), Raw::of(&index), 0).expect("ROUTER_INDEX takes an entry");
    }

    /// Points a virtual address to an index, which need not exist.
    pub fn add_vip(&mut self, key: &VipKey, index: u32) {
        self.set_vip(key, &Vip { router: index, ..Vip::default() });
    }

    /// Makes a virtual address's entry this one.
    pub fn set_vip(&mut self, key: &VipKey, vip: &Vip) {
        self.vips.insert(Raw::of(key), Raw::of(vip), 0).expect("VIPS takes an entry");
    }

    /// Changes a virtual router's entry.
    pub fn edit(&mut self, index: u32, change: impl FnOnce(&mut VirtualRouter)) {
        let mut entry = self.router(index);
        change(&mut entry);
        self.routers.set(index, Raw::of(&entry), 0).expect("VIRTUAL_ROUTERS takes an entry");
    }

    /// Gives the virtual router a lease as a controller would that knows all that was heard.
    pub fn give_lease(&mut self, index: u32, for_ns: u64) {
        self.edit(index, |entry| {
            entry.lease = Lease { until_ns: now_ns() + for_ns, claimed_after_ns: entry.heard.last_superior_ns };
        });
    }

    /// The virtual router's entry as it is now.
    pub fn router(&self, index: u32) -> VirtualRouter {
        let raw = self.routers.get(&index, 0).expect("the entry exists");
        raw.read().expect("the entry holds declared values")
    }

    /// Whether the virtual router may answer now.
    pub fn is_live(&self, index: u32) -> bool {
        let VirtualRouter { lease, heard, .. } = self.router(index);
        is_live(now_ns(), lease.until_ns, lease.claimed_after_ns, heard.last_superior_ns)
    }

    /// An untagged virtual address of the loopback interface.
    pub fn vip(&self, address: [u8; 4]) -> Vip {
        self.vip_of(&VipKey { ifindex: LOOPBACK, vlan: 0, address: Address::from_ipv4(address) })
    }

    /// Any virtual address.
    pub fn vip_of(&self, key: &VipKey) -> Vip {
        let raw = self.vips.get(&Raw::of(key), 0).expect("the address is configured");
        raw.read().expect("a Vip is valid for any bytes")
    }

    /// Runs the program on a frame that came in on the loopback interface.
    pub fn send(&mut self, frame: &[u8]) -> Outcome {
        self.send_on(LOOPBACK, frame)
    }

    /// Runs the program on a frame that came in on an interface of this network namespace.
    pub fn send_on(&mut self, ifindex: u32, frame: &[u8]) -> Outcome {
        let before = self.counters().values();
        let started = now_ns();
        let (verdict, frame) = self.run(ifindex, frame);
        let clock = started..=now_ns();
        let after = self.counters().values();
        let deltas = before.iter().zip(after).map(|(before, after)| after - before);
        let counted = COUNTER_NAMES.into_iter().zip(deltas).filter(|(_, delta)| *delta != 0).collect();
        Outcome { verdict, frame, counted, events: self.drain(), clock }
    }

    /// Runs the program and looks at nothing else: events stay in the ring.
    pub fn run(&self, ifindex: u32, frame: &[u8]) -> (Verdict, Vec<u8>) {
        let mut out = vec![0; frame.len() + GROWTH];
        let context = match self.hook {
            Hook::Xdp => context(ifindex, frame.len()),
            Hook::Tc => socket_buffer(ifindex),
        };
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..TestRunOptions::new()
        };
        let result = match self.program() {
            Program::Xdp(program) => program.test_run(options),
            Program::SchedClassifier(program) => program.test_run(options),
            other => panic!("a program of type {:?}", other.prog_type()),
        };
        let result = result.unwrap_or_else(|error| panic!("the kernel cannot run {} bytes: {error:?}", frame.len()));
        out.truncate(result.data_size_out as usize);
        let verdict = Verdict::of(self.hook, result.return_value)
            .unwrap_or_else(|other| panic!("the program returned {other}, which is no verdict of it: {frame:02x?}"));
        (verdict, out)
    }

    fn program(&self) -> &Program {
        self.ebpf.program(self.hook.program()).expect("the program")
    }

    /// The XDP program.
    ///
    /// # Panics
    /// When the other one was loaded.
    pub fn xdp(&self) -> &Xdp {
        self.program().try_into().expect("the program is of type XDP")
    }

    /// Takes everything out of the ring.
    pub fn drain(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(record) = self.events.next() {
            let bytes = <[u8; size_of::<Event>()]>::try_from(&record[..]).expect("a record has an event's size");
            events.push(Raw(bytes).read().expect("an event holds declared values"));
        }
        events
    }

    /// The counters, summed over the CPUs.
    pub fn counters(&self) -> Counters {
        let mut sum = Counters::default();
        for raw in self.counters.get(&0, 0).expect("COUNTERS has an entry").iter() {
            sum.add(&raw.read().expect("counters are valid for any bytes"));
        }
        sum
    }

    /// The same by their names.
    pub fn counted(&self) -> Vec<(&'static str, u64)> {
        COUNTER_NAMES.into_iter().zip(self.counters().values()).collect()
    }

    /// All maps by name, as the kernel knows them.
    pub fn map_infos(&self) -> &[(&'static str, MapInfo)] {
        &self.infos
    }
}

/// CLOCK_BOOTTIME nanoseconds, `bpf_ktime_get_boot_ns`'s clock.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex. The kernel takes the
/// interface from this namespace; its first receive queue is always there.
pub(crate) fn context(ifindex: u32, len: usize) -> Vec<u8> {
    [0, len as u32, 0, ifindex, 0, 0].iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// `struct __sk_buff`, as far as to the interface: the rest is zero, as it may be.
fn socket_buffer(ifindex: u32) -> Vec<u8> {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, ifindex].iter().flat_map(|word: &u32| word.to_ne_bytes()).collect()
}

fn find_object() -> Result<PathBuf, String> {
    if !rustix::process::geteuid().is_root() {
        return Err("loading an XDP program needs root".into());
    }
    let path = std::env::var_os("FAILOVER_XDP_OBJECT").map(PathBuf::from);
    let path = path.ok_or("FAILOVER_XDP_OBJECT does not name the built XDP program (`cargo xtask test` sets it)")?;
    if !path.is_file() {
        return Err(format!("FAILOVER_XDP_OBJECT={}: no such file", path.display()));
    }
    Ok(path)
}

fn info(ebpf: &Ebpf, name: &str) -> MapInfo {
    let data = match ebpf.map(name) {
        Some(Map::Array(data) | Map::HashMap(data) | Map::LruHashMap(data)) => data,
        Some(Map::PerCpuArray(data) | Map::RingBuf(data)) => data,
        Some(_) => panic!("{name} is of a type that nobody reads"),
        None => panic!("the object has no {name}"),
    };
    data.info().unwrap_or_else(|error| panic!("asking the kernel about {name}: {error}"))
}
