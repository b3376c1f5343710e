//! Pinned maps as typed values: what `status`, `unload` and a new controller read. Nothing of a
//! map is believed before its layout is compared: aya opens whatever is pinned under the name.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use crate::flows;
use anyhow::{Context, Result, bail, ensure};
use aya::Pod;
use aya::maps::{Array, HashMap, Map, MapData, MapType, PerCpuArray};
use failover_common::abi::{
    ABI_VERSION, COUNTERS, Counters, EVENTS, FLOW_ADDRESSES, FLOW_STATUS, FLOWS, Flow, FlowKey, FlowOrigin, FlowStatus,
    HANDSHAKE_COUNT, HANDSHAKES, Handshake, HandshakeCount, INTERFACES, Interface, META, Meta, PEERS, Peer,
    ROUTER_INDEX, RouterKey, VIPS, VIRTUAL_ROUTERS, Vip, VipKey, VirtualRouter,
};
use failover_common::address::Address;
use zerocopy::{FromBytes, Immutable, IntoBytes, TryFromBytes};

/// A value as raw bytes: what comes out of a map is checked before it gets a type.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct Raw<const N: usize>(pub [u8; N]);
// SAFETY: an array of bytes is valid for any bytes and has no padding.
unsafe impl<const N: usize> Pod for Raw<N> {}

impl<const N: usize> Raw<N> {
    /// The bytes of a value of that size.
    pub fn of<T: IntoBytes + Immutable>(value: &T) -> Self {
        const { assert!(size_of::<T>() == N) };
        let mut bytes = [0; N];
        bytes.copy_from_slice(value.as_bytes());
        Self(bytes)
    }

    /// The value, if the bytes are one.
    ///
    /// # Errors
    /// When an enum has a value nobody declared: the map is not ours.
    pub fn read<T: TryFromBytes>(&self) -> Result<T> {
        T::try_read_from_bytes(&self.0).ok().context("a map entry holds a value that this version does not know")
    }
}

/// `V`'s raw form in a plain array.
pub type RawArray<const N: usize> = Array<MapData, Raw<N>>;
/// The counters' raw form, one for each CPU.
pub type RawCounters = PerCpuArray<MapData, Raw<{ size_of::<Counters>() }>>;
/// Raw forms in a hash.
pub type RawHash<const K: usize, const V: usize> = HashMap<MapData, Raw<K>, Raw<V>>;

/// The names of all maps that are pinned.
pub const MAP_NAMES: [&str; 13] = [
    VIRTUAL_ROUTERS,
    VIPS,
    ROUTER_INDEX,
    COUNTERS,
    META,
    INTERFACES,
    EVENTS,
    FLOWS,
    HANDSHAKES,
    HANDSHAKE_COUNT,
    FLOW_ADDRESSES,
    FLOW_STATUS,
    PEERS,
];

/// Whether anything is pinned there.
pub fn is_loaded(pin_path: &Path) -> bool {
    pin(pin_path, META).exists()
}

/// Where a map of that name is pinned.
pub fn pin(pin_path: &Path, name: &str) -> PathBuf {
    pin_path.join(name)
}

/// Opens a pinned map and compares its type and sizes.
///
/// # Errors
/// When it is not pinned there, or has another layout than this version's.
pub fn open(pin_path: &Path, name: &str) -> Result<MapData> {
    let path = pin(pin_path, name);
    let data = MapData::from_pin(&path).with_context(|| format!("opening the pinned map {}", path.display()))?;
    let info = data.info().with_context(|| format!("asking the kernel about {}", path.display()))?;
    let (map_type, key_size, value_size) = layout(name);
    ensure!(
        info.map_type().ok() == Some(map_type) && info.key_size() == key_size && info.value_size() == value_size,
        "{} has another layout ({}-byte keys, {}-byte values) than this version of failover",
        path.display(),
        info.key_size(),
        info.value_size(),
    );
    Ok(data)
}

/// Another handle to the same map.
///
/// # Errors
/// When there are no file descriptors left.
pub fn again(data: &MapData) -> Result<MapData> {
    Ok(MapData::from_fd(data.fd().as_fd().try_clone_to_owned()?)?)
}

fn layout(name: &str) -> (MapType, u32, u32) {
    let of = |map_type, key: usize, value: usize| (map_type, key as u32, value as u32);
    match name {
        VIRTUAL_ROUTERS => of(MapType::Array, 4, size_of::<VirtualRouter>()),
        VIPS => of(MapType::Hash, size_of::<VipKey>(), size_of::<Vip>()),
        ROUTER_INDEX => of(MapType::Hash, size_of::<RouterKey>(), 4),
        COUNTERS => of(MapType::PerCpuArray, 4, size_of::<Counters>()),
        META => of(MapType::Array, 4, size_of::<Meta>()),
        INTERFACES => of(MapType::Hash, 4, size_of::<Interface>()),
        FLOWS => of(MapType::Hash, size_of::<FlowKey>(), size_of::<Flow>()),
        HANDSHAKES => of(MapType::Hash, size_of::<FlowKey>(), size_of::<Handshake>()),
        HANDSHAKE_COUNT => of(MapType::Array, 4, size_of::<HandshakeCount>()),
        FLOW_ADDRESSES => of(MapType::Hash, size_of::<Address>(), 4),
        FLOW_STATUS => of(MapType::Array, 4, size_of::<FlowStatus>()),
        PEERS => of(MapType::Hash, 4, size_of::<Peer>()),
        _ => of(MapType::RingBuf, 0, 0),
    }
}

