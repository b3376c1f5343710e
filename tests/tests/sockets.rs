//! Ring 4: the sockets on the virtual addresses, listed and reset. `ss` says what there is.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use failover_common::abi::FlowKey;
use failover_tests::netns::{Netns, finish};
use failover_tests::requirements::require;
use failover_tests::wait;
use failover_userspace::flows::sockets::{Destroyed, destroy, list};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use socket2::{Domain, Socket, Type};

const VIPS: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 10), Ipv4Addr::new(192, 0, 2, 11)];
/// An address of the same host that is no virtual one.
const OTHER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const BUDGET: Duration = Duration::from_secs(10);
/// What `list` is to find, as `ss` names it.
const STATES: [&str; 6] = ["established", "fin-wait-1", "fin-wait-2", "close-wait", "last-ack", "closing"];

/// One namespace with all addresses on its loopback: both ends of each connection are in it.
fn host(test: &str) -> Result<Option<Netns>> {
    if require(test, &["ip", "ss"]).is_none() {
        return Ok(None);
    }
    let netns = Netns::new(&format!("fo{}-sockets", std::process::id()))?;
    for address in [VIPS[0], VIPS[1], OTHER] {
        netns.ip(&["address", "add", &format!("{address}/32"), "dev", "lo"])?;
    }
    Ok(Some(netns))
}

/// A listener for both families, and one for IPv4 only.
fn listeners() -> Result<[TcpListener; 2]> {
    let dual = Socket::new(Domain::IPV6, Type::STREAM, None)?;
    dual.set_only_v6(false)?;
    dual.set_reuse_address(true)?;
    dual.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, 8006)).into())?;
    let plain = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    plain.set_reuse_address(true)?;
    plain.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8004)).into())?;
    for socket in [&dual, &plain] {
        socket.listen(4096)?;
    }
    Ok([dual.into(), plain.into()])
}

/// Both ends of an established connection.
struct Connection {
    client: TcpStream,
    server: TcpStream,
}

/// Connects from 127.0.0.1.
fn dial(to: SocketAddrV4) -> Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0).into())?;
    socket.connect(&to.into()).context("connecting")?;
    let client = TcpStream::from(socket);
    client.set_read_timeout(Some(BUDGET))?;
    Ok(client)
}

/// Connects through a listener, both ends.
fn connect(listener: &TcpListener, to: Ipv4Addr) -> Result<Connection> {
    let client = dial(SocketAddrV4::new(to, listener.local_addr()?.port()))?;
    Ok(Connection { client, server: listener.accept()?.0 })
}

/// What reading from a connection says, when it says something.
fn read_error(stream: &mut TcpStream) -> Option<ErrorKind> {
    stream.read(&mut [0; 16]).err().map(|error| error.kind())
}

/// The flows as `ss` prints ends: `local:port remote:port`.
fn named(flows: &[FlowKey]) -> BTreeSet<String> {
    let name = |flow: &FlowKey| {
        format!("{}:{} {}:{}", flow.local.to_ip(), flow.local_port, flow.remote.to_ip(), flow.remote_port)
    };
    flows.iter().map(name).collect()
}

/// What `ss` says of these addresses, v4-mapped ones without their brackets.
fn by_ss(netns: &Netns, addresses: &[Ipv4Addr]) -> Result<BTreeSet<String>> {
    let mut command = netns.command("ss");
    command.arg("-tnH");
    for state in STATES {
        command.args(["state", state]);
    }
    let text = finish(&mut command)?.replace("[::ffff:", "").replace(']', "");
    let mut lines = BTreeSet::new();
    for line in text.lines() {
        let [local, remote] = line.split_whitespace().filter(|word| word.contains(':')).collect::<Vec<_>>()[..] else {
            anyhow::bail!("what is this: {line}");
        };
        if addresses.iter().any(|address| local.starts_with(&format!("{address}:"))) {
            lines.insert(format!("{local} {remote}"));
        }
    }
    Ok(lines)
}

/// Runs without CAP_NET_ADMIN what runs on a thread of its own anyway.
fn without_net_admin<T>(run: impl FnOnce() -> Result<T>) -> Result<T> {
    let mut sets = capabilities(None)?;
    sets.effective.remove(CapabilitySet::NET_ADMIN);
    set_capabilities(None, sets)?;
    run()
}

