//! Alerts through the daemon: one for each fact, told once, until somebody has seen it.

use serde_json::{Value, json};

use super::world::{Plot, World};
use crate::doors::running::until;

const CHANNEL: &str = "[channel.ops]\nkind = \"file\"\npath = \"told.jsonl\"\n";

fn world(more: &str) -> World {
    World::of(Plot { limits: Box::leak(format!("{CHANNEL}{more}").into_boxed_str()), ..Plot::default() })
}

fn told(world: &World) -> Vec<Value> {
    let text = std::fs::read_to_string(world.path("told.jsonl")).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn alerts(world: &World, all: bool) -> Vec<Value> {
    let listed = world.admin().ok("alerts.list", json!({"all": all}))["alerts"].take();
    listed.as_array().cloned().unwrap_or_default()
}

/// Test a boundary, and wait until it was counted so often.
fn breach(world: &World, count: u64) -> Value {
    world.agent().execute("path-escape", json!({}));
    let mut found = Value::Null;
    until("the breach is counted", || {
        found = alerts(world, true).into_iter().next().unwrap_or_default();
        found["count"] == json!(count)
    });
    found
}

#[test]
fn r43_what_happens_again_is_counted_and_told_once_until_somebody_has_seen_it() {
    let mut world = world("[alerts]\nchannels = [\"ops\"]\n[[notify]]\nchannels = [\"ops\"]\n");
    let alert = breach(&world, 1);
    assert_eq!(
        (&alert["event"], &alert["severity"], &alert["state"]),
        (&json!("boundary.breach"), &json!("warning"), &json!("open"))
    );
    assert_eq!(alert["subject"], "tool path-escape, agent local");
    breach(&world, 2);
    world.restart();
    let again = breach(&world, 3);
    assert_eq!(again["id"], alert["id"], "a restart forgets nothing");
    until("it is told", || !told(&world).is_empty());
    let lines = told(&world);
    assert_eq!(lines.len(), 1, "by one way once, although two sections name it: {lines:?}");
    assert_eq!((&lines[0]["type"], &lines[0]["data"]["alert"]["id"]), (&json!("boundary.breach"), &alert["id"]));
    assert_eq!(lines[0]["data"]["tenant"], "local");

    let mut admin = world.admin();
    let shown = admin.ok("alerts.show", json!({"alert": alert["id"]}));
    assert_eq!((&shown["detail"]["tool"], &shown["acked_by"]), (&json!("path-escape"), &Value::Null), "{shown}");
    let id = alert["id"].as_str().expect("an id");
    let acked = world.cli(&["alerts", "ack", id, "--note", "looked at"]);
    assert!(acked.status.success(), "{acked:?}");
    assert_eq!(admin.no("alerts.ack", json!({"alert": id}))["code"], "not_found", "it was seen once");
    assert!(alerts(&world, false).is_empty());
    let shown = admin.ok("alerts.show", json!({"alert": id}));
    assert_eq!(
        (&shown["state"], &shown["note"], &shown["acked_by"]),
        (&json!("acked"), &json!("looked at"), &json!("operator"))
    );

    let new = breach(&world, 1);
    assert_ne!(new["id"], alert["id"], "it happens again after it was seen");
    until("it is told again", || told(&world).len() == 2);
    let listed = world.cli(&["alerts", "list"]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains("path-escape"), "{listed:?}");
    world.verified();
}

#[test]
fn r43_rules_say_how_often_how_much_and_whether() {
    let world = world(
        "[alerts]\nchannels = [\"ops\"]\n[[alerts.rule]]\non = [\"boundary.breach\"]\nthreshold = 3\nseverity = \"critical\"\n\
         [[alerts.rule]]\non = [\"kill.changed\"]\nenabled = false\n",
    );
    assert_eq!(breach(&world, 1)["state"], "counting");
    assert_eq!(breach(&world, 2)["state"], "counting");
    assert!(alerts(&world, false).is_empty() && told(&world).is_empty());
    let alert = breach(&world, 3);
    assert_eq!((&alert["state"], &alert["severity"]), (&json!("open"), &json!("critical")));
    until("it is told", || !told(&world).is_empty());
    assert_eq!(told(&world)[0]["data"]["alert"]["count"], 3);
    let kill = json!({"level": "tool", "name": "trap", "mode": "stop", "reason": "x"});
    world.admin().ok("kill.set", kill);
    breach(&world, 4);
    assert_eq!((alerts(&world, true).len(), told(&world).len()), (1, 1), "of a switch none is wanted");
}

#[test]
fn r43_each_kind_of_trouble_raises_its_own_alert_and_news_none() {
    let world = world("[[alerts.rule]]\non = [\"delivery.dead\"]\nthreshold = 1\n[breaker]\nfailures = 1\n");
    let (mut agent, mut admin) = (world.agent(), world.admin());
    agent.execute("notes2.add", json!({"title": "held", "body": "b"})).must("held", "pending", "approval_required");
    agent.execute("trap", json!({})).must("failed", "none", "tool_trapped");
    agent.execute("read-only-writer", json!({}));
    admin.ok("kill.set", json!({"level": "tool", "name": "spin", "mode": "stop", "reason": "x"}));
    admin.ok("kill.clear", json!({"level": "tool", "name": "spin", "reason": "y"}));
    let run = agent.ok("runs.open", json!({"budget": {"calls": 0}}))["run"].take();
    agent.reply("calls.execute", json!({"tool": "text-stats", "input": {"text": "a"}, "run": run}));
    let mut events: Vec<String> = Vec::new();
    until("all are raised", || {
        events = alerts(&world, false).iter().filter_map(|a| a["event"].as_str().map(str::to_owned)).collect();
        events.len() >= 4
    });
    events.sort();
    assert_eq!(events, ["boundary.breach", "breaker.opened", "budget.exceeded", "kill.changed"]);
}

#[test]
fn r43_what_is_counted_first_is_news_meanwhile() {
    let world = world(
        "[alerts]\nchannels = [\"ops\"]\n[[alerts.rule]]\non = [\"boundary.breach\"]\nthreshold = 2\n\
         [[notify]]\nevents = [\"boundary.breach\"]\nchannels = [\"ops\"]\n",
    );
    let alerts = |told: &[Value]| told.iter().filter(|line| !line["data"]["alert"].is_null()).count();
    breach(&world, 1);
    until("it is told as news", || told(&world).len() == 1);
    assert_eq!(alerts(&told(&world)), 0);
    breach(&world, 2);
    until("it is told as both", || told(&world).len() == 3);
    assert_eq!(alerts(&told(&world)), 1);
}

#[test]
fn r43_a_switch_that_is_set_harder_or_again_is_told_again() {
    let world = world("[alerts]\nchannels = [\"ops\"]\n");
    let mut admin = world.admin();
    for (count, mode) in [(1, "read-only"), (2, "stop"), (3, "stop")] {
        admin.ok("kill.set", json!({"level": "tool", "name": "spin", "mode": mode, "reason": "x"}));
        until("it is told", || told(&world).len() == count);
    }
}
