//! A node's own clock, which runs at its own rate.

const MILLION: i128 = 1_000_000;

/// CLOCK_BOOTTIME of one node.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// What it showed at the simulation's start, nanoseconds.
    pub start_ns: u64,
    /// How much faster than true time it runs.
    pub drift_ppm: i32,
}

impl Clock {
    /// What it shows at a true time.
    pub fn local(&self, true_ns: u64) -> u64 {
        let elapsed = i128::from(true_ns) * (MILLION + i128::from(self.drift_ppm)) / MILLION;
        self.start_ns + elapsed as u64
    }

    /// The first true time at which it shows `local_ns` or more; 0 for what it showed before.
    pub fn reaches(&self, local_ns: u64) -> u64 {
        let elapsed = i128::from(local_ns.saturating_sub(self.start_ns));
        let rate = MILLION + i128::from(self.drift_ppm);
        // Rounded up: a whole number of nanoseconds later it shows at least that much.
        u64::try_from((elapsed * MILLION + rate - 1) / rate).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_on_a_fast_clock_is_shorter() {
        let clock = Clock { start_ns: 5, drift_ppm: 200 };
        // 1 s x 1.0002; and back: 1 s / 1.0002 = 999,800,039.99 ns.
        assert_eq!(clock.local(1_000_000_000), 1_000_200_005);
        assert_eq!(clock.reaches(1_000_000_005), 999_800_040);
        assert_eq!(clock.reaches(3), 0);
    }

    #[test]
    fn no_clock_is_early() {
        for drift_ppm in [-200, -1, 0, 1, 199] {
            let clock = Clock { start_ns: 1_000, drift_ppm };
            for local_ns in (1_000..2_000_000_000).step_by(99_999_989) {
                let at = clock.reaches(local_ns);
                assert!(clock.local(at) >= local_ns, "{drift_ppm} ppm, {local_ns}");
                assert!(at == 0 || clock.local(at - 1) < local_ns, "{drift_ppm} ppm, {local_ns}");
            }
        }
    }
}
