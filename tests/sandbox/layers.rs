//! R08: calls of one transaction lie over each other: what two calls stage in two layers is what one call stages that does
//! both, and a call that fails leaves the layer beneath as it was.

use std::path::Path;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy};
use proptest::prop_oneof;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use serde_json::{Value, json};
use toolkeep_core::capability::Access;
use toolkeep_core::effect::Effect;
use toolkeep_sandbox::execution::{Ended, Execution, Layer, Outward};
use toolkeep_sandbox::fault::Fault;
use toolkeep_sandbox::stage::Staged;
use toolkeep_tests::support::guest_call::{GuestCall, fault, output};
use toolkeep_tests::support::outside::{Store, http, keys, mail, ports};
use toolkeep_tests::support::scratch::Scratch;

/// Sequences that are tried.
const CASES: u32 = 60;

fn call(store: &Arc<Store>, books: Option<&Path>, layer: Option<Layer>, steps: &[Value]) -> GuestCall {
    let mut call = GuestCall::new("reach").input(&json!({"steps": steps}).to_string());
    let (http, messages, keys) = ([http(|_| ())].into(), [mail()].into(), [keys("write", "**")].into());
    call.outward = Outward { http, messages, keys, ports: ports(&Arc::default(), store), layer, ..Outward::default() };
    match books {
        Some(books) => call.workspace(books, Access::Write),
        None => call,
    }
}

fn layer(staged: Staged) -> Layer {
    Layer { effects: staged.effects, contents: staged.contents }
}

fn answers(execution: &Execution) -> Vec<Value> {
    let output: Value = serde_json::from_str(output(execution)).expect("JSON");
    output["answers"].as_array().expect("answers").clone()
}

fn step(op: &str, key: &str) -> Value {
    json!({"op": op, "bucket": "counts", "key": key, "value": "v", "delta": 2})
}

fn write(path: &str, text: &str) -> Value {
    json!({"op": "write", "path": path, "text": text})
}

fn read(path: &str) -> Value {
    json!({"op": "read", "path": path})
}

fn post(body: &str) -> Value {
    json!({"op": "send", "method": "POST", "url": "https://api.example.com/a", "body": body})
}

fn message(subject: &str) -> Value {
    json!({"op": "message", "channel": "mail", "to": ["a@example.com"], "subject": subject, "body": subject})
}

#[tokio::test]
async fn r08_a_later_call_sees_what_an_earlier_one_staged_and_seals_both() {
    let scratch = Scratch::new();
    scratch.put("old.txt", b"old");
    let store = Arc::new(Store::with(&[("a", "1"), ("n", "40")]));
    let first = [
        write("new.txt", "new"),
        write("old.txt", "changed"),
        step("set", "a"),
        step("add", "n"),
        post("one"),
        message("one"),
    ];
    let one = call(&store, Some(scratch.path()), None, &first).run().await;
    assert_eq!(one.staged.effects.len(), 6, "{:?}", one.staged.effects);
    let second = [read("new.txt"), read("old.txt"), step("get", "a"), step("add", "n"), post("two"), message("two")];
    let two = call(&store, Some(scratch.path()), Some(layer(one.staged)), &second).run().await;
    assert_eq!(answers(&two)[..4], [json!("new"), json!("changed"), json!("v"), json!(44)]);
    assert!(two.staged.keys_read.is_empty(), "what the layer holds is no observation");
    let kinds: Vec<&str> = two.staged.effects.iter().map(Effect::kind).collect();
    assert_eq!(
        kinds,
        [
            "file.write",
            "file.write",
            "kv.set",
            "kv.add",
            "message.send",
            "message.send",
            "http.request",
            "http.request"
        ]
    );
    assert!(two.staged.effects.iter().any(|effect| matches!(effect, Effect::KvAdd { delta: 4, .. })));
    for state in two.staged.effects.iter().filter_map(|effect| effect.contents().1) {
        assert_eq!(two.staged.contents.get(&state.sha256).map(|content| content.size()), Some(state.size));
    }
    let looked = two.staged.read_set.iter().filter(|entry| entry.path.as_str() == "new.txt");
    assert!(looked.clone().all(|entry| matches!(entry.observation, toolkeep_core::plan::Observation::Absent)));
}

