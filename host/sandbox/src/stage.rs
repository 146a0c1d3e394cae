//! The stage: the uncommitted world that an execution reads and writes.
//!
//! An upper tree of changed entries lies over the read-only workspaces (the lower layer). A guest sees the merged tree
//! behave as POSIX says; the workspaces are never written. Descriptors refer to nodes of the tree, not to kernel
//! descriptors, so a change is visible through every open handle and an unlinked file stays usable while open.
//!
//! Whatever was learned about the lower layer becomes the read set; what was changed becomes effects, when the stage is
//! sealed. Hard links and symbolic links are never made, links of the lower layer are followed only for reading and
//! only inside the handle that the path is relative to. A stage that exceeds a limit, or that finds the lower layer
//! changed under it, fails for good: nothing of it can be sealed.

mod access;
mod content;
mod directories;
mod files;
mod hashing;
mod layer;
mod lower;
mod observe;
mod rename;
mod resolve;
mod seal;
mod tree;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use toolkeep_core::capability::{FileGrant, GrantRefusal};
use toolkeep_core::digest::Digest;
use toolkeep_core::effect::Effect;
use toolkeep_core::id::WorkspaceName;
use toolkeep_core::path::{PathProblem, WorkspacePath};
use toolkeep_core::plan::{EntryKind, KeyRead, ReadEntry};

pub use crate::beneath::{RefusedKind, StatTuple};
use crate::recording::Recorder;
pub use content::{CHUNK_BYTES, Content, ContentReader, MEMORY_CONTENT_MAX_BYTES, MEMORY_TOTAL_MAX_BYTES, Spool};
use lower::LowerFile;
pub use lower::Root;
use tree::{NodeId, Tree};

/// Most refused attempts that are kept for the audit; the first ones tell the story.
pub const BREACHES_MAX: usize = 100;
/// Most entries of the lower layer that one execution may look at or name, in entries: bounds the host's memory.
pub const ENTRIES_MAX: usize = 250_000;
/// Most observations in one read set: ranges of content and absent names.
pub const OBSERVATIONS_MAX: usize = 100_000;
/// Most lower files that one stage keeps open, whatever handles its guest has; others are opened for each read.
pub const OPEN_FILES_MAX: usize = 32;
/// Most bytes of lower files that are hashed for the `before` of effects when a stage is sealed (16 GiB).
pub const BEFORE_MAX_BYTES: u64 = 16 * 1024 * 1024 * 1024;

/// Bytes of staged and replaced contents together that are sealed at once: a tenth of a millisecond of hashing.
const QUICK_BYTES: u64 = 128 * 1024;
/// Entries that a stage which is sealed at once may have looked at: each is walked.
const QUICK_ENTRIES: usize = 200;

/// A workspace as one execution may use it.
#[derive(Debug, Clone)]
pub struct Mount {
    /// Where it lies.
    pub root: Root,
    /// What may be done beneath it.
    pub grant: FileGrant,
}

/// What one stage may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StageLimits {
    /// Logical bytes of all staged contents together.
    pub bytes: u64,
    /// Staged effects.
    pub effects: u64,
}

/// The state of a lower file when it was observed, for the fast check at commit. Not part of the plan's digest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Witness {
    /// Where.
    pub workspace: WorkspaceName,
    /// Which entry.
    pub path: WorkspacePath,
    /// Its state; while it holds, everything observed at the path holds.
    pub tuple: StatTuple,
}

/// What an execution wants to change and what that rests on.
#[derive(Debug, Default)]
pub struct Staged {
    /// Changes in an order in which they can be applied one by one.
    ///
    /// A `before` is what holds when the effects in front of it are applied. It differs from the world at the start only
    /// where a file gives way to a directory or a directory to a file; then the deletion stands in front.
    pub effects: Vec<Effect>,
    /// What was learned, sorted and without repeats.
    pub read_set: Vec<ReadEntry>,
    /// The states that it was learned from, sorted.
    pub witnesses: Vec<Witness>,
    /// The keys that were read, sorted and without repeats.
    pub keys_read: Vec<KeyRead>,
    /// Contents of written files, requests, messages and keys by digest.
    pub contents: BTreeMap<Digest, Content>,
    /// Refused attempts: escapes, changes without a grant, sensitive paths. At most [`BREACHES_MAX`].
    pub breaches: Vec<String>,
}

