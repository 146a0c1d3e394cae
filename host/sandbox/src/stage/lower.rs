//! The lower layer as a stage asks it: a directory of this machine, or what a recording says was there.
//!
//! Every question about the lower layer is asked here and nowhere else, and every answer of a directory is noted, by
//! what it is about and not by when it was asked. A recording therefore answers a tool that asks in another order, too. What
//! it does not hold ends the execution: nothing is made up, except that a name which a noted listing lacks is
//! absent.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::io::Errno;
use toolkeep_core::digest::Digest;
use toolkeep_core::id::WorkspaceName;
use toolkeep_core::path::WorkspacePath;
use toolkeep_core::plan::EntryKind;

use super::StageError;
use super::content::CHUNK_BYTES;
use crate::beneath::{self, Seen, StatTuple};
use crate::recording::{Names, Recorder};
use crate::tape::Tape;
use crate::workspace::WorkspaceRoot;

/// Where a workspace lies.
#[derive(Debug, Clone)]
pub enum Root {
    /// A directory.
    Directory(Arc<WorkspaceRoot>),
    /// What a recording says about the workspace of this name.
    Recorded(WorkspaceName, Arc<Tape>),
}

impl From<Arc<WorkspaceRoot>> for Root {
    fn from(root: Arc<WorkspaceRoot>) -> Self {
        Self::Directory(root)
    }
}

/// Why the lower layer does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LowerError {
    /// The file system says so.
    System(Errno),
    /// The recording does not know.
    Unrecorded,
}

impl From<Errno> for LowerError {
    fn from(errno: Errno) -> Self {
        Self::System(errno)
    }
}

/// A file of the lower layer, open.
#[derive(Debug)]
pub(super) enum LowerFile {
    Real(File),
    Recorded { tape: Arc<Tape>, workspace: WorkspaceName, path: WorkspacePath, seen: Seen },
}

impl Root {
    /// The name, which guests see as `/<name>`.
    #[must_use]
    pub fn name(&self) -> &WorkspaceName {
        match self {
            Self::Directory(root) => root.name(),
            Self::Recorded(name, _) => name,
        }
    }

    /// What the root itself is, for the node of the root.
    pub(super) fn seen(&self) -> Seen {
        let unseen = |dev| Seen {
            entry: EntryKind::Directory,
            refused: None,
            size: 0,
            mode: 0,
            tuple: StatTuple { dev, ino: 0, size: 0, mtime_ns: 0, ctime_ns: 0 },
        };
        match self {
            Self::Directory(root) => Seen::of(root.fd()).unwrap_or_else(|_| unseen(root.device())),
            Self::Recorded(name, tape) => match tape.look(name, &WorkspacePath::root()) {
                Some(Ok(Some(seen))) => seen,
                _ => unseen(0),
            },
        }
    }

    /// What is at a path; nothing if no entry is there.
    pub(super) fn look(&self, path: &WorkspacePath, notes: Option<&Recorder>) -> Result<Option<Seen>, LowerError> {
        match self {
            Self::Directory(root) => {
                let answer = beneath::look(root.fd(), path);
                note(notes, |notes| notes.looked((root.name(), path), answer));
                Ok(answer?)
            }
            Self::Recorded(name, tape) => Ok(tape.look(name, path).ok_or(LowerError::Unrecorded)??),
        }
    }

    /// The entries of a directory.
    pub(super) fn list(&self, path: &WorkspacePath, notes: Option<&Recorder>) -> Result<(Names, Seen), LowerError> {
        match self {
            Self::Directory(root) => {
                let answer = beneath::list(root.fd(), path).map(|(names, seen)| (Arc::new(names), seen));
                let noted = answer.as_ref().map(|(names, seen)| (names, *seen)).map_err(|errno| *errno);
                note(notes, |notes| notes.listed((root.name(), path), noted));
                Ok(answer?)
            }
            Self::Recorded(name, tape) => Ok(tape.list(name, path).ok_or(LowerError::Unrecorded)??),
        }
    }

