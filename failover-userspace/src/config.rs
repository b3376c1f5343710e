//! The configuration file: TOML text in, a [`Config`] that needs no further checks out.
//!
//! This module owns every bound on what an operator may write, and the words that tell them so.
//! Nothing behind it validates again: a [`VirtualRouter`] holds a VRID of 1..=255, an interval that
//! its protocol version can carry, addresses that a host can have.
//! Every problem of a file is reported at once, each with its line; unknown keys are refused, and so
//! is what is not built yet.
//!
//! ```toml
//! [node]
//! name = "edge-a"                      # 1..63 bytes; default: the host name
//! realtime_priority = 0                # 1..99: SCHED_FIFO; 0 = off
//!
//! [data_plane]
//! pin_path = "/sys/fs/bpf/failover"    # absolute
//! xdp_mode = "auto"                    # auto | native | generic
//! flows_max = 262144                   # 1024..4194304
//! resets_per_second = 100000           # 1..100000000, for each CPU
//!
//! [[virtual_router]]                   # 1..256 of them
//! name = "web"                         # required, unique, 1..31 bytes
//! interface = "eth0"                   # required
//! vrid = 51                            # required, 1..255, unique on its interface
//! version = 3                          # 2 | 3
//! priority = 100                       # 1..254; 255 = owner of the addresses
//! advert_interval = "1s"               # v3: 10ms..40.95s in steps of 10ms; v2: 1s..255s, whole seconds
//! addresses = ["192.0.2.10/24"]        # required, 1..20, IPv4; without a length: /32
//! preempt = true
//! preempt_delay = "0s"                 # up to 1000s
//! accept = true
//! # password = "1111"                  # v2 only, 1..8 bytes
//! checksum = "auto"                    # auto | rfc9568 | pseudo-header
//! announce = { count = 5, interval = "100ms", refresh = "0s" }
//!
//! [virtual_router.stale_connections]
//! action = "reset"                     # reset | pass | drop
//! hold = "0s"                          # up to 60s
//! ports = []                           # up to 16; none: all
//!
//! [replication]                        # off unless it is there
//! listen = "10.0.0.1:7700"             # required
//! peers = ["10.0.0.2:7700"]            # required, 1..16
//! key_file = "/etc/failover.key"       # required, absolute; 32 bytes at least, mode 0600, root's or this user's
//! ```
//!
//! Deliberately absent: whether an interface exists, what its addresses are, whether bpffs is
//! mounted. Those change while the program runs; the controller looks when it needs them and names
//! [`VirtualRouter::line`] when they are wrong.

mod address;
mod display;
mod keys;
mod nesting;
mod raw;
pub mod replication;
mod report;
mod section;
mod setting;
mod unique;
mod validate;
mod value;

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use failover_common::abi::StaleAction;
use ipnet::Ipv4Net;

use report::Report;

/// A whole configuration file, checked.
///
/// Its [`Display`](fmt::Display) form is the effective configuration: TOML with every default
/// written out, which [`parse`]s back to an equal value. It includes passwords, as the file does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// What concerns this machine as a whole.
    pub node: Node,
    /// Where and how the XDP program is attached.
    pub data_plane: DataPlane,
    /// Who is told of this node's connections; `None`: nobody.
    pub replication: Option<Replication>,
    /// 1 to 256 virtual routers, in file order.
    pub virtual_routers: Vec<VirtualRouter>,
}

/// The `[node]` table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What this node calls itself in logs and status: 1..=63 bytes, the host name by default.
    pub name: String,
    /// SCHED_FIFO priority of the controller thread, 1..=99, or 0 for ordinary scheduling.
    pub realtime_priority: u8,
}

/// The `[data_plane]` table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataPlane {
    /// The bpffs directory that holds the pinned link and maps: an absolute path.
    pub pin_path: PathBuf,
    /// Which XDP hook the program is attached to.
    pub xdp_mode: XdpMode,
    /// Connections that are remembered, and handshakes: 1024..=4194304 of either.
    pub flows_max: u32,
    /// Resets that each CPU may send in a second, 1..=100000000.
    pub resets_per_second: u32,
}

