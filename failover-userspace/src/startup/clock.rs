//! The clock: a process in a time namespace has another CLOCK_BOOTTIME than the kernel program.

use std::fs;
use std::io;

use anyhow::{Context, Result};

use super::Refusal;

/// What a time namespace adds to the kernel's clocks, time_namespaces(7).
const OFFSETS: &str = "/proc/self/timens_offsets";

/// Refuses a CLOCK_BOOTTIME that is not the kernel program's: leases are written by the one and end by the other.
///
/// # Errors
/// A [`Refusal`], or when it can't be told.
pub fn check() -> Result<()> {
    let text = match fs::read_to_string(OFFSETS) {
        Ok(text) => text,
        // A kernel without time namespaces.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("reading {OFFSETS}")),
    };
    let offset =
        boottime_offset(&text).with_context(|| format!("{OFFSETS} has no offset of CLOCK_BOOTTIME: {text}"))?;
    refusal(offset).map_or(Ok(()), |refusal| Err(refusal.into()))
}

/// Seconds and nanoseconds, of which the latter are never negative.
fn boottime_offset(text: &str) -> Option<(i64, i64)> {
    let mut fields = text.lines().find_map(|line| line.strip_prefix("boottime"))?.split_whitespace();
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn refusal((seconds, nanoseconds): (i64, i64)) -> Option<Refusal> {
    let offset_ns = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
    if offset_ns == 0 {
        return None;
    }
    let by = offset_ns.unsigned_abs() as f64 / 1e9;
    let (direction, so) = if offset_ns > 0 {
        ("ahead of", "a lease would live that much longer than it may, and two nodes would answer")
    } else {
        ("behind", "no lease would be live, and the addresses would never be answered")
    };
    Some(Refusal(format!(
        "this process is in a time namespace: its CLOCK_BOOTTIME is {by} s {direction} the kernel's ({OFFSETS}). The XDP \
         program has the kernel's clock: {so}. Start failover outside of that namespace, for example with `nsenter \
         --time=/proc/1/ns/time failover run ...`"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f6_an_offset_of_the_boot_clock_is_refused_in_either_direction() {
        let text = |offset: &str| format!("monotonic           7         0\nboottime  {offset}\n");
        for none in ["         0         0", "0 0"] {
            assert!(refusal(boottime_offset(&text(none)).unwrap()).is_none(), "the other clock is nobody's: {none}");
        }
        for (offset, told) in [
            ("       5000         0", "5000 s ahead of the kernel's"),
            ("          0 500000000", "0.5 s ahead of the kernel's"),
            ("         -3         0", "3 s behind the kernel's"),
            ("         -1 500000000", "0.5 s behind the kernel's"),
        ] {
            let refusal = refusal(boottime_offset(&text(offset)).unwrap()).expect(offset).to_string();
            assert!(refusal.contains(told), "{offset}: {refusal}");
        }
        assert_eq!(boottime_offset("monotonic 0 0\n"), None);
        assert_eq!(boottime_offset("boottime 0\n"), None);
    }
}
