//! One commit, from an [`Approved`] plan to its recorded outcome.
//!
//! It runs on a thread that may block, from the moment it holds its paths to the moment its outcome is enqueued: file
//! calls, flushes and waiting for the intent are one sequence that nothing cancels. The caller is answered in the middle
//! of it, when the plan is applied: the intent is a redo log then, and the rest ([`Standing`]) only ends the duty to
//! recover. Until that is done the paths stay held, so that no later commit of them has its intent before this outcome,
//! and readers of the ledger wait ([`OutcomePromise`]).

use std::collections::BTreeMap;
use std::future::Future as _;
use std::io::Read;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use tokio::sync::oneshot;
use toolkeep_core::call::{Outcome, Reply, Status};
use toolkeep_core::digest::Digest;
use toolkeep_core::effect::{Effect, FileState};
use toolkeep_core::id::{CallId, ReceiptId};
use toolkeep_core::plan::Plan;
use toolkeep_core::receipt::{Receipt, Statement};
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_core::send::Goal;
use toolkeep_sandbox::stage::Content;

use super::attempts::Note;
use super::files::{
    self, Applied, ApplyError, Attempt, CommitError, Former, Prepared, Ready, TransactionId, Undo, Unflushed, Witnessed,
};
use super::outside::{Carried, Metered, Outside, Passed, Stop};
use super::{Committer, halted_refusal, remaining, sending};
use crate::approve::{Approved, ApprovedParts, Contents};
use crate::kill::Deed;
use crate::ledger::{
    BlobSet, CallRow, Discard, Durability, FileBlob, InlineBlob, Intent, IntentId, IntentRefused, LedgerError,
    OutcomePromise, OutcomeRow, PlanState, Proposal, Scope, SendRow, Settled,
};
use crate::quota;
use crate::record::{Answer, Ending, status_of};

/// Permission bits that new files and directories do not get. A reversal restores exact modes.
const UMASK: u32 = 0o022;
const NS_PER_MS: u64 = 1_000_000;

/// Commit an approved plan: atomically, once, on record. Goes on after it has answered, and when nobody waits any more.
pub async fn commit(committer: &Arc<Committer>, approved: Approved) -> Answer {
    let call = approved.call();
    let parts = approved.into_parts();
    let body = parts.plan.body();
    let paths = committer.locks.lock(&body.effects, &body.read_set, &body.keys_read).await;
    let committer = Arc::clone(committer);
    let (tell, told) = oneshot::channel();
    let _goes_on = tokio::task::spawn_blocking(move || {
        let _paths = paths;
        let (answer, standing) = commit_blocking(&committer, parts);
        let _nobody_waits_any_more = tell.send(answer);
        if let Some(standing) = standing {
            standing.confirm(&committer);
        }
    });
    told.await.unwrap_or_else(|_| Answer::of(&panicked(call)))
}

/// What the caller is told, and what is left to do for a commit that stands.
type Told = (Answer, Option<Standing>);

fn commit_blocking(committer: &Committer, mut parts: ApprovedParts) -> Told {
    let _slot = parts.ticket.take();
    match prepare(committer, &parts) {
        Ok((made, unflushed)) => intend(committer, parts, made, unflushed),
        Err(refusal) => (abandon(committer, parts, refusal), None),
    }
}

fn panicked(call: CallId) -> Reply {
    let message = "BUG: a commit panicked; the next start decides what happened";
    let error = Some(Refusal::new(Code::UnknownOutcome, message));
    Reply { error, ..Reply::of(call, Status::Unknown, Outcome::Unknown) }
}

/// What was made ready, what the undo store holds for it, and what recovery needs of it.
struct Made {
    prepared: Prepared,
    undo: BlobSet,
    logged: BlobSet,
    sends: Vec<SendRow>,
    outside: Outside,
    note: Note,
    deed: Deed,
}

