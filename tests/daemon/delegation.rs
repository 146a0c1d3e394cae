//! Sessions: what is handed on is a part, ends with what it comes from, and sees its own only (R18).

use serde_json::{Value, json};

use super::identity::{mint, shown, stranger};
use super::world::{Agent, Plot, World};

fn delegated(agent: &mut Agent, params: Value) -> Value {
    agent.ok("sessions.delegate", params)
}

fn note(title: &str) -> Value {
    json!({"title": title, "body": "b"})
}

#[test]
fn r18_a_session_does_what_it_holds_and_nothing_else() {
    let world = World::new();
    let mut parent = world.agent();
    let session = delegated(
        &mut parent,
        json!({"tools": ["notes.add", "notes.list", "notes2.add", "writer"], "workspaces": {"notes": "write"}, "max_tier": 1}),
    );
    let mut child = shown(&world, &session["token"]);
    let own = child.ok("session.get", json!({}));
    assert_eq!((&own["session"], &own["authenticated"]), (&session["session"], &json!("uid")));
    assert_eq!(own["held"]["max_tier"], 1);
    child.execute("notes.add", note("One")).must("ok", "committed", "");
    child.execute("notes.list", json!({})).must("ok", "none", "");
    for (tool, input) in [("text-stats", json!({"text": "a"})), ("notes2.add", note("Two"))] {
        let denied = child.execute(tool, input).must("denied", "none", "denied");
        assert!(denied.text("/error/message").contains("this session"), "{}", denied.value);
        assert_eq!(denied.value["usage"]["fuel"], 0, "it did not run");
    }
    let listed = child.ok("tools.list", json!({}));
    let names: Vec<&str> =
        listed["tools"].as_array().expect("tools").iter().filter_map(|tool| tool["name"].as_str()).collect();
    assert_eq!(names, ["notes.add", "notes.list", "writer"]);
    assert_eq!(child.no("tools.describe", json!({"tool": "text-stats"}))["code"], "not_found");

    let reader = delegated(&mut child, json!({"workspaces": {"notes": "read"}}));
    let mut reader = shown(&world, &reader["token"]);
    reader.execute("notes.list", json!({})).must("ok", "none", "");
    let before = world.snapshot();
    let tried = reader.execute("notes.add", note("Three"));
    assert_ne!(tried.ended().1, "committed", "{}", tried.value);
    let nowhere = delegated(&mut child, json!({"workspaces": {}}));
    shown(&world, &nowhere["token"]).execute("notes.list", json!({})).must("denied", "none", "denied");
    assert_eq!(world.snapshot(), before);
    world.verified();
}

#[test]
fn r18_a_child_never_gets_more_than_its_parent() {
    let world = World::new();
    let mut root = world.agent();
    let narrow = json!({"tools": ["notes.list", "text-stats"], "workspaces": {"notes": "read"}, "max_tier": 1,
        "budget": {"calls": 5}, "delegations": 1, "expires_in_s": 600});
    let parent = delegated(&mut root, narrow);
    let mut parent = shown(&world, &parent["token"]);
    let wider = [
        (json!({"tools": ["notes.add"]}), "/tools"),
        (json!({"tools": ["notes.list", "no-such-tool"]}), "/tools"),
        (json!({"workspaces": {"notes": "write"}}), "/workspaces/notes"),
        (json!({"workspaces": {"src": "read"}}), "/workspaces/src"),
        (json!({"max_tier": 2}), "/max_tier"),
        (json!({"budget": {"calls": 6}}), "/budget/calls"),
        (json!({"delegations": 1}), "/delegations"),
        (json!({"expires_in_s": 601}), "/expires_in_s"),
    ];
    for (params, field) in wider {
        let refusal = parent.no("sessions.delegate", params);
        assert_eq!(
            (&refusal["code"], &refusal["fields"][0]["pointer"]),
            (&json!("denied"), &json!(field)),
            "{refusal}"
        );
    }
    for params in [
        json!({"tenant": "other"}),
        json!({"user": "root"}),
        json!({"max_tier": 4}),
        json!({"workspaces": {"notes": "admin"}}),
    ] {
        assert_eq!(parent.no("sessions.delegate", params)["code"], "invalid_input");
    }
    let child = delegated(&mut parent, json!({"expires_in_s": 60, "budget": {"calls": 2}}));
    let mut child = shown(&world, &child["token"]);
    assert_eq!(child.no("sessions.delegate", json!({}))["fields"][0]["pointer"], "/delegations", "the last level");
    for _ in 0..2 {
        child.execute("text-stats", json!({"text": "a"})).must("ok", "none", "");
    }
    child.execute("text-stats", json!({"text": "a"})).must("denied", "none", "budget_exceeded");
    assert_eq!(parent.ok("session.get", json!({}))["calls_left"], 3, "what a child does is counted above");
}

