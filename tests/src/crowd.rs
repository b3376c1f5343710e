//! A crowd of TCP clients in one namespace, on one thread: how and when each connection ended, and
//! whether a new one from the same port lives.
//!
//! Deliberately absent: what is judged of it. Sockets and their epoll are `crowd/driver.rs`.

mod driver;

use std::fmt::{self, Display};
use std::net::SocketAddrV4;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::netns::{Netns, finish};
use crate::wait;

/// Who the clients are.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The echo service that they use.
    pub to: SocketAddrV4,
    /// Local port of the first one, host byte order; the others' follow. Brief ones take any.
    pub first_port: u16,
    /// How many send a message, wait for the echo, pause, and so on.
    pub busy: u16,
    /// How many exchange one echo and are silent from then on.
    pub idle: u16,
    /// How many exchange one echo, close, pause, connect, and so on.
    pub brief: u16,
    /// That pause.
    pub pause: Duration,
}

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// See [`Plan::busy`].
    Busy,
    /// See [`Plan::idle`].
    Idle,
    /// See [`Plan::brief`].
    Brief,
}

/// How a connection, or the attempt to make one, ended without the client wanting it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum End {
    /// The other side closed.
    Eof,
    /// What the kernel said, errno.
    Errno(i32),
}

/// What happened to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A connection was established (not noted of brief ones).
    Connected,
    /// An established connection ended.
    Ended(End),
    /// A connection could not be made; it is tried again after the pause.
    Refused(End),
}

/// One client.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its local port, host byte order; 0: any, anew for each connection.
    pub port: u16,
    /// What it does.
    pub role: Role,
    /// What happened to it, in order.
    pub events: Vec<(Instant, Event)>,
    /// How many echoes it got.
    pub echoes: u64,
    /// When it got the last one.
    pub last_echo: Option<Instant>,
}

/// The clients, until dropped.
pub struct Crowd {
    netns: Netns,
    to: SocketAddrV4,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<()>>>,
}

#[derive(Default)]
struct Shared {
    members: Mutex<Vec<Member>>,
    reconnect: AtomicBool,
    stop: AtomicBool,
}

impl Crowd {
    /// Starts to connect all of them.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(client: &Netns, plan: &Plan) -> Result<Self> {
        let shared = Arc::new(Shared { members: Mutex::new(members(plan)), ..Shared::default() });
        let (inside, netns, plan) = (shared.clone(), Netns::existing(client.name()), plan.clone());
        let to = plan.to;
        let run = move || netns.enter(|| driver::drive(&plan, &inside));
        let thread = thread::Builder::new().name("crowd".into()).spawn(run)?;
        Ok(Self { netns: Netns::existing(client.name()), to, shared, thread: Some(thread) })
    }

    /// From now on each client whose connection ended connects again, from the same port: at once,
    /// and after the pause when it could not.
    pub fn reconnect(&self) {
        self.shared.reconnect.store(true, Ordering::Relaxed);
    }

    /// All of them, as they are now.
    pub fn members(&self) -> Vec<Member> {
        self.shared.members.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether `condition` holds for each of them now.
    pub fn all(&self, condition: impl Fn(&Member) -> bool) -> bool {
        self.shared.members.lock().unwrap_or_else(PoisonError::into_inner).iter().all(condition)
    }

    /// Waits until `condition` holds for each of them.
    ///
    /// # Errors
    /// When it does not come to that; says how many it holds for, and what happened last to the others.
    pub fn wait_for_each(&self, what: &str, condition: impl Fn(&Member) -> bool) -> Result<()> {
        let waited = wait::until(what, || self.all(&condition));
        waited.with_context(|| {
            let members = self.members();
            let others: Vec<&Member> = members.iter().filter(|member| !condition(member)).collect();
            let last = tally(others.iter().filter_map(|member| member.events.last().map(|(_, event)| *event)));
            format!("holds for {} of {}; the others' last event: {last}", members.len() - others.len(), members.len())
        })
    }

    /// Waits until each one is connected and has got an echo since `since`; idle ones send none after
    /// their first.
    ///
    /// # Errors
    /// As [`Self::wait_for_each`].
    pub fn wait_until_served(&self, since: Instant) -> Result<()> {
        self.wait_for_each("an echo to each client", |member| member.is_served(since))
    }

    /// How many connections the client's kernel calls established, as `ss` has it.
    ///
    /// # Errors
    /// When `ss` fails.
    pub fn established(&self) -> Result<usize> {
        let mut command = self.netns.command("ss");
        let text = finish(command.args(["-Htn", "state", "established", "dst", &self.to.to_string()]))?;
        Ok(text.lines().count())
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(Ok(Err(error))) = self.thread.take().map(JoinHandle::join) {
            eprintln!("the crowd stopped early: {error:#}");
        }
    }
}

