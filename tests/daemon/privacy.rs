//! Privacy in a daemon: what operators see, what they read on record, what is kept, and what they ask of the past.

use serde_json::{Value, json};
use toolkeep::ambient::Ambient;
use toolkeep::vault::keygen;

use super::approvals::{approve, audit};
use super::world::{Agent, Plot, World};
use crate::doors::running::until;

const CANARY: &str = "CANARY-DE00-1234";

/// A daemon whose configuration ends with these lines.
fn world(lines: String) -> World {
    World::of(Plot { daemon: "", limits: Box::leak(lines.into_boxed_str()) })
}

/// Encrypted to somebody whose identity lies in the world's folder.
fn sealing() -> World {
    let (identity, recipient) = keygen(&Ambient::real());
    let world = world(format!("[privacy]\nrecipients = [\"{recipient}\"]\n"));
    world.home.put("identity.txt", identity.as_bytes());
    world.home.put("other.txt", keygen(&Ambient::real()).0.as_bytes());
    world
}

fn state_with(world: &World, what: &str) -> Vec<String> {
    let mut found = Vec::new();
    for folder in ["state/ledger", "state/blobs"] {
        for entry in std::fs::read_dir(world.path(folder)).expect("a folder") {
            let path = entry.expect("an entry").path();
            let bytes = std::fs::read(&path).unwrap_or_default();
            if bytes.windows(what.len()).any(|window| window == what.as_bytes()) {
                found.push(path.display().to_string());
            }
        }
    }
    found
}

