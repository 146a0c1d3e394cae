//! Consent: plans that wait, the people who answer, and the callers who wait for the answer.
//!
//! An answer is counted by the ledger, durably and once. When it is enough, the host settles the plan by itself; the agent
//! does not have to come back. Waiting callers are woken, never polled for.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Notify;
use toolkeep_core::audit::AuditKind;
use toolkeep_core::call::Outcome;
use toolkeep_core::display::visible;
use toolkeep_core::id::{ApprovalId, CallId, PlanId, TenantName, UserName};
use toolkeep_core::principal::Credential;
use toolkeep_core::refusal::{Code, Refusal};

use super::oversight::wanted_reason;
use super::{Host, PlanName};
use crate::approve::{self, Consent};
use crate::authenticate::{Caller, Operator};
use crate::ledger::approval::ApprovalState;
use crate::ledger::{
    ApprovalFilter, Discard, DiscardRefused, Page, PlanState, Raised, Resolution, ResolveRefused, Resolved, Scope,
    StoredApproval, StoredPlan, Via,
};
use crate::metrics::Consented;
use crate::notify::Event;
use crate::record::Answer;

/// Longest reason of an approver, in bytes.
pub(super) const REASON_MAX_BYTES: usize = 2_000;
/// Longest that one `approvals.wait` waits, in milliseconds.
pub(super) const WAIT_MAX_MS: u64 = 600_000;

/// Who answers, once it is proved that they may.
#[derive(Debug, Clone)]
pub(super) struct Voter {
    pub(super) user: UserName,
    pub(super) tenant: TenantName,
    /// By which way.
    pub(super) via: Via,
}

impl From<&Operator> for Voter {
    fn from(operator: &Operator) -> Self {
        Self { user: operator.user().clone(), tenant: operator.tenant().clone(), via: Via::Operator }
    }
}

/// Wakes callers that wait for an approval.
#[derive(Debug, Clone, Default)]
pub struct Notices(Arc<Notify>);

impl Notices {
    /// Something was resolved.
    pub fn announce(&self) {
        self.0.notify_waiters();
    }
}

impl Host {
    /// The owner of a previewed plan wants it committed: it is, or it is held, or it is refused.
    pub async fn commit_plan(&self, caller: &Caller, name: PlanName) -> Result<Answer, Refusal> {
        let _open = self.accepting()?;
        self.may_begin(caller.principal())?;
        let stored = self.own_plan(caller, name).await?;
        if stored.call.row.outcome == Outcome::Committed {
            return Ok(Answer::stored(Arc::clone(&stored.call.row.reply), true));
        }
        if stored.state == PlanState::Previewed && approve::is_transaction(&stored.plan) {
            return Err(approve::whole_only());
        }
        let need = approve::need(&stored, &self.in_force());
        match need {
            Ok(Some(need)) if stored.approval.is_none() => match self.standing_for_stored(&stored, &need) {
                Some(standing) => Ok(self.settle_stored(Consent::Standing(Box::new(stored), standing)).await),
                None => self.hold_stored(stored, &need, 0).await,
            },
            Ok(_) | Err(_) => Ok(self.settle_stored(Consent::Owner(Box::new(stored))).await),
        }
    }

    /// Throw a plan of the caller's own away.
    ///
    /// # Errors
    /// `not_found`, or `stale_plan`: it is not open any more.
    pub async fn discard_plan(&self, caller: &Caller, plan: PlanId) -> Result<Answer, Refusal> {
        let _open = self.accepting()?;
        self.own_plan(caller, PlanName::Id(plan)).await?;
        let scope = Scope::Tenant(caller.principal().tenant.clone());
        let reply = self.ledger().discard(&scope, plan, Discard::Dropped).await.map_err(|e| discard_refusal(&e))?;
        self.0.notices.announce();
        Ok(Answer::stored(reply, false))
    }