/// The `[replication]` table.
///
/// Equality leaves the line out, as [`VirtualRouter`]'s does.
#[derive(Debug, Clone)]
pub struct Replication {
    /// Where peers are listened to; the port is never 0.
    pub listen: SocketAddr,
    /// 1 to 16 peers of `listen`'s address family, each with an address of its own that is not this node's. As
    /// `listen`, none is a virtual address, and none an IPv4 address in IPv6's form.
    pub peers: Vec<SocketAddr>,
    /// The file of the key, an absolute path; [`replication::read_key`] reads it.
    pub key_file: PathBuf,
    /// 1-based line of `key_file`.
    pub key_file_line: usize,
}

impl PartialEq for Replication {
    fn eq(&self, other: &Self) -> bool {
        let Self { listen, peers, key_file, key_file_line: _ } = self;
        *listen == other.listen && *peers == other.peers && *key_file == other.key_file
    }
}

impl Eq for Replication {}

/// Which hook the program is attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XdpMode {
    /// The driver's XDP hook, else tc's with a warning.
    Auto,
    /// The driver's hook or nothing.
    Native,
    /// A program at tc ingress, which every device has.
    Generic,
}

/// One `[[virtual_router]]` table: a VRRP instance and its addresses.
///
/// Two of them are equal when they behave alike: [`line`](Self::line) says where one was written
/// and is not compared, so that moving a block is not a change.
#[derive(Debug, Clone)]
pub struct VirtualRouter {
    /// What logs and status call it: unique, 1..=31 printable bytes without whitespace.
    pub name: String,
    /// The interface it speaks on: 1..=15 bytes, as the kernel allows them.
    pub interface: String,
    /// Virtual Router Identifier, 1..=255, unique on its interface (RFC 9568 §5.2.3).
    pub vrid: u8,
    /// The protocol version it speaks.
    pub version: Version,
    /// Priority, 1..=254, or 255 for the owner of the addresses (RFC 9568 §5.2.4).
    pub priority: u8,
    /// Advertisement interval in centiseconds. Version 3: 1..=4095, the field's 12 bits
    /// (RFC 9568 §5.2.7). Version 2: whole seconds, 100..=25500 (RFC 3768 §5.3.7: 8 bits of seconds).
    pub advert_interval_cs: u16,
    /// 1 to 20 addresses, in file order; none twice on one interface, and none on two, unless both of their virtual
    /// routers let stale connections pass.
    pub addresses: Vec<Ipv4Net>,
    /// Whether it takes over from a live router of lower priority (RFC 9568 §6.1, Preempt_Mode).
    /// Always true for the owner.
    pub preempt: bool,
    /// How long it waits before it does, 0..=1000 s; zero unless `preempt`. Not in the RFC.
    pub preempt_delay: Duration,
    /// Whether the addresses are put on the interface while Active (RFC 9568 §6.1, Accept_Mode;
    /// true by default here, false there).
    pub accept: bool,
    /// Version 2's plain-text password, padded with zeros (RFC 2338 §5.3.10; RFC 3768 §5.3.6 keeps
    /// the field and drops its use).
    pub password: Option<[u8; 8]>,
    /// What a version 3 advert's checksum covers.
    pub checksum: ChecksumForm,
    /// How a takeover is announced to the neighbours.
    pub announce: Announce,
    /// What becomes of the connections of the node before this one.
    pub stale_connections: StaleConnections,
    /// 1-based line of its `[[virtual_router]]` header, for later messages about it.
    pub line: usize,
}

impl PartialEq for VirtualRouter {
    fn eq(&self, other: &Self) -> bool {
        // No `..`: a new field is compared, or left out here on purpose.
        let Self {
            name,
            interface,
            vrid,
            version,
            priority,
            advert_interval_cs,
            addresses,
            preempt,
            preempt_delay,
            accept,
            password,
            checksum,
            announce,
            stale_connections,
            line: _,
        } = self;
        *name == other.name
            && *interface == other.interface
            && *vrid == other.vrid
            && *version == other.version
            && *priority == other.priority
            && *advert_interval_cs == other.advert_interval_cs
            && *addresses == other.addresses
            && *preempt == other.preempt
            && *preempt_delay == other.preempt_delay
            && *accept == other.accept
            && *password == other.password
            && *checksum == other.checksum
            && *announce == other.announce
            && *stale_connections == other.stale_connections
    }
}

impl Eq for VirtualRouter {}

/// The VRRP version a virtual router speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// RFC 3768: intervals in seconds, IPv4 only.
    V2,
    /// RFC 9568: intervals in centiseconds.
    V3,
}

