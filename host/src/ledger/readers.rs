//! The readers' connections: a few that cannot write, each used by one caller at a time on a thread that may wait.
//!
//! They are opened when they are first wanted and kept. A read is short, but it may have to wait for the disk; the
//! threads that answer calls never do.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::failure::LedgerError;
use super::schema;
use super::statement::Failed;

/// Connections that read; a reader holds one for a fraction of a millisecond.
const READERS: u32 = 4;

/// The pool.
pub(super) struct Readers {
    file: PathBuf,
    /// One permit per connection, open or not.
    permits: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readers").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Readers {
    pub(super) fn new(file: PathBuf) -> Self {
        Self { file, permits: Arc::new(Semaphore::new(READERS as usize)), idle: Arc::default() }
    }

    /// Read something. The caller may go away meanwhile; the connection is given back either way.
    ///
    /// # Errors
    /// The database cannot be opened or read, or the pool is closed.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, Failed> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_closed| LedgerError::Closed)?;
        let (file, idle) = (self.file.clone(), Arc::clone(&self.idle));
        let reading = tokio::task::spawn_blocking(move || {
            let kept = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let conn = kept.map_or_else(|| schema::connect_reader(&file), Ok)?;
            let answer = read(&conn);
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(conn);
            drop(permit);
            answer.map_err(LedgerError::from)
        });
        reading.await.map_err(|error| LedgerError::storage("the ledger cannot be read", &error))?
    }

    /// Wait for those who read, and close the connections. Every later read is refused.
    pub(super) async fn close(&self) {
        let Ok(_all) = self.permits.acquire_many(READERS).await else { return };
        self.permits.close();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
