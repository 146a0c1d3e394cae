//! G8: the 99th percentile of one tenant's calls while another tenant's hostile tools run at full load, against the same calls
//! alone; and what the daemon's memory came to meanwhile.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use toolkeep_benches::client::{Client, request, text_stats};
use toolkeep_benches::process::{peak_resident_kib, resident_kib};
use toolkeep_benches::report::{Row, publish};
use toolkeep_benches::world::{PURE, World, component};
use toolkeep_benches::{median, micros, quantile};

/// At most so many times the neighbour's p99 alone.
const PROMISE: f64 = 2.0;
/// MiB beyond what the hostile guests may have themselves.
const BEYOND_MIB: f64 = 64.0;
/// Linear memory of each hostile guest, in MiB.
const GUEST_MIB: f64 = 16.0;
/// Hostile tools, each called again and again by a connection of its own.
const HOSTILE: [&str; 8] =
    ["spin", "spin-host", "grow-memory", "flood-log", "random-flood", "recurse", "handle-flood", "giant-return"];
/// What bounds each of them: a tool that means no good takes what it may.
const LIMITS: &str = "tier = 0\n\n[limits]\nfuel = 500_000_000\nmemory_bytes = 16777216\n";
const ROUNDS: usize = 5;
const PER_ROUND: usize = 2_000;
/// Long enough that every hostile tool is at work.
const SETTLE: Duration = Duration::from_millis(300);

/// A connection that has shown a token.
fn shown(socket: &Path, token: &str) -> Client {
    let mut client = Client::connect(socket).expect("connected");
    let show = json!({"jsonrpc": "2.0", "id": 1, "method": "session.authenticate", "params": {"token": token}});
    assert!(client.ask(&show.to_string()).contains("result"), "the token is known");
    client
}

/// A token of another tenant: its own operator makes it, in a life of the daemon before the measured one.
fn token_of(world: &World, tenant: &str) -> String {
    let config = fs::read_to_string(world.path("toolkeep.toml")).expect("a configuration");
    let uid = rustix::process::geteuid().as_raw();
    world.configure(&format!("\n[[operator]]\nuid = {uid}\nuser = \"operator\"\ntenant = \"{tenant}\"\n"));
    let daemon = world.start();
    let params = json!({"user": "mallory", "agent": "probe"});
    let mint = json!({"jsonrpc": "2.0", "id": 1, "method": "tokens.mint", "params": params}).to_string();
    let answer: Value = serde_json::from_str(world.operate().expect("an operator").ask(&mint)).expect("JSON");
    drop(daemon);
    fs::write(world.path("toolkeep.toml"), config).expect("a configuration");
    answer.pointer("/result/token").and_then(Value::as_str).unwrap_or_else(|| panic!("{answer}")).to_owned()
}

/// The 99th percentile of so many calls, one after the other, in microseconds.
fn measured(client: &mut Client, line: &str) -> f64 {
    let times = (0..PER_ROUND).map(|_| {
        let began = Instant::now();
        let answer = client.ask(line);
        let took = began.elapsed();
        assert!(answer.contains(r#""words":10"#), "{answer}");
        micros(took)
    });
    quantile(times.collect(), 0.99)
}

fn main() {
    let world = World::new();
    world.install("text-stats", &component("text-stats"), PURE);
    for name in HOSTILE {
        world.install(name, &component(name), LIMITS);
    }
    let token = token_of(&world, "hostile");
    let daemon = world.start();
    let (socket, line) = (world.agent_socket(), text_stats());
    let mut client = world.connect().expect("connected");
    // Every component is loaded before anything is measured.
    for name in HOSTILE {
        shown(&socket, &token).ask(&request("calls.execute", name, &json!({})));
    }
    measured(&mut client, &line);
    let before = resident_kib(daemon.pid()) / 1024.0;
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    let ended = Arc::new(AtomicUsize::new(0));
    for _ in 0..ROUNDS {
        alone.push(measured(&mut client, &line));
        let stop = Arc::new(AtomicBool::new(false));
        let attackers: Vec<_> = HOSTILE
            .into_iter()
            .map(|name| {
                let (stop, ended) = (Arc::clone(&stop), Arc::clone(&ended));
                let (mut attacker, call) = (shown(&socket, &token), request("calls.execute", name, &json!({})));
                std::thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        attacker.ask(&call);
                        ended.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        std::thread::sleep(SETTLE);
        beside.push(measured(&mut client, &line));
        stop.store(true, Ordering::Relaxed);
        attackers.into_iter().for_each(|attacker| attacker.join().expect("an attacker"));
    }
    let more = peak_resident_kib(daemon.pid()) / 1024.0 - before;
    let log = fs::read_to_string(world.path("daemon.log")).unwrap_or_default();
    let panics = log.lines().filter(|line| line.contains("panicked") || line.contains("BUG")).count();
    let figures = [median(beside), median(alone)];
    let guests = HOSTILE.len() as f64 * GUEST_MIB;
    let rows = [
        Row::at_most_times("G8a", "p99 of a neighbour's call beside hostile tools", "µs", figures, PROMISE),
        Row::at_most("G8b", "memory beyond that at rest, the guests' own included", "MiB", more, guests + BEYOND_MIB),
    ];
    let ended = ended.load(Ordering::Relaxed);
    let note = format!(
        "{} hostile tools of another tenant at one time, {ended} calls of theirs ended; {panics} panics of the host",
        HOSTILE.len()
    );
    publish(&rows, &[note]);
    assert_eq!(panics, 0, "the host panicked: {log}");
}
