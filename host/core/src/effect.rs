//! Effects: what a tool wants to change, one intended change each.
//!
//! An effect names workspaces and digests only, never host paths, so the same execution on the same world gives the
//! same effects on any machine. File modes are carried for information and undo: guests cannot set them.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::id::WorkspaceName;
use crate::path::WorkspacePath;
use crate::tier::Tier;

/// What a regular file was or will be.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileState {
    /// SHA-256 of the whole content.
    pub sha256: Digest,
    /// Bytes.
    pub size: u64,
    /// Permission bits, masked with `0o777`.
    pub mode: u32,
}

/// Modification time in nanoseconds since the Unix epoch; what `set-times` changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Times {
    /// Last modification, nanoseconds since the epoch, as a decimal string on the wire (it exceeds 2^53).
    #[serde(with = "nanoseconds")]
    pub modified_ns: i64,
}

mod nanoseconds {
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
    pub(super) fn serialize<S: Serializer>(value: &i64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(|_| serde::de::Error::custom("expected nanoseconds as a decimal string"))
    }
}

/// One intended change.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", deny_unknown_fields)]
pub enum Effect {
    /// A file is created (`before` absent) or its content replaced.
    #[serde(rename = "file.write")]
    FileWrite {
        /// Where.
        workspace: WorkspaceName,
        /// Which file.
        path: WorkspacePath,
        /// What it was; absent if it did not exist.
        before: Option<FileState>,
        /// What it will be.
        after: FileState,
    },
    /// A file is removed.
    #[serde(rename = "file.delete")]
    FileDelete {
        /// Where.
        workspace: WorkspaceName,
        /// Which file.
        path: WorkspacePath,
        /// What it was.
        before: FileState,
    },
    /// A file moves with its content unchanged. The target does not exist.
    #[serde(rename = "file.rename")]
    FileRename {
        /// Where.
        workspace: WorkspaceName,
        /// Its path before.
        from: WorkspacePath,
        /// Its path after.
        to: WorkspacePath,
        /// What is moved.
        before: FileState,
    },
    /// A file's modification time is set.
    #[serde(rename = "file.metadata")]
    FileMetadata {
        /// Where.
        workspace: WorkspaceName,
        /// Which file.
        path: WorkspacePath,
        /// The time before.
        before: Times,
        /// The time after.
        after: Times,
    },
    /// A directory is created.
    #[serde(rename = "dir.create")]
    DirCreate {
        /// Where.
        workspace: WorkspaceName,
        /// Which directory.
        path: WorkspacePath,
    },
    /// An empty directory is removed.
    #[serde(rename = "dir.delete")]
    DirDelete {
        /// Where.
        workspace: WorkspaceName,
        /// Which directory.
        path: WorkspacePath,
    },
}

impl Effect {
    /// All kinds, as they are written in plans, descriptors and manifests.
    pub const KINDS: [&'static str; 6] =
        ["file.write", "file.delete", "file.rename", "file.metadata", "dir.create", "dir.delete"];

    /// The kind, as it is written.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::FileWrite { .. } => "file.write",
            Self::FileDelete { .. } => "file.delete",
            Self::FileRename { .. } => "file.rename",
            Self::FileMetadata { .. } => "file.metadata",
            Self::DirCreate { .. } => "dir.create",
            Self::DirDelete { .. } => "dir.delete",
        }
    }

    /// The workspace that it changes.
    #[must_use]
    pub const fn workspace(&self) -> &WorkspaceName {
        match self {
            Self::FileWrite { workspace, .. }
            | Self::FileDelete { workspace, .. }
            | Self::FileRename { workspace, .. }
            | Self::FileMetadata { workspace, .. }
            | Self::DirCreate { workspace, .. }
            | Self::DirDelete { workspace, .. } => workspace,
        }
    }

    /// The paths that it changes: one, or both ends of a rename.
    pub fn paths(&self) -> impl Iterator<Item = &WorkspacePath> {
        let (first, second) = match self {
            Self::FileRename { from, to, .. } => (from, Some(to)),
            Self::FileWrite { path, .. }
            | Self::FileDelete { path, .. }
            | Self::FileMetadata { path, .. }
            | Self::DirCreate { path, .. }
            | Self::DirDelete { path, .. } => (path, None),
        };
        std::iter::once(first).chain(second)
    }

    /// What the effect destroys and undo must be able to bring back: the content before an overwrite or a deletion.
    #[must_use]
    pub const fn destroyed(&self) -> Option<&FileState> {
        match self {
            Self::FileWrite { before: Some(before), .. } | Self::FileDelete { before, .. } => Some(before),
            Self::FileWrite { before: None, .. }
            | Self::FileRename { .. }
            | Self::FileMetadata { .. }
            | Self::DirCreate { .. }
            | Self::DirDelete { .. } => None,
        }
    }

    /// The effect's own tier: what it needs at least, whatever the tool declares.
    ///
    /// `keeps_undo` tells whether the destroyed content fits the undo quota; `sensitive` whether a path is in a
    /// sensitive-path class.
    #[must_use]
    pub const fn tier(&self, keeps_undo: bool, sensitive: bool) -> Tier {
        if sensitive || (self.destroyed().is_some() && !keeps_undo) { Tier::Consequential } else { Tier::Reversible }
    }
}
