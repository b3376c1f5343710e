//! UDP to the virtual address once a millisecond: the outage as a user has it, and which node served.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use socket2::Type;

use crate::echo::bind;
use crate::netns::Netns;
use crate::wait;
use crate::workers::Workers;

const PORT: u16 = 7;
const PERIOD: Duration = Duration::from_millis(1);

/// The service on a node: answers on the virtual address, whether the node has it or not (IP_FREEBIND).
pub struct UdpService {
    _workers: Workers,
}

impl UdpService {
    /// Starts it in the node's namespace. `mark` is what it answers.
    ///
    /// # Errors
    /// When its socket cannot be made.
    pub fn start(node: &Netns, vip: Ipv4Addr, mark: u8) -> Result<Self> {
        let udp = UdpSocket::from(node.enter(|| bind(Type::DGRAM, SocketAddrV4::new(vip, PORT)))?);
        udp.set_read_timeout(Some(Duration::from_millis(50)))?;
        let mut workers = Workers::new();
        workers.spawn("udp-service", move || {
            if let Ok((_, from)) = udp.recv_from(&mut [0; 64]) {
                let _ = udp.send_to(&[mark], from);
            }
        })?;
        Ok(Self { _workers: workers })
    }
}

/// The client, until dropped.
pub struct UdpClient {
    answers: Arc<Mutex<Vec<(Instant, u8)>>>,
    _workers: Workers,
}

impl UdpClient {
    /// Starts it in its namespace.
    ///
    /// # Errors
    /// When its socket cannot be made.
    pub fn start(client: &Netns, vip: Ipv4Addr) -> Result<Self> {
        let udp = client.enter(|| Ok(UdpSocket::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0))?))?;
        let answers = Arc::new(Mutex::new(Vec::new()));
        let mut workers = Workers::new();
        let log = answers.clone();
        workers.spawn("udp-client", move || ask(&udp, vip, &log))?;
        Ok(Self { answers, _workers: workers })
    }

    /// The longest time between two answers since `since`; an answer that is still missing counts
    /// up to now.
    pub fn outage(&self, since: Instant) -> Duration {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let first = answers.partition_point(|(at, _)| *at < since).saturating_sub(1);
        let mut longest = Duration::ZERO;
        for pair in answers[first..].windows(2) {
            longest = longest.max(pair[1].0 - pair[0].0);
        }
        answers.last().map_or(longest, |(last, _)| longest.max(last.elapsed()))
    }

    /// Whether the last answer is no older than `age`.
    pub fn is_served(&self, age: Duration) -> bool {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.last().is_some_and(|(last, _)| last.elapsed() < age)
    }

    /// How many answers since `since` came from the service with that mark.
    pub fn count(&self, since: Instant, mark: u8) -> usize {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.iter().filter(|(at, by)| *at >= since && *by == mark).count()
    }
}

/// One datagram, and all answers until the next is due.
fn ask(udp: &UdpSocket, vip: Ipv4Addr, log: &Mutex<Vec<(Instant, u8)>>) {
    let sent = Instant::now();
    let _ = udp.send_to(b"?", SocketAddrV4::new(vip, PORT));
    while let Some(left) = PERIOD.checked_sub(sent.elapsed()).filter(|left| !left.is_zero()) {
        let mut mark = [0];
        if wait::readable(udp, left) && udp.recv_from(&mut mark).is_ok() {
            log.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), mark[0]));
        }
    }
}
