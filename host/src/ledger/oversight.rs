//! Oversight on record: what runs have seen and tried, how far agents may go, and what checks noted of calls.
//!
//! Taint only grows: a write joins what is there. What an operator sets is in the audit with who and why. The host keeps all
//! of it in memory as well; these rows are what a restart begins with.

use std::sync::Arc;

use rusqlite::{Row, params};
use serde_json::json;
use toolkeep_core::audit::{AuditKind, canonical_body};
use toolkeep_core::autonomy::Autonomy;
use toolkeep_core::id::{AgentName, CallId, RunId, TenantName, ToolName, UserName};
use toolkeep_core::taint::Taint;

use super::Ledger;
use super::batch::{Batch, Step};
use super::column::{Reading, id_bytes, integer};
use super::failure::LedgerError;
use super::queue::{Done, Job, Work};
use super::rows::{Durability, Scope};
use super::standing::{Overseen, StandingWork};
use super::statement::{row, rows};
use super::trials::TrialWork;
use crate::vault::Part;

/// What a run has seen and tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunMark {
    /// The run.
    pub run: RunId,
    /// What it has seen.
    pub taint: Taint,
    /// How often it tried what it may not.
    pub breaches: u32,
}

/// How far an agent may go with a tool, as an operator set it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AutonomyRow {
    /// Whose agent.
    pub tenant: TenantName,
    /// Which agent.
    pub agent: AgentName,
    /// With which tool.
    pub tool: ToolName,
    /// How far.
    pub level: Autonomy,
    /// Who set it.
    pub set_by: UserName,
    /// Why.
    pub reason: Arc<str>,
    /// When.
    pub set_ms: u64,
}

/// What became of the plans of an agent with a tool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct TrackRecord {
    /// Committed, whether people agreed or nobody had to.
    pub committed: u64,
    /// Of these, taken back later.
    pub undone: u64,
    /// Requests for consent that operators agreed to.
    pub approved: u64,
    /// That were agreed to through the client of the agent, which could do so by itself: no reason to trust it more.
    pub confirmed: u64,
    /// That anybody rejected.
    pub rejected: u64,
    /// That nobody answered in time.
    pub expired: u64,
    /// Calls that were denied.
    pub denied: u64,
    /// Calls that failed.
    pub failed: u64,
}

/// One write of this kind.
#[derive(Debug)]
pub(super) enum OversightWork {
    /// A run has seen or tried something.
    Mark { tenant: TenantName, mark: RunMark },
    /// An operator set how far an agent may go.
    Autonomy(Box<AutonomyRow>),
    /// Consent in advance.
    Standing(Box<StandingWork>),
    /// Versions, golden cases and suites.
    Trial(TrialWork),
}

/// What a run has seen and tried.
pub(super) const RUN_MARK: &str = "SELECT * FROM run_marks WHERE run = ?1";

pub(super) fn mark_of(row: &Row<'_>) -> Result<RunMark, LedgerError> {
    let reading = Reading::new(row, "run_marks");
    Ok(RunMark {
        run: RunId::new(reading.uuid("run")?),
        taint: Taint { untrusted: reading.number("untrusted")? == 1, private: reading.number("private")? == 1 },
        breaches: u32::try_from(reading.number("breaches")?).unwrap_or(u32::MAX),
    })
}

fn autonomy_of(row: &Row<'_>) -> Result<AutonomyRow, LedgerError> {
    let reading = Reading::new(row, "autonomy");
    Ok(AutonomyRow {
        tenant: reading.name("tenant")?,
        agent: reading.name("agent")?,
        tool: reading.name("tool")?,
        level: reading.name("level")?,
        set_by: reading.name("set_by")?,
        reason: Arc::from(reading.text("reason")?),
        set_ms: reading.number("set_ms")?,
    })
}

