//! Stage 2, validate: from a request to a [`Call`] of an exact tool with an input that its schema allows.
//!
//! Every problem is reported at once, each with its JSON Pointer and what was expected, because the reader is often a
//! model that corrects itself. Identity is not looked for in the input.

use std::sync::Arc;

use serde_json::Value;
use toolkeep_core::call::{CallRequest, Mode, ReportedUsage};
use toolkeep_core::digest::Digest;
use toolkeep_core::id::{CallId, RunId, TransactionId};
use toolkeep_core::json;
use toolkeep_core::limit::{KEY_MAX_BYTES, STEP_MAX_BYTES};
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_core::tier::Tier;
use uuid::Uuid;

use crate::authenticate::Caller;
use crate::catalog::{Catalog, Tool};
use crate::schema;
use crate::workspaces::Workspaces;

/// Proof: a request for an exact tool with a valid input.
#[derive(Debug)]
pub struct Call {
    caller: Caller,
    tool: Arc<Tool>,
    id: CallId,
    input: Arc<str>,
    input_digest: Digest,
    request_digest: Digest,
    options: CallOptions,
}

/// What the caller asked besides tool and input.
#[derive(Debug, Clone, Default)]
pub struct CallOptions {
    /// Commit or preview.
    pub mode: Mode,
    /// The run.
    pub run: Option<RunId>,
    /// The step of the run.
    pub step: Option<String>,
    /// Names the call for retries.
    pub key: Option<String>,
    /// A shorter deadline, in milliseconds.
    pub deadline_ms: Option<u64>,
    /// Commit only this plan.
    pub expect_plan: Option<Digest>,
    /// The open transaction that the effects are staged in.
    pub transaction: Option<TransactionId>,
    /// What the caller says that its model used.
    pub usage: Option<ReportedUsage>,
}

impl Call {
    /// Who acts.
    #[must_use]
    pub const fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The exact tool.
    #[must_use]
    pub const fn tool(&self) -> &Arc<Tool> {
        &self.tool
    }

    /// The call's id.
    #[must_use]
    pub const fn id(&self) -> CallId {
        self.id
    }

    /// The input as RFC 8785 canonical JSON.
    #[must_use]
    pub const fn input(&self) -> &Arc<str> {
        &self.input
    }

    /// SHA-256 of the canonical input.
    #[must_use]
    pub const fn input_digest(&self) -> Digest {
        self.input_digest
    }

    /// What an idempotency key is bound to: tool, input, mode and transaction.
    #[must_use]
    pub const fn request_digest(&self) -> Digest {
        self.request_digest
    }

    /// What the caller asked besides.
    #[must_use]
    pub const fn options(&self) -> &CallOptions {
        &self.options
    }
}

/// Check a request.
///
/// # Errors
/// `not_found` for an unknown tool, and for one that works in a workspace of another tenant; `invalid_input` with every field that is wrong.
pub fn validate(
    catalog: &Catalog,
    caller: &Caller,
    request: CallRequest,
    id: CallId,
    workspaces: &Workspaces,
) -> Result<Call, Refusal> {
    let foreign = |tool: &Arc<Tool>| workspaces.is_foreign(&tool.manifest, &caller.principal().tenant);
    let tool = catalog.tool(&request.tool).filter(|tool| !foreign(tool)).ok_or_else(|| {
        Refusal::new(Code::NotFound, format!("no tool is called `{}`", request.tool))
            .hint("ask `tools.list` for the names")
    })?;
    check_options(&request)?;
    check_input(&tool, &request.input)?;
    let (input, input_digest) = json::input_digest(&request.input)
        .map_err(|e| Refusal::new(Code::InvalidInput, format!("the input cannot be made canonical: {e}")))?;
    let transaction = request.transaction.map(|transaction| transaction.to_string());
    let mut parts = vec![tool.name.as_str().as_bytes(), input_digest.as_bytes(), request.mode.word().as_bytes()];
    parts.extend(transaction.as_deref().map(str::as_bytes));
    let request_digest = Digest::of_parts("toolkeep.request.v1", &parts);
    let key = match request.auto_key {
        true => automatic_key(caller, &tool, &request, input_digest)?,
        false => request.idempotency_key,
    };
    Ok(Call {
        caller: caller.clone(),
        tool,
        id,
        input: input.into(),
        input_digest,
        request_digest,
        options: CallOptions {
            mode: request.mode,
            run: request.run,
            step: request.step,
            key,
            deadline_ms: request.deadline_ms,
            expect_plan: request.expect_plan,
            transaction: request.transaction,
            usage: request.usage,
        },
    })
}

