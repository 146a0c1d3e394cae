//! A tool as policies see it: its attributes, and its input as far as Cedar can type it.
//!
//! Cedar knows text, 64-bit numbers, truth values, sets and records. Members of an input schema that are something else
//! (fractions, mixtures, open objects) are left out of the type, and it is said which and why: a policy that names one does
//! not validate. Values are converted along the type only, so what is left out never reaches a policy.

use std::collections::BTreeMap;
use std::sync::Arc;

use cedar_policy::RestrictedExpression;
use serde_json::{Map, Value, json};
use toolkeep_core::digest::Digest;
use toolkeep_core::id::ToolName;
use toolkeep_core::json::INTEGER_MAX;
use toolkeep_core::manifest::{Amount, Manifest};
use toolkeep_core::tier::Tier;
use toolkeep_core::wit;

/// Deepest nesting of objects, lists and references that is typed: what a person still writes a policy about.
const DEPTH_MAX: u32 = 8;
/// Most members of one tool's input that are typed, counting those of nested objects.
const MEMBERS_MAX: usize = 256;
/// Digits after the point of Cedar's decimals.
const FRACTION_DIGITS: usize = 4;

/// A tool as policies see it.
#[derive(Debug, Clone)]
pub struct ToolShape {
    /// What agents call it.
    pub name: ToolName,
    /// Version shown to people.
    pub version: String,
    /// The tier that the manifest declares.
    pub tier: Tier,
    /// SHA-256 of the component.
    pub component: Digest,
    /// SHA-256 of the manifest text.
    pub manifest: Digest,
    /// Numbers of the input that policies may compare.
    pub amounts: Arc<[Amount]>,
    /// The input as far as Cedar can type it.
    pub input: BTreeMap<String, Member>,
    /// What of the input policies cannot see.
    pub left_out: Vec<LeftOut>,
}

/// A part of an input that policies cannot see.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct LeftOut {
    /// Where: a JSON Pointer.
    pub pointer: String,
    /// Why.
    pub why: &'static str,
}

/// The type of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InputType {
    /// `String`.
    Text,
    /// `Long`.
    Whole,
    /// `Bool`.
    Truth,
    /// `Set`.
    Several(Box<Self>),
    /// A record.
    Object(BTreeMap<String, Member>),
}

/// A member of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its type.
    pub of: InputType,
    /// Whether it is always there.
    pub required: bool,
}

/// A value that its type cannot hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{pointer}` {problem}")]
pub struct Unfit {
    /// Where: a JSON Pointer into the call.
    pub pointer: String,
    /// What is wrong.
    pub problem: &'static str,
}

impl ToolShape {
    /// The shape of an installed tool.
    #[must_use]
    pub fn new(name: ToolName, tier: Tier, component: Digest, manifest: &Manifest, input_schema: &Value) -> Self {
        let mut typing = Typing { root: input_schema, left_out: Vec::new(), members: 0 };
        let input = match typing.of(input_schema, "/input", 0) {
            Ok(Typed { of: InputType::Object(members), .. }) => members,
            Ok(_) => typing.leave("/input", "is not an object"),
            Err(why) => typing.leave("/input", why),
        };
        Self {
            name,
            version: manifest.version.clone(),
            tier,
            component,
            manifest: manifest.digest,
            amounts: Arc::clone(&manifest.amounts),
            input,
            left_out: typing.left_out,
        }
    }

    /// The shape of a tool of the daemon itself, which is in no manifest and whose input policies do not see.
    #[must_use]
    pub fn internal(name: ToolName, tier: Tier, component: Digest, manifest: Digest) -> Self {
        Self {
            name,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            tier,
            component,
            manifest,
            amounts: Arc::default(),
            input: BTreeMap::new(),
            left_out: Vec::new(),
        }
    }

