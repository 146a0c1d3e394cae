//! Plans between preview and commit: by id, by digest, once, and never into a world that moved on.

use serde_json::json;

use super::world::World;

#[test]
fn r07_a_preview_commits_by_id_and_by_digest_as_it_was_shown() {
    let world = World::new();
    let mut agent = world.agent();
    let shown = agent.preview("csv-report", json!({"input": "ledger", "output": "reports/all.md"}));
    let done = agent.commit(shown.plan()).must("ok", "committed", "");
    assert_eq!(done.call(), shown.call(), "the call goes on");
    assert_eq!(done.value["output"], shown.value["output"]);
    assert!(world.text("books/reports/all.md").contains("food"));
    let shown = agent.preview("rename-symbol", json!({"from": "old_name", "to": "new_name"}));
    agent.commit(shown.digest()).must("ok", "committed", "");
    assert!(world.text("src/shop/cart.py").contains("new_name"));
    assert!(world.path("src/shop/new_name.py").exists() && !world.path("src/shop/old_name.py").exists());
    world.verified();
}

#[test]
fn r07_a_plan_is_committed_once_and_the_second_time_answers_the_stored_reply() {
    let world = World::new();
    let mut agent = world.agent();
    let shown = agent.preview("notes.add", json!({"title": "Once", "body": "b"}));
    let first = agent.commit(shown.plan()).must("ok", "committed", "");
    std::fs::remove_file(world.path("notes/once.md")).expect("the note");
    let second = agent.commit(shown.plan()).must("ok", "committed", "");
    assert!(second.replayed && !first.replayed);
    assert_eq!(first.value, second.value);
    assert!(!world.path("notes/once.md").exists(), "nothing was applied again");
    assert_eq!(agent.no("plans.discard", json!({"plan": shown.plan()}))["code"], "stale_plan");
}

#[test]
fn r38_a_plan_whose_world_changed_is_stale_and_thrown_away() {
    let world = World::new();
    let mut agent = world.agent();
    let rename = json!({"from": "old_name", "to": "new_name"});
    let report = json!({"input": "ledger", "output": "reports/all.md"});
    type Change = fn(&World);
    let changes: [(&str, &serde_json::Value, Change); 6] = [
        ("rename-symbol", &rename, |w| w.home.put("src/total.py", b"def old_name():\n    return 2\n")),
        ("rename-symbol", &rename, |w| w.home.put("src/shop/new_name.py", b"somebody else")),
        ("rename-symbol", &rename, |w| std::fs::remove_file(w.path("src/shop/old_name.py")).expect("file")),
        ("rename-symbol", &rename, |w| w.home.put("src/newcomer.py", b"old_name\n")),
        ("csv-report", &report, |w| w.home.put("books/ledger/2026-03.csv", b"date,category,amount\n")),
        ("csv-report", &report, |w| w.home.put("books/ledger/2026-01.csv", b"date,category,amount\n")),
    ];
    for (number, (tool, input, change)) in changes.into_iter().enumerate() {
        world.home.put("src/shop/old_name.py", b"# old_name lives here\n");
        let _none = std::fs::remove_file(world.path("src/shop/new_name.py"));
        let shown = agent.preview(tool, input.clone()).must("ok", "previewed", "");
        change(&world);
        let before = world.snapshot();
        let told = agent.commit(shown.plan()).must("failed", "discarded", "stale_plan");
        assert!(told.value["receipt"].is_null(), "{number}: {}", told.value);
        let message = told.text("/error/message");
        assert!(message.contains("src") || message.contains("books"), "it says where: {message}");
        assert!(!message.contains("toolkeep-test"), "no path of the host: {message}");
        assert_eq!(world.snapshot(), before, "{number}");
        let page = agent.ok("plans.get", json!({"plan": shown.plan()}));
        assert_eq!(page["state"], "discarded", "{number}");
        let again = agent.commit(shown.plan());
        assert_eq!(again.text("/error/code"), "stale_plan", "{number}: {}", again.value);
        assert_eq!(agent.reply("calls.get", json!({"call": shown.call()})).value, told.value, "{number}");
    }
    world.verified();
}

