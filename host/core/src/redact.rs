//! Redaction: parts of inputs and outputs that are hidden wherever a call is shown (D19).
//!
//! A part is named by a JSON Pointer, in which `*` stands for every member or element at its place. What it names is
//! replaced by one word, so that its length tells nothing either. Pointers come from `@redact` of a policy and from
//! `x-sensitive` of a schema. What is not there needs no hiding.

use serde_json::Value;

/// What stands for a hidden part.
pub const HIDDEN: &str = "[redacted]";
/// Deepest part of a schema that is looked for `x-sensitive`.
const DEPTH_MAX: usize = 32;
/// Most pointers of one schema: beyond it the whole is hidden.
const POINTERS_MAX: usize = 256;

/// Hide what a pointer names in a value. Says whether anything was.
pub fn hide(value: &mut Value, pointer: &str) -> bool {
    let mut parts = pointer.split('/');
    if parts.next() != Some("") {
        return false;
    }
    let parts: Vec<String> = parts.map(|part| part.replace("~1", "/").replace("~0", "~")).collect();
    within(value, &parts)
}

fn within(value: &mut Value, parts: &[String]) -> bool {
    let Some((part, rest)) = parts.split_first() else {
        let seen = !value.is_null();
        if seen {
            *value = Value::String(HIDDEN.to_owned());
        }
        return seen;
    };
    match value {
        Value::Object(members) if part == "*" => {
            members.values_mut().fold(false, |hidden, member| within(member, rest) | hidden)
        }
        Value::Array(items) if part == "*" => items.iter_mut().fold(false, |hidden, item| within(item, rest) | hidden),
        Value::Object(members) => members.get_mut(part).is_some_and(|member| within(member, rest)),
        Value::Array(items) => {
            part.parse::<usize>().ok().and_then(|at| items.get_mut(at)).is_some_and(|item| within(item, rest))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Hide every part of `value` that a pointer under `prefix` names, for example `/input/iban` under `/input`. Says whether
/// anything was hidden.
pub fn hide_under<'p>(value: &mut Value, prefix: &str, pointers: impl IntoIterator<Item = &'p String>) -> bool {
    let own = pointers.into_iter().filter_map(|pointer| pointer.strip_prefix(prefix));
    own.filter(|rest| rest.is_empty() || rest.starts_with('/')).fold(false, |hidden, rest| hide(value, rest) | hidden)
}

/// Whether a part of a value may hold, or be held by, what one of the pointers hides.
pub fn may_touch<'p>(part: &str, pointers: impl IntoIterator<Item = &'p String>) -> bool {
    let same =
        |pointer: &str| pointer.split('/').zip(part.split('/')).all(|(hidden, at)| hidden == "*" || hidden == at);
    pointers.into_iter().any(|pointer| same(pointer))
}

/// The parts that a schema marks with `"x-sensitive": true`, as pointers that begin with `prefix`.
#[must_use]
pub fn sensitive(schema: &Value, prefix: &str) -> Vec<String> {
    let mut found = Vec::new();
    collect(schema, prefix, &mut found, 0);
    if found.len() > POINTERS_MAX {
        return vec![prefix.to_owned()];
    }
    found
}

fn collect(schema: &Value, pointer: &str, found: &mut Vec<String>, depth: usize) {
    if depth > DEPTH_MAX || found.len() > POINTERS_MAX {
        // What cannot be looked through is hidden as a whole.
        found.push(pointer.to_owned());
        return;
    }
    let Value::Object(schema) = schema else { return };
    if schema.get("x-sensitive") == Some(&Value::Bool(true)) {
        found.push(pointer.to_owned());
        return;
    }
    for (name, member) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let name = name.replace('~', "~0").replace('/', "~1");
        collect(member, &format!("{pointer}/{name}"), found, depth + 1);
    }
    for many in ["items", "additionalProperties", "contains", "unevaluatedProperties"] {
        if let Some(member) = schema.get(many) {
            collect(member, &format!("{pointer}/*"), found, depth + 1);
        }
    }
    for item in schema.get("prefixItems").and_then(Value::as_array).into_iter().flatten() {
        collect(item, &format!("{pointer}/*"), found, depth + 1);
    }
    for same in ["allOf", "anyOf", "oneOf"] {
        for part in schema.get(same).and_then(Value::as_array).into_iter().flatten() {
            collect(part, pointer, found, depth + 1);
        }
    }
    for same in ["if", "then", "else"] {
        if let Some(part) = schema.get(same) {
            collect(part, pointer, found, depth + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn r36_what_a_pointer_names_is_replaced_and_nothing_else() {
        for (pointer, wanted) in [
            ("/a", json!({"a": HIDDEN, "list": [{"x": 1}, {"x": 2}], "b/c": 3, "n": null})),
            ("/list/*/x", json!({"a": 1, "list": [{"x": HIDDEN}, {"x": HIDDEN}], "b/c": 3, "n": null})),
            ("/list/1", json!({"a": 1, "list": [{"x": 1}, HIDDEN], "b/c": 3, "n": null})),
            ("/b~1c", json!({"a": 1, "list": [{"x": 1}, {"x": 2}], "b/c": HIDDEN, "n": null})),
            ("", json!(HIDDEN)),
            ("/nobody", json!({"a": 1, "list": [{"x": 1}, {"x": 2}], "b/c": 3, "n": null})),
            ("/n", json!({"a": 1, "list": [{"x": 1}, {"x": 2}], "b/c": 3, "n": null})),
            ("a", json!({"a": 1, "list": [{"x": 1}, {"x": 2}], "b/c": 3, "n": null})),
        ] {
            let mut value = json!({"a": 1, "list": [{"x": 1}, {"x": 2}], "b/c": 3, "n": null});
            let before = value.clone();
            assert_eq!(hide(&mut value, pointer), before != wanted, "{pointer}");
            assert_eq!(value, wanted, "{pointer}");
        }
        let mut input = json!({"iban": "DE", "iban2": "FR"});
        let pointers = ["/input/iban".to_owned(), "/output/iban2".to_owned(), "/inputs".to_owned()];
        assert!(hide_under(&mut input, "/input", &pointers));
        assert_eq!(input, json!({"iban": HIDDEN, "iban2": "FR"}));
        assert!(hide_under(&mut input, "/input", &["/input".to_owned()]) && input == json!(HIDDEN));
    }

    #[test]
    fn r36_sensitive_parts_of_a_schema_are_found_wherever_they_stand() {
        let schema = json!({"type": "object", "properties": {
            "iban": {"type": "string", "x-sensitive": true},
            "people": {"type": "array", "items": {"properties": {"na/me": {"x-sensitive": true}}}},
            "either": {"anyOf": [{"type": "null"}, {"x-sensitive": true}]},
            "plain": {"x-sensitive": false}},
            "additionalProperties": {"x-sensitive": true}});
        let mut found = sensitive(&schema, "/input");
        found.sort();
        assert_eq!(found, ["/input/*", "/input/either", "/input/iban", "/input/people/*/na~1me"]);
        assert_eq!(sensitive(&json!(true), "/output"), [] as [String; 0]);
        let deep = (0..=DEPTH_MAX).fold(json!({"x-sensitive": true}), |inner, _| json!({"items": inner}));
        assert_eq!(sensitive(&deep, "/output").len(), 1);
        let many = |n: usize| {
            let members: serde_json::Map<_, _> =
                (0..n).map(|at| (format!("m{at}"), json!({"x-sensitive": true}))).collect();
            sensitive(&json!({"properties": members}), "/o").len()
        };
        assert_eq!((many(POINTERS_MAX), many(POINTERS_MAX + 1)), (POINTERS_MAX, 1));
    }
}
