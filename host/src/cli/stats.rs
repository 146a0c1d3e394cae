//! `toolkeep stats`: what agents did, added up; answered without reading the calls.

use serde_json::{Value, json};

use super::context::Context;
use super::exit::Exit;
use super::failure::Failure;
use super::ui::{Column, text_at, time_at};
use crate::daemon::method::AdminMethod;

/// Add up calls, and find runs
#[derive(Debug, clap::Subcommand)]
pub enum StatsCommand {
    /// Add up the calls that ended
    Calls {
        /// One line for each of these
        #[arg(long, value_enum, default_value_t = By::Tool)]
        by: By,
        /// What comes first
        #[arg(long, value_enum, default_value_t = First::Calls)]
        first: First,
        /// Today and the days before it, so many in all
        #[arg(long, value_name = "N", default_value_t = 7)]
        days: u64,
    },
    /// List runs by the time at which they were opened, newest first
    Runs {
        /// Only of this agent
        #[arg(long, value_name = "NAME")]
        agent: Option<String>,
        /// Only of the last days, so many in all; all of them if not given
        #[arg(long, value_name = "N")]
        days: Option<u64>,
        /// Continue after the page that told this cursor
        #[arg(long, value_name = "CURSOR")]
        cursor: Option<String>,
    },
}

/// What calls are added up by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum By {
    /// Tools
    Tool,
    /// Agents
    Agent,
    /// Days
    Day,
    /// Codes of refusal
    Code,
}

impl By {
    const fn word(self) -> &'static str {
        match self {
            Self::Tool => "tool",
            Self::Agent => "agent",
            Self::Day => "day",
            Self::Code => "code",
        }
    }
}

/// What comes first.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum First {
    /// Most calls
    Calls,
    /// Slowest on average
    Slow,
    /// Most denied
    Denied,
    /// Most failed
    Failed,
    /// Dearest
    Cost,
}

impl First {
    const fn word(self) -> &'static str {
        match self {
            Self::Calls => "calls",
            Self::Slow => "slow",
            Self::Denied => "denied",
            Self::Failed => "failed",
            Self::Cost => "cost",
        }
    }
}

macro_rules! calls_by {
    ($name:expr) => {
        [
            Column::new("NAME", $name),
            Column::new("CALLS", |e| text_at(e, "/calls")),
            Column::new("DENIED", |e| text_at(e, "/denied")),
            Column::new("FAILED", |e| text_at(e, "/failed")),
            Column::new("MS MEAN", |e| text_at(e, "/wall_ms_mean")),
            Column::new("MS P95", |e| text_at(e, "/wall_ms_p95")),
            Column::new("MS MAX", |e| text_at(e, "/wall_ms_max")),
            Column::new("USD", |e| text_at(e, "/cost_usd")),
        ]
    };
}

const CALLS: [Column; 8] = calls_by!(|e| text_at(e, "/name"));
const CALLS_BY_DAY: [Column; 8] = calls_by!(|e| time_at(e, "/name"));

const RUNS: [Column; 6] = [
    Column::new("RUN", |e| text_at(e, "/run")),
    Column::new("OPENED", |e| time_at(e, "/opened_at_ms")),
    Column::new("AGENT", |e| text_at(e, "/agent")),
    Column::new("USER", |e| text_at(e, "/user")),
    Column::new("WORKFLOW", |e| text_at(e, "/workflow")),
    Column::new("OUTCOME", |e| text_at(e, "/outcome")),
];

/// Milliseconds of a day.
const DAY_MS: u64 = 86_400_000;

impl StatsCommand {
    /// Do it.
    ///
    /// # Errors
    /// There is no daemon.
    pub fn run(self, context: &Context<'_>) -> Result<Exit, Failure> {
        let ui = &context.ui;
        let mut client = context.admin()?;
        match self {
            Self::Calls { by, first, days } => {
                let asked = json!({"by": by.word(), "first": first.word(), "days": days});
                let found = client.ask(ui, AdminMethod::StatsCalls, asked)?;
                let lines = found.get("lines").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
                let columns = if by == By::Day { &CALLS_BY_DAY } else { &CALLS };
                ui.list(&found, lines, columns)?;
            }
            Self::Runs { agent, days, cursor } => {
                let since = days.map(|days| context.ambient.now_ms().saturating_sub(days.saturating_mul(DAY_MS)));
                let asked = json!({"agent": agent, "since_ms": since.unwrap_or(0), "cursor": cursor});
                let found = client.ask(ui, AdminMethod::StatsRuns, asked)?;
                let runs = found.get("runs").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
                ui.list(&found, runs, &RUNS)?;
                if let Some(next) = found.get("next_cursor").and_then(Value::as_str) {
                    ui.note(&format!("there is more: repeat with `--cursor {next}`"));
                }
            }
        }
        Ok(Exit::Ok)
    }
}
