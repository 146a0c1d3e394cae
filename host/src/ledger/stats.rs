//! Statistics: calls that ended, added up by day, tool, agent and outcome as they are written, so that a question about a
//! million calls reads a few rows; and what operators ask of runs and files, each answered by an index.
//!
//! The writer adds up a batch in memory and writes one row for each line that it touches. A call counts when it is over,
//! on the day on which it began, and stays counted when its row goes before.

use std::borrow::Cow;
use std::collections::BTreeMap;

use rusqlite::types::Value as Sql;
use rusqlite::{Row, params};
use toolkeep_core::call::Outcome;
use toolkeep_core::id::{AgentName, CallId, PlanId, RunId, TenantName, ToolName, WorkspaceName};
use toolkeep_core::path::WorkspacePath;
use toolkeep_core::refusal::Code;

use super::Ledger;
use super::batch::Batch;
use super::column::{Reading, integer, status_word};
use super::failure::LedgerError;
use super::read::run_of;
use super::rows::{CallRow, PlanState, RunRow};
use super::sealing::DAY_MS;
use super::statement::{each, rows};

/// Most lines of one answer.
pub const STATS_MAX_LINES: u32 = 500;
/// Most rows of one page of runs or changes.
pub const STATS_PAGE_MAX: u32 = 500;
/// Upper ends of the classes of durations, in milliseconds; the last class has none.
pub const WALL_CLASSES_MS: [u64; 4] = [10, 100, 1_000, 10_000];
/// Classes of durations.
const CLASSES: usize = WALL_CLASSES_MS.len() + 1;

/// A call that a batch brought to its end.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ended<'c> {
    /// As it was recorded.
    Row(&'c CallRow),
    /// A row that was there before.
    Seq(i64),
}

/// What calls are added up by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Line<'c> {
    tenant: Cow<'c, str>,
    day: u64,
    tool: Cow<'c, str>,
    agent: Cow<'c, str>,
    status: &'static str,
    code: &'static str,
}

/// What they come to.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    calls: u64,
    fuel: u64,
    cost: u64,
    wall_ms: u64,
    wall_max: u64,
    classes: [u64; CLASSES],
}

/// The class of a duration.
fn class_of(wall_ms: u64) -> usize {
    WALL_CLASSES_MS.iter().position(|end| wall_ms <= *end).unwrap_or(WALL_CLASSES_MS.len())
}

impl Sum {
    fn add(&mut self, fuel: u64, cost: u64, wall_ms: u64) {
        self.calls += 1;
        self.fuel = self.fuel.saturating_add(fuel);
        self.cost = self.cost.saturating_add(cost);
        self.wall_ms = self.wall_ms.saturating_add(wall_ms);
        self.wall_max = self.wall_max.max(wall_ms);
        if let Some(class) = self.classes.get_mut(class_of(wall_ms)) {
            *class += 1;
        }
    }
}

const ADD: &str = "INSERT INTO stats (tenant, day, tool, agent, status, code, calls, fuel, cost, wall_ms, wall_max, in_10, \
                   in_100, in_1000, in_10000, in_longer) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, \
                   ?14, ?15, ?16) ON CONFLICT DO UPDATE SET calls = calls + excluded.calls, fuel = fuel + excluded.fuel, \
                   cost = cost + excluded.cost, wall_ms = wall_ms + excluded.wall_ms, \
                   wall_max = max(wall_max, excluded.wall_max), in_10 = in_10 + excluded.in_10, \
                   in_100 = in_100 + excluded.in_100, in_1000 = in_1000 + excluded.in_1000, \
                   in_10000 = in_10000 + excluded.in_10000, in_longer = in_longer + excluded.in_longer";
const OF_CALL: &str = "SELECT tenant, tool, agent, status, error_code, fuel, cost_micro_usd, wall_ms, started_ms FROM calls \
                       WHERE seq = ?1";

