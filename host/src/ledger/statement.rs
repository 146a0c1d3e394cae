//! One statement at a time: prepared once per connection, bound by place, read row by row.
//!
//! Places are `?1`, `?2`, …, so that a text may use a value twice and in any order. What a row is read into may find it
//! damaged; the two kinds of failure stay apart, because only that of SQLite says anything about the disk.

use rusqlite::{Connection, Row, Statement, ToSql};

use super::column::Reading;
use super::failure::LedgerError;
use super::rows::Paged;

/// Why rows could not be read.
#[derive(Debug)]
pub(super) enum Failed {
    /// SQLite's answer.
    Sql(rusqlite::Error),
    /// A row is not what it should be.
    Row(LedgerError),
}

impl From<rusqlite::Error> for Failed {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<LedgerError> for Failed {
    fn from(error: LedgerError) -> Self {
        Self::Row(error)
    }
}

impl From<Failed> for LedgerError {
    /// For readers; what a failure means to a writer is for the writer to judge.
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Sql(error) => Self::unread(&error),
            Failed::Row(error) => error,
        }
    }
}

/// Run a statement that gives no rows. Returns how many it changed.
pub(super) fn execute(conn: &Connection, sql: &str, values: &[&dyn ToSql]) -> Result<usize, rusqlite::Error> {
    conn.prepare_cached(sql)?.execute(values)
}

/// Run one statement for each item; it is prepared once.
pub(super) fn each<T>(
    conn: &Connection,
    sql: &str,
    items: &[T],
    run: impl Fn(&mut Statement<'_>, &T) -> Result<usize, rusqlite::Error>,
) -> Result<(), rusqlite::Error> {
    if items.is_empty() {
        return Ok(());
    }
    let mut statement = conn.prepare_cached(sql)?;
    items.iter().try_for_each(|item| run(&mut statement, item).map(|_changed| ()))
}

/// The first row, if there is one.
pub(super) fn row<T>(
    conn: &Connection,
    sql: &str,
    values: &[&dyn ToSql],
    of: impl FnOnce(&Row<'_>) -> Result<T, LedgerError>,
) -> Result<Option<T>, Failed> {
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query(values)?;
    Ok(rows.next()?.map(of).transpose()?)
}

/// All rows.
pub(super) fn rows<T>(
    conn: &Connection,
    sql: &str,
    values: &[&dyn ToSql],
    of: impl Fn(&Row<'_>) -> Result<T, LedgerError>,
) -> Result<Vec<T>, Failed> {
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query(values)?;
    let mut items = Vec::new();
    while let Some(row) = rows.next()? {
        items.push(of(row)?);
    }
    Ok(items)
}

/// The rows of a page, and where the next one starts. The statement asks for one row more than `limit`: it tells whether
/// there is a next page. Rows have a `seq`.
pub(super) fn page<T>(
    conn: &Connection,
    sql: &str,
    values: &[&dyn ToSql],
    limit: usize,
    of: impl Fn(&Row<'_>) -> Result<T, LedgerError>,
) -> Result<Paged<T>, Failed> {
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query(values)?;
    let (mut items, mut last) = (Vec::new(), None);
    while let Some(row) = rows.next()? {
        if items.len() == limit {
            return Ok(Paged { items, next: last });
        }
        items.push(of(row)?);
        last = Some(Reading::new(row, "page").number("seq")?);
    }
    Ok(Paged { items, next: None })
}
