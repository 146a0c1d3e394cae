//! `toolkeep deadletters`: what could not be delivered or done, and what to do with it.

use serde_json::{Value, json};

use super::context::Context;
use super::exit::Exit;
use super::failure::Failure;
use super::plans::show_page;
use super::ui::{Column, text_at, time_at};
use crate::daemon::method::AdminMethod;

/// See what could not be delivered or done, and decide
#[derive(Debug, clap::Subcommand)]
pub enum DeadlettersCommand {
    /// List dead letters that rest, newest first
    List {
        /// Those that were retried or discarded too
        #[arg(long)]
        all: bool,
        /// Continue after the page that told this cursor
        #[arg(long, value_name = "N")]
        cursor: Option<u64>,
    },
    /// Show one dead letter with its message
    Show {
        /// Its id
        id: String,
    },
    /// Try it again from the start; a delivery keeps its id, a call gets a new one
    Retry {
        /// Its id
        id: String,
    },
    /// Throw it away
    Discard {
        /// Its id
        id: String,
    },
}

const COLUMNS: [Column; 6] = [
    Column::new("ID", |e| text_at(e, "/id")),
    Column::new("KIND", |e| text_at(e, "/kind")),
    Column::new("CHANNEL", |e| text_at(e, "/channel")),
    Column::new("ATTEMPTS", |e| text_at(e, "/attempts")),
    Column::new("DIED", |e| time_at(e, "/died_at_ms")),
    Column::new("REASON", |e| text_at(e, "/reason")),
];

impl DeadlettersCommand {
    /// Do it.
    ///
    /// # Errors
    /// There is no such dead letter, or no daemon.
    pub fn run(self, context: &Context<'_>) -> Result<Exit, Failure> {
        let ui = &context.ui;
        let mut client = context.admin()?;
        match self {
            Self::List { all, cursor } => {
                let page = client.ask(ui, AdminMethod::DeadlettersList, json!({"all": all, "cursor": cursor}))?;
                show_page(ui, &page, "dead_letters", &COLUMNS)?;
            }
            Self::Show { id } => {
                let letter = client.ask(ui, AdminMethod::DeadlettersGet, json!({"delivery": id}))?;
                ui.value(&letter, || shown(&letter))?;
            }
            Self::Retry { id } => {
                let answer = client.ask(ui, AdminMethod::DeadlettersRetry, json!({"delivery": id}))?;
                ui.value(&answer, || format!("{}: it is tried again", text_at(&answer, "/id")))?;
            }
            Self::Discard { id } => {
                let answer = client.ask(ui, AdminMethod::DeadlettersDiscard, json!({"delivery": id}))?;
                ui.value(&answer, || format!("{}: discarded", text_at(&answer, "/id")))?;
            }
        }
        Ok(Exit::Ok)
    }
}

fn shown(letter: &Value) -> String {
    if text_at(letter, "/kind") == "call" {
        return shown_call(letter);
    }
    let lines = [
        ("id", text_at(letter, "/id")),
        ("state", text_at(letter, "/state")),
        ("kind", text_at(letter, "/kind")),
        ("channel", text_at(letter, "/channel")),
        ("call", text_at(letter, "/call_id")),
        ("made", time_at(letter, "/made_at_ms")),
        ("died", time_at(letter, "/died_at_ms")),
        ("attempts", text_at(letter, "/attempts")),
        ("because", text_at(letter, "/reason")),
        ("to", text_at(letter, "/message/to")),
        ("subject", text_at(letter, "/message/subject")),
        ("type", text_at(letter, "/message/media_type")),
        ("hidden", format!("{} bytes", text_at(letter, "/message/hidden_bytes"))),
    ];
    let head: String = lines.iter().map(|(name, value)| format!("{name:<10} {value}\n")).collect();
    let text = letter.pointer("/message/text").and_then(Value::as_str).unwrap_or_default();
    format!("{head}{}", toolkeep_core::render::quoted("the sender", text))
}

fn shown_call(letter: &Value) -> String {
    let lines = [
        ("id", text_at(letter, "/id")),
        ("state", text_at(letter, "/state")),
        ("tool", text_at(letter, "/tool")),
        ("user", text_at(letter, "/principal/user")),
        ("agent", text_at(letter, "/principal/agent")),
        ("run", text_at(letter, "/run")),
        ("made", time_at(letter, "/made_at_ms")),
        ("died", time_at(letter, "/died_at_ms")),
        ("attempts", text_at(letter, "/attempts")),
        ("because", text_at(letter, "/reason")),
    ];
    let head: String = lines.iter().map(|(name, value)| format!("{name:<10} {value}\n")).collect();
    let input = letter.get("input").map(Value::to_string).unwrap_or_default();
    format!("{head}{}", toolkeep_core::render::quoted("the agent", &input))
}
