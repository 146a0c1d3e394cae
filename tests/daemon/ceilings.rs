//! Ceilings of a day, spending and spikes through the whole daemon.

use serde_json::{Value, json};

use super::world::{Agent, Plot, Reply, World};
use crate::doors::running::until;

fn call(agent: &mut Agent, run: Option<&Value>, text: &str) -> Reply {
    let mut params = json!({"tool": "text-stats", "input": {"text": text}});
    if let Some(run) = run {
        params["run"] = run.clone();
    }
    agent.reply("calls.execute", params)
}

fn add(agent: &mut Agent, title: &str) -> Reply {
    agent.execute("notes.add", json!({"title": title, "body": "b"}))
}

#[test]
fn r27_a_ceiling_counts_runs_and_calls_without_one_and_survives_a_restart() {
    let mut world = World::of(Plot { limits: "[[ceiling]]\nname = \"daily\"\ncalls = 4\n", ..Plot::default() });
    let mut agent = world.agent();
    let run = agent.ok("runs.open", json!({}))["run"].clone();
    call(&mut agent, Some(&run), "a").must("ok", "none", "");
    call(&mut agent, None, "b").must("ok", "none", "");
    // What is recorded is written a moment later.
    world.verified();
    world.restart();
    let mut agent = world.agent();
    call(&mut agent, None, "c").must("ok", "none", "");
    call(&mut agent, Some(&run), "d").must("ok", "none", "");
    let over = call(&mut agent, None, "e").must("denied", "none", "budget_exceeded");
    assert!(over.text("/error/message").contains("`daily`"), "{}", over.value);
    call(&mut agent, Some(&run), "e").must("denied", "none", "budget_exceeded");
    let shown = world.admin().ok("budgets.show", json!({}));
    assert_eq!(
        (&shown["today"][0]["subject"], &shown["today"][0]["left"]["calls"]),
        (&json!("local"), &json!(0)),
        "{shown}"
    );
}

#[test]
fn r27_a_ceiling_degrades_to_reading_and_another_waits_for_its_operator() {
    let world = World::of(Plot {
        limits: "[[ceiling]]\nname = \"written\"\nbytes_written = 1\nover_budget = \"degrade\"\n\
                 [[ceiling]]\nname = \"held\"\nper = \"workflow\"\ncalls = 1\nover_budget = \"hold\"\n",
        ..Plot::default()
    });
    let (mut agent, mut admin) = (world.agent(), world.admin());
    add(&mut agent, "A").must("denied", "none", "budget_exceeded");
    call(&mut agent, None, "x").must("ok", "none", "");
    let run = agent.ok("runs.open", json!({"workflow": "pay"}))["run"].clone();
    let other = agent.ok("runs.open", json!({"workflow": "other"}))["run"].clone();
    call(&mut agent, Some(&run), "x").must("ok", "none", "");
    call(&mut agent, Some(&run), "y").must("denied", "none", "budget_exceeded");
    call(&mut agent, Some(&other), "y").must("ok", "none", "");
    assert_eq!(admin.no("budgets.resume", json!({"ceiling": "none"}))["code"], "not_found");
    assert_eq!(admin.no("budgets.resume", json!({"ceiling": "held"}))["code"], "not_found", "of which workflow?");
    admin.ok("budgets.resume", json!({"ceiling": "held", "workflow": "pay"}));
    call(&mut agent, Some(&run), "y").must("ok", "none", "");
    call(&mut agent, Some(&run), "z").must("denied", "none", "budget_exceeded");
}

#[test]
fn r27_spending_is_added_up_by_run_workflow_tool_outcome_and_day() {
    let world = World::asleep(Plot::default());
    let manifest =
        "format = 1\nname = \"text-stats\"\ncomponent = \"text-stats.wasm\"\ntier = 0\n[price]\ncall_usd = \"0.25\"\n";
    world.home.put("tools/text-stats.toml", manifest.as_bytes());
    let mut world = world;
    world.start();
    let (mut agent, mut admin) = (world.agent(), world.admin());
    let mut runs = Vec::new();
    for (workflow, calls, outcome) in [("pay", 3, "paid"), ("pay", 1, "paid"), ("scan", 1, "nothing found")] {
        let run = agent.ok("runs.open", json!({"workflow": workflow}))["run"].clone();
        for n in 0..calls {
            call(&mut agent, Some(&run), &n.to_string()).must("ok", "none", "");
        }
        agent.ok("runs.report", json!({"run": run, "usage": {"tokens_in": 10, "cost_usd": "0.5"}}));
        agent.ok("runs.close", json!({"run": run, "outcome": outcome}));
        runs.push(run);
    }
    let mut lines = |by: &str| -> Vec<(String, u64, String, String, Value)> {
        let spent = admin.ok("budgets.spend", json!({"by": by}));
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let lines = spent["lines"].as_array().expect("lines").iter();
        lines
            .map(|line| {
                let reported = text(&line["reported"]["cost_usd"]);
                (
                    text(&line["name"]),
                    line["calls"].as_u64().expect("calls"),
                    text(&line["cost_usd"]),
                    reported,
                    line["cost_usd_per_run"].clone(),
                )
            })
            .collect()
    };
    let line = |name: &str, calls, cost: &str, reported: &str, each: &str| {
        (name.to_owned(), calls, cost.to_owned(), reported.to_owned(), json!(each))
    };
    assert_eq!(lines("workflow"), [line("pay", 4, "1", "1", "1"), line("scan", 1, "0.25", "0.5", "0.75")]);
    assert_eq!(lines("outcome"), [line("paid", 4, "1", "1", "1"), line("nothing found", 1, "0.25", "0.5", "0.75")]);
    let first = runs.first().and_then(Value::as_str).expect("a run");
    assert_eq!(lines("run")[0], line(first, 3, "0.75", "0.5", "1.25"));
    assert!(lines("tool").contains(&(
        "text-stats".to_owned(),
        5,
        "1.25".to_owned(),
        "0".to_owned(),
        json!("0.416666")
    )));
    assert_eq!((lines("user").len(), lines("day").len()), (1, 1));
    for wrong in [json!({"by": "planet"}), json!({"by": "run", "days": 0}), json!({"by": "run", "days": 99_999})] {
        assert_eq!(admin.no("budgets.spend", wrong.clone())["code"], "invalid_input", "{wrong}");
    }
}

