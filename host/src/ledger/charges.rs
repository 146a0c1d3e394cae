//! What is charged to runs and ceilings, as it is kept: a row when it is reserved, the same row when its call is recorded.
//!
//! A reservation is enqueued before the tool runs and nobody waits for it; the row of the call brings what it came to, in one
//! transaction with it. A daemon that dies in between leaves a reservation, which the next start counts in full. A plan that
//! is not committed after all gives back what it alone would have used; whoever keeps balances in memory is told so by
//! [`Ledger::take_refunds`], after it is on record and before anybody else is.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rusqlite::{Connection, Row, ToSql, params};
use toolkeep_core::budget::Amounts;
use toolkeep_core::id::{CallId, RunId, TenantName, ToolName, UserName, WorkflowName};
use toolkeep_core::principal::SessionPath;
use uuid::Uuid;

use super::Ledger;
use super::batch::{Batch, Step};
use super::column::{Reading, after, id_bytes, integer, path_bytes};
use super::failure::LedgerError;
use super::queue::{Job, Work};
use super::run_terms::RunWork;
use super::schema;
use super::statement::{execute, row};

/// Who and what is charged.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Charged {
    /// The owner.
    pub tenant: TenantName,
    /// The person.
    pub user: UserName,
    /// The kind of task, if the run has one.
    pub workflow: Option<WorkflowName>,
    /// The run, if the call has one.
    pub run: Option<RunId>,
    /// The sessions through which they act.
    pub session: SessionPath,
    /// The day on which it was admitted, in days since the Unix epoch.
    pub day: u64,
}

/// Where a charge stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChargeState {
    /// The call runs; this is the most that it may come to.
    Reserved,
    /// This is what it came to.
    Settled,
}

/// One charge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChargeRow {
    /// Names it: a call that waited and went on has several.
    pub id: Uuid,
    /// The call; absent for what a caller reported.
    pub call: Option<CallId>,
    /// The tool that was called; absent likewise.
    pub tool: Option<ToolName>,
    /// Who is charged.
    pub to: Charged,
    /// When it was admitted.
    pub at_ms: u64,
    /// Where it stands.
    pub state: ChargeState,
    /// What the execution came to, or may.
    pub execution: Amounts,
    /// What the plan comes to if it is committed: bytes, requests, cost, and the approval that it waits for.
    pub plan: Amounts,
}

/// What a plan gave back because it was not committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refund {
    /// Who was charged.
    pub to: Charged,
    /// How much.
    pub amounts: Amounts,
}

/// Refunds on record that nobody took into account yet.
#[derive(Debug, Default)]
pub(super) struct Refunds {
    any: AtomicBool,
    list: Mutex<Vec<Refund>>,
}

impl Refunds {
    /// Commit what gives these back, and tell of them before anybody can read it without hearing of it.
    pub(super) fn commit<E>(&self, refunds: Vec<Refund>, commit: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        if refunds.is_empty() {
            return commit();
        }
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        commit()?;
        list.extend(refunds);
        self.any.store(true, Ordering::Release);
        Ok(())
    }

    fn take(&self) -> Vec<Refund> {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        self.any.store(false, Ordering::Release);
        std::mem::take(&mut list)
    }
}

const CHARGE: &str = "INSERT INTO charges (id, call, run, tenant, user, workflow, tool, day, at_ms, state, steps, calls, \
                      wall_ms, fuel, cost, tokens, reported_cost, requests, plan_bytes, plan_requests, plan_cost, held, \
                      session) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, \
                      ?20, ?21, ?22, ?23) ON CONFLICT (id) DO UPDATE SET state = excluded.state, steps = excluded.steps, \
                      calls = excluded.calls, wall_ms = excluded.wall_ms, fuel = excluded.fuel, cost = excluded.cost, \
                      requests = excluded.requests, plan_bytes = excluded.plan_bytes, \
                      plan_requests = excluded.plan_requests, plan_cost = excluded.plan_cost, held = excluded.held";
/// Charges of a call whose plan would give something back.
const REFUNDABLE: &str = "SELECT id, run, session, tenant, user, workflow, day, plan_bytes, plan_requests, plan_cost, held \
                          FROM charges WHERE call = ?1 \
                          AND (plan_bytes > 0 OR plan_requests > 0 OR plan_cost > 0 OR held > 0)";
/// The charge of this name, if it is such a one.
const REFUNDABLE_ONE: &str = "SELECT id, run, session, tenant, user, workflow, day, plan_bytes, plan_requests, plan_cost, \
                              held FROM charges WHERE id = ?1 \
                              AND (plan_bytes > 0 OR plan_requests > 0 OR plan_cost > 0 OR held > 0)";
