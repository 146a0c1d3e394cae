//! JSON Schemas of tools: compiled once at installation, asked at both ends of an execution.
//!
//! Patterns are linear-time regular expressions and nothing remote is ever fetched, so a schema cannot stall the daemon.
//! Problems are told with pointer and expectation, because the reader is often a model that corrects itself.

use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::Value;
use toolkeep_core::refusal::FieldProblem;

/// Most field problems in one refusal: a model reads them all.
pub const PROBLEMS_MAX: usize = 16;
/// Longest problem text in characters; schema errors quote the value.
const PROBLEM_MAX_CHARS: usize = 240;

/// Compile a schema (JSON Schema 2020-12).
///
/// # Errors
/// It is not a schema, or refers to something that is not in it; the text says why.
pub fn compile(schema: &Value) -> Result<Validator, String> {
    jsonschema::options()
        .with_draft(Draft::Draft202012)
        .with_pattern_options(PatternOptions::regex())
        .build(schema)
        .map_err(|e| shortened(e.to_string()))
}

/// Every problem that a schema finds with a value, at most [`PROBLEMS_MAX`]. Pointers start with `prefix`.
#[must_use]
pub fn problems(schema: &Validator, value: &Value, prefix: &str) -> Vec<FieldProblem> {
    schema
        .iter_errors(value)
        .take(PROBLEMS_MAX)
        .map(|error| FieldProblem {
            pointer: format!("{prefix}{}", error.instance_path()),
            problem: shortened(error.to_string()),
            expected: format!("what the schema says at `{}`", error.schema_path()),
        })
        .collect()
}

fn shortened(text: String) -> String {
    if text.chars().count() <= PROBLEM_MAX_CHARS {
        return text;
    }
    text.chars().take(PROBLEM_MAX_CHARS).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn r11_every_problem_names_its_field() {
        let schema = compile(&json!({"type": "object", "additionalProperties": false, "required": ["a"],
            "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}}))
        .expect("a schema");
        let found = problems(&schema, &json!({"b": "x", "c": 1}), "/input");
        let pointers: Vec<&str> = found.iter().map(|p| p.pointer.as_str()).collect();
        assert!(pointers.contains(&"/input/b"), "{found:?}");
        assert!(found.iter().any(|p| p.problem.contains("\"a\" is a required property")), "{found:?}");
        assert!(found.iter().any(|p| p.problem.contains("'c'")), "{found:?}");
    }

    #[test]
    fn t_i10_remote_references_are_refused_and_problems_are_bounded() {
        assert!(compile(&json!({"$ref": "https://example.com/schema.json"})).is_err());
        assert!(compile(&json!({"type": "nonsense"})).is_err());
        let schema = compile(&json!({"type": "array", "items": {"type": "string"}})).expect("a schema");
        let many = |n: usize| problems(&schema, &json!(vec![1; n]), "").len();
        assert_eq!((many(PROBLEMS_MAX), many(PROBLEMS_MAX + 1)), (PROBLEMS_MAX, PROBLEMS_MAX));
        let long = problems(&schema, &json!([vec![1; 500]]), "");
        assert!(long.iter().all(|p| p.problem.chars().count() <= PROBLEM_MAX_CHARS + 1));
    }
}
