//! A node on a thread, its store, what it logs, and waiting.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use failover_common::abi::{self, FlowKey};
use failover_common::address::Address;
use tokio::sync::mpsc;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::replication::auth::{Ends, HELLO, Session};
use crate::replication::{Change, Key, News, Record, Replication, Settings, Store};

pub const PORT: u16 = 7700;
const PATIENCE: Duration = Duration::from_secs(60);

/// A loopback address that no other test has, in this process or another.
pub fn ip() -> Ipv4Addr {
    static LAST: AtomicU8 = AtomicU8::new(0);
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, high | 0x80, low, LAST.fetch_add(1, Ordering::Relaxed) + 1)
}

/// An address for benchmarks (RFC 2544) that is on no machine, and that no other test has.
pub fn missing_ip() -> Ipv4Addr {
    let [_, high, low, last] = ip().octets();
    Ipv4Addr::new(198, 18 | (high & 1), low, last)
}

/// What all nodes logged, one event a line.
static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        LOG.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Keeps what is logged from now on.
pub fn keep_log() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(|| Log);
        let filter = Targets::new().with_target("failover_userspace::replication", LevelFilter::DEBUG);
        tracing_subscriber::registry().with(lines.with_filter(filter)).init();
    });
}

/// How many lines of the log name that address, and have all of these words.
pub fn logged(address: SocketAddr, words: &[&str]) -> usize {
    let log = LOG.lock().unwrap();
    let log = String::from_utf8_lossy(&log);
    let address = format!("={address}");
    let has_all = |line: &&str| line.contains(&address) && words.iter().all(|word| line.contains(word));
    log.lines().filter(has_all).count()
}

pub fn at(ip: Ipv4Addr) -> SocketAddr {
    SocketAddr::new(ip.into(), PORT)
}

pub fn shared_key() -> Key {
    Key::new(b"the key that all nodes of the tests share").unwrap()
}

/// The n-th flow to 192.0.2.10:80.
pub fn flow(n: u32) -> FlowKey {
    let [_, a, b, c] = (n / 50_000).to_be_bytes();
    FlowKey {
        local: Address::from_ipv4([192, 0, 2, 10]),
        remote: Address::from_ipv4([10, a, b, c]),
        local_port: 80,
        remote_port: (n % 50_000) as u16 + 10_000,
    }
}

pub fn record(n: u32) -> Record {
    Record { key: flow(n), send_next: (!n.is_multiple_of(3)).then_some(n.wrapping_mul(0x9e37_79b9)) }
}

pub fn opened(n: u32) -> Change {
    Change::Opened(record(n))
}

pub fn closed(n: u32) -> Change {
    Change::Closed(flow(n))
}

/// What a node's store has.
#[derive(Default)]
pub struct Table {
    pub own: BTreeMap<FlowKey, Option<u32>>,
    /// By peer and flow: number of the table, sequence number.
    pub heard: HashMap<(u32, FlowKey), (u32, Option<u32>)>,
    /// Calls of each kind.
    pub opened: u64,
    pub closed: u64,
    pub synced: u64,
    pub reads: u64,
    pub refused: u64,
    pub status: HashMap<u32, abi::Peer>,
}

impl Table {
    /// How often it was told of flows opened, closed, tables complete, and asked for its own.
    pub fn calls(&self) -> [u64; 4] {
        [self.opened, self.closed, self.synced, self.reads]
    }

    /// The last report of a peer.
    pub fn status(&self, peer: u32) -> abi::Peer {
        self.status.get(&peer).copied().unwrap_or_default()
    }

    /// What it heard of a peer.
    pub fn of_peer(&self, peer: u32) -> BTreeMap<FlowKey, Option<u32>> {
        let heard = self.heard.iter().filter(|((of, _), _)| *of == peer);
        heard.map(|((_, key), (_, send_next))| (*key, *send_next)).collect()
    }

    pub fn serve(&mut self, flows: impl IntoIterator<Item = u32>) {
        self.own.extend(flows.into_iter().map(|n| (flow(n), record(n).send_next)));
    }

    /// Does to its own flows what it tells.
    pub fn change(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Opened(record) => drop(self.own.insert(record.key, record.send_next)),
                Change::Closed(key) => drop(self.own.remove(key)),
            }
        }
    }
}

