//! What holds of any file, good, broken or random: no panic, lines that exist, and an effective
//! configuration that means the same.

use std::path::PathBuf;
use std::time::Duration;

use ipnet::Ipv4Net;
use proptest::prelude::*;

use super::super::*;
use super::{FULL, MINIMAL, accepted, minimal_router, parsed};

/// A part of the schema, whole or broken, to build files from.
fn fragment() -> impl Strategy<Value = String> {
    let schema = |pattern: &str| {
        let keys = "node|name|data_plane|virtual_router|interface|vrid|version|priority|advert_interval|addresses\
                    |preempt|preempt_delay|password|checksum|announce|count|stale_connections|action|hold|ports\
                    |replication|listen|peers|key_file|x";
        prop::string::string_regex(&pattern.replace("KEY", keys)).expect("a pattern written by hand")
    };
    prop_oneof![
        Just("\n".to_owned()),
        Just(MINIMAL.to_owned()),
        Just(FULL.to_owned()),
        schema("(KEY)"),
        schema("\\[\\[?(KEY)(\\.(KEY))?\\]?\\]\n"),
        schema("(KEY)(\\.(KEY))? = "),
        "-?[0-9]{1,22}",
        "\"[0-9. ]{1,22}(ns|us|ms|s|m|h|days|y|µs)?[0-9a-z]{0,5}\"",
        "\"[0-9:/.a-f]{0,20}\"",
        "[\\[\\]{},.='\"# \t\r\n\\\\]",
        "\\PC{0,8}",
    ]
}

/// FULL with some bytes of it replaced, cut or doubled, at character boundaries.
fn mutated() -> impl Strategy<Value = String> {
    let edits = prop::collection::vec((any::<prop::sample::Index>(), 0..40_usize, fragment()), 1..6);
    edits.prop_map(|edits| {
        let mut text: Vec<char> = FULL.chars().collect();
        for (at, cut, inserted) in edits {
            let at = at.index(text.len() + 1);
            let end = (at + cut).min(text.len());
            text.splice(at..end, inserted.chars());
        }
        text.into_iter().collect()
    })
}

fn name() -> impl Strategy<Value = String> {
    "[!-~]{1,20}"
}

fn router() -> impl Strategy<Value = VirtualRouter> {
    let address = (any::<[u8; 3]>(), 8..=32_u8).prop_filter_map("an address no host has", |(bytes, length)| {
        let [a, b, c] = bytes;
        let net = Ipv4Net::new([10, a, b, c].into(), length).ok()?;
        (length > 30 || (net.addr() != net.network() && net.addr() != net.broadcast())).then_some(net)
    });
    let addresses = prop::collection::btree_map(any::<[u8; 3]>(), address, 1..=3);
    let v2 = (1..=255_u16, prop::option::of("[ -~]{1,8}"));
    let v3 = (
        1..=4095_u16,
        prop::sample::select(vec![ChecksumForm::Auto, ChecksumForm::Rfc9568, ChecksumForm::PseudoHeader]),
    );
    let speech = prop_oneof![
        v2.prop_map(|(seconds, password)| {
            let padded = password.map(|password| std::array::from_fn(|i| *password.as_bytes().get(i).unwrap_or(&0)));
            (Version::V2, seconds * 100, padded, ChecksumForm::Auto)
        }),
        v3.prop_map(|(interval, form)| (Version::V3, interval, None, form)),
    ];
    let preemption = prop_oneof![
        Just((false, Duration::ZERO, 100)),
        (0..=1_000_000_000_000_u64, 1..=255_u8).prop_map(|(nanos, priority)| (
            true,
            Duration::from_nanos(nanos),
            priority
        )),
    ];
    let announce = (1..=100_u8, 0..=10_000_u64, prop_oneof![Just(0), 1000..=86_400_000_u64]);
    (1..=255_u8, addresses, speech, preemption, announce, any::<bool>(), stale_connections()).prop_map(
        |(vrid, addresses, speech, preemption, announce, accept, stale_connections)| VirtualRouter {
            vrid,
            version: speech.0,
            priority: preemption.2,
            advert_interval_cs: speech.1,
            addresses: addresses.into_values().collect(),
            preempt: preemption.0,
            preempt_delay: preemption.1,
            accept,
            password: speech.2,
            checksum: speech.3,
            announce: Announce {
                count: announce.0,
                interval: Duration::from_millis(announce.1),
                refresh: Duration::from_millis(announce.2),
            },
            stale_connections,
            ..minimal_router()
        },
    )
}

