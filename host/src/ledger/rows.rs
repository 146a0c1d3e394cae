//! What callers hand to the ledger and get back from it: owned rows, one type per thing.
//!
//! Texts that the ledger only keeps (inputs, replies, steps, witnesses, recordings) are `Arc<str>`, parsed by whoever wrote them;
//! the ledger looks into none of them but the reply of a call that ends without a commit. Times are
//! milliseconds since the Unix epoch.

use std::fmt;
use std::sync::Arc;

use toolkeep_core::call::{Mode, Outcome, Status, Usage};
use toolkeep_core::digest::Digest;
use toolkeep_core::id::{
    ApprovalId, CallId, PlanId, RunId, TenantName, ToolName, TransactionId, UserName, WorkflowName,
};
use toolkeep_core::plan::Plan;
use toolkeep_core::principal::{Origin, Principal};
use toolkeep_core::receipt::Receipt;
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_core::taint::Taint;
use toolkeep_core::tier::Tier;

use super::approval::ApprovalState;
use super::buckets::KeyChange;
use super::charges::ChargeRow;
use toolkeep_core::trace::TraceId;

use super::deliveries::Enqueue;
use super::quotas::QuotaCharge;
use super::resolve::Via;
use super::run_terms::RunHold;
use super::sends::SendRow;
use super::standing::StandingUse;

/// How long a write may take to be safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Enqueued: written with the next batch, safe against a crash of the daemon within milliseconds, against power
    /// loss with the next durable batch.
    Lazy,
    /// On the disk when the call returns.
    Durable,
}

/// Whose rows a reader may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// One tenant's. Foreign rows look missing.
    Tenant(TenantName),
    /// Everybody's: the admin plane only.
    Operator,
}

impl Scope {
    /// Whether rows of `tenant` are visible.
    #[must_use]
    pub fn sees(&self, tenant: &TenantName) -> bool {
        match self {
            Self::Tenant(own) => own == tenant,
            Self::Operator => true,
        }
    }
}

/// The idempotency key under which a call was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallKey {
    /// The key as the caller gave it, at most [`toolkeep_core::limit::KEY_MAX_BYTES`].
    pub key: Arc<str>,
    /// Digest of tool, input, mode and transaction: another request under the same key is a mismatch (D8).
    pub request: Digest,
}

/// One call, as it stands.
#[derive(Debug, Clone)]
pub struct CallRow {
    /// The trace that it belongs to, where that is known: what is read back has it in its reply.
    pub trace: Option<TraceId>,
    /// Whether a row of this call exists that says it waits; this one takes its place.
    pub suspended: bool,
    /// The call.
    pub call: CallId,
    /// Who acts.
    pub principal: Principal,
    /// How they were authenticated, and through which sessions they act.
    pub origin: Origin,
    /// Its run.
    pub run: Option<RunId>,
    /// The step of the run, chosen by the agent.
    pub step: Option<Arc<str>>,
    /// Which tool.
    pub tool: ToolName,
    /// SHA-256 of the component; absent if the call was refused before the tool was found.
    pub component: Option<Digest>,
    /// SHA-256 of the manifest; absent likewise.
    pub manifest: Option<Digest>,
    /// The risk tier of the tool; absent likewise.
    pub tier: Option<Tier>,
    /// The policies that were asked about it; absent if it was refused before they were.
    pub policy_set: Option<Digest>,
    /// Commit or preview.
    pub mode: Mode,
    /// The canonical input.
    pub input: Arc<str>,
    /// Its digest.
    pub input_digest: Digest,
    /// How it went.
    pub status: Status,
    /// What became of the effects.
    pub outcome: Outcome,
    /// Why it was refused or failed.
    pub error_code: Option<Code>,
    /// The reply as it was sent, JSON.
    pub reply: Arc<str>,
    /// What it used.
    pub usage: Usage,
    /// The recording of its execution, JSON of [`toolkeep_core::event::Recording`]. Not read back with the call: see
    /// [`super::Ledger::recording`].
    pub recording: Option<Arc<str>>,
    /// What is kept beside the recording, where there is anything. Not read back with the call.
    pub beside: Option<Box<Beside>>,
    /// When it arrived.
    pub started_ms: u64,
    /// When it ended or came to rest.
    pub ended_ms: u64,
    /// The key that names it. Not read back with the call.
    pub key: Option<CallKey>,
    /// What the checks noted of it, JSON of [`crate::notes::Notes`]. Not read back with the call: see
    /// [`super::Ledger::notes`].
    pub notes: Option<Arc<str>>,
    /// What is charged for it, where anything is. Not read back with the call.
    pub charge: Option<Box<ChargeRow>>,
    /// The output, JSON, where it is too long for the reply. Not read back with the call: see [`super::Ledger::output`].
    pub output: Option<Arc<str>>,
}

