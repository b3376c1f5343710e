//! The XDP program `failover`: two lines around `failover_ebpf::handle`.
#![no_std]
#![feature(asm_experimental_arch)]
#![no_main]
// `#[xdp]` makes a second, undocumented function.
#![allow(missing_docs)]

mod kernel;
mod maps;

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use failover_ebpf::Verdict;

/// Attached to every interface that has a virtual router.
#[xdp]
pub fn failover(context: XdpContext) -> u32 {
    match failover_ebpf::handle(&mut kernel::PacketFrame(&context), &kernel::Maps(&context)) {
        Verdict::Pass => xdp_action::XDP_PASS,
        Verdict::Drop => xdp_action::XDP_DROP,
        Verdict::Transmit => xdp_action::XDP_TX,
    }
}

/// No code path panics; if one did, the loop would make the verifier refuse the program.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

// The helpers of ours are not GPL-only, the kernel's ring buffer and clock are fine with either.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
