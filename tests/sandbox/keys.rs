//! R48: keys as a tool sees them, what of them is staged, and what the plan rests on.

use std::sync::Arc;

use serde_json::{Value, json};
use toolkeep_core::digest::Digest;
use toolkeep_core::effect::{BodyState, Effect};
use toolkeep_core::grant::{KEY_BYTES_MAX, KeysGrant, VALUE_BYTES_MAX};
use toolkeep_core::plan::key_listing_digest;
use toolkeep_sandbox::execution::{Ended, Execution, Outward};
use toolkeep_sandbox::fault::Fault;
use toolkeep_sandbox::outbound::keys::LIST_PAGE;
use toolkeep_tests::support::guest_call::{GuestCall, fault, output};
use toolkeep_tests::support::outside::{Store, keys, ports};

fn step(op: &str, key: &str) -> Value {
    json!({"op": op, "bucket": "counts", "key": key})
}

fn set(key: &str, value: &str) -> Value {
    json!({"op": "set", "bucket": "counts", "key": key, "value": value})
}

fn add(key: &str, delta: i64) -> Value {
    json!({"op": "add", "bucket": "counts", "key": key, "delta": delta})
}

fn call(grants: &[KeysGrant], store: &Arc<Store>, steps: &[Value]) -> GuestCall {
    let mut call = GuestCall::new("reach").input(&json!({"steps": steps}).to_string());
    call.outward = Outward { keys: grants.into(), ports: ports(&Arc::default(), store), ..Outward::default() };
    call
}

async fn run(store: &Arc<Store>, steps: &[Value]) -> Execution {
    call(&[keys("write", "**")], store, steps).run().await
}

fn answers(execution: &Execution) -> Vec<Value> {
    let output: Value = serde_json::from_str(output(execution)).expect("JSON");
    output["answers"].as_array().expect("answers").clone()
}

fn kinds(execution: &Execution) -> Vec<String> {
    let show = |effect: &Effect| match effect {
        Effect::KvAdd { key, delta, .. } => format!("add {key} {delta}"),
        other => format!("{} {}", other.kind(), other.key().expect("a key").1),
    };
    execution.staged.effects.iter().map(show).collect()
}

fn reads(execution: &Execution) -> Vec<(String, Option<Digest>)> {
    execution.staged.keys_read.iter().map(|read| (read.key.clone(), read.sha256)).collect()
}

#[tokio::test]
async fn r48_a_tool_reads_what_it_wrote_and_only_committed_values_are_observed() {
    let store = Arc::new(Store::with(&[("a", "1"), ("b", "2")]));
    let steps = [
        step("get", "a"),
        set("a", "9"),
        step("get", "a"),
        set("new", "x"),
        step("get", "new"),
        step("exists", "new"),
        step("delete", "b"),
        step("get", "b"),
        step("exists", "b"),
        step("get", "gone"),
    ];
    let execution = run(&store, &steps).await;
    assert_eq!(json!(answers(&execution)), json!(["1", "done", "9", "done", "x", true, "done", null, false, null]));
    assert_eq!(kinds(&execution), ["kv.set a", "kv.delete b", "kv.set new"]);
    assert_eq!(reads(&execution), [("a".to_owned(), Some(Digest::of(b"1"))), ("gone".to_owned(), None)]);
    let Effect::KvSet { before, after, .. } = &execution.staged.effects[0] else { panic!("a set") };
    assert_eq!((*before, *after), (Some(BodyState::of(b"1")), BodyState::of(b"9")));
    assert_eq!(execution.staged.contents[&after.sha256].size(), 1);
    assert_eq!(store.0.lock().expect("keys").len(), 2, "nothing is committed here");
}

#[tokio::test]
async fn r48_additions_merge_commute_and_observe_nothing() {
    let store = Arc::new(Store::with(&[("a", "40")]));
    let execution = run(&store, &[add("a", 1), add("a", 1), add("new", -3), add("none", 2), add("none", -2)]).await;
    assert_eq!(json!(answers(&execution)), json!([41, 42, -3, 2, 0]));
    assert_eq!(kinds(&execution), ["add a 2", "add new -3"]);
    assert!(reads(&execution).is_empty());
    let read = run(&store, &[add("a", 1), step("get", "a"), add("a", 1)]).await;
    assert_eq!(json!(answers(&read)), json!([41, "41", 42]));
    assert_eq!(
        (kinds(&read), reads(&read)),
        (vec!["add a 2".to_owned()], vec![("a".to_owned(), Some(Digest::of(b"40")))])
    );
    let written = run(&store, &[set("a", "7"), add("a", 1), step("delete", "a"), add("a", 5)]).await;
    assert_eq!(json!(answers(&written)), json!(["done", 8, "done", 5]));
    assert_eq!(kinds(&written), ["kv.set a"]);
}

