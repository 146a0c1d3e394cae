//! The writer's side of consent and of its end: answers of people, discarded plans, expiry; and the small rows of runs,
//! workspaces and blobs.
//!
//! The states of an approval change only through [`super::approval`]; a plan that ends here ends its call, its approval
//! and its pins in the same transaction.

use std::sync::Arc;

use rusqlite::{Row, params};
use toolkeep_core::audit::AuditKind;
use toolkeep_core::call::{Outcome, Status};
use toolkeep_core::digest::Digest;
use toolkeep_core::id::{ApprovalId, CallId, PlanId, RunId, TenantName, UserName, WorkflowName};
use toolkeep_core::principal::Principal;

use super::approval::{ApprovalEvent, ApprovalState};
use super::batch::{Batch, Step, Stop};
use super::column::{Reading, digest_bytes, id_bytes, integer, outcome_word, path_bytes, status_word};
use super::ending::Ending;
use super::facts;
use super::failure::{DiscardRefused, LedgerError, ResolveRefused};
use super::insert::Role;
use super::intact::{Kept, intact};
use super::read;
use super::rows::{ApprovalRow, Discard, PlanState, RunRow, Scope};
use super::settle::Final;
use crate::vault::Part;

/// Plans that one job expires, at most: the others of the batch must not wait long.
pub(super) const EXPIRED_AT_ONCE: usize = 64;

/// By which way an answer came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// Over the admin plane, which has authenticated an operator.
    Operator,
    /// Through the client of the agent, which could give it by itself.
    Client,
}

impl Via {
    /// What stands in its column.
    pub(super) const fn column(self) -> Option<&'static str> {
        match self {
            Self::Operator => None,
            Self::Client => Some("client"),
        }
    }

    /// The way that stands in a row of an answer.
    pub(super) fn of(reading: &Reading<'_>) -> Result<Self, LedgerError> {
        match reading.text_or_null("via")? {
            None => Ok(Self::Operator),
            Some(_) => reading.word("via", |word| (Some(word) == Self::Client.column()).then_some(Self::Client)),
        }
    }
}

/// A person's answer to a request for consent.
#[derive(Debug, Clone)]
pub struct Resolution {
    /// The approval.
    pub id: ApprovalId,
    /// Who answers. The admin plane has authenticated them, or the agent plane their client; see `via`.
    pub approver: UserName,
    /// By which way.
    pub via: Via,
    /// Agree or not.
    pub approve: bool,
    /// Why.
    pub reason: Arc<str>,
    /// What the plan needs by now: what was asked for when it was held may be less.
    pub need: Raised,
}

/// How much consent a plan needs at the moment when somebody answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Raised {
    /// How many people, at least one.
    pub approvers: u8,
    /// Who may not be one of them.
    pub barred: Option<UserName>,
}

impl Raised {
    /// No more than was asked for.
    pub const NOT: Self = Self { approvers: 1, barred: None };
}

/// What an answer came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolved {
    /// Counted; more people have to agree.
    Counted {
        /// How many agreed.
        have: u8,
        /// How many have to.
        need: u8,
    },
    /// Enough people agreed: the plan may be settled.
    Approved,
    /// The plan and the call are discarded.
    Rejected,
}

/// What the writer needs to know of an approval.
struct Asked {
    plan: PlanId,
    tenant: TenantName,
    state: ApprovalState,
    expires_ms: u64,
    barred: Option<UserName>,
    approvers: u8,
}

impl Asked {
    fn of(row: &Row<'_>) -> Result<Self, LedgerError> {
        let reading = Reading::new(row, "approvals");
        Ok(Self {
            plan: PlanId::new(reading.uuid("plan")?),
            tenant: reading.name("tenant")?,
            state: reading.word("state", ApprovalState::from_word)?,
            expires_ms: reading.number("expires_ms")?,
            barred: reading.text_or_null("barred")?.map(|_| reading.name("barred")).transpose()?,
            approvers: u8::try_from(reading.number("approvers")?).unwrap_or(u8::MAX),
        })
    }
}

fn plan_id(row: &Row<'_>) -> Result<PlanId, LedgerError> {
    Reading::new(row, "plans").uuid("plan").map(PlanId::new)
}

fn state_of(row: &Row<'_>) -> Result<PlanState, LedgerError> {
    Reading::new(row, "plans").word("state", PlanState::from_word)
}

