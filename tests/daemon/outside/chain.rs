//! Kill chain 7: a guest provokes the end of its execution, or of the whole host, right after its payment left, so that
//! somebody tries again and it is paid twice.
//!
//! Three controls stand in the way, and each holds where another is gone. Limits end the guest and not the host; what was
//! sent is on record before it is sent, with its answer; and the `Idempotency-Key` is the host's and stays the same.
//! Without limits is a host that is killed at that very moment; without the record is a state folder that is put back to
//! before the payment, as a wrong restore would.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::world::{Agent, Reply, World};
use super::peer::{Moment, Peer};
use super::{agree, awake, consent, grant, held, resolve, send};
use crate::doors::running::until;

/// What a guest does right after its payment, and how its call ends then.
const ENDS: [(&str, &str); 6] = [
    ("hoard", "memory_exceeded"),
    ("spin", "out_of_fuel"),
    ("trap", "tool_trapped"),
    ("exit", "tool_trapped"),
    ("recurse", "tool_trapped"),
    ("fail", "tool_failed"),
];

fn world(peer: &Peer) -> World {
    let rest = format!(
        "tier = 3\n[limits]\nfuel = 200_000_000\n{}",
        grant("pay", &peer.origin(), "delivery = \"live\"\nfirst_byte_ms = 20000\n")
    );
    awake("", &[("pay", "reach", rest)])
}

/// A payment, and what comes after it; under a key, as an agent does that wants to be able to retry.
fn payment(peer: &Peer, order: &str, then: &str) -> Value {
    let steps = [send("POST", &format!("{}/pay/{order}", peer.origin()), "42"), json!({"op": then})];
    json!({"tool": "pay", "input": {"steps": steps}, "idempotency_key": order})
}

fn execute(agent: &mut Agent, params: &Value) -> Reply {
    agent.reply("calls.execute", params.clone())
}

/// Agree, and kill the daemon at this moment of the exchange.
fn cut(world: &mut World, peer: &Peer, waits: &Reply, moment: Moment) {
    let line = json!({"jsonrpc": "2.0", "id": 9, "method": "approvals.approve", "params": consent(waits)});
    let mut admin = world.admin();
    peer.stop_at(Some(moment));
    admin.0.send(format!("{line}\n").as_bytes());
    assert!(peer.stands(Duration::from_secs(60)), "{moment:?}");
    world.kill();
    peer.stop_at(None);
}

#[test]
fn r56_t_kill_chain_7_a_guest_that_ends_itself_after_its_payment_has_paid_once() {
    let peer = Peer::new();
    let mut world = world(&peer);
    let mut told = Vec::new();
    for (then, code) in ENDS {
        let (mut agent, mut admin) = (world.agent(), world.admin());
        let params = payment(&peer, then, then);
        let waits = held(execute(&mut agent, &params));
        agree(&mut admin, &waits).must("ok", "committed", "");
        let reply = agent.reply("calls.get", json!({"call": waits.call()})).must("failed", "none", code);
        let warned = reply.value["warnings"].to_string();
        assert!(warned.contains("sent while the tool ran"), "{then}: {warned}");
        for _ in 0..3 {
            let again = execute(&mut agent, &params);
            assert_eq!((&again.value, again.replayed), (&reply.value, true), "{then}");
        }
        told.push((params, reply));
    }
    world.restart();
    for (params, reply) in told {
        assert_eq!(execute(&mut world.agent(), &params).value, reply.value);
    }
    assert_eq!(peer.reads().len(), ENDS.len(), "one payment for each: {:?}", peer.reads());
    assert!(!world.log().contains("BUG"));
    world.verified();
}

#[test]
fn t_kill_chain_7_without_limits_a_host_that_dies_after_the_payment_does_not_pay_again() {
    let peer = Peer::new();
    let mut world = world(&peer);
    for (order, moment) in [("read", Moment::Read), ("half", Moment::HalfAnswered), ("answered", Moment::Answered)] {
        let params = payment(&peer, order, "hoard");
        let waits = held(execute(&mut world.agent(), &params));
        cut(&mut world, &peer, &waits, moment);
        world.start();
        // Whoever retries is told that nobody knows, as long as nobody does; it is never sent again.
        let mut last = None;
        until("it is known, or an operator is asked", || {
            let reply = execute(&mut world.agent(), &params);
            let listed = world.admin().ok("outcomes.list", json!({}));
            let asked = listed["outcomes"].as_array().is_some_and(|outcomes| !outcomes.is_empty());
            let known = reply.text("/status") == "failed";
            last = Some((reply, listed));
            known || (asked && last.as_ref().is_some_and(|(reply, _)| reply.text("/status") == "unknown"))
        });
        let (reply, listed) = last.expect("a reply");
        if let Some(part) = listed["outcomes"][0]["call_id"].as_str() {
            reply.must("unknown", "unknown", "unknown_outcome");
            resolve(&mut world.admin(), part, true).must("ok", "committed", "");
        }
        until("the call has ended", || execute(&mut world.agent(), &params).text("/status") == "failed");
        assert_eq!(peer.reads_of(&format!("/pay/{order}")).len(), 1, "{order}");
        world.verified();
    }
}

/// Copy a folder over another one.
fn put_back(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("folder");
    fs::set_permissions(to, fs::metadata(from).expect("folder").permissions()).expect("mode");
    for entry in fs::read_dir(from).expect("folder") {
        let entry = entry.expect("entry");
        let there = to.join(entry.file_name());
        if entry.file_type().expect("type").is_dir() {
            put_back(&entry.path(), &there);
        } else {
            fs::copy(entry.path(), &there).expect("file");
        }
    }
}

#[test]
fn t_kill_chain_7_without_the_record_the_payment_carries_the_key_that_it_had() {
    let peer = Peer::new();
    let mut world = world(&peer);
    let params = payment(&peer, "order", "hoard");
    let waits = held(execute(&mut world.agent(), &params));
    assert!(world.stop().success());
    let (state, kept) = (world.path("state"), world.path("kept"));
    put_back(&state, &kept);
    world.start();
    cut(&mut world, &peer, &waits, Moment::Answered);
    fs::remove_dir_all(&state).expect("gone");
    put_back(&kept, &state);
    world.start();
    agree(&mut world.admin(), &waits).must("ok", "committed", "");
    let reads = peer.reads();
    assert_eq!(reads.len(), 2, "the host cannot know of the first one");
    let keys: BTreeSet<&str> = reads.iter().map(|read| read.key.as_str()).collect();
    assert_eq!(keys.len(), 1, "whoever honours the key is paid once");
    assert!(reads.iter().all(|read| read.body == "42"));
}
