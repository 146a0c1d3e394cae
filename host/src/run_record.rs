//! Run records: what a run did, as one JSON object, for whoever audits or analyses it elsewhere.
//!
//! A record of a run has a step for each of its calls; a call without a run is a record of one step. A run of many calls is
//! told in several records, one after the other. What policies and schemas hide is hidden, and of a tool of which nobody
//! knows what is to be hidden nothing is shown but digests; long contents are cut and named by their digests. Records are
//! made of rows, which the audit covers by digests: the entries of a call name it, with the digest of its input.

use serde_json::{Map, Value, json};
use toolkeep_core::budget::{Amounts, Limits, Meter};
use toolkeep_core::call::{Outcome, Status};
use toolkeep_core::digest::Digest;
use toolkeep_core::id::ToolName;
use toolkeep_core::price::Usd;
use toolkeep_core::redact;
use toolkeep_core::refusal::Code;

use crate::budget::run::{raised_of, terms_of};
use crate::ledger::{CallRow, RunRow, Step, StoredApproval};
use crate::notes::Notes;

/// Bytes of an input and of an output that a record shows; more is cut.
pub const INPUT_SHOWN_BYTES: usize = 16 * 1024;
/// As [`INPUT_SHOWN_BYTES`], for outputs: they are more and matter less.
pub const OUTPUT_SHOWN_BYTES: usize = 4 * 1024;
/// Steps of one record; the rest follows in further parts.
pub const STEPS_MAX: u32 = 500;
/// Bytes of a step beside its input and output, about.
const STEP_BYTES: usize = 2 * 1024;
/// The version of the form. Members may be added without a new one.
const FORMAT: u32 = 1;

/// What is hidden of the contents of a tool: pointers that begin with `/input` or `/output`. Nothing where nobody knows.
pub type Hidden<'a> = &'a dyn Fn(&ToolName) -> Option<Vec<String>>;

/// The record of a run, or one part of it; says whether it is the first and the last. What is used and left is that after its
/// last step.
#[must_use]
pub fn of_run(run: &RunRow, (first, last): (bool, bool), steps: &[Step], hidden: Hidden<'_>) -> Value {
    let limits = limits_of(run);
    let last_used = steps.last().map(|step| step.used).unwrap_or_default();
    json!({
        "format": FORMAT, "run_id": run.run, "first_part": first, "last_part": last, "tenant": run.principal.tenant,
        "user": run.principal.user, "agent": run.principal.agent, "label": &*run.label, "workflow": run.workflow,
        "opened_at_ms": run.opened_ms, "closed_at_ms": run.closed_ms, "outcome": run.outcome.as_deref(),
        "held": run.held.as_ref().map(|held| json!({"code": held.code, "reason": &*held.reason})),
        "escalations": run.escalations, "budget": limits, "used": used_shown(&last_used),
        "budget_remaining": remaining(&limits, &last_used),
        "steps": steps.iter().map(|step| of_step(step, Some(&limits), hidden)).collect::<Vec<_>>(),
    })
}

/// The record of a call that belongs to no run.
#[must_use]
pub fn of_call(step: &Step, hidden: Hidden<'_>) -> Value {
    let row = &step.call.row;
    json!({
        "format": FORMAT, "run_id": null, "first_part": true, "last_part": true, "tenant": row.principal.tenant,
        "user": row.principal.user, "agent": row.principal.agent, "label": null, "workflow": null,
        "opened_at_ms": row.started_ms, "closed_at_ms": row.ended_ms, "outcome": null, "held": null, "escalations": 0,
        "budget": {}, "used": used_shown(&step.charged), "budget_remaining": null,
        "steps": [of_step(step, None, hidden)],
    })
}

fn limits_of(run: &RunRow) -> Limits {
    // Terms that cannot be read bind nobody to a record of them.
    let terms = terms_of(&run.terms).map(|terms| terms.budget).unwrap_or_default();
    terms.raised(&raised_of(&run.raised).unwrap_or_default())
}

