//! Network namespaces of our own, gone when dropped.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A named network namespace.
#[derive(Debug)]
pub struct Netns {
    name: String,
    keep: bool,
}

impl Netns {
    /// Makes it, with loopback up.
    ///
    /// # Errors
    /// When `ip` cannot, for example because the name is taken.
    pub fn new(name: &str) -> Result<Self> {
        run("ip", &["netns", "add", name])?;
        let netns = Self { name: name.into(), keep: false };
        netns.ip(&["link", "set", "lo", "up"])?;
        Ok(netns)
    }

    /// One that exists already and is not ours to delete.
    pub fn existing(name: &str) -> Self {
        Self { name: name.into(), keep: true }
    }

    /// Leaves it behind on drop.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// A command that will run in it. Unlike `ip netns exec` this keeps the mount namespace, and
    /// with it the bpffs.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg(program.as_ref());
        command
    }

    /// `ip -n NAME ...`.
    ///
    /// # Errors
    /// When `ip` fails, with what it said.
    pub fn ip(&self, arguments: &[&str]) -> Result<String> {
        let mut all = vec!["-n", &self.name];
        all.extend(arguments);
        run("ip", &all)
    }

    /// Sets `/proc/sys/net/...` of this namespace.
    ///
    /// # Errors
    /// When there is no such setting, or it refuses the value.
    pub fn set_sysctl(&self, path: &str, value: &str) -> Result<()> {
        let path = PathBuf::from("/proc/sys/net").join(path);
        self.enter(|| fs::write(&path, value).with_context(|| format!("writing {value} to {}", path.display())))
    }

    /// One of the kernel's counters for this namespace, of those that `nstat` knows: `("Tcp", "InCsumErrors")`.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn kernel_counter(&self, group: &str, name: &str) -> Result<u64> {
        let read = |file| fs::read_to_string(Path::new("/proc/thread-self/net").join(file));
        let text = self.enter(|| Ok(read("snmp")? + &read("netstat")?))?;
        let prefix = format!("{group}: ");
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(&prefix));
        // A line of names, and below it one of numbers.
        let (names, numbers) = lines.next().zip(lines.next()).with_context(|| format!("no counters {group}"))?;
        let mut pairs = names.split(' ').zip(numbers.split(' '));
        let (_, number) = pairs.find(|pair| pair.0 == name).with_context(|| format!("no counter {group} {name}"))?;
        Ok(number.parse()?)
    }

    /// Runs `inside` on a thread in this namespace: sockets made there stay there.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or what `inside` returns.
    pub fn enter<T: Send>(&self, inside: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let entered = || {
            self.move_in()?;
            inside()
        };
        thread::scope(|scope| scope.spawn(entered).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Moves the calling thread into it, for good.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn move_in(&self) -> Result<()> {
        let file = File::open(self.path()).with_context(|| format!("opening {}", self.path().display()))?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .with_context(|| format!("entering {}", self.name))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if !self.keep {
            let _ = run("ip", &["netns", "del", &self.name]);
        }
    }
}

/// Runs a command to its end and returns what it printed.
///
/// # Errors
/// When it cannot be started or fails, with what it said.
pub fn run(program: &str, arguments: &[&str]) -> Result<String> {
    finish(Command::new(program).args(arguments))
}

/// Runs a prepared command to its end and returns what it printed.
///
/// # Errors
/// As [`run`].
pub fn finish(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("starting {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
