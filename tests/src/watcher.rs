//! A client that pings virtual addresses all the time, and hears everything else that its link brings: adverts and
//! announcements. Each with the kernel's time of arrival, so that nothing depends on when it is looked at.
//!
//! It asks by echo requests (RFC 792), because the nodes' kernels answer those: no service's own want of CPU is measured.
//! They go where the client's own kernel believes the address to be, as all traffic does. Deliberately absent: what it
//! means.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};
use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};

use crate::lab::INTERFACE;
use crate::netns::Netns;
use crate::tape::Tape;
use crate::workers::Workers;

/// How often one address is asked for: the resolution of all that is measured.
pub const PERIOD: Duration = Duration::from_micros(200);
/// Every protocol (linux/if_ether.h).
const ETH_P_ALL: u16 = 0x0003;

/// One thing, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// CLOCK_REALTIME nanoseconds.
    pub at_ns: u64,
    /// See there.
    pub what: What,
}

/// What a client sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// It asked.
    Asked,
    /// The address answered, from this hardware address.
    Answer {
        /// Which.
        address: Ipv4Addr,
        /// Who.
        by: [u8; 6],
    },
    /// An advert came.
    Advert {
        /// Of this virtual router.
        vrid: u8,
        /// 0: it gives up.
        priority: u8,
        /// Who.
        by: [u8; 6],
    },
    /// A gratuitous ARP came.
    Announcement {
        /// Of this address.
        address: Ipv4Addr,
        /// Who.
        by: [u8; 6],
    },
}

/// The client, until dropped.
pub struct Watcher {
    /// From its thread, which waits for nobody: not for a lock that its reader holds, for one.
    news: Receiver<Seen>,
    seen: RefCell<Vec<Seen>>,
    rests: Arc<AtomicBool>,
    _workers: Workers,
}

impl Watcher {
    /// Starts it on the thread `watcher`, asking each of the addresses in turn, one each [`PERIOD`].
    ///
    /// # Errors
    /// When a socket cannot be made.
    pub fn start(client: &Netns, addresses: &[Ipv4Addr]) -> Result<Self> {
        let mut tape = Tape::open(client, INTERFACE, ETH_P_ALL, &of_interest())?;
        let socket = client.enter(asker)?;
        let (log, news) = channel();
        let rests = Arc::new(AtomicBool::new(false));
        let (addresses, mut turn) = (addresses.to_vec(), 0);
        let mut due = Instant::now();
        let is_resting = rests.clone();
        let mut workers = Workers::new();
        workers.spawn("watcher", move || {
            let asks = !is_resting.load(Ordering::Relaxed);
            if asks {
                let target = addresses[turn % addresses.len()];
                turn += 1;
                note(&log, now_ns(), What::Asked);
                let _ = socket.send_to(&ECHO_REQUEST, &SockAddr::from(SocketAddrV4::new(target, 0)));
            }
            let heard = tape.drain(|at_ns, frame| {
                if let Some(what) = read(frame) {
                    note(&log, at_ns, what);
                }
            });
            // Without its socket it sees nothing more, which is found out by whoever waits for an answer.
            drop(heard);
            due = Instant::now().max(due + PERIOD * if asks { 1 } else { 50 });
            thread::sleep(due.saturating_duration_since(Instant::now()));
        })?;
        Ok(Self { news, seen: RefCell::default(), rests, _workers: workers })
    }

    /// Stops to ask, or begins again; it goes on to listen.
    pub fn rest(&self, rests: bool) {
        self.rests.store(rests, Ordering::Relaxed);
    }

    /// All it has seen since it was last told to forget, in order of its reading: by and large that of time.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.borrow_mut().extend(self.news.try_iter());
        self.seen.borrow().clone()
    }

    /// Forgets what was seen before `at_ns`.
    pub fn forget_before(&self, at_ns: u64) {
        self.seen.borrow_mut().extend(self.news.try_iter());
        self.seen.borrow_mut().retain(|seen| seen.at_ns >= at_ns);
    }
}

/// CLOCK_REALTIME nanoseconds: the kernel stamps frames with it.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Realtime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

fn note(log: &Sender<Seen>, at_ns: u64, what: What) {
    // Nobody reads it any more only when it is about to end.
    let _ = log.send(Seen { at_ns, what });
}

/// RFC 792: type 8, code 0, checksum, identifier and sequence number, no data. Checksum by hand: !0x0800.
const ECHO_REQUEST: [u8; 8] = [8, 0, 0xf7, 0xff, 0, 0, 0, 0];

/// Sends what it is given; answers are heard elsewhere.
fn asker() -> Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).context("opening a raw socket")?;
    socket.attach_filter(&[SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, 0)])?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// What a frame to the client tells.
fn read(frame: &[u8]) -> Option<What> {
    let by: [u8; 6] = frame.get(6..12)?.try_into().ok()?;
    let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(frame.get(at..at + 4)?).ok()?));
    match (frame.get(12..14)?, frame.get(23)?) {
        ([0x08, 0x06], _) => (address(28)? == address(38)?).then_some(What::Announcement { address: address(28)?, by }),
        ([0x08, 0x00], 1) => Some(What::Answer { address: address(26)?, by }),
        ([0x08, 0x00], 112) => Some(What::Advert { vrid: *frame.get(35)?, priority: *frame.get(36)?, by }),
        _ => None,
    }
}

/// ARP; adverts (protocol 112, RFC 9568 5.1.1.4); echo replies. Headers without options.
fn of_interest() -> [SockFilter; 10] {
    let load = |size, at| SockFilter::new((libc::BPF_LD | libc::BPF_ABS | size) as u16, 0, 0, at);
    let is = |value, yes, no| SockFilter::new((libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, yes, no, value);
    let end = |accepted| SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, accepted);
    [
        load(libc::BPF_H, 12),
        is(0x0806, 6, 0),
        is(0x0800, 0, 6),
        load(libc::BPF_B, 23),
        is(112, 3, 0),
        is(1, 0, 3),
        load(libc::BPF_B, 34),
        is(0, 0, 1),
        end(u32::MAX),
        end(0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::claim;
    use failover_sim::segment::sum;

    #[test]
    fn the_request_is_one() {
        assert_eq!(sum(&ECHO_REQUEST), 0xffff);
    }

    #[test]
    fn frames_are_told_apart() {
        let (mac, vip) = ([2, 0, 0, 0, 0, 7], Ipv4Addr::new(192, 0, 2, 10));
        let announcement = claim(2, mac, vip.octets());
        assert_eq!(read(&announcement), Some(What::Announcement { address: vip, by: mac }));
        let mut question = announcement;
        question[38..42].copy_from_slice(&[192, 0, 2, 11]);
        assert_eq!(read(&question), None);

        let ip = |protocol| {
            let mut frame = [[0xff; 6].as_slice(), &mac, &[0x08, 0x00, 0x45]].concat();
            frame.resize(60, 0);
            frame[23] = protocol;
            frame[26..30].copy_from_slice(&vip.octets());
            frame
        };
        assert_eq!(read(&ip(1)), Some(What::Answer { address: vip, by: mac }));
        // RFC 9568 5.1: version and type, VRID, priority.
        let mut advert = ip(112);
        advert[34..37].copy_from_slice(&[0x31, 51, 100]);
        assert_eq!(read(&advert), Some(What::Advert { vrid: 51, priority: 100, by: mac }));
        assert_eq!(read(&ip(17)), None);
        assert_eq!(read(&advert[..20]), None);
    }
}
