//! Retries within the deadline, dead calls, fallbacks and kept results, through the daemon.

use serde_json::{Value, json};

use super::requests::Trade;
use super::scenery::manifest;
use super::world::{Plot, Reply, World};
use crate::doors::running::until;

fn detour(reply: &Reply) -> &Value {
    &reply.value["detour"]
}

/// Every request that reads fails from now on.
const ALWAYS: usize = 1_000_000;

#[test]
fn r33_a_tool_that_fails_for_a_moment_is_executed_again_and_says_so() {
    let trade = Trade::with("solo = true");
    let mut agent = trade.agent();
    let input = json!({"tracker": trade.service.origin(), "id": "7"});
    let plain = agent.execute("ticket.show", input.clone()).must("ok", "none", "");
    assert!(detour(&plain).is_null(), "{}", plain.value);
    trade.service.is_busy_for(2);
    let before = trade.service.reads();
    let third = agent.execute("ticket.show", input.clone()).must("ok", "none", "");
    assert_eq!((&detour(&third)["attempts"], trade.service.reads() - before), (&json!(3), 3), "{}", third.value);
    trade.service.is_busy_for(3);
    let given_up = agent.execute("ticket.show", input.clone());
    assert_eq!(given_up.text("/error/code"), "tool_failed", "{}", given_up.value);
    assert_eq!((&detour(&given_up)["attempts"], &given_up.value["error"]["retryable"]), (&json!(3), &json!(true)));
    agent.execute("ticket.show", input).must("ok", "none", "");
    let letters = trade.world.admin().ok("deadletters.list", json!({}));
    assert_eq!(letters["dead_letters"], json!([]), "a call that only reads is nothing to make again");
    trade.world.verified();
}

#[test]
fn r33_nothing_is_repeated_beyond_the_deadline_or_after_a_tools_considered_answer() {
    let trade = Trade::with("solo = true");
    let mut agent = trade.agent();
    trade.service.is_busy_for(ALWAYS);
    let params = json!({"tool": "ticket.show", "deadline_ms": 40,
        "input": {"tracker": trade.service.origin(), "id": "7"}});
    let reply = agent.reply("calls.execute", params);
    assert!(detour(&reply).is_null(), "there was no time for another attempt: {}", reply.value);
    let before = trade.service.reads();
    let blank = json!({"tracker": trade.service.origin(), "id": "7", "text": " "});
    let refused = agent.execute("ticket.comment", blank);
    assert_eq!((refused.text("/error/code"), trade.service.reads()), ("invalid_input", before), "{}", refused.value);
    assert!(detour(&refused).is_null());
}

#[test]
fn r33_a_call_that_was_given_up_rests_and_is_made_again_or_thrown_away_by_an_operator() {
    let mut trade = Trade::with("solo = true");
    trade.service.is_busy_for(ALWAYS);
    let params =
        |text: &str, key: &str| json!({"tool": "ticket.comment", "input": trade.comment(text), "idempotency_key": key});
    let (one, two) = (params("One.", "k1"), params("Two.", "k2"));
    let mut agent = trade.agent();
    let first = agent.reply("calls.execute", one.clone());
    let second = agent.reply("calls.execute", two);
    assert_eq!(first.text("/error/code"), "tool_failed", "{}", first.value);
    trade.world.restart();
    let mut admin = trade.world.admin();
    let letters = admin.ok("deadletters.list", json!({}))["dead_letters"].take();
    assert_eq!(letters.as_array().map(Vec::len), Some(2), "{letters}");
    assert_eq!((&letters[1]["id"], &letters[1]["kind"]), (&json!(first.call()), &json!("call")), "{letters}");
    assert_eq!(letters[1]["attempts"], 3);
    let shown = admin.ok("deadletters.get", json!({"delivery": first.call()}));
    assert_eq!((&shown["tool"], &shown["input"]["text"]), (&json!("ticket.comment"), &json!("One.")), "{shown}");
    let printed = trade.world.cli(&["deadletters", "show", first.call()]);
    assert!(String::from_utf8_lossy(&printed.stdout).contains("ticket.comment"), "{printed:?}");
    admin.ok("deadletters.discard", json!({"delivery": second.call()}));
    assert_eq!(admin.no("deadletters.retry", json!({"delivery": second.call()}))["code"], "not_found");

    trade.service.is_busy_for(0);
    let again = admin.ok("deadletters.retry", json!({"delivery": first.call()}));
    assert_eq!(again["state"], "retried", "{again}");
    assert_eq!(again["reply"]["error"]["code"], "approval_required", "it goes the way of every call: {again}");
    assert_ne!(again["reply"]["call_id"], first.call());
    assert_eq!(admin.no("deadletters.retry", json!({"delivery": first.call()}))["code"], "not_found", "once");
    assert_eq!(admin.ok("deadletters.list", json!({}))["dead_letters"], json!([]));
    let retry = trade.agent().reply("calls.execute", one);
    assert_eq!(retry.text("/error/code"), "approval_required", "its key was free: {}", retry.value);
    trade.world.verified();
}