#[tokio::test]
async fn r48_only_decimal_numbers_of_64_bits_are_added_to() {
    let most = i64::MAX.to_string();
    let store = Arc::new(Store::with(&[("text", "x"), ("most", &most), ("plus", "+1"), ("zero", "007")]));
    let execution =
        run(&store, &[add("text", 1), add("most", 1), add("plus", 1), add("zero", 1), add("most", 0)]).await;
    let told = answers(&execution);
    assert!(told[..4].iter().all(|answer| answer["error"].is_string()), "{told:?}");
    assert_eq!(told[4], json!(i64::MAX));
    assert!(execution.staged.effects.is_empty());
}

#[tokio::test]
async fn r48_what_leaves_a_key_as_it_was_is_a_reading_and_no_effect() {
    let store = Arc::new(Store::with(&[("a", "1")]));
    let execution = run(&store, &[set("a", "2"), set("a", "1"), step("delete", "gone")]).await;
    assert!(execution.staged.effects.is_empty() && execution.staged.contents.is_empty());
    assert_eq!(reads(&execution), [("a".to_owned(), Some(Digest::of(b"1"))), ("gone".to_owned(), None)]);
}

#[tokio::test]
async fn r48_a_swap_fails_if_the_value_changed_and_observes_it() {
    let store = Arc::new(Store::with(&[("a", "1")]));
    let swap = |delta: i64| json!({"op": "swap", "bucket": "counts", "key": "a", "value": "9", "delta": delta});
    let execution = run(&store, &[swap(0)]).await;
    assert_eq!((answers(&execution), kinds(&execution)), (vec![json!(true)], vec!["kv.set a".to_owned()]));
    assert_eq!(reads(&execution).len(), 1);
    let execution = run(&store, &[swap(1)]).await;
    assert_eq!((answers(&execution), kinds(&execution)), (vec![json!(false)], vec!["add a 1".to_owned()]));
}

#[tokio::test]
async fn r48_a_listing_merges_own_changes_and_rests_on_all_committed_names() {
    let store = Arc::new(Store::with(&[("a", "1"), ("b/x", "1"), ("c", "1")]));
    let steps = [step("list", ""), step("delete", "a"), set("b", "1"), add("d", 1), add("e", 0), step("list", "")];
    let execution = run(&store, &steps).await;
    let told = answers(&execution);
    assert_eq!((&told[0], &told[5]), (&json!(["a", "b/x", "c"]), &json!(["b", "b/x", "c", "d"])));
    let all = key_listing_digest(["a", "b/x", "c"]);
    assert_eq!(reads(&execution), [("*".to_owned(), all)]);
    let few = call(&[keys("write", "b/*")], &store, &[step("list", "")]).run().await;
    assert_eq!(answers(&few), [json!(["b/x"])], "other keys are not shown");
    let names: Vec<String> = (0..LIST_PAGE + 5).map(|n| format!("{n:05}")).collect();
    let pairs: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
    let long = run(&Arc::new(Store::with(&pairs)), &[step("list", "")]).await;
    assert_eq!(answers(&long), [json!(names)], "page after page");
}

#[tokio::test]
async fn r49_a_key_without_a_grant_is_denied_and_recorded() {
    let store = Arc::new(Store::with(&[("a", "1"), ("day/1", "1")]));
    let grants = [keys("read", "**"), keys("write", "day/*")];
    let steps = [step("get", "a"), set("a", "2"), set("day/1", "2"), add("a", 1), step("delete", "a")];
    let execution = call(&grants, &store, &steps).run().await;
    let told = answers(&execution);
    assert_eq!((&told[0], &told[2]), (&json!("1"), &json!("done")));
    for at in [1, 3, 4] {
        assert!(told[at]["error"].as_str().expect("error").contains("may not"), "{told:?}");
    }
    assert_eq!(execution.staged.breaches.len(), 3);
    let nothing = call(&[], &store, &[step("get", "a")]).run().await;
    assert!(answers(&nothing)[0]["error"].as_str().expect("error").contains("no bucket"));
    assert!(nothing.staged.breaches[0].contains("no grant names this bucket"));
}

