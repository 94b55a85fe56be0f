//! A Zipfian distribution over record numbers, by the method of Gray et al. (SIGMOD 1994) that YCSB uses.

use rand::{Rng, RngExt};

/// How skewed: YCSB's constant.
const THETA: f64 = 0.99;
/// Multiplier of the hash that scatters popular records over all numbers.
const SCATTER: u64 = 0x9e37_79b9_7f4a_7c15;

/// Ranks from 0, the most popular, to below `records`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Zipfian {
    records: u64,
    zeta: f64,
    eta: f64,
    alpha: f64,
}

impl Zipfian {
    /// Over this many records; takes time in proportion to them.
    pub(super) fn new(records: u64) -> Self {
        let records = records.max(2);
        let zeta: f64 = (1..=records).map(|rank| (rank as f64).powf(-THETA)).sum();
        let zeta_two = 1.0 + 2_f64.powf(-THETA);
        let eta = (1.0 - (2.0 / records as f64).powf(1.0 - THETA)) / (1.0 - zeta_two / zeta);
        Self { records, zeta, eta, alpha: 1.0 / (1.0 - THETA) }
    }

    /// A rank.
    pub(super) fn rank(&self, random: &mut impl Rng) -> u64 {
        let uniform: f64 = random.random();
        let scaled = uniform * self.zeta;
        if scaled < 1.0 {
            return 0;
        }
        if scaled < 1.0 + 0.5_f64.powf(THETA) {
            return 1;
        }
        let rank = self.records as f64 * (self.eta * uniform - self.eta + 1.0).powf(self.alpha);
        // The float is not negative and below 2^53.
        (rank as u64).min(self.records - 1)
    }

    /// A record number: as skewed, but the popular ones lie anywhere.
    pub(super) fn scrambled(&self, random: &mut impl Rng) -> u64 {
        let mut hash = (self.rank(random) + 1).wrapping_mul(SCATTER);
        hash ^= hash >> 32;
        hash.wrapping_mul(SCATTER) % self.records
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn the_first_rank_has_its_share_and_none_is_out_of_range() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let zipfian = Zipfian::new(1000);
        let mut counts = vec![0_u32; 1000];
        for _ in 0..100_000 {
            counts[usize::try_from(zipfian.rank(&mut random)).unwrap()] += 1;
            assert!(zipfian.scrambled(&mut random) < 1000);
        }
        // The share of rank 0 is 1 / zeta: about 12.9% of 1000 records.
        let share = f64::from(counts[0]) / 100_000.0;
        assert!((share - 1.0 / zipfian.zeta).abs() < 0.01, "{share}");
        assert!(counts[0] > counts[1] && counts[1] > counts[10] && counts[10] > counts[500]);
    }
}
