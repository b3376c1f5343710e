//! Where things are: the workspace, the target directory, the artifacts that verbs hand to each other.
//!
//! Deliberately absent: `cargo metadata`, which would cost a process and a parser on every run.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The target that the frame path is built for.
pub const BPF_TARGET: &str = "bpfel-unknown-none";

/// The workspace and its target directory.
#[derive(Debug)]
pub struct Paths {
    /// The directory of the workspace's `Cargo.toml`.
    pub root: PathBuf,
    /// Cargo's target directory: `CARGO_TARGET_DIR`, or `target` in the root.
    pub target: PathBuf,
}

/// Cargo's two built-in profiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Optimised: what runs on a node.
    Release,
    /// Quick to build, slow to run.
    Debug,
}

impl Paths {
    /// Finds the workspace from where xtask was built.
    pub fn find() -> Result<Self> {
        // Cargo sets the variable at run time too, so a workspace that was moved after a build is still found.
        let manifest =
            env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
        let root = manifest
            .parent()
            .context("xtask's own directory has no parent: run it as `cargo xtask` inside the workspace")?
            .to_path_buf();
        let target = match env::var_os("CARGO_TARGET_DIR") {
            Some(target) => env::current_dir().context("finding the current directory")?.join(target),
            None => root.join("target"),
        };
        Ok(Self { root, target })
    }

    /// The target directory of the eBPF build, apart from the host's so that neither evicts the other.
    pub fn bpf_target(&self) -> PathBuf {
        self.target.join("bpf")
    }

    /// The XDP program.
    pub fn xdp_object(&self) -> PathBuf {
        self.bpf_object("failover-xdp")
    }

    /// The program that lets everything pass, for the far ends of the lab's veth pairs.
    pub fn lab_pass_object(&self) -> PathBuf {
        self.bpf_object("lab-pass")
    }

    /// The program that tags what leaves, for the lab's stations of another VLAN.
    pub fn lab_tag_object(&self) -> PathBuf {
        self.bpf_object("lab-tag")
    }

    /// The programs that the bench puts around the XDP program.
    pub fn bench_frame_object(&self) -> PathBuf {
        self.bpf_object("bench-frame")
    }

    /// The bench's client: a generator of frames, and a counter of answers.
    pub fn bench_flood_object(&self) -> PathBuf {
        self.bpf_object("bench-flood")
    }

    /// The product.
    pub fn failover(&self, profile: Profile) -> PathBuf {
        self.target.join(profile.directory()).join("failover")
    }

    /// The lab's own program.
    pub fn lab(&self) -> PathBuf {
        self.target.join(Profile::Release.directory()).join("lab")
    }

    /// The fault lab's.
    pub fn faults(&self) -> PathBuf {
        self.target.join(Profile::Release.directory()).join("faults")
    }

    /// The bench.
    pub fn bench(&self) -> PathBuf {
        self.target.join(Profile::Release.directory()).join("bench")
    }

    /// The simulation.
    pub fn sim(&self) -> PathBuf {
        self.target.join(Profile::Release.directory()).join("sim")
    }

    /// `path` as seen from the workspace, for messages.
    pub fn shown<'a>(&self, path: &'a Path) -> &'a Path {
        path.strip_prefix(&self.root).unwrap_or(path)
    }

    fn bpf_object(&self, name: &str) -> PathBuf {
        self.bpf_target().join(BPF_TARGET).join(Profile::Release.directory()).join(name)
    }
}

impl Profile {
    /// The directory cargo uses for it.
    pub fn directory(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Debug => "debug",
        }
    }
}
