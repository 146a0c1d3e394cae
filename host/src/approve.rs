//! Stage 7, approve: from a decision to [`Approved`], the right to commit one plan once.
//!
//! There are three ways to it, and no fourth: policy allowed the plan ([`automatic`]), its owner commits a preview or a
//! transaction that policy allows, or people agreed to exactly this seal. The last two come as a [`Consent`] from the ledger and
//! are verified again ([`rehydrate`]): that the plan is the one that was sealed, that it is open and young enough, and that tool,
//! manifest and policy (for a transaction those of every step) are still those it was made with. Plans that are not committed now are kept here ([`preview`],
//! [`hold`]).

pub mod keep;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use toolkeep_core::call::TransactionView;
use toolkeep_core::digest::Digest;
use toolkeep_core::effect::{Delivery, Effect};
use toolkeep_core::grant::HttpGrant;
use toolkeep_core::id::{CallId, TenantName};
use toolkeep_core::plan::{Plan, PlanStep};
use toolkeep_core::policy::{Verdict, plan_tier};
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_core::tier::Tier;
use toolkeep_sandbox::stage::{Content, Witness};

use crate::admit::Ticket;
use crate::catalog::Catalog;
use crate::decide::{Allowed, Need};
use crate::ledger::approval::ApprovalState;
use crate::ledger::{ApprovalUse, CallRow, PlanState, StoredPlan};
use crate::policy;
use crate::record::{Ending, Entry};
use crate::transaction::TRANSACTION_TOOL;

pub use keep::{PlanStore, hold, hold_stored, preview};

/// What calls that reverse another call name as their tool. No manifest can give this name.
pub const UNDO_TOOL: &str = "toolkeep.undo";

/// Proof: this plan may be committed, once.
#[derive(Debug)]
pub struct Approved {
    plan: Arc<Plan>,
    witnesses: Vec<Witness>,
    contents: Contents,
    entry: Entry,
    ending: Ending,
    lease: Option<ApprovalUse>,
    undoes: Option<CallId>,
    grants: Vec<HttpGrant>,
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
    /// The call that it reverses.
    pub undoes: Option<CallId>,
    /// The grants of its requests.
    pub grants: Vec<HttpGrant>,
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

