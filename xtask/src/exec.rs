//! Running other programs: prints each command before it runs, and says what was tried when it fails.
//!
//! Owns the environment that children get. Deliberately absent: which program to run, and why.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::IsTerminal;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

/// Where Debian and others keep programs that a user's `PATH` often lacks (bpftool, keepalived).
const SYSTEM_DIRECTORIES: [&str; 4] = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin"];

/// A command without what `cargo run` added for xtask's own sake.
///
/// Cargo describes the package that is running (`CARGO_PKG_*` and so on) and prepends its own toolchain's
/// libraries to `LD_LIBRARY_PATH`. Neither may reach another cargo, or a compiler of another version.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    if let Some(paths) = env::var_os("LD_LIBRARY_PATH") {
        let kept: Vec<PathBuf> = env::split_paths(&paths).filter(|path| !is_cargo_library_path(path)).collect();
        match env::join_paths(&kept) {
            Ok(paths) if !kept.is_empty() => command.env("LD_LIBRARY_PATH", paths),
            _ => command.env_remove("LD_LIBRARY_PATH"),
        };
    }
    command.env("PATH", path_with_system_directories());
    command
}

/// The cargo that runs xtask.
pub fn cargo() -> Command {
    command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// The same arguments, variables and directory for another program.
pub fn with_program(command: &Command, program: impl AsRef<OsStr>) -> Command {
    let mut other = Command::new(program);
    other.args(command.get_args());
    if let Some(directory) = command.get_current_dir() {
        other.current_dir(directory);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => other.env(name, value),
            None => other.env_remove(name),
        };
    }
    other
}

/// Runs `command` with its output on the terminal; `purpose` starts the error when it fails.
pub fn run(command: &mut Command, purpose: &str) -> Result<()> {
    announce(command);
    let status = command.stdin(Stdio::null()).status().map_err(|error| not_started(command, purpose, &error))?;
    if !status.success() {
        bail!("{purpose} failed ({status}); tried: {}", describe(command));
    }
    Ok(())
}

/// Standard output of a quiet look-up, or nothing when it cannot run or fails.
pub fn output_of(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What a command said, and how it ended.
#[derive(Clone, Debug)]
pub struct Captured {
    /// Its exit code; `None`: a signal killed it.
    pub code: Option<i32>,
    /// Standard output and standard error, as they came.
    pub output: String,
}

/// Runs `command` with its output in the file `log`, and kills it when it takes longer than `patience`.
pub fn capture(command: &mut Command, log: &Path, patience: Duration) -> Result<Captured> {
    let failed = || format!("writing the output of {} to {}", describe(command), log.display());
    let file = File::create(log).with_context(failed)?;
    let copy = file.try_clone().with_context(failed)?;
    let spawned = command.stdin(Stdio::null()).stdout(file).stderr(copy).spawn();
    let mut child = spawned.with_context(|| format!("cannot run {}", describe(command)))?;
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().context("waiting for a command to end")? {
            break status;
        }
        if started.elapsed() > patience {
            child.kill().and_then(|()| child.wait()).context("killing a command that does not end")?;
            bail!("{} did not end within {} s", describe(command), patience.as_secs_f64());
        }
        thread::sleep(Duration::from_millis(10));
    };
    let output = std::fs::read(log).with_context(|| format!("reading {}", log.display()))?;
    Ok(Captured { code: status.code(), output: String::from_utf8_lossy(&output).into_owned() })
}

/// Becomes `command`, so that signals and the exit status are its own. Returns only on failure.
pub fn replace(command: &mut Command, purpose: &str) -> anyhow::Error {
    announce(command);
    let error = command.exec();
    not_started(command, purpose, &error)
}

/// Prints the command, dimmed on a terminal.
pub fn announce(command: &Command) {
    let text = describe(command);
    if colours() {
        eprintln!("\x1b[2m$ {text}\x1b[0m");
    } else {
        eprintln!("$ {text}");
    }
}

/// Whether the terminal shows colours and the user has not declined them.
pub fn colours() -> bool {
    std::io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none()
}

/// The command as one would type it, with the variables that were set for it.
pub fn describe(command: &Command) -> String {
    let variables = command
        .get_envs()
        .filter(|(name, _)| *name != "PATH" && *name != "LD_LIBRARY_PATH")
        .filter_map(|(name, value)| Some(format!("{}={}", name.to_string_lossy(), quoted(value?))));
    let words = std::iter::once(command.get_program()).chain(command.get_args()).map(quoted);
    variables.chain(words).collect::<Vec<_>>().join(" ")
}

