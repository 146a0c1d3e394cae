//! The content-addressed store of what plans write and what undo needs.
//!
//! Contents of at most [`INLINE_MAX_BYTES`] are rows of the ledger, written in the transaction of the plan that needs
//! them. Larger ones are files here, named by their digest, made durable before the plan is written, and verified whenever
//! they are read. What is needed is for the ledger to say: a blob without a pin is garbage, unless somebody has just
//! put it here and is about to pin it.

mod collect;
mod spool;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use cap_std::fs::Dir;
use tokio::runtime::Handle;
use toolkeep_core::digest::{Digest, Hasher};
use toolkeep_sandbox::stage::Content;

use crate::ambient::Ambient;
use crate::ledger::{BlobRow, BlobSet, FileBlob, InlineBlob, Ledger, LedgerError, directory};
use collect::Guard;

pub use collect::GRACE_MS;
pub use spool::SpoolRoom;

/// Largest content, in bytes, that is a row of the ledger: below it a row is cheaper than a file with two fsyncs.
pub const INLINE_MAX_BYTES: u64 = 64 * 1024;
/// Bytes copied at a time.
const CHUNK_BYTES: usize = 64 * 1024;

/// Why a content cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The file system failed.
    #[error("the blob store cannot be used: {0}")]
    Io(#[from] io::Error),
    /// The content is not what its name says.
    #[error("blob {0} is damaged: restore it from a backup")]
    Damaged(Digest),
    /// The content is not kept.
    #[error("blob {0} is not kept any more")]
    Missing(Digest),
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A thread that reads or writes files ended early.
    #[error("BUG: a task of the blob store panicked")]
    Panicked,
}

#[derive(Debug)]
struct Store {
    dir: Dir,
    ledger: Ledger,
    ambient: Ambient,
    runtime: Handle,
    spool: SpoolRoom,
    guard: Mutex<Guard>,
}

/// The store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Blobs(Arc<Store>);

/// Where a blob lies: two hexadecimal digits, then all of them.
fn place(digest: &Digest) -> (String, String) {
    let name = digest.to_hex();
    let folder: String = name.chars().take(2).collect();
    let path = format!("{folder}/{name}");
    (folder, path)
}

impl Blobs {
    /// Open the store in `path` (created with mode 0700).
    ///
    /// # Errors
    /// The file system refuses, or there is no runtime.
    pub fn open(path: &Path, ledger: Ledger, ambient: Ambient) -> Result<Self, BlobError> {
        let dir = directory::open(path)?;
        let spool = SpoolRoom::at(&path.join("spool"))?;
        let runtime = Handle::try_current().map_err(io::Error::other)?;
        let guard = Mutex::new(Guard::default());
        sweep(&dir)?;
        Ok(Self(Arc::new(Store { dir, ledger, ambient, runtime, spool, guard })))
    }

    /// Where executions put what does not stay in memory.
    #[must_use]
    pub fn spool(&self) -> SpoolRoom {
        self.0.spool.clone()
    }

