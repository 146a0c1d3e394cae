//! Types within their bounds, their schemas, and names that depend on nothing else.

use super::*;
use crate::limit::JSON_DEPTH_MAX;
use serde_json::{Value, json};

/// Types as a reader would see them: each is the node that it is made of.
fn build(ty: &Type) -> Result<Function, Unsuitable> {
    let label = "f".parse().expect("a label");
    Builder::new(look).function(label, vec![("a".to_owned(), ty.clone())], None)
}

fn look(ty: &Type) -> Node<Type> {
    let named = |fields: &[Field]| fields.iter().map(|field| (field.name.to_string(), field.ty.clone())).collect();
    let names = |names: &[Name]| names.iter().map(ToString::to_string).collect();
    match ty {
        Type::List(element) => Node::List((**element).clone()),
        Type::Record(fields) => Node::Record(named(fields)),
        Type::Tuple(parts) => Node::Tuple(parts.to_vec()),
        Type::Variant(cases) => {
            Node::Variant(cases.iter().map(|case| (case.name.to_string(), case.ty.clone())).collect())
        }
        Type::Enum(cases) => Node::Enum(names(cases)),
        Type::Flags(flags) => Node::Flags(names(flags)),
        Type::Option(some) => Node::Option((**some).clone()),
        Type::Result { ok, err } => Node::Result(ok.as_deref().cloned(), err.as_deref().cloned()),
        plain => Node::Plain(plain.clone()),
    }
}

fn field(name: &str, ty: Type) -> Field {
    Field { name: name.into(), ty }
}

fn list(of: Type) -> Type {
    Type::List(Box::new(of))
}

fn option(of: Type) -> Type {
    Type::Option(Box::new(of))
}

