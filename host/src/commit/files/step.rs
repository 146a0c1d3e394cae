//! Steps: what the intent row says about one commit, so that any process can finish or take it back.
//!
//! Every step is one system call that the kernel makes atomic (a rename, an exchange, a removal of an empty directory, a
//! change of times), written down before the first of them runs. New content always waits under a temporary name and old
//! content always moves to one, so that what a name holds tells how far a crashed commit came: there is no progress log.
//! The format is stored in the ledger and only grows; a reader refuses any other version.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use toolkeep_core::digest::Digest;
use toolkeep_core::id::WorkspaceName;
use toolkeep_core::path::{TEMPORARY_PREFIX, TEMPORARY_SUFFIX, WorkspacePath, is_temporary};

use crate::commit::files::temporary::LOGGED_MAX_BYTES;

/// The only format of steps that this version writes and reads.
pub const FORMAT: u32 = 1;
/// Bytes of a transaction id: too many to guess the name of a temporary.
pub const TRANSACTION_BYTES: usize = 16;

/// Names one attempt to apply a plan: 32 lower-case hexadecimal digits from the system's randomness.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TransactionId(String);

/// Why a text is not a transaction id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a transaction id has 32 lower-case hexadecimal digits")]
pub struct NotATransaction;

impl TransactionId {
    /// An id from random bytes.
    #[must_use]
    pub fn new(random: [u8; TRANSACTION_BYTES]) -> Self {
        Self(format!("{:032x}", u128::from_be_bytes(random)))
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn temporary(&self, index: usize) -> String {
        format!("{TEMPORARY_PREFIX}{}-{index}{TEMPORARY_SUFFIX}", self.0)
    }

    pub(super) fn restored(&self, index: usize) -> String {
        format!("{TEMPORARY_PREFIX}{}-{index}r{TEMPORARY_SUFFIX}", self.0)
    }

    /// A file that is made and removed while preparing, to learn about its directory.
    pub(super) fn probe(&self) -> String {
        format!("{TEMPORARY_PREFIX}{}-probe{TEMPORARY_SUFFIX}", self.0)
    }

    pub(super) fn owns(&self, name: &str) -> bool {
        is_temporary(name) && name.strip_prefix(TEMPORARY_PREFIX).is_some_and(|rest| rest.starts_with(self.0.as_str()))
    }
}

impl TryFrom<String> for TransactionId {
    type Error = NotATransaction;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let digits = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if digits && text.len() == TRANSACTION_BYTES * 2 { Ok(Self(text)) } else { Err(NotATransaction) }
    }
}

impl From<TransactionId> for String {
    fn from(id: TransactionId) -> Self {
        id.0
    }
}

impl fmt::Display for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A name in a workspace, and which directory it was in when the commit was prepared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spot {
    /// Where.
    pub workspace: WorkspaceName,
    /// Which name.
    pub path: WorkspacePath,
    /// Inode of the directory that holds it. Absent for directories that the plan removes, because taking the plan back
    /// makes them anew. The device is not kept: no access leaves the device of the root.
    pub parent: Option<u64>,
}

impl Spot {
    pub(super) fn key(&self) -> Key {
        (self.workspace.clone(), self.path.clone())
    }

    pub(super) fn name(&self) -> &str {
        self.path.name().unwrap_or_default()
    }

    pub(super) fn directory(&self) -> WorkspacePath {
        self.path.parent().unwrap_or_else(WorkspacePath::root)
    }
}

/// A name without its directory's identity.
pub(super) type Key = (WorkspaceName, WorkspacePath);

/// A regular file as the commit knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileNode {
    /// Its inode.
    pub inode: u64,
    /// SHA-256 of the content.
    pub sha256: Digest,
    /// Bytes.
    pub size: u64,
    /// Permission bits, masked with `0o777`.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Last modification, nanoseconds since the epoch.
    pub modified_ns: i64,
    /// Whether the undo store has the content.
    pub saved: bool,
}

/// A directory as the commit knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectoryNode {
    /// Its inode.
    pub inode: u64,
    /// Permission bits, masked with `0o777`.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
}