impl Batch<'_> {
    pub(super) fn oversee(&mut self, work: &OversightWork) -> Step<Overseen, LedgerError> {
        match work {
            OversightWork::Mark { tenant, mark } => {
                self.execute(
                    "INSERT INTO run_marks (run, tenant, untrusted, private, breaches, changed_ms) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (run) DO UPDATE SET \
                     untrusted = max(untrusted, excluded.untrusted), private = max(private, excluded.private), \
                     breaches = max(breaches, excluded.breaches), changed_ms = excluded.changed_ms",
                    params![
                        id_bytes(mark.run.uuid()),
                        tenant.as_str(),
                        i64::from(mark.taint.untrusted),
                        i64::from(mark.taint.private),
                        i64::from(mark.breaches),
                        integer(self.now_ms)
                    ],
                )?;
                Ok(Overseen::Done)
            }
            OversightWork::Autonomy(set) => {
                self.execute(
                    "INSERT INTO autonomy (tenant, agent, tool, level, set_by, reason, set_ms) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (tenant, agent, tool) DO UPDATE SET \
                     level = excluded.level, set_by = excluded.set_by, reason = excluded.reason, set_ms = excluded.set_ms",
                    params![
                        set.tenant.as_str(),
                        set.agent.as_str(),
                        set.tool.as_str(),
                        set.level.word(),
                        set.set_by.as_str(),
                        set.reason,
                        integer(set.set_ms)
                    ],
                )?;
                let body = json!({"agent": set.agent, "by": set.set_by, "level": set.level, "reason": set.reason,
                    "tenant": set.tenant, "tool": set.tool});
                self.append(AuditKind::Autonomy, canonical_body(&body));
                Ok(Overseen::Done)
            }
            OversightWork::Standing(work) => self.stand(work),
            OversightWork::Trial(work) => self.try_out(work),
        }
    }
}

impl Ledger {
    /// A run has seen or tried more than before. With [`Durability::Durable`] it is on the disk when this returns.
    ///
    /// # Errors
    /// The ledger failed: what the run read must not be answered.
    pub async fn mark_run(&self, tenant: &TenantName, mark: RunMark, how: Durability) -> Result<(), LedgerError> {
        self.put(Work::Oversee(OversightWork::Mark { tenant: tenant.clone(), mark }), how).await
    }

    /// As [`Ledger::mark_run`], without waiting: written with the next batch.
    ///
    /// # Errors
    /// The queue is full, or the ledger failed.
    pub fn mark_run_soon(&self, tenant: &TenantName, mark: RunMark) -> Result<(), LedgerError> {
        let work = OversightWork::Mark { tenant: tenant.clone(), mark };
        self.shared.queue.push(Job::lazy(Work::Oversee(work)))
    }

