//! `toolkeep sessions`: handing a part of what an agent may do to another one.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::context::Context;
use super::exit::Exit;
use super::failure::Failure;
use super::plans::show_page;
use super::tokens::{PartArgs, tell};
use super::ui::{Column, text_at, time_at};
use crate::daemon::method::AgentMethod;

/// Delegate a part of what you may do, as an agent
#[derive(Debug, clap::Subcommand)]
pub enum SessionsCommand {
    /// Show who you are to the daemon, and what you hold
    Show,
    /// Open a session that holds less, and print its token, once
    Delegate {
        #[command(flatten)]
        part: PartArgs,
        /// How many calls it may make in all
        #[arg(long, value_name = "N")]
        calls: Option<u64>,
        /// What it is for
        #[arg(long, value_name = "TEXT", default_value = "")]
        label: String,
        /// Write the token to a new file (mode 0600) instead of printing it
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// List the sessions that you opened and that stand
    List {
        /// Continue after the page that told this cursor
        #[arg(long, value_name = "N")]
        cursor: Option<u64>,
    },
    /// Take a session back, with everything that was delegated from it
    Revoke {
        /// Its id
        id: String,
    },
}

const COLUMNS: [Column; 4] = [
    Column::new("SESSION", |e| text_at(e, "/id")),
    Column::new("EXPIRES", |e| time_at(e, "/expires_at_ms")),
    Column::new("CALLS LEFT", |e| text_at(e, "/calls_left")),
    Column::new("LABEL", |e| text_at(e, "/label")),
];

impl SessionsCommand {
    /// Do it.
    ///
    /// # Errors
    /// The daemon refuses, or there is none.
    pub fn run(self, context: &Context<'_>) -> Result<Exit, Failure> {
        let ui = &context.ui;
        let mut client = context.agent()?;
        match self {
            Self::Show => {
                let session = client.ask(ui, AgentMethod::SessionGet, json!({}))?;
                ui.value(&session, || shown(&session))?;
            }
            Self::Delegate { part, calls, label, to } => {
                let mut params = part.members()?;
                params.insert("label".to_owned(), json!(label));
                params.extend(calls.map(|calls| ("budget".to_owned(), json!({"calls": calls}))));
                let opened = client.ask(ui, AgentMethod::SessionsDelegate, Value::Object(params))?;
                tell(context, opened, "session", to.as_ref())?;
            }
            Self::List { cursor } => {
                let page = client.ask(ui, AgentMethod::SessionsList, json!({"cursor": cursor}))?;
                show_page(ui, &page, "sessions", &COLUMNS)?;
            }
            Self::Revoke { id } => {
                let answer = client.ask(ui, AgentMethod::SessionsRevoke, json!({"session": id}))?;
                ui.value(&answer, || format!("{id}: revoked"))?;
            }
        }
        Ok(Exit::Ok)
    }
}

fn shown(session: &Value) -> String {
    let all = |pointer: &str| match session.pointer(pointer) {
        None | Some(Value::Null) => "all".to_owned(),
        Some(held) => held.to_string(),
    };
    let lines = [
        ("tenant", text_at(session, "/principal/tenant")),
        ("user", text_at(session, "/principal/user")),
        ("agent", text_at(session, "/principal/agent")),
        ("known by", text_at(session, "/credential")),
        ("session", text_at(session, "/session")),
        ("tools", all("/held/tools")),
        ("workspaces", all("/held/workspaces")),
        ("max tier", text_at(session, "/held/max_tier")),
        ("calls left", text_at(session, "/calls_left")),
        ("until", time_at(session, "/expires_at_ms")),
    ];
    lines.iter().map(|(name, value)| format!("{name:<11}{value}\n")).collect()
}
