//! The one thread that writes: it gathers jobs, runs them as one transaction, and answers whoever waits.
//!
//! A batch that holds a durable job is committed with `synchronous = FULL`, which syncs the write-ahead log once and
//! with it everything that was committed before; other batches are not synced. After a failure that leaves open what is on the disk
//! no batch is tried again: a second sync could claim success for pages that the first one lost.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use cap_std::fs::Dir;
use rusqlite::{Connection, ErrorCode};

use super::LedgerHealth;
use super::batch::{Batch, Marks, Ran};
use super::charges::Refunds;
use super::directory;
use super::failure::LedgerError;
use super::meter::LedgerMeter;
use super::queue::{BATCH_MAX, Done, Job, Queue, Work};
use super::rows::CallRow;
use super::sealing::Vault;
use super::statement::execute;
use crate::ambient::Ambient;

/// The thread's name, for whoever looks at the process.
const NAME: &str = "ledger-writer";
/// How long the first lazy write of a batch waits for others, unless the batch is full before. It is also the most
/// that a kill can take of the records of calls without effects; each batch costs as much as the records of ten calls.
const GATHER: Duration = Duration::from_millis(20);
/// How long to wait before a batch that found the disk full is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// The health that the writer keeps and everybody reads.
#[derive(Debug)]
pub(super) struct Pulse(Mutex<LedgerHealth>);

impl Pulse {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(LedgerHealth::Well))
    }

    pub(super) fn get(&self) -> LedgerHealth {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Change it. A poisoned ledger stays poisoned.
    pub(super) fn set(&self, health: LedgerHealth) {
        let mut now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(*now, LedgerHealth::Poisoned(_)) {
            *now = health;
        }
    }
}

/// What the thread works with.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) queue: Arc<Queue>,
    pub(super) pulse: Arc<Pulse>,
    pub(super) conn: Connection,
    pub(super) marks: Marks,
    pub(super) ambient: Ambient,
    pub(super) host_id: Arc<str>,
    pub(super) refunds: Arc<Refunds>,
    pub(super) vault: Arc<Vault>,
    /// Whether the connection syncs at commit; `None` before the first batch.
    pub(super) syncs: Option<bool>,
    pub(super) meter: LedgerMeter,
    /// The ledger's directory, locked by this process as long as this lives.
    pub(super) dir: Arc<super::Locked>,
}

/// The end of the thread, even by a panic: whoever still writes has nobody to write it.
struct End(Arc<Queue>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.end(&LedgerError::Closed);
    }
}

/// Recordings that come with these jobs.
fn recordings(jobs: &[Job]) -> u64 {
    let recorded = |row: &CallRow| u64::from(row.recording.is_some());
    let of = |job: &Job| match &job.work {
        Work::Record(row) => recorded(row),
        Work::Propose(proposal) => recorded(&proposal.call),
        Work::Intent(intent) => intent.proposal.as_deref().map_or(0, |proposal| recorded(&proposal.call)),
        _ => 0,
    };
    jobs.iter().map(of).sum()
}

/// Whether a commit waits for the disk. SQLite acts on this statement while it prepares it, so it must not be one that
/// is kept prepared.
fn sync_at_commit(conn: &Connection, syncs: bool) -> Result<(), rusqlite::Error> {
    conn.execute_batch(if syncs { "PRAGMA synchronous = FULL" } else { "PRAGMA synchronous = NORMAL" })
}

