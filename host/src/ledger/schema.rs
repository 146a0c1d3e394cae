//! How the database is opened: settings, forward-only migrations, and the checks after an unclean stop.
//!
//! A database of a newer version is refused, never converted back. The pool of readers cannot write: its connections are
//! opened read-only.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Row as _, query, raw_sql};
use uuid::Uuid;

use super::failure::LedgerError;

/// The database's file, in the ledger's directory.
pub(super) const FILE: &str = "ledger.sqlite";
/// Connections that read; a reader holds one for a fraction of a millisecond.
const READERS: u32 = 4;
/// How long a writer waits for somebody else's lock, which only a tool of the operator can hold.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Pages in the write-ahead log before it is copied into the database: 16 MiB keep the copying rare.
const CHECKPOINT_PAGES: &str = "4000";
/// Bytes to which the write-ahead log is cut when it starts over.
const LOG_KEPT_BYTES: &str = "67108864";
/// Page cache of the writer and of a reader, in KiB, negative as SQLite wants it.
const WRITER_CACHE: &str = "-4096";
const READER_CACHE: &str = "-1024";
/// Largest database, in pages, that is checked in full before the first call; a larger one is checked while it works.
const CHECKED_AT_ONCE_PAGES: i64 = 65_536;

/// Every version of the schema, in order; the version of a database is how many of them it has seen.
const MIGRATIONS: [&str; 1] = [include_str!("migrations/0001_foundation.sql")];

fn common(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
        .pragma("trusted_schema", "OFF")
        .pragma("cell_size_check", "ON")
        .pragma("mmap_size", "0")
        .disable_statement_logging()
}

fn failed(what: &'static str) -> impl Fn(sqlx::Error) -> LedgerError {
    move |error| LedgerError::storage(what, &error)
}

/// Open the one connection that writes. The file exists already, with its mode.
pub(super) async fn connect_writer(path: &Path, max_pages: Option<u32>) -> Result<SqliteConnection, LedgerError> {
    let mut options = common(path)
        .page_size(4096)
        .journal_mode(SqliteJournalMode::Wal)
        .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
        .pragma("journal_size_limit", LOG_KEPT_BYTES)
        .pragma("cache_size", WRITER_CACHE);
    if let Some(pages) = max_pages {
        options = options.pragma("max_page_count", pages.to_string());
    }
    options.connect().await.map_err(failed("the ledger cannot be opened"))
}

/// The connections that read. They are opened when they are first wanted.
pub(super) fn readers(path: &Path) -> SqlitePool {
    let options = common(path).read_only(true).pragma("query_only", "ON").pragma("cache_size", READER_CACHE);
    SqlitePoolOptions::new()
        .max_connections(READERS)
        .test_before_acquire(false)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_lazy_with(options)
}

/// Bring the schema up to date.
pub(super) async fn migrate(conn: &mut SqliteConnection) -> Result<(), LedgerError> {
    let found = number(conn, "PRAGMA user_version").await?;
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    if found > known {
        return Err(LedgerError::Newer { found, known });
    }
    let problem = failed("a migration of the ledger failed");
    for (version, script) in (1_i64..).zip(MIGRATIONS).filter(|(version, _)| *version > found) {
        query("BEGIN IMMEDIATE").execute(&mut *conn).await.map_err(&problem)?;
        raw_sql(script).execute(&mut *conn).await.map_err(&problem)?;
        let mark = AssertSqlSafe(format!("PRAGMA user_version = {version}"));
        raw_sql(mark).execute(&mut *conn).await.map_err(&problem)?;
        query("COMMIT").execute(&mut *conn).await.map_err(&problem)?;
    }
    Ok(())
}

/// Check the whole file. Returns false if it is too large to wait for.
pub(super) async fn check_if_small(conn: &mut SqliteConnection) -> Result<bool, LedgerError> {
    if number(conn, "PRAGMA page_count").await? > CHECKED_AT_ONCE_PAGES {
        return Ok(false);
    }
    check(conn).await.map(|()| true)
}

/// Check the whole file: pages, rows and indices.
pub(super) async fn check(conn: &mut SqliteConnection) -> Result<(), LedgerError> {
    let row =
        query("PRAGMA integrity_check(1)").fetch_one(conn).await.map_err(failed("the ledger cannot be checked"))?;
    let answer: String = row.try_get(0).map_err(failed("the ledger cannot be checked"))?;
    if answer == "ok" { Ok(()) } else { Err(LedgerError::Damaged(answer.into())) }
}

/// The identity of this host, made at the first start.
pub(super) async fn host_id(conn: &mut SqliteConnection, fresh: Uuid) -> Result<String, LedgerError> {
    let problem = failed("the ledger's identity cannot be read");
    query("INSERT INTO meta (key, value) VALUES ('host_id', $1) ON CONFLICT DO NOTHING")
        .bind(fresh.to_string())
        .execute(&mut *conn)
        .await
        .map_err(&problem)?;
    let row = query("SELECT value FROM meta WHERE key = 'host_id'").fetch_one(conn).await.map_err(&problem)?;
    row.try_get(0).map_err(&problem)
}

/// The one number that a query gives; 0 for none.
pub(super) async fn number(conn: &mut SqliteConnection, sql: &'static str) -> Result<i64, LedgerError> {
    let problem = failed("the ledger cannot be read");
    let row = query(sql).fetch_one(conn).await.map_err(&problem)?;
    let value: Option<i64> = row.try_get(0).map_err(&problem)?;
    Ok(value.unwrap_or(0))
}
