//! Budgets of runs through the whole daemon: every limit at n and n + 1, what is charged for what, and who may raise one.

use std::thread;

use serde_json::{Value, json};

use super::world::{Agent, Plot, Reply, World};
use crate::doors::running::until;

/// Open a run; its id.
fn open(agent: &mut Agent, asked: Value) -> Value {
    agent.ok("runs.open", asked)["run"].clone()
}

/// A call in a run: the reply, and what is left.
fn call(agent: &mut Agent, run: &Value, tool: &str, input: Value) -> (Reply, Value) {
    let result = agent.ok("calls.execute", json!({"tool": tool, "input": input, "run": run}));
    (
        Reply { replayed: result["replayed"] == json!(true), value: result["reply"].clone() },
        result["budget_remaining"].clone(),
    )
}

fn stats(agent: &mut Agent, run: &Value, text: &str) -> Reply {
    call(agent, run, "text-stats", json!({"text": text})).0
}

fn note(agent: &mut Agent, run: &Value, title: &str) -> Reply {
    call(agent, run, "notes.add", json!({"title": title, "body": "b"})).0
}

fn used(agent: &mut Agent, run: &Value) -> Value {
    agent.ok("runs.get", json!({"run": run}))["budget"]["used"].clone()
}

fn over(reply: Reply) -> Reply {
    reply.must("denied", "none", "budget_exceeded")
}

#[test]
fn r26_n_calls_are_admitted_and_not_one_more_and_the_reply_says_what_is_left() {
    let world = World::new();
    let mut agent = world.agent();
    let run = open(&mut agent, json!({"budget": {"calls": 3, "steps": 5}}));
    for left in [2, 1, 0] {
        let (reply, remaining) = call(&mut agent, &run, "text-stats", json!({"text": format!("{left}")}));
        reply.must("ok", "none", "");
        assert_eq!(remaining, json!({"calls": left, "steps": left + 2}));
    }
    let refused = over(stats(&mut agent, &run, "x"));
    assert!(refused.text("/error/message").contains("3 of 3 calls used"), "{}", refused.value);
    assert_eq!(refused.value["error"]["retryable"], false);
    let page = agent.ok("runs.get", json!({"run": run}));
    assert_eq!((&page["budget"]["used"]["calls"], &page["budget"]["left"]["calls"]), (&json!(3), &json!(0)));
    let outside = agent.ok("calls.execute", json!({"tool": "text-stats", "input": {"text": "x"}}));
    assert_eq!(outside["budget_remaining"], Value::Null, "without a run nothing is counted");
    let closed = agent.ok("runs.close", json!({"run": run, "outcome": "done"}));
    assert_eq!(closed["outcome"], "done");
    stats(&mut agent, &run, "x").must("failed", "none", "not_found");
}

#[test]
fn r26_sixty_four_calls_at_one_moment_do_not_overspend_by_one() {
    let world = World::new();
    let mut agent = world.agent();
    let run = open(&mut agent, json!({"budget": {"calls": 10}}));
    let done: usize = thread::scope(|scope| {
        let calls: Vec<_> = (0..64)
            .map(|n| {
                let (world, run) = (&world, &run);
                scope.spawn(move || {
                    let mut agent = world.agent();
                    let reply = stats(&mut agent, run, &n.to_string());
                    match reply.ended() {
                        ("ok", "none", "") => 1,
                        ("denied", "none", "budget_exceeded") => 0,
                        other => panic!("{other:?}: {}", reply.value),
                    }
                })
            })
            .collect();
        calls.into_iter().map(|call| call.join().expect("a call")).sum()
    });
    assert_eq!((done, &used(&mut agent, &run)["calls"]), (10, &json!(10)));
}

