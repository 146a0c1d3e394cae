//! Buckets: how often something may happen, as a pure function over one number.
//!
//! The generic cell rate algorithm (ITU-T I.371, the leaky bucket as a meter): the number is the time at which the bucket
//! would be empty of everything taken so far. A bucket holds `burst` and refills evenly, so in any period at most the
//! number of the rate plus `burst` pass. Nobody has to refill it, and one that is full again needs not be remembered.

use std::fmt;
use std::str::FromStr;

/// Most that a rate or a quota may allow in its period: more is no limit.
pub const ALLOWANCE_MAX: u64 = 1_000_000;
const NS_PER_MS: u64 = 1_000_000;

/// So much in a period: `100/min`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    most: u64,
    period: Period,
}

/// A period of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Period {
    Second,
    Minute,
    Hour,
    Day,
}

impl Period {
    const ALL: [Self; 4] = [Self::Second, Self::Minute, Self::Hour, Self::Day];

    const fn word(self) -> &'static str {
        match self {
            Self::Second => "s",
            Self::Minute => "min",
            Self::Hour => "h",
            Self::Day => "day",
        }
    }

    const fn ms(self) -> u64 {
        match self {
            Self::Second => 1_000,
            Self::Minute => 60_000,
            Self::Hour => 3_600_000,
            Self::Day => 86_400_000,
        }
    }
}

/// Why a text is no allowance.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not so much in a period: write 1 to {ALLOWANCE_MAX}, `/`, and `s`, `min`, `h` or `day`, for example `100/min`"
)]
pub struct NotAnAllowance {
    text: String,
}

impl Allowance {
    /// So much in a minute, at least one and at most [`ALLOWANCE_MAX`].
    #[must_use]
    pub const fn per_minute(most: u64) -> Self {
        let most = if most == 0 {
            1
        } else if most > ALLOWANCE_MAX {
            ALLOWANCE_MAX
        } else {
            most
        };
        Self { most, period: Period::Minute }
    }

    /// How much.
    #[must_use]
    pub const fn most(self) -> u64 {
        self.most
    }

    /// In how long, in milliseconds.
    #[must_use]
    pub const fn period_ms(self) -> u64 {
        self.period.ms()
    }
}

impl FromStr for Allowance {
    type Err = NotAnAllowance;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = || NotAnAllowance { text: text.chars().take(40).collect() };
        let (number, word) = text.split_once('/').ok_or_else(refuse)?;
        // `parse` would take a sign.
        let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        let most =
            number.parse().ok().filter(|most| digits && (1..=ALLOWANCE_MAX).contains(most)).ok_or_else(refuse)?;
        let period = Period::ALL.into_iter().find(|period| period.word() == word).ok_or_else(refuse)?;
        Ok(Self { most, period })
    }
}

impl fmt::Display for Allowance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.most, self.period.word())
    }
}

/// A rate: an allowance, and how much of it may come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    allowance: Allowance,
    burst: u64,
}

/// When a bucket is empty of everything taken so far: nanoseconds of a clock that only goes forward.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Level(u64);

impl From<Allowance> for Rate {
    /// All of which may come at once.
    fn from(allowance: Allowance) -> Self {
        Self { allowance, burst: allowance.most }
    }
}

impl Rate {
    /// A rate of which `burst` may come at once; all of it if absent. Nothing if `burst` is none.
    #[must_use]
    pub fn new(allowance: Allowance, burst: Option<u64>) -> Option<Self> {
        let burst = burst.unwrap_or(allowance.most);
        (1..=ALLOWANCE_MAX).contains(&burst).then_some(Self { allowance, burst })
    }

    /// So much in a period.
    #[must_use]
    pub const fn allowance(&self) -> Allowance {
        self.allowance
    }

    /// Nanoseconds between two that come evenly.
    const fn interval_ns(&self) -> u64 {
        (self.allowance.period_ms() * NS_PER_MS).div_ceil(self.allowance.most)
    }

    /// Take one from a bucket at `now_ns`. What is left of the bucket.
    ///
    /// # Errors
    /// There is none; how long until there is, in nanoseconds.
    pub const fn take(&self, level: Level, now_ns: u64) -> Result<Level, u64> {
        let interval = self.interval_ns();
        let from = if level.0 > now_ns { level.0 } else { now_ns };
        let Some(next) = from.checked_add(interval) else { return Err(interval) };
        let room_at = next.saturating_sub(interval.saturating_mul(self.burst));
        if room_at > now_ns { Err(room_at - now_ns) } else { Ok(Level(next)) }
    }

