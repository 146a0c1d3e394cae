//! Parameters of methods, as they are written on the wire.
//!
//! One type per shape, each of which refuses unknown members; `_meta` is taken away before. Identity is no parameter of
//! anything. The input of a call is moved out before the rest is read, so that a large one is never copied.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use toolkeep_core::call::{CallRequest, Mode, ReportedUsage};
use toolkeep_core::digest::Digest;
use toolkeep_core::id::{ApprovalId, CallId, PlanId, RunId, SessionId, TenantName, ToolName, TransactionId};
use toolkeep_core::json;
use toolkeep_core::kill::{KillLevel, KillMode};
use toolkeep_core::receipt::Receipt;
use toolkeep_core::refusal::{Code, Refusal};

use super::reply::{Fault, INVALID_PARAMS};
use crate::host::{
    BeginTransaction, CommitTransaction, CredentialName, KillRequest, PlanName, PolicyFile, Supposed, UndoTarget,
};
use crate::ledger::DeadId;

mod cancel;
mod runs;

pub(super) use cancel::{CancelCall, Cancelled};
pub(super) use runs::{CloseRunParams, OpenRunParams, ReleaseRun, ReportRun, ResumeParams, SpendParams};

/// No parameters.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// `tools.describe`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfTool {
    pub(super) tool: ToolName,
}

/// `calls.get`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfCall {
    pub(super) call: CallId,
}

/// `calls.output`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OutputPart {
    pub(super) call: CallId,
    /// The byte to begin at.
    #[serde(default)]
    pub(super) offset: u64,
}

/// `policy.get`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PolicyGet {
    /// Whether to add the schema that policies are written against.
    #[serde(default)]
    pub(super) schema: bool,
}

/// `policy.check`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PolicyCheck {
    /// The files; those of the configured directory if absent.
    #[serde(default)]
    pub(super) files: Option<Vec<PolicyFile>>,
}

/// `policy.explain`: a call that was made, or one that was not.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PolicyExplain {
    #[serde(default)]
    pub(super) call: Option<CallId>,
    #[serde(default)]
    pub(super) suppose: Option<Supposed>,
}

/// `policy.diff`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PolicyDiff {
    /// The files of the other set.
    pub(super) files: Vec<PolicyFile>,
    /// How many of the last calls to look at.
    #[serde(default = "hundred")]
    pub(super) calls: u32,
}

const fn hundred() -> u32 {
    100
}

/// `plans.discard`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfPlanId {
    pub(super) plan: PlanId,
}

/// `plans.commit`: an id, or the digest that a preview gave.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfPlan {
    pub(super) plan: PlanText,
}

/// `plans.get`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PlanPage {
    pub(super) plan: PlanText,
    /// How many effects to skip.
    #[serde(default)]
    pub(super) cursor: u64,
    /// Whether to add text diffs.
    #[serde(default)]
    pub(super) diffs: bool,
}

/// `plans.show`: with the text contents that diffs are made of.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PlanShow {
    pub(super) plan: PlanText,
    /// How many effects to skip.
    #[serde(default)]
    pub(super) cursor: u64,
}

/// `runs.get`, `runs.show`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RunPage {
    pub(super) run: RunId,
    /// The `next_cursor` of the page before.
    #[serde(default)]
    pub(super) cursor: Option<u64>,
}

/// `plans.list`, `runs.list`, `sessions.list`, `transactions.list`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    /// The `next_cursor` of the page before.
    #[serde(default)]
    pub(super) cursor: Option<u64>,
}

/// `approvals.get`, `approvals.show`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfApproval {
    pub(super) approval: ApprovalId,
}

/// `approvals.wait`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WaitApproval {
    pub(super) approval: ApprovalId,
    #[serde(default)]
    pub(super) timeout_ms: Option<u64>,
}

/// `approvals.list`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListApprovals {
    /// Resolved ones too.
    #[serde(default)]
    pub(super) all: bool,
}

/// `approvals.approve`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Approve {
    pub(super) approval: ApprovalId,
    /// For the record.
    #[serde(default)]
    pub(super) reason: String,
    /// What the operator typed to confirm a plan of tier 3.
    #[serde(default)]
    pub(super) confirm: Option<String>,
}

/// `approvals.reject`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reject {
    pub(super) approval: ApprovalId,
    /// For the record, and for the agent.
    pub(super) reason: String,
}