/// What charges add up to. A total of more than 64 bits sticks at the most.
pub(super) const SUMS: &str = "CAST(TOTAL(steps) AS INTEGER) AS steps, CAST(TOTAL(calls) AS INTEGER) AS calls, \
                               CAST(TOTAL(wall_ms) AS INTEGER) AS wall_ms, CAST(TOTAL(fuel) AS INTEGER) AS fuel, \
                               CAST(TOTAL(cost) + TOTAL(plan_cost) AS INTEGER) AS cost, \
                               CAST(TOTAL(tokens) AS INTEGER) AS tokens, \
                               CAST(TOTAL(reported_cost) AS INTEGER) AS reported_cost, \
                               CAST(TOTAL(requests) + TOTAL(plan_requests) AS INTEGER) AS requests, \
                               CAST(TOTAL(plan_bytes) AS INTEGER) AS bytes_written, \
                               CAST(TOTAL(held) AS INTEGER) AS approvals";

/// The sums of a row that selects [`SUMS`].
pub(super) fn sums_of(row: &Row<'_>) -> Result<Amounts, LedgerError> {
    let reading = Reading::new(row, "charges");
    Ok(Amounts {
        steps: reading.number("steps")?,
        calls: reading.number("calls")?,
        wall_ms: reading.number("wall_ms")?,
        fuel: reading.number("fuel")?,
        cost: reading.number("cost")?,
        tokens: reading.number("tokens")?,
        bytes_written: reading.number("bytes_written")?,
        requests: reading.number("requests")?,
        approvals: reading.number("approvals")?,
        reported_cost: reading.number("reported_cost")?,
    })
}

/// What all charges of a run add up to.
pub(super) fn sums_of_run(conn: &Connection, run: RunId) -> Result<Amounts, super::statement::Failed> {
    let sql = format!("SELECT {SUMS} FROM charges WHERE run = ?1");
    Ok(row(conn, &sql, params![id_bytes(run.uuid())], sums_of)?.unwrap_or_default())
}

/// Write a charge, or what it came to.
pub(super) fn charge(conn: &Connection, charge: &ChargeRow) -> Result<(), rusqlite::Error> {
    let (to, execution, plan) = (&charge.to, &charge.execution, &charge.plan);
    let state = match charge.state {
        ChargeState::Reserved => "reserved",
        ChargeState::Settled => "settled",
    };
    execute(
        conn,
        CHARGE,
        params![
            id_bytes(&charge.id),
            charge.call.as_ref().map(|call| id_bytes(call.uuid())),
            to.run.as_ref().map(|run| id_bytes(run.uuid())),
            to.tenant.as_str(),
            to.user.as_str(),
            to.workflow.as_ref().map_or("", WorkflowName::as_str),
            charge.tool.as_ref().map_or("", ToolName::as_str),
            integer(to.day),
            integer(charge.at_ms),
            state,
            integer(execution.steps.saturating_add(plan.steps)),
            integer(execution.calls.saturating_add(plan.calls)),
            integer(execution.wall_ms),
            integer(execution.fuel),
            integer(execution.cost),
            integer(execution.tokens),
            integer(execution.reported_cost),
            integer(execution.requests),
            integer(plan.bytes_written),
            integer(plan.requests),
            integer(plan.cost),
            integer(plan.approvals),
            path_bytes(&to.session),
        ],
    )?;
    Ok(())
}

/// Count what a stopped daemon left reserved in full. Returns how many charges that were.
pub(super) fn settle_interrupted(conn: &Connection) -> Result<usize, LedgerError> {
    execute(conn, "UPDATE charges SET state = 'interrupted' WHERE state = 'reserved'", &[])
        .map_err(|error| LedgerError::storage("interrupted charges cannot be settled", &error))
}

fn charged_of(reading: &Reading<'_>) -> Result<Charged, LedgerError> {
    let workflow = reading.text("workflow")?;
    Ok(Charged {
        tenant: reading.name("tenant")?,
        user: reading.name("user")?,
        workflow: if workflow.is_empty() { None } else { Some(reading.name("workflow")?) },
        run: reading.uuid_or_null("run")?.map(RunId::new),
        session: reading.path("session")?,
        day: reading.number("day")?,
    })
}

fn refundable_of(row: &Row<'_>) -> Result<(Uuid, Refund), LedgerError> {
    let reading = Reading::new(row, "charges");
    let amounts = Amounts {
        bytes_written: reading.number("plan_bytes")?,
        requests: reading.number("plan_requests")?,
        cost: reading.number("plan_cost")?,
        approvals: reading.number("held")?,
        ..Amounts::default()
    };
    Ok((reading.uuid("id")?, Refund { to: charged_of(&reading)?, amounts }))
}

