//! Other versions, tried on recorded calls and golden cases before they are installed: what a back-test looks at, what a
//! case holds, and what passes the gate.

use std::fs;

use serde_json::{Value, json};

use super::super::world::{Agent, World, component};
use super::asleep;
use super::replayed::over;

const CANARY: &str = "CANARY-DE00-5678";

/// A manifest of `text-stats` beside the folder of the tools, with its component: what is offered for an installation.
fn offered(world: &World, name: &str, rest: &str) -> Value {
    let folder = world.path("next");
    fs::create_dir_all(&folder).expect("a folder");
    fs::copy(component("text-stats"), folder.join("text-stats.wasm")).expect("a copy");
    let text = format!("format = 1\nname = \"{name}\"\ncomponent = \"text-stats.wasm\"\ntier = 0\n{rest}");
    world.home.put(&format!("next/{name}.toml"), text.as_bytes());
    json!({"manifest": world.path(&format!("next/{name}.toml"))})
}

/// A daemon with the tool `words`, whose manifest names the suite of that name, and a golden case of a call of it.
fn gated() -> (World, String) {
    let mut world = asleep("", &[("words", "text-stats", "tier = 0\n[record]\nsuite = \"words\"\n".to_owned())]);
    world.start();
    let call = world.agent().execute("words", json!({"text": "two words"})).must("ok", "none", "").call().to_owned();
    world.admin().ok("eval.add", json!({"suite": "words", "name": "two", "call": call}));
    (world, call)
}

fn failed(admin: &mut Agent, install: &Value, part: &str) {
    let refused = admin.no("tools.install", install.clone());
    assert_eq!(refused["code"], "eval_failed", "{refused}");
    assert!(refused["message"].as_str().expect("a message").contains(part), "{refused}");
}

#[test]
fn r47_a_manifest_with_less_fuel_is_tried_with_that_and_not_with_what_the_calls_had() {
    let (world, _) = gated();
    let mut admin = world.admin();
    let less = offered(&world, "words", "[limits]\nfuel = 1000\n");
    let start = json!({"with": less, "last": 10});
    let report = over(&mut admin, "replay.start", start);
    assert_eq!((&report["compared"], &report["by"]["end"]), (&json!(1), &json!(1)), "{report}");
    let run = json!({"suite": "words", "manifest": less["manifest"]});
    assert_eq!(over(&mut admin, "eval.run", run)["failed"], json!(1));
    let more = offered(&world, "words", "[limits]\nfuel = 1_000_000_000\n");
    let report = over(&mut admin, "replay.start", json!({"with": more, "last": 10}));
    assert_eq!((&report["compared"], &report["same"]), (&json!(1), &json!(1)), "{report}");
}

#[test]
fn r45_r47_the_next_version_of_a_tool_is_tried_on_recorded_calls_and_installed_past_its_cases() {
    let (world, _) = gated();
    let (mut agent, mut admin) = (world.agent(), world.admin());
    let hyphens = json!({"text": "a follow-up"});
    let changes = agent.execute("words", hyphens.clone()).must("ok", "none", "").call().to_owned();
    for number in 0..3 {
        agent.execute("words", json!({"text": format!("plain {number}")})).must("ok", "none", "");
    }
    let next = component("text-stats-next");
    let start = json!({"with": {"component": next}, "tool": "words", "last": 100});
    let report = over(&mut admin, "replay.start", start);
    assert_eq!((&report["compared"], &report["changed"], &report["by"]["output"]), (&json!(5), &json!(1), &json!(1)));
    let example = &report["examples"][0];
    assert_eq!(example["call_id"], json!(changes), "{report}");
    let told = |side: &str| -> Value {
        let text = example["changes"][0][side]["text"].as_str().expect("a text");
        serde_json::from_str(text).expect("JSON")
    };
    assert_eq!((&told("before")["words"], &told("after")["words"]), (&json!(3), &json!(2)), "{report}");
    admin.ok("eval.add", json!({"suite": "words", "name": "hyphens", "call": changes}));
    let folder = world.path("next");
    fs::create_dir_all(&folder).expect("a folder");
    fs::copy(&next, folder.join("next.wasm")).expect("a copy");
    let manifest = b"format = 1\nname = \"words\"\nversion = \"2.0.0\"\ncomponent = \"next.wasm\"\ntier = 0\n\
                     [record]\nsuite = \"words\"\n";
    world.home.put("next/words.toml", manifest);
    let install = json!({"manifest": folder.join("words.toml")});
    failed(&mut admin, &install, "1 of 2");
    let words = |agent: &mut Agent| {
        agent.execute("words", hyphens.clone()).must("ok", "none", "").value["output"]["words"].clone()
    };
    assert_eq!(words(&mut agent), json!(3), "the old one is in force");
    admin.ok("eval.remove", json!({"suite": "words", "name": "hyphens"}));
    let installed = admin.ok("tools.install", install);
    assert_eq!(installed["passed"][0]["passed"], json!(1), "{installed}");
    assert_eq!(words(&mut agent), json!(2));
    // What was called before the installation still replays with the version that it was made with.
    assert_eq!(admin.ok("replay.call", json!({"call": changes}))["identical"], json!(true));
}

