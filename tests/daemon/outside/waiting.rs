//! Calls that wait for the answer to a request: each goes on once, whoever else wants it to, also when nobody waits for it, and
//! nothing else is called in its place once a request of it has left.

use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::world::{Reply, World};
use super::peer::{Moment, Peer};
use super::{agree, asleep, awake, consent, grant, held, now, reach, send};
use crate::doors::running::until;

/// Longer than a daemon takes to notice that a connection has ended.
const NOTICED: Duration = Duration::from_millis(500);

fn live(name: &str, peer: &Peer) -> String {
    grant(name, &peer.origin(), &format!("paths = [\"/{name}/**\"]\ndelivery = \"live\"\nfirst_byte_ms = 20000\n"))
}

/// A tool that waits for answers.
fn world(peer: &Peer) -> World {
    let limits = "[limits]\nfuel = 1_000_000_000_000\ndeadline_ms = 600_000\n";
    let rest = format!("tier = 3\n{limits}{}{}", live("live", peer), live("slow", peer));
    awake("", &[("reach", "reach", rest)])
}

fn post(peer: &Peer, path: &str) -> Value {
    send("POST", &format!("{}{path}", peer.origin()), "b")
}

/// Agree, and do not wait for the answer.
fn agree_and_go(world: &World, waits: &Reply) -> super::super::world::Agent {
    let line = json!({"jsonrpc": "2.0", "id": 9, "method": "approvals.approve", "params": consent(waits)});
    let mut admin = world.admin();
    admin.0.send(format!("{line}\n").as_bytes());
    admin
}

#[test]
fn t_o3_a_call_that_goes_on_is_not_begun_a_second_time_when_a_switch_is_cleared() {
    let peer = Peer::new();
    let world = world(&peer);
    let steps = [post(&peer, "/live/1"), send("GET", &format!("{}/slow/1", peer.origin()), "")];
    let waits = held(reach(&mut world.agent(), "reach", &steps));
    peer.stop_at_path("/slow/1", Moment::Read);
    let mut admin = agree_and_go(&world, &waits);
    assert!(peer.stands(Duration::from_secs(60)), "the tool runs again, with the answer");
    let mut other = world.admin();
    other.ok("kill.set", json!({"level": "tool", "name": "other", "mode": "stop", "reason": "of no concern"}));
    other.ok("kill.clear", json!({"level": "tool", "name": "other"}));
    until("it is found under way", || world.log().contains("a call that waits is under way"));
    peer.stop_at(None);
    assert_eq!(admin.0.line().expect("an answer")["result"]["reply"]["outcome"], "committed");
    let reply = now(&world, waits.call()).must("ok", "none", "");
    assert_eq!(reply.value["output"]["answers"][1]["status"], 201, "{}", reply.value);
    assert_eq!((peer.reads_of("/live/1").len(), peer.reads_of("/slow/1").len()), (1, 1));
    world.verified();
}

#[test]
fn t_o3_a_call_that_goes_on_is_ended_by_a_switch_of_its_tool() {
    let peer = Peer::new();
    let world = world(&peer);
    let slow = send("GET", &format!("{}/slow/1", peer.origin()), "");
    let steps = [post(&peer, "/live/1"), slow, json!({"op": "spin"})];
    let waits = held(reach(&mut world.agent(), "reach", &steps));
    peer.stop_at_path("/slow/1", Moment::Read);
    let mut admin = agree_and_go(&world, &waits);
    assert!(peer.stands(Duration::from_secs(60)), "the tool runs again, with the answer");
    let stop = json!({"level": "tool", "name": "reach", "mode": "stop", "reason": "it spins"});
    assert_eq!(world.admin().ok("kill.set", stop)["ended"], 1);
    peer.stop_at(None);
    assert!(admin.0.line().is_some(), "whoever agreed is answered");
    let reply = now(&world, waits.call());
    assert_eq!(reply.text("/error/code"), "killed", "it had ten minutes: {}", reply.value);
    assert_eq!(peer.reads_of("/live/1").len(), 1);
    world.verified();
}

