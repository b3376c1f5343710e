//! A flood, from the machine's last core.
//!
//! Deliberately absent: what is sent.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::Duration;
use std::{fmt, fs, io, mem, ptr};

use anyhow::{Context, Result, ensure};
use rustix::thread::gettid;
use serde::{Deserialize, Serialize};

use super::client::Client;
use super::frames::Flood;
use crate::hogs::{Class, cores, pin, schedule};
use crate::wait;

/// Where the frames come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// BPF_PROG_TEST_RUN with live frames: they never were socket buffers, as those of a network card.
    LiveFrames,
    /// A packet socket, and sendmmsg(2).
    PacketSocket,
}

impl Source {
    /// Both.
    pub const ALL: [Self; 2] = [Self::LiveFrames, Self::PacketSocket];

    /// Its name in tables.
    pub fn title(self) -> &'static str {
        match self {
            Self::LiveFrames => "live frames",
            Self::PacketSocket => "packet socket",
        }
    }
}

/// How long to wait for the thread between two signals.
const PATIENCE: Duration = Duration::from_millis(1);

/// What a generator's thread and its owner share.
#[derive(Debug, Default)]
pub struct Shared {
    /// The thread, once it runs; 0 is none.
    thread: AtomicU64,
    /// The same, as the kernel calls it.
    task: AtomicI32,
    stop: AtomicBool,
    /// By the packet socket.
    sent: AtomicU64,
    /// Why that could not send, the last time that it could not: errno.
    refused: AtomicI32,
}

/// A generator that does not get to send, and what its thread does.
#[derive(Debug)]
pub struct Stuck(String);

impl fmt::Display for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Shared {
    /// What the thread does, for whoever waits for it in vain.
    fn what_it_does(&self) -> String {
        let task = self.task.load(Ordering::Relaxed);
        let read = |file| fs::read_to_string(format!("/proc/self/task/{task}/{file}")).unwrap_or_default();
        let refused = io::Error::from_raw_os_error(self.refused.load(Ordering::Relaxed));
        format!("the last refusal: {refused}; its thread: {}in\n{}", read("stat"), read("stack"))
    }
}

/// A generator that runs until it is stopped.
pub struct Generator<'scope> {
    thread: ScopedJoinHandle<'scope, Result<()>>,
    client: &'scope Client,
    source: Source,
    shared: &'scope Shared,
}

impl<'scope> Generator<'scope> {
    /// Starts it.
    ///
    /// # Errors
    /// When its socket or its thread cannot be made.
    pub fn start(
        scope: &'scope Scope<'scope, '_>,
        client: &'scope Client,
        flood: Flood,
        source: Source,
        shared: &'scope Shared,
    ) -> Result<Self> {
        heed_signals()?;
        let (socket, frames) = (client.socket(flood)?, flood.questions());
        let send = move || {
            pin(cores() - 1)?;
            // Not as who started it.
            schedule(None, Class::Normal)?;
            // SAFETY: it takes no arguments and cannot fail.
            shared.thread.store(unsafe { libc::pthread_self() }, Ordering::Relaxed);
            shared.task.store(gettid().as_raw_nonzero().get(), Ordering::Relaxed);
            if source == Source::LiveFrames {
                client.netns.move_in()?;
                return client.send_live();
            }
            while !shared.stop.load(Ordering::Relaxed) {
                match socket.send_all(&frames) {
                    Ok(sent) => drop(shared.sent.fetch_add(sent as u64, Ordering::Relaxed)),
                    Err(error) => shared.refused.store(error.raw_os_error().unwrap_or_default(), Ordering::Relaxed),
                }
            }
            Ok(())
        };
        let thread = thread::Builder::new().name("flood".into()).spawn_scoped(scope, send)?;
        Ok(Self { thread, client, source, shared })
    }

    /// Frames sent so far.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn sent(&self) -> Result<u64> {
        match self.source {
            Source::LiveFrames => self.client.sent(),
            Source::PacketSocket => Ok(self.shared.sent.load(Ordering::Relaxed)),
        }
    }

    /// Waits until it sends.
    ///
    /// # Errors
    /// [`Stuck`], when it never does.
    pub fn wait(&self) -> Result<()> {
        let before = self.sent()?;
        wait::until("the generator to send", || self.sent().is_ok_and(|sent| sent > before))
            .with_context(|| Stuck(self.shared.what_it_does()))
    }

    /// Stops it.
    ///
    /// # Errors
    /// When it could not send.
    pub fn stop(self) -> Result<()> {
        self.shared.stop.store(true, Ordering::Relaxed);
        // A signal that comes before the system call does not interrupt it.
        while !self.thread.is_finished() {
            let thread = self.shared.thread.load(Ordering::Relaxed);
            if thread != 0 {
                // SAFETY: it is not joined yet, so that the id is its own.
                unsafe { libc::pthread_kill(thread, libc::SIGUSR1) };
            }
            thread::sleep(PATIENCE);
        }
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Has SIGUSR1 interrupt a system call, and do nothing else.
fn heed_signals() -> Result<()> {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: zeros are a valid `sigaction`: no signal masked, no flag that would restart a call.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // SAFETY: the pointer is to a live, initialised struct, and the handler does nothing.
    let refused = unsafe { libc::sigaction(libc::SIGUSR1, &raw const action, ptr::null_mut()) } != 0;
    ensure!(!refused, "handling SIGUSR1: {}", io::Error::last_os_error());
    Ok(())
}
