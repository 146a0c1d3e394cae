//! Policies, for the operator: which are in force, whether others would be valid, why something was decided, and what others
//! would change.
//!
//! An operator sees the policies of everybody and of the own tenant. Nothing here decides about a call: explaining and
//! comparing ask the same sets the same questions about recorded facts, and throw the answers away.

use std::sync::Arc;

use serde_json::{Value, json};
use toolkeep_core::audit::AuditKind;
use toolkeep_core::id::{AgentName, CallId, TenantName, ToolName, UserName};
use toolkeep_core::json::input_digest;
use toolkeep_core::principal::{Credential, Origin, Principal};
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_core::taint::Taint;

use super::Host;
use super::life::blocking;
use crate::authenticate::Operator;
use crate::catalog::Tool;
use crate::ledger::{Page, Scope, StoredCall, StoredPlan};
use crate::policy::set::Answer;
use crate::policy::{Circumstances, Finding, Matter, PlanFacts, Policies, Reloaded, Source, source, vocabulary};
use crate::validate::CallOptions;

/// Most recorded calls that one comparison looks at.
pub const DIFF_CALLS_MAX: u32 = 1_000;

/// A question that nobody asked yet.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Supposed {
    /// The user, of the operator's tenant.
    pub user: UserName,
    /// The agent.
    pub agent: AgentName,
    /// The tool.
    pub tool: ToolName,
    /// Its input.
    pub input: Value,
    /// What the run would have seen.
    #[serde(default)]
    pub taint: Taint,
}

impl Host {
    /// The policies in force, as far as the operator sees them, and the schema that they are written against.
    ///
    /// # Errors
    /// The schema cannot be written as text.
    pub fn policy_in_force(&self, operator: &Operator, schema: bool) -> Result<Value, Refusal> {
        let policies = self.policies();
        let files: Vec<&Source> = policies.sources().iter().filter(|source| sees(operator, source)).collect();
        let mut shown = self.policy_state();
        if let Value::Object(members) = &mut shown {
            members.insert("digest".to_owned(), json!(policies.digest(operator.tenant())));
            members.insert("files".to_owned(), json!(files));
            if schema {
                let catalog = self.catalog().current();
                let own =
                    catalog.tools().filter(|tool| !self.workspaces().is_foreign(&tool.manifest, operator.tenant()));
                let text = vocabulary::text(own.map(|tool| &*tool.shape)).map_err(bug)?;
                members.insert("schema".to_owned(), Value::String(text));
            }
        }
        Ok(shown)
    }

    /// Which policies are in force, without their texts.
    pub(super) fn policy_state(&self) -> Value {
        let policies = self.policies();
        let problems: Vec<String> = self.policy().problems().iter().map(ToString::to_string).collect();
        json!({"directory": self.policy().directory(), "policies": policies.count(), "problems": problems,
            "warnings": policies.warnings()})
    }

    /// Whether these files would be a valid set with the tools of this moment. Without files, whether those of the directory
    /// are.
    ///
    /// # Errors
    /// `invalid_input`: a name is not that of a policy file.
    pub async fn policy_check(&self, _operator: &Operator, files: Option<Vec<PolicyFile>>) -> Result<Value, Refusal> {
        let catalog = self.catalog().current();
        let directory = self.policy().directory().map(std::path::Path::to_path_buf);
        let sources = files.map(sources).transpose()?;
        let checked = blocking(move || {
            let sources = match (sources, directory) {
                (Some(sources), _) => sources,
                (None, Some(directory)) => source::read(&directory)?,
                (None, None) => return Policies::built_in(&catalog.shapes()),
            };
            Policies::new(sources, &catalog.shapes())
        })
        .await?;
        Ok(match checked {
            Ok(policies) => json!({"valid": true, "policies": policies.count(), "findings": policies.warnings()}),
            Err(findings) => json!({"valid": false, "policies": 0, "findings": findings}),
        })
    }

