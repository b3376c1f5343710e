//! `cargo xtask vm`: Debian's kernels in qemu, with this machine's files, and the project's own tests in them.
//!
//! Deliberately absent: what is tested, which is the program `kernel` of the package failover-tests and its tests.

mod archive;
mod arm64;
mod checks;
mod guest;
mod initrd;
mod kernels;
mod table;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::compile::{self, Host};
use crate::exec;
use crate::lab::name_artifacts;
use crate::packages::Packages;
use crate::paths::{Paths, Profile};
use crate::setup::{self, Need};
use crate::sim;
use checks::{Extent, Findings, Programs};
use guest::{Emulator, Ended, Guest};
use kernels::{KERNELS, Kernel, Unpacked};
use table::Row;

/// Which kernels, and what to do in them.
#[derive(Clone, Debug, Args)]
pub struct VmOptions {
    /// Which, by the names that --list prints; with --quick the oldest that must work and the newest, if none is named
    #[arg(value_name = "KERNEL")]
    kernels: Vec<String>,
    /// All of them
    #[arg(long, conflicts_with = "kernels")]
    all: bool,
    /// List the kernels and what is there of them
    #[arg(long)]
    list: bool,
    /// Only load, attach and take over once
    #[arg(long)]
    quick: bool,
    /// Write docs/kernels.md
    #[arg(long, requires = "all", conflicts_with = "quick")]
    write: bool,
    /// A shell in the guest, on this terminal
    #[arg(long)]
    shell: bool,
    /// Give the guest a network card, as qemu names it (igb; virtio-net-pci,mrg_rxbuf=off); all of them are on one hub
    #[arg(long, value_name = "DEVICE")]
    nic: Vec<String>,
    /// End a guest after this time; 1800, with --quick 300
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Run this in the guest instead of the tests
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// What `--quick` boots when no kernel is named: the oldest that must work, and the newest.
const ENDS: [&str; 2] = ["6.1", "newest"];

/// Boots what the options say.
pub fn vm(paths: &Paths, packages: &Packages, options: &VmOptions) -> Result<()> {
    let machine = Machine { paths, packages, directory: paths.target.join("vm"), options };
    if options.list {
        return machine.list();
    }
    exec::require_root("sharing this machine's files with a guest", "vm")?;
    let kernels = options.wanted()?;
    if options.shell || !options.command.is_empty() {
        return kernels.into_iter().try_for_each(|kernel| machine.run_command(kernel));
    }
    setup::programs(Need::Tests, packages)?;
    compile::all(paths, packages, Profile::Release, Host::Product)?;
    exec::run(&mut checks::build(paths), "building the program that asks a kernel")?;
    machine.check(&kernels)
}

impl VmOptions {
    fn wanted(&self) -> Result<Vec<&'static Kernel>> {
        let named = self.kernels.iter().map(|name| Kernel::named(name)).collect::<Result<Vec<_>>>()?;
        match (self.all, self.quick, named.is_empty()) {
            (true, _, _) => Ok(KERNELS.iter().collect()),
            (false, _, false) => Ok(named),
            (false, true, true) => ENDS.into_iter().map(Kernel::named).collect(),
            (false, false, true) => bail!("which kernel? `cargo xtask vm --list` lists them; --all means all"),
        }
    }
}

/// What all guests of one run have in common.
struct Machine<'a> {
    paths: &'a Paths,
    packages: &'a Packages,
    directory: PathBuf,
    options: &'a VmOptions,
}

