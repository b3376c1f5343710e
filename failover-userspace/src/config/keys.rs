//! The keys of the file, with what each may hold as messages put it.
//!
//! Deliberately absent: the checks, which stand in validate.rs, value.rs and address.rs; whoever
//! moves a bound there changes the words here.

use super::setting::Key;

const ON_OFF: &str = "true or false";

pub(super) const NODE: Key = Key::new("node", "a table: [node]");
pub(super) const NODE_NAME: Key = Key::new("name", "1 to 63 printable bytes without spaces, in quotes");
pub(super) const REALTIME_PRIORITY: Key = Key::new("realtime_priority", "a whole number from 0 (off) to 99");

pub(super) const DATA_PLANE: Key = Key::new("data_plane", "a table: [data_plane]");
pub(super) const PIN_PATH: Key = Key::new("pin_path", "an absolute path, in quotes");
pub(super) const XDP_MODE: Key = Key::new("xdp_mode", r#""auto", "native" or "generic""#);
pub(super) const FLOWS_MAX: Key = Key::new("flows_max", "a whole number from 1024 to 4194304");
pub(super) const RESETS_PER_SECOND: Key =
    Key::new("resets_per_second", "a whole number from 1 to 100000000, for each CPU");

pub(super) const REPLICATION: Key = Key::new("replication", "a table: [replication]");
pub(super) const LISTEN: Key = Key::new("listen", r#"an address and a port in quotes, such as "10.0.0.1:7700""#);
pub(super) const PEERS: Key = Key::new("peers", r#"a list of 1 to 16 addresses with ports, such as ["10.0.0.2:7700"]"#);
pub(super) const KEY_FILE: Key = Key::new("key_file", "an absolute path, in quotes");

pub(super) const VIRTUAL_ROUTER: Key = Key::new("virtual_router", "a list of tables: [[virtual_router]]");
pub(super) const NAME: Key = Key::new("name", "1 to 31 printable bytes without spaces, in quotes");
pub(super) const INTERFACE: Key =
    Key::new("interface", "an interface name in quotes: 1 to 15 printable bytes without spaces, '/' or ':'");
pub(super) const VRID: Key = Key::new("vrid", "a whole number from 1 to 255");
pub(super) const VERSION: Key = Key::new("version", "2 or 3");
pub(super) const PRIORITY: Key =
    Key::new("priority", "a whole number from 1 to 254, or 255 for the owner of the addresses");
pub(super) const ADVERT_INTERVAL: Key = Key::new("advert_interval", r#"a duration in quotes, such as "1s" or "100ms""#);
pub(super) const ADDRESSES: Key =
    Key::new("addresses", r#"a list of 1 to 20 IPv4 addresses, such as ["192.0.2.10/24"]"#);
pub(super) const PREEMPT: Key = Key::new("preempt", ON_OFF);
pub(super) const PREEMPT_DELAY: Key = Key::new("preempt_delay", r#"a duration from "0s" to "1000s""#);
pub(super) const ACCEPT: Key = Key::new("accept", ON_OFF);
pub(super) const PASSWORD: Key = Key::secret("password", "1 to 8 printable ASCII characters, in quotes");
pub(super) const CHECKSUM: Key = Key::new("checksum", r#""auto", "rfc9568" or "pseudo-header""#);

pub(super) const ANNOUNCE: Key =
    Key::new("announce", r#"a table such as { count = 5, interval = "100ms", refresh = "0s" }"#);
pub(super) const COUNT: Key = Key::new("announce.count", "a whole number from 1 to 100");
pub(super) const INTERVAL: Key = Key::new("announce.interval", r#"a duration from "0ms" to "10s""#);
pub(super) const REFRESH: Key = Key::new("announce.refresh", r#""0s" for never, or a duration from "1s" to "1day""#);

pub(super) const STALE_CONNECTIONS: Key = Key::new("stale_connections", "a table: [virtual_router.stale_connections]");
pub(super) const ACTION: Key = Key::new("stale_connections.action", r#""reset", "pass" or "drop""#);
pub(super) const HOLD: Key = Key::new("stale_connections.hold", r#"a duration from "0s" to "60s""#);
pub(super) const PORTS: Key =
    Key::new("stale_connections.ports", "a list of up to 16 whole numbers from 1 to 65535, such as [80, 443]");