#[test]
fn r26_fuel_bounds_the_execution_itself_and_is_exact() {
    let world = World::new();
    let mut agent = world.agent();
    let free = open(&mut agent, json!({}));
    let fuel = stats(&mut agent, &free, "same").value["usage"]["fuel"].as_u64().expect("fuel");
    // An execution needs one unit more than it uses: at zero nobody can tell whether it was enough.
    let run = open(&mut agent, json!({"budget": {"fuel": 2 * fuel + 1}}));
    for _ in 0..2 {
        stats(&mut agent, &run, "same").must("ok", "none", "");
    }
    assert_eq!(used(&mut agent, &run)["fuel"], json!(2 * fuel));
    over(stats(&mut agent, &run, "same"));
    over(stats(&mut agent, &run, "same"));
    assert_eq!(used(&mut agent, &run)["fuel"], json!(2 * fuel + 1), "to the last unit");
    let less = open(&mut agent, json!({"budget": {"fuel": 2 * fuel}}));
    stats(&mut agent, &less, "same").must("ok", "none", "");
    let cut = over(stats(&mut agent, &less, "same"));
    assert!(cut.text("/error/message").contains("the budget left it"), "{}", cut.value);
    assert_eq!(used(&mut agent, &less)["fuel"], json!(2 * fuel));
}

#[test]
fn r26_time_is_a_budget_too() {
    let world = World::new();
    let mut agent = world.agent();
    let run = open(&mut agent, json!({"budget": {"wall_ms": 50}}));
    let cut = over(call(&mut agent, &run, "spin-long", json!({})).0);
    assert!(cut.text("/error/message").contains("the budget left it"), "{}", cut.value);
    over(stats(&mut agent, &run, "x"));
}

#[test]
fn r26_bytes_are_what_is_committed_and_a_preview_costs_its_execution_only() {
    let world = World::new();
    let mut agent = world.agent();
    let shown = agent.preview("notes.add", json!({"title": "One", "body": "b"}));
    let bytes = shown.value["plan"]["totals"]["bytes_written"].as_u64().expect("bytes");
    let less = open(&mut agent, json!({"budget": {"bytes_written": bytes - 1}}));
    let before = world.snapshot();
    over(note(&mut agent, &less, "One"));
    assert_eq!(world.snapshot(), before, "what does not fit is not written");
    let preview = json!({"tool": "notes.add", "input": {"title": "One", "body": "b"}, "run": less});
    let shown = agent.reply("calls.preview", preview).must("ok", "previewed", "");
    let spent = used(&mut agent, &less);
    assert_eq!((&spent["calls"], &spent["bytes_written"]), (&json!(2), &json!(0)));
    let refused = agent.commit(shown.plan());
    assert_eq!(refused.text("/error/code"), "budget_exceeded", "nor by committing the preview: {}", refused.value);
    assert_eq!(world.snapshot(), before);
    let run = open(&mut agent, json!({"budget": {"bytes_written": bytes}}));
    note(&mut agent, &run, "One").must("ok", "committed", "");
    over(note(&mut agent, &run, "Two"));
    assert_eq!(used(&mut agent, &run)["bytes_written"], json!(bytes));
}

#[test]
fn r26_a_preview_is_charged_when_it_is_committed_even_after_its_run_was_closed() {
    let world = World::new();
    let mut agent = world.agent();
    let run = open(&mut agent, json!({"budget": {"bytes_written": 0, "calls": 9}}));
    let preview = json!({"tool": "notes.add", "input": {"title": "One", "body": "b"}, "run": run});
    let shown = agent.reply("calls.preview", preview).must("ok", "previewed", "");
    agent.ok("runs.close", json!({"run": run}));
    assert_eq!(agent.commit(shown.plan()).text("/error/code"), "budget_exceeded");
    assert!(!world.path("notes/one.md").exists());
}

