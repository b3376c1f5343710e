//! The bench's client: a generator of frames for BPF_PROG_TEST_RUN with live frames, and a counter of answers on its
//! interface; and for the node's what sends back without a thought, to be compared with.
//!
//! Deliberately absent: what is sent, and what an answer must be. The bench knows: a few of the answers pass, and it looks
//! at those.
#![no_std]
#![no_main]
// `#[xdp]` makes second, undocumented functions.
#![allow(missing_docs)]

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::btf_maps::{Array, PerCpuArray};
use aya_ebpf::helpers::{bpf_ktime_get_ns, bpf_xdp_adjust_tail};
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;

/// Ethernet's minimum without the check sequence.
const FRAME_LEN: usize = 60;
/// A frame in words, which are copied at once. The last four bytes are no part of it.
type Template = [u64; 8];
/// Different frames, a power of two.
const FRAMES_MAX: u32 = 64;
/// How far behind its pace the generator may be and catch up, in nanoseconds.
const BACKLOG_NS: u64 = 1_000_000;
/// Of so many answers one passes.
const SAMPLED: u64 = 512;
/// The virtual address, 192.0.2.10, as it lies in a frame.
const VIP: [u16; 2] = [u16::from_ne_bytes([192, 0]), u16::from_ne_bytes([2, 10])];
const ETHER_TYPE_ARP: u16 = 0x0806_u16.to_be();
const ETHER_TYPE_IPV4: u16 = 0x0800_u16.to_be();
const ARP_REPLY: u16 = 2_u16.to_be();
const PROTOCOL_TCP: u8 = 6;
const RST: u8 = 0x04;

/// What is sent, in turn.
#[btf_map]
pub static FRAMES: Array<Template, { FRAMES_MAX as usize }> = Array::new();

/// How long after a frame the next one is due, in nanoseconds, 0 is at once; and whether answers go back as questions.
#[btf_map]
pub static SETTINGS: Array<[u64; 2], 1> = Array::new();

/// Frames sent, and when the next is due (CLOCK_MONOTONIC nanoseconds).
#[btf_map]
pub static SENT: PerCpuArray<[u64; 2], 1> = PerCpuArray::new();

/// Answers: to ARP, then resets.
#[btf_map]
pub static ANSWERS: PerCpuArray<u64, 2> = PerCpuArray::new();

/// Sends the next frame, if it is due.
#[xdp]
pub fn flood(context: XdpContext) -> u32 {
    let (Some(sent), Some([pace_ns, _])) = (SENT.get_ptr_mut(0), SETTINGS.get(0)) else {
        return xdp_action::XDP_ABORTED;
    };
    if *pace_ns != 0 {
        // SAFETY: an entry of this CPU's, which nothing else writes while this runs.
        let due_ns = unsafe { &mut (*sent)[1] };
        // SAFETY: a helper without arguments.
        let now_ns = unsafe { bpf_ktime_get_ns() };
        // A slower flood before this one may have left a far one.
        *due_ns = (*due_ns).min(now_ns + *pace_ns);
        if now_ns < *due_ns {
            return xdp_action::XDP_DROP;
        }
        // What could not be sent in time is made up for, within reason.
        *due_ns = (*due_ns).max(now_ns.saturating_sub(BACKLOG_NS)) + *pace_ns;
    }
    ask(&context).map_or(xdp_action::XDP_ABORTED, |()| xdp_action::XDP_TX)
}

/// Counts answers of the virtual address; everything else passes. An answer becomes the next question, if that is
/// wanted: no generator is as fast.
#[xdp]
pub fn count(context: XdpContext) -> u32 {
    let Some(kind) = answer(&context) else { return xdp_action::XDP_PASS };
    let (Some(count), Some([_, goes_back])) = (ANSWERS.get_ptr_mut(kind), SETTINGS.get(0)) else {
        return xdp_action::XDP_PASS;
    };
    // SAFETY: an entry of this CPU's, which nothing interrupts.
    let counted = unsafe { *count } + 1;
    // SAFETY: as above.
    unsafe { *count = counted };
    if counted % SAMPLED == 0 {
        return xdp_action::XDP_PASS;
    }
    if *goes_back == 0 {
        return xdp_action::XDP_DROP;
    }
    let missing = FRAME_LEN.saturating_sub(context.data_end() - context.data());
    // SAFETY: the context is the kernel's, and no pointer into the frame is used after this.
    if missing != 0 && unsafe { bpf_xdp_adjust_tail(context.ctx, missing as i32) } != 0 {
        return xdp_action::XDP_DROP;
    }
    ask(&context).map_or(xdp_action::XDP_DROP, |()| xdp_action::XDP_TX)
}

