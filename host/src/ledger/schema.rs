//! How the database is opened: settings, forward-only migrations, and the checks after an unclean stop.
//!
//! A database of a newer version is refused, never converted back. Readers cannot write: their connections are opened
//! read-only.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, params};
use uuid::Uuid;

use super::PAGE_BYTES;
use super::column::Reading;
use super::failure::LedgerError;
use super::statement::{execute, row};

/// The database's file, in the ledger's directory.
pub(super) const FILE: &str = "ledger.sqlite";
/// Its write-ahead log, beside it.
const LOG_FILE: &str = "ledger.sqlite-wal";
/// How long a writer waits for somebody else's lock, which only a tool of the operator can hold.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Pages in the write-ahead log before it is copied into the database: 16 MiB keep the copying rare.
const CHECKPOINT_PAGES: i64 = 4_000;
/// Bytes to which the write-ahead log is cut when it starts over.
const LOG_KEPT_BYTES: i64 = 67_108_864;
/// Page cache of the writer and of a reader, in KiB, negative as SQLite wants it.
const WRITER_CACHE: i64 = -4_096;
const READER_CACHE: i64 = -1_024;
/// Statements that a connection keeps prepared: more than the ledger has.
const STATEMENTS: usize = 160;
/// Largest database, in pages, that is checked in full before the first call; a larger one is checked while it works.
const CHECKED_AT_ONCE_PAGES: i64 = 65_536;

/// Every version of the schema, in order; the version of a database is how many of them it has seen.
const MIGRATIONS: [&str; 21] = [
    include_str!("migrations/0001_foundation.sql"),
    include_str!("migrations/0002_outside.sql"),
    include_str!("migrations/0003_sends.sql"),
    include_str!("migrations/0004_transactions.sql"),
    include_str!("migrations/0005_identity.sql"),
    include_str!("migrations/0006_kill.sql"),
    include_str!("migrations/0007_quotas.sql"),
    include_str!("migrations/0008_usage.sql"),
    include_str!("migrations/0009_oversight.sql"),
    include_str!("migrations/0010_outbox.sql"),
    include_str!("migrations/0011_budgets.sql"),
    include_str!("migrations/0012_origins.sql"),
    include_str!("migrations/0013_retries.sql"),
    include_str!("migrations/0014_alerts.sql"),
    include_str!("migrations/0015_privacy.sql"),
    include_str!("migrations/0016_audit_tree.sql"),
    include_str!("migrations/0017_replay.sql"),
    include_str!("migrations/0018_forgetting.sql"),
    include_str!("migrations/0019_cases.sql"),
    include_str!("migrations/0020_attention.sql"),
    include_str!("migrations/0021_via.sql"),
];

fn failed(what: &'static str) -> impl Fn(rusqlite::Error) -> LedgerError {
    move |error| LedgerError::storage(what, &error)
}

/// What every connection is told.
fn settle(conn: &Connection, cache: i64) -> Result<(), rusqlite::Error> {
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    // A plan is made once for a statement, not again for each value: where an index is partial, that cost more than the row.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    conn.pragma_update(None, "foreign_keys", "ON")?;
    conn.pragma_update(None, "trusted_schema", "OFF")?;
    conn.pragma_update(None, "cell_size_check", "ON")?;
    conn.pragma_update(None, "mmap_size", 0)?;
    conn.pragma_update(None, "cache_size", cache)
}

fn open_writer(path: &Path, max_pages: Option<u32>) -> Result<Connection, rusqlite::Error> {
    // One thread at a time uses a connection, so it needs no lock of its own.
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.pragma_update(None, "page_size", i64::from(PAGE_BYTES))?;
    // Only a database that is made now becomes one that can give room back.
    conn.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    settle(&conn, WRITER_CACHE)?;
    conn.pragma_update(None, "journal_mode", "WAL")?;
    conn.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    conn.pragma_update(None, "journal_size_limit", LOG_KEPT_BYTES)?;
    if let Some(pages) = max_pages {
        conn.pragma_update(None, "max_page_count", pages)?;
    }
    Ok(conn)
}

