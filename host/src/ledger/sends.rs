//! Requests of plans on record: what is needed to send each, how far it has come, and what was answered.
//!
//! A row is made with the intent and moved, durably, before and after every attempt. Where nobody knows what became of a
//! request its intent is `unknown` until an operator says; that is the only way out of it.

use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{Connection, Row, params};
use toolkeep_core::audit::{AuditKind, canonical_body};
use toolkeep_core::call::{Outcome, Status};
use toolkeep_core::effect::Effect;
use toolkeep_core::id::{CallId, PlanId, TenantName, UserName};
use toolkeep_core::refusal::Code;
use toolkeep_core::render::subject;
use toolkeep_core::send::{Dispatch, Judgement, SendState, judge};
use toolkeep_sandbox::port::{Exchange, HttpAnswer, HttpFailure};

use super::Ledger;
use super::batch::{Batch, Step};
use super::column::{Reading, id_bytes, integer, outcome_word, status_word, worded};
use super::failure::LedgerError;
use super::queue::{Done, Work};
use super::read;
use super::rows::OpenIntent;
use super::sealing::Vault;
use super::statement::{Failed, each, row, rows};
use super::suspended::AnswerText;
use crate::vault::{KeyId, Part};

/// What is needed to send one request of a plan, beside its effect.
#[derive(Debug, Clone)]
pub struct SendRow {
    /// Which effect of the plan.
    pub ordinal: u32,
    /// How it is sent.
    pub dispatch: Dispatch,
}

/// One request of a plan, and how far it has come.
#[derive(Debug, Clone)]
pub struct StoredSend {
    /// Which effect of the plan.
    pub ordinal: u32,
    /// The effect.
    pub effect: Effect,
    /// How it is sent.
    pub dispatch: Dispatch,
    /// How far it has come.
    pub state: SendState,
    /// How many attempts at it were begun, in this life and those before.
    pub attempts: u64,
    /// What was answered.
    pub answer: Option<HttpAnswer>,
    /// Why it is not sent, or not known to be.
    pub problem: Option<String>,
    /// How long the exchange took, in nanoseconds.
    pub took_ns: u64,
}

impl StoredSend {
    /// Whether it is to be sent and an attempt at it that was cut off may have arrived.
    #[must_use]
    pub const fn may_have_arrived(&self) -> bool {
        matches!(self.state, SendState::Pending) && self.attempts > 0
    }

    /// The request as people read it.
    #[must_use]
    pub fn subject(&self) -> String {
        subject(&self.effect)
    }

    /// The exchange that an execution is given, once the request was sent. Where only an operator knows that it was, there
    /// is no answer to give, whatever an attempt was told.
    #[must_use]
    pub fn exchange(&self) -> Option<Exchange> {
        let answer = self.answer.clone().filter(|answer| judge(answer.status) == Judgement::Done);
        let lost = || HttpFailure::Broken("the request was done, but its answer is lost".to_owned());
        let answer = if self.state == SendState::Sent { answer.ok_or_else(lost) } else { return None };
        Some(Exchange { call: self.dispatch.request, answer, took_ns: self.took_ns })
    }
}

/// One step of a request.
#[derive(Debug, Clone)]
pub struct SendMove {
    /// The plan.
    pub plan: PlanId,
    /// Which effect of it.
    pub ordinal: u32,
    /// How far it is from now on.
    pub state: SendState,
    /// What was answered.
    pub answer: Option<HttpAnswer>,
    /// Why it is not sent, or not known to be.
    pub problem: Option<String>,
    /// How long the exchange took, in nanoseconds.
    pub took_ns: u64,
}

/// What an operator says about a request of which nobody knows.
#[derive(Debug, Clone)]
pub struct SendVerdict {
    /// The plan.
    pub plan: PlanId,
    /// Which effect of it.
    pub ordinal: u32,
    /// Whether it was done.
    pub sent: bool,
    /// Who says so.
    pub user: UserName,
    /// Why.
    pub reason: String,
}

