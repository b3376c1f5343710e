//! The kernel's side of the two traits: packet pointers and map entries. All `unsafe` pointer work
//! of this crate is here.
//!
//! Deliberately absent: decisions.

use core::arch::asm;
use core::mem::MaybeUninit;
use core::ptr::{addr_of, addr_of_mut, read_unaligned, read_volatile, write_unaligned, write_volatile};

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{
    __sk_buff, BPF_ANY, BPF_F_RECOMPUTE_CSUM, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, BPF_SOCK_OPS_STATE_CB_FLAG,
    bpf_sock_tuple, tcphdr, xdp_md,
};
use aya_ebpf::helpers::{
    bpf_csum_diff, bpf_get_netns_cookie, bpf_ktime_get_boot_ns, bpf_redirect, bpf_sk_release, bpf_skb_change_tail,
    bpf_skb_pull_data, bpf_skc_lookup_tcp, bpf_tcp_check_syncookie, bpf_xdp_adjust_tail,
};
use aya_ebpf::programs::{SockOpsContext, TcContext, XdpContext};
use failover_common::abi::{
    Counter, Counters, Event, Flow, FlowEvent, FlowKey, FlowOrigin, Handshake, Heard, Lease, RouterKey, Settings,
    StalePolicy, Takeover, Vip, VipKey, VirtualRouter, vip_filter_place,
};
use failover_common::address::Address;
use failover_common::stale::take_token;
use failover_common::wire::checksum::Sum;
use failover_common::wire::ipv4::Ipv4Header;
use failover_common::wire::tcp::{self, TcpHeader};
use failover_common::wire::vrrp::{self, AddressDigest, Words};
use failover_common::wire::{Frame, Header};
use failover_ebpf::{Cut, Kernel, Socket};

use crate::maps;

/// No header that is read starts later: 22 bytes of link layer, 60 of IPv4, the longest message.
/// The verifier wants a bound on every offset that comes from a packet.
const OFFSET_MAX: usize = 0x7ff;
/// No byte that is summed starts later. The verifier follows packet offsets up to 65,535, chunk included.
const SUM_OFFSET_MAX: usize = 0x7fff;

/// What is different at the two hooks. Pointers into the packet are made anew for each access: everything from `pull` on may
/// move it.
pub trait Packet: EbpfContext {
    /// Whether it is a socket buffer, with its notes and its parts.
    const IS_SOCKET_BUFFER: bool;
    /// Where its bytes begin.
    fn data(&self) -> usize;
    /// Where those end that are in one piece.
    fn data_end(&self) -> usize;
    /// How many there are.
    fn len(&self) -> usize;
    /// The interface it came in on.
    fn ifindex(&self) -> u32;
    /// Some number that the verifier does not know.
    fn noise(&self) -> u32;
    /// As many bytes from the beginning in one piece, or all; as far as that can be done.
    fn pull(&self, end: usize);
    /// Writes a header at `offset`; `None` past the end.
    fn store<T: Header>(&self, offset: usize, header: &T) -> Option<()>;
    /// [`Cut::cut`].
    fn cut(&self, len: usize) -> Option<()>;
    /// The VLAN of a tag that is not in the bytes, as far as the hook's programs have not looked at it before; 0: none.
    fn hidden_vlan(&self) -> u32;
    /// [`Frame::sum`], folded, or [`NONE`].
    fn sum(&self, offset: u32, len: u32) -> u64;
    /// [`Frame::options_hold`].
    fn options_hold(&self, offset: u32, len: u32) -> u32;
    /// [`Frame::words`]: the digest, above it the folded sum; or [`NONE`].
    fn words(&self, offset: u32, len: u32) -> u64;
}

impl Packet for XdpContext {
    const IS_SOCKET_BUFFER: bool = false;

    #[inline(always)]
    fn data(&self) -> usize {
        self.data()
    }

    #[inline(always)]
    fn data_end(&self) -> usize {
        self.data_end()
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.data_end() - self.data()
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        self.ingress_ifindex() as u32
    }

    #[inline(always)]
    fn noise(&self) -> u32 {
        self.rx_queue_index()
    }

    #[inline(always)]
    fn pull(&self, _end: usize) {}

    #[inline(always)]
    fn store<T: Header>(&self, offset: usize, header: &T) -> Option<()> {
        let at = PacketFrame(self).at::<T, OFFSET_MAX>(offset)?;
        // SAFETY: `at` checked that all of `T` lies inside the packet; nothing holds a reference into it.
        unsafe { store(at, header) };
        Some(())
    }

