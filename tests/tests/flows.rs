//! Ring 4: what a node knows of TCP connections, and from whom: over a crash of its controller, for connections that begin
//! or end elsewhere, when another node preempts it, and when somebody else would tell it.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use failover_tests::crowd::{Crowd, Member, Plan, Role, spread};
use failover_tests::daemon::Daemon;
use failover_tests::echo::TcpEcho;
use failover_tests::lab::VIP;
use failover_tests::stage::{CROWD, RESET, Stage, WHILE, service_behind_nat, wait_for_peer_flows};
use failover_tests::testrun::now_ns;
use failover_tests::wait;
use failover_userspace::flows::memory::Memory;

fn number(daemon: &Daemon, table: &str, name: &str) -> Result<u64> {
    daemon.status()?[table][name].as_u64().with_context(|| format!("no {table}.{name} in the status"))
}

fn ensure_no_reset(daemon: &Daemon) -> Result<()> {
    for counter in ["reset_peer_flow", "reset_unknown_flow", "stale_dropped", "reset_budget_spent"] {
        ensure!(daemon.counter(counter)? == 0, "{counter}: {}", daemon.counter(counter)?);
    }
    Ok(())
}

#[test]
fn after_a_crash_the_next_controller_knows_what_lives() -> Result<()> {
    let Some(stage) = Stage::new("restart under load", &["nft"])? else { return Ok(()) };
    // It took over, so that what it forgot would be stale; and is alone by now, so that nobody takes over from it.
    let (mut a, mut b) = stage.ours("")?;
    ensure!(b.stop()?.success(), "{}", b.log());
    let (_service, _echo) = service_behind_nat(stage.lab.station("edge-a")?)?;
    let here = stage.crowd(&CROWD)?;
    let behind = stage.crowd(&Plan { to: SocketAddrV4::new(VIP, 8080), first_port: 11_000, ..CROWD })?;
    wait::until("100 connections to be known", || number(&a, "flows", "own").is_ok_and(|own| own == 100))?;
    let handshakes = number(&a, "flows", "handshakes_seen")?;
    ensure!(handshakes == 200, "{handshakes} handshakes were seen");

    a.kill()?;
    a.start_and_wait()?;
    let restarted = Instant::now();
    stage.wait_for_owner(stage.mac_a)?;
    for crowd in [&here, &behind] {
        crowd.wait_for_each("an echo after the restart", |member| {
            member.is_undisturbed() && (member.role == Role::Idle || member.is_served(restarted))
        })?;
    }
    wait::holds_for("undisturbed connections", WHILE, || {
        here.all(Member::is_undisturbed) && behind.all(Member::is_undisturbed)
    })?;
    ensure!(number(&a, "flows", "own")? == 100, "{}", a.status()?["flows"]);
    ensure!(number(&a, "flows", "handshakes_seen")? == handshakes, "{}", a.status()?["flows"]);
    ensure!(a.counter("tcp_handshake_seen")? > 0, "nothing came for the service behind the node");
    ensure_no_reset(&a)
}

#[test]
fn handshakes_are_forgotten_when_their_connections_are_long_over() -> Result<()> {
    let Some(stage) = Stage::new("handshakes that are over", &["nft"])? else { return Ok(()) };
    let (a, _b) = stage.ours("")?;
    let (_service, _echo) = service_behind_nat(stage.lab.station("edge-a")?)?;
    let over = stage.crowd(&CROWD)?;
    let behind = stage.crowd(&Plan { to: SocketAddrV4::new(VIP, 8080), first_port: 11_000, ..CROWD })?;
    drop(over);
    wait::until("edge-a to have none", || number(&a, "flows", "own").is_ok_and(|own| own == 0))?;
    let count = || a.map_dump("HANDSHAKES").map(|dump| dump.as_array().map_or(0, Vec::len));
    let mut memory = Memory::open(a.pin_path())?;
    memory.forget_handshakes(now_ns())?;
    ensure!(count()? == 200, "{} are left", count()?);
    // Two minutes later those that ended are gone, and those of the service behind the node, which go on, are not.
    memory.forget_handshakes(now_ns() + 121_000_000_000)?;
    ensure!(count()? == 100, "{} are left", count()?);
    wait::holds_for("undisturbed connections", WHILE, || behind.all(Member::is_undisturbed))?;
    ensure_no_reset(&a)
}

