//! `[replication]`, and the file of its key.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Uid, geteuid};

use super::super::replication::{is_trusted, read_key};
use super::super::*;
use super::{MINIMAL, accepted, printed};

/// MINIMAL with these lines under `[replication]`, on line 2 and after.
fn with(lines: &str) -> String {
    format!("[replication]\n{lines}\n{MINIMAL}")
}

const GOOD: &str = "listen = \"10.0.0.1:7700\"\npeers = [\"10.0.0.2:7700\"]\nkey_file = \"/etc/failover.key\"";

#[test]
fn it_is_off_unless_it_is_there() {
    assert_eq!(accepted(MINIMAL).replication, None);
    let replication = accepted(&with(GOOD)).replication.expect("given");
    assert_eq!((replication.listen.to_string(), replication.key_file_line), ("10.0.0.1:7700".to_owned(), 4));
    accepted(&with(&GOOD.replace("10.0.0.1:7700", "0.0.0.0:7700")));
    // Both families.
    accepted(&with(&GOOD.replace("10.0.0.1:7700", "[::]:7700")));
    accepted(&with("listen = \"[::]:1\"\npeers = [\"[fd00::2]:7700\"]\nkey_file = \"/etc/failover.key\""));
    let sixteen: Vec<_> = (2..18).map(|host| format!("\"10.0.0.{host}:7700\"")).collect();
    assert_eq!(
        accepted(&with(&GOOD.replace("\"10.0.0.2:7700\"", &sixteen.join(", ")))).replication.map(|it| it.peers.len()),
        Some(16)
    );
}

#[test]
fn an_ipv4_address_in_the_form_of_ipv6_is_the_ipv4_address() {
    let mapped = GOOD.replace("10.0.0.1:", "[::ffff:10.0.0.1]:").replace("10.0.0.2:", "[::ffff:a00:2]:");
    assert_eq!(accepted(&with(&mapped)), accepted(&with(GOOD)));
}

#[test]
fn what_it_is_refused_for() {
    let listen = "listen must be an address and a port in quotes, such as \"10.0.0.1:7700\"";
    let peers = "peers must be a list of 1 to 16 addresses with ports, such as [\"10.0.0.2:7700\"]";
    let key_file = "key_file must be an absolute path, in quotes";
    let seventeen: Vec<_> = (2..19).map(|host| format!("\"10.0.0.{host}:7700\"")).collect();
    let cases = [
        ("10.0.0.1:7700", "10.0.0.1", format!("2: {listen}, not \"10.0.0.1\"")),
        ("10.0.0.1:7700", "10.0.0.1:0", format!("2: {listen}, not \"10.0.0.1:0\"")),
        ("10.0.0.1:7700", "edge-a:7700", format!("2: {listen}, not \"edge-a:7700\"")),
        ("[\"10.0.0.2:7700\"]", "[]", format!("3: {peers}, not an empty list")),
        ("[\"10.0.0.2:7700\"]", "\"10.0.0.2:7700\"", format!("3: {peers}, not \"10.0.0.2:7700\"")),
        ("\"10.0.0.2:7700\"", "2", format!("3: {peers}, not of 2")),
        ("10.0.0.2:7700", "10.0.0.2", format!("3: {peers}, not of \"10.0.0.2\"")),
        (
            "10.0.0.2:7700",
            "0.0.0.0:7700",
            "3: peer \"0.0.0.0:7700\" names no host: it must be the peer's own address".into(),
        ),
        (
            "10.0.0.2:7700",
            "10.0.0.1:7701",
            "3: peer \"10.0.0.1:7701\" is this node itself: peers are the others".into(),
        ),
        (
            "\"10.0.0.2:7700\"",
            "\"10.0.0.2:7700\", \"10.0.0.2:7701\"",
            "3: peer \"10.0.0.2:7701\" has the address of another peer: each has its own".into(),
        ),
        (
            "10.0.0.2:7700",
            "[::ffff:10.0.0.1]:7701",
            "3: peer \"[::ffff:10.0.0.1]:7701\" is this node itself: peers are the others".into(),
        ),
        (
            "\"10.0.0.2:7700\"",
            "\"10.0.0.2:7700\", \"[::ffff:10.0.0.2]:7701\"",
            "3: peer \"[::ffff:10.0.0.2]:7701\" has the address of another peer: each has its own".into(),
        ),
        (
            "10.0.0.2:7700",
            "[::ffff:0.0.0.0]:7700",
            "3: peer \"[::ffff:0.0.0.0]:7700\" names no host: it must be the peer's own address".into(),
        ),
        (
            "10.0.0.2:7700",
            "[fd00::2]:7700",
            "3: peer \"[fd00::2]:7700\" is of another family than listen: both are IPv4, or both IPv6".into(),
        ),
        (
            "10.0.0.1:7700",
            "[fd00::1]:7700",
            "3: peer \"10.0.0.2:7700\" is of another family than listen: both are IPv4, or both IPv6".into(),
        ),
        // MINIMAL's address.
        (
            "10.0.0.1:7700",
            "192.0.2.10:7700",
            "2: listen \"192.0.2.10:7700\" is a virtual address, which moves: it must be this node's own".into(),
        ),
        (
            "10.0.0.2:7700",
            "[::ffff:192.0.2.10]:7700",
            "3: peer \"[::ffff:192.0.2.10]:7700\" is a virtual address, which moves: it must be the peer's own".into(),
        ),
        ("\"10.0.0.2:7700\"", &seventeen.join(", "), "3: 17 peers: 1 to 16 are allowed".into()),
        ("/etc/failover.key", "failover.key", format!("4: {key_file}, not \"failover.key\"")),
        ("key_file", "key", "1: key_file is missing: it must be an absolute path, in quotes".into()),
    ];
    for (from, to, problem) in cases {
        let problems = printed(&with(&GOOD.replace(from, to)));
        assert_eq!(problems.first(), Some(&format!("web.toml:{problem}")), "{to}");
    }
    let missing = printed(&format!("[replication]\n{MINIMAL}"));
    assert_eq!(missing.len(), 3, "{missing:?}");
}

