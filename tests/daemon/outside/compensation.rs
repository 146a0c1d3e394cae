//! Compensations: what was sent is taken back from the last to the first where a later effect fails, each step on record;
//! where that fails as well, or nobody knows, the call says so.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::full::{ATTEMPTS, Small, note};
use super::super::world::{Agent, Reply, World};
use super::peer::{Fault, Moment, Peer};
use super::{agree, asleep, consent, grant, held, now, resolve, send, write};
use crate::doors::running::until;

/// Three requests that can be taken back, one that may stay, and one that can only stay.
fn world(peer: &Peer) -> World {
    world_of(peer, "")
}

/// The same, with more lines of the grant of what can be taken back.
fn world_of(peer: &Peer, more: &str) -> World {
    let mut world = world_asleep(peer, more);
    world.start();
    world
}

/// The same, and it does not run yet.
fn world_asleep(peer: &Peer, more: &str) -> World {
    let undo = format!(
        "{more}\n{}",
        "[http.compensation]\nmethod = \"DELETE\"\npath = \"/undo/{request:/n}/{response:/id}\"\n"
    );
    let with =
        |name: &str, path: &str, more: &str| grant(name, &peer.origin(), &format!("paths = [\"/{path}/**\"]\n{more}"));
    let grants =
        [with("booked", "booked", &undo), with("noted", "noted", "reversible = true"), with("final", "final", "")];
    let rest = format!(
        "tier = 3\n[limits]\nfuel = 1_000_000_000\n[[workspace]]\nname = \"books\"\naccess = \"write\"\n{}",
        grants.concat()
    );
    asleep("", &[("order", "reach", rest)])
}

fn book(peer: &Peer, path: &str) -> Value {
    let n = path.rsplit('/').next().expect("a name");
    send("POST", &format!("{}{path}", peer.origin()), &json!({"n": n}).to_string())
}

/// Make the requests in a transaction, one call for each and a file with the first, and let a person agree.
fn commit(world: &World, peer: &Peer, paths: &[&str]) -> (String, Reply) {
    let (mut agent, mut admin) = (world.agent(), world.admin());
    let transaction = agent.ok("transactions.begin", json!({}))["transaction"].as_str().expect("an id").to_owned();
    for (number, path) in paths.iter().enumerate() {
        let mut steps = vec![book(peer, path)];
        if number == 0 {
            steps.push(write("order.txt", "x"));
        }
        let call = json!({"tool": "order", "input": {"steps": steps}, "transaction": transaction});
        agent.reply("calls.execute", call).must("ok", "staged", "");
    }
    assert!(peer.reads().is_empty(), "nothing leaves before the commit");
    let waits = held(agent.reply("transactions.commit", json!({"transaction": transaction})));
    let reply = agree(&mut admin, &waits);
    (transaction, reply)
}

/// The lines of what the peer has read.
fn lines(peer: &Peer) -> Vec<String> {
    peer.reads().into_iter().map(|read| read.line).collect()
}

/// What is on record of each request of a call.
fn record(world: &World, reply: &Reply) -> Vec<(String, Value)> {
    let page = world.admin().ok("plans.show", json!({"plan": reply.plan()}));
    let requests = page["requests"].as_array().unwrap_or_else(|| panic!("{page}"));
    requests.iter().map(|line| (line["state"].as_str().expect("a state").to_owned(), line["problem"].clone())).collect()
}

fn states(world: &World, reply: &Reply) -> Vec<String> {
    record(world, reply).into_iter().map(|(state, _)| state).collect()
}

fn state_of(agent: &mut Agent, transaction: &str) -> Value {
    agent.ok("transactions.get", json!({"transaction": transaction}))["state"].clone()
}

#[test]
fn r08_where_a_later_request_is_refused_those_before_it_are_taken_back_in_reverse_order() {
    let peer = Peer::new();
    let world = world(&peer);
    peer.meets("/booked/c", &[Fault::Answers(422)]);
    let (transaction, reply) = commit(&world, &peer, &["/booked/a", "/noted/n", "/booked/b", "/booked/c", "/booked/d"]);
    let reply = reply.must("failed", "discarded", "effect_refused");
    assert_eq!(
        lines(&peer),
        [
            "POST /booked/a",
            "POST /noted/n",
            "POST /booked/b",
            "POST /booked/c",
            "DELETE /undo/b/r-1",
            "DELETE /undo/a/r-1"
        ]
    );
    assert_eq!(states(&world, &reply), ["compensated", "sent", "compensated", "refused", "pending"]);
    assert!(reply.text("/error/message").contains("/booked/c") && reply.text("/error/message").contains("422"));
    assert!(!world.path("books/order.txt").exists());
    assert_eq!(state_of(&mut world.agent(), &transaction), "discarded");
    let keys: Vec<String> = peer.reads().into_iter().map(|read| read.key).collect();
    let mut only = keys.clone();
    only.sort();
    only.dedup();
    assert_eq!(only.len(), keys.len(), "each has a key of its own");
    world.verified();
}