    /// Give one back that was taken from the same bucket.
    #[must_use]
    pub const fn give_back(&self, level: Level) -> Level {
        Level(level.0.saturating_sub(self.interval_ns()))
    }
}

impl Level {
    /// Whether the bucket is full at `now_ns`, so that it is like one that was never used.
    #[must_use]
    pub const fn is_full(self, now_ns: u64) -> bool {
        self.0 <= now_ns
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(text: &str, burst: Option<u64>) -> Rate {
        Rate::new(text.parse().expect("an allowance"), burst).expect("a rate")
    }

    /// How many of those that ask at these times are let through.
    fn passed(rate: &Rate, times: impl IntoIterator<Item = u64>) -> usize {
        let mut level = Level::default();
        let taken = times.into_iter().filter(|now| match rate.take(level, *now) {
            Ok(next) => {
                level = next;
                true
            }
            Err(_) => false,
        });
        taken.count()
    }

    #[test]
    fn r29_a_bucket_gives_n_and_not_one_more_until_one_is_back() {
        for (text, burst, n) in
            [("100/min", None, 100), ("100/min", Some(7), 7), ("1/day", None, 1), ("3/s", Some(5), 5)]
        {
            let rate = rate(text, burst);
            assert_eq!(passed(&rate, std::iter::repeat_n(5, n + 3)), n, "{text} {burst:?}");
        }
        let minute = rate("60/min", None);
        let mut level = Level::default();
        for _ in 0..60 {
            level = minute.take(level, 0).expect("there is one");
        }
        assert_eq!(minute.take(level, 0), Err(1_000_000_000), "it says how long to wait");
        assert_eq!(minute.take(level, 999_999_999), Err(1), "and means it");
        let level = minute.take(level, 1_000_000_000).expect("one is back");
        assert!(minute.take(level, 1_000_000_000).is_err());
        assert!(minute.take(minute.give_back(level), 1_000_000_000).is_ok(), "what is given back can be taken");
    }

    #[test]
    fn r29_what_is_no_allowance_is_refused_with_one_that_is() {
        for text in ["1/s", "100/min", "5/h", "1000000/day"] {
            assert_eq!(text.parse::<Allowance>().map(|allowance| allowance.to_string()).as_deref(), Ok(text));
        }
        for text in [
            "",
            "/",
            "0/s",
            "1000001/day",
            "+1/s",
            "-1/s",
            "1",
            "1/",
            "1/minute",
            "1 /s",
            "1/s ",
            "a/s",
            "1/s/s",
            "1e3/s",
        ] {
            let refused = text.parse::<Allowance>().expect_err(text).to_string();
            assert!(refused.contains("100/min"), "{refused}");
        }
        let one: Allowance = "1/s".parse().expect("an allowance");
        assert!(Rate::new(one, Some(0)).is_none() && Rate::new(one, Some(ALLOWANCE_MAX + 1)).is_none());
        assert!(Rate::new(one, Some(ALLOWANCE_MAX)).is_some());
    }

    #[test]
    fn t_o2_a_clock_at_its_end_refuses_and_does_not_break() {
        let rate = rate("1/day", None);
        assert!(rate.take(Level(u64::MAX), u64::MAX - 1).is_err());
        assert!(rate.take(Level(u64::MAX), u64::MAX).is_err());
        assert!(rate.take(Level::default(), u64::MAX - 86_400_000_000_000).is_ok());
    }

    proptest! {
        #[test]
        fn r29_in_any_period_at_most_the_rate_and_its_burst_pass(
            most in 1_u64..50, burst in 1_u64..50, gaps in prop::collection::vec(0_u64..50_000_000, 1..400),
        ) {
            let rate = rate(&format!("{most}/s"), Some(burst));
            let (mut level, mut now, mut let_through) = (Level::default(), 0_u64, Vec::new());
            for gap in gaps {
                now += gap;
                match rate.take(level, now) {
                    Ok(next) => {
                        level = next;
                        let_through.push(now);
                    }
                    Err(wait) => {
                        prop_assert!(wait > 0 && rate.take(level, now + wait).is_ok());
                        prop_assert!(rate.take(level, now + wait - 1).is_err());
                    }
                }
            }
            for (at, from) in let_through.iter().enumerate() {
                let within = let_through.iter().skip(at).take_while(|time| **time < from + 1_000_000_000).count() as u64;
                prop_assert!(within <= most + burst, "{within} in a second");
            }
        }
    }
}
