//! One transaction of the writer: many jobs, each of which succeeds or fails alone.
//!
//! Recorded calls are gathered and inserted together. Most jobs are refused before they write anything, if at all; where
//! one had written, the whole batch is taken back and run again with a savepoint around each job, so that the refused one
//! takes back its own rows and nobody else's. Audit entries are chained as the jobs run and inserted last, with what they
//! complete of the Merkle tree; a checkpoint covers all entries of its batch. An error of the disk fails the whole batch
//! and is for the writer to judge.

use std::sync::Arc;

use rusqlite::{Connection, ErrorCode, Row, ToSql, params};
use toolkeep_core::audit::{AuditEntry, AuditKind, ChainHead};
use toolkeep_core::merkle::Frontier;

use super::charges::Refund;
use super::checkpoints::Signer;
use super::column::{digest_bytes, integer};
use super::facts;
use super::failure::LedgerError;
use super::insert::{self, Placed};
use super::queue::{Done, Job, Work};
use super::rows::CallRow;
use super::sealing::{Fresh, Sealer, Vault};
use super::statement::{Failed, each, execute, row, rows};
use super::stats::Ended;
use super::tree;
use crate::vault::KeyId;

/// Where the next rows go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Marks {
    pub(super) head: ChainHead,
    pub(super) next_call: i64,
}

/// What a batch is written with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Book<'c> {
    pub(super) now_ms: u64,
    pub(super) host_id: &'c str,
    /// The right edge of the tree over the audit, before the batch.
    pub(super) tree: &'c Frontier,
    pub(super) signer: &'c Signer,
    pub(super) vault: &'c Vault,
}

/// Why a job did not do what it should.
pub(super) enum Stop<R> {
    /// The job's own fault: it is taken back and answered.
    Refused(R),
    /// SQLite's answer: a refused row is the job's fault, anything else fails the batch.
    Sql(rusqlite::Error),
}

impl<R> From<rusqlite::Error> for Stop<R> {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl<R: From<LedgerError>> From<Failed> for Stop<R> {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Sql(error) => Self::Sql(error),
            Failed::Row(error) => Self::Refused(error.into()),
        }
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
    pub(super) conn: &'c Connection,
    pub(super) now_ms: u64,
    pub(super) host_id: &'c str,
    pub(super) sealer: Sealer<'c>,
    /// Calls that ended, for the statistics.
    pub(super) finished: Vec<Ended<'c>>,
    marks: Marks,
    audit: Vec<AuditEntry>,
    records: Vec<&'c CallRow>,
    pub(super) refunds: Vec<Refund>,
    /// Whether every job has a savepoint.
    guarded: bool,
    spoiled: bool,
}

/// What a batch came to, before it is committed.
pub(super) struct Ran {
    pub(super) done: Vec<Done>,
    pub(super) marks: Marks,
    /// The right edge of the tree over the audit, after the batch.
    pub(super) tree: Frontier,
    /// What plans that are not committed give back.
    pub(super) refunds: Vec<Refund>,
    /// What changes among the keys of payloads.
    pub(super) keys: KeyChanges,
    /// A job without a savepoint was refused after it had written: roll back instead of committing. If it was not alone,
    /// the others were not all run.
    pub(super) spoiled: bool,
}

/// Keys of payloads that a batch made, set aside and let go of.
#[derive(Debug, Default)]
pub(super) struct KeyChanges {
    pub(super) fresh: Vec<Fresh>,
    pub(super) retired: Vec<String>,
    pub(super) gone: Vec<KeyId>,
}

const AUDIT: &str = "INSERT INTO audit (seq, kind, at_ms, body, previous, digest) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";

/// Whether SQLite refused a row, as opposed to having failed.
pub(super) fn is_refused_row(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation)
}