fn prepare(committer: &Committer, parts: &ApprovedParts) -> Result<(Made, Unflushed), Refusal> {
    if let Some(why) = committer.poisoned.get() {
        return Err(Refusal::new(Code::Halted, format!("nothing is committed until the daemon is restarted: {why}")));
    }
    let deed = committer.deed(&parts.plan, parts.undoes).map_err(|error| error.refusal())?;
    committer.kill.check_deed(&deed)?;
    let stored;
    let contents = match &parts.contents {
        Contents::Staged(contents) => contents,
        Contents::Stored => {
            stored = committer.stored_contents(&parts.plan)?;
            &stored
        }
    };
    let plan = &parts.plan;
    let since_ms = parts.entry.row().started_ms;
    let since_ns = i64::try_from(since_ms.saturating_mul(NS_PER_MS)).unwrap_or(i64::MAX);
    let witnessed = Witnessed { entries: &parts.witnesses, since_ns };
    files::check(plan.body(), witnessed, &committer.roots).map_err(|e| committer.commit_refusal(&e))?;
    let carried = Carried::of(committer, parts, contents)?;
    let destroyed = plan.body().effects.iter().filter_map(Effect::destroyed).map(|before| before.size);
    let all_fit = destroyed.fold(0, u64::saturating_add) <= committer.undo_bytes;
    let fits = |_: &FileState| all_fit;
    let mut spilled = Vec::new();
    let mut spill = |state: &FileState, source: &mut dyn Read| {
        committer.blobs.put(&state.sha256, state.size, source)?;
        spilled.push(FileBlob { digest: state.sha256, size: state.size });
        Ok(())
    };
    let attempt = Attempt {
        id: TransactionId::new(committer.ambient.random()),
        umask: if parts.undoes.is_some() { 0 } else { UMASK },
        former: parts.undoes.map_or_else(|| Ok(Former::default()), |undone| committer.former(undone))?,
    };
    let undo = Undo { fits: &fits, spill: &mut spill };
    let note = committer.attempts.note(&attempt.id, files::nests(&plan.body().effects)).map_err(|error| {
        tracing::error!(%error, "the note of an attempt could not be written");
        Refusal::new(Code::Internal, "the daemon's state folder cannot be written; nothing was changed")
    })?;
    let find = |digest: &Digest| contents.get(digest).cloned();
    let ready = files::prepare(&plan.body().effects, &committer.roots, &attempt, &find, undo);
    let Ready { prepared, undo, logged, unflushed } = match ready {
        Ok(ready) => ready,
        Err(error) => {
            // Where the system failed, a temporary may be left: the note stays and the next start sweeps.
            if !matches!(error, CommitError::Poisoned(_) | CommitError::System { .. } | CommitError::Undo(_)) {
                committer.attempts.remove(&note);
            }
            return Err(committer.commit_refusal(&error));
        }
    };
    let inline = undo.into_iter().map(|kept| InlineBlob { digest: kept.sha256, content: kept.bytes.into() }).collect();
    let mut undo = BlobSet { inline, files: spilled };
    let Carried { sends, outside, former, logged: beyond } = carried;
    undo.inline.extend(former.inline);
    undo.files.extend(former.files);
    // A stored plan has its contents in the store, pinned until its outcome.
    let mut logged: Vec<InlineBlob> = match &parts.contents {
        Contents::Staged(contents) => logged.iter().filter_map(|digest| inline_blob(*digest, contents)).collect(),
        Contents::Stored => Vec::new(),
    };
    logged.extend(beyond.inline);
    let logged = BlobSet { inline: logged, files: beyond.files };
    Ok((Made { prepared, undo, logged, sends, outside, note, deed }, unflushed))
}

/// A content that travels in the intent transaction. It was read a moment ago, so it can be read now; without it the
/// proposal would lack a row, and recovery would use the file that was flushed.
fn inline_blob(digest: Digest, contents: &BTreeMap<Digest, Content>) -> Option<InlineBlob> {
    let content = contents.get(&digest)?;
    if let Content::Memory(bytes) = content {
        return Some(InlineBlob { digest, content: Arc::clone(bytes) });
    }
    let mut bytes = Vec::new();
    content.reader().read_to_end(&mut bytes).ok()?;
    Some(InlineBlob { digest, content: bytes.into() })
}

