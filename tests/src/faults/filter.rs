//! nft in the switch: what passes is dropped or doubled there, and counted. It stands where tc's
//! filters do, and needs fewer of the kernel's options.

use anyhow::{Context, Result};

use crate::netns::{Netns, finish};

/// A table of rules in a namespace, gone when dropped.
pub(super) struct Filter {
    netns: Netns,
    family: &'static str,
}

impl Filter {
    /// Adds `body`, nft's text of chains, and the named counters that it uses.
    pub(super) fn new(netns: &Netns, family: &'static str, counters: &[&str], body: &str) -> Result<Self> {
        let counters: String = counters.iter().map(|name| format!("counter {name} {{ }}\n")).collect();
        let text = format!("table {family} faults {{\n{counters}{body}\n}}");
        finish(netns.command("nft").arg(&text))?;
        Ok(Self { netns: Netns::existing(netns.name()), family })
    }

    /// Drops what the bridge is about to forward and matches, counting it as `dropped`.
    pub(super) fn dropping(switch: &Netns, matches: &str) -> Result<Self> {
        let rule = format!("{matches} counter name dropped drop");
        Self::new(
            switch,
            "bridge",
            &["dropped"],
            &format!("chain cut {{ type filter hook forward priority 0; {rule}; }}"),
        )
    }

    /// The packets of a counter.
    pub(super) fn count(&self, counter: &str) -> Result<u64> {
        let text = finish(self.netns.command("nft").args(["-j", "list", "counter", self.family, "faults", counter]))?;
        let json: serde_json::Value = serde_json::from_str(&text)?;
        let all = json["nftables"].as_array().into_iter().flatten();
        all.filter_map(|item| item["counter"]["packets"].as_u64()).next().context("nft lists no counter")
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        let _ = finish(self.netns.command("nft").args(["delete", "table", self.family, "faults"]));
    }
}