/// Why an operation is not done. The variants up to `Io` are answers for the guest; the last four end the execution.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StageError {
    /// Nothing is there.
    #[error("no such entry")]
    NoEntry,
    /// Something is there already.
    #[error("the entry exists")]
    Exists,
    /// A component is not a directory.
    #[error("not a directory")]
    NotDirectory,
    /// A directory where a file is needed.
    #[error("is a directory")]
    IsDirectory,
    /// The directory has entries.
    #[error("the directory is not empty")]
    NotEmpty,
    /// A directory would become its own descendant, or flags contradict each other.
    #[error("invalid argument")]
    Invalid,
    /// A symbolic link that may not be followed, or too many of them.
    #[error("too many symbolic links, or one that may not be followed")]
    Loop,
    /// The two paths lie in different workspaces.
    #[error("the paths lie in different workspaces")]
    CrossWorkspace,
    /// The path breaks the grammar.
    #[error("{0}")]
    BadPath(PathProblem),
    /// The path leads above the directory that it is relative to.
    #[error("the path leads out of the directory that it is relative to")]
    Escape,
    /// The grant does not cover it.
    #[error("{0}")]
    Denied(GrantRefusal),
    /// The name is one that commits give to their temporaries.
    #[error("the name is reserved")]
    Reserved,
    /// The name of a new entry is not in Unicode's composed form (NFC): file systems that compose names, and people, take
    /// it for another one.
    #[error("a new name must be composed: write `é` as one character (Unicode NFC)")]
    NotComposed,
    /// Links and special files are not changed, and nothing is changed through a link.
    #[error("links and special files are read-only")]
    LinkOrSpecial,
    /// The handle was not opened for this.
    #[error("the handle was not opened for this")]
    NotOpenedFor,
    /// Not offered: links, times of directories.
    #[error("not offered")]
    Unsupported,
    /// A number that cannot be stored.
    #[error("a number is out of range")]
    Overflow,
    /// The file system of the lower layer or of the spool failed.
    #[error("input or output failed: {0}")]
    Io(Errno),
    /// A limit of the stage is reached.
    #[error("the stage is full: more than {limit} {what}; stage less, or raise the limit in the manifest")]
    Full {
        /// What there is too much of.
        what: &'static str,
        /// How much there may be.
        limit: u64,
    },
    /// The lower layer changed after it was observed.
    #[error("`{path}` in workspace `{workspace}` changed while the tool was using it; call again")]
    Stale {
        /// Where.
        workspace: WorkspaceName,
        /// What.
        path: WorkspacePath,
    },
    /// The execution is a replay, and the recording does not say this.
    #[error("it looks at `{path}` in workspace `{workspace}`, of which the recording does not hold that")]
    Unrecorded {
        /// Where.
        workspace: WorkspaceName,
        /// What.
        path: WorkspacePath,
    },
    /// The stage was sealed.
    #[error("the stage is sealed")]
    Sealed,
}

impl StageError {
    /// Whether the execution ends with it: a full or stale stage, or one that is gone.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::Stale { .. } | Self::Unrecorded { .. } | Self::Sealed)
    }
}

impl From<std::io::Error> for StageError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }
}

impl From<PathProblem> for StageError {
    fn from(problem: PathProblem) -> Self {
        Self::BadPath(problem)
    }
}

/// How to open an entry. Everything is off by default, which opens an existing file or directory for reading.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "these are the independent flags of open(2)")]
pub struct OpenHow {
    /// Follow a symbolic link in the last component.
    pub follow: bool,
    /// Create a file that does not exist.
    pub create: bool,
    /// With `create`: refuse a file that exists.
    pub exclusive: bool,
    /// Cut the file to nothing.
    pub truncate: bool,
    /// Refuse everything but a directory.
    pub directory: bool,
    /// The handle will read.
    pub read: bool,
    /// The handle will write.
    pub write: bool,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Its kind.
    pub entry: EntryKind,
    /// Why it is refused, if it is.
    pub refused: Option<RefusedKind>,
    /// Bytes of a file or of a link's target; 0 for everything else.
    pub size: u64,
    /// Last modification, nanoseconds since the Unix epoch.
    pub modified_ns: i64,
}

/// An open file or directory of the merged tree. Cheap to clone; clones share what is open.
#[derive(Debug, Clone)]
pub struct Handle {
    node: NodeId,
    read: bool,
    write: bool,
    directory: bool,
    open: Arc<OpenNode>,
}

impl Handle {
    /// Whether it is a directory.
    #[must_use]
    pub const fn is_directory(&self) -> bool {
        self.directory
    }

    /// Whether it was opened for reading.
    #[must_use]
    pub const fn reads(&self) -> bool {
        self.read
    }

    /// Whether it was opened for writing; for directories, whether anything in the workspace may be changed.
    #[must_use]
    pub const fn writes(&self) -> bool {
        self.write
    }

