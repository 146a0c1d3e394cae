//! Grants of buckets: which keys a tool may read and change.

use globset::{GlobBuilder, GlobMatcher};
use serde::{Deserialize, Serialize};

use super::PATTERNS_MAX;
use crate::id::BucketName;
use crate::manifest::{AccessText, BadManifest};

/// Longest key of a bucket, in bytes.
pub const KEY_BYTES_MAX: usize = 512;
/// Largest value of a key, in bytes: what fits a ledger row; files are for more.
pub const VALUE_BYTES_MAX: usize = 64 * 1024;

/// `[[keys]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeysText {
    /// The bucket. It belongs to the tenant and exists when it is first written.
    pub bucket: BucketName,
    /// `read` or `write`.
    pub access: AccessText,
    /// Patterns of keys; default all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<Vec<String>>,
}

/// A checked entry of `[[keys]]`.
#[derive(Debug, Clone)]
pub struct KeysGrant {
    /// The bucket.
    pub bucket: BucketName,
    /// Whether keys may be changed.
    pub writes: bool,
    /// The patterns of keys, as written.
    pub keys: Vec<String>,
    matchers: Vec<GlobMatcher>,
}

impl KeysGrant {
    /// Whether the key is granted.
    #[must_use]
    pub fn allows(&self, key: &str) -> bool {
        self.matchers.iter().any(|matcher| matcher.is_match(key))
    }
}

impl KeysText {
    /// What the entry means.
    ///
    /// # Errors
    /// The first key that is wrong, and why.
    pub fn check(&self) -> Result<KeysGrant, BadManifest> {
        let at = || format!("keys.{}.keys", self.bucket);
        let keys = self.keys.clone().unwrap_or_else(|| vec!["**".to_owned()]);
        if keys.len() > PATTERNS_MAX {
            return Err(BadManifest::new(at(), format!("{} patterns; at most {PATTERNS_MAX}", keys.len())));
        }
        let compile = |pattern: &String| {
            let glob = GlobBuilder::new(pattern).literal_separator(true).backslash_escape(false).build();
            glob.map(|glob| glob.compile_matcher())
                .map_err(|error| BadManifest::new(at(), format!("`{pattern}`: {}", error.kind())))
        };
        Ok(KeysGrant {
            bucket: self.bucket.clone(),
            writes: self.access == AccessText::Write,
            matchers: keys.iter().map(compile).collect::<Result<_, _>>()?,
            keys,
        })
    }
}

/// Why a text is not a key of a bucket, if it is not one: 1 to [`KEY_BYTES_MAX`] bytes without control characters, and
/// without `*`, which stands for many keys in grants and read sets.
#[must_use]
pub fn key_problem(key: &str) -> Option<&'static str> {
    if key.is_empty() {
        Some("a key is not empty")
    } else if key.len() > KEY_BYTES_MAX {
        Some("a key has at most 512 bytes")
    } else if key.chars().any(char::is_control) {
        Some("a key has no control characters")
    } else if key.contains('*') {
        Some("a key has no `*`")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_are_matched_by_their_patterns_and_bounded() {
        let text: KeysText =
            serde_json::from_value(json!({"bucket": "counts", "access": "write", "keys": ["day/*"]})).expect("text");
        let grant = text.check().expect("valid");
        assert!(grant.writes && grant.allows("day/1") && !grant.allows("day/1/x") && !grant.allows("x"));
        assert_eq!(key_problem(&"k".repeat(KEY_BYTES_MAX)), None);
        for wrong in ["k".repeat(KEY_BYTES_MAX + 1), String::new(), "a\n".to_owned(), "a*".to_owned()] {
            assert!(key_problem(&wrong).is_some(), "{wrong:?}");
        }
    }
}
