//! A call: what an agent asks, what state it is in, and the one envelope that answers it.
//!
//! `status` says how the call went for the caller, `outcome` what became of its effects. Which pairs may occur is one
//! table, [`Outcome::allowed`]; the exit status of the CLI derives from the pair.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::budget::{AMOUNT_MAX, Amounts};
use crate::digest::Digest;
use crate::effect::Effect;
use crate::id::{ApprovalId, CallId, PlanId, RunId, ToolName, TransactionId};
use crate::plan::Totals;
use crate::price::Usd;
use crate::receipt::Receipt;
use crate::refusal::{Code, Refusal};
use crate::trace::TraceId;

/// What the caller wants to become of the effects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Commit what policy lets through, hold or deny the rest.
    #[default]
    Commit,
    /// Show the plan, commit nothing.
    Preview,
}

impl Mode {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Preview => "preview",
        }
    }
}

/// How the call went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It did what was asked.
    Ok,
    /// It waits for a human.
    Held,
    /// The host, a policy or a human said no.
    Denied,
    /// The tool or the host failed.
    Failed,
    /// It is not known whether an effect happened.
    Unknown,
}

/// What became of the effects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// There were none.
    None,
    /// They are in a plan that may be committed until it expires.
    Previewed,
    /// They are in an open transaction.
    Staged,
    /// They wait for an approval.
    Pending,
    /// They were applied.
    Committed,
    /// They were thrown away.
    Discarded,
    /// Nobody knows.
    Unknown,
    /// Some could be neither applied nor rolled back; the reply lists them.
    Halted,
}

impl Outcome {
    /// Whether a reply may carry this pair.
    #[must_use]
    pub const fn allowed(status: Status, outcome: Self) -> bool {
        match (status, outcome) {
            (Status::Ok, Self::None | Self::Previewed | Self::Staged | Self::Committed | Self::Discarded)
            | (Status::Held, Self::Pending)
            | (Status::Denied, Self::None | Self::Discarded)
            | (Status::Failed, Self::None | Self::Discarded | Self::Halted)
            | (Status::Unknown, Self::Unknown) => true,
            (Status::Ok, Self::Pending | Self::Unknown | Self::Halted)
            | (
                Status::Held,
                Self::None
                | Self::Previewed
                | Self::Staged
                | Self::Committed
                | Self::Discarded
                | Self::Unknown
                | Self::Halted,
            )
            | (
                Status::Denied,
                Self::Previewed | Self::Staged | Self::Pending | Self::Committed | Self::Unknown | Self::Halted,
            )
            | (Status::Failed, Self::Previewed | Self::Staged | Self::Pending | Self::Committed | Self::Unknown)
            | (
                Status::Unknown,
                Self::None
                | Self::Previewed
                | Self::Staged
                | Self::Pending
                | Self::Committed
                | Self::Discarded
                | Self::Halted,
            ) => false,
        }
    }
}

/// What a call asks, as it arrives. Identity is not part of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallRequest {
    /// Which tool.
    pub tool: ToolName,
    /// The input, not yet checked against the schema.
    pub input: Value,
    /// Commit or preview.
    #[serde(default)]
    pub mode: Mode,
    /// The run it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// The step of the run, chosen by the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Names the call, so that a retry gets the stored reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// Names the call by what it is and by the step of its run, instead of by a key of the caller's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub auto_key: bool,
    /// A shorter deadline than the manifest's, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// Commit only if the plan has exactly this digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect_plan: Option<Digest>,
    /// The open transaction that the call belongs to: its effects are staged there instead of committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transaction: Option<TransactionId>,
    /// What the caller's model used on the way to this call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<ReportedUsage>,
    /// Anything for the transport.
    #[serde(default, rename = "_meta", skip_serializing_if = "Option::is_none")]
    pub meta: Option<Value>,
}

