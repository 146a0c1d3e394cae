//! `toolkeep runs`: agent tasks of many calls.

use serde_json::{Value, json};

use super::context::Context;
use super::exit::Exit;
use super::failure::Failure;
use super::plans::{principal, show_page};
use super::ui::{Column, text_at, time_at};
use crate::daemon::method::{AdminMethod, AgentMethod};

/// Look at runs, open and close them
#[derive(Debug, clap::Subcommand)]
pub enum RunsCommand {
    /// List runs, newest first
    List {
        /// Continue after the page that told this cursor
        #[arg(long, value_name = "N")]
        cursor: Option<u64>,
    },
    /// Show one run and its calls
    Show {
        /// The run's id
        run: String,
        /// Continue after the page that told this cursor
        #[arg(long, value_name = "N")]
        cursor: Option<u64>,
    },
    /// Open a run as an agent, and print its id
    Open {
        /// What it is for
        #[arg(long, value_name = "TEXT", default_value = "")]
        label: String,
    },
    /// Close a run as an agent
    Close {
        /// The run's id
        run: String,
    },
}

const RUNS: [Column; 5] = [
    Column::new("RUN", |e| text_at(e, "/run")),
    Column::new("LABEL", |e| text_at(e, "/label")),
    Column::new("BY", |e| principal(e, "/principal")),
    Column::new("OPENED", |e| time_at(e, "/opened_at_ms")),
    Column::new("CLOSED", |e| time_at(e, "/closed_at_ms")),
];

const CALLS: [Column; 7] = [
    Column::new("CALL", |e| text_at(e, "/call_id")),
    Column::new("TOOL", |e| text_at(e, "/tool")),
    Column::new("STEP", |e| text_at(e, "/step")),
    Column::new("STATUS", |e| text_at(e, "/status")),
    Column::new("OUTCOME", |e| text_at(e, "/outcome")),
    Column::new("ERROR", |e| text_at(e, "/error")),
    Column::new("STARTED", |e| time_at(e, "/started_at_ms")),
];

impl RunsCommand {
    /// Do it.
    ///
    /// # Errors
    /// There is no such run, or no daemon.
    pub fn run(self, context: &Context<'_>) -> Result<Exit, Failure> {
        let ui = &context.ui;
        match self {
            Self::List { cursor } => {
                let page = context.admin()?.ask(ui, AdminMethod::RunsList, json!({"cursor": cursor}))?;
                show_page(ui, &page, "runs", &RUNS)?;
            }
            Self::Show { run, cursor } => {
                let page = context.admin()?.ask(ui, AdminMethod::RunsShow, json!({"run": run, "cursor": cursor}))?;
                let calls = page.get("calls").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
                ui.value(&page, || {
                    let head = [
                        ("run", text_at(&page, "/run")),
                        ("label", text_at(&page, "/label")),
                        ("by", principal(&page, "/principal")),
                        ("opened", time_at(&page, "/opened_at_ms")),
                        ("closed", time_at(&page, "/closed_at_ms")),
                        ("calls", text_at(&page, "/totals/calls")),
                        ("fuel", text_at(&page, "/totals/fuel")),
                        ("wall ms", text_at(&page, "/totals/wall_ms")),
                    ];
                    let head: String = head.iter().map(|(name, value)| format!("{name:<8} {value}\n")).collect();
                    format!("{head}\n{}", ui.table(calls, &CALLS))
                })?;
                if let Some(next) = page.get("next_cursor").and_then(Value::as_u64) {
                    ui.note(&format!("there is more: repeat with `--cursor {next}`"));
                }
            }
            Self::Open { label } => {
                let opened = context.agent()?.ask(ui, AgentMethod::RunsOpen, json!({"label": label}))?;
                ui.value(&opened, || text_at(&opened, "/run"))?;
            }
            Self::Close { run } => {
                let closed = context.agent()?.ask(ui, AgentMethod::RunsClose, json!({"run": run}))?;
                ui.value(&closed, || format!("{} closed", text_at(&closed, "/run")))?;
            }
        }
        Ok(Exit::Ok)
    }
}
