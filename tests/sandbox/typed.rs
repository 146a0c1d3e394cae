//! Components that were not built with the SDK: called by their functions, with JSON on both sides, under the same bounds.

use serde_json::{Value, json};
use toolkeep_core::capability::Access;
use toolkeep_sandbox::describe::{NoDescription, describe};
use toolkeep_sandbox::execution::{Ended, Execution, GuestError, GuestErrorKind};
use toolkeep_sandbox::fault::Fault;
use toolkeep_sandbox::prescreen::{Contract, Refused, prescreen};
use toolkeep_sandbox::typed::functions;
use toolkeep_tests::support::components::wasm;
use toolkeep_tests::support::guest_call::{GuestCall, fault, output};
use toolkeep_tests::support::scratch::Scratch;

fn stock(function: &str, input: &Value) -> GuestCall {
    GuestCall::new("inventory").function(&format!("acme:inventory/stock@1.0.0#{function}")).input(&input.to_string())
}

fn odd(function: &str, input: &Value) -> GuestCall {
    GuestCall::new("odd-types").function(&format!("odd:types/odd@1.0.0#{function}")).input(&input.to_string())
}

fn item(sku: &str) -> Value {
    json!({"sku": sku, "name": "Grüner Tee", "count": "9007199254740993", "unit": "gram", "care": ["dry", "cold"],
        "place": {"shelf": 7}, "note": null, "picture": "AQID"})
}

fn returned(execution: &Execution) -> Value {
    serde_json::from_str(output(execution)).expect("JSON")
}

fn error(execution: &Execution) -> &GuestError {
    match &execution.ended {
        Ended::Error(error) => error,
        other => panic!("ended with {other:?}"),
    }
}