    /// A plan that could not be settled: thrown away if the world moved on, left as it is otherwise.
    pub(crate) async fn not_settled(&self, plan: PlanId, call: CallId, refusal: Refusal) -> Answer {
        let why = Discard::Refused(Box::new(refusal.clone()));
        if refusal.code == Code::StalePlan
            && let Ok(reply) = self.ledger().discard(&Scope::Operator, plan, why).await
        {
            return Answer::stored(reply, false);
        }
        self.refused_now(call, refusal)
    }

    /// An approval of the caller's own.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn approval(&self, caller: &Caller, id: ApprovalId) -> Result<Value, Refusal> {
        Ok(line(&self.own_approval(caller, id).await?))
    }

    /// Wait until an approval is resolved and its plan settled, at most `timeout_ms`; then the call's reply as it stands.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn wait_approval(&self, caller: &Caller, id: ApprovalId, timeout_ms: u64) -> Result<Answer, Refusal> {
        let deadline = tokio::time::Instant::now() + Duration::from_millis(timeout_ms.min(WAIT_MAX_MS));
        let mut asking = None;
        loop {
            let notice = self.0.notices.0.notified();
            tokio::pin!(notice);
            notice.as_mut().enable();
            let approval = self.own_approval(caller, id).await?;
            let scope = Scope::Tenant(caller.principal().tenant.clone());
            // The call of an agent that waits for this one, where this one is a part of it: its reply is told, also when it
            // does not wait any more.
            let waiting = self.ledger().continuation_of(approval.call).await.map_err(|e| e.refusal())?;
            let goes_on = asking.is_some() && waiting.is_none();
            asking = asking.or(waiting.map(|waiting| waiting.row.call));
            let asked = self.ledger().call(&scope, asking.unwrap_or(approval.call)).await;
            let call = asked.map_err(|e| e.refusal())?.ok_or_else(|| Refusal::not_found("call"))?;
            let waits = call.row.outcome == Outcome::Pending && !goes_on;
            if !waits || tokio::time::timeout_at(deadline, notice).await.is_err() {
                return Ok(Answer::of_row(&call.row));
            }
        }
    }

    pub(super) async fn own_approval(&self, caller: &Caller, id: ApprovalId) -> Result<StoredApproval, Refusal> {
        let scope = Scope::Tenant(caller.principal().tenant.clone());
        let found = self.ledger().approval(&scope, id).await.map_err(|e| e.refusal())?;
        let Some(approval) = found else { return Err(Refusal::not_found("approval")) };
        // Whose it is stands in the row of its call.
        let call = self.ledger().call(&scope, approval.call).await.map_err(|e| e.refusal())?;
        let own = call.is_some_and(|call| caller.owns(&approval.requester, &call.row.origin));
        if own { Ok(approval) } else { Err(Refusal::not_found("approval")) }
    }

    /// Approvals of the operator's tenant: those that wait, or all.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn approvals(&self, operator: &Operator, all: bool) -> Result<Value, Refusal> {
        let filter = ApprovalFilter { state: (!all).then_some(ApprovalState::Pending) };
        let scope = Scope::Tenant(operator.tenant().clone());
        let page = self.ledger().approvals(&scope, filter, Page::default()).await.map_err(|e| e.refusal())?;
        Ok(json!({"approvals": page.items.iter().map(line).collect::<Vec<_>>()}))
    }

    /// One approval with the whole plan, for the operator.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn approval_detail(&self, operator: &Operator, id: ApprovalId) -> Result<Value, Refusal> {
        let (scope, approval) = self.tenant_approval(operator, id).await?;
        let stored = self.stored_plan(&scope, PlanName::Id(approval.plan)).await?;
        let mut value = line(&approval);
        if let Value::Object(members) = &mut value {
            members.insert("plan".to_owned(), self.plan_page(&stored, 0, true).await);
            let shown = self.shown(&scope, &stored.call).await?;
            members.insert("input".to_owned(), shown.input);
            members.insert("taint".to_owned(), json!(stored.plan.body().taint));
        }
        Ok(value)
    }

    async fn tenant_approval(&self, operator: &Operator, id: ApprovalId) -> Result<(Scope, StoredApproval), Refusal> {
        let scope = Scope::Tenant(operator.tenant().clone());
        let found = self.ledger().approval(&scope, id).await.map_err(|e| e.refusal())?;
        Ok((scope, found.ok_or_else(|| Refusal::not_found("approval"))?))
    }

    /// Agree to a plan. `confirm` is the start of the plan's digest (12 digits), typed by the operator; irreversible plans
    /// need it. When enough people agreed, the plan is settled before this returns; it is, too, if the operator does not wait.
    ///
    /// # Errors
    /// `denied`: this operator may not agree, or the confirmation is wrong. `not_found`, `approval_rejected`,
    /// `approval_expired`.
    pub async fn approve(
        &self,
        operator: &Operator,
        id: ApprovalId,
        reason: &str,
        confirm: Option<&str>,
    ) -> Result<Value, Refusal> {
        let open = self.accepting()?;
        let (scope, approval) = self.tenant_approval(operator, id).await?;
        if approval.state != ApprovalState::Approved {
            still_pending(&approval)?;
        }
        let stored = self.stored_plan(&scope, PlanName::Id(approval.plan)).await?;
        // Consent is not counted for what may not be done now.
        self.may_settle(&stored.plan).await?;
        let digest = stored.plan.digest().short();
        let need = match approve::need(&stored, &self.in_force()) {
            Ok(need) => need,
            Err(refusal) if refusal.code == Code::StalePlan => {
                let host = self.clone();
                let ending = async move {
                    let _open = open;
                    Err(host.stale(&stored, refusal).await)
                };
                return self.to_the_end(ending).await;
            }
            Err(refusal) => return Err(refusal),
        };
        let groups = need.as_ref().map(|need| &need.groups);
        if let Some(missing) = groups.and_then(|groups| groups.iter().find(|group| !operator.groups().contains(*group)))
        {
            return Err(Refusal::new(
                Code::Denied,
                format!("people of the group `{missing}` have to agree to this plan"),
            )
            .hint("ask somebody of that group; `[[operator]] groups` in the configuration says who is in it"));
        }
        if need.as_ref().is_some_and(|need| need.approvers > 1) && confirm != Some(digest.as_str()) {
            return Err(Refusal::new(Code::Denied, "this plan cannot be undone, so it needs a typed confirmation")
                .hint(format!("look at the plan, then repeat with the confirmation `{digest}`")));
        }
        match operator.credential() {
            Credential::AdminUid(_) | Credential::AdminToken(_) | Credential::Token(_) => {}
            Credential::AgentUid(_) | Credential::Issuer(_) | Credential::Record => {
                return Err(Refusal::new(Code::Denied, "an agent does not approve"));
            }
        }
        // What the plan needs by now.
        let approvers = need.as_ref().map_or(1, |need| approve::people(need, self.0.config.solo));
        let barred = (approvers > 1).then(|| stored.plan.body().principal.user.clone());
        let (host, voter, reason) = (self.clone(), Voter::from(operator), reason.to_owned());
        let deciding = async move {
            let _open = open;
            host.agree((&voter, &scope), &approval, &reason, Raised { approvers, barred }).await
        };
        self.to_the_end(deciding).await
    }

    /// Count an agreement, and settle the plan if it is enough.
    pub(super) async fn agree(
        &self,
        (voter, scope): (&Voter, &Scope),
        approval: &StoredApproval,
        reason: &str,
        raised: Raised,
    ) -> Result<Value, Refusal> {
        let id = approval.row.id;
        // People agreed before, and the plan could not be settled then: settle it now, nobody has to agree again.
        let resolved = if approval.state == ApprovalState::Approved {
            Resolved::Approved
        } else {
            self.may_still_agree(voter).await?;
            self.resolve(voter, id, reason, Some(raised)).await?
        };
        let warning = self.hasty(voter).await;
        match resolved {
            Resolved::Counted { have, need } => {
                Ok(json!({"approval": id, "state": "pending", "have": have, "need": need, "warning": warning}))
            }
            Resolved::Approved => {
                let stored = self.stored_plan(scope, PlanName::Id(approval.plan)).await?;
                let call = stored.call.row.call;
                let answer = self.settle_stored(Consent::People(Box::new(stored))).await;
                self.resume(call).await;
                self.0.notices.announce();
                let reply: Value = serde_json::from_str(&answer.reply).unwrap_or(Value::Null);
                Ok(json!({"approval": id, "state": "approved", "reply": reply, "warning": warning}))
            }
            Resolved::Rejected => Err(Refusal::new(Code::Internal, "BUG: an agreement was counted as a rejection")),
        }
    }

    /// Somebody who agreed to as many plans as one person may within an hour agrees to no more of them. Each way is counted by
    /// itself: no agent uses up what its operator may agree to.
    async fn may_still_agree(&self, voter: &Voter) -> Result<(), Refusal> {
        let rule = self.0.config.attention;
        if rule.per_hour.is_none() {
            return Ok(());
        }
        let (before, now_ms) = (self.agreements(voter).await?, self.0.ambient.now_ms());
        let Some(wait_ms) = rule.too_many(&before, now_ms) else { return Ok(()) };
        let most = rule.per_hour.unwrap_or_default();
        Err(Refusal::new(Code::RateLimited, format!("you agreed to {most} plans within an hour"))
            .after_ms(wait_ms)
            .hint(
                "let somebody else look, reject what should not be, or agree to ordinary plans in advance \
                   (`toolkeep standing make`); `oversight.approvals_per_hour` is the bound",
            ))
    }

    /// Whether this agreement was one too many of those that nobody can have read: then operators are told, and the approver
    /// is, in words.
    async fn hasty(&self, voter: &Voter) -> Option<String> {
        let rule = self.0.config.attention;
        let before = self.agreements(voter).await.ok()?;
        let (now_ms, before) = before.split_first()?;
        if !rule.is_hasty(before, *now_ms) {
            return None;
        }
        let (by, via) = (&voter.user, voter.via);
        let facts =
            json!({"by": by, "in_a_row": rule.in_a_row, "via": via, "within_ms": rule.hasty_ms, "what": "hasty"});
        if let Err(error) = self.ledger().audit(AuditKind::Approval, &facts) {
            tracing::error!(%error, "hasty agreements could not be put on record");
        }
        self.0.notify.event(Event::ApprovalHasty, &voter.tenant, facts);
        let (times, seconds) = (rule.in_a_row, rule.hasty_ms / 1_000);
        Some(format!(
            "that was fast: {times} agreements in a row, each within {seconds} s of the one before; read what you agree to"
        ))
    }

    /// When somebody agreed to plans last by the same way, the latest first: as far back as the rule looks.
    async fn agreements(&self, voter: &Voter) -> Result<Vec<u64>, Refusal> {
        let depth = self.0.config.attention.depth();
        let found = self.ledger().agreements(&voter.tenant, (&voter.user, voter.via), depth).await;
        found.map_err(|error| error.refusal())
    }

    /// The plan was made with another tool or policy: it ends now, and whoever waits for it is told, instead of waiting for a
    /// consent that nobody can give.
    async fn stale(&self, stored: &StoredPlan, refusal: Refusal) -> Refusal {
        let call = stored.call.row.call;
        let _told = self.not_settled(stored.plan.id(), call, refusal.clone()).await;
        self.resume(call).await;
        self.0.notices.announce();
        refusal.hint("the call ended as stale; the agent calls again, and you look at the new plan")
    }

    /// Refuse a plan. Its call ends as denied, with the reason, which is wanted.
    ///
    /// # Errors
    /// As [`Self::approve`].
    pub async fn reject(&self, operator: &Operator, id: ApprovalId, reason: &str) -> Result<Value, Refusal> {
        let open = self.accepting()?;
        let (_, approval) = self.tenant_approval(operator, id).await?;
        still_pending(&approval)?;
        wanted_reason(reason)?;
        let (host, voter, reason) = (self.clone(), Voter::from(operator), reason.to_owned());
        let deciding = async move {
            let _open = open;
            host.refuse(&voter, &approval, &reason).await?;
            Ok(json!({"approval": id, "state": "rejected"}))
        };
        self.to_the_end(deciding).await
    }

    /// Count a refusal, which ends the call.
    pub(super) async fn refuse(&self, voter: &Voter, approval: &StoredApproval, reason: &str) -> Result<(), Refusal> {
        self.resolve(voter, approval.row.id, reason, None).await?;
        self.resume(approval.call).await;
        self.0.notices.announce();
        Ok(())
    }

    /// Count an answer: an agreement with what the plan needs by now, or a refusal without it.
    async fn resolve(
        &self,
        voter: &Voter,
        id: ApprovalId,
        reason: &str,
        agrees: Option<Raised>,
    ) -> Result<Resolved, Refusal> {
        if reason.len() > REASON_MAX_BYTES {
            return Err(Refusal::new(Code::InvalidInput, "the reason is too long").field(
                "/reason",
                format!("has {} bytes", reason.len()),
                "at most 2000 bytes",
            ));
        }
        let (approve, need) = (agrees.is_some(), agrees.unwrap_or(Raised::NOT));
        let (approver, via) = (voter.user.clone(), voter.via);
        let resolution = Resolution { id, approver, via, approve, reason: reason.into(), need };
        let resolved = self.ledger().resolve(resolution).await.map_err(|e| resolve_refusal(&e))?;
        if !matches!(resolved, Resolved::Counted { .. }) {
            let facts =
                json!({"approval": id, "approved": approve, "by": voter.user, "reason": visible(reason), "via": via});
            self.metrics().consented(if approve { Consented::Approved } else { Consented::Rejected });
            self.0.notify.event(Event::ApprovalResolved, &voter.tenant, facts);
        }
        Ok(resolved)
    }
}

