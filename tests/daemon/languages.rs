//! Tools that were not written in Rust: a Python and a JavaScript tool of `toolkeep new`, and one in C, from the first call to a
//! commit.
//!
//! `make languages` writes the first two with `toolkeep new --lang`, builds them by the commands that it prints and packs them; that is
//! the test of the scaffolds. The one in C has functions of its own instead of the contract. What they ask of the host, typed errors, files through the stage, is what a tool in Rust asks.

use serde_json::json;

use super::installed::installed;
use super::scenery;
use super::world::{Plot, World, component};

/// A world with the tool and the workspace that it wants.
fn world(tool: &'static str) -> World {
    let mut world = World::asleep(Plot::default());
    let mut config = world.text("toolkeep.toml");
    config.push_str("[[workspace]]\nname = \"work\"\npath = \"work\"\n");
    world.home.put("toolkeep.toml", config.as_bytes());
    world.home.put("work/todo.txt", b"one\n\ntwo");
    std::fs::copy(component(tool), world.path(&format!("tools/{tool}.wasm"))).expect("component");
    let grant = "tier = 1\n[tiers]\ncount-lines = 0\n[[workspace]]\nname = \"work\"\naccess = \"write\"\n";
    scenery::manifest(&world, (tool, tool, grant));
    world.start();
    world
}

/// A tool of the contract, which describes itself.
fn behaves(tool: &'static str) {
    if installed(&format!("tools/{tool}.wasm"), "make languages").is_some() {
        counts_and_appends(&world(tool), tool);
    }
}

/// Two tools whose names begin with `tool`, called and refused and committed.
fn counts_and_appends(world: &World, tool: &str) {
    let mut agent = world.agent();
    let (count, append) = (format!("{tool}.count-lines"), format!("{tool}.append-line"));
    let todo = json!({"path": "todo.txt"});
    let first = agent.execute(&count, todo.clone()).must("ok", "none", "");
    assert_eq!(first.value["output"], json!({"lines": 3, "filled": 2}));
    let warm = agent.execute(&count, todo).must("ok", "none", "");
    assert_eq!(warm.value["output"], first.value["output"]);
    assert_eq!(
        warm.value["usage"]["fuel"], first.value["usage"]["fuel"],
        "the interpreter starts from the same snapshot"
    );
    let gone = agent.execute(&count, json!({"path": "gone.txt"})).must("failed", "none", "tool_failed");
    assert!(gone.text("/error/hint").contains("not-found"), "{}", gone.value);
    let out = agent.execute(&count, json!({"path": "../notes/inside.txt"})).must("failed", "none", "tool_failed");
    assert!(out.text("/error/hint").contains("denied"), "{}", out.value);
    let wrong = agent.execute(&append, json!({"path": "todo.txt", "line": "a\nb"}));
    let wrong = wrong.must("failed", "none", "invalid_input");
    assert!(wrong.value["error"].to_string().contains("line feed"), "{}", wrong.value);
    agent.execute(&append, json!({"path": "todo.txt"})).must("failed", "none", "invalid_input");
    let before = world.text("work/todo.txt");
    let shown = agent.preview(&append, json!({"path": "todo.txt", "line": "drei — 三"})).must("ok", "previewed", "");
    assert_eq!(shown.text("/plan/effects/0/path"), "todo.txt");
    assert_eq!(world.text("work/todo.txt"), before);
    let done = agent.commit(shown.plan()).must("ok", "committed", "");
    assert_eq!(done.value["output"], json!({"lines": 4}));
    assert_eq!(world.text("work/todo.txt"), "one\n\ntwo\ndrei — 三\n");
    agent.execute(&append, json!({"path": "new.txt", "line": "one"})).must("ok", "committed", "");
    assert_eq!(world.text("work/new.txt"), "one\n");
    world.verified();
}

#[test]
fn r50_a_python_tool_is_called_refuses_with_types_and_commits_what_it_staged() {
    behaves("lines-python");
}

#[test]
fn r50_a_javascript_tool_is_called_refuses_with_types_and_commits_what_it_staged() {
    behaves("lines-js");
}

#[test]
fn r50_a_tool_in_c_is_called_refuses_with_types_and_commits_what_it_staged() {
    if installed("tools/lines-c.wasm", "make languages").is_none() {
        return;
    }
    let mut world = World::asleep(Plot::default());
    let mut config = world.text("toolkeep.toml");
    config.push_str("[[workspace]]\nname = \"work\"\npath = \"work\"\n");
    world.home.put("toolkeep.toml", config.as_bytes());
    world.home.put("work/todo.txt", b"one\n\ntwo");
    world.home.put("work/windows.txt", b"\xef\xbb\xbfone\r\ntwo\r\n");
    std::fs::copy(component("lines-c"), world.path("tools/lines-c.wasm")).expect("component");
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../sample-tools/c/lines/lines.toml");
    std::fs::copy(manifest, world.path("tools/lines.toml")).expect("manifest");
    world.start();
    counts_and_appends(&world, "lines");
    let mut agent = world.agent();
    agent.execute("lines.append-line", json!({"path": "windows.txt", "line": "x"})).must("ok", "committed", "");
    assert_eq!(std::fs::read(world.path("work/windows.txt")).expect("file"), b"\xef\xbb\xbfone\r\ntwo\r\nx\n");
}
