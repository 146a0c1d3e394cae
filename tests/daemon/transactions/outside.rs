//! Keys and requests inside of transactions.

use serde_json::{Value, json};

use super::super::scenery;
use super::super::world::{Agent, Reply, World, component};
use super::{begin, call, commit, layer, note};

/// A world with counters and with a tool that wants to charge somebody while it runs.
fn world() -> World {
    let world = World::asleep(super::Plot::default());
    for (name, rest) in [
        ("counter", "tier = 1\n[tiers]\nget = 0\nlist = 0\n[[keys]]\nbucket = \"counts\"\naccess = \"write\"\n"),
        (
            "charge",
            "tier = 3\n[[http]]\nname = \"pay\"\norigin = \"https://pay.example.com\"\nmethods = [\"POST\"]\n\
             paths = [\"/customers/*/charges\"]\ndelivery = \"live\"\n",
        ),
    ] {
        std::fs::copy(component(name), world.path(&format!("tools/{name}.wasm"))).expect("component");
        scenery::manifest(&world, (name, name, rest));
    }
    let mut world = world;
    world.start();
    world
}

fn add(agent: &mut Agent, transaction: Option<&str>, by: i64) -> Reply {
    let input = json!({"name": "visits", "by": by});
    agent.reply("calls.execute", json!({"tool": "counter.add", "input": input, "transaction": transaction}))
}

fn value(reply: &Reply) -> &Value {
    &reply.value["output"]["value"]
}

#[test]
fn r08_keys_are_seen_by_later_calls_and_change_with_the_commit() {
    let world = world();
    let mut agent = world.agent();
    add(&mut agent, None, 1).must("ok", "committed", "");
    let transaction = begin(&mut agent);
    add(&mut agent, Some(&transaction), 2).must("ok", "staged", "");
    let last = add(&mut agent, Some(&transaction), 3).must("ok", "staged", "");
    assert_eq!(last.value["transaction"]["totals"]["keys"], 1, "one key, whatever the calls: {}", last.value);
    let seen = call(&mut agent, &transaction, "counter.get", json!({"name": "visits"})).must("ok", "staged", "");
    assert_eq!(value(&seen), 6);
    let outside = agent.execute("counter.get", json!({"name": "visits"})).must("ok", "none", "");
    assert_eq!(value(&outside), 1);
    note(&mut agent, &transaction, "Counted");
    commit(&mut agent, &transaction).must("ok", "committed", "");
    let after = agent.execute("counter.get", json!({"name": "visits"})).must("ok", "none", "");
    assert_eq!(value(&after), 6);
    assert!(world.path("notes/counted.md").exists());
}

#[test]
fn r08_additions_commute_and_what_was_read_does_not() {
    let world = world();
    let mut agent = world.agent();
    add(&mut agent, None, 1).must("ok", "committed", "");
    let before = world.snapshot();
    let (adds, reads) = (begin(&mut agent), begin(&mut agent));
    note(&mut agent, &reads, "Read");
    call(&mut agent, &reads, "counter.get", json!({"name": "visits"})).must("ok", "staged", "");
    note(&mut agent, &adds, "Added");
    add(&mut agent, None, 10).must("ok", "committed", "");
    let late = call(&mut agent, &reads, "counter.get", json!({"name": "visits"})).must("failed", "none", "stale_plan");
    assert!(late.text("/error/message").contains("counts/visits"), "the key is named: {}", late.value);
    let stale = commit(&mut agent, &reads).must("failed", "discarded", "stale_plan");
    assert!(stale.text("/error/message").contains("visits"), "the key is named: {}", stale.value);
    assert_eq!(world.snapshot(), before);
    commit(&mut agent, &adds).must("ok", "committed", "");
}

#[test]
fn r08_a_request_that_waits_for_its_answer_is_refused_before_anything_is_sent() {
    let world = world();
    let mut agent = world.agent();
    let transaction = begin(&mut agent);
    note(&mut agent, &transaction, "Kept");
    let staged = layer(&mut agent, &transaction);
    let order = json!({"service": "https://pay.example.com", "customer": "c", "amount": 5, "currency": "EUR"});
    let refused = call(&mut agent, &transaction, "charge", order).must("denied", "none", "denied");
    assert!(refused.text("/error/message").contains("nothing was sent"), "{}", refused.value);
    assert_eq!(layer(&mut agent, &transaction), staged);
    commit(&mut agent, &transaction).must("ok", "committed", "");
    world.verified();
}