#[tokio::test]
async fn r08_effects_in_workspaces_that_a_later_call_does_not_see_go_through_as_they_are() {
    let scratch = Scratch::new();
    let store = Arc::default();
    let one = call(&store, Some(scratch.path()), None, &[write("a/b.txt", "text"), post("one")]).run().await;
    let union = layer(one.staged);
    let without = call(&store, None, Some(union.clone()), &[post("two")]).run().await;
    assert_eq!(without.staged.effects[..3], union.effects[..3]);
    assert_eq!(without.staged.effects.len(), 4);
    let Effect::FileWrite { after, .. } = &union.effects[1] else { panic!("{:?}", union.effects) };
    assert!(without.staged.contents.contains_key(&after.sha256));
    let mut pure = GuestCall::new("text-stats").input(r#"{"text":"a"}"#);
    pure.outward.layer = Some(union.clone());
    assert_eq!(pure.run().await.staged.effects, union.effects, "a tool that reaches nothing carries all of it");
}

#[tokio::test]
async fn r08_a_later_call_needs_no_grant_for_what_an_earlier_one_did() {
    let scratch = Scratch::new();
    let store = Arc::default();
    let one =
        call(&store, Some(scratch.path()), None, &[write("a.txt", "text"), step("set", "a"), post("one")]).run().await;
    let union = layer(one.staged);
    let mut reader = GuestCall::new("reach")
        .input(&json!({"steps": [read("a.txt"), write("a.txt", "more")]}).to_string())
        .workspace(scratch.path(), Access::Read);
    reader.outward.layer = Some(union.clone());
    let two = reader.run().await;
    assert_eq!(answers(&two)[0], json!("text"));
    assert!(answers(&two)[1]["error"].is_string(), "its own changes need one");
    assert_eq!(two.staged.effects, union.effects);
}

#[tokio::test]
async fn r08_a_failed_call_leaves_nothing_and_a_world_that_moved_on_ends_it_as_stale() {
    let scratch = Scratch::new();
    scratch.put("a.txt", b"old");
    let store = Arc::default();
    let one = call(&store, Some(scratch.path()), None, &[write("a.txt", "text"), post("one")]).run().await;
    let union = layer(one.staged);
    let failed =
        call(&store, Some(scratch.path()), Some(union.clone()), &[post("two"), json!({"op": "fail"})]).run().await;
    assert!(matches!(failed.ended, Ended::Error(_)) && failed.staged.effects.is_empty());
    scratch.put("a.txt", b"another text");
    let stale = call(&store, Some(scratch.path()), Some(union), &[read("a.txt")]).run().await;
    assert!(matches!(fault(&stale), Fault::Stale(_)));
}

#[tokio::test]
async fn r04_the_layers_of_a_transaction_share_the_limits_of_a_stage() {
    let store = Arc::default();
    let one = call(&store, None, None, &[post("12345"), message("12345"), step("set", "a")]).run().await;
    let union = layer(one.staged);
    let two = |effects: u64, bytes: u64| {
        call(&store, None, Some(union.clone()), &[step("add", "b")]).limits(|limits| {
            limits.stage_effects = effects;
            limits.stage_bytes = bytes;
        })
    };
    assert_eq!(two(4, 11).run().await.staged.effects.len(), 4);
    assert!(matches!(fault(&two(3, 11).run().await), Fault::StageFull(_)));
    assert!(matches!(fault(&two(4, 10).run().await), Fault::StageFull(_)));
}

fn any_step() -> impl Strategy<Value = Value> {
    let key = || prop_oneof![Just("a"), Just("b"), Just("gone")];
    let file = || prop_oneof![Just("x.txt"), Just("d/y.txt"), Just("old.txt")];
    let text = || prop_oneof![Just("1"), Just("2"), Just("old")];
    let place = |op: &'static str| {
        (key(), text(), -2..3_i64)
            .prop_map(move |(key, value, delta)| json!({"op": op, "bucket": "counts", "key": key, "value": value, "delta": delta}))
    };
    prop_oneof![
        3 => place("get"), 3 => place("set"), 2 => place("delete"), 1 => place("exists"), 4 => place("add"),
        1 => place("list"), 1 => place("swap"),
        3 => (file(), text()).prop_map(|(file, text)| write(file, text)),
        2 => file().prop_map(read),
        1 => text().prop_map(post),
        1 => text().prop_map(message),
    ]
}

async fn compare(first: &[Value], second: &[Value]) -> Result<(), TestCaseError> {
    let scratch = Scratch::new();
    scratch.put("old.txt", b"old");
    let store = Arc::new(Store::with(&[("a", "1"), ("b", "2")]));
    let books = Some(scratch.path());
    let both: Vec<Value> = first.iter().chain(second).cloned().collect();
    let single = call(&store, books, None, &both).run().await;
    let below = call(&store, books, None, first).run().await;
    let below_answers = answers(&below);
    let (below_keys, below_reads) = (below.staged.keys_read.clone(), below.staged.read_set.clone());
    let above = call(&store, books, Some(layer(below.staged)), second).run().await;
    let layered: Vec<Value> = below_answers.into_iter().chain(answers(&above)).collect();
    let fail = |what: &str| TestCaseError::fail(format!("{what}\n{first:?}\n{second:?}"));
    if layered != answers(&single) {
        return Err(fail("other answers"));
    }
    if above.staged.effects != single.staged.effects {
        return Err(fail(&format!("other effects\n{:?}\n{:?}", above.staged.effects, single.staged.effects)));
    }
    let missing = |staged: &Staged| {
        let written = staged.effects.iter().filter_map(|effect| effect.contents().1);
        written.into_iter().any(|state| !staged.contents.contains_key(&state.sha256))
    };
    if missing(&above.staged) || missing(&single.staged) {
        return Err(fail("a content is missing"));
    }
    let known = |read| below_keys.contains(read) || above.staged.keys_read.contains(read);
    let seen = |entry| below_reads.contains(entry) || above.staged.read_set.contains(entry);
    if !single.staged.keys_read.iter().all(known) || !single.staged.read_set.iter().all(seen) {
        return Err(fail("something that was observed is missing"));
    }
    Ok(())
}

#[test]
fn r08_two_calls_in_two_layers_stage_what_one_call_stages_that_does_both() {
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let cases = (vec(any_step(), 0..8), vec(any_step(), 0..8));
    if let Err(error) = runner.run(&cases, |(first, second)| runtime.block_on(compare(&first, &second))) {
        panic!("{error}");
    }
}
