//! P1: a read-only call over the agent socket with everything on, one client, against a bare echo plus a bare call.

use toolkeep_benches::client::{Client, text_stats, text_stats_input};
use toolkeep_benches::floor::{self, ECHO, Floor};
use toolkeep_benches::raw::{self, Raw};
use toolkeep_benches::report::{Row, publish};
use toolkeep_benches::world::{PURE, World, component};
use toolkeep_benches::{median, timed};

/// At most so many times the floor.
const PROMISE: f64 = 2.5;
const ROUNDS: usize = 30;
const WARM_UP_ROUNDS: usize = 5;
const PER_ROUND: usize = 200;

fn main() {
    floor::serve_if_asked();
    let wasm = component("text-stats");
    raw::check_settings(&wasm);
    let world = World::new();
    world.install("text-stats", &wasm, PURE);
    let _daemon = world.start();
    let mut ours = world.connect().expect("connected");
    let server = Floor::start();
    let mut bare = Client::connect(&server.socket()).expect("connected");
    let bare_call = Raw::new(&wasm);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");

    let (line, input) = (text_stats(), text_stats_input().to_string());
    let echo = format!("{ECHO}{line}");
    ours.call(&line, "none");
    let [mut calls, mut echoes, mut raws, mut both] = [const { Vec::new() }; 4];
    for round in 0..WARM_UP_ROUNDS + ROUNDS {
        if round == WARM_UP_ROUNDS {
            [&mut calls, &mut echoes, &mut raws, &mut both].into_iter().for_each(Vec::clear);
        }
        calls.extend((0..PER_ROUND).map(|_| timed(|| _ = ours.ask(&line).len())));
        echoes.extend((0..PER_ROUND).map(|_| timed(|| _ = bare.ask(&echo).len())));
        runtime.block_on(async {
            for _ in 0..PER_ROUND {
                let started = std::time::Instant::now();
                bare_call.call("text-stats", &input).await;
                raws.push(toolkeep_benches::micros(started.elapsed()));
            }
        });
        both.extend((0..PER_ROUND).map(|_| timed(|| _ = bare.ask(&line).len())));
    }
    ours.call(&line, "none");
    let [calls, echoes, raws, both] = [calls, echoes, raws, both].map(median);
    let row = Row::at_most_times("P1", "a read-only call, one client, p50", "µs", [calls, echoes + raws], PROMISE);
    let note = format!("echo {echoes:.1} µs, bare call {raws:.1} µs; both in one server {both:.1} µs");
    publish(&[row], &[note]);
}