#[test]
fn r26_a_retry_that_gets_the_stored_reply_costs_nothing() {
    let world = World::new();
    let mut agent = world.agent();
    let run = open(&mut agent, json!({"budget": {"calls": 1}}));
    let keyed = json!({"tool": "notes.add", "input": {"title": "A", "body": "b"}, "run": run, "idempotency_key": "k"});
    let first = agent.reply("calls.execute", keyed.clone()).must("ok", "committed", "");
    let again = agent.reply("calls.execute", keyed).must("ok", "committed", "");
    assert!(again.replayed && again.value == first.value);
    assert_eq!(used(&mut agent, &run)["calls"], 1);
    over(note(&mut agent, &run, "B"));
}

#[test]
fn r26_held_plans_count_while_they_wait_and_give_back_what_is_rejected() {
    let world = World::new();
    let (mut agent, mut admin) = (world.agent(), world.admin());
    let run = open(&mut agent, json!({"budget": {"approvals": 2, "wall_ms": 600_000}}));
    let hold = |agent: &mut Agent, title: &str| call(agent, &run, "notes2.add", json!({"title": title, "body": "b"})).0;
    let first = hold(&mut agent, "One").must("held", "pending", "approval_required");
    let second = hold(&mut agent, "Two").must("held", "pending", "approval_required");
    over(hold(&mut agent, "Three"));
    let waiting = used(&mut agent, &run);
    assert_eq!(waiting["approvals"], 2);
    assert_eq!(
        agent.ok("runs.get", json!({"run": run}))["budget"]["reserved"]["fuel"],
        0,
        "held calls reserve nothing"
    );
    let bytes = waiting["bytes_written"].as_u64().expect("bytes");
    admin.ok("approvals.reject", json!({"approval": first.approval(), "reason": "no"}));
    let after = used(&mut agent, &run);
    assert_eq!(after["approvals"], 1);
    assert!(after["bytes_written"].as_u64().expect("bytes") < bytes, "{after}");
    let left = after["bytes_written"].clone();
    admin.ok("approvals.approve", json!({"approval": second.approval(), "reason": "yes"}));
    let settled = used(&mut agent, &run);
    assert_eq!(
        (&settled["approvals"], &settled["bytes_written"]),
        (&json!(0), &left),
        "what was agreed to stays charged"
    );
    hold(&mut agent, "Four").must("held", "pending", "approval_required");
}

#[test]
fn r26_what_callers_report_is_apart_and_stops_them_when_it_is_over() {
    let world = World::new();
    let mut agent = world.agent();
    let run = open(&mut agent, json!({"budget": {"tokens": 10, "cost_usd": "0.5", "steps": 20}}));
    agent.ok(
        "runs.report",
        json!({"run": run, "usage": {"tokens_in": 4, "tokens_out": 3, "cost_usd": 0.1, "steps": 2}}),
    );
    let with_usage = json!({"tool": "text-stats", "input": {"text": "x"}, "run": run, "usage": {"tokens_in": 3}});
    agent.reply("calls.execute", with_usage.clone()).must("ok", "none", "");
    let spent = used(&mut agent, &run);
    assert_eq!(spent["reported"], json!({"tokens": 10, "cost_usd": "0.1"}));
    assert_eq!((&spent["steps"], &spent["calls"], &spent["cost_usd"]), (&json!(3), &json!(1), &json!("0")));
    over(agent.reply("calls.execute", with_usage));
    for (wrong, code) in [
        (json!({"tokens_in": -1}), "invalid_input"),
        (json!({"tokens_in": u64::MAX}), "invalid_input"),
        (json!({"cost_usd": "-0.1"}), "invalid_input"),
        (json!({"cost_usd": 1e300}), "invalid_input"),
    ] {
        assert_eq!(agent.no("runs.report", json!({"run": run, "usage": wrong}))["code"], code, "{wrong}");
    }
    assert_eq!(used(&mut agent, &run)["reported"]["tokens"], 13, "what was refused is not counted");
}

