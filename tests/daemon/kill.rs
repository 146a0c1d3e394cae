//! G1 and G6 through the whole daemon: killed at any moment, plans are before or after, and retries say the same.
//!
//! A client commits with keys until the daemon dies under it; the daemon is started again, and everything that was ever
//! asked is asked again. `TOOLKEEP_HARD=1` kills more often; `TOOLKEEP_SEED` repeats a run.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::world::{Agent, World};

/// Kills of an ordinary run.
const SAMPLE: usize = 64;
/// Kills of a hard run.
const HARD: usize = 500;
/// Worlds side by side; each has a daemon of its own.
const WORLDS: usize = 2;
/// Longest life of a daemon, in microseconds.
const LIFE_MAX_US: u64 = 60_000;

/// Tell what was done, also when the test passes.
pub(super) fn tell(line: &str) {
    writeln!(std::io::stderr(), "{line}").expect("stderr");
}

/// A small generator that a seed repeats (SplitMix64).
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % most
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

fn lives(kills: usize, seed: u64) -> (usize, usize) {
    let mut dice = Dice(seed);
    let mut world = World::new();
    let mut book = Book::default();
    // Compile before the first kill.
    for _ in 0..2 {
        book.next();
    }
    book.retry(&mut world.agent(), 0);
    let (mut recovered, mut round) = (0, 0);
    while round < kills {
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
    (recovered, book.asked.len())
}

#[test]
fn g1_g6_a_daemon_killed_at_any_moment_leaves_plans_before_or_after_and_tells_retries_the_same() {
    let hard = std::env::var_os("TOOLKEEP_HARD").is_some_and(|value| value == "1");
    let kills = if hard { HARD } else { SAMPLE };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let seed = std::env::var("TOOLKEEP_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(now);
    tell(&format!("G6 seed {seed}"));
    let found: Vec<(usize, usize)> = thread::scope(|scope| {
        let each = kills.div_ceil(WORLDS);
        let worlds: Vec<_> =
            (0..WORLDS as u64).map(|number| scope.spawn(move || lives(each, seed.wrapping_add(number)))).collect();
        worlds.into_iter().map(|world| world.join().expect("a world")).collect()
    });
    let recovered: usize = found.iter().map(|(recovered, _)| recovered).sum();
    let calls: usize = found.iter().map(|(_, calls)| calls).sum();
    let bound = 3.0 / kills as f64;
    tell(&format!(
        "G1/G6 kills of the daemon: 0 of {kills} torn (95 % bound {bound:.4}), {recovered} within a commit, {calls} calls, seed {seed}"
    ));
}
