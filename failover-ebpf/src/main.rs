//! The XDP program `failover`, in two forms, and the tc program `failover_tc`, a few lines each around
//! `failover_ebpf::handle`; and the socket program `flows`.
#![no_std]
#![feature(asm_experimental_arch)]
#![no_main]
// `#[xdp]` and the like make second, undocumented functions.
#![allow(missing_docs)]

mod kernel;
mod maps;
mod sockets;

use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action, xdp_md};
use aya_ebpf::macros::{classifier, sock_ops, xdp};
use aya_ebpf::programs::{SockOpsContext, TcContext, XdpContext};
use failover_ebpf::Verdict;

/// Attached to every interface that has a virtual router, in native mode.
#[xdp]
pub fn failover(context: XdpContext) -> u32 {
    handle::<false>(&context)
}

/// The same for interfaces whose driver can say which VLAN a frame belongs to when its bytes don't: loaded for one
/// interface at a time. Not in the section of XDP programs, or whoever loads all of those would fail with this one.
#[unsafe(no_mangle)]
pub extern "C" fn failover_bound(context: *mut xdp_md) -> u32 {
    handle::<true>(&XdpContext::new(context))
}

#[inline(always)]
fn handle<const ASKS_DRIVER: bool>(context: &XdpContext) -> u32 {
    let maps = kernel::Maps::<_, ASKS_DRIVER>(context);
    match failover_ebpf::handle(&mut kernel::PacketFrame::new(context), &maps) {
        Verdict::Pass => xdp_action::XDP_PASS,
        Verdict::Drop => xdp_action::XDP_DROP,
        Verdict::Transmit => xdp_action::XDP_TX,
    }
}

/// Attached to ingress of every interface that has a virtual router, in generic mode. What it has nothing to say about goes
/// on to the next program.
#[classifier]
pub fn failover_tc(context: TcContext) -> i32 {
    if !kernel::is_untagged(&context) {
        return TC_ACT_UNSPEC;
    }
    match failover_ebpf::handle(&mut kernel::PacketFrame::new(&context), &kernel::Maps::<_, false>(&context)) {
        Verdict::Pass => TC_ACT_UNSPEC,
        Verdict::Drop => TC_ACT_SHOT as i32,
        Verdict::Transmit => kernel::send_back(&context),
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
