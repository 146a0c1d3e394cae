//! Stage 7, approve: from a decision to [`Approved`], the right to commit one plan once.
//!
//! There are four ways to it, and no fifth: policy allowed the plan ([`automatic`]), its owner commits a preview or a
//! transaction that policy allows, a standing approval covers it and is used up by one, or people agreed to exactly this seal.
//! What is stored comes as a [`Consent`] from the ledger and is verified again ([`rehydrate`]): that the plan is the one that was sealed, that it is open and young enough, and that tool,
//! manifest and policy (for a transaction those of every step) are still those it was made with. Plans that are not committed now are kept here ([`preview`],
//! [`hold`]).

pub mod keep;
pub mod review;

use std::collections::BTreeMap;
use std::sync::Arc;

use toolkeep_core::call::TransactionView;
use toolkeep_core::digest::Digest;
use toolkeep_core::effect::{Delivery, Effect};
use toolkeep_core::grant::HttpGrant;
use toolkeep_core::id::{CallId, TenantName};
use toolkeep_core::plan::Plan;
use toolkeep_core::policy::{Need, Verdict, plan_tier};
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_sandbox::stage::{Content, Witness};

use crate::admit::Ticket;
use crate::catalog::{Catalog, Tool};
use crate::decide::Allowed;
use crate::ledger::approval::ApprovalState;
use crate::ledger::{ApprovalUse, CallRow, PlanState, StandingUse, StoredPlan, Via};
use crate::policy::UNDO;
use crate::quota::Quota;
use crate::record::{Ending, Entry};
use crate::transaction::TRANSACTION_TOOL;

pub use keep::{PlanStore, hold, hold_stored, preview};
pub use review::{InForce, Review, unchanged};

/// What calls that reverse another call name as their tool. No manifest can give this name.
pub const UNDO_TOOL: &str = UNDO;

/// Proof: this plan may be committed, once.
#[derive(Debug)]
pub struct Approved {
    plan: Arc<Plan>,
    witnesses: Vec<Witness>,
    contents: Contents,
    entry: Entry,
    ending: Ending,
    lease: Option<ApprovalUse>,
    standing: Option<StandingUse>,
    undoes: Option<CallId>,
    grants: Vec<HttpGrant>,
    quotas: Vec<Quota>,
    ticket: Option<Box<Ticket>>,
}

/// The parts of an approved plan, for the commit.
#[derive(Debug)]
pub struct ApprovedParts {
    /// The plan.
    pub plan: Arc<Plan>,
    /// Stat tuples of what was read.
    pub witnesses: Vec<Witness>,
    /// Where the contents are. Staged contents mean that the plan has no row yet.
    pub contents: Contents,
    /// The call's entry, to be closed by the commit.
    pub entry: Entry,
    /// What the reply says besides.
    pub ending: Ending,
    /// The approval that the commit uses up.
    pub lease: Option<ApprovalUse>,
    /// The standing approval that the commit uses once.
    pub standing: Option<StandingUse>,
    /// The call that it reverses.
    pub undoes: Option<CallId>,
    /// The grants of its requests.
    pub grants: Vec<HttpGrant>,
    /// The quotas of its tools' manifests.
    pub quotas: Vec<Quota>,
    /// The slot, held until the commit is done.
    pub ticket: Option<Box<Ticket>>,
}

impl Approved {
    /// The call.
    #[must_use]
    pub const fn call(&self) -> CallId {
        self.entry.call()
    }

    /// For whom it is committed.
    #[must_use]
    pub fn tenant(&self) -> &TenantName {
        &self.plan.body().principal.tenant
    }

    /// Whether the commit uses up one use of a standing approval.
    #[must_use]
    pub const fn uses_standing(&self) -> bool {
        self.standing.is_some()
    }

    /// Take apart: only the commit does.
    #[must_use]
    pub fn into_parts(self) -> ApprovedParts {
        let Self { plan, witnesses, contents, entry, ending, lease, standing, undoes, grants, quotas, ticket } = self;
        ApprovedParts { plan, witnesses, contents, entry, ending, lease, standing, undoes, grants, quotas, ticket }
    }
}

