//! One boot of one kernel: qemu, the folder that guest and host share, the command in it and how that ended.
//!
//! The guest's root file system is this machine's. What its command prints comes through a file of the shared folder, so
//! that the kernel's own words (`console.log`) do not mix with it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::archive::Archive;
use super::initrd;
use super::kernels::{Kernel, Unpacked};
use crate::exec;
use crate::packages::Packages;
use crate::paths::Paths;

/// What it takes to reach the root file system.
const MODULES: [&str; 4] = ["virtio_pci", "9pnet_virtio", "9p", "overlay"];
/// The release of Debian whose qemu is used: it has igb, and one version everywhere makes runs comparable.
pub const QEMU_SUITE: &str = "trixie";
/// How often the output is looked at.
const POLL: Duration = Duration::from_millis(50);
/// The guest ends by itself after its time; so much later it is ended.
const GRACE: Duration = Duration::from_secs(20);

/// qemu as its packages have it, unpacked and not installed.
#[derive(Debug)]
pub struct Emulator {
    root: PathBuf,
}

/// What to boot, and what for.
#[derive(Debug)]
pub struct Guest<'a> {
    /// The kernel's row in the table.
    pub kernel: &'a Kernel,
    /// Its files.
    pub unpacked: &'a Unpacked,
    /// The root file system; this machine's is `/`.
    pub root: &'a Path,
    /// busybox for the guest's architecture.
    pub busybox: &'a Path,
    /// Network cards, in qemu's words; all are plugged into one hub.
    pub nics: &'a [String],
    /// A script for sh; without one a shell on this terminal.
    pub script: Option<&'a str>,
    /// How long it may take.
    pub patience: Duration,
}

/// How it ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The exit status of the script.
    pub status: i32,
    /// What it printed.
    pub output: String,
    /// From the start of qemu to its end.
    pub took: Duration,
}

impl Emulator {
    /// The one below `directory`, unpacked if it is not there yet.
    pub fn find(directory: &Path, kernel: &Kernel, packages: &Packages) -> Result<Self> {
        let (package, _) = words(kernel.architecture);
        let emulator = Self { root: directory.join(package) };
        if !emulator.root.join("unpacked").exists() {
            let archive = Archive::open(&directory.join("apt"), QEMU_SUITE, host_architecture(), packages)?;
            eprintln!("fetching {package} from Debian's {QEMU_SUITE}, into {}", emulator.root.display());
            let _ = fs::remove_dir_all(&emulator.root);
            archive.unpack_closure(&[package, "busybox-static"], &emulator.root)?;
            fs::write(emulator.root.join("unpacked"), "")?;
        }
        Ok(emulator)
    }

    /// busybox for this machine.
    pub fn busybox(&self) -> PathBuf {
        self.root.join("usr/bin/busybox")
    }

    /// Through its own loader: it needs newer libraries than this machine may have.
    fn command(&self, kernel: &Kernel) -> Result<Command> {
        let (_, program) = words(kernel.architecture);
        let triplet = format!("{}-linux-gnu", std::env::consts::ARCH);
        let libraries = self.root.join("usr/lib").join(triplet);
        let loaders = ["usr/lib64/ld-linux-x86-64.so.2", "usr/lib/ld-linux-aarch64.so.1"];
        let loader = loaders.iter().map(|path| self.root.join(path)).find(|path| path.exists());
        let loader = loader.with_context(|| format!("no loader for qemu in {}", self.root.display()))?;
        let mut command = exec::command(loader);
        command.arg("--library-path").arg(&libraries).arg(self.root.join("usr/bin").join(program));
        for data in ["usr/share/qemu", "usr/share/seabios"] {
            command.arg("-L").arg(self.root.join(data));
        }
        command.env("QEMU_MODULE_DIR", libraries.join("qemu"));
        Ok(command)
    }
}

