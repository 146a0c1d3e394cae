//! `toolkeep budgets`: what may be spent, what was, and what waits for somebody to look.

use serde_json::{Value, json};

use super::context::Context;
use super::exit::Exit;
use super::failure::Failure;
use super::ui::{Column, text_at, time_at};
use crate::daemon::method::AdminMethod;

/// See contracts, ceilings and spending, and resume what is paused
#[derive(Debug, clap::Subcommand)]
pub enum BudgetsCommand {
    /// Show contracts, ceilings with what is used today, and what is paused
    Show,
    /// Add up what was spent
    Spend {
        /// One line for each of these
        #[arg(long, value_enum, default_value_t = By::Workflow)]
        by: By,
        /// Today and the days before it, so many in all
        #[arg(long, value_name = "N", default_value_t = 7)]
        days: u64,
    },
    /// Resume paused spending, or let a ceiling allow itself once more today
    Resume {
        /// The workflow that is paused; without it, what has none
        #[arg(long, value_name = "NAME")]
        workflow: Option<String>,
        /// A ceiling that is used up
        #[arg(long, value_name = "NAME")]
        ceiling: Option<String>,
        /// Whose, where the ceiling is one for each person
        #[arg(long, value_name = "NAME", requires = "ceiling")]
        user: Option<String>,
    },
}

/// What spending is added up by.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum By {
    /// Runs
    Run,
    /// Workflows
    Workflow,
    /// People
    User,
    /// Tools
    Tool,
    /// Outcomes that runs were closed with
    Outcome,
    /// Days
    Day,
}

impl By {
    const fn word(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Workflow => "workflow",
            Self::User => "user",
            Self::Tool => "tool",
            Self::Outcome => "outcome",
            Self::Day => "day",
        }
    }
}

const SPEND: [Column; 8] = [
    Column::new("NAME", |e| text_at(e, "/name")),
    Column::new("RUNS", |e| text_at(e, "/runs")),
    Column::new("CALLS", |e| text_at(e, "/calls")),
    Column::new("FUEL", |e| text_at(e, "/fuel")),
    Column::new("USD", |e| text_at(e, "/cost_usd")),
    Column::new("REPORTED USD", |e| text_at(e, "/reported/cost_usd")),
    Column::new("TOKENS", |e| text_at(e, "/reported/tokens")),
    Column::new("USD PER RUN", |e| text_at(e, "/cost_usd_per_run")),
];

const SPEND_BY_DAY: [Column; 6] = [
    Column::new("DAY", |e| time_at(e, "/name")),
    Column::new("RUNS", |e| text_at(e, "/runs")),
    Column::new("CALLS", |e| text_at(e, "/calls")),
    Column::new("USD", |e| text_at(e, "/cost_usd")),
    Column::new("REPORTED USD", |e| text_at(e, "/reported/cost_usd")),
    Column::new("TOKENS", |e| text_at(e, "/reported/tokens")),
];

const CONTRACTS: [Column; 3] = [
    Column::new("CONTRACT", |e| text_at(e, "/name")),
    Column::new("WORKFLOW", |e| text_at(e, "/workflow")),
    Column::new("BUDGET", |e| member(e, "/terms/budget")),
];

const TODAY: [Column; 3] = [
    Column::new("CEILING", |e| text_at(e, "/ceiling")),
    Column::new("OF", |e| text_at(e, "/subject")),
    Column::new("LEFT TODAY", |e| member(e, "/left")),
];

const PAUSED: [Column; 3] = [
    Column::new("PAUSED WORKFLOW", |e| text_at(e, "/workflow")),
    Column::new("SINCE", |e| time_at(e, "/since_ms")),
    Column::new("REASON", |e| text_at(e, "/reason")),
];

fn member(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).filter(|value| !value.is_null()).map(Value::to_string).unwrap_or_default()
}

fn list<'v>(value: &'v Value, name: &str) -> &'v [Value] {
    value.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

impl BudgetsCommand {
    /// Do it.
    ///
    /// # Errors
    /// There is no such ceiling or pause, or no daemon.
    pub fn run(self, context: &Context<'_>) -> Result<Exit, Failure> {
        let ui = &context.ui;
        let mut client = context.admin()?;
        match self {
            Self::Show => {
                let shown = client.ask(ui, AdminMethod::BudgetsShow, json!({}))?;
                ui.value(&shown, || {
                    let tables = [("contracts", &CONTRACTS), ("today", &TODAY), ("paused", &PAUSED)];
                    let tables = tables.map(|(name, columns)| ui.table(list(&shown, name), columns));
                    tables.join("\n")
                })?;
                for problem in list(&shown, "problems") {
                    ui.note(&format!("{}: {}", text_at(problem, "/file"), text_at(problem, "/problem")));
                }
            }
            Self::Spend { by, days } => {
                let asked = json!({"by": by.word(), "days": days});
                let spent = client.ask(ui, AdminMethod::BudgetsSpend, asked)?;
                ui.value(&spent, || match by {
                    By::Day => ui.table(list(&spent, "lines"), &SPEND_BY_DAY),
                    _ => ui.table(list(&spent, "lines"), &SPEND),
                })?;
            }
            Self::Resume { workflow, ceiling, user } => {
                let asked = json!({"workflow": workflow, "ceiling": ceiling, "user": user});
                let resumed = client.ask(ui, AdminMethod::BudgetsResume, asked)?;
                ui.value(&resumed, || "resumed".to_owned())?;
            }
        }
        Ok(Exit::Ok)
    }
}
