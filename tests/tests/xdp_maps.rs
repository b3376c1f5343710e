//! What bpftool shows of the maps: names of fields, enums by name. People and other programs rely on it.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use aya::maps::MapData;
use failover_common::abi::{
    ABI_VERSION, COUNTERS, ChecksumForm, EVENTS, FLOW_STATUS, FLOWS, FlowOrigin, FlowStatus, HANDSHAKE_COUNT,
    HANDSHAKES, INTERFACES, Interface, META, Meta, PEERS, Peer, ROUTER_INDEX, State, VIPS, VIRTUAL_ROUTERS, XdpMode,
};
use failover_tests::fixtures::{LONG_NS, active, dropped, flow_key, passes_as, resetting, version_3};
use failover_tests::testrun::TestRun;
use failover_userspace::dataplane::maps::{Raw, array, hash};
use serde_json::{Value, json};

/// What bpftool prints about a map.
fn bpftool(node: &TestRun, verb: &str, map: &str) -> Value {
    try_bpftool(node, verb, map).unwrap_or_else(|error| panic!("bpftool map {verb}, {map}: {error:#}"))
}

fn try_bpftool(node: &TestRun, verb: &str, map: &str) -> Result<Value> {
    let id = id(node, map).to_string();
    let output = Command::new("bpftool").args(["-j", "map", verb, "id", &id]).output().context("running bpftool")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&text).with_context(|| format!("reading {text}"))
}

fn id(node: &TestRun, map: &str) -> u32 {
    let (_, info) = node.map_infos().iter().find(|(name, _)| *name == map).expect("a map of that name");
    info.id()
}

fn open(node: &TestRun, map: &str) -> MapData {
    MapData::from_id(id(node, map)).unwrap_or_else(|error| panic!("opening {map}: {error}"))
}

/// The `formatted` form of the entry at `at`.
fn formatted(dump: &Value, at: usize) -> &Value {
    let entry = &dump[at]["formatted"];
    assert!(entry.is_object(), "not formatted, so without types: {dump}");
    entry
}

/// The first entry of a map, formatted.
fn first(node: &TestRun, map: &str) -> Value {
    formatted(&bpftool(node, "dump", map), 0).clone()
}

#[test]
fn every_map_has_its_name_and_its_types() {
    let Some(node) = active(&version_3()) else { return };
    for (name, info) in node.map_infos() {
        let shown = bpftool(&node, "show", name);
        assert_eq!((info.name_as_str(), shown["name"].as_str()), (Some(*name), Some(*name)));
        assert!(name.len() <= 15, "{name} would be cut by the kernel");
        assert!(shown.get("pinned").is_none(), "{name} is pinned");
        if *name != EVENTS {
            // A ring has neither keys nor values, hence no types of them.
            assert!(shown["btf_id"].as_u64().is_some_and(|id| id > 0), "{name} has no types: {shown}");
        }
    }
}

#[test]
fn a_virtual_router_is_readable() {
    let Some(mut node) = active(&version_3()) else { return };
    dropped_advert(&mut node);
    node.edit(0, |entry| {
        entry.report.state = State::Active;
        entry.report.transitions = 4;
        entry.report.name[..3].copy_from_slice(b"web");
    });
    let entry = node.router(0);
    assert_eq!(entry.heard.checksum_form, ChecksumForm::Message);

    let dump = bpftool(&node, "dump", VIRTUAL_ROUTERS);
    let shown = formatted(&dump, 0);
    assert_eq!(shown["key"], 0);
    let value = &shown["value"];
    assert_eq!(value["lease"]["until_ns"], entry.lease.until_ns);
    assert_eq!(value["lease"]["claimed_after_ns"], 0);
    let heard = &value["heard"];
    assert_eq!(heard["last_advert_ns"], entry.heard.last_advert_ns);
    assert_eq!(heard["last_superior_ns"], entry.heard.last_superior_ns);
    assert_eq!((&heard["adverts"], &heard["priority"], &heard["interval_cs"]), (&json!(1), &json!(200), &json!(100)));
    assert_eq!(heard["checksum_form"], "Message");
    assert_eq!(heard["source"]["bytes"].as_array().map(Vec::len), Some(16));
    let settings = &value["settings"];
    assert_eq!((&settings["vrid"], &settings["version"], &settings["priority"]), (&json!(51), &json!(3), &json!(100)));
    let report = &value["report"];
    assert_eq!((&report["state"], &report["transitions"]), (&json!("Active"), &json!(4)));

    for state in [State::Initialize, State::Backup, State::Fault] {
        node.edit(1, |entry| entry.report.state = state);
        let dump = bpftool(&node, "dump", VIRTUAL_ROUTERS);
        assert_eq!(formatted(&dump, 1)["value"]["report"]["state"], format!("{state:?}"));
    }
}

