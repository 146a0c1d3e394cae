//! G1 through the whole daemon: killed before any of the system calls from the first byte of a call to the answer of whoever
//! agreed to it, and before any of the next life's while it recovers.
//!
//! One tracer counts the calls of all threads together. After each kill the workspace must hold the plan or nothing of it; what
//! an answer said is done is done; the call, made again under its key and agreed to if it still waits, is committed once.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;

use serde_json::{Value, json};
use toolkeep_tests::support::proof::{is_over, seed, shuffled, told};

use super::super::world::{Agent, Reply, Snapshot, World};
use super::{add, asleep, consent, count, message, write};
use crate::doors::running::{Client, until};
use crate::hard::program::Dice;
use crate::hard::strace::choose;
use crate::hard::tracer::Traced;

/// Cases of an ordinary run.
const SAMPLE: usize = 60;
/// Worlds side by side; each has a daemon of its own.
const WORLDS: usize = 2;
/// Of so many kills one is followed by a kill of the recovery.
const TWICE_EVERY: usize = 3;
/// Bytes of a large file.
const LARGE: usize = 150 * 1024;

/// A plan: the files before it, and the steps of the tool that makes it.
struct Shape {
    name: &'static str,
    before: &'static [(&'static str, &'static str)],
    steps: fn() -> Vec<Value>,
}

fn remove(path: &str) -> Value {
    json!({"op": "remove", "path": path})
}

fn make_dir(path: &str) -> Value {
    json!({"op": "make_dir", "path": path})
}

fn remove_dir(path: &str) -> Value {
    json!({"op": "remove_dir", "path": path})
}

fn rename(from: &str, to: &str) -> Value {
    json!({"op": "rename", "from": from, "to": to})
}

const TREE: &[(&str, &str)] =
    &[("readme.md", "old"), ("src/main.rs", "fn main() {}"), ("src/lib.rs", "old"), ("src/deep/old.rs", "// old")];

const SHAPES: &[Shape] = &[
    Shape { name: "create", before: &[], steps: || vec![write("new.md", "hello")] },
    Shape { name: "overwrite", before: TREE, steps: || vec![write("readme.md", "new")] },
    Shape { name: "delete", before: TREE, steps: || vec![remove("readme.md")] },
    Shape { name: "rename", before: TREE, steps: || vec![rename("readme.md", "src/deep/moved.md")] },
    Shape {
        name: "nested-create",
        before: &[],
        steps: || vec![make_dir("a"), make_dir("a/b"), make_dir("a/empty"), write("a/b/x", "x"), write("a/y", "y")],
    },
    Shape {
        name: "delete-tree",
        before: TREE,
        steps: || {
            let files = ["src/main.rs", "src/lib.rs", "src/deep/old.rs"].map(remove);
            files.into_iter().chain([remove_dir("src/deep"), remove_dir("src")]).collect()
        },
    },
    Shape {
        name: "rename-and-edit",
        before: TREE,
        steps: || {
            let moved = [make_dir("kept"), rename("src/lib.rs", "kept/lib.rs"), rename("readme.md", "src/lib.rs")];
            moved.into_iter().chain([write("src/lib.rs", "edited after the move"), write("fresh", "fresh")]).collect()
        },
    },
    Shape {
        name: "file-becomes-directory",
        before: &[("thing", "a file")],
        steps: || vec![remove("thing"), make_dir("thing"), write("thing/part", "a part")],
    },
    Shape {
        name: "directory-becomes-file",
        before: &[("thing/part", "a part")],
        steps: || vec![remove("thing/part"), remove_dir("thing"), write("thing", "a file")],
    },
    Shape {
        name: "large",
        before: &[("big", "small before"), ("gone", "to be removed")],
        steps: || vec![write("big", &"large ".repeat(LARGE / 6)), remove("gone")],
    },
    Shape {
        name: "many",
        before: &[("d0/f0", "0"), ("d0/f1", "1"), ("d1/f2", "2"), ("d1/f3", "3")],
        steps: || {
            let changed = ["d0/f0", "d1/f2"].map(|path| write(path, "after"));
            let made = (0..8).map(|number| write(&format!("new{number}"), "created"));
            changed.into_iter().chain(["d0/f1", "d1/f3"].map(remove)).chain(made).collect()
        },
    },
    Shape {
        name: "chain",
        before: &[("one", "one"), ("two", "two"), ("three", "three")],
        steps: || vec![rename("three", "four"), rename("two", "three"), rename("one", "two"), write("one", "new one")],
    },
    Shape { name: "message", before: &[], steps: || vec![write("sent", "x"), message("log", "Sent")] },
    Shape {
        name: "everything",
        before: TREE,
        steps: || vec![write("readme.md", "new"), remove("src/lib.rs"), message("log", "All"), add("other", 2)],
    },
];

