//! The bench's programs: one that makes the frame anew and goes on to the program that is measured, one that only
//! passes, and one for each thing that the frame path pays the kernel for.
//!
//! BPF_PROG_TEST_RUN does not restore the frame between two runs, and an answered request is an answer. Deliberately
//! absent: anything of the product's; this is no part of the frame path.
#![no_std]
#![no_main]
// `#[xdp]` makes a second, undocumented function.
#![allow(missing_docs)]

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{bpf_sock_tuple, xdp_action};
use aya_ebpf::btf_maps::{Array, HashMap, ProgramArray};
use aya_ebpf::helpers::{bpf_ktime_get_boot_ns, bpf_sk_release, bpf_skc_lookup_tcp, bpf_xdp_adjust_tail};
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;

/// 8-byte words of the longest frame.
const WORDS: usize = 128;
/// To what a frame can be cut (`bpf_xdp_adjust_tail`).
const LEN_MIN: i64 = 14;
/// BPF_F_CURRENT_NETNS.
const CURRENT_NETNS: u64 = -1_i64 as u64;

/// The frame: its length in bytes, a multiple of 4, then the bytes.
#[btf_map]
pub static FRAME: Array<[u64; 1 + WORDS], 1> = Array::new();

/// What is measured.
#[btf_map]
pub static MEASURED: ProgramArray<1> = ProgramArray::new();

/// As large as the product's table of virtual addresses, keys and values too.
#[btf_map]
pub static TABLE: HashMap<[u32; 6], [u64; 4], 5120> = HashMap::new();

/// The key that is looked up in `TABLE`.
#[btf_map]
pub static KEY: Array<[u32; 6], 1> = Array::new();

/// `struct bpf_sock_tuple` of IPv4, of which a socket is looked up.
#[btf_map]
pub static ENDS: Array<[u32; 3], 1> = Array::new();

/// Makes the frame anew and goes on.
#[xdp]
pub fn restore(context: XdpContext) -> u32 {
    if rewrite(&context).is_some() {
        // SAFETY: nothing here has a destructor.
        unsafe { MEASURED.tail_call(&context, 0) };
    }
    xdp_action::XDP_ABORTED
}

/// Cuts and grows the frame whatever its length is, so that this costs the same after every program.
#[inline(always)]
fn rewrite(context: &XdpContext) -> Option<()> {
    let frame = FRAME.get(0)?;
    let len = (context.data_end() - context.data()) as i64;
    grow(context, LEN_MIN - len)?;
    grow(context, frame[0] as i64 - LEN_MIN)?;
    for (index, word) in frame[1..].iter().enumerate() {
        let at = context.data() + 8 * index;
        if at + 8 <= context.data_end() {
            // SAFETY: inside the packet, as was just checked; and aligned, as BPF_PROG_TEST_RUN's frames begin 256 bytes
            // (XDP_PACKET_HEADROOM) after a page's beginning.
            unsafe { *(at as *mut u64) = *word };
        } else if at + 4 <= context.data_end() {
            // SAFETY: as above.
            unsafe { *(at as *mut u32) = *word as u32 };
            break;
        } else {
            break;
        }
    }
    Some(())
}

#[inline(always)]
fn grow(context: &XdpContext, by: i64) -> Option<()> {
    // SAFETY: the context is this program's own, and no pointer into the packet is kept over the call.
    (unsafe { bpf_xdp_adjust_tail(context.ctx, by as i32) } == 0).then_some(())
}

/// Only passes.
#[xdp]
pub fn pass(_: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// Reads the clock.
#[xdp]
pub fn clock(_: XdpContext) -> u32 {
    // SAFETY: the helper takes nothing and cannot fail.
    pass_if(unsafe { bpf_ktime_get_boot_ns() } != 0)
}

/// Looks a key up.
#[xdp]
pub fn lookup(_: XdpContext) -> u32 {
    pass_if(KEY.get(0).is_some_and(|key| TABLE.get_ptr(key).is_some()))
}

/// Looks a socket up.
#[xdp]
pub fn socket(context: XdpContext) -> u32 {
    let Some(ends) = ENDS.get_ptr(0) else { return xdp_action::XDP_ABORTED };
    let tuple = ends.cast_mut().cast::<bpf_sock_tuple>();
    // SAFETY: array entries live as long as the map; a socket that is found is released.
    unsafe {
        let socket = bpf_skc_lookup_tcp(context.as_ptr(), tuple, 12, CURRENT_NETNS, 0);
        if !socket.is_null() {
            bpf_sk_release(socket.cast());
        }
        pass_if(!socket.is_null())
    }
}

#[inline(always)]
fn pass_if(is_there: bool) -> u32 {
    if is_there { xdp_action::XDP_PASS } else { xdp_action::XDP_ABORTED }
}

/// Nothing here panics; if something did, the loop would make the verifier refuse the program.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

// bpf_skc_lookup_tcp's release is for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
