//! The kill switch, end to end: every level and mode, held plans, requests, messages, restarts, and a thousand calls in
//! flight. What was begun before a switch may end; nothing that it stops begins after it, which the order of the audit
//! chain shows.

use std::time::Instant;

use rustix::process::Signal;
use serde_json::{Value, json};
use toolkeep::ambient::Ambient;
use toolkeep::ledger::{Ledger, Page};
use toolkeep_core::audit::{AuditEntry, AuditKind};
use toolkeep_tests::support::proof::{tell, told};

use super::approvals::approve;
use super::world::{Agent, Plot, Reply, World};
use crate::doors::running::{Client, until};

/// Set a switch; what the daemon says of it.
fn set(world: &World, level: &str, name: Option<&str>, mode: &str) -> Value {
    let mut params = json!({"level": level, "mode": mode, "reason": "it does too much"});
    if let Some(name) = name {
        params["name"] = json!(name);
    }
    world.admin().ok("kill.set", params)
}

fn clear(world: &World, level: &str, name: Option<&str>) -> Value {
    let mut params = json!({"level": level, "reason": "looked at"});
    if let Some(name) = name {
        params["name"] = json!(name);
    }
    world.admin().ok("kill.clear", params)
}

fn note(title: &str) -> Value {
    json!({"title": title, "body": "b"})
}

fn reads(agent: &mut Agent) -> Reply {
    agent.execute("text-stats", json!({"text": "a b"}))
}

#[track_caller]
fn killed(reply: Reply) -> Reply {
    assert_eq!((reply.text("/status"), reply.text("/error/code")), ("denied", "killed"), "{}", reply.value);
    assert!(reply.text("/error/message").contains("it does too much"), "{}", reply.value);
    assert!(reply.text("/error/hint").contains("`operator`"), "whom to ask: {}", reply.value);
    reply
}

#[test]
fn r25_every_level_stops_what_is_beneath_it_and_clearing_lets_it_run_again() {
    let world = World::new();
    let mut agent = world.agent();
    for (level, name, notes, stats) in [
        ("global", None, true, true),
        ("tenant", None, true, true),
        ("agent", Some("local"), true, true),
        ("agent", Some("other"), false, false),
        ("tool", Some("notes"), true, false),
        ("tool", Some("notes.add"), true, false),
        ("tool", Some("notes.search"), false, false),
        ("tool", Some("text-stats"), false, true),
        ("workflow", Some("billing"), false, false),
    ] {
        let what = format!("{level} {name:?}");
        let told = set(&world, level, name, "stop");
        assert_eq!((&told["level"], &told["mode"]), (&json!(level), &json!("stop")), "{told}");
        let added = agent.execute("notes.add", note(&what.replace(['"', '(', ')'], "")));
        if notes {
            killed(added);
            killed(agent.preview("notes.add", note("Shown")));
        } else {
            added.must("ok", "committed", "");
        }
        let read = reads(&mut agent);
        if stats {
            drop(killed(read))
        } else {
            drop(read.must("ok", "none", ""))
        }
        let listed = world.admin().ok("kill.list", json!({}));
        assert_eq!(listed["switches"].as_array().map(Vec::len), Some(1), "{listed}");
        clear(&world, level, name);
        reads(&mut agent).must("ok", "none", "");
    }
    agent.execute("notes.add", note("After all")).must("ok", "committed", "");
    world.verified();
}

#[test]
fn r25_a_workflow_is_stopped_in_all_of_its_runs_and_nowhere_else() {
    let mut world = World::new();
    let mut agent = world.agent();
    let mut open = |workflow: &str| agent.ok("runs.open", json!({"workflow": workflow}))["run"].take();
    let (billing, support) = (open("billing"), open("support"));
    let add = |run: &Value, title: &str| json!({"tool": "notes.add", "input": note(title), "run": run});
    let shown = agent.reply("calls.preview", add(&billing, "Shown")).must("ok", "previewed", "");
    let held = json!({"tool": "notes2.add", "input": note("Held"), "run": billing});
    let held = agent.reply("calls.execute", held).must("held", "pending", "approval_required");
    set(&world, "workflow", Some("billing"), "stop");
    for _ in 0..2 {
        let mut agent = world.agent();
        let before = world.snapshot();
        killed(agent.reply("calls.execute", add(&billing, "No")));
        let refused = agent.reply("plans.commit", json!({"plan": shown.plan()}));
        assert_eq!(refused.text("/error/code"), "killed", "{}", refused.value);
        let params = json!({"approval": held.approval(), "reason": "fine"});
        assert_eq!(world.admin().no("approvals.approve", params)["code"], "killed");
        assert_eq!(world.snapshot(), before);
        world.restart();
    }
    let mut agent = world.agent();
    agent.reply("calls.preview", add(&support, "Yes")).must("ok", "previewed", "");
    agent.preview("notes.add", note("Of no run")).must("ok", "previewed", "");
    clear(&world, "workflow", Some("billing"));
    agent.commit(shown.plan()).must("ok", "committed", "");
    assert_eq!(approve(&mut world.admin(), held.approval())["reply"]["outcome"], "committed");
    agent.reply("calls.execute", add(&billing, "Again")).must("ok", "committed", "");
    world.verified();
}

