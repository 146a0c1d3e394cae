//! Transactions across kills: open with their last layer, or committed as a whole.

use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use toolkeep_tests::support::proof::{is_over, shuffled, size, told};

use super::super::world::{Agent, World};
use super::{begin, call, commit, get, note, rename, titles};

/// Kills of an ordinary run.
const SAMPLE: usize = 16;
/// Kills of a hard run.
const HARD: usize = 200;
/// Longest life of a daemon after a transaction began, in microseconds: longer than one takes.
const LIFE_MAX_US: u64 = 60_000;

#[test]
fn r08_a_transaction_goes_on_after_the_daemon_is_killed_between_its_calls() {
    let mut world = World::new();
    let before = world.snapshot();
    let transaction = begin(&mut world.agent());
    let first = note(&mut world.agent(), &transaction, "First");
    world.restart();
    assert_eq!(get(&mut world.agent(), &transaction)["layer"], first.value["transaction"]["layer"]);
    let listed = call(&mut world.agent(), &transaction, "notes.list", json!({})).must("ok", "staged", "");
    assert!(titles(&listed).contains(&"First"), "{}", listed.value);
    rename(&mut world.agent(), &transaction, "new_name").must("ok", "staged", "");
    assert!(world.stop().success());
    world.start();
    assert_eq!(world.snapshot(), before);
    commit(&mut world.agent(), &transaction).must("ok", "committed", "");
    assert!(world.path("notes/first.md").exists() && world.path("src/shop/new_name.py").exists());
    world.restart();
    assert!(commit(&mut world.agent(), &transaction).must("ok", "committed", "").replayed);
    world.verified();
}

/// Two notes and their commit, until the daemon is gone. How many of the three were answered well.
fn work(agent: &mut Agent, transaction: &str, round: usize) -> usize {
    let note = |name: &str| {
        let input = json!({"title": format!("{name} {round}"), "body": "b"});
        ("calls.execute", json!({"tool": "notes.add", "input": input, "transaction": transaction}))
    };
    let steps = [note("One"), note("Two"), ("transactions.commit", json!({"transaction": transaction}))];
    let mut done = 0;
    for (method, params) in steps {
        let Some(answer) = agent.raw(method, params) else { return done };
        assert_eq!(answer["result"]["reply"]["status"], "ok", "{answer}");
        done += 1;
    }
    done
}

#[test]
fn r08_g6_a_daemon_killed_at_any_moment_leaves_a_transaction_open_or_committed_whole() {
    let kills = size(SAMPLE, HARD);
    let mut world = World::new();
    note_warm(&world);
    let (mut open, mut committed) = (0, 0);
    for round in shuffled((0..kills).collect()) {
        if is_over() {
            break;
        }
        let mut agent = world.agent();
        let transaction = begin(&mut agent);
        // Every part of the work gets its kills.
        let life = Duration::from_micros(LIFE_MAX_US * round as u64 / kills as u64);
        let answered = thread::scope(|scope| {
            let working = scope.spawn(|| work(&mut agent, &transaction, round));
            thread::sleep(life);
            world.kill();
            working.join().expect("the client")
        });
        world.start();
        let mut agent = world.agent();
        let found = get(&mut agent, &transaction);
        let there = |name: &str| world.path(&format!("notes/{name}-{round}.md")).exists();
        let calls = usize::try_from(found["calls"].as_u64().expect("a number")).expect("few");
        assert_eq!(there("one"), there("two"), "half of a transaction: {found}");
        assert!(calls >= answered.min(2), "{answered} answers, then {found}");
        match found["state"].as_str() {
            Some("open" | "sealed") => {
                open += 1;
                assert!(!there("one") && answered < 3, "{found}");
                let done: Value = commit(&mut agent, &transaction).value;
                let wanted = if calls == 0 { "none" } else { "committed" };
                assert_eq!((&done["status"], &done["outcome"]), (&json!("ok"), &json!(wanted)), "{done}");
                assert_eq!((there("one"), there("two")), (calls >= 1, calls >= 2), "what was staged, and only that");
            }
            Some("committed") => {
                committed += 1;
                assert!(there("one") && calls == 2, "{found}");
                assert!(commit(&mut agent, &transaction).must("ok", "committed", "").replayed);
            }
            _ => panic!("neither open nor committed: {found}"),
        }
        world.verified();
    }
    let more = format!("{open} open, {committed} committed");
    told("G6 kills within a transaction", open + committed, "half", &more);
    assert!(open > 0);
}

/// Compile before the first kill.
fn note_warm(world: &World) {
    let mut agent = world.agent();
    let transaction = begin(&mut agent);
    note(&mut agent, &transaction, "Warm");
    agent.ok("transactions.rollback", json!({"transaction": transaction}));
}
