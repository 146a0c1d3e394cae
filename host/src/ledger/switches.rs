//! Kill switches on the disk, and every change of them in the audit chain.
//!
//! A change is enqueued before its caller lets anything else happen, and the writer takes things in their order. So the
//! entry of a switch in the chain stands before that of everything that came after it: no intent of what it stops
//! follows it.

use std::sync::Arc;

use rusqlite::{Row, params};
use serde_json::json;
use tokio::sync::oneshot;
use toolkeep_core::audit::{AuditKind, canonical_body};
use toolkeep_core::id::{RunId, TenantName, WorkflowName};
use toolkeep_core::kill::{KillLevel, KillMode, KillTarget, Switch};

use super::Ledger;
use super::batch::{Batch, Step};
use super::column::{Reading, id_bytes, integer};
use super::failure::LedgerError;
use super::queue::{Done, Work};
use super::statement::{row, rows};

/// A change of the kill switches.
#[derive(Debug, Clone)]
pub enum KillChange {
    /// This is stopped from now on.
    Set(Switch),
    /// This is not stopped any more.
    Clear {
        /// What was.
        target: KillTarget,
        /// Who cleared it.
        by: Arc<str>,
        /// Why.
        reason: Arc<str>,
    },
    /// A file set or cleared the global switch: it is on record, and the file itself is what survives a restart.
    OfFile {
        /// Whether it appeared.
        set: bool,
        /// What it said.
        reason: Arc<str>,
    },
}

/// A change that has its place in the order of writing and is not on the disk yet.
#[derive(Debug)]
pub struct KillWritten(oneshot::Receiver<Result<Done, LedgerError>>);

impl KillWritten {
    /// Wait until it is on the disk. Returns the number of its entry in the audit chain.
    ///
    /// # Errors
    /// It could not be written.
    pub async fn durable(self) -> Result<u64, LedgerError> {
        match self.0.await.unwrap_or(Err(LedgerError::Closed))? {
            Done::Killed(seq) => Ok(seq),
            Done::Refused(error) => Err(error),
            _ => Err(LedgerError::Closed),
        }
    }
}

fn tenant_text(target: &KillTarget) -> &str {
    target.tenant().map_or("", TenantName::as_str)
}

fn facts(what: &str, target: &KillTarget, mode: Option<KillMode>, by: &str, reason: &str) -> String {
    canonical_body(&json!({
        "kill": what, "level": target.level(), "tenant": target.tenant(), "name": target.name(), "mode": mode,
        "by": by, "reason": reason,
    }))
}

impl Batch<'_> {
    /// Keep a change. Returns the number of its audit entry.
    pub(super) fn kill(&mut self, change: &KillChange) -> Step<u64, LedgerError> {
        let body = match change {
            KillChange::Set(switch) => {
                self.execute(
                    "INSERT INTO kill_switches (level, tenant, name, mode, reason, set_by, set_ms) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (level, tenant, name) DO UPDATE SET \
                     mode = excluded.mode, reason = excluded.reason, set_by = excluded.set_by, set_ms = excluded.set_ms",
                    params![
                        switch.target.level().word(),
                        tenant_text(&switch.target),
                        switch.target.name().unwrap_or_default(),
                        switch.mode.word(),
                        switch.reason,
                        switch.by,
                        integer(switch.set_ms)
                    ],
                )?;
                facts("set", &switch.target, Some(switch.mode), &switch.by, &switch.reason)
            }
            KillChange::Clear { target, by, reason } => {
                self.execute(
                    "DELETE FROM kill_switches WHERE level = ?1 AND tenant = ?2 AND name = ?3",
                    params![target.level().word(), tenant_text(target), target.name().unwrap_or_default()],
                )?;
                facts("cleared", target, None, by, reason)
            }
            KillChange::OfFile { set, reason } => {
                let what = if *set { "set" } else { "cleared" };
                facts(what, &KillTarget::Global, set.then_some(KillMode::Stop), "file", reason)
            }
        };
        Ok(self.append(AuditKind::Kill, body))
    }
}

fn switch_of(row: &Row<'_>) -> Result<Switch, LedgerError> {
    let reading = Reading::new(row, "kill_switches");
    let level = reading.word("level", KillLevel::from_word)?;
    let name = reading.text("name")?;
    let target = match level {
        KillLevel::Global => Some(KillTarget::Global),
        _ => KillTarget::new(level, reading.name("tenant")?, (!name.is_empty()).then_some(name)).ok(),
    };
    let damaged = || LedgerError::Damaged("a row of `kill_switches` has no valid `name`".into());
    Ok(Switch {
        target: target.ok_or_else(damaged)?,
        mode: reading.word("mode", KillMode::from_word)?,
        reason: Arc::from(reading.text("reason")?),
        by: Arc::from(reading.text("set_by")?),
        set_ms: reading.number("set_ms")?,
    })
}

impl Ledger {
    /// Give a change its place in the order of writing. It always finds room in the queue.
    ///
    /// # Errors
    /// The ledger is poisoned or closed: the change is not kept.
    pub fn begin_kill(&self, change: KillChange) -> Result<KillWritten, LedgerError> {
        self.enqueue(Work::Kill(Box::new(change)), true).map(KillWritten)
    }

    /// The switches that are set.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn kill_switches(&self) -> Result<Vec<Switch>, LedgerError> {
        self.barrier().await?;
        self.read(move |conn| rows(conn, "SELECT * FROM kill_switches", &[], switch_of)).await
    }

    /// The workflow of a run, if there is such a run; an inner nothing if it has none.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn workflow_of_run(&self, run: RunId) -> Result<Option<Option<WorkflowName>>, LedgerError> {
        self.caught_up().await?;
        let sql = "SELECT workflow FROM runs WHERE id = ?1";
        self.read(move |conn| {
            row(conn, sql, params![id_bytes(run.uuid())], |row| {
                let reading = Reading::new(row, "runs");
                if reading.text("workflow")?.is_empty() { Ok(None) } else { reading.name("workflow").map(Some) }
            })
        })
        .await
    }

    /// The newest runs that belong to a workflow, with it.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn runs_with_workflow(&self, limit: u64) -> Result<Vec<(RunId, WorkflowName)>, LedgerError> {
        let sql = "SELECT id, workflow FROM runs WHERE workflow <> '' ORDER BY id DESC LIMIT ?1";
        self.read(move |conn| {
            rows(conn, sql, params![integer(limit)], |row| {
                let reading = Reading::new(row, "runs");
                Ok((RunId::new(reading.uuid("id")?), reading.name("workflow")?))
            })
        })
        .await
    }
}