/// Where the contents are that a plan writes.
#[derive(Debug)]
pub enum Contents {
    /// Still with the execution that staged them.
    Staged(BTreeMap<Digest, Content>),
    /// In the blob store.
    Stored,
}

/// Policy allowed the plan.
#[must_use]
pub fn automatic(allowed: Allowed, entry: Entry) -> Approved {
    let (approved, ticket) = part(allowed, entry);
    Approved { ticket: Some(ticket), ..approved }
}

/// The grants for requests of the tool that holds a ticket.
fn grants_of(ticket: &Ticket) -> Vec<HttpGrant> {
    ticket.grant().call().tool().manifest.http.to_vec()
}

/// The quotas of a tool's manifest.
fn quotas_of(tool: &Tool) -> impl Iterator<Item = Quota> + use<'_> {
    Quota::all(tool.manifest.name.as_str(), &tool.manifest.quotas)
}

/// Policy allowed a part of an execution. The call goes on with its ticket when the part is settled.
#[must_use]
pub fn part(allowed: Allowed, entry: Entry) -> (Approved, Box<Ticket>) {
    let (planned, standing) = allowed.into_parts();
    let (ticket, output, plan, witnesses, contents) = planned.into_parts();
    let approved = Approved {
        ending: Ending::output(output).plan(&plan),
        plan,
        witnesses,
        contents: Contents::Staged(contents),
        entry,
        lease: None,
        standing,
        undoes: None,
        grants: grants_of(&ticket),
        quotas: quotas_of(ticket.grant().call().tool()).collect(),
        ticket: None,
    };
    (approved, ticket)
}

/// Who agreed that a stored plan be committed.
#[derive(Debug)]
pub enum Consent {
    /// Its owner, to a preview.
    Owner(Box<StoredPlan>),
    /// Its owner, to a transaction that was sealed with it.
    Transaction(Box<StoredPlan>),
    /// Its owner, to a preview that a standing approval covers.
    Standing(Box<StoredPlan>, StandingUse),
    /// As many people as the hold wanted.
    People(Box<StoredPlan>),
    /// The operator, to the reversal of a call.
    Operator(Box<StoredPlan>),
}

impl Consent {
    /// The plan as it is stored.
    #[must_use]
    pub fn stored(&self) -> &StoredPlan {
        match self {
            Self::Owner(stored)
            | Self::Transaction(stored)
            | Self::Standing(stored, _)
            | Self::People(stored)
            | Self::Operator(stored) => stored,
        }
    }

    /// The call.
    #[must_use]
    pub fn call(&self) -> CallId {
        self.stored().call.row.call
    }
}

