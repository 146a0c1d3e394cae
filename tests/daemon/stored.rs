//! Plans that were stored and are committed later: charged once however often that is asked, and not while their run is held or
//! spending is paused.

use std::sync::Barrier;
use std::thread;

use serde_json::{Value, json};

use super::identity::shown;
use super::world::{Agent, Plot, Reply, World};
use crate::doors::running::until;

/// Commits of one plan at one moment.
const AT_ONCE: usize = 6;
/// How often that is tried.
const ROUNDS: usize = 6;

fn open(agent: &mut Agent, asked: Value) -> Value {
    agent.ok("runs.open", asked)["run"].clone()
}

fn note(tool: &str, title: &str, run: &Value) -> Value {
    json!({"tool": tool, "input": {"title": title, "body": "b"}, "run": run})
}

fn used(agent: &mut Agent, run: &Value) -> Value {
    agent.ok("runs.get", json!({"run": run}))["budget"]["used"].clone()
}

fn bytes(reply: &Reply) -> u64 {
    reply.value["plan"]["totals"]["bytes_written"].as_u64().expect("bytes")
}

/// Commit a plan from several connections at one moment: what each was answered.
fn at_once(world: &World, plan: &str) -> Vec<Value> {
    let barrier = Barrier::new(AT_ONCE);
    thread::scope(|scope| {
        let commits: Vec<_> = (0..AT_ONCE)
            .map(|_| {
                scope.spawn(|| {
                    let mut agent = world.agent();
                    barrier.wait();
                    agent.raw("plans.commit", json!({"plan": plan})).expect("an answer")
                })
            })
            .collect();
        commits.into_iter().map(|commit| commit.join().expect("a commit")).collect()
    })
}

#[test]
fn r26_a_preview_that_is_committed_several_times_at_once_is_charged_once() {
    let mut world = World::new();
    let mut agent = world.agent();
    let run = open(&mut agent, json!({"budget": {"bytes_written": 1_000_000}}));
    let mut wanted = 0;
    for round in 0..ROUNDS {
        let made = agent.reply("calls.preview", note("notes.add", &format!("N{round}"), &run));
        let answers = at_once(&world, made.plan());
        wanted += bytes(&made);
        assert_eq!(used(&mut agent, &run)["bytes_written"], json!(wanted), "{answers:?}");
    }
    assert!(world.stop().success());
    world.start();
    assert_eq!(used(&mut world.agent(), &run)["bytes_written"], json!(wanted), "the ledger says the same");
}

#[test]
fn r26_a_preview_that_is_held_several_times_at_once_counts_as_one_that_waits() {
    let mut world = World::new();
    let mut agent = world.agent();
    let run = open(&mut agent, json!({"budget": {"approvals": 100}}));
    let mut wanted = 0;
    for round in 0..ROUNDS {
        let made = agent.reply("calls.preview", note("notes2.add", &format!("N{round}"), &run));
        let answers = at_once(&world, made.plan());
        wanted += bytes(&made);
        let now = used(&mut agent, &run);
        assert_eq!((&now["approvals"], &now["bytes_written"]), (&json!(round + 1), &json!(wanted)), "{answers:?}");
    }
    let before = used(&mut agent, &run);
    assert!(world.stop().success());
    world.start();
    assert_eq!(used(&mut world.agent(), &run), before, "the ledger says the same");
}

