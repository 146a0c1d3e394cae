//! Transactions through the whole daemon (R08): several calls on one stage, committed or rolled back as one.

mod bounds;
mod commits;
mod life;
mod outside;

use serde_json::{Value, json};

use super::world::{Agent, Plot, Reply, World};

/// Begin one; its id.
fn begin(agent: &mut Agent) -> String {
    agent.ok("transactions.begin", json!({}))["transaction"].as_str().expect("an id").to_owned()
}

/// A call in a transaction.
fn call(agent: &mut Agent, transaction: &str, tool: &str, input: Value) -> Reply {
    agent.reply("calls.execute", json!({"tool": tool, "input": input, "transaction": transaction}))
}

/// A note that is staged.
fn note(agent: &mut Agent, transaction: &str, title: &str) -> Reply {
    call(agent, transaction, "notes.add", json!({"title": title, "body": "b"})).must("ok", "staged", "")
}

fn rename(agent: &mut Agent, transaction: &str, to: &str) -> Reply {
    call(agent, transaction, "rename-symbol", json!({"from": "old_name", "to": to}))
}

fn commit(agent: &mut Agent, transaction: &str) -> Reply {
    agent.reply("transactions.commit", json!({"transaction": transaction}))
}

fn get(agent: &mut Agent, transaction: &str) -> Value {
    agent.ok("transactions.get", json!({"transaction": transaction}))
}

/// What names everything that is staged.
fn layer(agent: &mut Agent, transaction: &str) -> Value {
    get(agent, transaction)["layer"].clone()
}

fn titles(reply: &Reply) -> Vec<&str> {
    let notes = reply.value["output"]["notes"].as_array().expect("notes");
    notes.iter().filter_map(|note| note["title"].as_str()).collect()
}

#[test]
fn r08_later_calls_see_what_earlier_ones_staged_and_one_commit_applies_all_of_it() {
    let world = World::new();
    let (mut agent, mut other) = (world.agent(), world.agent());
    let before = world.snapshot();
    let transaction = begin(&mut agent);
    let first = note(&mut agent, &transaction, "First");
    assert_eq!(first.value["transaction"]["calls"], 1, "{}", first.value);
    assert_eq!(first.value["transaction"]["totals"]["creates"], 1);
    let listed = call(&mut agent, &transaction, "notes.list", json!({})).must("ok", "staged", "");
    assert!(titles(&listed).contains(&"First"), "{}", listed.value);
    let outside = other.execute("notes.list", json!({})).must("ok", "none", "");
    assert!(!titles(&outside).contains(&"First"), "nobody else sees it");
    rename(&mut agent, &transaction, "new_name").must("ok", "staged", "");
    let twice = call(&mut agent, &transaction, "notes.add", json!({"title": "First", "body": "again"}));
    twice.must("failed", "none", "tool_failed");
    let report = json!({"input": "ledger", "output": "reports/all.md"});
    let last = call(&mut agent, &transaction, "csv-report", report).must("ok", "staged", "");
    assert_eq!(last.value["transaction"]["calls"], 4, "the failed call is none of it");
    assert_eq!(world.snapshot(), before, "nothing is changed yet");
    let shown = get(&mut agent, &transaction);
    let tools: Vec<&str> =
        shown["steps"].as_array().expect("steps").iter().filter_map(|s| s["tool"].as_str()).collect();
    assert_eq!(tools, ["notes.add", "notes.list", "rename-symbol", "csv-report"]);
    assert_eq!((&shown["state"], &shown["layer"]), (&json!("open"), &last.value["transaction"]["layer"]));
    let done = commit(&mut agent, &transaction).must("ok", "committed", "");
    assert_eq!(done.value["receipt"]["statement"]["tool"], "toolkeep.transaction");
    assert_eq!(done.value["transaction"]["id"], json!(transaction), "{}", done.value);
    agent.ok("receipts.verify", json!({"receipt": done.value["receipt"]}));
    assert!(world.path("notes/first.md").exists() && world.path("books/reports/all.md").exists());
    assert!(world.path("src/shop/new_name.py").exists() && !world.path("src/shop/old_name.py").exists());
    assert_eq!(get(&mut agent, &transaction)["state"], "committed");
    let again = commit(&mut agent, &transaction).must("ok", "committed", "");
    assert!(again.replayed && again.value == done.value, "a transaction is committed once");
    let late = call(&mut agent, &transaction, "notes.list", json!({})).must("failed", "none", "not_found");
    assert!(late.text("/error/message").contains("committed"), "{}", late.value);
    let undo = agent.reply("undo.propose", json!({"call": done.call()})).must("ok", "previewed", "");
    agent.commit(undo.plan()).must("ok", "committed", "");
    let after = world.snapshot();
    assert_eq!(after.get("books/reports"), None, "{after:?}");
    assert_eq!(after, before, "undone as one");
    world.verified();
}