/// Verify a stored plan and the consent to it.
///
/// # Errors
/// `stale_plan`: it is not open any more, too old, or made with another tool, manifest or policy. `approval_required`: not
/// enough people agreed. `denied`: policy refuses it now.
pub fn rehydrate(consent: Consent, in_force: &InForce) -> Result<Approved, Refusal> {
    let required = |message: &str| Refusal::new(Code::ApprovalRequired, message);
    let review = Review::of(consent.stored(), in_force)?;
    // Policies speak about agents: an operator's own reversal has only the floor beneath it.
    let need = possible(match &consent {
        Consent::Operator(_) => review.floor(),
        Consent::Owner(_) | Consent::Transaction(_) | Consent::Standing(..) | Consent::People(_) => review.verdict(),
    })?;
    let catalog = &in_force.catalog;
    match consent {
        Consent::Owner(stored) | Consent::Standing(stored, _)
            if stored.state == PlanState::Previewed && is_transaction(&stored.plan) =>
        {
            Err(whole_only())
        }
        Consent::Transaction(stored) if !is_transaction(&stored.plan) => {
            Err(Refusal::new(Code::Internal, "BUG: the plan is not a transaction's"))
        }
        Consent::Owner(stored) | Consent::Standing(stored, _)
            if stored.state == PlanState::Previewed && has_live_request(&stored.plan) =>
        {
            Err(Refusal::new(
                Code::Denied,
                "this plan is the beginning of a call whose tool needs an answer; it is not committed by itself",
            )
            .hint("call the tool with mode `commit`"))
        }
        Consent::Standing(stored, standing) => match stored.state {
            PlanState::Previewed => open(*stored, Lease::Standing(standing), catalog),
            state => Err(not_open(state)),
        },
        Consent::Owner(stored) | Consent::Transaction(stored) => match (stored.state, need) {
            (PlanState::Previewed, None) => open(*stored, Lease::None, catalog),
            (PlanState::Previewed, Some(need)) => Err(required(&need.text())),
            (PlanState::Held, _) => Err(required("the plan waits for an approval")),
            (state, _) => Err(not_open(state)),
        },
        Consent::Operator(stored) => match stored.state {
            PlanState::Previewed if stored.plan.body().tool.as_str() == UNDO_TOOL => {
                open(*stored, Lease::None, catalog)
            }
            PlanState::Previewed => Err(required("an operator commits reversals only")),
            state => Err(not_open(state)),
        },
        Consent::People(stored) => {
            if stored.state != PlanState::Held {
                return Err(not_open(stored.state));
            }
            let approval = stored.approval.as_ref().filter(|approval| {
                approval.state == ApprovalState::Approved && approval.seal == stored.plan.seal_digest()
            });
            let Some(approval) = approval else { return Err(required("the plan is not approved")) };
            let wanted = need.as_ref().map_or(1, |need| people(need, in_force.solo));
            if approval.row.approvers < wanted {
                let message = format!("{} agreed to it, and by now {wanted} people have to", approval.row.approvers);
                return Err(Refusal::new(Code::StalePlan, message).hint("call again, so that they are asked"));
            }
            // Counted when it was enough. What an operator said since, or what the run has read, may want more than that.
            let by_client = approval.votes.iter().any(|vote| vote.via == Via::Client);
            if let Some(need) = need.filter(|_| by_client)
                && !confirmable(&stored, &need, in_force)?
            {
                let message = "whoever uses the agent agreed to it, and by now an operator has to";
                return Err(Refusal::new(Code::StalePlan, message).hint("call again, so that operators are asked"));
            }
            let lease = ApprovalUse { id: approval.row.id, seal: approval.seal };
            open(*stored, Lease::Approval(lease), catalog)
        }
    }
}

/// Whether a stored plan would be committed with this consent, as far as anybody can say before.
///
/// # Errors
/// As [`rehydrate`].
pub fn possible_now(consent: &Consent, in_force: &InForce) -> Result<(), Refusal> {
    let stored = consent.stored();
    match consent {
        Consent::Owner(_) | Consent::Transaction(_) | Consent::Standing(..) if stored.state != PlanState::Previewed => {
            Err(not_open(stored.state))
        }
        Consent::Owner(_) | Consent::Standing(..) if is_transaction(&stored.plan) || has_live_request(&stored.plan) => {
            Err(whole_only())
        }
        Consent::Owner(_) | Consent::Transaction(_) => match need(stored, in_force)? {
            None => Ok(()),
            Some(need) => Err(Refusal::new(Code::ApprovalRequired, need.text())),
        },
        Consent::Standing(..) | Consent::People(_) | Consent::Operator(_) => Ok(()),
    }
}

/// What a stored plan needs before its owner may commit it; nothing if policy allows it.
///
/// # Errors
/// As [`rehydrate`].
pub fn need(stored: &StoredPlan, in_force: &InForce) -> Result<Option<Need>, Refusal> {
    possible(Review::of(stored, in_force)?.verdict())
}

/// Whether the answer of whoever uses the agent is enough for a stored plan that needs this.
///
/// # Errors
/// As [`rehydrate`].
pub fn confirmable(stored: &StoredPlan, need: &Need, in_force: &InForce) -> Result<bool, Refusal> {
    let declared = Review::of(stored, in_force)?.declared();
    Ok(need.confirmable(plan_tier(&stored.plan.body().effects, in_force.undo_bytes), declared))
}

/// How many people have to agree where policy has this need.
#[must_use]
pub const fn people(need: &Need, solo: bool) -> u8 {
    if solo { 1 } else { need.approvers }
}