/// A file in the temporary directory, gone when dropped.
struct KeyFile(PathBuf);

impl KeyFile {
    fn new(name: &str, bytes: &[u8], mode: u32) -> Self {
        let path = std::env::temp_dir().join(format!("failover-{}-{name}", std::process::id()));
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        Self(path)
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn a_key_is_the_files_bytes_without_the_last_newline() {
    let read = |name, bytes: &[u8]| read_key(&KeyFile::new(name, bytes, 0o600).0);
    assert_eq!(read("32", &[7; 32]), Ok(vec![7; 32]));
    assert_eq!(read("newline", &[&[7; 32][..], b"\n"].concat()), Ok(vec![7; 32]));
    assert_eq!(read("two", &[&[7; 32][..], b"\n\n"].concat()), Ok([&[7; 32][..], b"\n"].concat()));
    assert_eq!(read("most", &[b'\n'; 4096]), Ok(vec![b'\n'; 4095]));
}

#[test]
fn a_key_file_that_does_not_do_says_why() {
    let refusal = |name, bytes: &[u8], mode| read_key(&KeyFile::new(name, bytes, mode).0).expect_err(name);
    assert!(refusal("short", &[&[7; 31][..], b"\n"].concat(), 0o600).contains("holds 31 bytes: 32 to 4096"));
    assert!(refusal("long", &[7; 5000], 0o600).contains("32 to 4096"));
    for mode in [0o640, 0o604, 0o620, 0o602, 0o666] {
        let message = refusal("open", &[7; 32], mode);
        assert!(message.contains(&format!("(mode {mode:04o}): use chmod 600")), "{message}");
    }
    let none = read_key(Path::new("/nowhere/failover.key")).expect_err("no file");
    assert!(none.starts_with("key_file \"/nowhere/failover.key\" cannot be read: "), "{none}");
    assert!(read_key(&std::env::temp_dir()).expect_err("a directory").contains("is no regular file"));
}

#[test]
fn a_key_file_is_roots_or_this_users() {
    let (root, this, other) = (Uid::ROOT, Uid::from_raw(1000), Uid::from_raw(1001));
    assert!(is_trusted(root, this) && is_trusted(this, this) && is_trusted(root, root));
    assert!(!is_trusted(other, this) && !is_trusted(this, root));
    // Only root can give a file away.
    if geteuid().is_root() {
        let file = KeyFile::new("given-away", &[7; 32], 0o600);
        assert_eq!(read_key(&file.0), Ok(vec![7; 32]));
        chown(&file.0, Some(1001), None).unwrap();
        let message = read_key(&file.0).expect_err("another user's");
        assert!(message.ends_with("is owned by user 1001: it must be root's or this user's"), "{message}");
    }
}

#[test]
fn a_pipe_is_not_waited_for() {
    let file = KeyFile::new("pipe", &[], 0o600);
    fs::remove_file(&file.0).unwrap();
    mknodat(CWD, &file.0, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    assert!(read_key(&file.0).expect_err("a pipe").contains("is no regular file"));
}

#[test]
fn a_configuration_is_refused_at_the_line_of_its_key_file() {
    let file = KeyFile::new("config", with(GOOD).as_bytes(), 0o600);
    let text = with(&GOOD.replace("/etc/failover.key", "/nowhere/failover.key"));
    fs::write(&file.0, text).unwrap();
    let problems = load(&file.0).expect_err("no key");
    assert_eq!(problems.iter().map(|problem| problem.line).collect::<Vec<_>>(), [4]);
}