/// Names every automatic key: a UUID of its own, so that no other name gives the same.
const KEYS: Uuid = Uuid::from_u128(0x6f1c_2a5e_93b4_4d07_8e21_5a7c_0d3f_b946);

/// The key that names a call by who makes it, of what, and at which step of its run. A call that changes nothing needs none.
///
/// # Errors
/// `invalid_input`: it has a key of its own, or no step of a run.
fn automatic_key(
    caller: &Caller,
    tool: &Tool,
    request: &CallRequest,
    input: Digest,
) -> Result<Option<String>, Refusal> {
    let mut refusal = Refusal::new(Code::InvalidInput, "an automatic key names a step of a run");
    if request.idempotency_key.is_some() {
        refusal = refusal.field("/auto_key", "is set beside `idempotency_key`", "one of the two");
    }
    let (Some(run), Some(step), true) = (request.run, &request.step, refusal.fields.is_empty()) else {
        for (pointer, missing) in [("/run", request.run.is_none()), ("/step", request.step.is_none())] {
            if missing {
                refusal = refusal.field(pointer, "is missing", "the run and the step that the call belongs to");
            }
        }
        return Err(refusal);
    };
    if tool.tier == Tier::ReadOnly {
        return Ok(None);
    }
    let who = caller.principal();
    let transaction = request.transaction.map(|transaction| transaction.to_string()).unwrap_or_default();
    let parts = [
        who.tenant.as_str().as_bytes(),
        who.user.as_str().as_bytes(),
        who.agent.as_str().as_bytes(),
        tool.name.as_str().as_bytes(),
        input.as_bytes(),
        run.uuid().as_bytes(),
        step.as_bytes(),
        request.mode.word().as_bytes(),
        transaction.as_bytes(),
    ];
    let name = Digest::of_parts("toolkeep.automatic-key.v1", &parts);
    Ok(Some(format!("auto-{}", Uuid::new_v5(&KEYS, name.as_bytes()))))
}

fn check_options(request: &CallRequest) -> Result<(), Refusal> {
    let printable = |text: &str, most: usize| (1..=most).contains(&text.len()) && !text.chars().any(char::is_control);
    let mut refusal = Refusal::new(Code::InvalidInput, "a parameter of the call is wrong");
    if request.idempotency_key.as_deref().is_some_and(|key| !printable(key, KEY_MAX_BYTES)) {
        refusal = refusal.field("/idempotency_key", "is empty, too long or has control characters", "1 to 128 bytes");
    }
    if request.step.as_deref().is_some_and(|step| !printable(step, STEP_MAX_BYTES)) {
        refusal = refusal.field("/step", "is empty, too long or has control characters", "1 to 128 bytes");
    }
    if request.deadline_ms == Some(0) {
        refusal = refusal.field("/deadline_ms", "is 0", "at least 1 millisecond");
    }
    if request.transaction.is_some() && request.mode == Mode::Commit && request.expect_plan.is_some() {
        refusal = refusal.field(
            "/expect_plan",
            "names a plan, but a call of a transaction commits none",
            "nothing; give it to `transactions.commit`",
        );
    }
    if refusal.fields.is_empty() { Ok(()) } else { Err(refusal) }
}

fn check_input(tool: &Tool, input: &Value) -> Result<(), Refusal> {
    let schema = tool.input()?;
    if schema.is_valid(input) {
        return Ok(());
    }
    let fields = schema::problems(schema, &tool.descriptor.input_schema, input, "/input");
    let mut refusal = Refusal::new(Code::InvalidInput, format!("the input is not valid for `{}`", tool.name));
    refusal.fields = fields;
    Err(refusal)
}
