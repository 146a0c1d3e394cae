//! What is on record: every method of the operators that changes anything leaves an entry that names who and what; no
//! entry holds contents; every entry is canonical; and a daemon whose audit cannot be relied on changes nothing.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use toolkeep::daemon::method::AdminMethod;

use super::world::{Agent, World};
use crate::doors::running::until;

/// Which kind of entry a method leaves that changes something; nothing for a method that only tells.
fn leaves(method: AdminMethod) -> Option<&'static str> {
    match method {
        AdminMethod::SessionAuthenticate
        | AdminMethod::TokensList
        | AdminMethod::ApprovalsList
        | AdminMethod::ApprovalsShow
        | AdminMethod::StandingList
        | AdminMethod::StandingPreview
        | AdminMethod::AutonomyList
        | AdminMethod::AutonomyShow
        | AdminMethod::IncidentGet
        | AdminMethod::OutcomesList
        | AdminMethod::ToolsList
        | AdminMethod::PlansList
        | AdminMethod::PlansShow
        | AdminMethod::RunsList
        | AdminMethod::RunsShow
        | AdminMethod::BudgetsShow
        | AdminMethod::BudgetsSpend
        | AdminMethod::TransactionsList
        | AdminMethod::PolicyGet
        | AdminMethod::PolicyCheck
        | AdminMethod::PolicyExplain
        | AdminMethod::PolicyDiff
        | AdminMethod::DeadlettersList
        | AdminMethod::DeadlettersGet
        | AdminMethod::BreakersList
        | AdminMethod::KillList
        | AdminMethod::AuditVerify
        | AdminMethod::AuditEntries
        | AdminMethod::AuditProve
        | AdminMethod::AuditExport
        | AdminMethod::AuditKey
        | AdminMethod::AuditCheckpoints
        | AdminMethod::AuditCheckpoint
        | AdminMethod::AlertsList
        | AdminMethod::RetentionShow
        | AdminMethod::StatsCalls
        | AdminMethod::StatsRuns
        | AdminMethod::StatsFile
        | AdminMethod::AlertsShow
        | AdminMethod::ReplayProgress
        | AdminMethod::ReplayCancel
        | AdminMethod::EvalList
        | AdminMethod::EvalShow
        | AdminMethod::HealthGet => None,
        AdminMethod::TokensMint | AdminMethod::TokensRevoke => Some("identity"),
        AdminMethod::ApprovalsApprove | AdminMethod::ApprovalsReject => Some("approval"),
        AdminMethod::StandingMake | AdminMethod::StandingAgree | AdminMethod::StandingRevoke => Some("standing"),
        AdminMethod::AutonomySet => Some("autonomy"),
        AdminMethod::OutcomesResolve => Some("resolved"),
        AdminMethod::ToolsInstall | AdminMethod::ToolsReload => Some("tool"),
        AdminMethod::RunsRelease => Some("escalation"),
        AdminMethod::BudgetsResume => Some("budget"),
        AdminMethod::UndoCall => Some("intent"),
        AdminMethod::PolicyReload => Some("policy"),
        AdminMethod::DeadlettersRetry | AdminMethod::DeadlettersDiscard => Some("delivery"),
        AdminMethod::BreakersOpen | AdminMethod::BreakersClose => Some("breaker"),
        AdminMethod::KillSet | AdminMethod::KillClear => Some("kill"),
        AdminMethod::DaemonDrain => Some("daemon"),
        AdminMethod::AlertsAck => Some("alert"),
        AdminMethod::AuditRead
        | AdminMethod::RetentionHold
        | AdminMethod::RetentionRelease
        | AdminMethod::PrivacyForget => Some("privacy"),
        AdminMethod::RetentionRun => Some("retention"),
        AdminMethod::ReplayCall
        | AdminMethod::ReplayStart
        | AdminMethod::EvalAdd
        | AdminMethod::EvalRemove
        | AdminMethod::EvalRun => Some("evaluation"),
    }
}

/// Methods that need more than this world has, and where what they leave is looked at.
const ELSEWHERE: &[(AdminMethod, &str, &str)] = &[
    (AdminMethod::StandingAgree, "tests/ledger/standing.rs", "r40_"),
    (AdminMethod::OutcomesResolve, "tests/daemon/requests.rs", "\"resolved\""),
];

