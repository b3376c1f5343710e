//! A node and a client at the two ends of one veth pair; who answers on the node is one of the sides.
//!
//! ```text
//!   client 192.0.2.100                     node 192.0.2.5, virtual address 192.0.2.10
//!   generator, last core --+
//!                          +-- eth0 === eth0 --- responder, core 0
//!   counter, core 1 -------+
//! ```
//!
//! Each end receives in a kernel thread of its own (threaded NAPI), which is bound to a core. Otherwise a veth's frames
//! are received on the core that sent them. Deliberately absent: a switch.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{env, fs, process};

use anyhow::{Context, Result, ensure};
use aya::Ebpf;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use super::client::{Client, attach, load};
use super::frames::Flood;
use crate::daemon::Daemon;
use crate::faults::floods::advert;
use crate::fixtures::{CLIENT_MAC, NODE_MAC};
use crate::hogs::{Class, cores, pin_thread, schedule};
use crate::lab::{INTERFACE, VIP};
use crate::netns::{Netns, finish, run};
use crate::requirements::Built;
use crate::wait;

/// The node's core.
pub const NODE_CORE: usize = 0;

/// Who answers on the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Side {
    /// failover's XDP program, native.
    Failover,
    /// The kernel; no XDP program on the node.
    Kernel,
    /// The kernel, behind an XDP program that passes everything: what XDP alone costs on a veth.
    KernelBehindXdp,
    /// An XDP program that swaps addresses and sends back: what is left for one that thinks.
    Reflector,
}

impl Side {
    /// All.
    pub const ALL: [Self; 4] = [Self::Failover, Self::Kernel, Self::KernelBehindXdp, Self::Reflector];

    /// Its name in tables.
    pub fn title(self) -> &'static str {
        match self {
            Self::Failover => "failover",
            Self::Kernel => "kernel",
            Self::KernelBehindXdp => "kernel behind an empty XDP program",
            Self::Reflector => "XDP, addresses swapped",
        }
    }
}

/// See the module.
pub struct Pair {
    // Dropped in this order: what runs in the namespaces before they go.
    daemon: Option<Daemon>,
    _reflector: Option<Ebpf>,
    /// The client.
    pub client: Client,
    /// The node's namespace.
    pub node: Netns,
    /// Who answers.
    pub side: Side,
    responder: Pid,
    directory: PathBuf,
}

impl Pair {
    /// Sets it up, until the node answers both kinds of floods.
    ///
    /// # Errors
    /// When something cannot be made, or the node does not answer.
    pub fn new(built: &Built, side: Side) -> Result<Self> {
        let name = format!("fo{}-{side:?}", process::id()).to_lowercase();
        let (node, netns) = (Netns::new(&format!("{name}-node"))?, Netns::new(&format!("{name}-client"))?);
        connect(&node, &netns)?;
        let client = Client::new(built, netns)?;
        let directory = env::temp_dir().join(&name);
        fs::create_dir_all(&directory)?;
        let (mut daemon, mut reflector) = (None, None);
        match side {
            Side::Failover => daemon = Some(take_over(built, &node, &client, &directory)?),
            Side::Kernel => {
                add_vip(&node)?;
                // Without XDP, a veth takes frames that are no socket buffers only with GRO (veth_xdp_xmit).
                finish(node.command("ethtool").args(["-K", INTERFACE, "gro", "on"]))?;
            }
            Side::KernelBehindXdp => {
                add_vip(&node)?;
                attach_pass(built, &node, &name)?;
            }
            Side::Reflector => attach(reflector.insert(load(built)?), "reflect", &node)?,
        }
        let responder = receive_on(&node, NODE_CORE)?;
        // Before the generator, in whose time slice the ring of answers would run over.
        schedule(Some(receive_on(&client.netns, 1.min(cores() - 1))?), Class::Fifo(1))?;
        let pair = Self { daemon, _reflector: reflector, client, node, side, responder, directory };
        Flood::ALL.into_iter().try_for_each(|flood| pair.await_answer(flood))?;
        Ok(pair)
    }

    fn await_answer(&self, flood: Flood) -> Result<()> {
        let (socket, question) = (self.client.socket(flood)?, &flood.questions()[0]);
        let before = self.client.answers(flood)?;
        let is_answered =
            || socket.send(question).is_ok() && self.client.answers(flood).is_ok_and(|answers| answers > before);
        wait::until(&format!("{} to answer {}", self.side.title(), flood.title()), is_answered)
            .with_context(|| self.daemon.as_ref().map(Daemon::log).unwrap_or_default())
    }