    #[inline(always)]
    fn cut(&self, len: usize) -> Option<()> {
        let delta = len as i64 - self.len() as i64;
        if delta == 0 {
            return Some(());
        }
        // SAFETY: the context is this program's own; no pointer into the packet is kept over the call.
        let result = unsafe { bpf_xdp_adjust_tail(self.ctx, delta as i32) };
        (result == 0).then_some(())
    }

    #[inline(always)]
    fn hidden_vlan(&self) -> u32 {
        hidden_vlan(self.ctx)
    }

    #[inline(always)]
    fn sum(&self, offset: u32, len: u32) -> u64 {
        xdp_sum(self.ctx, offset, len)
    }

    #[inline(always)]
    fn options_hold(&self, offset: u32, len: u32) -> u32 {
        xdp_options_hold(self.ctx, offset, len)
    }

    #[inline(always)]
    fn words(&self, offset: u32, len: u32) -> u64 {
        xdp_words(self.ctx, offset, len)
    }
}

impl Packet for TcContext {
    const IS_SOCKET_BUFFER: bool = true;

    #[inline(always)]
    fn data(&self) -> usize {
        self.data()
    }

    #[inline(always)]
    fn data_end(&self) -> usize {
        self.data_end()
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.len() as usize
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // At a bond's ingress the bond's own, and a frame gets there once, whichever ports it came by (seen on 7.3).
        // SAFETY: the context is this program's own.
        unsafe { (*self.skb.skb).ifindex }
    }

    #[inline(always)]
    fn noise(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.skb.skb).queue_mapping }
    }

    #[inline(always)]
    fn pull(&self, end: usize) {
        let end = end.min(Packet::len(self));
        if self.data_end() - self.data() < end {
            // SAFETY: as above; no pointer into the packet is kept over the call. Where it fails, reads do.
            unsafe { bpf_skb_pull_data(self.skb.skb, end as u32) };
        }
    }

    #[inline(always)]
    fn store<T: Header>(&self, offset: usize, header: &T) -> Option<()> {
        // The sum that a network card may have made begins behind the Ethernet header.
        let flags = if offset == 0 { 0 } else { u64::from(BPF_F_RECOMPUTE_CSUM) };
        self.skb.store(offset, header, flags).ok()
    }

    #[inline(always)]
    fn cut(&self, len: usize) -> Option<()> {
        // Also where nothing is to be cut: it makes a joined segment one that is not sent in parts.
        // SAFETY: as above; no pointer into the packet is kept over the call.
        let result = unsafe { bpf_skb_change_tail(self.skb.skb, len as u32, 0) };
        (result == 0).then_some(())
    }

    #[inline(always)]
    fn hidden_vlan(&self) -> u32 {
        0
    }

    #[inline(always)]
    fn sum(&self, offset: u32, len: u32) -> u64 {
        tc_sum(self.skb.skb, offset, len)
    }

    #[inline(always)]
    fn options_hold(&self, offset: u32, len: u32) -> u32 {
        tc_options_hold(self.skb.skb, offset, len)
    }

    #[inline(always)]
    fn words(&self, offset: u32, len: u32) -> u64 {
        tc_words(self.skb.skb, offset, len)
    }
}

/// No fixed header ends later: 22 bytes of link layer, 60 of IPv4, 20 of TCP.
const HEADERS_LEN: usize = 102;

/// Whether the frame is of no VLAN. The kernel has taken the outer tag out of the bytes by then, if it ever was there, and
/// looks at it behind this hook. VLAN 0 is none (IEEE 802.1Q: such a tag only has a priority).
#[inline(always)]
pub fn is_untagged(context: &TcContext) -> bool {
    // SAFETY: the context is this program's own.
    let (is_tagged, tag) = unsafe { ((*context.skb.skb).vlan_present, (*context.skb.skb).vlan_tci) };
    is_tagged == 0 || tag & 0xfff == 0
}

/// Has the frame leave by the interface that it came in on; what the program has to return for that.
#[inline(always)]
pub fn send_back(context: &TcContext) -> i32 {
    // SAFETY: the helper takes numbers.
    unsafe { bpf_redirect(Packet::ifindex(context), 0) as i32 }
}

/// One frame, between `data` and `data_end`.
pub struct PacketFrame<'a, P>(&'a P);

impl<'a, P: Packet> PacketFrame<'a, P> {
    /// The frame of a context, with its headers in one piece.
    #[inline(always)]
    pub fn new(context: &'a P) -> Self {
        context.pull(HEADERS_LEN);
        Self(context)
    }
}