/// All entries after one.
fn entries(admin: &mut Agent, after: u64) -> Vec<Value> {
    let (mut found, mut cursor) = (Vec::new(), json!(after));
    loop {
        let page = admin.ok("audit.entries", json!({"cursor": cursor}));
        found.extend(page["entries"].as_array().expect("a list").iter().cloned());
        cursor = page["next_cursor"].clone();
        if cursor.is_null() {
            return found;
        }
    }
}

fn last(admin: &mut Agent) -> u64 {
    entries(admin, 0).last().and_then(|entry| entry["seq"].as_u64()).expect("an entry")
}

/// A world in which every method has something to change.
fn stage() -> World {
    let mut world = World::asleep(super::world::Plot::default());
    let config = std::fs::read_to_string(world.path("toolkeep.toml")).expect("config");
    std::fs::create_dir(world.path("policies")).expect("policies");
    std::fs::create_dir(world.path("offered")).expect("a folder");
    let own = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/src/policy/default.cedar");
    world.home.put("policies/all.cedar", &std::fs::read(own).expect("the built-in policies"));
    let more = "[policy]\ndir = \"policies\"\n[[ceiling]]\nname = \"held\"\nper = \"workflow\"\ncalls = 1\nover_budget = \"hold\"\n\
                [channel.ops]\nkind = \"file\"\npath = \"missing/alerts.jsonl\"\nattempts = 1\n\
                [[notify]]\nevents = [\"approval.requested\"]\nchannels = [\"ops\"]\n";
    world.home.put("toolkeep.toml", format!("{config}{more}").as_bytes());
    world.start();
    world
}