/// A call of the trade that was given up; what was asked for.
fn dead(trade: &Trade, expect: Option<&str>) -> Reply {
    trade.service.is_busy_for(ALWAYS);
    let mut params = json!({"tool": "ticket.comment", "input": trade.comment("One.")});
    if let Some(expect) = expect {
        params["expect_plan"] = json!(expect);
    }
    let reply = trade.agent().reply("calls.execute", params);
    assert_eq!(reply.text("/error/code"), "tool_failed", "{}", reply.value);
    trade.service.is_busy_for(0);
    reply
}

fn resting(world: &World) -> usize {
    world.admin().ok("deadletters.list", json!({}))["dead_letters"].as_array().expect("letters").len()
}

#[test]
fn r33_a_dead_call_that_is_refused_before_it_runs_again_rests_on() {
    let trade = Trade::with("solo = true");
    let dead = self::dead(&trade, None);
    let mut admin = trade.world.admin();
    admin.ok("kill.set", json!({"level": "tool", "name": "ticket", "mode": "stop", "reason": "looking"}));
    for _ in 0..2 {
        let refused = admin.ok("deadletters.retry", json!({"delivery": dead.call()}));
        assert_eq!(refused["reply"]["error"]["code"], "killed", "{refused}");
        assert_eq!((&refused["state"], resting(&trade.world)), (&json!("resting"), 1), "{refused}");
    }
    admin.ok("kill.clear", json!({"level": "tool", "name": "ticket"}));
    let again = admin.ok("deadletters.retry", json!({"delivery": dead.call()}));
    assert_eq!(again["reply"]["error"]["code"], "approval_required", "{again}");
    assert_eq!((&again["state"], resting(&trade.world)), (&json!("retried"), 0), "{again}");
    trade.world.verified();
}

#[test]
fn r33_a_dead_call_that_dies_again_rests_as_the_new_call_alone() {
    let trade = Trade::with("solo = true");
    let dead = self::dead(&trade, None);
    trade.service.is_busy_for(ALWAYS);
    let again = trade.world.admin().ok("deadletters.retry", json!({"delivery": dead.call()}));
    assert_eq!((&again["state"], resting(&trade.world)), (&json!("retried"), 1), "{again}");
    let letters = trade.world.admin().ok("deadletters.list", json!({}));
    assert_eq!(letters["dead_letters"][0]["id"], again["reply"]["call_id"], "{letters}");
}

#[test]
fn r33_g1_a_dead_call_is_not_lost_with_a_daemon_that_is_killed_while_it_is_made_again() {
    let mut trade = Trade::with("solo = true");
    let dead = self::dead(&trade, None);
    // From now on it waits long before its next attempt.
    let slow = trade.world.text("tools/ticket.toml")
        + "[limits]\ndeadline_ms = 600_000\n[retry]\nbase_ms = 60_000\nmost_ms = 60_000\n";
    trade.world.home.put("tools/ticket.toml", slow.as_bytes());
    trade.world.admin().ok("tools.reload", json!({}));
    trade.service.is_busy_for(ALWAYS);
    let reads = trade.service.reads();
    let mut admin = trade.world.admin();
    let line = json!({"jsonrpc": "2.0", "id": 9, "method": "deadletters.retry", "params": {"delivery": dead.call()}});
    admin.0.send(format!("{line}\n").as_bytes());
    until("it is made again", || trade.service.reads() > reads);
    assert_eq!(resting(&trade.world), 0, "nobody makes it twice at one time");
    trade.world.restart();
    assert_eq!(resting(&trade.world), 1, "it came to nothing");
    trade.service.is_busy_for(0);
    let again = trade.world.admin().ok("deadletters.retry", json!({"delivery": dead.call()}));
    assert_eq!(again["reply"]["error"]["code"], "approval_required", "{again}");
    trade.world.restart();
    assert_eq!(resting(&trade.world), 0, "what was made again does not come back");
    trade.world.verified();
}

