//! A compiler with a `core` for the BPF target: finds one, else installs one.
//!
//! Any rustc will do that is recent enough and has either a prebuilt `core` for the target (Debian ships one) or the
//! source of the standard library (rustup's rust-src). Deliberately absent: bpf-linker (`linker.rs`), and any opinion
//! on the compiler of the host crates.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};

use crate::exec;
use crate::packages::{Package, Packages, may_install};
use crate::paths::BPF_TARGET;

/// The oldest rustc that may build the frame path: the workspace's own `rust-version`.
const OLDEST_RUSTC: (u32, u32) = (1, 95);

/// Debian's compiler with a prebuilt `core`: made for building browsers, hence its name.
const DEBIAN_RUSTC: &str = "rustc-web";
const DEBIAN_CORE: &str = "libstd-rust-web-dev-bpf";

/// What `rustc -vV` tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RustcVersion {
    /// Major and minor.
    pub release: (u32, u32),
    /// LLVM's major version: bpf-linker's must not be older.
    pub llvm: u32,
}

/// Where `core` for the BPF target comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Core {
    /// Compiled and installed with the compiler.
    Prebuilt,
    /// Compiled by cargo from the compiler's own source.
    Source,
}

/// A compiler for the BPF target.
#[derive(Debug)]
pub struct BpfRustc {
    /// The compiler itself, not rustup's proxy for it.
    pub rustc: PathBuf,
    /// Its version.
    pub version: RustcVersion,
    /// Its `core`.
    pub core: Core,
}

impl BpfRustc {
    /// Finds a usable compiler, installing one when there is none.
    pub fn find_or_install(packages: &Packages) -> Result<Self> {
        if let Some(rustc) = env::var_os("FAILOVER_BPF_RUSTC") {
            let rustc = PathBuf::from(rustc);
            return probe(&rustc).map_err(|reason| anyhow!("FAILOVER_BPF_RUSTC={}: {reason}", rustc.display()));
        }
        let mut refused = match find() {
            Ok(found) => return Ok(found),
            Err(refused) => refused,
        };
        install(packages, &refused)?;
        find().or_else(|still| {
            refused = still;
            bail!("installed a compiler for {BPF_TARGET}, and still none is usable:\n{}", refused.join("\n"))
        })
    }

    /// A program of the same toolchain (cargo, cargo-clippy, clippy-driver), when it has it.
    pub fn sibling(&self, name: &str) -> Option<PathBuf> {
        Some(self.rustc.with_file_name(name)).filter(|path| exec::is_executable(path))
    }
}

/// The best of the machine's compilers, or one line for each that was refused.
fn find() -> Result<BpfRustc, Vec<String>> {
    let mut refused = Vec::new();
    let mut from_source = None;
    for rustc in compilers() {
        match probe(&rustc) {
            Ok(found) if found.core == Core::Prebuilt => return Ok(found),
            Ok(found) => from_source = from_source.or(Some(found)),
            Err(reason) => refused.push(format!("  {}: {reason}", rustc.display())),
        }
    }
    from_source.ok_or(refused)
}

/// Every compiler worth a look: the active one, rustup's, the distribution's.
fn compilers() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    let mut add = |rustc: PathBuf| {
        if exec::is_executable(&rustc) && !found.contains(&rustc) {
            found.push(rustc);
        }
    };
    // The active compiler's sysroot leads past rustup's proxy.
    if let Some(sysroot) = sysroot_of(Path::new("rustc")) {
        add(sysroot.join("bin/rustc"));
    }
    if let Some(list) = exec::output_of(exec::command("rustup").args(["toolchain", "list", "-v"])) {
        toolchain_directories(&list).into_iter().for_each(|directory| add(directory.join("bin/rustc")));
    }
    add("/usr/bin/rustc".into());
    found
}

/// Whether `rustc` can build for the target, or why not.
fn probe(rustc: &Path) -> Result<BpfRustc, String> {
    let text = exec::output_of(exec::command(rustc).arg("-vV")).ok_or("`rustc -vV` does not run")?;
    let version = parse_version(&text).ok_or("`rustc -vV` names no release or no LLVM version")?;
    if version.release < OLDEST_RUSTC {
        let ((major, minor), (oldest_major, oldest_minor)) = (version.release, OLDEST_RUSTC);
        return Err(format!("is {major}.{minor}; the frame path needs {oldest_major}.{oldest_minor} or later"));
    }
    let sysroot = sysroot_of(rustc).ok_or("does not tell its sysroot")?;
    let core =
        core_in(&sysroot).ok_or_else(|| format!("has neither a core for {BPF_TARGET} nor the rust-src component"))?;
    Ok(BpfRustc { rustc: rustc.to_path_buf(), version, core })
}