/// One kill, or two.
#[derive(Debug, Clone)]
struct Case {
    shape: usize,
    /// Before which call of the first life.
    at: usize,
    /// Before which call of the life after it.
    again: Option<usize>,
}

/// A world whose daemon runs under trace.
struct Scene {
    world: World,
    daemon: Option<Traced>,
    /// Calls that were made, so that each has a key of its own.
    made: usize,
}

impl Scene {
    fn new() -> Self {
        let config = "[channel.log]\nkind = \"file\"\npath = \"messages.jsonl\"\n";
        let rest = "tier = 3\n[[workspace]]\nname = \"books\"\naccess = \"write\"\n[[keys]]\nbucket = \"counts\"\n\
                    access = \"write\"\n[[message]]\nchannel = \"log\"\nto = [\"*@example.com\"]\n";
        let world = asleep(config, &[("reach", "reach", rest.to_owned())]);
        let mut scene = Self { world, daemon: None, made: 0 };
        assert!(scene.start(None));
        // Compile before the first kill.
        scene.lay(&SHAPES[0]);
        let line = scene.request(&SHAPES[0]);
        assert!(scene.through(&line));
        scene
    }

    /// Start the daemon and wait until it answers; false if it was killed before.
    fn start(&mut self, at: Option<usize>) -> bool {
        drop(self.daemon.take());
        let (socket, daemon) = (self.world.path("run/admin/admin.sock"), Traced::start(self.world.serve(), at));
        until("the daemon answers or is gone", || daemon.is_over() || UnixStream::connect(&socket).is_ok());
        // One that answered before its call was reached is left alone from here on.
        let lives = daemon.disarm() < at.unwrap_or(usize::MAX) && !daemon.is_over();
        assert!(lives || at.is_some(), "the daemon ended: {}", self.world.log());
        self.daemon = Some(daemon);
        lives
    }

    fn traced(&self) -> &Traced {
        self.daemon.as_ref().expect("a daemon")
    }

    /// Make the workspace what it is before the plan.
    fn lay(&self, shape: &Shape) {
        let books = self.world.path("books");
        // The daemon holds the directory itself.
        for entry in std::fs::read_dir(&books).expect("workspace") {
            let path = entry.expect("entry").path();
            if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }.expect("removed");
        }
        for (path, text) in shape.before {
            self.world.home.put(&format!("books/{path}"), text.as_bytes());
        }
    }

    /// The request for a plan of this shape, under a key of its own; it also counts itself.
    fn request(&mut self, shape: &Shape) -> Value {
        self.made += 1;
        let mut steps = (shape.steps)();
        steps.push(add("made", 1));
        json!({"tool": "reach", "input": {"steps": steps}, "idempotency_key": format!("key-{}", self.made)})
    }

    /// Make the call and agree to it; whether it was answered as committed before the daemon was gone.
    fn through(&self, request: &Value) -> bool {
        self.asked(request).is_some_and(|answer| match answer["reply"]["outcome"].as_str() {
            Some("committed") => true,
            // What was agreed to before a kill is settled by the next life alone, at any moment.
            _ => {
                let code = answer.pointer("/reply/error/code").or(answer.get("code")).and_then(Value::as_str);
                assert!(matches!(code, Some("stale_plan" | "in_flight" | "approval_required")), "{answer}");
                false
            }
        })
    }

    /// The last answer, unless the daemon went away before it: the call's, or what became of it when it was agreed to.
    fn asked(&self, request: &Value) -> Option<Value> {
        let connected = |socket: &str| Client::try_connect(&self.world.path(socket)).map(Agent);
        let answer = connected("run/agent/agent.sock")?.raw("calls.execute", request.clone())?;
        let reply = Reply { value: answer["result"]["reply"].clone(), replayed: false };
        if reply.ended() != ("held", "pending", "approval_required") {
            return Some(answer["result"].clone());
        }
        let mut admin = connected("run/admin/admin.sock")?;
        let token = std::fs::read_to_string(self.world.path("run/admin/token")).expect("the token");
        admin.raw("session.authenticate", json!({"token": token.trim()}))?;
        let agreed = admin.raw("approvals.approve", consent(&reply))?;
        let told = [agreed.get("result"), agreed.pointer("/error/data")].into_iter().flatten().next();
        Some(told.unwrap_or_else(|| panic!("{agreed}")).clone())
    }

    fn books(&self) -> Snapshot {
        self.world.snapshot().into_iter().filter(|(path, _)| path.starts_with("books/")).collect()
    }

    /// How many plans have counted themselves.
    fn counted(&self) -> usize {
        count(&mut self.world.agent(), "reach", "made").map_or(0, |text| text.parse().expect("a number"))
    }

    /// Run one case. Returns whether each of the kills was reached.
    fn run(&mut self, case: &Case, reference: &Reference) -> [bool; 2] {
        let shape = &SHAPES[case.shape];
        let (before, name) = (self.counted(), shape.name);
        self.lay(shape);
        let request = self.request(shape);
        self.traced().arm(case.at);
        let was_told = self.through(&request);
        let cut = self.traced().is_over() || self.traced().disarm() >= case.at;
        let cut_again = !self.start(case.again);
        if cut_again {
            assert!(self.start(None));
        }
        let found = self.books();
        let is_there = found == reference.after;
        assert!(is_there || found == reference.before, "{name}: torn: {found:#?}");
        assert!(is_there || !was_told, "{name}: what was told to be committed is lost");
        // Asked again, it is what it was; what still waits is agreed to now.
        until("the call is settled", || self.through(&request));
        assert_eq!(self.books(), reference.after, "{name}");
        assert_eq!(self.counted(), before + 1, "{name}: committed once");
        let again = self.world.agent().reply("calls.execute", request);
        assert_eq!((again.text("/outcome"), again.replayed), ("committed", true), "{name}: {}", again.value);
        [cut, cut_again]
    }
}