/// What a caller says that its model used. It is believed and labelled: the host cannot meter it (D24).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportedUsage {
    /// Tokens that the model read.
    #[serde(default)]
    pub tokens_in: u64,
    /// Tokens that the model wrote.
    #[serde(default)]
    pub tokens_out: u64,
    /// What it cost.
    #[serde(default)]
    pub cost_usd: Usd,
    /// Steps of the agent that were no calls.
    #[serde(default)]
    pub steps: u64,
    /// Which model, for the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

/// Longest name of a model, in bytes.
pub const MODEL_MAX_BYTES: usize = 128;

impl ReportedUsage {
    /// The member that makes no sense, and what would.
    #[must_use]
    pub fn wrong(&self) -> Option<(&'static str, String)> {
        let numbers = [
            ("tokens_in", self.tokens_in),
            ("tokens_out", self.tokens_out),
            ("steps", self.steps),
            ("cost_usd", self.cost_usd.micro()),
        ];
        let large = numbers.into_iter().find(|(_, number)| *number > AMOUNT_MAX);
        let model =
            self.model.as_deref().filter(|name| name.len() > MODEL_MAX_BYTES || name.chars().any(char::is_control));
        large
            .map(|(name, _)| (name, format!("at most {AMOUNT_MAX}")))
            .or_else(|| model.map(|_| ("model", format!("at most {MODEL_MAX_BYTES} bytes without control characters"))))
    }

    /// What it adds to a budget.
    #[must_use]
    pub const fn amounts(&self) -> Amounts {
        Amounts {
            steps: self.steps,
            calls: 0,
            wall_ms: 0,
            fuel: 0,
            cost: 0,
            tokens: self.tokens_in.saturating_add(self.tokens_out),
            bytes_written: 0,
            requests: 0,
            approvals: 0,
            reported_cost: self.cost_usd.micro(),
        }
    }
}

impl CallRequest {
    /// A call of a tool with an input, and nothing else said.
    #[must_use]
    pub const fn of(tool: ToolName, input: Value) -> Self {
        Self {
            tool,
            input,
            mode: Mode::Commit,
            run: None,
            step: None,
            idempotency_key: None,
            auto_key: false,
            deadline_ms: None,
            expect_plan: None,
            transaction: None,
            usage: None,
            meta: None,
        }
    }
}

/// What a call did besides being executed once with the tool that it names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Detour {
    /// Executions, if it was more than one: the tool failed for a moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// The output is one that was kept: nothing was executed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cached: bool,
    /// The tool that was called instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<ToolName>,
    /// Why: the code that the first tool ended with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<Code>,
}

impl Detour {
    /// Whether the call went the straight way.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// What a call used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// Units of fuel.
    pub fuel: u64,
    /// Milliseconds from arrival to reply, waiting for approvals excluded.
    pub wall_ms: u64,
    /// Most bytes of linear memory at one time.
    pub memory_peak: u64,
    /// Calls from the guest into the host.
    pub host_calls: u64,
    /// Requests to other systems that were made, or may have been.
    #[serde(default)]
    pub http_requests: u64,
    /// What those cost, by the prices of the manifest.
    #[serde(default)]
    pub cost_usd: Usd,
}

/// The plan as a reply shows it: totals, and the first effects.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanView {
    /// The stored plan.
    pub id: PlanId,
    /// What it is.
    pub digest: Digest,
    /// Counts.
    pub totals: Totals,
    /// The first [`crate::limit::EFFECTS_SHOWN`]; `plans.get` pages through the rest.
    pub effects: Vec<Effect>,
    /// When it stops being committable: milliseconds since the Unix epoch.
    pub expires_at_ms: u64,
}

/// The approval that a held call waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApprovalView {
    /// Wait for it with `approvals.wait`.
    pub id: ApprovalId,
    /// How many distinct people have to agree.
    pub approvers: u8,
    /// When it counts as rejected: milliseconds since the Unix epoch.
    pub expires_at_ms: u64,
}

