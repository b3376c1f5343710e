//! Debian's archive, read with this machine's apt into folders of our own: package lists, downloads, unpacking.
//!
//! Nothing is installed and none of the system's lists, sources or caches are touched, so that any suite and any
//! architecture can be asked, whatever this machine runs. Deliberately absent: which packages are wanted.

use std::cmp::Ordering;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::exec;
use crate::packages::{Package, Packages, may_install};

/// Whom the lists must be signed by.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// One suite of Debian for one architecture.
#[derive(Debug)]
pub struct Archive {
    directory: PathBuf,
    suite: String,
    architecture: &'static str,
}

/// What the package lists say of one package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it needs, by name, of each alternative the first.
    pub depends: Vec<String>,
}

impl Archive {
    /// The lists of `suite`, kept below `directory`; they are fetched the first time.
    pub fn open(directory: &Path, suite: &str, architecture: &'static str, packages: &Packages) -> Result<Self> {
        let archive =
            Self { directory: directory.join(format!("{suite}-{architecture}")), suite: suite.into(), architecture };
        if archive.lists_are_there() {
            return Ok(archive);
        }
        let purpose = format!("fetching the package lists of Debian's {suite} for {architecture}");
        if !may_install() {
            bail!("{purpose}: not done, FAILOVER_NO_INSTALL is set");
        }
        if exec::find_program("apt-get").is_none() || exec::find_program("dpkg").is_none() {
            bail!("{purpose} needs apt-get and dpkg: run this on Debian or a relative of it");
        }
        if !Path::new(KEYRING).exists() {
            packages.install(
                &[Package::new("debian-archive-keyring", "debian-keyring", "debian-archive-keyring")],
                &purpose,
            )?;
        }
        archive.prepare().with_context(|| format!("making {}", archive.directory.display()))?;
        eprintln!("{purpose}, into {}", archive.directory.display());
        exec::run(archive.apt("apt-get").args(["-qq", "update"]), &purpose)?;
        fs::write(archive.directory.join("fetched"), "")?;
        Ok(archive)
    }

    /// All packages of the suite.
    pub fn listed(&self) -> Result<Vec<Listed>> {
        let purpose = format!("reading the package lists of {}", self.suite);
        let text =
            exec::output_of(self.apt("apt-cache").arg("dumpavail")).with_context(|| format!("{purpose} failed"))?;
        Ok(text.split("\n\n").filter_map(listed_in).collect())
    }

    /// Downloads exactly these packages and unpacks them into `root`, but for paths that match one of `without`.
    pub fn unpack(&self, names: &[String], root: &Path, without: &[&str]) -> Result<()> {
        let debs = self.directory.join("debs");
        let _ = fs::remove_dir_all(&debs);
        fs::create_dir_all(&debs)?;
        let mut command = self.apt("apt-get");
        command.current_dir(&debs).args(["-qq", "download"]).args(names);
        exec::run(&mut command, &format!("downloading {}", names.join(" ")))?;
        unpack_all(&debs, root, without)
    }

    /// Downloads these packages and all that they need, and unpacks that into `root`.
    pub fn unpack_closure(&self, names: &[&str], root: &Path) -> Result<()> {
        let debs = self.directory.join("cache/archives");
        let mut command = self.apt("apt-get");
        command.args(["-qq", "--yes", "--download-only", "install"]).args(names);
        exec::run(&mut command, &format!("downloading {} and what it needs", names.join(" ")))?;
        unpack_all(&debs, root, &["*/doc/*", "*/locale/*", "*/man/*"])
    }

    fn lists_are_there(&self) -> bool {
        self.directory.join("fetched").exists()
    }

