//! Which kernels, from which suite, and what becomes of their packages: an unpacked kernel with its modules' order.
//!
//! Deliberately absent: booting them (`guest.rs`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::archive::{Archive, Listed, compare_versions};
use crate::exec;
use crate::packages::Packages;

/// A kernel that Debian packages.
#[derive(Debug)]
pub struct Kernel {
    /// What the command line calls it.
    pub name: &'static str,
    /// Where it is.
    pub suite: &'static str,
    /// Its version begins with this.
    series: &'static str,
    /// Of several the oldest, not the newest.
    oldest: bool,
    /// Debian's name of the architecture.
    pub architecture: &'static str,
}

/// One that is unpacked.
#[derive(Clone, Debug)]
pub struct Unpacked {
    /// The package's version.
    pub version: String,
    /// What the kernel calls itself: the name of its folder of modules.
    pub release: String,
    /// The image to boot.
    pub image: PathBuf,
    /// Its modules.
    pub modules: PathBuf,
}

/// Those of x86-64, oldest first. The plain flavour of each: the one for clouds lacks 9p, igb and e1000e.
///
/// 5.15 was never in a suite that is still served; of 6.18 the newest that a package has is 6.18.15.
pub const KERNELS: [Kernel; 9] = [
    amd64("5.10", "bullseye-security", "5.10."),
    amd64("6.1", "bookworm-security", "6.1."),
    amd64("6.12", "trixie-security", "6.12."),
    amd64("6.17", "trixie-backports", "6.17."),
    Kernel { oldest: true, ..amd64("6.18-early", "trixie-backports", "6.18.") },
    amd64("6.18", "trixie-backports", "6.18."),
    amd64("newest", "trixie-backports", ""),
    Kernel { architecture: "arm64", ..amd64("arm64", "trixie-security", "6.12.") },
    Kernel { architecture: "arm64", ..amd64("arm64-newest", "trixie-backports", "") },
];

/// Subtrees of a kernel's modules that no guest needs: four fifths of them.
const WITHOUT: [&str; 12] = [
    "*/kernel/drivers/gpu",
    "*/kernel/drivers/media",
    "*/kernel/drivers/staging",
    "*/kernel/drivers/scsi",
    "*/kernel/drivers/iio",
    "*/kernel/drivers/hid",
    "*/kernel/drivers/input",
    "*/kernel/drivers/hwmon",
    "*/kernel/drivers/net/wireless",
    "*/kernel/sound",
    "*/share/doc",
    "*/share/bug",
];

const fn amd64(name: &'static str, suite: &'static str, series: &'static str) -> Kernel {
    Kernel { name, suite, series, oldest: false, architecture: "amd64" }
}

