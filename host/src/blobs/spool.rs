//! Room for executions: a private directory whose files are unlinked as soon as they are made.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use toolkeep_sandbox::stage::Spool;

use crate::ledger::directory;

/// The directory. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SpoolRoom(Arc<OwnedFd>);

impl SpoolRoom {
    /// Open the directory at `path` (created with mode 0700), and remove what a crash left in it.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn at(path: &Path) -> io::Result<Self> {
        let dir = directory::open(path)?;
        for entry in dir.entries()? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                entry.remove_file()?;
            }
        }
        Ok(Self(Arc::new(OwnedFd::from(dir.into_std_file()))))
    }

    /// A spool for one execution. It takes no room before it is written to.
    #[must_use]
    pub fn open(&self) -> Spool {
        Spool::new(Arc::clone(&self.0))
    }
}