    /// Take apart: only the commit does.
    #[must_use]
    pub fn into_parts(self) -> ApprovedParts {
        let Self { plan, witnesses, contents, entry, ending, lease, undoes, grants, ticket } = self;
        ApprovedParts { plan, witnesses, contents, entry, ending, lease, undoes, grants, ticket }
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
    let (ticket, output, plan, witnesses, contents) = allowed.into_planned().into_parts();
    Approved {
        ending: Ending::output(&output).plan(&plan),
        plan,
        witnesses,
        contents: Contents::Staged(contents),
        entry,
        lease: None,
        undoes: None,
        grants: grants_of(&ticket),
        ticket: Some(ticket),
    }
}

/// The grants for requests of the tool that holds a ticket.
fn grants_of(ticket: &Ticket) -> Vec<HttpGrant> {
    ticket.grant().call().tool().manifest.http.to_vec()
}

/// Policy allowed a part of an execution. The call goes on with its ticket when the part is settled.
#[must_use]
pub fn part(allowed: Allowed, entry: Entry) -> (Approved, Box<Ticket>) {
    let (ticket, _, plan, witnesses, contents) = allowed.into_planned().into_parts();
    let approved = Approved {
        ending: Ending::default().plan(&plan),
        plan,
        witnesses,
        contents: Contents::Staged(contents),
        entry,
        lease: None,
        undoes: None,
        grants: grants_of(&ticket),
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
            Self::Owner(stored) | Self::Transaction(stored) | Self::People(stored) | Self::Operator(stored) => stored,
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
pub fn rehydrate(consent: Consent, catalog: &Catalog, undo_bytes: u64, now_ms: u64) -> Result<Approved, Refusal> {
    let required = |message: &str| Refusal::new(Code::ApprovalRequired, message);
    let verdict = standing(&consent.stored().plan, catalog, undo_bytes, now_ms)?;
    if let Verdict::Deny { breach } = verdict {
        return Err(Refusal::new(Code::Denied, breach));
    }
    match consent {
        Consent::Owner(stored) if stored.state == PlanState::Previewed && is_transaction(&stored.plan) => {
            Err(whole_only())
        }
        Consent::Transaction(stored) if !is_transaction(&stored.plan) => {
            Err(Refusal::new(Code::Internal, "BUG: the plan is not a transaction's"))
        }
        Consent::Owner(stored) if stored.state == PlanState::Previewed && has_live_request(&stored.plan) => {
            Err(Refusal::new(
                Code::Denied,
                "this plan is the beginning of a call whose tool needs an answer; it is not committed by itself",
            )
            .hint("call the tool with mode `commit`"))
        }
        Consent::Owner(stored) | Consent::Transaction(stored) => match (stored.state, verdict) {
            (PlanState::Previewed, Verdict::Commit | Verdict::Nothing) => open(*stored, None, catalog),
            (PlanState::Previewed, Verdict::Hold { reason, .. }) => Err(required(&reason)),
            (PlanState::Held, _) => Err(required("the plan waits for an approval")),
            (state, _) => Err(not_open(state)),
        },
        Consent::Operator(stored) => match stored.state {
            PlanState::Previewed if stored.plan.body().tool.as_str() == UNDO_TOOL => open(*stored, None, catalog),
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
            let lease = ApprovalUse { id: approval.row.id, seal: approval.seal };
            open(*stored, Some(lease), catalog)
        }
    }
}

/// What a stored plan needs before its owner may commit it; nothing if policy allows it.
///
/// # Errors
/// As [`rehydrate`].
pub fn need(stored: &StoredPlan, catalog: &Catalog, undo_bytes: u64, now_ms: u64) -> Result<Option<Need>, Refusal> {
    match standing(&stored.plan, catalog, undo_bytes, now_ms)? {
        Verdict::Nothing | Verdict::Commit => Ok(None),
        Verdict::Hold { approvers, reason } => Ok(Some(Need { approvers, reason })),
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

fn open(stored: StoredPlan, lease: Option<ApprovalUse>, catalog: &Catalog) -> Result<Approved, Refusal> {
    let witnesses = serde_json::from_str(&stored.witnesses)
        .map_err(|_| Refusal::new(Code::Internal, "the stored plan's witnesses cannot be read"))?;
    let output = output_of(&stored.call.row);
    let transaction = transaction_of(&stored.call.row);
    let undoes = undone_call(&stored.call.row);
    let plan = Arc::new(stored.plan);
    let named = std::iter::once(&plan.body().tool).chain(plan.body().steps.iter().map(|step| &step.tool));
    let tools: Vec<_> = named.filter_map(|name| catalog.tool(name)).collect();
    let grants = tools.iter().flat_map(|tool| tool.manifest.http.iter().cloned()).collect();
    Ok(Approved {
        ending: Ending { output, transaction, ..Ending::default() }.plan(&plan),
        plan,
        witnesses,
        contents: Contents::Stored,
        entry: Entry::resume(stored.call.row),
        lease,
        undoes,
        grants,
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

/// The verdict of this moment, after checking that the plan was made with what is in force now.
fn standing(plan: &Plan, catalog: &Catalog, undo_bytes: u64, now_ms: u64) -> Result<Verdict, Refusal> {
    let body = plan.body();
    let stale = |what: &str| Err(Refusal::new(Code::StalePlan, format!("{what} since the plan was made")));
    if now_ms >= plan.binding().expires_at_ms {
        return Err(Refusal::new(Code::StalePlan, "the plan has expired"));
    }
    if body.policy_set != policy::digest() {
        return stale("the policy changed");
    }
    if body.tool.as_str() == UNDO_TOOL {
        return Ok(reversal_verdict(plan, catalog, undo_bytes));
    }
    if is_transaction(plan) {
        let (tier, hold) = in_force(&body.steps, catalog)?;
        return Ok(policy::verdict(&body.effects, tier, &hold, undo_bytes));
    }
    let Some(tool) = catalog.tool(&body.tool) else { return stale("the tool was removed") };
    if tool.component.digest != body.component {
        return stale("the component of the tool changed");
    }
    if tool.manifest.digest != body.manifest {
        return stale("the manifest of the tool changed");
    }
    Ok(policy::verdict(&body.effects, tool.tier, &tool.manifest.hold, undo_bytes))
}

/// The strictest tier of the tools of a transaction and every kind of effect that one of their manifests holds, after
/// checking that each is still what it was when it was called.
///
/// # Errors
/// `stale_plan`: a tool was removed, or its component or manifest changed.
pub fn in_force(steps: &[PlanStep], catalog: &Catalog) -> Result<(Tier, Vec<String>), Refusal> {
    let (mut tier, mut hold) = (Tier::ReadOnly, BTreeSet::new());
    for step in steps {
        let stale = |what: &str| {
            let message = format!("`{}` {what} since the transaction called it", step.tool);
            Refusal::new(Code::StalePlan, message).hint("begin another transaction")
        };
        let Some(tool) = catalog.tool(&step.tool) else { return Err(stale("was removed")) };
        if tool.component.digest != step.component {
            return Err(stale("got another component"));
        }
        if tool.manifest.digest != step.manifest {
            return Err(stale("got another manifest"));
        }
        tier = tier.max(tool.tier);
        hold.extend(tool.manifest.hold.iter().cloned());
    }
    Ok((tier, hold.into_iter().collect()))
}

/// The verdict about a reversal: as strict as about what it reverses, whose component and manifest it carries. Reversing a
/// reversal applies the first plan again, so nothing may become milder on the way.
fn reversal_verdict(plan: &Plan, catalog: &Catalog, undo_bytes: u64) -> Verdict {
    let body = plan.body();
    // A tool that is gone or changed cannot say how much consent it wanted: a human looks.
    let (reversed, hold) = if body.steps.is_empty() {
        let of_manifest: Vec<_> = catalog
            .tools()
            .filter(|tool| tool.manifest.digest == body.manifest && tool.component.digest == body.component)
            .collect();
        let tier = of_manifest.iter().map(|tool| tool.tier).max().unwrap_or(Tier::Consequential);
        (tier, of_manifest.first().map_or(Vec::new(), |tool| tool.manifest.hold.clone()))
    } else {
        in_force(&body.steps, catalog).unwrap_or((Tier::Consequential, Vec::new()))
    };
    let declared = plan_tier(&body.effects, undo_bytes).max(reversed).max(Tier::Reversible);
    policy::verdict(&body.effects, declared, &hold, undo_bytes)
}