impl Kernel {
    /// The kernel of this name.
    pub fn named(name: &str) -> Result<&'static Self> {
        let names = || KERNELS.iter().map(|kernel| kernel.name).collect::<Vec<_>>().join(", ");
        KERNELS
            .iter()
            .find(|kernel| kernel.name == name)
            .with_context(|| format!("no kernel {name}; there are {}", names()))
    }

    /// Its files below `directory`, fetched and unpacked if they are not there yet.
    pub fn unpacked(
        &self,
        directory: &Path,
        busybox: impl Fn() -> Result<PathBuf>,
        packages: &Packages,
    ) -> Result<Unpacked> {
        let root = directory.join("kernels").join(self.name);
        if !root.join("package").exists() {
            let archive = Archive::open(&directory.join("apt"), self.suite, self.architecture, packages)?;
            let listed = archive.listed()?;
            let (image, wanted) = self.choose(&listed)?;
            eprintln!(
                "fetching {} {} from Debian's {}, into {}",
                image.name,
                image.version,
                self.suite,
                root.display()
            );
            let _ = fs::remove_dir_all(&root);
            archive.unpack(&wanted, &root, &WITHOUT)?;
            index_modules(&root, &busybox()?)?;
            fs::write(root.join("package"), format!("{}\n{}\n", image.name, image.version))?;
        }
        self.found(&root).with_context(|| format!("looking for the kernel in {}", root.display()))
    }

    /// The package of the image, and the names of those that have image and modules.
    fn choose<'a>(&self, listed: &'a [Listed]) -> Result<(&'a Listed, Vec<String>)> {
        let candidates = listed.iter().filter(|package| self.is_image(&package.name));
        let by_version = |a: &&Listed, b: &&Listed| compare_versions(&a.version, &b.version);
        let chosen = if self.oldest { candidates.min_by(by_version) } else { candidates.max_by(by_version) };
        let image = chosen.with_context(|| {
            format!(
                "Debian's {} has no package linux-image-{}*-{} any more",
                self.suite, self.series, self.architecture
            )
        })?;
        // From 6.19 on the image's package is empty and needs those that have the files.
        let parts = image
            .depends
            .iter()
            .filter(|name| ["linux-binary-", "linux-modules-"].iter().any(|part| name.starts_with(part)));
        let wanted = std::iter::once(&image.name).chain(parts).cloned().collect();
        Ok((image, wanted))
    }

    fn is_image(&self, package: &str) -> bool {
        let abi = package
            .strip_prefix("linux-image-")
            .and_then(|rest| rest.strip_suffix(self.architecture)?.strip_suffix('-'));
        let is_plain = |abi: &str| {
            abi.starts_with(|c: char| c.is_ascii_digit()) && !abi.ends_with("-cloud") && !abi.ends_with("-rt")
        };
        // A series' own package (linux-image-6.12-amd64) only points to another.
        abi.is_some_and(|abi| is_plain(abi) && abi.starts_with(self.series) && abi.matches('.').count() >= 2)
    }

    fn found(&self, root: &Path) -> Result<Unpacked> {
        let text = exec::read(&root.join("package"))?;
        let version = text.lines().nth(1).context("no version in the file `package`")?.to_string();
        let modules = modules_folder(root)?;
        let release = modules.file_name().context("no name")?.to_string_lossy().into_owned();
        let image = [root.join(format!("boot/vmlinuz-{release}")), modules.join("vmlinuz")];
        let image = image.into_iter().find(|path| path.exists()).with_context(|| format!("no vmlinuz of {release}"))?;
        Ok(Unpacked { version, release, image, modules })
    }
}

impl Unpacked {
    /// The files of these modules and of those that they need, in the order to load them; what is built in has none.
    pub fn modules_in_order(&self, names: &[&str]) -> Result<Vec<PathBuf>> {
        let text = exec::read(&self.modules.join("modules.dep"))?;
        Ok(in_order(&text, names).into_iter().map(|path| self.modules.join(path)).collect())
    }
}

/// Older packages have lib/, newer ones usr/lib/.
fn modules_folder(root: &Path) -> Result<PathBuf> {
    let folders = [root.join("usr/lib/modules"), root.join("lib/modules")];
    let mut entries = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    let Some(entry) = entries.next() else { bail!("no lib/modules in it") };
    Ok(entry.path())
}

/// What depmod does when a kernel is installed.
fn index_modules(root: &Path, busybox: &Path) -> Result<()> {
    let modules = modules_folder(root)?;
    let release = modules.file_name().context("no name")?;
    let base = modules.ancestors().nth(3).context("no parent")?;
    exec::run(exec::command(busybox).args(["depmod", "-b"]).arg(base).arg(release), "indexing the kernel's modules")
}

/// Paths in `modules.dep` of these modules, each after what it needs.
fn in_order<'a>(modules_dep: &'a str, names: &[&str]) -> Vec<&'a str> {
    let needs: BTreeMap<&str, Vec<&str>> = modules_dep
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(path, needs)| (path, needs.split_whitespace().collect()))
        .collect();
    let mut ordered = Vec::new();
    for name in names {
        let is_it = |path: &&&str| module_name(path) == *name;
        if let Some(path) = needs.keys().find(is_it) {
            place(path, &needs, &mut ordered);
        }
    }
    ordered
}