/// What is left of each limit.
fn remaining(limits: &Limits, used: &Amounts) -> Value {
    let left = |meter: Meter| Some((meter, limits.left(meter, used, &Amounts::default())?));
    let shown = |(meter, left): (Meter, u64)| {
        let amount = if meter == Meter::Cost { json!(meter.text(left)) } else { json!(left) };
        (meter.word().to_owned(), amount)
    };
    let left: Map<String, Value> = Meter::ALL.into_iter().filter_map(left).map(shown).collect();
    if left.is_empty() { Value::Null } else { Value::Object(left) }
}

fn used_shown(used: &Amounts) -> Value {
    json!({"steps": used.steps, "calls": used.calls, "tokens": used.tokens, "fuel": used.fuel,
        "duration_ms": used.wall_ms, "cost_usd": Usd::of_micro(used.cost).to_string(),
        "reported_cost_usd": Usd::of_micro(used.reported_cost).to_string(), "requests": used.requests,
        "bytes_written": used.bytes_written})
}

fn of_step(step: &Step, limits: Option<&Limits>, hidden: Hidden<'_>) -> Value {
    let row = &step.call.row;
    let notes = step.notes.as_deref().map(Notes::read);
    let reply: Value = serde_json::from_str(&row.reply).unwrap_or_default();
    let trace = reply.get("trace_id").cloned();
    let (input, output) = contents(step, reply, notes.as_ref(), hidden);
    let ruling = notes.as_ref().and_then(|notes| notes.ruling.as_ref());
    json!({
        "seq": step.seq, "call_id": row.call, "step": row.step.as_deref(), "tool": row.tool,
        "component": row.component, "manifest": row.manifest, "policy_set": row.policy_set, "tier": row.tier,
        "mode": row.mode, "input": input, "input_sha256": row.input_digest, "input_matches": input_matches(row),
        "output": output, "reply_sha256": reply_digest(row), "trace_id": trace,
        "status": row.status, "outcome": row.outcome,
        "error": row.error_code, "decision": decision(step, ruling.map(|ruling| ruling.decision.as_str())),
        "decided_by": ruling.map(|ruling| json!({"because": ruling.because, "call": ruling.call, "plan": ruling.plan,
            "autonomy": ruling.autonomy, "standing": ruling.standing})),
        "approvals": step.approval.as_ref().map(approval).into_iter().collect::<Vec<_>>(),
        "plan": step.call.plan.map(|plan| json!({"id": plan, "state": step.plan_state.as_deref()})),
        "taint": notes.as_ref().map(|notes| notes.taint), "findings": notes.as_ref().map_or(0, |notes| notes.findings.len()),
        "started_at_ms": row.started_ms, "ended_at_ms": row.ended_ms, "duration_ms": row.usage.wall_ms,
        "usage": row.usage, "tokens": step.charged.tokens,
        "cost_usd": Usd::of_micro(step.charged.cost).to_string(),
        "reported_cost_usd": Usd::of_micro(step.charged.reported_cost).to_string(),
        "budget_remaining": limits.map(|limits| remaining(limits, &step.used)), "recorded": step.recorded,
    })
}

/// Whether the stored input is the one that the digest is of; nothing where it is not kept, or not readable here.
fn input_matches(row: &CallRow) -> Option<bool> {
    row.readable_input().map(|input| Digest::of(input.as_bytes()) == row.input_digest)
}

/// The digest of the stored reply, as the audit's last entry of the call has it; nothing where it is not kept, or not
/// readable here.
fn reply_digest(row: &CallRow) -> Option<Digest> {
    let kept = row.readable_input().is_some() && !row.reply.is_empty();
    kept.then(|| Digest::of(row.reply.as_bytes()))
}

/// Bytes that a step takes in a record, about.
#[must_use]
pub fn weight(step: &Step) -> usize {
    let row = &step.call.row;
    let output = step.output.as_ref().map_or(row.reply.len(), |output| output.len());
    let notes = step.notes.as_ref().map_or(0, |notes| notes.len());
    STEP_BYTES + row.input.len().min(INPUT_SHOWN_BYTES) + output.min(OUTPUT_SHOWN_BYTES) + notes
}

