//! `[retention]` and `[privacy]`: how long what is kept, and who may read it.
//!
//! Ages are texts such as `7d`. What a class does not say follows `[ledger] keep_days` and `undo_days`. Rules that would
//! contradict each other are refused here: a reply is kept as long as the key that names it, and a payload that only
//! operators can open cannot answer a retry.

use serde::Deserialize;

use super::{ConfigError, LedgerBounds};
use crate::ledger::{Class, Cutoffs, Keep};
use crate::vault::Recipients;

/// Longest age, in milliseconds: a hundred years.
pub const AGE_MAX_MS: u64 = 36_500 * 86_400_000;
/// How long the daemon can read what is encrypted to operators, where nothing is said.
const READABLE_MS: u64 = 86_400_000;

/// `[retention]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionText {
    /// Calls of tools of tier 0.
    pub tier0: Option<String>,
    /// Of tier 1.
    pub tier1: Option<String>,
    /// Of tier 2.
    pub tier2: Option<String>,
    /// Of tier 3, and of tools without one.
    pub tier3: Option<String>,
    /// Calls that were refused before they ran.
    pub refused: Option<String>,
    /// Calls whose plan was never committed.
    pub expired: Option<String>,
    /// Inputs, outputs and replies.
    pub payloads: Option<String>,
    /// Recordings.
    pub recordings: Option<String>,
    /// Idempotency keys.
    pub keys: Option<String>,
    /// Contents that undo needs; instead of `ledger.undo_days`.
    pub contents: Option<String>,
}

/// `[privacy]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrivacyText {
    /// Whom payloads are encrypted to, `age1...`; nobody if absent.
    pub recipients: Option<Vec<String>>,
    /// How long the daemon itself can read them, after the day on which they were written.
    pub readable: Option<String>,
}

/// How long each class is kept, in milliseconds after the end of its call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionRules {
    ages: [Option<u64>; Class::ALL.len()],
    keep_ms: u64,
}

impl RetentionRules {
    /// How long a class is kept; nothing where it goes with its call, or, for contents, stays until it is undone.
    #[must_use]
    pub fn age(&self, class: Class) -> Option<u64> {
        let at = Class::ALL.iter().position(|known| *known == class)?;
        let own = self.ages.get(at).copied().flatten();
        match class {
            Class::Contents | Class::Keys | Class::Payloads | Class::Recordings => own,
            Class::Refused | Class::Expired | Class::Tier(_) => Some(own.unwrap_or(self.keep_ms)),
        }
    }

    /// What is kept at this time.
    #[must_use]
    pub fn at(&self, now_ms: u64) -> Keep {
        let since = |class| self.age(class).map(|age| now_ms.saturating_sub(age));
        let [.., tier0, tier1, tier2, tier3] = Class::ALL;
        let cutoffs = Cutoffs {
            keys: since(Class::Keys),
            payloads: since(Class::Payloads),
            recordings: since(Class::Recordings),
            refused: since(Class::Refused),
            expired: since(Class::Expired),
            tiers: [tier0, tier1, tier2, tier3].map(since),
        };
        Keep { since_ms: now_ms.saturating_sub(self.keep_ms), undo_since_ms: since(Class::Contents), cutoffs }
    }
}

/// Who may read payloads.
#[derive(Debug, Clone, PartialEq)]
pub struct PrivacyConfig {
    /// Whom they are encrypted to; nobody for payloads that whoever has the files can read.
    pub recipients: Option<Recipients>,
    /// How long the daemon can read them after the day on which they were written, in milliseconds.
    pub readable_ms: u64,
}

fn age(key: &str, text: Option<&str>) -> Result<Option<u64>, ConfigError> {
    let Some(text) = text else { return Ok(None) };
    let units = [('s', 1_000), ('m', 60_000), ('h', 3_600_000), ('d', 86_400_000)];
    let read = units.iter().find_map(|(unit, ms)| {
        let count = text.strip_suffix(*unit).filter(|count| count.bytes().all(|byte| byte.is_ascii_digit()))?;
        count.parse::<u64>().ok()?.checked_mul(*ms)
    });
    match read.filter(|ms| (1..=AGE_MAX_MS).contains(ms)) {
        Some(ms) => Ok(Some(ms)),
        None => Err(ConfigError::value(
            key,
            format!("`{text}` is no age; write a number and `s`, `m`, `h` or `d`, at most `36500d`"),
        )),
    }
}