#[test]
fn r06_a_dead_call_that_expected_a_plan_expects_it_when_it_is_made_again() {
    let trade = Trade::with("solo = true");
    let shown = trade.agent().preview("ticket.comment", trade.comment("Another.")).must("ok", "previewed", "");
    let dead = self::dead(&trade, Some(shown.digest()));
    let again = trade.world.admin().ok("deadletters.retry", json!({"delivery": dead.call()}));
    assert_eq!(again["reply"]["error"]["code"], "plan_diverged", "{again}");
    let shown = trade.agent().preview("ticket.comment", trade.comment("One.")).must("ok", "previewed", "");
    let dead = self::dead(&trade, Some(shown.digest()));
    let again = trade.world.admin().ok("deadletters.retry", json!({"delivery": dead.call()}));
    assert_eq!(again["reply"]["error"]["code"], "approval_required", "{again}");
    trade.world.verified();
}

/// A world where `trap` opens its circuit with its first failure and has a fallback.
fn with_fallback(fallback: &str) -> World {
    let mut world = World::asleep(Plot::default());
    let rest = format!("tier = 1\nfallback = \"{fallback}\"\n[breaker]\nfailures = 1\nopen_s = 86400\n");
    manifest(&world, ("trap", "trap", Box::leak(rest.into_boxed_str())));
    world.start();
    let failed = world.agent().execute("trap", json!({}));
    assert_eq!(
        failed.text("/error/code"),
        "tool_trapped",
        "a trap is no reason to call another tool: {}",
        failed.value
    );
    world
}

#[test]
fn r34_a_fallback_is_called_while_the_tool_rests_and_the_reply_says_so() {
    let mut world = with_fallback("writer");
    let keyed = json!({"tool": "trap", "input": {}, "idempotency_key": "k"});
    let before = world.snapshot();
    let reply = world.agent().reply("calls.execute", keyed.clone()).must("ok", "committed", "");
    assert_ne!(world.snapshot(), before);
    let way = detour(&reply);
    assert_eq!((&way["fallback"], &way["because"]), (&json!("writer"), &json!("circuit_open")), "{}", reply.value);
    assert!(
        reply.value["warnings"][0].as_str().is_some_and(|text| text.contains("`writer` was called instead of `trap`"))
    );
    assert_eq!(reply.value["receipt"]["statement"]["tool"], "writer", "the receipt names what ran");
    let after = world.snapshot();
    world.restart();
    let again = world.agent().reply("calls.execute", keyed);
    assert!(again.replayed, "the key is that of the call: {}", again.value);
    assert_eq!((again.value, world.snapshot()), (reply.value, after));
    world.verified();
}

#[test]
fn r34_r46_a_tool_that_stands_in_for_another_goes_no_further_than_its_own_autonomy() {
    let world = with_fallback("writer");
    let draft = json!({"agent": "local", "tool": "writer", "level": "draft", "reason": "it is new"});
    world.admin().ok("autonomy.set", draft);
    let before = world.snapshot();
    let shown = world.agent().execute("trap", json!({})).must("ok", "previewed", "");
    assert_eq!(detour(&shown)["fallback"], "writer", "{}", shown.value);
    assert_eq!(world.snapshot(), before, "the agent may only draft with what stood in");
    world.verified();
}

