//! What is in a frame.
//!
//! ```text
//! u32 length | u8 kind | body            | tag of 16 bytes (auth.rs)
//!            |<------- length ---------->|
//! body of Changes: groups of
//!     u8 form | 4 bytes VIP | u16 port | u16 count | count members
//!     member: 4 bytes client | u16 port | u32 send_next, in form 2
//! ```
//!
//! Numbers are in network byte order. Deliberately absent: IPv6, which a new form will carry; its flows are skipped.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::rc::Rc;

use failover_common::abi::FlowKey;
use failover_common::address::Address;
use zerocopy::IntoBytes;

use super::{Change, Record};

/// The greatest `length`: kind and body.
pub const LENGTH_MAX: usize = 16 * 1024;

const BODY_MAX: usize = LENGTH_MAX - 1;
const GROUP_HEADER: usize = 9;

/// What a frame is for.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The whole table follows, up to [`Kind::SyncEnd`].
    SyncBegin = 1,
    /// Flows, opened and closed.
    Changes = 2,
    /// What the peer had and was not in the table is gone.
    SyncEnd = 3,
    /// Nothing new.
    Heartbeat = 4,
    /// From the acceptor: that many frames were processed.
    Ack = 5,
}

/// A frame, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// [`Kind::SyncBegin`]
    SyncBegin,
    /// [`Kind::Changes`]
    Changes(Vec<Change>),
    /// [`Kind::SyncEnd`]
    SyncEnd,
    /// [`Kind::Heartbeat`]
    Heartbeat,
    /// [`Kind::Ack`]
    Ack(u64),
}

/// How a group tells of its members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
enum Form {
    Opened = 1,
    OpenedWithNumber = 2,
    Closed = 3,
}

impl Form {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Opened, Self::OpenedWithNumber, Self::Closed].into_iter().find(|form| *form as u8 == byte)
    }

    fn member_length(self) -> usize {
        if self == Self::OpenedWithNumber { 10 } else { 6 }
    }
}

/// Reads kind and body. `None`: not of this protocol.
pub fn parse(kind: u8, body: &[u8]) -> Option<Message> {
    match kind {
        kind if kind == Kind::SyncBegin as u8 && body.is_empty() => Some(Message::SyncBegin),
        kind if kind == Kind::Changes as u8 => parse_changes(body).map(Message::Changes),
        kind if kind == Kind::SyncEnd as u8 && body.is_empty() => Some(Message::SyncEnd),
        kind if kind == Kind::Heartbeat as u8 && body.is_empty() => Some(Message::Heartbeat),
        kind if kind == Kind::Ack as u8 => Some(Message::Ack(u64::from_be_bytes(body.try_into().ok()?))),
        _ => None,
    }
}

fn parse_changes(mut rest: &[u8]) -> Option<Vec<Change>> {
    let mut changes = Vec::new();
    while !rest.is_empty() {
        let (&[form, a, b, c, d, port_high, port_low, count_high, count_low], after) =
            rest.split_first_chunk::<GROUP_HEADER>()?;
        let form = Form::from_byte(form)?;
        let count = usize::from(u16::from_be_bytes([count_high, count_low]));
        // No sender writes an empty group.
        let length = Some(count * form.member_length()).filter(|length| *length > 0)?;
        let (members, after) = after.split_at_checked(length)?;
        let (local, local_port) = (Address::from_ipv4([a, b, c, d]), u16::from_be_bytes([port_high, port_low]));
        for member in members.chunks_exact(form.member_length()) {
            let (&[a, b, c, d, port_high, port_low], number) = member.split_first_chunk::<6>()?;
            let remote_port = u16::from_be_bytes([port_high, port_low]);
            let key = FlowKey { local, remote: Address::from_ipv4([a, b, c, d]), local_port, remote_port };
            changes.push(match form {
                Form::Closed => Change::Closed(key),
                Form::Opened => Change::Opened(Record { key, send_next: None }),
                Form::OpenedWithNumber => {
                    Change::Opened(Record { key, send_next: Some(u32::from_be_bytes(number.try_into().ok()?)) })
                }
            });
        }
        rest = after;
    }
    Some(changes)
}

/// Leaves each flow's last change: grouping loses their order.
pub fn coalesce(changes: Vec<Change>) -> impl Iterator<Item = Change> {
    let last: HashMap<_, _> = changes.into_iter().map(|change| (*change.key(), change)).collect();
    last.into_values()
}

/// Bodies of frames that tell of these changes, in any order. Flows that are not IPv4 are skipped.
pub fn encode(changes: impl IntoIterator<Item = Change>) -> Vec<Rc<[u8]>> {
    let mut groups: BTreeMap<([u8; 6], Form), Vec<u8>> = BTreeMap::new();
    for change in changes {
        let (key, form, number) = match change {
            Change::Closed(key) => (key, Form::Closed, None),
            Change::Opened(Record { key, send_next: None }) => (key, Form::Opened, None),
            Change::Opened(Record { key, send_next }) => (key, Form::OpenedWithNumber, send_next),
        };
        let (Some(local), Some(remote)) = (end(key.local, key.local_port), end(key.remote, key.remote_port)) else {
            continue;
        };
        let members = groups.entry((local, form)).or_default();
        members.extend(remote);
        members.extend(number.map(u32::to_be_bytes).as_slice().as_bytes());
    }
    let mut bodies = Bodies::default();
    for ((local, form), members) in groups {
        bodies.add(local, form, &members);
    }
    bodies.finish()
}

/// IPv4 address and port.
fn end(address: Address, port: u16) -> Option<[u8; 6]> {
    let IpAddr::V4(ip) = address.to_ip() else { return None };
    let ([a, b, c, d], [high, low]) = (ip.octets(), port.to_be_bytes());
    Some([a, b, c, d, high, low])
}

/// Packs groups into as few bodies as hold them.
#[derive(Default)]
struct Bodies {
    full: Vec<Rc<[u8]>>,
    body: Vec<u8>,
}

impl Bodies {
    fn add(&mut self, local: [u8; 6], form: Form, mut members: &[u8]) {
        while !members.is_empty() {
            if BODY_MAX - self.body.len() < GROUP_HEADER + form.member_length() {
                self.full.push(std::mem::take(&mut self.body).into());
            }
            let room = BODY_MAX - self.body.len() - GROUP_HEADER;
            let count = (room / form.member_length()).min(members.len() / form.member_length());
            let (now, later) = members.split_at(count * form.member_length());
            self.body.push(form as u8);
            self.body.extend(local);
            // A body holds fewer than 2^16 members.
            self.body.extend((count as u16).to_be_bytes());
            self.body.extend(now);
            members = later;
        }
    }

    fn finish(mut self) -> Vec<Rc<[u8]>> {
        if !self.body.is_empty() {
            self.full.push(self.body.into());
        }
        self.full
    }
}