impl<P: Packet> PacketFrame<'_, P> {
    /// The address of `T` at `offset`, when all of it is inside the packet. `OFFSET_MAX` has ones only.
    ///
    /// The verifier learns a range for the very register that is compared, and older ones (before Linux 6.18) for no
    /// other: LLVM must neither make the address from the end of it, nor make it twice. Hence the assembly, which it
    /// cannot see through.
    #[inline(always)]
    fn at<T, const OFFSET_MAX: usize>(&self, offset: usize) -> Option<*mut T> {
        const { assert!((OFFSET_MAX + 1).is_power_of_two() && size_of::<T>() <= 512) };
        if offset > OFFSET_MAX {
            return None;
        }
        let mut start = offset;
        let mut end: usize;
        // SAFETY: arithmetic, nothing else.
        unsafe {
            // The bound again, as all verifiers can follow it.
            asm!("{0} &= {1}", inout(reg) start, const OFFSET_MAX as i32);
            start += self.0.data();
            asm!("{0} = {1}", "{0} += {2}", out(reg) end, inout(reg) start, const size_of::<T>() as i32);
        }
        (end <= self.0.data_end()).then_some(start as *mut T)
    }
}

/// `load!(u32, from, 8)`: a word of the packet, read in one piece wherever it begins. In assembly: LLVM takes apart into
/// bytes what has no alignment, as headers have none, while the verifier lets a program read a packet at any address
/// where the machine can (CONFIG_HAVE_EFFICIENT_UNALIGNED_ACCESS, as on x86-64 and arm64).
macro_rules! load {
    ($word:ident, $from:expr, $at:expr) => {{
        let word: u64;
        asm!(
            concat!("{0} = *(", stringify!($word), " *)({1} + {2})"),
            out(reg) word, in(reg) $from, const $at, options(pure, readonly, nostack)
        );
        word as $word
    }};
}

/// `store!(u32, to, 8, word)`: the same to write it.
macro_rules! store {
    ($word:ident, $to:expr, $at:expr, $value:expr) => {
        asm!(
            concat!("*(", stringify!($word), " *)({0} + {2}) = {1}"),
            in(reg) $to, in(reg) u64::from($value), const $at, options(nostack)
        )
    };
}

/// Says `$word!(u64, 0)` and so on: the longest words that make up a header, each with its place.
macro_rules! each_word {
    ($header:ty, $word:ident) => {
        const { assert!(size_of::<$header>() < 32) };
        if size_of::<$header>() >= 8 {
            $word!(u64, 0);
        }
        if size_of::<$header>() >= 16 {
            $word!(u64, 8);
        }
        if size_of::<$header>() >= 24 {
            $word!(u64, 16);
        }
        if size_of::<$header>() & 4 != 0 {
            $word!(u32, size_of::<$header>() & !7);
        }
        if size_of::<$header>() & 2 != 0 {
            $word!(u16, size_of::<$header>() & !3);
        }
        if size_of::<$header>() & 1 != 0 {
            $word!(u8, size_of::<$header>() & !1);
        }
    };
}

/// Reads a header.
///
/// # Safety
/// All of it is inside the packet.
#[inline(always)]
unsafe fn load<T: Header>(from: *const T) -> T {
    let mut header = MaybeUninit::<T>::uninit();
    let to = header.as_mut_ptr().cast::<u8>();
    macro_rules! word {
        ($word:ident, $at:expr) => {
            // SAFETY: the word is inside both.
            unsafe { write_unaligned(to.add($at).cast(), load!($word, from, $at)) }
        };
    }
    each_word!(T, word);
    // SAFETY: every byte was written, and a header is valid for any.
    unsafe { header.assume_init() }
}

/// Writes a header.
///
/// # Safety
/// All of it is inside the packet.
#[inline(always)]
unsafe fn store<T: Header>(to: *mut T, header: &T) {
    let from = addr_of!(*header).cast::<u8>();
    macro_rules! word {
        ($word:ident, $at:expr) => {
            // SAFETY: the word is inside both.
            unsafe { store!($word, to, $at, read_unaligned(from.add($at).cast::<$word>())) }
        };
    }
    each_word!(T, word);
}

