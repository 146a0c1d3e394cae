//! The one thread that writes: it gathers jobs, runs them as one transaction, and answers whoever waits.
//!
//! A batch that holds a durable job is committed with `synchronous = FULL`, which syncs the write-ahead log once and
//! with it everything that was committed before; other batches are not synced. After a failure that leaves open what is on the disk
//! no batch is tried again: a second sync could claim success for pages that the first one lost.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use cap_std::fs::Dir;
use rusqlite::{Connection, ErrorCode};
use toolkeep_core::merkle::Frontier;

use super::LedgerHealth;
use super::alerts::{AlertRaised, AlertWork};
use super::batch::{Batch, Book, Marks, Ran};
use super::charges::Refunds;
use super::checkpoints::Signer;
use super::directory;
use super::failure::LedgerError;
use super::meter::LedgerMeter;
use super::privacy::PrivacyDone;
use super::queue::{BATCH_MAX, Done, Job, Queue, Work};
use super::rows::CallRow;
use super::schema::BUSY_TIMEOUT;
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
pub(super) struct Pulse {
    health: Mutex<LedgerHealth>,
    /// Whether anything stands below for which nothing with effects may run.
    halted: AtomicBool,
    /// Why the audit is not believed.
    broken: Mutex<Option<Arc<str>>>,
    /// How often it was found not to verify.
    findings: AtomicU64,
    /// Audit entries that found no room, until that is on record.
    pub(super) lost: AtomicU64,
    /// The last audit entry that is written.
    pub(super) head: AtomicU64,
    /// The last one that a checkpoint covers.
    pub(super) vouched: AtomicU64,
    /// Alerts that were taken and could not be written. Each was in the queue, whose bounds are theirs.
    unkept: Mutex<Vec<AlertRaised>>,
}

impl Pulse {
    fn new(head: u64, vouched: u64) -> Self {
        Self {
            health: Mutex::new(LedgerHealth::Well),
            halted: AtomicBool::new(false),
            broken: Mutex::default(),
            findings: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            head: AtomicU64::new(head),
            vouched: AtomicU64::new(vouched),
            unkept: Mutex::default(),
        }
    }

    /// As a start found it.
    pub(super) fn begun((head, vouched): (u64, u64), broken: Option<Arc<str>>) -> Self {
        let pulse = Self::new(head, vouched);
        if let Some(why) = broken {
            tracing::error!(%why, "the audit does not verify; nothing with effects runs");
            pulse.disbelieve(why, || ());
        }
        pulse
    }

