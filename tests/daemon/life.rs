//! Stopping with work in flight, settling what was approved, and noticing that somebody touched the ledger.

use std::thread;

use rustix::process::Signal;
use serde_json::json;

use super::approvals::approve;
use super::world::{Plot, World};
use crate::doors::running::until;

#[test]
fn r53_sigterm_answers_what_runs_and_refuses_what_comes() {
    let mut world = World::new();
    let mut late = world.agent();
    late.ok("host.info", json!({}));
    let mut agent = world.agent();
    let running = thread::spawn(move || agent.execute("spin-long", json!({})));
    let mut admin = world.admin();
    until("it runs", || admin.ok("health.get", json!({}))["in_flight"] == 1);
    world.signal(Signal::TERM);
    let mut told = String::new();
    until("it drains", || {
        let answer = late.raw("calls.execute", json!({"tool": "text-stats", "input": {"text": "a"}}));
        told = answer.map(|answer| answer.to_string()).unwrap_or_else(|| "closed".to_owned());
        !told.contains("\"committed\"") && !told.contains("\"status\":\"ok\"")
    });
    assert!(told == "closed" || told.contains("overloaded"), "{told}");
    running.join().expect("the running call").must("failed", "none", "deadline_exceeded");
    assert!(world.ended().success());
    world.start();
    world.verified();
}

#[test]
fn r53_doctor_and_config_check_say_what_is_so() {
    let world = World::new();
    let check = world.cli(&["config", "check"]);
    assert!(check.status.success(), "{check:?}");
    let doctor = world.cli(&["-o", "json", "doctor"]);
    let told = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!([Some(0), Some(9)].contains(&doctor.status.code()), "{doctor:?}");
    assert!(told.contains("uid"), "it says that agent and operator share a uid: {told}");
    world.home.put("toolkeep.toml", b"[daemon]\nstate_dri = \"state\"\n");
    let check = world.cli(&["config", "check"]);
    assert_eq!(check.status.code(), Some(2), "{check:?}");
    let told = String::from_utf8_lossy(&check.stderr).into_owned() + &String::from_utf8_lossy(&check.stdout);
    assert!(told.contains("state_dri") && told.contains("toolkeep.toml"), "{told}");
}

#[test]
fn r40_a_flipped_bit_in_the_ledger_is_found_at_the_next_start() {
    let mut world = World::new();
    world.agent().execute("notes.add", json!({"title": "Evidence", "body": "b"})).must("ok", "committed", "");
    world.verified();
    assert!(world.stop().success());
    let path = world.path("state/ledger/ledger.sqlite");
    let mut bytes = std::fs::read(&path).expect("the ledger");
    let wanted = b"\"what\":\"start\"";
    let at = bytes.windows(wanted.len()).position(|window| window == wanted).expect("the entry of the start");
    bytes[at + wanted.len() - 2] ^= 1;
    std::fs::write(&path, &bytes).expect("written");
    world.start();
    let health = world.admin().ok("health.get", json!({}));
    assert_eq!(health["audit"]["state"], json!("broken"), "{health}");
    assert!(health["audit"]["reason"].as_str().is_some_and(|why| why.contains("was changed")), "{health}");
    world.agent().execute("notes.add", json!({"title": "More", "body": "b"})).must("failed", "none", "halted");
    world.agent().execute("text-stats", json!({"text": "a"})).must("ok", "none", "");
    assert_eq!(world.admin().no("audit.verify", json!({}))["code"], json!("halted"));
    assert!(world.stop().success());
    bytes[at + wanted.len() - 2] ^= 1;
    std::fs::write(&path, &bytes).expect("written");
    world.start();
    assert!(world.verified() > 4, "with the bit as it was, all is well");
}

#[test]
fn r38_a_plan_that_was_approved_but_not_settled_is_settled_at_the_next_start() {
    let mut settled_late = 0;
    let mut world = World::new();
    for round in 0_u64..10 {
        let held = world.agent().execute("held-files", json!({"n": 300}));
        let held = held.must("held", "pending", "approval_required");
        let before = world.snapshot();
        let mut admin = world.admin();
        let line = json!({"jsonrpc": "2.0", "id": 1, "method": "approvals.approve",
            "params": {"approval": held.approval()}});
        admin.0.send(format!("{line}\n").as_bytes());
        thread::sleep(std::time::Duration::from_millis(3 * round));
        world.kill();
        let log = world.log().len();
        world.start();
        let mut agent = world.agent();
        let state = agent.ok("approvals.get", json!({"approval": held.approval()}))["state"].clone();
        if state == "pending" {
            assert_eq!(world.snapshot(), before, "round {round}");
            approve(&mut world.admin(), held.approval());
        } else {
            assert_eq!(state, "consumed", "round {round}");
            settled_late += usize::from(world.log()[log..].contains("settled a plan that was approved before"));
        }
        agent.reply("approvals.wait", json!({"approval": held.approval()})).must("ok", "committed", "");
        assert_eq!(world.snapshot().len(), before.len() + 300);
        let undone = world.admin().reply("undo.call", json!({"call": held.call()}));
        undone.must("ok", "committed", "");
        assert_eq!(world.snapshot(), before);
    }
    world.verified();
    assert!(settled_late > 0, "no plan was left between its approval and its intent");
}

#[test]
fn r53_what_was_previewed_expires() {
    let world = World::asleep(Plot::default());
    let grant = "tier = 1\nplan_ttl_s = 1\n[[workspace]]\nname = \"notes\"\naccess = \"write\"\n";
    super::scenery::manifest(&world, ("brief", "notes", grant));
    let mut world = world;
    world.start();
    let mut agent = world.agent();
    let shown = agent.preview("brief.add", json!({"title": "Brief", "body": "b"})).must("ok", "previewed", "");
    until("it expires", || agent.ok("plans.get", json!({"plan": shown.plan()}))["state"] == "expired");
    assert_eq!(agent.commit(shown.plan()).text("/error/code"), "stale_plan");
    assert!(!world.path("notes/brief.md").exists());
}

#[test]
fn r53_sigterm_lets_commits_of_plans_finish_and_answers_them() {
    let mut answered = 0;
    for round in 0_u64..8 {
        let mut world = World::new();
        let mut agent = world.agent();
        let shown = agent.preview("million-files", json!({"n": 150})).must("ok", "previewed", "");
        let before = world.snapshot().len();
        let line = json!({"jsonrpc": "2.0", "id": 1, "method": "plans.commit", "params": {"plan": shown.plan()}});
        agent.0.send(format!("{line}\n").as_bytes());
        thread::sleep(std::time::Duration::from_millis(2 * round));
        world.signal(Signal::TERM);
        let answer = agent.0.line();
        assert!(world.ended().success(), "round {round}: {}", world.log());
        assert!(!world.log().contains("ERROR"), "round {round}: {}", world.log());
        let made = world.snapshot().len() - before;
        if let Some(answer) = answer {
            let committed = answer.pointer("/result/reply/outcome") == Some(&json!("committed"));
            assert_eq!(made, if committed { 150 } else { 0 }, "round {round}: {answer}");
            answered += usize::from(committed);
        }
        world.start();
        assert!([0, 150].contains(&(world.snapshot().len() - before)), "round {round}");
        world.verified();
    }
    assert!(answered > 0, "no commit was under way");
}
