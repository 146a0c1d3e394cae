//! `toolkeep kill`: stop things, and let them run again.

use serde_json::{Value, json};

use super::context::Context;
use super::exit::Exit;
use super::failure::Failure;
use super::plans::show_page;
use super::ui::{Column, text_at, time_at};
use crate::daemon::method::AdminMethod;

/// Stop everything, a tenant, a workflow, an agent or a tool, at once
///
/// What is stopped is refused until the switch is cleared, also after a restart. Without a daemon to talk to: SIGUSR1
/// stops everything, and so does the file that `kill list` names, for as long as it is there.
#[derive(Debug, clap::Subcommand)]
pub enum KillCommand {
    /// Stop something; what runs is ended
    Set {
        /// What is stopped
        #[command(flatten)]
        target: Target,
        /// What may still run
        #[arg(long, value_enum, default_value_t = Mode::Stop)]
        mode: Mode,
        /// Why; told to everybody who is refused
        #[arg(long)]
        reason: String,
    },
    /// Let it run again
    Clear {
        /// What was stopped
        #[command(flatten)]
        target: Target,
        /// Why; it goes on record
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// What is stopped
    List,
}

/// What a switch is about.
#[derive(Debug, clap::Args)]
pub struct Target {
    /// How much of it
    #[arg(long, value_enum)]
    level: Level,
    /// The workflow, agent or tool; the name of a manifest means all of its tools
    #[arg(long)]
    name: Option<String>,
    /// Another tenant than your own
    #[arg(long)]
    tenant: Option<String>,
}

/// How much is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Level {
    /// Everything
    Global,
    /// A tenant
    Tenant,
    /// Runs of a workflow
    Workflow,
    /// An agent
    Agent,
    /// A tool
    Tool,
}

/// What may still run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// Nothing
    Stop,
    /// Tools of tier 0
    ReadOnly,
}

const COLUMNS: [Column; 7] = [
    Column::new("LEVEL", |e| text_at(e, "/level")),
    Column::new("TENANT", |e| text_at(e, "/tenant")),
    Column::new("NAME", |e| text_at(e, "/name")),
    Column::new("MODE", |e| text_at(e, "/mode")),
    Column::new("BY", |e| text_at(e, "/by")),
    Column::new("SINCE", |e| time_at(e, "/set_at_ms")),
    Column::new("REASON", |e| text_at(e, "/reason")),
];

impl Target {
    fn params(&self) -> Value {
        let level = match self.level {
            Level::Global => "global",
            Level::Tenant => "tenant",
            Level::Workflow => "workflow",
            Level::Agent => "agent",
            Level::Tool => "tool",
        };
        let mut params = json!({"level": level});
        for (key, value) in [("name", &self.name), ("tenant", &self.tenant)] {
            if let (Value::Object(members), Some(value)) = (&mut params, value) {
                members.insert(key.to_owned(), json!(value));
            }
        }
        params
    }
}

fn with(mut params: Value, key: &str, value: &str) -> Value {
    if let Value::Object(members) = &mut params {
        members.insert(key.to_owned(), json!(value));
    }
    params
}

impl KillCommand {
    /// Do it.
    ///
    /// # Errors
    /// The level is not this operator's, there is no such switch, or there is no daemon.
    pub fn run(self, context: &Context<'_>) -> Result<Exit, Failure> {
        let ui = &context.ui;
        let mut client = context.admin()?;
        match self {
            Self::Set { target, mode, reason } => {
                let mode = if mode == Mode::Stop { "stop" } else { "read-only" };
                let params = with(with(target.params(), "mode", mode), "reason", &reason);
                let told = client.ask(ui, AdminMethod::KillSet, params)?;
                if let Some(warning) = told.get("warning").and_then(Value::as_str) {
                    ui.note(warning);
                }
                ui.value(&told, || {
                    let ended = told.get("ended").and_then(Value::as_u64).unwrap_or_default();
                    format!("{}: {}; {ended} call(s) ended", named(&told), text_at(&told, "/mode"))
                })?;
            }
            Self::Clear { target, reason } => {
                let params = with(target.params(), "reason", &reason);
                let told = client.ask(ui, AdminMethod::KillClear, params)?;
                ui.value(&told, || format!("{}: cleared", named(&told)))?;
            }
            Self::List => {
                let page = client.ask(ui, AdminMethod::KillList, json!({}))?;
                show_page(ui, &page, "switches", &COLUMNS)?;
            }
        }
        Ok(Exit::Ok)
    }
}

fn named(told: &Value) -> String {
    let parts = ["/level", "/tenant", "/name"].map(|pointer| text_at(told, pointer));
    parts.into_iter().filter(|part| !part.is_empty() && part != "null" && part != "-").collect::<Vec<_>>().join(" ")
}
