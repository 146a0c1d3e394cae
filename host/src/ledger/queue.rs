//! The bounded queue between everybody who writes and the one thread that does.
//!
//! Lazy writes do not wake the writer one by one: the first of a batch does, the rest are found when it
//! looks again. Urgent ones (somebody waits for the answer) wake it at once. Outcomes, barriers and kill switches are
//! not counted: there is at most one outcome per intent, intents were, and a switch must not wait for what it stops.
//! Audit entries and alerts find room where calls find none any more: they tell what has happened already.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use toolkeep_core::audit::AuditKind;
use toolkeep_core::digest::Digest;
use toolkeep_core::id::{CallId, PlanId, RunId, TenantName};
use toolkeep_core::principal::Principal;

use super::alerts::AlertWork;
use super::belief::Learned;
use super::credentials::CredentialWork;
use super::deliveries::{OutboxDone, OutboxWork};
use super::failure::{DiscardRefused, IntentRefused, LedgerError, ResolveRefused, TransactionRefused};
use super::meter::LedgerMeter;
use super::oversight::OversightWork;
use super::privacy::{PrivacyDone, PrivacyWork};
use super::resolve::{Resolution, Resolved};
use super::retention::{Keep, Place, Swept};
use super::rows::{ApprovalRow, CallRow, Discard, Intent, IntentId, OutcomeRow, Proposal, RunRow, Scope};
use super::run_terms::RunWork;
use super::sends::{SendMove, SendVerdict};
use super::standing::Overseen;
use super::suspended::Suspended;
use super::switches::KillChange;
use super::transactions::TransactionWork;

/// Most jobs of one batch: nobody waits for more than these.
pub(super) const BATCH_MAX: usize = 1_024;
/// How many times the bounds of other writes are those of audit entries and alerts.
const ROOM_FOR_AUDIT: u32 = 2;
/// The part of the bounds that the calls of one tenant may take: one that is refused as fast as it asks must not keep out
/// the calls of others, which nothing runs unrecorded.
const SHARE_OF_TENANT: u32 = 2;

/// What is to be written.
#[derive(Debug)]
pub(super) enum Work {
    Record(Box<CallRow>),
    Propose(Box<Proposal>),
    Intent(Box<Intent>),
    Outcome(Box<OutcomeRow>),
    Resolve(Box<Resolution>),
    Hold { plan: PlanId, approval: Box<ApprovalRow>, reply: Arc<str> },
    Discard { scope: Scope, plan: PlanId, why: Discard },
    ExpireDue { now_ms: u64 },
    OpenRun(Box<RunRow>),
    CloseRun { owner: Principal, run: RunId, outcome: Option<Arc<str>>, now_ms: u64 },
    Run(Box<RunWork>),
    Workspace { tenant: String, name: String, root: String },
    NoteSend(Box<SendMove>),
    NotKnown { plan: PlanId, reply: Arc<str>, asks: bool },
    Say(Box<SendVerdict>),
    Suspend(Box<Suspended>),
    Audit { kind: AuditKind, body: Arc<str> },
    DropBlobs(Vec<Digest>),
    Prune { keep: Box<Keep>, place: Place },
    Privacy(Box<PrivacyWork>),
    Outbox(OutboxWork),
    Kill(Box<KillChange>),
    Transaction(Box<TransactionWork>),
    Credential(Box<CredentialWork>),
    Oversee(OversightWork),
    Alert(AlertWork),
    Learn(Learned),
    Checkpoint,
    Sync,
    Barrier,
    Close,
}

impl Work {
    /// Whether the log is to be cut when it is written.
    pub(super) fn truncates(&self) -> bool {
        matches!(self, Self::Privacy(work) if matches!(**work, PrivacyWork::Truncate))
    }
}