#[test]
fn r25_read_only_lets_tools_of_tier_0_run_and_nothing_else() {
    let world = World::new();
    let mut agent = world.agent();
    let shown = agent.preview("notes.add", note("Shown")).must("ok", "previewed", "");
    let held = agent.execute("notes2.add", note("Held")).must("held", "pending", "approval_required");
    let before = world.snapshot();
    for (level, name) in [("global", None), ("tenant", None), ("agent", Some("local")), ("tool", Some("notes"))] {
        set(&world, level, name, "read-only");
        reads(&mut agent).must("ok", "none", "");
        agent.execute("notes.list", json!({})).must("ok", "none", "");
        killed(agent.execute("notes.add", note("No")));
        let refused = agent.reply("plans.commit", json!({"plan": shown.plan()}));
        assert_eq!(refused.text("/error/code"), "killed", "{}", refused.value);
        assert_eq!(world.snapshot(), before, "{level}");
        clear(&world, level, name);
    }
    set(&world, "tool", Some("notes2"), "read-only");
    let params = json!({"approval": held.approval(), "reason": "fine"});
    assert_eq!(world.admin().no("approvals.approve", params)["code"], "killed", "consent is not counted meanwhile");
    clear(&world, "tool", Some("notes2"));
    agent.commit(shown.plan()).must("ok", "committed", "");
    let approved = approve(&mut world.admin(), held.approval());
    assert_eq!(approved["reply"]["outcome"], "committed", "{approved}");
}

#[test]
fn t_o3_a_switch_survives_a_kill_of_the_daemon_and_a_retry_after_it_is_cleared_runs() {
    let mut world = World::new();
    set(&world, "global", None, "stop");
    let keyed = json!({"tool": "notes.add", "input": note("Kept"), "idempotency_key": "k"});
    killed(world.agent().reply("calls.execute", keyed.clone()));
    world.restart();
    killed(world.agent().reply("calls.execute", keyed.clone()));
    assert_eq!(world.admin().ok("health.get", json!({}))["kill_switches"], 1);
    let listed = world.admin().ok("kill.list", json!({}));
    assert_eq!((&listed["switches"][0]["by"], &listed["switches"][0]["mode"]), (&json!("operator"), &json!("stop")));
    clear(&world, "global", None);
    let done = world.agent().reply("calls.execute", keyed.clone()).must("ok", "committed", "");
    assert!(!done.replayed, "a refusal of the switch is no result");
    world.restart();
    assert_eq!(world.admin().ok("kill.list", json!({}))["switches"], json!([]), "cleared is cleared");
    assert!(world.agent().reply("calls.execute", keyed).replayed);
    world.verified();
}

