//! Ring 4: TCP connections that the new Active does not have. Every client is told, a silent one
//! too; a planned stop tells first; and what lives is never reset.
//!
//! What is measured is printed (`measured: ...`) and not judged. `FAILOVER_TEST_LONG=1` makes the
//! long observations: 60 s of keepalived's idle clients, 10 minutes of mixed load.

use std::env;
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use failover_sim::segment::{ACK, Segment};
use failover_tests::capture::Judgement;
use failover_tests::crowd::{Event, Member, Plan, Role, spread, tally};
use failover_tests::echo::TcpEcho;
use failover_tests::frames::FrameSocket;
use failover_tests::keepalived::{Instance, Keepalived};
use failover_tests::lab::{INTERFACE, VIP};
use failover_tests::stage::{CROWD, MANY, RESET, SERVICE, Stage, service_behind_nat, wait_for_peer_flows};
use failover_tests::wait;

const FIRST_ANSWER: &str = "the new node's first answer";

/// When each client's connection of `since` ended, and how, counted from `from`.
fn print_ends(whose: &str, members: &[Member], since: Instant, (from, what): (Instant, &str)) {
    for role in [Role::Busy, Role::Idle] {
        let all = || members.iter().filter(|member| member.role == role);
        let ends = || all().filter_map(|member| member.end(since));
        let times = ends().map(|(at, _)| at.saturating_duration_since(from));
        println!(
            "measured: {whose}: {} {role:?} clients, ended: {}; after {what}: {}",
            all().count(),
            tally(ends().map(|(_, end)| end)),
            spread(times)
        );
    }
}

fn ensure_judged_correct(judgement: &Judgement) -> Result<()> {
    println!("measured: tcpdump judged {} resets to {} segments", judgement.resets, judgement.segments);
    let some: Vec<_> = judgement.complaints.iter().take(5).collect();
    ensure!(some.is_empty(), "{} of {} resets: {some:#?}", judgement.complaints.len(), judgement.resets);
    Ok(())
}

fn is_long() -> bool {
    env::var_os("FAILOVER_TEST_LONG").is_some_and(|value| value == "1")
}

#[test]
fn after_a_cable_cut_every_client_learns() -> Result<()> {
    let Some(stage) = Stage::new("cable cut under load", &[])? else { return Ok(()) };
    let (_a, b) = stage.ours("")?;
    let capture = stage.capture()?;
    let crowd = stage.crowd(&Plan { busy: MANY, idle: MANY, ..CROWD })?;
    wait_for_peer_flows(&b, 2 * MANY)?;
    let checksum_errors = stage.checksum_errors()?;

    // From the same port, at once: the tickles that are still to come meet the new connections.
    crowd.reconnect();
    let cut = Instant::now();
    stage.lab.set_cable("edge-a", false)?;
    let told = crowd.wait_for_each("the end of each connection", |member| member.end(cut).is_some());
    let (first_answer, members) = (stage.first_answer_of_b(cut)?, crowd.members());
    println!("measured: ours: edge-b's first answer {:?} after the cut", first_answer - cut);
    print_ends("ours", &members, cut, (first_answer, FIRST_ANSWER));
    told.with_context(|| b.log())?;

    let is_back = |member: &Member| member.end(cut).is_some_and(|(at, _)| member.is_served(at));
    crowd.wait_for_each("a new connection", is_back)?;
    let later = Instant::now();
    // Twice the time in which the last tickles are answered.
    let ended_once = |member: &Member| member.ends(cut).count() == 1;
    wait::holds_for("new connections", Duration::from_secs(4), || crowd.all(ended_once))?;
    let talks = |member: &Member| member.role == Role::Idle || member.last_echo.is_some_and(|at| at > later);
    crowd.wait_for_each("echoes to the end", |member| member.is_connected() && talks(member))?;
    let (members, all) = (crowd.members(), 2 * usize::from(MANY));
    let ends = || members.iter().flat_map(|member| member.ends(cut)).map(|(_, end)| end);
    ensure!(ends().all(|end| end == RESET) && ends().count() == all, "not one reset each: {}", tally(ends()));
    ensure!(crowd.established()? == all && stage.echo_b.connections() == all);

    ensure!(stage.checksum_errors()? == checksum_errors, "the client's kernel refused checksums");
    let judgement = capture.judge(VIP)?;
    ensure!(judgement.resets >= all, "tcpdump saw {} resets", judgement.resets);
    ensure_judged_correct(&judgement)
}

