//! A client of the virtual address, and the service it talks to: UDP (`udp`), and one TCP connection
//! that would like to live for ever.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::echo::TcpEcho;
use crate::netns::Netns;
use crate::udp::{UdpClient, UdpService};
use crate::workers::Workers;

/// Where the service echoes TCP.
pub const TCP_PORT: u16 = 7;

/// The service on a node: answers UDP and echoes TCP on the virtual address, whether the node has it
/// or not (IP_FREEBIND).
pub struct EchoService {
    _udp: UdpService,
    _tcp: TcpEcho,
}

impl EchoService {
    /// Starts it in the node's namespace.
    ///
    /// # Errors
    /// When a socket cannot be made.
    pub fn start(node: &Netns, vip: Ipv4Addr) -> Result<Self> {
        let tcp = TcpEcho::start(node, SocketAddrV4::new(vip, TCP_PORT))?;
        Ok(Self { _udp: UdpService::start(node, vip, 0)?, _tcp: tcp })
    }
}

/// What happened to the long-lived connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TcpEvent {
    /// It was made (again).
    Connected,
    /// It ended, with what the client's kernel said.
    Ended(ErrorKind),
}

/// The client, until dropped.
pub struct Client {
    udp: UdpClient,
    tcp: Arc<Mutex<Vec<(Instant, TcpEvent)>>>,
    _workers: Workers,
}

impl Client {
    /// Starts it in its namespace.
    ///
    /// # Errors
    /// When a socket cannot be made.
    pub fn start(client: &Netns, vip: Ipv4Addr) -> Result<Self> {
        let tcp = Arc::new(Mutex::new(Vec::new()));
        let mut workers = Workers::new();
        let (log, netns) = (tcp.clone(), Netns::existing(client.name()));
        workers.spawn("tcp-client", {
            let mut connection = None;
            move || talk(&netns, vip, &mut connection, &log)
        })?;
        Ok(Self { udp: UdpClient::start(client, vip)?, tcp, _workers: workers })
    }

    /// As [`UdpClient::outage`].
    pub fn outage(&self, since: Instant) -> Duration {
        self.udp.outage(since)
    }

    /// As [`UdpClient::is_served`].
    pub fn is_served(&self, age: Duration) -> bool {
        self.udp.is_served(age)
    }

    /// What happened to the connection since `since`.
    pub fn tcp_events(&self, since: Instant) -> Vec<(Instant, TcpEvent)> {
        let events = self.tcp.lock().unwrap_or_else(PoisonError::into_inner);
        events.iter().filter(|(at, _)| *at >= since).cloned().collect()
    }

    /// Whether the connection is there.
    pub fn is_connected(&self) -> bool {
        let events = self.tcp.lock().unwrap_or_else(PoisonError::into_inner);
        events.last().is_some_and(|(_, event)| *event == TcpEvent::Connected)
    }
}

/// One exchange over the connection, which is made when there is none.
fn talk(netns: &Netns, vip: Ipv4Addr, connection: &mut Option<TcpStream>, log: &Mutex<Vec<(Instant, TcpEvent)>>) {
    let note = |event| log.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), event));
    let Some(stream) = connection else {
        *connection = netns.enter(|| connect(vip)).ok();
        match connection {
            Some(_) => note(TcpEvent::Connected),
            None => thread::sleep(Duration::from_millis(10)),
        }
        return;
    };
    match exchange(stream) {
        Ok(()) => thread::sleep(Duration::from_millis(5)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
        Err(error) => {
            note(TcpEvent::Ended(error.kind()));
            *connection = None;
        }
    }
}

fn connect(vip: Ipv4Addr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&SocketAddrV4::new(vip, TCP_PORT).into(), Duration::from_millis(100))?;
    stream.set_read_timeout(Some(Duration::from_millis(50)))?;
    stream.set_write_timeout(Some(Duration::from_millis(50)))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn exchange(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"still there?")?;
    let mut buffer = [0; 1024];
    match stream.read(&mut buffer)? {
        0 => Err(std::io::Error::new(ErrorKind::UnexpectedEof, "closed by the node")),
        _ => Ok(()),
    }
}
