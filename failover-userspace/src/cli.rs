//! The command line: what can be asked of `failover`, in clap's terms.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tracing_subscriber::filter::{LevelFilter, Targets};

/// VRRP failover whose promises are kept by the kernel.
#[derive(Debug, Parser)]
#[command(name = "failover", version, about, long_about = None)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Least severe level that is logged: error, warn, info, debug, trace, off; or a list by module, as in
    /// "info,failover_userspace::replication=debug". It goes before RUST_LOG, which takes the same.
    #[arg(long, global = true, value_name = "LEVEL", value_parser = log_filter)]
    pub log: Option<Targets>,
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

/// The filter that `--log` and `RUST_LOG` ask for.
///
/// # Errors
/// What is wrong, for people: a word that stands alone must be a level, or a mistyped level would silence everything.
pub fn log_filter(text: &str) -> Result<Targets, String> {
    let is_level = |part: &str| !part.is_empty() && part.parse::<LevelFilter>().is_ok();
    if let Some(part) = text.split(',').find(|part| !part.contains('=') && !is_level(part)) {
        return Err(format!("\"{part}\" is no level: there are error, warn, info, debug, trace and off"));
    }
    text.parse().map_err(|error| format!("\"{text}\" is no list of levels by module: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_level_is_refused_and_silences_nothing() {
        for wrong in ["inof", "", "info,", "info,debgu", "failover_userspace=inof", "a[b]=c=d"] {
            assert!(log_filter(wrong).is_err(), "{wrong:?}");
        }
        for right in ["info", "WARN", "off", "info,failover_userspace::replication=debug"] {
            assert!(log_filter(right).is_ok(), "{right:?}");
        }
    }
}
