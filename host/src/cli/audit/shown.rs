//! Answers about the audit, as people read them.

use serde_json::{Value, json};
use toolkeep_core::display::{visible_json, visible_lines};

use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::ui::{Column, Ui, text_at, time_at};

/// Characters of the facts of an entry that a table shows; `-o json` has all.
const FACTS_SHOWN_CHARS: usize = 120;

/// What a verification came to.
pub(super) fn verified(answer: &Value) -> String {
    format!(
        "{} entries verified, {} checkpoints hold\nhead {} {}\nroot {}",
        text_at(answer, "/verified"),
        text_at(answer, "/checkpoints"),
        text_at(answer, "/head/seq"),
        text_at(answer, "/head/digest"),
        text_at(answer, "/root")
    )
}

/// A proof: of an entry in the form that public tools read, of a checkpoint as lines.
pub(super) fn proof(proof: &Value) -> String {
    if proof.get("tlog_proof").is_some() {
        return note(proof, "/tlog_proof");
    }
    let path = proof.get("path").and_then(Value::as_array);
    let hashes: Vec<String> = path.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
    format!(
        "old {} {}\nnew {} {}\n{}\n\n{}",
        text_at(proof, "/old/size"),
        text_at(proof, "/old/root"),
        text_at(proof, "/size"),
        text_at(proof, "/root"),
        visible_lines(&hashes.join("\n")),
        note(proof, "/checkpoint")
    )
}

/// A text of several lines in an answer.
pub(super) fn note(answer: &Value, pointer: &str) -> String {
    visible_lines(answer.pointer(pointer).and_then(Value::as_str).unwrap_or_default()).into_owned()
}

/// Entries that are shown together.
#[derive(Debug, Default)]
pub(super) struct Entries(Vec<Value>);

impl Entries {
    /// One more.
    pub(super) fn add(&mut self, entry: Value) {
        self.0.push(entry);
    }

    /// Show them. `more` says that there may be others.
    pub(super) fn show(self, ui: &Ui, more: bool) -> Result<Exit, Failure> {
        let columns = [
            Column::new("ENTRY", |entry| text_at(entry, "/seq")),
            Column::new("TIME", |entry| time_at(entry, "/at_ms")),
            Column::new("KIND", |entry| text_at(entry, "/kind")),
            Column::new("FACTS", |entry| {
                let facts = entry.get("facts").map(Value::to_string).unwrap_or_default();
                let shown: String = facts.chars().take(FACTS_SHOWN_CHARS).collect();
                let rest = if shown.len() < facts.len() { "…" } else { "" };
                format!("{}{rest}", visible_json(&shown))
            }),
        ];
        ui.list(&json!({"entries": self.0}), &self.0, &columns)?;
        if let Some(last) = self.0.last().filter(|_| more) {
            ui.note(&format!("there may be more: repeat with `--after {}`", text_at(last, "/seq")));
        }
        Ok(Exit::Ok)
    }
}

/// A page of checkpoints, or the note of the latest.
pub(super) fn checkpoints(ui: &Ui, page: &Value, latest: bool) -> Result<Exit, Failure> {
    let empty = Vec::new();
    let entries = page.get("checkpoints").and_then(Value::as_array).unwrap_or(&empty);
    if latest {
        let first = entries.first().ok_or_else(|| Failure::Findings("there is no checkpoint yet".to_owned()))?;
        ui.value(first, || note(first, "/note"))?;
        return Ok(Exit::Ok);
    }
    let columns = [
        Column::new("ENTRIES", |entry| text_at(entry, "/size")),
        Column::new("ROOT", |entry| {
            let note = entry.get("note").and_then(Value::as_str).unwrap_or_default();
            visible_json(note.lines().nth(2).unwrap_or_default()).into_owned()
        }),
    ];
    ui.list(page, entries, &columns)?;
    if let Some(next) = page.get("next_cursor").and_then(Value::as_u64) {
        ui.note(&format!("there are more: repeat with `--below {next}`"));
    }
    Ok(Exit::Ok)
}
