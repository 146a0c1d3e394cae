//! Recorded calls, executed again from their recordings alone (G13): every sample tool, good and hostile, with files, keys,
//! messages, requests staged and live, in transactions, previewed, held, failed and stopped.
//!
//! Before anything is replayed the workspaces are emptied and the peer's answers change, so a replay that looked at the
//! world would show it. `TOOLKEEP_HARD=1` replays as many runs as promised.

use std::fs;

use serde_json::{Value, json};
use toolkeep_tests::support::proof::{size, told};

use super::super::world::{Agent, World};
use super::peer::{Fault, Peer};
use super::{add, agree, asleep, awake, grant, message, reach, send, write};

/// Runs of an ordinary test.
const SAMPLE: usize = 60;
/// Runs that are promised (G13).
const PROMISED: usize = 1_000;

/// Everything that a tool can reach.
fn everything(peer: &Peer) -> World {
    let config = "[channel.log]\nkind = \"file\"\npath = \"messages.jsonl\"\n";
    let outward = |delivery: &str| {
        format!(
            "tier = 3\n[[workspace]]\nname = \"books\"\naccess = \"write\"\n[[keys]]\nbucket = \"counts\"\naccess = \"write\"\n\
             [[message]]\nchannel = \"log\"\nto = [\"*@example.com\"]\n{}",
            grant("api", &peer.origin(), delivery)
        )
    };
    let tools = [
        ("reach", "reach", outward("")),
        ("live", "reach", outward("delivery = \"live\"\n")),
        ("real", "clock-probe", "tier = 0\nclock = \"real\"\n".to_owned()),
        ("hashed", "text-stats", "tier = 0\n[record]\ndepth = \"hashes\"\n".to_owned()),
        ("unseen", "text-stats", "tier = 0\n[record]\ndepth = \"off\"\n".to_owned()),
    ];
    awake(config, &tools)
}

/// Run `number` of all kinds of calls. Gives the calls that it made.
fn run(world: &World, peer: &Peer, number: usize) -> Vec<String> {
    let (mut agent, mut admin) = (world.agent(), world.admin());
    let url = |path: &str| format!("{}{path}", peer.origin());
    let title = format!("Note {number}");
    let one = |agent: &mut Agent, tool: &str, input: Value| agent.execute(tool, input);
    let reply = match number % 24 {
        0 => one(&mut agent, "text-stats", json!({"text": format!("{} words", "many ".repeat(number % 7))})),
        1 => agent.preview("csv-report", json!({"input": "ledger", "output": format!("r{number}.md")})),
        2 => one(&mut agent, "csv-report", json!({"input": "ledger", "output": format!("r{number}.md")})),
        3 => one(&mut agent, "notes.add", json!({"title": title, "body": "b".repeat(3_000)})),
        4 => one(&mut agent, "notes.list", json!({})),
        5 => one(&mut agent, "notes.search", json!({"query": "b"})),
        6 => agent.preview("rename-symbol", json!({"from": "old_name", "to": format!("name_{number}")})),
        7 => reach(&mut agent, "reach", &[send("GET", &url("/a"), ""), send("GET", &url("/b"), "")]),
        8 => {
            let steps =
                [send("GET", &url("/a"), ""), add("n", 2), write(&format!("f{number}"), "x"), message("log", "s")];
            reach(&mut agent, "reach", &steps)
        }
        9 => {
            let steps = [send("POST", &url("/c"), "body"), json!({"op": "get", "bucket": "counts", "key": "n"})];
            reach(&mut agent, "reach", &steps)
        }
        10 => {
            let steps =
                [write(&format!("l{number}"), "x"), send("POST", &url("/live"), "pay"), send("GET", &url("/a"), "")];
            let mut reply = reach(&mut agent, "live", &steps);
            let call = reply.call().to_owned();
            if number % 48 == 34 {
                admin.ok("approvals.reject", json!({"approval": reply.approval(), "reason": "not now"}));
                return vec![super::now(world, &call).call().to_owned()];
            }
            // The live request is held, and what comes after it again.
            for _ in 0..3 {
                if reply.text("/status") == "held" {
                    agree(&mut admin, &reply);
                    reply = super::now(world, &call);
                }
            }
            reply
        }
        11 => one(&mut agent, "trap", json!({})),
        12 => one(&mut agent, "panic", json!({})),
        13 => one(&mut agent, "exit", json!({})),
        14 => one(&mut agent, "recurse", json!({})),
        15 => one(&mut agent, "grow-memory", json!({})),
        16 => one(&mut agent, "bad-output", json!({})),
        17 => one(&mut agent, "giant-return", json!({})),
        18 => one(&mut agent, "path-escape", json!({})),
        19 => one(&mut agent, "read-only-writer", json!({})),
        20 => one(&mut agent, "real", json!({})),
        21 => {
            let begun = agent.ok("transactions.begin", json!({}));
            let transaction = begun["transaction"].as_str().expect("an id").to_owned();
            let mut calls = Vec::new();
            for part in ["one", "two"] {
                let input = json!({"title": format!("{title} {part}"), "body": "b"});
                let call = json!({"tool": "notes.add", "input": input, "transaction": transaction});
                calls.push(agent.reply("calls.execute", call).must("ok", "staged", "").call().to_owned());
            }
            let list = json!({"tool": "notes.list", "input": {}, "transaction": transaction});
            calls.push(agent.reply("calls.execute", list).must("ok", "staged", "").call().to_owned());
            agent.ok("transactions.rollback", json!({"transaction": transaction}));
            return calls;
        }
        22 => one(&mut agent, "spin", json!({})),
        _ => one(&mut agent, if number % 72 == 23 { "spin-long" } else { "narrowed" }, json!({})),
    };
    vec![reply.call().to_owned()]
}

