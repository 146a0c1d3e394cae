//! The readers' side: calls, runs, plans, approvals, receipts and undo information, each seen through a scope.
//!
//! Readers use connections that cannot write. Where something is still queued they wait for it, so that everybody reads their own writes.
//! A plan is verified whenever it is read; a foreign row looks missing.

use std::sync::Arc;

use rusqlite::{Connection, Row, ToSql, params};
use toolkeep_core::call::{Outcome, Reply, Status, Usage};
use toolkeep_core::digest::Digest;
use toolkeep_core::id::{ApprovalId, CallId, PlanId, RunId, TenantName};
use toolkeep_core::plan::{Plan, SealBinding};
use toolkeep_core::price::Usd;
use toolkeep_core::principal::{Origin, Principal};
use toolkeep_core::receipt::Receipt;
use toolkeep_core::taint::Taint;

use super::column::{Reading, code_of, digest_bytes, id_bytes, integer, mode_of, worded};
use super::failure::LedgerError;
use super::inbox::approval_row;
use super::intact::intact;
use super::oversight::{RUN_MARK, mark_of};
use super::rows::{
    CallRow, IntentId, OpenIntent, PAGE_MAX_ROWS, Page, Paged, PlanLine, PlanState, RunRow, RunTotals, Scope,
    StoredCall, StoredPlan, UndoInfo,
};
use super::run_terms::RunHold;
use super::sealing::{EXPIRED, Opened, SEALED, Vault};
use super::statement::{Failed, page, row, rows};
use super::{Ledger, LedgerHealth};
use crate::vault::Part;

/// A call by its id, with the columns that [`call_of`] reads.
const CALL: &str = "SELECT id, tenant, user, agent, run, step, tool, component, manifest, mode, input, input_digest, \
                    status, outcome, error_code, reply, fuel, wall_ms, memory_peak, host_calls, http_requests, \
                    cost_micro_usd, started_ms, ended_ms, plan, credential, session, policy_set, tier, seq FROM calls WHERE id = ?1";
/// The same columns of the calls of a run.
const CALLS_OF_RUN: &str = "SELECT id, tenant, user, agent, run, step, tool, component, manifest, mode, input, \
                            input_digest, status, outcome, error_code, reply, fuel, wall_ms, memory_peak, host_calls, \
                            http_requests, cost_micro_usd, started_ms, ended_ms, plan, credential, session, policy_set, tier, seq FROM calls WHERE run = ?1 \
                            AND seq > ?2 ORDER BY seq LIMIT ?3";
/// The same columns of the calls of a tenant. No index serves it: an operator asks for the latest, which are found soon.
const CALLS_OF_TENANT: &str = "SELECT id, tenant, user, agent, run, step, tool, component, manifest, mode, input, \
                               input_digest, status, outcome, error_code, reply, fuel, wall_ms, memory_peak, \
                               host_calls, http_requests, cost_micro_usd, started_ms, ended_ms, plan, credential, session, policy_set, tier, seq FROM calls \
                               WHERE tenant = ?1 AND seq < ?2 ORDER BY seq DESC LIMIT ?3";

/// A plan by its id, with its texts.
pub(super) const PLAN: &str = "SELECT p.*, t.canonical, t.witnesses FROM plans p \
                               JOIN plan_texts t ON t.plan_seq = p.seq WHERE p.id = ?1";
/// The plan of a digest that somebody was shown: the latest that can still be committed, or else was.
const SHOWN_PLAN: &str = "SELECT p.*, t.canonical, t.witnesses FROM plans p JOIN plan_texts t ON t.plan_seq = p.seq \
                          WHERE p.digest = ?1 AND p.shown = 1 AND (p.state IN ('committing', 'committed') \
                          OR (p.state IN ('previewed', 'held') AND p.expires_ms > ?2)) \
                          ORDER BY p.state IN ('previewed', 'held') DESC, p.seq DESC LIMIT 1";
const SHOWN_PLAN_OF_TENANT: &str = "SELECT p.*, t.canonical, t.witnesses FROM plans p \
                                    JOIN plan_texts t ON t.plan_seq = p.seq \
                                    WHERE p.digest = ?1 AND p.shown = 1 AND p.tenant = ?3 \
                                    AND (p.state IN ('committing', 'committed') \
                                    OR (p.state IN ('previewed', 'held') AND p.expires_ms > ?2)) \
                                    ORDER BY p.state IN ('previewed', 'held') DESC, p.seq DESC LIMIT 1";

