//! The bytes on the wire, written by hand or by Python's `hmac`; and what a parser must refuse.

use std::collections::HashMap;

use failover_common::abi::FlowKey;
use failover_common::address::Address;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::replication::auth::{self, Ends, Key};
use crate::replication::wire::{self, LENGTH_MAX, Message};
use crate::replication::{Change, Record};

fn key(local: [u8; 4], local_port: u16, remote: [u8; 4], remote_port: u16) -> FlowKey {
    FlowKey { local: Address::from_ipv4(local), remote: Address::from_ipv4(remote), local_port, remote_port }
}

fn opened(key: FlowKey, send_next: Option<u32>) -> Change {
    Change::Opened(Record { key, send_next })
}

/// 192.0.2.10:80: one with a number, one closed; 192.0.2.11:443: two without a number.
fn example() -> (Vec<Change>, Vec<u8>) {
    let changes = vec![
        opened(key([192, 0, 2, 10], 80, [198, 51, 100, 1], 50_000), Some(0x0102_0304)),
        Change::Closed(key([192, 0, 2, 10], 80, [198, 51, 100, 2], 1)),
        opened(key([192, 0, 2, 11], 443, [203, 0, 113, 1], 65_535), None),
        opened(key([192, 0, 2, 11], 443, [203, 0, 113, 2], 2), None),
    ];
    let body = [
        &[2, 192, 0, 2, 10, 0, 80, 0, 1][..],
        &[198, 51, 100, 1, 0xc3, 0x50, 1, 2, 3, 4],
        &[3, 192, 0, 2, 10, 0, 80, 0, 1],
        &[198, 51, 100, 2, 0, 1],
        &[1, 192, 0, 2, 11, 1, 0xbb, 0, 2],
        &[203, 0, 113, 1, 0xff, 0xff],
        &[203, 0, 113, 2, 0, 2],
    ];
    (changes, body.concat())
}

#[test]
fn changes_are_grouped_by_service() {
    let (changes, body) = example();
    assert_eq!(wire::encode(changes.clone()), [body.clone().into()]);
    assert_eq!(wire::parse(2, &body), Some(Message::Changes(changes)));
}

#[test]
fn a_body_that_lies_is_refused_whole() {
    let (_, body) = example();
    for length in 1..body.len() {
        let is_group_border = [19, 34].contains(&length);
        assert_eq!(wire::parse(2, &body[..length]).is_some(), is_group_border, "cut to {length}");
    }
    for (at, byte, what) in [(0, 0, "form 0"), (0, 4, "form 4"), (8, 0, "an empty group"), (7, 0xff, "a long group")] {
        let mut lie = body.clone();
        lie[at] = byte;
        assert_eq!(wire::parse(2, &lie), None, "{what}");
    }
}

#[test]
fn messages_without_a_body_have_none_and_others_are_unknown() {
    assert_eq!(wire::parse(1, &[]), Some(Message::SyncBegin));
    assert_eq!(wire::parse(3, &[]), Some(Message::SyncEnd));
    assert_eq!(wire::parse(4, &[]), Some(Message::Heartbeat));
    assert_eq!(wire::parse(5, &[0, 0, 0, 0, 0, 0, 1, 2]), Some(Message::Ack(258)));
    for kind in [1, 3, 4] {
        assert_eq!(wire::parse(kind, &[0]), None, "kind {kind}");
    }
    assert_eq!(wire::parse(5, &[0; 7]), None);
    assert_eq!(wire::parse(5, &[0; 9]), None);
    for kind in (0..=255).filter(|kind| !(1..=5).contains(kind)) {
        assert_eq!(wire::parse(kind, &[]), None, "kind {kind}");
        assert_eq!(wire::parse(kind, &[0; 8]), None, "kind {kind}");
    }
}

#[test]
fn ipv6_is_skipped() {
    let (mut changes, body) = example();
    let mut six = key([192, 0, 2, 10], 80, [198, 51, 100, 1], 1);
    six.remote = Address { bytes: [0x20; 16] };
    changes.push(Change::Closed(six));
    changes.push(opened(six, None));
    assert_eq!(wire::encode(changes), [body.into()]);
    assert!(wire::encode([Change::Closed(six)]).is_empty());
}

#[test]
fn the_last_change_of_a_flow_counts() {
    let one = key([192, 0, 2, 10], 80, [198, 51, 100, 1], 1);
    let two = key([192, 0, 2, 10], 80, [198, 51, 100, 1], 2);
    let changes = vec![opened(one, None), Change::Closed(two), Change::Closed(one), opened(two, Some(7))];
    let mut left: Vec<_> = wire::coalesce(changes).collect();
    left.sort_by_key(|change| *change.key());
    assert_eq!(left, [Change::Closed(one), opened(two, Some(7))]);
}