    /// What runs that are not closed have seen and tried.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn run_marks(&self) -> Result<Vec<RunMark>, LedgerError> {
        self.caught_up().await?;
        let sql = "SELECT m.* FROM run_marks m JOIN runs r ON r.id = m.run WHERE r.closed_ms IS NULL";
        self.read(move |conn| rows(conn, sql, params![], mark_of)).await
    }

    /// What a run has seen and tried, open or closed.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn run_mark(&self, run: RunId) -> Result<Option<RunMark>, LedgerError> {
        self.caught_up().await?;
        self.read(move |conn| row(conn, RUN_MARK, params![id_bytes(run.uuid())], mark_of)).await
    }

    /// An operator says how far an agent may go with a tool. Durable when it returns.
    ///
    /// # Errors
    /// The ledger failed.
    pub async fn set_autonomy(&self, set: AutonomyRow) -> Result<(), LedgerError> {
        self.put(Work::Oversee(OversightWork::Autonomy(Box::new(set))), Durability::Durable).await
    }

    /// How far agents may go, wherever an operator set it.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn autonomies(&self) -> Result<Vec<AutonomyRow>, LedgerError> {
        self.caught_up().await?;
        let sql = "SELECT * FROM autonomy ORDER BY tenant, agent, tool";
        self.read(move |conn| rows(conn, sql, params![], autonomy_of)).await
    }

    /// What became of the plans of an agent with a tool.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn track_record(
        &self,
        tenant: &TenantName,
        agent: &AgentName,
        tool: &ToolName,
    ) -> Result<TrackRecord, LedgerError> {
        self.caught_up().await?;
        let (tenant, agent, tool) = (tenant.clone(), agent.clone(), tool.clone());
        let calls = "SELECT count(*) FILTER (WHERE c.outcome = 'committed') AS committed, \
                     count(*) FILTER (WHERE p.undone_by IS NOT NULL) AS undone, \
                     count(*) FILTER (WHERE c.status = 'denied') AS denied, \
                     count(*) FILTER (WHERE c.status = 'failed') AS failed \
                     FROM calls c LEFT JOIN plans p ON p.seq = c.seq \
                     WHERE c.tenant = ?1 AND c.agent = ?2 AND c.tool = ?3";
        let asked = "SELECT count(*) FILTER (WHERE agreed AND NOT by_client) AS approved, \
                     count(*) FILTER (WHERE agreed AND by_client) AS confirmed, \
                     count(*) FILTER (WHERE state = 'rejected') AS rejected, \
                     count(*) FILTER (WHERE state = 'expired') AS expired \
                     FROM (SELECT state, state IN ('approved', 'consumed') AS agreed, \
                     EXISTS (SELECT 1 FROM approval_votes v WHERE v.approval = approvals.id AND v.via IS NOT NULL) \
                     AS by_client FROM approvals WHERE tenant = ?1 AND agent = ?2 AND tool = ?3)";
        self.read(move |conn| {
            let of = params![tenant.as_str(), agent.as_str(), tool.as_str()];
            let record = row(conn, calls, of, |row| {
                let reading = Reading::new(row, "calls");
                Ok(TrackRecord {
                    committed: reading.number("committed")?,
                    undone: reading.number("undone")?,
                    denied: reading.number("denied")?,
                    failed: reading.number("failed")?,
                    ..TrackRecord::default()
                })
            })?
            .unwrap_or_default();
            let found = row(conn, asked, of, |row| {
                let reading = Reading::new(row, "approvals");
                Ok(TrackRecord {
                    approved: reading.number("approved")?,
                    confirmed: reading.number("confirmed")?,
                    rejected: reading.number("rejected")?,
                    expired: reading.number("expired")?,
                    ..record
                })
            })?;
            Ok(found.unwrap_or(record))
        })
        .await
    }

    /// What the checks noted of a call, JSON of [`crate::notes::Notes`].
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn notes(&self, scope: &Scope, call: CallId) -> Result<Option<Arc<str>>, LedgerError> {
        self.caught_up().await?;
        let sql = "SELECT c.tenant, n.body FROM calls c JOIN call_notes n ON n.call_seq = c.seq WHERE c.id = ?1";
        let found = self.read(move |conn| {
            row(conn, sql, params![id_bytes(call.uuid())], |row| {
                let reading = Reading::new(row, "call_notes");
                Ok((reading.name("tenant")?, Arc::from(reading.text("body")?)))
            })
        });
        Ok(found.await?.filter(|(tenant, _)| scope.sees(tenant)).map(|(_, body)| body))
    }

    /// An output that was too long for its reply, JSON.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn output(&self, scope: &Scope, call: CallId) -> Result<Option<Arc<str>>, LedgerError> {
        self.caught_up().await?;
        let vault = self.vault();
        let sql = "SELECT c.tenant, o.body FROM calls c JOIN call_outputs o ON o.call_seq = c.seq WHERE c.id = ?1";
        let found = self.read(move |conn| {
            row(conn, sql, params![id_bytes(call.uuid())], |row| {
                let reading = Reading::new(row, "call_outputs");
                Ok((reading.name("tenant")?, vault.read(Part::Output, reading.text("body")?)?))
            })
        });
        Ok(found.await?.filter(|(tenant, _)| scope.sees(tenant)).and_then(|(_, body)| body.clear()))
    }

    pub(super) async fn oversee(&self, work: OversightWork) -> Result<Overseen, LedgerError> {
        match self.ask(Work::Oversee(work), true).await? {
            Done::Overseen(overseen) => Ok(overseen),
            Done::Refused(error) => Err(error),
            _ => Err(LedgerError::Closed),
        }
    }
}