/// What it came to, for whoever waits.
#[derive(Debug)]
pub(super) enum Done {
    Written,
    Refused(LedgerError),
    Intent(Result<IntentId, IntentRefused>),
    Resolved(Result<Resolved, ResolveRefused>),
    Held(Result<(), DiscardRefused>),
    Discarded(Result<Arc<str>, DiscardRefused>),
    Expired(Vec<CallId>),
    Changed(bool),
    Dropped(Vec<Digest>),
    Swept(Swept),
    Private(PrivacyDone),
    Outbox(OutboxDone),
    Killed(u64),
    /// The number of an audit entry.
    Noted(u64),
    /// The note of a checkpoint.
    Vouched(Arc<str>),
    Transacted(Result<(), TransactionRefused>),
    Overseen(Overseen),
}

/// One write and who waits for it.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) work: Work,
    pub(super) durable: bool,
    pub(super) waiter: Option<oneshot::Sender<Result<Done, LedgerError>>>,
    bytes: u64,
    counted: bool,
}

impl Job {
    /// A write that nobody waits for.
    pub(super) fn lazy(work: Work) -> Self {
        Self::new(work, false, None)
    }

    /// A write that somebody waits for, with the receiving end for them.
    pub(super) fn urgent(work: Work, durable: bool) -> (Self, oneshot::Receiver<Result<Done, LedgerError>>) {
        let (sender, receiver) = oneshot::channel();
        (Self::new(work, durable, Some(sender)), receiver)
    }

    fn new(work: Work, durable: bool, waiter: Option<oneshot::Sender<Result<Done, LedgerError>>>) -> Self {
        let counted = !matches!(work, Work::Outcome(_) | Work::Kill(_) | Work::Learn(_) | Work::Barrier | Work::Close);
        Self { bytes: weight(&work), work, durable, waiter, counted }
    }

    /// Whose call it is, as far as it is one.
    fn tenant(&self) -> Option<&TenantName> {
        let row = match &self.work {
            Work::Record(row) => row,
            Work::Propose(proposal) => &proposal.call,
            Work::Intent(intent) => &intent.proposal.as_deref()?.call,
            Work::Suspend(suspended) => &suspended.row,
            Work::Transaction(work) => match work.as_ref() {
                TransactionWork::Stage(staged) => &staged.call,
                TransactionWork::Open { .. } | TransactionWork::End { .. } => return None,
            },
            _ => return None,
        };
        Some(&row.principal.tenant)
    }

    /// Whether it makes room: it must not wait for what finds none.
    pub(super) fn makes_room(&self) -> bool {
        match &self.work {
            Work::Prune { .. } | Work::DropBlobs(_) => true,
            Work::Privacy(work) => work.makes_room(),
            _ => false,
        }
    }

    /// Whether readers of plans, approvals and keys must see it.
    pub(super) const fn settles(&self) -> bool {
        match &self.work {
            Work::Record(row) => row.key.is_some(),
            Work::Propose(_)
            | Work::Intent(_)
            | Work::Outcome(_)
            | Work::Resolve(_)
            | Work::Hold { .. }
            | Work::Discard { .. }
            | Work::NotKnown { .. }
            | Work::Say(_)
            | Work::Suspend(_)
            | Work::Outbox(_)
            | Work::Alert(_)
            | Work::Transaction(_)
            | Work::ExpireDue { .. } => true,
            Work::OpenRun(_)
            | Work::CloseRun { .. }
            | Work::Run(_)
            | Work::Workspace { .. }
            | Work::NoteSend(_)
            | Work::Credential(_)
            | Work::Kill(_)
            | Work::Oversee(_)
            | Work::Audit { .. }
            | Work::DropBlobs(_)
            | Work::Prune { .. }
            | Work::Privacy(_)
            | Work::Learn(_)
            | Work::Checkpoint
            | Work::Sync
            | Work::Barrier
            | Work::Close => false,
        }
    }
}