fn stale_connections() -> impl Strategy<Value = StaleConnections> {
    let action = prop::sample::select(vec![StaleAction::Reset, StaleAction::Pass, StaleAction::Drop]);
    let ports = prop::collection::btree_set(1..=u16::MAX, 0..=16);
    (action, 0..=60_000_u64, ports).prop_map(|(action, hold_ms, ports)| StaleConnections {
        action,
        hold: Duration::from_millis(hold_ms),
        ports: ports.into_iter().collect(),
    })
}

fn replication() -> impl Strategy<Value = Replication> {
    (1..=u16::MAX, prop::collection::btree_set(any::<[u8; 2]>(), 1..=16), "/[ -~]{0,20}").prop_map(
        |(port, peers, key_file)| Replication {
            listen: ([192, 0, 2, 1], port).into(),
            peers: peers.into_iter().map(|[a, b]| ([172, 16, a, b], port).into()).collect(),
            key_file: PathBuf::from(key_file),
            key_file_line: 0,
        },
    )
}

/// Any configuration: routers get names, interfaces and a /8 of their own, and lose repeated addresses.
fn config() -> impl Strategy<Value = Config> {
    let routers = prop::collection::vec(router(), 1..5);
    let mode = prop::sample::select(vec![XdpMode::Auto, XdpMode::Native, XdpMode::Generic]);
    let data_plane = ("/[ -~]{0,20}", mode, 1024..=4_194_304_u32, 1..=100_000_000_u32);
    (name(), 0..=99_u8, data_plane, prop::option::of(replication()), routers, name()).prop_map(
        |(node, rt, (pin, xdp_mode, flows_max, resets_per_second), replication, mut routers, word)| {
            for (i, router) in routers.iter_mut().enumerate() {
                router.name = format!("{word}{i}");
                router.interface = format!("if\"{i}'");
                for net in &mut router.addresses {
                    let [_, a, b, c] = net.addr().octets();
                    *net = Ipv4Net::new_assert([11 + i as u8, a, b, c].into(), net.prefix_len());
                }
                router.addresses.sort();
                router.addresses.dedup_by_key(|net| net.addr());
            }
            Config {
                node: Node { name: node, realtime_priority: rt },
                data_plane: DataPlane { pin_path: PathBuf::from(pin), xdp_mode, flows_max, resets_per_second },
                replication,
                virtual_routers: routers,
            }
        },
    )
}

/// What holds of any refusal: lines that exist, in order, and messages of one line.
fn check(text: &str) {
    let Err(problems) = parsed(text) else { return };
    assert!(!problems.is_empty());
    assert!(problems.is_sorted_by_key(|problem| problem.line));
    let lines = text.lines().count().max(1);
    for problem in problems {
        assert!((1..=lines).contains(&problem.line), "{problem} of {lines} in {text:?}");
        assert!(!problem.message.contains('\n'), "{problem}");
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in any::<String>()) {
        check(&text);
    }

    #[test]
    fn no_file_of_fragments_panics(fragments in prop::collection::vec(fragment(), 0..20)) {
        check(&fragments.concat());
    }

    #[test]
    fn no_mutated_file_panics(text in mutated()) {
        check(&text);
    }

    #[test]
    fn the_effective_configuration_parses_back(config in config()) {
        prop_assert_eq!(accepted(&config.to_string()), config);
    }

    #[test]
    fn what_loads_prints_what_loads_the_same(text in mutated()) {
        if let Ok(config) = parsed(&text) {
            prop_assert_eq!(accepted(&config.to_string()), config);
        }
    }
}