/// `hmac.new(key, label + hello + nonce + dialer + acceptor, "sha256")`, with the key 00 01 .. 1f, the dialer's nonce
/// 32 times 0x11, the acceptor's 32 times 0x22, from ::ffff:10.0.0.1 to ::ffff:10.0.0.2.
#[test]
fn macs_are_those_of_another_implementation() {
    let secret: Vec<u8> = (0..32).collect();
    let key = Key::new(&secret).unwrap();
    let ends = Ends { dialer: Address::from_ipv4([10, 0, 0, 1]), acceptor: Address::from_ipv4([10, 0, 0, 2]) };
    let hello = auth::hello(&[0x11; 32]);
    assert_eq!(hello[..], [&b"failovr\x01"[..], &[0x11; 32]].concat());
    let reply = key.reply(&hello, &[0x22; 32], ends);
    assert_eq!(reply[..32], [0x22; 32]);
    assert_eq!(hex(&reply[32..]), "12b6ab4400a7cd28d69853f3132eae6fdfef8871ab1626fd9bdd3a70f69d6164");
    assert!(key.is_reply(&hello, &reply, ends));

    let mut session = key.session(&hello, &reply, ends);
    assert_eq!(hex(&session.flows.tag(b"\0\0\0\x01\x04")), "343a30768592e2418841b4a22eb5992e");
    assert_eq!(hex(&session.flows.tag(b"\0\0\0\x01\x04")), "7c689afa2403c9143ee54e4d28719060");
    assert_eq!(
        hex(&session.acknowledgements.tag(b"\0\0\0\x09\x05\0\0\0\0\0\0\0\x01")),
        "e3ff10d90443d15bafbb8f51200cf44f"
    );
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_tag_holds_for_its_frame_its_place_its_direction_and_its_session() {
    let key = Key::new(&[7; 32]).unwrap();
    let ends = Ends { dialer: Address::from_ipv4([10, 0, 0, 1]), acceptor: Address::from_ipv4([10, 0, 0, 2]) };
    let back = Ends { dialer: ends.acceptor, acceptor: ends.dialer };
    let hello = auth::hello(&[1; 32]);
    let reply = key.reply(&hello, &[2; 32], ends);
    let session = || key.session(&hello, &reply, ends);
    let tag = session().flows.tag(b"frame");

    assert!(session().flows.is_tag(b"frame", &tag));
    assert!(!session().flows.is_tag(b"Frame", &tag));
    assert!(!session().acknowledgements.is_tag(b"frame", &tag));
    let mut after_one = session().flows;
    assert!(after_one.is_tag(b"frame", &tag));
    assert!(!after_one.is_tag(b"frame", &tag), "repeated");
    assert!(!key.session(&hello, &reply, back).flows.is_tag(b"frame", &tag), "reflected");
    assert!(!key.session(&auth::hello(&[3; 32]), &reply, ends).flows.is_tag(b"frame", &tag));
    let other_reply = key.reply(&hello, &[4; 32], ends);
    assert!(!key.session(&hello, &other_reply, ends).flows.is_tag(b"frame", &tag));
    assert!(!Key::new(&[8; 32]).unwrap().session(&hello, &reply, ends).flows.is_tag(b"frame", &tag));
}

#[test]
fn every_bit_of_a_handshake_counts() {
    let key = Key::new(&[7; 32]).unwrap();
    let ends = Ends { dialer: Address::from_ipv4([10, 0, 0, 1]), acceptor: Address::from_ipv4([10, 0, 0, 2]) };
    let hello = auth::hello(&[1; 32]);
    let reply = key.reply(&hello, &[2; 32], ends);
    assert!(key.is_reply(&hello, &reply, ends));
    for bit in 0..hello.len() * 8 {
        let mut flipped = hello;
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(!key.is_reply(&flipped, &reply, ends), "bit {bit} of the hello");
        assert_eq!(auth::is_hello(&flipped), bit >= 64, "bit {bit} of the hello");
    }
    for bit in 0..reply.len() * 8 {
        let mut flipped = reply;
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(!key.is_reply(&hello, &flipped, ends), "bit {bit} of the reply");
    }
}

fn any_change() -> impl Strategy<Value = Change> {
    // Few services and clients, so that groups grow and flows meet.
    let key = (0..3_u8, 0..3_u16, any::<u16>(), 0..4_u8).prop_map(|(vip, service, port, client)| {
        key([192, 0, 2, vip], 80 + service, [198, 51, 100, client], port % 400)
    });
    prop_oneof![
        key.clone().prop_map(Change::Closed),
        (key, any::<Option<u32>>()).prop_map(|(key, send_next)| opened(key, send_next)),
    ]
}

proptest! {
    #[test]
    fn what_is_encoded_is_read(changes in vec(any_change(), 0..6_000)) {
        let bodies = wire::encode(wire::coalesce(changes.clone()));
        let expected: HashMap<_, _> = changes.into_iter().map(|change| (*change.key(), change)).collect();
        let mut read = HashMap::new();
        for body in &bodies {
            prop_assert!(body.len() < LENGTH_MAX);
            let Some(Message::Changes(changes)) = wire::parse(2, body) else { panic!("not read") };
            for change in changes {
                prop_assert_eq!(read.insert(*change.key(), change), None);
            }
        }
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn nothing_panics(kind in 0..8_u8, body in vec(any::<u8>(), 0..200)) {
        let _ = wire::parse(kind, &body);
    }
}