/// `deadletters.list`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListDeadletters {
    /// Those that were decided about too.
    #[serde(default)]
    pub(super) all: bool,
    /// The `next_cursor` of the page before.
    #[serde(default)]
    pub(super) cursor: Option<u64>,
}

/// `deadletters.get`, `deadletters.retry`, `deadletters.discard`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfDelivery {
    pub(super) delivery: DeadId,
}

/// `kill.set`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SetKill {
    level: KillLevel,
    #[serde(default)]
    tenant: Option<TenantName>,
    #[serde(default)]
    name: Option<String>,
    /// What may still run.
    pub(super) mode: KillMode,
    /// For everybody who is refused.
    reason: String,
}

impl From<SetKill> for KillRequest {
    fn from(set: SetKill) -> Self {
        Self { level: set.level, tenant: set.tenant, name: set.name, reason: set.reason }
    }
}

/// `kill.clear`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClearKill {
    level: KillLevel,
    #[serde(default)]
    tenant: Option<TenantName>,
    #[serde(default)]
    name: Option<String>,
    /// For the record.
    #[serde(default)]
    reason: String,
}

impl From<ClearKill> for KillRequest {
    fn from(clear: ClearKill) -> Self {
        Self { level: clear.level, tenant: clear.tenant, name: clear.name, reason: clear.reason }
    }
}

/// `transactions.begin`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Begin {
    /// The run that the commit belongs to.
    #[serde(default)]
    run: Option<RunId>,
    /// How long it stays open.
    #[serde(default)]
    ttl_ms: Option<u64>,
    /// The only tools that it may call.
    #[serde(default)]
    tools: Option<Vec<ToolName>>,
}

impl From<Begin> for BeginTransaction {
    fn from(begin: Begin) -> Self {
        Self { run: begin.run, ttl_ms: begin.ttl_ms, tools: begin.tools }
    }
}

/// `transactions.get`, `transactions.preview`, `transactions.rollback`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfTransaction {
    pub(super) transaction: TransactionId,
}

/// `transactions.commit`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CommitParams {
    transaction: TransactionId,
    /// Only if the plan has exactly this digest.
    #[serde(default)]
    expect_plan: Option<Digest>,
    #[serde(default)]
    idempotency_key: Option<String>,
}

impl From<CommitParams> for CommitTransaction {
    fn from(commit: CommitParams) -> Self {
        Self { transaction: commit.transaction, expect_plan: commit.expect_plan, key: commit.idempotency_key }
    }
}

/// `outcomes.resolve`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ResolveOutcome {
    pub(super) call: CallId,
    /// Whether the other system has done it.
    pub(super) sent: bool,
    /// For the record: how the operator knows.
    pub(super) reason: String,
}

/// `undo.propose`, `undo.call`: a call or a run.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Undo {
    #[serde(default)]
    call: Option<CallId>,
    #[serde(default)]
    run: Option<RunId>,
    /// Only for `undo.call`.
    #[serde(default)]
    pub(super) preview: bool,
}

impl Undo {
    /// What to undo.
    ///
    /// # Errors
    /// Neither or both are named.
    pub(super) fn target(&self) -> Result<UndoTarget, Fault> {
        match (self.call, self.run) {
            (Some(call), None) => Ok(UndoTarget::Call(call)),
            (None, Some(run)) => Ok(UndoTarget::Run(run)),
            (None, None) | (Some(_), Some(_)) => {
                Err(bad("name either `call` or `run`").map_field("/call", "exactly one of `call` and `run`"))
            }
        }
    }
}

/// `receipts.verify`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VerifyReceipt {
    pub(super) receipt: Receipt,
}

/// `tools.install`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InstallTool {
    /// Absolute path of the manifest on the daemon's machine.
    pub(super) manifest: std::path::PathBuf,
    /// Why it is installed although its golden cases fail.
    #[serde(default)]
    pub(super) accept_failing: Option<String>,
}

/// `sessions.revoke`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfSession {
    pub(super) session: SessionId,
}

/// `tokens.revoke`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfToken {
    pub(super) token: CredentialName,
}

