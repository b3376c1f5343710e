//! The lab: nodes and a client in namespaces of their own, behind a bridge in another.
//!
//! ```text
//!   edge-a 192.0.2.1    edge-b 192.0.2.2    client 192.0.2.100
//!       eth0                eth0                 eth0
//!        |                   |                    |
//!     edge-a              edge-b               client        ports, each with a passing XDP program
//!        +------------- br0 (switch) -------------+
//! ```

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, process};

use anyhow::{Context, Result};
use socket2::{Domain, Socket, Type};

use crate::arp_probe::ArpProbe;
use crate::daemon::Daemon;
use crate::hogs::{Class, schedule};
use crate::netns::{Netns, finish, run};
use crate::requirements::Built;

/// The virtual address of every lab.
pub const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// The nodes' and the client's interface.
pub const INTERFACE: &str = "eth0";
/// Their second one, where a lab has two networks.
pub const INTERFACE_2: &str = "eth1";

/// SCHED_FIFO, of who pulls cables: above the nodes'.
const PULL_PRIORITY: u8 = 90;
/// The client's name.
const CLIENT: &str = "client";

/// See the module. Everything is gone when it is dropped, unless kept.
#[derive(Debug)]
pub struct Lab {
    // Declared first, so dropped first: a station's interface goes with its namespace.
    stations: Vec<Netns>,
    switch: Netns,
    prefix: String,
    directory: PathBuf,
    built: Built,
    keep: bool,
}

