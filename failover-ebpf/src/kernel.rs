//! The kernel's side of the two traits: packet pointers and map entries. All `unsafe` pointer work
//! of this crate is here.
//!
//! Deliberately absent: decisions.

use core::arch::asm;
use core::ptr::{addr_of, addr_of_mut, read_unaligned, read_volatile, write_unaligned, write_volatile};

use aya_ebpf::bindings::BPF_RB_FORCE_WAKEUP;
use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use aya_ebpf::programs::XdpContext;
use failover_common::abi::{Counter, Counters, Event, Heard, Lease, RouterKey, Settings, Vip, VipKey, VirtualRouter};
use failover_common::wire::{Frame, Header};
use failover_ebpf::Kernel;

use crate::maps;

/// No header that is read starts later: 22 bytes of link layer, 60 of IPv4, the longest message.
/// The verifier wants a bound on every offset that comes from a packet.
const OFFSET_MAX: usize = 0x7ff;

/// One frame, between `data` and `data_end`.
pub struct PacketFrame<'a>(pub &'a XdpContext);

impl PacketFrame<'_> {
    /// The address of `T` at `offset`, when all of it is inside the packet.
    #[inline(always)]
    fn at<T>(&self, offset: usize) -> Option<*mut T> {
        if offset > OFFSET_MAX {
            return None;
        }
        let start = self.0.data() + offset;
        (start + size_of::<T>() <= self.0.data_end()).then_some(start as *mut T)
    }
}

impl Frame for PacketFrame<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.0.data_end() - self.0.data()
    }

    #[inline(always)]
    fn read<T: Header>(&self, offset: usize) -> Option<T> {
        let at = self.at::<T>(offset)?;
        // SAFETY: `at` checked that all of `T` lies inside the packet, which stays in place while
        // the program runs; `Header` types are valid for any bytes and have alignment 1.
        Some(unsafe { read_unaligned(at) })
    }

    #[inline(always)]
    fn write<T: Header>(&mut self, offset: usize, header: &T) -> Option<()> {
        let at = self.at::<T>(offset)?;
        // SAFETY: as in `read`; nothing holds a reference into the packet.
        unsafe { write_unaligned(at, *header) };
        Some(())
    }
}

/// The maps, the clock and the ring, for one frame.
pub struct Maps<'a>(pub &'a XdpContext);