#[test]
fn r08_a_call_that_fails_is_denied_or_is_only_previewed_leaves_the_transaction_as_it_was() {
    let world = World::of(Plot { limits: "undo_bytes = 10", ..Plot::default() });
    let mut agent = world.agent();
    let transaction = begin(&mut agent);
    note(&mut agent, &transaction, "Kept");
    let staged = layer(&mut agent, &transaction);
    for (tool, input, end) in [
        ("trap", json!({}), ("failed", "none", "tool_trapped")),
        ("spin", json!({}), ("failed", "none", "out_of_fuel")),
        ("bad-output", json!({}), ("failed", "none", "tool_trapped")),
        ("notes.add", json!({"title": "Kept", "body": "b"}), ("failed", "none", "tool_failed")),
        ("notes.add", json!({"title": 7}), ("failed", "none", "invalid_input")),
        ("nothing", json!({}), ("failed", "none", "not_found")),
        ("rename-symbol", json!({"from": "old_name", "to": "new_name"}), ("denied", "none", "denied")),
    ] {
        let ended = call(&mut agent, &transaction, tool, input);
        assert_eq!(ended.ended(), end, "{tool}: {}", ended.value);
        assert_eq!(layer(&mut agent, &transaction), staged, "{tool}");
    }
    let shown = json!({"tool": "notes.add", "input": {"title": "Shown", "body": "b"}, "transaction": transaction});
    let shown = agent.reply("calls.preview", shown).must("ok", "previewed", "");
    assert_eq!(shown.value["plan"]["totals"]["creates"], 2, "the union");
    assert_eq!(layer(&mut agent, &transaction), staged, "a preview is none of it");
    let refused = agent.no("plans.commit", json!({"plan": shown.plan()}));
    assert_eq!(refused["code"], "denied", "{refused}");
    let again = json!({"tool": "notes.add", "input": {"title": "Shown", "body": "b"}, "transaction": transaction,
        "expect_plan": shown.digest(), "mode": "preview"});
    let same = agent.reply("calls.execute", again.clone()).must("ok", "previewed", "");
    assert_eq!(same.digest(), shown.digest());
    let other = json!({"tool": "notes.add", "input": {"title": "Other", "body": "b"}, "transaction": transaction,
        "expect_plan": shown.digest(), "mode": "preview"});
    agent.reply("calls.execute", other).must("failed", "none", "plan_diverged");
    let done = commit(&mut agent, &transaction).must("ok", "committed", "");
    assert_eq!(done.value["plan"]["totals"]["effects"], 1, "{}", done.value);
    assert!(world.path("notes/kept.md").exists() && !world.path("notes/shown.md").exists());
}

#[test]
fn r08_what_is_rolled_back_never_was() {
    let world = World::new();
    let mut agent = world.agent();
    let before = world.snapshot();
    let transaction = begin(&mut agent);
    note(&mut agent, &transaction, "Gone");
    rename(&mut agent, &transaction, "new_name").must("ok", "staged", "");
    for _ in 0..2 {
        let ended = agent.ok("transactions.rollback", json!({"transaction": transaction}));
        assert_eq!(ended["state"], "discarded");
    }
    assert_eq!(world.snapshot(), before);
    call(&mut agent, &transaction, "notes.list", json!({})).must("failed", "none", "not_found");
    commit(&mut agent, &transaction).must("failed", "none", "not_found");
    let refused = agent.no("transactions.preview", json!({"transaction": transaction}));
    assert_eq!(refused["code"], "not_found", "{refused}");
    let empty = begin(&mut agent);
    commit(&mut agent, &empty).must("ok", "none", "");
    assert!(commit(&mut agent, &empty).must("ok", "none", "").replayed);
    let refused = agent.no("transactions.rollback", json!({"transaction": empty}));
    assert_eq!(refused["code"], "denied", "{refused}");
}