    pub(super) fn get(&self) -> LedgerHealth {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A write that nobody waits for is lost. An alert is handed back, for whoever can tell it without the ledger.
    fn hand_back(&self, work: Work, error: &LedgerError) {
        tracing::error!(%error, "a write that nobody waits for is lost");
        if let Work::Alert(AlertWork::Raise(raised)) = work {
            self.unkept.lock().unwrap_or_else(PoisonError::into_inner).push(*raised);
        }
    }

    /// What was handed back since the last time.
    pub(super) fn take_unkept(&self) -> Vec<AlertRaised> {
        std::mem::take(&mut *self.unkept.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Change it. A poisoned ledger stays poisoned.
    pub(super) fn set(&self, health: LedgerHealth) {
        let mut now = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(*now, LedgerHealth::Poisoned(_)) {
            if matches!(health, LedgerHealth::Poisoned(_)) {
                self.halted.store(true, Ordering::Release);
            }
            *now = health;
        }
    }

    /// Whether nothing with effects may run: one load, for every call.
    pub(super) fn is_halted(&self) -> bool {
        self.halted.load(Ordering::Acquire)
    }

    /// Why nothing with effects may run.
    pub(super) fn why_halted(&self) -> Option<Arc<str>> {
        if !self.is_halted() {
            return None;
        }
        if let Some(why) = self.broken() {
            return Some(why);
        }
        if let LedgerHealth::Poisoned(why) = self.get() {
            return Some(format!("the ledger stopped writing after a disk error ({why})").into());
        }
        let lost = self.lost.load(Ordering::Acquire);
        Some(format!("{lost} audit entries could not be written").into())
    }

    /// Why the audit is not believed.
    pub(super) fn broken(&self) -> Option<Arc<str>> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often the audit was found not to verify.
    pub(super) fn findings(&self) -> u64 {
        self.findings.load(Ordering::Acquire)
    }

    /// The audit is not believed. What it is for first stays. `noting` puts it in line to be written: what is found first
    /// is written first.
    pub(super) fn disbelieve<T>(&self, why: Arc<str>, noting: impl FnOnce() -> T) -> T {
        let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        self.findings.fetch_add(1, Ordering::AcqRel);
        broken.get_or_insert(why);
        let noted = noting();
        drop(broken);
        self.judge();
        noted
    }

    /// The audit is believed again, unless it was found not to verify since there were so many findings. Nothing if it was,
    /// or if it has been believed all the time.
    pub(super) fn believe<T>(&self, findings: u64, noting: impl FnOnce() -> T) -> Option<T> {
        let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        if broken.is_none() || self.findings() != findings {
            return None;
        }
        *broken = None;
        let noted = noting();
        drop(broken);
        self.judge();
        Some(noted)
    }

    /// An audit entry found no room.
    pub(super) fn lose(&self) {
        self.lost.fetch_add(1, Ordering::AcqRel);
        self.judge();
    }

    /// It is on record that so many audit entries found no room.
    pub(super) fn told(&self, lost: u64) {
        self.lost.fetch_sub(lost, Ordering::AcqRel);
        self.judge();
    }

    fn judge(&self) {
        // Held to the end, so that nothing is poisoned in between and forgotten.
        let health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        let poisoned = matches!(*health, LedgerHealth::Poisoned(_));
        let halted = poisoned || self.broken().is_some() || self.lost.load(Ordering::Acquire) > 0;
        self.halted.store(halted, Ordering::Release);
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
    /// The right edge of the tree over the audit.
    pub(super) tree: Frontier,
    pub(super) signer: Signer,
    pub(super) refunds: Arc<Refunds>,
    pub(super) vault: Arc<Vault>,
    /// Whether the connection syncs at commit; `None` before the first batch.
    pub(super) syncs: Option<bool>,
    pub(super) meter: LedgerMeter,
    /// The ledger's directory, locked by this process as long as this lives.
    pub(super) dir: Arc<super::locked::Locked>,
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
            Ok(mut done) => {
                self.meter.wrote(jobs.len(), recordings(&jobs), durable, watch.elapsed());
                if jobs.iter().any(|job| job.work.truncates()) {
                    let cut = self.cut_log();
                    let asked = jobs.iter().zip(&mut done).filter(|(job, _)| job.work.truncates());
                    asked.for_each(|(_, done)| *done = Done::Private(PrivacyDone::Changed(cut)));
                }
                self.pulse.set(LedgerHealth::Well);
                self.queue.settle(&jobs);
                for (job, done) in jobs.into_iter().zip(done) {
                    if let Some(waiter) = job.waiter {
                        let _nobody_waits_any_more = waiter.send(Ok(done));
                    } else if let Done::Refused(error) = done {
                        self.pulse.hand_back(job.work, &error);
                    }
                }
                Vec::new()
            }
            Err(error) => self.judge(jobs, &error),
        }
    }

    /// Put the whole log into the database and cut it. Says whether it was: a reader that keeps a part of it in use is not
    /// waited for, because everybody who writes would wait, too.
    fn cut_log(&self) -> bool {
        if self.conn.busy_timeout(Duration::ZERO).is_err() {
            return false;
        }
        let busy = self.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
        let restored = self.conn.busy_timeout(BUSY_TIMEOUT);
        matches!((busy, restored), (Ok(0), Ok(())))
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
        let vault = &self.vault;
        let book = Book { now_ms, host_id: &self.host_id, tree: &self.tree, signer: &self.signer, vault };
        let ran = Batch::run(&self.conn, self.marks, book, (jobs, guarded))?;
        let Ran { done, marks, tree, refunds, keys, spoiled } = ran;
        if spoiled {
            execute(&self.conn, "ROLLBACK", &[])?;
            return Ok((jobs.len() == 1).then_some(done));
        }
        // Whoever reads a row can open it, from the moment that it can be read.
        self.vault.learn(&keys.fresh);
        self.refunds.commit(refunds, || execute(&self.conn, "COMMIT", &[]).map(drop))?;
        self.vault.settle(keys.fresh, &keys.retired, &keys.gone);
        self.marks = marks;
        self.tree = tree;
        self.pulse.head.store(marks.head.seq, Ordering::Release);
        if done.iter().any(|done| matches!(done, Done::Vouched(_))) {
            self.pulse.vouched.store(marks.head.seq, Ordering::Release);
        }
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
                self.pulse.hand_back(job.work, error);
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
