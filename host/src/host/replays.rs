//! Replays for operators: which call, with which version, and what of the answer may be shown.
//!
//! What a policy or a schema hides stays hidden: a divergence in an output that holds something hidden is told by its
//! digests alone.

use serde_json::{Value, json};
use toolkeep_core::digest::Digest;
use toolkeep_core::id::{CallId, TenantName, ToolName};
use toolkeep_core::refusal::Refusal;
use toolkeep_sandbox::execution::{Ended, Execution};

use super::Host;
use crate::authenticate::Operator;
use crate::ledger::{Attested, CallRow, Scope};
use crate::notes::Notes;
use crate::replay::{Subject, Verdict, Version, compare, keep_versions, not_replayable};

impl Host {
    /// Keep the manifests in force, for replays of later, and run the suites that new ones name. Nobody waits for it.
    pub(crate) fn keep_versions(&self) {
        let host = self.clone();
        self.spawn(async move {
            let catalog = host.catalog().current();
            match keep_versions(host.ledger(), catalog, host.ambient()).await {
                Ok(suites) => host.run_fresh(suites).await,
                Err(error) => {
                    tracing::error!(%error, "the manifests in force could not be kept; calls may not be replayable later");
                }
            }
        });
    }

    /// A call of the operator's tenant with everything that a replay needs, verified against the audit.
    pub(crate) async fn subject(&self, operator: &Operator, call: CallId) -> Result<Subject, Refusal> {
        let scope = Scope::Tenant(operator.tenant().clone());
        let recorded = self.ledger().recorded(&scope, call).await.map_err(|e| e.refusal())?;
        let recorded = recorded.ok_or_else(|| Refusal::not_found("call"))?;
        Subject::read(self.ledger(), &self.0.blobs, recorded).await
    }

    /// The version of its tool that a call ran.
    pub(crate) async fn version_of(&self, row: &CallRow) -> Result<Version, Refusal> {
        let (Some(manifest), Some(component)) = (row.manifest, row.component) else {
            return Err(not_replayable("it was refused before its tool was found"));
        };
        let catalog = self.catalog().current();
        Version::find((&catalog, self.ledger()), &ran(row), manifest, component).await
    }

    /// Compare, and show what may be shown.
    pub(crate) async fn compared(
        &self,
        operator: &Operator,
        subject: &Subject,
        version: &Version,
        execution: &Execution,
    ) -> Value {
        let row = &subject.row;
        let reply: Value = serde_json::from_str(&row.reply).unwrap_or_default();
        let recorded = reply.get("output").filter(|output| !output.is_null()).map(Value::to_string);
        let mut verdict = compare(&subject.recording, execution, recorded.as_deref());
        verdict.notes.extend(doubt(subject.attested).map(str::to_owned));
        if self.hides(operator.tenant(), row, version).await {
            hide(&mut verdict, subject, execution);
        }
        let mut shown = json!(verdict);
        if let Value::Object(members) = &mut shown {
            members.insert("call_id".to_owned(), json!(row.call));
            members.insert("tool".to_owned(), json!(version.name));
            members.insert("component".to_owned(), json!(version.component.digest));
            members.insert("manifest".to_owned(), json!(version.manifest.digest));
        }
        shown
    }

    /// Whether anything of what the call returned is hidden from eyes.
    pub(super) async fn hides(&self, tenant: &TenantName, row: &CallRow, version: &Version) -> bool {
        let scope = Scope::Tenant(tenant.clone());
        // What cannot be read may say that all of it is hidden.
        let Ok(notes) = self.ledger().notes(&scope, row.call).await else { return true };
        let Ok(notes) = notes.as_deref().map(serde_json::from_str::<Notes>).transpose() else { return true };
        let notes = notes.unwrap_or_default();
        let tool = version.tool.clone().or_else(|| self.catalog().current().tool(&version.name));
        !notes.redact.is_empty() || !notes.sensitive.is_empty() || tool.is_none_or(|tool| tool.is_sensitive())
    }
}

/// The tool that a call really ran: another one may have stood in.
pub(super) fn ran(row: &CallRow) -> ToolName {
    #[derive(serde::Deserialize)]
    struct Said {
        #[serde(default)]
        detour: toolkeep_core::call::Detour,
    }
    let said = serde_json::from_str::<Said>(&row.reply).ok();
    said.and_then(|said| said.detour.fallback).unwrap_or_else(|| row.tool.clone())
}

/// What is not certain about a recording that is replayed.
const fn doubt(attested: Attested) -> Option<&'static str> {
    match attested {
        Attested::Same | Attested::Changed => None,
        Attested::Unknown => {
            Some("the audit entry of the call was not found: that nobody changed its recording is not verified")
        }
    }
}

fn hide(verdict: &mut Verdict, subject: &Subject, execution: &Execution) {
    let Some(divergence) = verdict.divergence.as_mut().filter(|divergence| divergence.what != "fuel") else { return };
    let digests = match divergence.what {
        "output" | "end" => (subject.recording.end.sha256, execution.recording.end.sha256),
        _ => {
            let of = |value: &Value| Digest::of(value.to_string().as_bytes());
            (of(&divergence.expected), of(&divergence.got))
        }
    };
    (divergence.expected, divergence.got) = (json!({"sha256": digests.0}), json!({"sha256": digests.1}));
    verdict.notes.push("the tool or a policy hides a part of this call; only digests are shown".to_owned());
}

/// What an execution came to, for eyes: an output or why there is none.
pub(super) fn ending(execution: &Execution) -> (&'static str, String) {
    let text = match &execution.ended {
        Ended::Output(output) => output.clone(),
        Ended::Error(error) => format!("{:?}: {}", error.kind, error.message),
        Ended::Live(call) => format!("{} {}", call.method, call.url),
        Ended::Fault(fault) => fault.to_string(),
    };
    (execution.recording.end.how.word(), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r41_a_recording_that_nobody_vouches_for_is_replayed_with_a_word_about_it() {
        assert!(doubt(Attested::Unknown).is_some_and(|said| said.contains("not verified")));
        assert_eq!(doubt(Attested::Same), None);
    }
}
