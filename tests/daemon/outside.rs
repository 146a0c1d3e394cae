//! What reaches beyond the workspaces, through the whole daemon: requests, messages and keys of one plan, whatever goes
//! wrong at the other end, in between or here.
//!
//! The peers are real ones on loopback. One tool does everything at once, as its input says, so that a plan has all
//! kinds of effects: either all of them are there in the end, or none, or the call says that nobody knows.

mod chain;
mod compensation;
mod faulted;
mod gaps;
mod killed;
mod leaks;
mod peer;
mod repeated;
mod replayed;
mod saga;
mod syscalls;
mod tried;
mod undo;
mod waiting;

use serde_json::{Value, json};

use super::scenery::manifest;
use super::world::{Agent, Plot, Reply, World, component};
use crate::doors::running::until;

/// A tool of the scenery of a test: its name, its component, and what its manifest says.
type Tool<'a> = (&'a str, &'a str, String);

/// A daemon that does not run yet, where one person approves alone, with more configuration and more tools.
fn asleep(config: &str, tools: &[Tool<'_>]) -> World {
    let world = World::asleep(Plot { daemon: "solo = true", limits: "" });
    let text = format!("{}\n{config}", world.text("toolkeep.toml"));
    world.home.put("toolkeep.toml", text.as_bytes());
    for (name, wasm, rest) in tools {
        std::fs::copy(component(wasm), world.path(&format!("tools/{wasm}.wasm"))).expect("component");
        manifest(&world, (name, wasm, rest));
    }
    world
}

/// The same, and it runs.
fn awake(config: &str, tools: &[Tool<'_>]) -> World {
    let mut world = asleep(config, tools);
    world.start();
    world
}

/// An entry of `[[http]]` for everything at an origin of this machine, and more lines of it.
fn grant(name: &str, origin: &str, more: &str) -> String {
    format!(
        "[[http]]\nname = \"{name}\"\norigin = \"{origin}\"\nmethods = [\"GET\", \"POST\", \"PUT\", \"PATCH\", \"DELETE\"]\n\
         allow_private = true\nrequests = 100\n{more}\n"
    )
}

/// A call of the tool that does what its input says.
fn reach(agent: &mut Agent, tool: &str, steps: &[Value]) -> Reply {
    agent.execute(tool, json!({"steps": steps}))
}

/// A step that sends a request.
fn send(method: &str, url: &str, body: &str) -> Value {
    json!({"op": "send", "method": method, "url": url, "body": body})
}

/// A step that writes a file of the workspace `books`.
fn write(path: &str, text: &str) -> Value {
    json!({"op": "write", "path": path, "text": text})
}

/// A step that adds to a key of the bucket `counts`.
fn add(key: &str, delta: i64) -> Value {
    json!({"op": "add", "bucket": "counts", "key": key, "delta": delta})
}

/// A step that sends a message.
fn message(channel: &str, subject: &str) -> Value {
    json!({"op": "message", "channel": channel, "to": ["ann@example.com"], "subject": subject, "body": "b"})
}

/// It waits for people.
#[track_caller]
fn held(reply: Reply) -> Reply {
    reply.must("held", "pending", "approval_required")
}

/// What approves a held call: its parameters.
fn consent(held: &Reply) -> Value {
    let digest = held.digest().get(..12).expect("a digest");
    json!({"approval": held.approval(), "reason": "looks right", "confirm": digest})
}

/// Let a person agree to what a call is held for: the reply that it ends with.
fn agree(admin: &mut Agent, held: &Reply) -> Reply {
    let answer = admin.ok("approvals.approve", consent(held));
    Reply { value: answer["reply"].clone(), replayed: false }
}

/// The reply of a call as it stands, once it does not run any more.
fn now(world: &World, call: &str) -> Reply {
    let mut found = None;
    until("the call does not run", || {
        let answer = world.agent().raw("calls.get", json!({"call": call})).expect("an answer");
        found = answer.pointer("/result/reply").cloned();
        assert!(found.is_some() || answer["error"]["data"]["code"] == "in_flight", "{answer}");
        found.is_some()
    });
    Reply { value: found.expect("a reply"), replayed: false }
}

/// Say what became of an unknown request; the reply that its call has then.
fn resolve(admin: &mut Agent, call: &str, sent: bool) -> Reply {
    let answer = admin.ok("outcomes.resolve", json!({"call": call, "sent": sent, "reason": "looked there"}));
    Reply { value: answer["reply"].clone(), replayed: false }
}

/// The number that a key of the bucket `counts` has, for a tool that may read it.
fn count(agent: &mut Agent, tool: &str, key: &str) -> Option<String> {
    let step = json!({"op": "get", "bucket": "counts", "key": key});
    let reply = reach(agent, tool, &[step]).must("ok", "none", "");
    reply.value["output"]["answers"][0].as_str().map(str::to_owned)
}