/// Makes the next question of the frame. All of it is written: it is as it came back from its last journey.
#[inline(always)]
fn ask(context: &XdpContext) -> Option<()> {
    // SAFETY: an entry of this CPU's. Who interrupts the other may send a frame twice, and lose its count.
    let number = unsafe { &mut (*SENT.get_ptr_mut(0)?)[0] };
    let from = FRAMES.get(*number as u32 % FRAMES_MAX)?;
    let (words, last) = (at::<[u64; 7]>(context, 0)?, at::<u32>(context, 56)?);
    // SAFETY: `at` has checked that the frame is as long.
    unsafe {
        *words = [from[0], from[1], from[2], from[3], from[4], from[5], from[6]];
        *last = from[7] as u32;
    }
    *number += 1;
    Some(())
}

/// For the node's end: as little as makes an answer of a question. Addresses change places, nothing is looked at twice
/// and nothing is right but what `count` reads.
#[xdp]
pub fn reflect(context: XdpContext) -> u32 {
    reflected(&context).map_or(xdp_action::XDP_PASS, |()| xdp_action::XDP_TX)
}

#[inline(always)]
fn reflected(context: &XdpContext) -> Option<()> {
    match read::<u16>(context, 12)? {
        ETHER_TYPE_ARP => {
            swap::<[u16; 2]>(context, 28, 38)?;
            write(context, 20, ARP_REPLY)?;
        }
        ETHER_TYPE_IPV4 if read::<u8>(context, 23)? == PROTOCOL_TCP => {
            swap::<[u16; 2]>(context, 26, 30)?;
            write(context, 47, RST)?;
        }
        _ => return None,
    }
    swap::<[u16; 3]>(context, 0, 6)
}

/// The index of what it is counted as, if it is an answer.
#[inline(always)]
fn answer(context: &XdpContext) -> Option<u32> {
    match read::<u16>(context, 12)? {
        ETHER_TYPE_ARP if read::<u16>(context, 20)? == ARP_REPLY && read::<[u16; 2]>(context, 28)? == VIP => Some(0),
        ETHER_TYPE_IPV4
            if read::<u8>(context, 23)? == PROTOCOL_TCP
                && read::<[u16; 2]>(context, 26)? == VIP
                && read::<u8>(context, 47)? & RST != 0 =>
        {
            Some(1)
        }
        _ => None,
    }
}

#[inline(always)]
fn read<T: Copy>(context: &XdpContext, offset: usize) -> Option<T> {
    // SAFETY: `at` has checked that all of it is inside the frame.
    at::<T>(context, offset).map(|at| unsafe { *at })
}

#[inline(always)]
fn write<T>(context: &XdpContext, offset: usize, value: T) -> Option<()> {
    // SAFETY: `at` has checked that all of it is inside the frame.
    at::<T>(context, offset).map(|at| unsafe { *at = value })
}

#[inline(always)]
fn swap<T: Copy>(context: &XdpContext, one: usize, other: usize) -> Option<()> {
    let (first, second) = (read::<T>(context, one)?, read::<T>(context, other)?);
    write(context, one, second)?;
    write(context, other, first)
}

/// Where it is in the frame, when all of it is inside. A frame begins where any `T` here may, and so does the offset.
#[inline(always)]
fn at<T>(context: &XdpContext, offset: usize) -> Option<*mut T> {
    let start = context.data() + offset;
    (start + size_of::<T>() <= context.data_end()).then_some(start as *mut T)
}

/// Nothing here can panic.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
