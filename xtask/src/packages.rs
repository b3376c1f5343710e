//! The distribution's packages: which one this is, what it can install, and the words for when it can't.
//!
//! Only Debian's family is driven (apt-get); for the others the error names their packages. Packages are never
//! removed (`--no-remove`), and nothing is installed when `FAILOVER_NO_INSTALL` is set. Deliberately absent: which
//! package is needed for what.

use std::cell::Cell;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, anyhow};

use crate::exec;

/// One package, under the name each family gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Debian, Ubuntu and relatives.
    pub apt: String,
    /// Fedora, RHEL and relatives.
    pub dnf: String,
    /// Arch and relatives.
    pub pacman: String,
}

/// What kind of distribution this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// apt-get
    Debian,
    /// dnf
    Fedora,
    /// pacman
    Arch,
    /// Anything else.
    Other,
}

/// This machine's package manager.
#[derive(Debug)]
pub struct Packages {
    family: Family,
    lists_updated: Cell<bool>,
}

impl Package {
    /// A package whose name differs between families.
    pub fn new(apt: impl Into<String>, dnf: impl Into<String>, pacman: impl Into<String>) -> Self {
        Self { apt: apt.into(), dnf: dnf.into(), pacman: pacman.into() }
    }
}

impl Packages {
    /// Looks at `/etc/os-release`.
    pub fn detect() -> Self {
        let text = ["/etc/os-release", "/usr/lib/os-release"]
            .iter()
            .find_map(|path| std::fs::read_to_string(path).ok())
            .unwrap_or_default();
        Self { family: family_of(&text), lists_updated: Cell::new(false) }
    }

    /// Whether packages may and can be installed here.
    pub fn can_install(&self) -> bool {
        self.obstacle().is_none()
    }

    /// The version apt would install, when there is one. Fetches the package lists once if it knows none.
    pub fn candidate(&self, package: &str) -> Option<String> {
        if !self.can_install() {
            return None;
        }
        let look = || exec::output_of(apt("apt-cache").args(["policy", package])).and_then(|text| candidate_in(&text));
        look().or_else(|| {
            self.update_lists().ok()?;
            look()
        })
    }

    /// Fetches the package lists, once per run.
    pub fn update_lists(&self) -> Result<()> {
        if !self.lists_updated.replace(true) {
            exec::run(apt("apt-get").args(["-q", "update"]), "fetching the package lists")?;
        }
        Ok(())
    }

    /// Whether the packages can be installed next to what is there.
    pub fn fits(&self, packages: &[&str]) -> bool {
        exec::output_of(apt("apt-get").args(["-s", "-q"]).args(INSTALL).args(packages)).is_some()
    }

    /// Installs `packages`, saying so and `purpose` first.
    pub fn install(&self, packages: &[Package], purpose: &str) -> Result<()> {
        if let Some(obstacle) = self.obstacle() {
            return Err(self.cannot_install(packages, purpose, obstacle));
        }
        let names: Vec<&str> = packages.iter().map(|package| package.apt.as_str()).collect();
        eprintln!("installing {} with apt-get ({purpose})", listed(&names));
        if names.iter().any(|name| self.candidate(name).is_none()) {
            self.update_lists()?;
        }
        let install = || exec::run(apt("apt-get").args(["-q", "-y"]).args(INSTALL).args(&names), "apt-get install");
        let Err(error) = install() else { return Ok(()) };
        if self.lists_updated.get() {
            return Err(self.cannot_install(packages, purpose, &format!("{error:#}")));
        }
        // Old lists name versions that the archive no longer has.
        self.update_lists()?;
        install().map_err(|error| self.cannot_install(packages, purpose, &format!("{error:#}")))
    }

    /// The error for packages that are missing and cannot be installed from here.
    pub fn cannot_install(&self, packages: &[Package], purpose: &str, obstacle: &str) -> anyhow::Error {
        anyhow!(
            "{} ({purpose}), and xtask cannot install it: {obstacle}\n{}",
            self.missing(packages),
            self.advice(packages)
        )
    }

    fn missing(&self, packages: &[Package]) -> String {
        format!("missing: {}", listed(&names_in(self.family, packages)))
    }

    fn advice(&self, packages: &[Package]) -> String {
        let commands: Vec<String> = [Family::Debian, Family::Fedora, Family::Arch]
            .into_iter()
            .filter(|family| self.family == Family::Other || *family == self.family)
            .map(|family| {
                let names = names_in(family, packages);
                format!("  {} {}", family.install_command(), names.join(" "))
            })
            .collect();
        format!("install it as root, then run this again:\n{}", commands.join("\n"))
    }

    fn obstacle(&self) -> Option<&'static str> {
        if !may_install() {
            Some("FAILOVER_NO_INSTALL is set")
        } else if self.family != Family::Debian || !Path::new("/usr/bin/apt-get").exists() {
            Some("it only drives apt-get, and this is not Debian or a relative of it")
        } else if !exec::is_root() {
            Some("it is not root")
        } else {
            None
        }
    }
}

