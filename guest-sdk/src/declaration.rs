//! What a tool is to the SDK: a function with types that have schemas, and what it says about itself.
//!
//! Authors never implement [`Tool`]; `#[tool]` does, after it has checked the doc comment and options.

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;

use crate::error::IntoError;

/// A kind of change that a tool may ask for.
///
/// The names are those of plans and manifests. A tool that lists none declares that it only reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EffectKind {
    /// A directory comes into being.
    DirCreate,
    /// A directory goes.
    DirDelete,
    /// A file goes.
    FileDelete,
    /// Times or permissions of a file change.
    FileMetadata,
    /// A file gets another name.
    FileRename,
    /// A file comes into being or gets other content.
    FileWrite,
    /// An HTTP request that changes something.
    HttpRequest,
    /// A number in a bucket changes by a delta.
    KvAdd,
    /// A key goes.
    KvDelete,
    /// A key gets a value.
    KvSet,
    /// A message goes out.
    MessageSend,
}

impl EffectKind {
    /// The name in plans and manifests, for example `file.write`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DirCreate => "dir.create",
            Self::DirDelete => "dir.delete",
            Self::FileDelete => "file.delete",
            Self::FileMetadata => "file.metadata",
            Self::FileRename => "file.rename",
            Self::FileWrite => "file.write",
            Self::HttpRequest => "http.request",
            Self::KvAdd => "kv.add",
            Self::KvDelete => "kv.delete",
            Self::KvSet => "kv.set",
            Self::MessageSend => "message.send",
        }
    }
}

impl fmt::Display for EffectKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}

/// What a tool says about itself, as `#[tool]` found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Declaration {
    /// The name that agents call; matches `[a-z0-9][a-z0-9._-]{0,63}`.
    pub name: &'static str,
    /// A name for people, at most 80 characters.
    pub title: Option<&'static str>,
    /// What it does; like the three others one paragraph of at most 1,000 characters.
    pub what: &'static str,
    /// When to use it.
    pub when: &'static str,
    /// What it changes.
    pub side_effects: &'static str,
    /// How it fails.
    pub errors: &'static str,
    /// The kinds of change that it may ask for, sorted by name; empty for a tool that only reads.
    pub effects: &'static [EffectKind],
    /// Whether the same input in the same world gives the same output and the same effects.
    pub deterministic: bool,
}

/// A tool. Implemented by `#[tool]`.
pub trait Tool {
    /// What it takes.
    type Args: DeserializeOwned + JsonSchema;
    /// What it returns.
    type Output: Serialize + JsonSchema;
    /// How it fails.
    type Error: IntoError;

    /// What it says about itself.
    const DECLARATION: Declaration;

    /// Run it.
    ///
    /// # Errors
    /// The tool's own.
    fn call(args: Self::Args) -> Result<Self::Output, Self::Error>;
}

/// Takes the two types out of a `Result`, also behind an alias. Only `Result` implements it.
pub trait ToolResult {
    /// The type of `Ok`.
    type Output;
    /// The type of `Err`.
    type Error;
}

impl<O, E> ToolResult for Result<O, E> {
    type Output = O;
    type Error = E;
}

#[cfg(test)]
mod tests {
    use super::EffectKind;

    #[test]
    fn effect_kinds_sort_like_their_names() {
        let kinds = [
            EffectKind::DirCreate,
            EffectKind::DirDelete,
            EffectKind::FileDelete,
            EffectKind::FileMetadata,
            EffectKind::FileRename,
            EffectKind::FileWrite,
            EffectKind::HttpRequest,
            EffectKind::KvAdd,
            EffectKind::KvDelete,
            EffectKind::KvSet,
            EffectKind::MessageSend,
        ];
        assert!(kinds.is_sorted());
        assert!(kinds.is_sorted_by_key(|kind| kind.as_str()));
    }
}
