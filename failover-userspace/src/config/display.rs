//! The effective configuration as TOML, every default written out.
//!
//! Deliberately absent: comments.

use std::fmt;
use std::time::Duration;

use super::{
    Announce, ChecksumForm, Config, DataPlane, Node, Replication, StaleConnections, Version, VirtualRouter, XdpMode,
};

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}", self.node, self.data_plane)?;
        if let Some(replication) = &self.replication {
            write!(f, "\n{replication}")?;
        }
        for router in &self.virtual_routers {
            write!(f, "\n{router}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "[node]")?;
        writeln!(f, "name = {}", text(&self.name))?;
        writeln!(f, "realtime_priority = {}", self.realtime_priority)
    }
}

impl fmt::Display for DataPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "[data_plane]")?;
        writeln!(f, "pin_path = {}", text(&self.pin_path.to_string_lossy()))?;
        writeln!(f, "xdp_mode = {}", text(self.xdp_mode.as_str()))?;
        writeln!(f, "flows_max = {}", self.flows_max)?;
        writeln!(f, "resets_per_second = {}", self.resets_per_second)
    }
}

impl fmt::Display for Replication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peers: Vec<_> = self.peers.iter().map(|peer| text(&peer.to_string())).collect();
        writeln!(f, "[replication]")?;
        writeln!(f, "listen = {}", text(&self.listen.to_string()))?;
        writeln!(f, "peers = [{}]", peers.join(", "))?;
        writeln!(f, "key_file = {}", text(&self.key_file.to_string_lossy()))
    }
}

impl fmt::Display for StaleConnections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { action, hold, ports } = self;
        write!(f, "{{ action = {}, hold = {}, ports = {ports:?} }}", text(action.as_str()), duration(*hold))
    }
}

impl fmt::Display for VirtualRouter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = match self.version {
            Version::V2 => 2,
            Version::V3 => 3,
        };
        let advert_interval = Duration::from_millis(u64::from(self.advert_interval_cs) * 10);
        let addresses: Vec<_> = self.addresses.iter().map(|address| text(&address.to_string())).collect();
        writeln!(f, "[[virtual_router]]")?;
        writeln!(f, "name = {}", text(&self.name))?;
        writeln!(f, "interface = {}", text(&self.interface))?;
        writeln!(f, "vrid = {}", self.vrid)?;
        writeln!(f, "version = {version}")?;
        writeln!(f, "priority = {}", self.priority)?;
        writeln!(f, "advert_interval = {}", duration(advert_interval))?;
        writeln!(f, "addresses = [{}]", addresses.join(", "))?;
        writeln!(f, "preempt = {}", self.preempt)?;
        writeln!(f, "preempt_delay = {}", duration(self.preempt_delay))?;
        writeln!(f, "accept = {}", self.accept)?;
        if let Some(padded) = &self.password {
            let password = String::from_utf8_lossy(padded);
            writeln!(f, "password = {}", text(password.trim_end_matches('\0')))?;
        }
        writeln!(f, "checksum = {}", text(self.checksum.as_str()))?;
        writeln!(f, "announce = {}", self.announce)?;
        writeln!(f, "stale_connections = {}", self.stale_connections)
    }
}

impl fmt::Display for Announce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, interval, refresh } = self;
        write!(f, "{{ count = {count}, interval = {}, refresh = {} }}", duration(*interval), duration(*refresh))
    }
}

impl XdpMode {
    /// The word in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }
}

impl ChecksumForm {
    /// The word in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Rfc9568 => "rfc9568",
            Self::PseudoHeader => "pseudo-header",
        }
    }
}

/// A TOML string, quoted and escaped.
fn text(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// A duration in the largest unit that is exact down to milliseconds, else as humantime splits it.
fn duration(duration: Duration) -> String {
    let exact = if duration.subsec_nanos() == 0 {
        format!("{}s", duration.as_secs())
    } else if duration.subsec_nanos().is_multiple_of(1_000_000) {
        format!("{}ms", duration.as_millis())
    } else {
        humantime::format_duration(duration).to_string()
    };
    text(&exact)
}
