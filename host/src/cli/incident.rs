//! `toolkeep incident`: the four questions about a call or a run, answered from the record.

use serde_json::{Value, json};
use toolkeep_core::display::{visible, visible_json};

use super::context::Context;
use super::exit::Exit;
use super::failure::Failure;
use super::plans::principal;
use super::ui::{text_at, time_at};
use crate::daemon::method::AdminMethod;

/// Lines of one list that are shown; `-o json` has all.
const LINES: usize = 8;

/// What context was used, which policy allowed it, what was executed, which check missed it
#[derive(Debug, clap::Args)]
pub struct IncidentArgs {
    /// The id of a call or of a run
    id: String,
    /// Continue after the page of a run that told this cursor
    #[arg(long, value_name = "N")]
    cursor: Option<u64>,
}

impl IncidentArgs {
    /// Do it.
    ///
    /// # Errors
    /// There is no such call or run, or no daemon.
    pub fn run(self, context: &Context<'_>) -> Result<Exit, Failure> {
        let ui = &context.ui;
        let kind = if self.id.starts_with("run_") { "run" } else { "call" };
        let mut params = json!({"cursor": self.cursor});
        if let Value::Object(members) = &mut params {
            members.insert(kind.to_owned(), json!(self.id));
        }
        let shown = context.admin()?.ask(ui, AdminMethod::IncidentGet, params)?;
        ui.value(&shown, || if kind == "run" { of_run(&shown) } else { of_call(&shown) })?;
        if let Some(next) = shown.get("next_cursor").and_then(Value::as_u64) {
            ui.note(&format!("there is more: repeat with `--cursor {next}`"));
        }
        Ok(Exit::Ok)
    }
}

fn of_run(shown: &Value) -> String {
    let head = format!(
        "run        {} {}\nby         {}\nseen       {}\nbreaches   {}\n",
        text_at(shown, "/run"),
        text_at(shown, "/label"),
        principal(shown, "/principal"),
        taint(shown, "/taint"),
        text_at(shown, "/breaches")
    );
    let calls = shown.get("calls").and_then(Value::as_array);
    let calls: Vec<String> = calls.into_iter().flatten().map(of_call).collect();
    format!("{head}\n{}", calls.join("\n"))
}

fn of_call(shown: &Value) -> String {
    let json =
        |pointer: &str| visible_json(&shown.pointer(pointer).cloned().unwrap_or_default().to_string()).into_owned();
    let mut text = format!(
        "call       {} of {}, {} / {}\nby         {}, {}\n",
        text_at(shown, "/call_id"),
        text_at(shown, "/tool"),
        text_at(shown, "/status"),
        text_at(shown, "/outcome"),
        principal(shown, "/principal"),
        time_at(shown, "/started_at_ms"),
    );
    text.push_str(&format!(
        "\n1. What context was used?\n   input {}\n   output {}\n   seen: {}; by the run so far: {}\n",
        json("/context/input"),
        json("/context/output"),
        taint(shown, "/context/taint"),
        taint(shown, "/context/run_taint"),
    ));
    lines(&mut text, shown, "/context/observed");
    text.push_str("\n2. Which policy allowed it?\n");
    text.push_str(&format!("   asked {}: {}\n", text_at(shown, "/allowed_by/asked"), json("/allowed_by/ruling")));
    if shown.pointer("/allowed_by/approval").is_some_and(|approval| !approval.is_null()) {
        text.push_str(&format!("   people: {}\n", json("/allowed_by/approval")));
    }
    text.push_str(&format!(
        "\n3. What was executed?\n   {}, plan {}\n",
        text_at(shown, "/executed/outcome"),
        text_at(shown, "/executed/plan_digest")
    ));
    lines(&mut text, shown, "/executed/effects");
    text.push_str("\n4. Which check did not catch it?\n");
    for check in shown.get("checks").and_then(Value::as_array).into_iter().flatten() {
        let detail = text_at(check, "/detail");
        text.push_str(&format!(
            "   {:<18} {}{}{detail}\n",
            text_at(check, "/verdict"),
            text_at(check, "/check"),
            if detail.is_empty() { "" } else { ": " }
        ));
    }
    text
}

fn taint(shown: &Value, pointer: &str) -> String {
    let has = |word: &str| shown.pointer(&format!("{pointer}/{word}")) == Some(&Value::Bool(true));
    let words: Vec<&str> = ["untrusted", "private"].into_iter().filter(|word| has(word)).collect();
    if words.is_empty() { "nothing marked".to_owned() } else { words.join(", ") }
}

fn lines(text: &mut String, shown: &Value, pointer: &str) {
    let all = shown.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for line in all.iter().take(LINES).filter_map(Value::as_str) {
        text.push_str(&format!("   {}\n", visible(line)));
    }
    if all.len() > LINES {
        text.push_str(&format!("   and {} more, see -o json\n", all.len() - LINES));
    }
}
