//! Repeating a call whose tool failed for a moment: how often, and after which pause.
//!
//! Attempts are repeated within the deadline of the call, never beyond it, and no more often than the rules say. Pauses grow and
//! are shaken, so that many callers that failed together do not come back together.

use serde::{Deserialize, Serialize};

use crate::manifest::BadManifest;

/// Most attempts that a manifest may ask for: all of them have to fit into one deadline.
pub const RETRY_ATTEMPTS_MAX: u32 = 10;
/// Longest pause that a manifest may ask for, in milliseconds: a minute.
pub const RETRY_PAUSE_MAX_MS: u64 = 60_000;

/// `[retry]`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetryText {
    /// Executions of one call, the first included; 1 for no retries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// Longest pause after the first attempt, in milliseconds; each further one is up to twice as long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_ms: Option<u64>,
    /// Longest pause of all, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most_ms: Option<u64>,
}

/// How often, and after which pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryRules {
    /// Executions of one call, the first included.
    pub attempts: u32,
    /// Longest pause after the first attempt, in milliseconds.
    pub base_ms: u64,
    /// Longest pause of all, in milliseconds.
    pub most_ms: u64,
}

impl Default for RetryRules {
    /// Three attempts within a second: what outlasts that is not for a moment.
    fn default() -> Self {
        Self { attempts: 3, base_ms: 100, most_ms: 2_000 }
    }
}

impl RetryText {
    /// What it means.
    ///
    /// # Errors
    /// The first key that is wrong, and why.
    pub fn check(&self) -> Result<RetryRules, BadManifest> {
        let defaults = RetryRules::default();
        let attempts = self.attempts.unwrap_or(defaults.attempts);
        if !(1..=RETRY_ATTEMPTS_MAX).contains(&attempts) {
            let problem = format!("{attempts} is not between 1 and {RETRY_ATTEMPTS_MAX}");
            return Err(BadManifest::new("retry.attempts", problem));
        }
        let pause = |key: &str, value: Option<u64>, default| match value {
            None => Ok(default),
            Some(value) if (1..=RETRY_PAUSE_MAX_MS).contains(&value) => Ok(value),
            Some(value) => {
                let problem = format!("{value} is not between 1 and {RETRY_PAUSE_MAX_MS}");
                Err(BadManifest::new(format!("retry.{key}"), problem))
            }
        };
        let base_ms = pause("base_ms", self.base_ms, defaults.base_ms)?;
        let most_ms = pause("most_ms", self.most_ms, defaults.most_ms.max(base_ms))?;
        if most_ms < base_ms {
            return Err(BadManifest::new("retry.most_ms", format!("is less than `base_ms`, {base_ms}")));
        }
        Ok(RetryRules { attempts, base_ms, most_ms })
    }
}

/// What is known of a call when an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tried {
    /// Attempts so far; at least one.
    pub attempts: u32,
    /// How long they and the pauses between them took, in milliseconds.
    pub spent_ms: u64,
    /// What the call may take in all, in milliseconds.
    pub deadline_ms: u64,
    /// What the tool asked to wait, in milliseconds.
    pub asked_ms: Option<u64>,
}

impl RetryRules {
    /// The pause before the next attempt, in milliseconds; nothing if there is none. `draw` is unpredictable.
    #[must_use]
    pub fn pause(&self, tried: Tried, draw: u64) -> Option<u64> {
        if tried.attempts >= self.attempts {
            return None;
        }
        let doubled = self.base_ms.saturating_mul(1 << tried.attempts.saturating_sub(1).min(32));
        let longest = doubled.min(self.most_ms);
        // Between half and all of it.
        let least = longest / 2;
        let shaken = least + draw % (longest - least + 1);
        let pause = shaken.max(tried.asked_ms.unwrap_or(0));
        (tried.spent_ms.saturating_add(pause) < tried.deadline_ms).then_some(pause)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tried(attempts: u32) -> Tried {
        Tried { attempts, spent_ms: 10, deadline_ms: 10_000, asked_ms: None }
    }

    #[test]
    fn r33_there_are_n_attempts_and_not_one_more() {
        let rules = RetryRules { attempts: 3, base_ms: 100, most_ms: 1_000 };
        assert!(rules.pause(tried(1), 7).is_some() && rules.pause(tried(2), 7).is_some());
        assert_eq!(rules.pause(tried(3), 7), None);
        let once = RetryText { attempts: Some(1), ..RetryText::default() }.check().expect("rules");
        assert_eq!(once.pause(tried(1), 7), None);
    }

    #[test]
    fn r33_nothing_is_repeated_that_would_not_begin_within_the_deadline() {
        let rules = RetryRules { attempts: 9, base_ms: 100, most_ms: 100 };
        let at = |spent_ms| rules.pause(Tried { spent_ms, ..tried(1) }, 50);
        assert_eq!(at(9_899), Some(100));
        assert_eq!(at(9_900), None);
        let asked = Tried { asked_ms: Some(9_990), ..tried(1) };
        assert_eq!(rules.pause(asked, 0), None, "nor one that the tool wants later than that");
        assert_eq!(rules.pause(Tried { asked_ms: Some(9_000), ..tried(1) }, 0), Some(9_000));
    }

    #[test]
    fn r33_wrong_rules_are_refused_by_their_key() {
        let key = |text: RetryText| text.check().map_err(|bad| bad.key);
        let attempts = |n| key(RetryText { attempts: Some(n), ..RetryText::default() });
        assert!(attempts(1).is_ok() && attempts(RETRY_ATTEMPTS_MAX).is_ok());
        assert_eq!(attempts(0), Err("retry.attempts".to_owned()));
        assert_eq!(attempts(RETRY_ATTEMPTS_MAX + 1), Err("retry.attempts".to_owned()));
        let base = |ms| key(RetryText { base_ms: Some(ms), ..RetryText::default() });
        assert!(base(1).is_ok() && base(RETRY_PAUSE_MAX_MS).is_ok());
        assert_eq!(base(0), Err("retry.base_ms".to_owned()));
        assert_eq!(base(RETRY_PAUSE_MAX_MS + 1), Err("retry.base_ms".to_owned()));
        let less = RetryText { base_ms: Some(100), most_ms: Some(99), attempts: None };
        assert_eq!(key(less), Err("retry.most_ms".to_owned()));
    }

    proptest! {
        #[test]
        fn r33_a_pause_is_at_least_half_of_its_longest_and_never_longer_unless_it_is_asked(
            attempts in 1_u32..9, draw in any::<u64>(), base in 1_u64..5_000, most in 5_000_u64..60_000,
        ) {
            let rules = RetryRules { attempts: 10, base_ms: base, most_ms: most };
            let long = Tried { attempts, spent_ms: 0, deadline_ms: u64::MAX, asked_ms: None };
            let pause = rules.pause(long, draw).expect("a pause");
            let longest = (base << (attempts - 1)).min(most);
            prop_assert!(pause >= longest / 2 && pause <= longest);
        }
    }
}
