//! Calls that wait for a part of theirs: a live request that is under way, held, or unknown.
//!
//! The row of such a call says so to whoever asks, and keeps its idempotency key. What its next execution is given stands
//! beside it. The row that ends the call takes its place, in one transaction.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use rusqlite::{Row, params};
use serde::{Deserialize, Serialize};
use toolkeep_core::audit::AuditKind;
use toolkeep_core::digest::{DIGEST_BYTES, Digest};
use toolkeep_core::effect::Header;
use toolkeep_core::id::{CallId, PlanId};
use toolkeep_core::refusal::Code;
use toolkeep_sandbox::port::{Exchange, HttpAnswer, HttpFailure};

use super::Ledger;
use super::batch::{Batch, Step};
use super::charges;
use super::column::{Reading, id_bytes, integer, outcome_word, status_word};
use super::facts;
use super::failure::LedgerError;
use super::insert;
use super::queue::{Done, Work};
use super::read;
use super::rows::{CallKey, CallRow};
use super::sealing::Vault;
use super::statement::{Failed, row, rows};
use super::stats::Ended;
use crate::vault::Part;

/// A call that waits.
#[derive(Debug, Clone)]
pub struct Suspended {
    /// Its row as it stands.
    pub row: CallRow,
    /// What it waits for.
    pub continuation: Continuation,
}

/// What a call waits for, and what its next execution is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Continuation {
    /// The part that it waits for.
    pub child: CallId,
    /// The wall clock at admission, nanoseconds since the Unix epoch.
    pub wall_clock_ns: u64,
    /// Seed of the guest's randomness.
    pub seed: [u8; DIGEST_BYTES],
    /// The exchanges so far, in order.
    pub exchanges: Vec<Exchange>,
    /// How many requests were sent live so far.
    pub sent: u32,
}

/// A continuation as it is written; bytes as base64.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    wall_clock_ns: String,
    seed: Digest,
    sent: u32,
    exchanges: Vec<ExchangeText>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExchangeText {
    call: Digest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answer: Option<AnswerText>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failure: Option<HttpFailure>,
    took_ns: String,
}

/// An answer as it is written.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AnswerText {
    status: u16,
    headers: Vec<Header>,
    body: String,
}

impl AnswerText {
    /// The text of an answer.
    pub(super) fn of(answer: &HttpAnswer) -> Self {
        let HttpAnswer { status, headers, body } = answer;
        Self { status: *status, headers: headers.clone(), body: STANDARD.encode(body) }
    }

    /// The answer of a text.
    pub(super) fn read(self) -> Option<HttpAnswer> {
        let body = Bytes::from(STANDARD.decode(self.body).ok()?);
        Some(HttpAnswer { status: self.status, headers: self.headers, body })
    }
}

impl Continuation {
    /// Bytes of the answers that it holds.
    pub(super) fn weight(&self) -> usize {
        self.exchanges.iter().filter_map(|exchange| exchange.answer.as_ref().ok()).map(|answer| answer.body.len()).sum()
    }

    fn text(&self) -> String {
        let exchanges = self.exchanges.iter().map(|exchange| {
            let (answer, failure) = match &exchange.answer {
                Ok(answer) => (Some(AnswerText::of(answer)), None),
                Err(failure) => (None, Some(failure.clone())),
            };
            ExchangeText { call: exchange.call, answer, failure, took_ns: exchange.took_ns.to_string() }
        });
        let text = Text {
            wall_clock_ns: self.wall_clock_ns.to_string(),
            seed: Digest::from_bytes(self.seed),
            sent: self.sent,
            exchanges: exchanges.collect(),
        };
        serde_json::to_string(&text).unwrap_or_default()
    }

    fn read(child: CallId, text: &str) -> Option<Self> {
        let text: Text = serde_json::from_str(text).ok()?;
        let exchange = |stored: ExchangeText| {
            let answer = match (stored.answer, stored.failure) {
                (Some(answer), None) => Ok(answer.read()?),
                (None, Some(failure)) => Err(failure),
                _ => return None,
            };
            Some(Exchange { call: stored.call, answer, took_ns: stored.took_ns.parse().ok()? })
        };
        Some(Self {
            child,
            wall_clock_ns: text.wall_clock_ns.parse().ok()?,
            seed: *text.seed.as_bytes(),
            sent: text.sent,
            exchanges: text.exchanges.into_iter().map(exchange).collect::<Option<_>>()?,
        })
    }
}

