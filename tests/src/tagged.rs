//! A station of another VLAN on the same wire: every frame that leaves it has a tag that is not in the frame's bytes.
//!
//! Deliberately absent: a VLAN device, which not every kernel has. What comes in reaches the station as ever.

use anyhow::{Context, Result};
use aya::programs::tc::{self, SchedClassifier, TcAttachType};
use aya::{Ebpf, EbpfLoader};

use crate::netns::Netns;
use crate::requirements::Built;

/// The program on an interface, until dropped.
#[derive(Debug)]
pub struct Tagged(#[expect(dead_code, reason = "held, not used")] Ebpf);

impl Tagged {
    /// Tags all that leaves `interface` of the namespace from now on. `tag` is all of it: the VLAN id (50), or with a
    /// priority above it (3 << 13 | 50).
    ///
    /// # Errors
    /// When the program cannot be loaded or attached.
    pub fn start(built: &Built, netns: &Netns, interface: &str, tag: u16) -> Result<Self> {
        let path = &built.tag_object;
        let tag = u32::from(tag);
        let mut loader = EbpfLoader::new();
        let loaded = loader.override_global("TAG", &tag, true).load_file(path);
        let mut ebpf = loaded.with_context(|| format!("loading {}", path.display()))?;
        let program: &mut SchedClassifier = ebpf.program_mut("tag").context("no program \"tag\"")?.try_into()?;
        program.load()?;
        netns.enter(|| {
            // Where there is no tcx (before Linux 6.6) it hangs on this; there may be one already.
            let _ = tc::qdisc_add_clsact(interface);
            let attached = program.attach(interface, TcAttachType::Egress);
            attached.map(drop).with_context(|| format!("attaching to {interface}"))
        })?;
        Ok(Self(ebpf))
    }
}
