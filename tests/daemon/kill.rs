//! G1 and G6 through the whole daemon: killed at any moment, plans are before or after, and retries say the same.
//!
//! A client commits with keys until the daemon dies under it; the daemon is started again, and everything that was ever
//! asked is asked again. A hard run kills more often.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use toolkeep_tests::support::proof::{is_over, seed, size, split_mix, told};

use super::world::{Agent, World};

/// Kills of an ordinary run.
const SAMPLE: usize = 64;
/// Kills of a hard run.
const HARD: usize = 500;
/// Worlds side by side; each has a daemon of its own.
const WORLDS: usize = 2;
/// Longest life of a daemon, in microseconds.
const LIFE_MAX_US: u64 = 60_000;

/// A small generator that a seed repeats (SplitMix64).
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, most: u64) -> u64 {
        split_mix(&mut self.0) % most
    }
}

/// What a client has asked for so far, and the final replies that it got.
#[derive(Default)]
struct Book {
    asked: Vec<Value>,
    told: BTreeMap<usize, Value>,
    /// The symbol that the tree has, if no rename was lost sight of.
    names: usize,
}

impl Book {
    /// The next request: a note, or a rename of the whole tree to the next name.
    fn next(&mut self) -> Value {
        let number = self.asked.len();
        let call = if number.is_multiple_of(2) {
            json!({"tool": "notes.add", "input": {"title": format!("Note {number}"), "body": "b"},
                "idempotency_key": format!("key-{number}")})
        } else {
            self.names += 1;
            json!({"tool": "rename-symbol", "idempotency_key": format!("key-{number}"),
                "input": {"from": name(self.names - 1), "to": name(self.names)}})
        };
        self.asked.push(call.clone());
        call
    }

    /// Ask until the daemon is gone.
    fn work(&mut self, agent: &mut Agent, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let number = self.asked.len();
            let call = self.next();
            let Some(answer) = agent.raw("calls.execute", call) else { return };
            self.note(number, &answer);
        }
    }

    fn note(&mut self, number: usize, answer: &Value) {
        let reply = &answer["result"]["reply"];
        assert_eq!(reply["outcome"], "committed", "{number}: {answer}");
        if let Some(before) = self.told.insert(number, reply.clone()) {
            assert_eq!(&before, reply, "request {number} was told two things");
            assert_eq!(answer["result"]["replayed"], true, "{number}");
        }
    }

    /// Ask everything of the last two lives again: each is done by now, once.
    fn retry(&mut self, agent: &mut Agent, from: usize) {
        for number in from..self.asked.len() {
            let answer = agent.raw("calls.execute", self.asked[number].clone()).expect("an answer");
            self.note(number, &answer);
        }
    }
}

fn name(number: usize) -> String {
    if number == 0 { "old_name".to_owned() } else { format!("name_{number}") }
}

/// Every file carries one and the same name of the symbol: returns its number.
fn whole(world: &World, names: usize) -> usize {
    let snapshot = world.snapshot();
    let residue: Vec<_> = snapshot.keys().filter(|name| name.contains(".toolkeep-")).collect();
    assert_eq!(residue, Vec::<&String>::new(), "temporaries are left");
    let is = |number: usize| {
        let symbol = name(number);
        let total = format!("644 def {symbol}():\n    return 1\n");
        let cart = format!("644 from total import {symbol}\nprint({symbol}())\n");
        let lives = format!("644 # {symbol} lives here\n");
        let files: Vec<&String> = snapshot.keys().filter(|name| name.starts_with("src/shop/")).collect();
        snapshot.get("src/total.py") == Some(&total)
            && snapshot.get("src/shop/cart.py") == Some(&cart)
            && snapshot.get(&format!("src/shop/{symbol}.py")) == Some(&lives)
            && files.len() == 2
    };
    (0..=names).rev().find(|number| is(*number)).unwrap_or_else(|| panic!("torn: {snapshot:#?}"))
}

/// Returns how many kills there were, how many of them within a commit, and how many calls.
fn lives(kills: usize, seed: u64) -> (usize, usize, usize) {
    let mut dice = Dice(seed);
    let mut world = World::new();
    let mut book = Book::default();
    // Compile before the first kill.
    for _ in 0..2 {
        book.next();
    }
    book.retry(&mut world.agent(), 0);
    let (mut recovered, mut round) = (0, 0);
    while round < kills && !is_over() {
        let from = book.asked.len();
        let mut agent = world.agent();
        let stop = AtomicBool::new(false);
        let life = Duration::from_micros(dice.below(LIFE_MAX_US));
        thread::scope(|scope| {
            let working = scope.spawn(|| book.work(&mut agent, &stop));
            thread::sleep(life);
            world.kill();
            stop.store(true, Ordering::Relaxed);
            working.join().expect("the client");
        });
        round += 1;
        let log = world.log().len();
        world.start();
        recovered += usize::from(world.log()[log..].contains("that the last life began"));
        // Before anything is retried, the tree is before or after the plan that was cut.
        whole(&world, book.names);
        book.retry(&mut world.agent(), from.saturating_sub(2));
        assert_eq!(whole(&world, book.names), book.names);
        world.verified();
    }
    book.retry(&mut world.agent(), 0);
    (round, recovered, book.asked.len())
}

#[test]
fn g1_g6_a_daemon_killed_at_any_moment_leaves_plans_before_or_after_and_tells_retries_the_same() {
    let kills = size(SAMPLE, HARD);
    let found: Vec<(usize, usize, usize)> = thread::scope(|scope| {
        let each = kills.div_ceil(WORLDS);
        let worlds: Vec<_> =
            (0..WORLDS as u64).map(|number| scope.spawn(move || lives(each, seed().wrapping_add(number)))).collect();
        worlds.into_iter().map(|world| world.join().expect("a world")).collect()
    });
    let (kills, recovered, calls) =
        found.iter().fold((0, 0, 0), |sum, world| (sum.0 + world.0, sum.1 + world.1, sum.2 + world.2));
    told("G1 kills of the daemon", kills, "torn", &format!("{recovered} within a commit, {calls} calls"));
}