impl<P: Packet> Frame for PacketFrame<'_, P> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.0.len()
    }

    #[inline(always)]
    fn read<T: Header>(&self, offset: usize) -> Option<T> {
        let at = self.at::<T, OFFSET_MAX>(offset)?;
        // SAFETY: `at` checked that all of `T` lies inside the packet, which stays in place while
        // the program runs; `Header` types are valid for any bytes.
        Some(unsafe { load(at) })
    }

    #[inline(always)]
    fn write<T: Header>(&mut self, offset: usize, header: &T) -> Option<()> {
        self.0.store(offset, header)
    }

    #[inline(always)]
    fn sum(&self, offset: usize, len: usize) -> Option<Sum> {
        let sum = self.0.sum(offset as u32, len as u32);
        let mut total = Sum::default();
        total.add(sum as u16);
        (sum & NONE == 0).then_some(total)
    }

    #[inline(always)]
    fn options_hold(&self, offset: usize, len: usize) -> bool {
        len == 0 || self.0.options_hold(offset as u32, len as u32) != 0
    }

    #[inline(always)]
    fn words(&self, offset: usize, len: usize) -> Option<Words> {
        let found = self.0.words(offset as u32, len as u32);
        let mut words = Words { sum: Sum::default(), digest: AddressDigest(found as u32) };
        words.sum.add((found >> 32) as u16);
        (found & NONE == 0).then_some(words)
    }
}

// Functions that the kernel's verifier looks at once, whatever calls them: global ones, with the context and numbers as
// arguments. Loops are in such functions only. The names are C's, because a global function needs one.

/// In the result of a function: there is none.
const NONE: u64 = 1 << 63;

/// Those of one hook.
macro_rules! functions {
    ($context:ident, $raw:ty, $sum:ident, $options_hold:ident, $words:ident) => {
        /// In chunks of fixed lengths: the verifier bounds a helper's access by the most a length can be. What is above
        /// 32 KiB has no sum, and so is never answered, unless its checksum was left undone.
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $sum(context: *mut $raw, offset: u32, len: u32) -> u64 {
            let context = $context::new(context);
            context.pull(offset as usize + len as usize);
            let mut rest = Rest { at: offset as usize, left: len as usize, sum: 0 };
            PacketFrame(&context).sum_all(&mut rest).map_or(NONE, u64::from)
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $options_hold(context: *mut $raw, offset: u32, len: u32) -> u32 {
            let context = $context::new(context);
            context.pull(offset as usize + len as usize);
            u32::from(tcp::options_hold(&PacketFrame(&context), offset as usize, len as usize))
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $words(context: *mut $raw, offset: u32, len: u32) -> u64 {
            let context = $context::new(context);
            context.pull(offset as usize + len as usize);
            let words = vrrp::read_words(&PacketFrame(&context), offset as usize, len as usize);
            words.map_or(NONE, |words| u64::from(words.sum.folded()) << 32 | u64::from(words.digest.0))
        }
    };
}

functions!(XdpContext, xdp_md, xdp_sum, xdp_options_hold, xdp_words);
functions!(TcContext, __sk_buff, tc_sum, tc_options_hold, tc_words);

impl<P: Packet> PacketFrame<'_, P> {
    #[inline(always)]
    fn sum_all(&self, rest: &mut Rest) -> Option<u16> {
        self.sum_chunks::<512, 64>(rest)?;
        self.sum_chunks::<32, 16>(rest)?;
        self.sum_chunks::<4, 8>(rest)?;
        let mut last = [0; 4];
        for (index, byte) in last.iter_mut().take(3).enumerate() {
            if index < rest.left {
                // SAFETY: inside the packet, as `at` checked.
                *byte = unsafe { *self.at::<u8, SUM_OFFSET_MAX>(rest.at + index)? };
            }
        }
        // Words of this machine's byte order were summed; swapped, a one's complement sum is that of the other order
        // (RFC 1071 2B). At most 112 sums of 32 bits fold in three steps.
        let sum = rest.sum + u64::from(u32::from_ne_bytes(last));
        let sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        Some(u16::from_be(sum as u16))
    }

    /// Sums `N` bytes from `offset`, a multiple of 4 and at most 512 (the helper's limit until Linux 6.13).
    #[inline(always)]
    fn sum_chunk<const N: usize>(&self, offset: usize) -> Option<u64> {
        const { assert!(N % 4 == 0 && N <= 512) };
        let start = self.at::<[u8; N], SUM_OFFSET_MAX>(offset)?;
        if N == 4 {
            // SAFETY: all of the chunk lies inside the packet, as was just checked.
            return Some(u64::from(unsafe { load!(u32, start, 0) }));
        }
        // SAFETY: as above.
        let sum = unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, start.cast(), N as u32, 0) };
        Some(sum as u64 & 0xffff_ffff)
    }

    /// Sums as many whole chunks as there are left, at most `COUNT`.
    #[inline(always)]
    fn sum_chunks<const N: usize, const COUNT: usize>(&self, rest: &mut Rest) -> Option<()> {
        for _ in 0..COUNT {
            if rest.left < N {
                break;
            }
            rest.sum += self.sum_chunk::<N>(rest.at)?;
            rest.at += N;
            rest.left -= N;
        }
        rest.at = blur(self.0, rest.at);
        rest.left = blur(self.0, rest.left);
        Some(())
    }
}

