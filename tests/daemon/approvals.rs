//! Plans that wait for people: who may answer, what the agent hears, and that the answer is used once.

use std::path::Path;
use std::thread;

use serde_json::{Value, json};

use super::world::{Agent, Plot, Reply, World};
use crate::doors::running::until;

/// A held rename.
pub(super) fn held(agent: &mut Agent) -> Reply {
    agent.execute("held-rename", json!({"from": "old_name", "to": "new_name"})).must(
        "held",
        "pending",
        "approval_required",
    )
}

pub(super) fn approve(admin: &mut Agent, approval: &str) -> Value {
    admin.ok("approvals.approve", json!({"approval": approval, "reason": "looks right"}))
}

#[test]
fn r22_a_held_plan_changes_nothing_until_it_is_approved_and_then_is_not_executed_again() {
    let world = World::new();
    let (mut agent, mut admin) = (world.agent(), world.admin());
    let before = world.snapshot();
    let reply = held(&mut agent);
    assert_eq!(world.snapshot(), before);
    assert_eq!(agent.commit(reply.plan()).text("/error/code"), "approval_required", "its owner cannot release it");
    assert_eq!(world.snapshot(), before);
    let shown = admin.ok("approvals.show", json!({"approval": reply.approval()}));
    assert_eq!(shown["plan"]["digest"], reply.digest());
    assert_eq!(shown["input"]["from"], "old_name");
    let listed = admin.ok("approvals.list", json!({}));
    assert_eq!(listed["approvals"].as_array().map(Vec::len), Some(1));
    let done = approve(&mut admin, reply.approval());
    assert_eq!((&done["state"], &done["reply"]["outcome"]), (&json!("approved"), &json!("committed")), "{done}");
    assert_eq!(done["reply"]["output"], reply.value["output"]);
    assert_eq!(done["reply"]["usage"]["fuel"], reply.value["usage"]["fuel"], "it did not run again");
    assert!(world.path("src/shop/new_name.py").exists() && !world.path("src/shop/old_name.py").exists());
    let told = agent.reply("approvals.wait", json!({"approval": reply.approval(), "timeout_ms": 10}));
    assert_eq!(told.value, done["reply"]);
    let again = admin.no("approvals.approve", json!({"approval": reply.approval()}));
    assert_eq!(again["code"], "stale_plan", "{again}");
    assert_eq!(admin.ok("approvals.list", json!({}))["approvals"], json!([]));
    world.verified();
}

#[test]
fn r22_an_agent_that_waits_is_woken_with_the_final_reply() {
    let world = World::new();
    let (mut agent, mut admin) = (world.agent(), world.admin());
    let reply = held(&mut agent);
    let none = agent.reply("approvals.wait", json!({"approval": reply.approval(), "timeout_ms": 1}));
    assert_eq!(none.ended(), ("held", "pending", "approval_required"));
    let approval = reply.approval().to_owned();
    let waiting =
        thread::spawn(move || agent.reply("approvals.wait", json!({"approval": approval, "timeout_ms": 600_000})));
    approve(&mut admin, reply.approval());
    let told = waiting.join().expect("the waiting agent").must("ok", "committed", "");
    assert!(told.value["receipt"].is_object());
}

#[test]
fn r22_a_rejection_reaches_the_agent_with_its_reason_and_is_final() {
    let world = World::new();
    let (mut agent, mut admin) = (world.agent(), world.admin());
    let before = world.snapshot();
    let reply = held(&mut agent);
    let rejected = json!({"approval": reply.approval(), "reason": "wrong \u{202e}quarter"});
    assert_eq!(admin.ok("approvals.reject", rejected)["state"], "rejected");
    let told = agent.reply("approvals.wait", json!({"approval": reply.approval()}));
    let told = told.must("denied", "discarded", "approval_rejected");
    assert!(told.text("/error/message").contains("quarter"), "{}", told.value);
    assert_eq!(agent.reply("calls.get", json!({"call": reply.call()})).value, told.value);
    let after = admin.no("approvals.approve", json!({"approval": reply.approval()}));
    assert_eq!(after["code"], "approval_rejected", "{after}");
    assert_eq!(agent.commit(reply.plan()).text("/error/code"), "stale_plan");
    assert_eq!(world.snapshot(), before);
}

#[test]
fn r22_what_nobody_approves_in_time_expires() {
    let world = World::of(Plot { limits: "approval_ttl_s = 1", ..Plot::default() });
    let (mut agent, mut admin) = (world.agent(), world.admin());
    let before = world.snapshot();
    let reply = held(&mut agent);
    let told = agent.reply("approvals.wait", json!({"approval": reply.approval(), "timeout_ms": 600_000}));
    told.must("denied", "discarded", "approval_expired");
    let late = admin.no("approvals.approve", json!({"approval": reply.approval()}));
    assert_eq!(late["code"], "approval_expired", "{late}");
    assert_eq!(world.snapshot(), before);
    assert_eq!(agent.ok("approvals.get", json!({"approval": reply.approval()}))["state"], "expired");
}

