//! Runs with terms: how they are kept, held, released and closed, and what their past says when a daemon looks again.
//!
//! What a run did is not kept a second time: repetitions, failures in a row and successes that gates ask for are read off
//! its calls. Pauses and allowances of ceilings are small tables of their own.

use std::sync::Arc;

use rusqlite::{Row, params};
use toolkeep_core::audit::AuditKind;
use toolkeep_core::budget::Amounts;
use toolkeep_core::digest::Digest;
use toolkeep_core::id::{CallId, RunId, TenantName, ToolName, WorkflowName};
use toolkeep_core::refusal::Code;
use uuid::Uuid;

use super::Ledger;
use super::batch::{Batch, Step};
use super::charges::{self, ChargeRow};
use super::column::{Reading, id_bytes, integer};
use super::failure::LedgerError;
use super::queue::{Done, Work};
use super::read::run_of;
use super::rows::RunRow;
use super::sealing::{SEALED, Vault};
use super::statement::{row, rows};
use crate::vault::Part;

/// Different calls of a run whose repetitions are remembered; the most frequent ones.
pub(crate) const REPEATED_MAX: usize = 1_024;
/// Latest calls of a run that are looked through for failures in a row.
const LATEST: i64 = 1_000;
/// Successes of a run that gates can ask for.
pub(crate) const SUCCESSES_MAX: usize = 1_024;

/// Why a run is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunHold {
    /// What its calls are refused with.
    pub code: Code,
    /// Why, for people and models.
    pub reason: Arc<str>,
}

/// Changes of runs, charges, pauses and allowances.
#[expect(clippy::large_enum_variant, reason = "most of them are charges, and each is in a box of its own")]
#[derive(Debug)]
pub(super) enum RunWork {
    Charge(ChargeRow),
    /// What was charged for a plan did not happen.
    Refund(Uuid),
    /// An escalation of a run, with its facts, that may hold the run.
    Escalate {
        run: RunId,
        facts: String,
        hold: Option<RunHold>,
    },
    /// A held run goes on, with its budget raised to this.
    Release {
        run: RunId,
        raised: String,
        at_ms: u64,
        facts: String,
    },
    /// Spending of a workflow, or of what has none, is far above what is usual; with a reason it stops.
    Spike {
        tenant: TenantName,
        workflow: String,
        at_ms: u64,
        pause: Option<String>,
        facts: String,
    },
    /// It goes on.
    Resume {
        tenant: TenantName,
        workflow: String,
        facts: String,
    },
    /// A ceiling allows itself once more on a day.
    Allow {
        ceiling: String,
        subject: String,
        day: u64,
        facts: String,
    },
}

impl RunWork {
    /// Bytes of text that it keeps while it waits.
    pub(super) const fn weight(&self) -> usize {
        match self {
            Self::Charge(_) | Self::Refund(_) => 0,
            Self::Escalate { facts, .. }
            | Self::Release { facts, .. }
            | Self::Spike { facts, .. }
            | Self::Resume { facts, .. }
            | Self::Allow { facts, .. } => facts.len(),
        }
    }
}

/// A call of a run that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Success {
    /// The call.
    pub call: CallId,
    /// The tool.
    pub tool: ToolName,
    /// Its canonical input.
    pub input: Arc<str>,
}

/// A run and all that its past says.
#[derive(Debug, Clone)]
pub struct RunPast {
    /// The run.
    pub row: RunRow,
    /// What was charged to it.
    pub used: Amounts,
    /// How often which call was made.
    pub repeated: Vec<(ToolName, Digest, u32)>,
    /// How often a tool failed since it last succeeded.
    pub failing: Vec<(ToolName, u32)>,
    /// Calls that succeeded, oldest first.
    pub successes: Vec<Success>,
}

/// Spending that an operator has to resume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PauseRow {
    /// Whose.
    pub tenant: TenantName,
    /// Of which workflow; of what has none if absent.
    pub workflow: Option<WorkflowName>,
    /// Why.
    pub reason: Arc<str>,
    /// Since when.
    pub at_ms: u64,
}

/// Failures that say something about the tool or its input, as the agent uses it.
pub const FAILURES: [Code; 9] = [
    Code::ToolFailed,
    Code::ToolTrapped,
    Code::OutOfFuel,
    Code::DeadlineExceeded,
    Code::MemoryExceeded,
    Code::OutputTooLarge,
    Code::EffectRefused,
    Code::PlanDiverged,
    Code::InvalidInput,
];

