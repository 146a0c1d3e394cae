//! What the benches share: a daemon on a scratch folder, clients of it, and the bare programs that are its floors.
//!
//! A promise is a ratio against a floor that is measured in the same run, in rounds that alternate with ours: machines
//! differ and are noisy, ratios much less so. A bench measures and reports, also a promise that is missed; it
//! never fails because of a figure.

pub mod client;
pub mod disk;
pub mod floor;
pub mod grown;
pub mod process;
pub mod raw;
pub mod report;
pub mod world;

use std::time::{Duration, Instant};

/// The middle value. Zero if there is none.
#[must_use]
pub fn median(samples: Vec<f64>) -> f64 {
    quantile(samples, 0.5)
}

/// The value that the `share` of all values does not exceed. Zero if there is none.
#[must_use]
pub fn quantile(mut samples: Vec<f64>, share: f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    let position = samples.len() as f64 * share;
    samples.get(position as usize).copied().unwrap_or(0.0)
}

/// How long `work` takes, in microseconds.
pub fn timed(work: impl FnOnce()) -> f64 {
    let started = Instant::now();
    work();
    micros(started.elapsed())
}

/// A duration in microseconds.
#[must_use]
pub fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}