/// Intents without an outcome. The sign before the order keeps SQLite from walking through all plans there ever were.
const INTENTS: &str = "SELECT p.*, t.* FROM plans p JOIN plan_texts t ON t.plan_seq = p.seq \
                       WHERE p.state IN ('previewed', 'held', 'committing') AND p.state = 'committing' \
                       AND p.unknown = ?1 ORDER BY +p.seq";

/// A plan from its row, verified.
pub(super) fn plan_of(reading: &Reading<'_>) -> Result<Plan, LedgerError> {
    let binding = SealBinding {
        run: reading.uuid_or_null("run")?.map(RunId::new),
        call: CallId::new(reading.uuid("call")?),
        expires_at_ms: reading.number("expires_ms")?,
        nonce: reading.text("nonce")?.to_owned(),
    };
    let (id, canonical) = (PlanId::new(reading.uuid("id")?), reading.text("canonical")?.to_owned());
    let (digest, seal) = (reading.digest("digest")?, reading.digest("seal")?);
    Plan::verify(id, canonical, digest, binding, seal)
        .map_err(|error| LedgerError::Damaged(format!("plan {id}: {error}").into()))
}

/// A plan from its row, verified, and where it stands.
pub(super) fn plan_with_state(row: &Row<'_>) -> Result<(Plan, PlanState), LedgerError> {
    let reading = Reading::new(row, "plans");
    let (plan, state) = (plan_of(&reading)?, reading.word("state", PlanState::from_word)?);
    if state.is_open() {
        intact(row, "plans")?;
    }
    Ok((plan, state))
}

fn principal_of(reading: &Reading<'_>) -> Result<Principal, LedgerError> {
    Ok(Principal { tenant: reading.name("tenant")?, user: reading.name("user")?, agent: reading.name("agent")? })
}

pub(super) fn call_of(row: &Row<'_>, vault: &Vault) -> Result<StoredCall, LedgerError> {
    let reading = Reading::new(row, "calls");
    let call = CallId::new(reading.uuid("id")?);
    let (status, outcome) = (reading.word("status", worded)?, reading.word("outcome", worded)?);
    let (input, reply) =
        (vault.read(Part::Input, reading.text("input")?)?, vault.read(Part::Reply, reading.text("reply")?)?);
    let tier = reading.number_or_null("tier")?.and_then(|tier| u8::try_from(tier).ok()?.try_into().ok());
    let row = CallRow {
        trace: None,
        suspended: false,
        call,
        tier,
        principal: principal_of(&reading)?,
        origin: reading.origin()?,
        run: reading.uuid_or_null("run")?.map(RunId::new),
        step: reading.text_or_null("step")?.map(Arc::from),
        tool: reading.name("tool")?,
        component: reading.digest_or_null("component")?,
        manifest: reading.digest_or_null("manifest")?,
        policy_set: reading.digest_or_null("policy_set")?,
        mode: reading.word("mode", mode_of)?,
        input: input_text(input),
        input_digest: reading.digest("input_digest")?,
        status,
        outcome,
        error_code: reading.text_or_null("error_code")?.and_then(code_of),
        reply: reply_text(reply, call, (status, outcome)),
        usage: Usage {
            fuel: reading.number("fuel")?,
            wall_ms: reading.number("wall_ms")?,
            memory_peak: reading.number("memory_peak")?,
            host_calls: reading.number("host_calls")?,
            http_requests: reading.number("http_requests")?,
            cost_usd: Usd::of_micro(reading.number("cost_micro_usd")?),
        },
        recording: None,
        beside: None,
        started_ms: reading.number("started_ms")?,
        ended_ms: reading.number("ended_ms")?,
        key: None,
        notes: None,
        charge: None,
        output: None,
    };
    Ok(StoredCall { row, plan: reading.uuid_or_null("plan")?.map(PlanId::new) })
}

/// An input as it is read back: JSON in every case.
fn input_text(input: Opened) -> Arc<str> {
    match input {
        Opened::Clear(text) => text,
        Opened::Sealed => Arc::from(SEALED),
        Opened::Expired => Arc::from(EXPIRED),
    }
}

/// A reply as it is read back: one that says no more than how the call ended, where the daemon cannot read it.
fn reply_text(reply: Opened, call: CallId, (status, outcome): (Status, Outcome)) -> Arc<str> {
    let why = match reply {
        Opened::Clear(text) => return text,
        Opened::Sealed => "the rest of this reply is encrypted to the operators",
        Opened::Expired => "the rest of this reply is not kept any more",
    };
    let mut bare = Reply::of(call, status, outcome);
    bare.warnings.push(why.to_owned());
    serde_json::to_string(&bare).map_or_else(|_| Arc::from("null"), Arc::from)
}

