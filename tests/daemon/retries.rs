//! G6: one key, 64 threads that try it again and again, and a daemon that is killed all the while: one commit, and the same
//! bytes for everybody.
//!
//! The call adds one to a counter, so a second commit would be seen. A hard run retries and kills as often as promised.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use toolkeep_tests::support::proof::{is_hard, is_over, seed, told};

use super::kill::Dice;
use super::scenery::manifest;
use super::world::{Plot, World, component};

/// Threads that try one key.
const THREADS: usize = 64;
/// Longest life of a daemon after it is ready, in microseconds.
const LIFE_MAX_US: u64 = 200_000;
/// How long a thread waits for an answer, or for a daemon.
const PATIENCE: Duration = Duration::from_secs(60);

/// How much is done: retries of each thread, and kills in all.
struct Measure {
    retries: usize,
    kills: usize,
}

fn counting() -> World {
    let mut world = World::asleep(Plot { daemon: "", limits: "waiting = 4096\nwait_ms = 60000" });
    std::fs::copy(component("counter"), world.path("tools/counter.wasm")).expect("component");
    let rest = "tier = 1\n[tiers]\nget = 0\nlist = 0\n[[keys]]\nbucket = \"counts\"\naccess = \"write\"\n";
    manifest(&world, ("counter", "counter", rest));
    world.start();
    world
}

/// One answer to the call, as the text of its reply and whether it was replayed; nothing if the daemon is gone.
fn ask(socket: &std::path::Path, line: &str) -> Option<(String, bool)> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.write_all(line.as_bytes()).ok()?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).ok()?;
    let (_, rest) = answer.split_once("\"reply\":")?;
    let (reply, after) = rest.rsplit_once(",\"replayed\":").or_else(|| rest.rsplit_once("},\"replayed\":"))?;
    Some((reply.to_owned(), after.starts_with("true")))
}

/// What all threads of one key have seen.
#[derive(Default)]
struct Seen {
    /// The one final reply, byte for byte.
    told: Mutex<Option<String>>,
    /// Final answers.
    finals: AtomicUsize,
    /// Answers that were given for the first time.
    fresh: AtomicUsize,
}

impl Seen {
    fn note(&self, reply: &str, replayed: bool) {
        let value: Value = serde_json::from_str(reply).unwrap_or_else(|error| panic!("{error}: {reply}"));
        match value["error"]["code"].as_str() {
            Some("in_flight" | "overloaded" | "unknown_outcome") => return,
            _ => assert_eq!(value["outcome"], "committed", "{reply}"),
        }
        self.finals.fetch_add(1, Ordering::Relaxed);
        self.fresh.fetch_add(usize::from(!replayed), Ordering::Relaxed);
        let mut told = self.told.lock().expect("told");
        match &*told {
            Some(before) => assert_eq!(before, reply, "two replies under one key"),
            None => *told = Some(reply.to_owned()),
        }
    }
}

/// One of the threads that work; it is none any more when this is dropped, also by a panic, which ends the others too.
struct Working<'a>(&'a AtomicUsize, &'a AtomicBool);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.1.store(true, Ordering::Relaxed);
        }
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Do `work` on so many threads, and `meanwhile` again and again until all of them are done. One that fails ends the others,
/// and fails this.
fn stormed(threads: usize, work: impl Fn(&AtomicBool) + Sync, mut meanwhile: impl FnMut(&dyn Fn() -> bool)) {
    let (done, working) = (AtomicBool::new(false), AtomicUsize::new(threads));
    thread::scope(|scope| {
        for _ in 0..threads {
            let (work, working) = (&work, Working(&working, &done));
            scope.spawn(move || {
                // All of it: a closure would take no more than the part that is named.
                let working = working;
                work(working.1);
            });
        }
        let is_working = || working.load(Ordering::Relaxed) > 0;
        while is_working() {
            meanwhile(&is_working);
        }
    });
}

/// Try one key from all threads while the daemon is killed. Returns how often it was.
fn one_key(world: &mut World, number: usize, measure: &Measure, kills_left: usize, dice: &mut Dice) -> usize {
    let params = json!({"tool": "counter.add", "input": {"name": format!("n{number}")}, "idempotency_key": format!("key-{number}")});
    let line = format!("{}\n", json!({"jsonrpc": "2.0", "id": 1, "method": "calls.execute", "params": params}));
    let socket = world.path("run/agent/agent.sock");
    let seen = Seen::default();
    let mut kills = 0;
    let again = |done: &AtomicBool| {
        let mut tries = 0;
        while tries < measure.retries && !done.load(Ordering::Relaxed) {
            match ask(&socket, &line) {
                Some((reply, replayed)) => {
                    seen.note(&reply, replayed);
                    tries += 1;
                }
                None => thread::sleep(Duration::from_millis(2)),
            }
        }
    };
    stormed(THREADS, again, |is_working| {
        thread::sleep(Duration::from_micros(dice.below(LIFE_MAX_US)));
        if kills < kills_left && is_working() {
            world.kill();
            kills += 1;
            world.start();
        }
    });
    let count = world.agent().execute("counter.get", json!({"name": format!("n{number}")}));
    assert_eq!(count.value["output"]["value"], 1, "committed once: {}", count.value);
    assert!(seen.finals.load(Ordering::Relaxed) > 0, "nobody was told");
    assert!(seen.fresh.load(Ordering::Relaxed) <= 1, "at most one is told for the first time");
    kills
}

#[test]
fn g6_r32_one_key_under_64_threads_and_kills_is_committed_once_and_told_in_the_same_bytes() {
    let measure = if is_hard() { Measure { retries: 1_000, kills: 500 } } else { Measure { retries: 30, kills: 8 } };
    let mut dice = Dice(seed());
    let mut world = counting();
    world.agent().execute("counter.get", json!({"name": "none"}));
    let (mut kills, mut keys) = (0, 0);
    while kills < measure.kills && (keys == 0 || !is_over()) {
        kills += one_key(&mut world, keys, &measure, measure.kills - kills, &mut dice);
        keys += 1;
    }
    world.verified();
    let more = format!("{THREADS} threads x {} retries of each of {keys} keys", measure.retries);
    told("G6 kills under retries", kills, "with a second commit or another reply", &more);
}

#[test]
fn a_thread_that_finds_something_wrong_ends_the_others_and_is_told_of() {
    let first = AtomicBool::new(true);
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let work = |done: &AtomicBool| {
            assert!(!first.swap(false, Ordering::Relaxed), "two replies under one key");
            while !done.load(Ordering::Relaxed) {
                thread::yield_now();
            }
        };
        stormed(4, work, |_| thread::yield_now());
    }));
    assert!(caught.is_err());
    let counted = AtomicUsize::new(0);
    stormed(
        4,
        |_| assert!(counted.fetch_add(1, Ordering::Relaxed) < 4),
        |is_working| assert!(is_working() || counted.load(Ordering::Relaxed) == 4),
    );
    assert_eq!(counted.into_inner(), 4);
}