    /// The number of what it refers to: stable for one execution, and the same in every execution that does the same.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.node.number()
    }
}

/// What all handles of one node share: the lower file, opened when first read, closed with the last handle.
#[derive(Debug, Default)]
struct OpenNode {
    lower: OnceLock<OpenFile>,
}

/// A lower file that is kept open, and counted while it is.
#[derive(Debug)]
struct OpenFile {
    file: LowerFile,
    _counted: Arc<()>,
}

/// The stage of one execution. Cheap to clone; all clones are the same stage.
#[derive(Debug, Clone)]
pub struct Stage(Arc<Mutex<Tree>>);

impl Stage {
    /// A stage over `mounts` that has changed nothing yet.
    #[must_use]
    pub fn new(mounts: Vec<Mount>, limits: StageLimits, spool: Spool) -> Self {
        Self(Arc::new(Mutex::new(Tree::new(mounts, limits, spool))))
    }

    /// Set the time that changed files show, nanoseconds since the Unix epoch: the admission time. Zero until set.
    #[must_use]
    pub fn with_wall_clock(self, unix_ns: u64) -> Self {
        self.tree().set_now(i64::try_from(unix_ns).unwrap_or(i64::MAX));
        self
    }

    /// Note what the workspaces say. Before anything else is done.
    #[must_use]
    pub fn noting(self, recorder: Recorder) -> Self {
        self.tree().note(recorder);
        self
    }

    /// Begin with what earlier calls of the transaction staged: their effects, and the contents of what they write. Gives
    /// back the effects in workspaces that are not mounted here. Once, before anything else is done.
    ///
    /// # Errors
    /// The workspace is not what the effects were made for any more, a limit is reached, or a content is missing.
    pub fn lay(&self, effects: &[Effect], contents: &BTreeMap<Digest, Content>) -> Result<Vec<Effect>, StageError> {
        self.run(|tree| tree.lay(effects, contents))
    }

    /// The time that changed files show, nanoseconds since the Unix epoch.
    #[must_use]
    pub fn now_ns(&self) -> i64 {
        self.tree().now_ns
    }

    /// The workspaces with a handle on each root, in the order of the mounts.
    #[must_use]
    pub fn roots(&self) -> Vec<(WorkspaceName, Handle)> {
        self.tree().roots()
    }

    /// Open or create the entry at `path` relative to `base`.
    ///
    /// # Errors
    /// As `openat` answers, and what the grant, the grammar and the limits refuse.
    pub fn open(&self, base: &Handle, path: &str, how: OpenHow) -> Result<Handle, StageError> {
        self.run(|tree| tree.open(base, path, how))
    }

    /// At most `length` bytes (and never more than [`CHUNK_BYTES`]) from `offset`; none at the end of the file.
    ///
    /// # Errors
    /// The handle is a directory's or does not read; the lower file changed.
    pub fn read_at(&self, file: &Handle, offset: u64, length: u64) -> Result<Vec<u8>, StageError> {
        self.run(|tree| tree.read_at(file, offset, length))
    }

    /// Write all of `bytes` at `offset`; a gap in front reads as zeros.
    ///
    /// # Errors
    /// The handle is a directory's or does not write; a limit is reached.
    pub fn write_at(&self, file: &Handle, offset: u64, bytes: &[u8]) -> Result<(), StageError> {
        self.run(|tree| tree.write_at(file, offset, bytes))
    }

    /// Write all of `bytes` at the end.
    ///
    /// # Errors
    /// As [`Stage::write_at`].
    pub fn append(&self, file: &Handle, bytes: &[u8]) -> Result<(), StageError> {
        self.run(|tree| tree.append(file, bytes))
    }

    /// Cut the file off, or extend it with zeros.
    ///
    /// # Errors
    /// As [`Stage::write_at`].
    pub fn set_size(&self, file: &Handle, size: u64) -> Result<(), StageError> {
        self.run(|tree| tree.set_size(file, size))
    }

    /// Set the time of last modification; `None` leaves it.
    ///
    /// # Errors
    /// It is a directory, or the grant does not allow a change.
    pub fn set_times(&self, file: &Handle, modified_ns: Option<i64>) -> Result<(), StageError> {
        self.run(|tree| tree.set_times(file.node, modified_ns))
    }

    /// Set the time of last modification of the entry at `path`.
    ///
    /// # Errors
    /// As [`Stage::set_times`]; nothing is there.
    pub fn set_times_at(
        &self,
        base: &Handle,
        path: &str,
        follow: bool,
        modified_ns: Option<i64>,
    ) -> Result<(), StageError> {
        self.run(|tree| tree.set_times_at(base, path, follow, modified_ns))
    }

