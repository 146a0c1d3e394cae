//! The writer's side of plans: keeping a proposal, making an intent durable, and writing down its outcome (D4).
//!
//! Every step is a compare-and-swap on the state of a row, so that of any number of callers exactly one wins. Nothing here
//! touches a workspace.

use std::sync::LazyLock;

use sqlx::query;
use toolkeep_core::audit::AuditKind;
use toolkeep_core::call::{Outcome, Status};
use toolkeep_core::effect::Effect;
use toolkeep_core::id::{ApprovalId, CallId, PlanId};
use toolkeep_core::plan::Plan;
use toolkeep_core::receipt::Receipt;
use toolkeep_core::refusal::Code;
use toolkeep_core::render::subject;

use super::approval::{ApprovalEvent, ApprovalState};
use super::batch::{Batch, Step, Stop};
use super::column::{Reading, digest_bytes, id_bytes, integer, outcome_word, status_word};
use super::facts;
use super::failure::{IntentRefused, LedgerError};
use super::insert::{self, Bound, Insert, Role};
use super::read;
use super::rows::{ApprovalRow, CallKey, CallRow, Intent, IntentId, OutcomeRow, PlanState, Proposal, Settled};

/// What one host writes as its lease (D20): there is nobody to take it from.
const LEASE_EPOCH: i64 = 0;
const FENCE: i64 = 0;

static EFFECTS: LazyLock<Insert> = LazyLock::new(|| {
    Insert::new("effects (plan, ordinal, kind, workspace, path, path_to, host_id, lease_epoch, fence)", 9, "")
});

