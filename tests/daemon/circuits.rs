//! Circuit breakers through the daemon: tools that fail, grants whose other side fails, and operators who decide.

use serde_json::{Value, json};

use super::requests::Trade;
use super::scenery::manifest;
use super::service::Manner;
use super::world::{Agent, Plot, Reply, World};
use crate::doors::running::until;

/// A world where `trap` rests after three failures.
fn trapping(open_s: u64) -> World {
    let mut world = World::asleep(Plot::default());
    let rest = format!("tier = 1\n[breaker]\nfailures = 3\nwindow_s = 86400\nopen_s = {open_s}\n");
    let rest: &'static str = Box::leak(rest.into_boxed_str());
    manifest(&world, ("trap", "trap", rest));
    world.start();
    world
}

fn trap(agent: &mut Agent) -> Reply {
    agent.execute("trap", json!({}))
}

#[track_caller]
fn open(reply: Reply) -> Reply {
    assert_eq!((reply.text("/status"), reply.text("/error/code")), ("denied", "circuit_open"), "{}", reply.value);
    assert!(reply.value["error"]["retry_after_ms"].as_u64().is_some_and(|wait| wait > 0), "{}", reply.value);
    reply
}

fn listed(world: &World) -> Value {
    world.admin().ok("breakers.list", json!({}))["breakers"].take()
}

#[test]
fn r30_a_tool_that_fails_n_times_rests_and_others_go_on() {
    let mut world = trapping(3_600);
    let mut agent = world.agent();
    for _ in 0..3 {
        trap(&mut agent).must("failed", "none", "tool_trapped");
    }
    open(trap(&mut agent));
    open(trap(&mut world.agent()));
    agent.execute("text-stats", json!({"text": "a"})).must("ok", "none", "");
    let list = listed(&world);
    assert_eq!((&list[0]["tool"], &list[0]["state"]), (&json!("trap"), &json!("open")), "{list}");
    world.admin().ok("breakers.close", json!({"tool": "trap"}));
    assert_eq!(listed(&world), json!([]));
    for _ in 0..3 {
        trap(&mut agent).must("failed", "none", "tool_trapped");
    }
    open(trap(&mut agent));
    world.restart();
    trap(&mut world.agent()).must("failed", "none", "tool_trapped");
    world.verified();
}

#[test]
fn r30_after_its_rest_one_probe_is_let_through_and_opens_it_again() {
    let world = trapping(1);
    let mut agent = world.agent();
    for _ in 0..3 {
        trap(&mut agent).must("failed", "none", "tool_trapped");
    }
    open(trap(&mut agent));
    until("its rest is over", || trap(&mut agent).text("/error/code") == "tool_trapped");
    open(trap(&mut agent));
}

#[test]
fn r30_what_a_tool_answers_with_good_reason_is_no_failure() {
    let world = World::of(Plot { daemon: "[breaker]\nfailures = 2", limits: "" });
    let mut agent = world.agent();
    let note = json!({"title": "Twice", "body": "b"});
    agent.execute("notes.add", note.clone()).must("ok", "committed", "");
    for _ in 0..5 {
        let refused = agent.execute("notes.add", note.clone());
        assert_eq!(refused.text("/error/code"), "tool_failed", "{}", refused.value);
        agent.execute("notes.add", json!({})).must("failed", "none", "invalid_input");
    }
    assert_eq!(listed(&world), json!([]));
}

#[test]
fn r30_an_operator_holds_a_circuit_open_and_closes_it() {
    let world = World::new();
    let mut agent = world.agent();
    let keyed = json!({"tool": "notes.add", "input": {"title": "Kept", "body": "b"}, "idempotency_key": "k"});
    agent.reply("calls.execute", keyed.clone()).must("ok", "committed", "");
    let mut admin = world.admin();
    let told = admin.ok("breakers.open", json!({"tool": "notes.add"}));
    assert_eq!((&told["state"], &told["was"]), (&json!("open"), &json!("closed")));
    let refused = open(agent.execute("notes.add", json!({"title": "No", "body": "b"})));
    assert!(refused.text("/error/message").contains("operator"), "{}", refused.value);
    let again = agent.reply("calls.execute", keyed).must("ok", "committed", "");
    assert!(again.replayed, "what ended is told even while the tool rests");
    let held = json!({"tool": "notes.add", "input": {"title": "No", "body": "b"}, "idempotency_key": "n"});
    open(agent.reply("calls.execute", held.clone()));
    agent.execute("notes.list", json!({})).must("ok", "none", "");
    admin.ok("breakers.close", json!({"tool": "notes.add"}));
    let done = agent.reply("calls.execute", held).must("ok", "committed", "");
    assert!(!done.replayed, "a refusal of the circuit keeps no key");
    assert_eq!(admin.no("breakers.open", json!({"tool": "nowhere"}))["code"], "not_found");
    for wrong in [json!({}), json!({"grant": "g"}), json!({"tool": "notes.add", "grant": "g", "origin": "o"})] {
        assert_eq!(admin.no("breakers.open", wrong)["code"], "invalid_input");
    }
    let output = world.cli(&["breakers", "open", "--tool", "text-stats"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(world.cli(&["call", "text-stats", "--input", "{\"text\":\"a\"}"]).status.code(), Some(7));
    let shown = world.cli(&["breakers", "list"]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("text-stats"), "{shown:?}");
    assert!(world.cli(&["breakers", "close", "--tool", "text-stats"]).status.success());
    assert!(world.cli(&["call", "text-stats", "--input", "{\"text\":\"a\"}"]).status.success());
    world.verified();
}

#[test]
fn r30_a_grant_whose_other_side_fails_rests_and_its_plans_wait_unsent() {
    let trade = Trade::with("solo = true\n[breaker]\nfailures = 2\nopen_s = 86400");
    trade.service.meets("/comments", Manner::Breaks);
    let mut agent = trade.agent();
    let held: Vec<Reply> =
        (0..3).map(|n| agent.execute("ticket.comment", trade.comment(&format!("No. {n}")))).collect();
    for reply in &held[..2] {
        assert_eq!(trade.agree(reply)["error"]["code"], "unknown_outcome", "the service broke while it answered");
    }
    let third = trade.agree(&held[2]);
    assert_eq!(third["error"]["code"], "circuit_open", "{third}");
    assert_eq!(trade.service.asked().len(), 2, "the third was not sent");
    let list = listed(&trade.world);
    assert_eq!((&list[0]["grant"], &list[0]["state"]), (&json!("tracker"), &json!("open")), "{list}");
    trade.service.meets("/comments", Manner::Does);
    let closing = json!({"grant": "tracker", "origin": trade.service.origin()});
    trade.world.admin().ok("breakers.close", closing);
    assert_eq!(trade.agree(&held[2])["outcome"], "committed", "the plan waited; nobody has to agree again");
    assert_eq!(trade.service.asked().len(), 3);
    trade.world.verified();
}