    /// What the handle refers to.
    ///
    /// # Errors
    /// The stage is sealed.
    pub fn stat(&self, handle: &Handle) -> Result<Stat, StageError> {
        self.run(|tree| tree.stat(handle.node))
    }

    /// What is at `path`, with its number (see [`Handle::number`]).
    ///
    /// # Errors
    /// As `fstatat` answers; the directory that holds it may not be entered.
    pub fn stat_at(&self, base: &Handle, path: &str, follow: bool) -> Result<(Stat, u64), StageError> {
        self.run(|tree| tree.stat_at(base, path, follow))
    }

    /// The target of the symbolic link at `path`.
    ///
    /// # Errors
    /// It is no link, is absolute, or its target is not UTF-8.
    pub fn read_link(&self, base: &Handle, path: &str) -> Result<String, StageError> {
        self.run(|tree| tree.read_link_at(base, path))
    }

    /// Begin to list a directory: its lower entries are read and become part of the read set.
    ///
    /// # Errors
    /// It is no directory, may not be entered, or changed since it was listed before.
    pub fn list(&self, directory: &Handle) -> Result<(), StageError> {
        self.run(|tree| tree.list(directory.node))
    }

    /// The first entry of a listed directory whose name is greater than `after`, by bytes; nothing at the end.
    ///
    /// # Errors
    /// The directory was not listed.
    pub fn entry_after(
        &self,
        directory: &Handle,
        after: Option<&str>,
    ) -> Result<Option<(String, EntryKind, Option<RefusedKind>)>, StageError> {
        self.run(|tree| tree.entry_after(directory.node, after))
    }

    /// Create a directory.
    ///
    /// # Errors
    /// As `mkdirat` answers, and what the grant and the limits refuse.
    pub fn create_directory(&self, base: &Handle, path: &str) -> Result<(), StageError> {
        self.run(|tree| tree.create_directory(base, path))
    }

    /// Remove an empty directory.
    ///
    /// # Errors
    /// As `unlinkat` answers, and what the grant refuses.
    pub fn remove_directory(&self, base: &Handle, path: &str) -> Result<(), StageError> {
        self.run(|tree| tree.remove_directory(base, path))
    }

    /// Remove a file.
    ///
    /// # Errors
    /// As `unlinkat` answers, and what the grant refuses; links and special files are refused.
    pub fn unlink(&self, base: &Handle, path: &str) -> Result<(), StageError> {
        self.run(|tree| tree.unlink(base, path))
    }

    /// Move a file or a directory, over an existing file or an empty directory if there is one.
    ///
    /// # Errors
    /// As `renameat` answers, and what the grant refuses at either end and for everything beneath.
    pub fn rename(&self, from: &Handle, old: &str, to: &Handle, new: &str) -> Result<(), StageError> {
        self.run(|tree| tree.rename(from, old, to, new))
    }

    /// Refuse an attempt to make a link, and keep it for the audit.
    ///
    /// # Errors
    /// Always [`StageError::Unsupported`].
    pub fn refuse_link(&self, what: &'static str, path: &str) -> Result<(), StageError> {
        self.run(|tree| {
            tree.breach(what, path, &StageError::Unsupported);
            Err(StageError::Unsupported)
        })
    }

    /// The final error that the stage ran into, if it did.
    #[must_use]
    pub fn failure(&self) -> Option<StageError> {
        self.tree().failure().cloned()
    }

    /// Refused attempts so far.
    #[must_use]
    pub fn breaches(&self) -> Vec<String> {
        self.tree().breaches().to_vec()
    }

    /// Whether sealing takes so little reading and hashing that it may be done on a thread that serves others.
    #[must_use]
    pub fn seals_quickly(&self) -> bool {
        self.tree().seals_quickly()
    }

    /// Turn what was done into effects. Handles and clones that survive answer [`StageError::Sealed`].
    ///
    /// # Errors
    /// The stage is full, the lower layer changed, or it cannot be read.
    pub fn seal(self) -> Result<Staged, StageError> {
        let tree = self.tree().take();
        tree.seal()
    }

    fn run<T>(&self, operation: impl FnOnce(&mut Tree) -> Result<T, StageError>) -> Result<T, StageError> {
        let mut tree = self.tree();
        if let Some(failure) = tree.failure() {
            return Err(failure.clone());
        }
        let result = operation(&mut tree);
        if let Err(error) = &result
            && error.is_final()
        {
            tree.fail(error.clone());
        }
        result
    }

    fn tree(&self) -> MutexGuard<'_, Tree> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
