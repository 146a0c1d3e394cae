//! A daemon that has grown: a million recorded calls, 10,000 tools of 100 components, 1,000 policies of which 20 are about the
//! tool that is called, 10,000 open runs. Its ledger takes minutes to grow, so it is made once and kept in the target
//! directory.

use std::fmt::Write as _;
use std::fs;

use serde_json::json;

use crate::client::{drive, text_stats};
use crate::world::{Daemon, PURE, World, component, ten_thousand_tools};

/// Calls on record, at least.
pub const RECORDED: usize = 1_000_000;
const RUNS: usize = 10_000;
const POLICIES: usize = 1_000;
/// Policies that are about the tool that is called.
const OWN_POLICIES: usize = 20;
const CLIENTS: usize = 64;
/// Says in the kept folder that its ledger is complete.
const GROWN: &str = "grown";

fn policies() -> String {
    let mut text = String::from("permit (principal, action, resource);\n");
    for number in 1..POLICIES {
        let tool = if number < OWN_POLICIES { "text-stats".to_owned() } else { format!("many-{:04}", number * 7) };
        let unless = r#"context.time.hour < 0 || context.environment == "prod""#;
        let action = format!("[Action::\"call:{tool}\", Action::\"commit:{tool}\"]");
        writeln!(text, "@id(\"p{number}\") forbid (principal, action in {action}, resource) when {{ {unless} }};")
            .expect("a text");
    }
    text
}

/// How often what was refused is asked again, and how long is waited before.
const TRIES_MAX: usize = 200;
const AGAIN_AFTER: std::time::Duration = std::time::Duration::from_secs(1);

/// A daemon that has grown, and its folder, which stays.
#[must_use]
pub fn grown() -> (World, Daemon) {
    let world = World::kept("p10");
    fs::create_dir_all(world.path("policies")).expect("a folder");
    fs::write(world.path("policies/all.cedar"), policies()).expect("policies");
    world.configure("\n[policy]\ndir = \"policies\"\n");
    world.install("text-stats", &component("text-stats"), PURE);
    ten_thousand_tools(&world, PURE);
    let daemon = world.start();
    if !world.path(GROWN).exists() {
        println!("making {RECORDED} recorded calls and {RUNS} open runs; this is done once");
        let line = text_stats();
        succeed(&world, RECORDED, r#""status":"ok""#, &line);
        let open = json!({"jsonrpc": "2.0", "id": 1, "method": "runs.open", "params": {}}).to_string();
        succeed(&world, RUNS, r#""result""#, &open);
        fs::write(world.path(GROWN), "").expect("a note");
    }
    (world, daemon)
}

/// Ask until so many answers hold the wanted text: a daemon that is behind, or has a rate, says so, and is asked again later.
fn succeed(world: &World, wanted: usize, text: &'static str, line: &str) {
    let mut left = wanted;
    for _ in 0..TRIES_MAX {
        let line = line.to_owned();
        left = drive(&world.agent_socket(), CLIENTS, left, text, move |_| line.clone()).wrong;
        if left == 0 {
            return;
        }
        std::thread::sleep(AGAIN_AFTER);
    }
    panic!("{left} of {wanted} requests were never answered with {text}");
}