/// A shape without any kill.
struct Reference {
    before: Snapshot,
    after: Snapshot,
    calls: usize,
}

fn reference(scene: &mut Scene, shape: &Shape) -> Reference {
    scene.lay(shape);
    let before = scene.books();
    let request = scene.request(shape);
    scene.traced().arm(usize::MAX);
    assert!(scene.through(&request), "{}", shape.name);
    let calls = scene.traced().disarm();
    Reference { before, after: scene.books(), calls }
}

/// Messages that were sent: how many lines there are, and how many of them with an id of their own.
fn messages(scene: &Scene) -> (usize, usize) {
    let text = std::fs::read_to_string(scene.world.path("messages.jsonl")).unwrap_or_default();
    let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let ids: BTreeSet<String> = lines.iter().map(|line| line["id"].to_string()).collect();
    (lines.len(), ids.len())
}

#[test]
fn g1_a_daemon_killed_at_every_syscall_of_stage_approve_commit_and_recover_has_done_all_or_nothing_once() {
    assert!(SHAPES.len() >= 12);
    let mut first = Scene::new();
    let references: Vec<Reference> = SHAPES.iter().map(|shape| reference(&mut first, shape)).collect();
    assert!(first.start(Some(usize::MAX)));
    let starting = first.traced().seen();
    assert!(starting > 0 && references.iter().all(|reference| reference.calls > 0), "the tracer counts no calls");
    let mut dice = Dice::new(seed());
    let mut cases = Vec::new();
    for (shape, reference) in references.iter().enumerate() {
        for at in 1..=reference.calls {
            let again = (at % TWICE_EVERY == 0).then(|| 1 + dice.below(starting));
            cases.push(Case { shape, at, again });
        }
    }
    let (total, left) = (cases.len(), Mutex::new(choose(shuffled(cases), SAMPLE)));
    drop(first);
    let tally = Mutex::new(BTreeMap::<&str, usize>::new());
    let add = |word, count| *tally.lock().expect("tally").entry(word).or_default() += count;
    std::thread::scope(|scope| {
        for _ in 0..WORLDS {
            scope.spawn(|| {
                let (mut scene, mut sent, mut kills) = (Scene::new(), 0, 0);
                while !is_over() {
                    let Some(case) = left.lock().expect("cases").pop() else { break };
                    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                        scene.run(&case, &references[case.shape])
                    }));
                    let Ok([cut, cut_again]) = caught else { panic!("{case:?} of shape {}", SHAPES[case.shape].name) };
                    sent += usize::from(["message", "everything"].contains(&SHAPES[case.shape].name));
                    // Where the call ended before it, the next start kills.
                    kills += 1 + usize::from(cut_again);
                    add("cases", 1);
                    add(if cut { "killed" } else { "ended before" }, 1);
                    add("killed while starting again", usize::from(cut_again));
                }
                until("every message is sent", || messages(&scene).1 >= sent);
                let (lines, ids) = messages(&scene);
                assert_eq!(ids, sent, "one message for each plan that has one");
                // Who delivers is told of a message again if a kill came between the delivery and its record.
                assert!(lines - ids <= kills, "{lines} messages under {ids} ids after {kills} kills");
                add("messages made again under their id", lines - ids);
                let residue = scene.world.snapshot().into_keys().find(|path| path.contains(".toolkeep-"));
                assert_eq!(residue, None);
                scene.world.verified();
            });
        }
    });
    let tally = tally.into_inner().expect("tally");
    let killed = tally.get("killed").copied().unwrap_or_default();
    assert!(killed > 0, "nothing was killed: {tally:?}");
    let more = format!("of {total} calls that change or tell something, over {} shapes, {tally:?}", SHAPES.len());
    told("G1 kills of a daemon at its calls", killed, "torn, lost or done twice", &more);
}
