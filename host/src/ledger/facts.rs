//! What audit entries say: canonical JSON (RFC 8785) over digests and names, never over contents.
//!
//! The entries of calls, intents and outcomes are written all the time, so their members are declared in the order in which
//! canonical JSON sorts them; a test holds the two together.

use serde::Serialize;
use serde_json::{Value, json};
use toolkeep_core::audit::canonical_body;
use toolkeep_core::call::{Mode, Outcome, Status, Usage};
use toolkeep_core::digest::Digest;
use toolkeep_core::id::{ApprovalId, CallId, PlanId, ReceiptId, RunId, StandingId, TenantName};
use toolkeep_core::json::record_text;
use toolkeep_core::plan::{Plan, Totals};
use toolkeep_core::principal::{Principal, SessionPath};
use toolkeep_core::refusal::Code;
use toolkeep_core::tier::Tier;
use toolkeep_core::trace::TraceId;

use super::column::{outcome_word, status_word};
use super::resolve::Resolution;
use super::rows::{CallRow, Intent, OutcomeRow, Proposal, RunRow, Settled};

/// The facts of a call. Members stand in the order of RFC 8785.
#[derive(Serialize)]
struct CallFacts<'r> {
    agent: &'r str,
    #[serde(skip_serializing_if = "Option::is_none")]
    approval: Option<ApprovalId>,
    call: CallId,
    #[serde(skip_serializing_if = "Option::is_none")]
    component: Option<Digest>,
    credential: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
    input: Digest,
    #[serde(skip_serializing_if = "Option::is_none")]
    manifest: Option<Digest>,
    mode: Mode,
    #[serde(skip_serializing_if = "Option::is_none")]
    notes: Option<Digest>,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<PlanId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plan_digest: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy_set: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recording: Option<Digest>,
    reply: Digest,
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<RunId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seal: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<&'r SessionPath>,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<&'r str>,
    tenant: &'r str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tier: Option<u8>,
    tool: &'r str,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<TraceId>,
    usage: UsageFacts,
    user: &'r str,
}

/// The largest number that canonical JSON writes as it is (RFC 8785, section 3.2.2.3).
const EXACT_MAX: u64 = 1 << 53;

/// What a call used, as far as numbers are exact. Members stand in the order of RFC 8785.
#[derive(Serialize)]
struct UsageFacts {
    cost_micro_usd: u64,
    fuel: u64,
    host_calls: u64,
    http_requests: u64,
    memory_peak: u64,
    wall_ms: u64,
}

impl From<Usage> for UsageFacts {
    fn from(usage: Usage) -> Self {
        let exact = |number: u64| number.min(EXACT_MAX);
        Self {
            cost_micro_usd: exact(usage.cost_usd.micro()),
            fuel: exact(usage.fuel),
            host_calls: exact(usage.host_calls),
            http_requests: exact(usage.http_requests),
            memory_peak: exact(usage.memory_peak),
            wall_ms: exact(usage.wall_ms),
        }
    }
}

/// A call that ended, or that made a plan.
pub(super) fn call(row: &CallRow, proposal: Option<&Proposal>) -> String {
    let plan: Option<&Plan> = proposal.map(|proposal| proposal.plan.as_ref());
    let facts = CallFacts {
        agent: row.principal.agent.as_str(),
        approval: proposal.and_then(|proposal| Some(proposal.approval.as_ref()?.id)),
        call: row.call,
        component: row.component,
        credential: row.origin.credential.to_string(),
        error: row.error_code.map(Code::word),
        input: row.input_digest,
        manifest: row.manifest,
        mode: row.mode,
        notes: row.notes.as_ref().map(|text| Digest::of(text.as_bytes())),
        outcome: outcome_word(row.outcome),
        plan: plan.map(Plan::id),
        plan_digest: plan.map(Plan::digest),
        policy_set: row.policy_set,
        recording: row.recording.as_ref().map(|text| Digest::of(text.as_bytes())),
        reply: Digest::of(row.reply.as_bytes()),
        run: row.run,
        seal: plan.map(Plan::seal_digest),
        session: (!row.origin.session.is_root()).then_some(&row.origin.session),
        status: status_word(row.status),
        step: row.step.as_deref(),
        tenant: row.principal.tenant.as_str(),
        tier: row.tier.map(Tier::number),
        tool: row.tool.as_str(),
        trace: row.trace,
        usage: row.usage.into(),
        user: row.principal.user.as_str(),
    };
    record_text(&facts).unwrap_or_else(|_| canonical_body(&Value::Null))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What a plan adds up to. Members stand in the order of RFC 8785.
#[derive(Serialize)]
struct TotalsFacts {
    bytes_written: u64,
    creates: u64,
    deletes: u64,
    effects: u64,
    #[serde(skip_serializing_if = "is_zero")]
    keys: u64,
    #[serde(skip_serializing_if = "is_zero")]
    messages: u64,
    others: u64,
    overwrites: u64,
    renames: u64,
    #[serde(skip_serializing_if = "is_zero")]
    requests: u64,
}

impl From<Totals> for TotalsFacts {
    fn from(totals: Totals) -> Self {
        let Totals { effects, creates, overwrites, deletes, renames, others, bytes_written, requests, messages, keys } =
            totals;
        Self { bytes_written, creates, deletes, effects, keys, messages, others, overwrites, renames, requests }
    }
}

/// The facts of an intent. Members stand in the order of RFC 8785.
#[derive(Serialize)]
struct IntentFacts<'r> {
    agent: &'r str,
    approval: Option<ApprovalId>,
    call: CallId,
    component: Digest,
    effects: TotalsFacts,
    input: Digest,
    manifest: Digest,
    plan: PlanId,
    plan_digest: Digest,
    policy_set: Digest,
    receipt: Option<ReceiptId>,
    recording: Option<Digest>,
    run: Option<RunId>,
    seal: Digest,
    #[serde(skip_serializing_if = "Option::is_none")]
    standing: Option<StandingId>,
    steps: Digest,
    tenant: &'r str,
    tool: &'r str,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<TraceId>,
    undoes: Option<CallId>,
    user: &'r str,
}

