//! Questions about calls, plans and tools. Nothing here changes anything.
//!
//! Every answer is scoped: an agent sees what its own principal made, an operator what the tenant made. An id of somebody
//! else gets the answer of an id that does not exist.

use serde_json::{Value, json};
use toolkeep_core::capability::FileGrant;
use toolkeep_core::digest::Digest;
use toolkeep_core::effect::{BodyState, Effect};
use toolkeep_core::id::{CallId, PlanId, ToolName};
use toolkeep_core::limit::{DIFF_MAX_BYTES, EFFECTS_SHOWN};
use toolkeep_core::receipt::Receipt;
use toolkeep_core::redact;
use toolkeep_core::refusal::{Code, Refusal};

use super::Host;
use super::outcomes::request_line;
use crate::authenticate::{Caller, Operator};
use crate::catalog::Tool;
use crate::ledger::{LedgerHealth, Page, Scope, StoredPlan};
use crate::notes::Notes;
use crate::record::Answer;

/// Most bytes of file content that one answer carries for diffs.
const DIFF_TOTAL_MAX_BYTES: u64 = 512 * 1024;

/// Most bytes of an output that one answer carries.
const OUTPUT_PART_MAX_BYTES: usize = 256 * 1024;

/// How a plan is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlanName {
    /// The stored plan.
    Id(PlanId),
    /// The latest open plan with this content.
    Digest(Digest),
}

impl Host {
    /// The tools that the caller can call.
    #[must_use]
    pub fn tools(&self, caller: &Caller) -> Value {
        let catalog = self.catalog().current();
        let shown = catalog.tools().filter(|tool| self.offers(tool, caller));
        json!({"tools": shown.map(|tool| tool.listing()).collect::<Vec<_>>()})
    }

    /// One tool with everything that it was granted.
    ///
    /// # Errors
    /// `not_found`.
    pub fn tool(&self, caller: &Caller, name: &ToolName) -> Result<Value, Refusal> {
        let tool = self.catalog().current().tool(name).filter(|tool| self.offers(tool, caller));
        Ok(tool.ok_or_else(|| Refusal::not_found("tool"))?.detail())
    }

    /// Whether the caller's tenant owns, and its credential holds, everything that the tool needs: only then can it be called.
    pub(super) fn offers(&self, tool: &Tool, caller: &Caller) -> bool {
        let tenant = &caller.principal().tenant;
        let held = caller.held().is_none_or(|held| held.holds_tool(&tool.name) && held.holds_tier(tool.tier));
        let owned = |grant: &FileGrant| {
            self.workspaces().of(tenant, &grant.workspace).is_some() && caller.access(&grant.workspace).is_some()
        };
        held && tool.manifest.files.iter().all(owned)
    }

    /// All tools but those of other tenants, and all problems of the manifests folder, for the operator.
    #[must_use]
    pub fn tools_admin(&self, operator: &Operator) -> Value {
        let catalog = self.catalog().current();
        let foreign = |tool: &Tool| self.workspaces().is_foreign(&tool.manifest, operator.tenant());
        json!({
            "folder": self.catalog().folder(),
            "tools": catalog.tools().filter(|tool| !foreign(tool)).map(|tool| tool.detail()).collect::<Vec<_>>(),
            "problems": catalog.problems(),
        })
    }

    /// The state of a call: its reply as it stands.
    ///
    /// # Errors
    /// `in_flight` while it executes, `not_found`.
    pub async fn call_state(&self, caller: &Caller, call: CallId) -> Result<Answer, Refusal> {
        if self.flights().contains(caller, call) {
            return Err(Refusal::new(Code::InFlight, format!("call {call} is running")).after_ms(1_000));
        }
        let scope = Scope::Tenant(caller.principal().tenant.clone());
        let stored = self.ledger().call(&scope, call).await.map_err(|e| e.refusal())?;
        match stored.filter(|stored| caller.owns(&stored.row.principal, &stored.row.origin)) {
            Some(stored) => Ok(Answer::of_row(&stored.row)),
            None => Err(Refusal::not_found("call")),
        }
    }

