//! Notes of preparations under way, so that a crash before the commit point leaves no temporaries behind.
//!
//! Before a preparation makes its first temporary, its transaction and the directories that it will use are written into
//! a small file of the state directory; when the intent is durable, or the preparation was dropped, the file goes. At
//! start-up, after the open intents are recovered, [`Notes::sweep`] removes what the notes still name. Notes are not
//! flushed: a killed process loses nothing of the page cache, and a journalled file system that loses a note in a power
//! failure loses the younger temporaries with it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use toolkeep_core::effect::Effect;

use crate::commit::files::fault::CommitError;
use crate::commit::files::step::TransactionId;
use crate::commit::files::sweep::{Nest, nests, sweep_orphans};
use crate::commit::files::tree::{Directory, Roots, retry};

/// The only format of notes that this version writes and reads.
const FORMAT: u32 = 1;
/// Longest note in bytes: the directories of the largest plan with the longest paths.
const NOTE_MAX_BYTES: u64 = 64 * 1024 * 1024;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    format: u32,
    nests: Vec<Nest>,
}

/// The directory that holds the notes. Clones share it.
#[derive(Debug, Clone)]
pub struct Notes(Arc<OwnedFd>);

/// A note that is there; dropping it takes it away.
#[derive(Debug)]
#[must_use = "the note is there only as long as this lives"]
pub struct Note {
    notes: Notes,
    name: String,
}

/// Why temporaries of the last life are left.
#[derive(Debug, thiserror::Error)]
pub enum NotSwept {
    /// The notes cannot be read or removed.
    #[error("the notes of preparations cannot be used: {0}; check the state directory")]
    Notes(#[source] std::io::Error),
    /// The workspace refuses.
    #[error(transparent)]
    Workspace(#[from] CommitError),
}

impl Notes {
    /// Notes in a directory that belongs to the daemon alone.
    #[must_use]
    pub fn new(directory: OwnedFd) -> Self {
        Self(Arc::new(directory))
    }

    /// Note where a preparation will make temporaries.
    ///
    /// # Errors
    /// The state directory refuses.
    pub fn note(&self, transaction: &TransactionId, effects: &[Effect]) -> std::io::Result<Note> {
        let text = serde_json::to_vec(&Text { format: FORMAT, nests: nests(effects) })?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let name = transaction.as_str().to_owned();
        let file = retry(|| rustix::fs::openat(&*self.0, &name, flags, Mode::from_raw_mode(0o600)))?;
        let note = Note { notes: self.clone(), name };
        File::from(file).write_all(&text)?;
        Ok(note)
    }

    /// Remove the temporaries that notes of the last life name, except those of `settled` transactions, whose remains
    /// recovery has judged. Says how many there were.
    ///
    /// # Errors
    /// A directory cannot be read or a temporary not be removed; the notes stay for another attempt.
    pub fn sweep(&self, roots: &Roots, settled: &BTreeSet<TransactionId>) -> Result<usize, NotSwept> {
        let notes = |errno: Errno| NotSwept::Notes(errno.into());
        let mut removed = 0;
        for name in Directory::listed(&self.0).map_err(notes)? {
            let Ok(transaction) = TransactionId::try_from(name.clone()) else { continue };
            if !settled.contains(&transaction) {
                // A note that was cut short was written before anything was made.
                let nests = self.read(&name).map_err(NotSwept::Notes)?.unwrap_or_default();
                let known: Vec<Nest> = nests.into_iter().filter(|nest| roots.contains_key(&nest.workspace)).collect();
                removed += sweep_orphans(&known, &transaction, roots)?;
            }
            retry(|| rustix::fs::unlinkat(&*self.0, &name, AtFlags::empty())).map_err(notes)?;
        }
        Ok(removed)
    }

    fn read(&self, name: &str) -> std::io::Result<Option<Vec<Nest>>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = retry(|| rustix::fs::openat(&*self.0, name, flags, Mode::empty()))?;
        let mut text = Vec::new();
        File::from(file).take(NOTE_MAX_BYTES).read_to_end(&mut text)?;
        Ok(serde_json::from_slice::<Text>(&text).ok().filter(|text| text.format == FORMAT).map(|text| text.nests))
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        if let Err(error) = rustix::fs::unlinkat(&*self.notes.0, &self.name, AtFlags::empty()) {
            tracing::warn!(%error, "the note of a preparation could not be removed; start-up removes it");
        }
    }
}
