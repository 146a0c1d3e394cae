//! P9: resident memory of an idle daemon with 100 tools, and of each call in flight.

use std::time::Duration;

use serde_json::json;
use toolkeep_benches::client::{Client, drive, request};
use toolkeep_benches::process::{anonymous_kib, resident_kib};
use toolkeep_benches::report::{Row, publish};
use toolkeep_benches::world::{PURE, World, component, hundred_tools};

/// MiB of an idle daemon.
const IDLE_MIB: f64 = 40.0;
/// KiB of a call in flight, what the guest itself touches not counted.
const CALL_KIB: f64 = 256.0;
const CALLS: usize = 64;
/// Long enough to be looked at, short enough for a bench.
const SPIN: &str = "tier = 0\n\n[limits]\nfuel = 1_000_000_000_000\ndeadline_ms = 4_000\n";
const SETTLE: Duration = Duration::from_millis(1_500);

fn main() {
    let world = World::new();
    hundred_tools(&world, PURE);
    world.install("spin", &component("spin"), SPIN);
    let daemon = world.start();
    std::thread::sleep(SETTLE);
    let (idle, idle_own) = (resident_kib(daemon.pid()) / 1024.0, anonymous_kib(daemon.pid()) / 1024.0);

    let line = request("calls.execute", "spin", &json!({"n": 0}));
    let mut client = Client::connect(&world.agent_socket()).expect("connected");
    let one = client.ask(&line).to_owned();
    assert!(one.contains("deadline") || one.contains("limit"), "{one}");
    let before = resident_kib(daemon.pid());
    let socket = world.agent_socket();
    let calls = std::thread::spawn(move || drive(&socket, CALLS, CALLS, "deadline", move |_| line.clone()));
    std::thread::sleep(SETTLE);
    let during = resident_kib(daemon.pid());
    let drove = calls.join().expect("driven");
    let per_call = (during - before) / CALLS as f64;
    let rows = [
        Row::at_most("P9a", "resident memory, idle with 100 tools", "MiB", idle, IDLE_MIB),
        Row::at_most(
            "P9b",
            "resident memory of a call in flight, its guest's pages included",
            "KiB",
            per_call,
            CALL_KIB,
        ),
    ];
    let note =
        format!("of the idle memory {idle_own:.1} MiB are backed by no file; {} calls ended otherwise", drove.wrong);
    publish(&rows, &[note]);
}