    /// A part of an output that was too long for its reply, from a byte on.
    ///
    /// # Errors
    /// `not_found`: no such call of the caller's, or its reply holds the output. `invalid_input`: the byte is not the beginning
    /// of a character.
    pub async fn output(&self, caller: &Caller, call: CallId, offset: u64) -> Result<Value, Refusal> {
        let scope = Scope::Tenant(caller.principal().tenant.clone());
        let stored = self.ledger().call(&scope, call).await.map_err(|e| e.refusal())?;
        let own = stored.filter(|stored| caller.owns(&stored.row.principal, &stored.row.origin));
        own.ok_or_else(|| Refusal::not_found("output"))?;
        let text = self.ledger().output(&scope, call).await.map_err(|e| e.refusal())?;
        let text = text.ok_or_else(|| Refusal::not_found("output"))?;
        let notes = self.ledger().notes(&scope, call).await.map_err(|e| e.refusal())?;
        let hidden = notes.as_deref().map(Notes::read).unwrap_or_default().redact;
        let mut text = text.as_ref().to_owned();
        if !hidden.is_empty() {
            let mut value: Value = serde_json::from_str(&text).unwrap_or_default();
            redact::hide_under(&mut value, "/output", &hidden);
            text = value.to_string();
        }
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let Some(rest) = text.get(from..) else {
            return Err(Refusal::new(Code::InvalidInput, "there is no such place in the output").field(
                "/offset",
                "is beyond the end, or inside of a character",
                "0, or a `next_offset`",
            ));
        };
        let mut end = rest.len().min(OUTPUT_PART_MAX_BYTES);
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        let next = (end < rest.len()).then_some(from + end);
        Ok(json!({"call_id": call, "bytes": text.len(), "offset": from, "text": rest.get(..end), "next_offset": next}))
    }

    /// Cancel a call that executes. A commit that has begun goes on.
    ///
    /// # Errors
    /// `not_found`: no such call is in flight.
    pub fn cancel(&self, caller: &Caller, call: CallId) -> Result<Value, Refusal> {
        if self.flights().cancel(caller, call) {
            Ok(json!({"call_id": call, "cancelling": true}))
        } else {
            Err(Refusal::not_found("call in flight"))
        }
    }