impl Writer {
    /// Start the thread.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(super) fn start(self) -> io::Result<JoinHandle<()>> {
        std::thread::Builder::new().name(NAME.to_owned()).spawn(move || {
            let _end = End(Arc::clone(&self.queue));
            self.run();
        })
    }

    /// Write until the ledger is closed or nobody is left.
    fn run(mut self) {
        let mut waiting: Vec<Job> = Vec::new();
        loop {
            if waiting.is_empty() && !self.queue.arrival() {
                return;
            }
            let pause = if self.pulse.get() == LedgerHealth::DiskFull { RETRY } else { GATHER };
            let room = BATCH_MAX.saturating_sub(waiting.len()).max(1);
            waiting.extend(self.queue.gather(pause, room));
            let closing = waiting.iter().any(|job| matches!(job.work, Work::Close));
            waiting = self.write(waiting);
            if closing {
                self.finish(waiting);
                return;
            }
        }
    }

    /// Write jobs. Returns those that are to be tried again.
    fn write(&mut self, jobs: Vec<Job>) -> Vec<Job> {
        if self.pulse.get() != LedgerHealth::DiskFull {
            return self.batch(jobs);
        }
        // What makes room goes alone and first; in one batch with what finds none it would fail with it.
        let (first, rest) = jobs.into_iter().partition::<Vec<Job>, _>(Job::makes_room);
        if !first.is_empty() {
            self.batch(first);
        }
        if rest.is_empty() { rest } else { self.batch(rest) }
    }

    fn batch(&mut self, jobs: Vec<Job>) -> Vec<Job> {
        if let LedgerHealth::Poisoned(why) = self.pulse.get() {
            return self.fail(jobs, &LedgerError::Poisoned(why));
        }
        let durable = jobs.iter().any(|job| job.durable);
        let watch = self.ambient.stopwatch();
        match self.transaction(&jobs, durable) {
            Ok(done) => {
                self.meter.wrote(jobs.len(), recordings(&jobs), durable, watch.elapsed());
                if jobs.iter().any(|job| job.work.truncates()) {
                    // What was forgotten must not be found in the log either. A reader may keep a part of it in use.
                    let _the_next_one_does_it = self.conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
                }
                self.pulse.set(LedgerHealth::Well);
                self.queue.settle(&jobs);
                for (job, done) in jobs.into_iter().zip(done) {
                    if let Some(waiter) = job.waiter {
                        let _nobody_waits_any_more = waiter.send(Ok(done));
                    } else if let Done::Refused(error) = done {
                        tracing::error!(%error, "a write that nobody waits for was refused");
                    }
                }
                Vec::new()
            }
            Err(error) => self.judge(jobs, &error),
        }
    }

    fn transaction(&mut self, jobs: &[Job], durable: bool) -> Result<Vec<Done>, rusqlite::Error> {
        if self.syncs != Some(durable) {
            sync_at_commit(&self.conn, durable)?;
            self.syncs = Some(durable);
        }
        let done = match self.attempt(jobs, false)? {
            Some(done) => Some(done),
            None => self.attempt(jobs, true)?,
        };
        Ok(done.unwrap_or_default())
    }

    /// One transaction. Nothing if it was taken back because of one job, and the others are still to be run.
    fn attempt(&mut self, jobs: &[Job], guarded: bool) -> Result<Option<Vec<Done>>, rusqlite::Error> {
        execute(&self.conn, "BEGIN IMMEDIATE", &[])?;
        let ran = self.in_transaction(jobs, guarded);
        if ran.is_err() {
            // SQLite may have rolled back by itself already; then this fails, and that is fine.
            let _already_rolled_back = execute(&self.conn, "ROLLBACK", &[]);
        }
        ran
    }

    fn in_transaction(&mut self, jobs: &[Job], guarded: bool) -> Result<Option<Vec<Done>>, rusqlite::Error> {
        let now_ms = self.ambient.now_ms();
        let ran = Batch::run(&self.conn, self.marks, now_ms, (&self.host_id, &self.vault), (jobs, guarded))?;
        let Ran { done, marks, refunds, keys, spoiled } = ran;
        if spoiled {
            execute(&self.conn, "ROLLBACK", &[])?;
            return Ok((jobs.len() == 1).then_some(done));
        }
        // Whoever reads a row can open it, from the moment that it can be read.
        self.vault.learn(&keys.fresh);
        self.refunds.commit(refunds, || execute(&self.conn, "COMMIT", &[]).map(drop))?;
        self.vault.settle(keys.fresh, &keys.retired, &keys.gone);
        self.marks = marks;
        Ok(Some(done))
    }

    /// A batch failed: was nothing written, or is it unknown?
    fn judge(&self, jobs: Vec<Job>, error: &rusqlite::Error) -> Vec<Job> {
        self.meter.failed();
        if let Some(reason) = self.passing(error) {
            tracing::error!(%error, "the ledger cannot write now");
            let (answered, kept): (Vec<Job>, Vec<Job>) = jobs.into_iter().partition(|job| job.waiter.is_some());
            self.fail(answered, &reason);
            return kept;
        }
        let why: Arc<str> = Arc::from(error.to_string());
        tracing::error!(%error, "the ledger stops writing until the next start");
        self.pulse.set(LedgerHealth::Poisoned(Arc::clone(&why)));
        let poisoned = LedgerError::Poisoned(why);
        self.queue.stop(poisoned.clone());
        self.fail(jobs, &poisoned)
    }

    /// The reason to give where SQLite says that nothing was written and that it may succeed later.
    fn passing(&self, error: &rusqlite::Error) -> Option<LedgerError> {
        match error.sqlite_error_code()? {
            ErrorCode::DiskFull => {
                self.pulse.set(LedgerHealth::DiskFull);
                Some(LedgerError::DiskFull)
            }
            ErrorCode::DatabaseBusy => Some(LedgerError::storage("another program keeps the ledger locked", error)),
            ErrorCode::OutOfMemory => Some(LedgerError::storage("there is no memory to write the ledger", error)),
            _ => None,
        }
    }

    fn fail(&self, jobs: Vec<Job>, error: &LedgerError) -> Vec<Job> {
        self.queue.settle(&jobs);
        for job in jobs {
            if let Some(waiter) = job.waiter {
                let _nobody_waits_any_more = waiter.send(Err(error.clone()));
            } else {
                tracing::error!(%error, "a write that nobody waits for is lost");
            }
        }
        Vec::new()
    }

    /// The end of a clean stop: everything in the database, nothing in the log, and a note that it was so.
    fn finish(self, unwritten: Vec<Job>) {
        let clean = unwritten.is_empty() && self.pulse.get() == LedgerHealth::Well;
        self.fail(unwritten, &LedgerError::Closed);
        let _the_log_stays_valid = self.conn.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
        let closed = self.conn.close();
        if clean && closed.is_ok() {
            mark_clean(self.dir.dir());
        }
    }
}

/// The file that says that a daemon uses the ledger, or was stopped uncleanly.
pub(super) const RUNNING: &str = "running";

fn mark_clean(dir: &Dir) {
    if let Err(error) = dir.remove_file(RUNNING).and_then(|()| directory::sync(dir)) {
        tracing::warn!(%error, "the clean stop could not be noted; the next start will check the ledger");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r07_a_durable_batch_is_synced_however_often_lazy_ones_come_between() {
        let conn = Connection::open_in_memory().expect("database");
        for syncs in [true, false, true, false, true, true, false, false, true] {
            sync_at_commit(&conn, syncs).expect("set");
            let level: i64 = conn.query_row("PRAGMA synchronous", [], |row| row.get(0)).expect("read");
            assert_eq!(level, if syncs { 2 } else { 1 });
        }
    }
}