fn mixed(inner: Type) -> Type {
    Type::Variant([Case { name: "none".into(), ty: None }, Case { name: "some".into(), ty: Some(inner) }].into())
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

#[test]
fn t_i10_types_nest_to_n_and_not_to_n_plus_1_and_the_deepest_still_fits_into_a_listing() {
    let nested = |levels: usize| (1..levels).fold(Type::U8, |inner, _| mixed(inner));
    let deepest = build(&nested(DEPTH_MAX)).expect("n");
    assert!(matches!(build(&nested(DEPTH_MAX + 1)), Err(Unsuitable::Deep { .. })));
    // Answer, result, tools, one of them, its schema.
    assert!(depth(&deepest.input_schema()) + 8 <= JSON_DEPTH_MAX, "{}", depth(&deepest.input_schema()));
}

#[test]
fn t_i10_the_parts_of_all_functions_together_and_each_name_are_bounded() {
    let wide = |parts: usize| Type::Tuple(vec![Type::Bool; parts].into());
    // The parameter, its type, and each part twice: as a place and as a type.
    let most = (PARTS_MAX - 2) / 2;
    assert!(build(&wide(most)).is_ok());
    assert_eq!(build(&wide(most + 1)), Err(Unsuitable::Large));
    let mut several = Builder::new(look);
    let mut function = || several.function("f".parse().expect("a label"), vec![("a".to_owned(), wide(most / 2))], None);
    assert!(function().is_ok() && function().is_ok());
    assert_eq!(function(), Err(Unsuitable::Large), "they share one bound");
    let named = |bytes: usize| build(&Type::Enum(["x".repeat(bytes).into()].into()));
    assert!(named(NAME_MAX_BYTES).is_ok());
    assert!(matches!(named(NAME_MAX_BYTES + 1), Err(Unsuitable::Name { .. })));
}

#[test]
fn what_is_no_plain_value_is_refused_by_its_place() {
    let label: Label = "f".parse().expect("a label");
    let refused = |ty: &Type| if *ty == Type::Char { Node::Refused("a resource") } else { look(ty) };
    let ty = Type::Record([field("items", list(Type::Tuple([Type::Bool, Type::Char].into())))].into());
    let error = Builder::new(refused).function(label, vec![("order".to_owned(), ty)], None).expect_err("refused");
    assert!(error.to_string().starts_with("`order.items.*.1` is a resource"), "{error}");
}

#[test]
fn names_come_from_function_and_interface_alone() {
    for (label, name, fully) in [
        ("reserve", "reserve", "reserve"),
        ("get-URL", "get-url", "get-url"),
        ("acme:inventory/stock@1.0.0#reserve", "stock.reserve", "acme.inventory.stock.1.0.0.reserve"),
        ("acme:inventory/stock@1.0.0-rc.1+b#reserve", "stock.reserve", "acme.inventory.stock.1.0.0-rc.1_b.reserve"),
        ("stock#reserve", "stock.reserve", "stock.reserve"),
        ("wasi:cli/run@0.2.6#run", "run.run", "wasi.cli.run.0.2.6.run"),
    ] {
        let label: Label = label.parse().expect("a label");
        assert_eq!(label.name().expect("a name").as_str(), name);
        assert_eq!(label.qualified(4).expect("a name").as_str(), fully);
    }
    let long = format!("acme:a/{}#f", "b".repeat(70)).parse::<Label>().expect("a label");
    assert!(long.name().is_err());
    for wrong in ["", "#f", "a#", "a#b#c", "a b", "a\u{e9}", "a\u{1b}"] {
        assert!(wrong.parse::<Label>().is_err(), "{wrong:?}");
    }
    let label = |bytes: usize| "f".repeat(bytes).parse::<Label>().is_ok();
    assert_eq!((label(LABEL_MAX_BYTES), label(LABEL_MAX_BYTES + 1)), (true, false));
}

#[test]
fn r11_each_type_has_one_schema() {
    let choice = Type::Enum(["a".into(), "b".into()].into());
    for (ty, schema) in [
        (Type::Bool, json!({"type": "boolean"})),
        (Type::S8, json!({"type": "integer", "minimum": -128, "maximum": 127})),
        (
            Type::U64,
            json!({"type": ["integer", "string"], "format": "uint64", "minimum": 0,
                "maximum": 9_007_199_254_740_991_u64, "pattern": "^[1-9][0-9]{15,19}$"}),
        ),
        (Type::F64, json!({"type": ["number", "string"], "pattern": "^(NaN|-?Infinity)$"})),
        (Type::Char, json!({"type": "string", "minLength": 1, "maxLength": 1})),
        (list(Type::U8), json!({"type": "string", "contentEncoding": "base64"})),
        (list(Type::S8), json!({"type": "array", "items": Type::S8.schema()})),
        (option(Type::String), json!({"type": ["string", "null"]})),
        (option(choice.clone()), json!({"type": ["string", "null"], "enum": ["a", "b", null]})),
        (
            option(option(Type::Bool)),
            json!({"type": ["object", "null"], "properties": {"some": {"type": ["boolean", "null"]}},
                "additionalProperties": false, "minProperties": 1, "maxProperties": 1}),
        ),
        (
            Type::Result { ok: None, err: Some(Box::new(choice)) },
            json!({"type": "object", "properties": {"ok": {"type": "null"},
                "err": {"type": "string", "enum": ["a", "b"]}}, "additionalProperties": false, "minProperties": 1,
                "maxProperties": 1}),
        ),
        (
            option(mixed(Type::Bool)),
            json!({"anyOf": [{"type": "string", "enum": ["none"]}, {"type": "object",
                "properties": {"some": {"type": "boolean"}}, "additionalProperties": false, "minProperties": 1,
                "maxProperties": 1}, {"type": "null"}]}),
        ),
    ] {
        assert_eq!(ty.schema(), schema, "{ty}");
    }
}

#[test]
fn r11_an_input_is_an_object_of_the_parameters_and_an_output_what_is_left_without_the_error() {
    let function = Function {
        label: "acme:a/b#f".parse().expect("a label"),
        params: [field("id", Type::U32), field("note", option(Type::String))].into(),
        result: Some(Type::Result { ok: None, err: Some(Box::new(Type::String)) }),
    };
    assert_eq!(
        function.input_schema(),
        json!({"type": "object", "properties": {"id": Type::U32.schema(), "note": {"type": ["string", "null"]}},
            "additionalProperties": false, "required": ["id"]})
    );
    assert_eq!(function.output_schema(), json!({"type": "null"}));
    assert_eq!(function.error_schema(), json!({"type": "string"}));
    assert_eq!(function.to_string(), "f: func(id: u32, note: option<string>) -> result<_, string>");
    let plain = Function { result: Some(Type::Bool), ..function };
    assert_eq!((plain.output(), plain.error(), plain.can_fail()), (Some(&Type::Bool), None, false));
}

#[test]
fn r50_the_largest_number_of_32_bits_is_one_as_it_is_written() {
    let schema = Type::F32.schema();
    for number in [f32::MAX, f32::MIN] {
        let written: f64 = serde_json::to_string(&number).expect("a number").parse().expect("a double");
        assert!(schema["minimum"].as_f64() <= Some(written) && Some(written) <= schema["maximum"].as_f64(), "{schema}");
    }
}

#[test]
fn flags_are_found_wherever_they_are() {
    let flags = || Type::Flags(["a".into()].into());
    let found = [
        Type::List(Box::new(flags())),
        Type::Option(Box::new(flags())),
        Type::Tuple(Box::new([Type::Bool, flags()])),
        Type::Result { ok: None, err: Some(Box::new(flags())) },
        Type::Variant([Case { name: "c".into(), ty: Some(flags()) }].into()),
        Type::Record([Field { name: "f".into(), ty: flags() }].into()),
    ];
    assert!(found.iter().all(Type::holds_flags));
    assert!(![Type::String, Type::List(Box::new(Type::U8))].iter().any(Type::holds_flags));
}