/// Nothing is where it was.
fn empty(world: &World) {
    for name in ["notes", "src", "books"] {
        let path = world.path(name);
        for entry in fs::read_dir(&path).expect("a workspace").map(|entry| entry.expect("an entry").path()) {
            let removed = if entry.is_dir() { fs::remove_dir_all(&entry) } else { fs::remove_file(&entry) };
            removed.expect("removed");
        }
    }
}

#[test]
fn r41_g13_every_recorded_call_replays_bit_for_bit_without_its_world() {
    let wanted = size(SAMPLE, PROMISED);
    let peer = Peer::new();
    let mut world = everything(&peer);
    let mut calls = Vec::new();
    let mut number = 0;
    while calls.len() < wanted + wanted / 10 {
        calls.extend(run(&world, &peer, number));
        number += 1;
    }
    empty(&world);
    for path in ["/a", "/b", "/c", "/live"] {
        peer.meets(path, &vec![Fault::Answers(500); 1_000]);
    }
    let before = peer.reads().len();
    // A kill would lose what the last calls that only read have left to the next write.
    assert!(world.stop().success());
    world.start();
    let mut admin = world.admin();
    let (mut identical, mut others) = (0, Vec::new());
    for call in &calls {
        let answer = admin.raw("replay.call", json!({"call": call})).expect("an answer");
        if answer["result"]["identical"] == json!(true) {
            identical += 1;
            continue;
        }
        let code = answer.pointer("/error/data/code").and_then(Value::as_str).unwrap_or_default();
        assert_eq!(code, "not_replayable", "{call}: {answer}");
        others.push(answer.pointer("/error/data/message").cloned().unwrap_or_default());
    }
    told(
        "G13 replays",
        identical,
        "other than recorded",
        &format!("of {} calls; not replayable: {others:?}", calls.len()),
    );
    assert!(identical >= wanted, "{identical} of {wanted}");
    assert_eq!(peer.reads().len(), before, "nothing was asked of the world");
    let left: usize =
        ["notes", "src", "books"].iter().map(|name| fs::read_dir(world.path(name)).expect("dir").count()).sum();
    assert_eq!(left, 0, "nothing was written");
    world.verified();
}

