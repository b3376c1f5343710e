//! The lab's story: two nodes and a client on this machine, everything that can happen to the
//! Active, and what the client saw of it. Started by `cargo xtask lab`.
//!
//! Deliberately absent: a pass or fail on a time. What is judged is who answers.

use std::io::ErrorKind;
use std::net::SocketAddrV4;
use std::os::unix::process::CommandExt;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use failover_tests::answers;
use failover_tests::arp_probe::{self, ArpProbe};
use failover_tests::client::{Client, EchoService, TCP_PORT, TcpEvent};
use failover_tests::crowd::{Crowd, End, Member, Plan};
use failover_tests::daemon::Daemon;
use failover_tests::lab::{Lab, VIP};
use failover_tests::requirements::Built;
use failover_tests::wait;
use rustix::process::Signal;

/// Namespaces of the lab that stays.
const PREFIX: &str = "failover-";
/// The story's: it may run beside one that stays.
const STORY_PREFIX: &str = "failover-story-";
/// Clients that say nothing.
const IDLE: u16 = 20;
/// Time in which a second owner would show itself: three adverts.
const SETTLE: Duration = Duration::from_millis(300);

/// Two nodes and a client in network namespaces.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Subcommand)]
enum Verb {
    /// Plays everything that can happen, and measures.
    Story,
    /// Makes the lab, starts both nodes and leaves them running.
    Up,
    /// Stops and deletes what `up` made.
    Down,
    /// A shell on edge-a, edge-b or client.
    Shell {
        /// Which one.
        node: String,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().verb.unwrap_or(Verb::Story) {
        Verb::Story => story(),
        Verb::Up => up(),
        Verb::Down => down(),
        Verb::Shell { node } => shell(&node),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn up() -> Result<()> {
    let built = Built::from_env()?;
    let mut lab = Lab::named(&built, PREFIX).context("making the lab (`cargo xtask lab down` deletes an old one)")?;
    let mut daemons = [lab.replicating_daemon("edge-a", 150, "")?, lab.replicating_daemon("edge-b", 100, "")?];
    for daemon in &mut daemons {
        daemon.start_and_wait()?;
    }
    wait::until("edge-a to be Active", || daemons[0].state(0).is_ok_and(|state| state == "Active"))?;
    for daemon in daemons {
        println!("{}: failover run --config {}", daemon.name(), daemon.config().display());
        daemon.leave()?;
    }
    lab.keep();
    println!(
        "the lab is up: {VIP} is answered by edge-a (192.0.2.1) or edge-b (192.0.2.2)\n\
         try: cargo xtask lab shell client, then: arping -I eth0 {VIP}\n\
         \x20    cargo xtask lab shell edge-a, then: failover status --pin-path $FAILOVER_PIN_PATH\n\
         end: cargo xtask lab down"
    );
    Ok(())
}

fn down() -> Result<()> {
    let lab = Lab::existing(&Built::from_env()?, PREFIX);
    for name in ["edge-a", "edge-b"] {
        drop(Daemon::left(&Built::from_env()?, lab.station(name)?, lab.directory()));
    }
    lab.delete()?;
    println!("the lab is down");
    Ok(())
}

fn shell(node: &str) -> Result<()> {
    let built = Built::from_env()?;
    let lab = Lab::existing(&built, PREFIX);
    let netns = lab.station(node).context("there are edge-a, edge-b and client")?;
    let directory = built.failover.parent().context("a command without a directory")?;
    let path = format!("{}:{}", directory.display(), std::env::var("PATH").unwrap_or_default());
    let mut command = netns.command(std::env::var("SHELL").unwrap_or_else(|_| "sh".into()));
    command.env("PATH", path).env("FAILOVER_PIN_PATH", format!("/sys/fs/bpf/{}", netns.name()));
    Err(command.exec()).context("starting a shell (is the lab up?)")
}

/// What came of one event.
struct Outcome {
    event: &'static str,
    owner: &'static str,
    outage: Duration,
    first_answer: Duration,
    duplicates: usize,
    old_after_new: usize,
    connection: String,
    idle: String,
}

struct Story {
    lab: Lab,
    a: Daemon,
    b: Daemon,
    arp: ArpProbe,
    client: Client,
    /// Clients with a connection that they say nothing on.
    idle: Crowd,
    _services: [EchoService; 2],
    start: Instant,
    outcomes: Vec<Outcome>,
}

fn story() -> Result<()> {
    let mut story = Story::begin()?;
    let played = story.play();
    story.print_table();
    played?;
    let wrong: Vec<_> =
        story.outcomes.iter().filter(|outcome| outcome.duplicates + outcome.old_after_new > 0).collect();
    if !wrong.is_empty() {
        let events: Vec<_> = wrong.iter().map(|outcome| outcome.event).collect();
        bail!("two nodes answered for {VIP} after: {}", events.join(", "));
    }
    println!("\nexactly one node answered for {VIP} after each event, and never two");
    Ok(())
}

impl Story {
    fn begin() -> Result<Self> {
        let built = Built::from_env()?;
        let start = Instant::now();
        say(start, "making two nodes and a client, behind a bridge");
        let lab = Lab::named(&built, STORY_PREFIX)?;
        let mut a = lab.replicating_daemon("edge-a", 150, "")?;
        let mut b = lab.replicating_daemon("edge-b", 100, "")?;
        say(
            start,
            "loading on edge-a (priority 150) and edge-b (priority 100), adverts every 100 ms, connections replicated",
        );
        a.start_and_wait()?;
        b.start_and_wait()?;
        let services =
            [EchoService::start(lab.station("edge-a")?, VIP)?, EchoService::start(lab.station("edge-b")?, VIP)?];
        let arp = lab.arp_probe()?;
        let client = Client::start(lab.station("client")?, VIP)?;
        let since = Instant::now();
        let plan = Plan {
            to: SocketAddrV4::new(VIP, TCP_PORT),
            first_port: 20_000,
            busy: 0,
            idle: IDLE,
            brief: 0,
            pause: Duration::from_millis(20),
        };
        let idle = Crowd::start(lab.station("client")?, &plan)?;
        idle.wait_until_served(since)?;
        idle.reconnect();
        Ok(Self { lab, a, b, arp, client, idle, _services: services, start, outcomes: Vec::new() })
    }

    fn play(&mut self) -> Result<()> {
        let mac_a = self.lab.mac("edge-a")?;
        wait::until("edge-a to answer and the client to be served", || {
            self.arp.owner() == Some(mac_a) && self.client.is_served(SETTLE) && self.client.is_connected()
        })?;
        say(self.start, &format!("{VIP} is answered by edge-a; the client asks every 2 ms (ARP) and 1 ms (UDP)"));
        self.wait_until_replicated()?;
        self.event("cable of the Active cut", "edge-b", |story| story.lab.set_cable("edge-a", false))?;
        self.event("cable back, preemption", "edge-a", |story| story.lab.set_cable("edge-a", true))?;
        self.wait_until_replicated()?;
        self.event("kill -9 of its controller", "edge-b", |story| story.a.kill())?;
        self.event("started again, preemption", "edge-a", |story| story.a.start())?;
        self.wait_until_replicated()?;
        let stopped = Instant::now();
        self.event("SIGSTOP of its controller", "edge-b", |story| story.a.signal(Signal::STOP))?;
        wait::until("a second of SIGSTOP", || stopped.elapsed() >= Duration::from_secs(1))?;
        self.event("SIGCONT, preemption", "edge-a", |story| story.a.signal(Signal::CONT))?;
        self.event("planned stop (SIGTERM)", "edge-b", |story| story.a.stop().map(drop))?;
        self.event("started again, preemption", "edge-a", |story| story.a.start())
    }

    /// Waits until edge-b, which is about to take over, has been told of the connections of edge-a.
    fn wait_until_replicated(&self) -> Result<()> {
        let known = |daemon: &Daemon| daemon.status().ok().and_then(|status| status["flows"]["peers"].as_u64());
        wait::until("edge-b to know the connections of edge-a", || known(&self.b) >= Some(u64::from(IDLE)))
    }

    /// Does it, waits until the new owner answers and serves, and notes what the client saw.
    fn event(
        &mut self,
        event: &'static str,
        owner: &'static str,
        act: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<()> {
        say(self.start, &format!("== {event}"));
        let (new, old) = (self.lab.mac(owner)?, self.lab.mac(if owner == "edge-a" { "edge-b" } else { "edge-a" })?);
        let since = Instant::now();
        act(self)?;
        let arp = &self.arp;
        wait::until(&format!("{owner} to answer ARP"), || arp.owner() == Some(new))?;
        let answering = Instant::now();
        let client = &self.client;
        wait::until("the client to be served again", || {
            answering.elapsed() > SETTLE && client.is_served(Duration::from_millis(20)) && client.is_connected()
        })?;
        self.idle.wait_for_each("a reset and a new connection", |member| {
            member.end(since).is_some() && member.is_connected()
        })?;
        let questions = self.arp.since(since);
        let by_new = arp_probe::answers_of(&questions, new);
        let first = *by_new.first().context("no answer of the new owner")?;
        let outcome = Outcome {
            event,
            owner,
            outage: self.client.outage(since),
            first_answer: first - since,
            duplicates: answers::doubles(&questions).count,
            old_after_new: arp_probe::answers_of(&questions, old).iter().filter(|at| **at > first).count(),
            connection: fate(&self.client, since),
            idle: fates(&self.idle.members(), since),
        };
        say(
            self.start,
            &format!(
                "   {owner} answers {}, first {} after the event; client outage {}; double answers {}; busy connection {}; \
                 idle ones {}",
                VIP,
                ms(outcome.first_answer),
                ms(outcome.outage),
                outcome.duplicates,
                outcome.connection,
                outcome.idle
            ),
        );
        self.outcomes.push(outcome);
        self.show(owner)
    }

    /// Both nodes' status, and the new owner's entry as bpftool shows it.
    fn show(&self, owner: &str) -> Result<()> {
        for daemon in [&self.a, &self.b] {
            match daemon.status_table() {
                Ok(table) => println!("{}", indent(&table)),
                Err(_) => println!("{}", indent(&format!("node {}: nothing loaded", daemon.name()))),
            }
        }
        let daemon = if owner == "edge-a" { &self.a } else { &self.b };
        let dump = daemon.map_dump("VIRTUAL_ROUTERS")?;
        println!("  $ bpftool map dump -j pinned {}/VIRTUAL_ROUTERS", daemon.pin_path().display());
        println!("{}\n", indent(&dump[0]["formatted"].to_string()));
        Ok(())
    }

    fn print_table(&self) {
        println!(
            "\n{:<28} {:<8} {:>13} {:>14} {:>7} {:>9}  {:<28}  idle connections",
            "event", "owner", "client outage", "first answer", "double", "old later", "busy connection"
        );
        for outcome in &self.outcomes {
            println!(
                "{:<28} {:<8} {:>13} {:>14} {:>7} {:>9}  {:<28}  {}",
                outcome.event,
                outcome.owner,
                ms(outcome.outage),
                ms(outcome.first_answer),
                outcome.duplicates,
                outcome.old_after_new,
                outcome.connection,
                outcome.idle
            );
        }
        println!(
            "client outage: longest time without an answer to UDP, asked every 1 ms. first answer: of the new owner to ARP, after \
             the event.\ndouble: questions that both nodes answered. old later: answers of the old owner after the new one's first.\n\
             busy connection: writes every 5 ms. idle connections: say nothing; {IDLE} clients, the last one's time."
        );
    }
}

/// What became of the connection that always has something to say.
fn fate(client: &Client, since: Instant) -> String {
    let events = client.tcp_events(since);
    let ended = events.iter().find_map(|(at, event)| match event {
        TcpEvent::Ended(kind) => Some((*at - since, *kind)),
        TcpEvent::Connected => None,
    });
    match ended {
        Some((after, ErrorKind::ConnectionReset)) => format!("reset after {}", ms(after)),
        Some((after, kind)) => format!("ended after {} ({kind})", ms(after)),
        None => "lives".into(),
    }
}

/// And of those that say nothing.
fn fates(members: &[Member], since: Instant) -> String {
    let ends: Vec<_> = members.iter().filter_map(|member| member.end(since)).collect();
    let reset = ends.iter().filter(|(_, end)| *end == End::Errno(libc::ECONNRESET)).count();
    let last = ends.iter().map(|(at, _)| *at - since).max().unwrap_or_default();
    format!("{reset} of {} reset, by {}", members.len(), ms(last))
}

fn say(start: Instant, text: &str) {
    println!("[{:>7.3} s] {text}", start.elapsed().as_secs_f64());
}

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}