/// A commit that is about to be applied.
pub(super) fn intent(intent: &Intent, plan: &Plan, call: CallId) -> String {
    let body = plan.body();
    let facts = IntentFacts {
        agent: body.principal.agent.as_str(),
        approval: intent.approval.map(|approval| approval.id),
        call,
        component: body.component,
        effects: plan.totals().into(),
        input: body.input,
        manifest: body.manifest,
        plan: plan.id(),
        plan_digest: plan.digest(),
        policy_set: body.policy_set,
        receipt: intent.receipt.as_ref().map(|receipt| receipt.statement.receipt),
        recording: intent.proposal.as_ref().and_then(|p| Some(Digest::of(p.call.recording.as_ref()?.as_bytes()))),
        run: plan.binding().run,
        seal: plan.seal_digest(),
        standing: intent.standing.map(|standing| standing.id),
        steps: Digest::of(intent.steps.as_bytes()),
        tenant: body.principal.tenant.as_str(),
        tool: body.tool.as_str(),
        trace: intent.proposal.as_ref().and_then(|proposal| proposal.call.trace),
        undoes: intent.undoes,
        user: body.principal.user.as_str(),
    };
    record_text(&facts).unwrap_or_else(|_| canonical_body(&Value::Null))
}

/// The facts of an outcome. Members stand in the order of RFC 8785.
#[derive(Serialize)]
struct OutcomeFacts<'r> {
    call: CallId,
    error: Option<&'static str>,
    halted: Option<&'r [String]>,
    outcome: &'static str,
    plan: PlanId,
    reply: Digest,
    tenant: &'r str,
}

/// A commit that ended.
pub(super) fn outcome(row: &OutcomeRow, call: CallId, tenant: &TenantName) -> String {
    let (outcome, halted) = match &row.settled {
        Settled::Committed => ("committed", None),
        Settled::RolledBack => ("rolled_back", None),
        Settled::Halted(targets) => ("halted", Some(targets.as_slice())),
    };
    let facts = OutcomeFacts {
        call,
        error: row.error_code.map(Code::word),
        halted,
        outcome,
        plan: row.intent.plan(),
        reply: Digest::of(row.reply.as_bytes()),
        tenant: tenant.as_str(),
    };
    record_text(&facts).unwrap_or_else(|_| canonical_body(&Value::Null))
}

/// A previewed plan that waits for people from now on.
pub(super) fn held(plan: &Plan, approval: ApprovalId) -> String {
    let principal = &plan.body().principal;
    canonical_body(&json!({
        "agent": principal.agent, "approval": approval, "call": plan.binding().call, "plan": plan.id(),
        "plan_digest": plan.digest(), "seal": plan.seal_digest(), "tenant": principal.tenant, "tool": plan.body().tool,
        "user": principal.user,
    }))
}

/// A person's answer.
pub(super) fn resolution(answer: &Resolution, plan: PlanId, state: &str, tenant: &TenantName) -> String {
    canonical_body(&json!({
        "approval": answer.id, "approved": answer.approve, "approver": answer.approver, "plan": plan,
        "reason": answer.reason, "state": state, "tenant": tenant, "via": answer.via,
    }))
}

/// A plan that ended without a commit.
pub(super) fn ended(
    plan: PlanId,
    (tenant, call): (&TenantName, CallId),
    (status, outcome): (Status, Outcome),
    why: &str,
) -> String {
    canonical_body(&json!({
        "call": call, "outcome": outcome_word(outcome), "plan": plan, "status": status_word(status), "tenant": tenant,
        "why": why,
    }))
}

/// A run that begins. What the agent says that it is for stands in its row.
pub(super) fn opened(run: &RunRow) -> String {
    let Principal { tenant, user, agent } = &run.principal;
    canonical_body(&json!({
        "agent": agent, "label": Digest::of(run.label.as_bytes()), "run": run.run, "tenant": tenant,
        "terms": Digest::of(run.terms.as_bytes()), "user": user, "what": "opened", "workflow": run.workflow,
    }))
}