#[test]
fn r41_what_was_not_recorded_in_full_says_why_it_cannot_be_replayed() {
    let peer = Peer::new();
    let world = everything(&peer);
    let (mut agent, mut admin) = (world.agent(), world.admin());
    for (tool, input, part) in [
        ("hashed", json!({"text": "a"}), "digests"),
        ("unseen", json!({"text": "a"}), "not recorded"),
        ("text-stats", json!({"text": 7}), "before anything ran"),
    ] {
        let reply = agent.execute(tool, input);
        let told = admin.no("replay.call", json!({"call": reply.call()}));
        assert_eq!(told["code"], "not_replayable", "{told}");
        assert!(told["message"].as_str().expect("a message").contains(part), "{told}");
    }
    let missing = admin.no("replay.call", json!({"call": "call_00000000-0000-7000-8000-000000000000"}));
    assert_eq!(missing["code"], "not_found");
}

/// Ask for a job until it is over.
pub(super) fn over(admin: &mut Agent, method: &str, params: Value) -> Value {
    let mut answer = admin.ok(method, params);
    let job = answer["job"].as_str().expect("a job").to_owned();
    crate::doors::running::until("the job is over", || {
        answer = admin.ok("replay.progress", json!({"job": job}));
        answer["state"] != "running"
    });
    assert_eq!(answer["state"], "done", "{answer}");
    answer["report"].take()
}

#[test]
fn r47_a_back_test_tells_which_calls_another_component_manifest_or_policy_would_have_changed() {
    let mut world = asleep("", &[("words", "text-stats", "tier = 0\n".to_owned())]);
    world.start();
    let (mut agent, mut admin) = (world.agent(), world.admin());
    for number in 0..5 {
        agent.execute("words", json!({"text": format!("{number} words")})).must("ok", "none", "");
        let input = json!({"input": "ledger", "output": format!("r{number}.md")});
        agent.execute("csv-report", input).must("ok", "committed", "");
    }
    // The same component is the same, and one that does something else is not.
    let start = |with: Value, tool: &str| json!({"with": with, "last": 100, "tool": tool});
    let same = world.path("tools/text-stats.wasm");
    let report = over(&mut admin, "replay.start", start(json!({"component": same}), "words"));
    assert_eq!((&report["compared"], &report["same"]), (&json!(5), &json!(5)), "{report}");
    let other = world.path("tools/bad-output.wasm");
    let report = over(&mut admin, "replay.start", start(json!({"component": other}), "words"));
    assert_eq!(report["changed"], json!(5), "{report}");
    assert_eq!(report["by"], json!({"input": 5}), "its schema takes something else: {report}");
    // A manifest that lets it only read changes what it does.
    let text = world.text("tools/csv-report.toml").replace("access = \"write\"", "access = \"read\"");
    world.home.put("tools/stricter.manifest", text.as_bytes());
    let stricter = json!({"manifest": world.path("tools/stricter.manifest")});
    let report = over(&mut admin, "replay.start", start(stricter, "csv-report"));
    assert_eq!(report["changed"], json!(5), "{report}");
    assert!(report["by"]["end"].as_u64() == Some(5) || report["by"]["effects"].as_u64() == Some(5), "{report}");
    // Policies are asked again about what was recorded.
    let deny = json!({"policies": [{"name": "none.cedar", "text": "forbid (principal, action, resource);"}]});
    let report = over(&mut admin, "replay.start", json!({"with": deny, "last": 100}));
    assert_eq!((&report["changed"], &report["by"]["decision"]), (&json!(10), &json!(10)), "{report}");
    let wrong = admin.no("replay.start", json!({"with": {"version": "words"}}));
    assert_eq!(wrong["code"], "invalid_input");
}