// A call that was admitted is charged as one; what was refused before is none, nor are parts of live calls.
const REPEATED: &str = "SELECT c.tool, c.input_digest, count(*) AS times FROM charges h JOIN calls c ON c.id = h.call \
                        WHERE h.run = ?1 AND h.at_ms >= ?2 AND h.calls > 0 AND c.component IS NOT NULL \
                        GROUP BY c.tool, c.input_digest ORDER BY times DESC LIMIT ?3";
// Parts of live calls have ids of version 5.
const LATEST_CALLS: &str = "SELECT tool, status, error_code FROM calls WHERE run = ?1 AND started_ms >= ?2 \
                            AND component IS NOT NULL AND substr(hex(id), 13, 1) <> '5' ORDER BY seq DESC LIMIT ?3";
const SUCCEEDED: &str = "SELECT c.id, c.tool, c.input, c.seq FROM calls c LEFT JOIN plans p ON p.seq = c.seq \
                         WHERE c.run = ?1 AND c.status = 'ok' AND c.mode = 'commit' \
                         AND c.outcome IN ('none', 'committed') AND p.undone_by IS NULL \
                         AND c.component IS NOT NULL AND substr(hex(c.id), 13, 1) <> '5' ORDER BY c.seq DESC LIMIT ?2";

impl Batch<'_> {
    /// Change a run, a charge, a pause or an allowance.
    pub(super) fn run_work(&mut self, work: &RunWork) -> Step<Done, LedgerError> {
        match work {
            RunWork::Charge(charge) => charges::charge(self.conn, charge)?,
            RunWork::Refund(charge) => self.refund_charge(charge)?,
            RunWork::Escalate { run, facts, hold } => {
                let (code, reason) = (hold.as_ref().map(|hold| hold.code.word()), hold.as_ref().map(|h| &h.reason));
                self.execute(
                    "UPDATE runs SET escalations = escalations + 1, held_code = coalesce(held_code, ?2), \
                     held_reason = coalesce(held_reason, ?3) WHERE id = ?1",
                    params![id_bytes(run.uuid()), code, reason],
                )?;
                self.append(AuditKind::Escalation, facts.clone());
            }
            RunWork::Release { run, raised, at_ms, facts } => {
                self.execute(
                    "UPDATE runs SET raised = ?2, released_ms = ?3, held_code = NULL, held_reason = NULL, \
                     escalations = 0 WHERE id = ?1",
                    params![id_bytes(run.uuid()), raised, integer(*at_ms)],
                )?;
                self.execute("UPDATE run_marks SET breaches = 0 WHERE run = ?1", params![id_bytes(run.uuid())])?;
                self.append(AuditKind::Escalation, facts.clone());
            }
            RunWork::Spike { tenant, workflow, at_ms, pause, facts } => {
                self.execute(
                    "INSERT INTO spikes (tenant, workflow, told_ms) VALUES (?1, ?2, ?3) \
                     ON CONFLICT (tenant, workflow) DO UPDATE SET told_ms = excluded.told_ms",
                    params![tenant.as_str(), workflow, integer(*at_ms)],
                )?;
                if let Some(reason) = pause {
                    self.execute(
                        "INSERT INTO pauses (tenant, workflow, reason, at_ms) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
                        params![tenant.as_str(), workflow, reason, integer(*at_ms)],
                    )?;
                }
                self.append(AuditKind::Budget, facts.clone());
            }
            RunWork::Resume { tenant, workflow, facts } => {
                let sql = "DELETE FROM pauses WHERE tenant = ?1 AND workflow = ?2";
                let resumed = self.execute(sql, params![tenant.as_str(), workflow])?;
                if resumed == 1 {
                    self.append(AuditKind::Budget, facts.clone());
                }
                return Ok(Done::Changed(resumed == 1));
            }
            RunWork::Allow { ceiling, subject, day, facts } => {
                self.execute(
                    "INSERT INTO allowances (ceiling, subject, day, times) VALUES (?1, ?2, ?3, 1) \
                     ON CONFLICT (ceiling, subject, day) DO UPDATE SET times = times + 1",
                    params![ceiling, subject, integer(*day)],
                )?;
                self.append(AuditKind::Budget, facts.clone());
            }
        }
        Ok(Done::Changed(true))
    }
}

