//! JSON Schema (2020-12) of WIT types: what a tool is shown to take and return.
//!
//! One type has one schema and one spelling of each of its values, in both directions. `list<u8>` is base64. An integer of
//! 64 bits is a number as far as a double tells it from its neighbours, and a string of its digits beyond: such numbers
//! have no canonical text, and programs in JavaScript would round them. NaN and the infinities are strings for want of
//! anything in JSON. A case without a value is its name, one with a value an object with that one member.

use serde_json::{Map, Value, json};

use super::{Case, Field, Function, Type};
use crate::json::INTEGER_MAX;

/// The largest `f32` as it is written: its shortest text, which read as a double is a little more than the number itself.
const F32_MOST: f64 = 3.402_823_5e38;
/// The digits of an integer beyond [`INTEGER_MAX`] that 64 bits may hold: 16 to 20 of them.
const WIDE: &str = "[1-9][0-9]{15,19}";

/// Whether this is the schema of an integer of 64 bits as it is written here, null allowed or not: a number, or its digits where
/// it is beyond [`INTEGER_MAX`].
#[must_use]
pub fn is_wide(schema: &Value) -> bool {
    let is = |ty: Type| {
        let ours = ty.schema();
        ["format", "pattern"]
            .iter()
            .all(|keyword| schema.get(keyword).is_some() && schema.get(keyword) == ours.get(keyword))
    };
    is(Type::S64) || is(Type::U64)
}

impl Function {
    /// The schema of its input: an object with its parameters as members.
    #[must_use]
    pub fn input_schema(&self) -> Value {
        object(&self.params)
    }

    /// The schema of its output.
    #[must_use]
    pub fn output_schema(&self) -> Value {
        self.output().map_or_else(nothing, Type::schema)
    }

    /// The schema of the error that it returns.
    #[must_use]
    pub fn error_schema(&self) -> Value {
        self.error().map_or_else(nothing, Type::schema)
    }
}

fn nothing() -> Value {
    json!({"type": "null"})
}

impl Type {
    /// The schema of its values.
    #[must_use]
    pub fn schema(&self) -> Value {
        match self {
            Self::Bool => json!({"type": "boolean"}),
            Self::S8 => integer(i8::MIN.into(), i8::MAX.into()),
            Self::U8 => integer(0, u8::MAX.into()),
            Self::S16 => integer(i16::MIN.into(), i16::MAX.into()),
            Self::U16 => integer(0, u16::MAX.into()),
            Self::S32 => integer(i32::MIN.into(), i32::MAX.into()),
            Self::U32 => integer(0, u32::MAX.into()),
            Self::S64 => {
                let most = i64::try_from(INTEGER_MAX).unwrap_or(i64::MAX);
                json!({"type": ["integer", "string"], "format": "int64", "minimum": -most, "maximum": most,
                    "pattern": format!("^-?{WIDE}$")})
            }
            Self::U64 => json!({"type": ["integer", "string"], "format": "uint64", "minimum": 0,
                "maximum": INTEGER_MAX, "pattern": format!("^{WIDE}$")}),
            Self::F32 => {
                json!({"type": ["number", "string"], "minimum": -F32_MOST, "maximum": F32_MOST,
                    "pattern": "^(NaN|-?Infinity)$"})
            }
            Self::F64 => json!({"type": ["number", "string"], "pattern": "^(NaN|-?Infinity)$"}),
            Self::Char => json!({"type": "string", "minLength": 1, "maxLength": 1}),
            Self::String => json!({"type": "string"}),
            Self::List(_) if self.is_bytes() => json!({"type": "string", "contentEncoding": "base64"}),
            Self::List(element) => json!({"type": "array", "items": element.schema()}),
            Self::Record(fields) => object(fields),
            Self::Tuple(parts) => {
                let schemas: Vec<Value> = parts.iter().map(Self::schema).collect();
                json!({"type": "array", "prefixItems": schemas, "items": false, "minItems": parts.len()})
            }
            Self::Variant(cases) => variant(cases),
            Self::Enum(names) => json!({"type": "string", "enum": **names}),
            Self::Option(some) if some.is_option() => nullable(one_of_members(vec![("some", some.schema())])),
            Self::Option(some) => nullable(some.schema()),
            Self::Result { ok, err } => {
                let side = |ty: &Option<Box<Self>>| ty.as_deref().map_or_else(nothing, Self::schema);
                one_of_members(vec![("ok", side(ok)), ("err", side(err))])
            }
            Self::Flags(names) => json!({"type": "array", "items": {"type": "string", "enum": **names},
                "uniqueItems": true}),
        }
    }
}

fn integer(least: i64, most: i64) -> Value {
    json!({"type": "integer", "minimum": least, "maximum": most})
}

/// An object with exactly these members; those of options may be left out.
fn object(fields: &[Field]) -> Value {
    let members: Map<String, Value> = fields.iter().map(|field| (field.name.to_string(), field.ty.schema())).collect();
    let required: Vec<&str> = fields.iter().filter(|field| !field.ty.is_option()).map(|field| &*field.name).collect();
    let mut schema = json!({"type": "object", "properties": members, "additionalProperties": false});
    if let (Value::Object(schema), false) = (&mut schema, required.is_empty()) {
        schema.insert("required".to_owned(), json!(required));
    }
    schema
}

/// An object with exactly one of these members. Problems inside of the member keep their place, which a choice between
/// whole schemas would hide.
fn one_of_members(members: Vec<(&str, Value)>) -> Value {
    let members: Map<String, Value> = members.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect();
    json!({"type": "object", "properties": members, "additionalProperties": false, "minProperties": 1,
        "maxProperties": 1})
}

fn variant(cases: &[Case]) -> Value {
    let bare: Vec<&str> = cases.iter().filter(|case| case.ty.is_none()).map(|case| &*case.name).collect();
    let carrying = |case: &'_ Case| case.ty.as_ref().map(|ty| ty.schema());
    let members: Vec<(&str, Value)> = cases.iter().filter_map(|case| Some((&*case.name, carrying(case)?))).collect();
    match (bare.is_empty(), members.is_empty()) {
        (_, true) => json!({"type": "string", "enum": bare}),
        (true, false) => one_of_members(members),
        (false, false) => json!({"anyOf": [{"type": "string", "enum": bare}, one_of_members(members)]}),
    }
}

/// The same, or null.
fn nullable(mut schema: Value) -> Value {
    let Value::Object(keywords) = &mut schema else { return schema };
    if let Some(Value::Array(choices)) = keywords.get_mut("anyOf") {
        choices.push(nothing());
        return schema;
    }
    match keywords.get_mut("type") {
        Some(Value::Array(words)) => words.push(json!("null")),
        Some(word) => *word = json!([word, "null"]),
        None => {}
    }
    if let Some(Value::Array(values)) = keywords.get_mut("enum") {
        values.push(Value::Null);
    }
    schema
}