#[test]
fn r26_priced_calls_stop_at_the_last_cent() {
    let world = World::asleep(Plot::default());
    let manifest =
        "format = 1\nname = \"text-stats\"\ncomponent = \"text-stats.wasm\"\ntier = 0\n[price]\ncall_usd = \"0.25\"\n";
    world.home.put("tools/text-stats.toml", manifest.as_bytes());
    let mut world = world;
    world.start();
    let mut agent = world.agent();
    let run = open(&mut agent, json!({"budget": {"cost_usd": "0.5"}}));
    for left in ["0.25", "0"] {
        let (reply, remaining) = call(&mut agent, &run, "text-stats", json!({"text": "x"}));
        reply.must("ok", "none", "");
        assert_eq!(remaining["cost_usd"], left);
    }
    over(stats(&mut agent, &run, "x"));
    let less = open(&mut agent, json!({"budget": {"cost_usd": "0.499999"}}));
    stats(&mut agent, &less, "x").must("ok", "none", "");
    over(stats(&mut agent, &less, "x"));
    assert_eq!(used(&mut agent, &less)["cost_usd"], "0.25");
}

#[test]
fn r26_a_degraded_run_reads_on_and_a_held_one_waits_for_its_operator() {
    let world = World::new();
    let (mut agent, mut admin) = (world.agent(), world.admin());
    let degraded = open(&mut agent, json!({"budget": {"calls": 1}, "over_budget": "degrade"}));
    note(&mut agent, &degraded, "A").must("ok", "committed", "");
    over(note(&mut agent, &degraded, "B"));
    stats(&mut agent, &degraded, "x").must("ok", "none", "");
    let held = open(&mut agent, json!({"budget": {"calls": 1}, "over_budget": "hold"}));
    stats(&mut agent, &held, "x").must("ok", "none", "");
    over(stats(&mut agent, &held, "x"));
    let shown = admin.ok("runs.show", json!({"run": held}));
    assert_eq!(shown["held"]["code"], "budget_exceeded", "{shown}");
    assert_eq!(agent.no("runs.release", json!({"run": held}))["code"], "invalid_input", "an agent has no such method");
    admin.ok("runs.release", json!({"run": held, "more": {"calls": 1}}));
    stats(&mut agent, &held, "x").must("ok", "none", "");
    over(stats(&mut agent, &held, "x"));
    assert_eq!(
        admin.no("runs.release", json!({"run": "run_00000000-0000-7000-8000-000000000000"}))["code"],
        "not_found"
    );
}

#[test]
fn r26_a_restart_forgets_no_use_no_hold_and_no_raise() {
    let mut world = World::new();
    let mut agent = world.agent();
    let run = open(&mut agent, json!({"budget": {"calls": 2, "bytes_written": 10_000}, "over_budget": "hold"}));
    note(&mut agent, &run, "A").must("ok", "committed", "");
    agent.ok("runs.report", json!({"run": run, "usage": {"tokens_in": 5, "cost_usd": "0.01"}}));
    let before = used(&mut agent, &run);
    assert!(world.stop().success());
    world.start();
    let mut agent = world.agent();
    assert_eq!(used(&mut agent, &run), before);
    stats(&mut agent, &run, "x").must("ok", "none", "");
    over(stats(&mut agent, &run, "x"));
    world.admin().ok("runs.release", json!({"run": run, "more": {"calls": 1}}));
    assert!(world.stop().success());
    world.start();
    let mut agent = world.agent();
    stats(&mut agent, &run, "x").must("ok", "none", "");
    over(stats(&mut agent, &run, "x"));
    assert!(world.stop().success());
    world.start();
    over(stats(&mut world.agent(), &run, "x"));
    assert_eq!(world.admin().ok("runs.show", json!({"run": run}))["held"]["code"], "budget_exceeded");
    world.verified();
}

