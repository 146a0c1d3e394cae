//! The ledger's directory, held by one process at a time.
//!
//! The lock is the kernel's and ends with the process; a note beside it says whether the last daemon stopped cleanly.

use std::io;
use std::path::Path;

use cap_std::fs::Dir;

use super::failure::LedgerError;
use super::{directory, schema, writer};

/// The file whose lock says that a daemon uses the directory.
const LOCK: &str = "lock";

/// The ledger's directory, held by this process.
#[derive(Debug)]
pub(super) struct Locked {
    dir: Dir,
    /// The lock ends when this is closed.
    _lock: cap_std::fs::File,
}

impl Locked {
    pub(super) const fn dir(&self) -> &Dir {
        &self.dir
    }

    pub(super) fn take(path: &Path) -> Result<Self, LedgerError> {
        let problem = |error: io::Error| LedgerError::storage("the ledger's directory cannot be used", &error);
        let dir = directory::open(path).map_err(problem)?;
        let mut options = directory::new_file();
        options.create_new(false).create(true);
        let lock = dir.open_with(LOCK, &options).map_err(problem)?;
        match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { dir, _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(LedgerError::Locked(path.display().to_string().into())),
            Err(error) => Err(problem(error.into())),
        }
    }

    /// Note that a daemon runs. True if the note was there: the last one did not stop cleanly.
    pub(super) fn mark_running(&self) -> io::Result<bool> {
        match self.dir.open_with(writer::RUNNING, &directory::new_file()) {
            Ok(_file) => directory::sync(&self.dir).map(|()| false),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// The database's file exists and is private before SQLite sees it; the files beside it take its mode.
    pub(super) fn make_database(&self) -> io::Result<()> {
        let mut options = directory::new_file();
        options.create_new(false).create(true);
        self.dir.open_with(schema::FILE, &options).map(|_file| ())
    }
}