/// What a step puts in place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "node", rename_all = "lowercase")]
pub enum Node {
    /// A regular file.
    File(FileNode),
    /// An empty directory.
    Directory(DirectoryNode),
}

/// One atomic change of the world, with what is needed to do it, to see whether it was done, and to take it back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case", deny_unknown_fields)]
pub enum Step {
    /// What waits at `temporary` gets its name; nothing may be there.
    Place {
        /// Where it waits.
        temporary: Spot,
        /// Its name.
        target: Spot,
        /// What it is.
        node: Node,
    },
    /// New content changes places with old content.
    Exchange {
        /// Where the new content waits, and where the old content goes.
        temporary: Spot,
        /// The file.
        target: Spot,
        /// The old content.
        before: FileNode,
        /// The new content.
        after: FileNode,
    },
    /// A file leaves its name: to be removed, or to be placed elsewhere by a later step.
    Aside {
        /// The file.
        target: Spot,
        /// Where it goes.
        temporary: Spot,
        /// What it is.
        before: FileNode,
    },
    /// An empty directory is removed.
    RemoveDirectory {
        /// The directory.
        target: Spot,
        /// Where it is made again when the plan is taken back.
        temporary: Spot,
        /// What it is.
        before: DirectoryNode,
    },
    /// A file's modification time is set.
    Touch {
        /// The file.
        target: Spot,
        /// Nanoseconds since the epoch before; absent where this plan wrote the file.
        before_ns: Option<i64>,
        /// Nanoseconds since the epoch after.
        after_ns: i64,
    },
}

impl Step {
    /// The name that the step changes for everybody to see.
    #[must_use]
    pub const fn target(&self) -> &Spot {
        match self {
            Self::Place { target, .. }
            | Self::Exchange { target, .. }
            | Self::Aside { target, .. }
            | Self::RemoveDirectory { target, .. }
            | Self::Touch { target, .. } => target,
        }
    }

    /// The temporary name that the step uses.
    #[must_use]
    pub const fn temporary(&self) -> Option<&Spot> {
        match self {
            Self::Place { temporary, .. }
            | Self::Exchange { temporary, .. }
            | Self::Aside { temporary, .. }
            | Self::RemoveDirectory { temporary, .. } => Some(temporary),
            Self::Touch { .. } => None,
        }
    }
}

/// Everything that applying, recovering and taking back one commit needs, as the intent row holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prepared {
    /// Always [`FORMAT`].
    pub format: u32,
    /// Names the temporaries.
    pub transaction: TransactionId,
    /// Inode of each workspace's root: a workspace that was pointed elsewhere since is not touched.
    pub roots: BTreeMap<WorkspaceName, u64>,
    /// In the order in which they are applied.
    pub steps: Vec<Step>,
}

impl Prepared {
    /// The contents that recovery may need from the log: those of the small files that the steps put in place.
    #[must_use]
    pub fn logged(&self) -> BTreeSet<Digest> {
        let placed = self.steps.iter().filter_map(|step| match step {
            Step::Place { node: Node::File(node), .. } | Step::Exchange { after: node, .. } => Some(node),
            Step::Place { .. } | Step::Aside { .. } | Step::RemoveDirectory { .. } | Step::Touch { .. } => None,
        });
        placed.filter(|node| node.size <= LOGGED_MAX_BYTES).map(|node| node.sha256).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t_f12_temporaries_are_told_from_other_names() {
        let id = TransactionId::new([7; TRANSACTION_BYTES]);
        assert!(is_temporary(&id.temporary(3)) && is_temporary(&id.restored(3)) && is_temporary(&id.probe()));
        assert!(id.owns(&id.temporary(12)) && !TransactionId::new([8; 16]).owns(&id.temporary(12)));
        for other in [".toolkeep-", ".toolkeep-1-2.tmp", "a.tmp", ".toolkeep.tmp", &format!("x{}", id.temporary(1))] {
            assert!(!is_temporary(other), "{other}");
        }
    }
}
