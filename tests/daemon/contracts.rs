//! Contracts and loops through the whole daemon: what a run may call, in which order, how often, and how it ends.

use serde_json::{Value, json};

use super::world::{Agent, Plot, Reply, World};
use crate::doors::running::until;

/// Where the contracts of these worlds lie.
const DIR: &str = "[contracts]\ndir = \"contracts\"\n";

const CONTRACT: &str = "format = 1
name = \"tidy\"
tenants = [\"local\"]
workflow = \"cleaning\"
tools = [\"notes.*\", \"notes2.*\", \"text-stats\", \"spin\"]
max_tier = 1
required = [\"notes.list\"]

[budget]
calls = 20

[[gate]]
tool = \"notes.add\"
after = [\"text-stats\"]
[[gate.bind]]
here = \"/body\"
there = \"/text\"

[loops]
same_call = 3
failures = 2
escalations = 4
";

fn world() -> World {
    let mut world = World::asleep(Plot { limits: DIR, ..Plot::default() });
    world.home.put("contracts/tidy.toml", CONTRACT.as_bytes());
    world.start();
    world
}

fn open(agent: &mut Agent, asked: Value) -> Value {
    agent.ok("runs.open", asked)["run"].clone()
}

fn call(agent: &mut Agent, run: &Value, tool: &str, input: Value) -> Reply {
    agent.reply("calls.execute", json!({"tool": tool, "input": input, "run": run}))
}

fn add(agent: &mut Agent, run: &Value, title: &str, body: &str) -> Reply {
    call(agent, run, "notes.add", json!({"title": title, "body": body}))
}

#[test]
fn r19_calls_outside_of_the_contract_are_refused_and_on_record() {
    let world = world();
    let mut agent = world.agent();
    let opened = agent.ok("runs.open", json!({"contract": "tidy"}));
    assert_eq!((&opened["workflow"], &opened["contract"]), (&json!("cleaning"), &json!("tidy")));
    let run = opened["run"].clone();
    let entries = world.verified();
    call(&mut agent, &run, "rename-symbol", json!({"from": "old_name", "to": "b"})).must("denied", "none", "denied");
    let tier =
        call(&mut agent, &run, "notes2.add", json!({"title": "A", "body": "b"})).must("denied", "none", "denied");
    assert!(tier.text("/error/message").contains("up to tier 1"), "{}", tier.value);
    let shown = world.admin().ok("runs.show", json!({"run": run}));
    assert_eq!(shown["escalations"], 2);
    assert!(world.verified() > entries + 2, "escalations are in the chain beside the calls");
    assert_eq!(shown["budget"]["used"]["calls"], 0, "what the contract refuses costs nothing");
}

#[test]
fn r19_a_gate_opens_after_the_call_that_it_names_with_the_same_arguments() {
    let mut world = world();
    let mut agent = world.agent();
    let run = open(&mut agent, json!({"contract": "tidy"}));
    let shut = add(&mut agent, &run, "A", "checked").must("denied", "none", "gate_unmet");
    assert!(shut.text("/error/message").contains("`text-stats`"), "{}", shut.value);
    call(&mut agent, &run, "text-stats", json!({"text": "other"})).must("ok", "none", "");
    add(&mut agent, &run, "A", "checked").must("denied", "none", "gate_unmet");
    let preview = json!({"tool": "text-stats", "input": {"text": "checked"}, "run": run});
    agent.reply("calls.preview", preview).must("ok", "none", "");
    add(&mut agent, &run, "A", "checked").must("denied", "none", "gate_unmet");
    call(&mut agent, &run, "text-stats", json!({"text": "checked"})).must("ok", "none", "");
    let other = open(&mut agent, json!({"contract": "tidy"}));
    add(&mut agent, &other, "A", "checked").must("denied", "none", "gate_unmet");
    world.verified();
    world.restart();
    let mut agent = world.agent();
    // What is read off the ledger opens the gate; calls that were refused are no repetitions.
    add(&mut agent, &run, "A", "checked").must("ok", "committed", "");
}

#[test]
fn r19_a_run_is_closed_when_its_required_steps_succeeded_or_it_is_given_up() {
    let world = world();
    let mut agent = world.agent();
    let run = open(&mut agent, json!({"contract": "tidy"}));
    let missing = agent.no("runs.close", json!({"run": run, "outcome": "clean"}));
    assert_eq!(missing["code"], "gate_unmet");
    assert!(missing["message"].as_str().is_some_and(|text| text.contains("`notes.list`")), "{missing}");
    call(&mut agent, &run, "notes.list", json!({})).must("ok", "none", "");
    let closed = agent.ok("runs.close", json!({"run": run, "outcome": "clean"}));
    assert_eq!(closed["outcome"], "clean");
    let other = open(&mut agent, json!({"contract": "tidy"}));
    assert_eq!(agent.ok("runs.close", json!({"run": other, "abandon": true}))["outcome"], "abandoned");
    call(&mut agent, &other, "notes.list", json!({})).must("failed", "none", "not_found");
    let spent = world.admin().ok("budgets.spend", json!({"by": "outcome"}));
    let names: Vec<&str> =
        spent["lines"].as_array().expect("lines").iter().filter_map(|l| l["name"].as_str()).collect();
    assert_eq!(names, ["clean"], "the other spent nothing: {spent}");
}

#[test]
fn r19_asking_narrows_the_contract_and_never_widens_it() {
    let world = world();
    let mut agent = world.agent();
    let asked = json!({"contract": "tidy", "budget": {"calls": 999}, "tools": ["*"], "max_tier": 3,
        "over_budget": "degrade", "loops": {"same_call": 99}});
    let run = open(&mut agent, asked);
    let page = agent.ok("runs.get", json!({"run": run}));
    let terms = &page["terms"];
    assert_eq!((&terms["budget"]["calls"], &terms["max_tier"]), (&json!(20), &json!(1)));
    assert_eq!((&terms["over_budget"], &terms["loops"]["same_call"]), (&json!("stop"), &json!(3)));
    call(&mut agent, &run, "rename-symbol", json!({"from": "a", "to": "b"})).must("denied", "none", "denied");
    let less = open(&mut agent, json!({"contract": "tidy", "budget": {"calls": 1}, "tools": ["notes.list"]}));
    call(&mut agent, &less, "text-stats", json!({"text": "x"})).must("denied", "none", "denied");
    call(&mut agent, &less, "notes.list", json!({})).must("ok", "none", "");
    call(&mut agent, &less, "notes.list", json!({})).must("denied", "none", "budget_exceeded");
    assert_eq!(agent.no("runs.open", json!({"contract": "tidy", "workflow": "other"}))["code"], "invalid_input");
}

#[test]
fn r19_a_changed_contract_binds_later_runs_and_a_wrong_one_changes_nothing() {
    let world = world();
    let mut agent = world.agent();
    let before = open(&mut agent, json!({"contract": "tidy"}));
    let calls = |world: &World| {
        let shown = world.admin().ok("budgets.show", json!({}));
        shown["contracts"][0]["terms"]["budget"]["calls"].clone()
    };
    world.home.put("contracts/tidy.toml", CONTRACT.replace("calls = 20", "calls = 50").as_bytes());
    until("the contract is read again", || calls(&world) == json!(50));
    assert_eq!(agent.ok("runs.get", json!({"run": before}))["terms"]["budget"]["calls"], 20);
    let after = open(&mut agent, json!({"contract": "tidy"}));
    assert_eq!(agent.ok("runs.get", json!({"run": after}))["terms"]["budget"]["calls"], 50);
    world.home.put("contracts/tidy.toml", CONTRACT.replace("calls = 20", "calls = -1").as_bytes());
    until("the wrong contract is told of", || {
        world.admin().ok("budgets.show", json!({}))["problems"][0]["kept_old"] == json!(true)
    });
    assert_eq!(calls(&world), json!(50));
    std::fs::remove_file(world.path("contracts/tidy.toml")).expect("file");
    until("the contract is gone", || calls(&world) == Value::Null);
    assert_eq!(agent.no("runs.open", json!({"contract": "tidy"}))["code"], "not_found");
    call(&mut agent, &before, "text-stats", json!({"text": "x"})).must("ok", "none", "");
}

#[test]
fn r19_a_default_contract_binds_runs_that_name_none_and_one_of_another_tenant_looks_missing() {
    let mut world =
        World::asleep(Plot { limits: "[contracts]\ndir = \"contracts\"\ndefault = \"tidy\"\n", ..Plot::default() });
    world.home.put("contracts/tidy.toml", CONTRACT.as_bytes());
    let foreign = "format = 1\nname = \"theirs\"\ntenants = [\"other\"]\n";
    world.home.put("contracts/theirs.toml", foreign.as_bytes());
    world.start();
    let mut agent = world.agent();
    assert_eq!(agent.ok("runs.open", json!({}))["contract"], "tidy");
    assert_eq!(agent.no("runs.open", json!({"contract": "theirs"}))["code"], "not_found");
    let shown = world.admin().ok("budgets.show", json!({}));
    assert_eq!(shown["contracts"].as_array().map(Vec::len), Some(1), "{shown}");
}

#[test]
fn r19_a_contract_may_want_a_usage_report_with_every_call() {
    let mut world = World::asleep(Plot { limits: DIR, ..Plot::default() });
    let contract = "format = 1\nname = \"told\"\nusage_report = \"required\"\n[budget]\ntokens = 5\n";
    world.home.put("contracts/told.toml", contract.as_bytes());
    world.start();
    let mut agent = world.agent();
    let run = open(&mut agent, json!({"contract": "told"}));
    let silent = call(&mut agent, &run, "text-stats", json!({"text": "x"})).must("failed", "none", "invalid_input");
    assert_eq!(silent.text("/error/fields/0/pointer"), "/usage");
    let told = json!({"tool": "text-stats", "input": {"text": "x"}, "run": run, "usage": {"tokens_in": 3}});
    agent.reply("calls.execute", told.clone()).must("ok", "none", "");
    agent.reply("calls.execute", told).must("denied", "none", "budget_exceeded");
}

#[test]
fn r31_the_same_call_is_made_three_times_and_not_a_fourth_not_even_after_a_restart() {
    let mut world = world();
    let mut agent = world.agent();
    let run = open(&mut agent, json!({"loops": {"same_call": 3}}));
    let same = |agent: &mut Agent| call(agent, &run, "text-stats", json!({"top": 1, "text": "again"}));
    same(&mut agent).must("ok", "none", "");
    // The canonical input counts, not how it is written.
    call(&mut agent, &run, "text-stats", json!({"text": "again", "top": 1})).must("ok", "none", "");
    world.verified();
    world.restart();
    let mut agent = world.agent();
    same(&mut agent).must("ok", "none", "");
    same(&mut agent).must("denied", "none", "loop_detected");
    call(&mut agent, &run, "text-stats", json!({"text": "other"})).must("ok", "none", "");
    assert_eq!(world.admin().ok("runs.show", json!({"run": run}))["escalations"], 1);
}

#[test]
fn r31_a_tool_that_fails_twice_in_a_row_is_stopped_and_r24_enough_escalations_hold_the_run() {
    let world = world();
    let (mut agent, mut admin) = (world.agent(), world.admin());
    let run = open(&mut agent, json!({"contract": "tidy"}));
    for _ in 0..2 {
        call(&mut agent, &run, "spin", json!({})).must("failed", "none", "out_of_fuel");
    }
    for _ in 0..4 {
        call(&mut agent, &run, "spin", json!({})).must("denied", "none", "loop_detected");
    }
    let held = call(&mut agent, &run, "text-stats", json!({"text": "x"})).must("denied", "none", "denied");
    assert!(held.text("/error/message").contains("held"), "{}", held.value);
    admin.ok("runs.release", json!({"run": run}));
    call(&mut agent, &run, "text-stats", json!({"text": "x"})).must("ok", "none", "");
    call(&mut agent, &run, "spin", json!({})).must("failed", "none", "out_of_fuel");
}

#[test]
fn r24_a_breach_of_a_boundary_is_an_escalation_of_its_run() {
    let world = World::new();
    let mut agent = world.agent();
    let run = open(&mut agent, json!({"loops": {"escalations": 1}}));
    call(&mut agent, &run, "path-escape", json!({}));
    call(&mut agent, &run, "text-stats", json!({"text": "x"})).must("denied", "none", "denied");
    assert!(world.admin().ok("runs.show", json!({"run": run}))["held"]["reason"].is_string());
}