/// What the pinned maps say, read once.
pub struct Snapshot {
    /// The node.
    pub meta: Meta,
    /// The virtual routers in configuration order.
    pub virtual_routers: Vec<VirtualRouter>,
    /// The virtual addresses, in no order.
    pub vips: Vec<(VipKey, Vip)>,
    /// Interface indices and what they are.
    pub interfaces: Vec<(u32, Interface)>,
    /// Summed over the CPUs.
    pub counters: Counters,
    /// Entries that `FLOWS` and `HANDSHAKES` have room for.
    pub flows_max: u32,
    /// Connections that sockets of this node have.
    pub own_flows: u64,
    /// Connections that peers told of.
    pub peer_flows: u64,
    /// Handshakes seen.
    pub handshakes: HandshakeCount,
    /// What was done about stale flows.
    pub flow_status: FlowStatus,
    /// The peers by their index in the configuration.
    pub peers: Vec<(u32, Peer)>,
}

impl Snapshot {
    /// Reads everything.
    ///
    /// # Errors
    /// When a map is missing, or another version's.
    pub fn read(pin_path: &Path) -> Result<Self> {
        let meta = read_meta(pin_path)?;
        let routers: RawArray<{ size_of::<VirtualRouter>() }> = array(open(pin_path, VIRTUAL_ROUTERS)?)?;
        let virtual_routers = routers.iter().map(|raw| raw?.read()).collect::<Result<_>>()?;
        let table = open(pin_path, FLOWS)?;
        let flows_max = table.info()?.max_entries();
        let (mut own_flows, mut peer_flows) = (0, 0);
        flows::memory::for_each(&table, |_, flow| match flow.origin {
            FlowOrigin::Peer => peer_flows += 1,
            FlowOrigin::Socket | FlowOrigin::Found => own_flows += 1,
        })?;
        let mut peers = read_hash::<u32, Peer, 4, { size_of::<Peer>() }>(pin_path, PEERS)?;
        peers.sort_by_key(|(index, _)| *index);
        let count = array::<{ size_of::<HandshakeCount>() }>(open(pin_path, HANDSHAKE_COUNT)?)?.get(&0, 0)?;
        Ok(Self {
            meta,
            virtual_routers,
            vips: read_hash::<VipKey, Vip, { size_of::<VipKey>() }, { size_of::<Vip>() }>(pin_path, VIPS)?,
            interfaces: read_hash::<u32, Interface, 4, { size_of::<Interface>() }>(pin_path, INTERFACES)?,
            counters: read_counters(pin_path)?,
            flows_max,
            own_flows,
            peer_flows,
            handshakes: count.read()?,
            flow_status: array::<{ size_of::<FlowStatus>() }>(open(pin_path, FLOW_STATUS)?)?.get(&0, 0)?.read()?,
            peers,
        })
    }
}

/// Reads `META` and checks the ABI's version.
///
/// # Errors
/// When it is missing, or another version's.
pub fn read_meta(pin_path: &Path) -> Result<Meta> {
    let meta: RawArray<{ size_of::<Meta>() }> = array(open(pin_path, META)?)?;
    let meta: Meta = meta.get(&0, 0)?.read()?;
    if meta.abi_version != ABI_VERSION {
        bail!(
            "the maps in {} are of ABI version {}, this failover has version {ABI_VERSION}",
            pin_path.display(),
            meta.abi_version
        );
    }
    Ok(meta)
}

/// Sums the counters over the CPUs.
///
/// # Errors
/// When the map is missing, or another version's.
pub fn read_counters(pin_path: &Path) -> Result<Counters> {
    sum_counters(&open_counters(pin_path)?)
}

/// The counters, for reading them often.
///
/// # Errors
/// When the map is missing, or another version's.
pub fn open_counters(pin_path: &Path) -> Result<RawCounters> {
    Ok(Map::PerCpuArray(open(pin_path, COUNTERS)?).try_into()?)
}

/// Sums them over the CPUs.
///
/// # Errors
/// Those of the lookup.
pub fn sum_counters(map: &RawCounters) -> Result<Counters> {
    let mut sum = Counters::default();
    for raw in map.get(&0, 0)?.iter() {
        sum.add(&Counters::read_from_bytes(&raw.0).map_err(|_| anyhow::anyhow!("counters of another size"))?);
    }
    Ok(sum)
}

/// A map as an array of raw values.
///
/// # Errors
/// When it is no array, or its values have another size.
pub fn array<const N: usize>(data: MapData) -> Result<RawArray<N>> {
    Ok(Map::Array(data).try_into()?)
}

/// A map as a hash of raw keys and values.
///
/// # Errors
/// When it is no hash, or its sizes differ.
pub fn hash<const K: usize, const V: usize>(data: MapData) -> Result<RawHash<K, V>> {
    Ok(Map::HashMap(data).try_into()?)
}

fn read_hash<K: TryFromBytes, V: TryFromBytes, const KN: usize, const VN: usize>(
    pin_path: &Path,
    name: &str,
) -> Result<Vec<(K, V)>> {
    let map: RawHash<KN, VN> = hash(open(pin_path, name)?)?;
    map.iter()
        .map(|entry| {
            let (key, value) = entry?;
            Ok((key.read()?, value.read()?))
        })
        .collect()
}
