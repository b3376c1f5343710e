//! Answers per second under a flood, counted where they arrive.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::frames::{Flood, judge};
use super::generator::{Generator, Shared, Source};
use super::pair::{Pair, Side};
use crate::fixtures::CLIENT_MAC;
use crate::frames::FrameSocket;
use crate::hogs::{Class, schedule};

/// Some time of a flood.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sample {
    /// How long, in seconds.
    pub time_s: f64,
    /// Frames that the generator sent, or would have, had there been room for them.
    pub sent: u64,
    /// Answers that came to the client's interface.
    pub answers: u64,
    /// How long the thread that receives on the node ran, in seconds.
    pub responder_s: f64,
    /// Answers that were looked at: all were right. The reflector's are not looked at.
    pub judged: u64,
}

impl Sample {
    /// Answers in a second.
    pub fn rate(&self) -> f64 {
        self.answers as f64 / self.time_s
    }

    /// Frames sent in a second.
    pub fn offered(&self) -> f64 {
        self.sent as f64 / self.time_s
    }

    /// The part of its core that the responder had.
    pub fn busy(&self) -> f64 {
        self.responder_s / self.time_s
    }

    /// The responder's time for an answer, in nanoseconds.
    pub fn cost_ns(&self) -> f64 {
        self.responder_s * 1e9 / self.answers as f64
    }
}

/// Floods the pair with as much as the source gives, for `time` after a while of the same.
///
/// # Errors
/// When nothing is answered, or one of the answers that were looked at is wrong.
pub fn sample(pair: &mut Pair, flood: Flood, source: Source, time: Duration) -> Result<Sample> {
    pair.client.load(flood)?;
    pair.client.set_pace(0, source == Source::LiveFrames)?;
    // As a network card's would: before all that is scheduled.
    pair.schedule_responder(Class::Fifo(1))?;
    let seen = pair.client.socket(flood)?;
    // The flood leaves no core to what is scheduled as usual.
    schedule(None, Class::Fifo(2))?;
    let sample = flooded(pair, flood, source, time);
    pair.client.set_pace(0, false)?;
    schedule(None, Class::Normal)?;
    let mut sample = sample?;
    ensure!(sample.answers > 0, "{} answers no {}", pair.side.title(), flood.title());
    if pair.side != Side::Reflector {
        sample.judged = look_at(&seen, flood)?;
    }
    Ok(sample)
}

fn flooded(pair: &Pair, flood: Flood, source: Source, time: Duration) -> Result<Sample> {
    let shared = Shared::default();
    thread::scope(|scope| {
        let generator = Generator::start(scope, &pair.client, flood, source, &shared)?;
        let began = generator.wait();
        thread::sleep(time / 8);
        let look = || Ok((Instant::now(), generator.sent()?, pair.client.answers(flood)?, pair.responder_ns()?));
        let before: Result<_> = look();
        thread::sleep(time);
        let after = look();
        generator.stop()?;
        began?;
        let ((from_at, sent, answers, ran_ns), after) = (before?, after?);
        anyhow::Ok(Sample {
            time_s: (after.0 - from_at).as_secs_f64(),
            sent: after.1 - sent,
            answers: after.2 - answers,
            responder_s: (after.3 - ran_ns) as f64 / 1e9,
            judged: 0,
        })
    })
}

/// Looks at the answers that the counter let pass, and says how many there were.
fn look_at(seen: &FrameSocket, flood: Flood) -> Result<u64> {
    let (mut judged, answers) = (0, flood.answers());
    while let Some(frame) = seen.receive(Duration::ZERO)? {
        if frame.starts_with(&CLIENT_MAC) {
            judge(&answers, &frame)?;
            judged += 1;
        }
    }
    ensure!(judged > 0, "none of the answers to {} was seen", flood.title());
    Ok(judged)
}