#[test]
fn r38_a_call_goes_on_although_the_operator_who_agreed_went_away() {
    let peer = Peer::new();
    let world = world(&peer);
    let waits = held(reach(&mut world.agent(), "reach", &[post(&peer, "/live/1")]));
    peer.stop_at(Some(Moment::Read));
    let admin = agree_and_go(&world, &waits);
    assert!(peer.stands(Duration::from_secs(60)));
    drop(admin);
    thread::sleep(NOTICED);
    peer.stop_at(None);
    until("the call has ended", || now(&world, waits.call()).text("/status") == "ok");
    assert_eq!(peer.reads().len(), 1);
    world.verified();
}

#[test]
fn r38_a_call_goes_on_when_its_request_is_settled_later_than_it_was_agreed_to() {
    let peer = Peer::new();
    let world = world(&peer);
    let waits = held(reach(&mut world.agent(), "reach", &[post(&peer, "/live/1")]));
    let circuit = json!({"grant": "live", "origin": peer.origin()});
    world.admin().ok("breakers.open", circuit.clone());
    let refused = agree(&mut world.admin(), &waits);
    assert_eq!(refused.text("/error/code"), "circuit_open", "{}", refused.value);
    assert!(peer.reads().is_empty());
    world.admin().ok("breakers.close", circuit);
    // The daemon tries what was agreed to again by itself, and tells whoever waits.
    let params = json!({"approval": waits.approval(), "timeout_ms": 100_000});
    world.agent().reply("approvals.wait", params).must("ok", "none", "");
    assert_eq!(peer.reads().len(), 1);
    world.verified();
}

#[test]
fn g07_no_other_tool_is_called_instead_once_a_request_has_left() {
    let peer = Peer::new();
    let first = format!("tier = 3\nfallback = \"again\"\n{}{}", live("first", &peer), live("second", &peer));
    let again = format!("tier = 3\n{}", grant("all", &peer.origin(), ""));
    let mut world = asleep("", &[("pay", "reach", first), ("again", "reach", again)]);
    let config = world.text("toolkeep.toml").replace("solo = true", "");
    world.home.put("toolkeep.toml", config.as_bytes());
    world.start();
    // Two people let the tool send without being asked.
    let mut admin = world.admin();
    let standing = json!({"uses": 10, "ttl_s": 600, "covers": {"tool": "pay", "kinds": ["http.request"],
        "origins": [peer.origin()], "methods": ["POST"], "max_effects": 1, "max_bytes": 1000, "irreversible": true,
        "tainted": true}});
    let shown = admin.ok("standing.preview", json!({"standing": standing}));
    let made = json!({"standing": standing, "reason": "small ones", "confirm": shown["confirm"]});
    let standing = admin.ok("standing.make", made)["id"].take();
    world.stop();
    let uid = rustix::process::getuid().as_raw();
    let other = format!("{config}\n[[operator]]\nuid = {uid}\nuser = \"bob\"\ntenant = \"local\"\n");
    world.home.put("toolkeep.toml", other.as_bytes());
    world.start();
    let mut admin = world.admin();
    assert_eq!(admin.ok("standing.agree", json!({"standing": standing}))["state"], "active");
    admin.ok("breakers.open", json!({"grant": "second", "origin": peer.origin()}));
    let steps = [post(&peer, "/first/a"), post(&peer, "/second/b")];
    let reply = reach(&mut world.agent(), "pay", &steps);
    assert_eq!(reply.text("/error/code"), "circuit_open", "{}", reply.value);
    assert!(reply.value["detour"].is_null(), "{}", reply.value);
    assert!(reply.value["warnings"].to_string().contains("sent while the tool ran"), "{}", reply.value);
    assert_eq!(peer.reads().len(), 1, "{:?}", peer.reads());
    world.verified();
}
