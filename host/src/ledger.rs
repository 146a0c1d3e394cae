//! The ledger: calls, plans, approvals, intents, receipts and the audit chain, in one SQLite database.
//!
//! One thread owns the only writing connection and drains a bounded queue into one transaction per batch (group commit).
//! A batch that holds a durable write is fsynced, others are not; a failed batch that leaves open what is on the disk
//! poisons the ledger until the next start. Readers use a few connections that cannot write. Only this module, [`crate::blobs`]
//! and [`crate::artifacts`] write the state directory (D21). It decides nothing: who may approve, what is
//! committed and what a reply says is its callers' business.

mod alerts;
mod archive;
mod batch;
mod belief;
mod buckets;
mod buried;
mod chain;
pub(crate) mod charges;
mod checkpoints;
mod column;
mod contents;
mod credentials;
mod deliveries;
pub(crate) mod directory;
mod ending;
mod facts;
mod failure;
mod forgetting;
mod history;
mod inbox;
mod insert;
mod intact;
mod keys;
mod layers;
mod levels;
mod locked;
mod meter;
mod options;
mod outbox;
mod oversight;
mod privacy;
mod promise;
mod prove;
mod queue;
mod quotas;
mod read;
mod readers;
mod recordings;
mod resolve;
mod retention;
mod rows;
pub(crate) mod run_terms;
mod schema;
mod sealing;
mod sends;
mod settle;
pub(crate) mod spending;
mod standing;
mod statement;
mod stats;
mod suspended;
mod switches;
mod transactions;
mod tree;
mod trials;
mod verify;
mod writer;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use ed25519_dalek::SigningKey;
use tokio::sync::Notify as Signal;
use toolkeep_core::checkpoint::NoteKey;
use toolkeep_core::id::{CallId, PlanId, RunId, TenantName, WorkspaceName};
use toolkeep_core::principal::Principal;

use crate::ambient::Ambient;
use batch::Marks;
use belief::{Begun, Rest, Watch};
use charges::Refunds;
use checkpoints::Signer;
use keys::Keys;
use locked::Locked;
use promise::Promises;
use queue::{Done, Job, Queue, Work};
use readers::Readers;
use sealing::Vault;
use writer::{Pulse, Writer};

pub use toolkeep_core::approval;

pub use alerts::{ALERTS_OPEN_MAX, AlertRaised, OVERFLOW, StoredAlert};
pub use archive::Archive;
pub use buckets::{ChangedKey, KEYS_PAGE_MAX, KeyChange, KeyProblem, KeysChanged};
pub use chain::Who;
pub use charges::{CeilingUse, ChargeRow, ChargeState, Charged, Refund};
pub use checkpoints::{Kept as KeptCheckpoint, SUBJECT as CHECKPOINT_SUBJECT};
pub use contents::BlobRow;
pub use credentials::{CredentialKind, CredentialRow, StoredCredential};
pub use deliveries::{
    DeadCall, DeadId, DeadKind, DeadLetter, DeadLetterRefused, DeadState, Delivery, DeliveryChange, Due, Enqueue,
    OutboxCounts, Sender,
};
pub use failure::{DiscardRefused, IntentRefused, LedgerError, ResolveRefused, TransactionRefused};
pub use forgetting::{Forgetting, Forgotten};
pub use history::{EntryFilter, Numbered, Span, Step, Viewer};
pub use keys::{Claimed, KeyClaim};
pub use levels::LedgerLevels;
pub use meter::LedgerMeter;
pub use options::{LedgerOptions, PAGE_BYTES};
pub use oversight::{AutonomyRow, RunMark, TrackRecord};
pub use privacy::{Hold, HoldOf, PayloadPart, Room, SealedPayload};
pub use promise::OutcomePromise;
pub use prove::{Consistency, Inclusion, Proved};
pub use quotas::QuotaCharge;
pub use recordings::{Attested, Recorded, RecordedCalls};
pub use resolve::{Raised, Resolution, Resolved, Via};
pub use retention::{Class, Cutoffs, Keep, Pruned};
pub use rows::{
    ApprovalFilter, ApprovalRow, ApprovalUse, Beside, BlobSet, CallKey, CallRow, Discard, Durability, FileBlob,
    InlineBlob, Intent, IntentId, OpenIntent, OutcomeRow, PAGE_MAX_ROWS, Page, Paged, PlanLine, PlanState, Proposal,
    RunRow, RunTotals, Scope, Settled, StoredApproval, StoredCall, StoredPlan, UndoInfo, Vote,
};
pub use run_terms::{FAILURES, PauseRow, RunHold, RunPast, Success};
pub use sealing::{EXPIRED, SEALED};
pub use sends::{SendMove, SendRow, SendVerdict, StoredSend};
pub use spending::{SPEND_MAX_LINES, SpendBy, SpendLine, SpendQuery};
pub use standing::{STANDING_LISTED_MAX, StandingRefused, StandingRow, StandingState, StandingUse};
pub use stats::{
    After, ChangeLine, ChangesQuery, RunsQuery, STATS_MAX_LINES, STATS_PAGE_MAX, StatsBy, StatsFirst, StatsLine,
    StatsQuery, WALL_CLASSES_MS,
};
pub use suspended::{Continuation, Suspended};
pub use switches::{KillChange, KillWritten};
pub use transactions::{LayerText, StagedCall, StoredTransaction, TransactionRow, TransactionState};
pub use trials::{CASES_MAX, CaseBounds, CaseChange, CaseLine, CaseRow, SuiteRun, VersionRow};
pub use verify::Verified;

