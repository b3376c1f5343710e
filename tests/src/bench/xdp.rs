//! Nanoseconds per frame: the loaded program by BPF_PROG_TEST_RUN, on every way through it.
//!
//! The frame is made anew for each run, by a program that goes on to the one that is measured; the same with a program
//! that only passes is what there is to subtract. Deliberately absent: a network card, and a cold cache.

mod harness;
mod paths;
mod section;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process;

use anyhow::{Context, Result, bail, ensure};
use failover_common::abi::{ADDRESSES_PER_ROUTER_MAX, Settings, StaleAction, Takeover, vip_filter};
use failover_common::address::Address;
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};

use self::harness::Harness;
use self::paths::Path;
use super::Effort;
use super::stats::Summary;
use crate::fixtures::{CLIENT, VIP, version_3};
use crate::hogs;
use crate::netns::Netns;
use crate::requirements::Built;
use crate::testrun::{LOOPBACK, Options, TestRun, Verdict, now_ns};
use failover_sim::segment::{ACK, Segment};

pub use self::section::{bars, plots, section};

/// Virtual addresses, and the virtual routers that they belong to.
const SCALES: [(u32, u32); 3] = [(1, 1), (100, 5), (4096, 256)];
/// The most of the second.
const ROUTERS_MAX: u32 = 256;
const ROUNDS: u32 = 30;
/// Runs for one sample.
const REPEAT: u32 = 200_000;

/// Raw results.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    /// Runs for one sample.
    pub repeat: u32,
    /// The ways through the program.
    pub series: Vec<Series>,
    /// What the kernel takes for what the program asks of it.
    pub prices: Vec<Price>,
}

/// One way, with so many addresses.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Series {
    /// Which.
    pub path: Path,
    /// Virtual addresses.
    pub addresses: u32,
    /// Virtual routers.
    pub routers: u32,
    /// What was measured.
    pub samples: Samples,
}

/// One thing that the kernel is asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Price {
    /// The bench's program that asks for it.
    pub program: String,
    /// What was measured.
    pub samples: Samples,
}

/// Nanoseconds per run, the frame's restoration included: of a program and, each just before it, of the empty one.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Samples {
    /// With the program.
    pub program_ns: Vec<f64>,
    /// With the empty one.
    pub empty_ns: Vec<f64>,
}

impl Samples {
    /// What the program costs: the difference of the medians.
    fn cost_ns(&self) -> Option<f64> {
        Some(Summary::of(&self.program_ns)?.p50 - Summary::of(&self.empty_ns)?.p50)
    }

    /// Each sample's difference from the one before it.
    fn differences_ns(&self) -> Vec<f64> {
        self.program_ns.iter().zip(&self.empty_ns).map(|(program, empty)| program - empty).collect()
    }
}

/// Measures.
///
/// # Errors
/// When something cannot be loaded, or a frame went another way than it was meant to.
pub fn measure(built: &Built, effort: Effort) -> Result<Results> {
    let (rounds, repeat) = match effort {
        Effort::Quick => (1, 2_000),
        Effort::Full { rounds } => (rounds.unwrap_or(ROUNDS), REPEAT),
    };
    let netns = Netns::new(&format!("bench-xdp-{}", process::id()))?;
    for address in [VIP, CLIENT] {
        let [a, b, c, d] = address;
        netns.ip(&["addr", "add", &format!("{a}.{b}.{c}.{d}/32"), "dev", "lo"])?;
    }
    // The program looks sockets up in the namespace of the thread that runs it.
    netns.enter(|| {
        hogs::pin(hogs::cores() - 1)?;
        let connection = Connection::make()?;
        let mut results = Results { repeat, series: all_series(), prices: all_prices() };
        for _ in 0..rounds {
            round(built, &connection, &mut results)?;
        }
        for Series { path, addresses, samples, .. } in &results.series {
            println!("xdp: {}, {addresses} addresses: {:.1} ns", path.name(), samples.cost_ns().unwrap_or(f64::NAN));
        }
        for Price { program, samples } in &results.prices {
            println!("xdp: the kernel's {program}: {:.1} ns", samples.cost_ns().unwrap_or(f64::NAN));
        }
        Ok(results)
    })
}

fn all_series() -> Vec<Series> {
    let of_scale =
        |(addresses, routers)| Path::ALL.map(|path| Series { path, addresses, routers, samples: Samples::default() });
    SCALES.into_iter().flat_map(of_scale).collect()
}

fn all_prices() -> Vec<Price> {
    let price = |program: &str| Price { program: program.into(), samples: Samples::default() };
    ["clock", "lookup", "socket"].map(price).into()
}