#[tokio::test]
async fn r04_keys_values_and_changes_hold_at_n_and_are_refused_at_n_plus_1() {
    let store = Arc::default();
    let long = |count: usize| set(&"k".repeat(count), "1");
    let large = |times: usize| json!({"op": "set", "bucket": "counts", "key": "a", "value": "v", "times": times});
    let steps = [
        long(KEY_BYTES_MAX),
        long(KEY_BYTES_MAX + 1),
        large(VALUE_BYTES_MAX),
        large(VALUE_BYTES_MAX + 1),
        set("a*", "1"),
        set("", "1"),
        set("a\n", "1"),
    ];
    let told = answers(&run(&store, &steps).await);
    let done: Vec<bool> = told.iter().map(|answer| answer == "done").collect();
    assert_eq!(done, [true, false, true, false, false, false, false], "{told:?}");
    let three = [set("a", "123"), set("b", "123"), add("c", 1), set("a", "12")];
    let limited = |effects: u64, bytes: u64| {
        call(&[keys("write", "**")], &store, &three).limits(|limits| {
            limits.stage_effects = effects;
            limits.stage_bytes = bytes;
        })
    };
    assert!(matches!(limited(3, 6).run().await.ended, Ended::Output(_)));
    assert!(matches!(fault(&limited(2, 6).run().await), Fault::StageFull(_)));
    assert!(matches!(fault(&limited(3, 5).run().await), Fault::StageFull(_)));
}

/// A store whose values change between two looks.
#[derive(Debug, Default)]
struct Restless(std::sync::atomic::AtomicU64);

impl toolkeep_sandbox::port::Keys for Restless {
    fn get<'a>(
        &'a self,
        _bucket: &'a toolkeep_core::id::BucketName,
        _key: &'a str,
    ) -> toolkeep_sandbox::port::PortFuture<'a, Result<Option<bytes::Bytes>, toolkeep_sandbox::port::KeysFailure>> {
        let next = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Box::pin(async move { Ok(Some(next.to_string().into())) })
    }

    fn list<'a>(
        &'a self,
        _bucket: &'a toolkeep_core::id::BucketName,
        _after: Option<&'a str>,
        _limit: usize,
    ) -> toolkeep_sandbox::port::PortFuture<'a, Result<Vec<String>, toolkeep_sandbox::port::KeysFailure>> {
        Box::pin(async { Err(toolkeep_sandbox::port::KeysFailure::Unreadable("on purpose".to_owned())) })
    }
}

#[tokio::test]
async fn r48_a_value_that_changes_under_a_tool_ends_it_as_stale() {
    let run = |steps: Vec<Value>| {
        let mut call = call(&[keys("write", "**")], &Arc::default(), &steps);
        call.outward.ports.keys = Some(Arc::new(Restless::default()));
        call.run()
    };
    assert!(matches!(fault(&run(vec![step("get", "a"), step("get", "a")]).await), Fault::Stale(_)));
    let added = run(vec![add("a", 1), add("a", 1)]).await;
    assert_eq!(answers(&added), [json!(1), json!(3)], "additions rest on nothing");
    let listed = run(vec![step("list", "")]).await;
    assert!(answers(&listed)[0]["error"].as_str().expect("error").contains("on purpose"));
}

#[tokio::test]
async fn r41_values_that_were_read_are_in_the_recording_and_it_repeats() {
    let store = Arc::new(Store::with(&[("a", "hello")]));
    let steps = [step("get", "a"), add("n", 2), step("list", "")];
    let (first, second) = (run(&store, &steps).await, run(&store, &steps).await);
    assert_eq!((&first.recording, &first.staged.effects), (&second.recording, &second.staged.effects));
    let events = serde_json::to_string(&first.recording.events).expect("JSON");
    assert!(events.contains("wasi:keyvalue/store#bucket.get") && !events.contains("hello"), "{events}");
    let heard = serde_json::to_string(&first.recording.heard.keys).expect("JSON");
    assert!(heard.contains("hello"), "{heard}");
}
