//! What one peer is still to be told, and what it has not confirmed. No I/O.
//!
//! # Why a table and changes end right
//!
//! A table is read from the store at one moment T and sent whole between SyncBegin and SyncEnd; after it, in order, go
//! the changes that were handed in after T. Take any flow:
//! - Something happened to it after T: that was handed in after T, so the last of it goes last, and decides.
//! - Nothing did: the table has it as it is. Changes of before T that were handed in late end with the one that made it
//!   so. Those that were in the queue at T say nothing that the table doesn't, and are dropped.
//!
//! The peer removes at SyncEnd what was not in the table, which is before it hears of any change since T, so nothing
//! that opened meanwhile is removed. A flow that opened before T and closed after it goes as opened (table) and closed
//! (change). This needs one thing of the caller: a flow that opened and closed since its last batch is told as closed,
//! not left out, because T may have been in between.
//!
//! Deliberately absent: the store, the socket, and pacing.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::wire::Kind;

/// Changes that wait for a peer: 4 MiB, some 400,000 of them. The peers' queues share them.
pub const QUEUE_BYTES_MAX: usize = 4 << 20;
/// Frames that a peer may have left unconfirmed before it is sent more: up to 16 MiB, four seconds at the full rate.
const UNCONFIRMED_MAX: usize = 1024;
/// What an entry of the queue costs besides its body.
const ENTRY_BYTES: usize = 64;
/// Between two tables on one connection, so that a burst of lost events costs one table, not one each.
const TABLE_PAUSE: Duration = Duration::from_secs(1);

/// The state of what goes to one peer.
#[derive(Default)]
pub struct Outbox {
    is_connected: bool,
    /// What is left to send of a table.
    table: VecDeque<(Kind, Rc<[u8]>)>,
    /// Since when the peer lacks what is in the table.
    table_since: Option<Instant>,
    /// When the last table was read.
    table_at: Option<Instant>,
    /// The peer needs a table.
    is_gap: bool,
    queue: VecDeque<(Rc<[u8]>, Instant)>,
    queue_bytes: usize,
    /// Frames sent on this connection.
    sent: u64,
    confirmed: u64,
    /// Frames with changes: their number, and since when the peer lacks them.
    unconfirmed: VecDeque<(u64, Instant)>,
    /// Since when the peer lacks something that is not in here any more.
    behind_since: Option<Instant>,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Send this.
    Send(Kind, Rc<[u8]>),
    /// Read the table, and [`Outbox::start_table`].
    ReadTable,
    /// Nothing.
    Wait,
}

impl Outbox {
    /// A connection was made: the peer needs the table.
    pub fn connect(&mut self) {
        *self = Self { is_connected: true, is_gap: true, behind_since: self.behind_since, ..Self::default() };
    }

    /// The connection is gone, and with it all that waited: the next one starts with a table.
    pub fn disconnect(&mut self) {
        *self = Self { behind_since: self.oldest(), ..Self::default() };
    }

    /// Queues changes. Without a connection only their time is kept.
    pub fn push(&mut self, bodies: &[Rc<[u8]>], now: Instant) {
        if bodies.is_empty() {
            return;
        }
        if !self.is_connected {
            self.behind_since.get_or_insert(now);
            return;
        }
        self.queue.extend(bodies.iter().map(|body| (Rc::clone(body), now)));
        self.queue_bytes += bodies.iter().map(|body| body.len() + ENTRY_BYTES).sum::<usize>();
        if self.queue_bytes > QUEUE_BYTES_MAX {
            self.miss(now);
            self.drop_queue();
        }
    }

    /// Changes were lost: the peer needs a table.
    pub fn miss(&mut self, now: Instant) {
        self.behind_since = Some(self.oldest().unwrap_or(now));
        self.is_gap = self.is_connected;
    }

    /// What to send, counted as sent.
    pub fn next(&mut self, now: Instant) -> Next {
        if self.unconfirmed.len() >= UNCONFIRMED_MAX {
            return Next::Wait;
        }
        // A table that was begun is sent to its end, whatever is lost meanwhile: or a store that keeps losing would
        // never have a table through.
        if let Some((kind, body)) = self.table.pop_front() {
            self.count_sent(self.table_since.unwrap_or(now));
            return Next::Send(kind, body);
        }
        if self.is_gap && self.table_at.is_none_or(|at| now.duration_since(at) >= TABLE_PAUSE) {
            return Next::ReadTable;
        }
        let Some((body, since)) = self.queue.pop_front() else { return Next::Wait };
        self.queue_bytes -= body.len() + ENTRY_BYTES;
        self.count_sent(since);
        Next::Send(Kind::Changes, body)
    }