#[test]
fn the_list_is_what_ss_says() -> Result<()> {
    let Some(netns) = host("list")? else { return Ok(()) };
    netns.enter(|| {
        ensure!(list(&VIPS)?.is_empty(), "somebody is here already");
        let [dual, plain] = listeners()?;
        let mut connections = Vec::new();
        for address in [VIPS[0], VIPS[1], OTHER] {
            for listener in [&dual, &plain, &dual] {
                connections.push(connect(listener, address)?);
            }
        }
        // FIN_WAIT2 on the server's side, CLOSE_WAIT on the other's, and the reverse.
        connections[0].server.shutdown(std::net::Shutdown::Write)?;
        connections[1].client.shutdown(std::net::Shutdown::Write)?;
        // Connections that nobody accepted yet count, too.
        let waiting = TcpStream::connect((VIPS[0], 8006))?;

        let (found, expected) = (named(&list(&VIPS)?), by_ss(&netns, &VIPS)?);
        ensure!(found == expected, "found {found:?}, ss says {expected:?}");
        // 3 of each address, and the one nobody accepted; its own end is on the address as well.
        ensure!(found.len() == 8, "{found:?}");
        let (found, expected) = (named(&list(&[OTHER])?), by_ss(&netns, &[OTHER])?);
        ensure!(found == expected && found.len() == 3, "found {found:?}, ss says {expected:?}");
        ensure!(list(&[])?.is_empty() && list(&[Ipv4Addr::UNSPECIFIED])?.is_empty(), "nobody's sockets");
        drop(waiting);
        Ok(())
    })
}

#[test]
fn destroying_resets_the_clients_and_spares_the_rest() -> Result<()> {
    let Some(netns) = host("destroy")? else { return Ok(()) };
    netns.enter(|| {
        let [dual, plain] = listeners()?;
        let mut doomed = Vec::new();
        // More than one batch.
        for round in 0..50 {
            for listener in [&dual, &plain] {
                doomed.push(connect(listener, VIPS[round % 2])?);
            }
        }
        let mut spared = [connect(&dual, OTHER)?, connect(&plain, OTHER)?];
        let done = destroy(&VIPS, |_| true, BUDGET)?;
        ensure!(done == Destroyed::Done { count: 100, left: Some(0) }, "{done:?}");
        for connection in &mut doomed {
            let errors = (read_error(&mut connection.client), read_error(&mut connection.server));
            ensure!(errors == (Some(ErrorKind::ConnectionReset), Some(ErrorKind::ConnectionAborted)), "{errors:?}");
        }
        ensure!(by_ss(&netns, &VIPS)?.is_empty(), "ss still sees some");
        for connection in &mut spared {
            std::io::Write::write_all(&mut connection.server, b"alive")?;
            let mut buffer = [0; 5];
            connection.client.read_exact(&mut buffer)?;
            ensure!(&buffer == b"alive");
        }
        // The listeners live on.
        connect(&dual, VIPS[0])?;
        connect(&plain, VIPS[1])?;
        Ok(())
    })
}

#[test]
fn nothing_to_destroy_is_no_error() -> Result<()> {
    let Some(netns) = host("nothing to destroy")? else { return Ok(()) };
    netns.enter(|| {
        let listeners = listeners()?;
        ensure!(destroy(&VIPS, |_| true, BUDGET)? == Destroyed::Done { count: 0, left: Some(0) });
        connect(&listeners[0], VIPS[0]).map(drop)
    })
}

