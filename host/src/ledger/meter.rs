//! What the ledger counts while it writes.
//!
//! Only the writer's thread and whoever is refused add to these numbers; anybody may read them.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::metrics::Count;
use crate::metrics::histogram::{Histogram, SIZES, TIMES_NS};

/// Numbers about writing. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct LedgerMeter(Arc<Numbers>);

struct Numbers {
    rejections: Count,
    failures: Count,
    recordings: Count,
    sizes: Histogram,
    durable: Histogram,
    lazy: Histogram,
}

impl fmt::Debug for LedgerMeter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LedgerMeter").field("batches", &self.0.sizes.count()).finish_non_exhaustive()
    }
}

impl Default for LedgerMeter {
    fn default() -> Self {
        Self(Arc::new(Numbers {
            rejections: Count::default(),
            failures: Count::default(),
            recordings: Count::default(),
            sizes: Histogram::new(&SIZES),
            durable: Histogram::new(&TIMES_NS),
            lazy: Histogram::new(&TIMES_NS),
        }))
    }
}

impl LedgerMeter {
    pub(super) fn rejected(&self) {
        self.0.rejections.add(1);
    }

    pub(super) fn failed(&self) {
        self.0.failures.add(1);
    }

    pub(super) fn wrote(&self, jobs: usize, recordings: u64, durable: bool, took: Duration) {
        self.0.sizes.observe(jobs as u64);
        self.0.recordings.add(recordings);
        let times = if durable { &self.0.durable } else { &self.0.lazy };
        times.observe(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Writes that there was no room for.
    #[must_use]
    pub fn rejections(&self) -> u64 {
        self.0.rejections.get()
    }

    /// Batches that could not be written.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.0.failures.get()
    }

    /// Recordings that were written.
    #[must_use]
    pub fn recordings(&self) -> u64 {
        self.0.recordings.get()
    }

    /// Writes of one batch.
    #[must_use]
    pub fn sizes(&self) -> &Histogram {
        &self.0.sizes
    }

    /// Times of batches that were flushed to the disk, in nanoseconds.
    #[must_use]
    pub fn durable_times(&self) -> &Histogram {
        &self.0.durable
    }

    /// Times of batches that were not, in nanoseconds.
    #[must_use]
    pub fn lazy_times(&self) -> &Histogram {
        &self.0.lazy
    }
}
