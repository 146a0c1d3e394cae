//! The only place that reads the clock, randomness and the environment.
//!
//! Everything else is handed an [`Ambient`], so that a test can hold time still, draw the same randomness twice and
//! show an empty environment. It reads nothing else: no files, no network, no process state.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use toolkeep_core::digest::Digest;
use uuid::Uuid;

/// Nanoseconds in a millisecond.
const NS_PER_MS: u64 = 1_000_000;
/// Bytes of randomness that are drawn from the kernel at a time: enough for some ten calls.
const RESERVE_BYTES: usize = 1024;

/// Clock, randomness and environment. Cheap to clone; clones share one source.
#[derive(Debug, Clone)]
pub struct Ambient(Source);

#[derive(Debug, Clone)]
enum Source {
    Real(Arc<Mutex<Reserve>>),
    Fixed(Arc<Fixed>),
}

/// A clock that stands still, randomness that repeats, and an environment of its own.
#[derive(Debug)]
struct Fixed {
    now_ns: AtomicU64,
    drawn: AtomicU64,
    seed: u64,
    vars: BTreeMap<String, String>,
}

impl Ambient {
    /// The machine's own clock, randomness and environment.
    #[must_use]
    pub fn real() -> Self {
        Self(Source::Real(Arc::new(Mutex::new(Reserve { bytes: [0; RESERVE_BYTES], left: 0 }))))
    }

    /// For tests: time stands at `now_ms` until [`Ambient::advance`] moves it, randomness follows from `seed`, and the
    /// environment holds exactly `vars`.
    #[must_use]
    pub fn fixed(now_ms: u64, seed: u64, vars: BTreeMap<String, String>) -> Self {
        let now_ns = AtomicU64::new(now_ms.saturating_mul(NS_PER_MS));
        Self(Source::Fixed(Arc::new(Fixed { now_ns, drawn: AtomicU64::new(0), seed, vars })))
    }

    /// Move a fixed clock forward. The real clock moves by itself and ignores this.
    pub fn advance(&self, by: Duration) {
        if let Source::Fixed(fixed) = &self.0 {
            let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
            let moved = |now: u64| Some(now.saturating_add(by));
            let _previous = fixed.now_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, moved);
        }
    }

    /// Nanoseconds since the Unix epoch; 0 for a clock that stands before it, the largest number after the year 2554.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    pub fn now_ns(&self) -> u64 {
        match &self.0 {
            Source::Real(_) => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
                u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
            }
            Source::Fixed(fixed) => fixed.now_ns.load(Ordering::Relaxed),
        }
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.now_ns() / NS_PER_MS
    }

    /// Start measuring elapsed time. It does not follow changes of the wall clock.
    #[must_use]
    pub fn stopwatch(&self) -> Stopwatch {
        Stopwatch(match &self.0 {
            Source::Real(_) => Started::Real(Instant::now()),
            Source::Fixed(fixed) => Started::Fixed(Arc::clone(fixed), fixed.now_ns.load(Ordering::Relaxed)),
        })
    }

    /// `N` unpredictable bytes from the kernel.
    ///
    /// A machine without randomness cannot make an unpredictable name, nonce or key, and every caller would have to
    /// stop; so the process is aborted instead, which recovery treats like any other crash.
    #[must_use]
    pub fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0_u8; N];
        match &self.0 {
            Source::Real(reserve) => reserve.lock().unwrap_or_else(PoisonError::into_inner).take(&mut bytes),
            Source::Fixed(fixed) => fixed.fill(&mut bytes),
        }
        bytes
    }

    /// A new UUIDv7 (RFC 9562): sorts by the time of its making, to the millisecond.
    #[must_use]
    pub fn uuid_v7(&self) -> Uuid {
        uuid::Builder::from_unix_timestamp_millis(self.now_ms(), &self.random()).into_uuid()
    }

    /// An environment variable; absent as well if it is not UTF-8.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    pub fn var(&self, name: &str) -> Option<String> {
        match &self.0 {
            Source::Real(_) => std::env::var(name).ok(),
            Source::Fixed(fixed) => fixed.vars.get(name).cloned(),
        }
    }

    /// Every environment variable whose name starts with `prefix`, sorted by name; those that are not UTF-8 are left
    /// out.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    pub fn vars(&self, prefix: &str) -> BTreeMap<String, String> {
        match &self.0 {
            Source::Real(_) => std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .filter(|(name, _)| name.starts_with(prefix))
                .collect(),
            Source::Fixed(fixed) => fixed
                .vars
                .iter()
                .filter(|(name, _)| name.starts_with(prefix))
                .map(|(n, v)| (n.clone(), v.clone()))
                .collect(),
        }
    }
}