#[test]
fn half_made_connections_are_forgotten() -> Result<()> {
    const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
    let Some(netns) = host("half-made connections")? else { return Ok(()) };
    let far = Netns::new(&format!("fo{}-far", std::process::id()))?;
    netns.ip(&["link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", far.name()])?;
    for (end, own, other) in [(&netns, VIPS[0], CLIENT), (&far, CLIENT, VIPS[0])] {
        end.ip(&["link", "set", "eth0", "up"])?;
        end.ip(&["address", "add", &own.to_string(), "peer", &other.to_string(), "dev", "eth0"])?;
    }
    // The SYN-ACKs go to somebody else.
    netns.ip(&["neighbor", "add", &CLIENT.to_string(), "lladdr", "02:00:00:00:00:99", "dev", "eth0"])?;
    let listeners = netns.enter(listeners)?;
    let _clients = far.enter(|| {
        let mut clients = Vec::new();
        for listener in &listeners {
            let client = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            client.set_nonblocking(true)?;
            let _ = client.connect(&SocketAddrV4::new(VIPS[0], listener.local_addr()?.port()).into());
            clients.push(client);
        }
        Ok(clients)
    })?;
    netns.enter(|| {
        let half_made = || finish(netns.command("ss").args(["-tnH", "state", "syn-recv"]));
        wait::until("both SYNs", || half_made().is_ok_and(|text| text.lines().count() == 2))?;
        ensure!(list(&VIPS)?.is_empty(), "they are not established");
        let done = destroy(&VIPS, |_| true, BUDGET)?;
        ensure!(matches!(done, Destroyed::Done { count: 2.., left: Some(0) }), "{done:?}");
        Ok(())
    })
}

#[test]
fn without_time_nothing_is_destroyed_and_that_is_told() -> Result<()> {
    let Some(netns) = host("no time")? else { return Ok(()) };
    netns.enter(|| {
        let [dual, _] = listeners()?;
        let _connection = connect(&dual, VIPS[0])?;
        ensure!(destroy(&VIPS, |_| true, Duration::ZERO)? == Destroyed::Done { count: 0, left: None });
        ensure!(by_ss(&netns, &VIPS)?.len() == 1, "the connection is gone");
        Ok(())
    })
}

#[test]
fn a_connection_whose_address_was_taken_again_meanwhile_lives_on() -> Result<()> {
    let Some(netns) = host("taken again")? else { return Ok(()) };
    netns.enter(|| {
        let [dual, _] = listeners()?;
        let _connection = connect(&dual, VIPS[0])?;
        // Asked when it is found, and once more right before: no longer.
        let asked = Cell::new(0);
        let done = destroy(&VIPS, |_| asked.replace(asked.get() + 1) % 2 == 0, BUDGET)?;
        ensure!(asked.get() >= 2 && matches!(done, Destroyed::Done { count: 0, .. }), "{done:?}, asked {asked:?}");
        ensure!(by_ss(&netns, &VIPS)?.len() == 1, "the connection is gone");
        Ok(())
    })
}

#[test]
fn without_the_capability_the_error_names_it() -> Result<()> {
    let Some(netns) = host("no capability")? else { return Ok(()) };
    netns.enter(|| {
        let [dual, _] = listeners()?;
        let _connection = connect(&dual, VIPS[0])?;
        let error = without_net_admin(|| destroy(&VIPS, |_| true, BUDGET)).err().context("it was permitted")?;
        ensure!(format!("{error:#}").contains("CAP_NET_ADMIN"), "{error:#}");
        ensure!(list(&VIPS)?.len() == 1, "the connection is gone");
        Ok(())
    })
}

#[test]
fn ten_thousand_connections_are_listed_and_destroyed() -> Result<()> {
    const COUNT: usize = 10_000;
    let Some(netns) = host("ten thousand")? else { return Ok(()) };
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised)?;
    netns.enter(|| {
        let listeners = listeners()?;
        let (mut clients, mut servers) = (Vec::new(), Vec::new());
        for index in 0..COUNT {
            let listener = &listeners[index % 2];
            clients.push(dial(SocketAddrV4::new(VIPS[index / 2 % 2], listener.local_addr()?.port()))?);
            // The others stay in the queues: file descriptors are scarce on some machines.
            if index < COUNT / 2 {
                servers.push(listener.accept()?);
            }
        }
        let start = Instant::now();
        let found = list(&VIPS)?;
        let listed = start.elapsed();
        ensure!(named(&found).len() == COUNT && found.len() == COUNT, "{} found", found.len());
        let start = Instant::now();
        let done = destroy(&VIPS, |_| true, BUDGET)?;
        println!("{COUNT} connections: listed in {listed:?}, destroyed in {:?}", start.elapsed());
        ensure!(done == Destroyed::Done { count: COUNT, left: Some(0) }, "{done:?}");
        for client in &mut clients {
            ensure!(read_error(client) == Some(ErrorKind::ConnectionReset));
        }
        Ok(())
    })
}
