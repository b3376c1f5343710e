//! Ring 4: what is refused at start, because it would make two owners, and what is not. Nothing is left behind by it.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use failover_tests::daemon::Daemon;
use failover_tests::lab::{INTERFACE, Lab, VIP};
use failover_tests::netns::{Netns, finish};
use failover_tests::requirements::require;
use failover_tests::wait;
use failover_userspace::dataplane::pins;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::thread::{UnshareFlags, unshare_unsafe};

const NEEDS: [&str; 5] = ["ip", "bpftool", "ethtool", "unshare", "nsenter"];

fn single(test: &str) -> Result<Option<(Lab, Daemon)>> {
    let Some(built) = require(test, &NEEDS) else { return Ok(None) };
    let lab = Lab::new(&built)?;
    let daemon = lab.daemon("edge-a", 150, "100ms", "")?;
    Ok(Some((lab, daemon)))
}

/// Starts it, waits until it has ended, and asserts that it refused: exit 2, the reason said, nothing pinned, attached
/// or mounted.
fn assert_refused(daemon: &mut Daemon, expected: &[&str]) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?.lines().filter(|line| line.contains(" - bpf ")).count();
    let was_there = daemon.pin_path().exists();
    daemon.start()?;
    let status = daemon.wait().with_context(|| daemon.log())?;
    let log = daemon.log();
    ensure!(status.code() == Some(2), "{status}: {log}");
    for part in expected {
        ensure!(log.contains(part), "{part:?} is missing in: {log}");
    }
    ensure!(log.lines().count() == 1, "one reason, said once: {log}");
    ensure!(daemon.pin_path().exists() == was_there, "the pin directory was made or removed");
    let left = fs::read_to_string("/proc/self/mountinfo")?.lines().filter(|line| line.contains(" - bpf ")).count();
    ensure!(left == mounts, "a bpffs was mounted");
    Ok(())
}

fn assert_no_program(node: &Netns, interface: &str) -> Result<()> {
    let shown = node.ip(&["link", "show", interface])?;
    ensure!(!shown.contains("xdp"), "a program is attached: {shown}");
    Ok(())
}

fn wait_until_active(daemon: &Daemon) -> Result<()> {
    let is_active = || daemon.state(0).is_ok_and(|state| state == "Active");
    wait::until("Active", is_active).with_context(|| daemon.log())
}

#[test]
fn f6_a_boot_clock_that_is_not_the_kernels_is_refused() -> Result<()> {
    for (offset, told) in [("5000", "5000 s ahead of the kernel's"), ("-5", "5 s behind the kernel's")] {
        let Some((lab, mut daemon)) = single("time namespace")? else { return Ok(()) };
        daemon.start_with(&["unshare", "--time", "--boottime", offset]);
        assert_refused(&mut daemon, &["this process is in a time namespace", told, "nsenter --time=/proc/1/ns/time"])?;
        assert_no_program(lab.station("edge-a")?, INTERFACE)?;
    }
    Ok(())
}

#[test]
fn f6_a_time_namespace_with_the_kernels_boot_clock_serves() -> Result<()> {
    let Some((_lab, mut daemon)) = single("time namespace without an offset")? else { return Ok(()) };
    daemon.start_with(&["unshare", "--time", "--monotonic", "77"]);
    daemon.start_and_wait()?;
    wait_until_active(&daemon)?;
    ensure!(daemon.stop()?.success(), "{}", daemon.log());
    Ok(())
}

/// A controller on `edge-a` with one virtual router on an interface of that name, which has an address.
fn on_interface(lab: &Lab, interface: &str) -> Result<Daemon> {
    let router = format!(
        "[[virtual_router]]\nname = \"web\"\ninterface = \"{interface}\"\nvrid = 51\naddresses = [\"203.0.113.10/24\"]\n"
    );
    lab.daemon_with("edge-a", &router)
}

