//! The writer's side of plans: keeping a proposal, making an intent durable, and writing down its outcome (D4).
//!
//! Every step is a compare-and-swap on the state of a row, so that of any number of callers exactly one wins. Nothing here
//! touches a workspace.

use std::borrow::Cow;

use rusqlite::params;
use toolkeep_core::audit::AuditKind;
use toolkeep_core::call::{Outcome, Status};
use toolkeep_core::effect::Effect;
use toolkeep_core::id::{ApprovalId, CallId, PlanId, UserName};
use toolkeep_core::plan::Plan;
use toolkeep_core::receipt::Receipt;
use toolkeep_core::refusal::Code;
use toolkeep_core::render::subject;

use super::approval::{ApprovalEvent, ApprovalState};
use super::batch::{Batch, Step, Stop};
use super::buckets;
use super::column::{Reading, digest_bytes, id_bytes, integer, outcome_word, status_word};
use super::facts;
use super::failure::{IntentRefused, LedgerError};
use super::insert::{self, Role};
use super::read;
use super::rows::{ApprovalRow, CallKey, CallRow, Intent, IntentId, OutcomeRow, PlanState, Proposal, Settled};
use super::statement::each;

/// What one host writes as its lease (D20): there is nobody to take it from.
const LEASE_EPOCH: i64 = 0;
const FENCE: i64 = 0;

const EFFECT: &str = "INSERT INTO effects (plan, ordinal, kind, workspace, path, path_to, host_id, lease_epoch, fence) \
                      VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";