#[test]
fn r08_where_taking_back_fails_as_well_the_call_is_halted_and_says_what_stays() {
    let peer = Peer::new();
    let world = world(&peer);
    peer.meets("/booked/c", &[Fault::Answers(409)]);
    peer.meets("/undo/b/r-1", &[Fault::Answers(500)]);
    let (transaction, reply) = commit(&world, &peer, &["/booked/a", "/booked/b", "/booked/c"]);
    let reply = reply.must("failed", "halted", "halted");
    let message = reply.text("/error/message");
    assert!(message.contains("/booked/b") && message.contains("could not be undone"), "{message}");
    assert!(!message.split("stay:").nth(1).unwrap_or_default().contains("/booked/a"), "{message}");
    assert_eq!(states(&world, &reply), ["compensated", "stuck", "refused"], "what can be taken back is");
    assert!(record(&world, &reply)[1].1.as_str().is_some_and(|problem| problem.contains("500")));
    assert_eq!(state_of(&mut world.agent(), &transaction), "halted");
    assert!(!world.path("books/order.txt").exists());
    assert_eq!(world.admin().ok("health.get", json!({}))["halted"], 1);
    assert!(world.log().contains("halted"), "{}", world.log());
    world.verified();
}

#[test]
fn r08_where_something_that_nothing_undoes_was_sent_the_call_is_halted() {
    let peer = Peer::new();
    let world = world(&peer);
    peer.meets("/booked/c", &[Fault::Answers(409)]);
    let (_, reply) = commit(&world, &peer, &["/final/f", "/booked/b", "/booked/c"]);
    let reply = reply.must("failed", "halted", "halted");
    assert!(reply.text("/error/message").contains("/final/f"), "{}", reply.value);
    assert_eq!(states(&world, &reply), ["sent", "compensated", "refused"]);
}

#[test]
fn r08_a_request_in_the_middle_of_which_nobody_knows_stops_everything_until_an_operator_says() {
    for (sent, wanted) in [(true, ["sent", "sent", "sent"]), (false, ["compensated", "refused", "pending"])] {
        let peer = Peer::new();
        let mut world = world(&peer);
        peer.meets("/booked/b", &[Fault::ClosesRead]);
        let (transaction, reply) = commit(&world, &peer, &["/booked/a", "/booked/b", "/booked/c"]);
        let reply = reply.must("unknown", "unknown", "unknown_outcome");
        assert_eq!(lines(&peer), ["POST /booked/a", "POST /booked/b"], "nothing after it");
        assert!(!world.path("books/order.txt").exists());
        world.restart();
        assert_eq!(states(&world, &reply), ["sent", "unknown", "pending"]);
        let now = resolve(&mut world.admin(), reply.call(), sent);
        assert_eq!(states(&world, &reply), wanted, "{}", now.value);
        if sent {
            now.must("ok", "committed", "");
            assert_eq!(lines(&peer)[2..], ["POST /booked/c"]);
        } else {
            now.must("failed", "discarded", "effect_refused");
            assert_eq!(lines(&peer)[2..], ["DELETE /undo/a/r-1"]);
        }
        assert_eq!(world.path("books/order.txt").exists(), sent);
        assert_eq!(state_of(&mut world.agent(), &transaction), if sent { "committed" } else { "discarded" });
        world.verified();
    }
}

#[test]
fn r08_g1_a_daemon_killed_while_it_takes_back_says_what_may_stay_or_takes_it_back_with_the_same_key() {
    for repeatable in [false, true] {
        let peer = Peer::new();
        let mut world = if repeatable { world_of(&peer, "idempotent = true") } else { world(&peer) };
        peer.meets("/booked/c", &[Fault::Answers(409)]);
        let steps = ["/booked/a", "/booked/b", "/booked/c"].map(|path| book(&peer, path));
        let waits = held(world.agent().execute("order", json!({"steps": steps})));
        let line = json!({"jsonrpc": "2.0", "id": 9, "method": "approvals.approve", "params": consent(&waits)});
        let mut admin = world.admin();
        peer.stop_at_path("/undo/b/r-1", Moment::Read);
        admin.0.send(format!("{line}\n").as_bytes());
        assert!(peer.stands(Duration::from_secs(60)));
        world.kill();
        peer.stop_at(None);
        world.start();
        until("it has ended", || now(&world, waits.call()).text("/status") == "failed");
        let reply = now(&world, waits.call());
        let undone = peer.reads_of("/undo/b/r-1");
        if repeatable {
            let reply = reply.must("failed", "discarded", "effect_refused");
            assert_eq!(states(&world, &reply), ["compensated", "compensated", "refused"]);
            assert_eq!((undone.len(), &undone[0].key), (2, &undone[1].key));
        } else {
            let reply = reply.must("failed", "halted", "halted");
            assert_eq!(states(&world, &reply), ["compensated", "stuck", "refused"]);
            assert!(reply.text("/error/message").contains("stopped while it was undone"), "{}", reply.value);
            assert_eq!(undone.len(), 1, "nobody knows whether it was, so it is not tried again");
        }
        assert_eq!(peer.reads_of("/undo/a/r-1").len(), 1);
        world.verified();
    }
}