const SEND: &str =
    "INSERT INTO sends (plan, ordinal, dispatch, state, attempts, took_ns, moved_ms) VALUES (?1, ?2, ?3, ?4, 0, 0, ?5)";

/// Whose a request is, where no compensation is made of what was answered.
const UNDOES_NOTHING: &str = "SELECT p.tenant FROM sends s JOIN plans p ON p.id = s.plan WHERE s.plan = ?1 \
                              AND s.ordinal = ?2 AND json_extract(s.dispatch, '$.compensation') IS NULL";

impl Batch<'_> {
    /// The requests of an intent, none of them begun.
    pub(super) fn sends(&self, plan: PlanId, sends: &[SendRow]) -> Result<(), rusqlite::Error> {
        each(self.conn, SEND, sends, |statement, send| {
            let dispatch = serde_json::to_string(&send.dispatch).unwrap_or_default();
            let at = integer(self.now_ms);
            statement.execute(params![id_bytes(plan.uuid()), send.ordinal, dispatch, SendState::Pending.word(), at])
        })
    }

    /// An answer as it is written: headers and body, or both sealed in place of the headers. One that a compensation is made of
    /// stays as it is, like every content that undo needs.
    fn answer_columns(&mut self, step: &SendMove) -> Step<(Option<String>, Option<Bytes>), LedgerError> {
        let Some(answer) = &step.answer else { return Ok((None, None)) };
        if self.sealer.seals() {
            let plan = params![id_bytes(step.plan.uuid()), step.ordinal];
            let of = self.row(UNDOES_NOTHING, plan, |row| Reading::new(row, "plans").name("tenant"))?;
            if let Some(tenant) = of {
                let text = serde_json::to_string(&AnswerText::of(answer)).unwrap_or_default();
                return Ok((Some(self.sealer.seal(&tenant, Part::Answer, &text)?.into_owned()), None));
            }
        }
        Ok((serde_json::to_string(&answer.headers).ok(), Some(answer.body.clone())))
    }

    /// One step of a request.
    pub(super) fn note_send(&mut self, step: &SendMove) -> Step<(), LedgerError> {
        let (headers, body) = self.answer_columns(step)?;
        let changed = self.execute(
            "UPDATE sends SET state = ?1, attempts = attempts + (?1 = 'sending'), status = ?2, headers = ?3, body = ?4, \
             problem = ?5, moved_ms = ?6, took_ns = ?9 WHERE plan = ?7 AND ordinal = ?8",
            params![
                step.state.word(),
                step.answer.as_ref().map(|answer| i64::from(answer.status)),
                headers,
                body.as_deref(),
                step.problem,
                integer(self.now_ms),
                id_bytes(step.plan.uuid()),
                step.ordinal,
                integer(step.took_ns)
            ],
        )?;
        if changed == 0 {
            return Err(LedgerError::Refused("there is no such request".into()).into());
        }
        if !matches!(step.state, SendState::Pending | SendState::Sending | SendState::Compensating) {
            let status = step.answer.as_ref().map(|answer| answer.status);
            let tenant = self.tenant_of(step.plan)?;
            let facts = serde_json::json!({"plan": step.plan, "ordinal": step.ordinal, "request": step.state,
                "status": status, "tenant": tenant});
            self.append(AuditKind::Request, canonical_body(&facts));
        }
        Ok(())
    }

    /// Nobody knows what became of a plan that was begun, and that is what its call says. If an operator is to be asked,
    /// the intent waits for that.
    pub(super) fn not_known(&mut self, plan: PlanId, reply: &Arc<str>, asks: bool) -> Step<(), LedgerError> {
        let sql = if asks {
            "UPDATE plans SET unknown = 1 WHERE id = ?1 AND state = 'committing' RETURNING seq, call"
        } else {
            "SELECT seq, call FROM plans WHERE id = ?1 AND state = 'committing'"
        };
        let begun = self.row(sql, params![id_bytes(plan.uuid())], |row| {
            let reading = Reading::new(row, "plans");
            Ok((integer(reading.number("seq")?), CallId::new(reading.uuid("call")?)))
        })?;
        let Some((seq, call)) = begun else {
            return Err(LedgerError::Refused("there is no such intent, or it has an outcome".into()).into());
        };
        let reply = self.sealed_of(seq, reply)?;
        self.execute(
            "UPDATE calls SET status = ?1, outcome = ?2, error_code = ?3, reply = ?4 WHERE seq = ?5",
            params![
                status_word(Status::Unknown),
                outcome_word(Outcome::Unknown),
                Code::UnknownOutcome.word(),
                reply,
                seq
            ],
        )?;
        if asks {
            let tenant = self.tenant_of(plan)?;
            let facts = serde_json::json!({"plan": plan, "call": call, "tenant": tenant, "unknown": true});
            self.append(AuditKind::Outcome, canonical_body(&facts));
        }
        Ok(())
    }

    /// An operator says what became of a request. The intent is open again.
    pub(super) fn say(&mut self, verdict: &SendVerdict) -> Step<(), LedgerError> {
        let state = if verdict.sent { SendState::Sent } else { SendState::Refused };
        let plan = id_bytes(verdict.plan.uuid());
        let said = self.execute(
            "UPDATE sends SET state = ?1, resolved_by = ?2, reason = ?3, moved_ms = ?4, problem = ?5 \
             WHERE plan = ?6 AND ordinal = ?7 AND state = 'unknown'",
            params![
                state.word(),
                verdict.user.as_str(),
                verdict.reason,
                integer(self.now_ms),
                format!("{} says that it was {}done", verdict.user, if verdict.sent { "" } else { "not " }),
                plan,
                verdict.ordinal
            ],
        )?;
        if said == 0 {
            return Err(LedgerError::Refused("the outcome of this request is known".into()).into());
        }
        self.execute("UPDATE plans SET unknown = 0 WHERE id = ?1 AND state = 'committing'", params![plan])?;
        let facts = serde_json::json!({"plan": verdict.plan, "ordinal": verdict.ordinal, "sent": verdict.sent,
            "by": verdict.user, "reason": verdict.reason, "tenant": self.tenant_of(verdict.plan)?});
        self.append(AuditKind::Resolved, canonical_body(&facts));
        Ok(())
    }

    /// Whose a plan is.
    fn tenant_of(&self, plan: PlanId) -> Result<Option<TenantName>, Failed> {
        let sql = "SELECT tenant FROM plans WHERE id = ?1";
        self.row(sql, params![id_bytes(plan.uuid())], |row| Reading::new(row, "plans").name("tenant"))
    }
}

