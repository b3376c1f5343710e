//! The command as a process, as far as it needs no root: exit codes and messages.

#![allow(clippy::unwrap_used, reason = "in tests, also in their helpers")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};

fn failover(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_failover")).args(arguments).output().unwrap()
}

fn file(name: &str, text: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, text).unwrap();
    path
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const VALID: &str = r#"
[[virtual_router]]
name = "web"
interface = "lo"
vrid = 51
addresses = ["192.0.2.10/24"]
"#;

#[test]
fn check_names_file_and_line_of_each_mistake_and_exits_2() {
    let path =
        file("two-mistakes.toml", &VALID.replace("51", "0").replace("name = \"web\"", "name = \"web\"\nprioritty = 7"));
    let path = path.to_str().unwrap();
    let output = failover(&["check", "--config", path]);
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.contains(&format!("{path}:4: ")) && text.contains("prioritty"), "{text}");
    assert!(text.contains(&format!("{path}:6: ")) && text.contains("vrid"), "{text}");
    assert!(output.stdout.is_empty());
}

#[test]
fn run_with_a_mistake_says_the_same_as_check() {
    let path = file("run-mistake.toml", &VALID.replace("51", "256"));
    let path = path.to_str().unwrap();
    let (run, check) = (failover(&["run", "--config", path]), failover(&["check", "--config", path]));
    assert_eq!(run.status.code(), Some(2));
    assert_eq!(stderr(&run), stderr(&check));
}

#[test]
fn a_key_that_others_may_read_exits_2_with_its_line() {
    let key = file("open.key", "a key of more than 32 bytes, for everyone to read");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let lines = "[replication]\nlisten = \"127.0.0.1:7700\"\npeers = [\"127.0.0.2:7700\"]\n";
    let path = file("open-key.toml", &format!("{lines}key_file = \"{}\"\n{VALID}", key.display()));
    for verb in ["check", "run"] {
        let output = failover(&[verb, "--config", path.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(2), "{verb}");
        let text = stderr(&output);
        assert!(text.contains("open-key.toml:4: key_file") && text.contains("use chmod 600"), "{verb}: {text}");
    }
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(failover(&["check", "--config", path.to_str().unwrap()]).status.code(), Some(0));
}

#[test]
fn run_on_an_interface_that_does_not_exist_exits_2_with_the_line() {
    let path = file("no-interface.toml", &VALID.replace("\"lo\"", "\"nosuch0\""));
    let output = failover(&["run", "--config", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    assert!(text.contains("no-interface.toml:2: interface \"nosuch0\" does not exist; there are"), "{text}");
}

#[test]
fn check_prints_a_configuration_that_checks() {
    let path = file("valid.toml", VALID);
    let output = failover(&["check", "--config", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let effective = String::from_utf8(output.stdout).unwrap();
    assert!(effective.contains("advert_interval = \"1s\""), "{effective}");
    let again = file("effective.toml", &effective);
    let output = failover(&["check", "--config", again.to_str().unwrap()]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), effective);
}

#[test]
fn a_file_that_is_not_there_is_a_configuration_error() {
    let output = failover(&["check", "--config", "/nonexistent/failover.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).starts_with("/nonexistent/failover.toml: "), "{}", stderr(&output));
}

#[test]
fn status_exits_3_when_nothing_is_loaded() {
    let output = failover(&["status", "--pin-path", "/nonexistent/pins"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("nothing is loaded at /nonexistent/pins"));
    let json = failover(&["status", "--json", "--pin-path", "/nonexistent/pins"]);
    assert_eq!(json.status.code(), Some(3));
}

#[test]
fn an_unknown_command_exits_2() {
    assert_eq!(failover(&["fly"]).status.code(), Some(2));
}
