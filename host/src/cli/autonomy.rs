//! `toolkeep autonomy`: how far an agent may go with a tool.
//!
//! Whoever promotes an agent sees first what became of its plans: how many were committed, taken back, agreed to and rejected.

use serde_json::{Value, json};
use toolkeep_core::autonomy::Autonomy;

use super::context::Context;
use super::exit::Exit;
use super::failure::Failure;
use super::plans::show_page;
use super::ui::{Column, text_at};
use crate::daemon::method::AdminMethod;

/// See and say how far agents may go with tools
#[derive(Debug, clap::Subcommand)]
pub enum AutonomyCommand {
    /// List what operators set, with what became of the plans
    List,
    /// Show one agent with one tool
    Show {
        /// The agent
        agent: String,
        /// The tool
        tool: String,
    },
    /// Say how far an agent may go with a tool
    Set {
        /// The agent
        agent: String,
        /// The tool
        tool: String,
        /// `draft`, `approve`, `threshold` or `autonomous`
        level: Autonomy,
        /// Why, for the record
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// Do not ask, after the record was shown
        #[arg(long)]
        yes: bool,
    },
}

const COLUMNS: [Column; 8] = [
    Column::new("AGENT", |e| text_at(e, "/agent")),
    Column::new("TOOL", |e| text_at(e, "/tool")),
    Column::new("LEVEL", |e| text_at(e, "/level")),
    Column::new("COMMITTED", |e| text_at(e, "/record/committed")),
    Column::new("UNDONE", |e| text_at(e, "/record/undone")),
    Column::new("APPROVED", |e| text_at(e, "/record/approved")),
    Column::new("REJECTED", |e| text_at(e, "/record/rejected")),
    Column::new("SET BY", |e| text_at(e, "/set_by")),
];

impl AutonomyCommand {
    /// Do it.
    ///
    /// # Errors
    /// There is no such tool, or no daemon.
    pub fn run(self, context: &Context<'_>) -> Result<Exit, Failure> {
        let ui = &context.ui;
        let mut client = context.admin()?;
        match self {
            Self::List => {
                let page = client.ask(ui, AdminMethod::AutonomyList, json!({}))?;
                show_page(ui, &page, "agents", &COLUMNS)?;
                ui.note(&format!("everywhere else: {}", text_at(&page, "/default")));
            }
            Self::Show { agent, tool } => {
                let shown = client.ask(ui, AdminMethod::AutonomyShow, json!({"agent": agent, "tool": tool}))?;
                ui.value(&shown, || record(&shown))?;
            }
            Self::Set { agent, tool, level, reason, yes } => {
                let shown = client.ask(ui, AdminMethod::AutonomyShow, json!({"agent": agent, "tool": tool}))?;
                ui.note(&record(&shown));
                if !yes && ui.ask(&format!("From now on `{level}`? Type yes: "))?.as_deref() != Some("yes") {
                    ui.note("nothing was changed; repeat with `--yes`");
                    return Ok(Exit::Denied);
                }
                let params = json!({"agent": agent, "tool": tool, "level": level, "reason": reason});
                let set = client.ask(ui, AdminMethod::AutonomySet, params)?;
                ui.value(&set, || {
                    format!(
                        "{} with {}: {}, before {}",
                        text_at(&set, "/agent"),
                        text_at(&set, "/tool"),
                        text_at(&set, "/level"),
                        text_at(&set, "/before")
                    )
                })?;
            }
        }
        Ok(Exit::Ok)
    }
}

/// What became of the plans of an agent with a tool.
fn record(shown: &Value) -> String {
    let counts = ["committed", "undone", "approved", "confirmed", "rejected", "expired", "denied", "failed"];
    let counts: Vec<String> =
        counts.iter().map(|name| format!("{name} {}", text_at(shown, &format!("/record/{name}")))).collect();
    format!(
        "{} with {}: {}\n{}",
        text_at(shown, "/agent"),
        text_at(shown, "/tool"),
        text_at(shown, "/level"),
        counts.join(", ")
    )
}