/// A number that was not given before, so that what is written is another file.
fn another() -> u32 {
    static GIVEN: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    GIVEN.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

fn held(agent: &mut Agent, title: &str) -> String {
    let reply = agent.execute("notes2.add", json!({"title": title, "body": "b"}));
    reply.must("held", "pending", "approval_required").text("/approval/id").to_owned()
}

/// A recorded call, a golden case of it, and what a method about them is asked.
fn case_for(method: AdminMethod, agent: &mut Agent, admin: &mut Agent) -> Value {
    let call = agent.execute("text-stats", json!({"text": "a"})).must("ok", "none", "").call().to_owned();
    if method == AdminMethod::ReplayCall {
        return json!({"call": call});
    }
    let case = json!({"suite": "audited", "name": "one", "call": call});
    if method == AdminMethod::EvalAdd {
        return case;
    }
    admin.ok("eval.add", case);
    if method == AdminMethod::EvalRun { json!({}) } else { json!({"suite": "audited", "name": "one"}) }
}

/// A call, and what a method about what is kept of it is asked.
fn kept_for(method: AdminMethod, agent: &mut Agent, admin: &mut Agent) -> Value {
    let call = agent.execute("text-stats", json!({"text": "a"})).must("ok", "none", "").call().to_owned();
    let params = json!({"call": call, "reason": "asked for"});
    if method == AdminMethod::RetentionRelease {
        admin.ok("retention.hold", params.clone());
    }
    params
}

/// An alert, as it is acknowledged.
fn raised(agent: &mut Agent, admin: &mut Agent) -> Value {
    // Boundaries that were tested raised one.
    agent.execute("path-escape", json!({}));
    let mut alert = Value::Null;
    until("an alert is raised", || {
        alert = admin.ok("alerts.list", json!({}))["alerts"][0]["id"].clone();
        !alert.is_null()
    });
    json!({"alert": alert})
}

/// Make what the method is about, and say what it is asked.
fn made_for(method: AdminMethod, world: &World, agent: &mut Agent, admin: &mut Agent) -> Value {
    let text = |value: &Value, pointer: &str| value.pointer(pointer).and_then(Value::as_str).expect(pointer).to_owned();
    let standing = json!({"uses": 1, "ttl_s": 600, "covers": {"tool": "notes2.add", "kinds": ["file.write"],
        "paths": ["notes:never*"], "max_effects": 1, "max_bytes": 100}});
    let make = |admin: &mut Agent| {
        let shown = admin.ok("standing.preview", json!({"standing": standing}));
        json!({"standing": standing, "reason": "often", "confirm": shown["confirm"]})
    };
    match method {
        AdminMethod::TokensMint => json!({"user": "alice", "agent": "one", "label": "x"}),
        AdminMethod::TokensRevoke => {
            json!({"token": admin.ok("tokens.mint", json!({"user": "alice", "agent": "one"}))["id"]})
        }
        AdminMethod::ApprovalsApprove => json!({"approval": held(agent, "one"), "reason": "fine"}),
        AdminMethod::ApprovalsReject => json!({"approval": held(agent, "two"), "reason": "no"}),
        AdminMethod::StandingMake => make(admin),
        AdminMethod::StandingRevoke => {
            let made = make(admin);
            json!({"standing": text(&admin.ok("standing.make", made), "/id"), "reason": "enough"})
        }
        AdminMethod::AutonomySet => {
            json!({"agent": "local", "tool": "csv-report", "level": "approve", "reason": "new"})
        }
        _ => made_for_the_daemon(method, world, agent, admin),
    }
}

/// The same, of what is about the daemon, runs and calls.
fn made_for_the_daemon(method: AdminMethod, world: &World, agent: &mut Agent, admin: &mut Agent) -> Value {
    let dead = |admin: &mut Agent| {
        let mut found = String::new();
        until("a letter is dead", || {
            let letters = admin.ok("deadletters.list", json!({}));
            found = letters.pointer("/dead_letters/0/id").and_then(Value::as_str).unwrap_or_default().to_owned();
            !found.is_empty()
        });
        json!({"delivery": found})
    };
    match method {
        AdminMethod::ToolsInstall => {
            std::fs::copy(world.path("tools/text-stats.wasm"), world.path("offered/text-stats.wasm")).expect("copied");
            let manifest = b"format = 1\nname = \"fresh\"\ncomponent = \"text-stats.wasm\"\ntier = 0\n";
            world.home.put("offered/fresh.toml", manifest);
            json!({"manifest": world.path("offered/fresh.toml")})
        }
        AdminMethod::ToolsReload => {
            let head = "format = 1\nname = \"trap\"\ncomponent = \"trap.wasm\"\ntier = 2\n";
            world.home.put("tools/trap.toml", format!("{head}# {}\n", another()).as_bytes());
            json!({})
        }
        AdminMethod::RunsRelease => json!({"run": agent.ok("runs.open", json!({}))["run"]}),
        AdminMethod::BudgetsResume => {
            let run = agent.ok("runs.open", json!({"workflow": "pay"}))["run"].clone();
            for text in ["a", "b"] {
                agent.reply("calls.execute", json!({"tool": "text-stats", "input": {"text": text}, "run": run}));
            }
            json!({"ceiling": "held", "workflow": "pay"})
        }
        AdminMethod::UndoCall => {
            let reply = agent.execute("notes.add", json!({"title": "gone", "body": "b"})).must("ok", "committed", "");
            json!({"call": reply.call()})
        }
        AdminMethod::PolicyReload => {
            let never = "forbid (principal, action, resource) when { context.time.hour < 0 };";
            world.home.put("policies/more.cedar", format!("// {}\n{never}\n", another()).as_bytes());
            json!({})
        }
        AdminMethod::DeadlettersRetry | AdminMethod::DeadlettersDiscard => {
            held(agent, method.name());
            dead(admin)
        }
        AdminMethod::BreakersOpen | AdminMethod::BreakersClose => json!({"tool": "text-stats"}),
        AdminMethod::KillSet => json!({"level": "tool", "name": "notes.add", "mode": "stop", "reason": "looks wrong"}),
        AdminMethod::KillClear => json!({"level": "tool", "name": "notes.add", "reason": "looked at"}),
        AdminMethod::AuditRead | AdminMethod::RetentionHold | AdminMethod::RetentionRelease => {
            kept_for(method, agent, admin)
        }
        AdminMethod::DaemonDrain | AdminMethod::RetentionRun => json!({}),
        AdminMethod::ReplayStart => {
            json!({"with": {"component": world.path("tools/text-stats.wasm")}, "last": 1, "tool": "text-stats"})
        }
        AdminMethod::ReplayCall | AdminMethod::EvalAdd | AdminMethod::EvalRemove | AdminMethod::EvalRun => {
            case_for(method, agent, admin)
        }
        AdminMethod::PrivacyForget => {
            json!({"tenant": "local", "user": "nobody", "reason": "asked for", "confirm": "local/nobody"})
        }
        AdminMethod::AlertsAck => raised(agent, admin),
        other => panic!("nothing is made for {}", other.name()),
    }
}

#[test]
fn r40_every_method_that_changes_something_leaves_an_entry_that_says_who_and_what() {
    let mut world = stage();
    let (mut agent, mut admin) = (world.agent(), world.admin());
    let mut looked_at = 0;
    // The last one stops the daemon: what it left is read when it is there again.
    let drain = |method: &&AdminMethod| **method == AdminMethod::DaemonDrain;
    let others = AdminMethod::ALL.iter().filter(|method| !drain(method));
    for method in others.chain(AdminMethod::ALL.iter().filter(drain)) {
        let Some(kind) = leaves(*method) else { continue };
        if let Some((_, path, word)) = ELSEWHERE.iter().find(|(other, ..)| other == method) {
            let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
            assert!(
                std::fs::read_to_string(file).expect("a test").contains(word),
                "{path} looks at `{}`",
                method.name()
            );
            continue;
        }
        let params = made_for(*method, &world, &mut agent, &mut admin);
        let before = last(&mut admin);
        let mut other = world.admin();
        admin.ok(method.name(), params);
        // A changed file may be read by the daemon itself before the operator has it read.
        let reads = matches!(method, AdminMethod::ToolsReload | AdminMethod::PolicyReload);
        let own = |entry: &Value| entry["kind"] == json!(kind) && entry["facts"]["by"] == json!("operator");
        for _ in 0..10 {
            if !reads || entries(&mut other, before).iter().any(own) {
                break;
            }
            let params = made_for(*method, &world, &mut agent, &mut admin);
            admin.ok(method.name(), params);
        }
        let of_kind = |entry: &&Value| {
            let facts = &entry["facts"];
            let names = |name: &str| facts[name].as_str().is_some_and(|who| who.split(' ').next() == Some("operator"));
            let who = ["by", "approver", "user"].into_iter().any(names);
            entry["kind"] == json!(kind) && who
        };
        if drain(&method) {
            assert!(world.ended().success());
            world.start();
            other = world.admin();
        }
        let found = entries(&mut other, before);
        let own: Vec<&Value> = found.iter().filter(of_kind).collect();
        assert_eq!(own.len(), 1, "{} leaves one `{kind}` of the operator: {found:#?}", method.name());
        looked_at += 1;
    }
    println!("{looked_at} methods that change something were looked at");
    assert!(looked_at > 15, "{looked_at}");
}

#[test]
fn r40_every_entry_is_canonical_and_none_of_them_holds_contents() {
    let world = stage();
    let (mut agent, mut admin) = (world.agent(), world.admin());
    let canary = "c4n4ry-7f3a";
    let note = json!({"title": "Canary", "body": canary});
    let call = agent.execute("notes.add", note).must("ok", "committed", "");
    agent.preview("notes.add", json!({"title": "Shown", "body": canary})).must("ok", "previewed", "");
    agent.execute("text-stats", json!({"text": canary})).must("ok", "none", "");
    agent.execute("trap", json!({"text": canary}));
    agent.execute("no.such", json!({"text": canary}));
    agent.execute("text-stats", json!({"wrong": canary}));
    agent.execute("path-escape", json!({}));
    agent.execute("read-only-writer", json!({}));
    let run = agent.ok("runs.open", json!({"label": canary}))["run"].clone();
    agent.reply("calls.execute", json!({"tool": "notes2.add", "input": {"title": "Run", "body": canary}, "run": run}));
    let held = agent.execute("notes2.add", json!({"title": "Held", "body": canary}));
    admin.ok("approvals.approve", json!({"approval": held.text("/approval/id"), "reason": "fine"}));
    agent.ok("runs.close", json!({"run": run, "outcome": "done"}));
    admin.raw("undo.call", json!({"call": call.call()}));
    let all = entries(&mut admin, 0);
    let mut kinds = BTreeSet::new();
    for entry in &all {
        let body = entry["body"].as_str().expect("a text");
        assert!(!body.contains(canary), "{body}");
        assert_eq!(toolkeep_core::audit::canonical_body(&entry["facts"]), body, "as RFC 8785 writes it");
        kinds.insert(entry["kind"].as_str().expect("a word").to_owned());
    }
    for kind in ["approval", "breach", "call", "configuration", "daemon", "held", "intent", "outcome", "policy", "run"]
    {
        assert!(kinds.contains(kind), "{kind} is among {kinds:?}");
    }
    let numbers: Vec<u64> = all.iter().filter_map(|entry| entry["seq"].as_u64()).collect();
    assert_eq!(numbers, (1..=all.len() as u64).collect::<Vec<_>>());
}

#[test]
fn r40_run_records_tell_all_that_the_field_demands_and_hide_what_is_to_be_hidden() {
    let world = stage();
    let mut agent = world.agent();
    let run = agent.ok("runs.open", json!({"label": "books", "budget": {"calls": 10, "steps": 10}}))["run"].clone();
    for text in ["a", "b", "c"] {
        agent.reply("calls.execute", json!({"tool": "text-stats", "input": {"text": text}, "run": run, "step": text}));
    }
    agent.execute("notes.add", json!({"title": "Alone", "body": "b"})).must("ok", "committed", "");
    let lines = |arguments: &[&str]| -> Vec<Value> {
        let output = world.cli(arguments);
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).expect("text");
        text.lines().map(|line| serde_json::from_str(line).expect("one record a line")).collect()
    };
    let records = lines(&["audit", "export"]);
    assert_eq!(records.len(), 2, "one for the run, one for the call alone: {records:#?}");
    let of_run = &records[0];
    assert_eq!((&of_run["run_id"], of_run["steps"].as_array().map(Vec::len)), (&run, Some(3)));
    for field in [
        "call_id",
        "step",
        "tool",
        "input",
        "output",
        "tier",
        "duration_ms",
        "tokens",
        "cost_usd",
        "budget_remaining",
        "decision",
        "approvals",
        "usage",
        "outcome",
        "policy_set",
        "component",
        "manifest",
        "trace_id",
    ] {
        assert!(of_run["steps"][2].get(field).is_some_and(|value| !value.is_null()), "{field}: {of_run:#}");
    }
    assert_eq!(of_run["steps"][2]["input_matches"], json!(true), "{of_run:#}");
    assert_eq!(of_run["steps"][2]["budget_remaining"]["calls"], json!(7), "{of_run:#}");
    assert_eq!(of_run["steps"][0]["budget_remaining"]["calls"], json!(9));
    assert_eq!(records[1]["steps"][0]["decision"], json!("commit"));
    assert_eq!(lines(&["audit", "export", "--run", run.as_str().expect("an id")]).len(), 1);
    assert_eq!(lines(&["audit", "export", "--until", "2001-01-01T00:00:00Z"]).len(), 0);
    let raw = lines(&["audit", "export", "--raw"]);
    let step = &of_run["steps"][2];
    let entry = raw.iter().find(|entry| entry["kind"] == "call" && entry["facts"]["call"] == step["call_id"]);
    let facts = &entry.expect("an entry of the call")["facts"];
    assert_eq!((&step["trace_id"], &step["reply_sha256"]), (&facts["trace"], &facts["reply"]), "{facts}");
    assert_eq!(raw.last().and_then(|entry| entry["seq"].as_u64()), Some(raw.len() as u64));
}

