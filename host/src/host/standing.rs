//! Standing approvals, for the operator: what one would have let through, making, agreeing, ending.
//!
//! Nobody makes one unseen: making it needs the first digits of the digest that its preview gave, and the preview says which of
//! the last calls it would have covered. Where it covers sensitive paths or tier 3, another person has to agree before it is used.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use toolkeep_core::call::Outcome;
use toolkeep_core::digest::Digest;
use toolkeep_core::id::StandingId;
use toolkeep_core::policy::Need;
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_core::standing::{Standing, StandingText, TTL_MAX_MS, USES_MAX};

use super::Host;
use super::oversight::wanted_reason;
use crate::authenticate::Operator;
use crate::catalog::Catalog;
use crate::ledger::{Page, Scope, StandingRefused, StandingRow, StandingState, StandingUse, StoredCall, StoredPlan};
use crate::standing::{Waiting, covers};

/// Most recorded calls that a preview looks at.
const LOOKED_AT_MAX: u32 = 1_000;
/// Most calls that a preview names.
const NAMED_MAX: usize = 100;

/// A standing approval that somebody wants to make.
#[derive(Debug, Clone, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct ProposedStanding {
    /// What it covers.
    pub covers: StandingText,
    /// How many plans it lets through.
    pub uses: u32,
    /// How long it stands, in seconds.
    pub ttl_s: u64,
}

impl ProposedStanding {
    /// What it means, and the digest that names it.
    fn check(&self) -> Result<(Standing, Digest), Refusal> {
        let mut refusal = Refusal::new(Code::InvalidInput, "the standing approval is not valid");
        if !(1..=USES_MAX).contains(&self.uses) {
            refusal = refusal.field("/uses", format!("is {}", self.uses), format!("1 to {USES_MAX}"));
        }
        if self.ttl_s == 0 || self.ttl_s > TTL_MAX_MS / 1_000 {
            let most = format!("1 to {} seconds", TTL_MAX_MS / 1_000);
            refusal = refusal.field("/ttl_s", format!("is {}", self.ttl_s), most);
        }
        let standing = match self.covers.clone().check() {
            Ok(standing) => Some(standing),
            Err(bad) => {
                refusal = refusal.field(format!("/covers/{}", bad.field), bad.problem, "see `docs/approvals.md`");
                None
            }
        };
        let text = serde_json_canonicalizer::to_vec(self).map_err(|e| Refusal::new(Code::Internal, e.to_string()))?;
        match standing.filter(|_| refusal.fields.is_empty()) {
            Some(standing) => Ok((standing, Digest::of_parts("toolkeep.standing.v1", &[&text]))),
            None => Err(refusal),
        }
    }
}

impl Host {
    /// What a standing approval would have let through of the last `calls` calls, and the digest to make it with.
    ///
    /// # Errors
    /// `invalid_input`: it is not valid. `not_found`: there is no such tool.
    pub async fn preview_standing(
        &self,
        operator: &Operator,
        proposed: &ProposedStanding,
        calls: u32,
    ) -> Result<Value, Refusal> {
        let (standing, digest) = proposed.check()?;
        let catalog = self.catalog().current();
        self.tool_of_tenant(operator, &standing.text().tool)?;
        let page = Page { cursor: None, limit: calls.clamp(1, LOOKED_AT_MAX) };
        let recorded = self.ledger().calls(operator.tenant(), page).await.map_err(|e| e.refusal())?.items;
        let scope = Scope::Tenant(operator.tenant().clone());
        let (mut covered, mut named, mut others, mut with_plan) = (0_u32, Vec::new(), BTreeMap::new(), 0_u32);
        for call in recorded.iter().filter(|call| call.row.tool == standing.text().tool) {
            let Some(plan) = call.plan else { continue };
            let Some(plan) = self.ledger().plan(&scope, plan).await.map_err(|e| e.refusal())? else { continue };
            with_plan += 1;
            match would_cover(&standing, &catalog, call, &plan) {
                Ok(()) => {
                    covered += 1;
                    if named.len() < NAMED_MAX {
                        named.push(line_of(call, &plan));
                    }
                }
                Err(why) => *others.entry(why).or_insert(0_u32) += 1,
            }
        }
        Ok(json!({
            "standing": proposed, "digest": digest, "confirm": digest.short(), "people": standing.people(),
            "looked_at": recorded.len(), "plans": with_plan, "covered": covered, "calls": named, "not_covered": others,
        }))
    }

