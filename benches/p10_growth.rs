//! P10: a read-only call of a daemon that has grown, against the same call of a new one.
//!
//! Grown: a million recorded calls, 10,000 tools of 100 components, 1,000 policies of which 20 are about the tool that is
//! called, 10,000 open runs. The ledger takes minutes to grow, so it is made once and kept in the target directory.

use std::fmt::Write as _;
use std::fs;

use serde_json::json;
use toolkeep_benches::client::{Client, drive, text_stats};
use toolkeep_benches::report::{Row, publish};
use toolkeep_benches::world::{Daemon, PURE, World, component, ten_thousand_tools};
use toolkeep_benches::{median, timed};

/// At most so many times the call of a new daemon.
const PROMISE: f64 = 1.2;
const RECORDED: usize = 1_000_000;
const RUNS: usize = 10_000;
const POLICIES: usize = 1_000;
/// Policies that are about the tool that is called.
const OWN_POLICIES: usize = 20;
const CLIENTS: usize = 64;
const ROUNDS: usize = 40;
const WARM_UP_ROUNDS: usize = 5;
const PER_ROUND: usize = 200;
/// Says in the kept folder that its ledger is complete.
const GROWN: &str = "grown";

fn policies() -> String {
    let mut text = String::from("permit (principal, action, resource);\n");
    for number in 1..POLICIES {
        let tool = if number < OWN_POLICIES { "text-stats".to_owned() } else { format!("many-{:04}", number * 7) };
        let unless = r#"context.time.hour < 0 || context.environment == "prod""#;
        let action = format!("[Action::\"call:{tool}\", Action::\"commit:{tool}\"]");
        writeln!(text, "@id(\"p{number}\") forbid (principal, action in {action}, resource) when {{ {unless} }};")
            .expect("a text");
    }
    text
}

fn grown() -> (World, Daemon) {
    let world = World::kept("p10");
    fs::create_dir_all(world.path("policies")).expect("a folder");
    fs::write(world.path("policies/all.cedar"), policies()).expect("policies");
    world.configure("\n[policy]\ndir = \"policies\"\n");
    world.install("text-stats", &component("text-stats"), PURE);
    ten_thousand_tools(&world, PURE);
    let daemon = world.start();
    if !world.path(GROWN).exists() {
        println!("making {RECORDED} recorded calls and {RUNS} open runs; this is done once");
        let line = text_stats();
        let called = drive(&world.agent_socket(), CLIENTS, RECORDED, r#""status":"ok""#, move |_| line.clone());
        assert_eq!(called.wrong, 0, "some calls failed");
        let open = json!({"jsonrpc": "2.0", "id": 1, "method": "runs.open", "params": {}}).to_string();
        let opened = drive(&world.agent_socket(), CLIENTS, RUNS, r#""result""#, move |_| open.clone());
        assert_eq!(opened.wrong, 0, "some runs were not opened");
        fs::write(world.path(GROWN), "").expect("a note");
    }
    (world, daemon)
}

fn main() {
    let (old, old_daemon) = grown();
    let new = World::new();
    new.install("text-stats", &component("text-stats"), PURE);
    let _new_daemon = new.start();
    let mut clients: [Client; 2] = [old.connect().expect("connected"), new.connect().expect("connected")];
    let line = text_stats();
    let mut figures = [const { Vec::new() }; 2];
    for round in 0..WARM_UP_ROUNDS + ROUNDS {
        if round == WARM_UP_ROUNDS {
            figures.iter_mut().for_each(Vec::clear);
        }
        for (client, figures) in clients.iter_mut().zip(&mut figures) {
            client.call(&line, "none");
            figures.extend((0..PER_ROUND).map(|_| timed(|| _ = client.ask(&line).len())));
        }
    }
    let what = "a read-only call after growth, p50 (floor: a new daemon)";
    let row = Row::at_most_times("P10", what, "µs", figures.map(median), PROMISE);
    publish(&[row], &[format!("the grown daemon was ready after {:.1} s", old_daemon.ready.as_secs_f64())]);
}
