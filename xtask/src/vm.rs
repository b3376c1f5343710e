//! `cargo xtask vm`: Debian's kernels in qemu, with this machine's files, and the project's own tests in them.
//!
//! Deliberately absent: what is tested, which is the program `kernel` of the package failover-tests and its tests.

mod archive;
mod guest;
mod initrd;
mod kernels;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;

use crate::exec;
use crate::packages::Packages;
use crate::paths::Paths;
use guest::{Emulator, Guest};
use kernels::{KERNELS, Kernel};

/// Which kernels, and what to do in them.
#[derive(Clone, Debug, Args)]
pub struct VmOptions {
    /// Which: see --list
    #[arg(value_name = "KERNEL")]
    kernels: Vec<String>,
    /// All of them
    #[arg(long, conflicts_with = "kernels")]
    all: bool,
    /// List the kernels and what is there of them
    #[arg(long)]
    list: bool,
    /// A shell in the guest, on this terminal
    #[arg(long)]
    shell: bool,
    /// Give the guest a network card, as qemu names it (igb; virtio-net-pci,mrg_rxbuf=off); all are on one hub
    #[arg(long, value_name = "DEVICE")]
    nic: Vec<String>,
    /// End the guest after this time
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    timeout: u64,
    /// Run this command in the guest
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Boots what the options say.
pub fn vm(paths: &Paths, packages: &Packages, options: &VmOptions) -> Result<()> {
    let directory = paths.target.join("vm");
    if options.list {
        return list(&directory);
    }
    exec::require_root("sharing this machine's files with a guest", "vm")?;
    let names = options.kernels.iter().map(String::as_str);
    let kernels: Vec<&Kernel> =
        if options.all { KERNELS.iter().collect() } else { names.map(Kernel::named).collect::<Result<_>>()? };
    if kernels.is_empty() {
        bail!("which kernel? `cargo xtask vm --list` lists them");
    }
    for kernel in kernels {
        run_command(paths, packages, options, &directory, kernel)?;
    }
    Ok(())
}

fn list(directory: &Path) -> Result<()> {
    for kernel in &KERNELS {
        let package = std::fs::read_to_string(directory.join("kernels").join(kernel.name).join("package"));
        let package = package.map(|text| text.replace('\n', " ")).unwrap_or_else(|_| "not fetched yet".into());
        println!("{:<12} {:<6} {:<20} {package}", kernel.name, kernel.architecture, kernel.suite);
    }
    Ok(())
}

fn run_command(
    paths: &Paths,
    packages: &Packages,
    options: &VmOptions,
    directory: &Path,
    kernel: &Kernel,
) -> Result<()> {
    let emulator = Emulator::find(directory, kernel, packages)?;
    let busybox = || -> Result<PathBuf> { Ok(emulator.busybox()) };
    let unpacked = kernel.unpacked(directory, busybox, packages)?;
    let mut command = exec::command(options.command.first().map_or("true", String::as_str));
    command.args(options.command.iter().skip(1));
    let script = exec::describe(crate::lab::name_artifacts(paths, &mut command));
    let guest = Guest {
        kernel,
        unpacked: &unpacked,
        root: Path::new("/"),
        busybox: &emulator.busybox(),
        nics: &options.nic,
        script: (!options.shell).then_some(script.as_str()),
        patience: Duration::from_secs(options.timeout),
    };
    eprintln!("booting {} ({})", kernel.name, unpacked.version);
    let ended = guest.run(paths, &emulator, guest::to_terminal)?;
    eprintln!("{}: exit status {} after {:.0} s", kernel.name, ended.status, ended.took.as_secs_f64());
    if ended.status != 0 {
        bail!("the command failed in the guest {} (exit status {})", kernel.name, ended.status);
    }
    Ok(())
}
