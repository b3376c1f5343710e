//! Ring 4: connections through what goes wrong with links and nodes. Nothing that lives may end, and who is to be told is
//! told.

use std::net::SocketAddrV4;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use failover_tests::crowd::{Crowd, Member, Plan, Role, tally};
use failover_tests::daemon::Daemon;
use failover_tests::lab::VIP;
use failover_tests::netns::finish;
use failover_tests::stage::{CROWD, RESET, Stage, WHILE, service_behind_nat, wait_for_peer_flows};
use failover_tests::wait;

/// Waits until all go on: the busy ones served, nobody disturbed, and that for a while.
fn ensure_all_live(crowds: &[&Crowd], since: Instant) -> Result<()> {
    let goes_on = |member: &Member| member.is_undisturbed() && (member.role == Role::Idle || member.is_served(since));
    for crowd in crowds {
        crowd.wait_for_each("an echo, and no end", goes_on)?;
    }
    wait::holds_for("undisturbed connections", WHILE, || crowds.iter().all(|crowd| crowd.all(Member::is_undisturbed)))
}

fn ensure_all_reset(crowd: &Crowd, since: Instant) -> Result<()> {
    crowd.wait_for_each("a reset", |member| member.end(since).is_some())?;
    let members = crowd.members();
    let ends = || members.iter().filter_map(|member| member.end(since).map(|(_, end)| end));
    ensure!(ends().all(|end| end == RESET), "not only resets: {}", tally(ends()));
    Ok(())
}

/// Both nodes with these changes to their configurations, edge-a Active by a takeover.
fn changed_pair(stage: &Stage, changes: &[(&str, &str)]) -> Result<(Daemon, Daemon)> {
    let mut b = stage.lab.replicating_daemon("edge-b", 100, "")?;
    let mut a = stage.lab.replicating_daemon("edge-a", 150, "")?;
    for (from, to) in changes {
        a.edit_config(from, to)?;
        b.edit_config(from, to)?;
    }
    b.start_and_wait()?;
    stage.wait_for_owner(stage.mac_b)?;
    a.start_and_wait()?;
    stage.wait_for_owner(stage.mac_a)?;
    Ok((a, b))
}

/// A lone Active, and connections to it and to a service behind it.
fn lone(stage: &Stage) -> Result<Daemon> {
    let mut a = stage.lab.replicating_daemon("edge-a", 150, "")?;
    a.start_and_wait()?;
    stage.wait_for_owner(stage.mac_a)?;
    Ok(a)
}

const BEHIND: Plan = Plan { to: SocketAddrV4::new(VIP, 8080), first_port: 11_000, ..CROWD };

#[test]
fn a_flap_of_a_lone_nodes_link_ends_nothing() -> Result<()> {
    let Some(stage) = Stage::new("a lone node's link flaps", &["nft"])? else { return Ok(()) };
    let a = lone(&stage)?;
    let (_service, _echo) = service_behind_nat(stage.lab.station("edge-a")?)?;
    let (here, behind) = (stage.crowd(&CROWD)?, stage.crowd(&BEHIND)?);
    for _ in 0..3 {
        stage.lab.set_cable("edge-a", false)?;
        wait::until("Fault on edge-a", || a.state(0).is_ok_and(|state| state == "Fault"))?;
        stage.lab.set_cable("edge-a", true)?;
        wait::until("edge-a to be Active", || a.state(0).is_ok_and(|state| state == "Active"))?;
    }
    let back = Instant::now();
    ensure_all_live(&[&here, &behind], back).with_context(|| a.log())?;
    // New connections are taken, too.
    let _more = stage.crowd(&Plan { first_port: 12_000, ..CROWD })?;
    ensure!(a.status()?["flows"]["destroyed"] == 0, "{}", a.status()?["flows"]);
    Ok(())
}

#[test]
fn what_lives_behind_a_lone_node_survives_its_restart() -> Result<()> {
    let Some(stage) = Stage::new("a lone node restarts", &["nft"])? else { return Ok(()) };
    let mut a = lone(&stage)?;
    let (_service, _echo) = service_behind_nat(stage.lab.station("edge-a")?)?;
    let behind = stage.crowd(&BEHIND)?;
    ensure!(a.stop()?.success(), "{}", a.log());
    a.start_and_wait()?;
    stage.wait_for_owner(stage.mac_a)?;
    let restarted = Instant::now();
    ensure_all_live(&[&behind], restarted).with_context(|| a.log())?;
    ensure!(a.counter("tcp_unproven")? > 0 && a.counter("reset_unknown_flow")? == 0, "{}", a.status()?["counters"]);
    Ok(())
}

