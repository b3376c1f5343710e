//! What peers say: messages, frames on a stream, and the handshake.
//!
//! Input: a byte that says which, then the rest.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use failover_common::abi::FlowKey;
use failover_common::address::Address;
use failover_userspace::replication::auth::{Ends, HELLO, REPLY, Session, hello, is_hello};
use failover_userspace::replication::link::{End, Reader};
use failover_userspace::replication::wire::{self, LENGTH_MAX, Message};
use failover_userspace::replication::{Change, Key};

use crate::bytes::Bytes;

/// Any bytes: no panic, nothing believed that was not sealed, and what is read can be said again.
pub fn replication(bytes: &[u8]) {
    let mut rest = Bytes(bytes);
    match rest.byte() % 4 {
        0 => message(rest.byte(), rest.0),
        1 => handshake(&mut rest),
        2 => assert!(matches!(read_all(rest.0)[..], [Err(_)]), "believed without a seal"),
        _ => sealed(&mut rest),
    }
}

/// One message: what was read, told again, is the same.
fn message(kind: u8, body: &[u8]) {
    let Some(Message::Changes(changes)) = wire::parse(kind, body) else { return };
    // A member has six bytes at least.
    assert!(changes.len() * 6 <= body.len());
    let told: BTreeSet<_> = changes.iter().map(ordered).collect();
    let bodies = wire::encode(changes.iter().copied());
    let mut again = BTreeSet::new();
    for body in &bodies {
        assert!(body.len() < LENGTH_MAX);
        let Some(Message::Changes(changes)) = wire::parse(kind, body) else { panic!("its own words: {body:02x?}") };
        again.extend(changes.iter().map(ordered));
    }
    assert_eq!(told, again);
    // Each flow once, with its last change.
    let last: Vec<Change> = wire::coalesce(changes.clone()).collect();
    for change in &last {
        assert_eq!(changes.iter().rfind(|told| told.key() == change.key()), Some(change));
    }
    let keys = |changes: &[Change]| changes.iter().map(|change| *change.key()).collect::<BTreeSet<_>>();
    assert_eq!((keys(&last), keys(&last).len()), (keys(&changes), last.len()));
}

fn ordered(change: &Change) -> (FlowKey, Option<Option<u32>>) {
    match change {
        Change::Opened(record) => (record.key, Some(record.send_next)),
        Change::Closed(key) => (*key, None),
    }
}

fn key() -> Key {
    Key::new(&[7; 32]).expect("32 bytes are enough")
}

fn ends() -> Ends {
    let address = |last| Address::from(Ipv4Addr::new(10, 0, 0, last));
    Ends { dialer: address(1), acceptor: address(2) }
}

fn session() -> Session {
    key().session(&[0; HELLO], &[0; REPLY], ends())
}

/// A stranger's reply proves nothing, and one changed bit spoils a right one.
fn handshake(rest: &mut Bytes<'_>) {
    let (asked, reply): ([u8; HELLO], [u8; REPLY]) = (rest.array(), rest.array());
    assert_eq!(is_hello(&asked), asked.starts_with(b"failovr\x01"));
    assert!(is_hello(&hello(&rest.array())));
    assert!(!key().is_reply(&asked, &reply, ends()), "a MAC was guessed");
    let mut right = key().reply(&asked, &rest.array(), ends());
    assert!(key().is_reply(&asked, &right, ends()));
    right[usize::from(rest.byte()) % REPLY] ^= 1 << (rest.byte() % 8);
    assert!(!key().is_reply(&asked, &right, ends()));
}

/// All that a stream yields. The error that ends it is the last.
fn read_all(stream: &[u8]) -> Vec<Result<Message, End>> {
    let mut reader = Reader::new(stream, session().flows);
    let count = Cell::new(0);
    let mut messages = Vec::new();
    loop {
        let next = pin!(reader.next(&count)).poll(&mut Context::from_waker(Waker::noop()));
        let Poll::Ready(next) = next else { panic!("a slice is always ready") };
        let is_end = next.is_err();
        messages.push(next);
        if is_end {
            return messages;
        }
    }
}

/// Frames with right seals, of any length and kind, until one is cut short: those of this protocol are read, up to the
/// first that is not.
fn sealed(rest: &mut Bytes<'_>) {
    let mut seal = session().flows;
    let mut stream = Vec::new();
    let mut expected = Vec::new();
    let mut is_broken = false;
    while !rest.0.is_empty() && !is_broken {
        let len = usize::from(rest.short());
        let content = rest.slice(len);
        // A length of the frame's own, sometimes.
        let said = if rest.byte() == 0xff { u32::from_be_bytes(rest.array()) } else { content.len() as u32 };
        let frame = [&said.to_be_bytes(), content].concat();
        let tag = seal.tag(&frame);
        stream.extend(frame);
        stream.extend(tag);
        is_broken = said as usize != content.len() || !(1..=LENGTH_MAX).contains(&content.len());
        let message = content.split_first().and_then(|(kind, body)| wire::parse(*kind, body));
        match message {
            Some(message) if !is_broken => expected.push(message),
            _ => is_broken = true,
        }
    }
    let mut messages = read_all(&stream);
    let end = messages.pop();
    assert!(matches!(end, Some(Err(End::Refused(_) | End::Broken(..)))));
    assert_eq!(messages.into_iter().map(Result::ok).collect::<Option<Vec<_>>>(), Some(expected));
}
