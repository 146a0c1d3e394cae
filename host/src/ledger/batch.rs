//! One transaction of the writer: many jobs, each of which succeeds or fails alone.
//!
//! Recorded calls are gathered and inserted together; every other job runs behind a savepoint, so that one that is
//! refused takes back its own rows and nobody else's. Audit entries are chained as the jobs run and inserted
//! last. An error of the disk fails the whole batch and is for the writer to judge.

use std::sync::{Arc, LazyLock};

use sqlx::query;
use sqlx::sqlite::SqliteConnection;
use toolkeep_core::audit::{AuditEntry, AuditKind, ChainHead};

use super::column::{audit_word, digest_bytes, integer};
use super::facts;
use super::failure::LedgerError;
use super::insert::{self, Bound, Insert, Placed};
use super::queue::{Done, Job, Work};
use super::rows::CallRow;

/// Where the next rows go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Marks {
    pub(super) head: ChainHead,
    pub(super) next_call: i64,
}

/// Why a job did not do what it should.
pub(super) enum Stop<R> {
    /// The job's own fault: it is taken back and answered.
    Refused(R),
    /// SQLite's answer: a refused row is the job's fault, anything else fails the batch.
    Sql(sqlx::Error),
}

impl<R> From<sqlx::Error> for Stop<R> {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

impl<R: From<LedgerError>> From<LedgerError> for Stop<R> {
    fn from(error: LedgerError) -> Self {
        Self::Refused(error.into())
    }
}

/// What a job came to inside the batch.
pub(super) type Step<T, R> = Result<T, Stop<R>>;

/// The transaction while it is open.
pub(super) struct Batch<'c> {
    pub(super) conn: &'c mut SqliteConnection,
    pub(super) now_ms: u64,
    pub(super) host_id: &'c str,
    marks: Marks,
    audit: Vec<AuditEntry>,
    records: Vec<&'c CallRow>,
    /// Whether jobs need a savepoint: one that is alone in its batch does not, the transaction itself is taken back.
    shared: bool,
    spoiled: bool,
}

/// What a batch came to, before it is committed.
pub(super) struct Ran {
    pub(super) done: Vec<Done>,
    pub(super) marks: Marks,
    /// The only job was refused after it may have written: roll back instead of committing.
    pub(super) spoiled: bool,
}

static AUDIT: LazyLock<Insert> =
    LazyLock::new(|| Insert::new("audit (seq, kind, at_ms, body, previous, digest)", 6, ""));

fn bind_entry(statement: Bound, entry: &AuditEntry) -> Bound {
    statement
        .bind(integer(entry.seq))
        .bind(audit_word(entry.kind))
        .bind(integer(entry.at_ms))
        .bind(entry.body.clone())
        .bind(digest_bytes(&entry.previous))
        .bind(digest_bytes(&entry.digest))
}

/// Whether SQLite refused a row, as opposed to having failed.
pub(super) fn is_refused_row(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.kind() != sqlx::error::ErrorKind::Other)
}

impl<'c> Batch<'c> {
    /// Run all jobs. The transaction is open and stays so.
    pub(super) async fn run(
        conn: &'c mut SqliteConnection,
        marks: Marks,
        now_ms: u64,
        host_id: &'c str,
        jobs: &'c [Job],
    ) -> Result<Ran, sqlx::Error> {
        let shared = jobs.len() > 1;
        let (audit, records) = (Vec::with_capacity(jobs.len()), Vec::with_capacity(jobs.len()));
        let mut batch = Self { conn, now_ms, host_id, marks, audit, records, shared, spoiled: false };
        let mut done = Vec::with_capacity(jobs.len());
        for job in jobs {
            done.push(batch.job(&job.work).await?);
        }
        batch.flush_records().await?;
        AUDIT.all(batch.conn, &batch.audit, bind_entry).await?;
        Ok(Ran { done, marks: batch.marks, spoiled: batch.spoiled })
    }

