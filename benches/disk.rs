//! The floor of a commit: the least that a bare program must do to write one file and a record of it safely.
//!
//! Temporary file, fsync, rename, fsync of the folder, one synchronous commit of SQLite.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use tokio::runtime::Runtime;
use tokio::sync::Mutex;

/// Rows that make the write-ahead log as long as it gets.
const LOG_FILLERS: usize = 1_500;

/// The program.
#[derive(Debug)]
pub struct Bare {
    folder: PathBuf,
    handle: File,
    content: Vec<u8>,
    runtime: Runtime,
    connection: Mutex<SqliteConnection>,
}

impl Bare {
    /// Write contents of `bytes` into a folder beneath `root`, with the database beside it.
    #[must_use]
    pub fn new(root: &Path, bytes: usize) -> Arc<Self> {
        let folder = root.join("bare");
        fs::create_dir_all(&folder).expect("a folder");
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        let options = SqliteConnectOptions::new()
            .filename(root.join("bare.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        let connection = runtime.block_on(async {
            let mut connection = SqliteConnection::connect_with(&options).await.expect("a database");
            let table = "CREATE TABLE written (name TEXT PRIMARY KEY, bytes INTEGER NOT NULL) STRICT";
            sqlx::query(table).execute(&mut connection).await.expect("a table");
            // A log that has its size already is overwritten, which is cheaper to sync than one that grows.
            sqlx::query("PRAGMA synchronous = OFF").execute(&mut connection).await.expect("set");
            for number in 0..LOG_FILLERS {
                let row = sqlx::query("INSERT INTO written VALUES (?1, 0)").bind(format!("filler-{number}"));
                row.execute(&mut connection).await.expect("recorded");
            }
            sqlx::query("PRAGMA synchronous = FULL").execute(&mut connection).await.expect("set");
            connection
        });
        let handle = File::open(&folder).expect("a folder");
        Arc::new(Self { folder, handle, content: vec![b'x'; bytes], runtime, connection: Mutex::new(connection) })
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
        self.runtime.block_on(async {
            let mut connection = self.connection.lock().await;
            let row = sqlx::query("INSERT INTO written VALUES (?1, ?2)").bind(&name).bind(self.content.len() as i64);
            row.execute(&mut *connection).await.expect("recorded");
        });
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
