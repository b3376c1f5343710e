//! Two nodes of one make with many virtual routers, and a client that hears all their adverts.
//!
//! The switch's ports hand frames on in threads of their own, as another machine would: what the network, the receiving
//! kernel and the client cost is on no daemon's account. Deliberately absent: what is measured.

use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{Setting, cost};
use crate::keepalived::Keepalived;
use crate::lab::{INTERFACE, INTERFACE_2, Lab};
use crate::netns::run;
use crate::node::{Node, System};
use crate::requirements::Built;
use crate::tape::{self, Tape};
use crate::wait;

/// VRIDs of one network: RFC 9568 5.2.3.
const VRIDS: usize = 255;
/// edge-a's priority and edge-b's.
pub(super) const PRIORITIES: [u8; 2] = [150, 100];
/// EtherType of IPv4.
const IPV4: u16 = 0x0800;
/// Roles last for this long before anything is measured.
const SETTLED: Duration = Duration::from_millis(500);

/// See the module. edge-a is Active.
pub(super) struct Pair {
    // Dropped in this order: nodes before their namespaces.
    pub(super) a: Node,
    pub(super) b: Node,
    pub(super) hearing: Hearing,
    pub(super) setting: Setting,
    pub(super) lab: Lab,
}

/// What the client hears of adverts, on all its interfaces.
pub(super) struct Hearing {
    tapes: Vec<Tape>,
    routers_per_network: usize,
}

/// One advert.
#[derive(Clone, Copy, Debug)]
pub(super) struct Advert {
    /// CLOCK_REALTIME nanoseconds.
    pub(super) at_ns: u64,
    /// The virtual router's place in the configuration.
    pub(super) router: usize,
    /// Whether edge-a sent it.
    pub(super) is_from_a: bool,
}

impl Pair {
    /// Starts both, and waits until edge-a alone has advertised every virtual router for a while.
    pub(super) fn start(built: &Built, system: System, setting: Setting) -> Result<Self> {
        let lab = Lab::new(built)?;
        if setting.networks() > 1 {
            lab.add_network()?;
        }
        thread_ports(&lab, setting.networks())?;
        cost::prefer_wire()?;
        let mut hearing = Hearing::open(&lab, setting)?;
        let a = start(&lab, system, setting, 0)?;
        hearing.await_all(setting, &mut |advert| advert.is_from_a).with_context(|| last_words(&a))?;
        let b = start(&lab, system, setting, 1)?;
        let mut pair = Self { a, b, hearing, setting, lab };
        pair.settle()?;
        Ok(pair)
    }

    /// Waits until edge-a alone has advertised every virtual router for a while.
    pub(super) fn settle(&mut self) -> Result<()> {
        let start = Instant::now();
        loop {
            let mut heard = vec![false; self.setting.routers];
            let mut alone = true;
            let until = Instant::now() + SETTLED.max(5 * self.setting.interval());
            while Instant::now() < until {
                self.hearing.drain(|advert| {
                    heard[advert.router] |= advert.is_from_a;
                    alone &= advert.is_from_a;
                })?;
                thread::sleep(Duration::from_millis(10));
            }
            if alone && heard.iter().all(|heard| *heard) && self.b.is_backup() {
                return Ok(());
            }
            ensure!(
                start.elapsed() < 2 * wait::PATIENCE,
                "edge-a does not serve alone\nedge-a:\n{}\nedge-b:\n{}",
                last_words(&self.a),
                last_words(&self.b)
            );
        }
    }
}

impl Setting {
    /// How many networks it takes.
    pub(super) fn networks(self) -> usize {
        if self.routers > VRIDS { 2 } else { 1 }
    }

    pub(super) fn interval(self) -> Duration {
        Duration::from_millis(u64::from(self.interval_ms))
    }

    fn routers_per_network(self) -> usize {
        self.routers.div_ceil(self.networks())
    }

    /// Interface and VRID of a virtual router.
    fn place(self, router: usize) -> (&'static str, u8) {
        let network = router / self.routers_per_network();
        ([INTERFACE, INTERFACE_2][network], (router % self.routers_per_network()) as u8 + 1)
    }

    /// A virtual router's addresses: those of the whole setting are shared evenly.
    pub(super) fn addresses(self, router: usize) -> impl Iterator<Item = Ipv4Addr> {
        let share = |router: usize| router * self.addresses / self.routers;
        (0..share(router + 1) - share(router)).map(move |number| Ipv4Addr::new(10, 64, router as u8, 1 + number as u8))
    }

    /// The virtual router of an address.
    pub(super) fn router_of(self, address: [u8; 4]) -> Option<usize> {
        let [10, 64, router, _] = address else { return None };
        Some(usize::from(router)).filter(|router| *router < self.routers)
    }

    fn ours(self, edge: usize) -> String {
        let router = |router: usize| {
            let (interface, vrid) = self.place(router);
            let addresses: Vec<_> = self.addresses(router).map(|address| format!("\"{address}/32\"")).collect();
            format!(
                "[[virtual_router]]\nname = \"r{router}\"\ninterface = \"{interface}\"\nvrid = {vrid}\npriority = {}\n\
                 advert_interval = \"{}ms\"\naddresses = [{}]\n\n",
                PRIORITIES[edge],
                self.interval_ms,
                addresses.join(", ")
            )
        };
        (0..self.routers).map(router).collect()
    }