impl Batch<'_> {
    /// Add up what this batch brought to its end.
    pub(super) fn flush_stats(&mut self) -> Result<(), rusqlite::Error> {
        let finished = std::mem::take(&mut self.finished);
        let mut sums: BTreeMap<Line<'_>, Sum> = BTreeMap::new();
        for ended in &finished {
            match ended {
                Ended::Row(row) => {
                    let line = Line {
                        tenant: row.principal.tenant.as_str().into(),
                        day: row.started_ms / DAY_MS,
                        tool: row.tool.as_str().into(),
                        agent: row.principal.agent.as_str().into(),
                        status: status_word(row.status),
                        code: row.error_code.map_or("", Code::word),
                    };
                    let used = &row.usage;
                    sums.entry(line).or_default().add(used.fuel, used.cost_usd.micro(), used.wall_ms);
                }
                Ended::Seq(seq) => {
                    let found = self.row(OF_CALL, params![seq], of_call);
                    // A row that cannot be read is damage, and is found by whoever needs it.
                    if let Ok(Some((line, (fuel, cost, wall_ms)))) = found {
                        sums.entry(line).or_default().add(fuel, cost, wall_ms);
                    }
                }
            }
        }
        let sums: Vec<(Line<'_>, Sum)> = sums.into_iter().collect();
        each(self.conn, ADD, &sums, |statement, (line, sum)| {
            let [first, second, third, fourth, fifth] = sum.classes.map(integer);
            statement.execute(params![
                line.tenant,
                integer(line.day),
                line.tool,
                line.agent,
                line.status,
                line.code,
                integer(sum.calls),
                integer(sum.fuel),
                integer(sum.cost),
                integer(sum.wall_ms),
                integer(sum.wall_max),
                first,
                second,
                third,
                fourth,
                fifth
            ])
        })
    }
}

type Counted = (Line<'static>, (u64, u64, u64));

fn of_call(row: &Row<'_>) -> Result<Counted, LedgerError> {
    let reading = Reading::new(row, "calls");
    let code = reading.text_or_null("error_code")?.and_then(super::column::code_of);
    let line = Line {
        tenant: reading.text("tenant")?.to_owned().into(),
        day: reading.number("started_ms")? / DAY_MS,
        tool: reading.text("tool")?.to_owned().into(),
        agent: reading.text("agent")?.to_owned().into(),
        status: status_word(reading.word("status", super::column::worded)?),
        code: code.map_or("", Code::word),
    };
    Ok((line, (reading.number("fuel")?, reading.number("cost_micro_usd")?, reading.number("wall_ms")?)))
}

/// What calls are added up by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StatsBy {
    /// One line for each tool.
    #[default]
    Tool,
    /// For each agent.
    Agent,
    /// For each day.
    Day,
    /// For each code of refusal.
    Code,
}

/// What comes first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StatsFirst {
    /// Most calls.
    #[default]
    Calls,
    /// Slowest on average.
    Slow,
    /// Most denied.
    Denied,
    /// Most failed.
    Failed,
    /// Dearest by the prices of manifests.
    Cost,
}

/// Which statistics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatsQuery {
    /// Whose.
    pub tenant: TenantName,
    /// Added up by what.
    pub by: StatsBy,
    /// What comes first.
    pub first: StatsFirst,
    /// From this day on, in days since the Unix epoch.
    pub since_day: u64,
    /// Up to and including this day.
    pub until_day: u64,
}

/// One line of the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatsLine {
    /// The tool, agent, day (in days since the Unix epoch) or code; empty for calls that ended without one.
    pub name: String,
    /// Calls that ended.
    pub calls: u64,
    /// Of them, denied.
    pub denied: u64,
    /// Of them, failed.
    pub failed: u64,
    /// Fuel of all.
    pub fuel: u64,
    /// Their cost, in millionths of a dollar.
    pub cost: u64,
    /// Their wall time together, in milliseconds.
    pub wall_ms: u64,
    /// The slowest, in milliseconds.
    pub wall_max: u64,
    /// How many took as long as each of the classes of durations.
    pub classes: [u64; CLASSES],
}

impl StatsLine {
    /// The time within which 95 of 100 calls ended, in milliseconds: the end of their class, or the slowest call.
    #[must_use]
    pub fn wall_p95_ms(&self) -> u64 {
        let wanted = self.calls.saturating_mul(95).div_ceil(100);
        let mut seen = 0;
        for (count, end) in self.classes.iter().zip(WALL_CLASSES_MS) {
            seen += count;
            if seen >= wanted {
                return end.min(self.wall_max);
            }
        }
        self.wall_max
    }
}

