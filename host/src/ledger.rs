//! The ledger: calls, plans, approvals, intents, receipts and the audit chain, in one SQLite database.
//!
//! One task owns the only writing connection and drains a bounded queue into one transaction per batch (group commit).
//! A batch that holds a durable write is fsynced, others are not; a failed batch that leaves open what is on the disk
//! poisons the ledger until the next start. Readers use a small pool that cannot write. Only this module, [`crate::blobs`]
//! and [`crate::artifacts`] write the state directory (D21). It decides nothing: who may approve, what is
//! committed and what a reply says is its callers' business.

pub mod approval;
mod failure;
mod keys;
mod rows;

use std::path::Path;
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use serde_json::Value;
use toolkeep_core::audit::{AuditEntry, AuditKind, ChainHead};
use toolkeep_core::digest::Digest;
use toolkeep_core::id::{ApprovalId, CallId, PlanId, ReceiptId, RunId};
use toolkeep_core::principal::Principal;
use toolkeep_core::receipt::Receipt;

use crate::ambient::Ambient;

pub use failure::{DiscardRefused, IntentRefused, LedgerError, ResolveRefused};
pub use keys::{Claimed, KeyClaim};
pub use rows::{
    ApprovalFilter, ApprovalRow, ApprovalUse, BlobSet, CallKey, CallRow, Discard, Durability, FileBlob, InlineBlob,
    Intent, IntentId, OpenIntent, OutcomeRow, PAGE_MAX_ROWS, Page, Paged, PlanLine, PlanState, Proposal, Resolution,
    Resolved, RunRow, RunTotals, Scope, Settled, StoredApproval, StoredCall, StoredPlan, UndoInfo, Vote,
};

/// How much the ledger may hold in memory and on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerOptions {
    /// Writes that wait, at most.
    pub queue_jobs: u32,
    /// Bytes of text and content in writes that wait, at most.
    pub queue_bytes: u64,
    /// Size of the database in pages of 4 KiB, at most; nothing for no bound but the disk's.
    pub max_pages: Option<u32>,
}

impl Default for LedgerOptions {
    /// 4,096 waiting calls are a fifth of a second at full load; 256 MiB of them leave the rest of the machine alone.
    fn default() -> Self {
        Self { queue_jobs: 4_096, queue_bytes: 256 * 1024 * 1024, max_pages: None }
    }
}

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

/// The ledger. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Ledger {}

impl Ledger {
    /// Open the ledger in `dir` (created with mode 0700), migrate it, check it after an unclean stop, and start its
    /// writer.
    ///
    /// # Errors
    /// Another daemon has it open, a newer one wrote it, or it is damaged.
    pub async fn open(_dir: &Path, _ambient: Ambient) -> Result<Self, LedgerError> {
        Err(LedgerError::Closed)
    }

    /// As [`Ledger::open`], with other bounds.
    ///
    /// # Errors
    /// As [`Ledger::open`].
    pub async fn open_with(_dir: &Path, _ambient: Ambient, _options: LedgerOptions) -> Result<Self, LedgerError> {
        Err(LedgerError::Closed)
    }

    /// Write what is queued, checkpoint, and note that the stop was clean. Every later write is refused.
    ///
    /// # Errors
    /// The last batch was not written.
    pub async fn close(&self) -> Result<(), LedgerError> {
        Err(LedgerError::Closed)
    }

    /// Whether the last stop was unclean: recovery has something to look at.
    #[must_use]
    pub fn was_unclean(&self) -> bool {
        false
    }

    /// Whether it writes.
    #[must_use]
    pub fn health(&self) -> LedgerHealth {
        LedgerHealth::Well
    }

    /// The key that signs receipts: made at the first start, kept in `signing.key` (mode 0600).
    #[must_use]
    pub fn signing_key(&self) -> Arc<SigningKey> {
        Arc::new(SigningKey::from_bytes(&[0; 32]))
    }

    /// The identity of this host in rows (D20).
    #[must_use]
    pub fn host_id(&self) -> &str {
        ""
    }

