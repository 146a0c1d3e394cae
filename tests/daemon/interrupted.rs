//! Budgets of a daemon that is killed at any moment: nothing is lost, nothing leaks, nothing is charged twice.
//!
//! A client reads and writes in a run until the daemon dies under it. After each start the use of the run must be the sum of
//! what its recorded calls used, plus what calls that were cut off had reserved, and no reservation may be left. A hard run
//! kills more often.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use toolkeep_tests::support::proof::{is_over, seed, size, told};

use super::kill::Dice;
use super::world::{Agent, World};

/// Kills of an ordinary run.
const SAMPLE: usize = 100;
/// Kills of a hard run.
const HARD: usize = 500;
/// Worlds side by side; each has a daemon of its own.
const WORLDS: usize = 2;
/// Longest life of a daemon, in microseconds.
const LIFE_MAX_US: u64 = 60_000;
/// What a call reserves: the fuel of a manifest that says nothing.
const FUEL: u64 = 2_000_000_000;
/// Calls that one run may make.
const CALLS: u64 = 60;

/// What a client asks for until the daemon is gone.
struct Client {
    run: Value,
    asked: u64,
    /// Replies of calls that were committed and told.
    told: u64,
}

impl Client {
    fn work(&mut self, agent: &mut Agent, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            self.asked += 1;
            let number = self.asked;
            let call = if number.is_multiple_of(3) {
                json!({"tool": "text-stats", "input": {"text": number.to_string()}, "run": self.run})
            } else {
                json!({"tool": "notes.add", "input": {"title": format!("Note {number:08}"), "body": "b"}, "run": self.run})
            };
            let Some(answer) = agent.raw("calls.execute", call) else { return };
            let reply = &answer["result"]["reply"];
            match (reply["status"].as_str(), reply["error"]["code"].as_str()) {
                (Some("ok"), _) => self.told += u64::from(reply["outcome"] == "committed"),
                (Some("denied"), Some("budget_exceeded")) => return,
                _ => panic!("{answer}"),
            }
        }
    }
}

/// A run and all of its calls.
fn whole(agent: &mut Agent, run: &Value) -> (Value, Vec<Value>) {
    let (mut calls, mut cursor) = (Vec::new(), Value::Null);
    loop {
        let mut page = agent.ok("runs.get", json!({"run": run, "cursor": cursor}));
        calls.extend(page["calls"].as_array().expect("calls").iter().cloned());
        cursor = page["next_cursor"].take();
        if cursor.is_null() {
            return (page["budget"].take(), calls);
        }
    }
}

/// Check the balance of a run at rest; returns how many calls were cut off.
fn audit(agent: &mut Agent, run: &Value, bytes: u64) -> u64 {
    let (budget, calls) = whole(agent, run);
    let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("no number: {value} of {budget}"));
    let admitted: Vec<&Value> = calls.iter().filter(|call| call["error"] != "budget_exceeded").collect();
    let fuel: u64 = admitted.iter().map(|call| number(&call["usage"]["fuel"])).sum();
    let committed = admitted.iter().filter(|call| call["outcome"] == "committed").count() as u64;
    let used = &budget["used"];
    let recorded = admitted.len() as u64;
    let cut =
        number(&used["calls"]).checked_sub(recorded).unwrap_or_else(|| panic!("lost: {used} of {recorded} calls"));
    assert_eq!(number(&used["fuel"]), fuel + cut * FUEL, "{cut} of {recorded} calls were cut off: {used}");
    assert_eq!(number(&used["bytes_written"]), committed * bytes, "{used}");
    assert_eq!(number(&used["steps"]), number(&used["calls"]));
    assert!(number(&used["calls"]) <= CALLS, "overspent: {used}");
    for meter in ["calls", "fuel", "bytes_written", "wall_ms", "requests", "approvals"] {
        assert_eq!(budget["reserved"][meter], 0, "a reservation leaked: {budget}");
    }
    cut
}

fn open(agent: &mut Agent) -> Value {
    agent.ok("runs.open", json!({"budget": {"calls": CALLS, "fuel": 900_000_000_000_000_u64}}))["run"].clone()
}

/// Returns how many kills there were, how many calls were cut off, and how many runs.
fn lives(kills: usize, seed: u64) -> (usize, u64, u64) {
    let mut dice = Dice(seed);
    let mut world = World::new();
    let shown = world.agent().preview("notes.add", json!({"title": "Note 00000000", "body": "b"}));
    let bytes = shown.value["plan"]["totals"]["bytes_written"].as_u64().expect("bytes");
    let mut client = Client { run: open(&mut world.agent()), asked: 0, told: 0 };
    let (mut done, mut cut, mut runs) = (0, 0, 1);
    // A run must be on the disk before a kill can be survived by it.
    world.verified();
    while done < kills && !is_over() {
        done += 1;
        let mut agent = world.agent();
        let stop = AtomicBool::new(false);
        let life = Duration::from_micros(dice.below(LIFE_MAX_US));
        thread::scope(|scope| {
            let working = scope.spawn(|| client.work(&mut agent, &stop));
            thread::sleep(life);
            world.kill();
            stop.store(true, Ordering::Relaxed);
            working.join().expect("the client");
        });
        world.start();
        let mut agent = world.agent();
        let now = audit(&mut agent, &client.run, bytes);
        let (budget, calls) = whole(&mut agent, &client.run);
        let committed = calls.iter().filter(|call| call["outcome"] == "committed").count() as u64;
        assert!(committed >= client.told, "{committed} of {} commits are on record", client.told);
        if budget["left"]["calls"].as_u64().is_some_and(|left| left < CALLS / 4) {
            cut += now;
            runs += 1;
            client = Client { run: open(&mut agent), asked: client.asked, told: 0 };
            world.verified();
        }
    }
    cut += audit(&mut world.agent(), &client.run, bytes);
    // Memory says what the ledger says.
    let before = whole(&mut world.agent(), &client.run).0;
    assert!(world.stop().success());
    world.start();
    assert_eq!(whole(&mut world.agent(), &client.run).0, before);
    world.verified();
    (done, cut, runs)
}

#[test]
fn r26_g1_a_daemon_killed_at_any_moment_neither_loses_nor_leaks_nor_overspends_a_budget() {
    let kills = size(SAMPLE, HARD);
    let found: Vec<(usize, u64, u64)> = thread::scope(|scope| {
        let each = kills.div_ceil(WORLDS);
        let worlds: Vec<_> =
            (0..WORLDS as u64).map(|number| scope.spawn(move || lives(each, seed().wrapping_add(number)))).collect();
        worlds.into_iter().map(|world| world.join().expect("a world")).collect()
    });
    let (kills, cut, runs) =
        found.iter().fold((0, 0, 0), |sum, world| (sum.0 + world.0, sum.1 + world.1, sum.2 + world.2));
    told(
        "G1 budgets across kills",
        kills,
        "wrong",
        &format!("{cut} calls were cut off and count in full, {runs} runs"),
    );
}