#[test]
fn silent_clients_are_told_when_only_their_link_is_lost() -> Result<()> {
    let Some(stage) = Stage::new("replication on another link", &[])? else { return Ok(()) };
    let (a, b) = (stage.lab.station("edge-a")?, stage.lab.station("edge-b")?);
    a.ip(&["link", "add", "eth1", "type", "veth", "peer", "name", "eth1", "netns", b.name()])?;
    for (node, address) in [(a, "10.0.0.1/24"), (b, "10.0.0.2/24")] {
        node.ip(&["address", "add", address, "dev", "eth1"])?;
        node.ip(&["link", "set", "eth1", "up"])?;
    }
    let elsewhere = [("\"192.0.2.1:7700\"", "\"10.0.0.1:7700\""), ("\"192.0.2.2:7700\"", "\"10.0.0.2:7700\"")];
    let (_a, b) = changed_pair(&stage, &elsewhere)?;
    let crowd = stage.crowd(&CROWD)?;
    wait_for_peer_flows(&b, 100)?;
    let cut = Instant::now();
    stage.lab.set_cable("edge-a", false)?;
    stage.wait_for_owner(stage.mac_b)?;
    ensure_all_reset(&crowd, cut).with_context(|| format!("{}\n{}", b.status().unwrap_or_default(), b.log()))
}

#[test]
fn within_the_hold_nobody_is_told_and_after_it_everybody() -> Result<()> {
    let Some(stage) = Stage::new("hold", &[])? else { return Ok(()) };
    let (_a, b) = changed_pair(&stage, &[("action = \"reset\"", "action = \"reset\"\nhold = \"2s\"")])?;
    let crowd = stage.crowd(&CROWD)?;
    wait_for_peer_flows(&b, 100)?;
    let cut = Instant::now();
    stage.lab.set_cable("edge-a", false)?;
    stage.wait_for_owner(stage.mac_b)?;
    ensure_all_reset(&crowd, cut).with_context(|| b.log())?;
    let took_over_ms = b.status()?["virtual_routers"][0]["since_unix_ms"].as_u64().context("no date")?;
    let first = crowd.members().iter().filter_map(|member| member.end(cut)).map(|(at, _)| at).min();
    let first = first.context("nobody was reset")?;
    let now_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis() as u64;
    let first_ms = now_ms - first.elapsed().as_millis() as u64;
    // Rounding, of three dates: not a time that is judged, but an order of events.
    ensure!(first_ms + 5 >= took_over_ms + 2_000, "reset {} ms after the takeover", first_ms - took_over_ms);
    ensure!(b.counter("stale_held")? > 0, "busy clients said nothing: {}", b.status()?["counters"]);
    Ok(())
}

#[test]
fn in_generic_mode_every_client_learns_and_no_checksum_is_wrong() -> Result<()> {
    let Some(stage) = Stage::new("generic mode", &[])? else { return Ok(()) };
    // The switch finishes checksums that were left to hardware, as a real network card would.
    finish(stage.lab.switch().command("ethtool").args(["-K", "client", "tx", "off"]))?;
    let (_a, b) = changed_pair(&stage, &[("xdp_mode = \"native\"", "xdp_mode = \"generic\"")])?;
    let crowd = stage.crowd(&CROWD)?;
    wait_for_peer_flows(&b, 100)?;
    let (errors, cut) = (stage.checksum_errors()?, Instant::now());
    stage.lab.set_cable("edge-a", false)?;
    stage.wait_for_owner(stage.mac_b)?;
    ensure_all_reset(&crowd, cut).with_context(|| format!("{}\n{}", b.status().unwrap_or_default(), b.log()))?;
    ensure!(stage.checksum_errors()? == errors, "{} wrong checksums", stage.checksum_errors()? - errors);
    let resets = b.counter("reset_peer_flow")? + b.counter("reset_unknown_flow")?;
    ensure!(resets > 0 && b.counter("tcp_generic")? == 0, "{}", b.status()?["counters"]);
    Ok(())
}
