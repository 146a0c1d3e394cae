//! Plans that are not committed now: previews, and plans that wait for people.
//!
//! A held plan is on the disk before its caller hears of it, because a restart must lose nothing; a preview is not, because
//! losing one costs a call and nothing else. Either way its contents are kept and are safe from garbage collection until the
//! plan is settled.

use std::sync::Arc;

use serde_json::{Value, json};
use toolkeep_core::call::{ApprovalView, Outcome, Status};
use toolkeep_core::display::visible;
use toolkeep_core::effect::Effect;
use toolkeep_core::id::ApprovalId;
use toolkeep_core::plan::Plan;
use toolkeep_core::policy::Need;
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_core::render::{subject, warnings};

use crate::ambient::Ambient;
use crate::approve::{output_of, people, transaction_of};
use crate::blobs::Blobs;
use crate::ledger::{ApprovalRow, DiscardRefused, Durability, Ledger, Proposal, StoredPlan};
use crate::notify::{Event, Notify};
use crate::record::{Answer, Ending, Entry};
use crate::seal::Planned;

/// Effects that a notification names; the rest is counted, and the digest names all of them.
const EFFECTS_TOLD: usize = 50;

/// Where plans are kept.
#[derive(Debug, Clone)]
pub struct PlanStore {
    /// Rows.
    pub ledger: Ledger,
    /// Contents.
    pub blobs: Blobs,
    /// Time and ids.
    pub ambient: Ambient,
    /// How long a held plan waits, in milliseconds.
    pub approval_ttl_ms: u64,
    /// Whether one person may agree to what otherwise takes two, with a typed confirmation.
    pub solo: bool,
    /// Tells people that a plan waits for them.
    pub notify: Notify,
}

/// Keep a plan until its owner commits it.
///
/// # Errors
/// The ledger or the blob store fails.
pub async fn preview(store: &PlanStore, planned: Planned, entry: Entry) -> Result<Answer, Refusal> {
    let ending = Ending::output(planned.output().clone()).plan(planned.plan());
    keep(store, planned, entry, Kept { outcome: Outcome::Previewed, ending, approval: None }).await
}

/// Keep a plan until people agree.
///
/// # Errors
/// The ledger or the blob store fails.
pub async fn hold(store: &PlanStore, planned: Planned, need: Need, entry: Entry) -> Result<Answer, Refusal> {
    let (approval, view) = request(store, &need, &planned);
    let (plan, asked) = (Arc::clone(planned.plan()), view.clone());
    let mut ending = Ending::output(planned.output().clone()).plan(planned.plan());
    ending.error = Some(Refusal::new(Code::ApprovalRequired, format!("held: {}", need.text())));
    ending.approval = Some(view);
    let kept = Kept { outcome: Outcome::Pending, ending, approval: Some(approval) };
    let answer = keep(store, planned, entry, kept).await?;
    ask(store, &plan, &asked, &need);
    Ok(answer)
}

/// Tell people that a plan waits for them.
fn ask(store: &PlanStore, plan: &Plan, approval: &ApprovalView, need: &Need) {
    let body = plan.body();
    // Subjects are spelled out, so that no name of a file or receiver shows another one. Deletions and whatever else destroys
    // come first, as everywhere; what does not fit is counted, never left out silently.
    let mut ordered: Vec<&Effect> = body.effects.iter().collect();
    ordered.sort_by_key(|effect| effect.destroyed().is_none() && matches!(effect.kind(), "file.write" | "dir.create"));
    let effects: Vec<Value> = ordered
        .into_iter()
        .take(EFFECTS_TOLD)
        .map(|effect| json!({"kind": effect.kind(), "subject": subject(effect), "warnings": warnings(effect)}))
        .collect();
    let facts = json!({
        "approval": approval.id, "approvers": approval.approvers, "expires_at_ms": approval.expires_at_ms,
        "call_id": plan.binding().call, "plan": plan.id(), "plan_digest": plan.digest(), "tool": body.tool,
        "requester": body.principal, "reason": visible(&need.text()), "totals": plan.totals(), "taint": body.taint,
        "effects": effects, "more_effects": body.effects.len().saturating_sub(EFFECTS_TOLD),
    });
    store.notify.event(Event::ApprovalRequested, &body.principal.tenant, facts);
}

