//! G15 through the whole daemon: fifty secrets, a peer that echoes each in eight spellings, tools that tell everything they
//! see, and then everything that the daemon ever wrote or said is searched.
//!
//! That the search would find something is shown with a text that is no secret and went the same ways.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::{Value, json};
use toolkeep_tests::support::proof::told;

use super::super::world::{Agent, World};
use super::{agree, asleep, consent, grant, held, reach, send, write};
use crate::egress::echo::{self, canary, spelled};
use crate::egress::peer::Peer;

/// Secrets.
const CANARIES: u32 = 50;
/// Grants of one manifest: fewer than a manifest may have.
const EACH: u32 = 25;
/// What is no secret.
const CONTROL: &str = "Con/trol-0123456789";
/// The commands of an operator that show what was.
const COMMANDS: [&[&str]; 12] = [
    &["tools", "list"],
    &["runs", "list"],
    &["plans", "list"],
    &["approvals", "list", "--all"],
    &["outcomes", "list"],
    &["deadletters", "list", "--all"],
    &["transactions", "list", "--all"],
    &["policy", "show"],
    &["audit", "verify"],
    &["config", "show"],
    &["doctor"],
    &["tools", "describe", "told-0"],
];

/// The peer: what it echoes, under the status that the path wants.
fn server() -> Peer {
    Peer::raw(|stream, request| {
        let line = String::from_utf8_lossy(request).lines().next().unwrap_or_default().to_owned();
        let (_, told) = split(&echo::answer(request));
        let secret = secret_of(request);
        let head = match line.split(' ').nth(1).and_then(|path| path.rsplit('/').next()) {
            Some("refuses") => "HTTP/1.1 422 Unprocessable".to_owned(),
            Some("breaks") => "HTTP/1.1 500 Broken".to_owned(),
            Some("moves") => {
                format!("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:9/?key={}", spelled(&secret)[5].1)
            }
            Some("reasons") => format!("HTTP/1.1 200 {secret}"),
            _ => "HTTP/1.1 200 OK".to_owned(),
        };
        let mut answer = head.into_bytes();
        answer.extend(told);
        let _gone = stream.write_all(&answer);
    })
}

/// An answer without its status line: from the line break on.
fn split(answer: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let end = answer.windows(2).position(|two| two == b"\r\n").expect("a head");
    (answer[..end].to_vec(), answer[end..].to_vec())
}

fn secret_of(request: &[u8]) -> String {
    let text = String::from_utf8_lossy(request).into_owned();
    let value = |field: &str| text.split(&format!("\r\n{field}: ")).nth(1)?.lines().next().map(str::to_owned);
    let bearer = value("authorization").map(|value| value.trim_start_matches("Bearer ").to_owned());
    bearer.or_else(|| value("x-api-key")).unwrap_or_default()
}

/// The daemon: each secret with a grant of its own, of a tool that says what it sees and of one that logs it.
fn scene(peer: &Peer) -> World {
    let mut config = String::new();
    for number in 0..CANARIES {
        let slot = if number % 2 == 0 { "bearer" } else { "header:X-Api-Key" };
        config.push_str(&format!(
            "[secrets.s{number}]\nsource = \"file\"\npath = \"PLACE/s{number}\"\norigins = [\"{}\"]\nslot = \"{slot}\"\n",
            peer.origin()
        ));
    }
    let mut tools = Vec::new();
    for part in 0..CANARIES / EACH {
        let grants = |live: bool| -> String {
            let one = |number: u32| {
                let delivery = if live { "delivery = \"live\"\n" } else { "" };
                let more = format!("paths = [\"/s/{number}/**\"]\ncredential = \"s{number}\"\n{delivery}");
                grant(&format!("s{number}"), &peer.origin(), &more)
            };
            (part * EACH..(part + 1) * EACH).map(one).collect()
        };
        let limits = "tier = 3\n[limits]\nfuel = 2_000_000_000\n[[workspace]]\nname = \"books\"\naccess = \"write\"\n";
        tools.push((format!("told-{part}"), "reach", format!("{limits}{}", grants(false))));
        tools.push((format!("live-{part}"), "reach", format!("{limits}{}", grants(true))));
        tools.push((format!("echo-{part}"), "secret-echo", format!("tier = 3\n{}", grants(false))));
    }
    let tools: Vec<(&str, &str, String)> =
        tools.iter().map(|(name, wasm, rest)| (name.as_str(), *wasm, rest.clone())).collect();
    let mut world = asleep("", &tools);
    let place = world.path("secrets");
    fs::create_dir(&place).expect("folder");
    for number in 0..CANARIES {
        let path = place.join(format!("s{number}"));
        fs::write(&path, canary(number)).expect("secret");
        fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("mode");
    }
    let config = config.replace("PLACE", &place.display().to_string());
    let text = format!("{}\n{config}", world.text("toolkeep.toml"));
    world.home.put("toolkeep.toml", text.as_bytes());
    world.start();
    world
}

