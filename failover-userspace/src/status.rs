//! What the pinned maps say, as a table for people and as JSON for programs. Works with the
//! controller dead: it reads nothing else, and of the controller only whether it holds its lock.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;

use failover_common::abi::{COUNTER_NAMES, Interface, Peer, State, VirtualRouter, XdpMode};
use failover_common::lease::{LEASE_INTERVALS, NS_PER_CS, is_live};
use serde_json::{Map, Value, json};

use crate::clock;
use crate::dataplane::link::{Link, Sight};
use crate::dataplane::maps::Snapshot;
use crate::dataplane::{pins, unpadded};

/// The state of a node, read once.
pub struct Status {
    snapshot: Snapshot,
    controller_alive: bool,
    /// Interfaces, by index, on which the program is not that should be there.
    bare: Vec<u32>,
    now_ns: u64,
}

impl Status {
    /// Reads the maps pinned at `pin_path`.
    ///
    /// # Errors
    /// When nothing is loaded there, or another version's maps are.
    pub fn read(pin_path: &Path) -> anyhow::Result<Self> {
        let snapshot = Snapshot::read(pin_path)?;
        let bare = snapshot.interfaces.iter().filter(|(index, interface)| !is_attached(pin_path, *index, interface));
        let bare = bare.map(|(index, _)| *index).collect();
        Ok(Self { bare, ..Self::new(snapshot, pins::is_locked(pin_path), clock::now_ns()) })
    }

    /// What `snapshot` says at `now_ns`, CLOCK_BOOTTIME nanoseconds, if the programs are where it has them.
    pub fn new(snapshot: Snapshot, controller_alive: bool, now_ns: u64) -> Self {
        Self { snapshot, controller_alive, bare: Vec::new(), now_ns }
    }

    fn lease_remaining_ns(&self, router: &VirtualRouter) -> u64 {
        let live =
            is_live(self.now_ns, router.lease.until_ns, router.lease.claimed_after_ns, router.heard.last_superior_ns);
        if live { router.lease.until_ns - self.now_ns } else { 0 }
    }

    /// The election's state; with nobody there to run an election, and no lease left of it, there is
    /// none.
    fn state_name(&self, router: &VirtualRouter) -> String {
        let is_dead = !self.controller_alive && self.lease_remaining_ns(router) == 0;
        format!("{:?}", if is_dead { State::Initialize } else { router.report.state })
    }

    /// Who is Active, as far as this node knows: itself under a live lease, or the last advertiser
    /// while its adverts are fresh.
    fn active(&self, router: &VirtualRouter) -> Option<(String, u8)> {
        if self.lease_remaining_ns(router) > 0 {
            return Some((router.settings.own_address.to_ip().to_string(), router.settings.priority));
        }
        let heard = &router.heard;
        let patience_ns = (LEASE_INTERVALS + 1) * u64::from(heard.interval_cs) * NS_PER_CS;
        let fresh = heard.priority != 0 && self.now_ns < heard.last_advert_ns.saturating_add(patience_ns);
        fresh.then(|| (heard.source.to_ip().to_string(), heard.priority))
    }

    fn interface_name(&self, ifindex: u32) -> String {
        let known = self.snapshot.interfaces.iter().find(|(index, _)| *index == ifindex);
        known.map_or_else(|| format!("#{ifindex}"), |(_, interface)| unpadded(&interface.name))
    }

    /// The contract's JSON, schema 1.
    pub fn json(&self) -> Value {
        let counters: Map<_, _> = COUNTER_NAMES
            .iter()
            .zip(self.snapshot.counters.values())
            .map(|(name, value)| ((*name).to_string(), json!(value)))
            .collect();
        let interfaces = self.snapshot.interfaces.iter().map(|(index, interface)| {
            let is_attached = !self.bare.contains(index);
            json!({
                "name": unpadded(&interface.name),
                "xdp_mode": mode_name(interface.xdp_mode),
                "program_id": is_attached.then_some(interface.program_id),
                "attached": is_attached,
            })
        });
        let routers = self.snapshot.virtual_routers.iter().enumerate();
        json!({
            "schema": 1,
            "node": unpadded(&self.snapshot.meta.node_name),
            "controller_alive": self.controller_alive,
            "interfaces": interfaces.collect::<Vec<_>>(),
            "virtual_routers": routers.map(|(index, router)| self.router_json(index, router)).collect::<Vec<_>>(),
            "flows": self.flows_json(),
            "replication": self.snapshot.peers.iter().map(|(_, peer)| peer_json(peer)).collect::<Vec<_>>(),
            "counters": counters,
        })
    }

    fn flows_json(&self) -> Value {
        let status = &self.snapshot.flow_status;
        json!({
            "own": self.snapshot.own_flows,
            "peers": self.snapshot.peer_flows,
            "max": self.snapshot.flows_max,
            "handshakes_seen": self.snapshot.handshakes.remembered,
            "handshakes_missed": self.snapshot.handshakes.missed,
            "tickles": status.tickles,
            "direct_resets": status.direct_resets,
            "unsent": status.unsent,
            "destroyed": status.destroyed,
            "replication_refused": status.replication_refused,
        })
    }

    fn router_json(&self, index: usize, router: &VirtualRouter) -> Value {
        let active = self.active(router).map(|(address, priority)| json!({ "address": address, "priority": priority }));
        let remaining_ns = self.lease_remaining_ns(router);
        json!({
            "name": unpadded(&router.report.name),
            "interface": self.interface_name(router.settings.ifindex),
            "vrid": router.settings.vrid,
            "family": "ipv4",
            "version": router.settings.version,
            "state": self.state_name(router),
            "priority": router.settings.priority,
            "advert_interval_ms": u64::from(router.settings.advert_interval_cs) * 10,
            "active": active,
            "lease_remaining_ms": remaining_ns / 1_000_000,
            "transitions": router.report.transitions,
            "since_unix_ms": router.report.since_unix_ms,
            "adverts_sent": router.report.adverts_sent,
            "adverts_heard": router.heard.adverts,
            "conflicts": router.heard.conflicts,
            "stale_connections": router.stale.action.as_str(),
            "addresses": self.addresses_json(index, remaining_ns > 0),
        })
    }