/// What was decided, in one word: what was noted, or what follows from how the call ended.
fn decision(step: &Step, noted: Option<&str>) -> String {
    if let Some(noted) = noted {
        return noted.to_owned();
    }
    let row = &step.call.row;
    let word = match (row.status, row.outcome, row.error_code) {
        (Status::Denied, ..) => "deny",
        (Status::Held, ..) => "hold",
        (_, Outcome::Previewed, _) => "preview",
        (_, Outcome::Staged, _) => "stage",
        (_, Outcome::Committed | Outcome::Unknown | Outcome::Halted, _) => "commit",
        (_, Outcome::Discarded, Some(Code::ApprovalRejected | Code::ApprovalExpired)) => "hold",
        (Status::Failed, ..) => "none",
        _ => "nothing",
    };
    word.to_owned()
}

fn approval(approval: &StoredApproval) -> Value {
    let vote = |vote: &crate::ledger::Vote| {
        json!({"approver": vote.approver, "approved": vote.approved, "reason": &*vote.reason, "at_ms": vote.at_ms,
            "via": vote.via})
    };
    json!({"id": approval.row.id, "state": approval.state.word(), "people": approval.row.approvers,
        "reason": &*approval.row.reason, "asked_at_ms": approval.made_ms,
        "votes": approval.votes.iter().map(vote).collect::<Vec<_>>()})
}

/// The input and the output as they are shown.
fn contents(step: &Step, mut reply: Value, notes: Option<&Notes>, hidden: Hidden<'_>) -> (Value, Value) {
    let row = &step.call.row;
    let mut output = match &step.output {
        Some(whole) => serde_json::from_str(whole).unwrap_or_default(),
        None => reply.get_mut("output").map(Value::take).unwrap_or_default(),
    };
    let mut input: Value = serde_json::from_str(&row.input).unwrap_or_default();
    let schema = hidden(&row.tool);
    // What is noted of a call includes what the schemas of its tool said then.
    if row.readable_input().is_none() || (schema.is_none() && notes.is_none()) {
        let output = if output.is_null() { Value::Null } else { named(Digest::of(output.to_string().as_bytes())) };
        return (named(row.input_digest), output);
    }
    let mut pointers = schema.unwrap_or_default();
    if let Some(notes) = notes {
        pointers.extend(notes.redact.iter().chain(&notes.sensitive).cloned());
    }
    redact::hide_under(&mut input, "/input", &pointers);
    redact::hide_under(&mut output, "/output", &pointers);
    (cut(input, INPUT_SHOWN_BYTES), cut(output, OUTPUT_SHOWN_BYTES))
}

/// A content by its digest alone.
fn named(digest: Digest) -> Value {
    json!({"hidden": true, "sha256": digest})
}

/// A value, or its beginning where it is long.
fn cut(value: Value, most: usize) -> Value {
    let text = value.to_string();
    if text.len() <= most {
        return value;
    }
    let mut end = most;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    json!({"truncated": true, "bytes": text.len(), "beginning": text.get(..end).unwrap_or_default()})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r40_a_content_is_shown_up_to_n_bytes_and_cut_at_the_next() {
        let fits = json!("x".repeat(OUTPUT_SHOWN_BYTES - 2));
        assert_eq!(cut(fits.clone(), OUTPUT_SHOWN_BYTES), fits);
        let long = cut(json!("x".repeat(OUTPUT_SHOWN_BYTES - 1)), OUTPUT_SHOWN_BYTES);
        assert_eq!((long["truncated"].clone(), long["bytes"].clone()), (json!(true), json!(OUTPUT_SHOWN_BYTES + 1)));
        let wide = cut(json!("é".repeat(OUTPUT_SHOWN_BYTES)), OUTPUT_SHOWN_BYTES);
        assert!(wide["beginning"].as_str().expect("text").ends_with('é'));
    }
}