/// Transaction 1, and beside it the flush of what it carries the contents of: from here on the world may change.
fn intend(committer: &Committer, parts: ApprovedParts, made: Made, unflushed: Unflushed) -> Told {
    let now_ms = committer.ambient.now_ms();
    let (intent, done) = match intent(committer, &parts, &made, now_ms) {
        Ok(intent) => intent,
        Err(refusal) => return (forget(committer, parts, &made, refusal), None),
    };
    let mut asked = pin!(committer.ledger.intent(intent));
    let first = {
        // From here until the intent is handed over nothing is stopped; what is stopped before has its answer here.
        let pass = committer.kill.pass();
        match pass.allows(&made.deed) {
            // The first look hands the intent to the ledger's writer, which goes on by itself.
            Ok(()) => asked.as_mut().poll(&mut Context::from_waker(Waker::noop())),
            Err(killed) => {
                drop(pass);
                return (forget(committer, parts, &made, killed), None);
            }
        }
    };
    let flushed = unflushed.flush();
    let durable = match first {
        Poll::Ready(durable) => durable,
        Poll::Pending => committer.runtime.block_on(asked),
    };
    match (durable, flushed) {
        (Ok(intent), Ok(())) => {
            committer.attempts.remove(&made.note);
            if made.sends.is_empty() {
                apply(committer, parts, made, intent, done)
            } else {
                send(committer, parts, made, intent, done)
            }
        }
        (Ok(intent), Err(error)) => (unflushable(committer, parts, &made, intent, &error), None),
        (Err(IntentRefused::Ledger(error @ LedgerError::Poisoned(_))), _) => {
            // The intent may be on the disk: only the next start can tell, so what was prepared stays for it.
            committer.poison(&error.to_string());
            (unknown(committer, parts, now_ms), None)
        }
        (Err(refused), flushed) => {
            if let Err(CommitError::Poisoned(failed)) = flushed {
                committer.poison(&failed.to_string());
            }
            (forget(committer, parts, &made, refused.refusal()), None)
        }
    }
}

/// The intent is durable and the new files are not. Where the disk is full nothing has happened, and that is recorded;
/// otherwise the disk cannot be trusted, and recovery writes the files anew from the log.
fn unflushable(
    committer: &Committer,
    parts: ApprovedParts,
    made: &Made,
    intent: IntentId,
    error: &CommitError,
) -> Answer {
    let now_ms = committer.ambient.now_ms();
    let refusal = committer.commit_refusal(error);
    if matches!(error, CommitError::Poisoned(_)) {
        return unknown(committer, parts, now_ms);
    }
    if let Err(error) = files::discard(&made.prepared, &committer.roots) {
        committer.poison(&error.to_string());
        return unknown(committer, parts, now_ms);
    }
    committer.attempts.remove(&made.note);
    let row = close(parts, Outcome::Discarded, refusal, now_ms);
    committer.record(intent, Settled::RolledBack, row, Extra::default())
}

/// The intent, and the row of the call when everything is applied.
fn intent(committer: &Committer, parts: &ApprovedParts, made: &Made, now_ms: u64) -> Result<(Intent, Done), Refusal> {
    let receipt = receipt(committer, parts, now_ms)?;
    let steps = serde_json::to_string(&made.prepared)
        .map_err(|e| Refusal::new(Code::Internal, format!("the steps cannot be written: {e}")))?;
    let mut ending = parts.ending.clone();
    ending.receipt = Some(receipt.clone());
    let done = parts.entry.clone().close(Status::Ok, Outcome::Committed, ending, now_ms);
    let intent = Intent {
        plan: parts.plan.id(),
        proposal: proposal(parts, &made.logged, now_ms)?,
        approval: parts.lease,
        standing: parts.standing,
        undoes: parts.undoes,
        steps: steps.into(),
        sends: made.sends.clone(),
        quotas: quota::charges(&parts.plan, &committer.quotas, &parts.quotas),
        undo_blobs: made.undo.clone(),
        reply_when_done: Arc::clone(&done.reply),
        receipt: Some(receipt),
    };
    // Without requests the receipt of the intent is the last word.
    let receipt = if made.sends.is_empty() { None } else { intent.receipt.clone() };
    Ok((intent, Done { row: done, receipt, sent: Vec::new() }))
}

/// What the outcome of a commit brings besides.
#[derive(Debug, Default)]
struct Extra {
    /// The receipt, where it says more than that of the intent.
    receipt: Option<Receipt>,
    outside: Outside,
}

/// How a commit ends when everything is applied.
struct Done {
    row: CallRow,
    /// The receipt, where it says more than that of the intent.
    receipt: Option<Receipt>,
    /// Requests that were sent and stay, if the rest can be neither applied nor taken back.
    sent: Vec<String>,
}

