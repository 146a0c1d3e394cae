//! JSON Schemas of tools: checked at installation, compiled when first used, asked at both ends of an execution.
//!
//! Patterns are linear-time regular expressions and nothing remote is ever fetched, so a schema cannot stall the daemon.
//! Problems are told with pointer and expectation, because the reader is often a model that corrects itself.

use std::sync::OnceLock;

use jsonschema::error::ValidationErrorKind;
use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::Value;
use toolkeep_core::redact;
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

/// A schema that was found good once and is compiled when it is first asked.
#[derive(Debug, Default)]
pub struct Lazy(OnceLock<Result<Validator, String>>);

impl Lazy {
    /// A schema that is compiled now.
    ///
    /// # Errors
    /// As [`compile`].
    pub fn compiled(schema: &Value) -> Result<Self, String> {
        Ok(Self(OnceLock::from(Ok(compile(schema)?))))
    }

    /// The compiled form of `schema`, which must be the same every time.
    ///
    /// # Errors
    /// As [`compile`]; only for a schema that nobody has checked before.
    pub fn of(&self, schema: &Value) -> Result<&Validator, &str> {
        self.0.get_or_init(|| compile(schema)).as_ref().map_err(String::as_str)
    }
}

/// Every problem that `schema` (compiled as `validator`) finds with a value, at most [`PROBLEMS_MAX`]. Pointers start with
/// `prefix` and name the member that is missing or too many, not the object around it.
#[must_use]
pub fn problems(validator: &Validator, schema: &Value, value: &Value, prefix: &str) -> Vec<FieldProblem> {
    let mut found = Vec::new();
    // A message repeats the value that is wrong. Where any may be sensitive, none is repeated: the reply is kept, and logged.
    let sensitive = redact::marks(schema);
    for error in validator.iter_errors(value) {
        let at = format!("{prefix}{}", error.instance_path());
        match error.kind() {
            ValidationErrorKind::AdditionalProperties { unexpected }
            | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
                found.extend(unexpected.iter().map(|name| FieldProblem {
                    pointer: format!("{at}/{}", escaped(name)),
                    problem: "is not a member of the input".to_owned(),
                    expected: known_members(schema, error.schema_path().as_str()),
                }));
            }
            ValidationErrorKind::Required { property } => {
                let name = property.as_str().unwrap_or_default();
                found.push(FieldProblem {
                    pointer: format!("{at}/{}", escaped(name)),
                    problem: "is missing".to_owned(),
                    expected: member(schema, error.schema_path().as_str(), name),
                });
            }
            _ => found.push(FieldProblem {
                pointer: at,
                problem: shortened(if sensitive { error.masked().to_string() } else { error.to_string() }),
                expected: keyword(schema, error.schema_path().as_str()),
            }),
        }
        if found.len() >= PROBLEMS_MAX {
            found.truncate(PROBLEMS_MAX);
            break;
        }
    }
    found
}

/// The first rule that a value breaks: where in the value, and which keyword. It repeats nothing of the value but the names of
/// members on the way.
#[must_use]
pub fn first_broken(validator: &Validator, value: &Value) -> Option<String> {
    let error = validator.iter_errors(value).next()?;
    let (at, path) = (error.instance_path().as_str(), error.schema_path().as_str());
    let at = if at.is_empty() { "the input".to_owned() } else { format!("`{}`", shortened(at.to_owned())) };
    Some(format!("{at} breaks `{}`", path.rsplit('/').next().unwrap_or_default()))
}

/// A member name inside of a JSON Pointer (RFC 6901, section 3).
fn escaped(name: &str) -> String {
    shortened(name.replace('~', "~0").replace('/', "~1"))
}

/// The keyword that was broken, as the schema has it: `type: "string"`.
fn keyword(schema: &Value, path: &str) -> String {
    let word = path.rsplit('/').next().unwrap_or_default();
    match schema.pointer(path) {
        Some(wanted) => shortened(format!("{word}: {wanted}")),
        None => format!("what the schema says at `{path}`"),
    }
}

/// The schema of the object that the keyword at `path` belongs to.
fn object<'a>(schema: &'a Value, path: &str) -> Option<&'a Value> {
    schema.pointer(path.rsplit_once('/').map_or("", |(head, _)| head))
}

fn known_members(schema: &Value, path: &str) -> String {
    let names = object(schema, path).and_then(|object| object.get("properties")).and_then(Value::as_object);
    match names {
        Some(names) if !names.is_empty() => {
            shortened(format!("one of {}", names.keys().cloned().collect::<Vec<_>>().join(", ")))
        }
        _ => "no such member".to_owned(),
    }
}

