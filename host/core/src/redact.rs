//! Redaction: parts of inputs and outputs that are hidden wherever a call is shown (D19).
//!
//! A part is named by a JSON Pointer, in which `*` stands for every member or element at its place. What it names is
//! replaced by one word, so that its length tells nothing either; whoever has a key can add a short digest to the word, by
//! which equal values are recognised and not guessed. Pointers come from `@redact` of a policy and from `x-sensitive` of a
//! schema. What is not there needs no hiding; what a schema says in a way that cannot be followed is hidden as a whole.

use serde_json::{Map, Value};

/// What stands for a hidden part.
pub const HIDDEN: &str = "[redacted]";
/// The keyword by which a schema marks a part.
pub const KEYWORD: &str = "x-sensitive";
/// Deepest part of a schema that is looked for `x-sensitive`.
const DEPTH_MAX: usize = 32;
/// Most pointers of one schema: beyond it the whole is hidden.
const POINTERS_MAX: usize = 256;

/// Hide what a pointer names in a value. Says whether anything was.
pub fn hide(value: &mut Value, pointer: &str) -> bool {
    hide_as(value, pointer, &plain)
}

/// As [`hide`], with the word that `mark` gives for what is hidden.
pub fn hide_as(value: &mut Value, pointer: &str, mark: &dyn Fn(&Value) -> String) -> bool {
    let mut parts = pointer.split('/');
    if parts.next() != Some("") {
        return false;
    }
    let parts: Vec<String> = parts.map(|part| part.replace("~1", "/").replace("~0", "~")).collect();
    within(value, &parts, mark)
}

fn plain(_hidden: &Value) -> String {
    HIDDEN.to_owned()
}

/// Digits of the digest that a word for a hidden part may have.
pub const MARK_DIGITS: usize = 8;

/// Whether a value is the word for a hidden part: it is not hidden again, which would lose its digest. Nothing else passes,
/// so that nobody can put a value between the brackets.
#[must_use]
pub fn is_hidden(value: &Value) -> bool {
    let Some(text) = value.as_str() else { return false };
    let digest = text.strip_prefix("[redacted:").and_then(|rest| rest.strip_suffix(']'));
    let digits = |digest: &str| {
        digest.len() == MARK_DIGITS && digest.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f'))
    };
    text == HIDDEN || digest.is_some_and(digits)
}

