//! Random frames that can be made again: `FAILOVER_SEED` takes the seed that a failure prints.
//!
//! Deliberately absent: any seed from the clock. Every run is the same run.

/// Any number.
const SEED: u64 = 0x6661_696c_6f76_6572;

/// `FAILOVER_SEED`, or what it always is.
pub fn seed() -> u64 {
    std::env::var("FAILOVER_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(SEED)
}

/// Where choices come from: chance, or somebody's bytes.
pub trait Choices {
    /// A number below `end`, which is at least 1.
    fn below(&mut self, end: usize) -> usize;

    /// One of these.
    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// True once in so many times.
    fn chance(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }
}

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
pub struct Random(pub u64);

impl Random {
    /// The next 64 bits.
    #[expect(clippy::should_implement_trait, reason = "it never ends")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// That many bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

impl Choices for Random {
    /// The first are the least bit likelier.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitmix64_is_what_its_authors_published() {
        // The first outputs for seed 1234567, as in Rosetta Code's and the reference implementation's tests.
        let mut random = Random(1_234_567);
        let first = [random.next(), random.next(), random.next()];
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }
}
