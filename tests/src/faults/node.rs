//! A node of either make, and what is done to its processes.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal};

use crate::daemon::Daemon;
use crate::faults::Setting;
use crate::keepalived::{Instance, Keepalived};
use crate::lab::Lab;

/// Whose nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    /// failover
    Ours,
    /// The real keepalived.
    Keepalived,
}

/// Which of the two: A is the better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Edge {
    A,
    B,
}

/// One running node.
#[derive(Debug)]
pub(super) enum Node {
    Ours(Box<Daemon>),
    Keepalived(Keepalived),
}

impl Node {
    /// Starts it on a station, with what each make has for defaults.
    pub(super) fn start(system: System, lab: &Lab, edge: Edge, setting: Setting) -> Result<Self> {
        let Setting { advert_ms, realtime } = setting;
        let (name, priority, realtime) = match edge {
            Edge::A => ("edge-a", 150, realtime[0]),
            Edge::B => ("edge-b", 100, realtime[1]),
        };
        if system == System::Ours {
            let mut daemon = lab.daemon(name, priority, &format!("{advert_ms}ms"), "")?;
            daemon.edit_config("[node]\n", &format!("[node]\nrealtime_priority = {realtime}\n"))?;
            daemon.start_and_wait()?;
            return Ok(Self::Ours(Box::new(daemon)));
        }
        let global = if realtime > 0 { format!("vrrp_rt_priority {realtime}") } else { String::new() };
        let instance = Instance {
            version: 3,
            priority,
            advert_int: &format!("{}", f64::from(advert_ms) / 1e3),
            more: "",
            global: &global,
        };
        Ok(Self::Keepalived(Keepalived::start(lab.station(name)?, lab.directory(), &instance)?))
    }

    pub(super) fn start_again(&mut self) -> Result<()> {
        match self {
            Self::Ours(daemon) => daemon.start(),
            Self::Keepalived(keepalived) => keepalived.start_again(),
        }
    }

    /// kill -9 of all of its processes, and gone.
    pub(super) fn kill(&mut self) -> Result<()> {
        match self {
            Self::Ours(daemon) => daemon.kill(),
            Self::Keepalived(keepalived) => keepalived.kill(),
        }
    }

    /// SIGTERM, and ended.
    pub(super) fn stop(&mut self) -> Result<()> {
        match self {
            Self::Ours(daemon) => {
                let status = daemon.stop()?;
                ensure!(status.success(), "exit status {status}: {}", daemon.log());
                Ok(())
            }
            Self::Keepalived(keepalived) => keepalived.stop(),
        }
    }

    /// A signal to all of its processes.
    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        match self {
            Self::Ours(daemon) => daemon.signal(signal),
            Self::Keepalived(keepalived) => keepalived.signal(signal),
        }
    }

    pub(super) fn processes(&self) -> Vec<Pid> {
        match self {
            Self::Ours(daemon) => daemon.process().into_iter().collect(),
            Self::Keepalived(keepalived) => keepalived.processes(),
        }
    }

    /// The kernel's letters for the states of its processes: "S", or "TT".
    pub(super) fn process_states(&self) -> String {
        let state = |pid: Pid| {
            let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
            // After the name in parentheses, which may contain anything.
            stat.rsplit(") ").next().and_then(|rest| rest.chars().next()).unwrap_or('-')
        };
        self.processes().into_iter().map(state).collect()
    }

    /// Replaces the running program with a new file of it, the way that disturbs least: ours is killed and started
    /// within its lease, keepalived is told to reload.
    pub(super) fn replace(&mut self, directory: &Path) -> Result<()> {
        match self {
            Self::Ours(daemon) => {
                let new = upgraded(directory);
                fs::copy(daemon.program(), &new).with_context(|| format!("making {}", new.display()))?;
                daemon.set_program(&new);
                daemon.kill()?;
                daemon.start()
            }
            Self::Keepalived(keepalived) => keepalived.reload(),
        }
    }

    /// Whether what runs is what [`Self::replace`] put there.
    pub(super) fn is_replaced(&self, directory: &Path) -> bool {
        match self {
            Self::Ours(daemon) => {
                let exe = |pid: Pid| fs::read_link(format!("/proc/{}/exe", pid.as_raw_nonzero())).ok();
                daemon.process().ok().and_then(exe) == Some(upgraded(directory))
            }
            Self::Keepalived(keepalived) => keepalived.log().contains("Reload complete"),
        }
    }

    /// How often it became Active (MASTER), by its log. Carrying on with a lease is no change.
    pub(super) fn became_active(&self) -> usize {
        let is_change = |line: &str| match self {
            Self::Ours(_) => {
                line.contains("to=Active") && !line.contains("from=Active") && !line.contains("found the lease live")
            }
            Self::Keepalived(_) => line.contains("Entering MASTER STATE"),
        };
        self.log().lines().filter(|line| is_change(line)).count()
    }

    /// One of the program's counters, for those that have it.
    pub(super) fn counter(&self, name: &str) -> Result<Option<u64>> {
        match self {
            Self::Ours(daemon) => daemon.counter(name).map(Some),
            Self::Keepalived(_) => Ok(None),
        }
    }

    pub(super) fn log(&self) -> String {
        match self {
            Self::Ours(daemon) => daemon.log(),
            Self::Keepalived(keepalived) => keepalived.log(),
        }
    }
}

fn upgraded(directory: &Path) -> PathBuf {
    directory.join("failover-upgraded")
}
