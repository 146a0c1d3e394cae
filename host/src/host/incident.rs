//! The four questions of an incident (R60): what context was used, which policy allowed the step, what was executed, and
//! which check did not catch it.
//!
//! Everything is read from the record; nothing runs again. Checks are listed in the order in which a call passes them, each
//! with what it said, so that whoever looks sees the ones that let it through. What policies and schemas hide stays
//! hidden here.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use toolkeep_core::call::{Mode, Outcome, Status};
use toolkeep_core::event::{Answer as Answered, Recording};
use toolkeep_core::id::{CallId, RunId};
use toolkeep_core::refusal::{Code, Refusal};

use super::Host;
use crate::authenticate::Operator;
use crate::ledger::{Page, Scope, StoredCall, StoredPlan};
use crate::notes::Notes;
use crate::redaction::Shown;

/// Observations of one execution that are listed.
const OBSERVED_MAX: usize = 500;
/// Calls of a run that are listed in one answer.
const CALLS_MAX: u32 = 50;

/// What the incident is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IncidentOf {
    /// One call.
    Call(CallId),
    /// Every call of a run.
    Run(RunId),
}

impl Host {
    /// Answer the four questions about a call or a run of the operator's tenant.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn incident(&self, operator: &Operator, of: IncidentOf, cursor: Option<u64>) -> Result<Value, Refusal> {
        let scope = Scope::Tenant(operator.tenant().clone());
        match of {
            IncidentOf::Call(call) => {
                let stored = self.ledger().call(&scope, call).await.map_err(|e| e.refusal())?;
                let stored = stored.ok_or_else(|| Refusal::not_found("call"))?;
                self.incident_of_call(&scope, &stored).await
            }
            IncidentOf::Run(run) => self.incident_of_run(&scope, run, cursor).await,
        }
    }

    async fn incident_of_run(&self, scope: &Scope, run: RunId, cursor: Option<u64>) -> Result<Value, Refusal> {
        let found = self.ledger().run(scope, run).await.map_err(|e| e.refusal())?;
        let (row, _) = found.ok_or_else(|| Refusal::not_found("run"))?;
        let mark = self.ledger().run_mark(run).await.map_err(|e| e.refusal())?;
        let page = Page { cursor, limit: CALLS_MAX };
        let calls = self.ledger().calls_of_run(scope, run, page).await.map_err(|e| e.refusal())?;
        let mut shown = Vec::with_capacity(calls.items.len());
        for stored in &calls.items {
            shown.push(self.incident_of_call(scope, stored).await?);
        }
        let (taint, breaches) = mark.map(|mark| (mark.taint, mark.breaches)).unwrap_or_default();
        Ok(json!({"run": run, "label": &*row.label, "principal": row.principal, "opened_at_ms": row.opened_ms,
            "closed_at_ms": row.closed_ms, "taint": taint, "breaches": breaches, "calls": shown,
            "next_cursor": calls.next}))
    }

    async fn incident_of_call(&self, scope: &Scope, stored: &StoredCall) -> Result<Value, Refusal> {
        let row = &stored.row;
        let notes = self.ledger().notes(scope, row.call).await.map_err(|e| e.refusal())?;
        let notes = notes.as_deref().map(Notes::read).unwrap_or_default();
        let shown = self.redaction().shown(&row.input, &row.reply, &self.hidden_by(notes.clone(), stored));
        let plan = match stored.plan {
            Some(plan) => self.ledger().plan(scope, plan).await.map_err(|e| e.refusal())?,
            None => None,
        };
        let recording = self.ledger().recording(scope, row.call).await.map_err(|e| e.refusal())?;
        let recording: Option<Recording> = recording.as_deref().and_then(|text| serde_json::from_str(text).ok());
        let reply: Value = serde_json::from_str(&row.reply).unwrap_or_default();
        Ok(json!({
            "call_id": row.call, "tool": row.tool, "principal": row.principal, "run": row.run,
            "step": row.step.as_deref(), "mode": row.mode, "status": row.status, "outcome": row.outcome,
            "error": row.error_code, "started_at_ms": row.started_ms, "ended_at_ms": row.ended_ms,
            "context": context(stored, &notes, plan.as_ref(), recording.as_ref(), &shown),
            "allowed_by": self.allowed_by(stored, &notes, plan.as_ref()),
            "executed": executed(stored, plan.as_ref(), &reply),
            "checks": checks(stored, &notes, plan.as_ref()),
        }))
    }

    /// Which policies allowed it. What was noted then counts; a call of which nothing was noted is asked about again.
    fn allowed_by(&self, stored: &StoredCall, notes: &Notes, plan: Option<&StoredPlan>) -> Value {
        let row = &stored.row;
        let approval = plan.and_then(|plan| plan.approval.as_ref()).map(|approval| {
            let votes: Vec<Value> = approval
                .votes
                .iter()
                .map(|vote| {
                    json!({"approver": vote.approver, "approved": vote.approved, "reason": &*vote.reason,
                        "at_ms": vote.at_ms, "via": vote.via})
                })
                .collect();
            json!({"id": approval.row.id, "state": approval.state.word(), "reason": &*approval.row.reason, "votes": votes})
        });
        if let Some(ruling) = &notes.ruling {
            return json!({"asked": "then", "ruling": ruling, "approval": approval});
        }
        let Some(tool) = self.catalog().current().tool(&row.tool) else {
            return json!({"asked": "never", "ruling": null, "approval": approval});
        };
        let answer = self.replayed(&self.policies(), &tool, stored, plan);
        json!({"asked": "now", "ruling": answer.view(), "approval": approval})
    }
}

