//! What was spent, by whom, on what: charges added up for people and for the detector of spikes.
//!
//! Calls that still run are not in it: what they reserved is no spending yet.

use rusqlite::{Row, params};
use toolkeep_core::budget::Amounts;
use toolkeep_core::id::{RunId, TenantName, WorkflowName};
use toolkeep_core::spike::Spent;
use uuid::Uuid;

use super::Ledger;
use super::charges::{SUMS, sums_of};
use super::column::{Reading, integer};
use super::failure::LedgerError;
use super::statement::rows;

/// Most lines of one answer.
pub const SPEND_MAX_LINES: u32 = 1_000;
/// Milliseconds of a day.
const DAY_MS: u64 = 86_400_000;

/// What spending is added up by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SpendBy {
    /// One line for each run.
    Run,
    /// For each workflow.
    Workflow,
    /// For each person.
    User,
    /// For each tool.
    Tool,
    /// For each outcome that runs were closed with.
    Outcome,
    /// For each day.
    Day,
}

impl SpendBy {
    const fn key(self) -> &'static str {
        match self {
            Self::Run => "coalesce(hex(c.run), '')",
            Self::Workflow => "c.workflow",
            Self::User => "c.user",
            Self::Tool => "c.tool",
            Self::Outcome => "coalesce(r.outcome, CASE WHEN r.closed_ms IS NULL THEN '' ELSE 'closed' END)",
            Self::Day => "CAST(c.day AS TEXT)",
        }
    }
}

/// Which spending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpendQuery {
    /// Whose.
    pub tenant: TenantName,
    /// Added up by what.
    pub by: SpendBy,
    /// From this day on, in days since the Unix epoch.
    pub since_day: u64,
    /// Up to and including this day.
    pub until_day: u64,
}

/// One line of the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpendLine {
    /// The run, workflow, person, tool, outcome or day (in days since the Unix epoch); empty for what has none.
    pub name: String,
    /// How many runs spent it.
    pub runs: u64,
    /// How much.
    pub amounts: Amounts,
}

fn line_of(row: &Row<'_>, by: SpendBy) -> Result<SpendLine, LedgerError> {
    let reading = Reading::new(row, "charges");
    let name = reading.text("name")?;
    let run = Uuid::try_parse(name).ok().filter(|_| by == SpendBy::Run).map(|id| RunId::new(id).to_string());
    Ok(SpendLine {
        name: run.unwrap_or_else(|| name.to_owned()),
        runs: reading.number("runs")?,
        amounts: sums_of(row)?,
    })
}

fn spent_of(row: &Row<'_>) -> Result<(TenantName, Option<WorkflowName>, Spent), LedgerError> {
    let (reading, amounts) = (Reading::new(row, "charges"), sums_of(row)?);
    let workflow = reading.text("workflow")?;
    let workflow = if workflow.is_empty() { None } else { Some(reading.name("workflow")?) };
    let cost = amounts.cost.saturating_add(amounts.reported_cost);
    Ok((reading.name("tenant")?, workflow, Spent { calls: amounts.calls, cost }))
}

impl Ledger {
    /// What a tenant spent, dearest first.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn spending(&self, query: SpendQuery) -> Result<Vec<SpendLine>, LedgerError> {
        self.caught_up().await?;
        let sql = format!(
            "SELECT {} AS name, count(DISTINCT c.run) AS runs, {SUMS} FROM charges c LEFT JOIN runs r ON r.id = c.run \
             WHERE c.tenant = ?1 AND c.day BETWEEN ?2 AND ?3 AND c.state <> 'reserved' GROUP BY name \
             ORDER BY TOTAL(cost) + TOTAL(plan_cost) + TOTAL(reported_cost) DESC, TOTAL(calls) DESC, name LIMIT ?4",
            query.by.key()
        );
        self.read(move |conn| {
            let (since, until) = (integer(query.since_day), integer(query.until_day));
            let values = params![query.tenant.as_str(), since, until, SPEND_MAX_LINES];
            rows(conn, &sql, values, |row| line_of(row, query.by))
        })
        .await
    }

    /// What was spent by calls that were admitted from `from_ms` on and before `to_ms`, by tenant and workflow.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn spent_between(
        &self,
        from_ms: u64,
        to_ms: u64,
    ) -> Result<Vec<(TenantName, Option<WorkflowName>, Spent)>, LedgerError> {
        self.caught_up().await?;
        let sql = format!(
            "SELECT tenant, workflow, {SUMS} FROM charges WHERE day BETWEEN ?1 AND ?2 AND at_ms >= ?3 AND at_ms < ?4 \
             AND state <> 'reserved' GROUP BY tenant, workflow"
        );
        self.read(move |conn| {
            let (first, last) = (integer(from_ms / DAY_MS), integer(to_ms / DAY_MS));
            rows(conn, &sql, params![first, last, integer(from_ms), integer(to_ms)], spent_of)
        })
        .await
    }
}