#[tokio::test]
async fn r50_values_of_every_kind_go_in_and_come_out() {
    let items = json!([item("a"), {"sku": "b", "name": "Cup", "count": 2, "unit": "piece", "care": [],
        "place": "nowhere", "picture": ""}]);
    let summary = returned(&stock("summarize", &json!({"items": items})).run().await);
    let mut heaviest = item("a");
    heaviest["care"] = json!(["cold", "dry"]);
    assert_eq!(
        summary,
        json!({"items": 2, "pieces": "9007199254740995", "mean": 4_503_599_627_370_497.5,
            "places": [["nowhere", 1], ["shelf", 1]], "heaviest": heaviest}),
    );
    let nothing = returned(&stock("summarize", &json!({"items": []})).run().await);
    assert_eq!((&nothing["mean"], &nothing["heaviest"]), (&json!("NaN"), &Value::Null));
    let label = GuestCall::new("inventory").function("shelf-label").input(r#"{"row":"é","number":3}"#).run().await;
    assert_eq!(returned(&label), json!("é-3"));
}

#[tokio::test]
async fn r50_what_a_function_writes_is_staged_and_what_it_returns_as_an_error_is_typed() {
    let scratch = Scratch::new();
    let run = async |function: &str, input: &Value| {
        stock(function, input).workspace(scratch.path(), Access::Write).run().await
    };
    let stored = run("store", &json!({"item": item("tea-1")})).await;
    assert!(returned(&stored).as_u64().is_some_and(|bytes| bytes > 40), "{stored:?}");
    let paths: Vec<String> = stored.staged.effects.iter().map(|effect| format!("{effect:?}")).collect();
    assert!(paths.iter().any(|effect| effect.contains("stock/tea-1.txt")), "{paths:?}");
    assert!(!scratch.path().join("stock").exists(), "staged, not done");

    let missing = run("show", &json!({"sku": "tea-1"})).await;
    let told = error(&missing);
    assert_eq!((told.kind, told.message.as_str()), (GuestErrorKind::NotFound, "not-found: there is no item `tea-1`"));
    assert_eq!(told.detail.as_deref(), Some(r#"{"not-found":"there is no item `tea-1`"}"#));
    assert!(missing.staged.effects.is_empty());

    scratch.put("stock/tea-1.txt", b"old");
    let again = run("store", &json!({"item": item("tea-1"), "replace": false})).await;
    assert_eq!(error(&again).kind, GuestErrorKind::Conflict);
    let replaced = run("store", &json!({"item": item("tea-1"), "replace": true})).await;
    assert!(matches!(replaced.ended, Ended::Output(_)));
}

#[tokio::test]
async fn r11_an_input_that_does_not_fit_ends_the_call_before_anything_runs() {
    let mut wrong = item("a");
    wrong["place"] = json!({"shelf": -1});
    let refused = stock("store", &json!({"item": wrong})).run().await;
    let told = error(&refused);
    assert_eq!((told.kind, told.fields.len()), (GuestErrorKind::InvalidInput, 1));
    assert_eq!(told.fields[0].pointer, "/item/place/shelf");
    assert_eq!(refused.usage.memory_peak, 0, "no instance was made");
}

#[tokio::test]
async fn t_r2_values_that_no_host_should_hold_end_at_their_bounds() {
    let flood = odd("flood", &json!({"count": 100_000, "bytes": 1})).limits(|limits| limits.output_bytes = 100_000);
    assert_eq!(fault(&flood.run().await), &Fault::OutputTooLarge { limit: 100_000, size: 100_001 });
    // Each value counts with its size, so a million of them never becomes host memory.
    let many = odd("bytes", &json!({"count": 1_000_000})).limits(|limits| limits.output_bytes = 3_000_000).run().await;
    assert_eq!(fault(&many), &Fault::Memory { what: "values in one result" });
    let some = odd("bytes", &json!({"count": 3})).run().await;
    assert_eq!(output(&some), "\"BwcH\"");
    let long = odd("complain", &json!({"bytes": 8_192})).run().await;
    assert_eq!(error(&long).message.len(), 4096);
    let longer = odd("complain", &json!({"bytes": 10})).limits(|limits| limits.output_bytes = 11).run().await;
    assert_eq!(fault(&longer), &Fault::OutputTooLarge { limit: 11, size: 12 });
}

#[tokio::test]
async fn r50_what_json_has_no_numbers_for_has_one_spelling() {
    let numbers = odd("numbers", &json!({})).run().await;
    let expected =
        r#"["a",{"b":"18446744073709551615"},{"c":[["NaN","Infinity"],["-Infinity",0.1],[-0.0,1.1754944e-38]]}]"#;
    assert_eq!(output(&numbers), expected);
}

#[tokio::test]
async fn r12_failures_of_functions_are_told_apart() {
    let kind = async |input: Value| error(&odd("fail", &input).run().await).kind;
    assert_eq!(kind(json!({"kind": "transient"})).await, GuestErrorKind::Transient);
    assert_eq!(kind(json!({"kind": "hopeless"})).await, GuestErrorKind::Failed);
    assert!(matches!(fault(&odd("trap", &json!({})).run().await), Fault::Trap(_)));
    let spin = odd("spin", &json!({"v": "a"})).limits(|limits| limits.fuel = 1_000_000).run().await;
    assert_eq!(fault(&spin), &Fault::OutOfFuel);
    for gone in ["open", "deep", "none"] {
        let call = odd(gone, &json!({})).run().await;
        assert!(matches!(fault(&call), Fault::Trap(why) if why.contains("exports no function")), "{gone}");
    }
}

#[tokio::test]
async fn a_component_is_called_through_its_own_door_only() {
    let named = GuestCall::new("inventory").local("store").run().await;
    assert!(matches!(fault(&named), Fault::Trap(why) if why.contains("by its functions only")));
    let function = GuestCall::new("text-stats").function("toolkeep:tool/tool@0.1.0#describe").run().await;
    assert!(matches!(fault(&function), Fault::Trap(why) if why.contains("by the names of its tools only")));
    let undescribed = describe(&wasm("inventory")).await;
    assert_eq!(undescribed, Err(NoDescription::Refused(Refused::NotDescribed)));
}

#[test]
fn r50_functions_are_read_from_the_file_and_those_that_cannot_be_tools_say_why() {
    let wasm = wasm("odd-types");
    assert_eq!(prescreen(&wasm).expect("a component").contract, Contract::Functions);
    let all = functions(&wasm).expect("read");
    let why = |label: &str| {
        let found = all.iter().find(|export| export.label.as_str() == label).expect(label);
        found.function.as_ref().err().map(ToString::to_string).unwrap_or_default()
    };
    assert!(why("odd:types/odd@1.0.0#open").contains("`result` is a resource"));
    assert!(why("odd:types/odd@1.0.0#deep").contains("nested deeper than 12 levels"));
    assert!(why("odd:types/odd@1.0.0#[constructor]handle").contains("is a resource"));
    assert_eq!(why("odd:types/odd@1.0.0#flood"), "");
    let names: Vec<String> = ["odd:types/odd@1.0.0#flood", "odd:types/even@1.0.0#flood", "flood"]
        .map(|label| label.parse::<toolkeep_core::wit::Label>().expect("a label").name().expect("a name").to_string())
        .into();
    assert_eq!(names, ["odd.flood", "even.flood", "flood"], "no two are called the same");
}