fn repeated_of(row: &Row<'_>) -> Result<(ToolName, Digest, u32), LedgerError> {
    let reading = Reading::new(row, "calls");
    let times = u32::try_from(reading.number("times")?).unwrap_or(u32::MAX);
    Ok((reading.name("tool")?, reading.digest("input_digest")?, times))
}

/// Tool, whether the call succeeded, whether it failed.
fn ending_of(row: &Row<'_>) -> Result<(ToolName, bool, bool), LedgerError> {
    let reading = Reading::new(row, "calls");
    let code = reading.text_or_null("error_code")?;
    let failed = code.is_some_and(|code| FAILURES.iter().any(|failure| failure.word() == code));
    Ok((reading.name("tool")?, reading.text("status")? == "ok", failed))
}

/// Failures of each tool since it last succeeded, from its latest calls backwards.
fn failing(latest: Vec<(ToolName, bool, bool)>) -> Vec<(ToolName, u32)> {
    let mut counts: Vec<(ToolName, u32, bool)> = Vec::new();
    for (tool, succeeded, failed) in latest {
        let at = counts.iter().position(|(name, ..)| *name == tool);
        let at = at.unwrap_or_else(|| {
            counts.push((tool, 0, false));
            counts.len() - 1
        });
        if let Some((_, times, over)) = counts.get_mut(at).filter(|(_, _, over)| !over) {
            *over = succeeded;
            *times += u32::from(failed);
        }
    }
    counts.into_iter().filter(|(_, times, _)| *times > 0).map(|(tool, times, _)| (tool, times)).collect()
}

fn success_of(row: &Row<'_>, vault: &Vault) -> Result<Success, LedgerError> {
    let reading = Reading::new(row, "calls");
    // A gate that asks for what cannot be read any more stays shut.
    let input = vault.read(Part::Input, reading.text("input")?)?.clear();
    Ok(Success {
        call: CallId::new(reading.uuid("id")?),
        tool: reading.name("tool")?,
        input: input.unwrap_or_else(|| Arc::from(SEALED)),
    })
}

fn pause_of(row: &Row<'_>) -> Result<PauseRow, LedgerError> {
    let reading = Reading::new(row, "pauses");
    let workflow = reading.text("workflow")?;
    Ok(PauseRow {
        tenant: reading.name("tenant")?,
        workflow: if workflow.is_empty() { None } else { Some(reading.name("workflow")?) },
        reason: Arc::from(reading.text("reason")?),
        at_ms: reading.number("at_ms")?,
    })
}

impl Ledger {
    pub(super) async fn change(&self, work: RunWork, durable: bool) -> Result<bool, LedgerError> {
        match self.ask(Work::Run(Box::new(work)), durable).await? {
            Done::Changed(changed) => Ok(changed),
            Done::Refused(error) => Err(error),
            _ => Ok(true),
        }
    }