/// Inputs, observations and taint.
fn context(
    stored: &StoredCall,
    notes: &Notes,
    plan: Option<&StoredPlan>,
    recording: Option<&Recording>,
    shown: &Shown,
) -> Value {
    let row = &stored.row;
    let mut observed: BTreeSet<String> = BTreeSet::new();
    let events = recording.map(|recording| recording.events.as_slice()).unwrap_or_default();
    for event in events.iter().filter(|event| !event.about.is_empty()) {
        let refused = match &event.answer {
            Answered::Error(code) => format!(" -> {code}"),
            Answered::Done | Answered::Value(_) | Answered::Bytes { .. } => String::new(),
        };
        if observed.len() < OBSERVED_MAX {
            observed.insert(format!("{} {}{refused}", event.import, event.about));
        }
    }
    let reads = plan.map(|plan| plan.plan.body().read_set.iter().take(OBSERVED_MAX).cloned().collect::<Vec<_>>());
    json!({"input": shown.input, "input_digest": row.input_digest, "output": shown.output, "component": row.component,
        "manifest": row.manifest, "observed": observed, "observations": events.len(), "reads": reads,
        "keys_read": plan.map(|plan| plan.plan.body().keys_read.clone()), "taint": notes.taint,
        "run_taint": notes.run_taint, "findings": notes.findings})
}

/// Effects, and what is proved of them.
fn executed(stored: &StoredCall, plan: Option<&StoredPlan>, reply: &Value) -> Value {
    let effects = plan.map(|plan| plan.plan.body().effects.as_slice()).unwrap_or_default();
    let subjects: Vec<String> = effects
        .iter()
        .take(OBSERVED_MAX)
        .map(|effect| format!("{} {}", effect.kind(), toolkeep_core::render::subject(effect)))
        .collect();
    json!({"outcome": stored.row.outcome, "plan": plan.map(|plan| plan.plan.id()),
        "plan_digest": plan.map(|plan| plan.plan.digest()), "totals": plan.map(|plan| plan.plan.totals()),
        "effects": subjects, "more_effects": effects.len().saturating_sub(OBSERVED_MAX),
        "receipt": reply.get("receipt"), "usage": stored.row.usage})
}

