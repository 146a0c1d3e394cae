//! A component as the host sees it: its descriptor, and calls from text to text.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use toolkeep_sdk::{Component, Error, ErrorKind, tool};

/// What to add.
#[derive(Deserialize, JsonSchema)]
struct SumArgs {
    /// The numbers.
    numbers: Vec<i32>,
}

#[derive(Serialize, JsonSchema)]
struct SumOutput {
    sum: i32,
}

/// Adds numbers.
///
/// When: asked for a sum.
/// Side effects: none.
/// Errors: invalid-input if there is no number.
#[tool(title = "Sum", deterministic)]
fn sum_up(args: SumArgs) -> Result<SumOutput, Error> {
    if args.numbers.is_empty() {
        return Err(Error::invalid_input("there is no number").at("/numbers"));
    }
    Ok(SumOutput { sum: args.numbers.iter().sum() })
}

/// Writes a note.
///
/// When: asked to.
/// Side effects: writes a file.
/// Errors: none of its own.
#[tool(name = "note.write", effects("file.write", "dir.create"))]
fn write(_args: SumArgs) -> toolkeep_sdk::Result<()> {
    Ok(())
}

toolkeep_sdk::export!(sum_up, write);

#[test]
fn the_descriptor_has_the_agreed_form() {
    let described: Value = serde_json::from_str(&ToolkeepComponent::describe()).unwrap();
    assert_eq!(described["format"], 1);
    assert_eq!(described["sdk"], "toolkeep-sdk 0.1.0");
    assert_eq!(
        described["tools"][0],
        json!({
            "name": "sum-up",
            "title": "Sum",
            "description": {
                "what": "Adds numbers.",
                "when": "asked for a sum.",
                "side_effects": "none.",
                "errors": "invalid-input if there is no number."
            },
            "input_schema": {
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                "type": "object",
                "description": "What to add.",
                "additionalProperties": false,
                "required": ["numbers"],
                "properties": {"numbers": {
                    "type": "array", "description": "The numbers.", "items": {"type": "integer", "format": "int32"}
                }}
            },
            "output_schema": {
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                "type": "object",
                "required": ["sum"],
                "properties": {"sum": {"type": "integer", "format": "int32"}}
            },
            "error_schema": {
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                "description": "Errors of this tool carry no detail.",
                "not": {}
            },
            "effects": [],
            "deterministic": true
        })
    );
    let second = &described["tools"][1];
    assert_eq!(second["name"], "note.write");
    assert_eq!(second.get("title"), None);
    assert_eq!(second["effects"], json!(["dir.create", "file.write"]));
    assert_eq!(second["deterministic"], false);
}

#[test]
fn a_call_goes_from_text_to_text() {
    assert_eq!(ToolkeepComponent::invoke("sum-up", r#"{"numbers":[1,2]}"#), Ok(r#"{"sum":3}"#.to_owned()));
    assert_eq!(ToolkeepComponent::invoke("note.write", r#"{"numbers":[]}"#), Ok("null".to_owned()));
}

#[test]
fn a_call_that_cannot_be_made_says_why() {
    let refused = ToolkeepComponent::invoke("sum", "{}").unwrap_err();
    assert_eq!(refused.to_string(), "not-found: this component has no tool `sum`");
    let refused = ToolkeepComponent::invoke("sum-up", r#"{"numbers":[null]}"#).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    assert_eq!(refused.fields()[0].pointer, "/numbers/0");
    let refused = ToolkeepComponent::invoke("sum-up", r#"{"numbers":[]}"#).unwrap_err();
    assert_eq!(refused.fields()[0].problem, "there is no number");
}
