//! G18: how long after an operator reached for the kill switch the last effect starts, with a thousand calls in flight.
//!
//! An effect starts with its intent, which is on record with its time; the time of asking is the same machine's. A second
//! figure is how long the operator waits for the answer, after which nothing starts at all.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use toolkeep::ambient::Ambient;
use toolkeep::ledger::{Ledger, Page};
use toolkeep_benches::micros;
use toolkeep_benches::report::{Row, publish};
use toolkeep_benches::world::{NOTES, PURE, World, component};
use toolkeep_core::audit::AuditKind;

/// Milliseconds from the asking after which no effect starts.
const PROMISE_MS: f64 = 50.0;
/// Calls in flight when the switch is set, at least.
const IN_FLIGHT: u64 = 1_000;
/// Connections, and requests that each sends at once.
const CONNECTIONS: usize = 32;
const EACH: usize = 62;
const ROUNDS: usize = 3;
/// Something that takes long enough for others to wait.
const SPIN: &str = "tier = 0\n\n[limits]\nfuel = 200_000_000\n";
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// How long the daemon may take until it is busy.
const PATIENCE: Duration = Duration::from_secs(60);

fn send_all(stream: &mut UnixStream, connection: usize) {
    let mut lines = String::new();
    for at in 0..EACH {
        let params = match at % 4 {
            0 | 1 => json!({"tool": "notes.add", "input": {"title": format!("Note {connection} {at}"), "body": "b"}}),
            2 => json!({"tool": "text-stats", "input": {"text": "a b"}}),
            _ => json!({"tool": "spin", "input": {}}),
        };
        let call = json!({"jsonrpc": "2.0", "id": at, "method": "calls.execute", "params": params});
        lines.push_str(&format!("{call}\n"));
    }
    stream.write_all(lines.as_bytes()).expect("sent");
}

/// When an intent was put on record last, in milliseconds since the Unix epoch.
fn last_intent_ms(world: &World) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let ledger = Ledger::open(&world.path("state/ledger"), Ambient::real()).await.expect("the ledger");
        let (mut page, mut last) = (Page::default(), 0);
        loop {
            let entries = ledger.audit_entries(page).await.expect("entries");
            let intents = entries.items.iter().filter(|entry| entry.kind == AuditKind::Intent);
            last = intents.map(|entry| entry.at_ms).fold(last, u64::max);
            match entries.next {
                Some(next) => page.cursor = Some(next),
                None => break,
            }
        }
        ledger.close().await.expect("closed");
        last
    })
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(now.as_millis()).expect("small")
}

/// One daemon, one switch: milliseconds to the last effect, microseconds to the answer, calls in flight.
fn round() -> (f64, f64, u64) {
    let world = World::new();
    world.configure("\n[limits]\nwaiting = 4096\nwait_ms = 600_000\n");
    world.install("notes", &component("notes"), NOTES);
    world.install("text-stats", &component("text-stats"), PURE);
    world.install("spin", &component("spin"), SPIN);
    let daemon = world.start();
    let mut streams: Vec<UnixStream> =
        (0..CONNECTIONS).map(|_| UnixStream::connect(world.agent_socket()).expect("connected")).collect();
    streams.iter_mut().enumerate().for_each(|(number, stream)| send_all(stream, number));
    let mut admin = world.operate().expect("an operator");
    let health = json!({"jsonrpc": "2.0", "id": 1, "method": "health.get", "params": {}}).to_string();
    let (began, mut in_flight) = (Instant::now(), 0);
    while in_flight < IN_FLIGHT {
        assert!(began.elapsed() < PATIENCE, "only {in_flight} are in flight");
        let answer: Value = serde_json::from_str(admin.ask(&health)).expect("JSON");
        in_flight = answer.pointer("/result/in_flight").and_then(Value::as_u64).expect("a number");
        std::thread::sleep(LOOK_EVERY);
    }
    let params = json!({"level": "global", "mode": "stop", "reason": "a bench"});
    let set = json!({"jsonrpc": "2.0", "id": 1, "method": "kill.set", "params": params}).to_string();
    let (asked_ms, asked) = (now_ms(), Instant::now());
    assert!(admin.ask(&set).contains("result"), "it is set");
    let answered = micros(asked.elapsed());
    for stream in streams {
        let answers = BufReader::new(stream).lines().take(EACH);
        assert_eq!(answers.filter(Result::is_ok).count(), EACH, "every call is answered");
    }
    drop(daemon);
    let late_ms = last_intent_ms(&world).saturating_sub(asked_ms);
    (late_ms as f64, answered, in_flight)
}

fn main() {
    let rounds: Vec<_> = (0..ROUNDS).map(|_| round()).collect();
    let worst = |of: fn(&(f64, f64, u64)) -> f64| rounds.iter().map(of).fold(0.0, f64::max);
    let rows = [
        Row::at_most(
            "G18a",
            "last effect that starts after the kill switch was asked for",
            "ms",
            worst(|r| r.0),
            PROMISE_MS,
        ),
        Row::at_most("G18b", "answer of the kill switch", "ms", worst(|r| r.1) / 1_000.0, PROMISE_MS),
    ];
    let fewest = rounds.iter().map(|round| round.2).min().unwrap_or(0);
    publish(&rows, &[format!("the worst of {ROUNDS}, with {fewest} calls in flight at least")]);
}