#[test]
fn r08_a_file_that_cannot_be_put_in_place_takes_the_requests_back() {
    let peer = Peer::new();
    let world = world(&peer);
    let (mut agent, mut admin) = (world.agent(), world.admin());
    let call = json!({"steps": [book(&peer, "/booked/a"), write("order.txt", "x")]});
    let waits = held(agent.execute("order", call));
    // Somebody writes the file between the request and its turn: the peer does, while it answers.
    peer.stop_at(Some(Moment::Read));
    let line = json!({"jsonrpc": "2.0", "id": 9, "method": "approvals.approve", "params": consent(&waits)});
    admin.0.send(format!("{line}\n").as_bytes());
    assert!(peer.stands(Duration::from_secs(60)));
    world.home.put("books/order.txt", b"somebody else");
    peer.stop_at(None);
    let answer = admin.0.line().expect("an answer");
    let reply = Reply { value: answer["result"]["reply"].clone(), replayed: false };
    reply.must("failed", "discarded", "effect_refused");
    assert_eq!(lines(&peer), ["POST /booked/a", "DELETE /undo/a/r-1"]);
    assert_eq!(world.text("books/order.txt"), "somebody else");
    world.verified();
}

#[test]
fn r08_g4_where_taking_back_cannot_be_recorded_nobody_says_that_it_was_taken_back() {
    let peer = Peer::new();
    let mut world = world_asleep(&peer, "first_byte_ms = 20000");
    let Some(disk) = Small::over(&world.path("state/ledger"), "16m") else { return };
    world.start();
    let waits =
        held(world.agent().execute("order", json!({"steps": [book(&peer, "/booked/a"), write("order.txt", "x")]})));
    peer.stop_at(Some(Moment::Read));
    let line = json!({"jsonrpc": "2.0", "id": 9, "method": "approvals.approve", "params": consent(&waits)});
    let mut admin = world.admin();
    admin.0.send(format!("{line}\n").as_bytes());
    assert!(peer.stands(Duration::from_secs(60)));
    world.home.put("books/order.txt", b"somebody else");
    // The file cannot be put in place. While the request is taken back the disk of the ledger becomes full.
    peer.stop_at_path("/undo/a/r-1", Moment::HalfAnswered);
    assert!(peer.stands(Duration::from_secs(60)));
    disk.fill();
    let mut agent = world.agent();
    let full = (0..ATTEMPTS).any(|number| note(&mut agent, &format!("note {number}")).0 != "committed");
    assert!(full, "a full ledger takes no more");
    peer.stop_at(None);
    let answer = admin.0.line().expect("an answer");
    let reply = Reply { value: answer["result"]["reply"].clone(), replayed: false };
    reply.must("unknown", "unknown", "unknown_outcome");
    disk.free();
    world.restart();
    until("it has ended", || now(&world, waits.call()).text("/status") == "failed");
    let reply = now(&world, waits.call()).must("failed", "halted", "halted");
    assert!(reply.text("/error/message").contains("/booked/a"), "{}", reply.value);
    world.verified();
    world.kill();
}

#[test]
fn t_o3_a_plan_that_is_stopped_between_two_of_its_requests_sends_no_more_and_says_what_stays() {
    let peer = Peer::new();
    let world = world(&peer);
    let steps = ["/booked/a", "/booked/b", "/booked/c"].map(|path| book(&peer, path));
    let waits = held(world.agent().execute("order", json!({"steps": steps})));
    let line = json!({"jsonrpc": "2.0", "id": 9, "method": "approvals.approve", "params": consent(&waits)});
    let mut admin = world.admin();
    peer.stop_at_path("/booked/b", Moment::Read);
    admin.0.send(format!("{line}\n").as_bytes());
    assert!(peer.stands(Duration::from_secs(60)));
    let stop = json!({"level": "tool", "name": "order", "mode": "stop", "reason": "it does too much"});
    world.admin().ok("kill.set", stop);
    peer.stop_at(None);
    until("it has ended", || now(&world, waits.call()).text("/status") == "failed");
    let reply = now(&world, waits.call());
    assert_eq!(reply.text("/outcome"), "halted", "{}", reply.value);
    assert!(reply.text("/error/message").contains("/booked/a"), "{}", reply.value);
    assert_eq!(
        lines(&peer),
        ["POST /booked/a", "POST /booked/b"],
        "nothing is sent after it, not even to take it back"
    );
    assert_eq!(states(&world, &reply), ["sent", "sent", "pending"]);
    assert!(!world.path("books/order.txt").exists());
    world.verified();
}
