//! What an agent may try with its own socket: strange parameters, huge inputs, names that look like others, and going away
//! at the wrong moment.

use std::thread;

use serde_json::{Value, json};

use super::world::World;
use crate::doors::running::until;

#[test]
fn r11_strange_parameters_are_refused_with_the_place_and_change_nothing() {
    let world = World::new();
    let before = world.snapshot();
    let mut agent = world.agent();
    let long = "x".repeat(100_000);
    let input = json!({"title": "T", "body": "b"});
    for params in [
        json!({"tool": "notes.add"}),
        json!({"tool": "", "input": input}),
        json!({"tool": "../notes.add", "input": input}),
        json!({"tool": "notes.add\u{0}", "input": input}),
        json!({"tool": "n\u{43e}tes.add", "input": input}),
        json!({"tool": long, "input": input}),
        json!({"tool": "notes.add", "input": input, "run": "run_x"}),
        json!({"tool": "notes.add", "input": input, "mode": "force"}),
        json!({"tool": "notes.add", "input": input, "principal": {"user": "root"}}),
        json!({"tool": "notes.add", "input": input, "deadline_ms": -1}),
        json!({"tool": "notes.add", "input": input, "deadline_ms": 1.5}),
        json!({"tool": "notes.add", "input": input, "expect_plan": "latest"}),
        json!({"tool": "notes.add", "input": input, "idempotency_key": 7}),
    ] {
        let told = agent.no("calls.execute", params.clone());
        assert_eq!(told["code"], "invalid_input", "{params}: {told}");
    }
    for (params, code) in [
        (json!({"tool": "nothing", "input": input}), "not_found"),
        (json!({"tool": "toolkeep.undo", "input": {"call": "call_00000000-0000-7000-8000-000000000000"}}), "not_found"),
        (json!({"tool": "notes.add", "input": []}), "invalid_input"),
        (json!({"tool": "notes.add", "input": null}), "invalid_input"),
        (json!({"tool": "notes.add", "input": {"title": "T", "body": "b", "path": "/etc"}}), "invalid_input"),
        (
            json!({"tool": "notes.add", "input": {"title": "\u{202e}gpj.exe", "body": ""}, "idempotency_key": ""}),
            "invalid_input",
        ),
        (json!({"tool": "notes.add", "input": input, "idempotency_key": long}), "invalid_input"),
        (json!({"tool": "notes.add", "input": input, "step": long}), "invalid_input"),
        (json!({"tool": "notes.add", "input": input, "deadline_ms": 0}), "invalid_input"),
    ] {
        let reply = agent.reply("calls.execute", params.clone());
        assert_eq!((reply.text("/outcome"), reply.text("/error/code")), ("none", code), "{params}: {}", reply.value);
    }
    assert_eq!(world.snapshot(), before);
    world.verified();
}

#[test]
fn r11_huge_inputs_are_taken_or_refused_and_the_daemon_lives() {
    let world = World::new();
    let mut agent = world.agent();
    let text = "word ".repeat(600_000);
    let reply = agent.execute("text-stats", json!({"text": text}));
    assert!(["ok", "failed"].contains(&reply.text("/status")), "{}", reply.value);
    let mut deep = json!(1);
    for _ in 0..40 {
        deep = json!([deep]);
    }
    agent.execute("text-stats", json!({"text": deep})).must("failed", "none", "invalid_input");
    let many: Vec<Value> = (0..100_000).map(|number| json!(format!("t{number}"))).collect();
    agent.execute("notes.add", json!({"title": "T", "body": "b", "tags": many})).must(
        "failed",
        "none",
        "invalid_input",
    );
    agent.execute("text-stats", json!({"text": "still here"})).must("ok", "none", "");
}

#[test]
fn t_r3_names_and_texts_in_every_script_come_back_as_they_were() {
    let world = World::new();
    let mut agent = world.agent();
    for title in ["Größe", "日本語", "e\u{301}tude", "a\u{200d}b", "\u{1f600} emoji", "ſharp K"] {
        let reply = agent.execute("notes.add", json!({"title": title, "body": "b\u{feff}\u{2028}"}));
        let known = [("ok", "committed"), ("failed", "none")];
        assert!(known.contains(&(reply.text("/status"), reply.text("/outcome"))), "{title}: {}", reply.value);
        if reply.text("/status") == "ok" {
            let file = reply.text("/output/file").to_owned();
            assert!(world.text(&format!("notes/{file}")).contains(title), "{title}");
        }
    }
    world.verified();
}

#[test]
fn r07_an_agent_that_goes_away_during_a_commit_finds_it_whole() {
    let world = World::new();
    let mut alone = 0;
    for round in 0..12_u64 {
        let mut agent = world.agent();
        let shown = agent.preview("million-files", json!({"n": 60})).must("ok", "previewed", "");
        let before = world.snapshot();
        let line = json!({"jsonrpc": "2.0", "id": 9, "method": "plans.commit", "params": {"plan": shown.plan()}});
        agent.0.send(format!("{line}\n").as_bytes());
        thread::sleep(std::time::Duration::from_millis(3 * round));
        drop(agent);
        let mut agent = world.agent();
        let mut looks = 0;
        let mut state = Value::Null;
        until("it is decided", || {
            state = agent.ok("plans.get", json!({"plan": shown.plan()}))["state"].clone();
            looks += usize::from(state == "previewed");
            // A connection that ends before its commit began takes the request with it.
            state == "committed" || looks > 25
        });
        alone += usize::from(state == "committed");
        if state == "previewed" {
            assert_eq!(world.snapshot(), before, "not begun is not begun");
            agent.commit(shown.plan()).must("ok", "committed", "");
        }
        assert_eq!(world.snapshot().len(), before.len() + 60, "{state}");
        let back = agent.reply("undo.propose", json!({"call": shown.call()}));
        agent.commit(back.plan()).must("ok", "committed", "");
        assert_eq!(world.snapshot(), before);
    }
    assert!(alone > 0, "no commit was left alone");
    world.verified();
}