    /// A run with its past; nothing if there is no such run.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn run_past(&self, run: RunId) -> Result<Option<RunPast>, LedgerError> {
        self.caught_up().await?;
        let vault = self.vault();
        self.read(move |conn| {
            let id = id_bytes(run.uuid());
            let Some(found) = row(conn, "SELECT * FROM runs WHERE id = ?1", params![id], run_of)? else {
                return Ok(None);
            };
            let (since, most) = (integer(found.released_ms), i64::try_from(REPEATED_MAX).unwrap_or(i64::MAX));
            let mut successes = rows(conn, SUCCEEDED, params![id, most], |row| success_of(row, &vault))?;
            successes.reverse();
            Ok(Some(RunPast {
                used: charges::sums_of_run(conn, run)?,
                repeated: rows(conn, REPEATED, params![id, since, most], repeated_of)?,
                failing: failing(rows(conn, LATEST_CALLS, params![id, since, LATEST], ending_of)?),
                successes,
                row: found,
            }))
        })
        .await
    }

    /// Put an escalation of a run on record, and hold the run if that is wanted. Returns once enqueued.
    ///
    /// # Errors
    /// The queue is full, or the ledger failed.
    pub fn escalate(&self, run: RunId, facts: &serde_json::Value, hold: Option<RunHold>) -> Result<(), LedgerError> {
        let facts = toolkeep_core::audit::canonical_body(facts);
        let work = RunWork::Escalate { run, facts, hold };
        self.shared.queue.push(super::queue::Job::lazy(Work::Run(Box::new(work))))
    }

    /// Let a held run go on, with its budget raised to this (JSON of the host). Durable when it returns.
    ///
    /// # Errors
    /// The ledger failed.
    pub async fn release_run(
        &self,
        run: RunId,
        raised: String,
        at_ms: u64,
        facts: &serde_json::Value,
    ) -> Result<(), LedgerError> {
        let facts = toolkeep_core::audit::canonical_body(facts);
        self.change(RunWork::Release { run, raised, at_ms, facts }, true).await.map(drop)
    }

    /// Put on record that spending is far above what is usual and, with a reason, pause it. Durable when it returns.
    ///
    /// # Errors
    /// The ledger failed.
    pub async fn spike(
        &self,
        (tenant, workflow): (&TenantName, Option<&WorkflowName>),
        at_ms: u64,
        pause: Option<String>,
        facts: &serde_json::Value,
    ) -> Result<(), LedgerError> {
        let work = RunWork::Spike {
            tenant: tenant.clone(),
            workflow: workflow.map_or_else(String::new, ToString::to_string),
            at_ms,
            pause,
            facts: toolkeep_core::audit::canonical_body(facts),
        };
        self.change(work, true).await.map(drop)
    }

    /// Whose spending was told to be a spike since a moment.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn spikes_since(&self, from_ms: u64) -> Result<Vec<(TenantName, Option<WorkflowName>)>, LedgerError> {
        self.caught_up().await?;
        let sql = "SELECT * FROM spikes WHERE told_ms >= ?1";
        self.read(move |conn| {
            rows(conn, sql, params![integer(from_ms)], |row| {
                let reading = Reading::new(row, "spikes");
                let workflow = reading.text("workflow")?;
                let workflow = if workflow.is_empty() { None } else { Some(reading.name("workflow")?) };
                Ok((reading.name("tenant")?, workflow))
            })
        })
        .await
    }

    /// Resume spending. False if it was not paused.
    ///
    /// # Errors
    /// The ledger failed.
    pub async fn resume_spending(
        &self,
        tenant: &TenantName,
        workflow: Option<&WorkflowName>,
        facts: &serde_json::Value,
    ) -> Result<bool, LedgerError> {
        let work = RunWork::Resume {
            tenant: tenant.clone(),
            workflow: workflow.map_or_else(String::new, ToString::to_string),
            facts: toolkeep_core::audit::canonical_body(facts),
        };
        self.change(work, true).await
    }

    /// Let a ceiling allow itself once more on a day. Durable when it returns.
    ///
    /// # Errors
    /// The ledger failed.
    pub async fn allow(
        &self,
        ceiling: &str,
        subject: &str,
        day: u64,
        facts: &serde_json::Value,
    ) -> Result<(), LedgerError> {
        let facts = toolkeep_core::audit::canonical_body(facts);
        let work = RunWork::Allow { ceiling: ceiling.to_owned(), subject: subject.to_owned(), day, facts };
        self.change(work, true).await.map(drop)
    }

    /// All pauses.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn pauses(&self) -> Result<Vec<PauseRow>, LedgerError> {
        self.caught_up().await?;
        self.read(|conn| rows(conn, "SELECT * FROM pauses ORDER BY at_ms", &[], pause_of)).await
    }

    /// How many times more than configured a ceiling allows on a day.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn allowance(&self, ceiling: &str, subject: &str, day: u64) -> Result<u64, LedgerError> {
        self.caught_up().await?;
        let (ceiling, subject) = (ceiling.to_owned(), subject.to_owned());
        self.read(move |conn| {
            let sql = "SELECT times FROM allowances WHERE ceiling = ?1 AND subject = ?2 AND day = ?3";
            let times = row(conn, sql, params![ceiling, subject, integer(day)], |row| {
                Reading::new(row, "allowances").number("times")
            })?;
            Ok(times.unwrap_or(0))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r31_failures_in_a_row_end_at_the_latest_success_and_nothing_else_counts() {
        let call = |tool: &str, succeeded, failed| (tool.parse::<ToolName>().expect("a name"), succeeded, failed);
        // The latest come first.
        let latest = vec![
            call("a", false, true),
            call("b", true, false),
            call("a", false, false),
            call("a", false, true),
            call("b", false, true),
            call("a", true, false),
            call("a", false, true),
        ];
        assert_eq!(failing(latest), [("a".parse().expect("a name"), 2)]);
    }
}
