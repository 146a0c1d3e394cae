//! Commits of transactions: decided once, held as a whole, and only over the world that the calls saw.

use serde_json::{Value, json};

use super::super::world::{Agent, Reply, World};
use super::{begin, call, commit, get, note, rename};

fn approve(admin: &mut Agent, approval: &str) -> Value {
    admin.ok("approvals.approve", json!({"approval": approval, "reason": "looks right"}))
}

/// A transaction that people have to agree to: a note and, with it, a rename.
fn held(agent: &mut Agent) -> (String, Reply) {
    let transaction = begin(agent);
    let strict = json!({"title": "Strict", "body": "b"});
    call(agent, &transaction, "notes2.add", strict).must("ok", "staged", "");
    rename(agent, &transaction, "new_name").must("ok", "staged", "");
    let reply = commit(agent, &transaction).must("held", "pending", "approval_required");
    (transaction, reply)
}

#[test]
fn r08_a_preview_shows_the_plan_that_a_commit_then_expects() {
    let world = World::new();
    let mut agent = world.agent();
    let before = world.snapshot();
    let transaction = begin(&mut agent);
    let none = agent.reply("transactions.preview", json!({"transaction": transaction}));
    none.must("ok", "none", "");
    note(&mut agent, &transaction, "One");
    let early = agent.reply("transactions.preview", json!({"transaction": transaction})).must("ok", "previewed", "");
    note(&mut agent, &transaction, "Two");
    let shown = agent.reply("transactions.preview", json!({"transaction": transaction})).must("ok", "previewed", "");
    let page = agent.ok("plans.get", json!({"plan": shown.plan(), "diffs": true}));
    assert_eq!(page["steps"].as_array().map(Vec::len), Some(2), "{page}");
    assert_eq!(page["contents"].as_object().map(serde_json::Map::len), Some(2), "{page}");
    assert_eq!(world.snapshot(), before);
    let refused = agent.no("plans.commit", json!({"plan": shown.plan()}));
    assert_eq!(refused["code"], "denied", "{refused}");
    let other = json!({"transaction": transaction, "expect_plan": early.digest()});
    agent.reply("transactions.commit", other).must("failed", "none", "plan_diverged");
    assert_eq!(get(&mut agent, &transaction)["state"], "open", "still open");
    let expected = json!({"transaction": transaction, "expect_plan": shown.digest()});
    let done = agent.reply("transactions.commit", expected).must("ok", "committed", "");
    assert_eq!(done.digest(), shown.digest());
    assert!(world.path("notes/one.md").exists() && world.path("notes/two.md").exists());
}

#[test]
fn r08_r22_people_agree_to_the_whole_of_a_transaction_once() {
    let mut world = World::new();
    let before = world.snapshot();
    let (transaction, reply) = held(&mut world.agent());
    assert_eq!(world.snapshot(), before);
    assert_eq!(get(&mut world.agent(), &transaction)["state"], "sealed");
    call(&mut world.agent(), &transaction, "notes.list", json!({})).must("failed", "none", "not_found");
    let again = commit(&mut world.agent(), &transaction);
    assert_eq!((&again.value, again.replayed), (&reply.value, false), "it waits");
    world.restart();
    let (mut agent, mut admin) = (world.agent(), world.admin());
    let shown = admin.ok("approvals.show", json!({"approval": reply.approval()}));
    assert_eq!(shown["plan"]["digest"], reply.digest());
    let steps: Vec<&str> =
        shown["plan"]["steps"].as_array().expect("steps").iter().filter_map(|s| s["tool"].as_str()).collect();
    assert_eq!(steps, ["notes2.add", "rename-symbol"]);
    assert!(shown["plan"]["totals"]["effects"].as_u64() > Some(2), "the whole union: {shown}");
    assert_eq!(agent.commit(reply.plan()).text("/error/code"), "approval_required", "its owner cannot release it");
    let done = approve(&mut admin, reply.approval());
    assert_eq!(done["reply"]["outcome"], "committed", "{done}");
    assert!(world.path("notes/strict.md").exists() && world.path("src/shop/new_name.py").exists());
    let told = agent.reply("approvals.wait", json!({"approval": reply.approval(), "timeout_ms": 10}));
    assert_eq!(told.value, done["reply"]);
    assert_eq!(commit(&mut agent, &transaction).value, done["reply"]);
    assert_eq!(get(&mut agent, &transaction)["state"], "committed");
    let undo = agent.reply("undo.propose", json!({"call": reply.call()})).must("ok", "previewed", "");
    agent.commit(undo.plan()).must("held", "pending", "approval_required");
    world.verified();
}