/// Everything that was said.
#[derive(Default)]
struct Heard(String);

impl Heard {
    fn note(&mut self, value: &Value) {
        self.0.push_str(&value.to_string());
        self.0.push('\n');
    }
}

/// One secret on all ways.
fn provoke(number: u32, origin: &str, (agent, admin): (&mut Agent, &mut Agent), heard: &mut Heard) {
    let (part, url) = (number / EACH, |end: &str| format!("{origin}/s/{number}/{end}"));
    let seen = agent.execute(&format!("echo-{part}"), json!({"url": url("ok")}));
    heard.note(&seen.value);
    let told = format!("told-{part}");
    let reads: Vec<Value> =
        ["ok", "refuses", "breaks", "moves", "reasons"].iter().map(|end| send("GET", &url(end), "")).collect();
    heard.note(&reach(agent, &told, &reads).value);
    let end = ["ok", "refuses", "breaks", "moves", "reasons"][number as usize % 5];
    let tool = if number.is_multiple_of(7) { format!("live-{part}") } else { told };
    let waits = held(reach(agent, &tool, &[send("POST", &url(end), "b"), write(&format!("{number}.txt"), "x")]));
    heard.note(&waits.value);
    heard.note(&admin.ok("approvals.show", json!({"approval": waits.approval()})));
    heard.note(&admin.raw("approvals.approve", consent(&waits)).expect("an answer"));
    let reply = agent.reply("calls.get", json!({"call": waits.call()}));
    heard.note(&reply.value);
    // A live request lets its tool go on; what that wants is asked about again.
    if reply.text("/status") == "held" {
        heard.note(&agree(admin, &reply).value);
    }
}

/// All files beneath a folder, one after the other; compiled programs left out.
fn files(folder: &Path, found: &mut Vec<u8>) {
    for entry in fs::read_dir(folder).expect("folder") {
        let entry = entry.expect("entry");
        let (path, kind) = (entry.path(), entry.file_type().expect("type"));
        if kind.is_dir() && entry.file_name() != "artifacts" {
            files(&path, found);
        } else if kind.is_file() {
            found.extend(fs::read(&path).expect("file"));
            found.push(b'\n');
        }
    }
}