    /// Takes a table that was read just now.
    pub fn start_table(&mut self, bodies: Vec<Rc<[u8]>>, now: Instant) {
        self.table_since =
            Some(self.queue.front().map_or(now, |(_, since)| *since).min(self.behind_since.unwrap_or(now)));
        self.table_at = Some(now);
        self.behind_since = None;
        self.is_gap = false;
        self.drop_queue();
        self.table.push_back((Kind::SyncBegin, Rc::new([])));
        self.table.extend(bodies.into_iter().map(|body| (Kind::Changes, body)));
        self.table.push_back((Kind::SyncEnd, Rc::new([])));
    }

    /// Counts a frame without changes.
    pub fn count_heartbeat(&mut self) {
        self.sent += 1;
    }

    fn count_sent(&mut self, since: Instant) {
        self.sent += 1;
        self.unconfirmed.push_back((self.sent, since));
    }

    /// The peer has processed that many frames of this connection. False: that can't be.
    #[must_use]
    pub fn confirm(&mut self, frames: u64) -> bool {
        let is_possible = self.confirmed < frames && frames <= self.sent;
        if is_possible {
            self.confirmed = frames;
            while self.unconfirmed.pop_front_if(|(number, _)| *number <= frames).is_some() {}
        }
        is_possible
    }

    /// How long the peer has lacked something, milliseconds; 0: it has all.
    pub fn lag_ms(&self, now: Instant) -> u32 {
        self.oldest().map_or(0, |since| u32::try_from(now.duration_since(since).as_millis()).unwrap_or(u32::MAX))
    }

    /// Whether there is nothing that a connected peer lacks.
    pub fn is_done(&self) -> bool {
        !self.is_connected || (!self.is_gap && self.oldest().is_none())
    }

    fn oldest(&self) -> Option<Instant> {
        let table = self.table_since.filter(|_| !self.table.is_empty());
        let queued = self.queue.front().map(|(_, since)| *since);
        let unconfirmed = self.unconfirmed.iter().map(|(_, since)| *since).min();
        [self.behind_since, table, queued, unconfirmed].into_iter().flatten().min()
    }