#[test]
fn r45_golden_cases_are_made_of_calls_run_against_versions_and_gate_an_installation() {
    let mut world = asleep("", &[("words", "text-stats", "tier = 0\n[record]\nsuite = \"words\"\n".to_owned())]);
    world.start();
    let (mut agent, mut admin) = (world.agent(), world.admin());
    let call = agent.execute("words", json!({"text": "two words"})).must("ok", "none", "").call().to_owned();
    let case = json!({"suite": "words", "name": "two", "call": call});
    admin.ok("eval.add", case);
    let report = over(&mut admin, "eval.run", json!({"suite": "words"}));
    assert_eq!((&report["passed"], &report["failed"]), (&json!(1), &json!(0)), "{report}");
    let listed = admin.ok("eval.list", json!({}));
    assert_eq!(listed["suites"][0]["runs"][0]["passed"], json!(1), "{listed}");
    // What is shown can be added again.
    let shown = admin.ok("eval.show", json!({"suite": "words", "name": "two"}))["case"].to_string();
    admin.ok("eval.add", json!({"suite": "copy", "name": "two", "case": shown}));
    admin.ok("eval.remove", json!({"suite": "copy", "name": "two"}));
    assert_eq!(admin.no("eval.show", json!({"suite": "copy", "name": "two"}))["code"], "not_found");
    // Another component fails it, and is not installed.
    let failing = json!({"suite": "words", "component": world.path("tools/bad-output.wasm")});
    assert_eq!(over(&mut admin, "eval.run", failing)["failed"], json!(1));
    fs::create_dir(world.path("next")).expect("a folder");
    fs::copy(world.path("tools/bad-output.wasm"), world.path("next/other.wasm")).expect("a copy");
    world.home.put("next/words.toml", b"format = 1\nname = \"words\"\ncomponent = \"other.wasm\"\ntier = 0\n");
    let install = json!({"manifest": world.path("next/words.toml")});
    let refused = admin.no("tools.install", install);
    assert_eq!(refused["code"], "eval_failed", "{refused}");
    agent.execute("words", json!({"text": "still the old one"})).must("ok", "none", "");
    // A tool serves all tenants: an operator of another one does not get around their cases, and does not see them.
    let own = world.text("toolkeep.toml");
    let uid = rustix::process::geteuid().as_raw();
    let other = format!("{own}\n[[operator]]\nuid = {uid}\nuser = \"bob\"\ntenant = \"globex\"\n");
    assert!(world.stop().success());
    world.home.put("toolkeep.toml", other.as_bytes());
    world.start();
    let named = world.text("next/words.toml") + "[record]\nsuite = \"words\"\n";
    world.home.put("next/named.toml", named.as_bytes());
    let refused = world.admin().no("tools.install", json!({"manifest": world.path("next/named.toml")}));
    assert_eq!(refused["code"], "eval_failed", "{refused}");
    assert!(refused["message"].as_str().is_some_and(|text| text.contains("of another tenant")), "{refused}");
    assert!(!refused.to_string().contains("\"two\""), "{refused}");
    assert!(world.stop().success());
    world.home.put("toolkeep.toml", own.as_bytes());
    world.start();
    let mut admin = world.admin();
    let forced = json!({"manifest": world.path("next/words.toml"), "accept_failing": "on purpose"});
    admin.ok("tools.install", forced);
    // The old version still replays, and still can be compared with by name.
    let again = admin.ok("replay.call", json!({"call": call}));
    assert_eq!(again["identical"], json!(true), "{again}");
}

#[test]
fn r45_a_case_that_a_person_wrote_and_the_adversarial_pack_need_no_call() {
    let mut world = World::new();
    let mut admin = world.admin();
    let case = json!({"format": 1, "tool": "csv-report", "input": {"input": "ledger", "output": "out.md"},
        "world": {"files": {"books": {"ledger/a.csv": "date,category,amount\n2026-01-02,food,12.50\n"}}},
        "expect": {"ended": "output", "effects": {"at_most": 1}, "no_fault": true}});
    admin.ok("eval.add", json!({"name": "written", "case": case.to_string()}));
    let report = over(&mut admin, "eval.run", json!({}));
    assert_eq!((&report["passed"], &report["failed"]), (&json!(1), &json!(0)), "{report}");
    for tool in ["notes.add", "csv-report", "rename-symbol"] {
        let report = over(&mut admin, "eval.run", json!({"adversarial": tool}));
        assert!(report["cases"].as_u64().expect("a number") > 10, "{tool}: {report}");
        assert_eq!(report["failed"], json!(0), "{tool}: {report}");
    }
    let report = over(&mut admin, "eval.run", json!({"adversarial": "trap"}));
    assert_eq!(report["failed"], report["cases"], "a tool that breaks is found: {report}");
    world.stop();
}

