//! What operators ask when they look back: runs by agent and day, slow and denied tools, and who changed a file.
//!
//! Each answer comes from an index or from rows that were added up as they were written, so that it does not grow with
//! what was recorded. Answers are about the operator's tenant alone, bounded, and go on from a cursor.

use serde::Deserialize;
use serde_json::{Value, json};
use toolkeep_core::effect::Effect;
use toolkeep_core::id::{AgentName, WorkspaceName};
use toolkeep_core::path::WorkspacePath;
use toolkeep_core::price::Usd;
use toolkeep_core::refusal::{Code, Refusal};

use super::Host;
use crate::authenticate::Operator;
use crate::ledger::{
    After, ChangeLine, ChangesQuery, RunsQuery, STATS_PAGE_MAX, Scope, StatsBy, StatsFirst, StatsLine, StatsQuery,
};

/// Milliseconds of a day.
const DAY_MS: u64 = 24 * 3600 * 1000;
/// Most days of one question.
const DAYS_MAX: u64 = 36_500;

const fn a_week() -> u64 {
    7
}

const fn a_page() -> u32 {
    50
}

/// `stats.calls`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatsCalls {
    /// Added up by what.
    #[serde(default)]
    pub by: StatsBy,
    /// What comes first.
    #[serde(default)]
    pub first: StatsFirst,
    /// Today and the days before it, so many in all.
    #[serde(default = "a_week")]
    pub days: u64,
}

/// `stats.runs`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatsRuns {
    /// Of one agent only.
    #[serde(default)]
    pub agent: Option<AgentName>,
    /// Opened at this time or later, in milliseconds since the Unix epoch; at any time if absent.
    #[serde(default)]
    pub since_ms: u64,
    /// Opened before this time; until now if absent.
    #[serde(default)]
    pub until_ms: Option<u64>,
    /// The `next_cursor` of the page before.
    #[serde(default)]
    pub cursor: Option<String>,
    /// Runs of one page.
    #[serde(default = "a_page")]
    pub limit: u32,
}

/// `stats.file`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatsFile {
    /// The workspace.
    pub workspace: WorkspaceName,
    /// The path in it.
    pub path: WorkspacePath,
    /// The `next_cursor` of the page before.
    #[serde(default)]
    pub cursor: Option<u64>,
    /// Changes of one page.
    #[serde(default = "a_page")]
    pub limit: u32,
}

fn after_of(cursor: Option<&str>) -> Result<Option<After>, Refusal> {
    let Some(text) = cursor else { return Ok(None) };
    let parts = text.split_once('.').and_then(|(at, seq)| Some((at.parse().ok()?, seq.parse().ok()?)));
    match parts {
        Some((at_ms, seq)) => Ok(Some(After { at_ms, seq })),
        None => Err(Refusal::new(Code::InvalidInput, "the cursor is none").field(
            "/cursor",
            "was not given by this method",
            "a `next_cursor`, or nothing for the first page",
        )),
    }
}

fn line(line: &StatsLine, by: StatsBy) -> Value {
    let name = match by {
        StatsBy::Day => json!(line.name.parse::<u64>().unwrap_or(0).saturating_mul(DAY_MS)),
        StatsBy::Tool | StatsBy::Agent | StatsBy::Code => json!(line.name),
    };
    json!({"name": name, "calls": line.calls, "denied": line.denied, "failed": line.failed, "fuel": line.fuel,
        "cost_usd": Usd::of_micro(line.cost), "wall_ms_mean": line.wall_ms.checked_div(line.calls),
        "wall_ms_p95": line.wall_p95_ms(), "wall_ms_max": line.wall_max})
}

