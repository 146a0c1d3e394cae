//! Signed statements of an issuer over the agent socket, with keys from a file and from a server.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::identity::{shown, stranger};
use super::signer::{Signer, issuer};
use super::world::{Plot, World};
use crate::doors::running::until;

fn world(keys: &str, signer: &Signer) -> World {
    let mut world = World::asleep(Plot::default());
    world.home.put("keys.json", signer.set().as_bytes());
    let config = world.text("toolkeep.toml") + &issuer(keys);
    world.home.put("toolkeep.toml", config.as_bytes());
    world.start();
    world
}

fn refused(world: &World, statement: &str) -> Value {
    let refusal = stranger(world).no("session.authenticate", json!({"token": statement}));
    assert_eq!(refusal["code"], "unauthorized", "{refusal}");
    refusal
}

#[test]
fn r15_a_statement_of_an_issuer_opens_the_agent_socket() {
    let signer = Signer::new("k1");
    let world = world("jwks_file = \"keys.json\"", &signer);
    let statement = signer.statement("local", "alice", "helper", &json!({}));
    let mut agent = shown(&world, &json!(statement));
    let session = agent.ok("session.get", json!({}));
    assert_eq!(session["principal"], json!({"tenant": "local", "user": "alice", "agent": "helper"}));
    assert_eq!((&session["authenticated"], &session["credential"]), (&json!("jwt"), &json!("issuer:corp")));
    agent.execute("notes.add", json!({"title": "One", "body": "b"})).must("ok", "committed", "");
    let child = agent.ok("sessions.delegate", json!({"tools": ["text-stats"]}));
    assert!(child["expires_at_ms"].as_u64() <= session["expires_at_ms"].as_u64(), "{child}");
    shown(&world, &child["token"]).execute("text-stats", json!({"text": "a"})).must("ok", "none", "");
    assert_eq!(world.admin().ok("health.get", json!({}))["issuers"][0]["keys"], 1);

    let stranger = Signer::new("k1");
    for lie in [
        stranger.statement("local", "alice", "helper", &json!({})),
        Signer::new("k2").statement("local", "alice", "helper", &json!({})),
        signer.statement("umbrella", "alice", "helper", &json!({})),
        signer.statement("local", "alice", "helper", &json!({"exp": 1})),
        signer.statement("local", "alice", "helper", &json!({"nbf": 9_999_999_999_u64})),
        signer.statement("local", "alice", "helper", &json!({"aud": "other"})),
        signer.statement("local", "alice", "helper", &json!({"iss": "https://other.example"})),
        signer.statement("local", "Alice", "helper", &json!({})),
    ] {
        refused(&world, &lie);
    }
    world.verified();
}

#[test]
fn t_i4_a_statement_that_expires_stops_the_next_request() {
    let signer = Signer::new("k1");
    let world = world("jwks_file = \"keys.json\"\nleeway_s = 1", &signer);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time").as_secs();
    let short = signer.statement("local", "alice", "helper", &json!({"exp": now + 3}));
    let mut agent = shown(&world, &json!(short));
    agent.ok("tools.list", json!({}));
    until("the statement expires", || agent.raw("tools.list", json!({})).expect("an answer").get("error").is_some());
    assert_eq!(agent.no("tools.list", json!({}))["code"], "unauthorized");
}

/// A server of a key set that can be changed.
struct Server {
    url: String,
    set: Arc<Mutex<String>>,
    /// A field of its answers, with the line before it.
    date: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
}

impl Server {
    fn new(set: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/keys", listener.local_addr().expect("an address"));
        let (set, asked) = (Arc::new(Mutex::new(set)), Arc::new(AtomicUsize::new(0)));
        let date = Arc::new(Mutex::new(String::new()));
        let (served, dated, counted) = (Arc::clone(&set), Arc::clone(&date), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                let mut request = [0; 4_096];
                let _length = stream.read(&mut request);
                counted.fetch_add(1, Ordering::SeqCst);
                let body = served.lock().expect("the set").clone();
                let date = dated.lock().expect("the date").clone();
                let head =
                    format!("HTTP/1.1 200 OK\r\ncontent-length: {}{date}\r\nconnection: close\r\n\r\n", body.len());
                let _gone = stream.write_all((head + &body).as_bytes());
            }
        });
        Self { url, set, date, asked }
    }
}

