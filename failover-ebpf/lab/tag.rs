//! The lab's stations of another VLAN: a program that gives every frame a tag that is not in its bytes.
//!
//! The kernel keeps a pushed tag in the socket buffer's metadata, as a NIC that takes tags off keeps it in its descriptor:
//! the frame that arrives at a veth's other end looks untagged.
#![no_std]
#![no_main]
// `#[classifier]` makes a second, undocumented function.
#![allow(missing_docs)]

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::helpers::bpf_skb_vlan_push;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

/// EtherType of a customer's tag (IEEE 802.1Q).
const TPID: u16 = 0x8100;

/// The whole tag: priority and VLAN id. Set by the loader.
#[unsafe(no_mangle)]
pub static TAG: u32 = 50;

/// Tags what leaves.
#[classifier]
pub fn tag(context: TcContext) -> i32 {
    // SAFETY: a constant of the program. Volatile, or LLVM would take what is written here for it.
    let tag = unsafe { core::ptr::read_volatile(&raw const TAG) } as u16;
    // SAFETY: the context is this program's own; nothing points into the frame.
    match unsafe { bpf_skb_vlan_push(context.as_ptr().cast(), TPID.to_be(), tag) } {
        0 => TC_ACT_UNSPEC,
        _ => TC_ACT_SHOT as i32,
    }
}

/// Nothing here can panic.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
