//! The command `failover`: parses, calls the library, maps errors to exit codes.
//!
//! Exit codes: 0 done; 1 failed; 2 the configuration or the command line is wrong, or the start can't be
//! made safe on this machine; 3 nothing is loaded.

use std::env;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use failover_userspace::cli::{self, Cli, Command, LogFormat};
use failover_userspace::config::{self, Problem};
use failover_userspace::controller::{self, Problems};
use failover_userspace::dataplane::maps;
use failover_userspace::startup::Refusal;
use failover_userspace::status::Status;
use failover_userspace::unload::{self, Outcome};
use tracing_appender::non_blocking::{NonBlocking, WorkerGuard};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, registry};

const EXIT_REFUSED: u8 = 2;
const EXIT_NOT_LOADED: u8 = 3;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let logging = start_logging(&cli);
    let result = match &cli.command {
        Command::Run(file) => run(&file.config),
        Command::Check(file) => check(&file.config),
        Command::Status { json, pins } => status(&pins.pin_path, *json),
        Command::Unload { pins, force } => unload(&pins.pin_path, *force),
    };
    drop(logging);
    result.unwrap_or_else(|error| {
        let is_config = error.is::<Problems>() || error.is::<Problem>();
        if is_config {
            eprintln!("{error}");
            return ExitCode::from(EXIT_REFUSED);
        }
        eprintln!("failover: {error:#}");
        if error.is::<Refusal>() { ExitCode::from(EXIT_REFUSED) } else { ExitCode::FAILURE }
    })
}

/// Logs to stderr through a thread of their own: whoever reads them slowly stalls nobody.
fn start_logging(cli: &Cli) -> WorkerGuard {
    let (writer, guard): (NonBlocking, WorkerGuard) = tracing_appender::non_blocking(io::stderr());
    let lines = fmt::layer().with_writer(writer).with_target(false);
    let lines = match cli.log_format {
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    registry().with(lines.with_filter(log_filter(cli))).init();
    guard
}

/// What is logged: `--log`, else `RUST_LOG`, else from info on.
fn log_filter(cli: &Cli) -> Targets {
    let info = || Targets::new().with_default(LevelFilter::INFO);
    match (&cli.log, env::var("RUST_LOG")) {
        (Some(filter), _) => filter.clone(),
        (None, Ok(text)) if !text.is_empty() => cli::log_filter(&text).unwrap_or_else(|reason| {
            // Meant for another program, maybe; no reason not to serve.
            eprintln!("failover: RUST_LOG has no effect: {reason}");
            info()
        }),
        (None, _) => info(),
    }
}

fn load(file: &Path) -> Result<config::Config> {
    Ok(config::load(file).map_err(Problems)?)
}

fn run(file: &Path) -> Result<ExitCode> {
    controller::run(file, load(file)?)?;
    Ok(ExitCode::SUCCESS)
}

fn check(file: &Path) -> Result<ExitCode> {
    print(&load(file)?.to_string())?;
    Ok(ExitCode::SUCCESS)
}

fn status(pin_path: &Path, json: bool) -> Result<ExitCode> {
    if !maps::is_loaded(pin_path) {
        eprintln!("failover: nothing is loaded at {}", pin_path.display());
        return Ok(ExitCode::from(EXIT_NOT_LOADED));
    }
    let status = Status::read(pin_path)?;
    let text = if json { format!("{}\n", status.json()) } else { status.table() };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn unload(pin_path: &Path, force: bool) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(unload::unload(pin_path, force))? {
        Outcome::Nothing => print(&format!("nothing is loaded at {}\n", pin_path.display()))?,
        Outcome::Unloaded(addresses) => {
            print(&format!("unloaded {}, {addresses} address(es) taken off\n", pin_path.display()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes to stdout; a reader that went away is an error and not a panic.
fn print(text: &str) -> Result<()> {
    io::stdout().write_all(text.as_bytes()).context("writing to stdout")
}
