//! The client: sends floods, and counts the answers that come to its interface.
//!
//! Deliberately absent: threads; who calls decides where it runs.

use std::io::ErrorKind;

use anyhow::{Context, Result, bail};
use aya::maps::{Array, MapData, PerCpuArray};
use aya::programs::{ProgramError, TestRun as _, TestRunAttrs, Xdp, XdpMode};
use aya::{Ebpf, TestRunOptions};
use failover_userspace::dataplane::maps::Raw;

use super::frames::{FRAME_LEN, Flood};
use crate::frames::FrameSocket;
use crate::lab::INTERFACE;
use crate::netns::Netns;
use crate::requirements::Built;

/// Frames that the kernel makes at once: the most that it allows (TEST_XDP_MAX_BATCH), because it also is how many of
/// the pages that come back are used again.
const BATCH: u32 = 256;

/// See the module.
pub struct Client {
    /// Its namespace.
    pub netns: Netns,
    ebpf: Ebpf,
    frames: Array<MapData, Raw<64>>,
    settings: Array<MapData, Raw<16>>,
    sent: PerCpuArray<MapData, Raw<16>>,
    answers: PerCpuArray<MapData, u64>,
    ifindex: u32,
}

impl Client {
    /// Attaches the counter to its interface.
    ///
    /// # Errors
    /// When a program cannot be loaded or attached.
    pub fn new(built: &Built, netns: Netns) -> Result<Self> {
        let mut ebpf = load(built)?;
        let frames = ebpf.take_map("FRAMES").context("no map FRAMES")?.try_into()?;
        let settings = ebpf.take_map("SETTINGS").context("no map SETTINGS")?.try_into()?;
        let sent = ebpf.take_map("SENT").context("no map SENT")?.try_into()?;
        let answers = ebpf.take_map("ANSWERS").context("no map ANSWERS")?.try_into()?;
        program(&mut ebpf, "flood")?.load().context("loading the generator")?;
        attach(&mut ebpf, "count", &netns)?;
        let index = netns.ip(&["-o", "link", "show", INTERFACE])?;
        let ifindex = index.split(':').next().and_then(|first| first.parse().ok()).context("no interface index")?;
        Ok(Self { netns, ebpf, frames, settings, sent, answers, ifindex })
    }

    /// A packet socket that receives the answers to that flood, and not what is sent.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn socket(&self, flood: Flood) -> Result<FrameSocket> {
        FrameSocket::open(&self.netns, INTERFACE, flood.ether_type())
    }

    /// Answers to that flood that have come.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn answers(&self, flood: Flood) -> Result<u64> {
        Ok(self.answers.get(&(flood.index() as u32), 0)?.iter().sum())
    }

    /// Frames that the live generator has sent.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn sent(&self) -> Result<u64> {
        Ok(self
            .sent
            .get(&0, 0)?
            .iter()
            .map(|Raw(bytes)| u64::from_ne_bytes(bytes[..8].try_into().unwrap_or_default()))
            .sum())
    }

    /// Sets what is sent.
    ///
    /// # Errors
    /// When a map cannot be written.
    pub fn load(&mut self, flood: Flood) -> Result<()> {
        for (number, frame) in flood.questions().iter().enumerate() {
            let mut template = [0; 64];
            template[..FRAME_LEN].copy_from_slice(frame);
            self.frames.set(number as u32, Raw(template), 0)?;
        }
        Ok(())
    }

    /// Sets how many frames a second the live generator sends at most, 0 for as many as it can; and whether answers are
    /// sent back as the next questions.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn set_pace(&mut self, rate: u64, goes_back: bool) -> Result<()> {
        let pace_ns = 1_000_000_000_u64.checked_div(rate).unwrap_or_default();
        Ok(self.settings.set(0, Raw::of(&[pace_ns, u64::from(goes_back)]), 0)?)
    }

    /// Sends frames that were never socket buffers (BPF_PROG_TEST_RUN with BPF_F_TEST_XDP_LIVE_FRAMES), from the calling
    /// thread's core, until a signal comes. A call costs milliseconds before the first frame: the kernel patches its
    /// code for it (bpf_prog_change_xdp). So there is one call, and no second.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn send_live(&self) -> Result<()> {
        let flood: &Xdp = self.ebpf.program("flood").context("no program flood")?.try_into()?;
        let frame = [0; FRAME_LEN];
        // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let context: Vec<u8> =
            [0, FRAME_LEN as u32, 0, self.ifindex, 0, 0].iter().flat_map(|word| word.to_ne_bytes()).collect();
        let options = TestRunOptions {
            data_in: Some(&frame),
            ctx_in: Some(&context),
            repeat: i32::MAX as u32,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::new()
        };
        match flood.test_run(options) {
            Ok(_) => bail!("the generator came to its end"),
            Err(ProgramError::SyscallError(error)) if error.io_error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error).context("sending live frames"),
        }
    }
}

/// The bench's own object, whose programs are not loaded yet.
///
/// # Errors
/// When it cannot be read, or its maps not be made.
pub fn load(built: &Built) -> Result<Ebpf> {
    Ebpf::load_file(&built.flood_object).with_context(|| format!("loading {}", built.flood_object.display()))
}

/// Attaches one of its programs to the namespace's interface, native.
///
/// # Errors
/// When the kernel refuses.
pub fn attach(ebpf: &mut Ebpf, name: &str, netns: &Netns) -> Result<()> {
    let program = program(ebpf, name)?;
    program.load().with_context(|| format!("loading the program {name}"))?;
    let mut attach = || program.attach(INTERFACE, XdpMode::Driver).map(drop);
    netns.enter(|| attach().with_context(|| format!("attaching {name} in {}", netns.name())))
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    Ok(ebpf.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?)
}
