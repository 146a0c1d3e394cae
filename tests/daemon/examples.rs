//! The examples for frameworks of others, with models that have made up their minds: everything is real but the model.

use std::process::Command;

use serde_json::{Value, json};
use toolkeep_tests::support::components::repository;

use super::installed::{installed, succeeds};
use super::mcp::by_shim;
use super::world::World;

/// Run an example; what its model was told, and at last what it was offered and said.
fn run(world: &World, framework: &str) -> Option<Vec<Value>> {
    let python = installed(&format!("mcp-clients/{framework}/bin/python"), "make mcp-clients")?;
    let mut example = Command::new(python);
    example.arg(repository().join(format!("tests/daemon/examples/{framework}_fake.py"))).args(by_shim(world));
    example.env("PYTHONPATH", repository().join("clients/examples")).env("PYTHONDONTWRITEBYTECODE", "1");
    // Neither framework may ask or tell anybody about it.
    for name in ["OPENAI_API_KEY", "LANGSMITH_TRACING", "LANGCHAIN_TRACING_V2"] {
        example.env_remove(name);
    }
    let told = String::from_utf8(succeeds(&mut example).stdout).expect("text");
    Some(told.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect())
}

fn check(framework: &str, file: &str) {
    let world = World::new();
    let Some(told) = run(&world, framework) else { return };
    let [preview, call, end] = &told[..] else { panic!("{told:?}") };
    let outcome = |told: &Value| (told["said"]["status"].clone(), told["said"]["outcome"].clone());
    assert_eq!(outcome(preview), (json!("ok"), json!("previewed")), "{preview}");
    assert_eq!(outcome(call), (json!("ok"), json!("committed")), "{call}");
    assert_eq!(preview["said"]["plan"]["digest"], call["said"]["plan"]["digest"], "what was shown is what was done");
    assert_eq!(end["final"], "It is noted.");
    let offered = end["offered"].as_array().expect("tools");
    let plain = |name: &&str| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    assert!(offered.iter().filter_map(Value::as_str).all(|name| plain(&name)), "{offered:?}");
    assert!(
        offered.contains(&json!("toolkeep__wait")) && offered.contains(&json!("held-rename__preview")),
        "{offered:?}"
    );
    assert!(world.path(file).exists());
    world.verified();
}

#[test]
fn r51_the_langchain_example_previews_and_calls() {
    check("langchain", "notes/from-langchain.md");
}

#[test]
fn r51_the_example_for_the_openai_agents_sdk_previews_and_calls() {
    check("openai", "notes/from-agents.md");
}