    /// Whether policies see the same tool in both.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        (self.tier, self.component, self.manifest) == (other.tier, other.component, other.manifest)
            && self.name == other.name
    }

    /// The types of the two parts of a context that differ from tool to tool, as Cedar's JSON schema has them.
    #[must_use]
    pub fn types(&self) -> (Value, Value) {
        let amount = json!({"type": "Extension", "name": "decimal", "required": false});
        let amounts: Map<String, Value> = self.amounts.iter().map(|each| (each.name.clone(), amount.clone())).collect();
        (record(&self.input), json!({"type": "Record", "attributes": amounts}))
    }

    /// The input along its type.
    ///
    /// # Errors
    /// A number exceeds 64 bits. Schemas are checked before, so nothing else happens.
    pub fn input_of(&self, input: &Value) -> Result<RestrictedExpression, Unfit> {
        object(&self.input, input, "/input")
    }

    /// The amounts that are there.
    ///
    /// # Errors
    /// One is not a number, or has more digits than Cedar's decimals hold.
    pub fn amounts_of(&self, input: &Value) -> Result<RestrictedExpression, Unfit> {
        let mut found = Vec::with_capacity(self.amounts.len());
        for amount in self.amounts.iter() {
            if let Some(value) = input.pointer(&amount.pointer).filter(|value| !value.is_null()) {
                let unfit = |problem| Unfit { pointer: format!("/input{}", amount.pointer), problem };
                let text = decimal(value).map_err(unfit)?;
                found.push((amount.name.clone(), RestrictedExpression::new_decimal(text)));
            }
        }
        RestrictedExpression::new_record(found)
            .map_err(|_| Unfit { pointer: "/input".to_owned(), problem: "has two amounts of one name" })
    }
}

impl ToolShape {
    /// The amounts of an input by name, as decimals; those that are none are left out.
    #[must_use]
    pub fn amount_texts(&self, input: &Value) -> BTreeMap<String, String> {
        let text = |pointer: &str| input.pointer(pointer).and_then(|value| decimal(value).ok());
        self.amounts.iter().filter_map(|amount| Some((amount.name.clone(), text(&amount.pointer)?))).collect()
    }
}

/// A number as Cedar writes decimals: digits, a point, one to four digits.
fn decimal(value: &Value) -> Result<String, &'static str> {
    let text = match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        _ => return Err("is an amount, but not a number"),
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole.strip_prefix('-').unwrap_or(whole)) || !digits(fraction) {
        return Err("is an amount, but not a decimal number");
    }
    let fraction = fraction.trim_end_matches('0');
    // Nineteen digits and four after the point are more than Cedar holds; the last bit is its own to check.
    if fraction.len() > FRACTION_DIGITS {
        return Err("is an amount with more than four digits after the point");
    }
    let fraction = if fraction.is_empty() { "0" } else { fraction };
    Ok(format!("{whole}.{fraction}"))
}

fn record(members: &BTreeMap<String, Member>) -> Value {
    let attributes: Map<String, Value> = members
        .iter()
        .map(|(name, member)| {
            let mut of = declared(&member.of);
            if let Value::Object(of) = &mut of {
                of.insert("required".to_owned(), Value::Bool(member.required));
            }
            (name.clone(), of)
        })
        .collect();
    json!({"type": "Record", "attributes": attributes})
}

fn declared(of: &InputType) -> Value {
    match of {
        InputType::Text => json!({"type": "String"}),
        InputType::Whole => json!({"type": "Long"}),
        InputType::Truth => json!({"type": "Boolean"}),
        InputType::Several(of) => json!({"type": "Set", "element": declared(of)}),
        InputType::Object(members) => record(members),
    }
}

fn object(members: &BTreeMap<String, Member>, value: &Value, pointer: &str) -> Result<RestrictedExpression, Unfit> {
    let mut found = Vec::with_capacity(members.len());
    for (name, member) in members {
        if let Some(value) = value.get(name).filter(|value| member.required || !value.is_null()) {
            found.push((name.clone(), typed(&member.of, value, &format!("{pointer}/{name}"))?));
        }
    }
    RestrictedExpression::new_record(found)
        .map_err(|_| Unfit { pointer: pointer.to_owned(), problem: "has two members of one name" })
}

fn typed(of: &InputType, value: &Value, pointer: &str) -> Result<RestrictedExpression, Unfit> {
    let unfit = |problem| Unfit { pointer: pointer.to_owned(), problem };
    match (of, value) {
        (InputType::Text, Value::String(text)) => Ok(RestrictedExpression::new_string(text.clone())),
        (InputType::Truth, Value::Bool(truth)) => Ok(RestrictedExpression::new_bool(*truth)),
        (InputType::Whole, Value::Number(number)) => {
            let whole = number.as_i64().or_else(|| whole(number.as_f64()?));
            whole.map(RestrictedExpression::new_long).ok_or_else(|| unfit("does not fit into 64 bits"))
        }
        // What is beyond 2^53 - 1 travels as its digits.
        (InputType::Whole, Value::String(digits)) => {
            let whole = digits.parse::<i64>().map_err(|_| unfit("does not fit into 64 bits"))?;
            // One number has one spelling: what the tool is given is what was decided about.
            if whole.unsigned_abs() <= INTEGER_MAX || whole.to_string() != *digits {
                return Err(unfit("is not written as such a number is"));
            }
            Ok(RestrictedExpression::new_long(whole))
        }
        (InputType::Several(of), Value::Array(values)) => {
            let values: Result<Vec<_>, Unfit> = values.iter().map(|value| typed(of, value, pointer)).collect();
            Ok(RestrictedExpression::new_set(values?))
        }
        (InputType::Object(members), Value::Object(_)) => object(members, value, pointer),
        _ => Err(unfit("does not have the type that policies see")),
    }
}