impl Host {
    /// Calls that ended, added up by tool, agent, day or code.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn stats_calls(&self, operator: &Operator, asked: StatsCalls) -> Result<Value, Refusal> {
        let today = self.ambient().now_ms() / DAY_MS;
        let since_day = (today + 1).saturating_sub(asked.days.clamp(1, DAYS_MAX));
        let query = StatsQuery {
            tenant: operator.tenant().clone(),
            by: asked.by,
            first: asked.first,
            since_day,
            until_day: today,
        };
        let lines = self.ledger().stats(query).await.map_err(|error| error.refusal())?;
        let lines: Vec<Value> = lines.iter().map(|found| line(found, asked.by)).collect();
        Ok(json!({"since_ms": since_day * DAY_MS, "lines": lines}))
    }

    /// Runs by agent and by the time at which they were opened, newest first.
    ///
    /// # Errors
    /// The ledger cannot be read, or the cursor is none.
    pub async fn stats_runs(&self, operator: &Operator, asked: StatsRuns) -> Result<Value, Refusal> {
        let query = RunsQuery {
            tenant: operator.tenant().clone(),
            agent: asked.agent,
            since_ms: asked.since_ms,
            until_ms: asked.until_ms.unwrap_or_else(|| self.ambient().now_ms().saturating_add(1)),
            after: after_of(asked.cursor.as_deref())?,
            limit: asked.limit.min(STATS_PAGE_MAX),
        };
        let (runs, next) = self.ledger().runs_between(query).await.map_err(|error| error.refusal())?;
        let runs: Vec<Value> = runs
            .iter()
            .map(|run| {
                json!({"run": run.run, "label": &*run.label, "user": run.principal.user, "agent": run.principal.agent,
                    "workflow": run.workflow, "opened_at_ms": run.opened_ms, "closed_at_ms": run.closed_ms,
                    "outcome": run.outcome.as_deref(), "held": run.held.as_ref().map(|held| held.code)})
            })
            .collect();
        Ok(json!({"runs": runs, "next_cursor": next.map(|after| format!("{}.{}", after.at_ms, after.seq))}))
    }

    /// What was committed to a file: by which call, plan and person, with whose consent, from which content to which.
    ///
    /// # Errors
    /// `not_found` for a workspace of another tenant, or one that does not exist.
    pub async fn stats_file(&self, operator: &Operator, asked: StatsFile) -> Result<Value, Refusal> {
        if self.workspaces().of(operator.tenant(), &asked.workspace).is_none() {
            return Err(Refusal::not_found("workspace"));
        }
        let query = ChangesQuery {
            tenant: operator.tenant().clone(),
            workspace: asked.workspace.clone(),
            path: asked.path.clone(),
            before_seq: asked.cursor,
            limit: asked.limit.min(STATS_PAGE_MAX),
        };
        let (changes, next) = self.ledger().changes_of(query).await.map_err(|error| error.refusal())?;
        let scope = Scope::Tenant(operator.tenant().clone());
        let mut shown = Vec::with_capacity(changes.len());
        for change in &changes {
            shown.push(self.change(&scope, change).await?);
        }
        Ok(json!({"workspace": asked.workspace, "path": asked.path, "changes": shown, "next_cursor": next}))
    }

    async fn change(&self, scope: &Scope, change: &ChangeLine) -> Result<Value, Refusal> {
        let stored = self.ledger().plan(scope, change.plan).await.map_err(|error| error.refusal())?;
        let at = usize::try_from(change.ordinal).unwrap_or(usize::MAX);
        let effect = stored.as_ref().and_then(|stored| stored.plan.body().effects.get(at));
        let (before, after) = effect.map(Effect::contents).unwrap_or_default();
        let votes: Vec<Value> = stored
            .as_ref()
            .and_then(|stored| stored.approval.as_ref())
            .map(|approval| {
                let vote = approval.votes.iter().filter(|vote| vote.approved);
                vote.map(|vote| json!({"approver": vote.approver, "reason": &*vote.reason, "at_ms": vote.at_ms, "via": vote.via}))
                    .collect()
            })
            .unwrap_or_default();
        let size = |state: Option<toolkeep_core::effect::BodyState>| {
            state.map(|state| json!({"sha256": state.sha256, "size": state.size}))
        };
        Ok(json!({"call_id": change.call, "plan": change.plan, "run": change.run, "tool": change.tool,
            "principal": stored.as_ref().map(|stored| stored.plan.body().principal.clone()),
            "kind": change.kind, "subject": effect.map(toolkeep_core::render::subject),
            "state": change.state.to_string(), "outcome": change.outcome, "undone_by": change.undone_by,
            "at_ms": change.at_ms, "before": size(before), "after": size(after), "approved_by": votes}))
    }
}