/// What the checksum of a version 3 advert over IPv4 covers.
///
/// RFC 9568 §5.2.8 says the VRRP message alone. RFC 5798 was read both ways, and common daemons
/// include the pseudo-header; both forms are accepted whatever is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChecksumForm {
    /// RFC 9568's, until the peer is seen using the other. The only value with version 2, where
    /// there is one form.
    Auto,
    /// The VRRP message alone.
    Rfc9568,
    /// With the IPv4 pseudo-header.
    PseudoHeader,
}

/// How a takeover is announced: gratuitous ARP, request and reply form each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Announce {
    /// How many rounds follow a takeover, 1..=100.
    pub count: u8,
    /// The pause between rounds, 0..=10 s; zero sends them back to back.
    pub interval: Duration,
    /// How often a round is repeated while Active, 1 s..=1 day, or zero for never.
    pub refresh: Duration,
}

/// The `stale_connections` table: TCP connections that no socket here has, and that began before this node was Active.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaleConnections {
    /// What their segments get.
    pub action: StaleAction,
    /// For this long after a takeover they are dropped whatever `action` says, 0..=60 s.
    pub hold: Duration,
    /// The service's ports that this is about, up to 16; none: all.
    pub ports: Vec<u16>,
}

/// One thing that is wrong with a configuration file.
///
/// Displays as `FILE:LINE: message`, or `FILE: message` when it concerns no line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, as it was named.
    pub file: PathBuf,
    /// 1-based line, or 0 for the file as a whole (unreadable, too large).
    pub line: usize,
    /// What is wrong and what is allowed, on one line.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file.display(), self.message),
            line => write!(f, "{}:{line}: {}", self.file.display(), self.message),
        }
    }
}

impl std::error::Error for Problem {}

/// The largest file that is read: 256 virtual routers with 20 addresses each and their comments
/// take a tenth of it, and anything above is not a configuration.
const FILE_BYTES_MAX: usize = 1 << 20;

/// Reads and checks the configuration file at `path`, and the key file that it names; an unset node name is this machine's.
///
/// # Errors
/// Everything that is wrong with the file, sorted by line. A file that cannot be read, is larger
/// than 1 MiB or is not UTF-8 is one [`Problem`].
pub fn load(path: &Path) -> Result<Config, Vec<Problem>> {
    let problem = |line, message| {
        let file = path.to_owned();
        vec![Problem { file, line, message }]
    };
    let bytes = read(path).map_err(|error| problem(0, format!("cannot be read: {error}")))?;
    let text = str::from_utf8(&bytes).map_err(|error| {
        let valid = &bytes[..error.valid_up_to()];
        let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count();
        problem(line, "not UTF-8 text: a TOML file is".to_owned())
    })?;
    let uname = rustix::system::uname();
    let config = parse(path, text, &uname.nodename().to_string_lossy())?;
    if let Some(replication) = &config.replication {
        replication::read_key(&replication.key_file).map_err(|message| problem(replication.key_file_line, message))?;
    }
    Ok(config)
}

/// Reads at most one byte more than [`parse`] accepts, so that it sees that there was more.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path)?;
    file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Checks the configuration `text`, without I/O.
///
/// `file` only names the file in problems; `host_name` is the node's name when the text has none.
///
/// # Errors
/// Everything that is wrong with the text, sorted by line, at least one. When the text is not TOML,
/// what follows the first such place is not judged further than its syntax: what it means is
/// anyone's guess.
pub fn parse(file: &Path, text: &str, host_name: &str) -> Result<Config, Vec<Problem>> {
    let mut report = Report::new(file, text);
    if text.len() > FILE_BYTES_MAX {
        report.whole_file("larger than 1 MiB: a configuration is at most that");
        return Err(report.into_problems());
    }
    if let Some(offset) = nesting::too_deep(text) {
        report.at(offset, nesting::message());
        return Err(report.into_problems());
    }
    let (document, errors) = toml::de::DeTable::parse_recoverable(text);
    report.syntax(&errors);
    let raw = raw::Document::read(document.get_ref(), &mut report);
    let config = validate::config(raw, host_name, &mut report);
    let problems = report.into_problems();
    if problems.is_empty() { Ok(config) } else { Err(problems) }
}

#[cfg(test)]
mod tests;
