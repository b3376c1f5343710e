//! The configuration's tests: what loads and what it prints.
//!
//! What is refused, and in which words, stands in tests/refusals.rs and tests/several.rs;
//! what holds of any file, in tests/properties.rs.

mod properties;
mod refusals;
mod replication;
mod several;

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;

const FULL: &str = include_str!("tests/full.toml");
const MINIMAL: &str = r#"[[virtual_router]]
name = "web"
interface = "eth0"
vrid = 51
addresses = ["192.0.2.10/24"]
"#;

fn parsed(text: &str) -> Result<Config, Vec<Problem>> {
    parse(Path::new("web.toml"), text, "host-name")
}

fn accepted(text: &str) -> Config {
    parsed(text).unwrap_or_else(|problems| panic!("refused: {problems:#?}\n{text}"))
}

/// The problems of `text`, as they are printed.
fn printed(text: &str) -> Vec<String> {
    match parsed(text) {
        Ok(config) => panic!("accepted:\n{text}\n{config:#?}"),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

/// Every default of the data plane, by hand.
fn default_data_plane() -> DataPlane {
    DataPlane {
        pin_path: PathBuf::from("/sys/fs/bpf/failover"),
        xdp_mode: XdpMode::Auto,
        flows_max: 262_144,
        resets_per_second: 100_000,
    }
}

fn net(text: &str) -> Ipv4Net {
    text.parse().expect("a prefix written by hand")
}

/// MINIMAL's virtual router: every default, by hand.
fn minimal_router() -> VirtualRouter {
    VirtualRouter {
        name: "web".to_owned(),
        interface: "eth0".to_owned(),
        vrid: 51,
        version: Version::V3,
        priority: 100,
        advert_interval_cs: 100,
        addresses: vec![net("192.0.2.10/24")],
        preempt: true,
        preempt_delay: Duration::ZERO,
        accept: true,
        password: None,
        checksum: ChecksumForm::Auto,
        announce: Announce { count: 5, interval: Duration::from_millis(100), refresh: Duration::ZERO },
        stale_connections: StaleConnections { action: StaleAction::Reset, hold: Duration::ZERO, ports: Vec::new() },
        line: 1,
    }
}

#[test]
fn the_documented_example_loads() {
    let web = VirtualRouter { priority: 150, ..minimal_router() };
    let web = VirtualRouter {
        stale_connections: StaleConnections {
            action: StaleAction::Drop,
            hold: Duration::from_secs(5),
            ports: vec![80, 443],
        },
        ..web
    };
    let old = VirtualRouter {
        name: "old".to_owned(),
        interface: "eth1".to_owned(),
        vrid: 52,
        version: Version::V2,
        advert_interval_cs: 300,
        addresses: vec![net("198.51.100.7/25"), net("203.0.113.9/32")],
        preempt: false,
        accept: false,
        password: Some(*b"1111\0\0\0\0"),
        announce: Announce { count: 3, interval: Duration::ZERO, refresh: Duration::from_secs(60) },
        ..minimal_router()
    };
    let config = accepted(FULL);
    let expected = Config {
        node: Node { name: "edge-a".to_owned(), realtime_priority: 0 },
        data_plane: DataPlane { flows_max: 65_536, ..default_data_plane() },
        replication: Some(Replication {
            listen: ([10, 0, 0, 1], 7700).into(),
            peers: vec![([10, 0, 0, 2], 7700).into()],
            key_file: PathBuf::from("/etc/failover.key"),
            key_file_line: 0,
        }),
        virtual_routers: vec![web, old],
    };
    assert_eq!(config, expected);
    let lines: Vec<_> = config.virtual_routers.iter().map(|router| router.line).collect();
    assert_eq!(lines, [15, 34]);
    assert_eq!(config.replication.map(|replication| replication.key_file_line), Some(13));
}

#[test]
fn what_is_left_out_has_its_default() {
    let expected = Config {
        node: Node { name: "host-name".to_owned(), realtime_priority: 0 },
        data_plane: default_data_plane(),
        replication: None,
        virtual_routers: vec![minimal_router()],
    };
    assert_eq!(accepted(MINIMAL), expected);
}

#[test]
fn every_bound_is_allowed_itself() {
    let cases = [
        "priority = 1",
        "priority = 255",
        "priority = 255\npreempt = true",
        "advert_interval = \"10ms\"",
        "advert_interval = \"40.95s\"",
        "advert_interval = \"40950ms\"",
        "version = 2\nadvert_interval = \"1s\"",
        "version = 2\nadvert_interval = \"255s\"",
        "version = 2\npassword = \"12345678\"",
        "version = 2\nchecksum = \"auto\"",
        "checksum = \"rfc9568\"",
        "checksum = \"pseudo-header\"",
        "preempt_delay = \"1000s\"",
        "preempt = false\npreempt_delay = \"0s\"",
        "announce.count = 1",
        "announce.count = 100",
        "announce.interval = \"10s\"",
        "announce.refresh = \"1s\"",
        "announce.refresh = \"1day\"",
        "stale_connections.action = \"pass\"",
        "stale_connections.action = \"drop\"",
        "stale_connections.hold = \"60s\"",
        "stale_connections.ports = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 65535]",
        "stale_connections.ports = []",
        "stale_connections = {}",
    ];
    for case in cases {
        accepted(&format!("{MINIMAL}{case}\n"));
    }
    for (from, to) in [
        ("51", "1"),
        ("51", "255"),
        ("\"web\"", "\"a-name_of.thirty-one:byteéöü\""),
        ("eth0", "fifteen-bytes.0"),
        ("192.0.2.10/24", "192.0.2.0/31"),
        ("192.0.2.10/24", "192.0.2.255/31"),
        ("192.0.2.10/24", "192.0.2.1/30"),
        ("192.0.2.10/24", "10.0.0.1/1"),
        ("[[virtual_router]]", "[node]\nrealtime_priority = 99\n[[virtual_router]]"),
        ("[[virtual_router]]", "[data_plane]\nflows_max = 1024\nresets_per_second = 1\n[[virtual_router]]"),
        ("[[virtual_router]]", "[data_plane]\nflows_max = 4194304\nresets_per_second = 100000000\n[[virtual_router]]"),
    ] {
        accepted(&MINIMAL.replace(from, to));
    }
}

#[test]
fn intervals_are_exact_in_centiseconds() {
    let cases = [
        ("version = 3", "10ms", 1),
        ("version = 3", "250ms", 25),
        ("version = 3", "1.01s", 101),
        ("version = 3", "1s 10ms", 101),
        ("version = 3", "40.95s", 4095),
        ("version = 2", "1s", 100),
        ("version = 2", "2m", 12_000),
        ("version = 2", "255s", 25_500),
    ];
    for (version, interval, expected) in cases {
        let config = accepted(&format!("{MINIMAL}{version}\nadvert_interval = \"{interval}\"\n"));
        assert_eq!(config.virtual_routers[0].advert_interval_cs, expected, "{version}, {interval}");
    }
}

#[test]
fn two_interfaces_may_share_a_vrid() {
    let other = MINIMAL.replace("web", "web-2").replace("eth0", "eth1").replace("192.0.2.10", "192.0.2.11");
    accepted(&format!("{MINIMAL}{other}"));
}

#[test]
fn a_moved_block_is_no_change() {
    let moved = accepted(&format!("\n\n{MINIMAL}"));
    assert_eq!(moved, accepted(MINIMAL));
    assert_eq!(moved.virtual_routers[0].line, 3);
}

#[test]
fn the_effective_configuration_is_complete() {
    let expected = r#"[node]
name = "host-name"
realtime_priority = 0

[data_plane]
pin_path = "/sys/fs/bpf/failover"
xdp_mode = "auto"
flows_max = 262144
resets_per_second = 100000

[[virtual_router]]
name = "web"
interface = "eth0"
vrid = 51
version = 3
priority = 100
advert_interval = "1s"
addresses = ["192.0.2.10/24"]
preempt = true
preempt_delay = "0s"
accept = true
checksum = "auto"
announce = { count = 5, interval = "100ms", refresh = "0s" }
stale_connections = { action = "reset", hold = "0s", ports = [] }
"#;
    assert_eq!(accepted(MINIMAL).to_string(), expected);
}

#[test]
fn a_file_is_loaded_with_this_hosts_name() {
    let path = std::env::temp_dir().join(format!("failover-config-{}.toml", std::process::id()));
    std::fs::write(&path, MINIMAL).expect("a writable temporary directory");
    let loaded = load(&path);
    std::fs::write(&path, b"# \xe9\n\xff").expect("the same directory");
    let not_utf8 = load(&path);
    std::fs::write(&path, "#".repeat(FILE_BYTES_MAX + 1)).expect("the same directory");
    let too_large = load(&path);
    std::fs::remove_file(&path).expect("the same directory");

    let host_name = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("procfs");
    assert_eq!(loaded.map(|config| config.node.name), Ok(host_name.trim_end().to_owned()));
    let shown = |result: Result<Config, Vec<Problem>>| result.map_err(|problems| problems[0].to_string());
    assert_eq!(shown(not_utf8), Err(format!("{}:1: not UTF-8 text: a TOML file is", path.display())));
    let message = "larger than 1 MiB: a configuration is at most that";
    assert_eq!(shown(too_large), Err(format!("{}: {message}", path.display())));
    let message = "cannot be read: No such file or directory (os error 2)";
    assert_eq!(shown(load(&path)), Err(format!("{}: {message}", path.display())));
}

#[test]
fn deep_nesting_does_not_overflow_the_stack() {
    let key = format!("{}a", "a.".repeat(78));
    let deep = format!("{key} = {}1{}", format!("{{{key} = ").repeat(79), "}".repeat(79));
    // The array is dropped by the parser itself, when the header takes its place.
    let replaced = format!("x = [{{{deep}}}]\n[x]\n");
    for text in [deep, replaced, "[".repeat(100_000), format!("x = {}", "[".repeat(100_000)), "{".repeat(100_000)] {
        assert!(parsed(&text).is_err());
    }
}

#[test]
fn a_duration_past_every_clock_is_refused() {
    for duration in ["18446744073709551615s 1000ms", "1 8 4 4 6 7 4 4 0 7 3 7 0 9 5 5 1 6 1 5s 1000ms"] {
        assert!(parsed(&format!("{MINIMAL}preempt_delay = \"{duration}\"\n")).is_err());
    }
}