#[test]
fn r08_d8_a_key_names_a_call_of_one_transaction() {
    let world = World::new();
    let mut agent = world.agent();
    let (one, two) = (begin(&mut agent), begin(&mut agent));
    let keyed = |transaction: Option<&str>| {
        let input = json!({"title": "Keyed", "body": "b"});
        json!({"tool": "notes.add", "input": input, "idempotency_key": "k", "transaction": transaction})
    };
    let first = agent.reply("calls.execute", keyed(Some(&one))).must("ok", "staged", "");
    let staged = layer(&mut agent, &one);
    let again = agent.reply("calls.execute", keyed(Some(&one)));
    assert!(again.replayed && again.value == first.value, "{}", again.value);
    assert_eq!(layer(&mut agent, &one), staged, "it was staged once");
    for other in [Some(two.as_str()), None] {
        agent.reply("calls.execute", keyed(other)).must("failed", "none", "idempotency_mismatch");
    }
    let commit = |transaction: &str| json!({"transaction": transaction, "idempotency_key": "c"});
    let done = agent.reply("transactions.commit", commit(&one)).must("ok", "committed", "");
    let again = agent.reply("transactions.commit", commit(&one));
    assert!(again.replayed && again.value == done.value, "{}", again.value);
    let refused = agent.no("transactions.commit", commit(&two));
    assert_eq!(refused["code"], "idempotency_mismatch", "{refused}");
    let late = agent.reply("calls.execute", keyed(Some(&one)));
    assert!(late.replayed && late.value == first.value, "the key outlives the transaction");
    let plan = json!({"tool": "notes.list", "input": {}, "transaction": two, "expect_plan": done.digest()});
    let refused = agent.reply("calls.execute", plan).must("failed", "none", "invalid_input");
    assert_eq!(refused.text("/error/fields/0/pointer"), "/expect_plan", "{}", refused.value);
}

#[test]
fn r08_r53_the_command_line_stages_shows_commits_and_rolls_back() {
    let world = World::new();
    let run = |arguments: &[&str], wanted: i32| {
        let output = world.cli(arguments);
        assert_eq!(output.status.code(), Some(wanted), "{arguments:?}: {output:?}");
        (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let begin = || run(&["transactions", "begin", "--ttl-ms", "600000", "--tool", "notes.add"], 0).0.trim().to_owned();
    let input = r#"{"title":"From a shell","body":"b"}"#;
    let transaction = begin();
    let (_, told) = run(&["call", "notes.add", "-i", input, "--transaction", &transaction], 0);
    assert!(told.contains("staged") && told.contains(&transaction), "{told}");
    assert!(run(&["transactions", "show", &transaction], 0).0.contains("notes.add"));
    assert!(run(&["transactions", "list"], 0).0.contains(&transaction));
    assert!(run(&["transactions", "list", "--all"], 0).0.contains(&transaction));
    let (shown, told) = run(&["transactions", "preview", &transaction], 0);
    assert!(shown.contains("from-a-shell.md"), "{shown}");
    let digest = told.split("--expect-plan ").nth(1).and_then(|rest| rest.split('`').next()).expect("what to do next");
    run(&["transactions", "commit", &transaction, "--expect-plan", digest], 0);
    assert!(world.path("notes/from-a-shell.md").exists());
    run(&["transactions", "rollback", &transaction], 3);
    let other = begin();
    run(&["call", "notes.list", "-i", "{}", "--transaction", &other], 3);
    run(&["transactions", "rollback", &other], 0);
    run(&["transactions", "commit", &other], 5);
    run(&["transactions", "show", "txn_00000000-0000-7000-8000-000000000000"], 5);
}