impl Batch<'_> {
    /// Keep a call as one that waits, or change what it waits for.
    pub(super) fn suspend(&mut self, suspended: &Suspended) -> Step<(), LedgerError> {
        let Suspended { row, continuation } = suspended;
        if row.suspended {
            let sql = "SELECT 1 FROM continuations WHERE call = ?1";
            if self.row(sql, params![id_bytes(row.call.uuid())], |_| Ok(()))?.is_none() {
                return Err(not_waiting().into());
            }
            self.rewrite(row, None, false)?;
        } else {
            let mut placed = self.place(row, None);
            placed.waits = true;
            insert::calls(self.conn, &mut self.sealer, &[placed])?;
            if let Some(key) = &row.key
                && !self.keep_key(placed.seq, row, key)?
            {
                return Err(LedgerError::Refused("the idempotency key belongs to another call".into()).into());
            }
        }
        let given = continuation.text();
        let given = self.sealer.seal(&row.principal.tenant, Part::Given, &given)?;
        self.execute(
            "INSERT INTO continuations (call, child, given, made_ms) VALUES (?1, ?2, ?3, ?4) \
             ON CONFLICT (call) DO UPDATE SET child = excluded.child, given = excluded.given",
            params![id_bytes(row.call.uuid()), id_bytes(continuation.child.uuid()), given, integer(self.now_ms)],
        )?;
        Ok(())
    }

    /// A call that waited ends without a plan.
    pub(super) fn end_suspended(&mut self, row: &CallRow) -> Step<(), LedgerError> {
        let Some(seq) = self.replace(row, None)? else { return Err(not_waiting().into()) };
        if row.key.is_none() {
            // What may go well the next time gives its key back.
            self.give_back_key(seq)?;
        }
        // What was recorded before it waited stays; the entry names it, or it would pass for something put there afterwards.
        let recording = match &row.recording {
            Some(own) => Some(Arc::clone(own)),
            None => self.recording_of(seq)?,
        };
        self.append(AuditKind::Call, facts::call(&CallRow { recording, ..row.clone() }, None));
        Ok(())
    }

    fn recording_of(&self, seq: i64) -> Result<Option<Arc<str>>, Failed> {
        let vault = self.sealer.vault();
        let sql = "SELECT body FROM recordings WHERE call_seq = ?1";
        let kept = self.row(sql, params![seq], |row| {
            Ok(vault.read(Part::Recording, Reading::new(row, "recordings").text("body")?)?.clear())
        })?;
        Ok(kept.flatten())
    }

    /// A call does not wait any more: this row takes the place of the one that said so. Returns where that is; nothing, and
    /// nothing is changed, if the call did not wait: what it came to stands.
    pub(super) fn replace(&mut self, row: &CallRow, plan: Option<PlanId>) -> Result<Option<i64>, rusqlite::Error> {
        match self.execute("DELETE FROM continuations WHERE call = ?1", params![id_bytes(row.call.uuid())])? {
            0 => Ok(None),
            _ => self.rewrite(row, plan, plan.is_none()).map(Some),
        }
    }

    fn rewrite(&mut self, row: &CallRow, plan: Option<PlanId>, is_final: bool) -> Result<i64, rusqlite::Error> {
        let id = id_bytes(row.call.uuid());
        let mut place = self.conn.prepare_cached("SELECT seq FROM calls WHERE id = ?1")?;
        let seq: i64 = place.query_row(params![id], |row| row.get(0))?;
        let tenant = &row.principal.tenant;
        let reply = self.sealer.seal(tenant, Part::Reply, &row.reply)?;
        if is_final {
            self.finished.push(Ended::Seq(seq));
        }
        self.execute(
            "UPDATE calls SET status = ?1, outcome = ?2, error_code = ?3, reply = ?4, fuel = ?5, wall_ms = ?6, \
             memory_peak = ?7, host_calls = ?8, ended_ms = ?9, plan = ?10, final = ?11, http_requests = ?13, \
             cost_micro_usd = ?14 WHERE seq = ?12",
            params![
                status_word(row.status),
                outcome_word(row.outcome),
                row.error_code.map(Code::word),
                reply,
                integer(row.usage.fuel),
                integer(row.usage.wall_ms),
                integer(row.usage.memory_peak),
                integer(row.usage.host_calls),
                integer(row.ended_ms),
                plan.as_ref().map(|plan| id_bytes(plan.uuid())),
                is_final,
                seq,
                integer(row.usage.http_requests),
                integer(row.usage.cost_usd.micro())
            ],
        )?;
        if let Some(notes) = &row.notes {
            self.execute(insert::NOTES, params![seq, notes])?;
        }
        if let Some(charge) = &row.charge {
            charges::charge(self.conn, charge)?;
        }
        if let Some(output) = &row.output {
            let output = self.sealer.seal(tenant, Part::Output, output)?;
            self.execute(insert::OUTPUT, params![seq, output])?;
        }
        if let Some(recording) = &row.recording {
            let recording = self.sealer.seal(tenant, Part::Recording, recording)?;
            self.execute(
                "INSERT INTO recordings (call_seq, body) VALUES (?1, ?2) \
                 ON CONFLICT (call_seq) DO UPDATE SET body = excluded.body",
                params![seq, recording],
            )?;
            self.execute("DELETE FROM recording_pins WHERE call_seq = ?1", params![seq])?;
            self.execute("DELETE FROM recording_parts WHERE call_seq = ?1", params![seq])?;
            if let Some(beside) = &row.beside {
                insert::keep_beside(self.conn, &mut self.sealer, (seq, tenant), beside)?;
            }
        }
        Ok(seq)
    }
}

