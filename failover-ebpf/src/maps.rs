//! The maps, nothing else. Types and capacities are `failover_common::abi`'s.

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::btf_maps::{Array, HashMap, PerCpuArray, RingBuf};
use aya_ebpf::macros::btf_map;
use failover_common::abi::{
    Counters, EVENTS_BYTES, INTERFACES_MAX, Interface, Meta, RouterKey, VIPS_MAX, VIRTUAL_ROUTERS_MAX, Vip, VipKey,
    VirtualRouter,
};

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
