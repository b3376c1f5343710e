//! Frames on a stream, both ways, and how a connection ends.
//!
//! Deliberately absent: what the frames are about, which is `sender.rs` and `receiver.rs`.

use std::cell::Cell;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, sleep_until, timeout};

use super::address;
use super::auth::{Ends, Seal, TAG};
use super::wire::{self, Kind, LENGTH_MAX, Message};

/// From connecting to the first frame.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);
/// A dialer that says nothing for this long sends a heartbeat. Every frame is confirmed, so both sides hear something.
pub const HEARTBEAT: Duration = Duration::from_secs(1);
/// A connection on which nothing was heard for this long is over.
pub const SILENCE: Duration = Duration::from_secs(5);

/// The most that goes to one peer.
const BYTES_PER_SECOND: u32 = 4_000_000;
/// What may go at once after a pause: a frame takes 4 ms, a timer wakes up to 1 ms late.
const BURST: Duration = Duration::from_millis(10);
const HEADER: usize = 5;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum End {
    /// The other side said what it must not: counted.
    #[error("refused: {0}")]
    Refused(&'static str),
    /// The connection broke.
    #[error("{0}: {1}")]
    Broken(&'static str, io::Error),
    /// Nothing was heard in time.
    #[error("{0}, nothing came for {1:?}")]
    Silent(&'static str, Duration),
    /// This node can't say what it serves.
    #[error("reading this node's own flows: {0:#}")]
    Store(anyhow::Error),
}

impl End {
    /// For `map_err`.
    pub fn broken(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Broken(what, error)
    }
}

/// The frames that come in.
pub struct Reader<R = OwnedReadHalf> {
    stream: R,
    seal: Seal,
    frame: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// Reads what was sealed with that key.
    pub fn new(stream: R, seal: Seal) -> Self {
        Self { stream, seal, frame: Vec::new() }
    }

    /// The next message; its bytes are added to `count`. After an error the stream is of no use.
    pub async fn next(&mut self, count: &Cell<u64>) -> Result<Message, End> {
        let broken = || End::broken("reading from the connection");
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).await.map_err(broken())?;
        // Before the tag can be checked, all that an unknown sender can do is to make this buffer 16 KiB long.
        let size = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if !(1..=LENGTH_MAX).contains(&size) {
            return Err(End::Refused("a frame with an impossible length"));
        }
        self.frame.clear();
        self.frame.extend(length);
        self.frame.resize(length.len() + size, 0);
        self.stream.read_exact(&mut self.frame[length.len()..]).await.map_err(broken())?;
        let mut tag = [0; TAG];
        self.stream.read_exact(&mut tag).await.map_err(broken())?;
        if !self.seal.is_tag(&self.frame, &tag) {
            return Err(End::Refused("a frame that was forged, changed, or repeated, or another key"));
        }
        count.set(count.get() + (self.frame.len() + TAG) as u64);
        let (header, body) = self.frame.split_at(HEADER);
        wire::parse(header[HEADER - 1], body).ok_or(End::Refused("a message of an unknown kind or form"))
    }

    /// The next message, if it comes within [`SILENCE`].
    pub async fn next_in_time(&mut self, count: &Cell<u64>) -> Result<Message, End> {
        timeout(SILENCE, self.next(count)).await.unwrap_or(Err(End::Silent("waiting for the peer", SILENCE)))
    }
}

/// The frames that go out.
pub struct Writer {
    stream: OwnedWriteHalf,
    seal: Seal,
    frame: Vec<u8>,
    last_at: Instant,
    /// When the bytes so far have been sent at the full rate.
    free_at: Instant,
}

impl Writer {
    /// Seals with that key.
    pub fn new(stream: OwnedWriteHalf, seal: Seal) -> Self {
        Self { stream, seal, frame: Vec::new(), last_at: Instant::now(), free_at: Instant::now() }
    }

    /// When a heartbeat is due.
    pub fn heartbeat_at(&self) -> Instant {
        self.last_at + HEARTBEAT
    }

    /// Sends one frame, not faster than allowed; its bytes are added to `count`. Waits for ever on a peer that reads
    /// nothing: the caller has a limit.
    pub async fn send(&mut self, kind: Kind, body: &[u8], count: &Cell<u64>) -> Result<(), End> {
        let length = 1 + body.len();
        debug_assert!(length <= LENGTH_MAX);
        self.frame.clear();
        self.frame.extend((length as u32).to_be_bytes());
        self.frame.push(kind as u8);
        self.frame.extend(body);
        let tag = self.seal.tag(&self.frame);
        self.frame.extend(tag);
        sleep_until(self.free_at).await;
        self.stream.write_all(&self.frame).await.map_err(End::broken("writing to the connection"))?;
        self.last_at = Instant::now();
        let takes = Duration::from_secs(1) * self.frame.len() as u32 / BYTES_PER_SECOND;
        self.free_at = self.free_at.max(self.last_at.checked_sub(BURST).unwrap_or(self.last_at)) + takes;
        count.set(count.get() + self.frame.len() as u64);
        Ok(())
    }
}

/// The addresses of a dialled connection; an accepted one has them the other way round.
///
/// # Errors
/// When a node talks to itself: its own flows would come back as a peer's.
pub fn ends(stream: &TcpStream) -> Result<Ends, End> {
    let ask = || End::broken("asking for the connection's addresses");
    let dialer = address(stream.local_addr().map_err(ask())?.ip());
    let acceptor = address(stream.peer_addr().map_err(ask())?.ip());
    if dialer == acceptor { Err(End::Refused("it is this node itself")) } else { Ok(Ends { dialer, acceptor }) }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::replication::Key;
    use crate::replication::auth::{HELLO, REPLY, Session};

    #[tokio::test]
    async fn frames_arrive_and_not_faster_than_allowed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (dialled, accepted) =
            tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), async { listener.accept().await });
        let ends = Ends { dialer: address([10, 0, 0, 1].into()), acceptor: address([10, 0, 0, 2].into()) };
        let session = || -> Session { Key::new(&[7; 32]).unwrap().session(&[0; HELLO], &[0; REPLY], ends) };
        let mut writer = Writer::new(dialled.unwrap().into_split().1, session().flows);
        let mut reader = Reader::new(accepted.unwrap().0.into_split().0, session().flows);
        // A group of 0x0665 = 1,637 members of form 1.
        let body = [&[1, 192, 0, 2, 10, 0, 80, 0x06, 0x65][..], &[0; 9_822]];
        let body = body.concat();
        let (sent, received) = (Cell::new(0), Cell::new(0));
        let start = Instant::now();
        let send = async {
            for _ in 0..100 {
                writer.send(Kind::Changes, &body, &sent).await.unwrap();
            }
        };
        let receive = async {
            for _ in 0..100 {
                assert!(
                    matches!(reader.next(&received).await, Ok(Message::Changes(changes)) if changes.len() == 1_637)
                );
            }
        };
        tokio::join!(send, receive);
        // 5 + 9 + 1,637 x 6 + 16 bytes each.
        assert_eq!((sent.get(), received.get()), (985_200, 985_200));
        // At 4 MB/s, but for the burst and the last one.
        assert!(start.elapsed() >= Duration::from_millis(246 - 10 - 3), "{:?}", start.elapsed());
    }
}