#[test]
fn r38_expect_plan_commits_only_what_was_previewed() {
    let world = World::new();
    let mut agent = world.agent();
    let input = json!({"title": "Expected", "body": "b"});
    let shown = agent.preview("notes.add", input.clone());
    let other = agent.preview("notes.add", json!({"title": "Expected", "body": "c"}));
    let before = world.snapshot();
    let call = |digest: &str| json!({"tool": "notes.add", "input": input, "expect_plan": digest});
    agent.reply("calls.execute", call(other.digest())).must("failed", "none", "plan_diverged");
    assert_eq!(world.snapshot(), before);
    agent.reply("calls.execute", call(shown.digest())).must("ok", "committed", "");
    assert!(world.text("notes/expected.md").contains('b'));
}

#[test]
fn a_discarded_plan_stays_discarded() {
    let world = World::new();
    let mut agent = world.agent();
    let shown = agent.preview("notes.add", json!({"title": "Dropped", "body": "b"}));
    let before = world.snapshot();
    agent.reply("plans.discard", json!({"plan": shown.plan()})).must("ok", "discarded", "");
    assert_eq!(agent.commit(shown.plan()).text("/error/code"), "stale_plan");
    assert_eq!(agent.no("plans.discard", json!({"plan": shown.plan()}))["code"], "stale_plan");
    assert_eq!(world.snapshot(), before);
}

#[test]
fn r10_receipts_verify_and_a_changed_one_does_not() {
    let world = World::new();
    let mut agent = world.agent();
    let done = agent.execute("notes.add", json!({"title": "Proof", "body": "b"})).must("ok", "committed", "");
    let receipt = done.value["receipt"].clone();
    let valid = agent.ok("receipts.verify", json!({"receipt": receipt}));
    assert_eq!((&valid["valid"], valid["call_id"].as_str()), (&json!(true), Some(done.call())));
    let statement = receipt["statement"].as_object().expect("statement").clone();
    for (key, value) in &statement {
        let mut forged = receipt.clone();
        forged["statement"][key] = match value {
            serde_json::Value::String(text) if text.len() == 64 => json!("ab".repeat(32)),
            serde_json::Value::String(text) if text.contains('_') => {
                json!(format!("{}_00000000-0000-7000-8000-000000000000", text.split('_').next().expect("prefix")))
            }
            serde_json::Value::String(_) => json!("other"),
            serde_json::Value::Number(number) => json!(number.as_u64().expect("number") + 1),
            _ => continue,
        };
        let told = agent.no("receipts.verify", json!({"receipt": forged}));
        assert_eq!(told["code"], "denied", "{key}: {told}");
    }
}

#[test]
fn a_long_plan_comes_in_pages_with_the_contents_that_are_asked_for() {
    let world = World::new();
    let mut agent = world.agent();
    let shown = agent.preview("million-files", json!({"n": 230})).must("ok", "previewed", "");
    assert_eq!(shown.value["plan"]["effects"].as_array().map(Vec::len), Some(100));
    let (mut cursor, mut seen) = (json!(0), 0);
    while !cursor.is_null() {
        let page = agent.ok("plans.get", json!({"plan": shown.plan(), "cursor": cursor, "diffs": true}));
        seen += page["effects"].as_array().expect("effects").len();
        cursor = page["next_cursor"].clone();
    }
    assert_eq!(seen, 230);
    let rename = agent.preview("rename-symbol", json!({"from": "old_name", "to": "new_name"}));
    let page = agent.ok("plans.get", json!({"plan": rename.plan(), "diffs": true}));
    let contents = page["contents"].as_object().expect("contents");
    assert!(contents.values().any(|text| text.as_str().is_some_and(|text| text.contains("def old_name"))));
    assert!(contents.values().any(|text| text.as_str().is_some_and(|text| text.contains("def new_name"))));
}

#[test]
fn t_f3_a_directory_that_became_a_link_is_not_followed_at_commit() {
    let world = World::new();
    let mut agent = world.agent();
    let shown = agent.preview("rename-symbol", json!({"from": "old_name", "to": "new_name"}));
    let outside = world.path("outside");
    std::fs::rename(world.path("src/shop"), &outside).expect("moved");
    std::os::unix::fs::symlink(&outside, world.path("src/shop")).expect("link");
    let files = || {
        let read = |name: &str| std::fs::read(outside.join(name)).ok();
        (read("cart.py"), read("old_name.py"), read("new_name.py"))
    };
    let before = files();
    agent.commit(shown.plan()).must("failed", "discarded", "stale_plan");
    assert_eq!(files(), before, "nothing outside was touched");
    assert!(world.text("src/total.py").contains("old_name"), "and nothing inside either");
}