fn members(plan: &Plan) -> Vec<Member> {
    let member = |port, role| Member { port, role, events: Vec::new(), echoes: 0, last_echo: None };
    let roles = [(Role::Busy, plan.busy), (Role::Idle, plan.idle)];
    let roles = roles.into_iter().flat_map(|(role, count)| (0..count).map(move |_| role));
    let lasting = (plan.first_port..).zip(roles).map(|(port, role)| member(port, role));
    lasting.chain((0..plan.brief).map(|_| member(0, Role::Brief))).collect()
}

impl Member {
    /// Whether its connection is there.
    pub fn is_connected(&self) -> bool {
        matches!(self.events.last(), Some((_, Event::Connected)))
    }

    /// Whether it has a connection, and an echo on it that came after `since`.
    pub fn is_served(&self, since: Instant) -> bool {
        (self.is_connected() || self.role == Role::Brief) && self.last_echo.is_some_and(|at| at >= since)
    }

    /// Whether nothing but being connected has ever happened to it.
    pub fn is_undisturbed(&self) -> bool {
        self.events.iter().all(|(_, event)| *event == Event::Connected)
    }

    /// When established connections of it ended since `since`, and how.
    pub fn ends(&self, since: Instant) -> impl Iterator<Item = (Instant, End)> {
        self.events.iter().filter(move |(at, _)| *at >= since).filter_map(|(at, event)| match event {
            Event::Ended(end) => Some((*at, *end)),
            Event::Connected | Event::Refused(_) => None,
        })
    }

    /// The first of [`Self::ends`].
    pub fn end(&self, since: Instant) -> Option<(Instant, End)> {
        self.ends(since).next()
    }

    /// When its present connection was established.
    pub fn connected_at(&self) -> Option<Instant> {
        self.events.last().filter(|(_, event)| *event == Event::Connected).map(|(at, _)| *at)
    }
}

impl Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Eof => f.write_str("EOF"),
            Self::Errno(libc::ECONNRESET) => f.write_str("ECONNRESET"),
            Self::Errno(libc::ECONNREFUSED) => f.write_str("ECONNREFUSED"),
            Self::Errno(libc::ETIMEDOUT) => f.write_str("ETIMEDOUT"),
            Self::Errno(libc::EHOSTUNREACH) => f.write_str("EHOSTUNREACH"),
            Self::Errno(libc::EPIPE) => f.write_str("EPIPE"),
            Self::Errno(libc::EADDRNOTAVAIL) => f.write_str("EADDRNOTAVAIL"),
            Self::Errno(other) => write!(f, "errno {other}"),
        }
    }
}

impl Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected => f.write_str("connected"),
            Self::Ended(end) => write!(f, "ended by {end}"),
            Self::Refused(end) => write!(f, "no connection: {end}"),
        }
    }
}

/// `3 x ECONNRESET, 1 x EOF`, or `none`.
pub fn tally(things: impl Iterator<Item = impl Display>) -> String {
    let mut counts = std::collections::BTreeMap::new();
    for thing in things {
        *counts.entry(thing.to_string()).or_insert(0_usize) += 1;
    }
    let counts: Vec<String> = counts.iter().map(|(thing, count)| format!("{count} x {thing}")).collect();
    if counts.is_empty() { "none".into() } else { counts.join(", ") }
}

/// `n 1000: p50 12.3 ms, p99 45.6 ms, max 78.9 ms`.
pub fn spread(times: impl Iterator<Item = Duration>) -> String {
    let mut times: Vec<Duration> = times.collect();
    times.sort();
    let (Some(max), n) = (times.last(), times.len()) else { return "n 0".into() };
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let (p50, p99) = (times[(n - 1) / 2], times[(n - 1) * 99 / 100]);
    format!("n {n}: p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms", ms(p50), ms(p99), ms(*max))
}
