//! Kill chains 5 and 8: what a neighbour tenant and another user of the machine try, end to end.
//!
//! A chain holds if it breaks at more than one place, so each scene is played again with one of its controls switched off: the
//! secrecy of ids by telling them, the tenant by putting the attacker into the same one, the principal by making the attacker a
//! session of the victim's, the policies by permitting everything, the permissions of directories by opening them, the map
//! of uids by mapping the attacker's.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::{Value, json};

use super::identity::shown;
use super::peer::{GROUP, Relay, as_user, is_root};
use super::signer::{Signer, issuer};
use super::world::{Agent, Plot, World};
use crate::doors::running::{Client, until};

/// What the victim made, as far as an attacker could hear of it.
struct Loot {
    run: Value,
    call: String,
    plan: String,
    digest: String,
    approval: String,
    transaction: Value,
}

fn note(title: &str) -> Value {
    json!({"title": title, "body": "b"})
}

fn victims(victim: &mut Agent) -> Loot {
    let run = victim.ok("runs.open", json!({"label": "victim"}))["run"].clone();
    let with_key = json!({"tool": "notes.add", "input": note("Mine"), "run": run, "idempotency_key": "k-1"});
    let call = victim.reply("calls.execute", with_key).must("ok", "committed", "");
    let plan = victim.preview("notes.add", note("Shown")).must("ok", "previewed", "");
    let held = victim.execute("held-rename", json!({"from": "old_name", "to": "new_name"})).must(
        "held",
        "pending",
        "approval_required",
    );
    let transaction = victim.ok("transactions.begin", json!({}))["transaction"].clone();
    Loot {
        run,
        call: call.call().to_owned(),
        plan: plan.plan().to_owned(),
        digest: plan.digest().to_owned(),
        approval: held.approval().to_owned(),
        transaction,
    }
}

/// Everything that can be tried with ids of somebody else.
fn ransack(attacker: &mut Agent, loot: &Loot) {
    let tries = [
        ("calls.get", json!({"call": loot.call})),
        ("calls.cancel", json!({"call": loot.call})),
        ("plans.get", json!({"plan": loot.plan, "diffs": true})),
        ("plans.get", json!({"plan": loot.digest})),
        ("plans.commit", json!({"plan": loot.plan})),
        ("plans.commit", json!({"plan": loot.digest})),
        ("plans.discard", json!({"plan": loot.plan})),
        ("approvals.get", json!({"approval": loot.approval})),
        ("approvals.wait", json!({"approval": loot.approval, "timeout_ms": 1})),
        ("runs.get", json!({"run": loot.run})),
        ("runs.close", json!({"run": loot.run})),
        ("transactions.get", json!({"transaction": loot.transaction})),
        ("transactions.commit", json!({"transaction": loot.transaction})),
        ("transactions.rollback", json!({"transaction": loot.transaction})),
        ("undo.propose", json!({"call": loot.call})),
        ("undo.propose", json!({"run": loot.run})),
    ];
    for (method, params) in tries {
        let refusal = attacker.no(method, params.clone());
        assert_eq!(refusal["code"], "not_found", "{method} {params}: {refusal}");
    }
    let named = json!({"tool": "text-stats", "input": {"text": "a"}, "run": loot.run});
    attacker.reply("calls.execute", named).must("failed", "none", "not_found");
    let staged = json!({"tool": "text-stats", "input": {"text": "a"}, "transaction": loot.transaction});
    assert_eq!(attacker.reply("calls.execute", staged).text("/error/code"), "not_found");
}

/// One key for two tenants, and one id for the requests of many connections: each hears of its own only.
fn nothing_is_mixed_up(attackers: &[Agent], victim: &mut Agent, world: &World) {
    let text = |who: &str, at: usize| format!("{who} {}", "w ".repeat(at));
    for (at, attacker) in attackers.iter().enumerate() {
        let request = json!({"jsonrpc": "2.0", "id": 0, "method": "calls.execute", "params":
            {"tool": "text-stats", "input": {"text": text("attacker", at)}, "idempotency_key": "shared"}});
        // A copy of the connection's other end: the answers are read below.
        let mut stream = attacker.0.stream();
        std::io::Write::write_all(&mut stream, format!("{request}\n").as_bytes()).expect("sent");
    }
    let own = json!({"tool": "text-stats", "input": {"text": text("victim", 50)}, "idempotency_key": "shared"});
    let reply = victim.reply("calls.execute", own.clone()).must("ok", "none", "");
    assert_eq!(reply.value["output"]["words"], 51, "{}", reply.value);
    let again = victim.reply("calls.execute", own);
    assert!(again.replayed && again.value == reply.value, "{}", again.value);
    world.verified();
}

