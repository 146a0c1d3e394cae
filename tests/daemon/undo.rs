//! Undo gives the bytes back, or refuses and changes nothing.

use serde_json::{Value, json};

use super::world::{Agent, Reply, World};

fn rename(agent: &mut Agent) -> Reply {
    agent.execute("rename-symbol", json!({"from": "old_name", "to": "new_name"})).must("ok", "committed", "")
}

fn propose(agent: &mut Agent, call: &str) -> Reply {
    agent.reply("undo.propose", json!({"call": call})).must("ok", "previewed", "")
}

#[test]
fn r09_an_agent_takes_its_call_back_byte_for_byte_and_undoes_the_undo() {
    let world = World::new();
    let mut agent = world.agent();
    let before = world.snapshot();
    let done = rename(&mut agent);
    let after = world.snapshot();
    let back = propose(&mut agent, done.call());
    assert_eq!(world.snapshot(), after, "a proposal changes nothing");
    let undone = agent.commit(back.plan()).must("ok", "committed", "");
    assert_eq!(world.snapshot(), before);
    assert_eq!(agent.no("undo.propose", json!({"call": done.call()}))["code"], "denied", "once");
    let forth = propose(&mut agent, undone.call());
    agent.commit(forth.plan()).must("ok", "committed", "");
    assert_eq!(world.snapshot(), after, "an undo is a commit like any other");
    world.verified();
}

#[test]
fn r09_undo_refuses_when_somebody_changed_a_target_since() {
    let world = World::new();
    let (mut agent, mut admin) = (world.agent(), world.admin());
    let done = rename(&mut agent);
    let early = propose(&mut agent, done.call());
    world.home.put("src/total.py", b"edited by hand\n");
    let edited = world.snapshot();
    agent.commit(early.plan()).must("failed", "discarded", "stale_plan");
    assert_eq!(agent.no("undo.propose", json!({"call": done.call()}))["code"], "stale_plan");
    assert_eq!(admin.no("undo.call", json!({"call": done.call()}))["code"], "stale_plan");
    std::fs::remove_file(world.path("src/shop/new_name.py")).expect("file");
    assert_eq!(admin.no("undo.call", json!({"call": done.call()}))["code"], "stale_plan");
    world.home.put("src/shop/new_name.py", b"# new_name lives here\n");
    assert_eq!(world.snapshot(), edited);
}

#[test]
fn r09_an_operator_looks_first_and_takes_back_at_once_but_only_once() {
    let world = World::new();
    let (mut agent, mut admin) = (world.agent(), world.admin());
    let before = world.snapshot();
    let done = rename(&mut agent);
    let after = world.snapshot();
    admin.reply("undo.call", json!({"call": done.call(), "preview": true})).must("ok", "previewed", "");
    assert_eq!(world.snapshot(), after);
    let undone = admin.reply("undo.call", json!({"call": done.call()})).must("ok", "committed", "");
    assert_eq!(world.snapshot(), before);
    assert_eq!(admin.no("undo.call", json!({"call": done.call()}))["code"], "denied");
    let receipt = undone.value["receipt"].clone();
    assert_eq!(agent.ok("receipts.verify", json!({"receipt": receipt}))["valid"], true);
    world.verified();
}

#[test]
fn r09_of_two_reversals_of_one_call_one_is_committed() {
    let world = World::new();
    let mut agent = world.agent();
    let before = world.snapshot();
    let done = rename(&mut agent);
    let (one, two) = (propose(&mut agent, done.call()), propose(&mut agent, done.call()));
    agent.commit(one.plan()).must("ok", "committed", "");
    let late = agent.commit(two.plan());
    assert!(["stale_plan", "denied"].contains(&late.text("/error/code")), "{}", late.value);
    assert_eq!(world.snapshot(), before);
}

#[test]
fn r09_a_run_is_taken_back_call_by_call_from_its_end() {
    let world = World::new();
    let mut agent = world.agent();
    let run = agent.ok("runs.open", json!({"label": "two notes"}))["run"].clone();
    let before = world.snapshot();
    let mut steps = vec![before];
    for title in ["First", "Second"] {
        let call = json!({"tool": "notes.add", "input": {"title": title, "body": "b"}, "run": run});
        agent.reply("calls.execute", call).must("ok", "committed", "");
        steps.push(world.snapshot());
    }
    for wanted in steps.iter().rev().skip(1) {
        let back = agent.reply("undo.propose", json!({"run": run})).must("ok", "previewed", "");
        agent.commit(back.plan()).must("ok", "committed", "");
        assert_eq!(&world.snapshot(), wanted);
    }
    assert_eq!(agent.no("undo.propose", json!({"run": run}))["code"], "not_found");
}

#[test]
fn r09_what_committed_nothing_cannot_be_undone() {
    let world = World::new();
    let mut agent = world.agent();
    let nothing = agent.execute("text-stats", json!({"text": "a"})).must("ok", "none", "");
    let shown = agent.preview("notes.add", json!({"title": "Shown", "body": "b"}));
    let unknown = "call_00000000-0000-7000-8000-000000000000";
    let answers: Vec<Value> = [nothing.call(), shown.call(), unknown]
        .iter()
        .map(|call| agent.no("undo.propose", json!({"call": call})))
        .collect();
    for answer in &answers {
        assert_eq!(answer, &answers[2], "one answer for all of them");
    }
    assert_eq!(answers[2]["code"], "not_found");
}

#[test]
fn r09_an_undo_survives_a_kill_of_the_daemon() {
    let mut world = World::new();
    let before = world.snapshot();
    let done = rename(&mut world.agent());
    world.restart();
    let back = propose(&mut world.agent(), done.call());
    // A preview is not flushed, so only a stop in order has to keep it.
    assert!(world.stop().success());
    world.start();
    world.agent().commit(back.plan()).must("ok", "committed", "");
    assert_eq!(world.snapshot(), before);
    world.verified();
}

#[test]
fn r23_to_take_back_what_people_agreed_to_takes_people() {
    let world = World::new();
    let (mut agent, mut admin) = (world.agent(), world.admin());
    let before = world.snapshot();
    let held = agent.execute("notes2.add", json!({"title": "Agreed", "body": "b"}));
    let held = held.must("held", "pending", "approval_required");
    super::approvals::approve(&mut admin, held.approval());
    let after = world.snapshot();
    assert_ne!(after, before);
    let back = propose(&mut agent, held.call());
    let waits = agent.commit(back.plan()).must("held", "pending", "approval_required");
    assert_eq!(world.snapshot(), after, "an agent alone does not take it back");
    super::approvals::approve(&mut admin, waits.approval());
    assert_eq!(world.snapshot(), before);
}