#[test]
fn r40_a_copy_is_verified_from_outside_and_a_flipped_bit_in_it_is_found() {
    let mut world = stage();
    world.agent().execute("notes.add", json!({"title": "Evidence", "body": "b"})).must("ok", "committed", "");
    let cli = |world: &World, arguments: &[&str]| {
        let output = world.cli(arguments);
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
        )
    };
    let (code, key) = cli(&world, &["audit", "key"]);
    assert_eq!(code, Some(0), "{key}");
    let key = key.trim().to_owned();
    let (code, note) = cli(&world, &["audit", "checkpoints", "--make"]);
    assert_eq!(code, Some(0), "{note}");
    world.home.put("kept", note.as_bytes());
    let (code, told) = cli(&world, &["audit", "verify", "--checkpoint", "kept"]);
    assert_eq!(code, Some(0), "{told}");
    let (code, proof) = cli(&world, &["audit", "prove", "2"]);
    assert!(code == Some(0) && proof.starts_with("c2sp.org/tlog-proof@v1\nindex 1\n"), "{proof}");
    world.agent().execute("notes.add", json!({"title": "More", "body": "b"})).must("ok", "committed", "");
    let (code, proof) = cli(&world, &["audit", "prove", "--from", "kept"]);
    assert!(code == Some(0) && proof.starts_with("old "), "{proof}");
    // The daemon appends them to a file, which becomes long: the last of it is what counts.
    let (code, later) = cli(&world, &["audit", "checkpoints", "--make"]);
    assert_eq!(code, Some(0), "{later}");
    let many = note.repeat((1 << 20) / note.len() + 2) + &later;
    world.home.put("appended", many.as_bytes());
    let (code, proof) = cli(&world, &["audit", "prove", "--from", "appended"]);
    let size = later.lines().nth(1).expect("its size");
    assert!(code == Some(0) && proof.starts_with(&format!("old {size}")), "{size}: {proof}");
    assert!(world.stop().success());
    // A copy without the private key, as an auditor gets it.
    std::fs::create_dir(world.path("copy")).expect("a folder");
    std::fs::copy(world.path("state/ledger/ledger.sqlite"), world.path("copy/ledger.sqlite")).expect("copied");
    let offline = ["--ledger", "copy", "--key", key.as_str()];
    let with = |first: &[&'static str]| [first, &offline[..]].concat();
    let (code, told) = cli(&world, &with(&["audit", "verify", "--checkpoint", "kept"]));
    assert!(code == Some(0) && told.contains("entries verified"), "{told}");
    assert_eq!(cli(&world, &with(&["audit", "prove", "2"])).0, Some(0));
    assert_eq!(cli(&world, &with(&["audit", "prove", "--from", "kept"])).0, Some(0));
    assert_eq!(cli(&world, &with(&["audit", "show", "--kind", "intent"])).0, Some(0));
    assert_eq!(cli(&world, &with(&["audit", "export"])).0, Some(0));
    // Another key is no proof of anything.
    let (code, told) = cli(&world, &["audit", "verify", "--ledger", "copy", "--key", "other+00000000+AAAA"]);
    assert_eq!(code, Some(2), "{told}");
    public_tools_agree(&world, &key);
    let path = world.path("copy/ledger.sqlite");
    let mut bytes = std::fs::read(&path).expect("the copy");
    let wanted = b"\"what\":\"start\"";
    // Pages keep stale copies of rows that moved.
    let windows = bytes.windows(wanted.len()).enumerate();
    let places: Vec<usize> = windows.filter(|(_, window)| window == wanted).map(|(at, _)| at).collect();
    assert!(!places.is_empty(), "the entry of the start");
    places.iter().for_each(|at| bytes[at + wanted.len() - 2] ^= 1);
    std::fs::write(&path, &bytes).expect("written");
    let (code, told) = cli(&world, &with(&["audit", "verify"]));
    assert!(code == Some(9) && told.contains("was changed"), "{code:?} {told}");
}