/// A call read back.
#[derive(Debug, Clone)]
pub struct StoredCall {
    /// The call; without recording and key.
    pub row: CallRow,
    /// Its plan, if it made one.
    pub plan: Option<PlanId>,
}

/// Contents that a recording needs.
#[derive(Debug, Clone, Default)]
pub struct Beside {
    /// Contents that may not be kept yet.
    pub contents: Vec<InlineBlob>,
    /// Contents that are kept already.
    pub others: Vec<Digest>,
}

/// A blob whose content is kept in the ledger: at most [`crate::blobs::INLINE_MAX_BYTES`].
#[derive(Debug, Clone)]
pub struct InlineBlob {
    /// SHA-256 of the content.
    pub digest: Digest,
    /// The content.
    pub content: Arc<[u8]>,
}

/// A blob whose content is a file of the blob store, already durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileBlob {
    /// SHA-256 of the content.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

/// Contents that a plan needs, or that undo needs. Rows are written in the same transaction, files are pinned by it.
#[derive(Debug, Clone, Default)]
pub struct BlobSet {
    /// Small contents.
    pub inline: Vec<InlineBlob>,
    /// Large contents.
    pub files: Vec<FileBlob>,
}

impl BlobSet {
    /// What is in it.
    pub fn digests(&self) -> impl Iterator<Item = Digest> {
        self.inline.iter().map(|blob| blob.digest).chain(self.files.iter().map(|blob| blob.digest))
    }
}

/// A request for consent, as the decision made it.
#[derive(Debug, Clone)]
pub struct ApprovalRow {
    /// The approval.
    pub id: ApprovalId,
    /// How many distinct people have to agree, at least 1.
    pub approvers: u8,
    /// The user who may not agree: the requester, where two people are wanted (D13).
    pub barred: Option<UserName>,
    /// Why the plan is held, for the approver.
    pub reason: Arc<str>,
    /// When it counts as rejected.
    pub expires_at_ms: u64,
}

/// A sealed plan that is to be kept: previewed, or held for an approval.
#[derive(Debug, Clone)]
pub struct Proposal {
    /// The call that made it. Its outcome is `previewed` or `pending`; in an [`Intent`], what the caller would be told
    /// if the daemon stopped now.
    pub call: CallRow,
    /// The plan.
    pub plan: Arc<Plan>,
    /// Stat tuples of what was read, JSON: side data for the fast check at commit.
    pub witnesses: Arc<str>,
    /// What the effects write.
    pub blobs: BlobSet,
    /// The request for consent of a held plan.
    pub approval: Option<ApprovalRow>,
    /// The open transaction that is sealed with it and ends as it does.
    pub transaction: Option<TransactionId>,
}

/// The approval that a commit uses up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApprovalUse {
    /// The approval.
    pub id: ApprovalId,
    /// The seal that it leases; it has to be the plan's.
    pub seal: Digest,
}

/// Transaction 1 of a commit: from here on the world may change.
#[derive(Debug, Clone)]
pub struct Intent {
    /// The plan.
    pub plan: PlanId,
    /// The plan's own rows, if they are not stored yet: an automatically committed call is one transaction.
    pub proposal: Option<Box<Proposal>>,
    /// The approval to use up, for a held plan.
    pub approval: Option<ApprovalUse>,
    /// The standing approval that the plan uses once.
    pub standing: Option<StandingUse>,
    /// The call whose effects this plan reverses.
    pub undoes: Option<CallId>,
    /// How to apply and how to reverse, JSON of the commit engine.
    pub steps: Arc<str>,
    /// The requests of the plan, in their order.
    pub sends: Vec<SendRow>,
    /// What its effects use up of quotas.
    pub quotas: Vec<QuotaCharge>,
    /// Contents that reversing needs.
    pub undo_blobs: BlobSet,
    /// The reply when everything is applied, JSON.
    pub reply_when_done: Arc<str>,
    /// The receipt, released by the outcome.
    pub receipt: Option<Receipt>,
}

