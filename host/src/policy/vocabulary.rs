//! The words that policies can use: Cedar's schema, generated from the installed tools.
//!
//! For every tool there is one action in the group `call`, whose context has the typed input, and one in the group `commit`,
//! whose context says what a plan would change. Both know amounts, time, mode, environment, autonomy and taint. Tools whose
//! contexts have the same types are interchangeable for a policy that names none of them, so one of each kind stands
//! for the others: validating a set costs as much as there are kinds, not tools.

use std::collections::BTreeSet;
use std::sync::Arc;

use cedar_policy::{Schema, SchemaFragment};
use serde_json::{Map, Value, json};
use toolkeep_core::effect::Effect;
use toolkeep_core::id::ToolName;

use super::scope::Question;
use super::shape::ToolShape;

/// Whole numbers in the context of a plan, besides the counts by kind.
const NUMBERS: [&str; 13] = [
    "tier",
    "declared",
    "effects",
    "creates",
    "overwrites",
    "deletes",
    "renames",
    "bytes_written",
    "requests",
    "messages",
    "keys",
    "reads",
    "segment",
];
/// Sets of texts in the context of a plan.
const SETS: [&str; 8] = ["kinds", "workspaces", "paths", "sensitive", "hosts", "methods", "channels", "buckets"];

/// The id of the action that asks this question about a tool.
#[must_use]
pub fn action(question: Question, tool: &ToolName) -> String {
    format!("{}:{tool}", question.word())
}

/// The schema for these tools as Cedar's JSON.
#[must_use]
pub fn json<'a>(tools: impl Iterator<Item = &'a ToolShape>) -> Value {
    let mut actions = Map::new();
    for question in Question::ALL {
        actions.insert(question.word().to_owned(), json!({}));
    }
    for tool in tools {
        for question in Question::ALL {
            actions.insert(action(question, &tool.name), action_of(question, tool));
        }
    }
    let tool = record(&[("name", "String"), ("version", "String"), ("tier", "Long"), ("component", "String")]);
    json!({"": {
        "entityTypes": {
            "Tenant": {},
            "User": {"memberOfTypes": ["Tenant"]},
            "Agent": {"memberOfTypes": ["User"]},
            "Tool": {"shape": tool},
            "Run": {},
        },
        "actions": actions,
        "commonTypes": {"Time": record(&[("epoch_s", "Long"), ("hour", "Long"), ("weekday", "Long")])},
    }})
}

fn action_of(question: Question, tool: &ToolShape) -> Value {
    let (input, amounts) = tool.types();
    let mut context = Map::new();
    let mut add = |name: &str, of: Value| drop(context.insert(name.to_owned(), of));
    add("amounts", amounts);
    add("time", json!({"type": "Time"}));
    add("run", json!({"type": "Entity", "name": "Run", "required": false}));
    for text in ["mode", "environment", "autonomy", "authenticated", "workflow", "contract"] {
        add(text, json!({"type": "String"}));
    }
    for number in ["delegations", "steps"] {
        add(number, json!({"type": "Long"}));
    }
    // In millionths of a dollar, where the run has a budget of money.
    add("cost_left", json!({"type": "Long", "required": false}));
    for taint in ["untrusted", "private"] {
        add(taint, json!({"type": "Boolean"}));
    }
    match question {
        Question::Call => add("input", input),
        Question::Commit => {
            for number in NUMBERS {
                add(number, json!({"type": "Long"}));
            }
            for set in SETS {
                add(set, json!({"type": "Set", "element": {"type": "String"}}));
            }
            add("more", json!({"type": "Boolean"}));
            let counts: Vec<(&str, &str)> = Effect::KINDS.iter().map(|kind| (*kind, "Long")).collect();
            add("count", record(&counts));
        }
    }
    json!({
        "memberOf": [{"id": question.word()}],
        "appliesTo": {
            "principalTypes": ["Agent"],
            "resourceTypes": ["Tool"],
            "context": {"type": "Record", "attributes": context},
        },
    })
}

fn record(members: &[(&str, &str)]) -> Value {
    let attributes: Map<String, Value> =
        members.iter().map(|(name, of)| ((*name).to_owned(), json!({"type": of}))).collect();
    json!({"type": "Record", "attributes": attributes})
}

/// One tool of each kind, and every tool that policies name.
#[must_use]
pub fn representatives<'a>(
    tools: impl Iterator<Item = &'a Arc<ToolShape>>,
    named: &BTreeSet<String>,
) -> Vec<&'a ToolShape> {
    let mut kinds = BTreeSet::new();
    tools
        .filter(|tool| {
            let (input, amounts) = tool.types();
            let is_new = kinds.insert(format!("{input}\n{amounts}"));
            is_new || named.contains(tool.name.as_str())
        })
        .map(|tool| &**tool)
        .collect()
}

/// The schema for these tools, ready to validate with.
///
/// # Errors
/// Cedar refuses a name of a member of some input, for example one that it keeps for itself.
pub fn schema<'a>(tools: impl Iterator<Item = &'a ToolShape>) -> Result<Schema, String> {
    Schema::from_json_value(json(tools)).map_err(|error| format!("the schema of the tools is refused: {error}"))
}

/// The schema as people read it.
///
/// # Errors
/// As [`schema`].
pub fn text<'a>(tools: impl Iterator<Item = &'a ToolShape>) -> Result<String, String> {
    let fragment = SchemaFragment::from_json_value(json(tools)).map_err(|error| error.to_string())?;
    fragment.to_cedarschema().map_err(|error| error.to_string())
}