impl<'c> Batch<'c> {
    /// Run all jobs, each behind a savepoint if `guarded`. The transaction is open and stays so.
    pub(super) fn run(
        conn: &'c Connection,
        marks: Marks,
        book: Book<'c>,
        (jobs, guarded): (&'c [Job], bool),
    ) -> Result<Ran, rusqlite::Error> {
        let Book { now_ms, host_id, tree, signer, vault } = book;
        let (audit, records) = (Vec::with_capacity(jobs.len()), Vec::with_capacity(jobs.len()));
        let refunds = Vec::new();
        let (sealer, finished) = (Sealer::new(vault, conn, now_ms), Vec::new());
        let mut batch =
            Self { conn, now_ms, host_id, sealer, finished, marks, audit, records, refunds, guarded, spoiled: false };
        let mut done = Vec::with_capacity(jobs.len());
        for job in jobs {
            done.push(batch.job(&job.work)?);
            if batch.spoiled {
                return Ok(Ran {
                    done,
                    marks,
                    tree: tree.clone(),
                    refunds: Vec::new(),
                    keys: KeyChanges::default(),
                    spoiled: true,
                });
            }
        }
        batch.flush_records()?;
        batch.flush_stats()?;
        let tree = batch.flush_audit(tree.clone())?;
        if jobs.iter().any(|job| matches!(job.work, Work::Checkpoint)) {
            let note = signer.checkpoint(conn, &tree)?;
            let asked = jobs.iter().zip(&mut done).filter(|(job, _)| matches!(job.work, Work::Checkpoint));
            asked.for_each(|(_, done)| *done = Done::Vouched(Arc::clone(&note)));
        }
        let Sealer { fresh, retired, gone, .. } = batch.sealer;
        let keys = KeyChanges { fresh, retired, gone };
        Ok(Ran { done, marks: batch.marks, tree, refunds: batch.refunds, keys, spoiled: false })
    }

    /// Insert the audit entries, and what they complete of the tree.
    fn flush_audit(&self, mut tree: Frontier) -> Result<Frontier, rusqlite::Error> {
        each(self.conn, AUDIT, &self.audit, |statement, entry| {
            statement.execute(params![
                integer(entry.seq),
                entry.kind.word(),
                integer(entry.at_ms),
                entry.body,
                digest_bytes(&entry.previous),
                digest_bytes(&entry.digest)
            ])
        })?;
        let mut made = Vec::new();
        self.audit.iter().for_each(|entry| tree::push(&mut tree, &entry.digest, &mut made));
        tree::keep(self.conn, &made)?;
        Ok(tree)
    }

    fn job(&mut self, work: &'c Work) -> Result<Done, rusqlite::Error> {
        match work {
            Work::Record(row) if row.suspended => return self.apart(work),
            Work::Record(row) => self.records.push(row),
            Work::Audit { kind, body } => return Ok(Done::Noted(self.append(*kind, body.as_ref().to_owned()))),
            Work::Barrier | Work::Close | Work::Checkpoint => {}
            Work::Propose(_)
            | Work::Intent(_)
            | Work::Outcome(_)
            | Work::Resolve(_)
            | Work::Hold { .. }
            | Work::Discard { .. }
            | Work::ExpireDue { .. }
            | Work::OpenRun(_)
            | Work::CloseRun { .. }
            | Work::Run(_)
            | Work::Workspace { .. }
            | Work::Sync
            | Work::NoteSend(_)
            | Work::NotKnown { .. }
            | Work::Say(_)
            | Work::Suspend(_)
            | Work::Outbox(_)
            | Work::Kill(_)
            | Work::Learn(_)
            | Work::Transaction(_)
            | Work::Credential(_)
            | Work::Oversee(_)
            | Work::Alert(_)
            | Work::DropBlobs(_)
            | Work::Privacy(_)
            | Work::Prune { .. } => return self.apart(work),
        }
        Ok(Done::Written)
    }

    /// Run a job so that it can be taken back alone.
    fn apart(&mut self, work: &'c Work) -> Result<Done, rusqlite::Error> {
        self.flush_records()?;
        let (before, entries, changes) = (self.marks, self.audit.len(), self.conn.total_changes());
        let (refunds, finished) = (self.refunds.len(), self.finished.len());
        let (fresh, retired) = (self.sealer.fresh.len(), self.sealer.retired.len());
        if self.guarded {
            execute(self.conn, "SAVEPOINT job", &[])?;
        }
        let (done, kept) = match self.dispatch(work) {
            Ok(done) => (done, true),
            Err(Stop::Refused(done)) => (done, false),
            Err(Stop::Sql(error)) if is_refused_row(&error) => (refused_row(work, &error), false),
            Err(Stop::Sql(error)) => return Err(error),
        };
        if !kept {
            self.marks = before;
            self.audit.truncate(entries);
            self.refunds.truncate(refunds);
            self.finished.truncate(finished);
            self.sealer.fresh.truncate(fresh);
            self.sealer.retired.truncate(retired);
            self.spoiled = !self.guarded && self.conn.total_changes() != changes;
        }
        if self.guarded {
            if !kept {
                execute(self.conn, "ROLLBACK TO job", &[])?;
            }
            execute(self.conn, "RELEASE job", &[])?;
        }
        Ok(done)
    }

    fn dispatch(&mut self, work: &'c Work) -> Step<Done, Done> {
        match work {
            Work::Propose(proposal) => told(self.propose(proposal), |()| Done::Written, Done::Refused),
            Work::Intent(intent) => told(self.intent(intent), |id| Done::Intent(Ok(id)), |e| Done::Intent(Err(e))),
            Work::Outcome(row) => told(self.outcome(row), |()| Done::Written, Done::Refused),
            Work::Resolve(answer) => {
                told(self.resolve(answer), |came| Done::Resolved(Ok(came)), |e| Done::Resolved(Err(e)))
            }
            Work::Hold { plan, approval, reply } => {
                told(self.hold(*plan, approval, reply), |()| Done::Held(Ok(())), |e| Done::Held(Err(e)))
            }
            Work::Discard { scope, plan, why } => {
                let result = self.discard(scope, *plan, why);
                told(result, |reply| Done::Discarded(Ok(reply)), |e| Done::Discarded(Err(e)))
            }
            Work::ExpireDue { now_ms } => told(self.expire_due(*now_ms), Done::Expired, Done::Refused),
            Work::OpenRun(run) => told(self.open_run(run), |()| Done::Written, Done::Refused),
            Work::CloseRun { owner, run, outcome, now_ms } => {
                told(self.close_run(owner, *run, outcome.as_deref(), *now_ms), Done::Changed, Done::Refused)
            }
            Work::Run(work) => told(self.run_work(work), |done| done, Done::Refused),
            Work::Workspace { tenant, name, root } => {
                told(self.workspace(tenant, name, root), |()| Done::Written, Done::Refused)
            }
            Work::Oversee(work) => told(self.oversee(work), Done::Overseen, Done::Refused),
            Work::Alert(work) => told(self.alert(work), Done::Changed, Done::Refused),
            Work::Sync => told(self.note_sync(), |()| Done::Written, Done::Refused),
            Work::Outbox(work) => told(self.outbox(work), Done::Outbox, Done::Refused),
            Work::Kill(change) => told(self.kill(change), Done::Killed, Done::Refused),
            Work::Prune { keep, place } => told(self.prune(keep, *place), Done::Swept, Done::Refused),
            Work::Privacy(work) => told(self.privacy(work), Done::Private, Done::Refused),
            Work::DropBlobs(digests) => told(self.drop_blobs(digests), Done::Dropped, Done::Refused),
            Work::Transaction(work) => {
                told(self.transaction(work), |()| Done::Transacted(Ok(())), |e| Done::Transacted(Err(e)))
            }
            Work::Credential(work) => told(self.credential(work), Done::Changed, Done::Refused),
            Work::NoteSend(step) => told(self.note_send(step), |()| Done::Written, Done::Refused),
            Work::NotKnown { plan, reply, asks } => {
                told(self.not_known(*plan, reply, *asks), |()| Done::Written, Done::Refused)
            }
            Work::Say(verdict) => told(self.say(verdict), |()| Done::Written, Done::Refused),
            Work::Suspend(suspended) => told(self.suspend(suspended), |()| Done::Written, Done::Refused),
            Work::Record(row) => told(self.end_suspended(row), |()| Done::Written, Done::Refused),
            Work::Learn(learned) => told(self.learn(learned), |()| Done::Written, Done::Refused),
            Work::Audit { .. } | Work::Barrier | Work::Close | Work::Checkpoint => Ok(Done::Written),
        }
    }

    /// Write something: a transaction that writes nothing flushes nothing.
    fn note_sync(&mut self) -> Step<(), LedgerError> {
        let sql = "INSERT INTO meta (key, value) VALUES ('synced_ms', ?1) \
                   ON CONFLICT (key) DO UPDATE SET value = excluded.value";
        self.execute(sql, params![self.now_ms.to_string()])?;
        Ok(())
    }

    /// Run a statement that gives no rows. Returns how many it changed.
    pub(super) fn execute(&self, sql: &str, values: &[&dyn ToSql]) -> Result<usize, rusqlite::Error> {
        execute(self.conn, sql, values)
    }

    /// The first row that a statement gives.
    pub(super) fn row<T>(
        &self,
        sql: &str,
        values: &[&dyn ToSql],
        of: impl FnOnce(&Row<'_>) -> Result<T, LedgerError>,
    ) -> Result<Option<T>, Failed> {
        row(self.conn, sql, values, of)
    }

    /// All rows that a statement gives.
    pub(super) fn rows<T>(
        &self,
        sql: &str,
        values: &[&dyn ToSql],
        of: impl Fn(&Row<'_>) -> Result<T, LedgerError>,
    ) -> Result<Vec<T>, Failed> {
        rows(self.conn, sql, values, of)
    }

    /// Chain one more audit entry. Returns its number.
    pub(super) fn append(&mut self, kind: AuditKind, body: String) -> u64 {
        let entry = self.marks.head.append(kind, self.now_ms, body);
        let seq = entry.seq;
        self.audit.push(entry);
        seq
    }

    /// The next call's place.
    pub(super) fn place<'r>(&mut self, row: &'r CallRow, plan: Option<toolkeep_core::id::PlanId>) -> Placed<'r> {
        let seq = self.marks.next_call;
        self.marks.next_call += 1;
        Placed { seq, row, plan, waits: false }
    }

    /// Insert the gathered calls, with their keys and audit entries.
    fn flush_records(&mut self) -> Result<(), rusqlite::Error> {
        if self.records.is_empty() {
            return Ok(());
        }
        let rows = std::mem::take(&mut self.records);
        let first = self.marks.next_call;
        let placed: Vec<Placed<'c>> = rows.iter().map(|row| self.place(row, None)).collect();
        match insert::calls(self.conn, &mut self.sealer, &placed) {
            Ok(()) => {}
            Err(error) if is_refused_row(&error) => {
                // One of them exists already. The others are somebody else's calls: insert them one by one.
                self.marks.next_call = first;
                return self.insert_singly(&rows);
            }
            Err(error) => return Err(error),
        }
        placed.iter().try_for_each(|placed| self.recorded(placed))
    }

    fn insert_singly(&mut self, rows: &[&'c CallRow]) -> Result<(), rusqlite::Error> {
        // Keys that these rows are sealed under stay: their own rows were not refused.
        self.execute("DELETE FROM recording_pins WHERE call_seq >= ?1", params![self.marks.next_call])?;
        self.execute("DELETE FROM recording_parts WHERE call_seq >= ?1", params![self.marks.next_call])?;
        self.execute("DELETE FROM recordings WHERE call_seq >= ?1", params![self.marks.next_call])?;
        self.execute("DELETE FROM calls WHERE seq >= ?1", params![self.marks.next_call])?;
        for row in rows {
            let before = self.marks;
            let placed = self.place(row, None);
            match insert::calls(self.conn, &mut self.sealer, &[placed]) {
                Ok(()) => self.recorded(&placed)?,
                Err(error) if is_refused_row(&error) => {
                    tracing::error!(call = %row.call, "a call was recorded twice; the first record stays");
                    self.marks = before;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn recorded(&mut self, placed: &Placed<'c>) -> Result<(), rusqlite::Error> {
        let row = placed.row;
        self.finished.push(Ended::Row(row));
        if let Some(key) = &row.key {
            self.keep_key(placed.seq, row, key)?;
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
fn refused_row(work: &Work, error: &rusqlite::Error) -> Done {
    let refused = LedgerError::Refused(Arc::from(error.to_string()));
    match work {
        Work::Intent(_) => Done::Intent(Err(refused.into())),
        Work::Resolve(_) => Done::Resolved(Err(refused.into())),
        Work::Hold { .. } => Done::Held(Err(refused.into())),
        Work::Discard { .. } => Done::Discarded(Err(refused.into())),
        Work::Transaction(_) => Done::Transacted(Err(refused.into())),
        Work::Record(_)
        | Work::Propose(_)
        | Work::Outcome(_)
        | Work::ExpireDue { .. }
        | Work::OpenRun(_)
        | Work::CloseRun { .. }
        | Work::Run(_)
        | Work::Workspace { .. }
        | Work::Audit { .. }
        | Work::DropBlobs(_)
        | Work::Prune { .. }
        | Work::Privacy(_)
        | Work::Outbox(_)
        | Work::Credential(_)
        | Work::Kill(_)
        | Work::Learn(_)
        | Work::NoteSend(_)
        | Work::NotKnown { .. }
        | Work::Say(_)
        | Work::Suspend(_)
        | Work::Oversee(_)
        | Work::Alert(_)
        | Work::Sync
        | Work::Barrier
        | Work::Checkpoint
        | Work::Close => Done::Refused(refused),
    }
}