fn sends_of((conn, vault): (&Connection, &Vault), plan: PlanId) -> Result<Vec<StoredSend>, Failed> {
    let Some((plan, _)) = row(conn, read::PLAN, params![id_bytes(plan.uuid())], read::plan_with_state)? else {
        return Ok(Vec::new());
    };
    let sql = "SELECT * FROM sends WHERE plan = ?1 ORDER BY ordinal";
    rows(conn, sql, params![id_bytes(plan.id().uuid())], |row| send_of(row, &plan.body().effects, vault))
}

/// What was answered; nothing where it was let go of, or opens for operators alone.
fn answer_of(reading: &Reading<'_>, vault: &Vault) -> Result<Option<HttpAnswer>, LedgerError> {
    let damaged = |what: &str| LedgerError::Damaged(format!("a row of `sends` has no valid `{what}`").into());
    let Some(status) = reading.number_or_null("status")? else { return Ok(None) };
    let written = reading.text("headers")?;
    let Some(headers) = vault.read(Part::Answer, written)?.clear() else { return Ok(None) };
    if KeyId::of(written).is_some() {
        let text: AnswerText = serde_json::from_str(&headers).map_err(|_| damaged("headers"))?;
        return text.read().map(Some).ok_or_else(|| damaged("headers"));
    }
    Ok(Some(HttpAnswer {
        status: u16::try_from(status).map_err(|_| damaged("status"))?,
        headers: serde_json::from_str(&headers).map_err(|_| damaged("headers"))?,
        body: Bytes::copy_from_slice(reading.bytes_or_null("body")?.unwrap_or_default()),
    }))
}