#[test]
fn r48_t_s1_g15_fifty_secrets_echoed_in_eight_spellings_are_nowhere_in_what_the_daemon_writes_or_says() {
    let peer = server();
    let mut world = scene(&peer);
    let (mut agent, mut admin, mut heard) = (world.agent(), world.admin(), Heard::default());
    for number in 0..CANARIES {
        provoke(number, &peer.origin(), (&mut agent, &mut admin), &mut heard);
    }
    let control: Vec<Value> =
        spelled(CONTROL).iter().enumerate().map(|(at, (_, text))| write(&format!("control-{at}"), text)).collect();
    let waits = held(reach(&mut agent, "told-0", &control));
    heard.note(&agree(&mut admin, &waits).value);
    for arguments in COMMANDS {
        let output = world.cli(&[&["-o", "json"], arguments].concat());
        heard.0.push_str(&String::from_utf8_lossy(&output.stdout));
        heard.0.push_str(&String::from_utf8_lossy(&output.stderr));
    }
    let plans = admin.ok("plans.list", json!({}));
    for plan in plans["plans"].as_array().expect("plans") {
        heard.note(&admin.ok("plans.show", json!({"plan": plan["id"]})));
    }
    let running = written(&world);
    assert!(world.stop().success());
    let all = format!("{}{running}{}", heard.0, written(&world));
    let requests: Vec<String> =
        peer.requests().iter().map(|request| String::from_utf8_lossy(request).into_owned()).collect();
    let mut needles = Vec::new();
    let mut names = Vec::new();
    for number in 0..CANARIES {
        let secret = canary(number);
        assert!(requests.iter().any(|request| request.contains(&secret)), "secret {number} was never sent");
        for (how, spelling) in spelled(&secret) {
            for form in forms(&spelling) {
                needles.push(form);
                names.push(format!("secret {number} as {how}"));
            }
        }
    }
    let secrets = needles.len();
    for (how, spelling) in spelled(CONTROL) {
        for form in forms(&spelling) {
            needles.push(form);
            names.push(format!("the control as {how}"));
        }
    }
    let there = found(&needles, all.as_bytes());
    let hits: Vec<&String> = there.range(..secrets).map(|at| &names[*at]).collect();
    assert_eq!(hits, Vec::<&String>::new());
    let controls: BTreeSet<&String> = there.range(secrets..).map(|at| &names[*at]).collect();
    assert_eq!(controls.len(), spelled(CONTROL).len(), "the search would find only {controls:?}");
    assert!(all.matches("[secret s").count() > 100, "what was taken out is named");
    let more = format!("spellings of {CANARIES} secrets in {} MiB that the daemon wrote or said", all.len() >> 20);
    told("G15 secrets", secrets, "found", &more);
}

/// A spelling as it lies in a text: as it is, in a text of JSON, or in one inside of another.
fn forms(spelling: &str) -> Vec<String> {
    let escaped = |text: &str| serde_json::to_string(text).expect("JSON").trim_matches('"').to_owned();
    let plain = spelling.trim_end_matches('=').to_owned();
    let (once, twice) = (escaped(&plain), escaped(&escaped(&plain)));
    let mut forms = vec![plain, once, twice];
    forms.dedup();
    forms
}

/// Which of many texts lie in a long one; their places in the list. Each has at least eight bytes.
fn found(needles: &[String], text: &[u8]) -> BTreeSet<usize> {
    let mut starts = HashMap::<&[u8], Vec<usize>>::new();
    // Most places are passed over by their first two bytes.
    let two = |bytes: &[u8]| usize::from(bytes[0]) << 8 | usize::from(bytes[1]);
    let mut possible = vec![false; 1 << 16];
    for (at, needle) in needles.iter().enumerate() {
        starts.entry(&needle.as_bytes()[..8]).or_default().push(at);
        possible[two(needle.as_bytes())] = true;
    }
    let mut found = BTreeSet::new();
    for (place, start) in text.windows(8).enumerate() {
        if !possible[two(start)] {
            continue;
        }
        let here = starts.get(start).into_iter().flatten();
        found.extend(here.filter(|at| text[place..].starts_with(needles[**at].as_bytes())).copied());
    }
    found
}

/// Everything that lies on disk, as text.
fn written(world: &World) -> String {
    let mut found = Vec::new();
    for folder in ["state", "run", "books", "notes", "src"] {
        files(&world.path(folder), &mut found);
    }
    found.extend(world.log().into_bytes());
    String::from_utf8_lossy(&found).into_owned()
}