#[test]
fn r45_a_manifest_that_changes_with_the_same_component_passes_the_gate_or_is_not_installed() {
    let (world, _) = gated();
    let mut admin = world.admin();
    let suite = "[record]\nsuite = \"words\"\n";
    failed(&mut admin, &offered(&world, "words", &format!("{suite}[limits]\nfuel = 1000\n")), "1 of 1");
    world.agent().execute("words", json!({"text": "still"})).must("ok", "none", "");
    let passes = offered(&world, "words", &format!("{suite}[limits]\nfuel = 1_000_000_000\n"));
    let installed = admin.ok("tools.install", passes.clone());
    assert_eq!(installed["passed"][0]["passed"], json!(1), "{installed}");
    let again = admin.ok("tools.install", passes);
    assert_eq!(again["passed"], json!([]), "what is in force already is not tried again: {again}");
}

#[test]
fn r45_a_manifest_drops_its_suite_on_record_or_not_at_all() {
    let (world, _) = gated();
    let mut admin = world.admin();
    let drops = offered(&world, "words", "");
    failed(&mut admin, &drops, "does not name the suite `words` any more");
    let accepted = json!({"manifest": drops["manifest"], "accept_failing": "cases are moved"});
    let installed = admin.ok("tools.install", accepted);
    assert_eq!(installed["passed"][0]["dropped"], json!(true), "{installed}");
    // Another name is no way around: both suites have to pass, and one without cases passes nothing.
    let (world, _) = gated();
    let renamed = offered(&world, "words", "[record]\nsuite = \"other\"\n");
    failed(&mut world.admin(), &renamed, "`other` has no case");
}

#[test]
fn r45_the_cases_of_a_gate_are_about_the_tool_that_is_installed() {
    let (world, call) = gated();
    let mut admin = world.admin();
    admin.ok("eval.remove", json!({"suite": "words", "name": "two"}));
    let other = world.agent().execute("text-stats", json!({"text": "other"})).must("ok", "none", "").call().to_owned();
    admin.ok("eval.add", json!({"suite": "words", "name": "other", "call": other}));
    let changed = offered(&world, "words", "[record]\nsuite = \"words\"\n[limits]\nfuel = 1_000_000_000\n");
    failed(&mut admin, &changed, "no case about a tool of this manifest");
    admin.ok("eval.add", json!({"suite": "words", "name": "own", "call": call}));
    let installed = admin.ok("tools.install", changed);
    assert_eq!(installed["passed"][0]["passed"], json!(2), "{installed}");
}

#[test]
fn r45_a_version_that_is_not_in_force_any_more_still_gates_the_next_one() {
    let (mut world, _) = gated();
    // What was in force is on record some moments later.
    assert!(world.stop().success());
    world.start();
    crate::doors::running::until("the version is on record", || {
        let known = world.admin().raw("replay.start", json!({"with": {"version": "words@0.0.0"}, "last": 1}));
        known.is_some_and(|answer| answer.get("result").is_some())
    });
    assert!(world.stop().success());
    world.home.put("tools/words.toml", b"this is no manifest");
    world.start();
    let mut admin = world.admin();
    let less = offered(&world, "words", "[record]\nsuite = \"words\"\n[limits]\nfuel = 1000\n");
    failed(&mut admin, &less, "1 of 1");
}