    fn keepalived(self, edge: usize) -> String {
        let instance = |router: usize| {
            let (interface, vrid) = self.place(router);
            let addresses: String = self.addresses(router).map(|address| format!("    {address}/32\n")).collect();
            format!(
                "vrrp_instance r{router} {{\n  interface {interface}\n  virtual_router_id {vrid}\n  state BACKUP\n  \
                 priority {}\n  advert_int {}\n  virtual_ipaddress {{\n{addresses}  }}\n}}\n",
                PRIORITIES[edge],
                f64::from(self.interval_ms) / 1e3
            )
        };
        let instances: String = (0..self.routers).map(instance).collect();
        format!("global_defs {{\n  vrrp_version 3\n}}\n{instances}")
    }
}

/// Starts a daemon of either make.
fn start(lab: &Lab, system: System, setting: Setting, edge: usize) -> Result<Node> {
    let name = ["edge-a", "edge-b"][edge];
    if system == System::Keepalived {
        let (netns, text) = (lab.station(name)?, setting.keepalived(edge));
        return Ok(Node::Keepalived(Keepalived::start_with(netns, lab.directory(), &text)?));
    }
    let mut daemon = lab.daemon_with(name, &setting.ours(edge))?;
    daemon.start_and_wait()?;
    Ok(Node::Ours(Box::new(daemon)))
}

/// Changes of role so far, of all its virtual routers.
pub(super) fn role_changes(node: &Node) -> Result<u64> {
    Ok(match node {
        Node::Ours(daemon) => {
            let status = daemon.status()?;
            let routers = status["virtual_routers"].as_array().context("a status without virtual routers")?;
            routers.iter().filter_map(|router| router["transitions"].as_u64()).sum()
        }
        Node::Keepalived(keepalived) => keepalived.log().matches(" STATE").count() as u64,
    })
}

/// Bytes of its pinned maps, as the kernel accounts them; none of keepalived.
pub(super) fn maps_bytes(node: &Node) -> Result<u64> {
    let Node::Ours(daemon) = node else { return Ok(0) };
    let mut total = 0;
    for entry in std::fs::read_dir(daemon.pin_path())? {
        let path = entry?.path();
        let shown = run("bpftool", &["-j", "map", "show", "pinned", path.to_str().context("a path")?]);
        let Ok(text) = shown else { continue };
        let json: serde_json::Value = serde_json::from_str(&text)?;
        total += json["bytes_memlock"].as_u64().unwrap_or_default();
    }
    Ok(total)
}

/// The end of its log.
pub(super) fn last_words(node: &Node) -> String {
    let log = node.log();
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}

impl Hearing {
    fn open(lab: &Lab, setting: Setting) -> Result<Self> {
        let client = lab.station("client")?;
        let open = |interface: &&str| Tape::open(client, interface, IPV4, &tape::adverts());
        let tapes = [INTERFACE, INTERFACE_2][..setting.networks()].iter().map(open).collect::<Result<_>>()?;
        Ok(Self { tapes, routers_per_network: setting.routers_per_network() })
    }

    /// All adverts since the last time.
    pub(super) fn drain(&mut self, mut each: impl FnMut(Advert)) -> Result<()> {
        for (network, tape) in self.tapes.iter_mut().enumerate() {
            let first = network * self.routers_per_network;
            tape.drain(|at_ns, frame| each(Advert::read(at_ns, frame, first)))?;
        }
        Ok(())
    }

    /// How many adverts it missed since it was last asked.
    pub(super) fn missed(&self) -> Result<u32> {
        Ok(self.tapes.iter().map(Tape::missed).sum::<std::io::Result<u32>>()?)
    }

    fn await_all(&mut self, setting: Setting, wanted: &mut dyn FnMut(Advert) -> bool) -> Result<()> {
        let mut heard = vec![false; setting.routers];
        let start = Instant::now();
        while !heard.iter().all(|heard| *heard) {
            ensure!(start.elapsed() < 2 * wait::PATIENCE, "not every virtual router was advertised");
            self.drain(|advert| heard[advert.router] |= wanted(advert))?;
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Advert {
    /// RFC 9568 5.1 and 5.2, of a frame that is one; `first` is the router of that network's VRID 1.
    fn read(at_ns: u64, frame: &[u8], first: usize) -> Self {
        let byte = |at: usize| frame.get(at).copied().unwrap_or_default();
        let vrrp = 14 + 4 * usize::from(byte(14) & 15);
        let router = first + usize::from(byte(vrrp + 1)).saturating_sub(1);
        Self { at_ns, router, is_from_a: byte(29) == 1 }
    }
}

/// Has the ports of the switch hand frames on in threads of their own, named `napi/...`.
fn thread_ports(lab: &Lab, networks: usize) -> Result<()> {
    for port in ["edge-a", "edge-b", "client", "edge-a-1", "edge-b-1", "client-1"].iter().take(3 * networks) {
        let file = format!("echo 1 > /sys/class/net/{port}/threaded");
        // In a mount namespace of its own, where /sys is the switch's.
        run("ip", &["netns", "exec", lab.switch().name(), "sh", "-c", &file])?;
    }
    Ok(())
}