/// The same value below 65,536, of which the verifier knows no more than that. Behind a loop that ends at a length from
/// the packet it would else follow what comes next once for each length.
#[inline(always)]
fn blur(context: &impl Packet, value: usize) -> usize {
    let mut value = value;
    let noise = context.noise() as usize;
    // SAFETY: two instructions that cancel each other.
    unsafe {
        asm!("{0} ^= {1}", "{0} ^= {1}", "{0} &= 0xffff", inout(reg) value, in(reg) noise);
    }
    value
}

/// What is still to be summed, and what was.
struct Rest {
    at: usize,
    left: usize,
    sum: u64,
}

impl<P: Packet> Cut for PacketFrame<'_, P> {
    #[inline(always)]
    fn cut(&mut self, len: usize) -> Option<()> {
        self.0.cut(len)
    }
}

/// The VLAN id of the tag that the driver took off the frame, or that never was in its bytes; 0: none, as a priority tag
/// says. For programs that are bound to a device: the call is to a function of the kernel, which puts the driver's in its
/// place (Linux 6.8, Documentation/networking/xdp-rx-metadata.rst).
///
/// Written as bytes, because LLVM makes such a call only through C's headers: opcode and registers of
/// BPF_PSEUDO_KFUNC_CALL, no offset, and the function's number in the kernel's BTF, which the loader puts in.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn hidden_vlan(context: *mut xdp_md) -> u32 {
    // `bpf_xdp_metadata_rx_vlan_tag(ctx, &protocol, &control)`: 0, or an errno for none and unknown.
    let (mut protocol, mut control) = (0_u16, 0_u16);
    let result: i64;
    // SAFETY: the context is this program's own, and both places can be written.
    unsafe {
        asm!(
            ".byte 0x85, 0x20, 0, 0, 0, 0, 0, 0",
            inlateout("r1") context => _, inlateout("r2") &raw mut protocol => _, inlateout("r3") &raw mut control => _,
            lateout("r0") result, lateout("r4") _, lateout("r5") _,
        );
    }
    if result as i32 == 0 { u32::from(control & 0x0fff) } else { 0 }
}

/// The maps, the clock and the ring, for one frame. With `ASKS_DRIVER` also what the driver knows of it.
pub struct Maps<'a, P, const ASKS_DRIVER: bool>(pub &'a P);

