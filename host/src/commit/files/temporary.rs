//! Temporaries: new content, complete before the commit point and on the disk before it gets its name.
//!
//! Content is written once and verified against its digest while it is written. Small files of small plans stay open
//! ([`Unflushed`]): their contents travel in the intent transaction, so the flush may run beside it, and what a power loss
//! takes of them recovery writes anew. All others are flushed before the intent, with the directories that hold them, in
//! batches, so that one flush of the file system's journal serves many files and few descriptors are open. A large file's
//! space is reserved first, so that a full disk is found before anything was written.

use std::fs::File;
use std::io::Write;

use rustix::fs::{FallocateFlags, Mode};
use rustix::io::Errno;
use toolkeep_core::digest::{Digest, Hasher};
use toolkeep_sandbox::stage::Content;

use crate::commit::files::fault::CommitError;
use crate::commit::files::step::Spot;
use crate::commit::files::tree::{self, Directory, Found, retry};

/// Bytes from which on space is reserved before writing: below, writing itself fails as early.
const RESERVE_FROM_BYTES: u64 = 1024 * 1024;
/// Files that are open before they are flushed together: far below the usual limit of 1024 descriptors.
pub(super) const BATCH_FILES: usize = 64;
/// Largest new content, in bytes, that travels in the intent transaction: a larger row would cost more than the flush that
/// it saves. `BATCH_FILES` of them are the most that one plan puts there.
pub const LOGGED_MAX_BYTES: u64 = 64 * 1024;

/// A file that is being made.
#[derive(Debug)]
pub(super) struct Fresh {
    pub(super) file: File,
    spot: Spot,
}

/// Files that were written and are not yet on the disk.
#[derive(Debug, Default)]
#[must_use = "nothing may get its name before it is flushed"]
pub struct Unflushed(Vec<Fresh>);

impl Fresh {
    /// Create a private temporary and write `content`, which must be what `sha256` and `size` say.
    pub(super) fn write(
        directory: &Directory,
        spot: &Spot,
        content: &Content,
        sha256: &Digest,
    ) -> Result<Self, CommitError> {
        let system = |doing| move |errno| CommitError::system(doing, spot, errno);
        let mut file = directory.create(spot.name()).map_err(system("create a temporary for"))?;
        if content.size() >= RESERVE_FROM_BYTES {
            match retry(|| rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, content.size())) {
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
                Err(errno) => return Err(CommitError::system("reserve space for", spot, errno)),
            }
        }
        let failed = |error: std::io::Error| {
            CommitError::system("write", spot, Errno::from_io_error(&error).unwrap_or(Errno::IO))
        };
        let (written, found) = if let Content::Memory(bytes) = content {
            file.write_all(bytes).map_err(failed)?;
            (bytes.len() as u64, Digest::of(bytes))
        } else {
            let mut hasher = Hasher::new();
            let written = tree::read_through(&mut content.reader(), |bytes| {
                hasher.update(bytes);
                file.write_all(bytes)
            });
            (written.map_err(failed)?, hasher.finish())
        };
        if written != content.size() || found != *sha256 {
            return Err(CommitError::Content(*sha256));
        }
        Ok(Self { file, spot: spot.clone() })
    }

    /// Give it its final permissions. Never a set-id or sticky bit.
    pub(super) fn permit(&self, mode: u32) -> Result<(), CommitError> {
        retry(|| rustix::fs::fchmod(&self.file, Mode::from_raw_mode(mode & 0o777)))
            .map_err(|errno| CommitError::system("set the permissions of", &self.spot, errno))
    }

    /// What it is now.
    pub(super) fn found(&self) -> Result<Found, CommitError> {
        Found::of(&self.file).map_err(|errno| CommitError::system("look at", &self.spot, errno))
    }

    /// Flush it to the disk.
    pub(super) fn sync(self) -> Result<(), CommitError> {
        match retry(|| rustix::fs::fsync(&self.file)) {
            Ok(()) => Ok(()),
            Err(errno @ (Errno::NOSPC | Errno::DQUOT)) => Err(CommitError::system("write", &self.spot, errno)),
            Err(errno) => Err(CommitError::sync(&self.spot.workspace, &self.spot.path, errno)),
        }
    }
}

impl Unflushed {
    pub(super) fn add(&mut self, fresh: Fresh) {
        self.0.push(fresh);
    }

    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether everything is on the disk already.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Flush all. Nothing that a plan writes may get its name before this has succeeded.
    ///
    /// # Errors
    /// [`CommitError::System`]: there is no space for it; what was written can be removed. [`CommitError::Poisoned`]: the
    /// disk did not confirm.
    pub fn flush(self) -> Result<(), CommitError> {
        self.0.into_iter().try_for_each(Fresh::sync)
    }
}