    fn prepare(&self) -> Result<()> {
        for folder in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(self.directory.join(folder))?;
        }
        // No package is installed, as far as apt is told: so a closure is whole.
        fs::write(self.directory.join("status"), "")?;
        fs::write(self.directory.join("apt.conf"), self.settings())?;
        let host = if self.suite.ends_with("-security") { "debian-security" } else { "debian" };
        let line = format!("deb [signed-by={KEYRING}] http://deb.debian.org/{host} {} main\n", self.suite);
        fs::write(self.directory.join("sources.list"), line)?;
        Ok(())
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = exec::command(program);
        // After the system's own settings: a proxy is used, what the file says goes before.
        command.arg("-c").arg(self.directory.join("apt.conf"));
        command.env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    fn settings(&self) -> String {
        let at = |name: &str| self.directory.join(name).display().to_string();
        [
            ("Dir::Etc::SourceList", at("sources.list")),
            ("Dir::Etc::SourceParts", "/dev/null".into()),
            ("Dir::State::Lists", at("lists")),
            ("Dir::State::Status", at("status")),
            ("Dir::Cache", at("cache")),
            ("Dir::Cache::pkgcache", "pkgcache.bin".into()),
            ("APT::Architecture", self.architecture.into()),
            ("APT::Architectures", self.architecture.into()),
            ("APT::Install-Recommends", "false".into()),
            // The folders are the caller's, not those of apt's own user.
            ("APT::Sandbox::User", String::new()),
        ]
        .map(|(name, value)| format!("{name} \"{value}\";\n"))
        .concat()
    }
}

/// Which of two versions is newer, by their numbers: enough for packages of one kernel.
pub fn compare_versions(one: &str, other: &str) -> Ordering {
    let numbers = |text: &str| -> Vec<u64> {
        text.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
    };
    numbers(one).cmp(&numbers(other))
}

/// One paragraph of a package list.
fn listed_in(paragraph: &str) -> Option<Listed> {
    let value = |key: &str| paragraph.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
    let name_of = |need: &str| Some(need.split(['|', '(', ':']).next()?.trim().to_string());
    Some(Listed {
        name: value("Package")?.trim().into(),
        version: value("Version")?.trim().into(),
        depends: value("Depends").map(|needs| needs.split(',').filter_map(name_of).collect()).unwrap_or_default(),
    })
}

/// Unpacks every package in `debs` and deletes it.
fn unpack_all(debs: &Path, root: &Path, without: &[&str]) -> Result<()> {
    fs::create_dir_all(root)?;
    for entry in fs::read_dir(debs).with_context(|| format!("reading {}", debs.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            unpack_one(&path, root, without).with_context(|| format!("unpacking {}", path.display()))?;
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

fn unpack_one(deb: &Path, root: &Path, without: &[&str]) -> Result<()> {
    let tar = deb.with_extension("tar");
    let status = exec::command("dpkg").arg("--fsys-tarfile").arg(deb).stdout(File::create(&tar)?).status()?;
    if !status.success() {
        bail!("dpkg --fsys-tarfile failed ({status})");
    }
    let mut command = exec::command("tar");
    command.arg("-x").arg("-f").arg(&tar).arg("-C").arg(root).args(["--no-same-owner", "--keep-directory-symlink"]);
    command.args(without.iter().map(|pattern| format!("--exclude={pattern}")));
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        bail!("tar failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(fs::remove_file(&tar)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paragraph_of_a_package_list_is_read() {
        let text = "Package: linux-image-7.3.4+deb13-amd64\nSource: linux\nVersion: 7.3.4-1~bpo13+1\n\
                    Depends: dracut | initramfs-tools (>= 0.1), linux-binary-7.3.4+deb13-amd64 (= 7.3.4-1~bpo13+1), \
                    kmod:any\nDescription: Linux";
        let listed = listed_in(text).unwrap();
        assert_eq!((&*listed.name, &*listed.version), ("linux-image-7.3.4+deb13-amd64", "7.3.4-1~bpo13+1"));
        assert_eq!(listed.depends, ["dracut", "linux-binary-7.3.4+deb13-amd64", "kmod"]);
        assert_eq!(listed_in("Package: nothing-else"), None);
    }

    #[test]
    fn versions_are_compared_by_their_numbers() {
        assert_eq!(compare_versions("6.1.192-3", "6.1.99-1"), Ordering::Greater);
        assert_eq!(compare_versions("6.12.115-1", "6.12.115-2"), Ordering::Less);
        assert_eq!(compare_versions("7.3.4-1~bpo13+1", "7.2.12-1~bpo13+1"), Ordering::Greater);
    }
}
