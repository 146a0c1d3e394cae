//! The writer's side of plans: keeping a proposal, making an intent durable, and writing down its outcome (D4).
//!
//! Every step is a compare-and-swap on the state of a row, so that of any number of callers exactly one wins. Nothing here
//! touches a workspace.

use std::borrow::Cow;

use rusqlite::{Row, params};
use toolkeep_core::audit::AuditKind;
use toolkeep_core::call::{Outcome, Status};
use toolkeep_core::effect::Effect;
use toolkeep_core::id::{ApprovalId, CallId, PlanId, TenantName, UserName};
use toolkeep_core::plan::Plan;
use toolkeep_core::refusal::Code;
use toolkeep_core::render::subject;

use super::approval::{ApprovalEvent, ApprovalState};
use super::batch::{Batch, Step, Stop};
use super::buckets;
use super::column::{Reading, digest_bytes, id_bytes, integer, outcome_word, status_word};
use super::facts;
use super::failure::{IntentRefused, LedgerError};
use super::insert::{self, Role};
use super::intact::{Kept, intact};
use super::read;
use super::rows::{ApprovalRow, CallKey, CallRow, Intent, IntentId, OutcomeRow, PlanState, Proposal, Settled};
use super::statement::each;
use super::stats::Ended;
use super::suspended::not_waiting;
use crate::vault::Part;

/// What one host writes as its lease (D20): there is nobody to take it from.
const LEASE_EPOCH: i64 = 0;
const FENCE: i64 = 0;

const PLAN: &str = "INSERT INTO plans (seq, id, tenant, call, tool, digest, seal, run, nonce, expires_ms, shown, state, \
                    effects, made_ms, intent_ms, undoes, unknown, host_id, lease_epoch, fence) VALUES (?1, ?2, ?3, ?4, \
                    ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, 0, ?17, ?18, ?19)";
const TEXTS: &str = "INSERT INTO plan_texts (plan_seq, canonical, witnesses, steps, reply, receipt) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
const EFFECT: &str = "INSERT INTO effects (plan_seq, ordinal, kind, workspace, path, path_to, host_id, lease_epoch, \
                      fence) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
const FORGOTTEN: &str = "DELETE FROM blobs WHERE seq = ?1 AND content IS NOT NULL \
                         AND NOT EXISTS (SELECT 1 FROM blob_pins WHERE blob_seq = ?1) \
                         AND NOT EXISTS (SELECT 1 FROM transaction_pins WHERE digest = blobs.digest) \
                         AND NOT EXISTS (SELECT 1 FROM recording_pins WHERE blob_seq = ?1)";

/// What the receipt of an intent is kept as.
fn receipt_text(intent: &Intent) -> Option<String> {
    intent.receipt.as_ref().and_then(|receipt| serde_json::to_string(receipt).ok())
}

