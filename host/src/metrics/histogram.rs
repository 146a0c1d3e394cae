//! A histogram without a lock: one addition to a bucket and one to the sum.
//!
//! The two are not read at one moment, so that a sum may be ahead of its buckets by what is being added right now; the next
//! look has both. The count is that of the buckets.

use std::sync::atomic::{AtomicU64, Ordering};

/// Upper bounds for times, in nanoseconds: from the fastest calls (tens of microseconds) to the longest deadlines.
pub const TIMES_NS: [u64; 19] = [
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
    60_000_000_000,
];
/// Upper bounds for numbers of things that are done together.
pub const SIZES: [u64; 11] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024];

/// What was observed, by size.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    /// One more than there are bounds: the last is for what is above all of them.
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    /// Nothing observed yet. `bounds` are inclusive and ascend.
    #[must_use]
    pub fn new(bounds: &'static [u64]) -> Self {
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, buckets, sum: AtomicU64::new(0) }
    }

    /// Add one observation.
    pub fn observe(&self, value: u64) {
        let place = self.bounds.partition_point(|bound| *bound < value);
        if let Some(bucket) = self.buckets.get(place) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }

    /// The sum, and how many there were in each bucket, with its upper bound; nothing for the last one. Both in multiples of
    /// `unit`.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a sum beyond 2^53 ns, 104 days, is as good rounded")]
    pub fn read(&self, unit: f64) -> (f64, Vec<(Option<f64>, u64)>) {
        let bounds = self.bounds.iter().map(|bound| Some(*bound as f64 / unit)).chain([None]);
        let counts = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed));
        (self.sum.load(Ordering::Relaxed) as f64 / unit, bounds.zip(counts).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_observation_is_in_the_bucket_whose_bound_it_does_not_exceed() {
        let sizes = Histogram::new(&SIZES);
        for value in [0, 1, 2, 3, 1_024, 1_025, u64::from(u32::MAX)] {
            sizes.observe(value);
        }
        let (sum, buckets) = sizes.read(1.0);
        assert_eq!(sum, f64::from(u32::MAX) + 2_055.0);
        let counts: Vec<u64> = buckets.iter().map(|(_, count)| *count).collect();
        assert_eq!(counts, [2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!((buckets[0].0, buckets[11].0, sizes.count()), (Some(1.0), None, 7));
    }

    #[test]
    fn bounds_ascend() {
        assert!(TIMES_NS.is_sorted_by(|one, two| one < two) && SIZES.is_sorted_by(|one, two| one < two));
    }
}