#[test]
fn r18_delegations_are_as_deep_as_they_may_be() {
    let world = World::new();
    let mut deepest = world.agent();
    for _ in 0..toolkeep_core::session::DELEGATIONS_MAX {
        let token = delegated(&mut deepest, json!({}))["token"].clone();
        deepest = shown(&world, &token);
    }
    deepest.execute("text-stats", json!({"text": "a"})).must("ok", "none", "");
    assert_eq!(deepest.no("sessions.delegate", json!({}))["code"], "denied");
}

#[test]
fn r18_revoking_a_parent_ends_every_session_below_it_and_no_other() {
    let mut world = World::new();
    let mut root = world.agent();
    let parent = delegated(&mut root, json!({"label": "parent"}));
    let sibling = delegated(&mut root, json!({"label": "sibling"}));
    let mut in_parent = shown(&world, &parent["token"]);
    let child = delegated(&mut in_parent, json!({}));
    let mut in_child = shown(&world, &child["token"]);
    let mut in_sibling = shown(&world, &sibling["token"]);
    let listed = root.ok("sessions.list", json!({}));
    assert_eq!(listed["sessions"].as_array().map(Vec::len), Some(3), "{listed}");
    assert_eq!(in_parent.ok("sessions.list", json!({}))["sessions"].as_array().map(Vec::len), Some(1));
    for other in [&parent["session"], &sibling["session"], &json!("ses_00000000-0000-7000-8000-000000000000")] {
        let refusal = in_child.no("sessions.revoke", json!({"session": other}));
        assert_eq!(refusal["code"], "not_found", "a child takes nothing back above or beside it");
    }
    root.ok("sessions.revoke", json!({"session": parent["session"]}));
    for peer in [&mut in_parent, &mut in_child] {
        assert_eq!(peer.no("tools.list", json!({}))["code"], "unauthorized");
    }
    in_sibling.ok("tools.list", json!({}));
    world.restart();
    for (token, stands) in [(&parent["token"], false), (&child["token"], false), (&sibling["token"], true)] {
        let answer = stranger(&world).raw("session.authenticate", json!({"token": token})).expect("an answer");
        assert_eq!(answer.get("result").is_some(), stands, "{answer}");
    }
    assert_eq!(world.admin().ok("tokens.list", json!({"sessions": true}))["tokens"].as_array().map(Vec::len), Some(1));
    world.verified();
}

