//! Any type and any value of it, there and back, and against the schema; and both readers of components against each other.

use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::strategy::BoxedStrategy;
use proptest::test_runner::TestCaseError;
use serde_json::{Value, json};
use toolkeep_core::wit::{Case, Field, Function, Type};
use wasmtime::component::Val;

use super::spare::Spares;
use super::{input, output};

mod bounds;
mod readers;

/// Names of everything; also texts, so that one is often taken for the other.
const NAMES: [&str; 6] = ["a", "b-c", "ok", "err", "some", "message"];
/// The most that an output may be in these tests, in bytes.
const LIMIT: u64 = 1024 * 1024;

fn names(most: usize) -> impl Strategy<Value = Vec<&'static str>> {
    prop::sample::subsequence(&NAMES[..], 1..=most)
}

fn field(name: &str, ty: Type) -> Field {
    Field { name: name.into(), ty }
}

/// Any type that is not deeper than `levels`.
pub(super) fn a_type(levels: u32) -> BoxedStrategy<Type> {
    let plain = [
        Type::Bool,
        Type::S8,
        Type::U8,
        Type::S16,
        Type::U16,
        Type::S32,
        Type::U32,
        Type::S64,
        Type::U64,
        Type::F32,
        Type::F64,
        Type::Char,
        Type::String,
        Type::List(Box::new(Type::U8)),
    ];
    let plain = prop_oneof![
        3 => prop::sample::select(plain.to_vec()),
        1 => names(4).prop_map(|names| Type::Enum(names.into_iter().map(Into::into).collect())),
        1 => names(4).prop_map(|names| Type::Flags(names.into_iter().map(Into::into).collect())),
    ];
    plain
        .prop_recursive(levels, 24, 4, |inner| {
            let optional = prop::option::of(inner.clone());
            let fields = (names(4), prop::collection::vec(inner.clone(), 4));
            let cases = (names(4), prop::collection::vec(optional.clone(), 4));
            prop_oneof![
                inner.clone().prop_map(|ty| Type::List(Box::new(ty))),
                inner.clone().prop_map(|ty| Type::Option(Box::new(ty))),
                prop::collection::vec(inner, 1..4).prop_map(|parts| Type::Tuple(parts.into())),
                fields.prop_map(|(names, types)| {
                    Type::Record(names.into_iter().zip(types).map(|(name, ty)| field(name, ty)).collect())
                }),
                cases.prop_map(|(names, types)| {
                    let case = |(name, ty): (&str, _)| Case { name: name.into(), ty };
                    Type::Variant(names.into_iter().zip(types).map(case).collect())
                }),
                (optional.clone(), optional)
                    .prop_map(|(ok, err)| Type::Result { ok: ok.map(Box::new), err: err.map(Box::new) }),
            ]
        })
        .boxed()
}

fn choice(name: &'static str, ty: Option<Type>) -> BoxedStrategy<Value> {
    let inside = ty.map_or_else(|| Just(Value::Null).boxed(), |ty| a_value(&ty));
    inside.prop_map(move |value| json!({name: value})).boxed()
}

/// A JSON number as it is read from its text, so that `0.1` of 32 bits is `0.1`.
fn read(text: &str) -> Value {
    serde_json::from_str(text).expect("a number")
}