#[test]
fn keepalived_leaves_idle_clients() -> Result<()> {
    let Some(stage) = Stage::new("keepalived under load", &["keepalived"])? else { return Ok(()) };
    let start = |node, priority| {
        let instance = Instance { version: 3, priority, advert_int: "0.1", more: "", global: "" };
        Keepalived::start(stage.lab.station(node)?, stage.lab.directory(), &instance)
    };
    let (_a, _b) = (start("edge-a", 150)?, start("edge-b", 100)?);
    stage.wait_for_owner(stage.mac_a)?;
    let capture = stage.capture()?;
    let crowd = stage.crowd(&Plan { busy: MANY, idle: MANY, ..CROWD })?;

    let cut = Instant::now();
    stage.lab.set_cable("edge-a", false)?;
    let first_answer = stage.first_answer_of_b(cut)?;
    println!("measured: keepalived: edge-b's first answer {:?} after the cut", first_answer - cut);
    let is_told = |member: &Member| member.end(cut).is_some();
    crowd.wait_for_each("the end of each busy connection", |member| member.role == Role::Idle || is_told(member))?;
    let time = Duration::from_secs(if is_long() { 60 } else { 3 });
    let remaining = time.saturating_sub(first_answer.elapsed());
    wait::holds_for("idle clients", remaining, || crowd.all(|member| member.role == Role::Busy || !is_told(member)))?;
    print_ends("keepalived", &crowd.members(), cut, (first_answer, FIRST_ANSWER));
    let (established, after) = (crowd.established()?, first_answer.elapsed());
    println!(
        "measured: keepalived: {established} clients are established {after:.1?} after the new node's first answer"
    );
    ensure!(established == usize::from(MANY) && stage.echo_b.connections() == 0);
    // The kernel's own resets: they show that the judge can read some.
    let judgement = capture.judge(VIP)?;
    ensure!(judgement.resets >= usize::from(MANY), "tcpdump saw {} resets", judgement.resets);
    ensure_judged_correct(&judgement)
}

#[test]
fn a_planned_stop_tells_clients_first() -> Result<()> {
    let Some(stage) = Stage::new("planned stop under load", &[])? else { return Ok(()) };
    let (mut a, b) = stage.ours("")?;
    let crowd = stage.crowd(&Plan { busy: 100, idle: 100, ..CROWD })?;
    wait_for_peer_flows(&b, 200)?;

    crowd.reconnect();
    let stopped = Instant::now();
    let status = a.stop()?;
    ensure!(status.success(), "exit status {status}");
    let first_answer = stage.first_answer_of_b(stopped)?;
    let is_back = |member: &Member| member.end(stopped).is_some_and(|(at, _)| member.is_served(at));
    let waited = crowd.wait_for_each("a reset and a new connection", is_back);
    let members = crowd.members();
    print_ends("planned stop", &members, stopped, (stopped, "the signal"));
    println!("measured: planned stop: edge-b's first answer {:?} after the signal", first_answer - stopped);
    let gaps = members.iter().filter_map(|member| Some(member.connected_at()? - member.end(stopped)?.0));
    println!("measured: planned stop: from the reset to the new connection: {}", spread(gaps));
    let events = members.iter().flat_map(|member| &member.events).filter(|(at, _)| *at >= stopped);
    println!("measured: planned stop: {}", tally(events.map(|(_, event)| *event)));
    waited.with_context(|| format!("edge-a:\n{}\nedge-b:\n{}", a.log(), b.log()))?;

    let ends = || members.iter().filter_map(|member| member.end(stopped));
    ensure!(ends().all(|(_, end)| end == RESET), "not only resets: {}", tally(ends().map(|(_, end)| end)));
    let late = ends().filter(|(at, _)| *at >= first_answer).count();
    ensure!(late == 0, "{late} clients were told only after edge-b answered");
    wait::until("200 connections on edge-b", || stage.echo_b.connections() == 200)
}