    /// Why a recorded call would be decided about as it is now: which policies, which obligations.
    ///
    /// # Errors
    /// `not_found`: there is no such call of the operator's tenant, or its tool is gone.
    pub async fn policy_explain(&self, operator: &Operator, call: CallId) -> Result<Value, Refusal> {
        let scope = Scope::Tenant(operator.tenant().clone());
        let stored = self.ledger().call(&scope, call).await.map_err(|e| e.refusal())?;
        let stored = stored.ok_or_else(|| Refusal::not_found("call"))?;
        let plan = self.plan_of(&scope, &stored).await?;
        let (policies, catalog) = (self.policies(), self.catalog().current());
        let tool = catalog.tool(&stored.row.tool).ok_or_else(|| Refusal::not_found("tool"))?;
        let answer = self.replayed(&policies, &tool, &stored, plan.as_ref());
        let mut shown = answer.view();
        if let Value::Object(members) = &mut shown {
            let then = plan.as_ref().map(|plan| plan.plan.body().policy_set);
            let now = policies.digest(operator.tenant());
            members.insert("call_id".to_owned(), json!(call));
            members.insert("tool".to_owned(), json!(tool.name));
            members.insert("policy_set".to_owned(), json!(now));
            members.insert("same_set".to_owned(), json!(then.map(|then| then == now)));
            let taint = plan.as_ref().map_or(Taint::NONE, |plan| plan.plan.body().taint);
            members.insert("taint".to_owned(), json!(taint.and(self.taint_of(stored.row.run))));
            members.insert("autonomy".to_owned(), json!(self.0.autonomy.of(&stored.row.principal, &stored.row.tool)));
        }
        Ok(shown)
    }

    /// What would be said to a call that nobody made.
    ///
    /// # Errors
    /// `not_found`: there is no such tool.
    pub fn policy_suppose(&self, operator: &Operator, supposed: &Supposed) -> Result<Value, Refusal> {
        let tool = self.catalog().current().tool(&supposed.tool);
        let foreign = |tool: &Arc<Tool>| self.workspaces().is_foreign(&tool.manifest, operator.tenant());
        let tool = tool.filter(|tool| !foreign(tool)).ok_or_else(|| Refusal::not_found("tool"))?;
        let (input, _) = input_digest(&supposed.input).map_err(|e| Refusal::new(Code::InvalidInput, e.to_string()))?;
        let principal =
            Principal { tenant: operator.tenant().clone(), user: supposed.user.clone(), agent: supposed.agent.clone() };
        let origin = Origin::of(Credential::AgentUid(0));
        let around = self.circumstances((&principal, &origin), &tool.name, &CallOptions::default());
        let around = around.tainted(supposed.taint);
        let answer =
            self.policies().answer(&principal, &tool.shape, &Matter { input: Some(&input), plan: None, around });
        let mut shown = answer.view();
        if let Value::Object(members) = &mut shown {
            members.insert("tool".to_owned(), json!(tool.name));
            members.insert("policy_set".to_owned(), json!(self.policies().digest(operator.tenant())));
            members.insert("taint".to_owned(), json!(around.taint));
            members.insert("autonomy".to_owned(), json!(around.autonomy));
        }
        Ok(shown)
    }

    /// What other policies would have said to the last calls of the operator's tenant.
    ///
    /// # Errors
    /// `invalid_input`: the files are not a valid set.
    pub async fn policy_diff(&self, operator: &Operator, files: Vec<PolicyFile>, calls: u32) -> Result<Value, Refusal> {
        let catalog = self.catalog().current();
        let (sources, shapes) = (sources(files)?, catalog.shapes());
        let candidate =
            blocking(move || Policies::new(sources, &shapes)).await?.map_err(|findings| invalid(&findings))?;
        let scope = Scope::Tenant(operator.tenant().clone());
        let page = Page { cursor: None, limit: calls.clamp(1, DIFF_CALLS_MAX) };
        let recorded = self.ledger().calls(operator.tenant(), page).await.map_err(|e| e.refusal())?.items;
        let current = self.policies();
        let (mut changes, mut compared) = (Vec::new(), 0_u32);
        for stored in &recorded {
            let Some(tool) = catalog.tool(&stored.row.tool) else { continue };
            let plan = self.plan_of(&scope, stored).await?;
            compared += 1;
            let of = |policies: &Policies| self.replayed(policies, &tool, stored, plan.as_ref());
            let (before, after) = (of(&current), of(&candidate));
            if before.verdict != after.verdict {
                changes.push(json!({"call_id": stored.row.call, "tool": tool.name, "principal": stored.row.principal,
                    "at_ms": stored.row.started_ms, "before": before.view(), "after": after.view()}));
            }
        }
        Ok(json!({"compared": compared, "skipped": recorded.len() - usize::try_from(compared).unwrap_or(0),
            "changes": changes, "warnings": candidate.warnings()}))
    }

    /// Read the policies again because an operator says so.
    ///
    /// # Errors
    /// They could not be read at all.
    pub async fn policy_reload(&self, operator: &Operator) -> Result<Value, Refusal> {
        let (host, operator) = (self.clone(), operator.clone());
        blocking(move || host.reload_policies(Some(&operator))).await
    }