impl Machine<'_> {
    fn list(&self) -> Result<()> {
        for kernel in &KERNELS {
            let package = fs::read_to_string(self.directory.join("kernels").join(kernel.name).join("package"));
            let package = package.map_or_else(|_| "not fetched yet".into(), |text| text.trim().replace('\n', " "));
            println!("{:<12} {:<6} {:<20} {package}", kernel.name, kernel.architecture, kernel.suite);
        }
        Ok(())
    }

    fn run_command(&self, kernel: &Kernel) -> Result<()> {
        let mut command = exec::command(self.options.command.first().map_or("true", String::as_str));
        command.args(self.options.command.iter().skip(1));
        let script = exec::describe(name_artifacts(self.paths, &mut command));
        let prepared = self.prepare(kernel)?;
        let ended = self.boot(kernel, &prepared, (!self.options.shell).then_some(script.as_str()))?;
        if ended.status != 0 {
            bail!("the command failed in the guest {} (exit status {})", kernel.name, ended.status);
        }
        Ok(())
    }

    fn check(&self, kernels: &[&'static Kernel]) -> Result<()> {
        let extent = if self.options.quick { Extent::Quick } else { Extent::Full };
        let programs = if extent == Extent::Full { checks::build_tests(self.paths)? } else { Programs::new() };
        let mut rows = Vec::new();
        for kernel in kernels {
            let started = Instant::now();
            // Who asks for no kernel by name wants those that can be had.
            let may_skip = self.options.quick && self.options.kernels.is_empty();
            let prepared = match self.prepare(kernel) {
                Err(error) if may_skip => {
                    println!("skipped: {}: {error:#}", kernel.name);
                    continue;
                }
                prepared => prepared,
            };
            let row = self.row(kernel, prepared, extent, &programs);
            println!("{} ({}), {:.0} s:", kernel.name, row.version, started.elapsed().as_secs_f64());
            match &row.findings {
                Ok(findings) => print!("{}", findings.described()),
                Err(error) => println!("  {error}"),
            }
            rows.push(row);
        }
        if self.options.write {
            let file = self.paths.root.join("docs/kernels.md");
            fs::write(&file, table::document(&rows, &sim::commit(self.paths)))
                .with_context(|| format!("writing {}", file.display()))?;
            println!("wrote {}", self.paths.shown(&file).display());
        }
        let good = rows.iter().filter(|row| row.findings.as_ref().is_ok_and(Findings::is_good)).count();
        println!("{good} passed, {} failed", rows.len() - good);
        if good < rows.len() {
            bail!("{} of {} kernels did not pass", rows.len() - good, rows.len());
        }
        Ok(())
    }

    /// A kernel that cannot be had or does not boot does not keep the next from running.
    fn row(&self, kernel: &'static Kernel, prepared: Result<Prepared>, extent: Extent, programs: &Programs) -> Row {
        let mut version = "-".to_string();
        let findings = prepared.and_then(|prepared| {
            version.clone_from(&prepared.unpacked.version);
            // The tests are built for this machine only.
            let (extent, script) = match &prepared.root {
                Some(root) => (Extent::Quick, exec::describe(&root.kernel_command(self.paths))),
                None => (extent, checks::script(self.paths, extent, programs)?),
            };
            let ended = self.boot(kernel, &prepared, Some(&script))?;
            Ok(checks::findings(&ended.output, extent))
        });
        Row { kernel, version, findings: findings.map_err(|error| format!("{error:#}")) }
    }

    fn prepare(&self, kernel: &Kernel) -> Result<Prepared> {
        let emulator = Emulator::find(&self.directory, kernel, self.packages)?;
        let unpacked = kernel.unpacked(&self.directory, || Ok(emulator.busybox()), self.packages)?;
        let is_foreign = kernel.architecture != guest::host_architecture();
        let root = is_foreign.then(|| arm64::Root::make(self.paths, self.packages, &self.directory)).transpose()?;
        Ok(Prepared { emulator, unpacked, root })
    }

    fn boot(&self, kernel: &Kernel, prepared: &Prepared, script: Option<&str>) -> Result<Ended> {
        let Prepared { emulator, unpacked, root } = prepared;
        let own_busybox = emulator.busybox();
        let guest = Guest {
            kernel,
            unpacked,
            root: root.as_ref().map_or(Path::new("/"), |root| &root.path),
            busybox: &root.as_ref().map_or(own_busybox, arm64::Root::busybox),
            nics: &self.options.nic,
            script,
            patience: Duration::from_secs(self.options.timeout.unwrap_or(if self.options.quick { 300 } else { 1800 })),
        };
        eprintln!("booting {} ({})", kernel.name, unpacked.version);
        // What checks print is described when they are over; the tests' progress is worth seeing.
        let is_quiet = self.options.quick && self.options.command.is_empty();
        let ended = guest.run(self.paths, emulator, if is_quiet { |_: &str| () } else { guest::to_terminal })?;
        eprintln!("{}: exit status {} after {:.0} s", kernel.name, ended.status, ended.took.as_secs_f64());
        Ok(ended)
    }
}

/// What a kernel is booted with.
struct Prepared {
    emulator: Emulator,
    unpacked: Unpacked,
    /// Of another architecture than this machine's; else this machine's own root is the guest's.
    root: Option<arm64::Root>,
}