#[test]
fn r42_a_break_glass_read_is_on_record_before_it_shows_and_opens_only_for_the_identity() {
    let mut world = sealing();
    let reply = world.agent().execute("text-stats", json!({"text": CANARY})).must("ok", "none", "");
    let call = reply.call().to_owned();
    let read = |world: &World, more: &[&str]| {
        let arguments = [&["audit", "read", call.as_str(), "--reason", "ticket 7", "-o", "json"], more].concat();
        let output = world.cli(&arguments);
        let text = [output.stdout.as_slice(), &output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    };
    let (well, said) = read(&world, &[]);
    assert!(!well && said.contains("--identity") && !said.contains(CANARY), "{said}");
    let other = world.path("other.txt").display().to_string();
    let (well, said) = read(&world, &["--identity", &other]);
    assert!(!well && !said.contains(CANARY), "{said}");
    let own = world.path("identity.txt").display().to_string();
    let (well, said) = read(&world, &["--identity", &own]);
    assert!(well && said.contains(CANARY), "{said}");
    let shown: Value = serde_json::from_str(&said).expect("json");
    assert_eq!(shown["parts"]["input"], json!({"text": CANARY}), "{shown}");
    assert!(shown["parts"]["recording"].is_object() && shown.get("keys").is_none(), "{shown}");
    let empty = world.admin().no("audit.read", json!({"call": call, "reason": "  "}));
    assert_eq!(empty["code"], "invalid_input");
    assert!(audit(&world).matches("break_glass").count() >= 3, "every read is on record, also one that showed nothing");
    assert!(world.stop().success());
    assert_eq!(state_with(&world, CANARY), [] as [String; 0]);
    world.start();
    world.verified();
}

#[test]
fn r42_retention_and_holds_are_shown_rehearsed_and_run_by_hand() {
    let world = world("[retention]\ntier0 = \"1s\"\nrefused = \"1s\"\n".to_owned());
    let mut agent = world.agent();
    let kept = agent.execute("text-stats", json!({"text": "a"})).must("ok", "none", "").call().to_owned();
    let gone = agent.execute("text-stats", json!({"text": "b"})).must("ok", "none", "").call().to_owned();
    let mut admin = world.admin();
    let held = admin.ok("retention.hold", json!({"call": kept, "reason": "a court"}));
    assert_eq!(held, json!({"held": true, "was_held": false}));
    let shown = admin.ok("retention.show", json!({}));
    let age = |class: &str| {
        let classes = shown["classes"].as_array().expect("classes");
        classes.iter().find(|line| line["class"] == class).expect("the class")["age_ms"].clone()
    };
    assert_eq!((age("tier0"), age("payloads")), (json!(1_000), Value::Null), "{shown}");
    assert_eq!(shown["holds"][0]["call_id"], json!(kept), "{shown}");
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    let would = admin.ok("retention.run", json!({"dry_run": true}));
    assert_eq!(would["would"]["calls"], 1, "{would}");
    let ran = admin.ok("retention.run", json!({}));
    assert_eq!(ran["gone"]["calls"], 1, "{ran}");
    assert_eq!(admin.no("incident.get", json!({"call": gone}))["code"], "not_found");
    admin.ok("incident.get", json!({"call": kept}));
    admin.ok("retention.release", json!({"call": kept, "reason": "settled"}));
    assert_eq!(admin.no("retention.release", json!({"call": kept, "reason": "again"}))["code"], "not_found");
    assert_eq!(admin.ok("retention.run", json!({}))["gone"]["calls"], 1);
    world.verified();
}

#[test]
fn r42_forgetting_needs_the_name_typed_and_is_on_record() {
    let world = sealing();
    let mut agent = world.agent();
    let call = agent.execute("text-stats", json!({"text": CANARY})).must("ok", "none", "").call().to_owned();
    let mut admin = world.admin();
    let asked = |tenant: &str, confirm: &str| json!({"tenant": tenant, "reason": "asked to", "confirm": confirm});
    assert_eq!(admin.no("privacy.forget", asked("local", "yes"))["code"], "denied");
    assert_eq!(admin.no("privacy.forget", asked("other", "other"))["code"], "not_found");
    admin.ok("incident.get", json!({"call": call}));
    let done = admin.ok("privacy.forget", asked("local", "local"));
    assert_eq!((done["forgotten"]["calls"].clone(), done["forgotten"]["keys"].clone()), (json!(1), json!(1)), "{done}");
    assert_eq!((done["left"].clone(), done["done"].clone()), (json!(0), json!(true)));
    assert_eq!(admin.no("incident.get", json!({"call": call}))["code"], "not_found");
    let again = admin.ok("privacy.forget", asked("local", "local"));
    assert_eq!(again["forgotten"]["calls"], 0, "{again}");
    agent.execute("text-stats", json!({"text": "after"})).must("ok", "none", "");
    let said = audit(&world);
    assert!(said.contains("forgotten") && said.contains(&call), "digests and names stay");
    world.verified();
}

#[test]
fn r42_operators_learn_what_agents_did_and_who_changed_a_file() {
    let world = World::new();
    let mut agent = world.agent();
    let run = agent.ok("runs.open", json!({"label": "task"}))["run"].clone();
    let note = |tool: &str, agent: &mut Agent, body: &str| {
        let input = json!({"title": "Pay", "body": body});
        agent.reply("calls.execute", json!({"tool": tool, "input": input, "run": run}))
    };
    let first = note("notes.add", &mut agent, "one").must("ok", "committed", "");
    let held = note("notes2.add", &mut agent, "two");
    let mut admin = world.admin();
    if held.ended().1 == "pending" {
        approve(&mut admin, held.approval());
    }
    for _ in 0..3 {
        agent.execute("text-stats", json!({"text": "a"})).must("ok", "none", "");
    }
    let stats = admin.ok("stats.calls", json!({}));
    let of = |name: &str| {
        let lines = stats["lines"].as_array().expect("lines").clone();
        lines.into_iter().find(|line| line["name"] == name).unwrap_or_else(|| panic!("{name}: {stats}"))
    };
    assert_eq!((of("text-stats")["calls"].clone(), of("notes.add")["calls"].clone()), (json!(3), json!(1)));
    let runs = admin.ok("stats.runs", json!({"agent": "local", "limit": 1}));
    assert_eq!(runs["runs"][0]["run"], run, "{runs}");
    assert_eq!(admin.ok("stats.runs", json!({"agent": "nobody"}))["runs"], json!([]));
    let who = admin.ok("stats.file", json!({"workspace": "notes", "path": "pay.md"}));
    let changes = who["changes"].as_array().expect("changes");
    let oldest = changes.last().expect("a change");
    assert_eq!(
        (oldest["call_id"].clone(), oldest["kind"].clone()),
        (json!(first.call()), json!("file.write")),
        "{who}"
    );
    assert!(oldest["before"].is_null() && oldest["after"]["sha256"].is_string(), "{who}");
    let paged = admin.ok("stats.file", json!({"workspace": "notes", "path": "pay.md", "limit": 1}));
    assert_eq!(paged["changes"].as_array().map(Vec::len), Some(1));
    assert_eq!(admin.no("stats.file", json!({"workspace": "nothing", "path": "pay.md"}))["code"], "not_found");
    let table = world.cli(&["who", "notes/pay.md"]);
    assert!(String::from_utf8_lossy(&table.stdout).contains(first.call()), "{table:?}");
    let table = world.cli(&["stats", "calls", "--by", "agent", "--first", "slow"]);
    assert!(table.status.success(), "{table:?}");
}

#[test]
fn r42_a_call_that_runs_while_it_is_asked_to_forget_is_left_until_it_ended() {
    let world = sealing();
    let mut agent = world.agent();
    let running = std::thread::spawn(move || agent.execute("spin-long", json!({})));
    let mut admin = world.admin();
    until("it runs", || admin.ok("health.get", json!({}))["in_flight"] == 1);
    let asked = json!({"tenant": "local", "reason": "asked to", "confirm": "local"});
    let done = admin.ok("privacy.forget", asked);
    assert_eq!((done["left"].clone(), done["done"].clone()), (json!(1), json!(false)), "{done}");
    let call = running.join().expect("the running call").must("failed", "none", "deadline_exceeded").call().to_owned();
    admin.ok("incident.get", json!({"call": call}));
    admin.ok("retention.run", json!({}));
    assert_eq!(admin.no("incident.get", json!({"call": call}))["code"], "not_found");
    assert!(audit(&world).contains(r#""what":"forgotten""#));
    world.verified();
}

/// A daemon that is killed anywhere while it forgets goes on when it is there again, and the record stays whole.
#[test]
fn r42_forgetting_that_is_killed_goes_on_at_the_next_start() {
    let mut world = sealing();
    for at in 0..8_u64 {
        let mut agent = world.agent();
        let calls: Vec<String> = (0..40)
            .map(|number| agent.execute("text-stats", json!({"text": format!("{CANARY} {number}")})).call().to_owned())
            .collect();
        let mut admin = world.admin();
        // Whoever reads waits for what is still being written.
        admin.ok("incident.get", json!({"call": calls[39]}));
        let asking = std::thread::spawn(move || {
            // The daemon may be gone before it answers.
            let asked = json!({"tenant": "local", "reason": format!("ticket {at}"), "confirm": "local"});
            drop(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| admin.raw("privacy.forget", asked))));
        });
        std::thread::sleep(std::time::Duration::from_millis(at * 3));
        world.kill();
        asking.join().expect("the thread");
        world.start();
        let mut admin = world.admin();
        // Not how often: the same page may lie in the database and in its log.
        if !audit(&world).contains(&format!(r#""reason":"ticket {at}""#)) {
            // It was killed before it had noted anything: nothing is gone then.
            admin.ok("incident.get", json!({"call": calls[0]}));
            continue;
        }
        for call in &calls {
            until("the call is forgotten", || {
                admin.raw("incident.get", json!({"call": call})).is_some_and(|answer| answer.get("error").is_some())
            });
        }
        world.verified();
    }
}