fn line(approval: &StoredApproval) -> Value {
    let votes: Vec<Value> = approval
        .votes
        .iter()
        .map(|vote| {
            json!({"approver": vote.approver, "approved": vote.approved, "reason": visible(&vote.reason),
                "at_ms": vote.at_ms, "via": vote.via})
        })
        .collect();
    json!({"id": approval.row.id, "state": approval.state.to_string(), "tool": approval.tool, "plan": approval.plan,
        "seal": approval.seal, "call_id": approval.call, "requester": approval.requester,
        "approvers": approval.row.approvers, "reason": &*approval.row.reason, "made_at_ms": approval.made_ms,
        "expires_at_ms": approval.row.expires_at_ms, "votes": votes})
}

/// What became of the approval matters more than who answered it before.
pub(super) fn still_pending(approval: &StoredApproval) -> Result<(), Refusal> {
    match approval.state {
        ApprovalState::Pending => Ok(()),
        state => Err(resolve_refusal(&ResolveRefused::NotPending(state))),
    }
}

fn resolve_refusal(error: &ResolveRefused) -> Refusal {
    let code = match error {
        ResolveRefused::NotFound => return Refusal::not_found("approval"),
        ResolveRefused::NotPending(ApprovalState::Expired) => Code::ApprovalExpired,
        ResolveRefused::NotPending(ApprovalState::Rejected) => Code::ApprovalRejected,
        ResolveRefused::NotPending(_) => Code::StalePlan,
        ResolveRefused::Barred | ResolveRefused::AlreadyAnswered => Code::Denied,
        ResolveRefused::Ledger(error) => return error.refusal(),
    };
    Refusal::new(code, error.to_string())
}

fn discard_refusal(error: &DiscardRefused) -> Refusal {
    match error {
        DiscardRefused::NotFound => Refusal::not_found("plan"),
        DiscardRefused::Ledger(error) => error.refusal(),
        other => Refusal::new(Code::StalePlan, other.to_string()),
    }
}
