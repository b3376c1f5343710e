//! What a row of samples is told by.

/// A row of samples in figures. Percentiles are nearest-rank: each is a sample that was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// How many samples.
    pub n: usize,
    /// The least.
    pub min: f64,
    /// The median.
    pub p50: f64,
    /// The 99th percentile; of fewer than 100 samples the greatest.
    pub p99: f64,
    /// The greatest.
    pub max: f64,
    /// The arithmetic mean.
    pub mean: f64,
}

impl Summary {
    /// Of these samples, in any order; `None` without one.
    pub fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len();
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let rank = |percent: usize| sorted[(n * percent).div_ceil(100).max(1) - 1];
        let mean = sorted.iter().sum::<f64>() / n as f64;
        Some(Self { n, min, p50: rank(50), p99: rank(99), max, mean })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let samples: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        let expected = Summary { n: 200, min: 1.0, p50: 100.0, p99: 198.0, max: 200.0, mean: 100.5 };
        assert_eq!(Summary::of(&samples), Some(expected));
        let expected = Summary { n: 2, min: 3.0, p50: 3.0, p99: 5.0, max: 5.0, mean: 4.0 };
        assert_eq!(Summary::of(&[5.0, 3.0]), Some(expected));
        assert_eq!(Summary::of(&[]), None);
    }
}