    fn drop_queue(&mut self) {
        self.queue.clear();
        self.queue_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bodies(texts: &[&str]) -> Vec<Rc<[u8]>> {
        texts.iter().map(|text| text.as_bytes().into()).collect()
    }

    /// What goes out until there is nothing to do or a table is to be read.
    fn drain(outbox: &mut Outbox, now: Instant) -> (String, Next) {
        let mut said = String::new();
        loop {
            match outbox.next(now) {
                Next::Send(Kind::SyncBegin, _) => said.push('['),
                Next::Send(Kind::SyncEnd, _) => said.push(']'),
                Next::Send(_, body) => said.push_str(std::str::from_utf8(&body).unwrap()),
                end => return (said, end),
            }
        }
    }

    fn connected(table: &[&str], now: Instant) -> Outbox {
        let mut outbox = Outbox::default();
        outbox.connect();
        assert_eq!(outbox.next(now), Next::ReadTable);
        outbox.start_table(bodies(table), now);
        outbox
    }

    #[test]
    fn the_table_goes_first_whole_and_changes_since_it_follow_in_order() {
        let now = Instant::now();
        let mut outbox = Outbox::default();
        outbox.push(&bodies(&["unconnected"]), now);
        outbox.connect();
        outbox.push(&bodies(&["before"]), now);
        assert_eq!(drain(&mut outbox, now), (String::new(), Next::ReadTable));
        outbox.start_table(bodies(&["a", "b"]), now);
        outbox.push(&bodies(&["1"]), now);
        assert_eq!(outbox.next(now), Next::Send(Kind::SyncBegin, Rc::new([])));
        outbox.push(&bodies(&["2", "3"]), now);
        assert_eq!(drain(&mut outbox, now), ("ab]123".to_owned(), Next::Wait));
        assert!(!outbox.is_done());
        assert!(outbox.confirm(7));
        assert!(outbox.is_done());
    }

    #[test]
    fn a_gap_asks_for_a_table_but_not_in_the_middle_of_one_and_not_at_once_again() {
        let now = Instant::now();
        let mut outbox = connected(&["a", "b"], now);
        assert!(matches!(outbox.next(now), Next::Send(Kind::SyncBegin, _)));
        outbox.miss(now);
        outbox.push(&bodies(&["1"]), now);
        // What is known goes on being told.
        assert_eq!(drain(&mut outbox, now), ("ab]1".to_owned(), Next::Wait));
        assert!(!outbox.is_done());
        let later = now + TABLE_PAUSE;
        assert_eq!(outbox.next(later), Next::ReadTable);
        outbox.start_table(bodies(&["c"]), later);
        assert_eq!(drain(&mut outbox, later), ("[c]".to_owned(), Next::Wait));
        assert!(outbox.confirm(8));
        assert!(outbox.is_done());
    }

    #[test]
    fn a_full_queue_is_dropped_and_a_table_takes_its_place() {
        let now = Instant::now();
        let mut outbox = connected(&[], now);
        assert_eq!(drain(&mut outbox, now).0, "[]");
        let big: Rc<[u8]> = vec![b'x'; QUEUE_BYTES_MAX - ENTRY_BYTES].into();
        outbox.push(&[Rc::clone(&big)], now);
        assert!(!outbox.is_gap, "as much as fits");
        outbox.push(&bodies(&["y"]), now);
        assert_eq!(Rc::strong_count(&big), 1, "the queue let go");
        let later = now + TABLE_PAUSE;
        assert_eq!(outbox.lag_ms(later), 1_000);
        assert_eq!(drain(&mut outbox, later), (String::new(), Next::ReadTable));
    }

    #[test]
    fn small_entries_fill_the_queue_as_well() {
        let now = Instant::now();
        let mut outbox = connected(&[], now);
        outbox.push(&vec![Rc::from(*b"z"); QUEUE_BYTES_MAX / ENTRY_BYTES], now);
        assert!(outbox.is_gap && outbox.queue.is_empty());
    }

    #[test]
    fn a_peer_that_confirms_nothing_is_sent_no_more() {
        let now = Instant::now();
        let mut outbox = connected(&[], now);
        outbox.push(&vec![Rc::from(*b"z"); UNCONFIRMED_MAX], now);
        assert_eq!(drain(&mut outbox, now).0.len(), UNCONFIRMED_MAX);
        assert!(outbox.confirm(2));
        assert_eq!(drain(&mut outbox, now).0.len(), 2);
    }

    #[test]
    fn only_frames_that_were_sent_can_be_confirmed_and_only_once() {
        let now = Instant::now();
        let mut outbox = connected(&[], now);
        assert!(!outbox.confirm(0) && !outbox.confirm(1));
        assert!(matches!(outbox.next(now), Next::Send(..)));
        outbox.count_heartbeat();
        assert!(!outbox.confirm(3));
        assert!(outbox.confirm(2));
        assert!(!outbox.confirm(2) && !outbox.confirm(1));
    }

    #[test]
    fn lag_is_the_age_of_what_the_peer_lacks_connected_or_not() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut outbox = connected(&[], at(0));
        assert_eq!(drain(&mut outbox, at(0)).0, "[]");
        assert!(outbox.confirm(2));
        outbox.count_heartbeat();
        assert_eq!(outbox.lag_ms(at(500)), 0, "a heartbeat is no change");
        outbox.push(&bodies(&["1"]), at(1_000));
        outbox.push(&bodies(&["2"]), at(1_100));
        assert_eq!(outbox.lag_ms(at(1_150)), 150, "queued");
        assert_eq!(drain(&mut outbox, at(1_150)).0, "12");
        assert_eq!(outbox.lag_ms(at(1_200)), 200, "sent");
        assert!(outbox.confirm(4));
        assert_eq!(outbox.lag_ms(at(1_200)), 100, "half of it confirmed");
        outbox.disconnect();
        outbox.push(&bodies(&["3"]), at(2_000));
        assert_eq!(outbox.lag_ms(at(3_000)), 1_900, "lost with the connection");
        assert!(outbox.is_done(), "nobody to wait for");
        outbox.connect();
        assert_eq!(outbox.lag_ms(at(3_100)), 2_000);
        outbox.start_table(vec![], at(3_100));
        assert_eq!(outbox.lag_ms(at(3_200)), 2_100, "until the table is confirmed");
        assert_eq!(drain(&mut outbox, at(3_200)).0, "[]");
        assert_eq!(outbox.lag_ms(at(3_300)), 2_200);
        assert!(outbox.confirm(2));
        assert_eq!(outbox.lag_ms(at(3_300)), 0);
    }

    #[test]
    fn a_peer_that_never_was_there_lags_from_the_first_change() {
        let now = Instant::now();
        let mut outbox = Outbox::default();
        assert_eq!(outbox.lag_ms(now), 0);
        outbox.push(&bodies(&["1"]), now);
        assert_eq!(outbox.lag_ms(now + Duration::from_millis(70)), 70);
        assert!(outbox.queue.is_empty());
    }
}
