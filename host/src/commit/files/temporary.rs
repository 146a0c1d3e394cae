//! Temporaries: new content, complete and on the disk before the commit point.
//!
//! Content is written once, verified against its digest while it is written, and flushed in batches, so that one flush of
//! the file system's journal serves many files and few descriptors are open. A large file's space is reserved first, so
//! that a full disk is found before anything was written.

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
const BATCH_FILES: usize = 64;

/// A file that is being made.
#[derive(Debug)]
pub(super) struct Fresh {
    pub(super) file: File,
    spot: Spot,
}

/// Files that were written and are not yet on the disk.
#[derive(Debug, Default)]
pub(super) struct Batch(Vec<Fresh>);

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
        let mut hasher = Hasher::new();
        let written = tree::read_through(&mut content.reader(), |bytes| {
            hasher.update(bytes);
            file.write_all(bytes)
        })
        .map_err(|error| CommitError::system("write", spot, Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
        if written != content.size() || hasher.finish() != *sha256 {
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

impl Batch {
    /// Take a complete file; flush when there are many.
    pub(super) fn add(&mut self, fresh: Fresh) -> Result<(), CommitError> {
        self.0.push(fresh);
        if self.0.len() >= BATCH_FILES { self.flush() } else { Ok(()) }
    }

    /// Flush all.
    pub(super) fn flush(&mut self) -> Result<(), CommitError> {
        self.0.drain(..).try_for_each(Fresh::sync)
    }
}
