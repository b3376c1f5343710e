//! What a flood does to a TCP transfer: bytes from the client to the virtual address, as fast as they go.
//!
//! Deliberately absent: pacing, and TCP's own view of it.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::frames::Flood;
use super::generator::{Generator, Shared, Source};
use super::pair::{NODE_CORE, Pair};
use crate::hogs::{Class, cores, pin};
use crate::lab::VIP;

/// Bytes in one system call.
const CHUNK: usize = 1 << 16;

/// What else is on the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// What is sent.
    pub flood: Flood,
    /// Frames a second; 0 is no flood.
    pub offered: u64,
}

impl Load {
    /// Its name in tables.
    pub fn title(self) -> String {
        match self.offered {
            0 => "nothing else".into(),
            offered => format!("{} thousand {} a second", offered / 1000, self.flood.title()),
        }
    }
}

/// Some time of a transfer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sample {
    /// How long, in seconds.
    pub time_s: f64,
    /// Bytes that the receiver read.
    pub bytes: u64,
    /// Frames that the generator sent.
    pub sent: u64,
    /// Answers that came to the client's interface.
    pub answers: u64,
}

impl Sample {
    /// Received, in 10^6 bytes a second.
    pub fn rate_mb(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.time_s
    }

    /// Frames sent in a second.
    pub fn offered(&self) -> f64 {
        self.sent as f64 / self.time_s
    }

    /// Answers in a second.
    pub fn answered(&self) -> f64 {
        self.answers as f64 / self.time_s
    }
}

/// Transfers under that load, for `time` after a while of the same. Without a flood the generator runs all the same, and
/// sends one frame a second: what it takes of the client's core is the same then.
///
/// # Errors
/// When the connection cannot be made.
pub fn sample(pair: &mut Pair, load: Load, time: Duration) -> Result<Sample> {
    let Load { flood, offered } = load;
    pair.client.load(flood)?;
    pair.client.set_pace(offered.max(1), false)?;
    // Who reads the bytes must have its share of the core.
    pair.schedule_responder(Class::Normal)?;
    let (pair, shared, bytes) = (&*pair, Shared::default(), AtomicU64::new(0));
    let listener = pair.node.enter(|| Ok(TcpListener::bind((VIP, 0))?)).context("listening on the virtual address")?;
    let to = listener.local_addr()?;
    let to = pair.client.netns.enter(|| Ok(TcpStream::connect(to)?)).context("connecting to the virtual address")?;
    let (from, _) = listener.accept()?;
    thread::scope(|scope| {
        let generator = Generator::start(scope, &pair.client, flood, Source::LiveFrames, &shared)?;
        let threads = [scope.spawn(|| drain(&from, &bytes)), scope.spawn(|| fill(&to))];
        let began = generator.wait();
        thread::sleep(time / 4);
        let look =
            || Ok((Instant::now(), bytes.load(Ordering::Relaxed), generator.sent()?, pair.client.answers(flood)?));
        let before: Result<_> = look();
        thread::sleep(time);
        let after = look();
        let is_over = threads.iter().any(ScopedJoinHandle::is_finished);
        let stopped = generator.stop();
        // Ends both threads. The second end may be gone with the first.
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
        for thread in threads {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        // What the thread says first: it may be why it did not begin.
        stopped.and(began)?;
        ensure!(!is_over, "the connection ended under {}", load.title());
        let ((from_at, bytes, sent, answers), after) = (before?, after?);
        anyhow::Ok(Sample {
            time_s: (after.0 - from_at).as_secs_f64(),
            bytes: after.1 - bytes,
            sent: after.2 - sent,
            answers: after.3 - answers,
        })
    })
}

/// Reads on the node's core until the connection ends.
fn drain(mut from: &TcpStream, bytes: &AtomicU64) -> Result<()> {
    pin(NODE_CORE)?;
    let mut buffer = vec![0; CHUNK];
    while let Ok(len @ 1..) = from.read(&mut buffer) {
        bytes.fetch_add(len as u64, Ordering::Relaxed);
    }
    Ok(())
}

/// Writes on the client's core until the connection ends.
fn fill(mut to: &TcpStream) -> Result<()> {
    pin(cores() - 1)?;
    let buffer = vec![0; CHUNK];
    while to.write_all(&buffer).is_ok() {}
    Ok(())
}