/// Bytes that a write keeps in memory while it waits; texts and contents only.
fn weight(work: &Work) -> u64 {
    let call = |row: &CallRow| {
        row.input.len()
            + row.reply.len()
            + row.recording.as_ref().map_or(0, |text| text.len())
            + row.beside.iter().flat_map(|beside| &beside.contents).map(|blob| blob.content.len()).sum::<usize>()
            + row.output.as_ref().map_or(0, |text| text.len())
    };
    let proposal = |proposal: &Proposal| {
        let blobs: usize = proposal.blobs.inline.iter().map(|blob| blob.content.len()).sum();
        call(&proposal.call) + proposal.plan.canonical().len() + proposal.witnesses.len() + blobs
    };
    let bytes = match work {
        Work::Record(row) => call(row),
        Work::Propose(row) => proposal(row),
        Work::Intent(intent) => {
            let blobs: usize = intent.undo_blobs.inline.iter().map(|blob| blob.content.len()).sum();
            intent.proposal.as_deref().map_or(0, proposal) + intent.steps.len() + intent.reply_when_done.len() + blobs
        }
        Work::NoteSend(step) => step.answer.as_ref().map_or(0, |answer| answer.body.len()),
        Work::NotKnown { reply, .. } => reply.len(),
        Work::Suspend(suspended) => call(&suspended.row) + suspended.continuation.weight(),
        Work::Outcome(row) => row.reply.len(),
        Work::Outbox(OutboxWork::Enqueue(what)) => what.message.body.len(),
        Work::Alert(AlertWork::Raise(raised)) => raised.detail.len(),
        Work::Audit { body, .. } => body.len(),
        Work::Credential(work) => work.weight(),
        Work::Run(work) => work.weight(),
        Work::Transaction(work) => match work.as_ref() {
            TransactionWork::Stage(staged) => {
                let blobs: usize = staged.blobs.inline.iter().map(|blob| blob.content.len()).sum();
                call(&staged.call) + staged.layer.text.len() + blobs
            }
            TransactionWork::Open { .. } | TransactionWork::End { .. } => 0,
        },
        Work::Resolve(_)
        | Work::Say(_)
        | Work::Hold { .. }
        | Work::Discard { .. }
        | Work::ExpireDue { .. }
        | Work::OpenRun(_)
        | Work::CloseRun { .. }
        | Work::Workspace { .. }
        | Work::DropBlobs(_)
        | Work::Prune { .. }
        | Work::Privacy(_)
        | Work::Outbox(_)
        | Work::Alert(_)
        | Work::Kill(_)
        | Work::Oversee(_)
        | Work::Learn(_)
        | Work::Checkpoint
        | Work::Sync
        | Work::Barrier
        | Work::Close => 0,
    };
    bytes as u64
}

#[derive(Debug, Default)]
struct State {
    jobs: Vec<Job>,
    /// Counted jobs and their bytes, those in the writer's hands included.
    held_jobs: u32,
    held_bytes: u64,
    /// The same for the calls of each tenant.
    held_by: HashMap<TenantName, (u32, u64)>,
    /// Jobs of any kind that are not yet visible to readers, and those of them that settle something.
    pending: usize,
    settling: usize,
    urgent: bool,
    abandoned: bool,
    /// Why nothing more is taken.
    stopped: Option<LedgerError>,
}

impl State {
    /// A call of this tenant is not held any more.
    fn let_go(&mut self, tenant: &TenantName, bytes: u64) {
        if let Some((held, of_bytes)) = self.held_by.get_mut(tenant) {
            (*held, *of_bytes) = (held.saturating_sub(1), of_bytes.saturating_sub(bytes));
            if *held == 0 {
                self.held_by.remove(tenant);
            }
        }
    }
}

/// The queue.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// Wakes the writer: something came into an empty queue, or something urgent.
    arrived: Condvar,
    most_jobs: u32,
    most_bytes: u64,
    meter: LedgerMeter,
}

