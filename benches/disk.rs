//! The floor of a commit: the least that a bare program must do to write one file and a record of it safely.
//!
//! Temporary file, fsync, rename, fsync of the folder, one synchronous commit of SQLite.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};

/// Rows that make the write-ahead log as long as it gets.
const LOG_FILLERS: usize = 1_500;
/// The record of a file.
const RECORD: &str = "INSERT INTO written VALUES (?1, ?2)";

/// The program.
#[derive(Debug)]
pub struct Bare {
    folder: PathBuf,
    handle: File,
    content: Vec<u8>,
    connection: Mutex<Connection>,
}

fn database(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.execute_batch("CREATE TABLE written (name TEXT PRIMARY KEY, bytes INTEGER NOT NULL) STRICT")?;
    // A log that has its size already is overwritten, which is cheaper to sync than one that grows.
    connection.pragma_update(None, "synchronous", "OFF")?;
    for number in 0..LOG_FILLERS {
        connection.prepare_cached(RECORD)?.execute(params![format!("filler-{number}"), 0])?;
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    Ok(connection)
}

impl Bare {
    /// Write contents of `bytes` into a folder beneath `root`, with the database beside it.
    #[must_use]
    pub fn new(root: &Path, bytes: usize) -> Arc<Self> {
        let folder = root.join("bare");
        fs::create_dir_all(&folder).expect("a folder");
        let connection = Mutex::new(database(&root.join("bare.db")).expect("a database"));
        let handle = File::open(&folder).expect("a folder");
        Arc::new(Self { folder, handle, content: vec![b'x'; bytes], connection })
    }

    /// Commit one file.
    pub fn commit(&self, number: usize) {
        let name = format!("file-{number}");
        let staged = self.folder.join(format!(".{name}.tmp"));
        let mut file = File::create_new(&staged).expect("created");
        file.write_all(&self.content).expect("written");
        file.sync_all().expect("synced");
        fs::rename(&staged, self.folder.join(&name)).expect("renamed");
        self.handle.sync_all().expect("synced");
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let mut record = connection.prepare_cached(RECORD).expect("prepared");
        record.execute(params![name, self.content.len() as i64]).expect("recorded");
    }

    /// Commit `total` files from `threads` threads, numbered from `first`.
    #[must_use]
    pub fn commit_many(self: &Arc<Self>, threads: usize, first: usize, total: usize) -> Duration {
        let started = Instant::now();
        let next = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        if number >= total {
                            return;
                        }
                        self.commit(first + number);
                    }
                });
            }
        });
        started.elapsed()
    }
}
