//! Whether the kernel program is in its place: looked at, all the time, by a thread of its own.
//!
//! The invariant (ARCHITECTURE.md, 16): no advert that claims or renews goes out unless the link that fences its
//! interface was seen, attached with our program and pinned, within the last two advert intervals; and a lease only ever
//! comes from an advert (1). So:
//! - *no lease without a fence*: what a dead controller leaves was there two intervals before its last advert. A look that
//!   waits for the kernel holds nothing up: what it waits for is the lock (RTNL) that detaching takes, so while somebody
//!   has it, nobody but that one can have detached anything, and the answer comes when that is done;
//! - *no promotion without ears*: who claims has heard nothing that got past the program (`canary`): where a better router
//!   lives, its adverts are that. This needs no lock, and also finds a program that is attached and does not run.
//!
//! A thread of its own, because the kernel answers under RTNL, which others hold for as long as they like: the election
//! thread only reads a word that this one writes (invariant 10), and the host thread is busy with addresses.
//!
//! Deliberately absent: attaching again, which the host thread does; what a missing program means for the election.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::canary::{Canary, Taken};
use crate::clock;
use crate::config::Config;
use crate::dataplane::link::{Hook, Link, Sight};
use crate::plan::Plan;
use crate::realtime;

/// Looks in an advert interval: one of them ends within an interval, even if the thread was late for another.
const LOOKS_PER_INTERVAL: u64 = 2;
/// Intervals for which a look counts.
const PATIENCE_INTERVALS: u64 = 2;
const LONGEST_PERIOD_NS: u64 = 1_000_000_000;

/// What the watching thread tells: of the interface at that index of the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// Another sight than before.
    Sight(usize, Sight),
    /// The pin was gone, and is there again.
    PinnedAgain(usize),
}

/// The link on one interface, and what was last seen of it.
struct Fence {
    name: String,
    taken: Taken,
    link: Mutex<Option<Link>>,
    /// Apart from the link, which is held while a look waits for the kernel.
    canary: Mutex<Option<Canary>>,
    /// Whether a frame got past the program that it should have taken.
    is_idle: AtomicBool,
    /// When the last look began that found all well; 0: something is missing.
    seen_ns: AtomicU64,
    /// Whether a look is under way.
    is_looking: AtomicBool,
    period_ns: u64,
    patience_ns: u64,
}

/// Those of all interfaces of the plan.
pub struct Fences {
    all: Vec<Fence>,
    watcher: OnceLock<Thread>,
    is_over: AtomicBool,
}

impl Fences {
    /// For each interface of the plan one that has no link yet.
    pub fn new(config: &Config, plan: &Plan) -> Self {
        let fence = |(index, interface): (usize, &crate::interface::Interface)| {
            let routers = plan.routers.iter().zip(&config.virtual_routers);
            let of_it = routers.filter(|(place, _)| place.interface == index).map(|(_, router)| router);
            let interval_cs = of_it.clone().map(|router| router.advert_interval_cs).min().unwrap_or(u16::MAX);
            let interval_ns = crate::election::timing::interval_ns(interval_cs);
            Fence {
                name: interface.name.clone(),
                taken: Taken::by(of_it),
                link: Mutex::new(None),
                canary: Mutex::new(None),
                is_idle: AtomicBool::new(false),
                seen_ns: AtomicU64::new(0),
                is_looking: AtomicBool::new(false),
                period_ns: (interval_ns / LOOKS_PER_INTERVAL).min(LONGEST_PERIOD_NS),
                patience_ns: PATIENCE_INTERVALS * interval_ns,
            }
        };
        Self {
            all: plan.interfaces.iter().enumerate().map(fence).collect(),
            watcher: OnceLock::new(),
            is_over: AtomicBool::new(false),
        }
    }

    /// The program is on that interface of the plan, by this link. The first one is looked at here and now; a later one by
    /// the thread, at once, so that it is told of.
    ///
    /// # Errors
    /// When nothing can listen there for what gets past the program.
    pub fn set(&self, interface: usize, link: Link) -> io::Result<()> {
        let fence = &self.all[interface];
        let canary = Canary::open(link.ifindex(), fence.taken.clone())?;
        let mut place = lock(&fence.link);
        // Closing the one before waits for the kernel: after both are free again.
        let before = lock(&fence.canary).replace(canary);
        fence.is_idle.store(false, Ordering::SeqCst);
        *place = Some(link);
        drop(place);
        drop(before);
        match self.watcher.get() {
            Some(watcher) => watcher.unpark(),
            None => drop(fence.look()),
        }
        Ok(())
    }

