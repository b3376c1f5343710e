//! What a test needs of the machine; without it the test says so and is skipped, or fails when
//! `FAILOVER_REQUIRE` is set (as `cargo xtask test` does).

use std::env;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The program and the objects that `cargo xtask build` made.
#[derive(Clone, Debug)]
pub struct Built {
    /// The command `failover`.
    pub failover: PathBuf,
    /// The XDP program's object.
    pub xdp_object: PathBuf,
    /// The object for the far ends of veth pairs.
    pub pass_object: PathBuf,
    /// The object for stations of another VLAN.
    pub tag_object: PathBuf,
    /// The object with the bench's programs.
    pub bench_frame_object: PathBuf,
    /// The object of the bench's client.
    pub flood_object: PathBuf,
}

impl Built {
    /// As `cargo xtask` passes them.
    ///
    /// # Errors
    /// When this was not started by `cargo xtask`.
    pub fn from_env() -> Result<Self> {
        let path = |name: &str| {
            env::var_os(name).map(PathBuf::from).with_context(|| format!("{name} is not set: use `cargo xtask`"))
        };
        Ok(Self {
            failover: path("FAILOVER_BIN")?,
            xdp_object: path("FAILOVER_XDP_OBJECT")?,
            pass_object: path("FAILOVER_LAB_PASS_OBJECT")?,
            tag_object: path("FAILOVER_LAB_TAG_OBJECT")?,
            bench_frame_object: path("FAILOVER_BENCH_FRAME_OBJECT")?,
            flood_object: path("FAILOVER_BENCH_FLOOD_OBJECT")?,
        })
    }
}

/// What the test `name` needs, or `None` after saying why it is skipped.
///
/// # Panics
/// Instead of skipping, when `FAILOVER_REQUIRE` is set.
pub fn require(name: &str, programs: &[&str]) -> Option<Built> {
    let missing = missing(programs);
    match (missing, Built::from_env()) {
        (None, Ok(built)) => Some(built),
        (missing, built) => {
            let reason = missing.or(built.err().map(|error| error.to_string())).unwrap_or_default();
            assert!(env::var_os("FAILOVER_REQUIRE").is_none(), "{name}: {reason}");
            // Not through a macro: those are captured, and a skip has to be seen.
            let _ = writeln!(std::io::stderr(), "skipped {name}: {reason}");
            None
        }
    }
}

/// Lets this process have `count` files open: the soft limit goes up to the hard one.
///
/// # Errors
/// When that is not enough.
pub fn allow_files(count: u64) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    ensure!(allowed >= count, "{count} open files are needed and {allowed} allowed: raise the hard limit (ulimit -Hn)");
    Ok(())
}

fn missing(programs: &[&str]) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root".into());
    }
    let is_there = |program: &&&str| Command::new(program).arg("--version").output().is_err();
    programs.iter().find(is_there).map(|program| format!("needs {program}"))
}