/// The seed of the key that signs receipts.
const SIGNING_KEY: &str = "signing.key";
/// The secret that wraps the daemon's copies of data keys, and marks hidden values.
const PAYLOAD_KEY: &str = "payload.key";

/// How the ledger is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LedgerHealth {
    /// It writes.
    Well,
    /// The disk is full: durable writes are refused, lazy ones wait in memory.
    DiskFull,
    /// It writes no more until the next start, because of this.
    Poisoned(Arc<str>),
}

/// What a start leaves for the background.
struct Left {
    /// Whether the whole database was checked.
    checked: bool,
    rest: Option<Rest>,
    watch: Option<Watch>,
}

struct Shared {
    queue: Arc<Queue>,
    pulse: Arc<Pulse>,
    keys: Keys,
    promises: Arc<Promises>,
    refunds: Arc<Refunds>,
    vault: Arc<Vault>,
    readers: Arc<Readers>,
    signing_key: Arc<SigningKey>,
    note_key: Arc<NoteKey>,
    host_id: Arc<str>,
    unclean: bool,
    /// Whether an outcome was written lazily since the last flush that is known of.
    unsynced: AtomicBool,
    /// Whether the write-ahead log may hold what was removed.
    uncut: AtomicBool,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// Something came into the outbox.
    outbox: Arc<Signal>,
    meter: LedgerMeter,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.queue.abandon();
    }
}

/// The ledger. Cheap to clone.
#[derive(Clone)]
pub struct Ledger {
    shared: Arc<Shared>,
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").field("health", &self.health()).finish_non_exhaustive()
    }
}

impl Ledger {
    /// Open the ledger in `dir` (created with mode 0700), migrate it, check it after an unclean stop, verify the end of
    /// its audit, and start its writer. Where the audit does not verify it is halted: it takes no intents.
    ///
    /// # Errors
    /// Another daemon has it open, a newer one wrote it, or it is damaged.
    pub async fn open(dir: &Path, ambient: Ambient) -> Result<Self, LedgerError> {
        Self::open_with(dir, ambient, LedgerOptions::default()).await
    }

    /// As [`Ledger::open`], with other bounds.
    ///
    /// # Errors
    /// As [`Ledger::open`].
    pub async fn open_with(dir: &Path, ambient: Ambient, options: LedgerOptions) -> Result<Self, LedgerError> {
        let dir = dir.to_owned();
        let opened = tokio::task::spawn_blocking(move || Self::open_here(&dir, ambient, options));
        let (ledger, left) =
            opened.await.map_err(|error| LedgerError::storage("the ledger cannot be opened", &error))??;
        if !left.checked {
            ledger.check_in_background();
        }
        if let (Some(rest), Some(watch)) = (left.rest, left.watch) {
            tokio::spawn(watch.verify(rest));
        }
        Ok(ledger)
    }

