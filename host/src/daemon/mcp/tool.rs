//! The list of tools, in one order and in pages.
//!
//! A tool with effects has a sibling, `<tool>.preview`, because a model cannot set `_meta`. A tool of the catalog that has
//! such a name keeps it, and the sibling is left out. A page ends with the name that the next one begins after, so that a
//! list which changes between two pages neither repeats nor skips what stays.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use toolkeep_core::id::ToolName;
use toolkeep_core::tier::Tier;

use super::annotate;
use super::era::bad;
use super::own;
use crate::authenticate::Caller;
use crate::catalog::Tool;
use crate::daemon::reply::Fault;
use crate::host::Host;

/// Tools on one page: what a model can still choose from, and some hundred kilobytes with their schemas.
const PAGE_TOOLS: usize = 100;
/// What the name of a preview ends with.
const PREVIEW: &str = ".preview";
/// Where a name may come from.
enum Entry {
    Tool(Arc<Tool>),
    Preview(Arc<Tool>),
    Own(&'static own::OwnTool),
}

/// What a name means to a caller.
pub(super) enum Named {
    /// A tool of the catalog.
    Tool(Arc<Tool>),
    /// The preview of one.
    Preview(Arc<Tool>),
}

/// What the caller means by a name; nothing for what it cannot call, whether or not it exists.
pub(super) fn named(host: &Host, caller: &Caller, name: &str) -> Option<Named> {
    let of = |name: &str| name.parse::<ToolName>().ok().and_then(|name| host.offered_tool(caller, &name));
    if let Some(tool) = of(name) {
        return Some(Named::Tool(tool));
    }
    let tool = name.strip_suffix(PREVIEW).and_then(of)?;
    (tool.tier != Tier::ReadOnly).then_some(Named::Preview(tool))
}

/// A page of the list: its tools, and where the next one begins.
///
/// # Errors
/// The cursor is none.
pub(super) fn page(host: &Host, caller: &Caller, params: &mut Map<String, Value>) -> Result<Map<String, Value>, Fault> {
    let after = match params.remove("cursor") {
        None => None,
        Some(Value::String(after)) => Some(after),
        Some(_) => return Err(bad("/cursor", "is not a string", "the `nextCursor` of the page before")),
    };
    let mut all: BTreeMap<String, Entry> = BTreeMap::new();
    for tool in host.offered(caller) {
        if tool.tier != Tier::ReadOnly {
            all.entry(format!("{}{PREVIEW}", tool.name)).or_insert_with(|| Entry::Preview(Arc::clone(&tool)));
        }
        all.insert(tool.name.to_string(), Entry::Tool(tool));
    }
    all.extend(own::ALL.iter().map(|tool| (tool.name.to_owned(), Entry::Own(tool))));
    let mut rest = all.iter().filter(|(name, _)| after.as_ref().is_none_or(|after| *name > after)).peekable();
    let (mut tools, mut last) = (Vec::new(), None);
    while let Some((name, entry)) = rest.next_if(|_| tools.len() < PAGE_TOOLS) {
        tools.push(describe(name, entry));
        last = Some(name.clone());
    }
    let more = rest.peek().is_some();
    let mut page = Map::from_iter([("tools".to_owned(), Value::Array(tools))]);
    if let Some(last) = last.filter(|_| more) {
        page.insert("nextCursor".to_owned(), Value::String(last));
    }
    Ok(page)
}

fn describe(name: &str, entry: &Entry) -> Value {
    match entry {
        Entry::Own(tool) => tool.describe(),
        Entry::Tool(tool) => catalogued(name, tool, &tool.description(), &annotate::hints(tool)),
        Entry::Preview(tool) => {
            let text = format!(
                "Shows what `{}` would do with the same input, and changes nothing. The answer names the plan: commit exactly \
                 that with `toolkeep.commit`, or drop it with `toolkeep.discard`.\n\n{}",
                tool.name, tool.descriptor.description.what
            );
            catalogued(name, tool, &text, &annotate::preview_hints(tool))
        }
    }
}

fn catalogued(name: &str, tool: &Tool, description: &str, hints: &Value) -> Value {
    let mut described = json!({
        "name": name,
        "description": description,
        "inputSchema": tool.descriptor.input_schema,
        "annotations": hints,
        "_meta": {"toolkeep/tier": tool.tier, "toolkeep/component": tool.component.digest},
    });
    if let Value::Object(members) = &mut described {
        if let Some(title) = &tool.descriptor.title {
            members.insert("title".to_owned(), json!(title));
        }
        if let Some(schema) = output_schema(&tool.descriptor.output_schema) {
            members.insert("outputSchema".to_owned(), schema);
        }
    }
    described
}

/// The schema of an answer: how the call went, and the tool's own output as one member. Definitions move to the top, where
/// references look for them. A schema that refers to itself as a whole cannot be moved, and is left out.
fn output_schema(own: &Value) -> Option<Value> {
    let mut own = own.clone();
    if own.pointer("").is_some_and(refers_to_root) {
        return None;
    }
    let mut whole = json!({
        "type": "object",
        "properties": {
            "status": {"type": "string", "description": "`ok`, `approval_required`, `denied`, `failed` or `unknown`"},
            "outcome": {"type": "string", "description": "what became of the effects"},
            "call_id": {"type": "string"},
            "plan": {"type": "object", "description": "what it changes or has changed"},
            "approval_id": {"type": "string", "description": "for `toolkeep.wait`"},
            "error": {"type": "object"},
        },
        "required": ["status", "call_id"],
    });
    if let Value::Object(members) = &mut own {
        members.remove("$schema");
        members.remove("$id");
        for key in ["$defs", "definitions"] {
            if let (Some(moved), Value::Object(whole)) = (members.remove(key), &mut whole) {
                whole.insert(key.to_owned(), moved);
            }
        }
    }
    // A long output is a marker, and one between delimiters is a text.
    let output = json!({"anyOf": [own, {"type": "object", "required": ["spilled"]}, {"type": "string"}]});
    whole.pointer_mut("/properties")?.as_object_mut()?.insert("output".to_owned(), output);
    Some(whole)
}

fn refers_to_root(schema: &Value) -> bool {
    match schema {
        Value::Object(members) => members.iter().any(|(key, value)| {
            let away =
                value.as_str().is_some_and(|to| !to.starts_with("#/$defs/") && !to.starts_with("#/definitions/"));
            (matches!(key.as_str(), "$ref" | "$dynamicRef") && away) || refers_to_root(value)
        }),
        Value::Array(items) => items.iter().any(refers_to_root),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_move_to_the_top_and_what_refers_to_the_whole_is_left_out() {
        let own = json!({"$schema": "x", "type": "object", "properties": {"a": {"$ref": "#/$defs/A"}},
            "$defs": {"A": {"type": "integer"}}});
        let whole = output_schema(&own).expect("a schema");
        let validator = jsonschema::validator_for(&whole).expect("a schema that compiles");
        assert!(validator.is_valid(&json!({"status": "ok", "call_id": "c", "output": {"a": 1}})));
        assert!(!validator.is_valid(&json!({"status": "ok", "call_id": "c", "output": {"a": "x"}})));
        assert!(validator.is_valid(&json!({"status": "approval_required", "call_id": "c"})), "held: no output yet");
        assert!(!validator.is_valid(&json!({"call_id": "c"})));
        let tree = json!({"type": "object", "properties": {"child": {"$ref": "#"}}});
        assert_eq!(output_schema(&tree), None);
    }
}