#[test]
fn f12_interfaces_that_cannot_serve_are_refused_by_file_and_line() -> Result<()> {
    let Some(built) = require("unfit interfaces", &NEEDS) else { return Ok(()) };
    let lab = Lab::new(&built)?;
    let node = lab.station("edge-a")?;
    let ip = |words: &str| node.ip(&words.split(' ').collect::<Vec<_>>()).map(drop);
    ip("tuntap add dev tun0 mode tun")?;
    ip("link add mv0 link eth0 type macvlan mode bridge")?;
    ip("link add br0 type bridge")?;
    ip("link add port0 type veth peer name far0")?;
    ip("link set port0 master br0")?;
    for interface in ["tun0", "mv0", "port0", "far0", "br0"] {
        ip(&format!("address add 203.0.113.1/24 dev {interface}"))?;
        ip(&format!("link set {interface} up"))?;
    }
    for (interface, told) in [
        ("lo", "is the loopback: no other router and no client hears it"),
        ("tun0", "is not Ethernet (link type 65534)"),
        ("mv0", "is a macvlan on \"eth0\": the kernel answers ARP for its addresses on \"eth0\" as well"),
        (
            "port0",
            "is a port of the bridge \"br0\", which takes its frames: broadcast ARP would get past a Backup; use \"br0\"",
        ),
    ] {
        let mut daemon = on_interface(&lab, interface)?;
        fs::remove_file(lab.directory().join(format!("{}.log", daemon.name()))).or_else(ignore_missing)?;
        let at = format!("{}:8: interface \"{interface}\" {told}", daemon.config().display());
        assert_refused(&mut daemon, &[&at])?;
        assert_no_program(node, interface)?;
    }
    // What it says to use instead is taken, and so is a veth that is no port.
    for interface in ["br0", "far0"] {
        let mut daemon = on_interface(&lab, interface)?;
        daemon.edit_config("xdp_mode = \"native\"", "xdp_mode = \"generic\"")?;
        daemon.start_and_wait().with_context(|| interface.to_owned())?;
        ensure!(daemon.stop()?.success(), "{}", daemon.log());
    }
    Ok(())
}