#[test]
fn r25_a_signal_and_a_file_stop_everything_without_a_connection() {
    let mut world = World::of(Plot { daemon: "[kill]\ncontact = \"ops@example.com\"", limits: "" });
    let mut agent = world.agent();
    reads(&mut agent).must("ok", "none", "");
    world.signal(Signal::USR1);
    until("the signal counts", || reads(&mut agent).ended().2 == "killed");
    let told = reads(&mut agent);
    assert!(told.text("/error/hint").contains("`signal` (ops@example.com)"), "{}", told.value);
    // A signal waits for no disk. What an operator sets is written after it, and waits.
    set(&world, "tool", Some("other"), "stop");
    world.restart();
    assert_eq!(reads(&mut world.agent()).ended().2, "killed", "it survives a restart");
    clear(&world, "global", None);
    reads(&mut world.agent()).must("ok", "none", "");

    let file = world.admin().ok("kill.list", json!({}))["file"].as_str().expect("a path").to_owned();
    std::fs::write(&file, "payments run wild\n").expect("the file");
    let mut agent = world.agent();
    until("the file counts", || reads(&mut agent).ended().2 == "killed");
    assert!(reads(&mut agent).text("/error/message").contains("payments run wild"));
    let no = world.admin().no("kill.clear", json!({"level": "global"}));
    assert_eq!(no["code"], "not_found", "{no}");
    assert!(no["hint"].as_str().is_some_and(|hint| hint.contains("remove the file")), "{no}");
    world.restart();
    assert_eq!(reads(&mut world.agent()).ended().2, "killed", "it is looked at when the daemon starts");
    std::fs::remove_file(&file).expect("removed");
    let mut agent = world.agent();
    until("the file is gone", || reads(&mut agent).ended().0 == "ok");
    world.verified();
}

#[test]
fn t_o3_a_running_guest_ends_when_its_tool_is_stopped_and_others_go_on() {
    let world = World::new();
    super::scenery::manifest(
        &world,
        ("endless", "spin", "tier = 0\n[limits]\nfuel = 1_000_000_000_000\ndeadline_ms = 600_000\n"),
    );
    world.admin().ok("tools.reload", json!({}));
    let mut agent = world.agent();
    let running = std::thread::spawn(move || agent.execute("endless", json!({})));
    let mut admin = world.admin();
    until("it runs", || admin.ok("health.get", json!({}))["in_flight"] == 1);
    let told = set(&world, "tool", Some("endless"), "stop");
    assert_eq!(told["ended"], 1, "{told}");
    // It has ten minutes: only the switch can have ended it.
    killed(running.join().expect("the call"));
    reads(&mut world.agent()).must("ok", "none", "");
}

#[test]
fn t_o3_a_tool_that_stands_in_for_another_is_ended_by_its_own_switch() {
    let mut world = World::asleep(Plot::default());
    super::scenery::manifest(
        &world,
        ("endless", "spin", "tier = 0\n[limits]\nfuel = 1_000_000_000_000\ndeadline_ms = 600_000\n"),
    );
    let rest = "tier = 1\nfallback = \"endless\"\n[breaker]\nfailures = 1\nopen_s = 86400\n";
    super::scenery::manifest(&world, ("trap", "trap", rest));
    world.start();
    let mut agent = world.agent();
    assert_eq!(agent.execute("trap", json!({})).text("/error/code"), "tool_trapped");
    let running = std::thread::spawn(move || agent.execute("trap", json!({})));
    let mut admin = world.admin();
    until("it runs", || admin.ok("health.get", json!({}))["in_flight"] == 1);
    // What it calls is known a moment after it is in flight.
    until("its switch ends it", || {
        set(&world, "tool", Some("endless"), "stop");
        running.is_finished()
    });
    // It has ten minutes: only the switch can have ended it.
    killed(running.join().expect("the call"));
}

/// Rounds in which a switch is set and cleared at one time.
const RACES: usize = 60;

#[test]
fn t_o3_of_setting_and_clearing_at_one_time_the_later_in_the_record_holds() {
    let mut world = World::new();
    let (mut setting, mut clearing) = (world.admin(), world.admin());
    let mut held = false;
    for round in 0..RACES {
        if !held {
            set(&world, "tool", Some("notes"), "stop");
        }
        let params = json!({"level": "tool", "name": "notes", "mode": "stop", "reason": format!("round {round}")});
        let (set, cleared) = std::thread::scope(|scope| {
            let set = scope.spawn(|| setting.ok("kill.set", params)["audit_seq"].as_u64().expect("a number"));
            let clear = || clearing.0.ask("kill.clear", json!({"level": "tool", "name": "notes", "reason": "r"}));
            let cleared = scope.spawn(clear);
            (set.join().expect("set"), cleared.join().expect("cleared"))
        });
        let listed = world.admin().ok("kill.list", json!({}))["switches"].as_array().map(Vec::len);
        // A switch that was set is not cleared unless that was answered, and on record, after it.
        held = cleared["result"]["audit_seq"].as_u64().is_none_or(|cleared| cleared < set);
        assert_eq!(listed, Some(usize::from(held)), "round {round}: set as {set}, {cleared}");
        if round % 20 == 0 {
            world.restart();
            (setting, clearing) = (world.admin(), world.admin());
            let listed = world.admin().ok("kill.list", json!({}))["switches"].as_array().map(Vec::len);
            assert_eq!(listed, Some(usize::from(held)), "round {round}: the disk says the same");
        }
    }
    world.verified();
}