#[test]
fn r03_a_cancelled_call_ends_and_a_commit_is_not_cancelled() {
    let world = World::new();
    let mut agent = world.agent();
    let run = agent.ok("runs.open", json!({}))["run"].clone();
    assert_eq!(
        agent.no("calls.cancel", json!({"call": "call_00000000-0000-7000-8000-000000000000"}))["code"],
        "not_found"
    );
    let mut running = world.agent();
    let call = json!({"tool": "spin-long", "input": {}, "run": run});
    let line = json!({"jsonrpc": "2.0", "id": 1, "method": "calls.execute", "params": call});
    running.0.send(format!("{line}\n").as_bytes());
    // Going away cancels it.
    let mut admin = world.admin();
    until("it runs", || admin.ok("health.get", json!({}))["in_flight"] == 1);
    drop(running);
    until("it ended", || admin.ok("health.get", json!({}))["in_flight"] == 0);
    let shown = agent.preview("notes.add", json!({"title": "Cancelled", "body": "b"}));
    let done = agent.commit(shown.plan()).must("ok", "committed", "");
    assert_eq!(agent.no("calls.cancel", json!({"call": done.call()}))["code"], "not_found");
}

#[test]
fn r38_of_many_commits_and_discards_of_one_preview_one_wins() {
    let world = World::new();
    let mut agent = world.agent();
    for round in 0..8 {
        let title = format!("Race {round}");
        let shown = agent.preview("notes.add", json!({"title": title, "body": "b"})).must("ok", "previewed", "");
        let answers: Vec<(&str, Value)> = thread::scope(|scope| {
            let racers: Vec<_> = (0..16)
                .map(|number| {
                    let (world, plan) = (&world, shown.plan());
                    let method = if number % 3 == 0 { "plans.discard" } else { "plans.commit" };
                    scope.spawn(move || (method, world.agent().raw(method, json!({"plan": plan})).expect("an answer")))
                })
                .collect();
            racers.into_iter().map(|racer| racer.join().expect("a racer")).collect()
        });
        let outcome = |answer: &Value| {
            let text = |pointer: &str| answer.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
            (text("/result/reply/outcome"), answer.pointer("/result/replayed") == Some(&json!(true)))
        };
        let committed = answers.iter().filter(|(_, a)| outcome(a) == ("committed".to_owned(), false)).count();
        let discarded = answers.iter().filter(|(m, a)| *m == "plans.discard" && outcome(a).0 == "discarded").count();
        assert_eq!(committed + discarded, 1, "{answers:#?}");
        assert_eq!(world.path(&format!("notes/race-{round}.md")).exists(), committed == 1);
    }
    world.verified();
}

#[test]
fn r15_no_method_of_an_agent_grants_approves_installs_or_stops() {
    let world = World::new();
    let mut agent = world.agent();
    let held = super::approvals::held(&mut agent);
    for (method, params) in [
        ("approvals.approve", json!({"approval": held.approval()})),
        ("approvals.reject", json!({"approval": held.approval(), "reason": "r"})),
        ("approvals.list", json!({})),
        ("tools.install", json!({"manifest": "/tmp/x.toml"})),
        ("tools.reload", json!({})),
        ("undo.call", json!({"call": held.call()})),
        ("daemon.drain", json!({})),
        ("audit.verify", json!({})),
        ("tokens.mint", json!({"user": "root", "agent": "a"})),
        ("tokens.revoke", json!({"token": "tok_00000000-0000-7000-8000-000000000000"})),
    ] {
        let answer = agent.raw(method, params).expect("an answer");
        assert_eq!(answer["error"]["code"], -32_601, "{method}: {answer}");
    }
    assert_eq!(agent.ok("approvals.get", json!({"approval": held.approval()}))["state"], "pending");
}

#[test]
fn r56_hostile_tools_side_by_side_do_not_hurt_their_neighbours() {
    let world = World::new();
    let bad = ["spin", "trap", "panic", "recurse", "grow-memory", "exit", "giant-return", "deep-directories"];
    thread::scope(|scope| {
        for tool in bad {
            let world = &world;
            scope.spawn(move || {
                let mut agent = world.agent();
                for _ in 0..4 {
                    let reply = agent.execute(tool, json!({}));
                    assert_ne!(reply.text("/outcome"), "committed", "{tool}: {}", reply.value);
                }
            });
        }
        for number in 0..4 {
            let world = &world;
            scope.spawn(move || {
                let mut agent = world.agent();
                for round in 0..6 {
                    let note = json!({"title": format!("Calm {number} {round}"), "body": "b"});
                    agent.execute("notes.add", note).must("ok", "committed", "");
                }
            });
        }
    });
    let notes = world.snapshot().keys().filter(|name| name.contains("calm-")).count();
    assert_eq!(notes, 24);
    assert!(!world.log().contains("BUG"), "{}", world.log());
    world.verified();
}