    /// Make a standing approval. `confirm` is the start of the digest that its preview gave, 12 digits.
    ///
    /// # Errors
    /// `invalid_input`: it is not valid or has no reason. `denied`: the confirmation is missing or wrong.
    pub async fn make_standing(
        &self,
        operator: &Operator,
        proposed: &ProposedStanding,
        reason: &str,
        confirm: &str,
    ) -> Result<Value, Refusal> {
        let _open = self.accepting()?;
        wanted_reason(reason)?;
        let (standing, digest) = proposed.check()?;
        self.tool_of_tenant(operator, &standing.text().tool)?;
        if confirm != digest.short() {
            return Err(Refusal::new(Code::Denied, "a standing approval is made only after its preview was seen")
                .hint("look at the preview, then repeat with the confirmation that it gives"));
        }
        let people = if self.config().solo { 1 } else { standing.people() };
        let now_ms = self.ambient().now_ms();
        let body = serde_json::to_string(standing.text()).map_err(|e| Refusal::new(Code::Internal, e.to_string()))?;
        let row = StandingRow {
            id: StandingId::new(self.ambient().uuid_v7()),
            tenant: operator.tenant().clone(),
            body: body.into(),
            reason: reason.into(),
            people,
            makers: [operator.user().clone()].into(),
            groups: operator.groups().clone(),
            state: if people > 1 { StandingState::Pending } else { StandingState::Active },
            uses: proposed.uses,
            used: 0,
            made_ms: now_ms,
            expires_ms: now_ms.saturating_add(proposed.ttl_s.saturating_mul(1_000)),
            ended_by: None,
            ended_ms: None,
        };
        let made = self.ledger().make_standing(row).await.map_err(|e| refusal_of(&e))?;
        self.refill_standing().await?;
        Ok(self.line(&made))
    }

    /// Agree to a standing approval that waits for another person.
    ///
    /// # Errors
    /// `not_found`; `denied`: the same person has made it; `stale_plan`: it does not wait.
    pub async fn agree_standing(&self, operator: &Operator, id: StandingId) -> Result<Value, Refusal> {
        let _open = self.accepting()?;
        let (by, groups) = (operator.user().clone(), operator.groups().clone());
        let agreed = self.ledger().agree_standing(id, operator.tenant(), by, groups).await;
        let agreed = agreed.map_err(|e| refusal_of(&e))?;
        self.refill_standing().await?;
        Ok(self.line(&agreed))
    }

    /// End a standing approval. From the answer on nothing is committed under it.
    ///
    /// # Errors
    /// `not_found`; `invalid_input`: no reason is given; `stale_plan`: it ended before.
    pub async fn revoke_standing(&self, operator: &Operator, id: StandingId, reason: &str) -> Result<Value, Refusal> {
        let _open = self.accepting()?;
        wanted_reason(reason)?;
        let by = operator.user().clone();
        let revoked = self.ledger().revoke_standing(id, operator.tenant(), by, reason.into()).await;
        let revoked = revoked.map_err(|e| refusal_of(&e))?;
        self.refill_standing().await?;
        Ok(self.line(&revoked))
    }