/// A world with policies that permit whatever the daemon itself allows, or with the built-in ones.
fn world(policies: bool, signer: &Signer) -> World {
    let mut world = World::asleep(Plot { daemon: "", limits: "executions = 4\n" });
    world.home.put("keys.json", signer.set().as_bytes());
    let mut config = world.text("toolkeep.toml") + &issuer("jwks_file = \"keys.json\"");
    if !policies {
        config += "[policy]\ndir = \"policies\"\n";
        world.home.put("policies/open.cedar", b"permit (principal, action, resource);\n");
    }
    world.home.put("toolkeep.toml", config.as_bytes());
    world.start();
    world
}

fn chain_5(policies: bool, attacker: impl Fn(&World, &Signer, &mut Agent) -> Agent) {
    let signer = Signer::new("k1");
    let world = world(policies, &signer);
    let mut victim = world.agent();
    let loot = victims(&mut victim);
    let before = world.snapshot();
    let seen = victim.ok("runs.get", json!({"run": loot.run}));
    ransack(&mut attacker(&world, &signer, &mut victim), &loot);
    assert_eq!(world.snapshot(), before);
    assert_eq!(victim.ok("runs.get", json!({"run": loot.run})), seen, "nothing of the attacker is in the victim's run");
    for (method, params, state) in [
        ("plans.get", json!({"plan": loot.plan}), "previewed"),
        ("approvals.get", json!({"approval": loot.approval}), "pending"),
        ("transactions.get", json!({"transaction": loot.transaction}), "open"),
    ] {
        assert_eq!(victim.ok(method, params)["state"], state, "{method}");
    }
    victim.commit(&loot.plan).must("ok", "committed", "");
    world.verified();
}

fn stated(world: &World, signer: &Signer, tenant: &str, user: &str) -> Agent {
    shown(world, &json!(signer.statement(tenant, user, "probe", &json!({}))))
}

#[test]
fn t_kill_chain_5_a_neighbour_tenant_that_knows_every_id_gets_nothing() {
    chain_5(true, |world, signer, _| {
        let mut neighbour = stated(world, signer, "globex", "eve");
        let same = json!({"tool": "notes.add", "input": note("Mine"), "idempotency_key": "k-1"});
        neighbour.reply("calls.execute", same).must("failed", "none", "not_found");
        assert_eq!(neighbour.ok("transactions.list", json!({}))["transactions"], json!([]));
        neighbour
    });
}

#[test]
fn t_kill_chain_5_holds_without_policies() {
    chain_5(false, |world, signer, _| stated(world, signer, "globex", "eve"));
}

#[test]
fn t_kill_chain_5_holds_inside_of_one_tenant() {
    chain_5(true, |world, signer, _| {
        let mut colleague = stated(world, signer, "local", "eve");
        // The same key and input are a call of its own: what it did is undone for the comparison.
        let same = json!({"tool": "text-stats", "input": {"text": "a"}, "idempotency_key": "k-1"});
        let own = colleague.reply("calls.execute", same);
        assert!(!own.replayed, "a key of another principal is no key of ours");
        colleague
    });
}

#[test]
fn t_kill_chain_5_holds_for_a_session_of_the_same_principal() {
    chain_5(true, |world, _, victim| {
        let session = victim.ok("sessions.delegate", json!({}));
        shown(world, &session["token"])
    });
}