/// The script of the documentation, which uses nothing of ours, comes to the same end; and it finds what was changed.
fn public_tools_agree(world: &World, key: &str) {
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/audit.md");
    let page = std::fs::read_to_string(page).expect("the page");
    let script = page.split_once("```python\n").and_then(|(_, rest)| rest.split_once("```")).expect("a script").0;
    world.home.put("verify.py", script.as_bytes());
    let exported = world.cli(&["audit", "export", "--raw", "--ledger", "copy", "--key", key]);
    assert!(exported.status.success(), "{exported:?}");
    let entries = String::from_utf8(exported.stdout).expect("lines");
    let verified = |entries: &str| {
        let mut python = std::process::Command::new("python3");
        python.current_dir(world.home.path()).args(["verify.py", key, "kept"]);
        world.home.put("entries.jsonl", entries.as_bytes());
        python.stdin(std::fs::File::open(world.path("entries.jsonl")).expect("entries"));
        python.output().expect("python3 and openssl are needed by this test")
    };
    let whole = verified(&entries);
    assert!(whole.status.success(), "{whole:?}");
    assert!(String::from_utf8_lossy(&whole.stdout).contains("entries verified"), "{whole:?}");
    let second = entries.lines().nth(1).expect("two entries");
    for changed in [
        entries.replacen("\\\"what\\\":\\\"start\\\"", "\\\"what\\\":\\\"stare\\\"", 1),
        entries.replacen(&format!("{second}\n"), "", 1),
        entries.lines().take(2).map(|line| format!("{line}\n")).collect(),
    ] {
        assert_ne!(changed, entries);
        let found = verified(&changed);
        assert!(!found.status.success(), "{found:?}");
    }
}