/// The requests, then the world.
fn send(committer: &Committer, mut parts: ApprovedParts, made: Made, intent: IntentId, mut done: Done) -> Told {
    let now_ms = committer.ambient.now_ms();
    let (passed, sends) = match committer.send_all(&parts.plan, &made.deed, Goal::Apply) {
        Ok(passed) => passed,
        Err(error) => {
            committer.poison(&error.to_string());
            return (unknown(committer, parts, now_ms), None);
        }
    };
    let Metered { requests, cost } = Metered::of(&sends);
    parts.entry.sent(requests, cost);
    match passed {
        Passed::Apply => {
            done.receipt = done.receipt.and_then(|receipt| committer.with_responses(&receipt, &sends).ok());
            done.sent = sending::remnants(&sends);
            let mut ending = parts.ending.clone();
            ending.receipt.clone_from(&done.receipt);
            done.row = parts.entry.clone().close(Status::Ok, Outcome::Committed, ending, now_ms);
            apply(committer, parts, made, intent, done)
        }
        Passed::Stopped(stop) => (stopped(committer, parts, &made, intent, stop), None),
    }
}

/// The requests say that the plan is not applied: throw away what was prepared, or keep it for the operator.
fn stopped(committer: &Committer, parts: ApprovedParts, made: &Made, intent: IntentId, stop: Stop) -> Answer {
    let now_ms = committer.ambient.now_ms();
    let mut ending = Ending::refused(stop.refusal);
    ending.plan = parts.ending.plan;
    let row = parts.entry.close(stop.status, stop.outcome, ending, now_ms);
    let Some(settled) = stop.settled else {
        let answer = Answer::of_row(&row);
        if let Err(error) = committer.runtime.block_on(committer.ledger.not_known(intent.plan(), row.reply)) {
            committer.poison(&error.to_string());
        }
        return answer;
    };
    if let Err(error) = files::discard(&made.prepared, &committer.roots) {
        tracing::warn!(%error, "a temporary could not be removed; it is removed at the next start");
    }
    if let Settled::Halted(list) = &settled {
        committer.halted.fetch_add(1, Ordering::Relaxed);
        tracing::error!(call = %row.call, ?list, "a commit is halted: requests that were sent stay");
    }
    committer.record(intent, settled, row, Extra::default())
}

/// The world, then transaction 2: at once if the plan does not stand, after the answer if it does.
fn apply(committer: &Committer, parts: ApprovedParts, made: Made, intent: IntentId, done: Done) -> Told {
    let applied = files::apply(&made.prepared, &committer.roots);
    let now_ms = committer.ambient.now_ms();
    let (settled, row) = match applied {
        Ok(applied) => {
            for leftover in &applied.leftovers {
                tracing::warn!(call = %parts.entry.call(), "a temporary could not be removed: {leftover}");
            }
            let promise = committer.ledger.promise(done.row.call);
            let answer = Answer::of_row(&done.row);
            let Done { row, receipt, sent: _ } = done;
            let extra = Extra { receipt, outside: made.outside };
            return (answer, Some(Standing { applied, prepared: made.prepared, intent, row, extra, promise }));
        }
        Err(ApplyError::RolledBack(cause)) => {
            if !made.sends.is_empty() {
                match committer.send_all(&parts.plan, &made.deed, Goal::TakeBack) {
                    Ok((Passed::Stopped(stop), _)) => return (stopped(committer, parts, &made, intent, stop), None),
                    Ok((Passed::Apply, _)) => {}
                    Err(error) => {
                        // What was sent may stand, or be half taken back: nobody says that it was.
                        committer.poison(&error.to_string());
                        return (unknown(committer, parts, now_ms), None);
                    }
                }
            }
            let refusal = Refusal::new(Code::StalePlan, format!("{cause}; what was applied was taken back"));
            (Settled::RolledBack, close(parts, Outcome::Discarded, refusal, now_ms))
        }
        Err(ApplyError::Halted { remnants, .. }) => {
            committer.halted.fetch_add(1, Ordering::Relaxed);
            let list = remaining(&remnants, done.sent);
            tracing::error!(call = %parts.entry.call(), ?list, "a commit is halted: look at what it left");
            let refusal = halted_refusal(&list);
            (Settled::Halted(list), close(parts, Outcome::Halted, refusal, now_ms))
        }
        Err(ApplyError::Failed(failed)) => {
            committer.poison(&failed.to_string());
            return (unknown(committer, parts, now_ms), None);
        }
    };
    (committer.record(intent, settled, row, Extra::default()), None)
}

/// A commit that stands and was told, and whose names may not be on the disk yet.
struct Standing {
    applied: Applied,
    prepared: Prepared,
    intent: IntentId,
    row: CallRow,
    extra: Extra,
    promise: OutcomePromise,
}

