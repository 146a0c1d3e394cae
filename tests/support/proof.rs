//! Proofs that do as much as they have time for, and say how much that was.
//!
//! An ordinary run does a sample of a fixed size. `TOOLKEEP_HARD=1` does everything, unless `TOOLKEEP_PROOF_S` says how
//! many seconds this process has: then cases are taken in an order that the seed makes, until the time is up. What a proof
//! has done is one line that begins with the number of its promise; `make hard` collects these lines.

use std::io::Write as _;
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Says that a run is a hard one, if it is `1`.
const HARD: &str = "TOOLKEEP_HARD";
/// Seconds that a hard run of this process has for its proof.
const SECONDS: &str = "TOOLKEEP_PROOF_S";
/// The seed that is repeated.
const SEED: &str = "TOOLKEEP_SEED";

static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Whether everything is to be run.
#[must_use]
pub fn is_hard() -> bool {
    std::env::var_os(HARD).is_some_and(|value| value == "1")
}

/// Whether a hard run has used up its time. An ordinary one never has: its sample is small.
#[must_use]
pub fn is_over() -> bool {
    is_hard() && share().is_some_and(|share| BEGAN.elapsed() >= share)
}

/// All of the time that this process has, if it is bounded.
fn share() -> Option<Duration> {
    std::env::var(SECONDS).ok().and_then(|text| text.parse().ok()).map(Duration::from_secs)
}

/// The variable that gives a process of one's own what is left of the time.
#[must_use]
pub fn left() -> Option<(&'static str, String)> {
    share().map(|share| (SECONDS, share.saturating_sub(BEGAN.elapsed()).as_secs().to_string()))
}

/// The seed of this run: what was asked for, or the time.
#[must_use]
pub fn seed() -> u64 {
    static FOUND: LazyLock<u64> = LazyLock::new(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        std::env::var(SEED).ok().and_then(|text| text.parse().ok()).unwrap_or(now)
    });
    *FOUND
}

/// How much a proof does: the sample of an ordinary run, or what a hard one wants.
#[must_use]
pub fn size(sample: usize, hard: usize) -> usize {
    LazyLock::force(&BEGAN);
    if is_hard() { hard } else { sample }
}

/// The same things in an order that the seed makes, so that a run that is cut short has done a fair sample.
#[must_use]
pub fn shuffled<T>(mut things: Vec<T>) -> Vec<T> {
    LazyLock::force(&BEGAN);
    let mut state = seed();
    for at in (1..things.len()).rev() {
        things.swap(at, usize::try_from(split_mix(&mut state) % (at as u64 + 1)).unwrap_or(0));
    }
    things
}

/// The next number after a state (SplitMix64).
pub fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The 95 % bound on the rate of a failure that did not occur in `n` cases.
#[must_use]
pub fn bound(n: usize) -> String {
    format!("0 of {n} (95 % bound {:.5})", 3.0 / n.max(1) as f64)
}

/// Tell what was done, also when the test passes.
///
/// # Panics
/// Nobody listens.
pub fn tell(line: &str) {
    writeln!(std::io::stderr(), "{line}").expect("stderr");
}

/// What a proof has done: `G1 kill of a commit: 0 of 220 (95 % bound 0.01364) torn, seed 7; …`.
pub fn told(proof: &str, n: usize, finding: &str, more: &str) {
    tell(&format!("{proof}: {} {finding}, seed {}; {more}", bound(n), seed()));
}