#[test]
fn r45_a_version_that_came_into_force_around_the_gate_is_run_over_its_cases_at_once() {
    let (world, _) = gated();
    let mut admin = world.admin();
    let less = world.text("tools/words.toml") + "[limits]\nfuel = 1000\n";
    world.home.put("tools/words.toml", less.as_bytes());
    admin.ok("tools.reload", json!({}));
    let mut runs = Value::Null;
    crate::doors::running::until("its suite was run", || {
        runs = admin.ok("eval.list", json!({}))["suites"][0]["runs"].take();
        runs.as_array().is_some_and(|runs| !runs.is_empty())
    });
    assert_eq!((&runs[0]["passed"], &runs[0]["failed"]), (&json!(0), &json!(1)), "{runs}");
    crate::doors::running::until("operators are told", || {
        admin.ok("alerts.list", json!({})).to_string().contains("eval.drift")
    });
}

#[test]
fn r45_r47_what_was_cut_off_by_cancelling_is_no_finding() {
    let limits = |fuel: &str| format!("tier = 0\n[limits]\nfuel = {fuel}\ndeadline_ms = 600_000\n");
    let mut world = asleep("", &[("slow", "spin", limits("1_000_000"))]);
    world.start();
    let mut admin = world.admin();
    // What is tried goes on for minutes, if nobody ends it.
    let text = world.text("tools/slow.toml").replace("fuel = 1_000_000\n", "fuel = 1_000_000_000_000\n");
    world.home.put("tools/slow.manifest", text.as_bytes());
    let endless = world.path("tools/slow.manifest");
    let call = world.agent().execute("slow", json!({})).must("failed", "none", "out_of_fuel").call().to_owned();
    admin.ok("eval.add", json!({"name": "slow", "call": call}));
    let cancelled = |admin: &mut Agent, method: &str, params: Value| {
        let job = admin.ok(method, params)["job"].clone();
        let mut answer = admin.ok("replay.cancel", json!({"job": job}));
        crate::doors::running::until("the job is over", || {
            answer = admin.ok("replay.progress", json!({"job": job}));
            answer["state"] != "running"
        });
        answer["report"].take()
    };
    let report = cancelled(&mut admin, "replay.start", json!({"with": {"manifest": endless}, "last": 5}));
    assert_eq!(report["cancelled"], json!(true), "{report}");
    assert_eq!((&report["compared"], &report["not_comparable"]), (&json!(0), &json!(0)), "{report}");
    let report = cancelled(&mut admin, "eval.run", json!({"manifest": endless}));
    let counts = (&report["failed"], &report["passed"], &report["not_run"]);
    assert_eq!(counts, (&json!(0), &json!(0), &json!(1)), "{report}");
}

#[test]
fn r47_a_component_whose_schema_refuses_what_was_called_is_told_as_such() {
    let (world, _) = gated();
    let with = json!({"component": component("csv-report")});
    let report = over(&mut world.admin(), "replay.start", json!({"with": with, "last": 5, "tool": "words"}));
    assert_eq!(report["by"], json!({"input": 1}), "{report}");
    let change = &report["examples"][0]["changes"][0];
    assert_eq!(change["after"], json!("the input breaks `required`"), "{report}");
}

#[test]
fn r47_what_is_no_component_or_says_not_which_tool_is_refused_at_once() {
    let (world, _) = gated();
    let mut admin = world.admin();
    world.home.put("broken.wasm", b"this is no component");
    let broken = world.path("broken.wasm");
    for (method, params) in [
        ("replay.start", json!({"with": {"component": broken}, "tool": "words"})),
        ("eval.run", json!({"suite": "words", "component": broken})),
        ("replay.start", json!({"with": {"component": component("notes")}})),
        // Two manifests have this component.
        ("replay.start", json!({"with": {"component": component("text-stats")}})),
        ("replay.start", json!({"with": offered(&world, "words", ""), "tool": "notes.add"})),
    ] {
        let refused = admin.no(method, params.clone());
        assert_eq!(refused["code"], "invalid_input", "{params}: {refused}");
    }
}