/// Names an intent: a plan has at most one, ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IntentId(pub(super) PlanId);

impl IntentId {
    /// The plan that is committed.
    #[must_use]
    pub const fn plan(self) -> PlanId {
        self.0
    }
}

/// How a commit ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// Everything was applied.
    Committed,
    /// Nothing is left of it.
    RolledBack,
    /// These targets could be neither applied nor rolled back.
    Halted(Vec<String>),
}

/// Transaction 2 of a commit: what became of it.
#[derive(Debug, Clone)]
pub struct OutcomeRow {
    /// The intent.
    pub intent: IntentId,
    /// How it ended. Only `Committed` releases the receipt.
    pub settled: Settled,
    /// The reply, final: kept with the call and under its key.
    pub reply: Arc<str>,
    /// Why it was not committed.
    pub error_code: Option<Code>,
    /// The receipt, if it could only be made after the intent: with the answers to requests.
    pub receipt: Option<Receipt>,
    /// When it ended.
    pub ended_ms: u64,
    /// What is to be delivered. Enqueued in the same transaction, if the commit is.
    pub deliveries: Vec<Enqueue>,
    /// Changes of keys. Applied in the same transaction, if the commit is.
    pub keys: Vec<KeyChange>,
}

/// A commit that was begun and not ended: recovery's work.
#[derive(Debug, Clone)]
pub struct OpenIntent {
    /// The intent.
    pub intent: IntentId,
    /// The verified plan.
    pub plan: Plan,
    /// The call.
    pub call: CallId,
    /// How to apply and how to reverse.
    pub steps: Arc<str>,
    /// The reply when everything is applied.
    pub reply_when_done: Arc<str>,
    /// The receipt that `Committed` releases.
    pub receipt: Option<Receipt>,
    /// The call that it reverses, if it is a reversal.
    pub undoes: Option<CallId>,
    /// When the intent was made.
    pub made_ms: u64,
}

/// In which state a stored plan is. `Previewed` and `Held` can still be committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PlanState {
    /// Shown; may be committed until it expires.
    Previewed,
    /// Waits for an approval, or is approved and not yet settled.
    Held,
    /// The intent is durable.
    Committing,
    /// Applied.
    Committed,
    /// Begun and taken back.
    RolledBack,
    /// Neither applied nor taken back in full.
    Halted,
    /// Thrown away by the caller or by an approver.
    Discarded,
    /// Too old.
    Expired,
}

impl PlanState {
    /// All states.
    pub const ALL: [Self; 8] = [
        Self::Previewed,
        Self::Held,
        Self::Committing,
        Self::Committed,
        Self::RolledBack,
        Self::Halted,
        Self::Discarded,
        Self::Expired,
    ];

    /// The word for it, in rows and replies.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Previewed => "previewed",
            Self::Held => "held",
            Self::Committing => "committing",
            Self::Committed => "committed",
            Self::RolledBack => "rolled_back",
            Self::Halted => "halted",
            Self::Discarded => "discarded",
            Self::Expired => "expired",
        }
    }

    /// The state that a word names.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.word() == word)
    }

    /// Whether it can still be committed or discarded.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Previewed | Self::Held)
    }
}

impl fmt::Display for PlanState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A plan read back and verified.
#[derive(Debug, Clone)]
pub struct StoredPlan {
    /// The plan.
    pub plan: Plan,
    /// Where it stands.
    pub state: PlanState,
    /// Stat tuples for the fast check.
    pub witnesses: Arc<str>,
    /// The call that made it.
    pub call: StoredCall,
    /// Its approval, for a held plan.
    pub approval: Option<StoredApproval>,
    /// What its run has seen by now, be it open or closed.
    pub run_taint: Taint,
}

/// One line of a list of plans.
#[derive(Debug, Clone)]
pub struct PlanLine {
    /// The plan.
    pub plan: PlanId,
    /// What it is.
    pub digest: Digest,
    /// The call that made it.
    pub call: CallId,
    /// The tenant that owns it.
    pub tenant: TenantName,
    /// The tool that wants it.
    pub tool: ToolName,
    /// Where it stands.
    pub state: PlanState,
    /// Effects in all.
    pub effects: u64,
    /// When it was made.
    pub made_ms: u64,
    /// When it stops being committable.
    pub expires_at_ms: u64,
}