impl Standing {
    /// Flush the directories, and only then record the outcome: it ends the duty to recover.
    fn confirm(self, committer: &Committer) {
        let call = self.row.call;
        match files::confirm(&self.applied, &self.prepared, &committer.roots) {
            Ok(_directories) => {
                let _told_already = committer.record(self.intent, Settled::Committed, self.row, self.extra);
            }
            Err(failed) => {
                committer.poison(&failed.to_string());
                committer.ledger.forget_call(call);
            }
        }
        drop(self.promise);
    }
}

fn close(parts: ApprovedParts, outcome: Outcome, refusal: Refusal, now_ms: u64) -> CallRow {
    let mut ending = Ending::refused(refusal);
    ending.plan = parts.ending.plan;
    parts.entry.close(Status::Failed, outcome, ending, now_ms)
}

/// What a caller is told when only the next start can say what happened.
fn unknown(committer: &Committer, parts: ApprovedParts, now_ms: u64) -> Answer {
    committer.ledger.forget_call(parts.entry.call());
    let message = "the disk failed while the plan was applied; the next start decides";
    let mut ending = Ending::refused(Refusal::new(Code::UnknownOutcome, message));
    ending.plan = parts.ending.plan;
    Answer::of_row(&parts.entry.close(Status::Unknown, Outcome::Unknown, ending, now_ms))
}

/// Drop what was prepared, then end as if nothing had been.
fn forget(committer: &Committer, parts: ApprovedParts, made: &Made, refusal: Refusal) -> Answer {
    match files::discard(&made.prepared, &committer.roots) {
        Ok(()) => committer.attempts.remove(&made.note),
        Err(error) => tracing::warn!(%error, "a temporary could not be removed; it is removed at the next start"),
    }
    abandon(committer, parts, refusal)
}

/// End a commit that changed nothing.
fn abandon(committer: &Committer, parts: ApprovedParts, refusal: Refusal) -> Answer {
    let now_ms = committer.ambient.now_ms();
    if matches!(parts.contents, Contents::Staged(_)) {
        parts.entry.intend(false);
        let outcome = if status_of(refusal.code) == Status::Held { Outcome::Pending } else { Outcome::Discarded };
        let row = parts.entry.refuse(refusal, outcome, now_ms);
        let answer = Answer::of_row(&row);
        if let Err(error) = committer.ledger.record_call(row) {
            tracing::error!(%error, "an abandoned commit was not recorded");
        }
        return answer;
    }
    let present = committer.runtime.block_on(committer.ledger.plan(&Scope::Operator, parts.plan.id()));
    if let Ok(Some(stored)) = present
        && matches!(stored.state, PlanState::Committed | PlanState::Committing)
    {
        // Somebody else committed it meanwhile: theirs is the reply.
        return Answer::stored(stored.call.row.reply, true);
    }
    if refusal.code == Code::StalePlan {
        let why = Discard::Refused(Box::new(refusal.clone()));
        let discarded = committer.ledger.discard(&Scope::Operator, parts.plan.id(), why);
        if let Ok(reply) = committer.runtime.block_on(discarded) {
            return Answer::stored(reply, false);
        }
    }
    let outcome = if status_of(refusal.code) == Status::Held { Outcome::Pending } else { Outcome::None };
    Answer::of_row(&parts.entry.refuse(refusal, outcome, now_ms))
}

fn receipt(committer: &Committer, parts: &ApprovedParts, now_ms: u64) -> Result<Receipt, Refusal> {
    let body = parts.plan.body();
    let statement = Statement {
        format: 1,
        receipt: ReceiptId::new(committer.ambient.uuid_v7()),
        call: parts.entry.call(),
        run: parts.plan.binding().run,
        principal: body.principal.clone(),
        tool: body.tool.clone(),
        component: body.component,
        plan: parts.plan.id(),
        plan_digest: parts.plan.digest(),
        totals: parts.plan.totals(),
        committed_at_ms: now_ms,
        responses: Vec::new(),
    };
    Receipt::sign(statement, &committer.key).map_err(|e| Refusal::new(Code::Internal, e.to_string()))
}