impl StatsQuery {
    /// The statement that answers it: a range of the primary key, and no table of calls.
    fn sql(&self) -> String {
        let name = match self.by {
            StatsBy::Tool => "tool",
            StatsBy::Agent => "agent",
            StatsBy::Day => "CAST(day AS TEXT)",
            StatsBy::Code => "code",
        };
        let first = match self.first {
            StatsFirst::Calls => "calls",
            StatsFirst::Slow => "CAST(wall_ms AS REAL) / calls",
            StatsFirst::Denied => "denied",
            StatsFirst::Failed => "failed",
            StatsFirst::Cost => "cost",
        };
        format!(
            "SELECT * FROM (SELECT {name} AS name, sum(calls) AS calls, \
             sum(CASE status WHEN 'denied' THEN calls ELSE 0 END) AS denied, \
             sum(CASE status WHEN 'failed' THEN calls ELSE 0 END) AS failed, sum(fuel) AS fuel, sum(cost) AS cost, \
             sum(wall_ms) AS wall_ms, max(wall_max) AS wall_max, sum(in_10) AS in_10, sum(in_100) AS in_100, \
             sum(in_1000) AS in_1000, sum(in_10000) AS in_10000, sum(in_longer) AS in_longer FROM stats \
             WHERE tenant = ?1 AND day BETWEEN ?2 AND ?3 GROUP BY 1) ORDER BY {first} DESC, name LIMIT ?4"
        )
    }
}

fn line_of(row: &Row<'_>) -> Result<StatsLine, LedgerError> {
    let reading = Reading::new(row, "stats");
    let number = |column| reading.number(column);
    Ok(StatsLine {
        name: reading.text("name")?.to_owned(),
        calls: number("calls")?,
        denied: number("denied")?,
        failed: number("failed")?,
        fuel: number("fuel")?,
        cost: number("cost")?,
        wall_ms: number("wall_ms")?,
        wall_max: number("wall_max")?,
        classes: [number("in_10")?, number("in_100")?, number("in_1000")?, number("in_10000")?, number("in_longer")?],
    })
}

/// Where a page of something that is ordered by time goes on: after this moment, and this place within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct After {
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The place.
    pub seq: u64,
}

/// Which runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunsQuery {
    /// Whose.
    pub tenant: TenantName,
    /// Of one agent only.
    pub agent: Option<AgentName>,
    /// Opened at this time or later.
    pub since_ms: u64,
    /// Opened before this time.
    pub until_ms: u64,
    /// Where the page before ended.
    pub after: Option<After>,
    /// At most so many, itself at most [`STATS_PAGE_MAX`].
    pub limit: u32,
}

const RUNS: &str = "SELECT * FROM runs WHERE tenant = ?1 AND opened_ms >= ?2 AND (opened_ms, seq) < (?3, ?4) \
                    ORDER BY opened_ms DESC, seq DESC LIMIT ?5";
const RUNS_OF_AGENT: &str = "SELECT * FROM runs INDEXED BY runs_by_agent WHERE tenant = ?1 AND agent = ?6 AND opened_ms >= ?2 \
                             AND (opened_ms, seq) < (?3, ?4) ORDER BY opened_ms DESC, seq DESC LIMIT ?5";

/// One change of a file, as it was committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeLine {
    /// The plan.
    pub plan: PlanId,
    /// Which effect of it.
    pub ordinal: u64,
    /// The call.
    pub call: CallId,
    /// Its run.
    pub run: Option<RunId>,
    /// Its tool.
    pub tool: ToolName,
    /// Whether it was committed, is being committed, was taken back or stands halted.
    pub state: PlanState,
    /// The call that reversed it.
    pub undone_by: Option<CallId>,
    /// What became of the call.
    pub outcome: Outcome,
    /// What was done: the kind of the effect.
    pub kind: String,
    /// When the intent was made.
    pub at_ms: u64,
    /// The place of the plan.
    pub seq: u64,
}

/// Which changes of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangesQuery {
    /// Whose.
    pub tenant: TenantName,
    /// Where.
    pub workspace: WorkspaceName,
    /// The path, as plans name it.
    pub path: WorkspacePath,
    /// Only plans before this place.
    pub before_seq: Option<u64>,
    /// At most so many, itself at most [`STATS_PAGE_MAX`].
    pub limit: u32,
}

/// Both halves are a range of an index, newest first; together they are a page and one row.
const CHANGES: &str = "SELECT e.ordinal, e.kind, p.seq, p.id, p.call, p.run, p.tool, p.state, p.undone_by, \
                       coalesce(p.intent_ms, p.made_ms) AS at_ms, c.outcome FROM (\
                       SELECT * FROM (SELECT plan_seq, ordinal, kind FROM effects INDEXED BY effects_of_path \
                       WHERE workspace = ?1 AND path = ?2 AND plan_seq < ?3 ORDER BY plan_seq DESC LIMIT ?4) UNION \
                       SELECT * FROM (SELECT plan_seq, ordinal, kind FROM effects INDEXED BY effects_moved_to \
                       WHERE workspace = ?1 AND path_to = ?2 AND plan_seq < ?3 ORDER BY plan_seq DESC LIMIT ?4)) e \
                       JOIN plans p ON p.seq = e.plan_seq JOIN calls c ON c.seq = e.plan_seq WHERE p.tenant = ?5 \
                       ORDER BY e.plan_seq DESC, e.ordinal LIMIT ?4";