    /// The target of a link.
    pub(super) fn read_link(
        &self,
        path: &WorkspacePath,
        notes: Option<&Recorder>,
    ) -> Result<(String, Seen), LowerError> {
        match self {
            Self::Directory(root) => {
                let answer = beneath::read_link(root.fd(), path);
                let noted = answer.as_ref().map(|(target, _)| target.as_str()).map_err(|errno| *errno);
                note(notes, |notes| notes.linked((root.name(), path), noted));
                Ok(answer?)
            }
            Self::Recorded(name, tape) => Ok(tape.target(name, path).ok_or(LowerError::Unrecorded)??),
        }
    }

    /// Open a regular file.
    pub(super) fn open_file(
        &self,
        path: &WorkspacePath,
        notes: Option<&Recorder>,
    ) -> Result<(LowerFile, Seen), LowerError> {
        match self {
            Self::Directory(root) => match beneath::open_file(root.fd(), path) {
                Ok((file, seen)) => Ok((LowerFile::Real(file), seen)),
                Err(errno) => {
                    note(notes, |notes| notes.not_opened((root.name(), path), errno));
                    Err(errno.into())
                }
            },
            Self::Recorded(name, tape) => {
                let seen = tape.open(name, path).ok_or(LowerError::Unrecorded)??;
                let (tape, workspace, path) = (Arc::clone(tape), name.clone(), path.clone());
                Ok((LowerFile::Recorded { tape, workspace, path, seen }, seen))
            }
        }
    }
}

fn note(notes: Option<&Recorder>, note: impl FnOnce(&Recorder)) {
    if let Some(notes) = notes {
        note(notes);
    }
}

impl LowerFile {
    /// What it is now.
    pub(super) fn seen(&self) -> Result<Seen, StageError> {
        match self {
            Self::Real(file) => Seen::of(file).map_err(StageError::Io),
            Self::Recorded { seen, .. } => Ok(*seen),
        }
    }

    /// At most `length` bytes from `offset`.
    pub(super) fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>, StageError> {
        match self {
            Self::Real(file) => {
                let mut bytes = Vec::with_capacity(length);
                rustix::io::pread(file, rustix::buffer::spare_capacity(&mut bytes), offset).map_err(StageError::Io)?;
                bytes.truncate(length);
                Ok(bytes)
            }
            Self::Recorded { tape, workspace, path, seen } => {
                let left = usize::try_from(seen.size.saturating_sub(offset)).unwrap_or(length);
                tape.bytes(workspace, path, offset, length.min(left)).ok_or_else(|| self.unrecorded())
            }
        }
    }

    /// Fill the front of `target` from `offset`. Says how much there was.
    pub(super) fn fill(&self, target: &mut [u8], offset: u64) -> Result<usize, StageError> {
        match self {
            Self::Real(file) => Ok(file.read_at(target, offset)?),
            Self::Recorded { .. } => {
                let bytes = self.read(offset, target.len())?;
                if let Some(target) = target.get_mut(..bytes.len()) {
                    target.copy_from_slice(&bytes);
                }
                Ok(bytes.len())
            }
        }
    }

    /// The digest of its first `size` bytes.
    pub(super) fn digest(&self, size: u64) -> Result<Digest, StageError> {
        if let Self::Recorded { tape, workspace, path, .. } = self
            && let Some(digest) = tape.digest(workspace, path)
        {
            return Ok(digest);
        }
        let mut hasher = toolkeep_core::digest::Hasher::new();
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut at = 0;
        while at < size {
            let count = self.fill(&mut chunk, at)?;
            let Some(bytes) = chunk.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
            hasher.update(bytes);
            at = at.saturating_add(count as u64);
        }
        Ok(hasher.finish())
    }

    fn unrecorded(&self) -> StageError {
        match self {
            Self::Real(_) => StageError::Io(Errno::IO),
            Self::Recorded { workspace, path, .. } => {
                StageError::Unrecorded { workspace: workspace.clone(), path: path.clone() }
            }
        }
    }
}
