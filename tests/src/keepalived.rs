//! The real keepalived as a peer on a node.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use anyhow::{Context, Result};
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
}

/// A running keepalived; dropping it stops it.
#[derive(Debug)]
pub struct Keepalived {
    child: Child,
    log: PathBuf,
}

impl Keepalived {
    /// Starts keepalived for VRID 51 and 192.0.2.10 on `eth0` of the namespace.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(netns: &Netns, directory: &Path, instance: &Instance<'_>) -> Result<Self> {
        let name = netns.name();
        let config = directory.join(format!("{name}.conf"));
        fs::write(&config, configuration(instance))?;
        let log = directory.join(format!("{name}.keepalived.log"));
        let file = File::create(&log)?;
        let pid = |kind: &str| format!("{}/{name}.{kind}.pid", directory.display());
        let mut command = netns.command("keepalived");
        command.args(["--dont-fork", "--vrrp", "--log-console", "--log-detail"]);
        command.arg("--use-file").arg(&config).arg("--pid").arg(pid("main")).arg("--vrrp_pid").arg(pid("vrrp"));
        let child = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn();
        Ok(Self { child: child.with_context(|| format!("starting {command:?}"))?, log })
    }

    /// Stops it as its users do, and waits until it has.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(&mut self) -> Result<()> {
        if let Some(pid) = Pid::from_raw(self.child.id() as i32) {
            let _ = kill_process(pid, Signal::TERM);
        }
        wait::until("keepalived to end", || matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)))
    }

    /// Everything it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The state that it last entered: MASTER, BACKUP or FAULT.
    pub fn state(&self) -> Option<String> {
        let log = self.log();
        let line = log.lines().rev().find(|line| line.contains("Entering ") && line.contains(" STATE"))?;
        line.split("Entering ").nth(1)?.split(' ').next().map(String::from)
    }
}

impl Drop for Keepalived {
    fn drop(&mut self) {
        if self.stop().is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn configuration(instance: &Instance<'_>) -> String {
    let Instance { version, priority, advert_int, more } = instance;
    format!(
        "global_defs {{\n  vrrp_version {version}\n}}\n\
         vrrp_instance web {{\n  interface eth0\n  virtual_router_id 51\n  state BACKUP\n  priority {priority}\n  \
         advert_int {advert_int}\n  {more}\n  virtual_ipaddress {{\n    192.0.2.10/24\n  }}\n}}\n"
    )
}