#[test]
fn r26_calls_of_a_transaction_are_charged_one_by_one_and_its_bytes_when_it_commits() {
    let world = World::new();
    let mut agent = world.agent();
    let run = open(&mut agent, json!({"budget": {"calls": 3, "bytes_written": 10_000}}));
    let begun = agent.ok("transactions.begin", json!({"run": run}))["transaction"].clone();
    for title in ["One", "Two"] {
        let staged =
            json!({"tool": "notes.add", "input": {"title": title, "body": "b"}, "run": run, "transaction": begun});
        agent.reply("calls.execute", staged).must("ok", "staged", "");
    }
    assert_eq!(used(&mut agent, &run)["bytes_written"], 0);
    agent.reply("transactions.commit", json!({"transaction": begun})).must("ok", "committed", "");
    let spent = used(&mut agent, &run);
    assert_eq!(spent["calls"], 3, "the commit is a call");
    assert!(spent["bytes_written"].as_u64().is_some_and(|bytes| bytes > 0), "{spent}");
    let next = agent.ok("transactions.begin", json!({"run": run}))["transaction"].clone();
    let refused = json!({"tool": "notes.add", "input": {"title": "C", "body": "b"}, "run": run, "transaction": next});
    over(agent.reply("calls.execute", refused));
}

#[test]
fn r26_a_run_asks_for_what_makes_sense_or_is_not_opened() {
    let world = World::new();
    let mut agent = world.agent();
    for wrong in [
        json!({"budget": {"calls": -1}}),
        json!({"budget": {"calls": 1.5}}),
        json!({"budget": {"calls": 9_000_000_000_000_000_u64}}),
        json!({"budget": {"cost_usd": "-1"}}),
        json!({"budget": {"coffee": 1}}),
        json!({"loops": {"same_call": 0}}),
        json!({"tools": ["Notes"]}),
        json!({"max_tier": 4}),
        json!({"contract": "Bad Name"}),
    ] {
        assert_eq!(agent.no("runs.open", wrong.clone())["code"], "invalid_input", "{wrong}");
    }
    assert_eq!(agent.no("runs.open", json!({"contract": "none"}))["code"], "not_found");
    let run = open(&mut agent, json!({"budget": {"calls": 0}}));
    over(stats(&mut agent, &run, "x"));
}

#[test]
fn r26_an_operator_hears_of_a_budget_that_is_used_up_once() {
    let world = World::of(Plot {
        limits: "[channel.ops]\nkind = \"file\"\npath = \"alerts.jsonl\"\n[[notify]]\nchannels = [\"ops\"]\n",
        ..Plot::default()
    });
    let mut agent = world.agent();
    let run = open(&mut agent, json!({"budget": {"calls": 0}}));
    for _ in 0..3 {
        over(stats(&mut agent, &run, "x"));
    }
    let told = || std::fs::read_to_string(world.path("alerts.jsonl")).unwrap_or_default();
    until("the alert is written", || told().contains("budget.exceeded"));
    assert_eq!(told().matches("\"budget.exceeded\"").count(), 1, "{}", told());
}

#[test]
fn r26_what_operators_add_at_one_moment_is_all_added() {
    let mut world = World::of(Plot { limits: "[[ceiling]]\nname = \"daily\"\ncalls = 4\n", ..Plot::default() });
    let run = open(&mut world.agent(), json!({"budget": {"calls": 1}}));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut admin = world.admin();
                for _ in 0..4 {
                    admin.ok("runs.release", json!({"run": run, "more": {"calls": 1}}));
                    admin.ok("budgets.resume", json!({"ceiling": "daily"}));
                }
            });
        }
    });
    let limits = |world: &World| {
        let mut admin = world.admin();
        let budget = admin.ok("runs.show", json!({"run": run}))["budget"]["limits"]["calls"].clone();
        // The balance of a ceiling is there once somebody wants it.
        stats(&mut world.agent(), &run, "x").must("ok", "none", "");
        (budget, admin.ok("budgets.show", json!({}))["today"][0]["limits"]["calls"].clone())
    };
    assert_eq!(limits(&world), (json!(33), json!(4 * 33)));
    assert!(world.stop().success());
    world.start();
    assert_eq!(limits(&world), (json!(33), json!(4 * 33)), "the ledger says the same");
}
