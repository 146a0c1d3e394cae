//! Replies of calls, as every command that makes one shows them.
//!
//! The output of the tool, or the plan of a preview, is the data. What became of the effects is told on standard error,
//! and the exit status follows from the same pair of words.

use serde_json::{Value, json};
use toolkeep_core::call::{Outcome, Reply};
use toolkeep_core::display::visible;

use super::client::AgentClient;
use super::context::Context;
use super::exit::Exit;
use super::failure::Failure;
use super::plan_page::{self, PlanPages};
use super::ui::{Output, time};
use crate::daemon::method::AgentMethod;

/// Show the result of a call-like method and derive the exit status. `fetch` gets the pages of its plan, where
/// the reply is about one that is not decided; `next` is what to do with a previewed plan.
///
/// # Errors
/// The daemon answered no reply, or standard output is gone.
pub(super) fn show(
    context: &Context<'_>,
    result: &Value,
    next: Option<&str>,
    fetch: impl FnOnce(&str) -> Result<PlanPages, Failure>,
) -> Result<Exit, Failure> {
    let replayed = result.get("replayed").and_then(Value::as_bool).unwrap_or(false);
    let value = result.get("reply").cloned().unwrap_or_default();
    let budget = result.get("budget_remaining").cloned().unwrap_or_default();
    let reply: Reply = serde_json::from_value(value.clone())
        .map_err(|error| Failure::Other(format!("the daemon answered a reply that is not one: {error}")))?;
    let code = reply.error.as_ref().map(|refusal| refusal.code);
    let exit = Exit::of_reply(reply.status, reply.outcome, code);
    let ui = &context.ui;
    match ui.output() {
        Output::Json | Output::Jsonl => ui.value(&envelope(value, replayed, budget), String::new)?,
        Output::Table => {
            let undecided = matches!(reply.outcome, Outcome::Previewed | Outcome::Pending);
            if let Some(plan) = reply.plan.as_ref().filter(|_| undecided) {
                ui.text(&fetch(&plan.id.to_string())?.render(ui))?;
            }
            // The output of a call that failed may speak of files that were never written.
            if let Some(output) = reply.output.as_ref().filter(|_| matches!(exit, Exit::Ok | Exit::Held)) {
                if undecided {
                    ui.text("\noutput")?;
                }
                ui.json(output)?;
            }
        }
    }
    tell(context, &reply, replayed, next);
    if let Some(refusal) = reply.error.filter(|_| exit != Exit::Ok && exit != Exit::Held) {
        ui.failure(&refusal.into());
    }
    Ok(exit)
}

/// Show the result of a call-like method of the agent plane.
///
/// # Errors
/// As [`show`].
pub(super) fn show_own(context: &Context<'_>, result: &Value, client: &mut AgentClient) -> Result<Exit, Failure> {
    let plan = result.pointer("/reply/plan/id").and_then(Value::as_str).unwrap_or_default();
    let next = format!("toolkeep commit {}", visible(plan));
    show(context, result, Some(&next), |plan| plan_page::fetch(context, client, plan))
}

/// The envelope as `docs/protocol.md` describes it: what stands beside the stored bytes is put in again.
fn envelope(mut reply: Value, replayed: bool, budget: Value) -> Value {
    if let Value::Object(members) = &mut reply {
        members.insert("replayed".to_owned(), json!(replayed));
        members.insert("budget_remaining".to_owned(), budget);
    }
    reply
}

/// What became of the effects, in a line or two for people.
fn tell(context: &Context<'_>, reply: &Reply, replayed: bool, next: Option<&str>) {
    let ui = &context.ui;
    let id = reply.call_id;
    let again = if replayed { ", the stored reply of an earlier request" } else { "" };
    let plan = reply.plan.as_ref();
    let effects = counted(plan.map_or(0, |plan| plan.totals.effects));
    match reply.outcome {
        Outcome::None => ui.note(&format!("{id}: no effects{again}")),
        Outcome::Staged => {
            if let Some(transaction) = &reply.transaction {
                let (calls, all) = (transaction.calls, counted(transaction.totals.effects));
                ui.note(&format!(
                    "{id}: staged, nothing is changed{again}; {all} of {calls} call(s) in the transaction"
                ));
                let until = time(transaction.expires_at_ms);
                ui.note(&format!("commit with `toolkeep transactions commit {}` before {until}", transaction.id));
            }
        }
        Outcome::Previewed => {
            ui.note(&format!("{id}: previewed {effects}, nothing is changed{again}"));
            if let (Some(plan), Some(next)) = (plan, next) {
                ui.note(&format!("commit with `{next}` before {}", time(plan.expires_at_ms)));
            }
        }
        Outcome::Pending => {
            ui.note(&format!("{id}: held {effects}, nothing is changed{again}"));
            if let Some(approval) = &reply.approval {
                let people = if approval.approvers == 1 { "one person" } else { "people" };
                ui.note(&format!(
                    "{people} must agree ({}) before {}: `toolkeep approvals show {}`",
                    approval.approvers,
                    time(approval.expires_at_ms),
                    approval.id
                ));
            }
        }
        Outcome::Committed => {
            let receipt = reply.receipt.as_ref().map(|r| format!(", receipt {}", r.statement.receipt));
            ui.note(&format!("{id}: committed {effects}{}{again}", receipt.unwrap_or_default()));
        }
        Outcome::Discarded => ui.note(&format!("{id}: the effects were thrown away, nothing is changed{again}")),
        Outcome::Unknown => ui.note(&format!("{id}: it is not known what happened{again}")),
        Outcome::Halted => {
            ui.note(&format!("{id}: halted; `toolkeep doctor` lists what is neither old nor new{again}"));
        }
    }
    for warning in &reply.warnings {
        ui.note(&format!("warning: {}", visible(warning)));
    }
}

fn counted(effects: u64) -> String {
    if effects == 1 { "1 effect".to_owned() } else { format!("{effects} effects") }
}

/// Wait for the approval of a held call, however long that takes, and give the result that it then has.
///
/// # Errors
/// The daemon refuses or goes away.
pub(super) fn wait(context: &Context<'_>, client: &mut AgentClient, mut result: Value) -> Result<Value, Failure> {
    while result.pointer("/reply/outcome").and_then(Value::as_str) == Some("pending") {
        let Some(approval) = result.pointer("/reply/approval/id").cloned() else { break };
        context.ui.note(&format!("waiting for approval {}", visible(approval.as_str().unwrap_or_default())));
        result = client.ask(
            &context.ui,
            AgentMethod::ApprovalsWait,
            json!({"approval": approval, "timeout_ms": WAIT_MS}),
        )?;
    }
    Ok(result)
}

/// How long one `approvals.wait` of the command line lasts, in milliseconds; it asks again.
const WAIT_MS: u64 = 60_000;