#[test]
fn r38_an_approved_plan_whose_world_moved_on_changes_nothing() {
    let world = World::new();
    let (mut agent, mut admin) = (world.agent(), world.admin());
    let reply = held(&mut agent);
    world.home.put("src/total.py", b"def old_name(): pass  # edited\n");
    let before = world.snapshot();
    let done = approve(&mut admin, reply.approval());
    assert_eq!(done["reply"]["error"]["code"], "stale_plan", "{done}");
    assert_eq!(world.snapshot(), before);
    let told = agent.reply("approvals.wait", json!({"approval": reply.approval()}));
    told.must("failed", "discarded", "stale_plan");
}

#[test]
fn r21_tier_2_waits_for_one_person_also_when_it_was_previewed_first() {
    let world = World::new();
    let (mut agent, mut admin) = (world.agent(), world.admin());
    let shown = agent.preview("notes2.add", json!({"title": "Two", "body": "b"})).must("ok", "previewed", "");
    let reply = agent.commit(shown.plan()).must("held", "pending", "approval_required");
    assert_eq!(reply.value["approval"]["approvers"], 1);
    assert_eq!(agent.commit(shown.plan()).text("/error/code"), "approval_required");
    assert!(!world.path("notes/two.md").exists());
    let done = approve(&mut admin, reply.approval());
    assert_eq!(done["reply"]["outcome"], "committed", "{done}");
    assert!(world.path("notes/two.md").exists());
}

#[test]
fn r21_tier_3_alone_takes_solo_and_the_digest_typed() {
    let world = World::of(Plot { daemon: "solo = true", ..Plot::default() });
    let (mut agent, mut admin) = (world.agent(), world.admin());
    let reply = agent.execute("notes3.add", json!({"title": "Three", "body": "b"}));
    let reply = reply.must("held", "pending", "approval_required");
    let digest = &reply.digest()[..12];
    let wrong = "0".repeat(12);
    for confirm in [None, Some(""), Some(wrong.as_str()), Some(&digest[..11])] {
        let mut asked = json!({"approval": reply.approval()});
        if let Some(confirm) = confirm {
            asked["confirm"] = json!(confirm);
        }
        assert_eq!(admin.no("approvals.approve", asked)["code"], "denied", "{confirm:?}");
        assert!(!world.path("notes/three.md").exists());
    }
    let done = admin.ok("approvals.approve", json!({"approval": reply.approval(), "confirm": digest}));
    assert_eq!(done["reply"]["outcome"], "committed", "{done}");
    assert!(world.path("notes/three.md").exists());
}

#[test]
fn r21_a_read_only_tool_that_writes_is_stopped_and_on_record() {
    let world = World::new();
    let before = world.snapshot();
    let mut agent = world.agent();
    for tool in ["read-only-writer", "narrowed"] {
        let reply = agent.execute(tool, json!({})).must("failed", "none", "tool_failed");
        assert!(reply.value["warnings"].to_string().contains("does not allow"), "{}", reply.value);
        assert_eq!(world.snapshot(), before);
    }
    until("the breach is logged", || world.log().contains("boundaries were tested"));
    world.verified();
    assert!(audit(&world).contains("breach"), "the audit names it");
}

#[test]
fn r21_an_effect_above_the_declared_tier_is_denied_and_on_record() {
    let world = World::asleep(Plot::default());
    let grant =
        "tier = 1\n[[workspace]]\nname = \"src\"\naccess = \"write\"\nsensitive = [\"automation\", \"credentials\"]\n";
    super::scenery::manifest(&world, ("sneaky", "rename-symbol", grant));
    world.home.put("src/.github/workflows/ci.yml", b"run: old_name\n");
    let mut world = world;
    world.start();
    let before = world.snapshot();
    let mut agent = world.agent();
    let reply = agent.execute("sneaky", json!({"from": "old_name", "to": "new_name"}));
    let reply = reply.must("denied", "discarded", "denied");
    assert!(reply.text("/error/message").contains("tier 2"), "{}", reply.value);
    assert_eq!(world.snapshot(), before);
    let preview = agent.preview("sneaky", json!({"from": "old_name", "to": "new_name"}));
    preview.must("denied", "discarded", "denied");
    world.verified();
    assert!(audit(&world).contains("breach"));
}

#[test]
fn r22_a_held_plan_survives_a_kill_and_is_then_approved() {
    let mut world = World::new();
    let reply = held(&mut world.agent());
    let before = world.snapshot();
    world.restart();
    assert_eq!(world.snapshot(), before);
    let (mut agent, mut admin) = (world.agent(), world.admin());
    assert_eq!(agent.reply("calls.get", json!({"call": reply.call()})).value, reply.value);
    let done = approve(&mut admin, reply.approval());
    assert_eq!(done["reply"]["outcome"], "committed", "{done}");
    assert!(world.path("src/shop/new_name.py").exists());
    world.verified();
}