impl Queue {
    pub(super) fn new(most_jobs: u32, most_bytes: u64, meter: LedgerMeter) -> Self {
        Self { state: Mutex::default(), arrived: Condvar::new(), most_jobs, most_bytes, meter }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enqueue.
    ///
    /// # Errors
    /// The queue is full, or stopped.
    pub(super) fn push(&self, job: Job) -> Result<(), LedgerError> {
        let mut state = self.state();
        if let Some(error) = &state.stopped {
            return Err(error.clone());
        }
        if job.counted {
            let bytes = state.held_bytes.saturating_add(job.bytes);
            let tells = matches!(job.work, Work::Audit { .. } | Work::Alert(AlertWork::Raise(_)));
            let times = if tells { ROOM_FOR_AUDIT } else { 1 };
            let (jobs, most) = (self.most_jobs.saturating_mul(times), self.most_bytes.saturating_mul(times.into()));
            // One write larger than the bound is taken when it is alone; otherwise it could never be written.
            let full = |held: u32, bytes: u64, jobs: u32, most: u64| held >= jobs || (bytes > most && held > 0);
            let own = job.tenant().map(|tenant| {
                let (held, before) = state.held_by.get(tenant).copied().unwrap_or_default();
                (tenant.clone(), held, before.saturating_add(job.bytes))
            });
            let share = (jobs.div_ceil(SHARE_OF_TENANT), most.div_ceil(SHARE_OF_TENANT.into()));
            let too_much = own.as_ref().is_some_and(|(_, held, bytes)| full(*held, *bytes, share.0, share.1));
            if too_much || full(state.held_jobs, bytes, jobs, most) {
                self.meter.rejected();
                return Err(LedgerError::Overloaded);
            }
            state.held_jobs += 1;
            state.held_bytes = bytes;
            if let Some((tenant, held, bytes)) = own {
                state.held_by.insert(tenant, (held + 1, bytes));
            }
        }
        state.pending += 1;
        state.settling += usize::from(job.settles());
        let urgent = job.waiter.is_some() || job.durable;
        let first = state.jobs.is_empty();
        state.urgent |= urgent;
        state.jobs.push(job);
        let full = state.jobs.len() == BATCH_MAX;
        drop(state);
        if first || urgent || full {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// Wait until there is something to take. False if there is nothing and never will be.
    pub(super) fn arrival(&self) -> bool {
        let nothing = |state: &mut State| state.jobs.is_empty() && !state.abandoned;
        let state = self.arrived.wait_while(self.state(), nothing).unwrap_or_else(PoisonError::into_inner);
        !state.jobs.is_empty()
    }

    /// Wait until something urgent is there or a batch is full, or for as long as `pause`; then take up to `most` jobs in the order of
    /// their arrival.
    pub(super) fn gather(&self, pause: Duration, most: usize) -> Vec<Job> {
        let may_wait = |state: &mut State| !state.urgent && state.jobs.len() < BATCH_MAX;
        let gathered = self.arrived.wait_timeout_while(self.state(), pause, may_wait);
        let (mut state, _timed_out) = gathered.unwrap_or_else(PoisonError::into_inner);
        if state.jobs.len() <= most {
            state.urgent = false;
            return std::mem::take(&mut state.jobs);
        }
        let rest = state.jobs.split_off(most);
        let taken = std::mem::replace(&mut state.jobs, rest);
        state.urgent = state.jobs.iter().any(|job| job.waiter.is_some() || job.durable);
        taken
    }

    /// These jobs are visible to readers, or will never be.
    pub(super) fn settle(&self, jobs: &[Job]) {
        let mut state = self.state();
        for job in jobs {
            state.pending = state.pending.saturating_sub(1);
            state.settling = state.settling.saturating_sub(usize::from(job.settles()));
            if job.counted {
                state.held_jobs = state.held_jobs.saturating_sub(1);
                state.held_bytes = state.held_bytes.saturating_sub(job.bytes);
                if let Some(tenant) = job.tenant() {
                    state.let_go(tenant, job.bytes);
                }
            }
        }
    }

    /// Take nothing more, for this reason.
    pub(super) fn stop(&self, why: LedgerError) {
        self.state().stopped.get_or_insert(why);
    }

    /// Nobody writes any more: take nothing more, and let go of whoever waits.
    pub(super) fn end(&self, why: &LedgerError) {
        let mut state = self.state();
        state.stopped.get_or_insert(why.clone());
        let left = std::mem::take(&mut state.jobs);
        drop(state);
        self.settle(&left);
    }

    /// Nobody is left who could push: the writer ends after what is there.
    pub(super) fn abandon(&self) {
        self.state().abandoned = true;
        self.arrived.notify_one();
    }

    /// Counted jobs and their bytes, those in the writer's hands included.
    pub(super) fn held(&self) -> (u64, u64) {
        let state = self.state();
        (u64::from(state.held_jobs), state.held_bytes)
    }

    /// Whether a reader of anything has to wait for a barrier.
    pub(super) fn is_pending(&self) -> bool {
        self.state().pending > 0
    }

    /// Whether a reader of plans, approvals and keys has to wait for a barrier.
    pub(super) fn is_settling(&self) -> bool {
        self.state().settling > 0
    }
}

#[cfg(test)]
mod tests {
    use super::super::alerts::AlertRaised;
    use super::*;
    use crate::alerts::Severity;
    use crate::notify::Event;
    use toolkeep_core::id::AlertId;

    fn audit(bytes: usize) -> Job {
        Job::lazy(Work::Audit { kind: AuditKind::Tool, body: "x".repeat(bytes).into() })
    }

    fn write(bytes: usize) -> Job {
        let plan = PlanId::new(uuid::Uuid::from_u128(1));
        Job::lazy(Work::NotKnown { plan, reply: "x".repeat(bytes).into(), asks: false })
    }

    /// A call of a tenant, with a reply of so many bytes.
    fn call(tenant: &str, bytes: usize) -> Job {
        let principal = serde_json::json!({"tenant": tenant, "user": "u", "agent": "a"});
        Job::lazy(Work::Record(Box::new(CallRow {
            trace: None,
            suspended: false,
            call: CallId::new(uuid::Uuid::from_u128(1)),
            principal: serde_json::from_value(principal).expect("a principal"),
            origin: toolkeep_core::principal::Origin::record(),
            run: None,
            step: None,
            tool: "x".parse().expect("name"),
            component: None,
            manifest: None,
            tier: None,
            policy_set: None,
            mode: toolkeep_core::call::Mode::Commit,
            input: Arc::from(""),
            input_digest: Digest::of(b""),
            status: toolkeep_core::call::Status::Ok,
            outcome: toolkeep_core::call::Outcome::None,
            error_code: None,
            reply: "x".repeat(bytes).into(),
            usage: toolkeep_core::call::Usage::default(),
            recording: None,
            beside: None,
            started_ms: 1,
            ended_ms: 1,
            key: None,
            notes: None,
            charge: None,
            output: None,
        })))
    }

    #[test]
    fn r29_calls_of_one_tenant_leave_half_of_the_room_to_others() {
        let queue = Queue::new(8, 1_000, LedgerMeter::default());
        (0..4).for_each(|_| queue.push(call("loud", 1)).expect("taken"));
        assert!(matches!(queue.push(call("loud", 1)), Err(LedgerError::Overloaded)));
        (0..4).for_each(|_| queue.push(call("quiet", 1)).expect("room for others"));
        assert!(matches!(queue.push(call("third", 1)), Err(LedgerError::Overloaded)), "all of it is taken");
        let taken = queue.gather(Duration::ZERO, 5);
        queue.settle(&taken);
        (0..4).for_each(|_| queue.push(call("loud", 1)).expect("room again"));
        assert!(matches!(queue.push(call("loud", 1)), Err(LedgerError::Overloaded)));
        queue.settle(&queue.gather(Duration::ZERO, 8));
        assert!(queue.state().held_by.is_empty(), "nobody is remembered who holds nothing");
        queue.push(call("loud", 500)).expect("half of the bytes");
        assert!(matches!(queue.push(call("loud", 1)), Err(LedgerError::Overloaded)));
        queue.push(call("quiet", 500)).expect("the other half");
        queue.settle(&queue.gather(Duration::ZERO, 8));
        queue.push(call("loud", 900)).expect("what is larger is taken when it is alone");
    }

    #[test]
    fn r40_audit_entries_find_room_where_other_writes_find_none_and_are_bounded_too() {
        let queue = Queue::new(3, 1_000, LedgerMeter::default());
        (0..3).for_each(|_| queue.push(write(1)).expect("taken"));
        assert!(matches!(queue.push(write(1)), Err(LedgerError::Overloaded)));
        (0..3).for_each(|_| queue.push(audit(1)).expect("room for what has happened"));
        assert!(matches!(queue.push(audit(1)), Err(LedgerError::Overloaded)));
        let queue = Queue::new(30, 1_000, LedgerMeter::default());
        queue.push(write(1_000)).expect("all of it");
        queue.push(audit(1_000)).expect("as much again");
        assert!(matches!(queue.push(audit(1)), Err(LedgerError::Overloaded)));
    }

    #[test]
    fn r43_alerts_find_room_where_other_writes_find_none_and_are_bounded_too() {
        let alert = || {
            Job::lazy(Work::Alert(AlertWork::Raise(Box::new(AlertRaised {
                id: AlertId::new(uuid::Uuid::from_u128(1)),
                tenant: "acme".parse().expect("name"),
                event: Event::BoundaryBreach,
                subject: "a".into(),
                severity: Severity::Warning,
                threshold: 1,
                window_ms: 1,
                detail: "{}".into(),
                deliveries: Vec::new(),
            }))))
        };
        let queue = Queue::new(3, 1_000, LedgerMeter::default());
        (0..3).for_each(|_| queue.push(write(1)).expect("taken"));
        assert!(matches!(queue.push(write(1)), Err(LedgerError::Overloaded)));
        (0..3).for_each(|_| queue.push(alert()).expect("room for what somebody has to know"));
        assert!(matches!(queue.push(alert()), Err(LedgerError::Overloaded)));
    }

    #[test]
    fn the_queue_takes_n_writes_and_refuses_the_next_until_they_are_written() {
        let queue = Queue::new(5, 1_000, LedgerMeter::default());
        for _ in 0..5 {
            queue.push(write(1)).expect("taken");
        }
        assert!(matches!(queue.push(write(1)), Err(LedgerError::Overloaded)));
        queue.push(Job::lazy(Work::Barrier)).expect("what says how things are is not counted");
        let taken = queue.gather(Duration::ZERO, 4);
        assert_eq!(taken.len(), 4);
        assert!(matches!(queue.push(write(1)), Err(LedgerError::Overloaded)), "taken is not written");
        queue.settle(&taken);
        for _ in 0..4 {
            queue.push(write(1)).expect("room again");
        }
        assert!(matches!(queue.push(write(1)), Err(LedgerError::Overloaded)));
    }

    #[test]
    fn the_queue_is_bounded_in_bytes_but_takes_one_large_write() {
        let queue = Queue::new(5, 1_000, LedgerMeter::default());
        queue.push(write(2_000)).expect("alone");
        assert!(matches!(queue.push(write(1)), Err(LedgerError::Overloaded)));
        queue.settle(&queue.gather(Duration::ZERO, 5));
        queue.push(write(999)).expect("room");
        queue.push(write(1)).expect("exactly");
        assert!(matches!(queue.push(write(1)), Err(LedgerError::Overloaded)));
    }

    #[test]
    fn who_waits_is_let_go_when_the_writer_is_gone() {
        let queue = Queue::new(5, 1_000, LedgerMeter::default());
        let (job, mut waiting) = Job::urgent(Work::Sync, true);
        queue.push(job).expect("taken");
        queue.end(&LedgerError::Closed);
        assert!(matches!(waiting.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
        assert!(matches!(queue.push(audit(1)), Err(LedgerError::Closed)) && !queue.is_pending());
    }
}