impl Batch<'_> {
    /// Keep a plan that is not committed now.
    pub(super) fn propose(&mut self, proposal: &Proposal) -> Step<(), LedgerError> {
        let state = if proposal.approval.is_some() { PlanState::Held } else { PlanState::Previewed };
        self.proposal(proposal, state)?;
        if let Some(approval) = &proposal.approval {
            self.ask_for(&proposal.plan, approval)?;
        }
        if let Some(key) = &proposal.call.key
            && !self.keep_key(&proposal.call, key)?
        {
            return Err(LedgerError::Refused("the idempotency key belongs to another call".into()).into());
        }
        if let Some(transaction) = proposal.transaction {
            self.seal_transaction(transaction, proposal.plan.id(), proposal.call.call)?;
        }
        let kind = if proposal.approval.is_some() { AuditKind::Held } else { AuditKind::Call };
        self.append(kind, facts::call(&proposal.call, Some(proposal)));
        Ok(())
    }

    /// The rows of a call, its plan and its contents.
    fn proposal(&mut self, proposal: &Proposal, state: PlanState) -> Result<(), rusqlite::Error> {
        let plan = proposal.plan.as_ref();
        if proposal.call.suspended {
            self.replace(&proposal.call, Some(plan.id()))?;
        } else {
            let placed = self.place(&proposal.call, Some(plan.id()));
            insert::calls(self.conn, &[placed])?;
        }
        self.execute("INSERT INTO plans (id, tenant, call, tool, digest, canonical, seal, run, nonce, expires_ms, state, effects, \
             witnesses, made_ms, host_id, lease_epoch, fence) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)", params![id_bytes(plan.id().uuid()), plan.body().principal.tenant.as_str(), id_bytes(plan.binding().call.uuid()), plan.body().tool.as_str(), digest_bytes(&plan.digest()), plan.canonical(), digest_bytes(&plan.seal_digest()), plan.binding().run.as_ref().map(|run| id_bytes(run.uuid())), plan.binding().nonce.as_str(), integer(plan.binding().expires_at_ms), state.word(), integer(plan.body().effects.len() as u64), proposal.witnesses, integer(self.now_ms), self.host_id, LEASE_EPOCH, FENCE])?;
        insert::blobs(self.conn, plan.id(), Role::After, &proposal.blobs)
    }

    /// A request for consent to a plan.
    pub(super) fn ask_for(&mut self, plan: &Plan, approval: &ApprovalRow) -> Result<(), rusqlite::Error> {
        let principal = &plan.body().principal;
        self.execute(
            "INSERT INTO approvals (id, tenant, user, agent, tool, call, plan, seal, approvers, barred, reason, state, \
             made_ms, expires_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
            params![
                id_bytes(approval.id.uuid()),
                principal.tenant.as_str(),
                principal.user.as_str(),
                principal.agent.as_str(),
                plan.body().tool.as_str(),
                id_bytes(plan.binding().call.uuid()),
                id_bytes(plan.id().uuid()),
                digest_bytes(&plan.seal_digest()),
                i64::from(approval.approvers),
                approval.barred.as_ref().map(UserName::as_str),
                approval.reason,
                ApprovalState::Pending.word(),
                integer(self.now_ms),
                integer(approval.expires_at_ms)
            ],
        )?;
        Ok(())
    }

    /// Let a key name a call. False if it names another one.
    pub(super) fn keep_key(&mut self, row: &CallRow, key: &CallKey) -> Result<bool, rusqlite::Error> {
        if row.suspended {
            // It names the call already.
            return Ok(true);
        }
        let principal = &row.principal;
        let kept = self.execute(
            "INSERT INTO idempotency (tenant, user, agent, tool, key, request, call, made_ms) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING",
            params![
                principal.tenant.as_str(),
                principal.user.as_str(),
                principal.agent.as_str(),
                row.tool.as_str(),
                key.key,
                digest_bytes(&key.request),
                id_bytes(row.call.uuid()),
                integer(self.now_ms)
            ],
        )?;
        Ok(kept == 1)
    }

    /// Transaction 1: from here on the world may change.
    pub(super) fn intent(&mut self, intent: &Intent) -> Step<IntentId, IntentRefused> {
        let stored;
        let plan: &Plan = if let Some(proposal) = &intent.proposal {
            self.fresh_plan(intent, proposal)?;
            &proposal.plan
        } else {
            stored = self.stored_plan(intent)?;
            &stored
        };
        buckets::unchanged(self.conn, plan.body())?.map_err(|changed| Stop::Refused(changed.into()))?;
        let call = plan.binding().call;
        if let Some(undone) = intent.undoes {
            self.reserve_undo(undone, call)?;
        }
        self.intent_row(intent, plan)?;
        self.effects(plan)?;
        self.sends(plan.id(), &intent.sends)?;
        insert::blobs(self.conn, plan.id(), Role::Undo, &intent.undo_blobs)?;
        self.append(AuditKind::Intent, facts::intent(intent, plan, call));
        Ok(IntentId(plan.id()))
    }

    /// What a plan does, one row for each effect.
    fn effects(&self, plan: &Plan) -> Result<(), rusqlite::Error> {
        let (id, effects) = (plan.id(), &plan.body().effects);
        let effects: Vec<(i64, &Effect)> = (0_i64..).zip(effects).collect();
        each(self.conn, EFFECT, &effects, |statement, (ordinal, effect)| {
            let mut paths = effect.paths();
            let path = paths.next().map_or_else(|| Cow::Owned(subject(effect)), |path| Cow::Borrowed(path.as_str()));
            let to = paths.next().map(|path| path.as_str());
            let (kind, workspace) = (effect.kind(), effect.workspace().map_or("", |workspace| workspace.as_str()));
            statement.execute(params![
                id_bytes(id.uuid()),
                ordinal,
                kind,
                workspace,
                path,
                to,
                self.host_id,
                LEASE_EPOCH,
                FENCE
            ])
        })
    }

    /// A plan that is committed as it is made.
    fn fresh_plan(&mut self, intent: &Intent, proposal: &Proposal) -> Step<(), IntentRefused> {
        if proposal.approval.is_some() || intent.approval.is_some() || proposal.plan.id() != intent.plan {
            return Err(Stop::Refused(IntentRefused::WrongApproval));
        }
        if proposal.plan.binding().expires_at_ms <= self.now_ms {
            return Err(Stop::Refused(IntentRefused::Expired));
        }
        self.proposal(proposal, PlanState::Committing)?;
        if let Some(key) = &proposal.call.key
            && !self.keep_key(&proposal.call, key)?
        {
            return Err(Stop::Refused(IntentRefused::KeyTaken));
        }
        Ok(())
    }

    /// A plan that was previewed or held: verified, still open, and with its approval used up.
    fn stored_plan(&mut self, intent: &Intent) -> Step<Plan, IntentRefused> {
        let id = id_bytes(intent.plan.uuid());
        let found = self.row("SELECT * FROM plans WHERE id = ?1", params![id], read::plan_with_state)?;
        let Some((plan, state)) = found else { return Err(Stop::Refused(IntentRefused::NoSuchPlan)) };
        if !state.is_open() {
            return Err(Stop::Refused(IntentRefused::NotCommittable(state)));
        }
        if plan.binding().expires_at_ms <= self.now_ms {
            return Err(Stop::Refused(IntentRefused::Expired));
        }
        self.use_approval(intent, &plan)?;
        self.execute("UPDATE plans SET state = ?1 WHERE id = ?2", params![PlanState::Committing.word(), id])?;
        Ok(plan)
    }

    /// Compare and swap: an approved approval of exactly this seal becomes consumed.
    fn use_approval(&mut self, intent: &Intent, plan: &Plan) -> Step<(), IntentRefused> {
        let sql = "SELECT id, seal, state, expires_ms FROM approvals WHERE plan = ?1";
        let found = self.row(sql, params![id_bytes(plan.id().uuid())], |row| {
            let reading = Reading::new(row, "approvals");
            let (id, state) = (reading.uuid("id")?, reading.word("state", ApprovalState::from_word)?);
            Ok((ApprovalId::new(id), state, reading.digest("seal")?, reading.number("expires_ms")?))
        })?;
        let ((id, state, seal, expires_ms), lease) = match (found, intent.approval) {
            (None, None) => return Ok(()),
            (Some(found), Some(lease)) => (found, lease),
            (None, Some(_)) => return Err(Stop::Refused(IntentRefused::WrongApproval)),
            (Some((_, state, ..)), None) => return Err(Stop::Refused(IntentRefused::ApprovalNotUsable(state))),
        };
        if id != lease.id {
            return Err(Stop::Refused(IntentRefused::WrongApproval));
        }
        let event = ApprovalEvent::Consume {
            seal_matches: seal == plan.seal_digest() && lease.seal == plan.seal_digest(),
            expired: expires_ms <= self.now_ms,
        };
        let next = state.after(event).map_err(|no| Stop::Refused(IntentRefused::ApprovalNotUsable(no.0)))?;
        let swapped = self.execute(
            "UPDATE approvals SET state = ?1 WHERE id = ?2 AND state = ?3",
            params![next.word(), id_bytes(lease.id.uuid()), state.word()],
        )?;
        if swapped == 1 {
            Ok(())
        } else {
            Err(Stop::Refused(IntentRefused::ApprovalNotUsable(ApprovalState::Consumed)))
        }
    }

    /// A committed call is reversed once.
    fn reserve_undo(&mut self, undone: CallId, by: CallId) -> Step<(), IntentRefused> {
        let reserved = self.execute(
            "UPDATE intents SET undone_by = ?1 WHERE call = ?2 AND state = 'committed' AND undone_by IS NULL",
            params![id_bytes(by.uuid()), id_bytes(undone.uuid())],
        )?;
        if reserved == 0 { Err(Stop::Refused(IntentRefused::NotUndoable)) } else { Ok(()) }
    }

    fn intent_row(&mut self, intent: &Intent, plan: &Plan) -> Result<(), rusqlite::Error> {
        let receipt = intent.receipt.as_ref().and_then(|receipt| serde_json::to_string(receipt).ok());
        self.execute("INSERT INTO intents (plan, tenant, call, approval, undoes, steps, reply, receipt, state, made_ms, host_id, \
             lease_epoch, fence) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 'open', ?9, ?10, ?11, ?12)", params![id_bytes(plan.id().uuid()), plan.body().principal.tenant.as_str(), id_bytes(plan.binding().call.uuid()), intent.approval.as_ref().map(|approval| id_bytes(approval.id.uuid())), intent.undoes.as_ref().map(|call| id_bytes(call.uuid())), intent.steps, intent.reply_when_done, receipt, integer(self.now_ms), self.host_id, LEASE_EPOCH, FENCE])?;
        Ok(())
    }

    /// Transaction 2: what became of an intent.
    pub(super) fn outcome(&mut self, row: &OutcomeRow) -> Step<(), LedgerError> {
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
        let swapped = self.row(
            "UPDATE intents SET state = ?1, halted = ?2, settled_ms = ?3 WHERE plan = ?4 AND state = 'open' \
             RETURNING call, tenant",
            params![word, halted, integer(row.ended_ms), id_bytes(plan.uuid())],
            |row| {
                let reading = Reading::new(row, "intents");
                Ok((reading.uuid("call")?, reading.name("tenant")?))
            },
        )?;
        let Some((swapped, tenant)) = swapped else {
            return Err(LedgerError::Refused("there is no such intent, or it has an outcome".into()).into());
        };
        let call = CallId::new(swapped);
        if row.settled == Settled::Committed {
            self.change_keys(&tenant, &row.keys)?;
            row.deliveries.iter().try_for_each(|what| self.enqueue(what))?;
        }
        if let Some(receipt) = row.receipt.as_ref().and_then(|receipt| serde_json::to_string(receipt).ok()) {
            self.execute("UPDATE intents SET receipt = ?1 WHERE plan = ?2", params![receipt, id_bytes(plan.uuid())])?;
        }
        self.end(plan, plan_state, &Final { call, status, outcome, code: row.error_code, reply: &row.reply })?;
        self.release(plan, &row.settled, call)?;
        self.append(AuditKind::Outcome, facts::outcome(row, call));
        Ok(())
    }

    /// A plan is settled and its call becomes final.
    pub(super) fn end(&mut self, plan: PlanId, state: PlanState, end: &Final<'_>) -> Result<(), rusqlite::Error> {
        self.execute(
            "UPDATE plans SET state = ?1, settled_ms = ?2 WHERE id = ?3",
            params![state.word(), integer(self.now_ms), id_bytes(plan.uuid())],
        )?;
        self.execute(
            "UPDATE calls SET status = ?1, outcome = ?2, error_code = ?3, reply = ?4, ended_ms = ?5, final = 1 \
             WHERE id = ?6",
            params![
                status_word(end.status),
                outcome_word(end.outcome),
                end.code.map(Code::word),
                end.reply,
                integer(self.now_ms),
                id_bytes(end.call.uuid())
            ],
        )?;
        self.end_with_plan(plan, state)
    }

    /// Release the receipt, the pins and the reservations that a settled commit does not need any more.
    fn release(&mut self, plan: PlanId, settled: &Settled, call: CallId) -> Step<(), LedgerError> {
        match settled {
            Settled::Committed => {
                self.release_receipt(plan, call)?;
                self.forget_written(plan)?;
                // What this plan reversed needs its undo contents no more.
                self.execute(
                    "DELETE FROM blob_pins WHERE role = 'undo' AND plan IN \
                     (SELECT plan FROM intents WHERE call = (SELECT undoes FROM intents WHERE plan = ?1))",
                    params![id_bytes(plan.uuid())],
                )?;
            }
            Settled::RolledBack => {
                self.unpin(plan, None)?;
                self.execute(
                    "UPDATE intents SET undone_by = NULL WHERE call = (SELECT undoes FROM intents WHERE plan = ?1)",
                    params![id_bytes(plan.uuid())],
                )?;
            }
            // An operator has to look at it: everything stays.
            Settled::Halted(_) => {}
        }
        Ok(())
    }

    fn release_receipt(&mut self, plan: PlanId, call: CallId) -> Step<(), LedgerError> {
        let sql = "SELECT tenant, receipt FROM intents WHERE plan = ?1";
        let found = self.row(sql, params![id_bytes(plan.uuid())], |row| {
            let reading = Reading::new(row, "intents");
            Ok((reading.text("tenant")?.to_owned(), reading.text_or_null("receipt")?.map(str::to_owned)))
        })?;
        let Some((tenant, Some(text))) = found else { return Ok(()) };
        let receipt: Receipt = serde_json::from_str(&text)
            .map_err(|error| LedgerError::Damaged(format!("a receipt cannot be read: {error}").into()))?;
        self.execute(
            "INSERT INTO receipts (id, tenant, call, body, made_ms) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                id_bytes(receipt.statement.receipt.uuid()),
                tenant,
                id_bytes(call.uuid()),
                text,
                integer(self.now_ms)
            ],
        )?;
        Ok(())
    }

    /// What a committed plan wrote is in the workspace now. Its small contents go at once where nothing else needs them:
    /// every intent brings some, more than a collection now and then could remove.
    fn forget_written(&mut self, plan: PlanId) -> Step<(), LedgerError> {
        let sql = "DELETE FROM blob_pins WHERE plan = ?1 AND role = ?2 RETURNING digest";
        let digests = self.rows(sql, params![id_bytes(plan.uuid()), Role::After.word()], |row| {
            Reading::new(row, "blob_pins").digest("digest")
        })?;
        for digest in digests {
            self.execute(
                "DELETE FROM blobs WHERE digest = ?1 AND content IS NOT NULL \
                 AND NOT EXISTS (SELECT 1 FROM blob_pins WHERE digest = ?1)",
                params![digest_bytes(&digest)],
            )?;
        }
        Ok(())
    }

    /// Let go of a plan's blobs: of one role, or of both.
    pub(super) fn unpin(&mut self, plan: PlanId, role: Option<Role>) -> Result<(), rusqlite::Error> {
        self.execute(
            "DELETE FROM blob_pins WHERE plan = ?1 AND (?2 IS NULL OR role = ?2)",
            params![id_bytes(plan.uuid()), role.map(Role::word)],
        )?;
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