/// A world whose `ticket` is given up after two attempts, and has a fallback that works.
fn given_up() -> Trade {
    let trade = Trade::with("solo = true");
    let grant = format!(
        "tier = 2\n{{}}[[http]]\nname = \"tracker\"\norigin = \"{}\"\nmethods = [\"GET\", \"POST\", \"DELETE\"]\n\
         allow_private = true\n[http.compensation]\nmethod = \"DELETE\"\npath = \"/comments/{{response:/id}}\"\n",
        trade.service.origin()
    );
    let first = "fallback = \"again.comment\"\n[retry]\nattempts = 2\nbase_ms = 1\n";
    for (name, rest) in [("ticket", first), ("again", "")] {
        let rest = grant.replace("{}", rest);
        manifest(&trade.world, (name, "ticket", Box::leak(rest.into_boxed_str())));
    }
    trade.world.admin().ok("tools.reload", json!({}));
    trade.service.is_busy_for(2);
    trade
}

#[test]
fn r34_a_fallback_stands_in_for_a_tool_that_was_given_up() {
    let trade = given_up();
    let held = trade.agent().execute("ticket.comment", trade.comment("Hm."));
    assert_eq!(held.text("/error/code"), "approval_required", "{}", held.value);
    assert_eq!(
        (&detour(&held)["fallback"], &detour(&held)["because"]),
        (&json!("again.comment"), &json!("tool_failed"))
    );
    let done = trade.agree(&held);
    assert_eq!(done["outcome"], "committed", "{done}");
    assert_eq!(done["detour"]["fallback"], "again.comment", "{done}");
    let letters = trade.world.admin().ok("deadletters.list", json!({}));
    assert_eq!(letters["dead_letters"], json!([]), "nothing is left to do");
}

#[test]
fn r26_r34_a_tool_that_was_given_up_costs_what_it_used_and_no_more() {
    let mut trade = given_up();
    let mut agent = trade.agent();
    let run = agent.ok("runs.open", json!({}))["run"].clone();
    let call = json!({"tool": "ticket.comment", "input": trade.comment("Hm."), "run": run});
    let held = agent.reply("calls.execute", call).must("held", "pending", "approval_required");
    assert_eq!(detour(&held)["fallback"], "again.comment", "{}", held.value);
    let budget = agent.ok("runs.get", json!({"run": run}))["budget"].clone();
    assert_eq!(budget["used"]["fuel"], held.value["usage"]["fuel"], "{budget}");
    assert_eq!((&budget["used"]["calls"], &budget["reserved"]["fuel"]), (&json!(2), &json!(0)), "{budget}");
    trade.world.restart();
    let again = trade.agent().ok("runs.get", json!({"run": run}))["budget"].clone();
    assert_eq!(again["used"], budget["used"], "the ledger says the same");
}

#[test]
fn r34_a_fallback_that_may_do_more_or_is_missing_is_not_called() {
    for fallback in ["notes3.add", "nowhere"] {
        let world = with_fallback(fallback);
        let reply = world.agent().execute("trap", json!({}));
        assert_eq!(reply.text("/error/code"), "circuit_open", "{}", reply.value);
        assert!(reply.value["warnings"][0].as_str().is_some_and(|text| text.contains(fallback)), "{}", reply.value);
    }
    // One that does not take the input leaves the refusal as it was.
    let world = with_fallback("notes.add");
    let reply = world.agent().execute("trap", json!({}));
    assert_eq!(reply.text("/error/code"), "circuit_open", "{}", reply.value);
    assert!(reply.value["warnings"].to_string().contains("does not take the input"), "{}", reply.value);
}

