//! Undo of what is no file: keys get their values back if nobody changed them since, requests are undone by the request
//! that their grant declares, messages are not.

use serde_json::{Value, json};

use super::super::world::{Agent, World};
use super::peer::{Fault, Peer};
use super::{add, agree, awake, grant, held, message, reach, send, write};

const COMPENSATION: &str = "[http.compensation]\nmethod = \"POST\"\npath = \"/undo/{response:/id}\"\n\
                            body = '{\"what\": {request:/n}}'\n";

fn world(peer: &Peer) -> World {
    let keys = "[[keys]]\nbucket = \"counts\"\naccess = \"write\"\n";
    let books = "[[workspace]]\nname = \"books\"\naccess = \"write\"\n";
    let channel = "[channel.log]\nkind = \"file\"\npath = \"messages.jsonl\"\n";
    let with = |more: &str| grant("shop", &peer.origin(), more);
    awake(
        channel,
        &[
            ("keys", "reach", format!("tier = 1\n{keys}{books}")),
            ("paid", "reach", format!("tier = 2\n{}{keys}{books}", with(COMPENSATION))),
            ("left", "reach", format!("tier = 2\n{}{books}", with("reversible = true\n"))),
            ("lost", "reach", format!("tier = 3\n{}{books}", with(""))),
            ("told", "reach", format!("tier = 3\n{books}[[message]]\nchannel = \"log\"\nto = [\"*@example.com\"]\n")),
        ],
    )
}

fn set(key: &str, value: &str) -> Value {
    json!({"op": "set", "bucket": "counts", "key": key, "value": value})
}

fn delete(key: &str) -> Value {
    json!({"op": "delete", "bucket": "counts", "key": key})
}

/// The values of keys.
fn values(agent: &mut Agent, keys: &[&str]) -> Vec<Option<String>> {
    let steps: Vec<Value> = keys.iter().map(|key| json!({"op": "get", "bucket": "counts", "key": key})).collect();
    let reply = reach(agent, "keys", &steps).must("ok", "none", "");
    let answers = reply.value["output"]["answers"].as_array().expect("answers").clone();
    answers.iter().map(|answer| answer.as_str().map(str::to_owned)).collect()
}

fn some(values: &[&str]) -> Vec<Option<String>> {
    values.iter().map(|value| (!value.is_empty()).then(|| (*value).to_owned())).collect()
}

#[test]
fn r09_changes_of_keys_are_undone_and_redone_with_the_files_of_their_call() {
    let world = world(&Peer::new());
    let mut agent = world.agent();
    let keys = ["made", "changed", "gone", "sum"];
    reach(&mut agent, "keys", &[set("changed", "old"), set("gone", "away"), add("sum", 5)]).must("ok", "committed", "");
    let steps = [set("made", "new"), set("changed", "new"), delete("gone"), add("sum", 10), write("f.txt", "x")];
    let done = reach(&mut agent, "keys", &steps).must("ok", "committed", "");
    assert_eq!(values(&mut agent, &keys), some(&["new", "new", "", "15"]));
    // What was added since stays.
    reach(&mut agent, "keys", &[add("sum", 100)]).must("ok", "committed", "");
    let back = agent.reply("undo.propose", json!({"call": done.call()})).must("ok", "previewed", "");
    assert_eq!(values(&mut agent, &keys), some(&["new", "new", "", "115"]), "a proposal changes nothing");
    let undone = agent.commit(back.plan()).must("ok", "committed", "");
    assert_eq!(values(&mut agent, &keys), some(&["", "old", "away", "105"]));
    assert!(!world.path("books/f.txt").exists());
    let forth = agent.reply("undo.propose", json!({"call": undone.call()})).must("ok", "previewed", "");
    agent.commit(forth.plan()).must("ok", "committed", "");
    assert_eq!(values(&mut agent, &keys), some(&["new", "new", "", "115"]), "an undo is a commit like any other");
    assert!(world.path("books/f.txt").exists());
    world.verified();
}

