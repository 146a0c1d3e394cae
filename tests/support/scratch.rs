//! A directory that is empty at the start and gone at the end.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use toolkeep_sandbox::stage::Spool;

static NEXT: AtomicU64 = AtomicU64::new(0);

/// A directory of one test.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl Scratch {
    /// A new, empty directory.
    ///
    /// # Panics
    /// It cannot be made.
    #[must_use]
    pub fn new() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("toolkeep-test-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).expect("scratch directory");
        Self { path }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Write a file in it, making the directories above.
    ///
    /// # Panics
    /// It cannot be written.
    pub fn put(&self, name: &str, content: &[u8]) {
        let path = self.path.join(name);
        if let Some(above) = path.parent() {
            std::fs::create_dir_all(above).expect("directories");
        }
        std::fs::write(path, content).expect("file");
    }

    /// A spool in the directory for temporary files.
    ///
    /// # Panics
    /// It cannot be opened.
    #[must_use]
    pub fn spool() -> Spool {
        Spool::new(Arc::new(OwnedFd::from(File::open(std::env::temp_dir()).expect("temporary directory"))))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _left_behind = std::fs::remove_dir_all(&self.path);
    }
}