#[test]
fn r25_a_run_of_no_workflow_or_of_another_is_not_stopped_because_the_daemon_has_forgotten_it() {
    let mut world = World::new();
    let mut agent = world.agent();
    let mut open = |params: Value| agent.ok("runs.open", params)["run"].take();
    let runs = [open(json!({})), open(json!({"workflow": "support"}))];
    let shown = runs.each_ref().map(|run| {
        let call = json!({"tool": "notes.add", "input": note(&format!("Shown {run}").replace('"', "")), "run": run});
        world.agent().reply("calls.preview", call).must("ok", "previewed", "")
    });
    set(&world, "workflow", Some("billing"), "stop");
    // A restart knows runs that have a workflow; of the others it has to look.
    world.restart();
    for (number, (run, shown)) in runs.iter().zip(&shown).enumerate() {
        let add = json!({"tool": "notes.add", "input": note(&format!("Made {number}")), "run": run});
        world.agent().commit(shown.plan()).must("ok", "committed", "");
        world.agent().reply("calls.execute", add).must("ok", "committed", "");
    }
    world.verified();
}

#[test]
fn r25_what_is_no_switch_is_refused_with_what_would_be_one() {
    let world = World::new();
    let mut admin = world.admin();
    for (params, pointer) in [
        (json!({"level": "tool", "mode": "stop", "reason": "r"}), "/name"),
        (json!({"level": "global", "name": "x", "mode": "stop", "reason": "r"}), "/name"),
        (json!({"level": "tool", "name": "*", "mode": "stop", "reason": "r"}), "/name"),
        (json!({"level": "agent", "name": "\u{202e}a", "mode": "stop", "reason": "r"}), "/name"),
        (json!({"level": "agent", "name": "../x", "mode": "stop", "reason": "r"}), "/name"),
        (json!({"level": "global", "mode": "stop", "reason": ""}), "/reason"),
        (json!({"level": "global", "mode": "stop", "reason": "two\nlines"}), "/reason"),
        (json!({"level": "global", "mode": "stop", "reason": "x".repeat(501)}), "/reason"),
        (json!({"level": "global", "mode": "Stop", "reason": "r"}), "/mode"),
        (json!({"level": "all", "mode": "stop", "reason": "r"}), "/level"),
        (json!({"level": "global", "mode": "stop"}), "/reason"),
    ] {
        let no = admin.no("kill.set", params.clone());
        assert_eq!(no["code"], "invalid_input", "{params}: {no}");
        let told = no.to_string();
        assert!(told.contains(pointer) || told.contains(pointer.trim_start_matches('/')), "{params}: {no}");
    }
    assert_eq!(admin.no("kill.clear", json!({"level": "global"}))["code"], "not_found");
    assert_eq!(admin.ok("kill.list", json!({}))["switches"], json!([]));
    assert!(set(&world, "tool", Some("nowhere"), "stop")["warning"].is_string(), "a mistyped name is told");
    let longest = json!({"level": "agent", "name": "a", "mode": "stop", "reason": "x".repeat(500)});
    admin.ok("kill.set", longest);
    let mut agent = world.agent();
    let no = agent.0.ask("kill.set", json!({"level": "global", "mode": "stop", "reason": "r"}));
    assert_eq!(no["error"]["code"], -32601, "an agent has no such method: {no}");
}

