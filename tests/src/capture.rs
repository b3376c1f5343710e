//! tcpdump as the judge of what is on the wire: an implementation that isn't ours says which
//! checksums are right, and which numbers a reset carries.
//!
//! Deliberately absent: parsing of frames. What is parsed is what tcpdump prints.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::netns::Netns;
use crate::wait;

/// A running tcpdump; dropping it stops it.
#[derive(Debug)]
pub struct Capture {
    child: Child,
    file: PathBuf,
    log: PathBuf,
}

/// What the judge says of the resets from one address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// TCP segments of the clients.
    pub segments: usize,
    /// Resets to them.
    pub resets: usize,
    /// What is wrong, one line for each reset that is.
    pub complaints: Vec<String>,
}

/// A TCP segment as tcpdump prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Segment<'a> {
    from: SocketAddrV4,
    to: SocketAddrV4,
    flags: &'a str,
    /// What tcpdump says of the TCP checksum.
    checksum: &'a str,
    seq: Option<u32>,
    ack: Option<u32>,
    payload_len: u32,
}

impl Capture {
    /// Starts to capture what clients send to `vip`, and the resets that come from there.
    ///
    /// # Errors
    /// When tcpdump cannot be started or does not get ready.
    pub fn start(netns: &Netns, directory: &Path, interface: &str, vip: Ipv4Addr) -> Result<Self> {
        let (file, log) = (directory.join("capture.pcap"), directory.join("tcpdump.log"));
        let filter = format!("tcp and (dst host {vip} or (src host {vip} and tcp[tcpflags] & tcp-rst != 0))");
        let mut command = netns.command("tcpdump");
        // As root to the end: the directory is ours. 64 MiB, and heads only: nothing may be missed.
        command.args(["-n", "-U", "-Z", "root", "-B", "65536", "-s", "160", "-i", interface, "-w"]).arg(&file);
        let child = command.arg(filter).stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log)?).spawn();
        let capture = Self { child: child.with_context(|| format!("starting {command:?}"))?, file, log };
        wait::until("tcpdump to listen", || capture.log().contains("listening on")).with_context(|| capture.log())?;
        Ok(capture)
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Stops it, and lets tcpdump say what it saw.
    ///
    /// # Errors
    /// When something was missed, or what tcpdump prints is not understood.
    pub fn judge(mut self, vip: Ipv4Addr) -> Result<Judgement> {
        self.stop()?;
        let log = self.log();
        ensure!(log.contains("\n0 packets dropped by kernel"), "tcpdump missed something:\n{log}");
        let mut command = Command::new("tcpdump");
        command.args(["-nn", "-vv", "-S", "-t", "-r"]).arg(&self.file);
        let mut reader = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let printed = reader.stdout.take().context("no pipe from tcpdump")?;
        let judgement = judge(BufReader::new(printed), vip);
        let status = reader.wait()?;
        ensure!(status.success(), "{command:?}: {status}");
        judgement
    }

    fn stop(&mut self) -> Result<()> {
        if let Some(pid) = Pid::from_raw(self.child.id() as i32) {
            let _ = kill_process(pid, Signal::INT);
        }
        wait::until("tcpdump to end", || matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        if self.stop().is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Holds each reset from `vip` against what the client had sent until then.
fn judge(printed: impl BufRead, vip: Ipv4Addr) -> Result<Judgement> {
    let mut judgement = Judgement::default();
    let mut sent: HashMap<(SocketAddrV4, SocketAddrV4), Sent> = HashMap::new();
    let mut lines = printed.lines();
    while let Some(head) = lines.next().transpose()? {
        // Two lines for each: IP, and indented what is in it.
        let body = lines.next().transpose()?.context("tcpdump printed half a segment")?;
        let Some(segment) = segment(&body) else { bail!("tcpdump printed what is not understood:\n{head}\n{body}") };
        if *segment.to.ip() == vip {
            judgement.segments += 1;
            sent.entry((segment.from, segment.to)).or_default().note(&segment);
            continue;
        }
        judgement.resets += 1;
        let known = sent.entry((segment.to, segment.from)).or_default();
        if let Some(complaint) = complaint(&head, &segment, known) {
            judgement.complaints.push(format!("{complaint}: {} {}", head.trim(), body.trim()));
        }
    }
    Ok(judgement)
}

/// What a client sent on one connection, or on several from the same port.
#[derive(Default)]
struct Sent {
    acks: HashSet<u32>,
    /// SEG.SEQ + SEG.LEN (RFC 9293 3.10.7.1) of the segments without ACK.
    ends: HashSet<u32>,
}

impl Sent {
    fn note(&mut self, segment: &Segment<'_>) {
        match (segment.ack, segment.seq) {
            (Some(ack), _) => drop(self.acks.insert(ack)),
            (None, Some(seq)) => {
                let flags = segment.flags.chars().filter(|flag| matches!(flag, 'S' | 'F')).count() as u32;
                self.ends.insert(seq.wrapping_add(segment.payload_len).wrapping_add(flags));
            }
            (None, None) => {}
        }
    }
}

/// What is wrong with a reset. RFC 9293 3.10.7.1: `<SEQ=SEG.ACK><CTL=RST>` answers a segment with
/// ACK, `<SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK>` one without.
fn complaint(head: &str, reset: &Segment<'_>, sent: &Sent) -> Option<&'static str> {
    let answers = match (reset.flags, reset.seq, reset.ack) {
        ("R", Some(seq), None) => sent.acks.contains(&seq),
        ("R.", Some(0), Some(ack)) => sent.ends.contains(&ack),
        _ => return Some("not a reset of RFC 9293 3.10.7.1"),
    };
    if head.contains("bad cksum") {
        Some("the IP header's checksum is wrong")
    } else if reset.checksum != "correct" {
        Some("the TCP checksum is not called correct")
    } else if !answers {
        Some("not a number that the client sent")
    } else {
        None
    }
}

/// `192.0.2.10.7 > 192.0.2.100.10001: Flags [R], cksum 0x1c2b (correct), seq 7, win 0, length 0`
fn segment(line: &str) -> Option<Segment<'_>> {
    let (ends, rest) = line.trim().split_once(": Flags [")?;
    let (from, to) = ends.split_once(" > ")?;
    let (flags, rest) = rest.split_once("], ")?;
    let checksum = rest.split_once('(')?.1.split_once([')', ' '])?.0;
    // Options have commas and may have numbers, but none of these words; "seq 1:13" has an end.
    let number = |word: &str| {
        let text = rest.split(", ").find_map(|part| part.trim().strip_prefix(word)?.strip_prefix(' '))?;
        text.split([':', ' ']).next()?.parse().ok()
    };
    Some(Segment {
        from: address(from)?,
        to: address(to)?,
        flags,
        checksum,
        seq: number("seq"),
        ack: number("ack"),
        payload_len: number("length")?,
    })
}

fn address(text: &str) -> Option<SocketAddrV4> {
    let (address, port) = text.rsplit_once('.')?;
    Some(SocketAddrV4::new(address.parse().ok()?, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
    const HEAD: &str = "IP (tos 0x0, ttl 64, id 0, offset 0, flags [DF], proto TCP (6), length 40)";
    const ACK: &str = "192.0.2.100.1025 > 192.0.2.10.7: Flags [P.], cksum 0x8a6e (correct), seq 100:112, ack 2000, \
                       win 502, options [nop,nop,TS val 5 ecr 6], length 12";
    const SYN: &str = "192.0.2.100.1026 > 192.0.2.10.7: Flags [S], cksum 0x8a6e (correct), seq 4294967295, win 64240, \
                       options [mss 1460,sackOK,TS val 5 ecr 0,nop,wscale 7], length 0";

    fn complaints(resets: &[(&str, &str)]) -> Vec<String> {
        let all = [(HEAD, ACK), (HEAD, SYN)].into_iter().chain(resets.iter().copied());
        let text: String = all.map(|(head, body)| format!("{head}\n    {body}\n")).collect();
        let judgement = judge(text.as_bytes(), VIP).unwrap();
        assert_eq!((judgement.segments, judgement.resets), (2, resets.len()));
        judgement.complaints
    }

    #[test]
    fn resets_that_answer_are_accepted() {
        let to_ack = "192.0.2.10.7 > 192.0.2.100.1025: Flags [R], cksum 0x1 (correct), seq 2000, win 0, length 0";
        let to_syn = "192.0.2.10.7 > 192.0.2.100.1026: Flags [R.], cksum 0x1 (correct), seq 0, ack 0, win 0, length 0";
        assert_eq!(complaints(&[(HEAD, to_ack), (HEAD, to_syn)]), [""; 0]);
    }

    #[test]
    fn each_fault_is_found() {
        let bad_ip = HEAD.replace("length 40)", "length 40, bad cksum 1 (->b6cd)!)");
        let good = "192.0.2.10.7 > 192.0.2.100.1025: Flags [R], cksum 0x1 (correct), seq 2000, win 0, length 0";
        for (head, body, fault) in [
            (bad_ip.as_str(), good.into(), "IP header"),
            (HEAD, good.replace("(correct)", "(incorrect -> 0x2)"), "TCP checksum"),
            (HEAD, good.replace("seq 2000", "seq 2001"), "not a number"),
            (HEAD, good.replace("100.1025", "100.1026"), "not a number"),
            (HEAD, good.replace("[R]", "[R.]").replace("2000,", "2000, ack 1,"), "RFC 9293"),
        ] {
            let found = complaints(&[(head, &body)]);
            assert!(found.len() == 1 && found[0].contains(fault), "{fault}: {found:?}");
        }
    }
}
