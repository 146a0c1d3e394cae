//! What an operator relies on around requests and messages: names that are checked, usage that is counted, contents that
//! are looked for before anything is sent, and word of what a restart finds.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::super::scenery::manifest;
use super::super::world::World;
use super::peer::{Fault, Moment, Peer};
use super::{agree, asleep, awake, consent, grant, held, now, reach, resolve, send, write};
use crate::doors::running::until;

/// What is wrong with a manifest of the folder.
fn problem(world: &World, file: &str) -> Option<Value> {
    let listed = world.admin().ok("tools.list", json!({}));
    let problems = listed["problems"].as_array().expect("problems");
    problems.iter().find(|problem| problem["file"].as_str().is_some_and(|name| name.ends_with(file))).cloned()
}

#[test]
fn r48_a_manifest_that_names_a_secret_or_channel_which_nobody_defined_is_refused_and_changes_nothing() {
    let peer = Peer::new();
    let config = format!(
        "[channel.log]\nkind = \"file\"\npath = \"messages.jsonl\"\n\
         [channel.hook]\nkind = \"webhook\"\nurl = \"{0}/hook\"\nsecret = \"signing\"\nallow_private = true\n\
         [secrets.signing]\nsource = \"file\"\npath = \"/nowhere/signing\"\nchannels = [\"hook\"]\n\
         [secrets.elsewhere]\nsource = \"file\"\npath = \"/nowhere/elsewhere\"\norigins = [\"https://api.example.com\"]\nslot = \"bearer\"\n\
         [secrets.here]\nsource = \"file\"\npath = \"/nowhere/here\"\norigins = [\"{0}\"]\nslot = \"bearer\"\n",
        peer.origin()
    );
    let credential =
        |name: &str| format!("tier = 3\n{}", grant("api", &peer.origin(), &format!("credential = \"{name}\"")));
    let channel = |name: &str| format!("tier = 3\n[[message]]\nchannel = \"{name}\"\nto = [\"*@example.com\"]\n");
    let world = awake(&config, &[("reach", "reach", credential("here")), ("other", "reach", channel("log"))]);
    assert_eq!((problem(&world, "reach.toml"), problem(&world, "other.toml")), (None, None));
    for (name, rest, key, word) in [
        ("reach", credential("nobody"), "`http.api.credential`", "[secrets.nobody]"),
        ("reach", credential("signing"), "`http.api.credential`", "is for channels"),
        ("reach", credential("elsewhere"), "`http.api.credential`", "secrets.elsewhere.origins"),
        ("other", channel("pager"), "`message.pager.channel`", "[channel.pager]"),
        ("fresh", channel("pager"), "`message.pager.channel`", "[channel.pager]"),
    ] {
        manifest(&world, (name, "reach", &rest));
        world.admin().ok("tools.reload", json!({}));
        let file = format!("{name}.toml");
        let found = problem(&world, &file).unwrap_or_else(|| panic!("{rest} is accepted"));
        let text = found["problem"].as_str().unwrap_or_default();
        assert!(text.contains(key) && text.contains(word), "{found}");
        assert_eq!(found["kept_old"], json!(name != "fresh"), "{found}");
        let installed = world.path("candidate.toml");
        fs::write(&installed, world.text(&format!("tools/{file}")).replace("reach.wasm", "tools/reach.wasm"))
            .expect("manifest");
        let refused = world.admin().no("tools.install", json!({"manifest": installed}));
        assert!(refused["message"].as_str().is_some_and(|text| text.contains(word)), "{refused}");
    }
    let listed = world.agent().ok("tools.list", json!({}));
    let names: Vec<&str> =
        listed["tools"].as_array().expect("tools").iter().filter_map(|tool| tool["name"].as_str()).collect();
    assert!(names.contains(&"reach") && names.contains(&"other") && !names.contains(&"fresh"), "{names:?}");
}

#[test]
fn r12_a_reply_says_how_many_requests_a_call_made_and_what_they_cost() {
    let peer = Peer::new();
    let priced =
        |name: &str, path: &str, more: &str| grant(name, &peer.origin(), &format!("paths = [\"/{path}/**\"]\n{more}"));
    let rest = format!(
        "tier = 3\n{}{}{}",
        priced("dear", "dear", "price_usd = \"0.25\""),
        priced("cheap", "cheap", "price_usd = \"0.000001\""),
        priced("free", "free", "delivery = \"live\"")
    );
    let mut world = awake("", &[("reach", "reach", rest)]);
    let url = |path: &str| format!("{}{path}", peer.origin());
    let usage = |value: &Value| (value["usage"]["http_requests"].clone(), value["usage"]["cost_usd"].clone());
    let none = world.agent().execute("text-stats", json!({"text": "a"})).must("ok", "none", "");
    assert_eq!(usage(&none.value), (json!(0), json!("0")));
    let reads = [send("GET", &url("/dear/1"), ""), send("GET", &url("/cheap/1"), ""), send("GET", &url("/free/1"), "")];
    let read = reach(&mut world.agent(), "reach", &reads).must("ok", "none", "");
    assert_eq!(usage(&read.value), (json!(3), json!("0.250001")));
    // What is only staged has cost nothing yet.
    let writes =
        [send("GET", &url("/dear/1"), ""), send("POST", &url("/dear/2"), "b"), send("POST", &url("/cheap/2"), "b")];
    let waits = held(reach(&mut world.agent(), "reach", &writes));
    assert_eq!(usage(&waits.value), (json!(1), json!("0.25")));
    world.restart();
    let done = agree(&mut world.admin(), &waits).must("ok", "committed", "");
    assert_eq!(usage(&done.value), (json!(3), json!("0.500001")));
    peer.meets("/dear/3", &[Fault::Answers(409)]);
    let waits = held(reach(
        &mut world.agent(),
        "reach",
        &[send("POST", &url("/dear/3"), "b"), send("POST", &url("/dear/4"), "b")],
    ));
    let refused = agree(&mut world.admin(), &waits).must("failed", "discarded", "effect_refused");
    assert_eq!(usage(&refused.value), (json!(1), json!("0.25")), "a refusal is an answer; what waits is not sent");
    let waits = held(reach(&mut world.agent(), "reach", &[send("POST", &url("/free/2"), "b")]));
    let part = agree(&mut world.admin(), &waits).must("ok", "committed", "");
    assert_eq!(usage(&part.value).0, json!(1));
    assert_eq!(usage(&now(&world, waits.call()).value).0, json!(1), "the call that waited for it made it");
}

