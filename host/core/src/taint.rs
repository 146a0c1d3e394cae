//! Taint: what a run, a call or a plan has seen that policy has to know about.
//!
//! Content that strangers may have written (*untrusted*) can hold instructions; content that must not leave (*private*) is
//! what such instructions are after. Taint only ever grows: nothing in a run takes it away. Where it comes from is declared by
//! the operator in the manifest ([`Marks`]), or found by the screen; it is never guessed from what a model says.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::capability::SensitiveClass;
use crate::id::WorkspaceName;
use crate::manifest::ManifestText;
use crate::plan::{Observation, ReadEntry};

/// What was seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Taint {
    /// What strangers may have written.
    #[serde(default)]
    pub untrusted: bool,
    /// What must not leave.
    #[serde(default)]
    pub private: bool,
}

impl Taint {
    /// Nothing that matters.
    pub const NONE: Self = Self { untrusted: false, private: false };
    /// Content of strangers.
    pub const UNTRUSTED: Self = Self { untrusted: true, private: false };
    /// Private content.
    pub const PRIVATE: Self = Self { untrusted: false, private: true };

    /// Both together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self { untrusted: self.untrusted || other.untrusted, private: self.private || other.private }
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        !self.untrusted && !self.private
    }

    /// Whether everything of `other` is in this one.
    #[must_use]
    pub const fn covers(self, other: Self) -> bool {
        (self.untrusted || !other.untrusted) && (self.private || !other.private)
    }

    /// The words for it, as labels of replies.
    pub fn words(self) -> impl Iterator<Item = &'static str> {
        [self.untrusted.then_some("untrusted"), self.private.then_some("private")].into_iter().flatten()
    }
}

/// What the operator says in a manifest about the places that a tool reads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks {
    /// Whatever the tool returns.
    own: Taint,
    /// Files of these workspaces.
    workspaces: BTreeMap<WorkspaceName, Taint>,
    /// Answers of other systems.
    http: Taint,
    /// Whether a file of the credentials class can be read at all.
    credentials: bool,
}

impl Marks {
    /// The marks of a manifest.
    #[must_use]
    pub fn of(manifest: &ManifestText) -> Self {
        let taint = |untrusted, private| Taint { untrusted, private };
        let marked = manifest.workspaces.iter().map(|grant| (&grant.name, taint(grant.untrusted, grant.private)));
        let class = SensitiveClass::Credentials.name();
        Self {
            own: taint(manifest.untrusted, manifest.private),
            workspaces: marked
                .filter(|(_, taint)| !taint.is_none())
                .map(|(name, taint)| (name.clone(), taint))
                .collect(),
            http: manifest.http.iter().fold(Taint::NONE, |all, grant| all.and(taint(grant.untrusted, grant.private))),
            credentials: manifest.workspaces.iter().any(|grant| grant.sensitive.iter().any(|word| word == class)),
        }
    }

    /// Whether nothing that the tool may read is marked: then nobody needs to look at what it read.
    #[must_use]
    pub fn is_none(&self) -> bool {
        !self.credentials && self.all().is_none()
    }

    /// Everything that the tool may have seen: for an execution that did not say what it read.
    #[must_use]
    pub fn all(&self) -> Taint {
        let credentials = if self.credentials { Taint::PRIVATE } else { Taint::NONE };
        self.workspaces.values().fold(self.own.and(self.http).and(credentials), |all, taint| all.and(*taint))
    }

    /// What an execution has seen that observed `reads` and, if `answered`, got answers of other systems.
    #[must_use]
    pub fn seen(&self, reads: &[ReadEntry], answered: bool) -> Taint {
        let mut seen = self.own;
        if answered {
            seen = seen.and(self.http);
        }
        for entry in reads {
            // That a path does not exist, or how large something is, is not its content.
            if matches!(entry.observation, Observation::Absent | Observation::Stat { .. }) {
                continue;
            }
            seen = seen.and(self.workspaces.get(&entry.workspace).copied().unwrap_or(Taint::NONE));
            if self.credentials && SensitiveClass::of(&entry.path) == Some(SensitiveClass::Credentials) {
                seen = seen.and(Taint::PRIVATE);
            }
        }
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use serde_json::json;

    fn marks(edit: impl FnOnce(&mut serde_json::Value)) -> Marks {
        let mut value = json!({"format": 1, "name": "t", "component": "t.wasm", "tier": 2,
            "workspace": [{"name": "inbox", "access": "read", "untrusted": true},
                {"name": "books", "access": "read", "private": true},
                {"name": "src", "access": "read", "sensitive": ["credentials"]}],
            "http": [{"name": "web", "origin": "https://example.com", "untrusted": true}]});
        edit(&mut value);
        Marks::of(&serde_json::from_value(value).expect("a manifest"))
    }

    fn read(workspace: &str, path: &str, content: bool) -> ReadEntry {
        let observation = match content {
            true => Observation::Content { offset: 0, length: 1, sha256: Digest::of(b"x") },
            false => Observation::Absent,
        };
        ReadEntry { workspace: workspace.parse().expect("name"), path: path.parse().expect("path"), observation }
    }

    #[test]
    fn r37_what_was_read_says_what_was_seen() {
        let marks = marks(|_| ());
        let seen = |reads: &[ReadEntry], answered| marks.seen(reads, answered);
        assert_eq!(seen(&[], false), Taint::NONE);
        assert_eq!(seen(&[read("inbox", "a.eml", true)], false), Taint::UNTRUSTED);
        assert_eq!(seen(&[read("inbox", "a.eml", false)], false), Taint::NONE, "that it is absent says nothing");
        assert_eq!(seen(&[read("books", "a.csv", true)], false), Taint::PRIVATE);
        assert_eq!(seen(&[read("src", "main.rs", true)], false), Taint::NONE);
        assert_eq!(seen(&[read("src", ".env", true)], false), Taint::PRIVATE, "credentials are private unsaid");
        assert_eq!(seen(&[], true), Taint::UNTRUSTED);
        assert_eq!(seen(&[read("books", "a", true)], true), Taint { untrusted: true, private: true });
        assert_eq!(marks.all(), Taint { untrusted: true, private: true });
    }

    #[test]
    fn a_tool_without_marks_has_seen_nothing_and_one_that_is_marked_always_has() {
        let plain = marks(|v| {
            v["workspace"] = json!([{"name": "inbox", "access": "read"}]);
            v["http"] = json!([]);
        });
        assert!(plain.is_none() && plain.seen(&[read("inbox", "a", true)], true).is_none());
        let own = marks(|v| v["untrusted"] = json!(true));
        assert_eq!(own.seen(&[], false), Taint::UNTRUSTED);
    }

    #[test]
    fn taint_only_grows() {
        let all = [Taint::NONE, Taint::UNTRUSTED, Taint::PRIVATE, Taint { untrusted: true, private: true }];
        for one in all {
            for two in all {
                let both = one.and(two);
                assert!(both.covers(one) && both.covers(two) && both == two.and(one));
                assert_eq!(both.is_none(), one.is_none() && two.is_none());
            }
        }
        assert!(!Taint::NONE.covers(Taint::PRIVATE));
    }
}