fn within(value: &mut Value, parts: &[String], mark: &dyn Fn(&Value) -> String) -> bool {
    let Some((part, rest)) = parts.split_first() else {
        let seen = !value.is_null();
        if seen && !is_hidden(value) {
            *value = Value::String(mark(value));
        }
        return seen;
    };
    match value {
        Value::Object(members) if part == "*" => {
            members.values_mut().fold(false, |hidden, member| within(member, rest, mark) | hidden)
        }
        Value::Array(items) if part == "*" => {
            items.iter_mut().fold(false, |hidden, item| within(item, rest, mark) | hidden)
        }
        Value::Object(members) => members.get_mut(part).is_some_and(|member| within(member, rest, mark)),
        Value::Array(items) => {
            part.parse::<usize>().ok().and_then(|at| items.get_mut(at)).is_some_and(|item| within(item, rest, mark))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Hide every part of `value` that a pointer under `prefix` names, for example `/input/iban` under `/input`. Says whether
/// anything was hidden.
pub fn hide_under<'p>(value: &mut Value, prefix: &str, pointers: impl IntoIterator<Item = &'p String>) -> bool {
    hide_under_as(value, prefix, pointers, &plain)
}

/// As [`hide_under`], with the word that `mark` gives for what is hidden. The outermost parts are hidden first, so that a
/// digest is of the whole part, whatever else names something inside of it.
pub fn hide_under_as<'p>(
    value: &mut Value,
    prefix: &str,
    pointers: impl IntoIterator<Item = &'p String>,
    mark: &dyn Fn(&Value) -> String,
) -> bool {
    let own = pointers.into_iter().filter_map(|pointer| pointer.strip_prefix(prefix));
    let mut own: Vec<&str> = own.filter(|rest| rest.is_empty() || rest.starts_with('/')).collect();
    own.sort_by_key(|rest| rest.matches('/').count());
    own.into_iter().fold(false, |hidden, rest| hide_as(value, rest, mark) | hidden)
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
    if !marks(schema) {
        return Vec::new();
    }
    let mut search = Search { root: schema, found: Vec::new(), within: Vec::new() };
    search.collect(schema, prefix, 0);
    if search.found.len() > POINTERS_MAX {
        return vec![prefix.to_owned()];
    }
    search.found.sort();
    search.found.dedup();
    search.found
}

/// Whether a schema marks any part as sensitive, followed or not. What is too deep to look at counts as if it did.
#[must_use]
pub fn marks(schema: &Value) -> bool {
    marks_anything(schema, 0)
}

fn marks_anything(schema: &Value, depth: usize) -> bool {
    if depth > 4 * DEPTH_MAX {
        return true;
    }
    match schema {
        Value::Object(members) => {
            members.get(KEYWORD) == Some(&Value::Bool(true))
                || members.values().any(|member| marks_anything(member, depth + 1))
        }
        Value::Array(items) => items.iter().any(|item| marks_anything(item, depth + 1)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// A walk through one schema.
struct Search<'s> {
    root: &'s Value,
    found: Vec<String>,
    /// The references that are being followed.
    within: Vec<&'s str>,
}

impl<'s> Search<'s> {
    fn collect(&mut self, schema: &'s Value, pointer: &str, depth: usize) {
        if depth > DEPTH_MAX || self.found.len() > POINTERS_MAX {
            // What cannot be looked through is hidden as a whole.
            self.found.push(pointer.to_owned());
            return;
        }
        let Value::Object(schema) = schema else { return };
        if schema.get(KEYWORD) == Some(&Value::Bool(true)) {
            self.found.push(pointer.to_owned());
            return;
        }
        for word in ["$ref", "$dynamicRef", "$recursiveRef"] {
            if let Some(target) = schema.get(word).and_then(Value::as_str) {
                self.follow(target, pointer, depth);
            }
        }
        self.members(schema, pointer, depth);
        for same in ["allOf", "anyOf", "oneOf"] {
            for part in schema.get(same).and_then(Value::as_array).into_iter().flatten() {
                self.collect(part, pointer, depth + 1);
            }
        }
        for same in ["if", "then", "else"] {
            if let Some(part) = schema.get(same) {
                self.collect(part, pointer, depth + 1);
            }
        }
        for part in schema.get("dependentSchemas").and_then(Value::as_object).into_iter().flat_map(Map::values) {
            self.collect(part, pointer, depth + 1);
        }
    }

    /// What a schema says of members and elements.
    fn members(&mut self, schema: &'s Map<String, Value>, pointer: &str, depth: usize) {
        for (name, member) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let name = name.replace('~', "~0").replace('/', "~1");
            self.collect(member, &format!("{pointer}/{name}"), depth + 1);
        }
        let any = format!("{pointer}/*");
        for member in schema.get("patternProperties").and_then(Value::as_object).into_iter().flat_map(Map::values) {
            self.collect(member, &any, depth + 1);
        }
        for many in [
            "items",
            "additionalItems",
            "additionalProperties",
            "contains",
            "unevaluatedItems",
            "unevaluatedProperties",
        ] {
            match schema.get(many) {
                // Drafts before 2020-12 write a list where the place counts.
                Some(Value::Array(places)) => places.iter().for_each(|part| self.collect(part, &any, depth + 1)),
                Some(member) => self.collect(member, &any, depth + 1),
                None => {}
            }
        }
        for item in schema.get("prefixItems").and_then(Value::as_array).into_iter().flatten() {
            self.collect(item, &any, depth + 1);
        }
    }

    /// A reference. One that leads back into itself, or that cannot be found, hides what it stands for.
    fn follow(&mut self, target: &'s str, pointer: &str, depth: usize) {
        if self.within.contains(&target) {
            self.found.push(pointer.to_owned());
            return;
        }
        let Some(schema) = resolve(self.root, target) else {
            self.found.push(pointer.to_owned());
            return;
        };
        self.within.push(target);
        self.collect(schema, pointer, depth + 1);
        self.within.pop();
    }
}

/// What a reference within the same document names: a pointer, or an anchor.
fn resolve<'s>(root: &'s Value, target: &str) -> Option<&'s Value> {
    let fragment = target.strip_prefix('#')?;
    if fragment.is_empty() {
        return Some(root);
    }
    if fragment.starts_with('/') {
        // Names of definitions that need percent-encoding are not followed, and hidden thereby.
        return root.pointer(fragment).filter(|_| !fragment.contains('%'));
    }
    anchored(root, fragment, 0)
}

