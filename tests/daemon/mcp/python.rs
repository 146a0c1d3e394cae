//! The Python SDK of MCP, unchanged, against the daemon: the release that speaks the newer era, and one that knows only the older.
//!
//! `make mcp-clients` puts both beside what is built.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::super::approvals::approve;
use super::super::installed::installed;
use super::super::world::World;
use super::elicit::confirming;
use super::http::{open, opened, token};
use crate::doors::running::program;

/// The client with the SDK of an era; nothing where it is not installed and need not be.
fn client(era: &str) -> Option<Command> {
    let mut client = Command::new(installed(&format!("mcp-clients/{era}/bin/python"), "make mcp-clients")?);
    client.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/daemon/mcp/client.py"));
    Some(client)
}

/// Run a client; after `held` somebody approves. Everything that it told.
pub(super) fn converse(world: &World, mut client: Command, arguments: &[String]) -> Vec<Value> {
    client.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = client.spawn().expect("the client starts");
    let mut told = Vec::new();
    for line in BufReader::new(child.stdout.take().expect("stdout")).lines() {
        let step: Value = serde_json::from_str(&line.expect("a line")).expect("JSON");
        if step["step"] == "held" {
            approve(&mut world.admin(), step["approval"].as_str().expect("an approval"));
        }
        told.push(step);
    }
    assert!(child.wait().expect("ends").success(), "{told:?}");
    told
}

/// What every client must have found.
pub(super) fn check(world: &World, told: &[Value], version: &str) {
    let steps: Vec<&str> = told.iter().filter_map(|step| step["step"].as_str()).collect();
    assert_eq!(steps, ["connected", "previewed", "held", "done", "wrong"], "{told:?}");
    assert_eq!(told[0]["version"], version);
    assert!(told[0]["tools"].as_array().is_some_and(|tools| tools.contains(&json!("held-rename.preview"))));
    assert_eq!((&told[1]["outcome"], &told[2]["status"]), (&json!("previewed"), &json!("approval_required")));
    assert_eq!((&told[3]["status"], &told[3]["outcome"]), (&json!("ok"), &json!("committed")));
    assert_eq!(told[4]["error"], "invalid_input");
    assert!(world.path("src/shop/new_name.py").exists());
    world.verified();
}

/// What every client must have found that was asked to confirm three changes.
pub(super) fn check_confirmed(world: &World, told: &[Value], version: &str) {
    assert_eq!((&told[0]["step"], &told[0]["version"]), (&json!("connected"), &json!(version)), "{told:?}");
    let expected =
        [("accept", "ok", "committed"), ("decline", "denied", "discarded"), ("cancel", "approval_required", "pending")];
    assert_eq!(told.len(), 1 + 2 * expected.len(), "{told:?}");
    for (pair, (answer, status, outcome)) in told[1..].chunks(2).zip(expected) {
        assert_eq!((&pair[0]["step"], &pair[0]["answer"]), (&json!("asked"), &json!(answer)), "{told:?}");
        assert!(pair[0]["message"].as_str().is_some_and(|said| said.contains("file.write notes:")), "{told:?}");
        assert_eq!((&pair[1]["status"], &pair[1]["outcome"]), (&json!(status), &json!(outcome)), "{told:?}");
    }
    let there = ["yes", "no", "later"].map(|name| world.path(&format!("notes/{name}.md")).exists());
    assert_eq!(there, [true, false, false]);
    world.verified();
}

/// How a client is told to start `toolkeep mcp`.
pub(in crate::daemon) fn by_shim(world: &World) -> Vec<String> {
    let config = world.path("toolkeep.toml");
    [program().display().to_string(), "--config".to_owned(), config.display().to_string(), "mcp".to_owned()].to_vec()
}

#[test]
fn r51_the_python_sdk_of_the_newer_era_previews_is_held_and_commits() {
    let world = World::new();
    if let Some(client) = client("new") {
        check(&world, &converse(&world, client, &by_shim(&world)), "2026-07-28");
    }
}

#[test]
fn r51_the_python_sdk_of_the_older_era_previews_is_held_and_commits() {
    let world = World::new();
    if let Some(client) = client("old") {
        check(&world, &converse(&world, client, &by_shim(&world)), "2025-11-25");
    }
}

#[test]
fn r51_both_python_sdks_do_the_same_over_http() {
    for (era, version) in [("new", "2026-07-28"), ("old", "2025-11-25")] {
        let (world, port) = open("");
        let arguments = ["--url".to_owned(), format!("http://127.0.0.1:{port}/mcp"), token(&world)];
        if let Some(client) = client(era) {
            check(&world, &converse(&world, client, &arguments), version);
        }
    }
}

#[test]
fn r51_both_python_sdks_are_asked_by_elicitation_over_both_transports() {
    for (era, version) in [("new", "2026-07-28"), ("old", "2025-11-25")] {
        for http in [false, true] {
            let Some(client) = client(era) else { return };
            let world = confirming();
            let mut arguments = vec!["--confirm".to_owned()];
            arguments.extend(if http { over_http(&world) } else { by_shim(&world) });
            check_confirmed(&world, &converse(&world, client, &arguments), version);
        }
    }
}

/// How a client is told to connect to the door of a world.
pub(super) fn over_http(world: &World) -> Vec<String> {
    let url = format!("http://127.0.0.1:{}/mcp", opened(world));
    ["--url".to_owned(), url, token(world)].to_vec()
}
