//! The real keepalived as a peer on a node.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::netns::Netns;
use crate::wait;

/// One VRRP instance of keepalived.
#[derive(Clone, Debug)]
pub struct Instance<'a> {
    /// 2 or 3.
    pub version: u8,
    /// 1 to 255.
    pub priority: u8,
    /// As keepalived writes it: seconds, with a fraction in version 3.
    pub advert_int: &'a str,
    /// Lines that go into the `vrrp_instance` block as they are.
    pub more: &'a str,
    /// And into `global_defs`.
    pub global: &'a str,
}

/// A running keepalived; dropping it stops it.
#[derive(Debug)]
pub struct Keepalived {
    netns: String,
    config: PathBuf,
    /// keepalived's own notes of its two processes: the one that was started, and its child that does VRRP.
    pids: [PathBuf; 2],
    log: PathBuf,
    child: Option<Child>,
}

impl Keepalived {
    /// Starts keepalived for VRID 51 and 192.0.2.10 on `eth0` of the namespace.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(netns: &Netns, directory: &Path, instance: &Instance<'_>) -> Result<Self> {
        Self::start_with(netns, directory, &configuration(instance))
    }

    /// Starts keepalived with this configuration.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_with(netns: &Netns, directory: &Path, configuration: &str) -> Result<Self> {
        let name = netns.name();
        let file = |extension: &str| directory.join(format!("{name}.{extension}"));
        let config = file("conf");
        fs::write(&config, configuration)?;
        let pids = [file("main.pid"), file("vrrp.pid")];
        let mut new = Self { netns: name.into(), config, pids, log: file("keepalived.log"), child: None };
        new.start_again()?;
        Ok(new)
    }

    /// Starts it after it ended.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_again(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Netns::existing(&self.netns).command("keepalived");
        command.args(["--dont-fork", "--vrrp", "--log-console"]).arg("--use-file").arg(&self.config);
        command.arg("--pid").arg(&self.pids[0]).arg("--vrrp_pid").arg(&self.pids[1]);
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
        self.child = Some(child.with_context(|| format!("starting {command:?}"))?);
        Ok(())
    }

    /// Its processes that live, the child first.
    pub fn processes(&self) -> Vec<Pid> {
        let noted = fs::read_to_string(&self.pids[1]).ok().and_then(|text| Pid::from_raw(text.trim().parse().ok()?));
        // Ids are used again.
        let is_vrrp = |pid: &Pid| {
            let command = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
            String::from_utf8_lossy(&command).contains(&*self.config.to_string_lossy())
        };
        let main = self.child.as_ref().and_then(|child| Pid::from_raw(child.id() as i32));
        noted.filter(is_vrrp).into_iter().chain(main).collect()
    }

    /// Sends a signal to all of its processes.
    ///
    /// # Errors
    /// When it is not running.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        ensure!(self.child.is_some(), "keepalived was not started");
        self.processes().into_iter().try_for_each(|pid| Ok(kill_process(pid, signal)?))
    }

    /// Makes it read its configuration again, as its users do.
    ///
    /// # Errors
    /// When it is not running.
    pub fn reload(&self) -> Result<()> {
        let main = self.processes().pop().context("keepalived was not started")?;
        Ok(kill_process(main, Signal::HUP)?)
    }

    /// kill -9 of all of its processes at once, and gone. The first would otherwise start its child again, or the child
    /// hear of its death and say goodbye.
    ///
    /// # Errors
    /// When it is not running.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(Signal::STOP)?;
        self.signal(Signal::KILL)?;
        self.wait()?;
        wait::until("keepalived's child to end", || self.processes().is_empty())?;
        // It would take a child that is dead, and that the machine's init has not buried yet, for a running one.
        self.pids.iter().try_for_each(fs::remove_file).context("removing keepalived's notes of its processes")
    }

    /// Tells it to stop, as its users do.
    ///
    /// # Errors
    /// When it is not running.
    pub fn terminate(&self) -> Result<()> {
        let main = self.child.as_ref().and_then(|child| Pid::from_raw(child.id() as i32));
        Ok(kill_process(main.context("keepalived was not started")?, Signal::TERM)?)
    }

    /// Stops it as its users do, and waits until it has.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(&mut self) -> Result<()> {
        let _ = self.terminate();
        self.wait()
    }

    fn wait(&mut self) -> Result<()> {
        let Some(child) = &mut self.child else { return Ok(()) };
        wait::until("keepalived to end", || matches!(child.try_wait(), Ok(Some(_)) | Err(_)))?;
        self.child = None;
        Ok(())
    }

    /// Everything it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The state that it last entered: MASTER, BACKUP or FAULT.
    pub fn state(&self) -> Option<String> {
        self.log().lines().rev().find_map(entered).map(|(_, state)| state.into())
    }

    /// The state that each of its instances last entered.
    pub fn states(&self) -> BTreeMap<String, String> {
        self.log().lines().filter_map(entered).map(|(instance, state)| (instance.into(), state.into())).collect()
    }
}

impl Drop for Keepalived {
    fn drop(&mut self) {
        // Stopped processes must go on to end.
        let _ = self.signal(Signal::CONT);
        if self.stop().is_err() {
            let _ = self.kill();
        }
    }
}

/// `... (web) Entering BACKUP STATE (init)`
fn entered(line: &str) -> Option<(&str, &str)> {
    let (before, after) = line.split_once(") Entering ")?;
    Some((before.rsplit('(').next()?, after.split_once(" STATE")?.0))
}

fn configuration(instance: &Instance<'_>) -> String {
    let Instance { version, priority, advert_int, more, global } = instance;
    format!(
        "global_defs {{\n  vrrp_version {version}\n  {global}\n}}\n\
         vrrp_instance web {{\n  interface eth0\n  virtual_router_id 51\n  state BACKUP\n  priority {priority}\n  \
         advert_int {advert_int}\n  {more}\n  virtual_ipaddress {{\n    192.0.2.10/24\n  }}\n}}\n"
    )
}