fn dropped_advert(node: &mut TestRun) {
    let outcome = node.send(&failover_tests::fixtures::frame("v3 message"));
    assert!(outcome.counted.contains(&("advert_valid", 1)), "{:?}", outcome.counted);
}

#[test]
fn a_virtual_address_and_the_index_are_readable() {
    let Some(mut node) = active(&version_3()) else { return };
    node.give_lease(0, 0);
    dropped(&mut node, "ip tcp", "vip_fenced");
    let dump = bpftool(&node, "dump", VIPS);
    let entries = dump.as_array().expect("an array of entries");
    assert_eq!(entries.len(), 2);
    let first = (0..2).map(|at| formatted(&dump, at)).find(|entry| entry["value"]["fenced"] == 1);
    let first = first.unwrap_or_else(|| panic!("no address was fenced: {dump}"));
    assert_eq!((&first["key"]["ifindex"], &first["key"]["vlan"]), (&json!(1), &json!(0)));
    assert_eq!(first["key"]["address"]["bytes"].as_array().map(Vec::len), Some(16));
    for field in ["router", "is_own", "arp_replies", "resets"] {
        assert_eq!(first["value"][field], 0, "{field}");
    }

    let dump = bpftool(&node, "dump", ROUTER_INDEX);
    let shown = formatted(&dump, 0);
    assert_eq!((&shown["key"]["vrid"], &shown["key"]["family"], &shown["value"]), (&json!(51), &json!(4), &json!(0)));
}

#[test]
fn the_counters_are_readable_per_cpu() {
    let Some(mut node) = active(&version_3()) else { return };
    dropped(&mut node, "v3 ttl 64", "advert_bad_ttl");
    node.give_lease(0, LONG_NS);
    let dump = bpftool(&node, "dump", COUNTERS);
    let shown = formatted(&dump, 0);
    let cpus = shown["values"].as_array().expect("one value per CPU");
    let sum = |name: &str| -> u64 { cpus.iter().map(|cpu| cpu["value"][name].as_u64().expect("a number")).sum() };
    assert_eq!((sum("advert_bad_ttl"), sum("advert_valid")), (1, 0));
    let names: Vec<&str> = cpus[0]["value"].as_object().expect("fields").keys().map(String::as_str).collect();
    for name in failover_common::abi::COUNTER_NAMES {
        assert!(names.contains(&name), "{name} is not shown");
    }
    assert_eq!(names.len(), failover_common::abi::COUNTER_NAMES.len());
}

#[test]
fn the_node_and_its_interfaces_are_readable() {
    let Some(node) = active(&version_3()) else { return };
    let mut name = [0; 64];
    name[..6].copy_from_slice(b"edge-a");
    let meta = Meta {
        abi_version: ABI_VERSION,
        controller_pid: 7,
        started_unix_ms: 8,
        boot_id: [9; 16],
        netns_inode: 10,
        node_name: name,
    };
    let mut map = array::<{ size_of::<Meta>() }>(open(&node, META)).expect("META has this layout");
    map.set(0, Raw::of(&meta), 0).expect("META takes a value");
    let dump = bpftool(&node, "dump", META);
    let value = &formatted(&dump, 0)["value"];
    assert_eq!((&value["abi_version"], &value["controller_pid"]), (&json!(ABI_VERSION), &json!(7)));
    assert_eq!((&value["started_unix_ms"], &value["boot_id"][15]), (&json!(8), &json!(9)));
    assert_eq!(value["netns_inode"], 10);
    assert!(!value["node_name"].is_null());

    let mut map = hash::<4, { size_of::<Interface>() }>(open(&node, INTERFACES)).expect("INTERFACES has this layout");
    for (xdp_mode, shown) in [(XdpMode::Native, "Native"), (XdpMode::Generic, "Generic")] {
        let name = *b"eth0\0\0\0\0\0\0\0\0\0\0\0\0";
        let interface = Interface { name, xdp_mode, program_id: 42, offload_switched_off: 0 };
        map.insert(Raw::of(&2_u32), Raw::of(&interface), 0).expect("INTERFACES takes an entry");
        let dump = bpftool(&node, "dump", INTERFACES);
        let entry = formatted(&dump, 0);
        assert_eq!((&entry["key"], &entry["value"]["program_id"]), (&json!(2), &json!(42)));
        assert_eq!(entry["value"]["xdp_mode"], shown);
    }
}