    /// As [`Ledger::open_with`], on this thread.
    fn open_here(dir: &Path, ambient: Ambient, options: LedgerOptions) -> Result<(Self, Left), LedgerError> {
        let problem = |error: io::Error| LedgerError::storage("the ledger's directory cannot be used", &error);
        let locked = Locked::take(dir)?;
        let seed = directory::secret(locked.dir(), SIGNING_KEY, &ambient)
            .map_err(|error| LedgerError::storage("the signing key cannot be used", &error))?;
        locked.make_database().map_err(problem)?;
        let file: PathBuf = dir.join(schema::FILE);
        let conn = schema::connect_writer(&file, options.max_pages)?;
        // Before the note is made: a database of a newer daemon is left as it is.
        schema::migrate(&conn)?;
        options.environment.map_or(Ok(()), |environment| schema::check_environment(&conn, environment))?;
        let unclean = locked.mark_running().map_err(problem)?;
        let checked = !unclean || schema::check_if_small(&conn)?;
        let host_id: Arc<str> = schema::host_id(&conn, ambient.uuid_v7())?.into();
        let signing_key = Arc::new(SigningKey::from_bytes(&seed));
        let signer = Signer::new(&host_id, Arc::clone(&signing_key))?;
        let note_key = Arc::clone(&signer.key);
        let Begun { head, tree, vouched, broken, brought, rest } = belief::begin(&conn, unclean, &note_key)?;
        let next_call = retention::next_place(&conn)?;
        let interrupted = charges::settle_interrupted(&conn)?;
        if interrupted > 0 {
            tracing::warn!(interrupted, "calls of the last life were cut off; what they had reserved counts as used");
        }
        let refunds: Arc<Refunds> = Arc::default();
        let meter = LedgerMeter::default();
        let queue = Arc::new(Queue::new(options.queue_jobs, options.queue_bytes, meter.clone()));
        let secret = directory::secret(locked.dir(), PAYLOAD_KEY, &ambient)
            .map_err(|error| LedgerError::storage("the key of payloads cannot be used", &error))?;
        let vault = Arc::new(Vault::open(&conn, &secret, options.recipients, ambient.clone())?);
        schema::overwrites(&conn, vault.seals())
            .map_err(|error| LedgerError::storage("the ledger cannot be opened", &error))?;
        let pulse = Arc::new(Pulse::begun((head.seq, vouched), broken));
        let stopwatch = ambient.stopwatch();
        let writer = Writer {
            queue: Arc::clone(&queue),
            pulse: Arc::clone(&pulse),
            conn,
            marks: Marks { head, next_call },
            ambient,
            host_id: Arc::clone(&host_id),
            tree,
            signer,
            refunds: Arc::clone(&refunds),
            vault: Arc::clone(&vault),
            syncs: None,
            meter: meter.clone(),
            dir: Arc::new(locked),
        };
        let writer =
            writer.start().map_err(|error| LedgerError::storage("the ledger's thread cannot be started", &error))?;
        let readers = Arc::new(Readers::new(file));
        let watch = rest.is_some().then(|| Watch {
            readers: Arc::clone(&readers),
            queue: Arc::clone(&queue),
            pulse: Arc::clone(&pulse),
            key: Arc::clone(&note_key),
            stopwatch,
            brought,
            findings: pulse.findings(),
        });
        let shared = Shared {
            queue,
            pulse,
            keys: Keys::new(),
            promises: Arc::default(),
            refunds,
            vault,
            readers,
            signing_key,
            note_key,
            host_id,
            unclean,
            unsynced: AtomicBool::new(false),
            uncut: AtomicBool::new(unclean),
            writer: Mutex::new(Some(writer)),
            outbox: Arc::default(),
            meter,
        };
        Ok((Self { shared: Arc::new(shared) }, Left { checked, rest, watch }))
    }

    /// Check a database that is too large to wait for; damage stops all writing.
    fn check_in_background(&self) {
        let (readers, queue, pulse) =
            (Arc::clone(&self.shared.readers), Arc::clone(&self.shared.queue), Arc::clone(&self.shared.pulse));
        tokio::spawn(async move {
            if let Err(error) = readers.read(|conn| Ok(schema::check(conn)?)).await {
                tracing::error!(%error, "the check after an unclean stop failed");
                let why: Arc<str> = error.to_string().into();
                pulse.set(LedgerHealth::Poisoned(Arc::clone(&why)));
                queue.stop(LedgerError::Poisoned(why));
            }
        });
    }

    /// Write what is queued, checkpoint, and note that the stop was clean. Every later write is refused.
    ///
    /// # Errors
    /// The last batch was not written.
    pub async fn close(&self) -> Result<(), LedgerError> {
        self.shared.promises.all_in_time().await;
        let closed = self.enqueue(Work::Close, true);
        self.shared.queue.stop(LedgerError::Closed);
        let written = match closed {
            Ok(receiver) => receiver.await.unwrap_or(Err(LedgerError::Closed)).map(|_done| ()),
            Err(error) => Err(error),
        };
        let writer = self.shared.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let (Ok(()), Some(writer)) = (&written, writer) {
            let _ended = tokio::task::spawn_blocking(move || writer.join()).await;
        }
        self.shared.readers.close().await;
        written
    }