impl<P: Packet, const ASKS_DRIVER: bool> Kernel for Maps<'_, P, ASKS_DRIVER> {
    type Router = *mut VirtualRouter;
    type Vip = *mut Vip;

    #[inline(always)]
    fn now_ns(&self) -> u64 {
        // SAFETY: the helper takes nothing and cannot fail.
        unsafe { bpf_ktime_get_boot_ns() }
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        self.0.ifindex()
    }

    #[inline(always)]
    fn has_hidden_vlan(&self) -> bool {
        ASKS_DRIVER && self.0.hidden_vlan() != 0
    }

    #[inline(always)]
    fn count(&self, counter: Counter) {
        count(counter);
    }

    #[inline(always)]
    fn find_vip(&self, key: &VipKey) -> Option<*mut Vip> {
        let (word, bit) = vip_filter_place(&key.address);
        // SAFETY: the index is below the number of words. Volatile, or LLVM would take what is written here for a constant.
        let is_let = unsafe { read_volatile(addr_of!(maps::VIP_FILTER).cast::<u64>().add(word)) } & bit != 0;
        if is_let { maps::VIPS.get_ptr_mut(key) } else { None }
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
    fn note_foreign(&self, router: *mut VirtualRouter, at_ns: u64) {
        // SAFETY: as in `lease`.
        unsafe { write_volatile(addr_of_mut!((*router).heard.last_foreign_ns), at_ns) };
    }

    #[inline(always)]
    fn emit(&self, event: &Event) -> bool {
        maps::EVENTS.output_untyped::<Event>(event, u64::from(BPF_RB_FORCE_WAKEUP)).is_ok()
    }

    #[inline(always)]
    fn stale(&self, router: *mut VirtualRouter) -> &StalePolicy {
        // SAFETY: as in `settings`. Only the controller writes it, and only declared values into its enum; zero, what a
        // new entry holds, is one.
        unsafe { &*addr_of!((*router).stale) }
    }

    #[inline(always)]
    fn takeover(&self, router: *mut VirtualRouter) -> Takeover {
        // SAFETY: as in `lease`.
        unsafe {
            Takeover {
                at_ns: read_volatile(addr_of!((*router).takeover.at_ns)),
                missed_before: read_volatile(addr_of!((*router).takeover.missed_before)),
            }
        }
    }

    #[inline(always)]
    fn find_socket(&self, ip: &Ipv4Header, tcp: &TcpHeader) -> Socket {
        find_socket(self.0, ip, tcp)
    }

    #[inline(always)]
    fn handshake_ns(&self, key: &FlowKey) -> Option<u64> {
        let handshake = maps::HANDSHAKES.get_ptr(key)?;
        // SAFETY: as in `vip_router`.
        Some(unsafe { read_volatile(addr_of!((*handshake).at_ns)) })
    }

    #[inline(always)]
    fn remember_handshake(&self, key: &FlowKey, at_ns: u64) {
        let known = maps::HANDSHAKES.get_ptr(key);
        // SAFETY: as in `vip_router`.
        if known.is_some_and(|handshake| unsafe { read_volatile(addr_of!((*handshake).ended_ns)) } == 0) {
            // Sent again, or forged for a flow that lives.
            return;
        }
        let handshake = Handshake { at_ns, used_ns: 0, ended_ns: 0 };
        let is_in = maps::HANDSHAKES.insert(key, handshake, u64::from(BPF_ANY)).is_ok();
        let Some(count) = maps::HANDSHAKE_COUNT.get_ptr_mut(0) else { return };
        // SAFETY: array entries live as long as the map; 8-byte aligned, and only ever added to.
        unsafe {
            add_one(if is_in { addr_of_mut!((*count).remembered) } else { addr_of_mut!((*count).missed) });
        }
    }

    #[inline(always)]
    fn note_use(&self, key: &FlowKey, at_ns: u64, is_end: bool) {
        note_use(key, at_ns, is_end);
    }

    #[inline(always)]
    fn handshakes_missed(&self) -> u64 {
        // SAFETY: as in `lease`. Without the entry, which cannot be, nothing is certain.
        maps::HANDSHAKE_COUNT.get_ptr(0).map_or(u64::MAX, |count| unsafe { read_volatile(addr_of!((*count).missed)) })
    }

    #[inline(always)]
    fn peer_flow_ns(&self, key: &FlowKey) -> Option<u64> {
        let flow = peer_flow(key)?;
        // SAFETY: as in `vip_router`.
        Some(unsafe { read_volatile(addr_of!((*flow).since_ns)) })
    }

    #[inline(always)]
    fn is_socket_buffer(&self) -> bool {
        P::IS_SOCKET_BUFFER
    }

    #[inline(always)]
    fn forget_peer_flow(&self, key: &FlowKey) {
        if peer_flow(key).is_some() {
            let _ = maps::FLOWS.remove(key);
        }
    }

    #[inline(always)]
    fn take_reset_token(&self, now_ns: u64) -> bool {
        let Some(bucket) = maps::RESET_BUDGET.get_ptr_mut(0) else { return false };
        // SAFETY: this CPU's own entry, which lives as long as the map; the rate is a constant of the program.
        unsafe {
            let (taken, next) = take_token(&*bucket, read_volatile(&raw const maps::RESETS_PER_SECOND), now_ns);
            *bucket = next;
            taken
        }
    }

    #[inline(always)]
    fn emit_flow(&self, event: &FlowEvent) {
        emit_flow(event);
    }

    #[inline(always)]
    fn count_reset(&self, vip: *mut Vip) {
        // SAFETY: as in `count_arp_reply`.
        unsafe { add_one(addr_of_mut!((*vip).resets)) };
    }
}

/// The entry of a flow, if it is a peer's. Without peers nothing is looked up.
#[inline(always)]
fn peer_flow(key: &FlowKey) -> Option<*const Flow> {
    // SAFETY: a constant of the program. Volatile, as in `find_vip`.
    let has_peers = unsafe { read_volatile(&raw const maps::HAS_PEERS) } != 0;
    if has_peers { flow_of(key, &[FlowOrigin::Peer]) } else { None }
}