/// Open the one connection that writes. The file exists already, with its mode.
pub(super) fn connect_writer(path: &Path, max_pages: Option<u32>) -> Result<Connection, LedgerError> {
    open_writer(path, max_pages).map_err(failed("the ledger cannot be opened"))
}

fn open_reader(path: &Path) -> Result<Connection, rusqlite::Error> {
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    settle(&conn, READER_CACHE)?;
    conn.pragma_update(None, "query_only", "ON")?;
    Ok(conn)
}

/// Open a connection that reads.
pub(super) fn connect_reader(path: &Path) -> Result<Connection, LedgerError> {
    open_reader(path).map_err(|error| LedgerError::unread(&error))
}

/// Say whether what is deleted is overwritten.
pub(super) fn overwrites(conn: &Connection, overwrites: bool) -> Result<(), rusqlite::Error> {
    let sql = if overwrites { "PRAGMA secure_delete = ON" } else { "PRAGMA secure_delete = OFF" };
    conn.query_row(sql, [], |_row| Ok(()))
}

/// Open a database that nobody writes, where it may be that nothing can be written beside it either.
pub(super) fn connect_copy(path: &Path) -> Result<Connection, LedgerError> {
    let readable = |conn: &Connection| conn.query_row("SELECT count(*) FROM meta", [], |row| row.get::<_, i64>(0));
    let opened = open_reader(path).and_then(|conn| readable(&conn).map(|_| conn));
    let error = match opened {
        Ok(conn) => return Ok(conn),
        Err(error) => error,
    };
    // In a directory that cannot be written SQLite cannot share the log. A copy that has none is complete without.
    let has_log = std::fs::metadata(path.with_file_name(LOG_FILE)).is_ok_and(|log| log.len() > 0);
    if has_log || !path.is_file() {
        return Err(failed("the copy of the ledger cannot be read; copy its whole folder to where it can be written")(
            error,
        ));
    }
    let escaped: String = path
        .to_string_lossy()
        .chars()
        .map(|c| match c {
            '%' => "%25".to_owned(),
            '?' => "%3f".to_owned(),
            '#' => "%23".to_owned(),
            other => other.to_string(),
        })
        .collect();
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let conn = Connection::open_with_flags(format!("file:{escaped}?immutable=1"), flags);
    let conn = conn.and_then(|conn| settle(&conn, READER_CACHE).and_then(|()| readable(&conn)).map(|_| conn));
    conn.map_err(failed("the copy of the ledger cannot be read"))
}

/// Refuse a database of another version.
pub(super) fn check_version(conn: &Connection) -> Result<(), LedgerError> {
    let found = number(conn, "PRAGMA user_version")?;
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    match found.cmp(&known) {
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(LedgerError::Newer { found, known }),
        std::cmp::Ordering::Less => Err(LedgerError::Older { found, known }),
    }
}

/// Bring the schema up to date.
pub(super) fn migrate(conn: &Connection) -> Result<(), LedgerError> {
    let found = number(conn, "PRAGMA user_version")?;
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    if found > known {
        return Err(LedgerError::Newer { found, known });
    }
    let problem = failed("a migration of the ledger failed");
    for (version, script) in (1_i64..).zip(MIGRATIONS).filter(|(version, _)| *version > found) {
        let whole = format!("BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {version};\nCOMMIT;");
        conn.execute_batch(&whole).map_err(&problem)?;
    }
    Ok(())
}

/// Check the whole file. Returns false if it is too large to wait for.
pub(super) fn check_if_small(conn: &Connection) -> Result<bool, LedgerError> {
    if number(conn, "PRAGMA page_count")? > CHECKED_AT_ONCE_PAGES {
        return Ok(false);
    }
    check(conn).map(|()| true)
}

/// Check the whole file: pages, rows and indices.
pub(super) fn check(conn: &Connection) -> Result<(), LedgerError> {
    let answer: String = conn
        .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
        .map_err(failed("the ledger cannot be checked"))?;
    if answer == "ok" { Ok(()) } else { Err(LedgerError::Damaged(answer.into())) }
}