#[test]
fn live_flows_are_never_reset() -> Result<()> {
    let Some(stage) = Stage::new("live flows", &["nft"])? else { return Ok(()) };
    let (a, _b) = stage.ours("")?;
    let node = stage.lab.station("edge-a")?;
    // 2: always, not only when the queue is full.
    node.set_sysctl("ipv4/tcp_syncookies", "2")?;
    let (_service, _echo) = service_behind_nat(node)?;
    let other = SocketAddrV4::new(VIP, 9);
    let restarted = TcpEcho::start(node, other)?;

    let mixed = Plan { brief: 10, pause: Duration::from_millis(50), ..CROWD };
    let here = stage.crowd(&mixed)?;
    let translated = stage.crowd(&Plan { to: SocketAddrV4::new(VIP, 8080), first_port: 11_000, ..mixed })?;
    let listened = stage.crowd(&Plan { to: other, first_port: 12_000, ..mixed })?;
    let untouched = || {
        let is_brief = |member: &Member| member.role == Role::Brief;
        // Where the listener is restarted, the kernel itself refuses who comes at the wrong time.
        here.all(Member::is_undisturbed)
            && translated.all(Member::is_undisturbed)
            && listened.all(|member| is_brief(member) || member.is_undisturbed())
    };
    let half = Duration::from_secs(if is_long() { 300 } else { 5 });
    wait::holds_for("undisturbed connections", half, untouched)?;
    restarted.close_listener();
    wait::until("a refused client", || {
        !listened.all(|member| member.events.iter().all(|(_, event)| !matches!(event, Event::Refused(_))))
    })?;
    restarted.open_listener()?;
    wait::holds_for("undisturbed connections", half, untouched)?;

    let late = Instant::now();
    for crowd in [&here, &translated, &listened] {
        let active = |member: &Member| member.role == Role::Idle || member.is_served(late);
        crowd.wait_for_each("an echo at the end", active)?;
        println!("measured: {} echoes", crowd.members().iter().map(|member| member.echoes).sum::<u64>());
    }
    ensure!(untouched(), "an unexpected end");
    ensure!(node.kernel_counter("TcpExt", "SyncookiesRecv")? > 0, "no SYN cookies came back");
    for witness in ["tcp_socket", "tcp_handshake_seen"] {
        ensure!(a.counter(witness)? > 0, "{witness} is 0");
    }
    for counter in ["reset_peer_flow", "reset_unknown_flow", "stale_dropped", "reset_budget_spent"] {
        ensure!(a.counter(counter)? == 0, "{counter}: {}", a.counter(counter)?);
    }
    Ok(())
}

#[test]
fn a_flood_of_stale_segments_leaves_live_flows_alone() -> Result<()> {
    let Some(stage) = Stage::new("flood", &[])? else { return Ok(()) };
    let (a, _b) = stage.ours("resets_per_second = 1000\n")?;
    let crowd = stage.crowd(&Plan { busy: 50, idle: 0, ..CROWD })?;
    let socket = FrameSocket::open(stage.lab.station("client")?, INTERFACE, ETHER_TYPE_IPV4)?;
    let frames: Vec<_> = (0..10_000).map(|number| stale_segment(number).frame_to(stage.mac_a)).collect();

    let start = Instant::now();
    let mut sent = 0_u64;
    for frame in frames.iter().cycle().take_while(|_| start.elapsed() < Duration::from_secs(2)) {
        sent += u64::from(socket.send(frame).is_ok());
    }
    let end = Instant::now();
    println!("measured: {sent} stale segments in {:?}", end - start);
    crowd.wait_until_served(end)?;
    ensure!(crowd.all(|member| member.end(start).is_none()), "a live connection ended");
    let (resets, refused) = (a.counter("reset_unknown_flow")?, a.counter("reset_budget_spent")?);
    println!("measured: {resets} resets, {refused} segments above the budget");
    ensure!(resets > 0 && refused > 0, "{resets} resets, {refused} above the budget, of {sent}");
    Ok(())
}

const ETHER_TYPE_IPV4: u16 = 0x0800;

/// An ACK from somewhere in 203.0.113.0/24 to a connection that never was.
fn stale_segment(number: u16) -> Segment {
    let client = SocketAddrV4::new([203, 0, 113, (number % 250) as u8 + 1].into(), 20_000 + number);
    Segment { client, server: SERVICE, ..Segment::from_port(0, ACK) }
}
