//! Single values: names, durations, intervals, passwords, paths.
//!
//! Each function takes what the file says and gives the checked value, or nothing, or why not.
//! Deliberately absent: how one key limits another, which validate.rs checks.

use std::path::PathBuf;
use std::time::Duration;

use super::Version;

/// The digits of one number in a duration, and the length of the whole.
///
/// humantime 2.4 panics on sums past 2^64 seconds. Ten digits are at most 3.2e17 s, even as years,
/// and 64 bytes hold at most five such numbers: that stays below.
const DURATION_DIGITS_MAX: usize = 10;
const DURATION_BYTES_MAX: usize = 64;

/// Centiseconds, the unit of version 3's interval.
const NANOS_PER_CS: u128 = 10_000_000;
const NANOS_PER_S: u128 = 1_000_000_000;

/// A name that stays one visible word in a log line: `bytes_max` bytes at most.
pub(super) fn word(text: &str, bytes_max: usize) -> Option<String> {
    // escape_debug knows what cannot be printed, and would escape quotes too.
    let printable = |c: char| match c.is_ascii() {
        true => c.is_ascii_graphic(),
        false => !c.is_whitespace() && c.escape_debug().len() == 1,
    };
    let fits = (1..=bytes_max).contains(&text.len());
    (fits && text.chars().all(printable)).then(|| text.to_owned())
}

/// A name that the kernel takes for an interface: dev_valid_name() in net/core/dev.c, IFNAMSIZ.
pub(super) fn interface(text: &str) -> Option<String> {
    word(text, 15).filter(|name| !matches!(name.as_str(), "." | "..") && !name.contains(['/', ':']))
}

/// An absolute path without control characters.
pub(super) fn absolute_path(text: &str) -> Option<PathBuf> {
    let path = PathBuf::from(text);
    (path.is_absolute() && !text.contains(char::is_control)).then_some(path)
}

/// A version 2 password: RFC 2338 §5.3.10 pads it with zeros to 8 bytes.
pub(super) fn password(text: &str) -> Option<[u8; 8]> {
    let mut padded = [0; 8];
    let printable = text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    padded.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
    (printable && !text.is_empty()).then_some(padded)
}

/// A duration with its unit, as humantime writes them: "1s", "100ms", "1m 30s".
pub(super) fn duration(text: &str) -> Option<Duration> {
    if text.len() > DURATION_BYTES_MAX {
        return None;
    }
    // humantime reads over spaces between digits, so they end no number here either.
    let mut digits = 0;
    for c in text.chars().filter(|c| !c.is_whitespace()) {
        digits = if c.is_ascii_digit() { digits + 1 } else { 0 };
        if digits > DURATION_DIGITS_MAX {
            return None;
        }
    }
    humantime::parse_duration(text).ok()
}

/// An advertisement interval in centiseconds, exactly: it is refused where it would be rounded.
///
/// Version 3 has 12 bits of centiseconds, and zero is discarded by its receiver (RFC 9568 §5.2.7,
/// erratum 8301). Version 2 has 8 bits of seconds (RFC 3768 §5.3.7).
///
/// # Errors
/// What is wrong and what the version allows.
pub(super) fn advert_interval_cs(interval: Duration, version: Version) -> Result<u16, String> {
    let (number, unit, step, steps_max, allowed) = match version {
        Version::V2 => ("2", "a whole number of seconds", NANOS_PER_S, 255, "1s to 255s in whole seconds"),
        Version::V3 => ("3", "a multiple of 10ms", NANOS_PER_CS, 4095, "10ms to 40.95s in steps of 10ms"),
    };
    let nanos = interval.as_nanos();
    if !nanos.is_multiple_of(step) {
        return Err(format!("is not {unit}: version {number} allows {allowed}"));
    }
    if !(1..=steps_max).contains(&(nanos / step)) {
        return Err(format!("is out of range: version {number} allows {allowed}"));
    }
    u16::try_from(nanos / NANOS_PER_CS).map_err(|error| error.to_string())
}