    async fn job(&mut self, work: &'c Work) -> Result<Done, sqlx::Error> {
        match work {
            Work::Record(row) => self.records.push(row),
            Work::Audit { kind, body } => self.append(*kind, body.as_ref().to_owned()),
            Work::Barrier | Work::Close => {}
            Work::Propose(_)
            | Work::Intent(_)
            | Work::Outcome(_)
            | Work::Resolve(_)
            | Work::Hold { .. }
            | Work::Discard { .. }
            | Work::ExpireDue { .. }
            | Work::OpenRun(_)
            | Work::CloseRun { .. }
            | Work::Workspace { .. }
            | Work::Sync
            | Work::DropBlobs(_) => return self.guarded(work).await,
        }
        Ok(Done::Written)
    }

    /// Run a job so that it can be taken back alone.
    async fn guarded(&mut self, work: &'c Work) -> Result<Done, sqlx::Error> {
        self.flush_records().await?;
        let (before, entries) = (self.marks, self.audit.len());
        if self.shared {
            query("SAVEPOINT job").execute(&mut *self.conn).await?;
        }
        let (done, kept) = match self.dispatch(work).await {
            Ok(done) => (done, true),
            Err(Stop::Refused(done)) => (done, false),
            Err(Stop::Sql(error)) if is_refused_row(&error) => (refused_row(work, &error), false),
            Err(Stop::Sql(error)) => return Err(error),
        };
        if !kept {
            self.marks = before;
            self.audit.truncate(entries);
            self.spoiled |= !self.shared;
        }
        if self.shared {
            let end = if kept { "RELEASE job" } else { "ROLLBACK TO job; RELEASE job" };
            query(end).execute(&mut *self.conn).await?;
        }
        Ok(done)
    }

    async fn dispatch(&mut self, work: &'c Work) -> Step<Done, Done> {
        match work {
            Work::Propose(proposal) => told(self.propose(proposal).await, |()| Done::Written, Done::Refused),
            Work::Intent(intent) => {
                told(self.intent(intent).await, |id| Done::Intent(Ok(id)), |e| Done::Intent(Err(e)))
            }
            Work::Outcome(row) => told(self.outcome(row).await, |()| Done::Written, Done::Refused),
            Work::Resolve(answer) => {
                told(self.resolve(answer).await, |came| Done::Resolved(Ok(came)), |e| Done::Resolved(Err(e)))
            }
            Work::Hold { plan, approval, reply } => {
                told(self.hold(*plan, approval, reply).await, |()| Done::Held(Ok(())), |e| Done::Held(Err(e)))
            }
            Work::Discard { scope, plan, why } => {
                let result = self.discard(scope, *plan, why).await;
                told(result, |reply| Done::Discarded(Ok(reply)), |e| Done::Discarded(Err(e)))
            }
            Work::ExpireDue { now_ms } => told(self.expire_due(*now_ms).await, Done::Expired, Done::Refused),
            Work::OpenRun(run) => told(self.open_run(run).await, |()| Done::Written, Done::Refused),
            Work::CloseRun { owner, run, now_ms } => {
                told(self.close_run(owner, *run, *now_ms).await, Done::Changed, Done::Refused)
            }
            Work::Workspace { tenant, name, root } => {
                told(self.workspace(tenant, name, root).await, |()| Done::Written, Done::Refused)
            }
            Work::Sync => told(self.note_sync().await, |()| Done::Written, Done::Refused),
            Work::DropBlobs(digests) => told(self.drop_blobs(digests).await, Done::Dropped, Done::Refused),
            Work::Record(_) | Work::Audit { .. } | Work::Barrier | Work::Close => Ok(Done::Written),
        }
    }