    fn addresses_json(&self, index: usize, answering: bool) -> Vec<Value> {
        let mut vips: Vec<_> = self.snapshot.vips.iter().filter(|(_, vip)| vip.router as usize == index).collect();
        vips.sort_by_key(|(key, _)| key.address);
        let vips = vips.iter().map(|(key, vip)| {
            json!({
                "address": key.address.to_ip().to_string(),
                "answering": answering,
                "arp_replies": vip.arp_replies,
                "resets": vip.resets,
                "fenced": vip.fenced,
            })
        });
        vips.collect()
    }

    /// A table for people.
    pub fn table(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = self.write_table(&mut text);
        text
    }

    fn write_table(&self, out: &mut String) -> std::fmt::Result {
        let controller = if self.controller_alive { "running" } else { "NOT running" };
        writeln!(out, "node {}, controller {controller}", unpadded(&self.snapshot.meta.node_name))?;
        for (index, interface) in &self.snapshot.interfaces {
            let (name, mode) = (unpadded(&interface.name), mode_name(interface.xdp_mode));
            let program = match interface.xdp_mode {
                XdpMode::Native => "XDP program",
                XdpMode::Generic => "tc program",
            };
            if self.bare.contains(index) {
                writeln!(out, "interface {name}: the {program} is NOT attached, nothing is heard or fenced there")?;
            } else {
                writeln!(out, "interface {name}: {program} {} in {mode} mode", interface.program_id)?;
            }
        }
        let header = [
            "NAME",
            "INTERFACE",
            "VRID",
            "STATE",
            "PRIO",
            "ACTIVE ROUTER",
            "LEASE",
            "ADDRESS",
            "ANSWERING",
            "ARP REPLIES",
            "RESETS",
        ];
        let mut rows = vec![header.map(String::from)];
        for (index, router) in self.snapshot.virtual_routers.iter().enumerate() {
            let json = self.router_json(index, router);
            for (line, vip) in self.addresses_json(index, self.lease_remaining_ns(router) > 0).iter().enumerate() {
                rows.push(Self::row(&json, vip, line == 0));
            }
        }
        write_columns(out, &rows)?;
        writeln!(out)?;
        self.write_flows(out)?;
        for (name, value) in COUNTER_NAMES.iter().zip(self.snapshot.counters.values()).filter(|(_, value)| *value > 0) {
            writeln!(out, "{name:<28} {value}")?;
        }
        Ok(())
    }

    fn write_flows(&self, out: &mut String) -> std::fmt::Result {
        let Snapshot { own_flows, peer_flows, flows_max, flow_status, .. } = &self.snapshot;
        writeln!(out, "connections: {own_flows} own, {peer_flows} of peers, room for {flows_max}")?;
        writeln!(
            out,
            "told: {} tickles, {} direct resets, {} own connections reset",
            flow_status.tickles, flow_status.direct_resets, flow_status.destroyed
        )?;
        for (_, peer) in &self.snapshot.peers {
            let state = |is_on, what| if is_on { String::from(what) } else { format!("NOT {what}") };
            writeln!(
                out,
                "peer {}: {}, {}, {} ms behind",
                SocketAddr::new(peer.address.to_ip(), peer.port),
                state(peer.is_sending != 0, "sending"),
                state(peer.is_receiving != 0, "receiving"),
                peer.lag_ms
            )?;
        }
        writeln!(out)
    }

    fn row(router: &Value, vip: &Value, is_first: bool) -> [String; 11] {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), String::from);
        let of = |key: &str| if is_first { text(&router[key]) } else { String::new() };
        let active = router["active"].as_object().map_or_else(
            || "none heard".to_string(),
            |active| format!("{} ({})", text(&active["address"]), active["priority"]),
        );
        [
            of("name"),
            of("interface"),
            of("vrid"),
            of("state"),
            of("priority"),
            if is_first { active } else { String::new() },
            if is_first { format!("{} ms", router["lease_remaining_ms"]) } else { String::new() },
            text(&vip["address"]),
            if vip["answering"] == true { "yes".into() } else { "no".into() },
            vip["arp_replies"].to_string(),
            vip["resets"].to_string(),
        ]
    }
}

/// Asks the link itself: the map only has what the controller did.
fn is_attached(pin_path: &Path, ifindex: u32, interface: &Interface) -> bool {
    let pin = pins::link(pin_path, &unpadded(&interface.name));
    let sight = Link::open(&pin, ifindex, interface.program_id).and_then(|link| link.look());
    matches!(sight, Ok(Sight::Attached))
}

fn peer_json(peer: &Peer) -> Value {
    json!({
        "peer": SocketAddr::new(peer.address.to_ip(), peer.port).to_string(),
        "sending": peer.is_sending != 0,
        "receiving": peer.is_receiving != 0,
        "lag_ms": peer.lag_ms,
        "sent_bytes": peer.sent_bytes,
        "received_bytes": peer.received_bytes,
        "syncs": peer.syncs,
    })
}

fn mode_name(mode: XdpMode) -> &'static str {
    match mode {
        XdpMode::Native => "native",
        XdpMode::Generic => "generic",
    }
}

fn write_columns<const N: usize>(out: &mut String, rows: &[[String; N]]) -> std::fmt::Result {
    let widths: [usize; N] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            write!(line, "{cell:<width$}  ")?;
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}
