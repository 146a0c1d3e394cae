//! `toolkeep who`: what changed a file, newest first: calls, plans, people, and the contents before and after.

use serde_json::{Value, json};

use super::context::Context;
use super::exit::Exit;
use super::failure::Failure;
use super::plans::principal;
use super::ui::{Column, text_at, time_at};
use crate::daemon::method::AdminMethod;

/// Characters of a digest that a table shows; `-o json` has all.
const DIGEST_SHOWN: usize = 12;

/// Find out what changed a file: which calls, with whose consent, from which content to which
#[derive(Debug, clap::Args)]
pub struct WhoArgs {
    /// The workspace and the path in it, as plans name them: `WORKSPACE/PATH`
    path: String,
    /// Continue after the page that told this cursor
    #[arg(long, value_name = "N")]
    cursor: Option<u64>,
}

const COLUMNS: [Column; 8] = [
    Column::new("WHEN", |e| time_at(e, "/at_ms")),
    Column::new("CALL", |e| text_at(e, "/call_id")),
    Column::new("TOOL", |e| text_at(e, "/tool")),
    Column::new("BY", |e| principal(e, "/principal")),
    Column::new("APPROVED BY", approvers),
    Column::new("DID", |e| text_at(e, "/kind")),
    Column::new("BEFORE", |e| content(e, "/before/sha256")),
    Column::new("AFTER", |e| content(e, "/after/sha256")),
];

fn content(entry: &Value, pointer: &str) -> String {
    text_at(entry, pointer).chars().take(DIGEST_SHOWN).collect()
}

fn approvers(entry: &Value) -> String {
    let votes = entry.get("approved_by").and_then(Value::as_array);
    let names: Vec<String> = votes.into_iter().flatten().map(|vote| text_at(vote, "/approver")).collect();
    names.join(", ")
}

impl WhoArgs {
    /// Do it.
    ///
    /// # Errors
    /// There is no such workspace, or no daemon.
    pub fn run(self, context: &Context<'_>) -> Result<Exit, Failure> {
        let ui = &context.ui;
        let Some((workspace, path)) = self.path.split_once('/').filter(|(_, path)| !path.is_empty()) else {
            return Err(Failure::usage(
                format!("`{}` is not `WORKSPACE/PATH`", self.path),
                "name the workspace first, for example `books/reports/june.md`",
            ));
        };
        let asked = json!({"workspace": workspace, "path": path, "cursor": self.cursor});
        let found = context.admin()?.ask(ui, AdminMethod::StatsFile, asked)?;
        let changes = found.get("changes").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        ui.list(&found, changes, &COLUMNS)?;
        if changes.is_empty() {
            ui.note("nothing on record changed it");
        }
        if let Some(next) = found.get("next_cursor").and_then(Value::as_u64) {
            ui.note(&format!("there is more: repeat with `--cursor {next}`"));
        }
        Ok(Exit::Ok)
    }
}
