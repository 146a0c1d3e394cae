//! Garbage collection that never removes what is needed.
//!
//! A blob is removed in three steps: it is condemned, unless somebody has just put it here; the ledger's writer
//! removes its row, unless something pins it; its file is removed, unless somebody put it again meanwhile. Putting,
//! condemning and removing exclude each other by one lock; rows and pins by the one writer. Files that a crash left
//! without a row go the same way.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::PoisonError;

use toolkeep_core::digest::Digest;

use super::{BlobError, Blobs, Store, place};

/// How long a content that was put is left alone, in milliseconds: many times what lies between putting it and the
/// plan that pins it, both of which are steps of one call.
pub const GRACE_MS: u64 = 60 * 60 * 1000;
/// Files that one sweep looks at: enough for a year of crashes, bounded in memory.
const FILES_AT_ONCE: usize = 100_000;

/// What may not be removed now, and what is being removed.
#[derive(Debug, Default)]
pub(super) struct Guard {
    recent: HashMap<Digest, u64>,
    condemned: HashSet<Digest>,
}

impl Guard {
    /// A content was put or is about to be pinned.
    pub(super) fn protect(&mut self, digest: &Digest, now_ms: u64) {
        self.condemned.remove(digest);
        self.recent.insert(*digest, now_ms);
    }

    fn forget_old(&mut self, now_ms: u64) {
        self.recent.retain(|_, put_ms| now_ms < put_ms.saturating_add(GRACE_MS));
    }

    fn condemn(&mut self, digest: &Digest) -> bool {
        !self.recent.contains_key(digest) && self.condemned.insert(*digest)
    }
}

impl Blobs {
    /// Remove blobs that nothing needs. Returns how many.
    ///
    /// # Errors
    /// The ledger or the file system fails; what was not removed is found again the next time.
    pub async fn collect(&self) -> Result<usize, BlobError> {
        let store = self.0.clone();
        let files = tokio::task::spawn_blocking(move || store.files()).await.map_err(|_| BlobError::Panicked)??;
        let mut candidates: HashSet<Digest> = files.into_iter().collect();
        candidates.extend(self.0.ledger.unpinned().await?);
        let condemned: Vec<Digest> = {
            let mut guard = self.0.guard.lock().unwrap_or_else(PoisonError::into_inner);
            guard.forget_old(self.0.ambient.now_ms());
            candidates.into_iter().filter(|digest| guard.condemn(digest)).collect()
        };
        if condemned.is_empty() {
            return Ok(0);
        }
        let without_row = self.0.ledger.drop_blobs(condemned.clone()).await;
        let store = self.0.clone();
        let removed = tokio::task::spawn_blocking(move || {
            let gone = without_row.as_deref().unwrap_or_default();
            let removed = store.remove(gone);
            // Whatever is still condemned was not removed; the next sweep starts afresh.
            store.guard.lock().unwrap_or_else(PoisonError::into_inner).condemned.clear();
            without_row.map(|_gone| removed)
        });
        Ok(removed.await.map_err(|_| BlobError::Panicked)??)
    }
}

impl Store {
    /// Every file of the store that is named like a blob.
    fn files(&self) -> io::Result<Vec<Digest>> {
        let mut found = Vec::new();
        for folder in self.dir.entries()? {
            let folder = folder?;
            if !folder.file_type()?.is_dir() || folder.file_name().len() != 2 {
                continue;
            }
            for file in folder.open_dir()?.entries()? {
                if let Some(digest) = file?.file_name().to_str().and_then(|name| name.parse().ok()) {
                    found.push(digest);
                }
                if found.len() >= FILES_AT_ONCE {
                    return Ok(found);
                }
            }
        }
        Ok(found)
    }

    /// Remove the files of blobs that have no row, unless they were put again. Returns how many blobs are gone.
    fn remove(&self, gone: &[Digest]) -> usize {
        let mut removed = 0;
        for digest in gone {
            let guard = self.guard.lock().unwrap_or_else(PoisonError::into_inner);
            if !guard.condemned.contains(digest) {
                continue;
            }
            match self.dir.remove_file(place(digest).1) {
                Ok(()) => removed += 1,
                Err(error) if error.kind() == io::ErrorKind::NotFound => removed += 1,
                Err(error) => tracing::warn!(%error, blob = %digest, "a blob could not be removed"),
            }
        }
        removed
    }
}