/// What a plan needs before it may be committed, if it may be at all.
fn possible(verdict: Verdict) -> Result<Option<Need>, Refusal> {
    match verdict {
        Verdict::Nothing | Verdict::Commit => Ok(None),
        Verdict::Hold(need) => Ok(Some(need)),
        Verdict::Preview { reason } => {
            Err(Refusal::new(Code::Denied, format!("it may be previewed, but not committed: {reason}")))
        }
        Verdict::Deny { breach } => Err(Refusal::new(Code::Denied, breach)),
    }
}

/// Whether a plan is the union of a transaction.
#[must_use]
pub fn is_transaction(plan: &Plan) -> bool {
    plan.body().tool.as_str() == TRANSACTION_TOOL
}

/// Why a preview of a transaction is not committed: the transaction may have gone on since.
#[must_use]
pub fn whole_only() -> Refusal {
    Refusal::new(Code::Denied, "this plan shows a transaction, which is committed as a whole")
        .hint("use `transactions.commit`, with `expect_plan` to commit exactly what was shown")
}

/// What a stored plan uses up when it is committed.
#[derive(Clone, Copy)]
enum Lease {
    None,
    Approval(ApprovalUse),
    Standing(StandingUse),
}

fn open(stored: StoredPlan, lease: Lease, catalog: &Catalog) -> Result<Approved, Refusal> {
    let (lease, standing) = match lease {
        Lease::None => (None, None),
        Lease::Approval(lease) => (Some(lease), None),
        Lease::Standing(standing) => (None, Some(standing)),
    };
    let witnesses = serde_json::from_str(&stored.witnesses)
        .map_err(|_| Refusal::new(Code::Internal, "the stored plan's witnesses cannot be read"))?;
    let output = output_of(&stored.call.row);
    let transaction = transaction_of(&stored.call.row);
    let undoes = undone_call(&stored.call.row);
    let plan = Arc::new(stored.plan);
    let named = std::iter::once(&plan.body().tool).chain(plan.body().steps.iter().map(|step| &step.tool));
    let tools: Vec<_> = named.filter_map(|name| catalog.tool(name)).collect();
    let grants = tools.iter().flat_map(|tool| tool.manifest.http.iter().cloned()).collect();
    // Several tools of a transaction may share a manifest.
    let mut quotas: Vec<Quota> = tools.iter().flat_map(|tool| quotas_of(tool)).collect();
    quotas.sort_by(|one, two| (&one.source, one.place).cmp(&(&two.source, two.place)));
    quotas.dedup_by(|one, two| (&one.source, one.place) == (&two.source, two.place));
    Ok(Approved {
        ending: Ending { output, transaction, ..Ending::default() }.plan(&plan),
        plan,
        witnesses,
        contents: Contents::Stored,
        entry: Entry::resume(stored.call.row),
        lease,
        standing,
        undoes,
        grants,
        quotas,
        ticket: None,
    })
}

/// Whether a plan is a part of an execution that goes on with an answer.
#[must_use]
pub fn has_live_request(plan: &Plan) -> bool {
    let live = |effect: &Effect| matches!(effect, Effect::HttpRequest(request) if request.delivery == Delivery::Live);
    plan.body().effects.iter().any(live)
}

/// The output that the stored reply carries: the tool returned it when the plan was made.
pub(crate) fn output_of(row: &CallRow) -> Option<serde_json::Value> {
    let mut reply: serde_json::Value = serde_json::from_str(&row.reply).ok()?;
    reply.get_mut("output").map(serde_json::Value::take).filter(|output| !output.is_null())
}

/// The transaction that the stored reply tells of.
pub(crate) fn transaction_of(row: &CallRow) -> Option<TransactionView> {
    let mut reply: serde_json::Value = serde_json::from_str(&row.reply).ok()?;
    reply.get_mut("transaction").and_then(|view| serde_json::from_value(view.take()).ok())
}

/// The input of a call of [`UNDO_TOOL`].
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub struct UndoInput {
    /// The call to reverse.
    pub call: CallId,
}

/// The call that a stored call reverses, if it reverses one.
fn undone_call(row: &CallRow) -> Option<CallId> {
    if row.tool.as_str() != UNDO_TOOL {
        return None;
    }
    serde_json::from_str::<UndoInput>(&row.input).ok().map(|input| input.call)
}

fn not_open(state: PlanState) -> Refusal {
    Refusal::new(Code::StalePlan, format!("the plan is {state}"))
}
