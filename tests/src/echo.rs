//! A TCP echo service for thousands of connections: one thread, one epoll.
//!
//! Deliberately absent: long messages; a client that reads no echoes loses its connection.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use rustix::event::{Timespec, epoll};
use socket2::{Domain, Socket, Type};

use crate::netns::Netns;

/// Connections that may wait to be accepted: all of a crowd at once. The kernel's own limit for a
/// namespace (net.core.somaxconn) is as high.
const BACKLOG: i32 = 4096;
/// The listener among the epoll's sources; connections count from 1.
const LISTENER: u64 = 0;
/// How often the thread looks whether it should end.
const TURN: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// The service in a namespace, until dropped.
#[derive(Debug)]
pub struct TcpEcho {
    node: Netns,
    address: SocketAddrV4,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    epoll: OwnedFd,
    listener: Mutex<Option<TcpListener>>,
    connections: AtomicUsize,
    stop: AtomicBool,
}

impl TcpEcho {
    /// Starts it in the node's namespace, whether the node has the address or not.
    ///
    /// # Errors
    /// When a socket cannot be made.
    pub fn start(node: &Netns, address: SocketAddrV4) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let shared = Arc::new(Shared {
            epoll,
            listener: Mutex::new(None),
            connections: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        });
        let mut service = Self { node: Netns::existing(node.name()), address, shared: shared.clone(), thread: None };
        service.open_listener()?;
        service.thread = Some(thread::Builder::new().name("tcp-echo".into()).spawn(move || serve(&shared))?);
        Ok(service)
    }

    /// Takes new connections again.
    ///
    /// # Errors
    /// When a socket cannot be made.
    pub fn open_listener(&self) -> Result<()> {
        let socket = self.node.enter(|| bind(Type::STREAM, self.address))?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let mut listener = self.shared.listener.lock().unwrap_or_else(PoisonError::into_inner);
        let listening = listener.insert(socket.into());
        let data = epoll::EventData::new_u64(LISTENER);
        Ok(epoll::add(&self.shared.epoll, listening, data, epoll::EventFlags::IN)?)
    }

    /// Takes no new connections; those that are there are served on.
    pub fn close_listener(&self) {
        *self.shared.listener.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// How many connections it serves.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }
}

impl Drop for TcpEcho {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A socket on an address that the node need not have (IP_FREEBIND).
///
/// # Errors
/// When it cannot be made or bound.
pub fn bind(kind: Type, address: SocketAddrV4) -> Result<Socket> {
    let socket = Socket::new(Domain::IPV4, kind, None)?;
    socket.set_freebind_v4(true)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into()).with_context(|| format!("binding the echo service to {address}"))?;
    Ok(socket)
}

fn serve(shared: &Shared) {
    let mut connections = HashMap::new();
    let mut next = LISTENER + 1;
    let mut events = Vec::with_capacity(256);
    while !shared.stop.load(Ordering::Relaxed) {
        events.clear();
        if epoll::wait(&shared.epoll, rustix::buffer::spare_capacity(&mut events), Some(&TURN)).is_err() {
            continue;
        }
        for event in &events {
            match event.data.u64() {
                LISTENER => accept(shared, &mut connections, &mut next),
                number => {
                    if connections.get_mut(&number).is_some_and(|stream| !echo(stream)) {
                        connections.remove(&number);
                    }
                }
            }
        }
        shared.connections.store(connections.len(), Ordering::Relaxed);
    }
}

fn accept(shared: &Shared, connections: &mut HashMap<u64, TcpStream>, next: &mut u64) {
    let listener = shared.listener.lock().unwrap_or_else(PoisonError::into_inner);
    while let Some(Ok((stream, _))) = listener.as_ref().map(TcpListener::accept) {
        let data = epoll::EventData::new_u64(*next);
        let watched = stream.set_nonblocking(true).is_ok()
            && stream.set_nodelay(true).is_ok()
            && epoll::add(&shared.epoll, &stream, data, epoll::EventFlags::IN).is_ok();
        if watched {
            connections.insert(*next, stream);
            *next += 1;
        }
    }
}

/// Echoes what there is; `false` when the connection is over.
fn echo(stream: &mut TcpStream) -> bool {
    let mut buffer = [0; 1024];
    match stream.read(&mut buffer) {
        Ok(0) => false,
        Ok(len) => stream.write_all(&buffer[..len]).is_ok(),
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}
