//! The one path grammar. Guests, manifests, plans and commits all use it, so no two layers can disagree about
//! what a path names.
//!
//! A [`WorkspacePath`] is relative to a workspace, written with `/`, and already normal: no empty component, no `.` or
//! `..`, no leading or trailing `/`, no NUL, control character or backslash. There is no function that turns one into
//! a host path; only a directory handle opened beneath the workspace root gives it meaning.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Longest component in bytes (`NAME_MAX` of Linux).
pub const COMPONENT_MAX_BYTES: usize = 255;
/// Longest path in bytes (`PATH_MAX` of Linux, less the terminating NUL's slack).
pub const PATH_MAX_BYTES: usize = 4096;
/// Deepest path in components: bounds recursion and undo.
pub const DEPTH_MAX: usize = 64;

/// What the name of every temporary of a commit starts with.
pub const TEMPORARY_PREFIX: &str = ".toolkeep-";
/// What it ends with.
pub const TEMPORARY_SUFFIX: &str = ".tmp";

/// Whether a name is one that commits give to their temporaries: `.toolkeep-`, 32 lower-case hexadecimal digits, `-`, a
/// step and `.tmp`. Listings leave such names out, and guests may not create them.
#[must_use]
pub fn is_temporary(name: &str) -> bool {
    let inner = name.strip_prefix(TEMPORARY_PREFIX).and_then(|rest| rest.strip_suffix(TEMPORARY_SUFFIX));
    inner.and_then(|inner| inner.split_once('-')).is_some_and(|(transaction, step)| {
        transaction.len() == 32
            && transaction.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
            && !step.is_empty()
    })
}

/// Whether a name is in Unicode's composed form, NFC (Unicode Standard Annex #15). Names that are there already may be in
/// any form; new ones are composed, so that no two look the same and become one file on a file system that composes.
#[must_use]
pub fn is_composed(name: &str) -> bool {
    name.is_ascii() || unicode_normalization::is_nfc(name)
}

/// A normal path inside a workspace. The root itself is [`WorkspacePath::root`], written `""`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WorkspacePath(Arc<str>);

/// Why a text is not a path of a workspace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("path `{shown}` is refused: {problem}")]
pub struct BadPath {
    /// The text with control characters escaped, shortened to 120 characters.
    pub shown: String,
    /// What is wrong with it.
    pub problem: PathProblem,
}

/// What is wrong with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathProblem {
    /// Starts with `/`.
    #[error("it is absolute; write it relative to the workspace")]
    Absolute,
    /// `..` climbs above where it may.
    #[error("it climbs out of the workspace")]
    Escape,
    /// `a//b`, or nothing at all.
    #[error("it has an empty component")]
    Empty,
    /// `.` or `..` where only a normal path is allowed.
    #[error("it has a `.` or `..` component")]
    Dot,
    /// Ends with `/`.
    #[error("it ends with `/`")]
    TrailingSlash,
    /// A C0 or C1 control character, DEL, NUL or a backslash.
    #[error("it has a control character or a backslash")]
    Control,
    /// A component over [`COMPONENT_MAX_BYTES`].
    #[error("a component is longer than 255 bytes")]
    LongComponent,
    /// More than [`PATH_MAX_BYTES`] in all.
    #[error("it is longer than 4096 bytes")]
    LongPath,
    /// More than [`DEPTH_MAX`] components.
    #[error("it is deeper than 64 components")]
    TooDeep,
}

impl BadPath {
    fn new(text: &str, problem: PathProblem) -> Self {
        Self { shown: text.chars().take(120).flat_map(char::escape_default).collect(), problem }
    }
}

/// Check one component: a name of a file or directory.
///
/// # Errors
/// Says which rule of the grammar the name breaks.
pub fn check_component(name: &str) -> Result<(), PathProblem> {
    if name.is_empty() {
        return Err(PathProblem::Empty);
    }
    if name == "." || name == ".." {
        return Err(PathProblem::Dot);
    }
    if name.len() > COMPONENT_MAX_BYTES {
        return Err(PathProblem::LongComponent);
    }
    if name.chars().any(|c| c.is_control() || c == '\\' || c == '/') {
        return Err(PathProblem::Control);
    }
    Ok(())
}

impl WorkspacePath {
    /// The workspace itself.
    #[must_use]
    pub fn root() -> Self {
        Self("".into())
    }