    /// Standing approvals of the operator's tenant: those that may still be used, or all.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn standing_approvals(&self, operator: &Operator, all: bool) -> Result<Value, Refusal> {
        let scope = Scope::Tenant(operator.tenant().clone());
        let rows = self.ledger().standing(&scope, all, self.ambient().now_ms()).await.map_err(|e| e.refusal())?;
        Ok(json!({"standing": rows.iter().map(|row| self.line(row)).collect::<Vec<_>>()}))
    }

    /// A use was taken and not used: ask the ledger what is left.
    pub(crate) async fn return_standing(&self) {
        if let Err(refusal) = self.refill_standing().await {
            tracing::error!(message = %refusal.message, "standing approvals could not be read again");
        }
    }

    /// Compare plans with what the ledger says from now on.
    async fn refill_standing(&self) -> Result<(), Refusal> {
        let rows =
            self.ledger().standing(&Scope::Operator, false, self.ambient().now_ms()).await.map_err(|e| e.refusal())?;
        self.0.standing.fill(rows);
        Ok(())
    }

    fn line(&self, row: &StandingRow) -> Value {
        let covers: Value = serde_json::from_str(&row.body).unwrap_or_default();
        let open = matches!(row.state, StandingState::Pending | StandingState::Active);
        let over = open && row.expires_ms <= self.ambient().now_ms();
        let state = if over { StandingState::Expired } else { row.state };
        json!({"id": row.id, "state": state.word(), "covers": covers, "reason": &*row.reason, "people": row.people,
            "makers": row.makers, "groups": row.groups, "uses": row.uses, "used": row.used, "made_at_ms": row.made_ms,
            "expires_at_ms": row.expires_ms, "ended_by": row.ended_by, "ended_at_ms": row.ended_ms})
    }

    /// A standing approval that covers a stored plan which would wait.
    pub(super) fn standing_for_stored(&self, stored: &StoredPlan, need: &Need) -> Option<StandingUse> {
        let catalog = self.catalog().current();
        let tool = catalog.tool(&stored.plan.body().tool)?;
        let waiting = Waiting {
            principal: &stored.plan.body().principal,
            tool: &tool.name,
            shape: &tool.shape,
            declared: tool.tier,
            input: &stored.call.row.input,
            effects: &stored.plan.body().effects,
            taint: stored.plan.body().taint.and(self.taint_of(stored.plan.binding().run)),
        };
        self.0.standing.find(&waiting, need, self.0.config.solo, self.ambient().now_ms())
    }
}

fn would_cover(standing: &Standing, catalog: &Catalog, call: &StoredCall, plan: &StoredPlan) -> Result<(), String> {
    let Some(input) = call.row.readable_input() else { return Err("its input cannot be read any more".to_owned()) };
    let Some(tool) = catalog.tool(&call.row.tool) else { return Err("the tool is gone".to_owned()) };
    let waiting = Waiting {
        principal: &call.row.principal,
        tool: &tool.name,
        shape: &tool.shape,
        declared: tool.tier,
        input,
        effects: &plan.plan.body().effects,
        taint: plan.plan.body().taint,
    };
    covers(standing, &waiting)
}

/// A call that it would have let through, and what became of it then.
fn line_of(call: &StoredCall, plan: &StoredPlan) -> Value {
    let votes = plan.approval.iter().flat_map(|approval| &approval.votes);
    let rejected = votes.clone().any(|vote| !vote.approved);
    json!({"call_id": call.row.call, "principal": call.row.principal, "at_ms": call.row.started_ms,
        "outcome": call.row.outcome, "committed": call.row.outcome == Outcome::Committed, "rejected": rejected,
        "totals": plan.plan.totals()})
}

fn refusal_of(error: &StandingRefused) -> Refusal {
    match error {
        StandingRefused::NotFound => Refusal::not_found("standing approval"),
        StandingRefused::NotOpen(_) => Refusal::new(Code::StalePlan, error.to_string()).hint("make another one"),
        StandingRefused::SamePerson => Refusal::new(Code::Denied, error.to_string()),
        StandingRefused::Ledger(error) => error.refusal(),
    }
}
