//! Bounds at n and n + 1, and what a model reads where an input does not fit.

use serde_json::json;
use toolkeep_core::refusal::FieldProblem;
use toolkeep_core::wit::{Case, Field, Table, Type};
use wasmtime::component::Val;

use super::super::failure;
use super::super::input::{self, VALUES_MAX};
use super::super::output;
use super::{field, function};
use crate::bindings::contract::Error;
use crate::fault::Fault;

/// What is made of an input, where nothing was before.
fn arguments(params: &Table<Field>, text: &str) -> Result<Vec<Val>, FieldProblem> {
    input::arguments(params, text, Vec::new()).map(|made| made.arguments)
}

fn order() -> Table<Field> {
    let place = Type::Variant(
        [Case { name: "none".into(), ty: None }, Case { name: "shelf".into(), ty: Some(Type::U8) }].into(),
    );
    let line = Type::Record([field("sku", Type::String), field("count", Type::U32)].into());
    [
        field("lines", Type::List(Box::new(line))),
        field("place", place),
        field("paid", Type::Result { ok: Some(Box::new(Type::U64)), err: None }),
        field("care", Type::Flags(["cold".into(), "fragile".into()].into())),
        field("label", Type::List(Box::new(Type::U8))),
        field("note", Type::Option(Box::new(Type::Option(Box::new(Type::Char))))),
    ]
    .into()
}

#[test]
fn r11_a_problem_has_its_place_and_says_what_would_be_right() {
    let good = json!({"lines": [{"sku": "a", "count": 1}], "place": {"shelf": 3}, "paid": {"err": null},
        "care": ["fragile"], "label": "AAE=", "note": {"some": "x"}});
    let fields = order();
    assert!(arguments(&fields, &good.to_string()).is_ok());
    let short = json!({"lines": [], "place": "none", "paid": {"ok": "18446744073709551615"}, "care": [], "label": ""});
    assert!(arguments(&fields, &short.to_string()).is_ok(), "an option may be left out");
    for (at, by, pointer, problem, expected) in [
        ("/lines/0/count", json!(-1), "/lines/0/count", "out of range", "0 to 4294967295"),
        ("/lines/0/count", json!(1.5), "/lines/0/count", "has a fraction", "an integer"),
        ("/lines/0", json!({"sku": "a"}), "/lines/0/count", "is missing", "an integer"),
        ("/lines/0", json!({"sku": "a", "count": 1, "x": 1}), "/lines/0", "unknown member `x`", "only sku, count"),
        ("/place", json!("shelf"), "/place", "a case without its value", "{\"shelf\": …}"),
        ("/place", json!({"none": 1}), "/place", "carries none", "`none`"),
        ("/place", json!({"shelf": 1, "none": 1}), "/place", "more than one member", "one of"),
        ("/place", json!("floor"), "/place", "unknown case", "`none`"),
        ("/place/shelf", json!(256), "/place/shelf", "out of range", "0 to 255"),
        ("/paid", json!({"err": 1}), "/paid/err", "has a value", "null"),
        ("/paid", json!({"ok": 9_007_199_254_740_993_u64}), "/paid/ok", "beyond 2^53 - 1", "string of its digits"),
        ("/paid", json!({"ok": "18446744073709551616"}), "/paid/ok", "out of range", "2^64 - 1"),
        ("/paid", json!({"ok": "12"}), "/paid/ok", "small enough for a number", "an integer"),
        ("/care", json!(["cold", "cold"]), "/care", "a flag twice", "each at most once"),
        ("/care", json!(["warm"]), "/care", "unknown flag", "`cold`"),
        ("/label", json!("AAE"), "/label", "not base64", "base64"),
        ("/label", json!([0, 1]), "/label", "is an array", "base64"),
        ("/note", json!("x"), "/note", "is a string", "{\"some\": …}"),
        ("/note/some", json!("xy"), "/note/some", "not one character", "one character"),
        ("", json!([]), "", "invalid type", "a JSON object"),
    ] {
        let mut wrong = good.clone();
        *wrong.pointer_mut(at).expect(at) = by;
        let found = arguments(&fields, &wrong.to_string()).expect_err("refused");
        assert_eq!(found.pointer, pointer, "{wrong}");
        assert!(found.problem.contains(problem) && found.expected.contains(expected), "{found:?}");
    }
    for text in ["", "{", "{}x", r#"{"label":"","label":""}"#, r#"{"note":null"#, "\u{0}"] {
        assert!(arguments(&fields, text).is_err(), "{text:?}");
    }
}