#[test]
fn r18_a_session_sees_what_it_made_and_its_parent_sees_that_too() {
    let world = World::new();
    let mut root = world.agent();
    let mut sessions = [(); 2].map(|()| shown(&world, &delegated(&mut root, json!({}))["token"]));
    let [one, two] = &mut sessions;
    let above = root.preview("notes.add", note("Above")).must("ok", "previewed", "");
    let run_above = root.ok("runs.open", json!({}))["run"].clone();
    let txn_above = root.ok("transactions.begin", json!({}))["transaction"].clone();
    let held_above = root.execute("notes2.add", note("Held")).must("held", "pending", "approval_required");
    let made = one.preview("notes.add", note("Mine")).must("ok", "previewed", "");
    let run = one.ok("runs.open", json!({}))["run"].clone();
    let txn = one.ok("transactions.begin", json!({}))["transaction"].clone();
    let missing = |peer: &mut Agent, method: &str, params: Value| {
        assert_eq!(peer.no(method, params.clone())["code"], "not_found", "{method} {params}");
    };
    for (peer, plan, run, txn) in [(&mut *one, &above, &run_above, &txn_above), (&mut *two, &made, &run, &txn)] {
        missing(peer, "calls.get", json!({"call": plan.call()}));
        missing(peer, "plans.get", json!({"plan": plan.plan()}));
        missing(peer, "plans.get", json!({"plan": plan.digest()}));
        missing(peer, "plans.commit", json!({"plan": plan.plan()}));
        missing(peer, "plans.discard", json!({"plan": plan.plan()}));
        missing(peer, "runs.get", json!({"run": run}));
        missing(peer, "runs.close", json!({"run": run}));
        missing(peer, "transactions.get", json!({"transaction": txn}));
        missing(peer, "transactions.commit", json!({"transaction": txn}));
        missing(peer, "transactions.rollback", json!({"transaction": txn}));
        let named = json!({"tool": "text-stats", "input": {"text": "a"}, "run": run});
        peer.reply("calls.execute", named).must("failed", "none", "not_found");
    }
    missing(one, "approvals.get", json!({"approval": held_above.approval()}));
    assert_eq!(one.ok("transactions.list", json!({}))["transactions"].as_array().map(Vec::len), Some(1));
    assert_eq!(root.ok("transactions.list", json!({}))["transactions"].as_array().map(Vec::len), Some(2));
    root.ok("runs.get", json!({"run": run}));
    root.commit(made.plan()).must("ok", "committed", "");
    missing(two, "undo.propose", json!({"call": made.call()}));
    one.reply("undo.propose", json!({"call": made.call()})).must("ok", "previewed", "");
    world.verified();
}

#[test]
fn r18_calls_are_counted_over_a_restart() {
    let mut world = World::new();
    let session = delegated(&mut world.agent(), json!({"budget": {"calls": 3}}));
    let mut child = shown(&world, &session["token"]);
    for _ in 0..2 {
        child.execute("text-stats", json!({"text": "a"})).must("ok", "none", "");
    }
    assert!(world.stop().success());
    world.start();
    let mut child = shown(&world, &session["token"]);
    assert_eq!(child.ok("session.get", json!({}))["calls_left"], 1);
    child.execute("text-stats", json!({"text": "a"})).must("ok", "none", "");
    child.execute("text-stats", json!({"text": "a"})).must("denied", "none", "budget_exceeded");
}

#[test]
fn r18_a_plan_of_a_revoked_session_is_settled_by_nobody() {
    let world = World::new();
    let mut root = world.agent();
    let session = delegated(&mut root, json!({}));
    let mut child = shown(&world, &session["token"]);
    let held = child.execute("notes2.add", note("Held")).must("held", "pending", "approval_required");
    let shown_plan = child.preview("notes.add", note("Shown")).must("ok", "previewed", "");
    let before = world.snapshot();
    root.ok("sessions.revoke", json!({"session": session["session"]}));
    let answer = world.admin().ok("approvals.approve", json!({"approval": held.approval(), "reason": "fine"}));
    assert_eq!(answer["reply"]["error"]["code"], "stale_plan", "{answer}");
    root.commit(shown_plan.plan()).must("failed", "discarded", "stale_plan");
    assert_eq!(world.snapshot(), before);
    world.verified();
}

