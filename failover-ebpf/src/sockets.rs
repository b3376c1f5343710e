//! The program `flows`: established connections of the virtual addresses, as the kernel's TCP tells of them. Costs the
//! packet path nothing, and a flood of SYNs never gets here.
//!
//! Deliberately absent: connections that end elsewhere (no socket of this namespace tells of them), and those that were
//! there before: the controller asks for them once.

use aya_ebpf::bindings::{
    BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB,
};
use failover_common::abi::{Flow, FlowEvent, FlowEventKind, FlowKey, FlowOrigin};

use crate::kernel::SocketOps;

/// `enum tcp_state`'s TCP_CLOSE (include/net/tcp_states.h).
const TCP_CLOSE: u32 = 7;

/// One callback.
#[inline(always)]
pub fn handle(socket: &SocketOps<'_>) {
    let operation = socket.operation();
    let is_opened = operation == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB || operation == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB;
    let is_closed = operation == BPF_SOCK_OPS_STATE_CB && socket.new_state() == TCP_CLOSE;
    if !(is_opened || is_closed) || !socket.is_here() {
        return;
    }
    let Some(key) = socket.key() else { return };
    if !socket.is_remembered(&key.local) {
        return;
    }
    if is_opened { open(socket, key) } else { close(socket, key) }
}

#[inline(always)]
fn open(socket: &SocketOps<'_>, key: FlowKey) {
    let send_next = socket.send_next();
    let flow = Flow {
        since_ns: socket.now_ns(),
        origin: FlowOrigin::Socket,
        peer: 0,
        sync: 0,
        send_next,
        has_send_next: 1,
        _pad: 0,
    };
    if socket.remember(&key, &flow) {
        socket.watch_state();
        socket.emit(&FlowEvent { key, kind: FlowEventKind::Opened, send_next });
    }
}

#[inline(always)]
fn close(socket: &SocketOps<'_>, key: FlowKey) {
    socket.forget(&key);
    socket.emit(&FlowEvent { key, kind: FlowEventKind::Closed, send_next: 0 });
}