struct Shared(Arc<Mutex<Table>>);

impl Store for Shared {
    fn own_flows(&mut self) -> anyhow::Result<Vec<Record>> {
        let mut table = self.0.lock().unwrap();
        table.reads += 1;
        Ok(table.own.iter().map(|(key, send_next)| Record { key: *key, send_next: *send_next }).collect())
    }

    fn peer_opened(&mut self, peer: u32, sync: u32, record: Record) {
        let mut table = self.0.lock().unwrap();
        table.opened += 1;
        table.heard.insert((peer, record.key), (sync, record.send_next));
    }

    fn peer_closed(&mut self, peer: u32, key: &FlowKey) {
        let mut table = self.0.lock().unwrap();
        table.closed += 1;
        table.heard.remove(&(peer, *key));
    }

    fn peer_synced(&mut self, peer: u32, sync: u32) {
        let mut table = self.0.lock().unwrap();
        table.synced += 1;
        table.heard.retain(|(of, _), (confirmed, _)| *of != peer || *confirmed == sync);
    }

    fn report(&mut self, peer: u32, status: &abi::Peer) {
        self.0.lock().unwrap().status.insert(peer, *status);
    }

    fn report_refused(&mut self, total: u64) {
        self.0.lock().unwrap().refused = total;
    }
}

/// A running node.
pub struct Node {
    table: Arc<Mutex<Table>>,
    news: Option<mpsc::Sender<News>>,
    thread: Option<JoinHandle<()>>,
}

impl Node {
    pub fn start(listen: Ipv4Addr, peers: &[Ipv4Addr]) -> Self {
        let peers = peers.iter().map(|ip| at(*ip)).collect();
        Self::start_with(Settings { listen: at(listen), peers, key: shared_key() }, Table::default())
    }

    pub fn start_with(settings: Settings, table: Table) -> Self {
        let replication = Replication::bind(settings).unwrap();
        let table = Arc::new(Mutex::new(table));
        let (news, receiver) = mpsc::channel(16);
        let store = Shared(Arc::clone(&table));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(replication.run(store, receiver)).unwrap();
        });
        Self { table, news: Some(news), thread: Some(thread) }
    }

    /// Its table, locked: one at a time in a statement.
    pub fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap()
    }

    /// Changes its own flows and tells of it, as the real store does: first the table, then the news.
    pub fn change(&self, changes: Vec<Change>) {
        self.table().change(&changes);
        self.tell(News::Changes(changes));
    }

    pub fn tell(&self, news: News) {
        self.news.as_ref().unwrap().blocking_send(news).unwrap();
    }

    /// Waits until its table is so.
    pub fn wait(&self, what: &str, is_so: impl Fn(&Table) -> bool) {
        wait(what, || is_so(&self.table()));
    }

    /// Waits until the node has heard all and only what `other`, its peer of that index, serves.
    pub fn wait_for_flows_of(&self, other: &Self, peer: u32) {
        self.wait("a table of the peer", |table| table.synced > 0);
        wait("the same flows on both nodes", || {
            let own = other.table().own.clone();
            self.table().of_peer(peer) == own
        });
    }

    pub fn is_sending(&self, peer: u32) -> bool {
        self.table().status(peer).is_sending == 1
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.news = None;
        let ended = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            ended.unwrap();
        }
    }
}

/// Waits until it is so.
pub fn wait(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "waited for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn ends(dialer: Ipv4Addr, acceptor: Ipv4Addr) -> Ends {
    Ends { dialer: Address::from(dialer), acceptor: Address::from(acceptor) }
}

/// The acceptor's side of a handshake with a real dialer.
pub fn answer(listener: &TcpListener, key: &Key) -> (TcpStream, Session) {
    let (mut stream, from) = listener.accept().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut hello = [0; HELLO];
    stream.read_exact(&mut hello).unwrap();
    let (SocketAddr::V4(from), Ok(SocketAddr::V4(to))) = (from, stream.local_addr()) else { panic!("not IPv4") };
    let ends = ends(*from.ip(), *to.ip());
    let reply = key.reply(&hello, &[9; 32], ends);
    stream.write_all(&reply).unwrap();
    (stream, key.session(&hello, &reply, ends))
}
