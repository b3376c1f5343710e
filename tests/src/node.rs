//! A node of either make, and what is done to its processes.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use failover_common::abi::{self, VirtualRouter};
use failover_userspace::dataplane::maps::{self, RawArray};
use ipnet::Ipv4Net;
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

use crate::daemon::Daemon;
use crate::keepalived::Keepalived;
use crate::lab::{INTERFACE, Lab};

/// The VRID of a node's first virtual router; the others follow.
pub const FIRST_VRID: u8 = 51;

/// Whose nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum System {
    /// failover
    Ours,
    /// The real keepalived.
    Keepalived,
}

impl System {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "failover",
            Self::Keepalived => "keepalived",
        }
    }
}

/// How a node is set up; all else is each make's default.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// 1 to 254.
    pub priority: u8,
    /// Between two adverts.
    pub advert_ms: u32,
    /// `realtime_priority` of ours, `vrrp_rt_priority` of keepalived. 0: neither.
    pub realtime: u8,
    /// The addresses of each virtual router.
    pub routers: &'a [Vec<Ipv4Net>],
}

/// One running node.
#[derive(Debug)]
pub enum Node {
    /// A controller of this project.
    Ours(Box<Daemon>),
    /// A keepalived.
    Keepalived(Keepalived),
}

impl Node {
    /// Starts it on a station.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(system: System, lab: &Lab, station: &str, plan: &Plan<'_>) -> Result<Self> {
        if system == System::Keepalived {
            let (netns, text) = (lab.station(station)?, plan.for_keepalived());
            return Ok(Self::Keepalived(Keepalived::start_with(netns, lab.directory(), &text)?));
        }
        let mut daemon = lab.daemon_with(station, &plan.for_ours())?;
        daemon.edit_config("[node]\n", &format!("[node]\nrealtime_priority = {}\n", plan.realtime))?;
        daemon.start_and_wait()?;
        Ok(Self::Ours(Box::new(daemon)))
    }

    /// Starts it after it ended.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_again(&mut self) -> Result<()> {
        match self {
            Self::Ours(daemon) => daemon.start(),
            Self::Keepalived(keepalived) => keepalived.start_again(),
        }
    }

    /// kill -9 of all of its processes, and gone.
    ///
    /// # Errors
    /// When it is not running.
    pub fn kill(&mut self) -> Result<()> {
        match self {
            Self::Ours(daemon) => daemon.kill(),
            Self::Keepalived(keepalived) => keepalived.kill(),
        }
    }

    /// SIGTERM, and ended.
    ///
    /// # Errors
    /// When it does not end, or not well.
    pub fn stop(&mut self) -> Result<()> {
        match self {
            Self::Ours(daemon) => {
                let status = daemon.stop()?;
                ensure!(status.success(), "exit status {status}: {}", daemon.log());
                Ok(())
            }
            Self::Keepalived(keepalived) => keepalived.stop(),
        }
    }

    /// SIGTERM to whom its users send it; its end is not waited for.
    ///
    /// # Errors
    /// When it is not running.
    pub fn terminate(&self) -> Result<()> {
        match self {
            Self::Ours(daemon) => daemon.signal(Signal::TERM),
            Self::Keepalived(keepalived) => keepalived.terminate(),
        }
    }

    /// A signal to all of its processes.
    ///
    /// # Errors
    /// When it is not running.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        match self {
            Self::Ours(daemon) => daemon.signal(signal),
            Self::Keepalived(keepalived) => keepalived.signal(signal),
        }
    }

    /// All of them.
    pub fn processes(&self) -> Vec<Pid> {
        match self {
            Self::Ours(daemon) => daemon.process().into_iter().collect(),
            Self::Keepalived(keepalived) => keepalived.processes(),
        }
    }

    /// The kernel's letters for the states of its processes: "S", or "TT".
    pub fn process_states(&self) -> String {
        let state = |pid: Pid| {
            let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
            // After the name in parentheses, which may contain anything.
            stat.rsplit(") ").next().and_then(|rest| rest.chars().next()).unwrap_or('-')
        };
        self.processes().into_iter().map(state).collect()
    }

    /// Replaces the running program with a new file of it, the way that disturbs least: ours is killed and started
    /// within its lease, keepalived is told to reload.
    ///
    /// # Errors
    /// When that cannot be done.
    pub fn replace(&mut self, directory: &Path) -> Result<()> {
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
    pub fn is_replaced(&self, directory: &Path) -> bool {
        match self {
            Self::Ours(daemon) => {
                let exe = |pid: Pid| fs::read_link(format!("/proc/{}/exe", pid.as_raw_nonzero())).ok();
                daemon.process().ok().and_then(exe) == Some(upgraded(directory))
            }
            Self::Keepalived(keepalived) => keepalived.log().contains("Reload complete"),
        }
    }

    /// How often it became Active (MASTER), by its log. Carrying on with a lease is no change.
    pub fn became_active(&self) -> usize {
        let is_change = |line: &str| match self {
            Self::Ours(_) => {
                line.contains("to=Active") && !line.contains("from=Active") && !line.contains("found the lease live")
            }
            Self::Keepalived(_) => line.contains("Entering MASTER STATE"),
        };
        self.log().lines().filter(|line| is_change(line)).count()
    }

    /// One of the program's counters, for those that have it.
    ///
    /// # Errors
    /// When nothing is loaded.
    pub fn counter(&self, name: &str) -> Result<Option<u64>> {
        match self {
            Self::Ours(daemon) => daemon.counter(name).map(Some),
            Self::Keepalived(_) => Ok(None),
        }
    }

    /// Whether it says of all of its virtual routers that they are Backups.
    pub fn is_backup(&self) -> bool {
        match self {
            Self::Ours(daemon) => are_backups(daemon.pin_path()).unwrap_or(false),
            Self::Keepalived(keepalived) => {
                let states = keepalived.states();
                !states.is_empty() && states.values().all(|state| state == "BACKUP")
            }
        }
    }

    /// Everything it has logged.
    pub fn log(&self) -> String {
        match self {
            Self::Ours(daemon) => daemon.log(),
            Self::Keepalived(keepalived) => keepalived.log(),
        }
    }
}