pub(super) fn run_of(row: &Row<'_>) -> Result<RunRow, LedgerError> {
    let reading = Reading::new(row, "runs");
    let workflow = reading.text("workflow")?;
    let held = match reading.text_or_null("held_code")? {
        Some(_) => Some(RunHold {
            code: reading.word("held_code", code_of)?,
            reason: Arc::from(reading.text_or_null("held_reason")?.unwrap_or_default()),
        }),
        None => None,
    };
    Ok(RunRow {
        run: RunId::new(reading.uuid("id")?),
        principal: principal_of(&reading)?,
        origin: Origin { credential: reading.name("credential")?, session: reading.path("session")? },
        label: Arc::from(reading.text("label")?),
        opened_ms: reading.number("opened_ms")?,
        closed_ms: reading.number_or_null("closed_ms")?,
        workflow: if workflow.is_empty() { None } else { Some(reading.name("workflow")?) },
        terms: Arc::from(reading.text("terms")?),
        raised: Arc::from(reading.text("raised")?),
        outcome: reading.text_or_null("outcome")?.map(Arc::from),
        held,
        released_ms: reading.number("released_ms")?,
        escalations: reading.number("escalations")?,
    })
}

fn receipt_from(text: &str) -> Result<Receipt, LedgerError> {
    serde_json::from_str(text)
        .map_err(|error| LedgerError::Damaged(format!("a receipt cannot be read: {error}").into()))
}

/// Bounds of a page for SQL: where it starts, how many rows to ask for, how many to give.
pub(super) fn bounds(page: Page, from: i64) -> (i64, i64, usize) {
    let limit = page.limit.clamp(1, PAGE_MAX_ROWS);
    let cursor = page.cursor.map_or(from, integer);
    (cursor, i64::from(limit) + 1, usize::try_from(limit).unwrap_or(usize::MAX))
}

/// A plan with its call and its approval.
fn stored_plan(
    (conn, vault): (&Connection, &Vault),
    sql: &str,
    values: &[&dyn ToSql],
    scope: &Scope,
) -> Result<Option<StoredPlan>, Failed> {
    let found = row(conn, sql, values, |row| {
        let reading = Reading::new(row, "plans");
        if !scope.sees(&reading.name("tenant")?) {
            return Ok(None);
        }
        let (plan, state) = plan_with_state(row)?;
        Ok(Some((plan, state, Arc::from(reading.text("witnesses")?))))
    })?;
    let Some((plan, state, witnesses)) = found.flatten() else { return Ok(None) };
    let call = row(conn, CALL, params![id_bytes(plan.binding().call.uuid())], |row| call_of(row, vault))?;
    let Some(call) = call else {
        return Err(LedgerError::Damaged(format!("plan {} has no call", plan.id()).into()).into());
    };
    let sql = "SELECT id FROM approvals WHERE plan = ?1";
    let approval = row(conn, sql, params![id_bytes(plan.id().uuid())], |row| {
        Reading::new(row, "approvals").uuid("id").map(ApprovalId::new)
    })?;
    let approval = match approval {
        Some(id) => approval_row(conn, &Scope::Operator, id)?,
        None => None,
    };
    let run_taint = match plan.binding().run {
        Some(run) => {
            row(conn, RUN_MARK, params![id_bytes(run.uuid())], mark_of)?.map_or(Taint::NONE, |mark| mark.taint)
        }
        None => Taint::NONE,
    };
    Ok(Some(StoredPlan { plan, state, witnesses, call, approval, run_taint }))
}

fn line_of(row: &Row<'_>) -> Result<PlanLine, LedgerError> {
    let reading = Reading::new(row, "plans");
    Ok(PlanLine {
        plan: PlanId::new(reading.uuid("id")?),
        digest: reading.digest("digest")?,
        call: CallId::new(reading.uuid("call")?),
        tenant: reading.name("tenant")?,
        tool: reading.name("tool")?,
        state: reading.word("state", PlanState::from_word)?,
        effects: reading.number("effects")?,
        made_ms: reading.number("made_ms")?,
        expires_at_ms: reading.number("expires_ms")?,
    })
}