/// The identity of this host, made at the first start.
pub(super) fn host_id(conn: &Connection, fresh: Uuid) -> Result<String, LedgerError> {
    let sql = "INSERT INTO meta (key, value) VALUES ('host_id', ?1) ON CONFLICT DO NOTHING";
    execute(conn, sql, params![fresh.to_string()]).map_err(failed("the ledger's identity cannot be written"))?;
    let found = row(conn, "SELECT value FROM meta WHERE key = 'host_id'", &[], |row| {
        Reading::new(row, "meta").text("value").map(str::to_owned)
    })?;
    found.ok_or_else(|| LedgerError::Damaged("it has no `host_id`".into()))
}

/// The ledger belongs to the environment under which it was made: with it go the signing key and everything that was ever
/// consented to.
pub(super) fn check_environment(conn: &Connection, wanted: &'static str) -> Result<(), LedgerError> {
    let sql = "INSERT INTO meta (key, value) VALUES ('environment', ?1) ON CONFLICT DO NOTHING";
    execute(conn, sql, params![wanted]).map_err(failed("the ledger's environment cannot be written"))?;
    let found = row(conn, "SELECT value FROM meta WHERE key = 'environment'", &[], |row| {
        Reading::new(row, "meta").text("value").map(str::to_owned)
    })?;
    match found {
        Some(found) if found == wanted => Ok(()),
        found => Err(LedgerError::OtherEnvironment { found: found.unwrap_or_default().into(), wanted }),
    }
}

/// The one number that a query gives; 0 for none.
pub(super) fn number(conn: &Connection, sql: &'static str) -> Result<i64, LedgerError> {
    let value: Option<i64> = conn.query_row(sql, [], |row| row.get(0)).map_err(failed("the ledger cannot be read"))?;
    Ok(value.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r42_golden_cases_of_before_learn_the_call_that_they_were_made_of_and_whose_it_was() {
        let conn = Connection::open_in_memory().expect("a database");
        // Number 19 is the one that learns it.
        let (before, rest) = MIGRATIONS.split_at(18);
        for script in before {
            conn.execute_batch(script).expect("a migration");
        }
        let call = Uuid::from_u128(7);
        let sql = "INSERT INTO calls (seq, id, tenant, user, agent, tool, mode, input, input_digest, status, outcome, reply, \
                   fuel, wall_ms, memory_peak, host_calls, started_ms, ended_ms, final) \
                   VALUES (1, ?1, 'acme', 'ada', 'a', 't', 'commit', '{}', x'00', 'ok', 'none', '{}', 0, 0, 0, 0, 0, 0, 1)";
        conn.execute(sql, params![call.as_bytes().as_slice()]).expect("a call");
        for (name, body) in [
            ("of-a-call", format!(r#"{{"from":"call_{call}"}}"#)),
            ("of-one-that-is-gone", format!(r#"{{"from":"call_{}"}}"#, Uuid::from_u128(8))),
            ("by-hand", "{}".to_owned()),
        ] {
            let sql = "INSERT INTO golden_cases (tenant, suite, name, tool, body, made_by, made_ms) \
                       VALUES ('acme', 's', ?1, 't', ?2, 'ann', 1)";
            conn.execute(sql, params![name, body]).expect("a case");
        }
        conn.execute_batch(rest[0]).expect("the migration");
        let of = |name: &str| -> (Option<Vec<u8>>, Option<String>) {
            let sql = "SELECT from_call, from_user FROM golden_cases WHERE name = ?1";
            conn.query_row(sql, params![name], |row| Ok((row.get(0)?, row.get(1)?))).expect("a case")
        };
        assert_eq!(of("of-a-call"), (Some(call.as_bytes().to_vec()), Some("ada".to_owned())));
        assert_eq!(of("of-one-that-is-gone"), (Some(Uuid::from_u128(8).as_bytes().to_vec()), None));
        assert_eq!(of("by-hand"), (None, None));
    }
}