    /// Keep a content as a file, durably; its bytes are checked while they are copied. Blocks.
    ///
    /// It is safe from collection for [`GRACE_MS`]: pin it before.
    ///
    /// # Errors
    /// The file system fails, or the bytes are not those that `digest` and `size` name.
    pub fn put(&self, digest: &Digest, size: u64, source: &mut dyn Read) -> io::Result<()> {
        let (folder, path) = place(digest);
        self.0.protect(digest);
        if self.0.dir.symlink_metadata(&path).is_ok_and(|found| found.is_file() && found.len() == size) {
            return Ok(());
        }
        match self.0.dir.create_dir(&folder) {
            Ok(()) => directory::sync(&self.0.dir)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        let within = self.0.dir.open_dir(&folder)?;
        let temporary = directory::temporary_name(&self.0.ambient);
        let name = digest.to_hex();
        let written = copy_new(&within, &temporary, (digest, size), source)
            .and_then(|()| within.rename(&temporary, &within, &name))
            .and_then(|()| directory::sync(&within));
        if written.is_err() {
            let _best_effort = within.remove_file(&temporary);
        }
        written
    }

    /// Keep contents for a plan: small ones as rows that go with the plan, large ones as files.
    ///
    /// # Errors
    /// A content cannot be read or written.
    pub async fn keep(&self, contents: BTreeMap<Digest, Content>) -> Result<BlobSet, BlobError> {
        if contents.values().all(|content| matches!(content, Content::Memory(_)) && content.size() <= INLINE_MAX_BYTES)
        {
            return self.keep_blocking(&contents);
        }
        let blobs = self.clone();
        let kept = tokio::task::spawn_blocking(move || blobs.keep_blocking(&contents)).await;
        kept.map_err(|_| BlobError::Panicked)?
    }

    fn keep_blocking(&self, contents: &BTreeMap<Digest, Content>) -> Result<BlobSet, BlobError> {
        let mut set = BlobSet::default();
        for (digest, content) in contents {
            let size = content.size();
            if size > INLINE_MAX_BYTES {
                self.put(digest, size, &mut content.reader())?;
                set.files.push(FileBlob { digest: *digest, size });
                continue;
            }
            let content: Arc<[u8]> = match content {
                Content::Memory(bytes) => Arc::clone(bytes),
                Content::Spooled { .. } => {
                    let mut bytes = Vec::new();
                    content.reader().read_to_end(&mut bytes)?;
                    bytes.into()
                }
            };
            set.inline.push(InlineBlob { digest: *digest, content });
        }
        Ok(set)
    }

    /// Contents that are here already, as a set that another plan can pin.
    ///
    /// # Errors
    /// One of them is not kept any more.
    pub async fn pin(&self, digests: &[Digest]) -> Result<BlobSet, BlobError> {
        let mut set = BlobSet::default();
        for digest in digests {
            self.0.protect(digest);
            match self.0.ledger.blob(*digest).await? {
                Some(BlobRow { content: Some(content), .. }) => {
                    set.inline.push(InlineBlob { digest: *digest, content: content.into() });
                }
                Some(BlobRow { content: None, size }) => set.files.push(FileBlob { digest: *digest, size }),
                None => return Err(BlobError::Missing(*digest)),
            }
        }
        Ok(set)
    }

    /// A content, verified.
    ///
    /// # Errors
    /// It is damaged, or cannot be read.
    pub async fn read(&self, digest: &Digest) -> Result<Option<Vec<u8>>, BlobError> {
        let Some(content) = self.content(digest).await? else { return Ok(None) };
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::new();
            content.reader().read_to_end(&mut bytes).map(|_length| bytes)
        });
        Ok(Some(read.await.map_err(|_| BlobError::Panicked)??))
    }

    /// A content that is read piece by piece; verified as a whole before.
    ///
    /// # Errors
    /// It is damaged, or cannot be read.
    pub async fn content(&self, digest: &Digest) -> Result<Option<Content>, BlobError> {
        let Some(row) = self.0.ledger.blob(*digest).await? else { return Ok(None) };
        let (blobs, digest) = (self.clone(), *digest);
        let verified = tokio::task::spawn_blocking(move || blobs.verified(&digest, row)).await;
        verified.map_err(|_| BlobError::Panicked)?.map(Some)
    }

    /// As [`Blobs::content`], for threads that may block; not for tasks.
    ///
    /// # Errors
    /// It is damaged, or cannot be read.
    pub fn content_blocking(&self, digest: &Digest) -> Result<Option<Content>, BlobError> {
        match self.0.runtime.block_on(self.0.ledger.blob(*digest))? {
            Some(row) => self.verified(digest, row).map(Some),
            None => Ok(None),
        }
    }

    fn verified(&self, digest: &Digest, row: BlobRow) -> Result<Content, BlobError> {
        if let Some(content) = row.content {
            let right = Digest::of(&content) == *digest && content.len() as u64 == row.size;
            return if right { Ok(Content::Memory(content.into())) } else { Err(BlobError::Damaged(*digest)) };
        }
        let mut file = match self.0.dir.open(place(digest).1) {
            Ok(file) => file.into_std(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(BlobError::Missing(*digest)),
            Err(error) => return Err(error.into()),
        };
        if digest_of(&mut file)? != (*digest, row.size) {
            return Err(BlobError::Damaged(*digest));
        }
        file.seek(SeekFrom::Start(0))?;
        Ok(Content::Spooled { file: Arc::new(file), offset: 0, size: row.size })
    }
}

impl Store {
    /// Somebody is about to pin this: do not collect it.
    fn protect(&self, digest: &Digest) {
        self.guard.lock().unwrap_or_else(PoisonError::into_inner).protect(digest, self.ambient.now_ms());
    }
}

/// Remove the temporary files of a crash. Nobody writes yet.
fn sweep(dir: &Dir) -> io::Result<()> {
    for folder in dir.entries()? {
        let folder = folder?;
        if !folder.file_type()?.is_dir() || folder.file_name().len() != 2 {
            continue;
        }
        for file in folder.open_dir()?.entries()? {
            let file = file?;
            if file.file_name().to_str().is_some_and(|name| name.starts_with(directory::TEMPORARY)) {
                file.remove_file()?;
            }
        }
    }
    Ok(())
}

fn digest_of(file: &mut File) -> io::Result<(Digest, u64)> {
    let (mut hasher, mut size) = (Hasher::new(), 0);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let length = file.read(&mut chunk)?;
        let Some(bytes) = chunk.get(..length).filter(|bytes| !bytes.is_empty()) else { break };
        hasher.update(bytes);
        size += bytes.len() as u64;
    }
    Ok((hasher.finish(), size))
}

fn copy_new(dir: &Dir, name: &str, wanted: (&Digest, u64), source: &mut dyn Read) -> io::Result<()> {
    let mut file = dir.open_with(name, &directory::new_file())?;
    let (mut hasher, mut size) = (Hasher::new(), 0);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let length = source.read(&mut chunk)?;
        let Some(bytes) = chunk.get(..length).filter(|bytes| !bytes.is_empty()) else { break };
        hasher.update(bytes);
        size += bytes.len() as u64;
        file.write_all(bytes)?;
    }
    if (&hasher.finish(), size) != wanted {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the content is not what its digest says"));
    }
    file.sync_all()
}