#[test]
fn connections_made_from_the_address_live() -> Result<()> {
    let Some(stage) = Stage::new("connections from the address", &["nft"])? else { return Ok(()) };
    let (a, _b) = stage.ours("")?;
    let (service, _echo) = service_behind_nat(stage.lab.station("edge-a")?)?;
    let outside = SocketAddrV4::new([192, 0, 2, 100].into(), 9);
    let _outside = TcpEcho::start(stage.lab.station("client")?, outside)?;
    let since = Instant::now();
    let crowd = Crowd::start(&service, &Plan { to: outside, brief: 5, ..CROWD })?;
    crowd.wait_until_served(since)?;
    wait::holds_for("undisturbed connections", WHILE, || crowd.all(Member::is_undisturbed))?;
    // Of each connection that lasts, the first answer; and the witness that what came was looked at.
    ensure!(number(&a, "flows", "handshakes_seen")? >= 100, "{}", a.status()?["flows"]);
    ensure!(a.counter("tcp_handshake_seen")? > 100, "{}", a.status()?["counters"]);
    ensure_no_reset(&a)
}

#[test]
fn a_preempted_node_resets_its_own_connections() -> Result<()> {
    let Some(stage) = Stage::new("preemption under load", &[])? else { return Ok(()) };
    let mut b = stage.lab.replicating_daemon("edge-b", 100, "")?;
    b.start_and_wait()?;
    stage.wait_for_owner(stage.mac_b)?;
    let crowd = stage.crowd(&CROWD)?;
    crowd.reconnect();
    let mut a = stage.lab.replicating_daemon("edge-a", 150, "")?;
    let started = Instant::now();
    a.start_and_wait()?;
    stage.wait_for_owner(stage.mac_a)?;
    let is_back = |member: &Member| member.end(started).is_some_and(|(at, _)| member.is_served(at));
    let waited = crowd.wait_for_each("a reset and a new connection", is_back);
    waited.with_context(|| format!("edge-a:\n{}\nedge-b:\n{}", a.log(), b.log()))?;
    let members = crowd.members();
    let gaps = members.iter().filter_map(|member| Some(member.connected_at()? - member.end(started)?.0));
    println!("measured: preemption: from the reset to the new connection: {}", spread(gaps));
    ensure!(members.iter().all(|member| member.end(started).is_some_and(|(_, end)| end == RESET)), "not only resets");
    wait::until("100 connections on edge-a", || stage.echo_a.connections() == 100)?;
    wait::until("edge-b to have none", || number(&b, "flows", "own").is_ok_and(|own| own == 0))?;
    ensure!(number(&b, "flows", "destroyed")? > 0, "{}", b.status()?["flows"]);
    wait_for_peer_flows(&b, 100)
}

#[test]
fn who_has_another_key_is_not_believed() -> Result<()> {
    let Some(stage) = Stage::new("replication with another key", &[])? else { return Ok(()) };
    let mut a = stage.lab.replicating_daemon("edge-a", 150, "")?;
    let mut b = stage.lab.replicating_daemon("edge-b", 100, "")?;
    a.start_and_wait()?;
    stage.wait_for_owner(stage.mac_a)?;
    let _crowd = stage.crowd(&CROWD)?;
    fs::write(stage.lab.directory().join("replication.key"), "another key than the one before, as long")?;
    b.start_and_wait()?;
    for daemon in [&a, &b] {
        let refused = || number(daemon, "flows", "replication_refused").is_ok_and(|refused| refused > 1);
        wait::until("refused connections", refused).with_context(|| daemon.log())?;
    }
    ensure!(number(&a, "flows", "own")? == 100 && number(&b, "flows", "peers")? == 0, "{}", b.status()?["flows"]);
    let peer = &b.status()?["replication"][0];
    ensure!(peer["sending"] == false && peer["receiving"] == false, "{peer}");
    Ok(())
}

#[test]
fn a_stranger_is_turned_away() -> Result<()> {
    let Some(stage) = Stage::new("a stranger at the replication's port", &[])? else { return Ok(()) };
    let (a, _b) = stage.ours("")?;
    let before = number(&a, "flows", "replication_refused")?;
    let address = SocketAddrV4::new([192, 0, 2, 1].into(), 7700);
    let mut stranger = stage.lab.station("client")?.enter(|| Ok(TcpStream::connect(address)?))?;
    let _ = stranger.write_all(b"let me in");
    let closed = match stranger.read(&mut [0; 64]) {
        Ok(len) => len == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    };
    ensure!(closed, "it was answered");
    wait::until("a refusal to be counted", || {
        number(&a, "flows", "replication_refused").is_ok_and(|refused| refused > before)
    })
}