/// Hold a plan that was only previewed so far: its owner wants it committed, and policy wants people to agree.
///
/// # Errors
/// The ledger fails, or the plan is not open any more.
pub async fn hold_stored(store: &PlanStore, stored: StoredPlan, need: &Need) -> Result<Answer, Refusal> {
    let requester = stored.plan.body().principal.user.clone();
    let (approval, view) = approval_request(store, need, requester, stored.plan.binding().expires_at_ms);
    let (output, transaction) = (output_of(&stored.call.row), transaction_of(&stored.call.row));
    let mut ending = Ending { output, transaction, ..Ending::default() }.plan(&stored.plan);
    ending.error = Some(Refusal::new(Code::ApprovalRequired, format!("held: {}", need.text())));
    ending.approval = Some(view.clone());
    let row =
        Entry::resume(stored.call.row.clone()).close(Status::Held, Outcome::Pending, ending, store.ambient.now_ms());
    let answer = Answer::of_row(&row);
    store.ledger.hold(stored.plan.id(), approval, Arc::clone(&row.reply)).await.map_err(|error| match error {
        DiscardRefused::Ledger(error) => error.refusal(),
        other => Refusal::new(Code::StalePlan, other.to_string()),
    })?;
    ask(store, &stored.plan, &view, need);
    Ok(answer)
}

/// The request for consent that a need makes.
fn request(store: &PlanStore, need: &Need, planned: &Planned) -> (ApprovalRow, ApprovalView) {
    let expires = planned.plan().binding().expires_at_ms;
    approval_request(store, need, planned.ticket().grant().call().caller().principal().user.clone(), expires)
}

/// The request for consent to a plan of `requester` that expires at `plan_expires_ms`.
#[must_use]
pub fn approval_request(
    store: &PlanStore,
    need: &Need,
    requester: toolkeep_core::id::UserName,
    plan_expires_ms: u64,
) -> (ApprovalRow, ApprovalView) {
    let id = ApprovalId::new(store.ambient.uuid_v7());
    let ttl_ms = need.ttl_ms.map_or(store.approval_ttl_ms, |ttl| ttl.min(store.approval_ttl_ms));
    let expires_at_ms = store.ambient.now_ms().saturating_add(ttl_ms).min(plan_expires_ms);
    let approvers = people(need, store.solo);
    let row = ApprovalRow {
        id,
        approvers,
        // Two people means two besides the one who asked.
        barred: (approvers > 1).then_some(requester),
        reason: need.text().into(),
        expires_at_ms,
    };
    (row, ApprovalView { id, approvers, expires_at_ms })
}

struct Kept {
    outcome: Outcome,
    ending: Ending,
    approval: Option<ApprovalRow>,
}

async fn keep(store: &PlanStore, planned: Planned, entry: Entry, kept: Kept) -> Result<Answer, Refusal> {
    let (ticket, _, plan, witnesses, contents) = planned.into_parts();
    let blobs = store.blobs.keep(contents).await.map_err(|error| {
        tracing::error!(%error, "the contents of a plan could not be kept");
        Refusal::new(Code::Internal, "the contents of the plan could not be kept")
    })?;
    let witnesses = serde_json::to_string(&witnesses)
        .map_err(|_| Refusal::new(Code::Internal, "the plan's witnesses could not be written"))?;
    let (status, durability) = match kept.outcome {
        Outcome::Pending => (Status::Held, Durability::Durable),
        _ => (Status::Ok, Durability::Lazy),
    };
    let call = entry.close(status, kept.outcome, kept.ending, store.ambient.now_ms());
    let answer = Answer::of_row(&call);
    let proposal = Proposal {
        call,
        plan: Arc::clone(&plan),
        witnesses: witnesses.into(),
        blobs,
        approval: kept.approval,
        transaction: None,
    };
    store.ledger.propose(proposal, durability).await.map_err(|e| e.refusal())?;
    drop(ticket);
    Ok(answer)
}
