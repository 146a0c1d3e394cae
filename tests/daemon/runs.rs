//! Runs: what belongs to one task, and what may name it.

use serde_json::{Value, json};

use super::world::World;

#[test]
fn a_run_lists_its_calls_with_how_they_ended() {
    let world = World::new();
    let mut agent = world.agent();
    let run = agent.ok("runs.open", json!({"label": "close the books"}))["run"].clone();
    let call = |tool: &str, input: Value| json!({"tool": tool, "input": input, "run": run, "step": "s1"});
    let made = [
        agent.reply("calls.execute", call("notes.add", json!({"title": "A", "body": "b"}))),
        agent.reply("calls.execute", call("spin", json!({}))),
        agent.reply("calls.preview", call("notes.add", json!({"title": "B", "body": "b"}))),
        agent.reply("calls.execute", call("notes2.add", json!({"title": "C", "body": "b"}))),
        agent.reply("calls.execute", call("notes.add", json!({"title": 7}))),
    ];
    let page = agent.ok("runs.get", json!({"run": run}));
    assert_eq!(page["label"], "close the books");
    let ended = |calls: &Value| -> Vec<(String, String, String)> {
        let text = |call: &Value, key: &str| call[key].as_str().unwrap_or_default().to_owned();
        let calls = calls.as_array().expect("calls");
        calls.iter().map(|call| (text(call, "call_id"), text(call, "status"), text(call, "outcome"))).collect()
    };
    let mut wanted: Vec<_> = made
        .iter()
        .map(|r| (r.call().to_owned(), r.text("/status").to_owned(), r.text("/outcome").to_owned()))
        .collect();
    let mut found = ended(&page["calls"]);
    wanted.sort();
    found.sort();
    assert_eq!(found, wanted);
    let fuel: u64 = made.iter().map(|reply| reply.value["usage"]["fuel"].as_u64().expect("fuel")).sum();
    assert_eq!(page["totals"]["fuel"].as_u64(), Some(fuel));
    let shown = world.admin().ok("runs.show", json!({"run": run}));
    assert_eq!(shown["calls"], page["calls"]);
}

#[test]
fn a_call_may_name_an_open_run_only() {
    let world = World::new();
    let mut agent = world.agent();
    let before = world.snapshot();
    let run = agent.ok("runs.open", json!({}))["run"].clone();
    agent.ok("runs.close", json!({"run": run}));
    assert_eq!(agent.no("runs.close", json!({"run": run}))["code"], "not_found");
    for run in [run, json!("run_00000000-0000-7000-8000-000000000000")] {
        let call = json!({"tool": "notes.add", "input": {"title": "A", "body": "b"}, "run": run});
        agent.reply("calls.execute", call).must("failed", "none", "not_found");
    }
    assert_eq!(world.snapshot(), before);
}
