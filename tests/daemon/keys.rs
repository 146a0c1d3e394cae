//! Idempotency keys: a retry is told what happened and never does it again.

use serde_json::{Value, json};

use super::world::{Agent, Reply, World};

fn add(key: &str, title: &str) -> Value {
    json!({"tool": "notes.add", "input": {"title": title, "body": "b"}, "idempotency_key": key})
}

fn call(agent: &mut Agent, params: Value) -> Reply {
    agent.reply("calls.execute", params)
}

/// The `reply` member of an answer as the bytes that came over the socket.
fn bytes(world: &World, params: &Value) -> String {
    use std::io::{BufRead as _, BufReader, Write as _};
    let mut stream = std::os::unix::net::UnixStream::connect(world.path("run/agent/agent.sock")).expect("connect");
    let line = json!({"jsonrpc": "2.0", "id": 1, "method": "calls.execute", "params": params});
    stream.write_all(format!("{line}\n").as_bytes()).expect("sent");
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).expect("an answer");
    let (_, reply) = answer.split_once("\"reply\":").expect("a reply");
    let (reply, _) = reply.rsplit_once(",\"replayed\":").expect("the flag after it");
    reply.to_owned()
}

#[test]
fn r32_a_retry_with_the_key_gets_the_same_bytes_also_after_a_kill() {
    let mut world = World::new();
    let first = bytes(&world, &add("k1", "Keyed"));
    std::fs::remove_file(world.path("notes/keyed.md")).expect("the note");
    assert_eq!(bytes(&world, &add("k1", "Keyed")), first);
    assert!(call(&mut world.agent(), add("k1", "Keyed")).replayed);
    world.restart();
    assert_eq!(bytes(&world, &add("k1", "Keyed")), first);
    assert!(!world.path("notes/keyed.md").exists(), "it was added once");
    let failed = bytes(&world, &add("k2", "inside\u{7}"));
    assert!(failed.contains("invalid_input"), "{failed}");
    assert_eq!(bytes(&world, &add("k2", "inside\u{7}")), failed, "an end is an end, also a bad one");
}

#[test]
fn r32_a_key_names_one_request() {
    let world = World::new();
    let mut agent = world.agent();
    call(&mut agent, add("k", "First")).must("ok", "committed", "");
    let before = world.snapshot();
    let other = call(&mut agent, add("k", "Second")).must("failed", "none", "idempotency_mismatch");
    assert!(!other.replayed);
    let mut preview = add("k", "First");
    preview["mode"] = json!("preview");
    call(&mut agent, preview).must("failed", "none", "idempotency_mismatch");
    assert_eq!(world.snapshot(), before);
    let search = json!({"tool": "notes.search", "input": {"query": "x"}, "idempotency_key": "k"});
    call(&mut agent, search).must("ok", "none", "");
}

#[test]
fn r32_the_key_of_a_held_call_tells_how_it_stands() {
    let mut world = World::new();
    let held = json!({"tool": "notes2.add", "input": {"title": "Held", "body": "b"}, "idempotency_key": "h"});
    let first = call(&mut world.agent(), held.clone()).must("held", "pending", "approval_required");
    let again = call(&mut world.agent(), held.clone());
    assert_eq!((again.call(), again.replayed, &again.value), (first.call(), false, &first.value));
    world.restart();
    assert_eq!(call(&mut world.agent(), held.clone()).value, first.value);
    super::approvals::approve(&mut world.admin(), first.approval());
    let done = call(&mut world.agent(), held).must("ok", "committed", "");
    assert!(done.replayed);
    assert_eq!(done.call(), first.call());
}

#[test]
fn r32_the_key_of_a_preview_follows_its_plan() {
    let world = World::new();
    let mut agent = world.agent();
    let mut params = add("p", "Previewed");
    params["mode"] = json!("preview");
    let first = call(&mut agent, params.clone()).must("ok", "previewed", "");
    let again = call(&mut agent, params.clone());
    assert_eq!((again.plan(), again.replayed), (first.plan(), false));
    let done = agent.commit(first.plan()).must("ok", "committed", "");
    let after = call(&mut agent, params);
    assert_eq!((after.value, after.replayed), (done.value, true));
}

#[test]
fn r32_many_retries_at_once_do_it_once() {
    let world = World::new();
    let answers: Vec<Reply> = std::thread::scope(|scope| {
        let callers: Vec<_> =
            (0..16).map(|_| scope.spawn(|| call(&mut world.agent(), add("storm", "Storm")))).collect();
        callers.into_iter().map(|caller| caller.join().expect("a caller")).collect()
    });
    let committed: Vec<_> = answers.iter().filter(|answer| answer.text("/outcome") == "committed").collect();
    assert_eq!(committed.iter().filter(|answer| !answer.replayed).count(), 1);
    for answer in &answers {
        let running = answer.text("/error/code") == "in_flight";
        assert!(running || answer.value == committed[0].value, "{}", answer.value);
    }
    assert_eq!(world.snapshot().keys().filter(|name| name.contains("storm")).count(), 1);
}

#[test]
fn r32_refusals_before_execution_leave_the_key_free() {
    let world = World::new();
    let mut agent = world.agent();
    let wrong = json!({"tool": "notes.add", "input": {"title": 3}, "idempotency_key": "free"});
    call(&mut agent, wrong).must("failed", "none", "invalid_input");
    call(&mut agent, add("free", "Free")).must("ok", "committed", "");
}
