//! The crowd's sockets, their epoll, and whose turn it is.
//!
//! Deliberately absent: a thread or a timer for each client. All pauses are equally long, so the
//! clients that pause are a queue.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::event::{Timespec, epoll};
use socket2::{Domain, Socket, Type};

use super::{End, Event, Member, Plan, Role, Shared};

/// The longest time without a look at what the test wants.
const TURN: Duration = Duration::from_millis(5);
const MESSAGE: &[u8] = b"still there?";

/// Where a client is.
#[derive(Debug)]
enum Phase {
    Connecting(Socket),
    Waiting(Socket),
    Silent(Socket),
    Without,
}

struct Driver<'a> {
    plan: &'a Plan,
    shared: &'a Shared,
    epoll: OwnedFd,
    phases: Vec<Phase>,
    /// Whose pause ends when, in order of time.
    pausing: VecDeque<(Instant, usize)>,
    /// The end of each one's pause: an entry of `pausing` with another time is void.
    due: Vec<Option<Instant>>,
    /// Whose connection ended.
    ended: Vec<usize>,
}

/// Plays all of them until told to stop. Sockets are made in the calling thread's namespace.
pub(super) fn drive(plan: &Plan, shared: &Shared) -> Result<()> {
    let count = shared.members.lock().unwrap_or_else(PoisonError::into_inner).len();
    let mut driver = Driver {
        plan,
        shared,
        epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
        phases: (0..count).map(|_| Phase::Without).collect(),
        pausing: VecDeque::new(),
        due: vec![None; count],
        ended: Vec::new(),
    };
    for index in 0..count {
        driver.connect(index);
    }
    let mut events = Vec::with_capacity(256);
    while !shared.stop.load(Ordering::Relaxed) {
        events.clear();
        let due = driver.pausing.front().map_or(TURN, |(due, _)| due.saturating_duration_since(Instant::now()));
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(due.min(TURN).subsec_nanos()) };
        let waited = epoll::wait(&driver.epoll, rustix::buffer::spare_capacity(&mut events), Some(&timeout));
        if waited.is_err_and(|error| error != rustix::io::Errno::INTR) {
            waited?;
        }
        for event in &events {
            driver.advance(event.data.u64() as usize);
        }
        driver.end_pauses();
        if shared.reconnect.load(Ordering::Relaxed) {
            std::mem::take(&mut driver.ended).into_iter().for_each(|index| driver.connect(index));
        }
    }
    Ok(())
}

impl Driver<'_> {
    /// Something happened to this one's socket.
    fn advance(&mut self, index: usize) {
        match std::mem::replace(&mut self.phases[index], Phase::Without) {
            Phase::Connecting(socket) => match socket.take_error() {
                Ok(None) => self.connected(index, socket),
                Ok(Some(error)) | Err(error) => self.refused(index, &error),
            },
            Phase::Waiting(socket) => self.read(index, socket, true),
            Phase::Silent(socket) => self.read(index, socket, false),
            Phase::Without => {}
        }
    }

    fn connect(&mut self, index: usize) {
        let port = self.member(index, |member| member.port);
        match begin(&self.epoll, index, port, self.plan.to) {
            Ok(socket) => self.phases[index] = Phase::Connecting(socket),
            Err(error) => self.refused(index, &error),
        }
    }

    fn connected(&mut self, index: usize, socket: Socket) {
        let data = epoll::EventData::new_u64(index as u64);
        if let Err(error) = epoll::modify(&self.epoll, &socket, data, epoll::EventFlags::IN) {
            return self.refused(index, &error.into());
        }
        if self.member(index, |member| member.role) != Role::Brief {
            self.note(index, Event::Connected);
        }
        self.send(index, socket);
    }

    fn send(&mut self, index: usize, socket: Socket) {
        match (&socket).write_all(MESSAGE) {
            Ok(()) => self.phases[index] = Phase::Waiting(socket),
            Err(error) => self.gone(index, end(&error)),
        }
    }

    fn read(&mut self, index: usize, socket: Socket, is_waiting: bool) {
        let mut buffer = [0; 256];
        match (&socket).read(&mut buffer) {
            Ok(0) => self.gone(index, End::Eof),
            Ok(_) if is_waiting => self.echoed(index, socket),
            Ok(_) => self.phases[index] = Phase::Silent(socket),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                self.phases[index] = if is_waiting { Phase::Waiting(socket) } else { Phase::Silent(socket) };
            }
            Err(error) => self.gone(index, end(&error)),
        }
    }

    fn echoed(&mut self, index: usize, socket: Socket) {
        let role = self.member(index, |member| {
            member.echoes += 1;
            member.last_echo = Some(Instant::now());
            member.role
        });
        // A brief one closes here.
        self.phases[index] = if role == Role::Brief { Phase::Without } else { Phase::Silent(socket) };
        if role != Role::Idle {
            self.pause(index);
        }
    }

    fn end_pauses(&mut self) {
        while let Some((due, index)) = self.pausing.pop_front_if(|(due, _)| *due <= Instant::now()) {
            if self.due[index].take_if(|current| *current == due).is_none() {
                continue;
            }
            match std::mem::replace(&mut self.phases[index], Phase::Without) {
                Phase::Silent(socket) => self.send(index, socket),
                Phase::Without => self.connect(index),
                other => self.phases[index] = other,
            }
        }
    }

    fn pause(&mut self, index: usize) {
        let due = Instant::now() + self.plan.pause;
        self.due[index] = Some(due);
        self.pausing.push_back((due, index));
    }

    fn gone(&mut self, index: usize, end: End) {
        self.note(index, Event::Ended(end));
        self.due[index] = None;
        if self.member(index, |member| member.role) == Role::Brief {
            self.pause(index);
        } else {
            self.ended.push(index);
        }
    }

    fn refused(&mut self, index: usize, error: &io::Error) {
        self.note(index, Event::Refused(end(error)));
        self.pause(index);
    }

    fn note(&self, index: usize, event: Event) {
        self.member(index, |member| member.events.push((Instant::now(), event)));
    }

    fn member<T>(&self, index: usize, look: impl FnOnce(&mut Member) -> T) -> T {
        look(&mut self.shared.members.lock().unwrap_or_else(PoisonError::into_inner)[index])
    }
}

/// Starts to connect. The port may be that of a connection that has just ended.
fn begin(epoll: &OwnedFd, index: usize, port: u16, to: SocketAddrV4) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking().cloexec(), None)?;
    socket.set_tcp_nodelay(true)?;
    if port != 0 {
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port).into())?;
    }
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    epoll::add(epoll, &socket, epoll::EventData::new_u64(index as u64), epoll::EventFlags::OUT)?;
    Ok(socket)
}

fn end(error: &io::Error) -> End {
    error.raw_os_error().map_or(End::Eof, End::Errno)
}