impl Batch<'_> {
    /// Keep a plan that is not committed now.
    pub(super) fn propose(&mut self, proposal: &Proposal) -> Step<(), LedgerError> {
        let state = if proposal.approval.is_some() { PlanState::Held } else { PlanState::Previewed };
        let Some(seq) = self.proposal(proposal, state, None)? else { return Err(not_waiting().into()) };
        self.keep_intact(Kept::Plan(seq))?;
        if let Some(approval) = &proposal.approval {
            self.ask_for(&proposal.plan, approval)?;
            self.keep_intact(Kept::Approval(id_bytes(approval.id.uuid())))?;
        }
        if let Some(key) = &proposal.call.key
            && !self.keep_key(seq, &proposal.call, key)?
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

    /// The rows of a call, its plan and its contents, and of its intent if it is committed at once. Returns their place;
    /// nothing if the call waited for a part of it and does not any more.
    fn proposal(
        &mut self,
        proposal: &Proposal,
        state: PlanState,
        intent: Option<&Intent>,
    ) -> Result<Option<i64>, rusqlite::Error> {
        let plan = proposal.plan.as_ref();
        let (body, binding) = (plan.body(), plan.binding());
        let seq = if proposal.call.suspended {
            match self.replace(&proposal.call, Some(plan.id()))? {
                Some(seq) => seq,
                None => return Ok(None),
            }
        } else {
            let placed = self.place(&proposal.call, Some(plan.id()));
            insert::calls(self.conn, &mut self.sealer, &[placed])?;
            placed.seq
        };
        self.execute(
            PLAN,
            params![
                seq,
                id_bytes(plan.id().uuid()),
                body.principal.tenant.as_str(),
                id_bytes(binding.call.uuid()),
                body.tool.as_str(),
                digest_bytes(&plan.digest()),
                digest_bytes(&plan.seal_digest()),
                binding.run.as_ref().map(|run| id_bytes(run.uuid())),
                binding.nonce.as_str(),
                integer(binding.expires_at_ms),
                intent.is_none(),
                state.word(),
                integer(body.effects.len() as u64),
                integer(self.now_ms),
                intent.map(|_| integer(self.now_ms)),
                intent.and_then(|intent| intent.undoes.as_ref()).map(|call| id_bytes(call.uuid())),
                self.host_id,
                LEASE_EPOCH,
                FENCE
            ],
        )?;
        let done = intent.map(|intent| &*intent.reply_when_done);
        let done = done.map(|text| self.sealer.seal(&body.principal.tenant, Part::Done, text)).transpose()?;
        self.execute(
            TEXTS,
            params![
                seq,
                plan.canonical(),
                proposal.witnesses,
                intent.map(|intent| &*intent.steps),
                done,
                intent.and_then(receipt_text)
            ],
        )?;
        insert::blobs(self.conn, seq, Role::After, &proposal.blobs)?;
        Ok(Some(seq))
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
    pub(super) fn keep_key(&mut self, seq: i64, row: &CallRow, key: &CallKey) -> Result<bool, rusqlite::Error> {
        if row.suspended {
            // It names the call already.
            return Ok(true);
        }
        let principal = &row.principal;
        let kept = self.execute(
            "INSERT INTO idempotency (tenant, user, agent, tool, key, request, call_seq, made_ms) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO NOTHING",
            params![
                principal.tenant.as_str(),
                principal.user.as_str(),
                principal.agent.as_str(),
                row.tool.as_str(),
                key.key,
                digest_bytes(&key.request),
                seq,
                integer(self.now_ms)
            ],
        )?;
        Ok(kept == 1)
    }

    /// A call ended without a result worth keeping: its key names nothing any more.
    pub(super) fn give_back_key(&mut self, seq: i64) -> Result<(), rusqlite::Error> {
        self.execute("DELETE FROM idempotency WHERE call_seq = ?1", params![seq])?;
        Ok(())
    }

    /// Transaction 1: from here on the world may change.
    pub(super) fn intent(&mut self, intent: &Intent) -> Step<IntentId, IntentRefused> {
        self.within_quotas(&intent.quotas)?;
        let stored;
        let (seq, plan): (i64, &Plan) = if let Some(proposal) = &intent.proposal {
            (self.fresh_plan(intent, proposal)?, &proposal.plan)
        } else {
            let (seq, plan) = self.stored_plan(intent)?;
            stored = plan;
            (seq, &stored)
        };
        let call = plan.binding().call;
        if let Some(undone) = intent.undoes {
            self.reserve_undo(undone, call)?;
        }
        if let Some(standing) = &intent.standing {
            self.use_standing(standing, &plan.body().principal.tenant)?;
        }
        self.effects(seq, plan)?;
        self.sends(plan.id(), &intent.sends)?;
        self.charge_quotas(plan.id(), &intent.quotas)?;
        insert::blobs(self.conn, seq, Role::Undo, &intent.undo_blobs)?;
        self.append(AuditKind::Intent, facts::intent(intent, plan, call));
        Ok(IntentId(plan.id()))
    }

    /// What a plan does, one row for each effect.
    fn effects(&self, seq: i64, plan: &Plan) -> Result<(), rusqlite::Error> {
        let effects: Vec<(i64, &Effect)> = (0_i64..).zip(&plan.body().effects).collect();
        each(self.conn, EFFECT, &effects, |statement, (ordinal, effect)| {
            let mut paths = effect.paths();
            let path = paths.next().map_or_else(|| Cow::Owned(subject(effect)), |path| Cow::Borrowed(path.as_str()));
            let to = paths.next().map(|path| path.as_str());
            let (kind, workspace) = (effect.kind(), effect.workspace().map_or("", |workspace| workspace.as_str()));
            statement.execute(params![seq, ordinal, kind, workspace, path, to, self.host_id, LEASE_EPOCH, FENCE])
        })
    }

    /// A plan that is committed as it is made. What can be refused is refused before anything is written.
    fn fresh_plan(&mut self, intent: &Intent, proposal: &Proposal) -> Step<i64, IntentRefused> {
        if proposal.approval.is_some() || intent.approval.is_some() || proposal.plan.id() != intent.plan {
            return Err(Stop::Refused(IntentRefused::WrongApproval));
        }
        if proposal.plan.binding().expires_at_ms <= self.now_ms {
            return Err(Stop::Refused(IntentRefused::Expired));
        }
        buckets::unchanged(self.conn, proposal.plan.body())?.map_err(|changed| Stop::Refused(changed.into()))?;
        let Some(seq) = self.proposal(proposal, PlanState::Committing, Some(intent))? else {
            return Err(Stop::Refused(not_waiting().into()));
        };
        if let Some(key) = &proposal.call.key
            && !self.keep_key(seq, &proposal.call, key)?
        {
            return Err(Stop::Refused(IntentRefused::KeyTaken));
        }
        Ok(seq)
    }

    /// A plan that was previewed or held: verified, still open, and with its approval used up.
    fn stored_plan(&mut self, intent: &Intent) -> Step<(i64, Plan), IntentRefused> {
        let found = self.row(read::PLAN, params![id_bytes(intent.plan.uuid())], |row| {
            let seq = Reading::new(row, "plans").number("seq")?;
            Ok((integer(seq), read::plan_with_state(row)?))
        })?;
        let Some((seq, (plan, state))) = found else { return Err(Stop::Refused(IntentRefused::NoSuchPlan)) };
        if state == PlanState::Held && intent.approval.is_none() {
            // Whatever the rows of approvals say: a plan that waits is not committed without one.
            let pending = IntentRefused::ApprovalNotUsable(ApprovalState::Pending);
            return Err(Stop::Refused(pending));
        }
        if !state.is_open() {
            return Err(Stop::Refused(IntentRefused::NotCommittable(state)));
        }
        if plan.binding().expires_at_ms <= self.now_ms {
            return Err(Stop::Refused(IntentRefused::Expired));
        }
        buckets::unchanged(self.conn, plan.body())?.map_err(|changed| Stop::Refused(changed.into()))?;
        self.use_approval(intent, &plan)?;
        if intent.approval.is_some() {
            self.heard(plan.binding().call).map_err(|stop| match stop {
                Stop::Refused(error) => Stop::Refused(error.into()),
                Stop::Sql(error) => Stop::Sql(error),
            })?;
        }
        self.execute(
            "UPDATE plans SET state = ?1, intent_ms = ?2, approval = ?3, undoes = ?4, row_digest = NULL WHERE seq = ?5",
            params![
                PlanState::Committing.word(),
                integer(self.now_ms),
                intent.approval.as_ref().map(|approval| id_bytes(approval.id.uuid())),
                intent.undoes.as_ref().map(|call| id_bytes(call.uuid())),
                seq
            ],
        )?;
        let done = self.sealer.seal(&plan.body().principal.tenant, Part::Done, &intent.reply_when_done)?;
        self.execute(
            "UPDATE plan_texts SET steps = ?1, reply = ?2, receipt = ?3 WHERE plan_seq = ?4",
            params![intent.steps, done, receipt_text(intent), seq],
        )?;
        Ok((seq, plan))
    }

    /// Compare and swap: an approved approval of exactly this seal becomes consumed.
    fn use_approval(&mut self, intent: &Intent, plan: &Plan) -> Step<(), IntentRefused> {
        let sql = "SELECT * FROM approvals WHERE plan = ?1";
        let found = self.row(sql, params![id_bytes(plan.id().uuid())], |row| {
            intact(row, "approvals")?;
            let reading = Reading::new(row, "approvals");
            let (id, state) = (reading.uuid("id")?, reading.word("state", ApprovalState::from_word)?);
            let barred = reading.text_or_null("barred")?.map(|_| reading.name("barred")).transpose()?;
            let need = (reading.number("approvers")?, barred);
            Ok((ApprovalId::new(id), state, reading.digest("seal")?, reading.number("expires_ms")?, need))
        })?;
        let ((id, state, seal, expires_ms, need), lease) = match (found, intent.approval) {
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
        self.agreement(lease.id, &need)?;
        let swapped = self.execute(
            "UPDATE approvals SET state = ?1 WHERE id = ?2 AND state = ?3",
            params![next.word(), id_bytes(lease.id.uuid()), state.word()],
        )?;
        if swapped == 1 {
            Ok(self.keep_intact(Kept::Approval(id_bytes(lease.id.uuid())))?)
        } else {
            Err(Stop::Refused(IntentRefused::ApprovalNotUsable(ApprovalState::Consumed)))
        }
    }

    /// Whether the answers of people, as they are kept, are enough for what is used up now.
    fn agreement(&self, approval: ApprovalId, (need, barred): &(u64, Option<UserName>)) -> Step<(), IntentRefused> {
        let sql = "SELECT * FROM approval_votes WHERE approval = ?1";
        let votes = self.rows(sql, params![id_bytes(approval.uuid())], |row| {
            intact(row, "approval_votes")?;
            let reading = Reading::new(row, "approval_votes");
            Ok((reading.name::<UserName>("approver")?, reading.number("approved")? == 1))
        })?;
        let counts = |(approver, approved): &&(UserName, bool)| *approved && barred.as_ref() != Some(approver);
        let agreed = votes.iter().filter(counts).count() as u64;
        if votes.iter().all(|(_, approved)| *approved) && agreed >= (*need).max(1) {
            return Ok(());
        }
        Err(Stop::Refused(IntentRefused::ApprovalNotUsable(ApprovalState::Pending)))
    }

    /// A committed call is reversed once.
    fn reserve_undo(&mut self, undone: CallId, by: CallId) -> Step<(), IntentRefused> {
        let reserved = self.execute(
            "UPDATE plans SET undone_by = ?1 WHERE seq = (SELECT seq FROM calls WHERE id = ?2) \
             AND state = 'committed' AND undone_by IS NULL",
            params![id_bytes(by.uuid()), id_bytes(undone.uuid())],
        )?;
        if reserved == 0 { Err(Stop::Refused(IntentRefused::NotUndoable)) } else { Ok(()) }
    }

    /// Transaction 2: what became of an intent.
    pub(super) fn outcome(&mut self, row: &OutcomeRow) -> Step<(), LedgerError> {
        let (state, status, outcome) = match &row.settled {
            Settled::Committed => (PlanState::Committed, Status::Ok, Outcome::Committed),
            Settled::RolledBack => (PlanState::RolledBack, Status::Failed, Outcome::Discarded),
            Settled::Halted(_) => (PlanState::Halted, Status::Failed, Outcome::Halted),
        };
        let halted = match &row.settled {
            Settled::Halted(targets) => serde_json::to_string(targets).ok(),
            Settled::Committed | Settled::RolledBack => None,
        };
        let begun = self.row(
            "UPDATE plans SET state = ?1, halted = ?2, settled_ms = ?3 WHERE id = ?4 AND state = 'committing' \
             AND unknown = 0 \
             RETURNING seq, call, tenant, shown, undoes",
            params![state.word(), halted, integer(row.ended_ms), id_bytes(row.intent.plan().uuid())],
            Begun::of,
        )?;
        let Some(begun) = begun else {
            return Err(LedgerError::Refused("there is no such intent, or it has an outcome".into()).into());
        };
        if row.settled == Settled::Committed {
            self.change_keys(&begun.tenant, &row.keys)?;
            row.deliveries.iter().try_for_each(|what| self.enqueue(what))?;
        }
        if row.settled == Settled::RolledBack {
            self.give_back_quotas(row.intent.plan())?;
        }
        if let Some(receipt) = row.receipt.as_ref().and_then(|receipt| serde_json::to_string(receipt).ok()) {
            self.execute("UPDATE plan_texts SET receipt = ?1 WHERE plan_seq = ?2", params![receipt, begun.seq])?;
        }
        self.end_call(&Final { seq: begun.seq, status, outcome, code: row.error_code, reply: &row.reply })?;
        self.release(&begun, &row.settled, row.error_code)?;
        if begun.shown {
            // A plan that was committed as it was made is nobody's transaction.
            self.end_with_plan(row.intent.plan(), state)?;
        }
        self.append(AuditKind::Outcome, facts::outcome(row, begun.call, &begun.tenant));
        Ok(())
    }

    /// A plan is settled without a commit and its call becomes final.
    pub(super) fn end(&mut self, plan: PlanId, state: PlanState, end: &Final<'_>) -> Result<(), rusqlite::Error> {
        self.execute(
            "UPDATE plans SET state = ?1, settled_ms = ?2 WHERE seq = ?3",
            params![state.word(), integer(self.now_ms), end.seq],
        )?;
        self.end_call(end)?;
        self.end_with_plan(plan, state)
    }

    /// A reply as it is written into the row of a call.
    pub(super) fn sealed_of<'t>(&mut self, seq: i64, reply: &'t str) -> Result<Cow<'t, str>, rusqlite::Error> {
        if !self.sealer.vault().seals() {
            return Ok(Cow::Borrowed(reply));
        }
        let mut tenant = self.conn.prepare_cached("SELECT tenant FROM calls WHERE seq = ?1")?;
        let tenant: String = tenant.query_row(params![seq], |row| row.get(0))?;
        let tenant: TenantName = tenant.parse().map_err(|_| rusqlite::Error::InvalidQuery)?;
        self.sealer.seal(&tenant, Part::Reply, reply)
    }

    fn end_call(&mut self, end: &Final<'_>) -> Result<(), rusqlite::Error> {
        let reply = self.sealed_of(end.seq, end.reply)?;
        self.finished.push(Ended::Seq(end.seq));
        self.execute(
            "UPDATE calls SET status = ?1, outcome = ?2, error_code = ?3, reply = ?4, ended_ms = ?5, final = 1 \
             WHERE seq = ?6",
            params![
                status_word(end.status),
                outcome_word(end.outcome),
                end.code.map(Code::word),
                reply,
                integer(self.now_ms),
                end.seq
            ],
        )?;
        Ok(())
    }

    /// Release the pins and the reservations that a settled commit does not need any more.
    fn release(&mut self, begun: &Begun, settled: &Settled, code: Option<Code>) -> Step<(), LedgerError> {
        match settled {
            Settled::Committed => {
                self.forget_written(begun.seq)?;
                if let Some(undone) = &begun.undoes {
                    // What this plan reversed needs its undo contents no more.
                    self.execute(
                        "DELETE FROM blob_pins WHERE plan_seq = (SELECT seq FROM calls WHERE id = ?1) AND role = 'undo'",
                        params![id_bytes(undone.uuid())],
                    )?;
                }
            }
            Settled::RolledBack => {
                self.unpin(begun.seq, None)?;
                self.refund(begun.call)?;
                if code.is_some_and(Code::retryable) {
                    // What may go well the next time gives its key back: only final results are stored (D8).
                    self.give_back_key(begun.seq)?;
                }
                if let Some(undone) = &begun.undoes {
                    self.execute(
                        "UPDATE plans SET undone_by = NULL WHERE seq = (SELECT seq FROM calls WHERE id = ?1)",
                        params![id_bytes(undone.uuid())],
                    )?;
                }
            }
            // An operator has to look at it: everything stays.
            Settled::Halted(_) => {}
        }
        Ok(())
    }

    /// What a committed plan wrote is in the workspace now. Its small contents go at once where nothing else needs them:
    /// every intent brings some, more than a collection now and then could remove.
    fn forget_written(&mut self, plan_seq: i64) -> Step<(), LedgerError> {
        let sql = "DELETE FROM blob_pins WHERE plan_seq = ?1 AND role = ?2 RETURNING blob_seq";
        let written = self.rows(sql, params![plan_seq, Role::After.word()], |row| {
            Reading::new(row, "blob_pins").number("blob_seq").map(integer)
        })?;
        each(self.conn, FORGOTTEN, &written, |statement, seq| statement.execute(params![seq]))?;
        Ok(())
    }

    /// Let go of a plan's blobs: of one role, or of both.
    pub(super) fn unpin(&mut self, plan_seq: i64, role: Option<Role>) -> Result<(), rusqlite::Error> {
        match role {
            Some(role) => {
                let sql = "DELETE FROM blob_pins WHERE plan_seq = ?1 AND role = ?2";
                self.execute(sql, params![plan_seq, role.word()])?;
            }
            None => {
                self.execute("DELETE FROM blob_pins WHERE plan_seq = ?1", params![plan_seq])?;
            }
        }
        Ok(())
    }
}

/// What an outcome needs to know of its intent.
struct Begun {
    seq: i64,
    call: CallId,
    tenant: TenantName,
    shown: bool,
    undoes: Option<CallId>,
}

impl Begun {
    fn of(row: &Row<'_>) -> Result<Self, LedgerError> {
        let reading = Reading::new(row, "plans");
        Ok(Self {
            seq: integer(reading.number("seq")?),
            call: CallId::new(reading.uuid("call")?),
            tenant: reading.name("tenant")?,
            shown: reading.number("shown")? == 1,
            undoes: reading.uuid_or_null("undoes")?.map(CallId::new),
        })
    }
}

/// The last word about a call.
pub(super) struct Final<'r> {
    /// Its place among the calls.
    pub(super) seq: i64,
    pub(super) status: Status,
    pub(super) outcome: Outcome,
    pub(super) code: Option<Code>,
    pub(super) reply: &'r str,
}