#[test]
fn r24_nothing_of_a_held_run_is_committed_before_its_operator_released_it() {
    let world = World::new();
    let (mut agent, mut admin) = (world.agent(), world.admin());
    let run = open(&mut agent, json!({"budget": {"calls": 6}, "over_budget": "hold"}));
    let done = agent.reply("calls.execute", note("notes.add", "Done", &run)).must("ok", "committed", "");
    let plain = agent.reply("calls.preview", note("notes.add", "Plain", &run)).must("ok", "previewed", "");
    let tier2 = agent.reply("calls.preview", note("notes2.add", "Tier 2", &run)).must("ok", "previewed", "");
    let undo = agent.reply("undo.propose", json!({"call": done.call()})).must("ok", "previewed", "");
    let begun = agent.ok("transactions.begin", json!({"run": run}))["transaction"].clone();
    let mut staged = note("notes.add", "Staged", &run);
    staged["transaction"] = begun.clone();
    agent.reply("calls.execute", staged).must("ok", "staged", "");
    // One that belongs to no run, with a call that does.
    let free = agent.ok("transactions.begin", json!({}))["transaction"].clone();
    let mut staged = note("notes.add", "Of the run", &run);
    staged["transaction"] = free.clone();
    agent.reply("calls.execute", staged).must("ok", "staged", "");
    let read = json!({"tool": "text-stats", "input": {"text": "x"}, "run": run});
    agent.reply("calls.execute", read).must("ok", "none", "");
    let over = json!({"tool": "text-stats", "input": {"text": "y"}, "run": run});
    agent.reply("calls.execute", over).must("denied", "none", "budget_exceeded");
    assert_eq!(admin.ok("runs.show", json!({"run": run}))["held"]["code"], "budget_exceeded");
    let before = world.snapshot();
    let refused = |reply: &Value| assert!(reply.to_string().contains("the run is held"), "{reply}");
    refused(&agent.commit(plain.plan()).value);
    refused(&agent.commit(undo.plan()).value);
    refused(&agent.no("plans.commit", json!({"plan": tier2.plan()})));
    for transaction in [&begun, &free] {
        refused(&agent.reply("transactions.commit", json!({"transaction": transaction})).value);
    }
    assert_eq!(world.snapshot(), before);
    assert_eq!(admin.ok("approvals.list", json!({}))["approvals"], json!([]), "nobody is asked either");
    admin.ok("runs.release", json!({"run": run, "more": {"calls": 1}}));
    agent.commit(plain.plan()).must("ok", "committed", "");
    for transaction in [begun, free] {
        agent.reply("transactions.commit", json!({"transaction": transaction})).must("ok", "committed", "");
    }
    agent.commit(undo.plan()).must("ok", "committed", "");
    world.verified();
}

#[test]
fn r28_paused_spending_pauses_what_was_stored_before() {
    let world = World::of(Plot {
        limits: "[spike]\nwindow_s = 86400\nbaseline = 2\nfactor = 2\ncalls = 3\npause = true\n",
        ..Plot::default()
    });
    let mut agent = world.agent();
    let run = open(&mut agent, json!({"workflow": "pay"}));
    let made = agent.reply("calls.preview", note("notes.add", "One", &run)).must("ok", "previewed", "");
    let mut call =
        |text: &str| agent.reply("calls.execute", json!({"tool": "text-stats", "input": {"text": text}, "run": run}));
    for number in 0..6 {
        call(&number.to_string()).must("ok", "none", "");
    }
    until("spending is paused", || call("more").ended().2 == "budget_exceeded");
    let paused = agent.commit(made.plan());
    assert!(paused.text("/error/message").contains("paused"), "{}", paused.value);
    assert!(!world.path("notes/one.md").exists());
    world.admin().ok("budgets.resume", json!({"workflow": "pay"}));
    agent.commit(made.plan()).must("ok", "committed", "");
}

#[test]
fn r18_the_commit_of_a_transaction_is_a_call_of_its_session() {
    let mut world = World::new();
    let session = world.agent().ok("sessions.delegate", json!({"budget": {"calls": 3}}));
    let mut child = shown(&world, &session["token"]);
    let stage = |child: &mut Agent, title: &str| {
        let begun = child.ok("transactions.begin", json!({}))["transaction"].clone();
        let call = json!({"tool": "notes.add", "input": {"title": title, "body": "b"}, "transaction": begun});
        (begun, child.reply("calls.execute", call))
    };
    let (begun, staged) = stage(&mut child, "One");
    staged.must("ok", "staged", "");
    child.reply("transactions.preview", json!({"transaction": begun})).must("ok", "previewed", "");
    child.reply("transactions.commit", json!({"transaction": begun})).must("ok", "committed", "");
    child.reply("transactions.commit", json!({"transaction": begun})).must("ok", "committed", "");
    assert_eq!(child.ok("session.get", json!({}))["calls_left"], 1, "to be told again costs nothing");
    let (begun, staged) = stage(&mut child, "Two");
    staged.must("ok", "staged", "");
    assert_eq!(child.no("transactions.commit", json!({"transaction": begun}))["code"], "budget_exceeded");
    assert!(!world.path("notes/two.md").exists());
    assert!(world.stop().success());
    world.start();
    assert_eq!(shown(&world, &session["token"]).ok("session.get", json!({}))["calls_left"], 0, "as it was");
}