#[test]
fn r18_policies_know_who_was_delegated_to_and_how_they_were_known() {
    let mut world = World::asleep(Plot { daemon: "", limits: "[policy]\ndir = \"policies\"\n" });
    let policies = "permit (principal, action, resource) when { context.delegations == 0 };\n\
                    permit (principal, action in Action::\"call\", resource == Tool::\"text-stats\") \
                    when { context.authenticated == \"token\" && context.delegations <= 1 };\n";
    world.home.put("policies/a.cedar", policies.as_bytes());
    world.start();
    let mut by_uid = world.agent();
    by_uid.execute("text-stats", json!({"text": "a"})).must("ok", "none", "");
    let mut by_token = shown(&world, &mint(&world, "alice", "one")["token"]);
    let uid_child = delegated(&mut by_uid, json!({}))["token"].clone();
    let token_child = delegated(&mut by_token, json!({}))["token"].clone();
    shown(&world, &uid_child).execute("text-stats", json!({"text": "a"})).must("denied", "none", "denied");
    let mut token_child = shown(&world, &token_child);
    token_child.execute("text-stats", json!({"text": "a"})).must("ok", "none", "");
    token_child.execute("notes.list", json!({})).must("denied", "none", "denied");
    let deeper = delegated(&mut token_child, json!({}))["token"].clone();
    shown(&world, &deeper).execute("text-stats", json!({"text": "a"})).must("denied", "none", "denied");
}

#[test]
fn r18_a_narrowed_token_sees_and_ends_only_what_was_made_by_it() {
    let world = World::new();
    let mut root = world.agent();
    let done = root.execute("notes.add", note("Done")).must("ok", "committed", "");
    let shown_plan = root.preview("notes.add", note("Shown")).must("ok", "previewed", "");
    let held = root.execute("notes2.add", note("Held")).must("held", "pending", "approval_required");
    let run = root.ok("runs.open", json!({}))["run"].clone();
    let txn = root.ok("transactions.begin", json!({}))["transaction"].clone();
    let staged = json!({"tool": "notes.add", "input": note("Staged"), "transaction": txn});
    root.reply("calls.execute", staged).must("ok", "staged", "");
    let session = delegated(&mut root, json!({}));
    let same = json!({"user": "local", "agent": "local"});
    let mut narrow = same.clone();
    narrow["max_tier"] = json!(0);
    let mut token = shown(&world, &world.admin().ok("tokens.mint", narrow)["token"]);
    let before = world.snapshot();
    for (method, params) in [
        ("calls.get", json!({"call": done.call()})),
        ("plans.get", json!({"plan": shown_plan.plan()})),
        ("plans.get", json!({"plan": shown_plan.digest()})),
        ("plans.commit", json!({"plan": shown_plan.plan()})),
        ("plans.discard", json!({"plan": shown_plan.plan()})),
        ("approvals.get", json!({"approval": held.approval()})),
        ("runs.get", json!({"run": run})),
        ("runs.close", json!({"run": run})),
        ("transactions.get", json!({"transaction": txn})),
        ("transactions.preview", json!({"transaction": txn})),
        ("transactions.commit", json!({"transaction": txn})),
        ("transactions.rollback", json!({"transaction": txn})),
        ("undo.propose", json!({"call": done.call()})),
        ("sessions.revoke", json!({"session": session["session"]})),
    ] {
        assert_eq!(token.no(method, params)["code"], "not_found", "{method}");
    }
    assert_eq!(token.ok("transactions.list", json!({}))["transactions"], json!([]));
    assert_eq!(token.ok("sessions.list", json!({}))["sessions"], json!([]));
    assert_eq!(world.snapshot(), before);
    let own = token.ok("runs.open", json!({}))["run"].clone();
    let mut child = shown(&world, &delegated(&mut token, json!({}))["token"]);
    let made = child.execute("text-stats", json!({"text": "a"})).must("ok", "none", "");
    token.reply("calls.get", json!({"call": made.call()})).must("ok", "none", "");
    token.ok("runs.get", json!({"run": own}));
    assert_eq!(token.ok("sessions.list", json!({}))["sessions"].as_array().map(Vec::len), Some(1));
    // One that holds everything is another door of the same agent, and so is its uid.
    let mut whole = shown(&world, &world.admin().ok("tokens.mint", same)["token"]);
    for peer in [&mut whole, &mut root] {
        peer.ok("runs.get", json!({"run": own}));
        peer.reply("calls.get", json!({"call": done.call()})).must("ok", "committed", "");
    }
    whole.reply("transactions.commit", json!({"transaction": txn})).must("ok", "committed", "");
    world.verified();
}