/// Any value of a type, spelled as outputs are.
fn a_value(ty: &Type) -> BoxedStrategy<Value> {
    let wide =
        |n: i128| if n.unsigned_abs() > 9_007_199_254_740_991 { json!(n.to_string()) } else { read(&n.to_string()) };
    match ty.clone() {
        Type::Bool => any::<bool>().prop_map(Value::from).boxed(),
        Type::S8 => any::<i8>().prop_map(Value::from).boxed(),
        Type::U8 => any::<u8>().prop_map(Value::from).boxed(),
        Type::S16 => any::<i16>().prop_map(Value::from).boxed(),
        Type::U16 => any::<u16>().prop_map(Value::from).boxed(),
        Type::S32 => any::<i32>().prop_map(Value::from).boxed(),
        Type::U32 => any::<u32>().prop_map(Value::from).boxed(),
        Type::S64 => prop_oneof![any::<i64>(), -9..9_i64].prop_map(move |n| wide(n.into())).boxed(),
        Type::U64 => prop_oneof![any::<u64>(), 0..9_u64].prop_map(move |n| wide(n.into())).boxed(),
        Type::F32 => prop_oneof![
            9 => any::<f32>().prop_map(|n| if n.is_finite() { read(&serde_json::to_string(&n).expect("JSON")) } else { json!("NaN") }),
            1 => Just(json!("-Infinity")),
        ]
        .boxed(),
        Type::F64 => prop_oneof![
            9 => any::<f64>().prop_map(|n| if n.is_finite() { json!(n) } else { json!("NaN") }),
            1 => Just(json!("Infinity")),
        ]
        .boxed(),
        Type::Char => any::<char>().prop_map(|c| json!(c.to_string())).boxed(),
        Type::String => any::<String>().prop_map(Value::from).boxed(),
        Type::List(element) if *element == Type::U8 => {
            use base64::Engine as _;
            let encode = |bytes: Vec<u8>| json!(base64::engine::general_purpose::STANDARD.encode(bytes));
            prop::collection::vec(any::<u8>(), 0..9).prop_map(encode).boxed()
        }
        Type::List(element) => prop::collection::vec(a_value(&element), 0..4).prop_map(Value::from).boxed(),
        Type::Tuple(parts) => parts.iter().map(a_value).collect::<Vec<_>>().prop_map(Value::from).boxed(),
        Type::Record(fields) => {
            let names: Vec<String> = fields.iter().map(|field| field.name.to_string()).collect();
            let values: Vec<_> = fields.iter().map(|field| a_value(&field.ty)).collect();
            values.prop_map(move |values| names.iter().cloned().zip(values).collect::<Value>()).boxed()
        }
        Type::Variant(cases) => prop::sample::select(cases.to_vec())
            .prop_flat_map(|case| {
                let name = *NAMES.iter().find(|name| ***name == *case.name).expect("a name");
                case.ty.map_or_else(|| Just(json!(name)).boxed(), |ty| choice(name, Some(ty)))
            })
            .boxed(),
        Type::Enum(names) => prop::sample::select(names.to_vec()).prop_map(|name| json!(name)).boxed(),
        Type::Option(some) => {
            let nested = some.is_option();
            let value = a_value(&some).prop_map(move |value| if nested { json!({"some": value}) } else { value });
            prop_oneof![Just(Value::Null), value].boxed()
        }
        Type::Result { ok, err } => {
            prop_oneof![choice("ok", ok.map(|ty| *ty)), choice("err", err.map(|ty| *ty))].boxed()
        }
        Type::Flags(names) => {
            prop::sample::subsequence(names.to_vec(), 0..=names.len()).prop_map(|names| json!(names)).boxed()
        }
    }
}

/// Any JSON, made of what values are made of.
fn any_json() -> BoxedStrategy<Value> {
    let text = prop_oneof![
        4 => prop::sample::select(NAMES.to_vec()).prop_map(str::to_owned),
        1 => Just("NaN".to_owned()),
        1 => Just("9007199254740993".to_owned()),
        1 => any::<char>().prop_map(String::from),
    ];
    let number = prop_oneof![
        (-300..300_i32).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter("JSON", |n| n.is_finite()).prop_map(Value::from),
        Just(json!(7.0)),
    ];
    let plain = prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), number, text.prop_map(Value::from)];
    plain
        .prop_recursive(3, 12, 4, |inner| {
            let members = prop::collection::btree_map(prop::sample::select(NAMES.to_vec()), inner.clone(), 0..4);
            prop_oneof![
                prop::collection::vec(inner, 0..4).prop_map(Value::from),
                members.prop_map(|members| members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
            ]
        })
        .boxed()
}

