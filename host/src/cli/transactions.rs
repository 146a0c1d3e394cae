//! `toolkeep transactions`: several calls that are committed or rolled back as one.

use serde_json::{Value, json};
use toolkeep_core::display::visible;

use super::context::Context;
use super::exit::Exit;
use super::failure::Failure;
use super::plan_page;
use super::plans::show_page;
use super::reply;
use super::ui::{Column, text_at, time_at};
use crate::daemon::method::{AdminMethod, AgentMethod};

/// Stage several calls and commit them as one
///
/// Calls are made with `toolkeep call --transaction ID`. Later ones see what earlier ones staged; nothing is changed before
/// the commit.
#[derive(Debug, clap::Subcommand)]
pub enum TransactionsCommand {
    /// Begin one, and print its id
    Begin {
        /// The run that its commit belongs to
        #[arg(long, value_name = "RUN")]
        run: Option<String>,
        /// How long it stays open, in milliseconds; 15 minutes if not given, a day at most
        #[arg(long, value_name = "MS")]
        ttl_ms: Option<u64>,
        /// The only tools that it may call; may be repeated
        #[arg(long = "tool", value_name = "TOOL")]
        tools: Vec<String>,
    },
    /// List transactions, newest first
    List {
        /// Those of the whole tenant, as an operator
        #[arg(long)]
        all: bool,
        /// Continue after the page that told this cursor
        #[arg(long, value_name = "N")]
        cursor: Option<u64>,
    },
    /// Show one: its calls and what they would change
    Show {
        /// The transaction's id
        transaction: String,
    },
    /// Show what a commit would change, and the digest of that plan
    Preview {
        /// The transaction's id
        transaction: String,
    },
    /// Commit everything that its calls staged, or nothing
    Commit {
        /// The transaction's id
        transaction: String,
        /// Only if the plan has exactly this digest
        #[arg(long, value_name = "DIGEST")]
        expect_plan: Option<String>,
        /// Idempotency key
        #[arg(long, value_name = "KEY")]
        key: Option<String>,
        /// If the plan is held, wait until people decided
        #[arg(long)]
        wait: bool,
    },
    /// Drop everything that its calls staged
    Rollback {
        /// The transaction's id
        transaction: String,
    },
}

const COLUMNS: [Column; 6] = [
    Column::new("TRANSACTION", |e| text_at(e, "/transaction")),
    Column::new("STATE", |e| text_at(e, "/state")),
    Column::new("CALLS", |e| text_at(e, "/calls")),
    Column::new("BYTES", |e| text_at(e, "/bytes")),
    Column::new("OPENED", |e| time_at(e, "/opened_at_ms")),
    Column::new("EXPIRES", |e| time_at(e, "/expires_at_ms")),
];

const STEPS: [Column; 3] = [
    Column::new("TOOL", |e| text_at(e, "/tool")),
    Column::new("COMPONENT", |e| text_at(e, "/component")),
    Column::new("INPUT", |e| text_at(e, "/input")),
];

impl TransactionsCommand {
    /// Do it.
    ///
    /// # Errors
    /// There is no such transaction, it does not take this, or there is no daemon.
    pub fn run(self, context: &Context<'_>) -> Result<Exit, Failure> {
        let ui = &context.ui;
        match self {
            Self::Begin { run, ttl_ms, tools } => {
                let tools = (!tools.is_empty()).then_some(tools);
                let params = json!({"run": run, "ttl_ms": ttl_ms, "tools": tools});
                let begun = context.agent()?.ask(ui, AgentMethod::TransactionsBegin, params)?;
                ui.value(&begun, || text_at(&begun, "/transaction"))?;
            }
            Self::List { all, cursor } => {
                let params = json!({"cursor": cursor});
                let page = if all {
                    context.admin()?.ask(ui, AdminMethod::TransactionsList, params)?
                } else {
                    context.agent()?.ask(ui, AgentMethod::TransactionsList, params)?
                };
                show_page(ui, &page, "transactions", &COLUMNS)?;
            }
            Self::Show { transaction } => {
                let params = json!({"transaction": transaction});
                let shown = context.agent()?.ask(ui, AgentMethod::TransactionsGet, params)?;
                ui.value(&shown, || page(context, &shown))?;
            }
            Self::Preview { transaction } => {
                let mut client = context.agent()?;
                let params = json!({"transaction": transaction});
                let result = client.ask(ui, AgentMethod::TransactionsPreview, params)?;
                let next = format!(
                    "toolkeep transactions commit {} --expect-plan {}",
                    visible(&transaction),
                    text_at(&result, "/reply/plan/digest")
                );
                return reply::show(context, &result, Some(&next), |plan| plan_page::fetch(context, &mut client, plan));
            }
            Self::Commit { transaction, expect_plan, key, wait } => {
                let mut client = context.agent()?;
                let params = json!({"transaction": transaction, "expect_plan": expect_plan, "idempotency_key": key});
                let mut result = client.ask(ui, AgentMethod::TransactionsCommit, params)?;
                if wait {
                    result = reply::wait(context, &mut client, result)?;
                }
                return reply::show_own(context, &result, &mut client);
            }
            Self::Rollback { transaction } => {
                let params = json!({"transaction": transaction});
                let ended = context.agent()?.ask(ui, AgentMethod::TransactionsRollback, params)?;
                ui.value(&ended, || format!("{} {}", text_at(&ended, "/transaction"), text_at(&ended, "/state")))?;
            }
        }
        Ok(Exit::Ok)
    }
}

fn page(context: &Context<'_>, shown: &Value) -> String {
    let lines = [
        ("transaction", text_at(shown, "/transaction")),
        ("state", text_at(shown, "/state")),
        ("calls", text_at(shown, "/calls")),
        ("bytes", text_at(shown, "/bytes")),
        ("effects", text_at(shown, "/totals/effects")),
        ("opened", time_at(shown, "/opened_at_ms")),
        ("expires", time_at(shown, "/expires_at_ms")),
        ("commit", text_at(shown, "/call_id")),
    ];
    let head: String = lines.iter().map(|(name, value)| format!("{name:<12} {value}\n")).collect();
    let steps = shown.get("steps").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    format!("{head}\n{}", context.ui.table(steps, &STEPS))
}
