//! What a transaction may hold, how long it lasts and whose it is.

use std::thread;

use serde_json::{Value, json};
use toolkeep_core::limit::{
    TRANSACTION_CALLS_MAX, TRANSACTION_TOOLS_MAX, TRANSACTION_TTL_DEFAULT_MS, TRANSACTION_TTL_MAX_MS,
    TRANSACTIONS_OPEN_MAX,
};

use super::super::world::World;
use super::{begin, call, commit, get, layer, note};
use crate::doors::running::until;

#[test]
fn r08_a_principal_has_so_many_open_transactions_and_no_more() {
    let world = World::new();
    let mut agent = world.agent();
    let open: Vec<String> = (0..TRANSACTIONS_OPEN_MAX).map(|_| begin(&mut agent)).collect();
    let refused = agent.no("transactions.begin", json!({}));
    assert_eq!((&refused["code"], &refused["retryable"]), (&json!("overloaded"), &json!(true)), "{refused}");
    agent.ok("transactions.rollback", json!({"transaction": open[0]}));
    begin(&mut agent);
    let listed = agent.ok("transactions.list", json!({}));
    assert_eq!(listed["transactions"].as_array().map(Vec::len), Some(open.len() + 1));
    let all = world.admin().ok("transactions.list", json!({}));
    assert_eq!(all["transactions"].as_array().map(Vec::len), Some(open.len() + 1));
}

#[test]
fn r08_a_transaction_has_so_many_calls_and_no_more() {
    let world = World::new();
    let mut agent = world.agent();
    let transaction = begin(&mut agent);
    for _ in 1..TRANSACTION_CALLS_MAX {
        call(&mut agent, &transaction, "notes.list", json!({})).must("ok", "staged", "");
    }
    note(&mut agent, &transaction, "Last");
    let full = layer(&mut agent, &transaction);
    call(&mut agent, &transaction, "notes.list", json!({})).must("failed", "none", "memory_exceeded");
    assert_eq!(layer(&mut agent, &transaction), full);
    commit(&mut agent, &transaction).must("ok", "committed", "");
}

#[test]
fn r08_the_parameters_of_a_transaction_are_checked_at_their_bounds() {
    let world = World::new();
    let mut agent = world.agent();
    let lasts = |answer: &Value| answer["expires_at_ms"].as_u64().expect("a time");
    let usual = lasts(&agent.ok("transactions.begin", json!({})));
    let longest = lasts(&agent.ok("transactions.begin", json!({"ttl_ms": TRANSACTION_TTL_MAX_MS})));
    let between = TRANSACTION_TTL_MAX_MS - TRANSACTION_TTL_DEFAULT_MS;
    assert!((between..between + 60_000).contains(&(longest - usual)), "{usual} {longest}");
    let names = |count: usize| vec!["notes.add"; count];
    agent.ok("transactions.begin", json!({"tools": names(TRANSACTION_TOOLS_MAX)}));
    for (params, pointer) in [
        (json!({"ttl_ms": 0}), "/ttl_ms"),
        (json!({"ttl_ms": TRANSACTION_TTL_MAX_MS + 1}), "/ttl_ms"),
        (json!({"tools": names(TRANSACTION_TOOLS_MAX + 1)}), "/tools"),
        (json!({"tools": ["notes.add", "nothing"]}), "/tools/1"),
    ] {
        let refused = agent.no("transactions.begin", params);
        assert_eq!(refused["fields"][0]["pointer"], pointer, "{refused}");
    }
    let run = json!({"run": "run_00000000-0000-7000-8000-000000000000"});
    assert_eq!(agent.no("transactions.begin", run)["code"], "not_found");
    let run = agent.ok("runs.open", json!({}))["run"].clone();
    let narrow = agent.ok("transactions.begin", json!({"run": run, "tools": ["notes.add"]}));
    let narrow = narrow["transaction"].as_str().expect("an id").to_owned();
    call(&mut agent, &narrow, "notes.list", json!({})).must("denied", "none", "denied");
    note(&mut agent, &narrow, "Narrow");
    let done = commit(&mut agent, &narrow).must("ok", "committed", "");
    assert_eq!(done.value["receipt"]["statement"]["run"], run, "its commit is a call of the run");
}

#[test]
fn r08_a_transaction_that_nobody_commits_in_time_is_rolled_back() {
    let world = World::new();
    let mut agent = world.agent();
    let before = world.snapshot();
    let begun = agent.ok("transactions.begin", json!({"ttl_ms": 1}));
    let transaction = begun["transaction"].as_str().expect("an id").to_owned();
    let late = json!({"title": "Late", "body": "b"});
    call(&mut agent, &transaction, "notes.add", late).must("failed", "none", "not_found");
    until("the transaction is rolled back", || get(&mut agent, &transaction)["state"] == "discarded");
    call(&mut agent, &transaction, "notes.list", json!({})).must("failed", "none", "not_found");
    commit(&mut agent, &transaction).must("failed", "none", "not_found");
    assert_eq!(world.snapshot(), before);
    world.verified();
}

#[test]
fn r08_calls_of_one_transaction_run_one_after_the_other() {
    let world = World::new();
    let transaction = begin(&mut world.agent());
    let mut agents: Vec<_> = (0..8).map(|_| world.agent()).collect();
    thread::scope(|scope| {
        for (number, agent) in agents.iter_mut().enumerate() {
            let transaction = &transaction;
            scope.spawn(move || note(agent, transaction, &format!("Note {number}")));
        }
    });
    let mut agent = world.agent();
    assert_eq!(get(&mut agent, &transaction)["calls"], 8, "none was lost");
    let done = commit(&mut agent, &transaction).must("ok", "committed", "");
    assert_eq!(done.value["plan"]["totals"]["creates"], 8);
}
