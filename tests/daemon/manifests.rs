//! Manifests while the daemon runs: new ones appear, bad ones change nothing, changed components are refused.

use serde_json::{Value, json};

use super::scenery::manifest;
use super::world::{World, component};
use crate::doors::running::until;

fn problem(world: &World, file: &str) -> Option<Value> {
    let listed = world.admin().ok("tools.list", json!({}));
    let problems = listed["problems"].as_array().expect("problems");
    problems.iter().find(|problem| problem["file"].as_str().is_some_and(|name| name.ends_with(file))).cloned()
}

fn offered(world: &World, tool: &str) -> bool {
    let listed = world.agent().ok("tools.list", json!({}));
    listed["tools"].as_array().expect("tools").iter().any(|listed| listed["name"] == tool)
}

#[test]
fn r53_a_new_manifest_appears_and_a_removed_one_goes() {
    let world = World::new();
    manifest(&world, ("newcomer", "text-stats", "tier = 0\n"));
    until("it is offered", || offered(&world, "newcomer"));
    world.agent().execute("newcomer", json!({"text": "a b"})).must("ok", "none", "");
    std::fs::remove_file(world.path("tools/newcomer.toml")).expect("remove");
    until("it is gone", || !offered(&world, "newcomer"));
    world.agent().execute("newcomer", json!({"text": "a b"})).must("failed", "none", "not_found");
}

#[test]
fn r53_an_invalid_manifest_keeps_the_old_tool_and_is_named() {
    let world = World::new();
    world.home.put("tools/text-stats.toml", b"format = 1\nname = \"text-stats\"\ntier = \"none\"\n");
    until("it is noticed", || problem(&world, "text-stats.toml").is_some());
    let found = problem(&world, "text-stats.toml").expect("a problem");
    assert_eq!(found["kept_old"], true, "{found}");
    world.agent().execute("text-stats", json!({"text": "a b"})).must("ok", "none", "");
    manifest(&world, ("text-stats", "text-stats", "tier = 0\n"));
    until("it is well again", || problem(&world, "text-stats.toml").is_none());
}

#[test]
fn r38_a_plan_of_a_tool_whose_manifest_or_component_changed_is_stale() {
    let world = World::new();
    let mut agent = world.agent();
    let before = world.snapshot();
    let shown = agent.preview("notes.add", json!({"title": "A", "body": "b"})).must("ok", "previewed", "");
    let held =
        agent.execute("notes2.add", json!({"title": "B", "body": "b"})).must("held", "pending", "approval_required");
    let grant = "[[workspace]]\nname = \"notes\"\naccess = \"write\"\n";
    for name in ["notes", "notes2"] {
        let text = format!(
            "format = 1\nname = \"{name}\"\ncomponent = \"notes.wasm\"\ntier = 2\nversion = \"9.9.9\"\n{grant}"
        );
        world.home.put(&format!("tools/{name}.toml"), text.as_bytes());
    }
    world.admin().ok("tools.reload", json!({}));
    agent.commit(shown.plan()).must("failed", "discarded", "stale_plan");
    let answer = world.admin().raw("approvals.approve", json!({"approval": held.approval()})).expect("an answer");
    assert!(answer.to_string().contains("stale_plan"), "{answer}");
    assert_eq!(world.snapshot(), before);
}

#[test]
fn r38_a_pinned_component_that_changed_is_refused() {
    let world = World::new();
    let source = world.path("source");
    std::fs::create_dir(&source).expect("directory");
    std::fs::copy(component("text-stats"), source.join("t.wasm")).expect("component");
    let text = b"format = 1\nname = \"pinned\"\ncomponent = \"t.wasm\"\ntier = 0\n";
    std::fs::write(source.join("pinned.toml"), text).expect("manifest");
    let mut admin = world.admin();
    let done = admin.ok("tools.install", json!({"manifest": source.join("pinned.toml")}));
    assert_eq!(done["installed"], json!(["pinned"]));
    let installed = world.text("tools/pinned.toml");
    let digest = done["component"].as_str().expect("a digest");
    assert!(installed.contains(&format!("sha256 = \"{digest}\"")), "{installed}");
    world.agent().execute("pinned", json!({"text": "a"})).must("ok", "none", "");
    // Somebody puts another program where the pinned one was.
    let place = world.path(&format!("tools/{digest}.wasm"));
    std::fs::copy(component("spin"), &place).expect("swapped");
    admin.ok("tools.reload", json!({}));
    let found = problem(&world, "pinned.toml").expect("a problem");
    assert!(found["problem"].as_str().is_some_and(|text| text.contains("it changed")), "{found}");
    assert_eq!(found["kept_old"], true);
    let reply = world.agent().execute("pinned", json!({"text": "a"}));
    assert!(reply.text("/outcome") == "none" && reply.value["output"] != json!({}), "{}", reply.value);
    std::fs::copy(component("text-stats"), &place).expect("restored");
    admin.ok("tools.reload", json!({}));
    assert!(problem(&world, "pinned.toml").is_none());
}

#[test]
fn r14_what_cannot_be_installed_changes_nothing() {
    let world = World::new();
    let files = || std::fs::read_dir(world.path("tools")).expect("tools").count();
    let before = files();
    let source = world.path("source");
    std::fs::create_dir(&source).expect("directory");
    std::fs::write(source.join("junk.wasm"), b"\0asm junk").expect("component");
    std::fs::copy(component("undeclared-import"), source.join("undeclared.wasm")).expect("component");
    let mut admin = world.admin();
    for text in [
        "format = 1\nname = \"a\"\ncomponent = \"junk.wasm\"\n",
        "format = 1\nname = \"a\"\ncomponent = \"missing.wasm\"\n",
        "format = 1\nname = \"a\"\ncomponent = \"undeclared.wasm\"\n",
        "format = 1\nname = \"toolkeep\"\ncomponent = \"junk.wasm\"\n",
        "format = 9\n",
        "\u{0}",
    ] {
        std::fs::write(source.join("a.toml"), text).expect("manifest");
        let told = admin.no("tools.install", json!({"manifest": source.join("a.toml")}));
        assert_eq!(told["code"], "invalid_input", "{text}: {told}");
        assert_eq!(files(), before, "{text}");
    }
    let relative = admin.no("tools.install", json!({"manifest": "source/a.toml"}));
    assert_eq!(relative["code"], "invalid_input");
}