impl Plan<'_> {
    fn for_ours(&self) -> String {
        let Self { priority, advert_ms, .. } = self;
        let router = |(number, addresses): (usize, &Vec<Ipv4Net>)| {
            let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            format!(
                "[[virtual_router]]\nname = \"web{number}\"\ninterface = \"{INTERFACE}\"\nvrid = {}\npriority = {priority}\n\
                 advert_interval = \"{advert_ms}ms\"\naddresses = {addresses:?}\n",
                usize::from(FIRST_VRID) + number
            )
        };
        self.routers.iter().enumerate().map(router).collect()
    }

    fn for_keepalived(&self) -> String {
        let Self { priority, advert_ms, realtime, .. } = self;
        let realtime = if *realtime > 0 { format!("  vrrp_rt_priority {realtime}\n") } else { String::new() };
        let router = |(number, addresses): (usize, &Vec<Ipv4Net>)| {
            let addresses: String = addresses.iter().map(|net| format!("    {net}\n")).collect();
            format!(
                "vrrp_instance web{number} {{\n  interface {INTERFACE}\n  virtual_router_id {}\n  state BACKUP\n  \
                 priority {priority}\n  advert_int {}\n  virtual_ipaddress {{\n{addresses}  }}\n}}\n",
                usize::from(FIRST_VRID) + number,
                f64::from(*advert_ms) / 1e3
            )
        };
        let routers: String = self.routers.iter().enumerate().map(router).collect();
        format!("global_defs {{\n  vrrp_version 3\n{realtime}}}\n{routers}")
    }
}

fn are_backups(pin_path: &Path) -> Result<bool> {
    let routers: RawArray<{ size_of::<VirtualRouter>() }> = maps::array(maps::open(pin_path, abi::VIRTUAL_ROUTERS)?)?;
    for raw in routers.iter() {
        let router: VirtualRouter = raw?.read()?;
        if router.report.state != abi::State::Backup {
            return Ok(false);
        }
    }
    Ok(true)
}

fn upgraded(directory: &Path) -> PathBuf {
    directory.join("failover-upgraded")
}