fn place<'a>(path: &'a str, needs: &BTreeMap<&'a str, Vec<&'a str>>, ordered: &mut Vec<&'a str>) {
    if ordered.contains(&path) {
        return;
    }
    for need in needs.get(path).into_iter().flatten() {
        place(need, needs, ordered);
    }
    ordered.push(path);
}

/// `9p` in `kernel/fs/9p/9p.ko.xz`.
fn module_name(path: &str) -> &str {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(name: &str, version: &str, depends: &[&str]) -> Listed {
        Listed {
            name: name.into(),
            version: version.into(),
            depends: depends.iter().map(|name| (*name).into()).collect(),
        }
    }

    #[test]
    fn the_plain_image_of_a_series_is_chosen_by_version() {
        let packages = [
            listed("linux-image-6.18.5+deb13-amd64", "6.18.5-1~bpo13+1", &["kmod"]),
            listed("linux-image-6.18.15+deb13-amd64", "6.18.15-1~bpo13+1", &["kmod"]),
            listed("linux-image-6.18.15+deb13-cloud-amd64", "6.18.15-1~bpo13+1", &[]),
            listed("linux-image-6.18.15+deb13-rt-amd64", "6.18.15-1~bpo13+1", &[]),
            listed("linux-image-6.18.15+deb13-amd64-unsigned", "6.18.15-1~bpo13+1", &[]),
            listed(
                "linux-image-7.3.4+deb13-amd64",
                "7.3.4-1~bpo13+1",
                &["kmod", "linux-binary-7.3.4", "linux-modules-7.3.4"],
            ),
            listed("linux-image-amd64", "7.3.4-1~bpo13+1", &[]),
        ];
        let chosen = |name: &str| Kernel::named(name).unwrap().choose(&packages).unwrap().1;
        assert_eq!(chosen("6.18-early"), ["linux-image-6.18.5+deb13-amd64"]);
        assert_eq!(chosen("6.18"), ["linux-image-6.18.15+deb13-amd64"]);
        assert_eq!(chosen("newest"), ["linux-image-7.3.4+deb13-amd64", "linux-binary-7.3.4", "linux-modules-7.3.4"]);
        let error = Kernel::named("6.1").unwrap().choose(&packages).unwrap_err().to_string();
        assert_eq!(error, "Debian's bookworm-security has no package linux-image-6.1.*-amd64 any more");
    }

    #[test]
    fn old_names_of_packages_are_known_and_pointers_are_not_taken() {
        let old = Kernel::named("6.1").unwrap();
        assert!(old.is_image("linux-image-6.1.0-57-amd64"));
        assert!(!old.is_image("linux-image-6.1.0-57-cloud-amd64"));
        assert!(!Kernel::named("6.12").unwrap().is_image("linux-image-6.12-amd64"));
        assert!(Kernel::named("arm64").unwrap().is_image("linux-image-6.12.118+deb13-arm64"));
    }

    #[test]
    fn modules_come_after_what_they_need() {
        let text = "kernel/fs/9p/9p.ko.xz: kernel/net/9p/9pnet.ko.xz kernel/fs/netfs/netfs.ko.xz\n\
                    kernel/net/9p/9pnet.ko.xz:\nkernel/fs/netfs/netfs.ko.xz: kernel/fs/fscache.ko.xz\n\
                    kernel/fs/fscache.ko.xz:\nkernel/net/9p/9pnet_virtio.ko.xz: kernel/net/9p/9pnet.ko.xz\n";
        let names: Vec<_> = in_order(text, &["9pnet_virtio", "9p", "built_in"]).into_iter().map(module_name).collect();
        assert_eq!(names, ["9pnet", "9pnet_virtio", "fscache", "netfs", "9p"]);
    }
}