/// The first executable file called `name` on `PATH` or in the system directories.
pub fn find_program(name: &str) -> Option<PathBuf> {
    program_candidates(name).into_iter().next()
}

/// Every executable file called `name`, in the order in which they would be found.
pub fn program_candidates(name: &str) -> Vec<PathBuf> {
    env::split_paths(&path_with_system_directories())
        .map(|directory| directory.join(name))
        .filter(|path| is_executable(path))
        .collect()
}

/// The same, then those that `cargo install` put where `PATH` may not lead.
pub fn cargo_program_candidates(name: &str) -> Vec<PathBuf> {
    let home = || Some(PathBuf::from(env::var_os("HOME")?).join(".cargo"));
    let roots = [
        env::var_os("CARGO_INSTALL_ROOT").map(PathBuf::from),
        env::var_os("CARGO_HOME").map(PathBuf::from).or_else(home),
    ];
    let in_cargo = roots.into_iter().flatten().map(|root| root.join("bin").join(name));
    program_candidates(name).into_iter().chain(in_cargo.filter(|path| is_executable(path))).collect()
}

/// `words`, which begin with `cargo install`, for a program that runs on this host: built with the active compiler,
/// whatever the caller builds for, and away from this workspace's `.cargo/config.toml`.
pub fn cargo_install(words: &str) -> Command {
    let mut command = cargo();
    command.args(words.split_whitespace().skip(1)).arg("--force").current_dir("/");
    for name in [
        "RUSTC",
        "RUSTFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
        "RUSTC_BOOTSTRAP",
        "RUSTC_WORKSPACE_WRAPPER",
        "CARGO_BUILD_TARGET",
        "CARGO_TARGET_DIR",
    ] {
        command.env_remove(name);
    }
    command
}

/// Whether `path` is a file that somebody may execute.
pub fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// Whether this process may do what only root may.
pub fn is_root() -> bool {
    // The owner of /proc/self is the effective user.
    Path::new("/proc/self").metadata().is_ok_and(|metadata| metadata.uid() == 0)
}

/// An error for a step that needs root, with the command that would do it.
pub fn require_root(step: &str, arguments: &str) -> Result<()> {
    if is_root() {
        return Ok(());
    }
    Err(anyhow!("{step} needs root; run it with sudo: sudo -E env \"PATH=$PATH\" cargo xtask {arguments}"))
}

/// Reads a text file, naming it in the error.
pub fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

/// Where programs are looked for, for another machine's shell.
pub fn search_path() -> String {
    path_with_system_directories().to_string_lossy().into_owned()
}

fn path_with_system_directories() -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut directories: Vec<PathBuf> = env::split_paths(&path).collect();
    for directory in SYSTEM_DIRECTORIES.map(PathBuf::from) {
        if !directories.contains(&directory) {
            directories.push(directory);
        }
    }
    env::join_paths(directories).unwrap_or(path)
}

fn is_cargo_library_path(path: &Path) -> bool {
    path.components().any(|part| matches!(part.as_os_str().to_str(), Some("rustlib" | "toolchains")))
        || ["debug", "release", "deps"].iter().any(|end| path.ends_with(end))
}

fn not_started(command: &Command, purpose: &str, error: &std::io::Error) -> anyhow::Error {
    anyhow!("{purpose} failed: cannot run {}: {error}", describe(command))
}

fn quoted(word: &OsStr) -> String {
    let text = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_described_command_can_be_pasted_into_a_shell() {
        let mut command = Command::new("cargo");
        command.env("A", "one two").args(["test", "--", "it's"]);
        assert_eq!(describe(&command), r"A='one two' cargo test -- 'it'\''s'");
    }

    #[test]
    fn cargos_own_library_paths_are_told_from_the_users() {
        assert!(is_cargo_library_path(Path::new("/home/u/p/target/debug/deps")));
        assert!(is_cargo_library_path(Path::new("/home/u/p/target/release")));
        assert!(is_cargo_library_path(Path::new("/home/u/.rustup/toolchains/stable/lib")));
        assert!(!is_cargo_library_path(Path::new("/opt/vendor/lib")));
    }
}