    /// Record a call that ended without a stored plan: its row, recording, audit entry and terminal reply under its
    /// key. Returns at once; written within about 5 ms.
    ///
    /// # Errors
    /// The queue is full (deny the call as `overloaded`), or the ledger is poisoned or closed.
    pub fn record_call(&self, _row: CallRow) -> Result<(), LedgerError> {
        Err(LedgerError::Closed)
    }

    /// Ask what a key names, and take it for `claim.call` if it names nothing.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn claim_key(&self, _claim: KeyClaim) -> Result<Claimed, LedgerError> {
        Err(LedgerError::Closed)
    }

    /// Give back a fresh key whose call ended without a result worth keeping. Does nothing if another call holds it.
    pub fn release_key(&self, _claim: &KeyClaim) {}

    /// Keep a plan that is not committed now: previewed, or held for an approval.
    ///
    /// # Errors
    /// The queue is full, a row is refused, or the ledger failed.
    pub async fn propose(&self, _proposal: Proposal, _durability: Durability) -> Result<(), LedgerError> {
        Err(LedgerError::Closed)
    }

    /// Transaction 1 of a commit. Durable when it returns; exactly one caller wins for a plan and for an approval.
    ///
    /// # Errors
    /// The plan must not be committed, or the ledger failed: nothing may be applied.
    pub async fn intent(&self, _intent: Intent) -> Result<IntentId, IntentRefused> {
        Err(LedgerError::Closed.into())
    }

    /// Transaction 2 of a commit. Waits for room in the queue, because what it reports has happened.
    ///
    /// # Errors
    /// The ledger failed; recovery will find the intent open.
    pub async fn outcome(&self, _outcome: OutcomeRow, _durability: Durability) -> Result<(), LedgerError> {
        Err(LedgerError::Closed)
    }

    /// Commits that were begun and not ended, oldest first.
    ///
    /// # Errors
    /// The ledger cannot be read, or a stored plan does not verify.
    pub async fn open_intents(&self) -> Result<Vec<OpenIntent>, LedgerError> {
        Err(LedgerError::Closed)
    }

    /// A plan, verified.
    ///
    /// # Errors
    /// The ledger cannot be read, or the plan does not verify.
    pub async fn plan(&self, _scope: &Scope, _id: PlanId) -> Result<Option<StoredPlan>, LedgerError> {
        Err(LedgerError::Closed)
    }

    /// The latest plan of this digest that can still be committed: previewed or held, and not expired at `now_ms`.
    ///
    /// # Errors
    /// The ledger cannot be read, or the plan does not verify.
    pub async fn plan_by_digest(
        &self,
        _scope: &Scope,
        _digest: Digest,
        _now_ms: u64,
    ) -> Result<Option<StoredPlan>, LedgerError> {
        Err(LedgerError::Closed)
    }

    /// Plans, newest first.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn plans(
        &self,
        _scope: &Scope,
        _state: Option<PlanState>,
        _page: Page,
    ) -> Result<Paged<PlanLine>, LedgerError> {
        Err(LedgerError::Closed)
    }

    /// Throw a previewed or held plan away. Its call becomes final, its approval expires, its blobs are released.
    /// Returns the final reply.
    ///
    /// # Errors
    /// There is no such plan, or it is not open any more.
    pub async fn discard(&self, _scope: &Scope, _plan: PlanId, _why: Discard) -> Result<Arc<str>, DiscardRefused> {
        Err(LedgerError::Closed.into())
    }

    /// Expire plans and approvals whose time is over at `now_ms`. Returns the calls that became final by it.
    ///
    /// # Errors
    /// The ledger failed.
    pub async fn expire_due(&self, _now_ms: u64) -> Result<Vec<CallId>, LedgerError> {
        Err(LedgerError::Closed)
    }

    /// Approvals, newest first.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn approvals(
        &self,
        _scope: &Scope,
        _filter: ApprovalFilter,
        _page: Page,
    ) -> Result<Paged<StoredApproval>, LedgerError> {
        Err(LedgerError::Closed)
    }

    /// One approval with its votes.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn approval(&self, _scope: &Scope, _id: ApprovalId) -> Result<Option<StoredApproval>, LedgerError> {
        Err(LedgerError::Closed)
    }

    /// Count a person's answer, durably. `Approved` means that the plan may be settled now.
    ///
    /// # Errors
    /// The answer does not count.
    pub async fn resolve(&self, _resolution: Resolution) -> Result<Resolved, ResolveRefused> {
        Err(LedgerError::Closed.into())
    }

    /// A call.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn call(&self, _scope: &Scope, _id: CallId) -> Result<Option<StoredCall>, LedgerError> {
        Err(LedgerError::Closed)
    }

    /// The recording of a call, JSON.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn recording(&self, _scope: &Scope, _id: CallId) -> Result<Option<Arc<str>>, LedgerError> {
        Err(LedgerError::Closed)
    }

    /// The calls of a run, oldest first.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn calls_of_run(
        &self,
        _scope: &Scope,
        _run: RunId,
        _page: Page,
    ) -> Result<Paged<StoredCall>, LedgerError> {
        Err(LedgerError::Closed)
    }

    /// Open a run. Returns once enqueued.
    ///
    /// # Errors
    /// The queue is full, or the ledger failed.
    pub fn open_run(&self, _run: RunRow) -> Result<(), LedgerError> {
        Err(LedgerError::Closed)
    }

    /// Close a run of this principal. Returns whether it was open.
    ///
    /// # Errors
    /// The ledger failed.
    pub async fn close_run(&self, _owner: &Principal, _run: RunId, _now_ms: u64) -> Result<bool, LedgerError> {
        Err(LedgerError::Closed)
    }

    /// A run and what its calls add up to.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn run(&self, _scope: &Scope, _id: RunId) -> Result<Option<(RunRow, RunTotals)>, LedgerError> {
        Err(LedgerError::Closed)
    }

    /// Runs, newest first.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn runs(&self, _scope: &Scope, _page: Page) -> Result<Paged<RunRow>, LedgerError> {
        Err(LedgerError::Closed)
    }

    /// The receipt of a call.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn receipt_of(&self, _scope: &Scope, _call: CallId) -> Result<Option<Receipt>, LedgerError> {
        Err(LedgerError::Closed)
    }

    /// A receipt.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn receipt(&self, _scope: &Scope, _id: ReceiptId) -> Result<Option<Receipt>, LedgerError> {
        Err(LedgerError::Closed)
    }

    /// How to reverse a committed call; nothing if it committed nothing.
    ///
    /// # Errors
    /// The ledger cannot be read, or the plan does not verify.
    pub async fn undo_of(&self, _scope: &Scope, _call: CallId) -> Result<Option<UndoInfo>, LedgerError> {
        Err(LedgerError::Closed)
    }

    /// Append to the audit chain without waiting.
    ///
    /// # Errors
    /// The queue is full, or the ledger is poisoned or closed.
    pub fn audit(&self, _kind: AuditKind, _facts: &Value) -> Result<(), LedgerError> {
        Err(LedgerError::Closed)
    }

    /// Append to the audit chain and wait until it is on the disk.
    ///
    /// # Errors
    /// The ledger failed.
    pub async fn audit_durably(&self, _kind: AuditKind, _facts: &Value) -> Result<(), LedgerError> {
        Err(LedgerError::Closed)
    }

    /// The end of the audit chain.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn audit_head(&self) -> Result<ChainHead, LedgerError> {
        Err(LedgerError::Closed)
    }

    /// Verify the entries `from..=to` and that they continue the one before them. Returns how many there were.
    ///
    /// # Errors
    /// The chain is broken, or the ledger cannot be read.
    pub async fn verify_audit(&self, _from: u64, _to: u64) -> Result<u64, LedgerError> {
        Err(LedgerError::Closed)
    }

    /// Entries of the audit chain, oldest first; the cursor is a sequence number.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn audit_entries(&self, _page: Page) -> Result<Paged<AuditEntry>, LedgerError> {
        Err(LedgerError::Closed)
    }

    /// Wait until everything enqueued before is visible to readers. Read methods do so themselves.
    ///
    /// # Errors
    /// The ledger is poisoned or closed.
    pub async fn barrier(&self) -> Result<(), LedgerError> {
        Err(LedgerError::Closed)
    }
}