/// Why a call that ended is not written down as one that waited.
pub(super) fn not_waiting() -> LedgerError {
    LedgerError::Refused("the call does not wait any more".into())
}

fn suspended_of(row: &Row<'_>, vault: &Vault) -> Result<Suspended, LedgerError> {
    let mut call = read::call_of(row, vault)?.row;
    call.suspended = true;
    let reading = Reading::new(row, "continuations");
    if let Some(key) = reading.text_or_null("key")? {
        call.key = Some(CallKey { key: Arc::from(key), request: reading.digest("request")? });
    }
    // The key of what a call waits with is kept as long as it waits.
    let given = vault.read(Part::Given, reading.text("given")?)?.clear();
    let child = CallId::new(reading.uuid("child")?);
    let continuation = given.and_then(|given| Continuation::read(child, &given));
    let damaged = || LedgerError::Damaged("a row of `continuations` has no valid `given`".into());
    Ok(Suspended { row: call, continuation: continuation.ok_or_else(damaged)? })
}

/// The columns of a call, with what it waits for.
const WAITING: &str = "SELECT c.*, w.child AS child, w.given AS given, i.key AS key, i.request AS request \
                       FROM continuations w JOIN calls c ON c.id = w.call LEFT JOIN idempotency i ON i.call_seq = c.seq";

impl Ledger {
    /// Keep a call as one that waits. Durable when it returns.
    ///
    /// # Errors
    /// The ledger failed: the part that it waits for must not be begun.
    pub async fn suspend(&self, suspended: Suspended) -> Result<(), LedgerError> {
        match self.ask(Work::Suspend(Box::new(suspended)), true).await? {
            Done::Refused(error) => Err(error),
            _ => Ok(()),
        }
    }

    /// The call that waits for this part.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn continuation_of(&self, child: CallId) -> Result<Option<Suspended>, LedgerError> {
        self.caught_up().await?;
        let sql = waiting(" WHERE w.child = ?1");
        let vault = self.vault();
        let of = move |found: &Row<'_>| suspended_of(found, &vault);
        self.read(move |conn| row(conn, &sql, params![id_bytes(child.uuid())], of)).await
    }

    /// All calls that wait, oldest first.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn continuations(&self) -> Result<Vec<Suspended>, LedgerError> {
        self.caught_up().await?;
        let sql = waiting(" ORDER BY c.seq");
        let vault = self.vault();
        self.read(move |conn| rows(conn, &sql, params![], |found| suspended_of(found, &vault))).await
    }
}

fn waiting(end: &str) -> String {
    format!("{WAITING}{end}")
}
