//! What a guest of another architecture needs: the project's programs built for it, and a root file system of packages.
//!
//! Only arm64, from x86-64: Debian's compiler for browsers, which also builds the eBPF objects, with its own standard
//! library for arm64, unpacked and not installed. Deliberately absent: the tests; it loads and takes over once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::archive::Archive;
use super::guest::QEMU_SUITE;
use crate::compile;
use crate::exec;
use crate::packages::{Package, Packages};
use crate::paths::{Paths, Profile};

const TARGET: &str = "aarch64-unknown-linux-gnu";
const RUSTC: &str = "/usr/bin/rustc";
const LINKER: &str = "aarch64-linux-gnu-gcc";
/// What the checks call, besides what these need.
const ROOT: [&str; 9] =
    ["base-files", "bash", "dash", "coreutils", "util-linux", "iproute2", "ethtool", "bpftool", "busybox-static"];
/// Where the project's files are in the guest.
const INSIDE: &str = "/opt/failover";

/// A root file system for arm64 with the project's programs in it.
#[derive(Debug)]
pub struct Root {
    /// Where it is on this machine.
    pub path: PathBuf,
}

impl Root {
    /// Makes it below `directory`; the packages only once, the programs each time.
    pub fn make(paths: &Paths, packages: &Packages, directory: &Path) -> Result<Self> {
        let path = directory.join("arm64-root");
        if !path.join("unpacked").exists() {
            let archive = Archive::open(&directory.join("apt"), QEMU_SUITE, "arm64", packages)?;
            eprintln!("fetching a root file system for arm64 from Debian's {QEMU_SUITE}, into {}", path.display());
            let _ = fs::remove_dir_all(&path);
            archive.unpack_closure(&ROOT, &path)?;
            for folder in ["proc", "sys", "dev", "run", "tmp", "root"] {
                fs::create_dir_all(path.join(folder))?;
            }
            fs::write(path.join("unpacked"), "")?;
        }
        let root = Self { path };
        root.add_programs(paths, &build(paths, packages, directory)?)?;
        Ok(root)
    }

    /// busybox for the guest.
    pub fn busybox(&self) -> PathBuf {
        self.path.join("usr/bin/busybox")
    }

    /// The program that asks the kernel, with what `lab::name_artifacts` says elsewhere.
    pub fn kernel_command(&self, paths: &Paths) -> Command {
        let mut command = Command::new(format!("{INSIDE}/kernel"));
        command.arg("quick").env("FAILOVER_BIN", format!("{INSIDE}/failover"));
        for (variable, object) in objects(paths) {
            command.env(variable, Path::new(INSIDE).join(object.file_name().unwrap_or_default()));
        }
        command
    }

    fn add_programs(&self, paths: &Paths, built: &Path) -> Result<()> {
        let inside = self.path.join(INSIDE.trim_start_matches('/'));
        fs::create_dir_all(&inside)?;
        let programs = ["failover", "kernel"].map(|name| built.join(name));
        for file in programs.iter().chain(objects(paths).iter().map(|(_, object)| object)) {
            let to = inside.join(file.file_name().context("no name")?);
            fs::copy(file, &to).with_context(|| format!("copying {} to {}", file.display(), to.display()))?;
        }
        Ok(())
    }
}

fn objects(paths: &Paths) -> [(&'static str, PathBuf); 5] {
    [
        ("FAILOVER_XDP_OBJECT", paths.xdp_object()),
        ("FAILOVER_LAB_PASS_OBJECT", paths.lab_pass_object()),
        ("FAILOVER_LAB_TAG_OBJECT", paths.lab_tag_object()),
        ("FAILOVER_BENCH_FRAME_OBJECT", paths.bench_frame_object()),
        ("FAILOVER_BENCH_FLOOD_OBJECT", paths.bench_flood_object()),
    ]
}

/// Builds the two programs; returns the folder that they are in.
fn build(paths: &Paths, packages: &Packages, directory: &Path) -> Result<PathBuf> {
    if exec::find_program(LINKER).is_none() {
        let same = |name: &str| Package::new(name, name, name);
        packages
            .install(&[same("gcc-aarch64-linux-gnu"), same("libc6-dev-arm64-cross")], "it links programs for arm64")?;
    }
    let library = standard_library(packages, directory)?;
    let target = paths.target.join("arm64");
    let mut command = compile::host_cargo(paths, "build", Profile::Release);
    command.args([
        "--package",
        "failover-userspace",
        "--package",
        "failover-tests",
        "--bin",
        "failover",
        "--bin",
        "kernel",
    ]);
    command.args(["--target", TARGET, "--target-dir"]).arg(&target);
    command.env("RUSTC", RUSTC).env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", LINKER);
    command.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS", format!("--sysroot={}", library.display()));
    // These would take the place of the flags above.
    command.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    exec::run(&mut command, "building for arm64")?;
    Ok(target.join(TARGET).join(Profile::Release.directory()))
}

/// The standard library of exactly Debian's compiler on this machine.
fn standard_library(packages: &Packages, directory: &Path) -> Result<PathBuf> {
    let version = rustc_web_version().map_or_else(
        || {
            packages.install(&[Package::new("rustc-web", "rust", "rust")], "it compiles programs for arm64")?;
            rustc_web_version().context("installed rustc-web, and dpkg does not know its version")
        },
        Ok,
    )?;
    let root = directory.join("arm64-std");
    let note = root.join("version");
    if fs::read_to_string(&note).is_ok_and(|text| text == version) {
        return Ok(root.join("usr"));
    }
    let codename = codename().context("no VERSION_CODENAME in /etc/os-release: this is no Debian release")?;
    let fetch = |suite: &str| -> Result<()> {
        let archive = Archive::open(&directory.join("apt"), suite, "arm64", packages)?;
        archive.unpack(&[format!("libstd-rust-web-dev={version}")], &root, &[])
    };
    let _ = fs::remove_dir_all(&root);
    fetch(&format!("{codename}-security")).or_else(|_| fetch(&codename))?;
    fs::write(&note, &version)?;
    Ok(root.join("usr"))
}

fn rustc_web_version() -> Option<String> {
    let text = exec::output_of(exec::command("dpkg-query").args(["--show", "--showformat=${Version}", "rustc-web"]))?;
    (!text.is_empty()).then_some(text)
}

fn codename() -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).map(|name| name.trim_matches('"').into())
}