fn anchored<'s>(schema: &'s Value, anchor: &str, depth: usize) -> Option<&'s Value> {
    if depth > DEPTH_MAX {
        return None;
    }
    match schema {
        Value::Object(members) => {
            let named = |word: &str| members.get(word).and_then(Value::as_str) == Some(anchor);
            if named("$anchor") || named("$dynamicAnchor") {
                return Some(schema);
            }
            members.values().find_map(|member| anchored(member, anchor, depth + 1))
        }
        Value::Array(items) => items.iter().find_map(|item| anchored(item, anchor, depth + 1)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
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

    #[test]
    fn r42_references_are_followed_and_what_leads_back_into_itself_is_hidden_as_a_whole() {
        let schema = json!({"$defs": {
                "iban": {"type": "string", "x-sensitive": true, "$anchor": "account"},
                "person": {"properties": {"name": {"x-sensitive": true}, "age": {"type": "integer"}}},
                "tree": {"properties": {"label": {"type": "string"}, "secret": {"x-sensitive": true},
                    "children": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}}},
            "properties": {
                "to": {"$ref": "#/$defs/iban"},
                "by": {"$ref": "#account"},
                "people": {"items": {"$ref": "#/$defs/person"}},
                "first": {"items": [{"x-sensitive": true}, {"type": "string"}]},
                "tree": {"$ref": "#/$defs/tree"},
                "lost": {"$ref": "https://example.com/schema"},
                "plain": {"type": "string"}},
            "patternProperties": {"^x-": {"oneOf": [{"$ref": "#/$defs/iban"}]}},
            "dependentSchemas": {"to": {"properties": {"bank": {"x-sensitive": true}}}}});
        assert_eq!(
            sensitive(&schema, "/input"),
            [
                "/input/*",
                "/input/bank",
                "/input/by",
                "/input/first/*",
                "/input/lost",
                "/input/people/*/name",
                "/input/to",
                "/input/tree/children/*",
                "/input/tree/secret",
            ]
        );
        // A schema that marks nothing hides nothing, however it turns around itself.
        let round = json!({"$defs": {"tree": {"properties": {"a": {"$ref": "#/$defs/tree"}, "b": {"$ref": "#"}}}},
            "$ref": "#/$defs/tree"});
        assert_eq!(sensitive(&round, "/input"), [] as [String; 0]);
    }

    #[test]
    fn r42_a_hidden_part_gets_the_word_for_the_whole_of_it_once() {
        let mark = |value: &Value| format!("[redacted:{:08}]", value.to_string().len());
        let mut value = json!({"a": {"b": "xy", "c": 1}, "d": ["xy", "z"]});
        let pointers =
            ["/input/a/b".to_owned(), "/input/a".to_owned(), "/input/d/*".to_owned(), "/input/d/0".to_owned()];
        assert!(hide_under_as(&mut value, "/input", &pointers, &mark));
        assert_eq!(value, json!({"a": "[redacted:00000016]", "d": ["[redacted:00000004]", "[redacted:00000003]"]}));
        assert!(is_hidden(&json!(HIDDEN)) && is_hidden(&json!("[redacted:0123abcd]")));
        for value in ["[redacted", "x[redacted]", "[redacted:0123abcde]", "[redacted:0123ABCD]", "[redacted: secret]"] {
            assert!(!is_hidden(&json!(value)), "{value}");
        }
        assert!(!is_hidden(&json!(1)));
    }
}
