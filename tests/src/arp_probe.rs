//! The client's question, asked all the time: who has the virtual address? Each question has its
//! own sender address, so that each answer names the question it belongs to and two answers to one
//! question cannot be mistaken for one to each of two.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use socket2::SockFilter;

use crate::answers::longest_silence;
use crate::frames::{ARP, FrameSocket};
use crate::netns::Netns;
use crate::wait;

/// How often it asks.
const PERIOD: Duration = Duration::from_millis(2);
/// Sender addresses: 192.0.2.150 to .249, so a question's address comes back after 200 ms.
const ASKERS: usize = 100;
const FIRST_ASKER: u8 = 150;

/// Questions in a row without an answer that show that nobody serves: 50 ms of asking.
const SILENCE: usize = 25;

/// One question and its answers.
#[derive(Clone, Debug)]
pub struct Question {
    /// When it was asked.
    pub asked: Instant,
    /// Who answered, and when.
    pub answers: Vec<(Instant, [u8; 6])>,
}

/// The prober, until dropped.
pub struct ArpProbe {
    questions: Arc<Mutex<Vec<Question>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl ArpProbe {
    /// Starts asking for `vip` from `interface`, whose MAC the caller knows.
    ///
    /// # Errors
    /// When the packet socket cannot be opened.
    pub fn start(client: &Netns, interface: &str, mac: [u8; 6], vip: Ipv4Addr) -> Result<Self> {
        let socket = FrameSocket::open(client, interface, ARP)?;
        socket.keep_only(&answers_to(mac))?;
        let questions = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (log, quit) = (questions.clone(), stop.clone());
        let thread = thread::Builder::new().name("arp-probe".into()).spawn(move || {
            while !quit.load(Ordering::Relaxed) {
                ask(&socket, mac, vip, &log);
            }
        })?;
        Ok(Self { questions, stop, thread: Some(thread) })
    }

    /// All questions since `since` that have had time to be answered.
    pub fn since(&self, since: Instant) -> Vec<Question> {
        let questions = self.questions.lock().unwrap_or_else(PoisonError::into_inner);
        questions[questions.partition_point(|question| question.asked < since)..].to_vec()
    }

    /// Asserts that `mac` goes on answering, and nobody else does, for a while that the protocol gives a meaning to.
    ///
    /// # Errors
    /// When somebody else answered, or nobody for 25 questions in a row, or there were too few answers to tell.
    pub fn answers_alone_for(&self, mac: [u8; 6], time: Duration) -> Result<()> {
        let since = Instant::now();
        // Whatever is under way by then is there when a later answer is.
        wait::until("time to pass, and an answer", || since.elapsed() >= time && self.owner() == Some(mac))?;
        let questions = self.since(since);
        let others = questions.iter().flat_map(|question| &question.answers).filter(|(_, by)| *by != mac).count();
        ensure!(others == 0, "another station answered {others} of {} questions", questions.len());
        let by_mac = answers_of(&questions, mac).len();
        ensure!(by_mac > SILENCE, "{by_mac} answers to {} questions prove nothing", questions.len());
        let silence = longest_silence(&questions);
        ensure!(silence < SILENCE, "{silence} of {} questions in a row were not answered", questions.len());
        Ok(())
    }

    /// Who answered last, within the last 50 ms.
    pub fn owner(&self) -> Option<[u8; 6]> {
        let recent = Instant::now().checked_sub(Duration::from_millis(50))?;
        let questions = self.since(recent);
        questions.iter().rev().find_map(|question| question.answers.last()).map(|(_, mac)| *mac)
    }
}

impl Drop for ArpProbe {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Answers of one station, in order of time.
pub fn answers_of(questions: &[Question], mac: [u8; 6]) -> Vec<Instant> {
    let all = questions.iter().flat_map(|question| &question.answers);
    let mut times: Vec<_> = all.filter(|(_, by)| *by == mac).map(|(at, _)| *at).collect();
    times.sort();
    times
}

/// Asks once and listens until the next question is due.
fn ask(socket: &FrameSocket, mac: [u8; 6], vip: Ipv4Addr, log: &Mutex<Vec<Question>>) {
    let asked = Instant::now();
    let number = {
        let mut questions = log.lock().unwrap_or_else(PoisonError::into_inner);
        questions.push(Question { asked, answers: Vec::new() });
        questions.len() - 1
    };
    let asker = FIRST_ASKER + (number % ASKERS) as u8;
    let _ = socket.send(&request(mac, [192, 0, 2, asker], vip.octets()));
    while let Some(left) = PERIOD.checked_sub(asked.elapsed()) {
        let Ok(Some(frame)) = socket.receive(left) else { break };
        if let Some((asker, by)) = answer(&frame, vip.octets()) {
            let mut questions = log.lock().unwrap_or_else(PoisonError::into_inner);
            record(&mut questions, asker, by);
        }
    }
}

fn record(questions: &mut [Question], asker: u8, by: [u8; 6]) {
    let Some(slot) = asker.checked_sub(FIRST_ASKER).map(usize::from) else { return };
    let newest = questions.iter_mut().enumerate().rev().take(ASKERS).find(|(number, _)| number % ASKERS == slot);
    if let Some((_, question)) = newest {
        question.answers.push((Instant::now(), by));
    }
}

/// Drops all but replies to this hardware address: an ARP flood must not blind the prober.
fn answers_to(mac: [u8; 6]) -> [SockFilter; 8] {
    let [a, b, c, d, e, f] = mac.map(u32::from);
    let load = |size, at| SockFilter::new((libc::BPF_LD | libc::BPF_ABS | size) as u16, 0, 0, at);
    let unless = |value, skip| SockFilter::new((libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, 0, skip, value);
    let end = |accepted| SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, accepted);
    [
        load(libc::BPF_H, 20),
        unless(2, 5),
        load(libc::BPF_W, 0),
        unless(a << 24 | b << 16 | c << 8 | d, 3),
        load(libc::BPF_H, 4),
        unless(e << 8 | f, 1),
        end(u32::MAX),
        end(0),
    ]
}

/// A broadcast request, written out: RFC 826.
pub fn request(mac: [u8; 6], sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(mac);
    frame.extend([0x08, 0x06, 0x00, 0x01, 0x08, 0x00, 6, 4, 0x00, 0x01]);
    frame.extend(mac);
    frame.extend(sender);
    frame.extend([0; 6]);
    frame.extend(target);
    frame.resize(60, 0);
    frame
}

/// The asker's last byte and the answering MAC, if the frame is an answer and no announcement.
fn answer(frame: &[u8], vip: [u8; 4]) -> Option<(u8, [u8; 6])> {
    let arp = frame.get(14..42)?;
    let is_answer = arp[6..8] == [0, 2] && arp[14..18] == vip && arp[24..27] == [192, 0, 2] && arp[24..28] != vip;
    is_answer.then(|| (arp[27], [arp[8], arp[9], arp[10], arp[11], arp[12], arp[13]]))
}
