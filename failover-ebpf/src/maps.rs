//! The maps, and the numbers that the loader sets; nothing else. Types and capacities are `failover_common::abi`'s.

use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::btf_maps::{Array, HashMap, PerCpuArray, RingBuf};
use aya_ebpf::macros::btf_map;
use failover_common::abi::{
    Counters, EVENTS_BYTES, FLOW_EVENTS_BYTES, FLOWS_MAX_DEFAULT, Flow, FlowKey, FlowStatus, Handshake, HandshakeCount,
    INTERFACES_MAX, Interface, Meta, PEERS_MAX, Peer, ResetBudget, RouterKey, VIP_FILTER_ALL, VIPS_MAX,
    VIRTUAL_ROUTERS_MAX, Vip, VipFilter, VipKey, VirtualRouter,
};
use failover_common::address::Address;

/// Memory-mapped by the controller; made as long as its configuration at load.
#[btf_map]
pub static VIRTUAL_ROUTERS: Array<VirtualRouter, { VIRTUAL_ROUTERS_MAX as usize }, { BPF_F_MMAPABLE as usize }> =
    Array::new();

/// Virtual address to router.
#[btf_map]
pub static VIPS: HashMap<VipKey, Vip, { VIPS_MAX as usize }> = HashMap::new();

/// VRID on an interface to router.
#[btf_map]
pub static ROUTER_INDEX: HashMap<RouterKey, u32, { VIRTUAL_ROUTERS_MAX as usize }> = HashMap::new();

/// One struct per CPU.
#[btf_map]
pub static COUNTERS: PerCpuArray<Counters, 1> = PerCpuArray::new();

/// Untyped, because a typed ring is refused by libbpf's tools.
#[btf_map]
pub static EVENTS: RingBuf<(), { EVENTS_BYTES as usize }> = RingBuf::new();

/// For people and the next controller; no code here reads it.
#[btf_map]
pub static META: Array<Meta, 1> = Array::new();

/// For people; no code here reads it.
#[btf_map]
pub static INTERFACES: HashMap<u32, Interface, { INTERFACES_MAX as usize }> = HashMap::new();

/// Memory is taken as flows come: a table for many is cheap while there are few.
#[btf_map]
pub static FLOWS: HashMap<FlowKey, Flow, { FLOWS_MAX_DEFAULT as usize }, { BPF_F_NO_PREALLOC as usize }> =
    HashMap::new();

/// Never forgets by itself: what is in is alive here, what does not fit is counted. The controller takes out what is over.
#[btf_map]
pub static HANDSHAKES: HashMap<FlowKey, Handshake, { FLOWS_MAX_DEFAULT as usize }> = HashMap::new();

/// One for all, memory-mapped by the controller, which notes it at a takeover.
#[btf_map]
pub static HANDSHAKE_COUNT: Array<HandshakeCount, 1, { BPF_F_MMAPABLE as usize }> = Array::new();

/// One bucket per CPU: no lock, no shared line.
#[btf_map]
pub static RESET_BUDGET: PerCpuArray<ResetBudget, 1> = PerCpuArray::new();

/// Virtual address to router, for the socket program.
#[btf_map]
pub static FLOW_ADDRESSES: HashMap<Address, u32, { VIPS_MAX as usize }> = HashMap::new();

/// Untyped, as `EVENTS`.
#[btf_map]
pub static FLOW_EVENTS: RingBuf<(), { FLOW_EVENTS_BYTES as usize }> = RingBuf::new();

/// For people; no code here reads it.
#[btf_map]
pub static FLOW_STATUS: Array<FlowStatus, 1> = Array::new();

/// For people; no code here reads it.
#[btf_map]
pub static PEERS: HashMap<u32, Peer, { PEERS_MAX as usize }> = HashMap::new();

/// Resets that one CPU may send in a second. Set by the loader.
#[unsafe(no_mangle)]
pub static RESETS_PER_SECOND: u64 = 100_000;

/// The network namespace that the controller runs in (SO_NETNS_COOKIE): sockets of others are not ours. Set by the
/// loader; 0 is nobody's.
#[unsafe(no_mangle)]
pub static NETNS_COOKIE: u64 = 0;

/// Which addresses are looked up in [`VIPS`]. Set by the loader; as it is here, all.
#[unsafe(no_mangle)]
pub static VIP_FILTER: VipFilter = VIP_FILTER_ALL;

/// Whether this node has peers that tell it of their flows: 1 or 0. Set by the loader.
#[unsafe(no_mangle)]
pub static HAS_PEERS: u32 = 1;