    /// How the thread that receives on the node is scheduled.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn schedule_responder(&self, class: Class) -> Result<()> {
        schedule(Some(self.responder), class)
    }

    /// How long the thread that receives on the node has had the CPU, in nanoseconds.
    ///
    /// # Errors
    /// When it is gone.
    pub fn responder_ns(&self) -> Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/schedstat", self.responder.as_raw_nonzero()))?;
        text.split(' ').next().and_then(|first| first.parse().ok()).context("no time in schedstat")
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// The cable between them.
fn connect(node: &Netns, client: &Netns) -> Result<()> {
    node.ip(&["link", "add", INTERFACE, "type", "veth", "peer", "name", INTERFACE, "netns", client.name()])?;
    let ends = [
        (node, NODE_MAC, "192.0.2.5/24", CLIENT_MAC, "192.0.2.100"),
        (client, CLIENT_MAC, "192.0.2.100/24", NODE_MAC, "192.0.2.5"),
    ];
    for (netns, mac, address, other_mac, other) in ends {
        netns.ip(&["link", "set", INTERFACE, "address", &text(mac)])?;
        // Frames on a wire have checksums, and none is longer than the MTU.
        finish(netns.command("ethtool").args(["-K", INTERFACE, "tx", "off", "tso", "off", "gso", "off"]))?;
        netns.ip(&["link", "set", INTERFACE, "up"])?;
        netns.ip(&["address", "add", address, "dev", INTERFACE])?;
        know(netns, other, other_mac)?;
    }
    know(client, &VIP.to_string(), NODE_MAC)
}

/// No question of their own disturbs what is measured.
fn know(netns: &Netns, address: &str, mac: [u8; 6]) -> Result<()> {
    let arguments = ["neighbour", "add", address, "lladdr", &text(mac), "dev", INTERFACE, "nud", "permanent"];
    netns.ip(&arguments).map(drop)
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// A controller that has taken the address over from another router, so that it resets what nobody here knows. Its own
/// interval is long, so that no flood makes its lease end.
fn take_over(built: &Built, node: &Netns, client: &Client, directory: &Path) -> Result<Daemon> {
    let router = format!(
        "[[virtual_router]]\nname = \"web\"\ninterface = \"{INTERFACE}\"\nvrid = 51\npriority = 150\n\
         advert_interval = \"1s\"\naddresses = [\"{VIP}/24\"]\n\
         [virtual_router.stale_connections]\naction = \"reset\"\nhold = \"0s\"\n"
    );
    let mut daemon = Daemon::new(built, node, directory, "resets_per_second = 100000000\n", &router)?;
    daemon.start_and_wait()?;
    client.socket(Flood::Stale)?.send(&advert(200, [192, 0, 2, 66]))?;
    wait::until("the other router to be heard", || daemon.counter("advert_valid").is_ok_and(|count| count > 0))?;
    wait::until("the node to take over", || daemon.state(0).is_ok_and(|state| state == "Active"))
        .with_context(|| daemon.log())?;
    Ok(daemon)
}

fn add_vip(node: &Netns) -> Result<()> {
    node.ip(&["address", "add", &format!("{VIP}/24"), "dev", INTERFACE]).map(drop)
}

fn attach_pass(built: &Built, node: &Netns, name: &str) -> Result<()> {
    let pin = format!("/sys/fs/bpf/{name}");
    let object = built.pass_object.to_str().context("a path that is no UTF-8")?;
    run("bpftool", &["prog", "load", object, &pin])?;
    let attached = finish(node.command("bpftool").args(["net", "attach", "xdpdrv", "pinned", &pin, "dev", INTERFACE]));
    // Attached, it lives as long as the interface.
    fs::remove_file(&pin)?;
    attached.map(drop)
}

/// Has the interface receive in a thread of its own, on that core. Returns the thread.
fn receive_on(netns: &Netns, core: usize) -> Result<Pid> {
    let before = receivers()?;
    // Unlike nsenter, this shows the namespace's own sysfs.
    let write = format!("echo 1 > /sys/class/net/{INTERFACE}/threaded");
    run("ip", &["netns", "exec", netns.name(), "sh", "-c", &write])?;
    let new: Vec<_> = receivers()?.difference(&before).copied().collect();
    ensure!(new.len() == 1, "{} receives in {} threads instead of one", netns.name(), new.len());
    let thread = Pid::from_raw(new[0]).context("a thread without an id")?;
    pin_thread(Some(thread), core)?;
    Ok(thread)
}

/// The threads of the machine that receive on interfaces of that name (`napi/eth0-8193`).
fn receivers() -> Result<BTreeSet<i32>> {
    let prefix = format!("napi/{INTERFACE}-");
    let ids = fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_one = |id: &i32| fs::read_to_string(format!("/proc/{id}/comm")).is_ok_and(|name| name.starts_with(&prefix));
    Ok(ids.filter(is_one).collect())
}