impl Batch<'_> {
    /// Keep a plan that is not committed now.
    pub(super) async fn propose(&mut self, proposal: &Proposal) -> Step<(), LedgerError> {
        let state = if proposal.approval.is_some() { PlanState::Held } else { PlanState::Previewed };
        self.proposal(proposal, state).await?;
        if let Some(approval) = &proposal.approval {
            self.ask_for(&proposal.plan, approval).await?;
        }
        if let Some(key) = &proposal.call.key
            && !self.keep_key(&proposal.call, key).await?
        {
            return Err(LedgerError::Refused("the idempotency key belongs to another call".into()).into());
        }
        let kind = if proposal.approval.is_some() { AuditKind::Held } else { AuditKind::Call };
        self.append(kind, facts::call(&proposal.call, Some(proposal)));
        Ok(())
    }

    /// The rows of a call, its plan and its contents.
    async fn proposal(&mut self, proposal: &Proposal, state: PlanState) -> Result<(), sqlx::Error> {
        let plan = proposal.plan.as_ref();
        let placed = self.place(&proposal.call, Some(plan.id()));
        insert::calls(self.conn, &[placed]).await?;
        query(
            "INSERT INTO plans (id, tenant, call, tool, digest, canonical, seal, run, nonce, expires_ms, state, effects, \
             witnesses, made_ms, host_id, lease_epoch, fence) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)",
        )
        .bind(id_bytes(plan.id().uuid()))
        .bind(plan.body().principal.tenant.as_str())
        .bind(id_bytes(plan.binding().call.uuid()))
        .bind(plan.body().tool.as_str())
        .bind(digest_bytes(&plan.digest()))
        .bind(plan.canonical())
        .bind(digest_bytes(&plan.seal_digest()))
        .bind(plan.binding().run.map(|run| id_bytes(run.uuid())))
        .bind(plan.binding().nonce.as_str())
        .bind(integer(plan.binding().expires_at_ms))
        .bind(state.word())
        .bind(integer(plan.body().effects.len() as u64))
        .bind(std::sync::Arc::clone(&proposal.witnesses))
        .bind(integer(self.now_ms))
        .bind(self.host_id)
        .bind(LEASE_EPOCH)
        .bind(FENCE)
        .execute(&mut *self.conn)
        .await?;
        insert::blobs(self.conn, plan.id(), Role::After, &proposal.blobs).await
    }

    /// A request for consent to a plan.
    pub(super) async fn ask_for(&mut self, plan: &Plan, approval: &ApprovalRow) -> Result<(), sqlx::Error> {
        let principal = &plan.body().principal;
        query(
            "INSERT INTO approvals (id, tenant, user, agent, tool, call, plan, seal, approvers, barred, reason, state, \
             made_ms, expires_ms) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
        )
        .bind(id_bytes(approval.id.uuid()))
        .bind(principal.tenant.as_str())
        .bind(principal.user.as_str())
        .bind(principal.agent.as_str())
        .bind(plan.body().tool.as_str())
        .bind(id_bytes(plan.binding().call.uuid()))
        .bind(id_bytes(plan.id().uuid()))
        .bind(digest_bytes(&plan.seal_digest()))
        .bind(i64::from(approval.approvers))
        .bind(approval.barred.as_ref().map(|user| user.as_str().to_owned()))
        .bind(std::sync::Arc::clone(&approval.reason))
        .bind(ApprovalState::Pending.word())
        .bind(integer(self.now_ms))
        .bind(integer(approval.expires_at_ms))
        .execute(&mut *self.conn)
        .await?;
        Ok(())
    }

    /// Let a key name a call. False if it names another one.
    pub(super) async fn keep_key(&mut self, row: &CallRow, key: &CallKey) -> Result<bool, sqlx::Error> {
        let principal = &row.principal;
        let kept = query(
            "INSERT INTO idempotency (tenant, user, agent, tool, key, request, call, made_ms) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
        )
        .bind(principal.tenant.as_str())
        .bind(principal.user.as_str())
        .bind(principal.agent.as_str())
        .bind(row.tool.as_str())
        .bind(std::sync::Arc::clone(&key.key))
        .bind(digest_bytes(&key.request))
        .bind(id_bytes(row.call.uuid()))
        .bind(integer(self.now_ms))
        .execute(&mut *self.conn)
        .await?;
        Ok(kept.rows_affected() == 1)
    }

    /// Transaction 1: from here on the world may change.
    pub(super) async fn intent(&mut self, intent: &Intent) -> Step<IntentId, IntentRefused> {
        let stored;
        let plan: &Plan = if let Some(proposal) = &intent.proposal {
            self.fresh_plan(intent, proposal).await?;
            &proposal.plan
        } else {
            stored = self.stored_plan(intent).await?;
            &stored
        };
        let call = plan.binding().call;
        if let Some(undone) = intent.undoes {
            self.reserve_undo(undone, call).await?;
        }
        self.intent_row(intent, plan).await?;
        let (id, host_id) = (id_bytes(plan.id().uuid()), self.host_id);
        let effects: Vec<(i64, &Effect)> = (0_i64..).zip(&plan.body().effects).collect();
        let bind = |statement: Bound, (ordinal, effect): &(i64, &Effect)| {
            let mut paths = effect.paths();
            let path = paths.next().map(|path| path.as_str().to_owned()).unwrap_or_else(|| subject(effect));
            let to = paths.next().map(|path| path.as_str().to_owned());
            let statement = statement.bind(id.clone()).bind(*ordinal).bind(effect.kind());
            let statement =
                statement.bind(effect.workspace().map_or("", |workspace| workspace.as_str())).bind(path).bind(to);
            statement.bind(host_id).bind(LEASE_EPOCH).bind(FENCE)
        };
        EFFECTS.all(self.conn, &effects, bind).await?;
        insert::blobs(self.conn, plan.id(), Role::Undo, &intent.undo_blobs).await?;
        self.append(AuditKind::Intent, facts::intent(intent, plan, call));
        Ok(IntentId(plan.id()))
    }

    /// A plan that is committed as it is made.
    async fn fresh_plan(&mut self, intent: &Intent, proposal: &Proposal) -> Step<(), IntentRefused> {
        if proposal.approval.is_some() || intent.approval.is_some() || proposal.plan.id() != intent.plan {
            return Err(Stop::Refused(IntentRefused::WrongApproval));
        }
        if proposal.plan.binding().expires_at_ms <= self.now_ms {
            return Err(Stop::Refused(IntentRefused::Expired));
        }
        self.proposal(proposal, PlanState::Committing).await?;
        if let Some(key) = &proposal.call.key
            && !self.keep_key(&proposal.call, key).await?
        {
            return Err(Stop::Refused(IntentRefused::KeyTaken));
        }
        Ok(())
    }

    /// A plan that was previewed or held: verified, still open, and with its approval used up.
    async fn stored_plan(&mut self, intent: &Intent) -> Step<Plan, IntentRefused> {
        let id = id_bytes(intent.plan.uuid());
        let row = query("SELECT * FROM plans WHERE id = $1").bind(id.clone()).fetch_optional(&mut *self.conn).await?;
        let Some(row) = row else { return Err(Stop::Refused(IntentRefused::NoSuchPlan)) };
        let reading = Reading::new(&row, "plans");
        let plan = read::plan_of(&reading)?;
        let state = reading.word("state", PlanState::from_word)?;
        if !state.is_open() {
            return Err(Stop::Refused(IntentRefused::NotCommittable(state)));
        }
        if plan.binding().expires_at_ms <= self.now_ms {
            return Err(Stop::Refused(IntentRefused::Expired));
        }
        self.use_approval(intent, &plan).await?;
        query("UPDATE plans SET state = $1 WHERE id = $2")
            .bind(PlanState::Committing.word())
            .bind(id)
            .execute(&mut *self.conn)
            .await?;
        Ok(plan)
    }

    /// Compare and swap: an approved approval of exactly this seal becomes consumed.
    async fn use_approval(&mut self, intent: &Intent, plan: &Plan) -> Step<(), IntentRefused> {
        let row = query("SELECT id, seal, state, expires_ms FROM approvals WHERE plan = $1")
            .bind(id_bytes(plan.id().uuid()))
            .fetch_optional(&mut *self.conn)
            .await?;
        let (row, lease) = match (row, intent.approval) {
            (None, None) => return Ok(()),
            (Some(row), Some(lease)) => (row, lease),
            (None, Some(_)) => return Err(Stop::Refused(IntentRefused::WrongApproval)),
            (Some(row), None) => {
                let state = Reading::new(&row, "approvals").word("state", ApprovalState::from_word)?;
                return Err(Stop::Refused(IntentRefused::ApprovalNotUsable(state)));
            }
        };
        let reading = Reading::new(&row, "approvals");
        if ApprovalId::new(reading.uuid("id")?) != lease.id {
            return Err(Stop::Refused(IntentRefused::WrongApproval));
        }
        let state = reading.word("state", ApprovalState::from_word)?;
        let event = ApprovalEvent::Consume {
            seal_matches: reading.digest("seal")? == plan.seal_digest() && lease.seal == plan.seal_digest(),
            expired: reading.number("expires_ms")? <= self.now_ms,
        };
        let next = state.after(event).map_err(|no| Stop::Refused(IntentRefused::ApprovalNotUsable(no.0)))?;
        let swapped = query("UPDATE approvals SET state = $1 WHERE id = $2 AND state = $3")
            .bind(next.word())
            .bind(id_bytes(lease.id.uuid()))
            .bind(state.word())
            .execute(&mut *self.conn)
            .await?;
        if swapped.rows_affected() == 1 {
            Ok(())
        } else {
            Err(Stop::Refused(IntentRefused::ApprovalNotUsable(ApprovalState::Consumed)))
        }
    }

    /// A committed call is reversed once.
    async fn reserve_undo(&mut self, undone: CallId, by: CallId) -> Step<(), IntentRefused> {
        let reserved =
            query("UPDATE intents SET undone_by = $1 WHERE call = $2 AND state = 'committed' AND undone_by IS NULL")
                .bind(id_bytes(by.uuid()))
                .bind(id_bytes(undone.uuid()))
                .execute(&mut *self.conn)
                .await?;
        if reserved.rows_affected() == 0 { Err(Stop::Refused(IntentRefused::NotUndoable)) } else { Ok(()) }
    }

    async fn intent_row(&mut self, intent: &Intent, plan: &Plan) -> Result<(), sqlx::Error> {
        let receipt = intent.receipt.as_ref().and_then(|receipt| serde_json::to_string(receipt).ok());
        query(
            "INSERT INTO intents (plan, tenant, call, approval, undoes, steps, reply, receipt, state, made_ms, host_id, \
             lease_epoch, fence) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'open', $9, $10, $11, $12)",
        )
        .bind(id_bytes(plan.id().uuid()))
        .bind(plan.body().principal.tenant.as_str())
        .bind(id_bytes(plan.binding().call.uuid()))
        .bind(intent.approval.map(|approval| id_bytes(approval.id.uuid())))
        .bind(intent.undoes.map(|call| id_bytes(call.uuid())))
        .bind(std::sync::Arc::clone(&intent.steps))
        .bind(std::sync::Arc::clone(&intent.reply_when_done))
        .bind(receipt)
        .bind(integer(self.now_ms))
        .bind(self.host_id)
        .bind(LEASE_EPOCH)
        .bind(FENCE)
        .execute(&mut *self.conn)
        .await?;
        Ok(())
    }

    /// Transaction 2: what became of an intent.
    pub(super) async fn outcome(&mut self, row: &OutcomeRow) -> Step<(), LedgerError> {
        let (word, plan_state, status, outcome) = match &row.settled {
            Settled::Committed => ("committed", PlanState::Committed, Status::Ok, Outcome::Committed),
            Settled::RolledBack => ("rolled_back", PlanState::RolledBack, Status::Failed, Outcome::Discarded),
            Settled::Halted(_) => ("halted", PlanState::Halted, Status::Failed, Outcome::Halted),
        };
        let plan = row.intent.plan();
        let halted = match &row.settled {
            Settled::Halted(targets) => serde_json::to_string(targets).ok(),
            Settled::Committed | Settled::RolledBack => None,
        };
        let swapped = query(
            "UPDATE intents SET state = $1, halted = $2, settled_ms = $3 WHERE plan = $4 AND state = 'open' \
             RETURNING call",
        )
        .bind(word)
        .bind(halted)
        .bind(integer(row.ended_ms))
        .bind(id_bytes(plan.uuid()))
        .fetch_optional(&mut *self.conn)
        .await?;
        let Some(swapped) = swapped else {
            return Err(LedgerError::Refused("there is no such intent, or it has an outcome".into()).into());
        };
        let call = CallId::new(Reading::new(&swapped, "intents").uuid("call")?);
        self.end(plan, plan_state, &Final { call, status, outcome, code: row.error_code, reply: &row.reply }).await?;
        self.release(plan, &row.settled, call).await?;
        self.append(AuditKind::Outcome, facts::outcome(row, call));
        Ok(())
    }

    /// A plan is settled and its call becomes final.
    pub(super) async fn end(&mut self, plan: PlanId, state: PlanState, end: &Final<'_>) -> Result<(), sqlx::Error> {
        query("UPDATE plans SET state = $1, settled_ms = $2 WHERE id = $3")
            .bind(state.word())
            .bind(integer(self.now_ms))
            .bind(id_bytes(plan.uuid()))
            .execute(&mut *self.conn)
            .await?;
        query(
            "UPDATE calls SET status = $1, outcome = $2, error_code = $3, reply = $4, ended_ms = $5, final = 1 \
             WHERE id = $6",
        )
        .bind(status_word(end.status))
        .bind(outcome_word(end.outcome))
        .bind(end.code.map(Code::word))
        .bind(end.reply)
        .bind(integer(self.now_ms))
        .bind(id_bytes(end.call.uuid()))
        .execute(&mut *self.conn)
        .await?;
        Ok(())
    }

    /// Release the receipt, the pins and the reservations that a settled commit does not need any more.
    async fn release(&mut self, plan: PlanId, settled: &Settled, call: CallId) -> Step<(), LedgerError> {
        match settled {
            Settled::Committed => {
                self.release_receipt(plan, call).await?;
                self.unpin(plan, Some(Role::After)).await?;
                // What this plan reversed needs its undo contents no more.
                query(
                    "DELETE FROM blob_pins WHERE role = 'undo' AND plan IN \
                     (SELECT plan FROM intents WHERE call = (SELECT undoes FROM intents WHERE plan = $1))",
                )
                .bind(id_bytes(plan.uuid()))
                .execute(&mut *self.conn)
                .await?;
            }
            Settled::RolledBack => {
                self.unpin(plan, None).await?;
                query("UPDATE intents SET undone_by = NULL WHERE call = (SELECT undoes FROM intents WHERE plan = $1)")
                    .bind(id_bytes(plan.uuid()))
                    .execute(&mut *self.conn)
                    .await?;
            }
            // An operator has to look at it: everything stays.
            Settled::Halted(_) => {}
        }
        Ok(())
    }

    async fn release_receipt(&mut self, plan: PlanId, call: CallId) -> Step<(), LedgerError> {
        let row = query("SELECT tenant, receipt FROM intents WHERE plan = $1")
            .bind(id_bytes(plan.uuid()))
            .fetch_one(&mut *self.conn)
            .await?;
        let reading = Reading::new(&row, "intents");
        let Some(text) = reading.text_or_null("receipt")? else { return Ok(()) };
        let receipt: Receipt = serde_json::from_str(text)
            .map_err(|error| LedgerError::Damaged(format!("a receipt cannot be read: {error}").into()))?;
        query("INSERT INTO receipts (id, tenant, call, body, made_ms) VALUES ($1, $2, $3, $4, $5)")
            .bind(id_bytes(receipt.statement.receipt.uuid()))
            .bind(reading.text("tenant")?)
            .bind(id_bytes(call.uuid()))
            .bind(text)
            .bind(integer(self.now_ms))
            .execute(&mut *self.conn)
            .await?;
        Ok(())
    }

    /// Let go of a plan's blobs: of one role, or of both.
    pub(super) async fn unpin(&mut self, plan: PlanId, role: Option<Role>) -> Result<(), sqlx::Error> {
        query("DELETE FROM blob_pins WHERE plan = $1 AND ($2 IS NULL OR role = $2)")
            .bind(id_bytes(plan.uuid()))
            .bind(role.map(Role::word))
            .execute(&mut *self.conn)
            .await?;
        Ok(())
    }
}

/// The last word about a call.
pub(super) struct Final<'r> {
    pub(super) call: CallId,
    pub(super) status: Status,
    pub(super) outcome: Outcome,
    pub(super) code: Option<Code>,
    pub(super) reply: &'r str,
}