/// A run that ended.
pub(super) fn closed(owner: &Principal, run: RunId, outcome: Option<&str>) -> String {
    let Principal { tenant, user, agent } = owner;
    canonical_body(&json!({
        "agent": agent, "outcome": outcome.map(|outcome| Digest::of(outcome.as_bytes())), "run": run,
        "tenant": tenant, "user": user, "what": "closed",
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use toolkeep_core::id::SessionId;
    use toolkeep_core::principal::Origin;
    use uuid::Uuid;

    #[test]
    fn the_facts_of_a_call_are_canonical_as_they_are_written() {
        let row = CallRow {
            trace: Some(TraceId::of([7; 16])),
            suspended: false,
            call: CallId::new(Uuid::from_u128(1)),
            principal: serde_json::from_value(json!({"tenant": "t", "user": "u", "agent": "a"})).expect("principal"),
            origin: Origin::record(),
            run: Some(RunId::new(Uuid::from_u128(2))),
            step: Some(Arc::from("é\u{1}\"\\\n\u{7f}\u{2028}")),
            tool: "x".parse().expect("name"),
            component: Some(Digest::of(b"c")),
            manifest: Some(Digest::of(b"m")),
            tier: None,
            policy_set: None,
            mode: Mode::Preview,
            input: Arc::from("{}"),
            input_digest: Digest::of(b"{}"),
            status: Status::Failed,
            outcome: Outcome::None,
            error_code: Some(Code::OutOfFuel),
            reply: Arc::from("{}"),
            usage: Usage::default(),
            recording: Some(Arc::from("{}")),
            beside: None,
            started_ms: 1,
            ended_ms: 2,
            key: None,
            notes: None,
            charge: None,
            output: None,
        };
        let text = call(&row, None);
        let value: Value = serde_json::from_str(&text).expect("json");
        assert_eq!(canonical_body(&value), text);
        let path = SessionPath::default().child(SessionId::new(Uuid::from_u128(3))).expect("room");
        let mut all = CallFacts {
            agent: "a",
            approval: Some(ApprovalId::new(Uuid::from_u128(1))),
            call: row.call,
            component: Some(row.input_digest),
            credential: "agent-uid:1".to_owned(),
            error: Some("x"),
            input: row.input_digest,
            manifest: Some(row.input_digest),
            mode: Mode::Commit,
            notes: Some(row.input_digest),
            outcome: "none",
            plan: Some(PlanId::new(Uuid::from_u128(1))),
            plan_digest: Some(row.input_digest),
            policy_set: Some(row.input_digest),
            recording: Some(row.input_digest),
            reply: row.input_digest,
            run: row.run,
            seal: Some(row.input_digest),
            session: Some(&path),
            status: "ok",
            step: Some("s"),
            tenant: "t",
            tier: Some(2),
            tool: "x",
            trace: row.trace,
            usage: Usage { fuel: u64::MAX, wall_ms: EXACT_MAX, ..Usage::default() }.into(),
            user: "u",
        };
        for _ in 0..2 {
            let text = serde_json::to_string(&all).expect("json");
            let value: Value = serde_json::from_str(&text).expect("json");
            assert_eq!(canonical_body(&value), text);
            all.approval = None;
        }
    }

    #[test]
    fn the_facts_of_a_commit_are_canonical_as_they_are_written() {
        let (call, plan) = (CallId::new(Uuid::from_u128(1)), PlanId::new(Uuid::from_u128(2)));
        let digest = Digest::of(b"x");
        for number in [0, 7] {
            let many = Totals {
                effects: number,
                creates: number,
                overwrites: number,
                deletes: number,
                renames: number,
                others: number,
                bytes_written: number,
                requests: number,
                messages: number,
                keys: number,
            };
            let facts = IntentFacts {
                agent: "a",
                approval: (number > 0).then(|| ApprovalId::new(Uuid::from_u128(3))),
                call,
                component: digest,
                effects: many.into(),
                input: digest,
                manifest: digest,
                plan,
                plan_digest: digest,
                policy_set: digest,
                receipt: None,
                recording: None,
                run: None,
                seal: digest,
                standing: (number > 0).then(|| StandingId::new(Uuid::from_u128(4))),
                steps: digest,
                tenant: "t",
                tool: "x",
                trace: (number > 0).then(|| TraceId::of([7; 16])),
                undoes: Some(call),
                user: "u",
            };
            let text = serde_json::to_string(&facts).expect("json");
            let value: Value = serde_json::from_str(&text).expect("json");
            assert_eq!(canonical_body(&value), text);
            assert_eq!(value["effects"], serde_json::to_value(many).expect("json"));
        }
        let targets = ["books/é.md".to_owned()];
        let facts = OutcomeFacts {
            call,
            error: Some("stale_plan"),
            halted: Some(&targets),
            outcome: "halted",
            plan,
            reply: digest,
            tenant: "t",
        };
        let text = serde_json::to_string(&facts).expect("json");
        let value: Value = serde_json::from_str(&text).expect("json");
        assert_eq!(canonical_body(&value), text);
    }
}