    /// Whether this is the workspace itself.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The text; empty for the root.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The components from the root down.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/').filter(|c| !c.is_empty())
    }

    /// The last component; nothing for the root.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.components().next_back()
    }

    /// The directory that holds it; nothing for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        Some(self.0.rsplit_once('/').map_or_else(Self::root, |(head, _)| Self(head.into())))
    }

    /// The entry `name` of this directory.
    ///
    /// # Errors
    /// The name or the joined path breaks the grammar.
    pub fn join(&self, name: &str) -> Result<Self, BadPath> {
        check_component(name).map_err(|problem| BadPath::new(name, problem))?;
        let text = if self.is_root() { name.to_owned() } else { format!("{}/{name}", self.0) };
        Self::bounded(&text)?;
        Ok(Self(text.into()))
    }

    /// Whether `self` is `other` or lies beneath it.
    #[must_use]
    pub fn starts_with(&self, other: &Self) -> bool {
        other.is_root()
            || self.0.strip_prefix(other.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    fn bounded(text: &str) -> Result<(), BadPath> {
        if text.len() > PATH_MAX_BYTES {
            return Err(BadPath::new(text, PathProblem::LongPath));
        }
        if text.split('/').count() > DEPTH_MAX {
            return Err(BadPath::new(text, PathProblem::TooDeep));
        }
        Ok(())
    }
}

impl FromStr for WorkspacePath {
    type Err = BadPath;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = |problem| BadPath::new(text, problem);
        if text.is_empty() {
            return Err(refuse(PathProblem::Empty));
        }
        if text.starts_with('/') {
            return Err(refuse(PathProblem::Absolute));
        }
        if text.ends_with('/') {
            return Err(refuse(PathProblem::TrailingSlash));
        }
        Self::bounded(text)?;
        for component in text.split('/') {
            check_component(component).map_err(refuse)?;
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for WorkspacePath {
    type Error = BadPath;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.is_empty() { Ok(Self::root()) } else { text.parse() }
    }
}

impl From<WorkspacePath> for String {
    fn from(path: WorkspacePath) -> Self {
        path.0.as_ref().to_owned()
    }
}

impl Borrow<str> for WorkspacePath {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WorkspacePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_root() { "." } else { &self.0 })
    }
}

impl fmt::Debug for WorkspacePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Result<(), PathProblem>) {
        assert_eq!(text.parse::<WorkspacePath>().map(|_| ()).map_err(|e| e.problem), expect, "{text:?}");
    }

    #[test]
    fn t_f1_every_rule_of_the_grammar_refuses() {
        check("a/b.txt", Ok(()));
        check("é/ü", Ok(()));
        check("..a/b..", Ok(()));
        check("", Err(PathProblem::Empty));
        check("/a", Err(PathProblem::Absolute));
        check("a//b", Err(PathProblem::Empty));
        check("a/", Err(PathProblem::TrailingSlash));
        check("a/./b", Err(PathProblem::Dot));
        check("../a", Err(PathProblem::Dot));
        check("a/..", Err(PathProblem::Dot));
        check("a\0b", Err(PathProblem::Control));
        check("a\nb", Err(PathProblem::Control));
        check("a\\b", Err(PathProblem::Control));
        check("a\u{85}b", Err(PathProblem::Control));
    }

    #[test]
    fn the_limits_hold_at_n_and_n_plus_1() {
        check(&"a".repeat(COMPONENT_MAX_BYTES), Ok(()));
        check(&"a".repeat(COMPONENT_MAX_BYTES + 1), Err(PathProblem::LongComponent));
        check(&vec!["a"; DEPTH_MAX].join("/"), Ok(()));
        check(&vec!["a"; DEPTH_MAX + 1].join("/"), Err(PathProblem::TooDeep));
        let component = "a".repeat(239);
        let long = vec![component.as_str(); 18].join("/");
        let exact = long.get(..PATH_MAX_BYTES).expect("ascii");
        check(exact, Ok(()));
        check(long.get(..=PATH_MAX_BYTES).expect("ascii"), Err(PathProblem::LongPath));
    }

    #[test]
    fn prefixes_end_at_component_borders() {
        let path = |t: &str| t.parse::<WorkspacePath>().expect(t);
        assert!(path("a/b").starts_with(&path("a")));
        assert!(!path("ab").starts_with(&path("a")));
        assert!(path("a").starts_with(&WorkspacePath::root()));
        assert_eq!(path("a/b").parent(), Some(path("a")));
        assert_eq!(path("a").parent(), Some(WorkspacePath::root()));
        assert_eq!(WorkspacePath::root().parent(), None);
    }
}