#[test]
fn connections_are_readable() {
    let Some(mut node) = resetting(&version_3()) else { return };
    let key = flow_key();
    for (origin, shown) in [(FlowOrigin::Socket, "Socket"), (FlowOrigin::Found, "Found"), (FlowOrigin::Peer, "Peer")] {
        node.flows.add_flow(&key, origin);
        let entry = first(&node, FLOWS);
        assert_eq!(entry["value"]["origin"], shown);
        assert_eq!((&entry["key"]["local_port"], &entry["key"]["remote_port"]), (&json!(80), &json!(40_000)));
        assert_eq!(entry["key"]["local"]["bytes"].as_array().map(Vec::len), Some(16));
        for field in ["since_ns", "peer", "sync", "send_next", "has_send_next"] {
            assert!(entry["value"][field].is_u64(), "{field}: {entry}");
        }
    }
    passes_as(&mut node, "tcp syn", "tcp_syn");
    let handshake = first(&node, HANDSHAKES);
    assert!(handshake["value"]["at_ns"].as_u64() > Some(0), "{handshake}");
    let count = first(&node, HANDSHAKE_COUNT);
    assert_eq!(count["value"]["remembered"], 1);

    let status = FlowStatus { tickles: 1, direct_resets: 2, unsent: 5, destroyed: 3, replication_refused: 4 };
    let mut map = array::<{ size_of::<FlowStatus>() }>(open(&node, FLOW_STATUS)).expect("FLOW_STATUS has this layout");
    map.set(0, Raw::of(&status), 0).expect("FLOW_STATUS takes a value");
    let shown = first(&node, FLOW_STATUS)["value"].take();
    assert_eq!((&shown["tickles"], &shown["direct_resets"]), (&json!(1), &json!(2)));
    assert_eq!((&shown["destroyed"], &shown["replication_refused"]), (&json!(3), &json!(4)));

    let peer = Peer { port: 7700, is_sending: 1, lag_ms: 5, sent_bytes: 6, ..Peer::default() };
    let mut map = hash::<4, { size_of::<Peer>() }>(open(&node, PEERS)).expect("PEERS has this layout");
    map.insert(Raw::of(&0_u32), Raw::of(&peer), 0).expect("PEERS takes an entry");
    let shown = first(&node, PEERS)["value"].take();
    assert_eq!((&shown["port"], &shown["is_sending"], &shown["is_receiving"]), (&json!(7700), &json!(1), &json!(0)));
    assert_eq!((&shown["lag_ms"], &shown["sent_bytes"], &shown["syncs"]), (&json!(5), &json!(6), &json!(0)));
}

#[test]
fn the_object_can_be_loaded_without_aya() {
    if active(&version_3()).is_none() {
        return;
    }
    let object = std::env::var_os("FAILOVER_XDP_OBJECT").expect("it was loaded a moment ago");
    // In a mount namespace of its own: bpftool has to pin what it loads, and the pins go with the namespace.
    let script = r#"mount -t bpf none /mnt && bpftool prog loadall "$1" /mnt/failover"#;
    let output = Command::new("unshare").args(["--mount", "sh", "-c", script, "sh"]).arg(object).output();
    let output = output.expect("unshare(1) runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