    /// Whether the last stop was unclean: recovery has something to look at.
    #[must_use]
    pub fn was_unclean(&self) -> bool {
        self.shared.unclean
    }

    /// Whether it writes.
    #[must_use]
    pub fn health(&self) -> LedgerHealth {
        self.shared.pulse.get()
    }

    /// The key that signs receipts: made at the first start, kept in `signing.key` (mode 0600).
    #[must_use]
    pub fn signing_key(&self) -> Arc<SigningKey> {
        Arc::clone(&self.shared.signing_key)
    }

    /// The identity of this host in rows (D20).
    #[must_use]
    pub fn host_id(&self) -> &str {
        &self.shared.host_id
    }

    fn enqueue(
        &self,
        work: Work,
        durable: bool,
    ) -> Result<tokio::sync::oneshot::Receiver<Result<Done, LedgerError>>, LedgerError> {
        let (job, receiver) = Job::urgent(work, durable);
        self.shared.queue.push(job)?;
        Ok(receiver)
    }

    /// Enqueue and wait for the answer.
    async fn ask(&self, work: Work, durable: bool) -> Result<Done, LedgerError> {
        self.enqueue(work, durable)?.await.unwrap_or(Err(LedgerError::Closed))
    }

    /// Enqueue; wait for the disk only if that is wanted.
    async fn put(&self, work: Work, durability: Durability) -> Result<(), LedgerError> {
        match durability {
            Durability::Lazy => self.shared.queue.push(Job::lazy(work)),
            Durability::Durable => match self.ask(work, true).await? {
                Done::Refused(error) => Err(error),
                _ => Ok(()),
            },
        }
    }

    /// Record a call that ended without a stored plan: its row, recording, audit entry and terminal reply under its
    /// key. Returns at once; written within about 20 ms. The key is let go either way.
    ///
    /// # Errors
    /// The queue is full (deny the call as `overloaded`), or the ledger is poisoned or closed.
    pub fn record_call(&self, row: CallRow) -> Result<(), LedgerError> {
        // A row without a key may be that of a call which gave its key back.
        let call = row.call;
        let pushed = self.shared.queue.push(Job::lazy(Work::Record(Box::new(row))));
        self.shared.keys.let_go(call);
        pushed
    }

    /// Keep a plan that is not committed now: previewed, or held for an approval. Its key is let go either way.
    ///
    /// # Errors
    /// The queue is full, a row is refused, or the ledger failed.
    pub async fn propose(&self, proposal: Proposal, durability: Durability) -> Result<(), LedgerError> {
        let call = proposal.call.call;
        let put = self.put(Work::Propose(Box::new(proposal)), durability).await;
        self.shared.keys.let_go(call);
        put
    }

    /// Transaction 1 of a commit. Durable when it returns; exactly one caller wins for a plan and for an approval.
    ///
    /// # Errors
    /// The plan must not be committed, or the ledger failed: nothing may be applied.
    pub async fn intent(&self, intent: Intent) -> Result<IntentId, IntentRefused> {
        if let Some(why) = self.why_halted() {
            return Err(LedgerError::Halted(why).into());
        }
        let runs = intent.proposal.as_ref().map(|proposal| proposal.call.call);
        match self.ask(Work::Intent(Box::new(intent)), true).await? {
            Done::Intent(Ok(id)) => {
                if let Some(call) = runs {
                    self.shared.keys.commits(call, id.plan());
                }
                Ok(id)
            }
            Done::Intent(Err(refused)) => Err(refused),
            Done::Refused(error) => Err(error.into()),
            _ => Err(LedgerError::Closed.into()),
        }
    }

    /// Transaction 2 of a commit. Always finds room in the queue, because what it reports has happened.
    ///
    /// # Errors
    /// The ledger failed; recovery will find the intent open.
    pub async fn outcome(&self, outcome: OutcomeRow, durability: Durability) -> Result<(), LedgerError> {
        let plan = outcome.intent.plan();
        if durability == Durability::Lazy {
            self.note_unsynced();
        }
        let sends = !outcome.deliveries.is_empty();
        let put = self.put(Work::Outcome(Box::new(outcome)), durability).await;
        self.shared.keys.let_go_of(plan);
        if sends {
            self.shared.outbox.notify_one();
        }
        put
    }