fn ignore_missing(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

#[test]
fn f12_a_macvlan_whose_parent_is_elsewhere_serves() -> Result<()> {
    let Some(built) = require("macvlan of another namespace", &NEEDS) else { return Ok(()) };
    let lab = Lab::new(&built)?;
    let node = lab.station("edge-a")?;
    lab.station("client")?.ip(&[
        "link",
        "add",
        "mv0",
        "link",
        "eth0",
        "netns",
        node.name(),
        "type",
        "macvlan",
        "mode",
        "bridge",
    ])?;
    node.ip(&["address", "add", "203.0.113.1/24", "dev", "mv0"])?;
    node.ip(&["link", "set", "mv0", "up"])?;
    let mut daemon = on_interface(&lab, "mv0")?;
    daemon.edit_config("xdp_mode = \"native\"", "xdp_mode = \"generic\"")?;
    daemon.start_and_wait()?;
    ensure!(daemon.stop()?.success(), "{}", daemon.log());
    Ok(())
}

#[test]
fn f12_an_interface_that_becomes_a_bridge_port_is_told_of_once() -> Result<()> {
    const TOLD: &str = "the interface is a port of the bridge \"br0\"";
    let Some((lab, mut daemon)) = single("becomes a port")? else { return Ok(()) };
    let node = lab.station("edge-a")?;
    daemon.start_and_wait()?;
    wait_until_active(&daemon)?;
    ensure!(!daemon.log().contains(TOLD), "{}", daemon.log());
    node.ip(&["link", "add", "br0", "type", "bridge"])?;
    node.ip(&["link", "set", INTERFACE, "master", "br0"])?;
    wait::until("the warning", || daemon.log().contains(TOLD)).with_context(|| daemon.log())?;
    // Every change of a link or an address has all interfaces looked at. That the address is put back shows that they
    // were.
    for change in ["up", "down"] {
        node.ip(&["link", "set", "br0", change])?;
    }
    let vip = format!("{VIP}/24");
    node.ip(&["address", "del", &vip, "dev", INTERFACE])?;
    let is_back = || node.ip(&["address", "show", "dev", INTERFACE]).is_ok_and(|shown| shown.contains(&vip));
    wait::until("the address to be put back", is_back).with_context(|| daemon.log())?;
    ensure!(daemon.log().matches(TOLD).count() == 1, "{}", daemon.log());
    Ok(())
}

#[test]
fn f7_pins_that_fence_another_network_namespace_are_left_alone() -> Result<()> {
    let Some((lab, mut first)) = single("pins of another namespace")? else { return Ok(()) };
    let mut second = lab.daemon("edge-b", 100, "100ms", "")?;
    second.share_pins(&first)?;
    first.start_and_wait()?;
    wait_until_active(&first)?;
    let run = |daemon: &Daemon| daemon.run_command().output().context("starting it");
    let refused = run(&second)?;
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(told.contains("another controller (process "), "while it runs: {told}");

    first.kill()?;
    let node = lab.station("edge-a")?;
    let inode = fs::metadata(Path::new("/run/netns").join(node.name()))?.ino();
    let program = || -> Result<String> {
        let json: serde_json::Value = serde_json::from_str(&node.ip(&["-json", "link", "show", INTERFACE])?)?;
        Ok(json[0]["xdp"]["prog"]["id"].to_string())
    };
    let before = program()?;
    // A start that is not refused would not end.
    let mut command = Command::new("timeout");
    let run = second.run_command();
    let refused = command.arg("10").arg(run.get_program()).args(run.get_args()).output()?;
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(refused.status.code() == Some(2), "{}: {told}", refused.status);
    for part in [
        &format!("left in another network namespace (net:[{inode}]): program {before} fences"),
        &format!("failover unload --pin-path {}", first.pin_path().display()),
    ] {
        ensure!(told.contains(part), "{part:?} is missing in: {told}");
    }
    ensure!(before != "null" && program()? == before, "the fence is gone");
    assert_no_program(lab.station("edge-b")?, INTERFACE)?;
    // There it carries on, and there it unloads.
    first.start_and_wait()?;
    wait_until_active(&first)?;
    first.kill()?;
    finish(&mut first.unload_command()).map(drop)
}

#[test]
fn f7_pins_of_a_network_namespace_that_is_gone_are_taken_over() -> Result<()> {
    let Some(built) = require("pins of a namespace that is gone", &NEEDS) else { return Ok(()) };
    let lab = Lab::new(&built)?;
    let first = Netns::new(&format!("{}-gone", lab.station("edge-a")?.name()))?;
    first.ip(&["link", "add", "eth0", "type", "veth", "peer", "name", "far0"])?;
    for end in ["eth0", "far0"] {
        first.ip(&["link", "set", end, "up"])?;
    }
    first.ip(&["address", "add", "192.0.2.7/24", "dev", "eth0"])?;
    let router = "[[virtual_router]]\nname = \"web\"\ninterface = \"eth0\"\nvrid = 51\nadvert_interval = \"100ms\"\n\
                  addresses = [\"192.0.2.10/24\"]\n";
    let mut dead = Daemon::new(&built, &first, lab.directory(), "", router)?;
    dead.edit_config("xdp_mode = \"native\"", "xdp_mode = \"generic\"")?;
    let mut daemon = lab.daemon("edge-a", 150, "100ms", "")?;
    daemon.share_pins(&dead)?;
    dead.start_and_wait()?;
    wait_until_active(&dead)?;
    dead.kill()?;
    drop(first);
    let is_detached = || pins::attached(dead.pin_path()).is_ok_and(|links| links.is_empty());
    wait::until("the interface to be gone", is_detached)?;
    daemon.start()?;
    let runs =
        || daemon.status().is_ok_and(|status| status["controller_alive"] == true && status["node"] == daemon.name());
    wait::until("the new controller", runs).with_context(|| daemon.log())?;
    wait_until_active(&daemon)?;
    ensure!(daemon.stop()?.success(), "{}", daemon.log());
    ensure!(!dead.pin_path().exists(), "pins are left");
    Ok(())
}

#[test]
fn f4_a_bpffs_that_only_this_mount_namespace_has_is_refused() -> Result<()> {
    let Some((lab, mut daemon)) = single("private bpffs")? else { return Ok(()) };
    daemon.start_with(&["unshare", "--mount", "sh", "-c", "mount -t bpf bpf /sys/fs/bpf && exec \"$@\"", "sh"]);
    assert_refused(&mut daemon, &["the bpffs there is not the host's", "-v /sys/fs/bpf:/sys/fs/bpf --pid=host"])?;
    assert_no_program(lab.station("edge-a")?, INTERFACE)
}

#[test]
fn f4_ip_netns_exec_is_refused_with_what_to_use() -> Result<()> {
    let Some((lab, mut daemon)) = single("ip netns exec")? else { return Ok(()) };
    let node = lab.station("edge-a")?;
    daemon.start_with(&["ip", "netns", "exec", node.name()]);
    assert_refused(
        &mut daemon,
        &["no bpffs is seen at /sys/fs/bpf", "use `nsenter --net=/run/netns/NAME failover run"],
    )?;
    assert_no_program(node, INTERFACE)
}

#[test]
fn f4_a_container_is_refused_with_the_recipe() -> Result<()> {
    let Some((lab, mut daemon)) = single("container")? else { return Ok(()) };
    daemon.start_with(&["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    assert_refused(&mut daemon, &["this process is in a container", "-v /sys/fs/bpf:/sys/fs/bpf --pid=host"])?;
    assert_no_program(lab.station("edge-a")?, INTERFACE)
}

#[test]
fn f4_a_mount_namespace_with_the_hosts_bpffs_serves() -> Result<()> {
    let Some((lab, mut daemon)) = single("mount namespace of a unit")? else { return Ok(()) };
    // As a hardened unit of systemd has it: another mount namespace, the same file systems.
    daemon.start_with(&["unshare", "--mount"]);
    daemon.start_and_wait()?;
    wait_until_active(&daemon)?;
    daemon.kill()?;
    ensure!(
        lab.station("edge-a")?.ip(&["link", "show", INTERFACE])?.contains("xdp"),
        "the fence went with the process"
    );
    finish(&mut daemon.unload_command()).map(drop)
}

#[test]
fn f37_a_pin_directory_of_somebody_else_is_refused() -> Result<()> {
    const STRANGER: u32 = 65_534;
    let Some((lab, mut daemon)) = single("a stranger's pin directory")? else { return Ok(()) };
    let path = daemon.pin_path().to_owned();
    let log = lab.directory().join(format!("{}.log", daemon.name()));
    fs::DirBuilder::new().mode(0o700).create(&path)?;
    chown(&path, Some(STRANGER), None)?;
    assert_refused(&mut daemon, &[&format!("{} belongs to user {STRANGER}", path.display())])?;
    chown(&path, Some(0), None)?;
    for mode in [0o770, 0o1777] {
        fs::remove_file(&log)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        assert_refused(&mut daemon, &[&format!("may be written by others (mode {mode:04o})")])?;
    }
    ensure!(fs::read_dir(&path)?.next().is_none(), "something was made in it");
    fs::remove_dir(&path)?;
    daemon.start_and_wait()?;
    for made in [path.clone(), path.join("links")] {
        ensure!(fs::metadata(&made)?.mode() & 0o7777 == 0o700, "{} may be looked into", made.display());
    }
    Ok(())
}

#[test]
fn f37_a_bpffs_that_is_mounted_is_for_its_owner_only() -> Result<()> {
    if require("mounting bpffs", &["ip"]).is_none() {
        return Ok(());
    }
    let mounted = || {
        // SAFETY: no other namespace than the mounts', and this thread ends with it.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        let at = Path::new(failover_userspace::startup::pin_path::BPFFS);
        pins::mount_bpffs(at)?;
        let mode = fs::metadata(at)?.mode();
        unmount(at, UnmountFlags::DETACH)?;
        ensure!(mode & 0o777 == 0o700, "mode {mode:o}");
        Ok(())
    };
    std::thread::spawn(mounted).join().map_err(|_| anyhow::anyhow!("the thread panicked"))?
}

#[test]
fn pins_that_can_be_nowhere_are_refused() -> Result<()> {
    let Some((_lab, mut daemon)) = single("no bpffs there")? else { return Ok(()) };
    daemon.edit_config(&daemon.pin_path().display().to_string(), "/tmp/failover-pins")?;
    assert_refused(&mut daemon, &["pin_path /tmp/failover-pins is not on a bpffs"])?;
    ensure!(!Path::new("/tmp/failover-pins").exists(), "it was made");
    Ok(())
}