fn member(schema: &Value, path: &str, name: &str) -> String {
    let schema = object(schema, path).and_then(|object| object.get("properties")).and_then(|all| all.get(name));
    let part = |key: &str| schema.and_then(|schema| schema.get(key));
    let description = part("description").and_then(Value::as_str).unwrap_or_default();
    match part("type") {
        Some(wanted) if description.is_empty() => shortened(format!("type: {wanted}")),
        Some(wanted) => shortened(format!("type: {wanted}, {description}")),
        None => "a value, see the input schema".to_owned(),
    }
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
    fn r11_every_problem_names_its_field_and_what_was_expected() {
        let schema = json!({"type": "object", "additionalProperties": false, "required": ["a"],
            "properties": {"a": {"type": "string", "description": "A name."}, "b": {"type": "integer", "minimum": 3}}});
        let validator = compile(&schema).expect("a schema");
        let check = |value: Value, expect: &[(&str, &str, &str)]| {
            let found = problems(&validator, &schema, &value, "/input");
            let found: Vec<_> =
                found.iter().map(|p| (p.pointer.as_str(), p.problem.as_str(), p.expected.as_str())).collect();
            assert_eq!(found, expect);
        };
        check(json!({"a": "x", "b": 3}), &[]);
        check(json!({"b": 3}), &[("/input/a", "is missing", "type: \"string\", A name.")]);
        check(json!({"a": "x", "c/d": 1}), &[("/input/c~1d", "is not a member of the input", "one of a, b")]);
        check(json!({"a": "x", "b": 2}), &[("/input/b", "2 is less than the minimum of 3", "minimum: 3")]);
        check(json!({"a": 1}), &[("/input/a", "1 is not of type \"string\"", "type: \"string\"")]);
    }

    #[test]
    fn r42_a_problem_of_a_schema_with_sensitive_parts_repeats_no_value() {
        let schema = json!({"type": "object", "properties": {
            "iban": {"type": "string", "x-sensitive": true, "pattern": "^DE"}, "age": {"type": "integer"}},
            "not": {"required": ["nothing"]}, "maxProperties": 2});
        let validator = compile(&schema).expect("a schema");
        for wrong in [
            json!({"iban": "CANARY-1"}),
            json!({"iban": 1, "age": "CANARY-2"}),
            json!({"iban": "DE", "nothing": "CANARY-3"}),
            json!({"a": "CANARY-4", "b": 1, "c": 1}),
        ] {
            let found = problems(&validator, &schema, &wrong, "/input");
            assert!(!found.is_empty() && found.iter().all(|p| !p.problem.contains("CANARY")), "{found:?}");
        }
    }

    #[test]
    fn r42_the_first_broken_rule_names_place_and_keyword_and_no_value() {
        let schema = json!({"type": "object", "required": ["age"], "properties": {
            "iban": {"type": "string", "pattern": "^DE"}, "age": {"type": "integer", "minimum": 18}}});
        let validator = compile(&schema).expect("a schema");
        let broken = |value: Value| first_broken(&validator, &value);
        assert_eq!(broken(json!({"iban": "DE1", "age": 18})), None);
        assert_eq!(broken(json!({"iban": "CANARY", "age": 18})).as_deref(), Some("`/iban` breaks `pattern`"));
        assert_eq!(broken(json!({"age": 17})).as_deref(), Some("`/age` breaks `minimum`"));
        assert_eq!(broken(json!({})).as_deref(), Some("the input breaks `required`"));
    }

    #[test]
    fn t_i10_remote_references_are_refused_and_problems_are_bounded() {
        assert!(compile(&json!({"$ref": "https://example.com/schema.json"})).is_err());
        assert!(compile(&json!({"type": "nonsense"})).is_err());
        let schema = json!({"type": "array", "items": {"type": "string"}});
        let validator = compile(&schema).expect("a schema");
        let many = |n: usize| problems(&validator, &schema, &json!(vec![1; n]), "").len();
        assert_eq!((many(PROBLEMS_MAX), many(PROBLEMS_MAX + 1)), (PROBLEMS_MAX, PROBLEMS_MAX));
        let long = problems(&validator, &schema, &json!([vec![1; 500]]), "");
        assert!(long.iter().all(|p| p.problem.chars().count() <= PROBLEM_MAX_CHARS + 1));
    }
}
