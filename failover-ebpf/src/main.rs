//! The XDP program `failover`, two lines around `failover_ebpf::handle`, and the socket program `flows`.
#![no_std]
#![feature(asm_experimental_arch)]
#![no_main]
// `#[xdp]` and `#[sock_ops]` make second, undocumented functions.
#![allow(missing_docs)]

mod kernel;
mod maps;
mod sockets;

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::{sock_ops, xdp};
use aya_ebpf::programs::{SockOpsContext, XdpContext};
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

/// Attached to the root of the cgroup tree; looks at sockets of the controller's network namespace only.
#[sock_ops]
pub fn flows(context: SockOpsContext) -> u32 {
    sockets::handle(&kernel::SocketOps(&context));
    // Of the operations that are watched, none reads a reply.
    1
}

/// No code path panics; if one did, the loop would make the verifier refuse the program.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

// bpf_tcp_check_syncookie is for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