fn open_intent_of(row: &Row<'_>, vault: &Vault) -> Result<OpenIntent, LedgerError> {
    let reading = Reading::new(row, "intents");
    let plan = plan_of(&reading)?;
    // The key of a day is kept as long as a call of it is not over.
    let lost = || LedgerError::Damaged("the reply of an open intent cannot be opened".into());
    let done = vault.read(Part::Done, reading.text("reply")?)?.clear().ok_or_else(lost)?;
    Ok(OpenIntent {
        intent: IntentId(plan.id()),
        call: plan.binding().call,
        plan,
        steps: Arc::from(reading.text("steps")?),
        reply_when_done: done,
        receipt: reading.text_or_null("receipt")?.map(receipt_from).transpose()?,
        undoes: reading.uuid_or_null("undoes")?.map(CallId::new),
        made_ms: reading.number("intent_ms")?,
    })
}

/// A receipt from a row, if its tenant is visible.
fn receipt_row(conn: &Connection, sql: &str, id: &[u8], scope: &Scope) -> Result<Option<Receipt>, Failed> {
    let found = row(conn, sql, params![id], |row| {
        let reading = Reading::new(row, "plan_texts");
        if scope.sees(&reading.name("tenant")?) { receipt_from(reading.text("receipt")?).map(Some) } else { Ok(None) }
    })?;
    Ok(found.flatten())
}

