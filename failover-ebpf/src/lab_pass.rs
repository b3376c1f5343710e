//! The lab's far ends of veth pairs: a program that passes everything.
//!
//! A veth drops what its peer sends by XDP_TX unless it runs an XDP program itself.
#![no_std]
#![no_main]
// `#[xdp]` makes a second, undocumented function.
#![allow(missing_docs)]

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;

/// Passes.
#[xdp]
pub fn pass(_: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// Nothing here can panic.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