/// The file of the store that holds a content of this size.
fn blob(folder: &Path, bytes: u64) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).expect("folder").filter_map(Result::ok);
    entries.map(|entry| entry.path()).find_map(|path| {
        let stat = fs::metadata(&path).expect("stat");
        if stat.is_dir() { blob(&path, bytes) } else { (stat.len() == bytes).then_some(path) }
    })
}

#[test]
fn g1_an_interrupted_commit_does_not_go_on_while_a_content_of_it_cannot_be_read() {
    for restarts in [true, false] {
        interrupted(restarts);
    }
}

/// A commit that cannot go on at first, and then does: by a restart, or by itself.
fn interrupted(restarts: bool) {
    const BYTES: usize = 100_000;
    let peer = Peer::new();
    let rest = format!(
        "tier = 3\n[limits]\nfuel = 1_000_000_000\n[[workspace]]\nname = \"books\"\naccess = \"write\"\n{}",
        grant("shop", &peer.origin(), "")
    );
    let mut world = awake("", &[("reach", "reach", rest)]);
    peer.meets("/first", &[Fault::ClosesRead]);
    let url = |path: &str| format!("{}{path}", peer.origin());
    let steps =
        [send("POST", &url("/first"), "b"), send("POST", &url("/second"), &"s".repeat(BYTES)), write("f.txt", "x")];
    let waits = held(reach(&mut world.agent(), "reach", &steps));
    agree(&mut world.admin(), &waits).must("unknown", "unknown", "unknown_outcome");
    // The disk fails where the body of the second request lies: it is there, and cannot be read.
    let place = blob(&world.path("state/blobs"), BYTES as u64).expect("the body is kept");
    let aside = world.path("aside");
    fs::rename(&place, &aside).expect("moved");
    fs::create_dir(&place).expect("in its place");
    resolve(&mut world.admin(), waits.call(), true).must("unknown", "unknown", "unknown_outcome");
    assert_eq!(peer.reads().len(), 1, "nothing more is sent, nothing is given up");
    assert!(!world.path("books/f.txt").exists());
    assert!(world.log().contains("an interrupted commit could not go on"), "{}", world.log());
    fs::remove_dir(&place).expect("gone");
    fs::rename(&aside, &place).expect("back");
    if restarts {
        world.restart();
    }
    until("it goes on", || now(&world, waits.call()).text("/outcome") == "committed");
    assert_eq!(peer.reads_of("/second").len(), 1);
    assert_eq!(world.text("books/f.txt"), "x");
    world.verified();
}

#[test]
fn r43_what_a_restart_finds_unknown_is_told_and_logged() {
    let peer = Peer::new();
    let config = "[channel.log]\nkind = \"file\"\npath = \"alerts.jsonl\"\n\
                  [[notify]]\nevents = [\"outcome.unknown\", \"outcome.halted\"]\nchannels = [\"log\"]\n";
    let rest = format!("tier = 3\n{}", grant("shop", &peer.origin(), "first_byte_ms = 20000\n"));
    let mut world = asleep(config, &[("reach", "reach", rest)]);
    world.start();
    let waits = held(reach(&mut world.agent(), "reach", &[send("POST", &format!("{}/a", peer.origin()), "b")]));
    peer.stop_at(Some(Moment::Read));
    let line = json!({"jsonrpc": "2.0", "id": 9, "method": "approvals.approve", "params": consent(&waits)});
    let mut admin = world.admin();
    admin.0.send(format!("{line}\n").as_bytes());
    assert!(peer.stands(Duration::from_secs(60)));
    world.kill();
    peer.stop_at(None);
    assert!(!world.path("alerts.jsonl").exists(), "nobody could be told before");
    world.start();
    until("the operators are told", || {
        let told = fs::read_to_string(world.path("alerts.jsonl")).unwrap_or_default();
        told.contains("outcome.unknown") && told.contains(waits.call())
    });
    until("it is in the log", || {
        let log = world.log();
        log.contains("nobody knows what became of a request of these calls") && log.contains(waits.call())
    });
    resolve(&mut world.admin(), waits.call(), true).must("ok", "committed", "");
    let before = world.log().len();
    assert!(world.stop().success());
    world.start();
    until("it has started", || world.log()[before..].contains("ready"));
    assert!(!world.log()[before..].contains("nobody knows"), "what is resolved is not told again");
}