#[test]
fn r38_one_of_many_answers_to_one_plan_wins() {
    let world = World::new();
    let (mut agent, _) = (world.agent(), ());
    for round in 0..6 {
        let title = format!("Race {round}");
        let reply = agent.execute("notes2.add", json!({"title": title, "body": "b"}));
        let reply = reply.must("held", "pending", "approval_required");
        let answers: Vec<&str> = thread::scope(|scope| {
            let racers: Vec<_> = (0..16)
                .map(|number| {
                    let (world, reply) = (&world, &reply);
                    scope.spawn(move || race(world, reply, number))
                })
                .collect();
            racers.into_iter().map(|racer| racer.join().expect("a racer")).collect()
        });
        let won: Vec<_> = answers.iter().filter(|answer| !answer.is_empty()).collect();
        assert_eq!(won.len(), 1, "{answers:?}");
        let exists = world.path(&format!("notes/race-{round}.md")).exists();
        let state = agent.ok("plans.get", json!({"plan": reply.plan()}))["state"].clone();
        assert_eq!((exists, state), (*won[0] == "approved", json!(if exists { "committed" } else { "discarded" })));
    }
    world.verified();
}

/// One answer of the kind that the number says; what it did, or nothing if another was first.
fn race(world: &World, reply: &Reply, number: usize) -> &'static str {
    match number % 4 {
        0 | 1 => {
            let mut admin = world.admin();
            let answer = admin.raw("approvals.approve", json!({"approval": reply.approval()})).expect("an answer");
            let committed = answer.pointer("/result/reply/outcome") == Some(&json!("committed"));
            if committed { "approved" } else { "" }
        }
        2 => {
            let answer = world.admin().raw("approvals.reject", json!({"approval": reply.approval(), "reason": "no"}));
            if answer.expect("an answer").get("result").is_some() { "rejected" } else { "" }
        }
        _ => {
            let mut agent = world.agent();
            let answer = agent.raw("plans.discard", json!({"plan": reply.plan()})).expect("an answer");
            if answer.get("result").is_some() { "discarded" } else { "" }
        }
    }
}

/// The bytes of the ledger, where the words of audit entries can be found.
pub(super) fn audit(world: &World) -> String {
    let read = |path: &Path| std::fs::read(path).unwrap_or_default();
    let mut bytes = Vec::new();
    for entry in std::fs::read_dir(world.path("state/ledger")).expect("ledger") {
        bytes.extend(read(&entry.expect("entry").path()));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn t_p8_one_person_agrees_to_so_many_plans_an_hour_and_may_always_refuse() {
    let config = "[oversight]\napprovals_per_hour = 2\n";
    let mut world = World::of(Plot { daemon: "", limits: config });
    let (mut agent, mut admin) = (world.agent(), world.admin());
    let mut waits = |title: &str| {
        let reply = agent.execute("notes2.add", json!({"title": title, "body": "b"}));
        reply.must("held", "pending", "approval_required").approval().to_owned()
    };
    let (one, two, three, four) = (waits("One"), waits("Two"), waits("Three"), waits("Four"));
    assert_eq!(approve(&mut admin, &one)["state"], "approved");
    assert_eq!(approve(&mut admin, &two)["state"], "approved");
    for _ in 0..2 {
        let no = world.admin().no("approvals.approve", json!({"approval": three, "reason": "looks right"}));
        assert_eq!(no["code"], "rate_limited", "{no}");
        assert!(no["retry_after_ms"].as_u64().is_some_and(|wait| (1..=3_600_000).contains(&wait)), "{no}");
        assert!(no["hint"].as_str().is_some_and(|hint| hint.contains("standing make")), "{no}");
        // What was agreed to is on record: a restart forgets nothing of it.
        world.verified();
        world.restart();
    }
    let rejected = world.admin().ok("approvals.reject", json!({"approval": four, "reason": "not now"}));
    assert_eq!(rejected["state"], "rejected", "saying no is never bounded");
    assert_eq!(world.agent().ok("approvals.get", json!({"approval": three}))["state"], "pending");
    world.verified();
}

#[test]
fn t_p8_somebody_who_agrees_faster_than_anybody_reads_is_told_so_and_so_are_operators() {
    let config = "[oversight]\nhasty_s = 600\nhasty_in_a_row = 2\n\
                  [channel.ops]\nkind = \"file\"\npath = \"alerts.jsonl\"\n\
                  [[notify]]\nevents = [\"approval.hasty\"]\nchannels = [\"ops\"]\n";
    let world = World::of(Plot { daemon: "", limits: config });
    let (mut agent, mut admin) = (world.agent(), world.admin());
    let mut warned = Vec::new();
    for number in 0..5 {
        let reply = agent.execute("notes2.add", json!({"title": format!("Note {number}"), "body": "b"}));
        let done = approve(&mut admin, reply.approval());
        assert_eq!(done["reply"]["outcome"], "committed", "a warning stops nothing: {done}");
        warned.push(done["warning"].is_string());
    }
    // The first is never hasty, and the third makes a row of two, which is told of once however long it becomes.
    assert_eq!(warned, [false, false, true, false, false]);
    let told = || std::fs::read_to_string(world.path("alerts.jsonl")).unwrap_or_default();
    until("operators are told", || told().contains("approval.hasty"));
    assert!(audit(&world).contains("hasty"), "it is on record");
    world.verified();
}