/// What both sections mean.
///
/// # Errors
/// An age or a recipient cannot be read, or rules contradict each other.
pub fn check(
    retention: &RetentionText,
    privacy: &PrivacyText,
    bounds: LedgerBounds,
) -> Result<(RetentionRules, PrivacyConfig), ConfigError> {
    let of = |name: &str, text: &Option<String>| age(&format!("retention.{name}"), text.as_deref());
    let recipients = match &privacy.recipients {
        None => None,
        Some(texts) => {
            let wrong = |error: crate::vault::VaultError| ConfigError::value("privacy.recipients", error.to_string());
            Some(Recipients::of(texts).map_err(wrong)?)
        }
    };
    let readable_ms = age("privacy.readable", privacy.readable.as_deref())?.unwrap_or(READABLE_MS);
    let payloads = of("payloads", &retention.payloads)?;
    let readable = recipients.as_ref().map(|_| readable_ms);
    // Whatever ends first: then there is nothing left that a retry could be answered with.
    let reply = payloads.into_iter().chain(readable).min();
    let keys = of("keys", &retention.keys)?;
    if let (Some(keys), Some(reply)) = (keys, reply)
        && keys > reply
    {
        let problem = "is longer than replies can be read (`retention.payloads`, or `privacy.readable` where there are \
                       recipients); a retry could not be answered";
        return Err(ConfigError::value("retention.keys", problem));
    }
    let ages = [
        of("contents", &retention.contents)?.or(bounds.undo_ms),
        keys.or(reply),
        payloads,
        of("recordings", &retention.recordings)?,
        of("refused", &retention.refused)?,
        of("expired", &retention.expired)?,
        of("tier0", &retention.tier0)?,
        of("tier1", &retention.tier1)?,
        of("tier2", &retention.tier2)?,
        of("tier3", &retention.tier3)?,
    ];
    Ok((RetentionRules { ages, keep_ms: bounds.keep_ms }, PrivacyConfig { recipients, readable_ms }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use toolkeep_core::tier::Tier;

    const DAY_MS: u64 = 86_400_000;

    fn checked(retention: &str, privacy: &str) -> Result<(RetentionRules, PrivacyConfig), String> {
        let retention = toml::from_str(retention).expect("a shape");
        let privacy = toml::from_str(privacy).expect("a shape");
        check(&retention, &privacy, LedgerBounds::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn r42_what_a_class_does_not_say_follows_the_ledger() {
        let (rules, privacy) = checked("", "").expect("nothing");
        assert_eq!((privacy.recipients, privacy.readable_ms), (None, READABLE_MS));
        assert_eq!(rules.age(Class::Contents), None);
        for class in Class::ALL.into_iter().skip(4) {
            assert_eq!(rules.age(class), Some(90 * DAY_MS), "{class:?}");
        }
        assert_eq!([Class::Keys, Class::Payloads, Class::Recordings].map(|class| rules.age(class)), [None; 3]);
        let keep = rules.at(100 * DAY_MS);
        assert_eq!((keep.since_ms, keep.of(Class::Tier(Tier::ReadOnly))), (10 * DAY_MS, Some(10 * DAY_MS)));
        let (rules, _) =
            checked("tier0 = \"7d\"\ntier3 = \"3650d\"\nrefused = \"12h\"\ncontents = \"30d\"", "").expect("ages");
        let keep = rules.at(100 * DAY_MS);
        assert_eq!(keep.of(Class::Tier(Tier::ReadOnly)), Some(93 * DAY_MS));
        assert_eq!(keep.of(Class::Tier(Tier::Reversible)), Some(10 * DAY_MS));
        assert_eq!(keep.of(Class::Tier(Tier::Irreversible)), Some(0), "longer than there is time");
        assert_eq!((keep.of(Class::Refused), keep.undo_since_ms), (Some(99 * DAY_MS + DAY_MS / 2), Some(70 * DAY_MS)));
    }

    #[test]
    fn r42_ages_are_bounded_and_a_reply_is_kept_as_long_as_its_key() {
        for (text, fine) in
            [("36500d", true), ("36501d", false), ("1s", true), ("0s", false), ("7", false), ("d", false)]
        {
            assert_eq!(checked(&format!("tier1 = \"{text}\""), "").is_ok(), fine, "{text}");
        }
        let keys =
            |retention: &str, privacy: &str| checked(retention, privacy).map(|(rules, _)| rules.age(Class::Keys));
        let (_, recipient) = crate::vault::keygen(&crate::ambient::Ambient::real());
        let to = format!("recipients = [\"{recipient}\"]");
        assert_eq!(keys("payloads = \"7d\"", ""), Ok(Some(7 * DAY_MS)));
        assert_eq!(keys("payloads = \"7d\"\nkeys = \"7d\"", ""), Ok(Some(7 * DAY_MS)));
        assert!(keys("payloads = \"7d\"\nkeys = \"8d\"", "").expect_err("longer").contains("retention.keys"));
        assert_eq!(keys("keys = \"8d\"", ""), Ok(Some(8 * DAY_MS)));
        assert_eq!(keys("payloads = \"7d\"", &to), Ok(Some(DAY_MS)));
        assert_eq!(keys("", &format!("{to}\nreadable = \"2d\"")), Ok(Some(2 * DAY_MS)));
        assert!(keys("keys = \"3d\"", &format!("{to}\nreadable = \"2d\"")).is_err());
        assert!(checked("", "recipients = []").is_err() && checked("", "recipients = [\"x\"]").is_err());
    }
}