#[test]
fn r35_a_deterministic_tool_is_not_executed_again_for_the_same_input_over_the_same_world() {
    let mut world = World::asleep(Plot::default());
    manifest(&world, ("stats", "text-stats", "tier = 0\ndeterministic = true\n"));
    let reads = "tier = 0\ndeterministic = true\n[[workspace]]\nname = \"notes\"\naccess = \"read\"\n";
    manifest(&world, ("reader", "notes", reads));
    world.start();
    let mut agent = world.agent();
    let mut stats = |text: &str| agent.execute("stats", json!({"text": text})).must("ok", "none", "");
    let (first, second, other) = (stats("a b"), stats("a b"), stats("a c"));
    assert!(detour(&first).is_null() && detour(&other).is_null(), "{}", other.value);
    assert_eq!((detour(&second), &second.value["usage"]["fuel"]), (&json!({"cached": true}), &json!(0)));
    assert_eq!(second.value["output"], first.value["output"]);
    assert_ne!(second.call(), first.call(), "it is a call of its own, on record");

    let mut agent = world.agent();
    agent.execute("notes.add", json!({"title": "One", "body": "b"})).must("ok", "committed", "");
    let mut list = || agent.execute("reader.list", json!({})).must("ok", "none", "");
    let (one, same) = (list(), list());
    assert!(detour(&one).is_null() && detour(&same)["cached"] == true, "{} {}", one.value, same.value);
    world.home.put("notes/two.md", b"# Two\n\nb\n");
    let changed = list();
    assert!(detour(&changed).is_null(), "the folder changed: {}", changed.value);
    assert_ne!(changed.value["output"], one.value["output"]);
    assert_eq!(detour(&list())["cached"], true);
    std::fs::write(world.path("notes/two.md"), b"# Two!\n\nb\n").expect("file");
    assert!(detour(&list()).is_null(), "a file that was read changed");
    world.verified();
}

#[test]
fn r35_what_is_not_deterministic_cannot_be_declared_so() {
    let world = World::new();
    for (rest, wanted) in [
        ("tier = 1\ndeterministic = true\n", "above tier 0"),
        ("tier = 0\ndeterministic = true\nclock = \"real\"\n", "real clock"),
        ("tier = 0\ndeterministic = true\n[[keys]]\nbucket = \"b\"\naccess = \"read\"\n", "reads keys"),
        ("tier = 1\nfallback = \"odd\"\n", "fallback"),
        ("tier = 1\n[retry]\nattempts = 11\n", "retry.attempts"),
        ("tier = 1\n[breaker]\nwindow_s = 0\n", "breaker.window_s"),
        ("tier = 1\n[limits]\nconcurrent = 0\n", "limits.concurrent"),
    ] {
        manifest(&world, ("odd", "text-stats", rest));
        let told = world.admin().ok("tools.reload", json!({}));
        assert!(told["problems"].to_string().contains(wanted), "{rest}: {}", told["problems"]);
    }
}

#[test]
fn r32_an_automatic_key_names_the_step_of_a_run() {
    let world = World::new();
    let mut agent = world.agent();
    let run = agent.ok("runs.open", json!({"label": "mine"}))["run"].clone();
    let call = |title: &str, step: &str| {
        json!({"tool": "notes.add", "input": {"title": title, "body": "b"},
        "run": run, "step": step, "auto_key": true})
    };
    let first = agent.reply("calls.execute", call("One", "1")).must("ok", "committed", "");
    let again = world.agent().reply("calls.execute", call("One", "1")).must("ok", "committed", "");
    assert!(again.replayed && again.value == first.value, "{}", again.value);
    let other = agent.reply("calls.execute", call("One", "2"));
    assert!(
        !other.replayed && other.text("/error/code") == "tool_failed",
        "another step is another call: {}",
        other.value
    );
    agent.reply("calls.execute", call("Two", "1")).must("ok", "committed", "");
    let preview = agent.reply("calls.preview", call("Three", "3")).must("ok", "previewed", "");
    let commit = agent.reply("calls.execute", call("Three", "3")).must("ok", "committed", "");
    assert_ne!(preview.call(), commit.call(), "showing and doing are two calls");
    for (key, pointer) in [("run", "/run"), ("step", "/step")] {
        let mut without = call("Four", "4");
        without.as_object_mut().expect("object").remove(key);
        let refused = agent.reply("calls.execute", without).must("failed", "none", "invalid_input");
        assert!(refused.value["error"]["fields"].to_string().contains(pointer), "{}", refused.value);
    }
    let mut both = call("Four", "4");
    both["idempotency_key"] = json!("k");
    let refused = agent.reply("calls.execute", both).must("failed", "none", "invalid_input");
    assert!(refused.value["error"]["fields"].to_string().contains("/auto_key"), "{}", refused.value);
    let reads = json!({"tool": "notes.list", "input": {}, "run": run, "step": "5", "auto_key": true});
    agent.reply("calls.execute", reads.clone()).must("ok", "none", "");
    assert!(!agent.reply("calls.execute", reads).replayed, "what changes nothing needs no key");
}