    /// Write something: a transaction that writes nothing flushes nothing.
    async fn note_sync(&mut self) -> Step<(), LedgerError> {
        query("INSERT INTO meta (key, value) VALUES ('synced_ms', $1) ON CONFLICT (key) DO UPDATE SET value = excluded.value")
            .bind(self.now_ms.to_string())
            .execute(&mut *self.conn)
            .await?;
        Ok(())
    }

    /// Chain one more audit entry.
    pub(super) fn append(&mut self, kind: AuditKind, body: String) {
        let entry = self.marks.head.append(kind, self.now_ms, body);
        self.audit.push(entry);
    }

    /// The next call's place.
    pub(super) fn place<'r>(&mut self, row: &'r CallRow, plan: Option<toolkeep_core::id::PlanId>) -> Placed<'r> {
        let seq = self.marks.next_call;
        self.marks.next_call += 1;
        Placed { seq, row, plan }
    }

    /// Insert the gathered calls, with their keys and audit entries.
    async fn flush_records(&mut self) -> Result<(), sqlx::Error> {
        if self.records.is_empty() {
            return Ok(());
        }
        let rows = std::mem::take(&mut self.records);
        let first = self.marks.next_call;
        let placed: Vec<Placed<'c>> = rows.iter().map(|row| self.place(row, None)).collect();
        match insert::calls(self.conn, &placed).await {
            Ok(()) => {}
            Err(error) if is_refused_row(&error) => {
                // One of them exists already. The others are somebody else's calls: insert them one by one.
                self.marks.next_call = first;
                return self.insert_singly(&rows).await;
            }
            Err(error) => return Err(error),
        }
        for row in rows {
            self.recorded(row).await?;
        }
        Ok(())
    }

    async fn insert_singly(&mut self, rows: &[&'c CallRow]) -> Result<(), sqlx::Error> {
        query("DELETE FROM recordings WHERE call_seq >= $1")
            .bind(self.marks.next_call)
            .execute(&mut *self.conn)
            .await?;
        query("DELETE FROM calls WHERE seq >= $1").bind(self.marks.next_call).execute(&mut *self.conn).await?;
        for row in rows {
            let before = self.marks;
            let placed = self.place(row, None);
            match insert::calls(self.conn, &[placed]).await {
                Ok(()) => self.recorded(row).await?,
                Err(error) if is_refused_row(&error) => {
                    tracing::error!(call = %row.call, "a call was recorded twice; the first record stays");
                    self.marks = before;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn recorded(&mut self, row: &CallRow) -> Result<(), sqlx::Error> {
        if let Some(key) = &row.key {
            self.keep_key(row, key).await?;
        }
        self.append(AuditKind::Call, facts::call(row, None));
        Ok(())
    }
}

fn told<T, R>(result: Step<T, R>, done: impl FnOnce(T) -> Done, refused: impl FnOnce(R) -> Done) -> Step<Done, Done> {
    match result {
        Ok(value) => Ok(done(value)),
        Err(Stop::Refused(reason)) => Err(Stop::Refused(refused(reason))),
        Err(Stop::Sql(error)) => Err(Stop::Sql(error)),
    }
}

/// The answer to a job whose row SQLite refused, in the job's own terms.
fn refused_row(work: &Work, error: &sqlx::Error) -> Done {
    let refused = LedgerError::Refused(Arc::from(error.to_string()));
    match work {
        Work::Intent(_) => Done::Intent(Err(refused.into())),
        Work::Resolve(_) => Done::Resolved(Err(refused.into())),
        Work::Hold { .. } => Done::Held(Err(refused.into())),
        Work::Discard { .. } => Done::Discarded(Err(refused.into())),
        Work::Record(_)
        | Work::Propose(_)
        | Work::Outcome(_)
        | Work::ExpireDue { .. }
        | Work::OpenRun(_)
        | Work::CloseRun { .. }
        | Work::Workspace { .. }
        | Work::Audit { .. }
        | Work::DropBlobs(_)
        | Work::Sync
        | Work::Barrier
        | Work::Close => Done::Refused(refused),
    }
}
