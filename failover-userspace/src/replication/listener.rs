//! The socket that peers dial, on an address that may come later than this program.
//!
//! Deliberately absent: what is accepted, which is `receiver.rs`.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use socket2::{Domain, Socket, Type};

/// Connections that wait to be accepted: as many as std lets wait.
const BACKLOG: i32 = 128;

/// Listens on the address, non-blocking. One that is not on this machine is warned of: at boot it may only come later,
/// and a node must not stay down for its peers' sake.
///
/// # Errors
/// When the port is taken, or the address is none to listen on.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), None)?;
    match address {
        SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) => socket.set_freebind_v6(true)?,
    }
    // As std does: connections of the process before hold the port for a minute.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    if is_missing(address) {
        tracing::warn!(%address, "the address is not on this machine yet; peers cannot reach it until it is");
    }
    Ok(socket.into())
}

/// Whether the kernel says so to a socket that insists.
fn is_missing(mut address: SocketAddr) -> bool {
    address.set_port(0);
    UdpSocket::bind(address).is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
}