/// A value with one place of it replaced.
fn spoiled(value: &Value, at: usize, by: &Value) -> Value {
    fn walk(value: &mut Value, left: &mut usize, by: &Value) {
        if *left == 0 {
            by.clone_into(value);
        }
        *left = left.wrapping_sub(1);
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| walk(item, left, by)),
            Value::Object(members) => members.values_mut().for_each(|member| walk(member, left, by)),
            _ => {}
        }
    }
    let (mut value, mut left) = (value.clone(), at);
    walk(&mut value, &mut left, by);
    value
}

pub(super) fn function(ty: Type) -> Function {
    Function { label: "f".parse().expect("a label"), params: [field("v", ty)].into(), result: None }
}

/// Values whose schema cannot say exactly which they are: a text that is no base64, digits beyond 64 bits.
fn is_exact(ty: &Type) -> bool {
    match ty {
        Type::S64 | Type::U64 | Type::F32 => false,
        Type::List(element) => **element != Type::U8 && is_exact(element),
        Type::Option(inner) => is_exact(inner),
        Type::Record(fields) => fields.iter().all(|field| is_exact(&field.ty)),
        Type::Tuple(parts) => parts.iter().all(is_exact),
        Type::Variant(cases) => cases.iter().all(|case| case.ty.as_ref().is_none_or(is_exact)),
        Type::Result { ok, err } => [ok, err].into_iter().flatten().all(|ty| is_exact(ty)),
        _ => true,
    }
}

fn valued() -> impl Strategy<Value = (Type, Value)> {
    a_type(4).prop_flat_map(|ty| {
        let value = a_value(&ty);
        (Just(ty), value)
    })
}

/// Some values of one type.
fn several() -> impl Strategy<Value = (Type, Vec<Value>)> {
    a_type(4).prop_flat_map(|ty| {
        let values = prop::collection::vec(a_value(&ty), 2..5);
        (Just(ty), values)
    })
}

fn made(function: &Function, given: &Value) -> Result<Vec<Val>, TestCaseError> {
    let made = input::arguments(&function.params, &given.to_string(), Vec::new());
    let made = made.map_err(|problem| TestCaseError::fail(format!("{function} {given} {problem:?}")))?;
    Ok(made.arguments)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn r50_a_value_of_any_type_survives_the_way_there_and_back((ty, value) in valued()) {
        let function = function(ty);
        let schema = jsonschema::draft202012::new(&function.input_schema()).expect("a schema");
        let given = json!({"v": value});
        prop_assert!(schema.is_valid(&given), "{} {given}", function);
        let made = made(&function, &given)?;
        let text = output::json(Some(&function.params[0].ty), made.first(), LIMIT).expect("written");
        let back: Value = serde_json::from_str(&text).expect("JSON");
        prop_assert_eq!(back, value);
    }

    #[test]
    fn t_i4_a_value_that_is_written_over_another_one_is_as_if_it_were_the_first((ty, values) in several()) {
        let function = function(ty);
        let spares = Spares::default();
        for value in values {
            let given = json!({"v": value});
            let fresh = made(&function, &given)?;
            let used = input::arguments(&function.params, &given.to_string(), spares.take(&function.label)).expect("as before");
            // As values of the component model, where NaN is nothing's equal.
            prop_assert_eq!(format!("{:?}", used.arguments), format!("{fresh:?}"));
            spares.keep(&function.label, used.arguments, used.values);
        }
    }

    #[test]
    fn r11_what_the_schema_forbids_is_refused((ty, value) in valued(), at in 0..12_usize, by in any_json()) {
        let exact = is_exact(&ty);
        let function = function(ty);
        let schema = jsonschema::draft202012::new(&function.input_schema()).expect("a schema");
        for given in [json!({"v": spoiled(&value, at, &by)}), json!({"v": by}), by.clone()] {
            let made = input::arguments(&function.params, &given.to_string(), Vec::new());
            prop_assert!(made.is_err() || schema.is_valid(&given), "taken: {function} {given}");
            prop_assert!(made.is_ok() || !exact || !schema.is_valid(&given), "refused: {function} {given} {made:?}");
        }
    }
}