#[test]
fn t_i5_keys_of_a_server_are_kept_and_read_again_for_a_key_that_is_not_known() {
    let (first, second) = (Signer::new("k1"), Signer::new("k2"));
    let server = Server::new(first.set());
    let world = world(&format!("jwks_url = \"{}\"", server.url), &first);
    let statement = first.statement("local", "alice", "helper", &json!({}));
    until("the keys are read", || world.admin().ok("health.get", json!({}))["issuers"][0]["keys"] == json!(1));
    for _ in 0..20 {
        shown(&world, &json!(statement));
    }
    assert_eq!(server.asked.load(Ordering::SeqCst), 1, "keys are kept");
    let rotated = second.statement("local", "alice", "helper", &json!({}));
    *server.set.lock().expect("the set") = second.set();
    until("the new key is read", || {
        let answer = stranger(&world).raw("session.authenticate", json!({"token": rotated})).expect("an answer");
        answer.get("result").is_some()
    });
    refused(&world, &statement);
    // A set that cannot be used leaves the keys that there were.
    *server.set.lock().expect("the set") = "{\"keys\": [{\"kty\": \"oct\", \"k\": \"AAAA\"}]}".to_owned();
    until("the keys are asked for again", || {
        refused(&world, &statement);
        world.admin().ok("health.get", json!({}))["issuers"][0]["problem"].is_string()
    });
    shown(&world, &json!(rotated));
    let before = server.asked.load(Ordering::SeqCst);
    for _ in 0..200 {
        refused(&world, &Signer::new("k9").statement("local", "alice", "helper", &json!({})));
    }
    let more = server.asked.load(Ordering::SeqCst) - before;
    assert!(more < 100, "a stranger has the keys read {more} times");
}

#[test]
fn r53_the_command_line_shows_a_statement_and_waits_for_keys_that_are_read_again() {
    let (first, second) = (Signer::new("k1"), Signer::new("k2"));
    let world = world("jwks_file = \"keys.json\"", &first);
    world.home.put("keys.json", second.set().as_bytes());
    world.home.put("statement", second.statement("local", "alice", "helper", &json!({})).as_bytes());
    until("the statement is taken", || {
        let output = world.cli(&["--token-file", "statement", "-o", "json", "sessions", "show"]);
        output.status.success() && String::from_utf8_lossy(&output.stdout).contains("\"helper\"")
    });
}

#[test]
fn r53_the_doctor_looks_at_the_keys_and_the_clock_of_every_issuer_and_says_what_to_do() {
    let signer = Signer::new("k1");
    let server = Server::new(signer.set());
    let mut world = world(&format!("jwks_url = \"{}\"", server.url), &signer);
    until("the keys are read", || world.admin().ok("health.get", json!({}))["issuers"][0]["keys"] == json!(1));
    let doctor = |world: &World, check: &str| {
        let output = world.cli(&["-o", "json", "doctor"]);
        let told: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let of = |entry: &&Value| entry["check"] == check;
        told.as_array().expect("findings").iter().find(of).cloned().unwrap_or(Value::Null)
    };
    let well = doctor(&world, "issuer");
    assert_eq!(well["grade"], "well", "{well}");
    assert!(
        well["found"].as_str().is_some_and(|found| found.contains("1 keys") && found.contains("minutes old")),
        "{well}"
    );
    assert_eq!(doctor(&world, "issuer's clock"), Value::Null, "a server that tells no time says nothing of clocks");

    *server.date.lock().expect("the date") = "\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT".to_owned();
    let clock = doctor(&world, "issuer's clock");
    assert_eq!(clock["grade"], "problem", "{clock}");
    assert!(clock["hint"].as_str().is_some_and(|hint| hint.contains("NTP")), "{clock}");

    // Keys that cannot be read any more: the daemon goes on with those it has, and without it nobody gets in.
    *server.set.lock().expect("the set") = "gone".to_owned();
    let warned = doctor(&world, "issuer");
    assert_eq!(warned["grade"], "warning", "{warned}");
    world.kill();
    let problem = doctor(&world, "issuer");
    assert_eq!(problem["grade"], "problem", "{problem}");
    assert!(problem["hint"].as_str().is_some_and(|hint| hint.contains("jwks_url")), "{problem}");
}