impl Batch<'_> {
    /// A plan is not committed: what it alone would have used is given back.
    pub(super) fn refund(&mut self, call: CallId) -> Step<(), LedgerError> {
        self.refund_all(REFUNDABLE, call.uuid())
    }

    /// What one charge was for did not happen: what the plan alone would have used is given back, and nothing of other charges of
    /// the same call.
    pub(super) fn refund_charge(&mut self, charge: &Uuid) -> Step<(), LedgerError> {
        self.refund_all(REFUNDABLE_ONE, charge)
    }

    fn refund_all(&mut self, sql: &str, of: &Uuid) -> Step<(), LedgerError> {
        let found = self.rows(sql, params![id_bytes(of)], refundable_of)?;
        for (id, refund) in found {
            self.execute(
                "UPDATE charges SET plan_bytes = 0, plan_requests = 0, plan_cost = 0, held = 0 WHERE id = ?1",
                params![id_bytes(&id)],
            )?;
            self.refunds.push(refund);
        }
        Ok(())
    }

    /// A plan does not wait for people any more.
    pub(super) fn heard(&mut self, call: CallId) -> Step<(), LedgerError> {
        let found = self.rows(REFUNDABLE, params![id_bytes(call.uuid())], refundable_of)?;
        for (id, refund) in found.into_iter().filter(|(_, refund)| refund.amounts.approvals > 0) {
            self.execute("UPDATE charges SET held = 0 WHERE id = ?1", params![id_bytes(&id)])?;
            let amounts = Amounts { approvals: refund.amounts.approvals, ..Amounts::default() };
            self.refunds.push(Refund { amounts, ..refund });
        }
        Ok(())
    }
}

/// Which charges a ceiling looks at.
#[derive(Debug, Clone)]
pub struct CeilingUse {
    /// The tenant.
    pub tenant: TenantName,
    /// Only this person's.
    pub user: Option<UserName>,
    /// Only this workflow's.
    pub workflow: Option<WorkflowName>,
    /// The day.
    pub day: u64,
}

impl Ledger {
    /// Keep a charge. Returns once enqueued: what is recorded after it, is written after it.
    ///
    /// # Errors
    /// The queue is full, or the ledger failed: the call must not run.
    pub fn charge(&self, charge: ChargeRow) -> Result<(), LedgerError> {
        self.shared.queue.push(Job::lazy(Work::Run(Box::new(RunWork::Charge(charge)))))
    }

    /// Give back what a charge holds for its plan. A second time gives back nothing.
    ///
    /// # Errors
    /// The ledger failed.
    pub async fn refund(&self, charge: Uuid) -> Result<(), LedgerError> {
        self.change(RunWork::Refund(charge), false).await.map(drop)
    }

    /// Whether there are refunds that nobody took. What is told at this moment may be missing.
    #[must_use]
    pub fn has_refunds(&self) -> bool {
        self.shared.refunds.any.load(Ordering::Acquire)
    }

    /// Refunds since the last time, each of which is on record; waits for whatever gives something back at this moment.
    #[must_use]
    pub fn take_refunds(&self) -> Vec<Refund> {
        self.shared.refunds.take()
    }

    /// What the charges of a day add up to.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn charged_on(&self, of: CeilingUse) -> Result<Amounts, LedgerError> {
        self.caught_up().await?;
        let mut sql = format!("SELECT {SUMS} FROM charges WHERE day = ?1 AND tenant = ?2");
        if of.user.is_some() {
            sql.push_str(" AND user = ?3");
        }
        if of.workflow.is_some() {
            sql.push_str(if of.user.is_some() { " AND workflow = ?4" } else { " AND workflow = ?3" });
        }
        self.read(move |conn| {
            let day = integer(of.day);
            let mut values: Vec<&dyn ToSql> = Vec::new();
            let (tenant, user) = (of.tenant.as_str(), of.user.as_ref().map(UserName::as_str));
            let workflow = of.workflow.as_ref().map(WorkflowName::as_str);
            values.push(&day);
            values.push(&tenant);
            values.extend(user.as_ref().map(|user| user as &dyn ToSql));
            values.extend(workflow.as_ref().map(|workflow| workflow as &dyn ToSql));
            Ok(row(conn, &sql, &values, sums_of)?.unwrap_or_default())
        })
        .await
    }

    /// What everything that was done through a session, and those below it, was charged.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn charged_through(&self, session: &SessionPath) -> Result<Amounts, LedgerError> {
        self.caught_up().await?;
        let path = session.to_bytes();
        let sql = format!("SELECT {SUMS} FROM charges WHERE session >= ?1 AND (?2 IS NULL OR session < ?2)");
        self.read(move |conn| Ok(row(conn, &sql, params![path, after(&path)], sums_of)?.unwrap_or_default())).await
    }

    /// How many charges are reserved at this moment, for whoever looks for leaks.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn reserved_charges(&self) -> Result<u64, LedgerError> {
        self.caught_up().await?;
        self.read(|conn| {
            let count = schema::number(conn, "SELECT count(*) FROM charges WHERE state = 'reserved'")?;
            Ok(u64::try_from(count).unwrap_or(0))
        })
        .await
    }
}