#[test]
fn r47_calls_of_other_tools_take_nothing_from_the_calls_that_are_compared() {
    let (world, _) = gated();
    let mut agent = world.agent();
    for number in 0..3 {
        agent.execute("words", json!({"text": format!("{number}")})).must("ok", "none", "");
        agent.execute("notes.list", json!({})).must("ok", "none", "");
        agent.execute("notes.list", json!({})).must("ok", "none", "");
    }
    let with = offered(&world, "words", "");
    let report = over(&mut world.admin(), "replay.start", json!({"with": with, "last": 3}));
    assert_eq!((&report["compared"], &report["cut"]), (&json!(3), &json!(false)), "{report}");
}

#[test]
fn r45_a_case_knows_who_called_and_in_which_run() {
    let mut world = asleep("", &[("who", "false-name", "tier = 0\n".to_owned())]);
    world.start();
    let (mut agent, mut admin) = (world.agent(), world.admin());
    let run = agent.ok("runs.open", json!({}))["run"].clone();
    let call = json!({"tool": "who", "input": {}, "run": run});
    let reply = agent.reply("calls.execute", call).must("ok", "none", "");
    assert!(reply.value["output"]["agent"].is_string(), "the tool shows who called it: {}", reply.value);
    let added = admin.ok("eval.add", json!({"name": "who", "call": reply.call()}));
    assert_eq!(added["problems"], json!([]), "{added}");
    let shown = admin.ok("eval.show", json!({"suite": "golden", "name": "who"}));
    assert_eq!(shown["case"]["caller"]["run"], run, "{shown}");
    let report = over(&mut admin, "eval.run", json!({}));
    assert_eq!((&report["passed"], &report["not_run"]), (&json!(1), &json!(0)), "{report}");
    // What stands on the stage of a transaction holds not all of its world.
    let transaction = agent.ok("transactions.begin", json!({}))["transaction"].clone();
    let add = json!({"tool": "notes.add", "input": {"title": "one", "body": "b"}, "transaction": transaction});
    agent.reply("calls.execute", add).must("ok", "staged", "");
    let list = json!({"tool": "notes.list", "input": {}, "transaction": transaction});
    let staged = agent.reply("calls.execute", list).must("ok", "staged", "");
    let refused = admin.no("eval.add", json!({"name": "staged", "call": staged.call()}));
    assert_eq!(refused["code"], "not_replayable", "{refused}");
    assert!(refused["message"].as_str().expect("a message").contains("transaction"), "{refused}");
    world.stop();
}

#[test]
fn r42_what_a_policy_hides_of_a_call_is_hidden_in_its_case_its_failures_and_back_tests() {
    let mut world = asleep("[policy]\ndir = \"policies\"\n", &[("words", "text-stats", "tier = 0\n".to_owned())]);
    fs::create_dir(world.path("policies")).expect("policies");
    let hides = "@redact(\"/output\") permit (principal, action in Action::\"call\", resource);\n\
                 permit (principal, action in Action::\"commit\", resource);\n";
    world.home.put("policies/all.cedar", hides.as_bytes());
    world.start();
    let mut admin = world.admin();
    let call = world.agent().execute("words", json!({"text": CANARY})).must("ok", "none", "").call().to_owned();
    let wrong = json!({"name": "wrong", "call": call, "expect": {"output": {"top": CANARY}}});
    let added = admin.ok("eval.add", wrong);
    assert_eq!((&added["hidden"], added["problems"].as_array().map(Vec::len)), (&json!(true), Some(1)), "{added}");
    let shown = admin.ok("eval.show", json!({"suite": "golden", "name": "wrong"}));
    let ran = over(&mut admin, "eval.run", json!({}));
    assert_eq!(ran["failed"], json!(1), "{ran}");
    let with = json!({"component": component("text-stats-next")});
    let tested = over(&mut admin, "replay.start", json!({"with": with, "last": 5, "tool": "words"}));
    assert_eq!(tested["by"], json!({"output": 1}), "{tested}");
    for answer in [added, shown, ran, tested] {
        assert!(!answer.to_string().to_lowercase().contains("canary"), "{answer}");
    }
}