impl Lab {
    /// A lab with two nodes and a client, with names nobody else has.
    ///
    /// # Errors
    /// When something cannot be made; what was made is gone then.
    pub fn new(built: &Built) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self::named(built, &format!("fo{}-{number}-", process::id()))
    }

    /// A lab whose namespaces start with `prefix`.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn named(built: &Built, prefix: &str) -> Result<Self> {
        let switch = Netns::new(&format!("{prefix}switch"))?;
        let directory = env::temp_dir().join(prefix.trim_end_matches('-'));
        fs::create_dir_all(&directory)?;
        let mut lab =
            Self { stations: Vec::new(), switch, prefix: prefix.into(), directory, built: built.clone(), keep: false };
        // Snooping would need a querier; the adverts' group is flooded instead.
        lab.switch.ip(&["link", "add", "br0", "type", "bridge", "mcast_snooping", "0"])?;
        lab.switch.ip(&["link", "set", "br0", "up"])?;
        for (name, address) in [("edge-a", "192.0.2.1/24"), ("edge-b", "192.0.2.2/24"), ("client", "192.0.2.100/24")] {
            lab.add_station(name, address)?;
        }
        Ok(lab)
    }

    /// One station more, on a port of the same name.
    ///
    /// # Errors
    /// When one of the commands fails.
    pub fn add_station(&mut self, name: &str, address: &str) -> Result<()> {
        self.stations.push(Netns::new(&format!("{}{name}", self.prefix))?);
        self.connect(name)?;
        self.station(name)?.ip(&["address", "add", address, "dev", INTERFACE]).map(drop)
    }

    /// A lab that [`Self::named`] made and somebody kept.
    pub fn existing(built: &Built, prefix: &str) -> Self {
        let stations = ["edge-a", "edge-b", "client"].map(|name| Netns::existing(&format!("{prefix}{name}")));
        Self {
            stations: stations.into(),
            switch: Netns::existing(&format!("{prefix}switch")),
            prefix: prefix.into(),
            directory: env::temp_dir().join(prefix.trim_end_matches('-')),
            built: built.clone(),
            keep: true,
        }
    }

    /// Leaves everything behind on drop.
    pub fn keep(&mut self) {
        self.keep = true;
        self.switch.keep();
        self.stations.iter_mut().for_each(Netns::keep);
    }

    /// Deletes a lab that was kept.
    ///
    /// # Errors
    /// When a namespace cannot be deleted.
    pub fn delete(&self) -> Result<()> {
        for netns in self.stations.iter().chain([&self.switch]) {
            run("ip", &["netns", "del", netns.name()])?;
        }
        Ok(fs::remove_dir_all(&self.directory)?)
    }

    /// Gives a station its interface and its port on the switch.
    ///
    /// # Errors
    /// When one of the commands fails.
    pub fn connect(&self, name: &str) -> Result<()> {
        self.plug(name, INTERFACE, name, "br0")
    }

    /// A second network for nodes and client: `eth1` on a switch of its own, whose ports are named `edge-a-1` and so on.
    ///
    /// # Errors
    /// When one of the commands fails.
    pub fn add_network(&self) -> Result<()> {
        self.switch.ip(&["link", "add", "br1", "type", "bridge", "mcast_snooping", "0"])?;
        self.switch.ip(&["link", "set", "br1", "up"])?;
        for (name, address) in
            [("edge-a", "198.51.100.1/24"), ("edge-b", "198.51.100.2/24"), (CLIENT, "198.51.100.100/24")]
        {
            self.plug(name, INTERFACE_2, &format!("{name}-1"), "br1")?;
            self.station(name)?.ip(&["address", "add", address, "dev", INTERFACE_2])?;
        }
        Ok(())
    }

    fn plug(&self, name: &str, interface: &str, port: &str, bridge: &str) -> Result<()> {
        let station = self.station(name)?;
        station.ip(&["link", "add", interface, "type", "veth", "peer", "name", port, "netns", self.switch.name()])?;
        self.switch.ip(&["link", "set", port, "master", bridge])?;
        self.attach_pass(port)?;
        self.switch.ip(&["link", "set", port, "up"])?;
        // A veth leaves checksums to be filled in by nobody; frames on a wire have them. The nodes' are judged, so they
        // are whole; the client's stay as a guest of the same host sends them.
        if name != CLIENT {
            finish(station.command("ethtool").args(["-K", interface, "tx", "off"]))?;
        }
        station.ip(&["link", "set", interface, "up"])?;
        Ok(())
    }

    /// A veth takes what its peer sends by XDP_TX only while it runs a program itself.
    fn attach_pass(&self, port: &str) -> Result<()> {
        let pin = format!("/sys/fs/bpf/{}pass", self.prefix);
        let object = self.built.pass_object.to_str().context("a path that is no UTF-8")?;
        run("bpftool", &["prog", "load", object, &pin])?;
        let mut attach = self.switch.command("bpftool");
        let attached = finish(attach.args(["net", "attach", "xdpdrv", "pinned", &pin, "dev", port]));
        // Attached, it lives as long as the port.
        fs::remove_file(&pin)?;
        attached.map(drop)
    }

    /// The namespace of `edge-a`, `edge-b` or `client`.
    ///
    /// # Errors
    /// When there is no such station.
    pub fn station(&self, name: &str) -> Result<&Netns> {
        let full = format!("{}{name}", self.prefix);
        self.stations.iter().find(|netns| netns.name() == full).with_context(|| format!("no station {name}"))
    }

    /// The namespace of the switch, whose ports are named after the stations.
    pub fn switch(&self) -> &Netns {
        &self.switch
    }

    /// What a port of the switch says of itself, by `ip`'s names.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn port(&self, name: &str) -> Result<serde_json::Value> {
        let text = self.switch.ip(&["-json", "-details", "-statistics", "link", "show", name])?;
        let mut json: serde_json::Value = serde_json::from_str(&text)?;
        Ok(json[0].take())
    }

    /// Pulls a station's cable, or plugs it in again: its interface loses and regains carrier.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn set_cable(&self, name: &str, plugged: bool) -> Result<()> {
        self.switch.ip(&["link", "set", name, if plugged { "up" } else { "down" }]).map(drop)
    }

    /// Pulls a station's cable at once: without a process to start, and before everything else that wants the CPU, so that
    /// the kernel's lock on all links (RTNL), which real machines do not share, is free again when a node needs it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn pull_cable(&self, name: &str) -> Result<()> {
        self.switch.enter(|| {
            schedule(None, Class::Fifo(PULL_PRIORITY))?;
            shut(name).with_context(|| format!("shutting the port {name}"))
        })
    }

    /// Takes a station's port out of the switch, or puts it back: carrier stays, frames do not pass.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn set_forwarding(&self, name: &str, forwarding: bool) -> Result<()> {
        let arguments: &[&str] =
            if forwarding { &["link", "set", name, "master", "br0"] } else { &["link", "set", name, "nomaster"] };
        self.switch.ip(arguments).map(drop)
    }

    /// A station's hardware address.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn mac(&self, name: &str) -> Result<[u8; 6]> {
        let text = self.station(name)?.ip(&["-json", "link", "show", INTERFACE])?;
        let json: serde_json::Value = serde_json::from_str(&text)?;
        let mac = json[0]["address"].as_str().context("no address")?;
        let bytes: Vec<u8> = mac.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>()?;
        bytes.try_into().ok().context("no hardware address")
    }

    /// A controller on a node, not started. `more` goes into its one virtual router.
    ///
    /// # Errors
    /// When its configuration cannot be written.
    pub fn daemon(&self, name: &str, priority: u8, advert_interval: &str, more: &str) -> Result<Daemon> {
        self.daemon_with(name, &virtual_router(priority, advert_interval, more))
    }

    /// A controller on a node with these virtual routers, not started.
    ///
    /// # Errors
    /// When its configuration cannot be written.
    pub fn daemon_with(&self, name: &str, routers: &str) -> Result<Daemon> {
        Daemon::new(&self.built, self.station(name)?, &self.directory, "", routers)
    }

    /// A controller on `edge-a` or `edge-b` that resets stale connections and replicates its own to the other one, not
    /// started. `data_plane` are lines for that section.
    ///
    /// # Errors
    /// When its configuration cannot be written.
    pub fn replicating_daemon(&self, name: &str, priority: u8, data_plane: &str) -> Result<Daemon> {
        let (own, peer) = if name == "edge-a" { ("192.0.2.1", "192.0.2.2") } else { ("192.0.2.2", "192.0.2.1") };
        let key_file = self.directory.join("replication.key");
        let mut file = File::options().create(true).write(true).truncate(true).mode(0o600).open(&key_file)?;
        file.write_all(b"a key for the lab, of enough bytes\n")?;
        let router = virtual_router(priority, "100ms", "[virtual_router.stale_connections]\naction = \"reset\"");
        let text = format!(
            "[replication]\nlisten = \"{own}:7700\"\npeers = [\"{peer}:7700\"]\nkey_file = \"{}\"\n\n{router}",
            key_file.display()
        );
        Daemon::new(&self.built, self.station(name)?, &self.directory, data_plane, &text)
    }

    /// The client's question for the virtual address, asked from now on.
    ///
    /// # Errors
    /// When its socket cannot be opened.
    pub fn arp_probe(&self) -> Result<ArpProbe> {
        ArpProbe::start(self.station("client")?, INTERFACE, self.mac("client")?, VIP)
    }

    /// Where this lab's files are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

/// The one virtual router of most labs.
fn virtual_router(priority: u8, advert_interval: &str, more: &str) -> String {
    format!(
        "[[virtual_router]]\nname = \"web\"\ninterface = \"{INTERFACE}\"\nvrid = 51\npriority = {priority}\n\
         advert_interval = \"{advert_interval}\"\naddresses = [\"{VIP}/24\"]\n{more}\n"
    )
}

/// Clears IFF_UP, netdevice(7).
fn shut(interface: &str) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    // SAFETY: an `ifreq` of zeros is a valid one.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(interface.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = from as libc::c_char;
    }
    // SAFETY: the pointer is to a live `ifreq` with a name that ends in zero.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call before filled in the flags.
    unsafe { request.ifr_ifru.ifru_flags &= !(libc::IFF_UP as libc::c_short) };
    // SAFETY: as before.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !self.keep {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}