fn core_in(sysroot: &Path) -> Option<Core> {
    let rustlib = sysroot.join("lib/rustlib");
    let is_core = |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with("libcore-");
    let prebuilt =
        std::fs::read_dir(rustlib.join(BPF_TARGET).join("lib")).is_ok_and(|entries| entries.flatten().any(is_core));
    if prebuilt {
        Some(Core::Prebuilt)
    } else {
        rustlib.join("src/rust/library/core/Cargo.toml").exists().then_some(Core::Source)
    }
}

fn sysroot_of(rustc: &Path) -> Option<PathBuf> {
    let text = exec::output_of(exec::command(rustc).args(["--print", "sysroot"]))?;
    Some(PathBuf::from(text.trim_end()))
}

/// Debian's prebuilt `core` where apt has a recent one that fits; else the source, through rustup.
fn install(packages: &Packages, refused: &[String]) -> Result<()> {
    let purpose = format!("a compiler with a core for {BPF_TARGET}: it builds the XDP program");
    let debian = [Package::new(DEBIAN_RUSTC, "", ""), Package::new(DEBIAN_CORE, "", "")];
    if debian_has_recent_core(packages) && packages.fits(&[DEBIAN_RUSTC, DEBIAN_CORE]) {
        return packages.install(&debian, &purpose);
    }
    if may_install() && exec::find_program("rustup").is_some() {
        eprintln!("installing rustup's component rust-src ({purpose})");
        return exec::run(exec::command("rustup").args(["component", "add", "rust-src"]), "adding rust-src")
            .context("rust-src holds the source of core; without it nothing can be built for the kernel");
    }
    bail!(
        "no rustc on this machine can build for {BPF_TARGET} (it builds the XDP program):\n{}\n\
         install one of these, then run this again:\n  \
         rustup component add rust-src        (any distribution, no root; rustc {}.{} or later)\n  \
         apt-get install {DEBIAN_RUSTC} {DEBIAN_CORE}        (Debian, as root)\n\
         or name a compiler in FAILOVER_BPF_RUSTC",
        refused.join("\n"),
        OLDEST_RUSTC.0,
        OLDEST_RUSTC.1,
    )
}

fn debian_has_recent_core(packages: &Packages) -> bool {
    let recent = || {
        [DEBIAN_RUSTC, DEBIAN_CORE]
            .iter()
            .all(|name| packages.candidate(name).is_some_and(|version| parse_release(&version) >= Some(OLDEST_RUSTC)))
    };
    // Old lists may only know the release's first version, before its security updates.
    packages.can_install() && (recent() || (packages.update_lists().is_ok() && recent()))
}

/// Release and LLVM version in what `rustc -vV` prints.
pub fn parse_version(text: &str) -> Option<RustcVersion> {
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
    let release = parse_release(value("release:")?)?;
    let llvm = value("LLVM version:")?.split('.').next()?.parse().ok()?;
    Some(RustcVersion { release, llvm })
}

/// Major and minor at the start of a version, whatever follows them.
pub fn parse_release(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The directories in what `rustup toolchain list -v` prints: a name, perhaps a remark, then the path.
pub fn toolchain_directories(list: &str) -> Vec<PathBuf> {
    list.lines().filter_map(|line| line.find('/').map(|start| PathBuf::from(line[start..].trim_end()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STABLE: &str = "rustc 1.95.0 (59807616e 2026-04-14)\nbinary: rustc\nhost: x86_64-unknown-linux-gnu\n\
                          release: 1.95.0\nLLVM version: 22.1.2\n";

    #[test]
    fn release_and_llvm_are_read_from_rustc() {
        assert_eq!(parse_version(STABLE), Some(RustcVersion { release: (1, 95), llvm: 22 }));
        let nightly = "release: 1.97.0-nightly\nLLVM version: 22.1.4\n";
        assert_eq!(parse_version(nightly), Some(RustcVersion { release: (1, 97), llvm: 22 }));
    }

    #[test]
    fn a_compiler_without_llvm_is_refused() {
        assert_eq!(parse_version("release: 1.95.0\n"), None);
        assert_eq!(parse_version(""), None);
    }

    #[test]
    fn a_packages_version_starts_with_the_release() {
        assert_eq!(parse_release("1.96.0+dfsg1-1~deb12u2"), Some((1, 96)));
        assert_eq!(parse_release("1.100.0"), Some((1, 100)));
        assert!(parse_release("1.100.0") > parse_release("1.95.0"));
        assert_eq!(parse_release("unknown"), None);
    }

    #[test]
    fn toolchain_directories_are_read_from_rustup() {
        let list = "stable-x86_64-unknown-linux-gnu (active, default) /home/u/.rustup/toolchains/stable\n\
                    nightly-x86_64-unknown-linux-gnu\t/home/u/.rustup/toolchains/nightly\n\
                    no installed toolchains\n";
        let expected = ["/home/u/.rustup/toolchains/stable", "/home/u/.rustup/toolchains/nightly"];
        assert_eq!(toolchain_directories(list), expected.map(PathBuf::from));
    }
}