impl Guest<'_> {
    /// Boots, runs the script and returns when the guest is gone; `each_piece` gets what the script prints as it comes.
    pub fn run(&self, paths: &Paths, emulator: &Emulator, mut each_piece: impl FnMut(&str)) -> Result<Ended> {
        let folder = paths.target.join("vm/run").join(self.kernel.name);
        self.prepare(paths, &folder).with_context(|| format!("preparing {}", folder.display()))?;
        let mut command = self.qemu(&folder, emulator)?;
        let started = Instant::now();
        let mut child = command.spawn().with_context(|| format!("cannot run {}", exec::describe(&command)))?;
        let mut output = Output { file: folder.join("output"), opened: None, text: String::new() };
        let ended = follow(&mut child, self.patience + GRACE, || output.more(&mut each_piece));
        let status = fs::read_to_string(folder.join("status")).ok().and_then(|text| text.trim().parse().ok());
        match (ended, status) {
            (Ok(()), Some(status)) => Ok(Ended { status, output: output.text, took: started.elapsed() }),
            (ended, _) => {
                let reason = ended.err().map_or("it ended without a word".into(), |error| error.to_string());
                let console = last_lines(&folder.join("console.log"), 15);
                bail!(
                    "the guest {} did not come to an end: {reason}; its console's last lines ({}):\n{console}",
                    self.kernel.name,
                    folder.join("console.log").display()
                )
            }
        }
    }

    fn prepare(&self, paths: &Paths, folder: &Path) -> Result<()> {
        let _ = fs::remove_dir_all(folder);
        fs::create_dir_all(folder)?;
        let is_own_root = self.root == Path::new("/");
        let settings = format!(
            "NAME='{}'\nRELEASE='{}'\nDIRECTORY='{}'\nSECONDS_AT_MOST={}\nSHELL_WANTED='{}'\nPATH='{}'\n",
            self.kernel.name,
            self.unpacked.release,
            paths.root.display(),
            self.patience.as_secs(),
            if self.script.is_none() { "yes" } else { "" },
            if is_own_root { exec::search_path() } else { "/usr/sbin:/usr/bin:/sbin:/bin".into() },
        );
        fs::write(folder.join("settings.sh"), settings)?;
        fs::write(folder.join("guest.sh"), include_str!("guest.sh"))?;
        fs::write(folder.join("command.sh"), self.script.unwrap_or_default())?;
        initrd::write(&folder.join("initrd"), self.busybox, &self.unpacked.modules_in_order(&MODULES)?)
    }

    fn qemu(&self, folder: &Path, emulator: &Emulator) -> Result<Command> {
        let mut command = emulator.command(self.kernel)?;
        let (machine, processor, console) = match self.kernel.architecture {
            // Pointers signed by a simple hash: the real one takes half of an emulated processor's time.
            "arm64" => ("virt", "max,pauth-impdef=on", "ttyAMA0"),
            _ => ("q35", "max", "ttyS0"),
        };
        command.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
        command.args(["-M", machine, "-accel", "tcg,thread=multi", "-cpu", processor, "-smp", "2", "-m", "3072"]);
        command.arg("-kernel").arg(&self.unpacked.image).arg("-initrd").arg(folder.join("initrd"));
        // no_timer_check: an emulated timer that is late is no broken one.
        let line = format!("console={console} panic=-1 no_timer_check net.ifnames=0 loglevel=4");
        command.arg("-append").arg(line);
        let share = |tag: &str, path: &Path, more: &str| {
            let path = path.display();
            format!("local,mount_tag={tag},path={path},security_model=none,multidevs=remap{more}")
        };
        command.arg("-virtfs").arg(share("root", self.root, ",readonly=on"));
        command.arg("-virtfs").arg(share("modules", &self.unpacked.modules, ",readonly=on"));
        command.arg("-virtfs").arg(share("kept", folder, ""));
        for (number, nic) in self.nics.iter().enumerate() {
            command.arg("-netdev").arg(format!("hubport,id=port{number},hubid=0"));
            command.arg("-device").arg(format!("{nic},netdev=port{number},mac=52:54:00:00:00:{number:02x}"));
        }
        if self.script.is_none() {
            command.args(["-serial", "mon:stdio"]);
        } else {
            command.arg("-serial").arg(format!("file:{}", folder.join("console.log").display()));
            command.stdin(Stdio::null());
        }
        Ok(command)
    }
}

/// The package of qemu, and its program.
fn words(architecture: &str) -> (&'static str, &'static str) {
    match architecture {
        "arm64" => ("qemu-system-arm", "qemu-system-aarch64"),
        _ => ("qemu-system-x86", "qemu-system-x86_64"),
    }
}

/// Debian's name of this machine's architecture.
pub fn host_architecture() -> &'static str {
    if std::env::consts::ARCH == "aarch64" { "arm64" } else { "amd64" }
}

/// Waits for qemu's end, and ends it when it takes too long.
fn follow(child: &mut Child, patience: Duration, mut look: impl FnMut() -> Result<()>) -> Result<()> {
    let started = Instant::now();
    loop {
        let status = child.try_wait().context("waiting for qemu")?;
        look()?;
        match status {
            Some(status) if status.success() => return Ok(()),
            Some(status) => bail!("qemu failed ({status})"),
            None if started.elapsed() > patience => {
                child.kill().and_then(|()| child.wait()).context("ending qemu")?;
                bail!("it took more than {} s", patience.as_secs());
            }
            None => thread::sleep(POLL),
        }
    }
}

/// The growing file of what the script prints.
struct Output {
    file: PathBuf,
    opened: Option<File>,
    text: String,
}

impl Output {
    fn more(&mut self, each_piece: &mut impl FnMut(&str)) -> Result<()> {
        if self.opened.is_none() {
            self.opened = File::open(&self.file).ok();
        }
        let mut bytes = Vec::new();
        if let Some(file) = &mut self.opened {
            file.read_to_end(&mut bytes).with_context(|| format!("reading {}", self.file.display()))?;
        }
        if !bytes.is_empty() {
            let piece = String::from_utf8_lossy(&bytes);
            each_piece(&piece);
            self.text += &piece;
        }
        Ok(())
    }
}

/// Prints what comes from a guest as it comes.
pub fn to_terminal(piece: &str) {
    let mut terminal = std::io::stdout();
    // A closed terminal is no reason to stop.
    let _ = terminal.write_all(piece.as_bytes()).and_then(|()| terminal.flush());
}

fn last_lines(file: &Path, count: usize) -> String {
    let text = fs::read(file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}