/// The entry of a flow, if it is of one of these origins.
#[inline(always)]
fn flow_of(key: &FlowKey, origins: &[FlowOrigin]) -> Option<*const Flow> {
    let flow = maps::FLOWS.get_ptr(key)?;
    // SAFETY: as in `vip_router`. An element that is freed meanwhile may hold another flow's values: a judgement may be of
    // a moment ago, and nothing is written. Only declared values are ever put in, so the number is compared.
    let origin = unsafe { read_volatile(addr_of!((*flow).origin).cast::<u32>()) };
    origins.iter().any(|wanted| origin == *wanted as u32).then_some(flow)
}

/// Notes that a flow whose handshake is remembered is used, or ends.
#[inline(always)]
fn note_use(key: &FlowKey, at_ns: u64, is_end: bool) {
    let Some(handshake) = maps::HANDSHAKES.get_ptr_mut(key) else { return };
    // SAFETY: preallocated elements stay elements. One that is another flow's by now gets a date of now, which keeps it
    // for longer, or an end, which counts only when nothing follows for minutes.
    unsafe {
        write_volatile(addr_of_mut!((*handshake).used_ns), at_ns);
        if is_end {
            write_volatile(addr_of_mut!((*handshake).ended_ns), at_ns);
        }
    }
}

/// `enum tcp_state`'s TCP_LISTEN (include/net/tcp_states.h).
const TCP_LISTEN: u32 = 10;
/// BPF_F_CURRENT_NETNS: the namespace that the frame came in.
const CURRENT_NETNS: u64 = -1_i64 as u64;

/// Looks a socket up, judges it, and lets it go: the verifier wants every one that was found released.
#[inline(always)]
fn find_socket(context: &impl EbpfContext, ip: &Ipv4Header, tcp: &TcpHeader) -> Socket {
    // `struct bpf_sock_tuple`'s IPv4 form: addresses, then ports, in network byte order.
    let mut tuple = [
        u32::from_ne_bytes(ip.source),
        u32::from_ne_bytes(ip.destination),
        u32::from(tcp.source_port.get().to_be()) | u32::from(tcp.destination_port.get().to_be()) << 16,
    ];
    // SAFETY: the tuple is live, and as long as said; a socket that is found is released below, on every path.
    unsafe {
        let socket = bpf_skc_lookup_tcp(
            context.as_ptr(),
            tuple.as_mut_ptr().cast::<bpf_sock_tuple>(),
            size_of_val(&tuple) as u32,
            CURRENT_NETNS,
            0,
        );
        if socket.is_null() {
            return Socket::None;
        }
        let mut found = Socket::Flow;
        if (*socket).state == TCP_LISTEN {
            let cookie = bpf_tcp_check_syncookie(
                socket.cast(),
                addr_of!(*ip).cast_mut().cast(),
                size_of::<Ipv4Header>() as u32,
                addr_of!(*tcp).cast_mut().cast::<tcphdr>(),
                size_of::<TcpHeader>() as u32,
            );
            found = if cookie == 0 { Socket::Cookie } else { Socket::None };
        }
        bpf_sk_release(socket.cast());
        found
    }
}

/// One callback of the kernel's TCP.
pub struct SocketOps<'a>(pub &'a SockOpsContext);

/// `AF_INET` and `AF_INET6` (include/linux/socket.h).
const FAMILY_IPV4: u32 = 2;
const FAMILY_IPV6: u32 = 10;