/// One person's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vote {
    /// Who.
    pub approver: UserName,
    /// Agreed or not.
    pub approved: bool,
    /// Why, in the approver's words.
    pub reason: Arc<str>,
    /// When.
    pub at_ms: u64,
    /// By which way.
    pub via: Via,
}

/// A request for consent, read back.
#[derive(Debug, Clone)]
pub struct StoredApproval {
    /// What was asked.
    pub row: ApprovalRow,
    /// Where it stands.
    pub state: ApprovalState,
    /// The plan.
    pub plan: PlanId,
    /// The seal that it leases.
    pub seal: Digest,
    /// The call.
    pub call: CallId,
    /// Who asks.
    pub requester: Principal,
    /// The tool that wants it.
    pub tool: ToolName,
    /// When it was asked.
    pub made_ms: u64,
    /// The answers so far.
    pub votes: Vec<Vote>,
}

/// Which approvals to list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ApprovalFilter {
    /// Only those in this state.
    pub state: Option<ApprovalState>,
}

/// Why a plan is thrown away without having been committed.
#[derive(Debug, Clone, PartialEq)]
pub enum Discard {
    /// Its owner does not want it any more: the call ends `ok`, `discarded`.
    Dropped,
    /// The world changed, the tool was replaced, or a grant was taken away: the call ends as `stale_plan`.
    Stale,
    /// It cannot be committed for another reason: the call ends with this refusal.
    Refused(Box<Refusal>),
}

/// How to reverse a committed call.
#[derive(Debug, Clone)]
pub struct UndoInfo {
    /// The committed plan, verified.
    pub plan: Plan,
    /// The steps of its intent.
    pub steps: Arc<str>,
    /// When it was committed.
    pub committed_ms: u64,
    /// The call that reversed it, if one did.
    pub undone_by: Option<CallId>,
}

/// One agent task.
#[derive(Debug, Clone)]
pub struct RunRow {
    /// The run.
    pub run: RunId,
    /// Who opened it.
    pub principal: Principal,
    /// By which credential, and through which sessions.
    pub origin: Origin,
    /// What it is for, in the agent's words; at most 256 bytes.
    pub label: Arc<str>,
    /// When it was opened.
    pub opened_ms: u64,
    /// When it was closed.
    pub closed_ms: Option<u64>,
    /// What its spending is added up under.
    pub workflow: Option<WorkflowName>,
    /// What binds it, JSON of the host; empty for nothing.
    pub terms: Arc<str>,
    /// How much an operator raised its budget, JSON of the host; empty for nothing.
    pub raised: Arc<str>,
    /// What it came to, in the agent's words.
    pub outcome: Option<Arc<str>>,
    /// Why no call of it is admitted.
    pub held: Option<RunHold>,
    /// When an operator last released it; 0 for never. Calls before do not count as repetitions.
    pub released_ms: u64,
    /// How often it broke its terms since then.
    pub escalations: u64,
}

impl RunRow {
    /// A run that begins, bound by nothing.
    #[must_use]
    pub fn new(run: RunId, principal: Principal, label: impl Into<Arc<str>>, opened_ms: u64) -> Self {
        Self {
            run,
            principal,
            origin: Origin::record(),
            label: label.into(),
            opened_ms,
            closed_ms: None,
            workflow: None,
            terms: Arc::from(""),
            raised: Arc::from(""),
            outcome: None,
            held: None,
            released_ms: 0,
            escalations: 0,
        }
    }
}

/// What the calls of a run add up to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RunTotals {
    /// Calls.
    pub calls: u64,
    /// Fuel of all of them.
    pub fuel: u64,
    /// Wall time of all of them, in milliseconds.
    pub wall_ms: u64,
}

/// Where to go on in a list, and how many rows to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// The `next` of the page before; nothing for the first page.
    pub cursor: Option<u64>,
    /// At most so many rows, itself at most [`PAGE_MAX_ROWS`].
    pub limit: u32,
}

/// Most rows of one page: a reply line holds them.
pub const PAGE_MAX_ROWS: u32 = 1_000;

impl Default for Page {
    fn default() -> Self {
        Self { cursor: None, limit: 100 }
    }
}

/// One page of a list.
#[derive(Debug, Clone)]
pub struct Paged<T> {
    /// The rows.
    pub items: Vec<T>,
    /// Where the next page starts; nothing at the end.
    pub next: Option<u64>,
}
