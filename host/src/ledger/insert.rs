//! Rows on their way in: statements over many rows at once, and the rows of calls and contents.
//!
//! A statement per row costs a switch to the database's thread and back; the writer therefore inserts 32, 8 or 1 rows at
//! a time, three statements per table that are prepared once.

use std::sync::{Arc, LazyLock};

use sqlx::query::Query;
use sqlx::sqlite::{Sqlite, SqliteArguments, SqliteConnection};
use sqlx::{AssertSqlSafe, query};
use toolkeep_core::id::PlanId;

use super::column::{digest_bytes, id_bytes, integer, outcome_word, status_word};
use super::rows::{BlobSet, CallRow, FileBlob, InlineBlob};

/// A query with its arguments.
pub(super) type Bound = Query<'static, Sqlite, SqliteArguments>;

/// Rows per statement, largest first; the last is 1, so that every number of rows is a sum of them.
const STEPS: [usize; 3] = [32, 8, 1];

/// One `INSERT` in three lengths.
pub(super) struct Insert {
    sql: [Arc<str>; STEPS.len()],
}

impl Insert {
    /// `INSERT INTO {into} VALUES (…), … {after}` with `columns` places a row.
    ///
    /// The places have no numbers: SQLite finds the name of a numbered one by looking through all of them, and 32 rows
    /// have 800.
    pub(super) fn new(into: &str, columns: usize, after: &str) -> Self {
        let row = format!("({})", vec!["?"; columns].join(", "));
        let sql = STEPS.map(|rows| {
            let values = vec![row.as_str(); rows].join(", ");
            Arc::from(format!("INSERT INTO {into} VALUES {values}{after}"))
        });
        Self { sql }
    }

    /// Insert all items.
    pub(super) async fn all<T>(
        &self,
        conn: &mut SqliteConnection,
        items: &[T],
        bind: impl Fn(Bound, &T) -> Bound,
    ) -> Result<(), sqlx::Error> {
        let mut rest = items;
        for (rows, sql) in STEPS.iter().zip(&self.sql) {
            let whole = rest.len() - rest.len() % rows;
            let (now, later) = rest.split_at(whole);
            for chunk in now.chunks(*rows) {
                let statement: Bound = query(AssertSqlSafe(Arc::clone(sql)));
                chunk.iter().fold(statement, &bind).execute(&mut *conn).await?;
            }
            rest = later;
        }
        Ok(())
    }
}

static CALLS: LazyLock<Insert> = LazyLock::new(|| {
    Insert::new(
        "calls (seq, id, tenant, user, agent, run, step, tool, component, manifest, mode, input, input_digest, status, \
         outcome, error_code, reply, fuel, wall_ms, memory_peak, host_calls, started_ms, ended_ms, plan, final)",
        25,
        "",
    )
});
static RECORDINGS: LazyLock<Insert> = LazyLock::new(|| Insert::new("recordings (call_seq, body)", 2, ""));
static BLOBS: LazyLock<Insert> =
    LazyLock::new(|| Insert::new("blobs (digest, size, content)", 3, " ON CONFLICT (digest) DO NOTHING"));
static PINS: LazyLock<Insert> =
    LazyLock::new(|| Insert::new("blob_pins (plan, role, digest)", 3, " ON CONFLICT DO NOTHING"));

/// A call with its place in the order of calls.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed<'r> {
    pub(super) seq: i64,
    pub(super) row: &'r CallRow,
    pub(super) plan: Option<PlanId>,
}

impl Placed<'_> {
    /// A call without an open plan will not change any more.
    const fn is_final(&self) -> bool {
        self.plan.is_none()
    }
}

fn bind_call(statement: Bound, call: &Placed<'_>) -> Bound {
    let row = call.row;
    statement
        .bind(call.seq)
        .bind(id_bytes(row.call.uuid()))
        .bind(row.principal.tenant.as_str())
        .bind(row.principal.user.as_str())
        .bind(row.principal.agent.as_str())
        .bind(row.run.map(|run| id_bytes(run.uuid())))
        .bind(row.step.clone())
        .bind(row.tool.as_str())
        .bind(row.component.as_ref().map(digest_bytes))
        .bind(row.manifest.as_ref().map(digest_bytes))
        .bind(row.mode.word())
        .bind(Arc::clone(&row.input))
        .bind(digest_bytes(&row.input_digest))
        .bind(status_word(row.status))
        .bind(outcome_word(row.outcome))
        .bind(row.error_code.map(toolkeep_core::refusal::Code::word))
        .bind(Arc::clone(&row.reply))
        .bind(integer(row.usage.fuel))
        .bind(integer(row.usage.wall_ms))
        .bind(integer(row.usage.memory_peak))
        .bind(integer(row.usage.host_calls))
        .bind(integer(row.started_ms))
        .bind(integer(row.ended_ms))
        .bind(call.plan.map(|plan| id_bytes(plan.uuid())))
        .bind(i64::from(call.is_final()))
}

/// Insert calls with their recordings.
pub(super) async fn calls(conn: &mut SqliteConnection, calls: &[Placed<'_>]) -> Result<(), sqlx::Error> {
    CALLS.all(conn, calls, bind_call).await?;
    let recordings: Vec<(i64, Arc<str>)> =
        calls.iter().filter_map(|call| Some((call.seq, Arc::clone(call.row.recording.as_ref()?)))).collect();
    RECORDINGS.all(conn, &recordings, |statement, (seq, body)| statement.bind(*seq).bind(Arc::clone(body))).await
}

/// Why a plan pins a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Its effects write it.
    After,
    /// Undo needs it.
    Undo,
}

impl Role {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::After => "after",
            Self::Undo => "undo",
        }
    }
}

/// Insert contents that are not there yet, and pin all of them for a plan.
pub(super) async fn blobs(
    conn: &mut SqliteConnection,
    plan: PlanId,
    role: Role,
    set: &BlobSet,
) -> Result<(), sqlx::Error> {
    let inline = |statement: Bound, blob: &InlineBlob| {
        let size = integer(blob.content.len() as u64);
        statement.bind(digest_bytes(&blob.digest)).bind(size).bind(blob.content.to_vec())
    };
    BLOBS.all(conn, &set.inline, inline).await?;
    let file = |statement: Bound, blob: &FileBlob| {
        statement.bind(digest_bytes(&blob.digest)).bind(integer(blob.size)).bind(None::<Vec<u8>>)
    };
    BLOBS.all(conn, &set.files, file).await?;
    let digests: Vec<_> =
        set.inline.iter().map(|blob| blob.digest).chain(set.files.iter().map(|blob| blob.digest)).collect();
    let pin = |statement: Bound, digest: &toolkeep_core::digest::Digest| {
        statement.bind(id_bytes(plan.uuid())).bind(role.word()).bind(digest_bytes(digest))
    };
    PINS.all(conn, &digests, pin).await
}