/// The rows of a plan that has none yet.
fn proposal(parts: &ApprovedParts, logged: &BlobSet, now_ms: u64) -> Result<Option<Box<Proposal>>, Refusal> {
    if matches!(parts.contents, Contents::Stored) {
        return Ok(None);
    }
    let witnesses = serde_json::to_string(&parts.witnesses)
        .map_err(|_| Refusal::new(Code::Internal, "the plan's witnesses could not be written"))?;
    parts.entry.intend(true);
    let call = row_if_stopped_now(parts, now_ms);
    Ok(Some(Box::new(Proposal {
        call,
        plan: Arc::clone(&parts.plan),
        witnesses: witnesses.into(),
        // Only until the outcome: what a plan wrote is in the workspace then.
        blobs: logged.clone(),
        approval: None,
        transaction: None,
    })))
}

/// What the caller would be told if the daemon stopped now.
fn row_if_stopped_now(parts: &ApprovedParts, now_ms: u64) -> CallRow {
    let refusal = Refusal::new(Code::UnknownOutcome, "the daemon stopped while the plan was applied");
    let mut ending = Ending::refused(refusal);
    ending.plan.clone_from(&parts.ending.plan);
    parts.entry.clone().close(Status::Unknown, Outcome::Unknown, ending, now_ms)
}

impl Committer {
    /// Transaction 2.
    fn record(&self, intent: IntentId, settled: Settled, row: CallRow, extra: Extra) -> Answer {
        let answer = Answer::of_row(&row);
        let durability = if matches!(settled, Settled::Committed) { Durability::Lazy } else { Durability::Durable };
        let outcome = OutcomeRow {
            intent,
            settled,
            reply: row.reply,
            error_code: row.error_code,
            receipt: extra.receipt,
            ended_ms: row.ended_ms,
            deliveries: extra.outside.deliveries,
            keys: extra.outside.keys,
        };
        if let Err(error) = self.runtime.block_on(self.ledger.outcome(outcome, durability)) {
            tracing::error!(%error, "an outcome was not recorded; the next start will find the intent");
            self.poison(&error.to_string());
        }
        answer
    }

    /// What the undo of a call gives back besides contents.
    fn former(&self, undone: CallId) -> Result<Former, Refusal> {
        let info = self.runtime.block_on(self.ledger.undo_of(&Scope::Operator, undone)).map_err(|e| e.refusal())?;
        let Some(info) = info else { return Ok(Former::default()) };
        serde_json::from_str(&info.steps)
            .map(|steps| Former::of(&steps))
            .map_err(|e| Refusal::new(Code::Internal, format!("the steps of the call cannot be read: {e}")))
    }

    /// Commit nothing more until the next start.
    pub(super) fn poison(&self, why: &str) {
        tracing::error!(why, "commits stop: the disk cannot be trusted; restart the daemon after checking it");
        let _first = self.poisoned.set(why.to_owned());
    }

    pub(super) fn commit_refusal(&self, error: &CommitError) -> Refusal {
        match error {
            CommitError::Stale(stale) => Refusal::new(Code::StalePlan, stale.to_string()),
            CommitError::Poisoned(failed) => {
                self.poison(&failed.to_string());
                Refusal::new(Code::Halted, "the disk did not confirm a write; nothing was changed")
            }
            CommitError::Workspace(_)
            | CommitError::Order(_)
            | CommitError::Collision { .. }
            | CommitError::Content(_)
            | CommitError::Format(_) => Refusal::new(Code::StalePlan, error.to_string()),
            CommitError::Undo(_) | CommitError::System { .. } => {
                tracing::error!(%error, "a commit could not be prepared");
                Refusal::new(Code::Internal, error.to_string()).hint("nothing was changed; try again")
            }
        }
    }

    /// What a stored plan writes, from the blob store.
    fn stored_contents(&self, plan: &Plan) -> Result<BTreeMap<Digest, Content>, Refusal> {
        let mut contents = BTreeMap::new();
        for effect in &plan.body().effects {
            let Some(after) = effect.contents().1 else { continue };
            if contents.contains_key(&after.sha256) {
                continue;
            }
            match self.blobs.content_blocking(&after.sha256) {
                Ok(Some(content)) => {
                    contents.insert(after.sha256, content);
                }
                Ok(None) => return Err(Refusal::new(Code::StalePlan, "a content of the plan is not kept any more")),
                Err(error) => {
                    tracing::error!(%error, "a content of a plan cannot be read");
                    return Err(Refusal::new(Code::Internal, "a content of the plan cannot be read"));
                }
            }
        }
        Ok(contents)
    }
}