/// A number without a fraction that was written with one: JSON Schema takes `1.0` for an integer.
#[expect(clippy::cast_possible_truncation, reason = "the value is whole and below 2^53, so the cast is exact")]
fn whole(number: f64) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    (number.fract() == 0.0 && number.abs() < EXACT).then_some(number as i64)
}

struct Typing<'a> {
    root: &'a Value,
    left_out: Vec<LeftOut>,
    members: usize,
}

struct Typed {
    of: InputType,
    nullable: bool,
}

impl Typing<'_> {
    fn leave(&mut self, pointer: &str, why: &'static str) -> BTreeMap<String, Member> {
        self.left_out.push(LeftOut { pointer: pointer.to_owned(), why });
        BTreeMap::new()
    }

    fn of(&mut self, schema: &Value, pointer: &str, depth: u32) -> Result<Typed, &'static str> {
        if depth > DEPTH_MAX {
            return Err("is nested too deeply");
        }
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            let root = self.root;
            let target = reference.strip_prefix('#').and_then(|pointer| root.pointer(pointer));
            return self.of(target.ok_or("is a reference that cannot be followed")?, pointer, depth + 1);
        }
        let (word, nullable) = type_word(schema)?;
        let of = match word {
            "string" => InputType::Text,
            "integer" => InputType::Whole,
            "boolean" => InputType::Truth,
            "number" => return Err("may have a fraction; give it a name in `[amounts]`"),
            "array" => {
                let element = schema.get("items").ok_or("is a list of anything")?;
                match self.of(element, &format!("{pointer}/*"), depth + 1)? {
                    Typed { nullable: true, .. } => return Err("is a list with nulls"),
                    Typed { of, .. } => InputType::Several(Box::new(of)),
                }
            }
            "object" => InputType::Object(self.members_of(schema, pointer, depth)?),
            _ => return Err("has no type that policies know"),
        };
        Ok(Typed { of, nullable })
    }

    fn members_of(
        &mut self,
        schema: &Value,
        pointer: &str,
        depth: u32,
    ) -> Result<BTreeMap<String, Member>, &'static str> {
        let required = |name: &str| {
            let names = schema.get("required").and_then(Value::as_array);
            names.is_some_and(|names| names.iter().any(|required| required == name))
        };
        let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
            return if depth == 0 { Ok(BTreeMap::new()) } else { Err("is an open object") };
        };
        let mut members = BTreeMap::new();
        for (name, property) in properties {
            let at = format!("{pointer}/{name}");
            self.members += 1;
            let typed = if self.members > MEMBERS_MAX {
                Err("is one member too many")
            } else {
                self.of(property, &at, depth + 1)
            };
            match typed {
                Ok(Typed { of, nullable }) => {
                    members.insert(name.clone(), Member { of, required: required(name) && !nullable });
                }
                Err(why) => self.left_out.push(LeftOut { pointer: at, why }),
            }
        }
        Ok(members)
    }
}

