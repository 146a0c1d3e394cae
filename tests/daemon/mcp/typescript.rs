//! The TypeScript SDK of MCP, unchanged, in both eras, and the Inspector: what people look at a server with.

use std::process::Command;

use serde_json::Value;

use super::super::installed::{installed, succeeds};
use super::super::world::World;
use super::elicit::confirming;
use super::http::{open, token};
use super::python::{by_shim, check, check_confirmed, converse, over_http};

/// Where the packages are; nothing where they are not installed and need not be.
fn packages() -> Option<String> {
    installed("mcp-clients/node/version", "make mcp-clients")
        .map(|version| version.parent().expect("a directory").display().to_string())
}

/// The client with the SDK of an era.
fn client(packages: &str, era: &str) -> Command {
    let mut client = Command::new("node");
    client.args([concat!(env!("CARGO_MANIFEST_DIR"), "/daemon/mcp/client.cjs"), packages, era]);
    client
}

#[test]
fn r51_the_typescript_sdk_of_either_era_previews_is_held_and_commits() {
    let Some(packages) = packages() else { return };
    for (era, version) in [("new", "2026-07-28"), ("old", "2025-11-25")] {
        let world = World::new();
        check(&world, &converse(&world, client(&packages, era), &by_shim(&world)), version);
        let (world, port) = open("");
        let arguments = ["--url".to_owned(), format!("http://127.0.0.1:{port}/mcp"), token(&world)];
        check(&world, &converse(&world, client(&packages, era), &arguments), version);
    }
}

#[test]
fn r51_the_typescript_sdk_of_either_era_is_asked_by_elicitation_over_both_transports() {
    let Some(packages) = packages() else { return };
    for (era, version) in [("new", "2026-07-28"), ("old", "2025-11-25")] {
        for http in [false, true] {
            let world = confirming();
            let mut arguments = vec!["--confirm".to_owned()];
            arguments.extend(if http { over_http(&world) } else { by_shim(&world) });
            check_confirmed(&world, &converse(&world, client(&packages, era), &arguments), version);
        }
    }
}

#[test]
fn r51_the_inspector_lists_tools_previews_and_calls_over_both_transports() {
    let Some(packages) = packages() else { return };
    let (world, port) = open("");
    let token = token(&world);
    // It keeps a catalog in its home, which is the world's own here.
    let inspect = |rest: &[&str]| -> Value {
        let mut inspector = Command::new(format!("{packages}/node_modules/.bin/node"));
        let launcher = "node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js";
        inspector.arg(format!("{packages}/{launcher}")).arg("--cli").args(rest).env("HOME", world.home.path());
        serde_json::from_slice(&succeeds(&mut inspector).stdout).expect("JSON")
    };
    let shim = by_shim(&world);
    let stdio: Vec<&str> = ["--"].into_iter().chain(shim.iter().map(String::as_str)).collect();
    let (url, header) = (format!("http://127.0.0.1:{port}/mcp"), format!("Authorization: Bearer {token}"));
    let http = [url.as_str(), "--transport", "http", "--header", header.as_str()];
    let with = |ask: &[&str], place: &[&str]| inspect(&[ask, place].concat());
    let lists =
        [with(&["--method", "tools/list"], &stdio), inspect(&[&http[..], &["--method", "tools/list"]].concat())];
    for list in &lists {
        let names: Vec<&str> =
            list["tools"].as_array().expect("tools").iter().filter_map(|t| t["name"].as_str()).collect();
        assert!(names.contains(&"notes.add") && names.contains(&"notes.add.preview"), "{names:?}");
    }
    let call = ["--method", "tools/call", "--tool-arg", "title=Looked at", "body=b", "--tool-name"];
    let shown = with(&[&call[..], &["notes.add.preview"]].concat(), &stdio);
    assert_eq!(shown["structuredContent"]["outcome"], "previewed", "{shown}");
    assert!(!world.path("notes/looked-at.md").exists());
    let done = inspect(&[&http[..], &call[..], &["notes.add"]].concat());
    assert_eq!(done["structuredContent"]["outcome"], "committed", "{done}");
    assert!(world.path("notes/looked-at.md").exists());
    world.verified();
}