#[test]
fn t_kill_chain_5_a_flood_of_a_neighbour_mixes_up_and_starves_nobody() {
    let signer = Signer::new("k1");
    let world = world(true, &signer);
    let mut victim = world.agent();
    let mut flood = Vec::new();
    for at in 0..6 {
        let mut attacker = stated(&world, &signer, "globex", "eve");
        for tool in ["spin-long", "grow-memory", "recurse", "spin-long"] {
            let request =
                json!({"jsonrpc": "2.0", "id": 0, "method": "calls.execute", "params": {"tool": tool, "input": {}}});
            attacker.0.send(format!("{request}\n").as_bytes());
        }
        if at == 0 {
            let unknown = attacker.0.line().expect("an answer");
            assert_eq!(unknown["id"], 0);
        }
        flood.push(attacker);
    }
    until("the victim is served", || {
        let reply = victim.execute("text-stats", json!({"text": "one two"}));
        reply.ended() == ("ok", "none", "") && reply.value["output"]["words"] == json!(2)
    });
    let attackers: Vec<Agent> = (0..20).map(|_| stated(&world, &signer, "globex", "eve")).collect();
    nothing_is_mixed_up(&attackers, &mut victim, &world);
    for (at, mut attacker) in attackers.into_iter().enumerate() {
        let answer = attacker.0.line().expect("an answer");
        assert_eq!(answer["id"], 0);
        let words = answer.pointer("/result/reply/output/words");
        let own = words == Some(&json!(at + 1));
        // One key of one principal with another input is a mismatch, or still running, or there was no room.
        let code = answer.pointer("/result/reply/error/code").and_then(Value::as_str).unwrap_or_default();
        let refused = ["idempotency_mismatch", "in_flight", "overloaded", "rate_limited"].contains(&code);
        assert!(own || refused, "{answer}");
        assert!(!answer.to_string().contains("victim"), "{answer}");
    }
}

/// Another user of the machine, in no group of ours.
const STRANGER: u32 = 7_009;

fn open_to_all(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("mode");
}

/// Run a line of shell as the stranger. Whether it succeeded.
fn tries(line: &str) -> bool {
    as_user(Path::new("/bin/sh"), STRANGER, STRANGER).args(["-c", line]).status().expect("a shell").success()
}

fn guarded(mapped: u32) -> World {
    let own = rustix::process::geteuid().as_raw();
    let mut world = World::asleep(Plot { daemon: if is_root() { "agent_gid = 7000" } else { "" }, limits: "" });
    let people = format!(
        "[[principal]]\nuid = {mapped}\ntenant = \"local\"\nuser = \"alice\"\nagent = \"helper\"\n\
         [[operator]]\nuid = {own}\nuser = \"operator\"\ntenant = \"local\"\n"
    );
    let config = world.text("toolkeep.toml") + &people;
    world.home.put("toolkeep.toml", config.as_bytes());
    world.start();
    world
}

#[test]
fn t_kill_chain_8_a_local_user_does_not_get_in_by_a_socket() {
    if !is_root() {
        // Another uid is root's to take: here the own one is mapped to nobody, which the daemon cannot tell apart.
        println!("not root: the stranger is the own uid, mapped to nobody");
        let world = guarded(rustix::process::geteuid().as_raw() + 1);
        let mut stranger = Client::connect(&world.path("run/agent/agent.sock"));
        let told = stranger.line().expect("a reason");
        assert_eq!(told.pointer("/error/data/code"), Some(&json!("unauthorized")));
        assert!(stranger.is_closed());
        return;
    }
    let refused = |answer: Option<Value>| {
        let code = answer.as_ref().and_then(|answer| answer.pointer("/error/data/code").cloned());
        assert_eq!(code, Some(json!("unauthorized")), "{answer:?}");
    };
    let ask = |world: &World, socket: &str, gid: u32, method: &str| {
        Relay::connect(world, socket, STRANGER, gid).ask(method, &json!({}))
    };
    let (agent, admin) = ("run/agent/agent.sock", "run/admin/admin.sock");
    // The permissions of the directory alone: the uid is mapped.
    let world = guarded(STRANGER);
    assert_eq!(ask(&world, agent, STRANGER, "tools.list"), None, "not in the group");
    assert!(ask(&world, agent, GROUP, "tools.list").is_some_and(|answer| answer.get("result").is_some()), "in it");
    drop(world);
    // The map alone: everything stands open.
    let world = guarded(7_001);
    assert_eq!((ask(&world, agent, STRANGER, "tools.list"), ask(&world, admin, STRANGER, "health.get")), (None, None));
    let token = world.path("run/admin/token");
    assert!(!tries(&format!("cat {}", token.display())));
    for path in ["run", "run/agent", "run/admin"] {
        open_to_all(&world.path(path), 0o777);
    }
    for socket in [agent, admin] {
        open_to_all(&world.path(socket), 0o666);
    }
    for method in ["tools.list", "calls.execute", "session.get"] {
        refused(ask(&world, agent, STRANGER, method));
    }
    for method in ["health.get", "approvals.list", "tokens.mint", "daemon.drain"] {
        refused(ask(&world, admin, STRANGER, method));
    }
    assert!(!tries(&format!("cat {}", token.display())), "the token is the operator's alone");
    world.verified();
}