    /// A page of a plan's effects, with diffs if wanted.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn plan(&self, caller: &Caller, name: PlanName, cursor: u64, diffs: bool) -> Result<Value, Refusal> {
        let stored = self.own_plan(caller, name).await?;
        Ok(self.plan_page(&stored, cursor, diffs).await)
    }

    /// A plan of the caller's own.
    pub(crate) async fn own_plan(&self, caller: &Caller, name: PlanName) -> Result<StoredPlan, Refusal> {
        let scope = Scope::Tenant(caller.principal().tenant.clone());
        let stored = self.stored_plan(&scope, name).await?;
        let owned = caller.owns(&stored.plan.body().principal, &stored.call.row.origin);
        if owned { Ok(stored) } else { Err(Refusal::not_found("plan")) }
    }

    pub(crate) async fn stored_plan(&self, scope: &Scope, name: PlanName) -> Result<StoredPlan, Refusal> {
        let found = match name {
            PlanName::Id(id) => self.ledger().plan(scope, id).await,
            PlanName::Digest(digest) => self.ledger().plan_by_digest(scope, digest, self.ambient().now_ms()).await,
        };
        let stored = found.map_err(|e| e.refusal())?.ok_or_else(|| Refusal::not_found("plan"))?;
        // Whoever decides about it next asks what its run has used.
        self.budgets().look_up(stored.plan.binding().run).await?;
        Ok(stored)
    }

    pub(crate) async fn plan_page(&self, stored: &StoredPlan, cursor: u64, diffs: bool) -> Value {
        let plan = &stored.plan;
        let body = plan.body();
        let from = usize::try_from(cursor).unwrap_or(usize::MAX).min(body.effects.len());
        let shown: Vec<&Effect> = body.effects.iter().skip(from).take(EFFECTS_SHOWN).collect();
        let next = from + shown.len();
        let mut page = json!({
            "id": plan.id(), "digest": plan.digest(), "seal": plan.seal_digest(), "state": stored.state.to_string(),
            "call_id": stored.call.row.call, "tool": body.tool, "principal": body.principal,
            "component": body.component, "manifest": body.manifest, "input": body.input,
            "totals": plan.totals(), "reads": body.read_set.len(), "expires_at_ms": plan.binding().expires_at_ms,
            "steps": body.steps, "effects": shown, "cursor": from,
            "next_cursor": (next < body.effects.len()).then_some(next),
        });
        if plan.totals().requests > 0
            && let Value::Object(members) = &mut page
        {
            // Of a plan that is not committed yet there is none.
            let sends = self.ledger().sends(plan.id()).await.unwrap_or_default();
            members.insert("requests".to_owned(), sends.iter().map(request_line).collect());
        }
        if diffs && let Value::Object(members) = &mut page {
            members.insert("contents".to_owned(), self.contents_of(&shown).await);
        }
        page
    }

    /// Text contents by digest, as far as they are kept, are text, and fit.
    async fn contents_of(&self, effects: &[&Effect]) -> Value {
        let mut left = DIFF_TOTAL_MAX_BYTES;
        let mut found = serde_json::Map::new();
        for effect in effects {
            let (before, after) = effect.contents();
            for state in [before, after].into_iter().flatten() {
                let key = state.sha256.to_hex();
                if state.size > DIFF_MAX_BYTES || state.size > left || found.contains_key(&key) {
                    continue;
                }
                if let Some(text) = self.text_of(effect, &state).await {
                    left = left.saturating_sub(state.size);
                    found.insert(key, Value::String(text));
                }
            }
        }
        Value::Object(found)
    }

    /// A content from the blob store, or from the workspace while it is still what the plan says.
    async fn text_of(&self, effect: &Effect, state: &BodyState) -> Option<String> {
        let stored = self.0.blobs.read(&state.sha256).await.ok().flatten();
        let bytes = match stored {
            Some(bytes) => bytes,
            None => self.0.committer.present_content(effect, state).await?,
        };
        String::from_utf8(bytes).ok()
    }

    /// Whether a receipt is this daemon's and unchanged.
    ///
    /// # Errors
    /// `denied`: it is not, and why.
    pub fn verify_receipt(&self, receipt: &Receipt) -> Result<Value, Refusal> {
        let key = self.ledger().signing_key().verifying_key();
        match receipt.verify(&key) {
            Ok(()) => {
                Ok(json!({"valid": true, "receipt": receipt.statement.receipt, "call_id": receipt.statement.call,
                "plan_digest": receipt.statement.plan_digest}))
            }
            Err(error) => {
                Err(Refusal::new(Code::Denied, error.to_string()).hint("do not trust what the receipt claims"))
            }
        }
    }

    /// What an agent may know about the daemon.
    #[must_use]
    pub fn info(&self) -> Value {
        json!({
            "name": "toolkeep", "version": env!("CARGO_PKG_VERSION"), "protocol": 1,
            "environment": self.0.config.environment, "draining": self.admission().draining(),
            "tools": self.catalog().current().tools().count(),
        })
    }

    /// How the daemon is, for the operator.
    ///
    /// # Errors
    /// None: what cannot be told is left out. The form is that of other questions.
    pub async fn health(&self, _operator: &Operator) -> Result<Value, Refusal> {
        let ledger = match self.ledger().health() {
            LedgerHealth::Well => json!({"state": "well"}),
            LedgerHealth::DiskFull => json!({"state": "disk_full"}),
            LedgerHealth::Poisoned(reason) => json!({"state": "poisoned", "reason": &*reason}),
        };
        // A ledger that cannot be read says so above; the rest of the answer is wanted all the more.
        let outbox = self.outbox().health().await.ok().map(|health| {
            let counts = health.counts;
            json!({"queued": counts.queued, "sending": counts.sending, "dead": counts.dead,
                "oldest_at_ms": counts.oldest_ms, "paused": health.paused})
        });
        Ok(json!({
            "outbox": outbox,
            "ready": self.ready(), "draining": self.admission().draining(), "in_flight": self.flights().count(),
            "ledger": ledger, "audit": self.audit_health(), "commit": self.0.committer.health(), "halted": self.0.committer.halted(),
            "tools": self.catalog().current().tools().count(), "problems": self.catalog().current().problems(),
            "policy": self.policy_state(), "kill_switches": self.kill().standing().switches().count(),
            "components_ready": self.ready_components(),
            "engine": self.executor().sandbox.fingerprint(), "solo": self.0.config.solo,
            "room": self.ledger_room().await,
            "environment": self.0.config.environment, "issuers": self.0.authenticator.issuers().health(),
            "recording": self.recording_state(),
        }))
    }

    /// All plans of the operator's tenant, newest first.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn plans(&self, operator: &Operator, cursor: Option<u64>) -> Result<Value, Refusal> {
        let scope = Scope::Tenant(operator.tenant().clone());
        let page = Page { cursor, ..Page::default() };
        let plans = self.ledger().plans(&scope, None, page).await.map_err(|e| e.refusal())?;
        let lines: Vec<Value> = plans
            .items
            .iter()
            .map(|line| {
                json!({"id": line.plan, "digest": line.digest, "call_id": line.call, "tool": line.tool,
                    "state": line.state.to_string(), "effects": line.effects, "made_at_ms": line.made_ms,
                    "expires_at_ms": line.expires_at_ms})
            })
            .collect();
        Ok(json!({"plans": lines, "next_cursor": plans.next}))
    }

    /// One plan in full, for the operator.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn plan_detail(&self, operator: &Operator, name: PlanName, cursor: u64) -> Result<Value, Refusal> {
        let stored = self.stored_plan(&Scope::Tenant(operator.tenant().clone()), name).await?;
        Ok(self.plan_page(&stored, cursor, true).await)
    }
}
