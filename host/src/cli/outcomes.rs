//! `toolkeep outcomes`: requests of which nobody knows what became of them.

use serde_json::{Value, json};

use super::context::Context;
use super::exit::Exit;
use super::failure::Failure;
use super::plans::show_page;
use super::ui::{Column, text_at};
use crate::daemon::method::AdminMethod;

/// Look at requests whose outcome is unknown, and say what became of them
#[derive(Debug, clap::Subcommand)]
pub enum OutcomesCommand {
    /// Calls with a request that was sent without an answer
    List,
    /// Say whether the request of a call was done; look at the other system first
    Resolve {
        /// The call, as `outcomes list` names it
        call: String,
        /// What the other system shows
        #[arg(value_enum)]
        verdict: Verdict,
        /// What you saw there; it goes on record
        #[arg(long)]
        reason: String,
    },
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Verdict {
    /// It was done: go on with the rest of the plan
    Sent,
    /// It was not done: undo what was sent before, and drop the plan
    NotSent,
}

const COLUMNS: [Column; 4] = [
    Column::new("CALL", |e| text_at(e, "/call_id")),
    Column::new("TOOL", |e| text_at(e, "/tool")),
    Column::new("REQUEST", |e| unknown(e, "/request")),
    Column::new("PROBLEM", |e| unknown(e, "/problem")),
];

/// A part of the request that is unknown.
fn unknown(entry: &Value, pointer: &str) -> String {
    let requests = entry.get("requests").and_then(Value::as_array).into_iter().flatten();
    let mut unknown = requests.filter(|request| request.get("state").is_some_and(|state| state == "unknown"));
    unknown.next().map(|request| text_at(request, pointer)).unwrap_or_default()
}

impl OutcomesCommand {
    /// Do it.
    ///
    /// # Errors
    /// There is no such call, or there is no daemon.
    pub fn run(self, context: &Context<'_>) -> Result<Exit, Failure> {
        let ui = &context.ui;
        let mut client = context.admin()?;
        match self {
            Self::List => {
                let page = client.ask(ui, AdminMethod::OutcomesList, json!({}))?;
                show_page(ui, &page, "outcomes", &COLUMNS)?;
            }
            Self::Resolve { call, verdict, reason } => {
                let sent = verdict == Verdict::Sent;
                let params = json!({"call": call, "sent": sent, "reason": reason});
                let answer = client.ask(ui, AdminMethod::OutcomesResolve, params)?;
                ui.value(&answer, || {
                    let (status, outcome) = (text_at(&answer, "/reply/status"), text_at(&answer, "/reply/outcome"));
                    format!("{} is {status}, {outcome}", text_at(&answer, "/call_id"))
                })?;
            }
        }
        Ok(Exit::Ok)
    }
}
