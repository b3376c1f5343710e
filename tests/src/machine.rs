//! What a measurement was made on, in words.

use std::fs;

use rustix::system::uname;

use crate::hogs::cores;
use crate::netns::run;

/// The machine, its kernel and its keepalived, in one line.
pub fn conditions() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, model)| model));
    let keepalived = run("sh", &["-c", "keepalived --version 2>&1"]).unwrap_or_default();
    let version = keepalived.split_whitespace().nth(1).unwrap_or("of unknown version").trim_start_matches('v');
    let kernel = uname();
    format!(
        "{} cores ({}), Linux {}, keepalived {version}",
        cores(),
        model.unwrap_or("of unknown make"),
        kernel.release().to_string_lossy()
    )
}