#[test]
fn r59_a_share_of_calls_is_looked_at_again_and_bounds_of_golden_cases_hold_for_all() {
    let mut world = asleep("[recording]\ncheck_permille = 1000\n", &[]);
    world.start();
    let (mut agent, mut admin) = (world.agent(), world.admin());
    let checks = |admin: &mut Agent, which: &str| {
        admin.ok("health.get", json!({}))["recording"]["checks"][which].as_u64().expect("a count")
    };
    agent.execute("text-stats", json!({"text": "fine"})).must("ok", "none", "");
    crate::doors::running::until("the call was looked at again", || checks(&mut admin, "passed") >= 1);
    let call = agent.execute("text-stats", json!({"text": "also fine"})).must("ok", "none", "").call().to_owned();
    admin.ok("eval.add", json!({"name": "frugal", "call": call, "expect": {"fuel_max": 1}}));
    agent.execute("text-stats", json!({"text": "too dear"})).must("ok", "none", "");
    crate::doors::running::until("a bound was broken", || checks(&mut admin, "failed") >= 1);
}

/// Change a text wherever it stands in the files of the stopped ledger. How often it stood there.
fn forge(world: &World, from: &str, to: &str) -> usize {
    assert_eq!(from.len(), to.len(), "a page keeps its layout");
    let mut found = 0;
    for entry in fs::read_dir(world.path("state/ledger")).expect("the ledger") {
        let path = entry.expect("an entry").path();
        let Ok(mut bytes) = fs::read(&path) else { continue };
        let mut at = 0;
        while let Some(place) =
            bytes.get(at..).and_then(|rest| rest.windows(from.len()).position(|w| w == from.as_bytes()))
        {
            bytes[at + place..at + place + to.len()].copy_from_slice(to.as_bytes());
            at += place + to.len();
            found += 1;
        }
        if at > 0 {
            fs::write(&path, bytes).expect("written");
        }
    }
    found
}

#[test]
fn r41_a_recording_or_a_content_that_was_changed_afterwards_is_refused() {
    let mut world = World::asleep(super::super::world::Plot::default());
    world.home.put("notes/small.md", b"# Small\n\nneedle one\n");
    world.home.put("notes/large.md", format!("# Large\n\nneedle two {}\nthe very end\n", "x".repeat(4_000)).as_bytes());
    world.start();
    let mut agent = world.agent();
    let search = |agent: &mut Agent| agent.execute("notes.search", json!({"query": "needle"})).call().to_owned();
    let call = search(&mut agent);
    let identical = |world: &World| world.admin().ok("replay.call", json!({"call": call}))["identical"].clone();
    assert_eq!(identical(&world), json!(true));
    let refused = |world: &World, part: &str| {
        let told = world.admin().no("replay.call", json!({"call": call}));
        assert_eq!(told["code"], "not_replayable", "{told}");
        assert!(told["message"].as_str().expect("a message").contains(part), "{told}");
    };
    // What stands in the recording is bound by the audit, what is kept beside it by its digest.
    let cases =
        [("# Small\\n\\nneedle one", "# Small\\n\\nneedle 0ne", "audit"), ("the very end", "the very 3nd", "digest")];
    for (from, to, part) in cases {
        assert!(world.stop().success());
        assert!(forge(&world, from, to) > 0, "`{from}` is not in the ledger");
        world.start();
        refused(&world, part);
        assert!(world.stop().success());
        forge(&world, to, from);
        world.start();
        assert_eq!(identical(&world), json!(true));
    }
}
