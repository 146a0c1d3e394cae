//! Calls beside each other, progress, and components that are ready before anybody calls them.

use serde_json::{Value, json};

use super::scenery::manifest;
use super::world::{Agent, Plot, World};
use crate::doors::running::until;

fn line(id: u32, tool: &str, input: &Value, meta: &Value) -> Vec<u8> {
    let request = json!({"jsonrpc": "2.0", "id": id, "method": "calls.execute",
        "params": {"tool": tool, "input": input, "_meta": meta}});
    format!("{request}\n").into_bytes()
}

#[test]
fn r35_calls_of_one_connection_run_beside_each_other_and_answer_as_they_end() {
    let world = World::new();
    let Agent(mut client) = world.agent();
    let none = json!({});
    client.send(&line(1, "spin-long", &none, &none));
    client.send(&line(2, "spin-long", &none, &none));
    client.send(&line(3, "text-stats", &json!({"text": "a b"}), &none));
    let answers: Vec<Value> = (0..3).filter_map(|_| client.line()).collect();
    let ids: Vec<u64> = answers.iter().filter_map(|answer| answer["id"].as_u64()).collect();
    assert_eq!(ids.first(), Some(&3), "the short call does not wait for the long ones: {ids:?}");
    let mut ended: Vec<u64> = ids.clone();
    ended.sort_unstable();
    assert_eq!(ended, [1, 2, 3], "each is answered once");
    let code = |answer: &Value| answer["result"]["reply"]["error"]["code"].as_str().map(str::to_owned);
    assert_eq!(answers.iter().filter_map(code).collect::<Vec<_>>(), ["deadline_exceeded", "deadline_exceeded"]);
    world.verified();
}

#[test]
fn r35_progress_reaches_who_asks_for_it_before_the_answer_and_nobody_else() {
    let world = World::new();
    for number in 0..40 {
        world.home.put(&format!("books/ledger/p{number}.csv"), b"date,category,amount\n2026-01-02,food,1\n");
    }
    let input = json!({"input": "ledger", "output": "report.md"});
    let heard = |meta: &Value| {
        let Agent(mut client) = world.agent();
        client.send(&line(7, "csv-report", &input, meta));
        let mut notes = Vec::new();
        loop {
            let said = client.line().expect("a line");
            if said.get("id").is_some() {
                return (notes, said);
            }
            notes.push(said);
        }
    };
    let (notes, answer) = heard(&json!({"progress": true}));
    assert_eq!(answer["result"]["reply"]["status"], "ok", "{answer}");
    assert!(!notes.is_empty() && notes.iter().all(|note| note["method"] == "call.progress"), "{notes:?}");
    let done: Vec<u64> = notes.iter().filter_map(|note| note["params"]["done"].as_u64()).collect();
    assert_eq!(done.len(), notes.len(), "{notes:?}");
    assert!(done.is_sorted(), "{done:?}");
    assert!(notes.iter().all(|note| note["params"]["request"] == 7), "they name the request: {notes:?}");
    let (unasked, _) = heard(&json!({}));
    assert_eq!(unasked, Vec::<Value>::new());
    world.verified();
}

#[test]
fn r35_a_warm_component_is_ready_before_anybody_calls_it_and_others_are_not() {
    let mut world = World::asleep(Plot::default());
    manifest(&world, ("stats", "text-stats", "tier = 0\nwarm = true\n"));
    world.start();
    let ready = || world.admin().ok("health.get", json!({}))["components_ready"].as_u64();
    until("the warm component is ready", || ready() == Some(1));
    world.agent().execute("text-stats", json!({"text": "a"})).must("ok", "none", "");
    assert_eq!(ready(), Some(1), "it is the same component");
    manifest(
        &world,
        ("books", "csv-report", "tier = 1\nwarm = true\n[[workspace]]\nname = \"books\"\naccess = \"write\"\n"),
    );
    world.admin().ok("tools.reload", json!({}));
    until("what became warm is ready", || ready() == Some(2));
    world.verified();
}