impl SocketOps<'_> {
    /// Which callback.
    #[inline(always)]
    pub fn operation(&self) -> u32 {
        self.0.op()
    }

    /// Of a state callback: the state that the socket goes to.
    #[inline(always)]
    pub fn new_state(&self) -> u32 {
        self.0.arg(1)
    }

    /// Whether the socket is of the controller's network namespace.
    #[inline(always)]
    pub fn is_here(&self) -> bool {
        // SAFETY: the context is this program's own; the cookie is a constant of it, set before it was loaded.
        unsafe { bpf_get_netns_cookie(self.0.as_ptr()) == read_volatile(&raw const maps::NETNS_COOKIE) }
    }

    /// The connection's ends; `None` for other families than IPv4 and IPv6. An IPv4 connection of a dual-stack listener
    /// has v4-mapped addresses, and so has every key.
    #[inline(always)]
    pub fn key(&self) -> Option<FlowKey> {
        // All are read before the family is looked at: LLVM would else choose between addresses, and the verifier only
        // takes fixed places in the context.
        let [local_ip4, remote_ip4] = self.words([self.0.local_ip4(), self.0.remote_ip4()]);
        let local_ip6 = self.words(self.0.local_ip6());
        let remote_ip6 = self.words(self.0.remote_ip6());
        let (local, remote) = match self.0.family() {
            FAMILY_IPV4 => (Address::from_ipv4(local_ip4.to_ne_bytes()), Address::from_ipv4(remote_ip4.to_ne_bytes())),
            FAMILY_IPV6 => (ipv6(local_ip6), ipv6(remote_ip6)),
            _ => return None,
        };
        // Host byte order here, network byte order there (struct bpf_sock_ops).
        let (local_port, remote_port) = (self.0.local_port() as u16, u32::from_be(self.0.remote_port()) as u16);
        Some(FlowKey { local, remote, local_port, remote_port })
    }

    /// The words as they are, each read by now.
    #[inline(always)]
    fn words<const N: usize>(&self, words: [u32; N]) -> [u32; N] {
        words.map(|mut word| {
            // SAFETY: an assignment to itself; the word has to be in a register here.
            unsafe { asm!("{0} = {0}", inout(reg) word, options(nostack)) };
            word
        })
    }

    /// SND.NXT.
    #[inline(always)]
    pub fn send_next(&self) -> u32 {
        // SAFETY: the context is this program's own.
        unsafe { (*self.0.ops).snd_nxt }
    }

    /// CLOCK_BOOTTIME nanoseconds.
    #[inline(always)]
    pub fn now_ns(&self) -> u64 {
        // SAFETY: the helper takes nothing and cannot fail.
        unsafe { bpf_ktime_get_boot_ns() }
    }

    /// Asks to be called when the socket changes its state.
    #[inline(always)]
    pub fn watch_state(&self) {
        let _ = self.0.set_cb_flags((self.0.cb_flags() | BPF_SOCK_OPS_STATE_CB_FLAG) as i32);
    }

    /// Whether flows of the address are wanted.
    #[inline(always)]
    pub fn is_remembered(&self, local: &Address) -> bool {
        maps::FLOW_ADDRESSES.get_ptr(local).is_some()
    }

    /// Puts the flow into the table; `false` when that is full, which is counted.
    #[inline(always)]
    pub fn remember(&self, key: &FlowKey, flow: &Flow) -> bool {
        let is_in = maps::FLOWS.insert(key, flow, u64::from(BPF_ANY)).is_ok();
        if !is_in {
            count(Counter::FlowTableFull);
        }
        is_in
    }

    /// Takes it out again, unless it is a peer's by now.
    #[inline(always)]
    pub fn forget(&self, key: &FlowKey) {
        if flow_of(key, &[FlowOrigin::Socket, FlowOrigin::Found]).is_some() {
            let _ = maps::FLOWS.remove(key);
        }
        // What still comes of it is the kernel's to answer.
        let now_ns = self.now_ns();
        let ended = Handshake { at_ns: now_ns, used_ns: now_ns, ended_ns: now_ns };
        let _ = maps::HANDSHAKES.insert(key, ended, u64::from(BPF_ANY));
    }

    /// Tells the controller, which looks now and then: nothing is woken.
    #[inline(always)]
    pub fn emit(&self, event: &FlowEvent) {
        emit_flow(event);
    }
}

#[inline(always)]
fn emit_flow(event: &FlowEvent) {
    if maps::FLOW_EVENTS.output_untyped::<FlowEvent>(event, u64::from(BPF_RB_NO_WAKEUP)).is_err() {
        count(Counter::FlowEventLost);
    }
}

#[inline(always)]
fn ipv6(words: [u32; 4]) -> Address {
    let mut address = Address::default();
    for (bytes, word) in address.bytes.chunks_exact_mut(4).zip(words) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    address
}

#[inline(always)]
fn count(counter: Counter) {
    let Some(counters) = maps::COUNTERS.get_ptr_mut(0) else { return };
    // SAFETY: the entry is this CPU's own and lives as long as the map; `Counters` is one u64 per variant of `Counter`,
    // so the index is inside.
    unsafe { *counters.cast::<u64>().add(counter as usize) += 1 };
    const { assert!(size_of::<Counters>() == 8 * failover_common::abi::COUNTER_NAMES.len()) };
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
