//! A client of the virtual address, and the service it talks to: UDP once a millisecond, which
//! measures the outage as a user has it, and one TCP connection that would like to live for ever.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Result;
use socket2::Type;

use crate::echo::{TcpEcho, bind};
use crate::netns::Netns;
use crate::wait;

const UDP_PORT: u16 = 7;
/// Where the service echoes TCP.
pub const TCP_PORT: u16 = 7;
const PERIOD: Duration = Duration::from_millis(1);

/// Threads that end when dropped.
struct Workers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    fn new() -> Self {
        Self { stop: Arc::new(AtomicBool::new(false)), threads: Vec::new() }
    }

    fn spawn(&mut self, name: &str, mut step: impl FnMut() + Send + 'static) -> Result<()> {
        let stop = self.stop.clone();
        let run = move || {
            while !stop.load(Ordering::Relaxed) {
                step();
            }
        };
        self.threads.push(thread::Builder::new().name(name.into()).spawn(run)?);
        Ok(())
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// The service on a node: echoes UDP and TCP on the virtual address, whether the node has it or
/// not (IP_FREEBIND).
pub struct EchoService {
    _workers: Workers,
    _tcp: TcpEcho,
}

impl EchoService {
    /// Starts it in the node's namespace.
    ///
    /// # Errors
    /// When a socket cannot be made.
    pub fn start(node: &Netns, vip: Ipv4Addr) -> Result<Self> {
        let udp = UdpSocket::from(node.enter(|| bind(Type::DGRAM, SocketAddrV4::new(vip, UDP_PORT)))?);
        udp.set_read_timeout(Some(Duration::from_millis(50)))?;
        let mut workers = Workers::new();
        workers.spawn("udp-echo", move || {
            let mut buffer = [0; 64];
            if let Ok((len, from)) = udp.recv_from(&mut buffer) {
                let _ = udp.send_to(&buffer[..len], from);
            }
        })?;
        Ok(Self { _workers: workers, _tcp: TcpEcho::start(node, SocketAddrV4::new(vip, TCP_PORT))? })
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
    answers: Arc<Mutex<Vec<Instant>>>,
    tcp: Arc<Mutex<Vec<(Instant, TcpEvent)>>>,
    _workers: Workers,
}

impl Client {
    /// Starts it in its namespace.
    ///
    /// # Errors
    /// When a socket cannot be made.
    pub fn start(client: &Netns, vip: Ipv4Addr) -> Result<Self> {
        let udp = client.enter(|| Ok(UdpSocket::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0))?))?;
        let answers = Arc::new(Mutex::new(Vec::new()));
        let tcp = Arc::new(Mutex::new(Vec::new()));
        let mut workers = Workers::new();
        let log = answers.clone();
        workers.spawn("udp-client", move || ask(&udp, vip, &log))?;
        let (log, netns) = (tcp.clone(), Netns::existing(client.name()));
        workers.spawn("tcp-client", {
            let mut connection = None;
            move || talk(&netns, vip, &mut connection, &log)
        })?;
        Ok(Self { answers, tcp, _workers: workers })
    }

    /// The longest time between two answers since `since`; an answer that is still missing counts
    /// up to now.
    pub fn outage(&self, since: Instant) -> Duration {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let first = answers.partition_point(|at| *at < since).saturating_sub(1);
        let mut longest = Duration::ZERO;
        for pair in answers[first..].windows(2) {
            longest = longest.max(pair[1] - pair[0]);
        }
        answers.last().map_or(longest, |last| longest.max(last.elapsed()))
    }

    /// Whether the last answer is no older than `age`.
    pub fn is_served(&self, age: Duration) -> bool {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.last().is_some_and(|last| last.elapsed() < age)
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

/// One datagram, and all answers until the next is due.
fn ask(udp: &UdpSocket, vip: Ipv4Addr, log: &Mutex<Vec<Instant>>) {
    let sent = Instant::now();
    let _ = udp.send_to(b"?", SocketAddrV4::new(vip, UDP_PORT));
    while let Some(left) = PERIOD.checked_sub(sent.elapsed()).filter(|left| !left.is_zero()) {
        if wait::readable(udp, left) && udp.recv_from(&mut [0; 8]).is_ok() {
            log.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
        }
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
