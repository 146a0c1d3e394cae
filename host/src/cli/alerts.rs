//! `toolkeep alerts`: what operators have to know, and that they have seen it.

use serde_json::{Value, json};

use super::context::Context;
use super::exit::Exit;
use super::failure::Failure;
use super::plans::show_page;
use super::ui::{Column, text_at, time_at};
use crate::daemon::method::AdminMethod;

/// See what happened that somebody has to know, and say that it was seen
#[derive(Debug, clap::Subcommand)]
pub enum AlertsCommand {
    /// List alerts that nobody acknowledged, newest first
    List {
        /// Those that were acknowledged too
        #[arg(long)]
        all: bool,
        /// Continue after the page that told this cursor
        #[arg(long, value_name = "N")]
        cursor: Option<u64>,
    },
    /// Show one alert with its facts
    Show {
        /// Its id
        id: String,
    },
    /// Say that an alert was seen; when the same happens again there is a new one
    Ack {
        /// Its id
        id: String,
        /// What became of it, for the record
        #[arg(long, default_value = "")]
        note: String,
    },
}

const COLUMNS: [Column; 7] = [
    Column::new("ID", |e| text_at(e, "/id")),
    Column::new("SEVERITY", |e| text_at(e, "/severity")),
    Column::new("EVENT", |e| text_at(e, "/event")),
    Column::new("SUBJECT", |e| text_at(e, "/subject")),
    Column::new("COUNT", |e| text_at(e, "/count")),
    Column::new("LAST", |e| time_at(e, "/last_at_ms")),
    Column::new("STATE", |e| text_at(e, "/state")),
];

impl AlertsCommand {
    /// Do it.
    ///
    /// # Errors
    /// There is no such alert, or no daemon.
    pub fn run(self, context: &Context<'_>) -> Result<Exit, Failure> {
        let ui = &context.ui;
        let mut client = context.admin()?;
        match self {
            Self::List { all, cursor } => {
                let page = client.ask(ui, AdminMethod::AlertsList, json!({"all": all, "cursor": cursor}))?;
                show_page(ui, &page, "alerts", &COLUMNS)?;
            }
            Self::Show { id } => {
                let alert = client.ask(ui, AdminMethod::AlertsShow, json!({"alert": id}))?;
                ui.value(&alert, || shown(&alert))?;
            }
            Self::Ack { id, note } => {
                let answer = client.ask(ui, AdminMethod::AlertsAck, json!({"alert": id, "note": note}))?;
                ui.value(&answer, || format!("{}: acknowledged", text_at(&answer, "/id")))?;
            }
        }
        Ok(Exit::Ok)
    }
}

fn shown(alert: &Value) -> String {
    let lines = [
        ("id", text_at(alert, "/id")),
        ("event", text_at(alert, "/event")),
        ("severity", text_at(alert, "/severity")),
        ("subject", text_at(alert, "/subject")),
        ("state", text_at(alert, "/state")),
        ("count", text_at(alert, "/count")),
        ("first", time_at(alert, "/first_at_ms")),
        ("last", time_at(alert, "/last_at_ms")),
        ("acked by", text_at(alert, "/acked_by")),
        ("note", text_at(alert, "/note")),
    ];
    let head: String = lines.iter().map(|(name, value)| format!("{name:<10} {value}\n")).collect();
    let facts = alert.get("detail").and_then(Value::as_object).into_iter().flatten();
    let facts: String = facts.map(|(name, value)| format!("  {name}: {}\n", plain(value))).collect();
    format!("{head}{}", toolkeep_core::display::visible_lines(&facts))
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), |text| text.replace('\n', " "))
}
