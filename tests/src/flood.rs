//! As many frames as one core can send.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::frames::FrameSocket;
use crate::hogs;
use crate::netns::Netns;

/// Frames in one system call.
const BATCH: usize = 64;

/// The sender, until dropped.
pub struct Flood {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
    began: Instant,
}

impl Flood {
    /// Sends the frames in turn from `interface` of the namespace, on the machine's last core.
    ///
    /// # Errors
    /// When the packet socket or the thread cannot be made.
    pub fn start(netns: &Netns, interface: &str, frames: &[Vec<u8>]) -> Result<Self> {
        // EtherType 0: what comes back is not read, so it is not queued either.
        let socket = FrameSocket::open(netns, interface, 0)?;
        let batch: Vec<_> = frames.iter().cycle().take(BATCH.next_multiple_of(frames.len())).cloned().collect();
        let stop = Arc::new(AtomicBool::new(false));
        let quit = stop.clone();
        let send = move || {
            let _ = hogs::pin(hogs::cores() - 1);
            let mut sent = 0;
            while !quit.load(Ordering::Relaxed) {
                sent += socket.send_all(&batch).unwrap_or_default() as u64;
            }
            sent
        };
        let thread = thread::Builder::new().name("flood".into()).spawn(send)?;
        Ok(Self { stop, thread: Some(thread), began: Instant::now() })
    }

    /// Ends it, and says how many frames were sent in what time.
    ///
    /// # Errors
    /// When its thread panicked.
    pub fn stop(mut self) -> Result<(u64, Duration)> {
        let sent = self.end().context("the flood's thread panicked")?;
        Ok((sent, self.began.elapsed()))
    }

    fn end(&mut self) -> Option<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take()?.join().ok()
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.end();
    }
}
