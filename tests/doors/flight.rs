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