    /// Hold a plan that was only previewed so far: from now on it needs this approval. Durable when it returns; `reply`
    /// is what retries are told.
    ///
    /// # Errors
    /// There is no such plan, or it is not open or is held already.
    pub async fn hold(&self, plan: PlanId, approval: ApprovalRow, reply: Arc<str>) -> Result<(), DiscardRefused> {
        match self.ask(Work::Hold { plan, approval: Box::new(approval), reply }, true).await? {
            Done::Held(result) => result,
            Done::Refused(error) => Err(error.into()),
            _ => Err(LedgerError::Closed.into()),
        }
    }

    /// Throw a previewed or held plan away. Its call becomes final, its approval expires, its blobs are released.
    /// Returns the final reply.
    ///
    /// # Errors
    /// There is no such plan, or it is not open any more.
    pub async fn discard(&self, scope: &Scope, plan: PlanId, why: Discard) -> Result<Arc<str>, DiscardRefused> {
        match self.ask(Work::Discard { scope: scope.clone(), plan, why }, true).await? {
            Done::Discarded(result) => result,
            Done::Refused(error) => Err(error.into()),
            _ => Err(LedgerError::Closed.into()),
        }
    }

    /// Expire plans and approvals whose time is over at `now_ms`. Returns the calls that became final by it.
    ///
    /// # Errors
    /// The ledger failed.
    pub async fn expire_due(&self, now_ms: u64) -> Result<Vec<CallId>, LedgerError> {
        let mut all = Vec::new();
        loop {
            match self.ask(Work::ExpireDue { now_ms }, false).await? {
                Done::Expired(calls) if calls.is_empty() => return Ok(all),
                Done::Expired(calls) => all.extend(calls),
                Done::Refused(error) => return Err(error),
                _ => return Ok(all),
            }
        }
    }

    /// Count a person's answer, durably. `Approved` means that the plan may be settled now.
    ///
    /// # Errors
    /// The answer does not count.
    pub async fn resolve(&self, resolution: Resolution) -> Result<Resolved, ResolveRefused> {
        match self.ask(Work::Resolve(Box::new(resolution)), true).await? {
            Done::Resolved(result) => result,
            Done::Refused(error) => Err(error.into()),
            _ => Err(LedgerError::Closed.into()),
        }
    }

    /// Open a run. Returns once enqueued.
    ///
    /// # Errors
    /// The queue is full, or the ledger failed.
    pub fn open_run(&self, run: RunRow) -> Result<(), LedgerError> {
        self.shared.queue.push(Job::lazy(Work::OpenRun(Box::new(run))))
    }

    /// Close a run of this principal, with an outcome if it has one. Returns whether it was open.
    ///
    /// # Errors
    /// The ledger failed.
    pub async fn close_run(
        &self,
        owner: &Principal,
        run: RunId,
        outcome: Option<Arc<str>>,
        now_ms: u64,
    ) -> Result<bool, LedgerError> {
        match self.ask(Work::CloseRun { owner: owner.clone(), run, outcome, now_ms }, false).await? {
            Done::Changed(changed) => Ok(changed),
            Done::Refused(error) => Err(error),
            _ => Ok(false),
        }
    }

    /// Note where a workspace is on this host. Returns once enqueued.
    ///
    /// # Errors
    /// The queue is full, or the ledger failed.
    pub fn note_workspace(&self, tenant: &TenantName, name: &WorkspaceName, root: &Path) -> Result<(), LedgerError> {
        self.shared.queue.push(Job::lazy(Work::Workspace {
            tenant: tenant.as_str().to_owned(),
            name: name.as_str().to_owned(),
            root: root.to_string_lossy().into_owned(),
        }))
    }

    /// Something was written lazily that an idle daemon would leave to the next power loss.
    fn note_unsynced(&self) {
        self.shared.unsynced.store(true, Ordering::Release);
    }

    /// Bring lazily written outcomes to the disk, if there are any since the last time. Without it an outcome of an idle
    /// daemon would stay where a power loss takes it, and recovery would judge a world that went on.
    ///
    /// # Errors
    /// The ledger is poisoned, full or closed.
    pub async fn sync_outcomes(&self) -> Result<(), LedgerError> {
        self.shared.promises.all().await;
        if !self.shared.unsynced.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        self.put(Work::Sync, Durability::Durable)
            .await
            .inspect_err(|_| self.shared.unsynced.store(true, Ordering::Release))
    }

    /// Wait until everything enqueued before is visible to readers. Read methods do so themselves.
    ///
    /// # Errors
    /// The ledger is poisoned or closed.
    pub async fn barrier(&self) -> Result<(), LedgerError> {
        self.ask(Work::Barrier, false).await.map(|_done| ())
    }
}