/// The transaction that a call belongs to, as it stands after the call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransactionView {
    /// Commit it with `transactions.commit`, drop it with `transactions.rollback`.
    pub id: TransactionId,
    /// Calls that are staged in it.
    pub calls: u32,
    /// What all of them together would change.
    pub totals: Totals,
    /// Names what is staged: the next call's recording names it as what it started from.
    pub layer: Digest,
    /// When it is rolled back by itself: milliseconds since the Unix epoch.
    pub expires_at_ms: u64,
}

/// The one reply of every call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reply {
    /// How it went.
    pub status: Status,
    /// What became of the effects.
    pub outcome: Outcome,
    /// The call.
    pub call_id: CallId,
    /// What the tool returned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// Why it did not do what was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Refusal>,
    /// What it wants to change, or did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanView>,
    /// Whom it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalView>,
    /// Proof of what was committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Receipt>,
    /// Where its effects are staged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transaction: Option<TransactionView>,
    /// Attempts, kept results and fallbacks.
    #[serde(default, skip_serializing_if = "Detour::is_none")]
    pub detour: Detour,
    /// What it used.
    pub usage: Usage,
    /// What the caller should know besides.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// What the output is and what was found in it, in words: `untrusted`, `private`, and those of
    /// [`crate::scan::Suspicion`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// The trace that the call belongs to: its caller's, its run's, or its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<TraceId>,
}

impl Reply {
    /// How a call stands, and nothing else said.
    #[must_use]
    pub fn of(call_id: CallId, status: Status, outcome: Outcome) -> Self {
        Self {
            status,
            outcome,
            call_id,
            output: None,
            error: None,
            plan: None,
            approval: None,
            receipt: None,
            transaction: None,
            detour: Detour::default(),
            usage: Usage::default(),
            warnings: Vec::new(),
            labels: Vec::new(),
            trace_id: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUSES: [Status; 5] = [Status::Ok, Status::Held, Status::Denied, Status::Failed, Status::Unknown];
    const OUTCOMES: [Outcome; 8] = [
        Outcome::None,
        Outcome::Previewed,
        Outcome::Staged,
        Outcome::Pending,
        Outcome::Committed,
        Outcome::Discarded,
        Outcome::Unknown,
        Outcome::Halted,
    ];

    #[test]
    fn r26_what_is_reported_holds_at_its_bounds_and_not_above() {
        let tokens = |n| ReportedUsage { tokens_in: n, tokens_out: 1, ..ReportedUsage::default() };
        assert_eq!((tokens(AMOUNT_MAX).wrong(), tokens(AMOUNT_MAX).amounts().tokens), (None, AMOUNT_MAX + 1));
        assert_eq!(tokens(AMOUNT_MAX + 1).wrong().map(|(name, _)| name), Some("tokens_in"));
        let model =
            |n: usize| ReportedUsage { model: Some("m".repeat(n)), ..ReportedUsage::default() }.wrong().is_none();
        assert!(model(MODEL_MAX_BYTES) && !model(MODEL_MAX_BYTES + 1));
        for wrong in [r#"{"tokens_in":-1}"#, r#"{"tokens_in":1.5}"#, r#"{"cost_usd":-0.1}"#, r#"{"tokens":1}"#] {
            assert!(serde_json::from_str::<ReportedUsage>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn r12_status_and_outcome_pairs_are_one_table() {
        let pairs = STATUSES.iter().flat_map(|s| OUTCOMES.iter().filter(|o| Outcome::allowed(*s, **o))).count();
        assert_eq!(pairs, 12);
        assert!(!Outcome::allowed(Status::Denied, Outcome::Committed));
        assert!(!Outcome::allowed(Status::Failed, Outcome::Committed));
        assert!(
            OUTCOMES.iter().all(|o| STATUSES.iter().any(|s| Outcome::allowed(*s, *o))),
            "every outcome is reachable"
        );
    }
}