impl Package {
    fn name_for(&self, family: Family) -> &str {
        match family {
            Family::Debian | Family::Other => &self.apt,
            Family::Fedora => &self.dnf,
            Family::Arch => &self.pacman,
        }
    }
}

impl Family {
    fn install_command(self) -> &'static str {
        match self {
            Self::Debian | Self::Other => "apt-get install",
            Self::Fedora => "dnf install",
            Self::Arch => "pacman -S",
        }
    }
}

/// Whether the user lets xtask install things: not when `FAILOVER_NO_INSTALL` is set.
pub fn may_install() -> bool {
    std::env::var_os("FAILOVER_NO_INSTALL").is_none_or(|value| value.is_empty() || value == "0")
}

/// `a`, `a and b`, `a, b and c`.
pub fn listed(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_string(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

/// The family's names for packages; what it ships as part of another package has none.
fn names_in(family: Family, packages: &[Package]) -> Vec<&str> {
    packages.iter().map(|package| package.name_for(family)).filter(|name| !name.is_empty()).collect()
}

/// The family that an os-release file tells of: its `ID`, then its relatives in `ID_LIKE`.
pub fn family_of(os_release: &str) -> Family {
    let value = |key: &str| {
        os_release
            .lines()
            .find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='))
            .map(|value| value.trim_matches(['"', '\'']).to_ascii_lowercase())
            .unwrap_or_default()
    };
    let ids = format!("{} {}", value("ID"), value("ID_LIKE"));
    ids.split_whitespace()
        .find_map(|id| match id {
            "debian" | "ubuntu" => Some(Family::Debian),
            "fedora" | "rhel" | "centos" => Some(Family::Fedora),
            "arch" => Some(Family::Arch),
            _ => None,
        })
        .unwrap_or(Family::Other)
}

/// The candidate's version in what `apt-cache policy` prints.
pub fn candidate_in(policy: &str) -> Option<String> {
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate:"))?.trim();
    (version != "(none)").then(|| version.to_string())
}

fn apt(program: &str) -> Command {
    let mut command = exec::command(program);
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        // The words that `candidate_in` looks for.
        .env("LC_ALL", "C")
        // Tells invoke-rc.d that this is single-user mode, in which no package's service is started.
        .env("RUNLEVEL", "1");
    command
}

const INSTALL: [&str; 3] = ["install", "--no-install-recommends", "--no-remove"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_is_known_by_its_id_or_its_relatives() {
        assert_eq!(family_of("PRETTY_NAME=\"Debian GNU/Linux 12\"\nID=debian\n"), Family::Debian);
        assert_eq!(family_of("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"), Family::Debian);
        assert_eq!(family_of("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n"), Family::Fedora);
        assert_eq!(family_of("ID=fedora\nVERSION_ID=43\n"), Family::Fedora);
        assert_eq!(family_of("NAME=\"Manjaro\"\nID=manjaro\nID_LIKE=arch\n"), Family::Arch);
        assert_eq!(family_of("ID=alpine\n"), Family::Other);
        assert_eq!(family_of(""), Family::Other);
    }

    #[test]
    fn id_is_not_mistaken_for_other_keys() {
        assert_eq!(family_of("VERSION_ID=debian\nVARIANT_ID=arch\n"), Family::Other);
    }

    #[test]
    fn a_candidate_is_read_from_apt_cache_policy() {
        let text = "bpftool:\n  Installed: (none)\n  Candidate: 7.1.0+6.1.192-2\n  Version table:\n";
        assert_eq!(candidate_in(text).as_deref(), Some("7.1.0+6.1.192-2"));
        assert_eq!(candidate_in("rustup:\n  Installed: (none)\n  Candidate: (none)\n"), None);
        assert_eq!(candidate_in(""), None);
    }

    #[test]
    fn names_are_listed_as_people_list_them() {
        assert_eq!(listed(&["bpftool"]), "bpftool");
        assert_eq!(listed(&["bpftool", "keepalived"]), "bpftool and keepalived");
        assert_eq!(listed(&["ip", "tc", "bridge"]), "ip, tc and bridge");
    }

    #[test]
    fn an_unknown_distribution_is_told_all_three_names() {
        let packages = Packages { family: Family::Other, lists_updated: Cell::new(false) };
        let text = packages
            .cannot_install(
                &[Package::new("tshark", "wireshark-cli", "wireshark-cli")],
                "the tests use it",
                "no apt-get",
            )
            .to_string();
        assert!(text.contains("apt-get install tshark"), "{text}");
        assert!(text.contains("dnf install wireshark-cli"), "{text}");
        assert!(text.contains("pacman -S wireshark-cli"), "{text}");
        assert!(text.contains("the tests use it"), "{text}");
    }
}