#[test]
fn r08_r22_a_rejected_or_dropped_transaction_is_over() {
    let world = World::new();
    let (mut agent, mut admin) = (world.agent(), world.admin());
    let before = world.snapshot();
    let (rejected, reply) = held(&mut agent);
    admin.ok("approvals.reject", json!({"approval": reply.approval(), "reason": "not now"}));
    let told = commit(&mut agent, &rejected).must("denied", "discarded", "approval_rejected");
    assert!(told.replayed);
    assert_eq!(get(&mut agent, &rejected)["state"], "discarded");
    let (dropped, reply) = held(&mut agent);
    agent.ok("transactions.rollback", json!({"transaction": dropped}));
    let late = admin.no("approvals.approve", json!({"approval": reply.approval()}));
    assert_eq!(late["code"], "approval_expired", "{late}");
    commit(&mut agent, &dropped).must("ok", "discarded", "");
    assert_eq!(world.snapshot(), before);
}

#[test]
fn r08_kinds_that_one_manifest_holds_hold_the_whole() {
    let world = World::new();
    let mut agent = world.agent();
    let transaction = begin(&mut agent);
    note(&mut agent, &transaction, "One");
    let rename = json!({"from": "old_name", "to": "new_name"});
    call(&mut agent, &transaction, "held-rename", rename).must("ok", "staged", "");
    commit(&mut agent, &transaction).must("held", "pending", "approval_required");
    assert!(!world.path("notes/one.md").exists());
}

#[test]
fn r08_of_two_transactions_over_one_state_the_first_commit_wins_and_the_other_is_told_what_changed() {
    let world = World::new();
    let mut agent = world.agent();
    let (first, second, third) = (begin(&mut agent), begin(&mut agent), begin(&mut agent));
    rename(&mut agent, &first, "first_name").must("ok", "staged", "");
    note(&mut agent, &second, "Second");
    rename(&mut agent, &second, "second_name").must("ok", "staged", "");
    note(&mut agent, &third, "Third");
    rename(&mut agent, &third, "third_name").must("ok", "staged", "");
    commit(&mut agent, &first).must("ok", "committed", "");
    let after = world.snapshot();
    let stale = commit(&mut agent, &second).must("failed", "discarded", "stale_plan");
    assert!(stale.text("/error/message").contains("src"), "it says where: {}", stale.value);
    assert_eq!(get(&mut agent, &second)["state"], "discarded");
    let late = call(&mut agent, &third, "rename-symbol", json!({"from": "third_name", "to": "x"}));
    let late = late.must("failed", "none", "stale_plan");
    assert!(late.text("/error/message").contains("src"), "{}", late.value);
    assert_eq!(get(&mut agent, &third)["calls"], 2, "as it was");
    commit(&mut agent, &third).must("failed", "discarded", "stale_plan");
    assert_eq!(world.snapshot(), after, "nothing of the losers, not even what did not overlap");
    world.verified();
}

#[test]
fn r08_transactions_that_do_not_overlap_all_commit() {
    let world = World::new();
    let mut agent = world.agent();
    let (first, second) = (begin(&mut agent), begin(&mut agent));
    call(&mut agent, &first, "csv-report", json!({"input": "ledger", "output": "reports/all.md"}))
        .must("ok", "staged", "");
    rename(&mut agent, &second, "new_name").must("ok", "staged", "");
    for transaction in [first, second] {
        commit(&mut agent, &transaction).must("ok", "committed", "");
    }
}

#[test]
fn r38_a_tool_that_changed_since_it_was_called_makes_the_transaction_stale() {
    let world = World::new();
    let (mut agent, mut admin) = (world.agent(), world.admin());
    let before = world.snapshot();
    let transaction = begin(&mut agent);
    note(&mut agent, &transaction, "One");
    rename(&mut agent, &transaction, "new_name").must("ok", "staged", "");
    let manifest = world.text("tools/notes.toml");
    world.home.put("tools/notes.toml", format!("{manifest}\n# changed\n").as_bytes());
    admin.ok("tools.reload", json!({}));
    let late = rename(&mut agent, &transaction, "x").must("failed", "none", "stale_plan");
    assert!(late.text("/error/message").contains("`notes.add`"), "{}", late.value);
    let stale = commit(&mut agent, &transaction).must("failed", "discarded", "stale_plan");
    assert!(stale.text("/error/message").contains("manifest"), "{}", stale.value);
    assert_eq!(world.snapshot(), before);
}
