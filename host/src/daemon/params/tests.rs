//! What the parameters of methods may hold.

use super::*;
use serde_json::json;

#[expect(clippy::needless_pass_by_value, reason = "values are written where they are passed")]
fn object(value: Value) -> Map<String, Value> {
    value.as_object().expect("object").clone()
}

fn refused<T: DeserializeOwned>(value: Value) -> (i32, String) {
    let fault = read::<T>(object(value)).err().expect("refused");
    (fault.number, fault.refusal.message)
}

#[test]
fn unknown_members_are_refused_and_meta_is_tolerated() {
    assert!(read::<Nothing>(object(json!({}))).is_ok());
    assert!(read::<Nothing>(object(json!({"_meta": {"anything": [1]}}))).is_ok());
    let (number, message) = refused::<Nothing>(json!({"x": 1}));
    assert_eq!(number, INVALID_PARAMS);
    assert!(message.contains("unknown field `x`"), "{message}");
}

#[test]
fn a_call_moves_its_input_and_keeps_its_mode() {
    let read = |value| call(object(value), None).map_err(|f| f.refusal.message);
    let made = read(json!({"tool": "t", "input": {"a": 1}, "_meta": {"progress": true}})).expect("call");
    assert_eq!((made.request.mode, made.progress), (Mode::Commit, true));
    assert_eq!(made.request.input, json!({"a": 1}));
    assert!(!read(json!({"tool": "t", "input": {}})).expect("call").progress);
    assert_eq!(read(json!({"tool": "t"})).map(|_| ()), Err("`input` is missing".to_owned()));
    let principal = read(json!({"tool": "t", "input": {}, "principal": "root"})).expect_err("no identity");
    assert!(principal.contains("unknown field `principal`"), "{principal}");
    let preview = call(object(json!({"tool": "t", "input": {}, "mode": "commit"})), Some(Mode::Preview));
    assert!(preview.is_err(), "a preview never commits");
}

#[test]
fn a_plan_is_named_by_id_or_digest_and_a_target_exactly_once() {
    let digest = "ab".repeat(32);
    assert!(matches!(read::<OfPlan>(object(json!({"plan": digest}))).expect("digest").plan.0, PlanName::Digest(_)));
    let (_, message) = refused::<OfPlan>(json!({"plan": "latest"}));
    assert!(message.contains("expected a plan id"), "{message}");
    let undo = |value| read::<Undo>(object(value)).expect("shape").target().is_ok();
    let call = "call_00000000-0000-0000-0000-000000000007";
    let run = "run_00000000-0000-0000-0000-000000000007";
    assert!(undo(json!({"call": call})) && undo(json!({"run": run})));
    assert!(!undo(json!({})) && !undo(json!({"call": call, "run": run})));
}