#[test]
fn r28_a_spike_is_told_and_pauses_its_workflow_until_it_is_resumed() {
    let mut world = World::of(Plot {
        limits: "[spike]\nwindow_s = 86400\nbaseline = 2\nfactor = 2\ncalls = 3\npause = true\n\
                 [channel.ops]\nkind = \"file\"\npath = \"alerts.jsonl\"\n[[notify]]\nchannels = [\"ops\"]\n",
        ..Plot::default()
    });
    let mut agent = world.agent();
    let open = |agent: &mut Agent, workflow: &str| agent.ok("runs.open", json!({"workflow": workflow}))["run"].clone();
    let (run, other) = (open(&mut agent, "pay"), open(&mut agent, "scan"));
    for n in 0..7 {
        call(&mut agent, Some(&run), &n.to_string()).must("ok", "none", "");
    }
    until("spending is paused", || call(&mut agent, Some(&run), "more").ended().2 == "budget_exceeded");
    let paused = call(&mut agent, Some(&run), "more");
    assert!(paused.text("/error/message").contains("paused"), "{}", paused.value);
    call(&mut agent, Some(&other), "x").must("ok", "none", "");
    call(&mut agent, None, "x").must("ok", "none", "");
    let alerts = world.path("alerts.jsonl");
    let told = || std::fs::read_to_string(&alerts).unwrap_or_default();
    until("the alert is written", || told().contains("budget.spike"));
    world.restart();
    let (mut agent, mut admin) = (world.agent(), world.admin());
    call(&mut agent, Some(&run), "still").must("denied", "none", "budget_exceeded");
    assert_eq!(admin.ok("budgets.show", json!({}))["paused"][0]["workflow"], "pay");
    admin.ok("budgets.resume", json!({"workflow": "pay"}));
    assert_eq!(admin.no("budgets.resume", json!({"workflow": "pay"}))["code"], "not_found");
    call(&mut agent, Some(&run), "again").must("ok", "none", "");
    // What an operator resumed is not told and paused again in its window, although the daemon was started since: the look
    // that finds another spike finds this one too.
    let before = told().matches("budget.spike").count();
    for n in 0..7 {
        call(&mut agent, Some(&other), &n.to_string());
    }
    until("the other is paused", || call(&mut agent, Some(&other), "more").ended().2 == "budget_exceeded");
    call(&mut agent, Some(&run), "still").must("ok", "none", "");
    assert_eq!(admin.ok("budgets.show", json!({}))["paused"].as_array().map(Vec::len), Some(1));
    until("the second alert is written", || told().matches("budget.spike").count() > before);
    // What a killed daemon had written and not noted yet is written again, under the same id.
    let all = told();
    let of_pay = all.lines().filter(|line| line.contains("budget.spike") && line.contains("\"pay\""));
    let ids = of_pay.map(|line| serde_json::from_str::<Value>(line).expect("JSON")["id"].to_string());
    assert_eq!(ids.collect::<std::collections::BTreeSet<_>>().len(), 1, "{all}");
}

#[test]
fn r28_what_was_spent_before_a_restart_is_looked_at_after_it_without_another_call() {
    let mut world = World::new();
    let mut agent = world.agent();
    let run = agent.ok("runs.open", json!({"workflow": "pay"}))["run"].clone();
    for n in 0..7 {
        call(&mut agent, Some(&run), &n.to_string()).must("ok", "none", "");
    }
    assert!(world.stop().success());
    // Nobody was looking until now.
    let spike = "[spike]\nwindow_s = 86400\nbaseline = 2\nfactor = 2\ncalls = 3\npause = true\n";
    let config = world.text("toolkeep.toml") + spike;
    world.home.put("toolkeep.toml", config.as_bytes());
    world.start();
    let mut admin = world.admin();
    until("spending is paused", || admin.ok("budgets.show", json!({}))["paused"][0]["workflow"] == "pay");
    call(&mut world.agent(), Some(&run), "more").must("denied", "none", "budget_exceeded");
}