#[test]
fn r18_a_session_spends_what_it_may_in_all_and_so_do_those_below_it() {
    let mut world = World::asleep(Plot::default());
    let manifest =
        "format = 1\nname = \"text-stats\"\ncomponent = \"text-stats.wasm\"\ntier = 0\n[price]\ncall_usd = \"0.25\"\n";
    world.home.put("tools/text-stats.toml", manifest.as_bytes());
    world.start();
    let mut root = world.agent();
    let session = delegated(&mut root, json!({"budget": {"cost_micro_usd": 1_000_000}}));
    let mut parent = shown(&world, &session["token"]);
    let below = delegated(&mut parent, json!({"budget": {"cost_micro_usd": 500_000}}));
    assert_eq!(
        parent.no("sessions.delegate", json!({"budget": {"cost_micro_usd": 1_000_001}}))["fields"][0]["pointer"],
        "/budget/cost_micro_usd"
    );
    let mut child = shown(&world, &below["token"]);
    let call = |peer: &mut Agent, run: Option<&Value>| {
        let mut params = json!({"tool": "text-stats", "input": {"text": "a"}});
        if let Some(run) = run {
            params["run"] = run.clone();
        }
        peer.ok("calls.execute", params)
    };
    assert_eq!(call(&mut child, None)["budget_remaining"]["cost_usd"], "0.25");
    let run = child.ok("runs.open", json!({}))["run"].clone();
    assert_eq!(call(&mut child, Some(&run))["budget_remaining"]["cost_usd"], "0");
    let over = call(&mut child, None)["reply"].clone();
    assert_eq!(over["error"]["code"], "budget_exceeded", "{over}");
    assert!(over.to_string().contains("the session's budget"), "{over}");
    assert_eq!(call(&mut parent, None)["budget_remaining"]["cost_usd"], "0.25", "what a child spends counts above");
    assert_eq!(call(&mut root, None)["budget_remaining"], Value::Null, "and no further than it is bounded");
    assert!(world.stop().success());
    world.start();
    let (mut parent, mut child) = (shown(&world, &session["token"]), shown(&world, &below["token"]));
    assert_eq!(call(&mut child, None)["reply"]["error"]["code"], "budget_exceeded", "a restart gives nothing back");
    assert_eq!(call(&mut parent, None)["budget_remaining"]["cost_usd"], "0");
    assert_eq!(call(&mut parent, None)["reply"]["error"]["code"], "budget_exceeded");
    world.verified();
}

#[test]
fn r18_what_a_session_left_waiting_ends_with_the_uid_that_it_comes_from() {
    let mut world = World::new();
    let mut root = world.agent();
    let mut child = shown(&world, &delegated(&mut root, json!({}))["token"]);
    let held = child.execute("notes2.add", note("Held")).must("held", "pending", "approval_required");
    let own = root.execute("notes2.add", note("Own")).must("held", "pending", "approval_required");
    assert!(world.stop().success());
    let config = world.text("toolkeep.toml").replacen("[daemon]\n", "[daemon]\ntokens_only = true\n", 1);
    world.home.put("toolkeep.toml", config.as_bytes());
    world.start();
    let mut admin = world.admin();
    let answer = admin.ok("approvals.approve", json!({"approval": held.approval(), "reason": "fine"}));
    assert_eq!(answer["reply"]["error"]["code"], "stale_plan", "{answer}");
    let answer = admin.ok("approvals.approve", json!({"approval": own.approval(), "reason": "fine"}));
    assert_eq!(answer["reply"]["outcome"], "committed", "what the agent asked itself is its principal's: {answer}");
    assert!(!world.path("notes/held.md").exists() && world.path("notes/own.md").exists());
    world.verified();
}
