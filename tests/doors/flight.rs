//! Calls in flight: what a caller that goes away, or changes its mind, ends.

use serde_json::{Value, json};
use toolkeep_tests::support::components;

use super::running::{Daemon, until};

/// A daemon that offers `spin`, which would burn fuel for longer than any test waits.
fn with_spin() -> Daemon {
    let daemon = Daemon::start();
    std::fs::copy(components::path("spin"), daemon.home.path().join("spin.wasm")).expect("the built tool");
    let packed = daemon.cli(&["tools", "pack", "spin.wasm"]);
    assert!(packed.status.success(), "{}", String::from_utf8_lossy(&packed.stderr));
    let manifest = "format = 1\nname = \"spin\"\ncomponent = \"spin.wasm\"\ntier = 0\n\
                    [limits]\nfuel = 1000000000000\ndeadline_ms = 600000\n";
    daemon.home.put("spin.toml", manifest.as_bytes());
    let installed = daemon.cli(&["tools", "install", "spin.toml"]);
    assert!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
    daemon
}

fn request(id: u32, method: &str, params: Value) -> Vec<u8> {
    let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
    format!("{request}\n").into_bytes()
}

#[test]
fn a_dropped_connection_ends_its_execution() {
    let daemon = with_spin();
    let mut admin = daemon.admin();
    let mut in_flight = || admin.ask("health.get", json!({})).pointer("/result/in_flight").and_then(Value::as_u64);
    let mut caller = daemon.agent();
    caller.send(&request(1, "calls.execute", json!({"tool": "spin", "input": {}})));
    until("the call runs", || in_flight() == Some(1));
    drop(caller);
    until("the call is over", || in_flight() == Some(0));
}

#[test]
fn a_running_call_neither_delays_others_of_its_connection_nor_escapes_its_cancellation() {
    let daemon = with_spin();
    let mut caller = daemon.agent();
    let spin = json!({"tool": "spin", "input": {}, "idempotency_key": "k"});
    caller.send(&request(1, "calls.execute", spin.clone()));
    caller.send(&request(2, "host.info", json!({})));
    let answer = caller.line().expect("an answer");
    assert_eq!(answer["id"], json!(2), "the second overtakes the first: {answer}");
    // A retry with the key tells which call runs. Both are under way at once, so either may have claimed the key; the
    // other one is told.
    let mut call = String::new();
    until("the call is known", || {
        caller.send(&request(3, "calls.execute", spin.clone()));
        let answer = caller.line().expect("an answer");
        assert!(answer["id"] == json!(1) || answer["id"] == json!(3), "{answer}");
        assert_eq!(answer.pointer("/result/reply/error/code"), Some(&json!("in_flight")), "{answer}");
        let message = answer.pointer("/result/reply/error/message").and_then(Value::as_str).unwrap_or_default();
        call = message.split(' ').find(|word| word.starts_with("call_")).unwrap_or_default().to_owned();
        !call.is_empty()
    });
    caller.send(&request(4, "calls.cancel", json!({"call": call})));
    let mut answers = [caller.line().expect("an answer"), caller.line().expect("an answer")];
    answers.sort_by_key(|answer| answer["id"].as_u64());
    assert_eq!(answers[0].pointer("/result/reply/status"), Some(&json!("failed")), "{}", answers[0]);
    assert_eq!(answers[1].pointer("/result/cancelling"), Some(&json!(true)), "{}", answers[1]);
}

#[test]
fn a_call_is_cancelled_by_the_id_of_its_request_and_by_nobody_elses() {
    let daemon = with_spin();
    let (mut caller, mut other) = (daemon.agent(), daemon.agent());
    let cancel = |id: u32, of: Value| request(id, "calls.cancel", json!({"request": of}));
    // Both are read at once: a call can be cancelled before it has begun.
    let mut both = request(1, "calls.execute", json!({"tool": "spin", "input": {}}));
    both.extend(cancel(2, json!(1)));
    caller.send(&both);
    let mut answers = [caller.line().expect("an answer"), caller.line().expect("an answer")];
    answers.sort_by_key(|answer| answer["id"].as_u64());
    assert_eq!(answers[0].pointer("/result/reply/outcome"), Some(&json!("none")), "{}", answers[0]);
    assert_eq!(answers[1].pointer("/result/cancelling"), Some(&json!(true)), "{}", answers[1]);
    assert_eq!(answers[1]["result"]["call_id"], answers[0]["result"]["reply"]["call_id"]);
    // While it runs, neither another connection nor another id reaches it.
    let mut admin = daemon.admin();
    let mut in_flight = || admin.ask("health.get", json!({})).pointer("/result/in_flight").and_then(Value::as_u64);
    caller.send(&request(3, "calls.execute", json!({"tool": "spin", "input": {}})));
    until("the call runs", || in_flight() == Some(1));
    let code = |answer: &Value| answer.pointer("/error/data/code").cloned();
    other.send(&cancel(1, json!(3)));
    assert_eq!(code(&other.line().expect("an answer")), Some(json!("not_found")));
    for wrong in [json!(1), json!("3"), json!(null), json!(1.5)] {
        caller.send(&cancel(4, wrong.clone()));
        let answer = caller.line().expect("an answer");
        let expected = if wrong.is_f64() { "invalid_input" } else { "not_found" };
        let expected = if wrong.is_null() { "invalid_input" } else { expected };
        assert_eq!((&answer["id"], code(&answer)), (&json!(4), Some(json!(expected))), "{wrong}: {answer}");
    }
    caller.send(&cancel(5, json!(3)));
    let mut answers = [caller.line().expect("an answer"), caller.line().expect("an answer")];
    answers.sort_by_key(|answer| answer["id"].as_u64());
    assert_eq!(answers[0].pointer("/result/reply/status"), Some(&json!("failed")), "{}", answers[0]);
    until("the call is over", || in_flight() == Some(0));
    caller.send(&cancel(6, json!(3)));
    assert_eq!(code(&caller.line().expect("an answer")), Some(json!("not_found")), "what was answered is forgotten");
}
