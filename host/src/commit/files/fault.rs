//! What can go wrong with files: the world changed, the system refused, or the disk lied.
//!
//! The three are kept apart because different things follow: a changed world ends in `stale_plan` or a roll-back, a
//! refusal by the system in a clean abort, and a failed fsync stops all further commits, because after it nobody knows
//! what is on the disk. Paths are relative to their workspace; no path of the host is ever in a message.

use std::io;

use rustix::io::Errno;
use toolkeep_core::digest::Digest;
use toolkeep_core::id::WorkspaceName;
use toolkeep_core::path::WorkspacePath;

use crate::commit::files::step::Spot;

/// How something differs from what the plan was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Difference {
    /// There was nothing.
    #[error("something exists there now")]
    Appeared,
    /// It is gone.
    #[error("it does not exist any more")]
    Vanished,
    /// The content is another.
    #[error("its content changed")]
    Content,
    /// It became a file, directory, link or special file.
    #[error("it is another kind of thing now")]
    Kind,
    /// The permission bits changed.
    #[error("its permissions changed")]
    Mode,
    /// Other names lead to the same file.
    #[error("it has more than one hard link")]
    Links,
    /// The modification time changed.
    #[error("its modification time changed")]
    Times,
    /// Names came or went.
    #[error("its entries changed")]
    Entries,
    /// The directory on the way to it is another one, a link or a mount.
    #[error("a directory on the way to it was replaced")]
    Parent,
    /// Something still lies in the directory.
    #[error("the directory is not empty")]
    NotEmpty,
}

/// Something that the plan depends on changed since it was made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{path}` in workspace `{workspace}` changed since the plan was made: {what}; preview again")]
pub struct Stale {
    /// Where.
    pub workspace: WorkspaceName,
    /// At which path.
    pub path: WorkspacePath,
    /// How it changed.
    pub what: Difference,
}

/// An fsync failed: what is on the disk is not known, so nothing more may be committed until a restart recovered.
#[derive(Debug, thiserror::Error)]
#[error("the disk did not confirm `{path}` in workspace `{workspace}`: {source}; check the disk, then restart")]
pub struct SyncFailed {
    /// Where.
    pub workspace: WorkspaceName,
    /// Which file or directory.
    pub path: WorkspacePath,
    /// What the system said.
    pub source: io::Error,
}

/// Why files could not be committed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The world changed.
    #[error(transparent)]
    Stale(#[from] Stale),
    /// The plan names a workspace that this host does not have.
    #[error("there is no workspace `{0}`; configure it or preview again")]
    Workspace(WorkspaceName),
    /// The content of a write is missing or is not what its digest says.
    #[error("the content `{0}` is missing or damaged; preview again")]
    Content(Digest),
    /// The effects cannot be applied one after another.
    #[error("the effects do not fit together at `{0}`; preview again")]
    Order(WorkspacePath),
    /// Two names of the plan are one name where they lie.
    #[error("`{one}` and `{other}` are one name in workspace `{workspace}`, which ignores case there; use other names")]
    Collision {
        /// Where.
        workspace: WorkspaceName,
        /// The first name.
        one: WorkspacePath,
        /// The one that would take its place.
        other: WorkspacePath,
    },
    /// The steps are of another version.
    #[error("the steps have format {0}; this version reads format 1")]
    Format(u32),
    /// The undo store did not take the content that would be destroyed.
    #[error("the undo store did not take the old content: {0}")]
    Undo(#[source] io::Error),
    /// The system refused.
    #[error("could not {doing} `{path}` in workspace `{workspace}`: {source}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// Where.
        workspace: WorkspaceName,
        /// With what.
        path: WorkspacePath,
        /// What the system said.
        source: io::Error,
    },
    /// The disk did not confirm.
    #[error(transparent)]
    Poisoned(#[from] SyncFailed),
}

impl CommitError {
    pub(super) fn stale(spot: &Spot, what: Difference) -> Self {
        Stale { workspace: spot.workspace.clone(), path: spot.path.clone(), what }.into()
    }

    pub(super) fn system(doing: &'static str, spot: &Spot, errno: Errno) -> Self {
        Self::System { doing, workspace: spot.workspace.clone(), path: spot.path.clone(), source: errno.into() }
    }

    pub(super) fn sync(workspace: &WorkspaceName, path: &WorkspacePath, errno: Errno) -> Self {
        SyncFailed { workspace: workspace.clone(), path: path.clone(), source: errno.into() }.into()
    }
}

/// A name at which neither the plan nor the state before it could be established.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remnant {
    /// Where.
    pub workspace: WorkspaceName,
    /// Which name.
    pub path: WorkspacePath,
    /// What was found, for the operator.
    pub found: String,
}

impl std::fmt::Display for Remnant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` in workspace `{}`: {}", self.path, self.workspace, self.found)
    }
}

impl Remnant {
    pub(super) fn at(spot: &Spot, found: impl Into<String>) -> Self {
        Self { workspace: spot.workspace.clone(), path: spot.path.clone(), found: found.into() }
    }
}