impl Ledger {
    /// Read with a connection that cannot write, on a thread that may wait.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, Failed> + Send + 'static,
    ) -> Result<T, LedgerError> {
        self.shared.readers.read(read).await
    }

    /// Wait for what is queued, if anything is. A ledger that writes no more can still be read.
    pub(super) async fn caught_up(&self) -> Result<(), LedgerError> {
        self.shared.promises.all().await;
        if self.shared.queue.is_pending() && self.health() == LedgerHealth::Well {
            self.barrier().await?;
        }
        Ok(())
    }

    /// As [`Ledger::caught_up`], where only plans, approvals and keys matter.
    pub(super) async fn settled(&self) -> Result<(), LedgerError> {
        self.shared.promises.all().await;
        self.enqueued_settled().await
    }

    /// As [`Ledger::settled`], without outcomes that are promised and not enqueued.
    pub(super) async fn enqueued_settled(&self) -> Result<(), LedgerError> {
        if self.shared.queue.is_settling() && self.health() == LedgerHealth::Well {
            self.barrier().await?;
        }
        Ok(())
    }

    /// A call.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn call(&self, scope: &Scope, id: CallId) -> Result<Option<StoredCall>, LedgerError> {
        self.caught_up().await?;
        let vault = self.vault();
        let of = move |found: &Row<'_>| call_of(found, &vault);
        let call = self.read(move |conn| row(conn, CALL, params![id_bytes(id.uuid())], of)).await?;
        Ok(call.filter(|call: &StoredCall| scope.sees(&call.row.principal.tenant)))
    }

    /// The recording of a call, JSON.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn recording(&self, scope: &Scope, id: CallId) -> Result<Option<Arc<str>>, LedgerError> {
        self.caught_up().await?;
        let vault = self.vault();
        let sql = "SELECT c.tenant, r.body FROM calls c JOIN recordings r ON r.call_seq = c.seq WHERE c.id = ?1";
        let found = self.read(move |conn| {
            row(conn, sql, params![id_bytes(id.uuid())], |row| {
                let reading = Reading::new(row, "recordings");
                Ok((reading.name("tenant")?, vault.read(Part::Recording, reading.text("body")?)?))
            })
        });
        Ok(found.await?.filter(|(tenant, _)| scope.sees(tenant)).and_then(|(_, body)| body.clear()))
    }

    /// Calls of a tenant, newest first.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn calls(&self, tenant: &TenantName, wanted: Page) -> Result<Paged<StoredCall>, LedgerError> {
        self.caught_up().await?;
        let (from, ask, limit) = bounds(wanted, i64::MAX);
        let tenant = tenant.clone();
        let vault = self.vault();
        let of = move |found: &Row<'_>| call_of(found, &vault);
        self.read(move |conn| page(conn, CALLS_OF_TENANT, params![tenant.as_str(), from, ask], limit, of)).await
    }

    /// The calls of a run, oldest first.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn calls_of_run(
        &self,
        scope: &Scope,
        run: RunId,
        wanted: Page,
    ) -> Result<Paged<StoredCall>, LedgerError> {
        self.caught_up().await?;
        let (from, ask, limit) = bounds(wanted, 0);
        let vault = self.vault();
        let of = move |found: &Row<'_>| call_of(found, &vault);
        let calls =
            self.read(move |conn| page(conn, CALLS_OF_RUN, params![id_bytes(run.uuid()), from, ask], limit, of));
        let mut calls = calls.await?;
        calls.items.retain(|call| scope.sees(&call.row.principal.tenant));
        Ok(calls)
    }

    /// A run and what its calls add up to.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn run(&self, scope: &Scope, id: RunId) -> Result<Option<(RunRow, RunTotals)>, LedgerError> {
        self.caught_up().await?;
        let found = self.read(move |conn| {
            let id = id_bytes(id.uuid());
            let sql = "SELECT * FROM runs WHERE id = ?1";
            let Some(run) = row(conn, sql, params![id], run_of)? else { return Ok(None) };
            let sql = "SELECT count(*) AS calls, coalesce(sum(fuel), 0) AS fuel, coalesce(sum(wall_ms), 0) AS wall_ms \
                       FROM calls WHERE run = ?1 AND tenant = ?2 AND user = ?3 AND agent = ?4 \
                       AND (session IS NULL OR substr(?5, 1, length(session)) = session)";
            // A refused call of somebody else may have named the run; it is no call of it.
            let Principal { tenant, user, agent } = &run.principal;
            let (tenant, user, agent) = (tenant.as_str(), user.as_str(), agent.as_str());
            let totals = row(conn, sql, params![id, tenant, user, agent, run.origin.session.to_bytes()], |row| {
                let reading = Reading::new(row, "calls");
                let (fuel, wall_ms) = (reading.number("fuel")?, reading.number("wall_ms")?);
                Ok(RunTotals { calls: reading.number("calls")?, fuel, wall_ms })
            })?;
            Ok(Some((run, totals.unwrap_or_default())))
        });
        Ok(found.await?.filter(|(run, _)| scope.sees(&run.principal.tenant)))
    }

    /// Runs, newest first.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn runs(&self, scope: &Scope, wanted: Page) -> Result<Paged<RunRow>, LedgerError> {
        self.caught_up().await?;
        let (from, ask, limit) = bounds(wanted, i64::MAX);
        let scope = scope.clone();
        self.read(move |conn| match scope {
            Scope::Tenant(tenant) => {
                let sql = "SELECT * FROM runs WHERE tenant = ?3 AND seq < ?1 ORDER BY seq DESC LIMIT ?2";
                page(conn, sql, params![from, ask, tenant.as_str()], limit, run_of)
            }
            Scope::Operator => {
                let sql = "SELECT * FROM runs WHERE seq < ?1 ORDER BY seq DESC LIMIT ?2";
                page(conn, sql, params![from, ask], limit, run_of)
            }
        })
        .await
    }

    /// A plan, verified.
    ///
    /// # Errors
    /// The ledger cannot be read, or the plan does not verify.
    pub async fn plan(&self, scope: &Scope, id: PlanId) -> Result<Option<StoredPlan>, LedgerError> {
        self.settled().await?;
        let (scope, vault) = (scope.clone(), self.vault());
        self.read(move |conn| stored_plan((conn, &vault), PLAN, params![id_bytes(id.uuid())], &scope)).await
    }

    /// The latest plan of this digest that can still be committed: previewed or held, and not expired at `now_ms`. If there
    /// is none, the latest that was committed, so that a retry by digest finds its reply. A plan that was committed as it
    /// was made was never shown to anybody, and is found by its id only.
    ///
    /// # Errors
    /// The ledger cannot be read, or the plan does not verify.
    pub async fn plan_by_digest(
        &self,
        scope: &Scope,
        digest: Digest,
        now_ms: u64,
    ) -> Result<Option<StoredPlan>, LedgerError> {
        self.settled().await?;
        let (scope, vault, values) = (scope.clone(), self.vault(), (digest, integer(now_ms)));
        self.read(move |conn| {
            let (digest, now_ms) = (digest_bytes(&values.0), values.1);
            match &scope {
                Scope::Tenant(tenant) => {
                    let values = params![digest, now_ms, tenant.as_str()];
                    stored_plan((conn, &vault), SHOWN_PLAN_OF_TENANT, values, &scope)
                }
                Scope::Operator => stored_plan((conn, &vault), SHOWN_PLAN, params![digest, now_ms], &scope),
            }
        })
        .await
    }

    /// Plans, newest first.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn plans(
        &self,
        scope: &Scope,
        state: Option<PlanState>,
        wanted: Page,
    ) -> Result<Paged<PlanLine>, LedgerError> {
        self.settled().await?;
        let (from, ask, limit) = bounds(wanted, i64::MAX);
        let (state, scope) = (state.map(PlanState::word), scope.clone());
        self.read(move |conn| match scope {
            Scope::Tenant(tenant) => {
                let sql = "SELECT seq, id, digest, call, tenant, tool, state, effects, made_ms, expires_ms FROM plans \
                           WHERE tenant = ?4 AND seq < ?1 AND (?3 IS NULL OR state = ?3) ORDER BY seq DESC LIMIT ?2";
                page(conn, sql, params![from, ask, state, tenant.as_str()], limit, line_of)
            }
            Scope::Operator => {
                let sql = "SELECT seq, id, digest, call, tenant, tool, state, effects, made_ms, expires_ms FROM plans \
                           WHERE seq < ?1 AND (?3 IS NULL OR state = ?3) ORDER BY seq DESC LIMIT ?2";
                page(conn, sql, params![from, ask, state], limit, line_of)
            }
        })
        .await
    }

    /// Commits that were begun and not ended, oldest first.
    ///
    /// # Errors
    /// The ledger cannot be read, or a stored plan does not verify.
    pub async fn open_intents(&self) -> Result<Vec<OpenIntent>, LedgerError> {
        self.intents(false).await
    }

    /// Intents that have no outcome, oldest first: those of which it is not known what became of a request, or the others.
    pub(super) async fn intents(&self, unknown: bool) -> Result<Vec<OpenIntent>, LedgerError> {
        self.settled().await?;
        let vault = self.vault();
        self.read(move |conn| rows(conn, INTENTS, params![unknown], |row| open_intent_of(row, &vault))).await
    }

    /// How to reverse a committed call; nothing if it committed nothing.
    ///
    /// # Errors
    /// The ledger cannot be read, or the plan does not verify.
    pub async fn undo_of(&self, scope: &Scope, call: CallId) -> Result<Option<UndoInfo>, LedgerError> {
        self.settled().await?;
        let sql = "SELECT p.*, t.canonical, t.steps FROM calls c JOIN plans p ON p.seq = c.seq \
                   JOIN plan_texts t ON t.plan_seq = c.seq WHERE c.id = ?1 AND p.state = 'committed'";
        let scope = scope.clone();
        let found = self.read(move |conn| {
            row(conn, sql, params![id_bytes(call.uuid())], |row| {
                let reading = Reading::new(row, "intents");
                if !scope.sees(&reading.name("tenant")?) {
                    return Ok(None);
                }
                Ok(Some(UndoInfo {
                    plan: plan_of(&reading)?,
                    steps: Arc::from(reading.text("steps")?),
                    committed_ms: reading.number("settled_ms")?,
                    undone_by: reading.uuid_or_null("undone_by")?.map(CallId::new),
                }))
            })
        });
        Ok(found.await?.flatten())
    }

    /// The receipt of a call.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn receipt_of(&self, scope: &Scope, call: CallId) -> Result<Option<Receipt>, LedgerError> {
        self.settled().await?;
        let scope = scope.clone();
        let sql = "SELECT c.tenant, t.receipt FROM calls c JOIN plans p ON p.seq = c.seq \
                   JOIN plan_texts t ON t.plan_seq = c.seq \
                   WHERE c.id = ?1 AND p.state = 'committed' AND t.receipt IS NOT NULL";
        self.read(move |conn| receipt_row(conn, sql, id_bytes(call.uuid()), &scope)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::schema;

    #[test]
    fn plans_are_found_without_looking_at_all_of_them() {
        let conn = Connection::open_in_memory().expect("database");
        schema::migrate(&conn).expect("migrated");
        for (sql, index) in [
            (INTENTS, "USING INDEX plans_open"),
            (PLAN, "sqlite_autoindex_plans_1 (id=?)"),
            (SHOWN_PLAN, "USING INDEX plans_by_digest (digest=?)"),
            (SHOWN_PLAN_OF_TENANT, "USING INDEX plans_by_digest (digest=?)"),
        ] {
            let mut explain = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect("prepared");
            for at in 1..=explain.parameter_count() {
                explain.raw_bind_parameter(at, 0).expect("bound");
            }
            let mut steps = explain.raw_query();
            let mut said = Vec::new();
            while let Some(step) = steps.next().expect("explained") {
                said.push(step.get::<_, String>("detail").expect("text"));
            }
            assert!(said.iter().any(|step| step.contains(index)), "{said:?}");
            assert!(said.iter().all(|step| step != "SCAN p"), "{said:?}");
        }
    }
}
