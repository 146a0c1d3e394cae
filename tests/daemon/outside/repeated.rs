//! Requests that may be repeated: what is said about a repetition is not said about the attempt before it, which may have
//! arrived.

use std::time::Duration;

use serde_json::json;

use super::super::world::World;
use super::peer::{Fault, Moment, Peer};
use super::{agree, awake, consent, grant, held, now, reach, resolve, send, write};
use crate::doors::running::until;

fn world(peer: &Peer) -> World {
    let rest = format!(
        "tier = 3\n[limits]\nfuel = 1_000_000_000\n[[workspace]]\nname = \"books\"\naccess = \"write\"\n{}",
        grant("shop", &peer.origin(), "idempotent = true\nfirst_byte_ms = 20000\n")
    );
    awake("[breaker]\nfailures = 0\n", &[("reach", "reach", rest)])
}

/// Agree, and kill the daemon when the peer has read the request and has not answered.
fn cut(world: &mut World, peer: &Peer, waits: &super::super::world::Reply) {
    peer.stop_at(Some(Moment::Read));
    let line = json!({"jsonrpc": "2.0", "id": 9, "method": "approvals.approve", "params": consent(waits)});
    let mut admin = world.admin();
    admin.0.send(format!("{line}\n").as_bytes());
    assert!(peer.stands(Duration::from_secs(60)));
    world.kill();
    peer.stop_at(None);
}

fn is_asked(world: &World, call: &str) -> bool {
    let listed = world.admin().ok("outcomes.list", json!({}));
    listed["outcomes"].as_array().expect("outcomes").iter().any(|outcome| outcome["call_id"] == call)
}

#[test]
fn g07_a_repetition_that_is_refused_does_not_make_the_attempt_before_it_undone() {
    let peer = Peer::new();
    let world = world(&peer);
    for status in [302, 401, 409, 429] {
        let path = format!("/again/{status}");
        peer.meets(&path, &[Fault::ClosesRead, Fault::Answers(status)]);
        let waits = held(reach(&mut world.agent(), "reach", &[send("POST", &format!("{}{path}", peer.origin()), "b")]));
        agree(&mut world.admin(), &waits).must("unknown", "unknown", "unknown_outcome");
        let reads = peer.reads_of(&path);
        assert!(reads.len() > 1 && reads[0].done, "{status}: {reads:?}");
        resolve(&mut world.admin(), waits.call(), true).must("ok", "committed", "");
    }
    // The first attempt at a request is what it is said to be.
    peer.meets("/once", &[Fault::Answers(409)]);
    let waits = held(reach(&mut world.agent(), "reach", &[send("POST", &format!("{}/once", peer.origin()), "b")]));
    agree(&mut world.admin(), &waits).must("failed", "discarded", "effect_refused");
    world.verified();
}

#[test]
fn g07_g1_after_a_kill_a_request_that_is_refused_or_stopped_is_unknown_and_not_undone() {
    for stopped in [false, true] {
        let peer = Peer::new();
        let mut world = world(&peer);
        let url = format!("{}/a", peer.origin());
        let waits = held(reach(&mut world.agent(), "reach", &[send("POST", &url, "b"), write("a.txt", "x")]));
        cut(&mut world, &peer, &waits);
        let switch = world.path("state/kill");
        if stopped {
            std::fs::write(&switch, "looking\n").expect("the kill file");
        } else {
            peer.meets("/a", &[Fault::Answers(409)]);
        }
        world.start();
        until("an operator is asked", || is_asked(&world, waits.call()));
        now(&world, waits.call()).must("unknown", "unknown", "unknown_outcome");
        assert_eq!(peer.reads().len() == 1, stopped, "{:?}", peer.reads());
        if stopped {
            std::fs::remove_file(&switch).expect("removed");
        }
        resolve(&mut world.admin(), waits.call(), true).must("ok", "committed", "");
        assert_eq!(world.text("books/a.txt"), "x");
        world.verified();
    }
}

#[test]
fn r08_a_commit_that_is_halted_after_its_requests_names_them() {
    let peer = Peer::new();
    let mut world = world(&peer);
    let url = format!("{}/a", peer.origin());
    let waits = held(reach(&mut world.agent(), "reach", &[send("POST", &url, "b"), write("a.txt", "x")]));
    cut(&mut world, &peer, &waits);
    // Somebody put another folder in the place of the workspace: the file can be neither written nor taken back.
    std::fs::rename(world.path("books"), world.path("elsewhere")).expect("moved");
    std::fs::create_dir(world.path("books")).expect("another folder");
    world.start();
    until("it has ended", || now(&world, waits.call()).text("/outcome") == "halted");
    let reply = now(&world, waits.call()).must("failed", "halted", "halted");
    assert!(reply.text("/error/message").contains("/a"), "{}", reply.value);
    assert!(reply.text("/error/message").contains("books"), "{}", reply.value);
    assert_eq!(world.admin().ok("health.get", json!({}))["halted"], 1);
    world.verified();
}

/// Put another text of the same length in the place of each of these in the ledger's file.
fn edit_ledger(world: &World, from: &[u8], to: &[u8]) {
    let file = world.path("state/ledger/ledger.sqlite");
    let mut bytes = std::fs::read(&file).expect("the ledger");
    let at = |(at, window): (usize, &[u8])| (window == from).then_some(at);
    let places: Vec<usize> = bytes.windows(from.len()).enumerate().filter_map(at).collect();
    assert!(!places.is_empty());
    places.iter().for_each(|at| bytes[*at..][..to.len()].copy_from_slice(to));
    std::fs::write(&file, bytes).expect("written");
}

#[test]
fn t_s3_what_a_kill_interrupted_waits_until_the_audit_verifies_again() {
    let peer = Peer::new();
    let mut world = world(&peer);
    // So many entries that the first of them are in the file, and not in the log of the life that is killed.
    let mut agent = world.agent();
    (0..60).for_each(|_| drop(agent.ok("runs.open", json!({}))));
    assert!(world.stop().success());
    world.start();
    let url = format!("{}/a", peer.origin());
    let waits = held(reach(&mut world.agent(), "reach", &[send("POST", &url, "b"), write("a.txt", "x")]));
    cut(&mut world, &peer, &waits);
    edit_ledger(&world, b"\"what\":\"start\"", b"\"what\":\"stamp\"");
    world.start();
    assert_eq!(world.admin().ok("health.get", json!({}))["audit"]["state"], "broken");
    assert!(world.stop().success(), "a stop waits for commits that go on");
    assert_eq!(peer.reads().len(), 1, "nothing was sent: {:?}", peer.reads());
    assert!(!world.path("books/a.txt").exists());
    edit_ledger(&world, b"\"what\":\"stamp\"", b"\"what\":\"start\"");
    world.start();
    until("it is settled", || now(&world, waits.call()).text("/outcome") == "committed");
    assert_eq!((peer.reads().len(), world.text("books/a.txt").as_str()), (2, "x"));
    world.verified();
}
