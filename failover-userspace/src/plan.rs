//! The configuration meets this machine: every interface looked up once, with what a virtual
//! router needs of it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use crate::config::{Config, Problem};
use crate::interface::Interface;

/// What is known of the machine at start.
#[derive(Debug)]
pub struct Plan {
    /// Each interface once, in the order of its first use.
    pub interfaces: Vec<Interface>,
    /// In the order of the configuration.
    pub routers: Vec<RouterPlan>,
    file: PathBuf,
    lines: BTreeMap<String, usize>,
}

/// One virtual router's place.
#[derive(Debug)]
pub struct RouterPlan {
    /// Index in [`Plan::interfaces`].
    pub interface: usize,
    /// Where its adverts come from.
    pub own_address: Ipv4Addr,
}

impl Plan {
    /// Resolves the configuration of `file` against the interfaces there are.
    ///
    /// # Errors
    /// One [`Problem`] for each virtual router whose interface does not exist, cannot serve or has no address.
    pub fn new(file: &Path, config: &Config, known: &BTreeMap<String, Interface>) -> Result<Self, Vec<Problem>> {
        let mut plan =
            Self { interfaces: Vec::new(), routers: Vec::new(), file: file.to_path_buf(), lines: BTreeMap::new() };
        let mut problems = Vec::new();
        for router in &config.virtual_routers {
            let name = &router.interface;
            plan.lines.entry(name.clone()).or_insert(router.line);
            match Self::place(config, router.priority, name, known) {
                Ok((interface, own_address)) => plan.add(interface, own_address),
                Err(message) => problems.push(Problem { file: file.to_path_buf(), line: router.line, message }),
            }
        }
        if problems.is_empty() { Ok(plan) } else { Err(problems) }
    }

    fn place<'a>(
        config: &Config,
        priority: u8,
        name: &str,
        known: &'a BTreeMap<String, Interface>,
    ) -> Result<(&'a Interface, Ipv4Addr), String> {
        let Some(interface) = known.get(name) else {
            let there: Vec<_> = known.keys().map(String::as_str).collect();
            return Err(format!("interface \"{name}\" does not exist; there are {}", there.join(", ")));
        };
        if let Some(unfit) = &interface.unfit {
            return Err(format!("interface \"{name}\" {unfit}"));
        }
        let own_address = interface.primary_address(&virtual_addresses(config, name, priority));
        let own_address = own_address.ok_or_else(|| {
            format!("interface \"{name}\" has no IPv4 address of its own: adverts need one to come from")
        })?;
        Ok((interface, own_address))
    }

    fn add(&mut self, interface: &Interface, own_address: Ipv4Addr) {
        let index = self.interfaces.iter().position(|known| known.name == interface.name).unwrap_or_else(|| {
            self.interfaces.push(interface.clone());
            self.interfaces.len() - 1
        });
        self.routers.push(RouterPlan { interface: index, own_address });
    }

    /// An error about an interface, at the line that first names it.
    pub fn problem(&self, interface: &str, message: String) -> anyhow::Error {
        let line = self.lines.get(interface).copied().unwrap_or_default();
        anyhow::Error::new(Problem { file: self.file.clone(), line, message })
    }
}

/// The addresses that come and go on an interface, and so cannot be the source of adverts. An
/// owner's are its own.
pub fn virtual_addresses(config: &Config, interface: &str, priority: u8) -> Vec<Ipv4Addr> {
    if priority == failover_common::wire::vrrp::PRIORITY_OWNER {
        return Vec::new();
    }
    let routers = config.virtual_routers.iter().filter(|router| router.interface == interface);
    routers.flat_map(|router| router.addresses.iter().map(ipnet::Ipv4Net::addr)).collect()
}