    /// What the program on that interface of the plan is, for people.
    pub fn program(&self, interface: usize) -> &'static str {
        match lock(&self.all[interface].link).as_ref().map(Link::hook) {
            Some(Hook::Tcx | Hook::Filter) => "tc program",
            Some(Hook::Xdp) | None => "XDP program",
        }
    }

    /// Closes all links: without their pins the program is detached by that.
    pub fn close(&self) {
        self.all.iter().for_each(|fence| drop(lock(&fence.link).take()));
    }

    /// Whether the program hears there, as far as nothing got past it. Never waits.
    pub fn hears(&self, interface: usize) -> bool {
        self.all[interface].hears()
    }

    /// Whether the program was seen on that interface of late, or a look is still waiting for the kernel: two loads.
    pub fn is_fenced(&self, interface: usize, now_ns: u64) -> bool {
        let fence = &self.all[interface];
        match fence.seen_ns.load(Ordering::SeqCst) {
            0 => false,
            seen_ns if now_ns.saturating_sub(seen_ns) <= fence.patience_ns => true,
            _ => fence.is_looking.load(Ordering::SeqCst),
        }
    }

    /// Starts the thread, which tells of what it sees. Like the others that must not be late it takes a
    /// `realtime_priority`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn watch(
        self: &Arc<Self>,
        realtime_priority: u8,
        tell: impl Fn(Report) + Send + 'static,
    ) -> Result<JoinHandle<()>> {
        let fences = self.clone();
        let run = move || {
            // Tried out at the start; late, it would only delay the others.
            let _ = realtime::enable(realtime_priority);
            fences.run(&tell);
        };
        let thread = thread::Builder::new().name("watch".into()).spawn(run).context("starting the watch thread")?;
        let _ = self.watcher.set(thread.thread().clone());
        Ok(thread)
    }

    /// Has the thread end: before the program is detached on purpose.
    pub fn stop_watching(&self) {
        self.is_over.store(true, Ordering::SeqCst);
        if let Some(watcher) = self.watcher.get() {
            watcher.unpark();
        }
    }

    fn run(&self, tell: &impl Fn(Report)) {
        let mut before = vec![Sight::Attached; self.all.len()];
        while !self.is_over.load(Ordering::SeqCst) {
            let began_ns = clock::now_ns();
            for (interface, fence) in self.all.iter().enumerate() {
                let (sight, is_pinned_again) = fence.look();
                if is_pinned_again {
                    tell(Report::PinnedAgain(interface));
                }
                let before = std::mem::replace(&mut before[interface], sight);
                if sight != before {
                    tell(Report::Sight(interface, sight));
                }
            }
            let period_ns = self.all.iter().map(|fence| fence.period_ns).min().unwrap_or(LONGEST_PERIOD_NS);
            let next_ns = began_ns + period_ns;
            if let Some(left_ns) = next_ns.checked_sub(clock::now_ns()) {
                thread::park_timeout(Duration::from_nanos(left_ns));
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fence {
    /// Once a frame got past the program, it does not, until the program is attached anew.
    fn hears(&self) -> bool {
        if lock(&self.canary).as_ref().is_some_and(Canary::sings) {
            self.is_idle.store(true, Ordering::SeqCst);
        }
        !self.is_idle.load(Ordering::SeqCst)
    }

    /// Looks, puts a missing pin back, and notes what was seen. Says also whether it did.
    fn look(&self) -> (Sight, bool) {
        let mut link = lock(&self.link);
        let Some(link) = link.as_mut() else {
            self.seen_ns.store(0, Ordering::SeqCst);
            return (Sight::Detached, false);
        };
        let began_ns = clock::now_ns();
        self.is_looking.store(true, Ordering::SeqCst);
        // A link that cannot be asked fences nothing that anybody knows of.
        let mut sight = link.look().unwrap_or(Sight::Detached);
        let is_unpinned = sight == Sight::Unpinned;
        if is_unpinned {
            match link.pin_again() {
                Ok(()) => sight = Sight::Attached,
                Err(error) => tracing::debug!(interface = %self.name, %error, "the link could not be pinned"),
            }
        }
        if sight == Sight::Attached && !self.hears() {
            sight = Sight::Idle;
        }
        self.seen_ns.store(if sight == Sight::Attached { began_ns } else { 0 }, Ordering::SeqCst);
        self.is_looking.store(false, Ordering::SeqCst);
        (sight, is_unpinned && sight == Sight::Attached)
    }
}