/// The checks in their order, as far as the call came, with what each said.
fn checks(stored: &StoredCall, notes: &Notes, plan: Option<&StoredPlan>) -> Vec<Value> {
    let row = &stored.row;
    let code = row.error_code;
    let mut said: Vec<Value> = Vec::new();
    let mut say = |check: &str, verdict: &str, detail: String| {
        said.push(json!({"check": check, "verdict": verdict, "detail": detail}));
    };
    let found = row.component.is_some();
    if !found {
        let why = code.map_or("not found", Code::word).to_owned();
        say("input", "stopped it", why);
        return said;
    }
    say("input", "passed", "the tool exists and its schema allows the input".to_owned());
    let ran = row.usage.fuel > 0 || row.usage.host_calls > 0 || plan.is_some();
    if !ran && row.status == Status::Denied {
        say("policy of the call", "stopped it", code.map_or("denied", Code::word).to_owned());
        return said;
    }
    say("policy of the call", "passed", names(notes, true));
    if let Some(code) = code.filter(|code| is_limit(*code)) {
        say("limits of the execution", "stopped it", code.word().to_owned());
        return said;
    }
    say("limits of the execution", "passed", format!("fuel {}", row.usage.fuel));
    if code == Some(Code::ToolFailed) {
        say("the tool itself", "stopped it", "it reported an error".to_owned());
        return said;
    }
    if code == Some(Code::ToolTrapped) {
        say("output", "stopped it", "it trapped, or its schema forbids the output".to_owned());
        return said;
    }
    say("output", "passed", "its schema allows the output".to_owned());
    let findings: Vec<&str> = notes.findings.iter().map(|finding| finding.suspicion.word()).collect();
    let screen = if findings.is_empty() { "passed" } else { "labelled it" };
    say("screen", screen, findings.join(", "));
    let words: Vec<&str> = notes.run_taint.words().collect();
    say("taint", if words.is_empty() { "passed" } else { "labelled it" }, words.join(", "));
    let Some(plan) = plan else { return said };
    let ruling = notes.ruling.as_ref();
    let decision = ruling.map_or("", |ruling| ruling.decision.as_str());
    let stopped = match decision {
        "deny" => "stopped it",
        "hold" => "held it",
        "preview" => "kept it a preview",
        _ => "passed",
    };
    let because = ruling.map(|ruling| ruling.because.clone()).unwrap_or_default();
    let by =
        if ruling.is_some_and(|ruling| ruling.plan.is_empty()) { "the floor".to_owned() } else { names(notes, false) };
    say(
        "tiers, autonomy and policy of the plan",
        stopped,
        [by, because].into_iter().filter(|t| !t.is_empty()).collect::<Vec<_>>().join(": "),
    );
    if let Some(standing) = ruling.and_then(|ruling| ruling.standing) {
        say("standing approval", "passed", standing.to_string());
    }
    if let Some(approval) = &plan.approval {
        say(
            "people",
            match row.outcome {
                Outcome::Committed => "passed",
                _ => "did not pass it",
            },
            approval.state.word().to_owned(),
        );
    }
    if row.mode == Mode::Commit {
        let verdict = match row.outcome {
            Outcome::Committed => "passed",
            Outcome::Discarded | Outcome::Halted | Outcome::Unknown => "stopped it",
            _ => "not reached",
        };
        say("world unchanged since the plan", verdict, code.map_or(String::new(), |code| code.word().to_owned()));
    }
    said
}

fn names(notes: &Notes, call: bool) -> String {
    let policies = notes.ruling.as_ref().map(|ruling| if call { &ruling.call } else { &ruling.plan });
    policies.map(|names| names.join(", ")).unwrap_or_default()
}

const fn is_limit(code: Code) -> bool {
    matches!(code, Code::OutOfFuel | Code::DeadlineExceeded | Code::MemoryExceeded | Code::OutputTooLarge)
}