#[test]
fn t_kill_chain_8_a_planted_component_is_never_run() {
    let mut world = World::new();
    let count = |world: &World| world.agent().execute("text-stats", json!({"text": "one two"})).must("ok", "none", "");
    assert_eq!(count(&world).value["output"]["words"], 2);
    world.agent().execute("notes.list", json!({})).must("ok", "none", "");
    let cache = world.path("state/artifacts");
    if is_root() {
        assert!(!tries(&format!("ls {}", cache.display())), "the directory is closed to others");
        assert!(!tries(&format!("echo x > {}/planted.cwasm", cache.display())));
    }
    assert!(world.stop().success());
    // The permissions are off: every file is somebody else's code, or nonsense with the right name.
    let files: Vec<_> = std::fs::read_dir(&cache)
        .expect("cache")
        .map(|entry| entry.expect("entry").path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "cwasm"))
        .collect();
    assert!(files.len() > 1);
    let contents: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).expect("file")).collect();
    for (at, file) in files.iter().enumerate() {
        let other = &contents[(at + 1) % contents.len()];
        std::fs::remove_file(file).expect("removed");
        if at % 2 == 0 {
            std::fs::write(file, other).expect("planted");
        } else {
            let mut changed = contents[at].clone();
            let middle = changed.len() / 2;
            changed[middle] ^= 1;
            std::fs::write(file, changed).expect("planted");
        }
    }
    world.start();
    assert_eq!(count(&world).value["output"]["words"], 2, "it was compiled again");
    world.agent().execute("notes.list", json!({})).must("ok", "none", "");
    world.verified();
}

#[test]
fn t_kill_chain_8_links_in_a_shared_workspace_lead_nowhere() {
    let world = World::new();
    world.home.put("outside/secret.md", b"---\ntitle: secret\n---\nnobody's");
    let (outside, link) = (world.path("outside/secret.md"), world.path("notes/mine.md"));
    let mut agent = world.agent();
    let add = |agent: &mut Agent| agent.execute("notes.add", note("Mine"));
    // It is a link before the call: only the way in which paths are opened stands against it.
    symlink(&outside, &link).expect("link");
    assert_ne!(add(&mut agent).ended().1, "committed");
    assert!(!agent.execute("notes.list", json!({})).value.to_string().contains("nobody's"));
    std::fs::remove_file(&link).expect("removed");
    // It becomes one after the preview: what the plan expects stands against it as well.
    let shown = agent.preview("notes.add", note("Mine")).must("ok", "previewed", "");
    symlink(&outside, &link).expect("link");
    assert_ne!(agent.commit(shown.plan()).ended().1, "committed");
    std::fs::remove_file(&link).expect("removed");
    // And it flickers while calls run.
    symlink(&outside, world.path("notes/decoy")).expect("link");
    world.home.put("notes/mine.md", b"---\ntitle: Mine\n---\nb");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (one, two) = (world.path("notes/mine.md"), world.path("notes/decoy"));
            while !stop.load(Ordering::Relaxed) {
                renameat_with(CWD, &one, CWD, &two, RenameFlags::EXCHANGE).ok();
            }
        });
        for _ in 0..40 {
            agent.execute("notes.list", json!({}));
            let reply = add(&mut agent);
            assert!(!reply.value.to_string().contains("nobody's"), "{}", reply.value);
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(std::fs::read(&outside).expect("file"), b"---\ntitle: secret\n---\nnobody's");
    world.verified();
}
