//! The writer's side of consent and of its end: answers of people, discarded plans, expiry; and the small rows of runs,
//! workspaces and blobs.
//!
//! The states of an approval change only through [`super::approval`]; a plan that ends here ends its call, its approval
//! and its pins in the same transaction.

use std::sync::Arc;

use sqlx::query;
use sqlx::sqlite::SqliteRow;
use toolkeep_core::audit::AuditKind;
use toolkeep_core::call::{Outcome, Status};
use toolkeep_core::digest::Digest;
use toolkeep_core::id::{CallId, PlanId, RunId, TenantName, UserName};
use toolkeep_core::principal::Principal;

use super::approval::{ApprovalEvent, ApprovalState};
use super::batch::{Batch, Step, Stop};
use super::column::{Reading, digest_bytes, id_bytes, integer, outcome_word, status_word};
use super::ending::Ending;
use super::facts;
use super::failure::{DiscardRefused, LedgerError, ResolveRefused};
use super::insert::Role;
use super::read;
use super::rows::{ApprovalRow, Discard, PlanState, Resolution, Resolved, RunRow, Scope};
use super::settle::Final;

/// Plans that one job expires, at most: the others of the batch must not wait long.
pub(super) const EXPIRED_AT_ONCE: usize = 64;

impl Batch<'_> {
    /// Count a person's answer.
    pub(super) async fn resolve(&mut self, answer: &Resolution) -> Step<Resolved, ResolveRefused> {
        let id = id_bytes(answer.id.uuid());
        let row =
            query("SELECT * FROM approvals WHERE id = $1").bind(id.clone()).fetch_optional(&mut *self.conn).await?;
        let Some(row) = row else { return Err(Stop::Refused(ResolveRefused::NotFound)) };
        let reading = Reading::new(&row, "approvals");
        let state = reading.word("state", ApprovalState::from_word)?;
        if state == ApprovalState::Pending && reading.number("expires_ms")? <= self.now_ms {
            return Err(Stop::Refused(ResolveRefused::NotPending(ApprovalState::Expired)));
        }
        if answer.approve && reading.text_or_null("barred")? == Some(answer.approver.as_str()) {
            return Err(Stop::Refused(ResolveRefused::Barred));
        }
        let need = u8::try_from(reading.number("approvers")?).unwrap_or(u8::MAX);
        let have = self.agreed(answer, &id).await?;
        let event = if answer.approve { ApprovalEvent::Agree { have, need } } else { ApprovalEvent::Refuse };
        let next = state.after(event).map_err(|no| Stop::Refused(ResolveRefused::NotPending(no.0)))?;
        self.vote(answer, &id).await?;
        let resolved_ms = (next != ApprovalState::Pending).then_some(integer(self.now_ms));
        query("UPDATE approvals SET state = $1, resolved_ms = $2 WHERE id = $3 AND state = $4")
            .bind(next.word())
            .bind(resolved_ms)
            .bind(id)
            .bind(state.word())
            .execute(&mut *self.conn)
            .await?;
        let plan = PlanId::new(reading.uuid("plan")?);
        self.append(AuditKind::Approval, facts::resolution(answer, plan, next.word()));
        match next {
            ApprovalState::Approved => Ok(Resolved::Approved),
            ApprovalState::Rejected => {
                self.end_plan(plan, &Ending::Rejected(Arc::clone(&answer.reason))).await?;
                Ok(Resolved::Rejected)
            }
            ApprovalState::Pending | ApprovalState::Expired | ApprovalState::Consumed => {
                Ok(Resolved::Counted { have, need })
            }
        }
    }

    /// How many distinct people agree, this answer included.
    async fn agreed(&mut self, answer: &Resolution, id: &[u8]) -> Step<u8, ResolveRefused> {
        let votes = query("SELECT approver, approved FROM approval_votes WHERE approval = $1")
            .bind(id)
            .fetch_all(&mut *self.conn)
            .await?;
        let mut have = u8::from(answer.approve);
        for row in &votes {
            let reading = Reading::new(row, "approval_votes");
            if reading.name::<UserName>("approver")? == answer.approver {
                return Err(Stop::Refused(ResolveRefused::AlreadyAnswered));
            }
            have = have.saturating_add(u8::from(reading.number("approved")? == 1));
        }
        Ok(have)
    }

    async fn vote(&mut self, answer: &Resolution, id: &[u8]) -> Result<(), sqlx::Error> {
        query("INSERT INTO approval_votes (approval, approver, approved, reason, at_ms) VALUES ($1, $2, $3, $4, $5)")
            .bind(id)
            .bind(answer.approver.as_str())
            .bind(i64::from(answer.approve))
            .bind(Arc::clone(&answer.reason))
            .bind(integer(self.now_ms))
            .execute(&mut *self.conn)
            .await?;
        Ok(())
    }

    /// Let a previewed plan wait for people.
    pub(super) async fn hold(
        &mut self,
        plan: PlanId,
        approval: &ApprovalRow,
        reply: &Arc<str>,
    ) -> Step<(), DiscardRefused> {
        let id = id_bytes(plan.uuid());
        let row = query("SELECT * FROM plans WHERE id = $1").bind(id.clone()).fetch_optional(&mut *self.conn).await?;
        let Some(row) = row else { return Err(Stop::Refused(DiscardRefused::NotFound)) };
        let reading = Reading::new(&row, "plans");
        let stored = read::plan_of(&reading)?;
        let state = reading.word("state", PlanState::from_word)?;
        if state != PlanState::Previewed || stored.binding().expires_at_ms <= self.now_ms {
            let state = if state == PlanState::Previewed { PlanState::Expired } else { state };
            return Err(Stop::Refused(DiscardRefused::NotOpen(state)));
        }
        self.ask_for(&stored, approval).await?;
        query("UPDATE plans SET state = $1 WHERE id = $2")
            .bind(PlanState::Held.word())
            .bind(id)
            .execute(&mut *self.conn)
            .await?;
        let call = stored.binding().call;
        query("UPDATE calls SET status = $1, outcome = $2, reply = $3 WHERE id = $4")
            .bind(status_word(Status::Held))
            .bind(outcome_word(Outcome::Pending))
            .bind(Arc::clone(reply))
            .bind(id_bytes(call.uuid()))
            .execute(&mut *self.conn)
            .await?;
        self.append(AuditKind::Held, facts::held(&stored, approval.id));
        Ok(())
    }

    /// Throw an open plan away.
    pub(super) async fn discard(
        &mut self,
        scope: &Scope,
        plan: PlanId,
        why: &Discard,
    ) -> Step<Arc<str>, DiscardRefused> {
        let row = query("SELECT tenant, state FROM plans WHERE id = $1")
            .bind(id_bytes(plan.uuid()))
            .fetch_optional(&mut *self.conn)
            .await?;
        let Some(row) = row else { return Err(Stop::Refused(DiscardRefused::NotFound)) };
        let reading = Reading::new(&row, "plans");
        if !scope.sees(&reading.name::<TenantName>("tenant")?) {
            return Err(Stop::Refused(DiscardRefused::NotFound));
        }
        let state = reading.word("state", PlanState::from_word)?;
        if !state.is_open() {
            return Err(Stop::Refused(DiscardRefused::NotOpen(state)));
        }
        let (_, reply) = self.end_plan::<DiscardRefused>(plan, &Ending::from(why)).await?;
        Ok(reply)
    }

    /// An open plan ends without a commit, and with it its call, its approval and its pins.
    async fn end_plan<R: From<LedgerError>>(&mut self, plan: PlanId, ending: &Ending) -> Step<(CallId, Arc<str>), R> {
        let id = id_bytes(plan.uuid());
        let row = query("SELECT c.id, c.reply FROM plans p JOIN calls c ON c.id = p.call WHERE p.id = $1")
            .bind(id.clone())
            .fetch_one(&mut *self.conn)
            .await?;
        let reading = Reading::new(&row, "calls");
        let call = CallId::new(reading.uuid("id")?);
        let reply = ending.reply(call, reading.text("reply")?);
        self.expire_approval(&id).await?;
        let (status, outcome) = (ending.status(), Outcome::Discarded);
        self.end(plan, ending.plan_state(), &Final { call, status, outcome, code: ending.code(), reply: &reply })
            .await?;
        self.unpin(plan, Some(Role::After)).await?;
        self.append(AuditKind::Discarded, facts::ended(plan, call, (status, outcome), ending.word()));
        Ok((call, reply))
    }

    /// An approval whose plan is gone can be used no more.
    async fn expire_approval<R: From<LedgerError>>(&mut self, plan: &[u8]) -> Step<(), R> {
        let row =
            query("SELECT state FROM approvals WHERE plan = $1").bind(plan).fetch_optional(&mut *self.conn).await?;
        let Some(row) = row else { return Ok(()) };
        let state = Reading::new(&row, "approvals").word("state", ApprovalState::from_word)?;
        if let Ok(next) = state.after(ApprovalEvent::Expire) {
            query("UPDATE approvals SET state = $1, resolved_ms = $2 WHERE plan = $3 AND state = $4")
                .bind(next.word())
                .bind(integer(self.now_ms))
                .bind(plan)
                .bind(state.word())
                .execute(&mut *self.conn)
                .await?;
        }
        Ok(())
    }

    /// Expire what is due, at most [`EXPIRED_AT_ONCE`] plans.
    pub(super) async fn expire_due(&mut self, now_ms: u64) -> Step<Vec<CallId>, LedgerError> {
        let limit = i64::try_from(EXPIRED_AT_ONCE).unwrap_or(i64::MAX);
        let approvals = query(
            "SELECT plan FROM approvals WHERE state IN ('pending', 'approved') AND expires_ms <= $1 \
             ORDER BY expires_ms LIMIT $2",
        )
        .bind(integer(now_ms))
        .bind(limit)
        .fetch_all(&mut *self.conn)
        .await?;
        let plans = query(
            "SELECT id AS plan FROM plans WHERE state IN ('previewed', 'held') AND expires_ms <= $1 \
             ORDER BY expires_ms LIMIT $2",
        )
        .bind(integer(now_ms))
        .bind(limit)
        .fetch_all(&mut *self.conn)
        .await?;
        let ids = |rows: &[SqliteRow]| -> Result<Vec<PlanId>, LedgerError> {
            rows.iter().map(|row| Reading::new(row, "plans").uuid("plan").map(PlanId::new)).collect()
        };
        let (held, old) = (ids(&approvals)?, ids(&plans)?);
        let mut ended = Vec::new();
        for plan in &held {
            ended.push(self.end_plan::<LedgerError>(*plan, &Ending::ApprovalExpired).await?.0);
        }
        for plan in old.iter().filter(|plan| !held.contains(plan)) {
            let row = query("SELECT state FROM plans WHERE id = $1")
                .bind(id_bytes(plan.uuid()))
                .fetch_one(&mut *self.conn)
                .await?;
            let held = Reading::new(&row, "plans").word("state", PlanState::from_word)? == PlanState::Held;
            let ending = if held { Ending::ApprovalExpired } else { Ending::PlanExpired };
            ended.push(self.end_plan::<LedgerError>(*plan, &ending).await?.0);
        }
        Ok(ended)
    }

    /// A run begins.
    pub(super) async fn open_run(&mut self, run: &RunRow) -> Step<(), LedgerError> {
        query(
            "INSERT INTO runs (id, tenant, user, agent, label, opened_ms, closed_ms) VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(id_bytes(run.run.uuid()))
        .bind(run.principal.tenant.as_str())
        .bind(run.principal.user.as_str())
        .bind(run.principal.agent.as_str())
        .bind(Arc::clone(&run.label))
        .bind(integer(run.opened_ms))
        .bind(run.closed_ms.map(integer))
        .execute(&mut *self.conn)
        .await?;
        Ok(())
    }

    /// A run of this principal ends. False if there is no such open run.
    pub(super) async fn close_run(&mut self, owner: &Principal, run: RunId, now_ms: u64) -> Step<bool, LedgerError> {
        let closed = query(
            "UPDATE runs SET closed_ms = $1 WHERE id = $2 AND tenant = $3 AND user = $4 AND agent = $5 \
             AND closed_ms IS NULL",
        )
        .bind(integer(now_ms))
        .bind(id_bytes(run.uuid()))
        .bind(owner.tenant.as_str())
        .bind(owner.user.as_str())
        .bind(owner.agent.as_str())
        .execute(&mut *self.conn)
        .await?;
        Ok(closed.rows_affected() == 1)
    }

    /// Where a workspace is on this host.
    pub(super) async fn workspace(&mut self, tenant: &str, name: &str, root: &str) -> Step<(), LedgerError> {
        query(
            "INSERT INTO workspaces (tenant, name, root, seen_ms, host_id, lease_epoch, fence) \
             VALUES ($1, $2, $3, $4, $5, 0, 0) ON CONFLICT (tenant, name) DO UPDATE SET root = $3, seen_ms = $4",
        )
        .bind(tenant)
        .bind(name)
        .bind(root)
        .bind(integer(self.now_ms))
        .bind(self.host_id)
        .execute(&mut *self.conn)
        .await?;
        Ok(())
    }

    /// Remove the rows of blobs that nothing pins. Returns those that are gone.
    pub(super) async fn drop_blobs(&mut self, digests: &[Digest]) -> Step<Vec<Digest>, LedgerError> {
        let mut dropped = Vec::new();
        for digest in digests {
            query("DELETE FROM blobs WHERE digest = $1 AND NOT EXISTS (SELECT 1 FROM blob_pins WHERE digest = $1)")
                .bind(digest_bytes(digest))
                .execute(&mut *self.conn)
                .await?;
            let left = query("SELECT 1 FROM blobs WHERE digest = $1")
                .bind(digest_bytes(digest))
                .fetch_optional(&mut *self.conn)
                .await?;
            if left.is_none() {
                dropped.push(*digest);
            }
        }
        Ok(dropped)
    }
}
