//! What a verb needs on the machine besides cargo: looks for it, installs what is missing, does nothing twice.
//!
//! Owns the list of programs and their packages. Deliberately absent: how packages are installed (`packages.rs`) and
//! the BPF toolchain (`toolchain.rs`, `linker.rs`).

use std::path::Path;

use anyhow::{Result, bail};

use crate::exec;
use crate::packages::{Package, Packages, may_install};

/// Who needs a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// The lab, and therefore the tests too.
    Lab,
    /// Only the tests.
    Tests,
}

/// Programs of one package, with its names for apt, dnf and pacman.
struct Tool {
    programs: &'static [&'static str],
    apt: &'static str,
    dnf: &'static str,
    pacman: &'static str,
    need: Need,
}

/// Installs the missing ones among the programs that the lab, or the tests as well, run.
pub fn programs(need: Need, packages: &Packages) -> Result<()> {
    let missing: Vec<&Tool> = TOOLS.iter().filter(|tool| tool.need <= need && !tool.is_there()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let wanted: Vec<Package> = missing.iter().map(|tool| tool.package()).collect();
    packages.install(&wanted, need.purpose())?;
    if missing.iter().any(|tool| tool.programs.contains(&"keepalived")) {
        keep_keepalived_from_running();
    }
    for tool in missing {
        if !tool.is_there() {
            bail!("installed {}, and still do not find {}", tool.apt, tool.programs.join(", "));
        }
    }
    Ok(())
}

/// Installs the missing ones among cargo's own components: `fmt` and `clippy`.
pub fn cargo_components() -> Result<()> {
    for (verb, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        if exec::output_of(exec::cargo().args([verb, "--version"])).is_some() {
            continue;
        }
        let purpose = format!("`cargo {verb}`: xtask lint runs it");
        if !may_install() || exec::find_program("rustup").is_none() {
            bail!(
                "missing: {component} ({purpose}); install it with `rustup component add {component}`, \
                 or from where this machine's cargo came"
            );
        }
        eprintln!("installing rustup's component {component} ({purpose})");
        exec::run(exec::command("rustup").args(["component", "add", component]), &format!("adding {component}"))?;
    }
    Ok(())
}

impl Need {
    fn purpose(self) -> &'static str {
        match self {
            Self::Lab => "the lab uses it",
            Self::Tests => "the tests use it",
        }
    }
}

impl Tool {
    fn is_there(&self) -> bool {
        self.programs.iter().all(|program| exec::find_program(program).is_some())
    }

    fn package(&self) -> Package {
        Package::new(self.apt, self.dnf, self.pacman)
    }
}

/// The tests start their own keepalived inside namespaces; none may run on the host because its package came with us.
///
/// Its unit does not start without a configuration file, and `RUNLEVEL=1` (see `packages.rs`) holds a System V script
/// back. This also takes it out of the next boot. The package was not here a moment ago, so nothing of the user's
/// can be running.
fn keep_keepalived_from_running() {
    if Path::new("/run/systemd/system").exists() {
        let mut command = exec::command("systemctl");
        command.args(["disable", "--now", "keepalived.service"]);
        if let Err(error) = exec::run(&mut command, "keeping keepalived's service from starting") {
            eprintln!("warning: {error:#}; the tests do not need that service");
        }
    }
}

const TOOLS: [Tool; 8] = [
    Tool { programs: &["ip", "tc"], apt: "iproute2", dnf: "iproute iproute-tc", pacman: "iproute2", need: Need::Lab },
    Tool { programs: &["bpftool"], apt: "bpftool", dnf: "bpftool", pacman: "bpf", need: Need::Lab },
    Tool { programs: &["nsenter"], apt: "util-linux", dnf: "util-linux", pacman: "util-linux", need: Need::Lab },
    Tool { programs: &["ethtool"], apt: "ethtool", dnf: "ethtool", pacman: "ethtool", need: Need::Lab },
    Tool { programs: &["arping"], apt: "iputils-arping", dnf: "iputils", pacman: "iputils", need: Need::Lab },
    Tool { programs: &["keepalived"], apt: "keepalived", dnf: "keepalived", pacman: "keepalived", need: Need::Tests },
    Tool { programs: &["tcpdump"], apt: "tcpdump", dnf: "tcpdump", pacman: "tcpdump", need: Need::Tests },
    Tool { programs: &["nft"], apt: "nftables", dnf: "nftables", pacman: "nftables", need: Need::Tests },
];