impl Kernel for Maps<'_> {
    type Router = *mut VirtualRouter;
    type Vip = *mut Vip;

    #[inline(always)]
    fn now_ns(&self) -> u64 {
        // SAFETY: the helper takes nothing and cannot fail.
        unsafe { bpf_ktime_get_boot_ns() }
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        self.0.ingress_ifindex() as u32
    }

    #[inline(always)]
    fn count(&self, counter: Counter) {
        let Some(counters) = maps::COUNTERS.get_ptr_mut(0) else { return };
        // SAFETY: the entry is this CPU's own and lives as long as the map; `Counters` is one u64
        // per variant of `Counter`, so the index is inside.
        unsafe { *counters.cast::<u64>().add(counter as usize) += 1 };
        const { assert!(size_of::<Counters>() == 8 * failover_common::abi::COUNTER_NAMES.len()) };
    }

    #[inline(always)]
    fn find_vip(&self, key: &VipKey) -> Option<*mut Vip> {
        maps::VIPS.get_ptr_mut(key)
    }

    #[inline(always)]
    fn vip_router(&self, vip: *mut Vip) -> u32 {
        // SAFETY: a looked-up entry stays readable while the program runs (RCU). One that is
        // replaced meanwhile may show another router's index, which `router` bounds-checks.
        unsafe { read_volatile(addr_of!((*vip).router)) }
    }

    #[inline(always)]
    fn count_arp_reply(&self, vip: *mut Vip) {
        // SAFETY: as in `vip_router`; the field is 8-byte aligned and only ever added to.
        unsafe { add_one(addr_of_mut!((*vip).arp_replies)) };
    }

    #[inline(always)]
    fn count_fenced(&self, vip: *mut Vip) {
        // SAFETY: as in `count_arp_reply`.
        unsafe { add_one(addr_of_mut!((*vip).fenced)) };
    }

    #[inline(always)]
    fn find_router(&self, key: &RouterKey) -> Option<u32> {
        let index = maps::ROUTER_INDEX.get_ptr(key)?;
        // SAFETY: as in `vip_router`.
        Some(unsafe { read_volatile(index) })
    }

    #[inline(always)]
    fn router(&self, index: u32) -> Option<*mut VirtualRouter> {
        maps::VIRTUAL_ROUTERS.get_ptr_mut(index)
    }

    #[inline(always)]
    fn lease(&self, router: *mut VirtualRouter) -> Lease {
        // SAFETY: array entries live as long as the map. The controller stores each word whole;
        // volatile, because it does so while we run.
        unsafe {
            Lease {
                until_ns: read_volatile(addr_of!((*router).lease.until_ns)),
                claimed_after_ns: read_volatile(addr_of!((*router).lease.claimed_after_ns)),
            }
        }
    }

    #[inline(always)]
    fn settings(&self, router: *mut VirtualRouter) -> &Settings {
        // SAFETY: array entries live as long as the map, and `Settings` is valid for any bytes.
        // The controller changes single fields, rarely: a read sees the old value or the new one.
        unsafe { &*addr_of!((*router).settings) }
    }

    #[inline(always)]
    fn heard(&self, router: *mut VirtualRouter) -> &Heard {
        // SAFETY: as in `settings`. Only `set_heard` writes it, so its enum holds a declared value,
        // and zero, what a new entry holds, is one.
        unsafe { &*addr_of!((*router).heard) }
    }

    #[inline(always)]
    fn last_superior_ns(&self, router: *mut VirtualRouter) -> u64 {
        // SAFETY: as in `lease`; another CPU may be storing it.
        unsafe { read_volatile(addr_of!((*router).heard.last_superior_ns)) }
    }

    #[inline(always)]
    fn count_conflict(&self, router: *mut VirtualRouter) {
        // SAFETY: as in `lease`; 8-byte aligned, and only ever added to.
        unsafe { add_one(addr_of_mut!((*router).heard.conflicts)) };
    }

    #[inline(always)]
    fn note_event(&self, router: *mut VirtualRouter, at_ns: u64) {
        // SAFETY: as in `lease`.
        unsafe { write_volatile(addr_of_mut!((*router).heard.last_event_ns), at_ns) };
    }

    #[inline(always)]
    fn set_heard(&self, router: *mut VirtualRouter, heard: &Heard) {
        // SAFETY: as in `lease`. Two CPUs may mix the fields of two adverts here; each of the two
        // also comes as an event.
        unsafe {
            let to = addr_of_mut!((*router).heard);
            write_volatile(addr_of_mut!((*to).last_event_ns), heard.last_event_ns);
            write_volatile(addr_of_mut!((*to).adverts), heard.adverts);
            write_volatile(addr_of_mut!((*to).source), heard.source);
            write_volatile(addr_of_mut!((*to).address_digest), heard.address_digest);
            write_volatile(addr_of_mut!((*to).interval_cs), heard.interval_cs);
            write_volatile(addr_of_mut!((*to).priority), heard.priority);
            write_volatile(addr_of_mut!((*to).checksum_form), heard.checksum_form);
            write_volatile(addr_of_mut!((*to).last_foreign_ns), heard.last_foreign_ns);
            write_volatile(addr_of_mut!((*to).last_advert_ns), heard.last_advert_ns);
        }
    }

    #[inline(always)]
    fn set_last_superior(&self, router: *mut VirtualRouter, at_ns: u64) {
        // SAFETY: as in `lease`. A plain store: of two CPUs' the later one stays, and either makes
        // the word differ from the lease's.
        unsafe { write_volatile(addr_of_mut!((*router).heard.last_superior_ns), at_ns) };
    }

    #[inline(always)]
    fn emit(&self, event: &Event) -> bool {
        maps::EVENTS.output_untyped::<Event>(event, u64::from(BPF_RB_FORCE_WAKEUP)).is_ok()
    }
}

/// Adds one without losing another CPU's.
///
/// # Safety
/// `to` is 8-byte aligned and inside a live map entry.
#[inline(always)]
unsafe fn add_one(to: *mut u64) {
    // SAFETY: the caller's promise. In assembly, because the target has no atomic read-modify-write
    // in `core`.
    unsafe { asm!("lock *(u64 *)({to} + 0) += {one}", to = in(reg) to, one = in(reg) 1_u64) };
}
