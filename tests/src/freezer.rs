//! A control group of our own whose processes can be frozen: cgroup2's freezer, or version 1's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context, Result};
use rustix::process::Pid;

use crate::wait;

/// The group, with the processes that were put in; dropping it thaws them, puts them back and removes it.
#[derive(Debug)]
pub struct Freezer {
    /// The hierarchy's root, where the processes go afterwards.
    root: PathBuf,
    group: PathBuf,
    /// The file that freezes, what freezes and what thaws when written there.
    control: (&'static str, &'static str, &'static str),
    /// The file that says whether it is frozen, and the line that means so.
    state: (&'static str, &'static str),
    /// Where each process was before.
    homes: Vec<(Pid, PathBuf)>,
}

impl Freezer {
    /// A group for this process's tests, in the mounted hierarchy that has a freezer; `None` when there is none.
    ///
    /// # Errors
    /// When the group cannot be made.
    pub fn new() -> Result<Option<Self>> {
        let mounts = fs::read_to_string("/proc/self/mounts").context("reading the mount table")?;
        let mount = |is_it: fn(&[&str]) -> bool| {
            let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
            fields
                .filter(|fields| fields.len() >= 4)
                .find(|fields| is_it(fields))
                .map(|fields| PathBuf::from(fields[1]))
        };
        let second = mount(|fields| fields[2] == "cgroup2");
        let first = mount(|fields| fields[2] == "cgroup" && fields[3].split(',').any(|option| option == "freezer"));
        let (root, control, state) = match (second, first) {
            (Some(root), _) => (root, ("cgroup.freeze", "1", "0"), ("cgroup.events", "frozen 1")),
            (None, Some(root)) => (root, ("freezer.state", "FROZEN", "THAWED"), ("freezer.state", "FROZEN")),
            (None, None) => return Ok(None),
        };
        let group = root.join(format!("failover-tests-{}", process::id()));
        fs::create_dir(&group).with_context(|| format!("making {}", group.display()))?;
        Ok(Some(Self { root, group, control, state, homes: Vec::new() }))
    }

    /// Puts the processes in, and waits until they are frozen.
    ///
    /// # Errors
    /// When one cannot be put in, or the kernel does not say that they are frozen.
    pub fn freeze(&mut self, pids: &[Pid]) -> Result<()> {
        for pid in pids {
            let home = self.home(*pid)?;
            self.homes.push((*pid, home));
            enter(&self.group, *pid)?;
        }
        self.write(self.control.1)?;
        wait::until("the group to be frozen", || self.is_frozen())
    }

    /// What the kernel says.
    pub fn is_frozen(&self) -> bool {
        let text = fs::read_to_string(self.group.join(self.state.0)).unwrap_or_default();
        text.lines().any(|line| line == self.state.1)
    }

    /// Lets them run again.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn thaw(&self) -> Result<()> {
        self.write(self.control.2)
    }

    fn write(&self, value: &str) -> Result<()> {
        let path = self.group.join(self.control.0);
        fs::write(&path, value).with_context(|| format!("writing {value} to {}", path.display()))
    }

    /// The group that a process is in, of this hierarchy.
    fn home(&self, pid: Pid) -> Result<PathBuf> {
        let text = fs::read_to_string(format!("/proc/{}/cgroup", pid.as_raw_nonzero()))?;
        let is_second = self.control.0 == "cgroup.freeze";
        // hierarchy-ID:controller-list:path
        let path = text.lines().find_map(|line| {
            let (id, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            let is_it = if is_second { id == "0" } else { controllers.split(',').any(|name| name == "freezer") };
            is_it.then_some(path)
        });
        let path = path.context("a process in no group of this hierarchy")?;
        Ok(self.root.join(path.trim_start_matches('/')))
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        let _ = self.thaw();
        for (pid, home) in &self.homes {
            // One that ended meanwhile is nowhere.
            let _ = enter(home, *pid);
        }
        let _ = wait::until("the group to be empty", || fs::remove_dir(&self.group).is_ok());
    }
}

fn enter(group: &Path, pid: Pid) -> Result<()> {
    let path = group.join("cgroup.procs");
    let text = pid.as_raw_nonzero().to_string();
    fs::write(&path, text).with_context(|| format!("putting process {pid:?} into {}", path.display()))
}
