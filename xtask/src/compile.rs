//! `cargo xtask build`: the eBPF objects, then the host programs that embed them.
//!
//! Only the eBPF build gets the other compiler, and its own target directory. Deliberately absent: finding and
//! installing the toolchain (`setup.rs`).

use std::ffi::OsStr;
use std::process::Command;

use anyhow::{Result, bail};

use crate::exec;
use crate::linker;
use crate::packages::Packages;
use crate::paths::{BPF_TARGET, Paths, Profile};
use crate::toolchain::{BpfRustc, Core};

/// The host packages that a verb needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// The product alone.
    Product,
    /// The product, and what the lab and the tests run.
    ProductAndLab,
}

/// `build`: everything, and where it is.
pub fn build(paths: &Paths, packages: &Packages, profile: Profile) -> Result<()> {
    all(paths, packages, profile, Host::ProductAndLab)?;
    println!("built {}", paths.shown(&paths.failover(profile)).display());
    println!("   with {} inside", paths.shown(&paths.xdp_object()).display());
    Ok(())
}

/// Builds the eBPF objects and the host packages.
pub fn all(paths: &Paths, packages: &Packages, profile: Profile, host: Host) -> Result<()> {
    let compiler = BpfRustc::find_or_install(packages)?;
    exec::run(&mut ebpf_build(paths, &compiler, packages)?, "building the eBPF objects")?;
    let objects = [
        paths.xdp_object(),
        paths.lab_pass_object(),
        paths.lab_tag_object(),
        paths.bench_frame_object(),
        paths.bench_flood_object(),
    ];
    for object in objects {
        if !object.exists() {
            bail!("the eBPF build succeeded, and {} is not there", object.display());
        }
    }
    let mut build = host_cargo(paths, "build", profile);
    build.args(["--package", "failover-userspace"]);
    if host == Host::ProductAndLab {
        // Together: cargo gives shared crates the features that all of them ask for, once.
        build.args(["--package", "failover-tests", "--package", "failover-sim"]);
    }
    exec::run(&mut build, "building the host programs")
}

/// The command that builds the eBPF objects, its linker installed if there is none.
pub fn ebpf_build(paths: &Paths, compiler: &BpfRustc, packages: &Packages) -> Result<Command> {
    let linker = linker::find_or_install(compiler.version.llvm, packages)?;
    let mut command = ebpf_cargo(paths, compiler, "build");
    command.env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &linker).arg("--target-dir").arg(paths.bpf_target());
    Ok(command)
}

/// `cargo VERB` for the eBPF binaries, with the compiler that can.
pub fn ebpf_cargo(paths: &Paths, compiler: &BpfRustc, verb: impl AsRef<OsStr>) -> Command {
    // A compiler's own cargo knows the layout of its source; Debian's compiler for browsers comes without one.
    let mut command = match compiler.sibling("cargo") {
        Some(cargo) => exec::command(cargo),
        None => exec::cargo(),
    };
    command
        .current_dir(&paths.root)
        .arg(verb)
        .args(["--package", "failover-ebpf", "--features", "program", "--bins", "--release", "--target", BPF_TARGET])
        .env("RUSTC", &compiler.rustc)
        // aya-ebpf uses features that are not stable yet; this admits them on a stable compiler.
        .env("RUSTC_BOOTSTRAP", "1")
        // BTF is made from debug information, and names the fields that bpftool prints.
        .env("CARGO_PROFILE_RELEASE_DEBUG", "2")
        // aya's memset becomes a function of the program, which the kernel takes only with its BTF.
        .args(["--config", "profile.release.package.\"*\".debug=2"])
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_RUSTFLAGS", "-Clink-arg=--btf");
    if compiler.core == Core::Source {
        command.arg("-Zbuild-std=core");
    }
    // These would take the place of the flags above.
    command.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS").env_remove("CARGO_BUILD_TARGET");
    command
}

/// `cargo VERB` for host packages, with the eBPF object that the product embeds.
pub fn host_cargo(paths: &Paths, verb: &str, profile: Profile) -> Command {
    let mut command = exec::cargo();
    with_object(paths, command.current_dir(&paths.root).arg(verb));
    if profile == Profile::Release {
        command.arg("--release");
    }
    command
}

/// Names the eBPF object if it is built: what needs none gets the same build as what does.
pub fn with_object<'a>(paths: &Paths, command: &'a mut Command) -> &'a mut Command {
    let object = paths.xdp_object();
    if object.exists() { command.env("FAILOVER_EBPF_OBJECT", object) } else { command }
}