/// The one type of a schema, and whether null is allowed besides.
fn type_word(schema: &Value) -> Result<(&str, bool), &'static str> {
    match schema.get("type") {
        Some(Value::String(word)) => Ok((word, false)),
        Some(Value::Array(words)) => {
            let mut others = words.iter().filter_map(Value::as_str).filter(|word| *word != "null");
            let nullable = words.iter().any(|word| word == "null");
            match (others.next(), others.next()) {
                (Some(word), None) => Ok((word, nullable)),
                (Some("integer"), Some("string")) if wit::is_wide(schema) => Ok(("integer", nullable)),
                _ => Err("has several types"),
            }
        }
        _ => {
            let texts = |values: &[Value]| !values.is_empty() && values.iter().all(Value::is_string);
            let listed = schema.get("enum").and_then(Value::as_array).is_some_and(|values| texts(values));
            if listed || schema.get("const").is_some_and(Value::is_string) {
                Ok(("string", false))
            } else {
                Err("has no single type")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typing(schema: &Value) -> (BTreeMap<String, Member>, Vec<(String, &'static str)>) {
        let mut typing = Typing { root: schema, left_out: Vec::new(), members: 0 };
        let members = match typing.of(schema, "/input", 0) {
            Ok(Typed { of: InputType::Object(members), .. }) => members,
            _ => BTreeMap::new(),
        };
        let mut left_out: Vec<_> = typing.left_out.into_iter().map(|left| (left.pointer, left.why)).collect();
        left_out.sort();
        (members, left_out)
    }

    #[test]
    fn r17_what_cedar_can_type_is_typed_and_the_rest_is_named() {
        let schema = json!({"type": "object", "required": ["to", "count"], "$defs": {"flag": {"type": "boolean"}},
        "properties": {
            "to": {"type": "array", "items": {"type": "string"}},
            "count": {"type": ["integer", "null"]},
            "flag": {"$ref": "#/$defs/flag"},
            "kind": {"enum": ["a", "b"]},
            "price": {"type": "number"},
            "deep": {"type": "object", "properties": {"any": {}, "name": {"type": "string"}}},
            "open": {"type": "object"},
            "either": {"type": ["string", "integer"]},
            "wide": {"type": ["integer", "string", "null"], "format": "uint64", "pattern": "^[1-9][0-9]{15,19}$"},
            "tall": {"type": ["integer", "string"], "format": "uint64"},
            "loop": {"$ref": "#/properties/loop"},
            "away": {"$ref": "https://example.com/x"},
        }});
        let (members, left_out) = typing(&schema);
        let required: Vec<_> = members.iter().filter(|(_, m)| m.required).map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            members.keys().map(String::as_str).collect::<Vec<_>>(),
            ["count", "deep", "flag", "kind", "to", "wide"]
        );
        assert_eq!(required, ["to"], "what may be null may be missing");
        let left: Vec<_> = left_out.iter().map(|(pointer, _)| pointer.as_str()).collect();
        assert_eq!(
            left,
            [
                "/input/away",
                "/input/deep/any",
                "/input/either",
                "/input/loop",
                "/input/open",
                "/input/price",
                "/input/tall"
            ]
        );
    }

    #[test]
    fn t_i10_members_and_depth_are_bounded() {
        let wide = |n: usize| {
            let members: Map<String, Value> = (0..n).map(|at| (at.to_string(), json!({"type": "string"}))).collect();
            typing(&json!({"type": "object", "properties": members})).1.len()
        };
        assert_eq!((wide(MEMBERS_MAX), wide(MEMBERS_MAX + 1)), (0, 1));
        let deep = |n: u32| {
            let inner = (0..n).fold(json!({"type": "string"}), |of, _| json!({"type": "array", "items": of}));
            typing(&json!({"type": "object", "properties": {"a": inner}})).1.len()
        };
        assert_eq!((deep(DEPTH_MAX - 1), deep(DEPTH_MAX)), (0, 1));
    }

    #[test]
    fn amounts_are_exact_decimals_or_nothing() {
        for (value, text) in [
            (json!(12), "12.0"),
            (json!(-12.5), "-12.5"),
            (json!("99.9900"), "99.99"),
            (json!("0.12340"), "0.1234"),
            (json!(0.5), "0.5"),
        ] {
            assert_eq!(decimal(&value).as_deref(), Ok(text));
        }
        for value in [json!("0.12345"), json!(1e300), json!("1e3"), json!("12."), json!("+1"), json!(""), json!([1])] {
            assert!(decimal(&value).is_err(), "{value}");
        }
    }

    #[test]
    fn whole_numbers_of_every_spelling_fit_64_bits_or_are_refused() {
        let number = |value: &Value| typed(&InputType::Whole, value, "/input/n").is_ok();
        assert!(number(&json!(i64::MAX)) && number(&json!(i64::MIN)) && number(&json!(3.0)));
        assert!(!number(&json!(u64::MAX)) && !number(&json!(9_007_199_254_740_992.0)) && !number(&json!(0.5)));
        assert!(number(&json!("9007199254740993")) && number(&json!("-9223372036854775808")));
        assert!(!number(&json!("9223372036854775808")) && !number(&json!("x")));
        for other in ["+9007199254740993", "09007199254740993", "9007199254740991", "7", "-0", ""] {
            assert!(!number(&json!(other)), "another spelling: {other}");
        }
    }
}