#[test]
fn r09_a_key_that_somebody_changed_since_is_not_put_back() {
    let world = world(&Peer::new());
    let (mut agent, mut admin) = (world.agent(), world.admin());
    let done = reach(&mut agent, "keys", &[set("a", "1"), write("a.txt", "x")]).must("ok", "committed", "");
    let early = agent.reply("undo.propose", json!({"call": done.call()})).must("ok", "previewed", "");
    reach(&mut agent, "keys", &[set("a", "2")]).must("ok", "committed", "");
    let stale = agent.commit(early.plan()).must("failed", "discarded", "stale_plan");
    assert!(stale.text("/error/message").contains("`a`"), "the key is named: {}", stale.value);
    for refused in
        [agent.no("undo.propose", json!({"call": done.call()})), admin.no("undo.call", json!({"call": done.call()}))]
    {
        assert_eq!(refused["code"], "stale_plan", "{refused}");
        assert!(refused["message"].as_str().is_some_and(|text| text.contains("`a`")), "{refused}");
    }
    assert_eq!(values(&mut agent, &["a"]), some(&["2"]));
    assert!(world.path("books/a.txt").exists(), "nothing of it was undone");
    reach(&mut agent, "keys", &[set("a", "1")]).must("ok", "committed", "");
    admin.reply("undo.call", json!({"call": done.call()})).must("ok", "committed", "");
    assert_eq!(values(&mut agent, &["a"]), some(&[""]));
}

