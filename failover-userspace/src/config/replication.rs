//! `[replication]`: who is told of this node's connections, and the key that both sides have.
//!
//! Deliberately absent: the protocol, which is `crate::replication`'s.

use std::collections::HashSet;
use std::fs::OpenOptions;
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use failover_common::abi::PEERS_MAX;
use rustix::process::{Uid, geteuid};
use toml::Spanned;
use toml::de::DeValue;

use super::report::Report;
use super::setting::Setting;
use super::validate::require;
use super::{Replication, VirtualRouter, keys, raw, section, value};

/// What a 256-bit key takes, if it is random bytes; text needs more.
const KEY_BYTES_MIN: usize = 32;
/// A key file that is larger is another file.
const KEY_BYTES_MAX: u64 = 4096;

/// The table as it is meant, on a node with these virtual routers.
pub(super) fn replication(raw: raw::Replication, routers: &[VirtualRouter], report: &mut Report) -> Replication {
    let addresses = routers.iter().flat_map(|router| &router.addresses);
    let virtual_ips: HashSet<IpAddr> = addresses.map(|net| net.addr().into()).collect();
    require(&raw.listen, &keys::LISTEN, raw.at, report);
    require(&raw.peers, &keys::PEERS, raw.at, report);
    require(&raw.key_file, &keys::KEY_FILE, raw.at, report);
    let listen = raw.listen.convert(&keys::LISTEN, report, endpoint);
    if let Setting::Given(own, span) = &listen
        && virtual_ips.contains(&own.ip())
    {
        let listen = report.quoted(span);
        report.at(span.start, format!("listen {listen} is a virtual address, which moves: it must be this node's own"));
    }
    let unset = SocketAddr::from(([0, 0, 0, 0], 0));
    let key_file_at = if let Setting::Given(_, span) = &raw.key_file { span.start } else { raw.at };
    Replication {
        peers: peers(raw.peers, &listen, &virtual_ips, report),
        listen: listen.or(unset),
        key_file: raw.key_file.convert(&keys::KEY_FILE, report, value::absolute_path).or(PathBuf::new()),
        key_file_line: report.line(key_file_at),
    }
}

/// An address and a port; what IPv6 maps from IPv4 is IPv4, as a peer that calls is seen.
fn endpoint(text: &str) -> Option<SocketAddr> {
    let address: SocketAddr = text.parse().ok()?;
    let canonical = match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::from((ip, address.port())),
        IpAddr::V6(_) => address,
    };
    (canonical.port() != 0).then_some(canonical)
}

fn peers(
    raw: Setting<&[Spanned<DeValue>]>,
    listen: &Setting<SocketAddr>,
    virtual_ips: &HashSet<IpAddr>,
    report: &mut Report,
) -> Vec<SocketAddr> {
    let Setting::Given(elements, span) = raw else {
        return Vec::new();
    };
    if elements.is_empty() {
        report.at(span.start, keys::PEERS.must_be("an empty list"));
    }
    if elements.len() > PEERS_MAX as usize {
        report.at(span.start, format!("{} peers: 1 to {PEERS_MAX} are allowed", elements.len()));
    }
    let mut hosts = HashSet::new();
    let mut peers = Vec::new();
    for element in elements {
        let (at, found) = (element.span().start, section::found(element, report));
        let Some(peer) = element.get_ref().as_str().and_then(endpoint) else {
            report.at(at, keys::PEERS.must_be(&format!("of {found}")));
            continue;
        };
        if peer.ip().is_unspecified() {
            report.at(at, format!("peer {found} names no host: it must be the peer's own address"));
        } else if matches!(listen, Setting::Given(own, _) if own.ip() == peer.ip()) {
            report.at(at, format!("peer {found} is this node itself: peers are the others"));
        } else if matches!(listen, Setting::Given(own, _) if !own.ip().is_unspecified() && own.is_ipv4() != peer.is_ipv4())
        {
            // A peer is dialled from the address that is listened on.
            report.at(at, format!("peer {found} is of another family than listen: both are IPv4, or both IPv6"));
        } else if virtual_ips.contains(&peer.ip()) {
            report.at(at, format!("peer {found} is a virtual address, which moves: it must be the peer's own"));
        } else if !hosts.insert(peer.ip()) {
            // A peer that calls is known by its address.
            report.at(at, format!("peer {found} has the address of another peer: each has its own"));
        }
        peers.push(peer);
    }
    peers
}

/// Reads the key: the file's bytes without a last newline.
///
/// # Errors
/// When it cannot be read, is shorter than 32 bytes, is neither root's nor this user's, or others than its owner may
/// read or write it: what is wrong, and what to do.
pub fn read_key(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |error| format!("key_file \"{}\" cannot be read: {error}", path.display());
    // Opened first, so that what is looked at is what is read; and without waiting for a pipe's other end.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(format!("key_file \"{}\" is no regular file", path.display()));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(format!(
            "key_file \"{}\" can be read or written by others (mode {:04o}): use chmod 600",
            path.display(),
            metadata.mode() & 0o7777
        ));
    }
    let owner = Uid::from_raw(metadata.uid());
    if !is_trusted(owner, geteuid()) {
        return Err(format!(
            "key_file \"{}\" is owned by user {owner}: it must be root's or this user's",
            path.display()
        ));
    }
    let mut key = Vec::new();
    file.take(KEY_BYTES_MAX + 1).read_to_end(&mut key).map_err(failed)?;
    if key.last() == Some(&b'\n') {
        key.pop();
    }
    if key.len() < KEY_BYTES_MIN || key.len() as u64 > KEY_BYTES_MAX {
        return Err(format!(
            "key_file \"{}\" holds {} bytes: {KEY_BYTES_MIN} to {KEY_BYTES_MAX} are allowed, for example from \
             `openssl rand -hex 32`",
            path.display(),
            key.len()
        ));
    }
    Ok(key)
}

/// Whether `user` may rely on a file of this owner, who can change it at any time.
pub(super) fn is_trusted(owner: Uid, user: Uid) -> bool {
    owner.is_root() || owner == user
}