fn send_of(row: &Row<'_>, effects: &[Effect], vault: &Vault) -> Result<StoredSend, LedgerError> {
    let damaged = |what: &str| LedgerError::Damaged(format!("a row of `sends` has no valid `{what}`").into());
    let reading = Reading::new(row, "sends");
    let ordinal = u32::try_from(reading.number("ordinal")?).map_err(|_| damaged("ordinal"))?;
    let effect = effects.get(ordinal as usize).cloned().ok_or_else(|| damaged("ordinal"))?;
    Ok(StoredSend {
        ordinal,
        effect,
        dispatch: serde_json::from_str(reading.text("dispatch")?).map_err(|_| damaged("dispatch"))?,
        state: reading.word("state", worded)?,
        attempts: reading.number("attempts")?,
        answer: answer_of(&reading, vault)?,
        problem: reading.text_or_null("problem")?.map(str::to_owned),
        took_ns: reading.number("took_ns")?,
    })
}

impl Ledger {
    /// Record a step of a request. Durable when it returns.
    ///
    /// # Errors
    /// The ledger failed: the step must not be taken.
    pub async fn note_send(&self, step: SendMove) -> Result<(), LedgerError> {
        self.written(Work::NoteSend(Box::new(step))).await
    }

    /// Nobody knows what became of a request of this plan: `reply` is what callers are told until an operator says.
    ///
    /// # Errors
    /// The ledger failed, or the intent has an outcome.
    pub async fn not_known(&self, plan: PlanId, reply: Arc<str>) -> Result<(), LedgerError> {
        let written = self.written(Work::NotKnown { plan, reply, asks: true }).await;
        self.shared.keys.let_go_of(plan);
        written
    }

    /// A commit that was interrupted while it sent goes on soon: until then `reply` is what callers are told.
    ///
    /// # Errors
    /// As [`Ledger::not_known`].
    pub async fn goes_on(&self, plan: PlanId, reply: Arc<str>) -> Result<(), LedgerError> {
        self.written(Work::NotKnown { plan, reply, asks: false }).await
    }

    /// An operator says what became of a request. Its intent is open again and must be settled.
    ///
    /// # Errors
    /// The ledger failed, or what became of the request is known.
    pub async fn say(&self, verdict: SendVerdict) -> Result<(), LedgerError> {
        self.written(Work::Say(Box::new(verdict))).await
    }

    async fn written(&self, work: Work) -> Result<(), LedgerError> {
        match self.ask(work, true).await? {
            Done::Refused(error) => Err(error),
            _ => Ok(()),
        }
    }

    /// The requests of a plan, in their order.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn sends(&self, plan: PlanId) -> Result<Vec<StoredSend>, LedgerError> {
        self.caught_up().await?;
        let vault = self.vault();
        self.read(move |conn| sends_of((conn, &vault), plan)).await
    }

    /// The requests of the plan of a call, in their order.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn sends_of_call(&self, call: CallId) -> Result<Vec<StoredSend>, LedgerError> {
        self.caught_up().await?;
        let vault = self.vault();
        self.read(move |conn| {
            let sql = "SELECT p.id FROM calls c JOIN plans p ON p.seq = c.seq \
                       WHERE c.id = ?1 AND p.intent_ms IS NOT NULL";
            let plan = row(conn, sql, params![id_bytes(call.uuid())], |row| Reading::new(row, "plans").uuid("id"))?;
            plan.map_or(Ok(Vec::new()), |plan| sends_of((conn, &vault), PlanId::new(plan)))
        })
        .await
    }

    /// Intents that wait for an operator, oldest first.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn unknown_intents(&self) -> Result<Vec<OpenIntent>, LedgerError> {
        self.intents(true).await
    }
}