impl Batch<'_> {
    /// Count a person's answer.
    pub(super) fn resolve(&mut self, answer: &Resolution) -> Step<Resolved, ResolveRefused> {
        let id = id_bytes(answer.id.uuid());
        let asked = self.row("SELECT * FROM approvals WHERE id = ?1", params![id], |row| {
            intact(row, "approvals")?;
            Asked::of(row)
        })?;
        let Some(asked) = asked else { return Err(Stop::Refused(ResolveRefused::NotFound)) };
        let need = asked.approvers.max(answer.need.approvers);
        let barred = asked.barred.or_else(|| answer.need.barred.clone());
        let state = asked.state;
        if state != ApprovalState::Pending || asked.expires_ms <= self.now_ms {
            // Before anything about the person: what is over is over for everybody.
            let state = if state == ApprovalState::Pending { ApprovalState::Expired } else { state };
            return Err(Stop::Refused(ResolveRefused::NotPending(state)));
        }
        if answer.approve && barred.as_ref() == Some(&answer.approver) {
            return Err(Stop::Refused(ResolveRefused::Barred));
        }
        let have = self.agreed(answer, id, barred.as_ref())?;
        let event = if answer.approve { ApprovalEvent::Agree { have, need } } else { ApprovalEvent::Refuse };
        let next = state.after(event).map_err(|no| Stop::Refused(ResolveRefused::NotPending(no.0)))?;
        self.vote(answer, id)?;
        let resolved_ms = (next != ApprovalState::Pending).then_some(integer(self.now_ms));
        self.execute(
            "UPDATE approvals SET state = ?1, resolved_ms = ?2, approvers = ?5, barred = ?6 WHERE id = ?3 AND state = ?4",
            params![next.word(), resolved_ms, id, state.word(), need, barred.as_ref().map(UserName::as_str)],
        )?;
        self.keep_intact(Kept::Approval(id))?;
        let plan = asked.plan;
        self.append(AuditKind::Approval, facts::resolution(answer, plan, next.word(), &asked.tenant));
        match next {
            ApprovalState::Approved => Ok(Resolved::Approved),
            ApprovalState::Rejected => {
                self.end_plan(plan, &Ending::Rejected(Arc::clone(&answer.reason)))?;
                Ok(Resolved::Rejected)
            }
            ApprovalState::Pending | ApprovalState::Expired | ApprovalState::Consumed => {
                Ok(Resolved::Counted { have, need })
            }
        }
    }

    /// How many distinct people agree, this answer included. Who is barred by now may have agreed before that.
    fn agreed(&mut self, answer: &Resolution, id: &[u8], barred: Option<&UserName>) -> Step<u8, ResolveRefused> {
        let sql = "SELECT * FROM approval_votes WHERE approval = ?1";
        let votes = self.rows(sql, params![id], |row| {
            intact(row, "approval_votes")?;
            let reading = Reading::new(row, "approval_votes");
            Ok((reading.name::<UserName>("approver")?, reading.number("approved")? == 1))
        })?;
        let mut have = u8::from(answer.approve);
        for (approver, approved) in votes {
            if approver == answer.approver {
                return Err(Stop::Refused(ResolveRefused::AlreadyAnswered));
            }
            have = have.saturating_add(u8::from(approved && barred != Some(&approver)));
        }
        Ok(have)
    }

    fn vote(&mut self, answer: &Resolution, id: &[u8]) -> Step<(), ResolveRefused> {
        self.execute(
            "INSERT INTO approval_votes (approval, approver, approved, reason, at_ms, via) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                id,
                answer.approver.as_str(),
                i64::from(answer.approve),
                answer.reason,
                integer(self.now_ms),
                answer.via.column()
            ],
        )?;
        Ok(self.keep_intact(Kept::Vote(id, answer.approver.as_str()))?)
    }

    /// Let a previewed plan wait for people.
    pub(super) fn hold(&mut self, plan: PlanId, approval: &ApprovalRow, reply: &Arc<str>) -> Step<(), DiscardRefused> {
        let id = id_bytes(plan.uuid());
        let found = self.row(read::PLAN, params![id], read::plan_with_state)?;
        let Some((stored, state)) = found else { return Err(Stop::Refused(DiscardRefused::NotFound)) };
        if state != PlanState::Previewed || stored.binding().expires_at_ms <= self.now_ms {
            let state = if state == PlanState::Previewed { PlanState::Expired } else { state };
            return Err(Stop::Refused(DiscardRefused::NotOpen(state)));
        }
        self.ask_for(&stored, approval)?;
        self.keep_intact(Kept::Approval(id_bytes(approval.id.uuid())))?;
        let sql = "UPDATE plans SET state = ?1 WHERE id = ?2 RETURNING seq";
        let held =
            self.row(sql, params![PlanState::Held.word(), id], |row| Reading::new(row, "plans").number("seq"))?;
        if let Some(seq) = held {
            self.keep_intact(Kept::Plan(integer(seq)))?;
        }
        let call = stored.binding().call;
        let reply = self.sealer.seal(&stored.body().principal.tenant, Part::Reply, reply)?;
        self.execute(
            "UPDATE calls SET status = ?1, outcome = ?2, reply = ?3 WHERE id = ?4",
            params![status_word(Status::Held), outcome_word(Outcome::Pending), reply, id_bytes(call.uuid())],
        )?;
        self.append(AuditKind::Held, facts::held(&stored, approval.id));
        Ok(())
    }

    /// Throw an open plan away.
    pub(super) fn discard(&mut self, scope: &Scope, plan: PlanId, why: &Discard) -> Step<Arc<str>, DiscardRefused> {
        let sql = "SELECT tenant, state FROM plans WHERE id = ?1";
        let found = self.row(sql, params![id_bytes(plan.uuid())], |row| {
            Ok((Reading::new(row, "plans").name::<TenantName>("tenant")?, state_of(row)?))
        })?;
        let Some((_, state)) = found.filter(|(tenant, _)| scope.sees(tenant)) else {
            return Err(Stop::Refused(DiscardRefused::NotFound));
        };
        if !state.is_open() {
            return Err(Stop::Refused(DiscardRefused::NotOpen(state)));
        }
        let (_, reply) = self.end_plan::<DiscardRefused>(plan, &Ending::from(why))?;
        Ok(reply)
    }

    /// An open plan ends without a commit, and with it its call, its approval and its pins.
    fn end_plan<R: From<LedgerError>>(&mut self, plan: PlanId, ending: &Ending) -> Step<(CallId, Arc<str>), R> {
        let id = id_bytes(plan.uuid());
        let sql = "SELECT c.seq, c.id, c.tenant, c.reply FROM plans p JOIN calls c ON c.seq = p.seq WHERE p.id = ?1";
        let vault = self.sealer.vault();
        let found = self.row(sql, params![id], |row| {
            let reading = Reading::new(row, "calls");
            let (seq, call) = (reading.number("seq")?, CallId::new(reading.uuid("id")?));
            let tenant = reading.name::<TenantName>("tenant")?;
            // The reply of a call that is not over can be opened; where it cannot, the ending stands alone.
            let before = vault.read(Part::Reply, reading.text("reply")?)?.clear();
            Ok((integer(seq), call, tenant, ending.reply(call, before.as_deref().unwrap_or_default())))
        })?;
        let Some((seq, call, tenant, reply)) = found else {
            return Err(LedgerError::Damaged(format!("plan {plan} has no call").into()).into());
        };
        self.expire_approval(id)?;
        let (status, outcome) = (ending.status(), Outcome::Discarded);
        self.end(plan, ending.plan_state(), &Final { seq, status, outcome, code: ending.code(), reply: &reply })?;
        self.unpin(seq, Some(Role::After))?;
        self.refund(call).map_err(|stop| match stop {
            Stop::Refused(error) => Stop::Refused(R::from(error)),
            Stop::Sql(error) => Stop::Sql(error),
        })?;
        self.append(AuditKind::Discarded, facts::ended(plan, (&tenant, call), (status, outcome), ending.word()));
        Ok((call, reply))
    }

    /// An approval whose plan is gone can be used no more.
    fn expire_approval<R: From<LedgerError>>(&mut self, plan: &[u8]) -> Step<(), R> {
        let found = self.row("SELECT state FROM approvals WHERE plan = ?1", params![plan], |row| {
            Reading::new(row, "approvals").word("state", ApprovalState::from_word)
        })?;
        let Some(state) = found else { return Ok(()) };
        if let Ok(next) = state.after(ApprovalEvent::Expire) {
            self.execute(
                "UPDATE approvals SET state = ?1, resolved_ms = ?2 WHERE plan = ?3 AND state = ?4",
                params![next.word(), integer(self.now_ms), plan, state.word()],
            )?;
            let sql = "SELECT id FROM approvals WHERE plan = ?1";
            let id = self.row(sql, params![plan], |row| Reading::new(row, "approvals").uuid("id"))?;
            if let Some(id) = id {
                self.keep_intact(Kept::Approval(id_bytes(&id)))?;
            }
        }
        Ok(())
    }

    /// Expire what is due: transactions, and at most [`EXPIRED_AT_ONCE`] plans.
    pub(super) fn expire_due(&mut self, now_ms: u64) -> Step<Vec<CallId>, LedgerError> {
        let limit = i64::try_from(EXPIRED_AT_ONCE).unwrap_or(i64::MAX);
        let held = self.rows(
            "SELECT plan FROM approvals WHERE state IN ('pending', 'approved') AND expires_ms <= ?1 \
             ORDER BY expires_ms LIMIT ?2",
            params![integer(now_ms), limit],
            plan_id,
        )?;
        let old = self.rows(
            "SELECT id AS plan FROM plans WHERE state IN ('previewed', 'held', 'committing') AND state <> 'committing' \
             AND expires_ms <= ?1 \
             ORDER BY expires_ms LIMIT ?2",
            params![integer(now_ms), limit],
            plan_id,
        )?;
        self.expire_transactions(now_ms)?;
        let mut ended = Vec::new();
        for plan in &held {
            ended.push(self.end_plan::<LedgerError>(*plan, &Ending::ApprovalExpired)?.0);
        }
        for plan in old.iter().filter(|plan| !held.contains(plan)) {
            let sql = "SELECT state FROM plans WHERE id = ?1";
            let held = self.row(sql, params![id_bytes(plan.uuid())], state_of)? == Some(PlanState::Held);
            let ending = if held { Ending::ApprovalExpired } else { Ending::PlanExpired };
            ended.push(self.end_plan::<LedgerError>(*plan, &ending)?.0);
        }
        Ok(ended)
    }

    /// A run begins.
    pub(super) fn open_run(&mut self, run: &RunRow) -> Step<(), LedgerError> {
        self.execute(
            "INSERT INTO runs (id, tenant, user, agent, label, opened_ms, closed_ms, workflow, terms, session, \
             credential) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            params![
                id_bytes(run.run.uuid()),
                run.principal.tenant.as_str(),
                run.principal.user.as_str(),
                run.principal.agent.as_str(),
                run.label,
                integer(run.opened_ms),
                run.closed_ms.map(integer),
                run.workflow.as_ref().map_or("", WorkflowName::as_str),
                run.terms,
                path_bytes(&run.origin.session),
                run.origin.credential.to_string(),
            ],
        )?;
        self.append(AuditKind::Run, facts::opened(run));
        Ok(())
    }

    /// A run of this principal ends. False if there is no such open run.
    pub(super) fn close_run(
        &mut self,
        owner: &Principal,
        run: RunId,
        outcome: Option<&str>,
        now_ms: u64,
    ) -> Step<bool, LedgerError> {
        let closed = self.execute(
            "UPDATE runs SET closed_ms = ?1, outcome = ?6 WHERE id = ?2 AND tenant = ?3 AND user = ?4 AND agent = ?5 \
             AND closed_ms IS NULL",
            params![
                integer(now_ms),
                id_bytes(run.uuid()),
                owner.tenant.as_str(),
                owner.user.as_str(),
                owner.agent.as_str(),
                outcome
            ],
        )?;
        if closed == 1 {
            self.append(AuditKind::Run, facts::closed(owner, run, outcome));
        }
        Ok(closed == 1)
    }

    /// Where a workspace is on this host.
    pub(super) fn workspace(&mut self, tenant: &str, name: &str, root: &str) -> Step<(), LedgerError> {
        self.execute(
            "INSERT INTO workspaces (tenant, name, root, seen_ms, host_id, lease_epoch, fence) \
             VALUES (?1, ?2, ?3, ?4, ?5, 0, 0) ON CONFLICT (tenant, name) DO UPDATE SET root = ?3, seen_ms = ?4",
            params![tenant, name, root, integer(self.now_ms), self.host_id],
        )?;
        Ok(())
    }

    /// Remove the rows of blobs that nothing pins. Returns those that are gone.
    pub(super) fn drop_blobs(&mut self, digests: &[Digest]) -> Step<Vec<Digest>, LedgerError> {
        let mut dropped = Vec::new();
        self.clear(true)?;
        for digest in digests {
            self.execute(
                "DELETE FROM blobs WHERE digest = ?1 \
                 AND NOT EXISTS (SELECT 1 FROM blob_pins WHERE blob_seq = blobs.seq) \
                 AND NOT EXISTS (SELECT 1 FROM transaction_pins WHERE digest = ?1) \
                 AND NOT EXISTS (SELECT 1 FROM recording_pins WHERE blob_seq = blobs.seq)",
                params![digest_bytes(digest)],
            )?;
            let sql = "SELECT 1 FROM blobs WHERE digest = ?1";
            let left = self.row(sql, params![digest_bytes(digest)], |_row| Ok(()))?;
            if left.is_none() {
                dropped.push(*digest);
            }
        }
        self.clear(false)?;
        Ok(dropped)
    }
}
