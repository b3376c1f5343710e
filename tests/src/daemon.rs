//! The controller as a process on a node, and what an operator can do to it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result, ensure};
use failover_userspace::dataplane::bound;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::netns::{Netns, finish};
use crate::requirements::Built;
use crate::wait;

/// `failover run` on a node. Dropping it stops it and unloads whatever is left.
#[derive(Debug)]
pub struct Daemon {
    built: Built,
    netns: String,
    pin_path: PathBuf,
    config: PathBuf,
    log: PathBuf,
    child: Option<Child>,
    left_behind: bool,
    /// Words before those that run it.
    start_with: Vec<String>,
}

impl Daemon {
    /// A controller that is not started, with its configuration in `directory`. The section
    /// `[data_plane]` is added here, with the fastest mode that veths have; `data_plane` are further lines of it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn new(built: &Built, netns: &Netns, directory: &Path, data_plane: &str, routers: &str) -> Result<Self> {
        let name = netns.name();
        let pin_path = PathBuf::from("/sys/fs/bpf").join(name);
        let config = directory.join(format!("{name}.toml"));
        // Before Linux 6.8 a veth's VLAN tags are hidden from native programs, which is refused.
        let mode = if bound::is_known() { "native" } else { "generic" };
        let text = format!(
            "[node]\nname = \"{name}\"\n\n[data_plane]\npin_path = \"{}\"\nxdp_mode = \"{mode}\"\n{data_plane}\n{routers}",
            pin_path.display()
        );
        fs::write(&config, text).with_context(|| format!("writing {}", config.display()))?;
        let log = directory.join(format!("{name}.log"));
        Ok(Self {
            built: built.clone(),
            netns: name.into(),
            pin_path,
            config,
            log,
            child: None,
            left_behind: false,
            start_with: Vec::new(),
        })
    }

    /// Replaces text in its configuration, for its next start.
    ///
    /// # Errors
    /// When the text is not there, or the file cannot be written.
    pub fn edit_config(&self, from: &str, to: &str) -> Result<()> {
        let text = fs::read_to_string(&self.config)?;
        ensure!(text.contains(from), "no {from} in {text}");
        Ok(fs::write(&self.config, text.replace(from, to))?)
    }

    /// Has it pin where another one does.
    ///
    /// # Errors
    /// As [`Self::edit_config`].
    pub fn share_pins(&mut self, other: &Self) -> Result<()> {
        self.edit_config(&self.pin_path.to_string_lossy(), &other.pin_path.to_string_lossy())?;
        self.pin_path.clone_from(&other.pin_path);
        Ok(())
    }

    /// The file that it is started from.
    pub fn program(&self) -> &Path {
        &self.built.failover
    }

    /// Has it started from another file the next time: an upgrade.
    pub fn set_program(&mut self, failover: &Path) {
        self.built.failover = failover.into();
    }

    /// Has it started by a command that takes the command to run as its last arguments, outside of the node's network
    /// namespace.
    pub fn start_with(&mut self, words: &[&str]) {
        self.start_with = words.iter().map(ToString::to_string).collect();
    }

    /// Starts it.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn start(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = self.run_command();
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
        self.child = Some(child.with_context(|| format!("starting {command:?}"))?);
        Ok(())
    }

    /// Starts it and waits until it has loaded and reports a state.
    ///
    /// # Errors
    /// When it does not get there, with its log.
    pub fn start_and_wait(&mut self) -> Result<()> {
        self.start()?;
        let loaded = wait::until("the controller to load", || self.state(0).is_ok_and(|state| state != "Initialize"));
        loaded.with_context(|| format!("log of {}:\n{}", self.netns, self.log()))
    }

    /// Whether its process is gone, by itself or not.
    ///
    /// # Errors
    /// When it was not started.
    pub fn has_ended(&mut self) -> Result<bool> {
        let child = self.child.as_mut().context("the controller was not started")?;
        Ok(child.try_wait()?.is_some())
    }

    fn command(&self) -> Command {
        Netns::existing(&self.netns).command(&self.built.failover)
    }

    /// Starts it again and waits until it says that it is Active: what it finds pinned says so before it is adopted.
    ///
    /// # Errors
    /// As [`Self::start`], and when it doesn't become Active.
    pub fn start_again(&mut self) -> Result<()> {
        let times_active = |daemon: &Self| daemon.log().matches("to=Active").count();
        let before = times_active(self);
        self.start()?;
        wait::until("an Active", || times_active(self) > before).with_context(|| self.log())
    }

    /// The command that runs it.
    pub fn run_command(&self) -> Command {
        let mut command = self.command();
        command.arg("run").arg("--config").arg(&self.config);
        let Some((program, words)) = self.start_with.split_first() else { return command };
        let mut starter = Command::new(program);
        starter.args(words).arg(command.get_program()).args(command.get_args());
        starter
    }

    /// The command that unloads what it left.
    pub fn unload_command(&self) -> Command {
        let mut command = self.command();
        command.arg("unload").arg("--pin-path").arg(&self.pin_path);
        command
    }

    /// Its process.
    ///
    /// # Errors
    /// When it is not running.
    pub fn process(&self) -> Result<Pid> {
        let child = self.child.as_ref().context("the controller was not started")?;
        Pid::from_raw(child.id() as i32).context("a process without an id")
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it is not running.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(self.process()?, signal)?)
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// When it does not.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let mut child = self.child.take().context("the controller was not started")?;
        let mut status = None;
        wait::until("the controller to end", || {
            status = child.try_wait().ok().flatten();
            status.is_some()
        })?;
        status.context("no exit status")
    }

    /// kill -9, and gone.
    ///
    /// # Errors
    /// When it is not running.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.wait().map(drop)
    }

    /// SIGTERM, and ended.
    ///
    /// # Errors
    /// When it is not running, or does not end.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait()
    }

    /// `failover status --json`.
    ///
    /// # Errors
    /// When nothing is loaded.
    pub fn status(&self) -> Result<Value> {
        let text = finish(self.command().args(["status", "--json", "--pin-path"]).arg(&self.pin_path))?;
        serde_json::from_str(&text).context("status --json printed no JSON")
    }

    /// `failover status`, the table.
    ///
    /// # Errors
    /// When nothing is loaded.
    pub fn status_table(&self) -> Result<String> {
        finish(self.command().args(["status", "--pin-path"]).arg(&self.pin_path))
    }

    /// The state of a virtual router.
    ///
    /// # Errors
    /// When nothing is loaded.
    pub fn state(&self, router: usize) -> Result<String> {
        let status = self.status()?;
        let state = status["virtual_routers"][router]["state"].as_str();
        Ok(state.context("no state in the status")?.to_owned())
    }

    /// One counter.
    ///
    /// # Errors
    /// When nothing is loaded.
    pub fn counter(&self, name: &str) -> Result<u64> {
        self.status()?["counters"][name].as_u64().with_context(|| format!("no counter {name}"))
    }

    /// What bpftool prints of a pinned map, as JSON.
    ///
    /// # Errors
    /// When bpftool fails.
    pub fn map_dump(&self, map: &str) -> Result<Value> {
        let mut command = Command::new("bpftool");
        let text = finish(command.args(["map", "dump", "-j", "pinned"]).arg(self.pin_path.join(map)))?;
        serde_json::from_str(&text).context("bpftool printed no JSON")
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        &self.netns
    }

    /// Leaves it running, and a note of its process for [`Self::left`].
    ///
    /// # Errors
    /// When the note cannot be written.
    pub fn leave(mut self) -> Result<()> {
        if let Some(child) = self.child.take() {
            fs::write(self.config.with_extension("pid"), child.id().to_string())?;
        }
        self.left_behind = true;
        Ok(())
    }

    /// One that [`Self::leave`] left on that node; dropping it stops it.
    pub fn left(built: &Built, netns: &Netns, directory: &Path) -> Self {
        let name = netns.name();
        let file = |extension| directory.join(format!("{name}.{extension}"));
        let daemon = Self {
            built: built.clone(),
            netns: name.into(),
            pin_path: PathBuf::from("/sys/fs/bpf").join(name),
            config: file("toml"),
            log: file("log"),
            child: None,
            left_behind: false,
            start_with: Vec::new(),
        };
        let pid = fs::read_to_string(file("pid")).ok().and_then(|text| Pid::from_raw(text.trim().parse().ok()?));
        if let Some(pid) = pid.filter(|pid| daemon.is_process(*pid)) {
            let _ = kill_process(pid, Signal::TERM);
            let _ = wait::until("the controller to end", || !daemon.is_process(pid));
        }
        daemon
    }

    /// Whether the process is still this controller: ids are used again.
    fn is_process(&self, pid: Pid) -> bool {
        let command_line = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
        String::from_utf8_lossy(&command_line).contains(&*self.config.to_string_lossy())
    }

    /// Everything it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Where its maps are pinned.
    pub fn pin_path(&self) -> &Path {
        &self.pin_path
    }

    /// Where its configuration is.
    pub fn config(&self) -> &Path {
        &self.config
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.left_behind {
            return;
        }
        if self.child.is_some() {
            // A stopped process must go on to end.
            let _ = self.signal(Signal::CONT);
            if self.stop().is_err() {
                let _ = self.kill();
            }
        }
        if self.pin_path.exists() {
            // The interface may be gone with the test.
            let _ = finish(self.unload_command().arg("--force"));
        }
    }
}