fn change_of(row: &Row<'_>) -> Result<ChangeLine, LedgerError> {
    let reading = Reading::new(row, "effects");
    Ok(ChangeLine {
        plan: PlanId::new(reading.uuid("id")?),
        ordinal: reading.number("ordinal")?,
        call: CallId::new(reading.uuid("call")?),
        run: reading.uuid_or_null("run")?.map(RunId::new),
        tool: reading.name("tool")?,
        state: reading.word("state", PlanState::from_word)?,
        undone_by: reading.uuid_or_null("undone_by")?.map(CallId::new),
        outcome: reading.word("outcome", super::column::worded)?,
        kind: reading.text("kind")?.to_owned(),
        at_ms: reading.number("at_ms")?,
        seq: reading.number("seq")?,
    })
}

fn run_line(row: &Row<'_>) -> Result<(RunRow, After), LedgerError> {
    let run = run_of(row)?;
    let after = After { at_ms: run.opened_ms, seq: Reading::new(row, "runs").number("seq")? };
    Ok((run, after))
}

impl Ledger {
    /// Calls that ended, added up.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn stats(&self, query: StatsQuery) -> Result<Vec<StatsLine>, LedgerError> {
        self.caught_up().await?;
        self.read(move |conn| {
            let (since, until) = (integer(query.since_day), integer(query.until_day));
            rows(conn, &query.sql(), params![query.tenant.as_str(), since, until, STATS_MAX_LINES], line_of)
        })
        .await
    }

    /// Runs of a tenant by the time at which they were opened, newest first, and where the next page goes on.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn runs_between(&self, query: RunsQuery) -> Result<(Vec<RunRow>, Option<After>), LedgerError> {
        self.caught_up().await?;
        let limit = query.limit.clamp(1, STATS_PAGE_MAX) as usize;
        let after = query.after.unwrap_or(After { at_ms: query.until_ms, seq: 0 });
        let mut found = self
            .read(move |conn| {
                let mut values: Vec<Sql> = vec![
                    query.tenant.as_str().to_owned().into(),
                    integer(query.since_ms).into(),
                    integer(after.at_ms).into(),
                    integer(after.seq).into(),
                    (i64::from(query.limit.clamp(1, STATS_PAGE_MAX)) + 1).into(),
                ];
                let sql = match &query.agent {
                    Some(agent) => {
                        values.push(agent.as_str().to_owned().into());
                        RUNS_OF_AGENT
                    }
                    None => RUNS,
                };
                let values: Vec<&dyn rusqlite::ToSql> = values.iter().map(|v| v as &dyn rusqlite::ToSql).collect();
                rows(conn, sql, &values, run_line)
            })
            .await?;
        let more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_| more).map(|(_, after)| *after);
        Ok((found.into_iter().map(|(run, _)| run).collect(), next))
    }

    /// What was committed to a file, newest first, and the place before which the next page goes on. The changes of one plan
    /// stand on one page.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn changes_of(&self, query: ChangesQuery) -> Result<(Vec<ChangeLine>, Option<u64>), LedgerError> {
        self.caught_up().await?;
        let limit = query.limit.clamp(1, STATS_PAGE_MAX);
        let mut found = self
            .read(move |conn| {
                let before = query.before_seq.map_or(i64::MAX, integer);
                let (workspace, path) = (query.workspace.as_str(), query.path.as_str());
                let values = params![workspace, path, before, i64::from(limit) + 1, query.tenant.as_str()];
                rows(conn, CHANGES, values, change_of)
            })
            .await?;
        if found.len() <= limit as usize {
            return Ok((found, None));
        }
        // The last plan may have more effects on this path than fit: it opens the next page, unless it is all of this one.
        let last = found.last().map_or(0, |line| line.seq);
        if found.iter().any(|line| line.seq != last) {
            found.retain(|line| line.seq != last);
        }
        let next = found.last().map(|line| line.seq);
        Ok((found, next))
    }
}

#[cfg(test)]
mod tests;
