//! P11a: the replay of a recorded call, against its execution: both over a socket, the one on record and compared, the other
//! executed and recorded.

use std::collections::VecDeque;

use serde_json::{Value, json};
use toolkeep_benches::client::request;
use toolkeep_benches::report::{Row, publish};
use toolkeep_benches::world::{PURE, World, component};
use toolkeep_benches::{median, timed};

/// At most so many times the execution.
const PROMISE: f64 = 1.2;
const ROUNDS: usize = 20;
const WARM_UP_ROUNDS: usize = 3;
const PER_ROUND: usize = 10;
/// Words of the text that the tool counts: some milliseconds of work, as tools have.
const WORDS: usize = 40_000;

fn main() {
    let world = World::new();
    world.install("text-stats", &component("text-stats"), PURE);
    let _daemon = world.start();
    let mut agent = world.connect().expect("connected");
    let mut admin = world.operate().expect("an operator");
    let text: String = (0..WORDS).map(|number| format!("word{} ", number % 997)).collect();
    let call = request("calls.execute", "text-stats", &json!({"text": text, "top": 5}));
    let [mut replays, mut calls] = [const { Vec::new() }; 2];
    let mut made: VecDeque<String> = VecDeque::new();
    for round in 0..WARM_UP_ROUNDS + ROUNDS {
        if round == WARM_UP_ROUNDS {
            [&mut replays, &mut calls].into_iter().for_each(Vec::clear);
        }
        for _ in 0..PER_ROUND {
            let mut reply = Value::Null;
            calls.push(timed(|| reply = agent.call(&call, "none")));
            made.push_back(reply["result"]["reply"]["call_id"].as_str().expect("an id").to_owned());
        }
        while let Some(id) = made.pop_front() {
            let replay =
                json!({"jsonrpc": "2.0", "id": 1, "method": "replay.call", "params": {"call": id}}).to_string();
            let mut identical = false;
            replays.push(timed(|| identical = admin.ask(&replay).contains("\"identical\":true")));
            assert!(identical, "{}", admin.ask(&replay));
        }
    }
    let figures = [median(replays), median(calls)];
    publish(
        &[Row::at_most_times("P11a", "replay of a recorded call, p50 (floor: its execution)", "µs", figures, PROMISE)],
        &[],
    );
}