#[test]
fn r09_a_request_is_undone_by_its_compensation_which_is_a_plan_of_its_own() {
    let peer = Peer::new();
    let mut world = world(&peer);
    let mut agent = world.agent();
    let url = |path: &str| format!("{}{path}", peer.origin());
    let steps = [send("POST", &url("/a"), r#"{"n": 1}"#), send("POST", &url("/b"), r#"{"n": 2}"#), write("o.txt", "x")];
    let waits = held(reach(&mut agent, "paid", &steps));
    let done = agree(&mut world.admin(), &waits).must("ok", "committed", "");
    assert_eq!(done.value["usage"]["http_requests"], 2, "{}", done.value);
    world.restart();
    let mut agent = world.agent();
    let back = agent.reply("undo.propose", json!({"call": done.call()})).must("ok", "previewed", "");
    let effects = back.value["plan"]["effects"].as_array().expect("effects");
    let shown: Vec<(&str, &str)> =
        effects.iter().filter_map(|e| Some((e["method"].as_str()?, e["url"].as_str()?))).collect();
    assert_eq!(shown, [("POST", url("/undo/r-1").as_str()); 2], "{}", back.value);
    assert_eq!(peer.reads().len(), 2, "a proposal sends nothing");
    let waits = held(agent.commit(back.plan()));
    assert_eq!(peer.reads().len(), 2, "an agent alone does not undo it");
    // The other system refuses first: nothing is undone, and it can be tried again.
    peer.meets("/undo/r-1", &[Fault::Answers(409)]);
    agree(&mut world.admin(), &waits).must("failed", "discarded", "effect_refused");
    assert!(world.path("books/o.txt").exists());
    peer.meets("/undo/r-1", &[Fault::Answers(200)]);
    world.admin().reply("undo.call", json!({"call": done.call()})).must("ok", "committed", "");
    let undone = peer.reads_of("/undo/r-1");
    let bodies: Vec<&str> = undone.iter().map(|read| read.body.as_str()).collect();
    assert_eq!(bodies, [r#"{"what": 2}"#, r#"{"what": 2}"#, r#"{"what": 1}"#], "from the last to the first");
    assert_eq!(undone[0].key, undone[1].key, "one key for one compensation, however often it is tried");
    assert_ne!(undone[1].key, undone[2].key);
    assert!(!world.path("books/o.txt").exists());
    assert_eq!(world.admin().no("undo.call", json!({"call": done.call()}))["code"], "denied", "once");
    assert_eq!(peer.reads_of("/undo/r-1").len(), 3);
    world.verified();
}

#[test]
fn r09_a_request_that_a_tool_waited_for_is_undone_by_the_id_of_its_own_call() {
    let peer = Peer::new();
    let rest = format!("tier = 3\n{}", grant("pay", &peer.origin(), &format!("delivery = \"live\"\n{COMPENSATION}")));
    let world = awake("", &[("pay", "reach", rest)]);
    let (mut agent, mut admin) = (world.agent(), world.admin());
    let pay = send("POST", &format!("{}/pay", peer.origin()), r#"{"n": 5}"#);
    let waits = held(reach(&mut agent, "pay", &[pay]));
    let part = agree(&mut admin, &waits).must("ok", "committed", "");
    let done = agent.reply("calls.get", json!({"call": waits.call()})).must("ok", "none", "");
    assert!(done.value["warnings"].to_string().contains(part.call()), "its id is told: {}", done.value);
    assert_eq!(admin.no("undo.call", json!({"call": waits.call()}))["code"], "not_found", "it changed nothing itself");
    admin.reply("undo.call", json!({"call": part.call()})).must("ok", "committed", "");
    let undone = peer.reads_of("/undo/r-1");
    assert_eq!((undone.len(), undone[0].body.as_str()), (1, r#"{"what": 5}"#));
    assert_eq!(admin.no("undo.call", json!({"call": part.call()}))["code"], "denied", "once");
}

#[test]
fn r09_what_nothing_undoes_is_refused_by_name_and_what_may_stay_stays() {
    let peer = Peer::new();
    let world = world(&peer);
    let (mut agent, mut admin) = (world.agent(), world.admin());
    let url = format!("{}/a", peer.origin());
    let mut committed = |tool: &str, step: Value| {
        let waits = held(reach(&mut agent, tool, &[step, write(&format!("{tool}.txt"), "x")]));
        agree(&mut admin, &waits).must("ok", "committed", "").call().to_owned()
    };
    let (told, lost, left) = (
        committed("told", message("log", "Hi")),
        committed("lost", send("POST", &url, "b")),
        committed("left", send("POST", &url, "b")),
    );
    let refused = admin.no("undo.call", json!({"call": told}));
    let text = refused["message"].as_str().unwrap_or_default();
    assert!(refused["code"] == "denied" && text.contains("`message.send`") && text.contains("take back"), "{refused}");
    let refused = admin.no("undo.call", json!({"call": lost}));
    let text = refused["message"].as_str().unwrap_or_default();
    assert!(refused["code"] == "denied" && text.contains("declares no compensation"), "{refused}");
    assert!(world.path("books/told.txt").exists() && world.path("books/lost.txt").exists());
    admin.reply("undo.call", json!({"call": left})).must("ok", "committed", "");
    assert!(!world.path("books/left.txt").exists(), "its request does no harm where it is");
    assert_eq!(peer.reads().len(), 2, "nothing more was sent");
}

#[test]
fn t_o3_a_tool_that_is_stopped_reaches_nobody_by_the_undo_of_its_calls() {
    let peer = Peer::new();
    let world = world(&peer);
    let (mut agent, mut admin) = (world.agent(), world.admin());
    let steps = [send("POST", &format!("{}/a", peer.origin()), r#"{"n": 1}"#)];
    let waits = held(reach(&mut agent, "paid", &steps));
    let done = agree(&mut admin, &waits).must("ok", "committed", "");
    let files = reach(&mut agent, "keys", &[write("k.txt", "x")]).must("ok", "committed", "");
    for (level, name) in [("tool", "paid"), ("agent", "local")] {
        let switch = json!({"level": level, "name": name, "mode": "stop", "reason": "it does too much"});
        admin.ok("kill.set", switch);
        let refused = admin.reply("undo.call", json!({"call": done.call()}));
        assert_eq!(refused.text("/error/code"), "killed", "{level}: {}", refused.value);
        assert!(peer.reads_of("/undo/r-1").is_empty(), "{level}");
        admin.ok("kill.clear", json!({"level": level, "name": name}));
    }
    // What an operator takes back in the workspace reaches nobody: that is what a tool is stopped for.
    admin.ok("kill.set", json!({"level": "tool", "name": "keys", "mode": "stop", "reason": "it does too much"}));
    admin.reply("undo.call", json!({"call": files.call()})).must("ok", "committed", "");
    assert!(!world.path("books/k.txt").exists());
    admin.reply("undo.call", json!({"call": done.call()})).must("ok", "committed", "");
    assert_eq!(peer.reads_of("/undo/r-1").len(), 1);
    world.verified();
}