#[test]
fn t_r2_an_input_has_n_values_and_not_n_plus_1() {
    let list = function(Type::List(Box::new(Type::Bool)));
    // The list is one of them.
    let items = |count: usize| arguments(&list.params, &json!({"v": vec![true; count]}).to_string());
    assert!(items(VALUES_MAX - 1).is_ok());
    assert!(items(VALUES_MAX).expect_err("refused").problem.contains("more values"));
    let bytes = function(Type::List(Box::new(Type::U8)));
    let encoded = |groups: usize| arguments(&bytes.params, &json!({"v": "AAAA".repeat(groups)}).to_string());
    assert!(encoded((VALUES_MAX - 1) / 3).is_ok());
    assert!(encoded(VALUES_MAX.div_ceil(3)).is_err());
}

#[test]
fn t_r2_an_output_has_n_bytes_and_not_n_plus_1() {
    for (ty, value, text) in [
        (Type::String, Val::String("ab\n".to_owned()), "\"ab\\n\""),
        (Type::List(Box::new(Type::U8)), Val::List(vec![Val::U8(0), Val::U8(1)]), "\"AAE=\""),
        (Type::S64, Val::S64(i64::MIN), "\"-9223372036854775808\""),
        (Type::F32, Val::Float32(0.1), "0.1"),
        (Type::F64, Val::Float64(f64::NEG_INFINITY), "\"-Infinity\""),
        (Type::Option(Box::new(Type::Bool)), Val::Option(None), "null"),
    ] {
        let limit = text.len() as u64;
        assert_eq!(output::json(Some(&ty), Some(&value), limit).as_deref(), Ok(text));
        let over = Fault::OutputTooLarge { limit: limit - 1, size: limit };
        assert_eq!(output::json(Some(&ty), Some(&value), limit - 1), Err(over), "{text}");
    }
    assert_eq!(output::json(None, None, 4).as_deref(), Ok("null"));
    assert!(matches!(output::json(Some(&Type::Bool), Some(&Val::U8(1)), 9), Err(Fault::Trap(_))), "of another type");
}

#[test]
fn r12_an_error_keeps_its_kind_its_words_and_its_value() {
    let function = function(Type::Bool);
    let said = |value: Option<Val>| match failure::of_result(&function, value.as_ref(), "1".to_owned()) {
        Error::NotFound(failure) => ("not-found", failure.message, failure.detail),
        Error::Transient(retry) => ("transient", retry.message, retry.detail),
        Error::Failed(failure) => ("failed", failure.message, failure.detail),
        other => panic!("{other:?}"),
    };
    let text = |text: &str| Val::String(text.to_owned());
    let case = |name: &str, value: Option<Val>| Val::Variant(name.to_owned(), value.map(Box::new));
    let record = Val::Record(vec![("code".to_owned(), Val::U8(1)), ("message".to_owned(), text("gone"))]);
    let detail = Some("1".to_owned());
    for (value, kind, message) in [
        (text("no"), "failed", "no"),
        (Val::Enum("not-found".to_owned()), "not-found", "`f` returned the error `not-found`"),
        (case("not-found", Some(text("x"))), "not-found", "not-found: x"),
        (case("transient", Some(record.clone())), "transient", "transient: gone"),
        (case("broken", Some(Val::U8(1))), "failed", "`f` returned the error `broken`"),
        (record, "failed", "gone"),
        (Val::U8(1), "failed", "`f` returned an error"),
    ] {
        assert_eq!(said(Some(value)), (kind, message.to_owned(), detail.clone()));
    }
    assert_eq!(said(None), ("failed", "`f` returned an error".to_owned(), None));
    let unfit = arguments(&function.params, "{}").expect_err("refused");
    let Error::InvalidInput(failure) = failure::of_input(&function, unfit) else { panic!("invalid input") };
    assert_eq!((failure.fields[0].pointer.as_str(), failure.fields[0].problem.as_str()), ("/v", "is missing"));
}