    /// Read the policies again. The answer says what became of it.
    pub(crate) fn reload_policies(&self, by: Option<&Operator>) -> Value {
        let reloaded = self.policy().reload(&self.catalog().current().shapes());
        let by = by.map(|operator| operator.user().clone());
        match reloaded {
            Reloaded::Same => json!({"state": "same"}),
            Reloaded::Changed(policies) => {
                tracing::info!(policies = policies.count(), "other policies are in force");
                self.audit_policies("changed", &policies, &[], by.as_ref());
                json!({"state": "changed", "policies": policies.count(), "findings": policies.warnings()})
            }
            Reloaded::Refused(findings) => {
                for finding in findings.iter() {
                    tracing::error!("policy refused: {finding}");
                }
                self.audit_policies("refused", &self.policies(), &findings, by.as_ref());
                json!({"state": "refused", "findings": &*findings})
            }
        }
    }

    /// Say at the start which policies are in force, in the log where they are not, and on record.
    pub(super) fn report_policies(&self) {
        let problems = self.policy().problems();
        for finding in problems.iter() {
            tracing::error!("policy refused: {finding}; nobody may do anything until it is mended");
        }
        self.audit_policies(if problems.is_empty() { "start" } else { "refused" }, &self.policies(), &problems, None);
    }

    fn audit_policies(&self, what: &str, policies: &Policies, findings: &[Finding], by: Option<&UserName>) {
        let mut digests: Vec<Value> = vec![json!({"digest": policies.digest_for_all()})];
        digests.extend(policies.tenants().map(|(tenant, digest)| json!({"tenant": tenant, "digest": digest})));
        let findings: Vec<String> = findings.iter().take(FINDINGS_ON_RECORD).map(ToString::to_string).collect();
        let facts =
            json!({"what": what, "sets": digests, "policies": policies.count(), "findings": findings, "by": by});
        if let Err(error) = self.ledger().audit(AuditKind::Policy, &facts) {
            tracing::error!(%error, "a change of the policies could not be put on record");
        }
    }

    /// What a set says to a recorded call, at the time when it was made.
    pub(super) fn replayed(
        &self,
        policies: &Policies,
        tool: &Tool,
        stored: &StoredCall,
        plan: Option<&StoredPlan>,
    ) -> Answer {
        let row = &stored.row;
        let taint = plan.map_or(Taint::NONE, |plan| plan.plan.body().taint).and(self.taint_of(row.run));
        let around = Circumstances::now(row.started_ms, self.config().environment, row.mode)
            .of_run(row.run)
            .by(&row.origin)
            .tainted(taint)
            .as_far_as(self.0.autonomy.of(&row.principal, &row.tool));
        let plan = plan.map(|plan| {
            let body = plan.plan.body();
            PlanFacts {
                effects: &body.effects,
                reads: body.read_set.len(),
                segment: body.segment,
                declared: tool.tier,
                hold: &tool.manifest.hold,
                undo_bytes: self.undo_bytes(),
            }
        });
        policies.answer(&row.principal, &tool.shape, &Matter { input: row.readable_input(), plan, around })
    }

    pub(super) async fn plan_of(&self, scope: &Scope, stored: &StoredCall) -> Result<Option<StoredPlan>, Refusal> {
        match stored.plan {
            Some(plan) => self.ledger().plan(scope, plan).await.map_err(|e| e.refusal()),
            None => Ok(None),
        }
    }
}

/// Most findings that one entry of the audit names.
const FINDINGS_ON_RECORD: usize = 10;

/// A policy file as it is sent.
#[derive(Debug, Clone, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyFile {
    /// Its name beneath the directory.
    pub name: String,
    /// What it says.
    pub text: String,
}

pub(super) fn sources(files: Vec<PolicyFile>) -> Result<Vec<Source>, Refusal> {
    let named = files.into_iter().map(|file| Source::named(&file.name, file.text));
    named.collect::<Result<Vec<Source>, Finding>>().map_err(|finding| invalid(&[finding]))
}

pub(super) fn invalid(findings: &[Finding]) -> Refusal {
    let first = findings.first().map(ToString::to_string).unwrap_or_default();
    Refusal::new(Code::InvalidInput, format!("the policies are not valid: {first}"))
        .hint("`toolkeep policy check` tells everything that is wrong")
}

fn bug(problem: String) -> Refusal {
    Refusal::new(Code::Internal, problem)
}

/// Whether a file applies to the operator's tenant.
fn sees(operator: &Operator, source: &Source) -> bool {
    source.tenant.as_ref().is_none_or(|tenant: &TenantName| tenant == operator.tenant())
}