/// `tokens.list`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListTokens {
    /// Those that ended too.
    #[serde(default)]
    pub(super) all: bool,
    /// Sessions instead of tokens.
    #[serde(default)]
    pub(super) sessions: bool,
    /// The `next_cursor` of the page before.
    #[serde(default)]
    pub(super) cursor: Option<u64>,
}

/// `session.authenticate`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ShowToken {
    /// The token. It is never logged; the type has no `Debug`.
    pub(super) token: String,
}

/// A plan by id or by digest.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct PlanText(pub(super) PlanName);

/// Why a text names no plan.
#[derive(Debug, thiserror::Error)]
#[error("expected a plan id (`plan_` and a UUID) or a plan digest (64 hexadecimal digits)")]
pub(super) struct NotAPlan;

impl TryFrom<String> for PlanText {
    type Error = NotAPlan;

    fn try_from(text: String) -> Result<Self, NotAPlan> {
        if let Ok(id) = text.parse::<PlanId>() {
            return Ok(Self(PlanName::Id(id)));
        }
        text.parse::<Digest>().map(|digest| Self(PlanName::Digest(digest))).map_err(|_| NotAPlan)
    }
}

/// `calls.execute`, `calls.preview` without the input.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CallParams {
    tool: ToolName,
    #[serde(default)]
    mode: Option<Mode>,
    #[serde(default)]
    run: Option<RunId>,
    #[serde(default)]
    step: Option<String>,
    #[serde(default)]
    idempotency_key: Option<String>,
    #[serde(default)]
    auto_key: bool,
    #[serde(default)]
    deadline_ms: Option<u64>,
    #[serde(default)]
    expect_plan: Option<Digest>,
    #[serde(default)]
    transaction: Option<TransactionId>,
    #[serde(default)]
    usage: Option<ReportedUsage>,
}

/// A call, and whether the client wants to hear of its progress.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) request: CallRequest,
    /// `_meta.progress` is `true`.
    pub(super) progress: bool,
}

/// Read the parameters of a call. `calls.preview` is `calls.execute` whose mode is fixed.
///
/// # Errors
/// A member is unknown, missing or of the wrong type.
pub(super) fn call(mut params: Map<String, Value>, fixed: Option<Mode>) -> Result<Call, Fault> {
    let input = params.remove("input").ok_or_else(|| {
        bad("`input` is missing").map_field("/input", "the tool's input, an object as its schema says")
    })?;
    let meta = params.remove("_meta");
    let rest: CallParams = read(params)?;
    let mode = match (fixed, rest.mode) {
        (None, mode) => mode.unwrap_or_default(),
        (Some(fixed), None) => fixed,
        (Some(fixed), Some(mode)) if fixed == mode => fixed,
        (Some(_), Some(_)) => {
            return Err(bad("`calls.preview` only previews").map_field("/mode", "`preview`, or leave it out"));
        }
    };
    let progress = meta.as_ref().is_some_and(|meta| meta.get("progress") == Some(&Value::Bool(true)));
    Ok(Call {
        request: CallRequest {
            tool: rest.tool,
            input,
            mode,
            run: rest.run,
            step: rest.step,
            idempotency_key: rest.idempotency_key,
            auto_key: rest.auto_key,
            deadline_ms: rest.deadline_ms,
            expect_plan: rest.expect_plan,
            transaction: rest.transaction,
            usage: rest.usage,
            meta,
        },
        progress,
    })
}

/// Read parameters of one shape.
///
/// # Errors
/// A member is unknown, missing or of the wrong type; the fault points at it.
pub(super) fn read<T: DeserializeOwned>(mut params: Map<String, Value>) -> Result<T, Fault> {
    params.remove("_meta");
    let value = Value::Object(params);
    // Only what is refused is read a second time, then with a note of where the reader is.
    match T::deserialize(&value) {
        Ok(params) => Ok(params),
        Err(_) => json::typed(value).map_err(|e| Fault::protocol(INVALID_PARAMS, e.into())),
    }
}

fn bad(message: &str) -> Fault {
    Fault::protocol(INVALID_PARAMS, Refusal::new(Code::InvalidInput, message))
}

impl Fault {
    fn map_field(mut self, pointer: &str, expected: &str) -> Self {
        let problem = self.refusal.message.clone();
        self.refusal = Box::new(self.refusal.field(pointer, problem, expected));
        self
    }
}

#[cfg(test)]
mod tests;
