//! The command line: what can be asked of `failover`, in clap's terms.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// VRRP failover whose promises are kept by the kernel.
#[derive(Debug, Parser)]
#[command(name = "failover", version, about, long_about = None)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Least severe level that is logged: error, warn, info, debug, trace, or a filter as in
    /// RUST_LOG, which it overrides.
    #[arg(long, global = true, value_name = "LEVEL")]
    pub log: Option<String>,
    /// How log lines look.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs the controller in the foreground until SIGTERM or SIGINT, then releases everything.
    Run(ConfigFile),
    /// Validates a configuration and prints it with all defaults; exit 2 on an error.
    Check(ConfigFile),
    /// Shows what the pinned maps say; exit 3 when nothing is loaded.
    Status {
        /// JSON instead of a table.
        #[arg(long)]
        json: bool,
        /// Where they are.
        #[command(flatten)]
        pins: Pins,
    },
    /// Detaches and unpins what a dead controller left, and removes its virtual addresses.
    Unload {
        /// Where they are.
        #[command(flatten)]
        pins: Pins,
        /// Also when it can't be told which addresses are to go.
        #[arg(long)]
        force: bool,
    },
}

/// Where the configuration is.
#[derive(Args, Debug)]
pub struct ConfigFile {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

/// Where the maps are pinned.
#[derive(Args, Debug)]
pub struct Pins {
    /// The directory of the pinned maps, `data_plane.pin_path` in the configuration.
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf/failover")]
    pub pin_path: PathBuf,
}