#[test]
fn r25_the_command_line_stops_lists_and_clears() {
    let world = World::new();
    let said = |arguments: &[&str]| {
        let output = world.cli(arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code(), text)
    };
    let (code, text) = said(&["kill", "set", "--level", "tool", "--name", "notes", "--reason", "it does too much"]);
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = said(&["call", "notes.add", "--input", r#"{"title":"A","body":"b"}"#]);
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("it does too much"), "{text}");
    let (code, text) = said(&["kill", "list"]);
    assert!(code == Some(0) && text.contains("notes") && text.contains("stop"), "{text}");
    assert_eq!(said(&["kill", "clear", "--level", "tool", "--name", "notes"]).0, Some(0));
    assert_eq!(said(&["kill", "clear", "--level", "tool", "--name", "notes"]).0, Some(5), "there is none any more");
    assert_eq!(said(&["call", "notes.add", "--input", r#"{"title":"A","body":"b"}"#]).0, Some(0));
}

/// Calls in flight when the switch is set, at least.
const IN_FLIGHT: u64 = 1_000;
/// Connections, and requests that each sends at once.
const CONNECTIONS: usize = 32;
const EACH: usize = 62;
/// Commits that must be there before the switch is set.
const BEFORE: usize = 20;

fn send_all(client: &mut Client, number: usize) {
    let mut lines = String::new();
    for at in 0..EACH {
        let call = match at % 4 {
            0 | 1 => json!({"tool": "notes.add", "input": note(&format!("Note {number} {at}"))}),
            2 => json!({"tool": "text-stats", "input": {"text": "a b"}}),
            _ => json!({"tool": "spin", "input": {}}),
        };
        lines.push_str(&json!({"jsonrpc": "2.0", "id": at, "method": "calls.execute", "params": call}).to_string());
        lines.push('\n');
    }
    client.send(lines.as_bytes());
}

#[test]
fn g18_t_o3_with_a_thousand_calls_in_flight_nothing_begins_after_the_switch() {
    let mut world = World::of(Plot { daemon: "", limits: "waiting = 4096\nwait_ms = 600_000" });
    reads(&mut world.agent());
    let mut clients: Vec<Client> =
        (0..CONNECTIONS).map(|_| Client::connect(&world.path("run/agent/agent.sock"))).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        send_all(client, number);
    }
    let mut admin = world.admin();
    let notes = world.path("notes");
    let committed = || std::fs::read_dir(&notes).expect("notes").count();
    let mut in_flight = 0;
    until("it is busy", || {
        in_flight = admin.ok("health.get", json!({}))["in_flight"].as_u64().expect("a number");
        committed() >= BEFORE && in_flight >= IN_FLIGHT
    });
    let asked = Instant::now();
    let switched = admin.ok("kill.set", json!({"level": "global", "mode": "stop", "reason": "it does too much"}));
    let answered = asked.elapsed();
    let mut codes = std::collections::BTreeMap::<String, usize>::new();
    for client in &mut clients {
        for _ in 0..EACH {
            let reply = client.line().expect("an answer");
            let reply = &reply["result"]["reply"];
            let ended = format!("{} {}", reply["outcome"], reply["error"]["code"]);
            *codes.entry(ended).or_default() += 1;
        }
    }
    let ended = asked.elapsed();
    tell(&format!(
        "kill switch, {in_flight} in flight: the switch answered after {answered:?} and ended {}, all were answered after {ended:?}: {codes:?}",
        switched["ended"]
    ));
    assert!(codes.get("\"none\" \"killed\"").is_some_and(|killed| *killed > 100), "{codes:?}");
    let before = committed();
    world.restart();
    assert_eq!(reads(&mut world.agent()).ended().2, "killed");
    assert_eq!(committed(), before, "nothing was left to be done");
    world.verified();
    assert!(world.stop().success());
    assert_eq!(begun_after(&world, switched["audit_seq"].as_u64().expect("a number")), Vec::<String>::new());
    let killed = codes.values().sum::<usize>() - before;
    told("G18 calls in flight at the kill switch", killed, "begun after it", "none after a restart either");
}

/// Intents in the audit chain after an entry.
fn begun_after(world: &World, seq: u64) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime");
    runtime.block_on(async {
        let ledger = Ledger::open(&world.path("state/ledger"), Ambient::real()).await.expect("ledger");
        let (mut page, mut found, mut switches) = (Page::default(), Vec::new(), 0);
        loop {
            let entries = ledger.audit_entries(page).await.expect("entries");
            for AuditEntry { seq: at, kind, body, .. } in entries.items {
                switches += usize::from(kind == AuditKind::Kill && at == seq);
                if kind == AuditKind::Intent && at > seq {
                    found.push(body);
                }
            }
            match entries.next {
                Some(next) => page.cursor = Some(next),
                None => break,
            }
        }
        assert_eq!(switches, 1, "the switch is on record where it said");
        ledger.close().await.expect("closed");
        found
    })
}