/// One sample of everything, each scale with programs and maps of its own: where the JIT compiler puts them and how the
/// hash tables spread their keys is another each time.
fn round(built: &Built, connection: &Connection, results: &mut Results) -> Result<()> {
    let repeat = results.repeat;
    let mut harness = Harness::load(&built.bench_frame_object)?;
    for (addresses, routers) in SCALES {
        let (mut alone, mut with_peers) = (node(addresses, routers, false)?, node(addresses, routers, true)?);
        let series = results.series.iter_mut().filter(|series| series.addresses == addresses);
        for Series { path, samples, .. } in series {
            let node = if path.has_peers() { &mut with_peers } else { &mut alone };
            let frame = path.frame(&connection.segment);
            path.prepare(node, &frame).with_context(|| format!("{addresses} addresses"))?;
            sample(&mut harness, node, *path, &frame, repeat, samples)?;
        }
    }
    harness.fill(&keys(4096), key(1234), connection.tuple())?;
    for Price { program, samples } in &mut results.prices {
        harness.lead_nowhere()?;
        samples.empty_ns.push(harness.run(repeat)?.ns);
        harness.lead_to_own(program)?;
        let ran = harness.run(repeat)?;
        ensure!(ran.verdict == Verdict::Pass, "{program}: {:?}", ran.verdict);
        samples.program_ns.push(ran.ns);
    }
    Ok(())
}

/// One sample of each of the two.
fn sample(
    harness: &mut Harness,
    node: &mut TestRun,
    path: Path,
    frame: &[u8],
    repeat: u32,
    samples: &mut Samples,
) -> Result<()> {
    harness.send(frame)?;
    harness.lead_nowhere()?;
    samples.empty_ns.push(harness.run(repeat)?.ns);
    harness.lead_to(node.xdp())?;
    let (expected, counters) = path.expected();
    let (_, answer) = node.run(LOOPBACK, frame);
    let before = node.counted();
    let ran = harness.run(repeat)?;
    let after = node.counted();
    ensure!((ran.verdict, &ran.frame) == (expected, &answer), "{}: the last frame went another way", path.name());
    for ((name, before), (_, after)) in before.into_iter().zip(after) {
        let times = if counters.contains(&name) { u64::from(repeat) } else { 0 };
        ensure!(after - before == times, "{}: {name} moved by {}, not {times}", path.name(), after - before);
    }
    ensure!(node.drain().is_empty(), "{}: the controller was told of it", path.name());
    samples.program_ns.push(ran.ns);
    Ok(())
}

/// A node that resets what is stale, with so many addresses, loaded as the product loads it; the first router has the
/// address that frames are sent to.
fn node(addresses: u32, routers: u32, has_peers: bool) -> Result<TestRun> {
    let mut left = addresses;
    let mut addresses: Vec<Vec<[u8; 4]>> = Vec::new();
    for index in 0..routers {
        let count = left.div_ceil(routers - index);
        ensure!(count as usize <= ADDRESSES_PER_ROUTER_MAX, "{count} addresses for one virtual router");
        left -= count;
        let address = |number| if index + number == 0 { VIP } else { [10, 0, index as u8, number as u8] };
        addresses.push((0..count).map(address).collect());
    }
    let filter = vip_filter(addresses.iter().flatten().map(|address| Address::from_ipv4(*address)));
    let options = Options { routers: ROUTERS_MAX, filter, has_peers, ..Options::default() };
    let mut node = TestRun::load(options).context("the XDP program could not be loaded")?;
    for (index, addresses) in (0..routers).zip(&addresses) {
        // 255 identifiers for 256 routers: two VLANs.
        let (vlan, vrid) = (index / 128, 51 + (index % 128) as u8);
        let settings = Settings { vlan, vrid, ..version_3() };
        node.configure(index, &settings, addresses);
    }
    node.edit(0, |entry| {
        entry.stale.action = StaleAction::Reset;
        entry.takeover = Takeover { at_ns: now_ns(), missed_before: 0 };
    });
    Ok(node)
}

/// A connection from the client's address to the first virtual address, port 80.
struct Connection {
    /// A segment of it, as the client could send it.
    segment: Segment,
    _ends: (TcpStream, TcpStream),
}

impl Connection {
    fn make() -> Result<Self> {
        let service = SocketAddr::from((VIP, 80));
        let listener = TcpListener::bind(service).with_context(|| format!("listening on {service}"))?;
        let client = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        client.bind(&SocketAddr::from((CLIENT, 0)).into())?;
        client.connect(&service.into()).context("connecting to the service")?;
        let (server, address) = listener.accept().context("accepting a connection")?;
        let SocketAddr::V4(address) = address else { bail!("a client of IPv6") };
        Ok(Self { segment: Segment::from_port(address.port(), ACK), _ends: (client.into(), server) })
    }

    /// `struct bpf_sock_tuple`: addresses and ports in network byte order.
    fn tuple(&self) -> [u32; 3] {
        let (from, to) = (self.segment.client, self.segment.server);
        let ports = u32::from(from.port().to_be()) | u32::from(to.port().to_be()) << 16;
        [u32::from_ne_bytes(from.ip().octets()), u32::from_ne_bytes(to.ip().octets()), ports]
    }
}

/// Different keys, as long as the product's of an address.
fn keys(count: u32) -> Vec<[u32; 6]> {
    (0..count).map(key).collect()
}

fn key(number: u32) -> [u32; 6] {
    [LOOPBACK, 0, 0, 0, 0xffff_0000, number]
}
