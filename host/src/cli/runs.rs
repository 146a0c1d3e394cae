//! `toolkeep runs`: agent tasks of many calls.

use serde_json::{Value, json};
use toolkeep_core::budget::{Limits, Meter};

use super::context::Context;
use super::exit::Exit;
use super::failure::Failure;
use super::plans::{principal, show_page};
use super::ui::{Column, text_at, time_at};
use crate::daemon::method::{AdminMethod, AgentMethod};

/// Look at runs, open, close and release them
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
        /// The contract that binds it
        #[arg(long, value_name = "NAME")]
        contract: Option<String>,
        /// What its spending is added up under, without a contract
        #[arg(long, value_name = "NAME")]
        workflow: Option<String>,
        /// At most so much: steps, calls, wall_ms, fuel, cost_usd, tokens, bytes_written, requests, approvals
        #[arg(long, value_name = "METER=N")]
        budget: Vec<String>,
        /// How often one tool may be called with one input
        #[arg(long, value_name = "N")]
        same_call: Option<u32>,
        /// How often one tool may fail in a row
        #[arg(long, value_name = "N")]
        failures: Option<u32>,
    },
    /// Say as an agent what its model used
    Report {
        /// The run's id
        run: String,
        /// Tokens that the model read
        #[arg(long, value_name = "N", default_value_t = 0)]
        tokens_in: u64,
        /// Tokens that the model wrote
        #[arg(long, value_name = "N", default_value_t = 0)]
        tokens_out: u64,
        /// What it cost, in dollars
        #[arg(long, value_name = "USD", default_value = "0")]
        cost_usd: String,
    },
    /// Close a run as an agent
    Close {
        /// The run's id
        run: String,
        /// What it came to
        #[arg(long, value_name = "TEXT")]
        outcome: Option<String>,
        /// Give it up, whatever its contract still wants
        #[arg(long)]
        abandon: bool,
    },
    /// Let a held run go on, with a larger budget if you say so
    Release {
        /// The run's id
        run: String,
        /// So much more
        #[arg(long, value_name = "METER=N")]
        more: Vec<String>,
    },
}

/// Amounts as they are written on the command line: `calls=5`, `cost_usd=0.25`.
fn limits(written: &[String]) -> Result<Value, Failure> {
    let wrong = |text: &str| {
        let meters: Vec<&str> = Meter::ALL.into_iter().map(Meter::word).collect();
        Failure::usage(format!("`{text}` is not an amount"), format!("write METER=N with one of {}", meters.join(", ")))
    };
    let mut limits = serde_json::Map::new();
    for text in written {
        let (meter, amount) = text.split_once('=').ok_or_else(|| wrong(text))?;
        let value = if meter == Meter::Cost.word() {
            Value::from(amount)
        } else {
            Value::from(amount.parse::<u64>().map_err(|_| wrong(text))?)
        };
        limits.insert(meter.to_owned(), value);
    }
    let limits = Value::Object(limits);
    match serde_json::from_value::<Limits>(limits.clone()) {
        Ok(_) => Ok(limits),
        Err(error) => Err(wrong(&format!("{}: {error}", written.join(" ")))),
    }
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
                        ("workflow", text_at(&page, "/workflow")),
                        ("contract", text_at(&page, "/terms/contract")),
                        ("outcome", text_at(&page, "/outcome")),
                        ("held", text_at(&page, "/held/reason")),
                        ("cost", text_at(&page, "/budget/used/cost_usd")),
                        ("left", page.pointer("/budget/left").map(Value::to_string).unwrap_or_default()),
                    ];
                    let head: String = head.iter().map(|(name, value)| format!("{name:<8} {value}\n")).collect();
                    format!("{head}\n{}", ui.table(calls, &CALLS))
                })?;
                if let Some(next) = page.get("next_cursor").and_then(Value::as_u64) {
                    ui.note(&format!("there is more: repeat with `--cursor {next}`"));
                }
            }
            Self::Open { label, contract, workflow, budget, same_call, failures } => {
                let loops = json!({"same_call": same_call, "failures": failures});
                let asked = json!({"label": label, "contract": contract, "workflow": workflow,
                    "budget": limits(&budget)?, "loops": loops});
                let opened = context.agent()?.ask(ui, AgentMethod::RunsOpen, asked)?;
                ui.value(&opened, || text_at(&opened, "/run"))?;
            }
            Self::Report { run, tokens_in, tokens_out, cost_usd } => {
                let usage = json!({"tokens_in": tokens_in, "tokens_out": tokens_out, "cost_usd": cost_usd});
                let told = context.agent()?.ask(ui, AgentMethod::RunsReport, json!({"run": run, "usage": usage}))?;
                ui.value(&told, || told.pointer("/budget/left").map(Value::to_string).unwrap_or_default())?;
            }
            Self::Close { run, outcome, abandon } => {
                let asked = json!({"run": run, "outcome": outcome, "abandon": abandon});
                let closed = context.agent()?.ask(ui, AgentMethod::RunsClose, asked)?;
                ui.value(&closed, || format!("{} closed", text_at(&closed, "/run")))?;
            }
            Self::Release { run, more } => {
                let asked = json!({"run": run, "more": limits(&more)?});
                let released = context.admin()?.ask(ui, AdminMethod::RunsRelease, asked)?;
                ui.value(&released, || format!("{} goes on", text_at(&released, "/run")))?;
            }
        }
        Ok(Exit::Ok)
    }
}