/// Randomness of the kernel that nobody was given yet. What is given is overwritten here.
struct Reserve {
    bytes: [u8; RESERVE_BYTES],
    left: usize,
}

impl fmt::Debug for Reserve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reserve({} bytes)", self.left)
    }
}

impl Reserve {
    fn take(&mut self, wanted: &mut [u8]) {
        if wanted.len() > self.left {
            draw(&mut self.bytes);
            self.left = RESERVE_BYTES;
        }
        match self.left.checked_sub(wanted.len()).and_then(|start| Some((start, self.bytes.get_mut(start..self.left)?)))
        {
            Some((start, given)) => {
                wanted.copy_from_slice(given);
                given.fill(0);
                self.left = start;
            }
            // More than the reserve holds.
            None => draw(wanted),
        }
    }
}

fn draw(bytes: &mut [u8]) {
    if getrandom::fill(bytes).is_err() {
        tracing::error!("the kernel gives no randomness");
        std::process::abort();
    }
}

impl Fixed {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(toolkeep_core::digest::DIGEST_BYTES) {
            let count = self.drawn.fetch_add(1, Ordering::Relaxed);
            let block = Digest::of_parts("toolkeep.fixed.v1", &[&self.seed.to_be_bytes(), &count.to_be_bytes()]);
            for (slot, byte) in chunk.iter_mut().zip(block.as_bytes()) {
                *slot = *byte;
            }
        }
    }
}

/// Elapsed time since [`Ambient::stopwatch`].
#[derive(Debug, Clone)]
pub struct Stopwatch(Started);

#[derive(Debug, Clone)]
enum Started {
    Real(Instant),
    Fixed(Arc<Fixed>, u64),
}

impl Stopwatch {
    /// Time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        match &self.0 {
            Started::Real(start) => start.elapsed(),
            Started::Fixed(fixed, start) => {
                Duration::from_nanos(fixed.now_ns.load(Ordering::Relaxed).saturating_sub(*start))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_source_repeats_and_its_clock_moves_only_when_told() {
        let make = || Ambient::fixed(1_000, 7, BTreeMap::from([("A_B".to_owned(), "x".to_owned())]));
        let (one, two) = (make(), make());
        assert_eq!(one.random::<40>(), two.random::<40>());
        assert_ne!(one.random::<16>(), one.random::<16>());
        let watch = one.stopwatch();
        assert_eq!((one.now_ms(), watch.elapsed()), (1_000, Duration::ZERO));
        one.clone().advance(Duration::from_millis(5));
        assert_eq!((one.now_ms(), watch.elapsed()), (1_005, Duration::from_millis(5)));
        assert_eq!(one.var("A_B").as_deref(), Some("x"));
        assert_eq!((one.var("HOME"), one.vars("A_").len(), one.vars("B").len()), (None, 1, 0));
    }

    #[test]
    fn t_o2_the_clock_saturates_and_a_uuid_carries_the_millisecond() {
        let late = Ambient::fixed(u64::MAX, 1, BTreeMap::new());
        late.advance(Duration::MAX);
        assert_eq!(late.now_ns(), u64::MAX);
        let ambient = Ambient::fixed(0x0123_4567_89ab, 1, BTreeMap::new());
        let id = ambient.uuid_v7();
        assert_eq!(id.get_version_num(), 7);
        assert!(id.as_simple().to_string().starts_with("0123456789ab"));
        assert_ne!(id, ambient.uuid_v7());
        assert!(Ambient::real().now_ms() > 1_600_000_000_000);
        assert_ne!(Ambient::real().random::<32>(), Ambient::real().random::<32>());
    }

    #[test]
    fn randomness_is_given_once_whatever_its_size_and_overwritten_where_it_was() {
        let ambient = Ambient::real();
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..200 {
            assert!(seen.insert(ambient.random::<16>().to_vec()));
            assert!(seen.insert(ambient.random::<33>().to_vec()));
        }
        assert!(seen.insert(ambient.random::<RESERVE_BYTES>().to_vec()));
        assert!(seen.insert(ambient.random::<{ RESERVE_BYTES + 1 }>().to_vec()));
        let mut reserve = Reserve { bytes: [7; RESERVE_BYTES], left: RESERVE_BYTES };
        let mut given = [0; 16];
        reserve.take(&mut given);
        assert_eq!((given, reserve.left), ([7; 16], RESERVE_BYTES - 16));
        assert_eq!(reserve.bytes[RESERVE_BYTES - 16..], [0; 16]);
    }
}
