//! Answers about policies, as people read them.

use serde_json::Value;

use crate::cli::ui::{Column, text_at, time_at};

/// Calls that other policies would have decided otherwise.
pub(super) const CHANGES: [Column; 5] = [
    Column::new("CALL", |e| text_at(e, "/call_id")),
    Column::new("AT", |e| time_at(e, "/at_ms")),
    Column::new("TOOL", |e| text_at(e, "/tool")),
    Column::new("BEFORE", |e| decision(e.get("before").unwrap_or(&Value::Null))),
    Column::new("AFTER", |e| decision(e.get("after").unwrap_or(&Value::Null))),
];

/// A decision in a few words: `hold (2 to agree, for finance)`.
fn decision(answer: &Value) -> String {
    let word = text_at(answer, "/decision");
    let groups: Vec<&str> =
        answer.get("groups").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    match answer.get("approvers") {
        Some(approvers) if groups.is_empty() => format!("{word} ({approvers} to agree)"),
        Some(approvers) => format!("{word} ({approvers} to agree, for {})", groups.join(" and ")),
        None => word,
    }
}

/// Which policies decided, and what they demand.
pub(super) fn explained(answer: &Value) -> String {
    let mut lines = vec![("decision", decision(answer))];
    if answer.get("because").is_some() {
        lines.push(("because", text_at(answer, "/because")));
    }
    lines.push(("tool", text_at(answer, "/tool")));
    for question in ["call", "plan"] {
        let Some(judgement) = answer.get(question).filter(|judgement| !judgement.is_null()) else { continue };
        lines.push((question, text_at(judgement, "/decision")));
        if judgement.get("problem").is_some_and(|problem| !problem.is_null()) {
            lines.push(("", text_at(judgement, "/problem")));
        }
        for policy in judgement.get("policies").and_then(Value::as_array).into_iter().flatten() {
            let id = policy.get("id").and_then(Value::as_str).map(|id| format!(" `{id}`")).unwrap_or_default();
            lines.push(("", format!("{} {}{id}", text_at(policy, "/effect"), text_at(policy, "/policy"))));
        }
    }
    if let Some(floor) = answer.get("floor").filter(|floor| !floor.is_null()) {
        lines.push(("floor", decision(floor)));
        if floor.get("because").is_some() {
            lines.push(("", text_at(floor, "/because")));
        }
    }
    let seen = ["untrusted", "private"];
    let seen: Vec<&str> =
        seen.into_iter().filter(|word| answer.pointer(&format!("/taint/{word}")) == Some(&Value::Bool(true))).collect();
    if !seen.is_empty() {
        lines.push(("seen", seen.join(", ")));
    }
    if answer.get("autonomy").is_some() {
        lines.push(("autonomy", text_at(answer, "/autonomy")));
    }
    if answer.get("same_set") == Some(&Value::Bool(false)) {
        lines.push(("note", "the plan was made under other policies than those in force now".to_owned()));
    }
    lines.into_iter().map(|(name, value)| format!("{name:<10} {value}\n")).collect()
}

/// The policies in force, file by file.
pub(super) fn in_force(shown: &Value) -> String {
    let directory = shown.get("directory").and_then(Value::as_str).unwrap_or("built in");
    let mut text =
        format!("// {directory}: {} policies, digest {}\n", text_at(shown, "/policies"), text_at(shown, "/digest"));
    for problem in shown.get("problems").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        text.push_str(&format!("// refused: {problem}\n"));
    }
    for file in shown.get("files").and_then(Value::as_array).into_iter().flatten() {
        text.push_str(&format!("\n// {}\n", text_at(file, "/name")));
        text.push_str(file.get("text").and_then(Value::as_str).unwrap_or_default());
    }
    if let Some(schema) = shown.get("schema").and_then(Value::as_str) {
        text.push_str(&format!("\n// the schema\n{schema}\n"));
    }
    text
}
