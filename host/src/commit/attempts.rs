//! Notes of attempts: which directories hold temporaries of a commit whose intent is not durable yet.
//!
//! Without them a crash between preparing and the intent would leave files that nobody knows of. A note is a small file,
//! written before the first temporary is made and removed when the intent is durable or the temporaries are gone; it is not
//! flushed, so only a power loss in that very moment can lose it. The next start removes what the notes name.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use super::files::{Nest, Roots, TransactionId, sweep_orphans};

/// Most notes that a start looks at; one is left per commit that was under way.
const NOTES_MAX: usize = 10_000;

/// The folder of notes.
#[derive(Debug)]
pub(super) struct Attempts {
    folder: PathBuf,
}

/// A note that is to be removed when its commit is past the point where it could be forgotten.
#[derive(Debug)]
#[must_use = "remove the note when the temporaries are known otherwise, or gone"]
pub(super) struct Note {
    path: PathBuf,
}

impl Attempts {
    /// Open or make the folder.
    ///
    /// # Errors
    /// It cannot be made.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        Ok(Self { folder: folder.to_path_buf() })
    }

    /// Note where an attempt is about to make temporaries.
    ///
    /// # Errors
    /// The note cannot be written: nothing must be prepared.
    pub(super) fn note(&self, transaction: &TransactionId, nests: &[Nest]) -> io::Result<Note> {
        let path = self.folder.join(transaction.as_str());
        fs::write(&path, serde_json::to_vec(nests)?)?;
        Ok(Note { path })
    }

    /// Remove the note of an attempt whose intent is durable.
    ///
    /// # Errors
    /// The note exists and cannot be removed.
    pub(super) fn forget(&self, transaction: &TransactionId) -> io::Result<()> {
        match fs::remove_file(self.folder.join(transaction.as_str())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Remove the temporaries of attempts that never came to an intent. Says how many there were.
    ///
    /// # Errors
    /// The folder or a workspace cannot be read; what is left is tried again at the next start.
    pub(super) fn sweep(&self, roots: &Roots) -> io::Result<usize> {
        let mut removed = 0;
        for entry in fs::read_dir(&self.folder)?.take(NOTES_MAX) {
            let path = entry?.path();
            let id = path.file_name().and_then(|name| name.to_str()).map(str::to_owned).unwrap_or_default();
            let Ok(transaction) = TransactionId::try_from(id) else { continue };
            // A note that was cut short was written before any temporary was made.
            if let Ok(nests) = serde_json::from_slice::<Vec<Nest>>(&fs::read(&path)?) {
                removed += sweep_orphans(&nests, &transaction, roots).map_err(io::Error::other)?;
            }
            fs::remove_file(&path)?;
        }
        Ok(removed)
    }
}

impl Note {
    /// The temporaries are in a durable intent, or gone.
    pub(super) fn remove(&self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, "the note of an attempt could not be removed; the next start removes it");
        }
    }
}
