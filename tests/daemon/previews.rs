//! A preview runs the tool and changes nothing; a failed execution leaves nothing.

use serde_json::{Value, json};

use super::world::World;

/// Every tool of the scenery that can write, with an input that makes it try.
fn attempts() -> Vec<(&'static str, Value)> {
    vec![
        ("notes.add", json!({"title": "One", "body": "text"})),
        ("csv-report", json!({"input": "ledger", "output": "reports/all.md"})),
        ("rename-symbol", json!({"from": "old_name", "to": "new_name"})),
        ("held-rename", json!({"from": "old_name", "to": "new_name"})),
        ("notes2.add", json!({"title": "Two", "body": "text"})),
        ("notes3.add", json!({"title": "Three", "body": "text"})),
        ("writer", json!({})),
        ("million-files", json!({"n": 40})),
        ("million-files", json!({})),
        ("deep-directories", json!({"n": 12})),
        ("deep-directories", json!({})),
        ("sparse-giant", json!({"n": 4096})),
        ("sparse-giant", json!({})),
        ("path-escape", json!({})),
        ("read-only-writer", json!({})),
        ("narrowed", json!({})),
        ("bad-output", json!({})),
        ("text-stats", json!({"text": "a b"})),
    ]
}

#[test]
fn r05_a_preview_changes_nothing_whatever_the_tool_does() {
    let world = World::new();
    let before = world.snapshot();
    let mut agent = world.agent();
    assert_eq!(world.admin().ok("tools.list", json!({}))["problems"], json!([]), "every tool is offered");
    let mut planned = 0;
    for (tool, input) in attempts() {
        let reply = agent.preview(tool, input);
        planned += usize::from(reply.text("/outcome") == "previewed");
        assert_ne!(reply.text("/outcome"), "committed", "{tool}: {}", reply.value);
        assert_eq!(world.snapshot(), before, "{tool}: {}", reply.value);
    }
    assert!(planned >= 8, "only {planned} tools planned anything");
    world.verified();
}

#[test]
fn r06_the_same_preview_twice_gives_the_same_digest_and_two_plans() {
    let world = World::new();
    let mut agent = world.agent();
    for (tool, input) in attempts().into_iter().take(8) {
        let (one, two) = (agent.preview(tool, input.clone()), agent.preview(tool, input));
        assert_eq!(one.text("/outcome"), "previewed", "{tool}: {}", one.value);
        assert_eq!(one.digest(), two.digest(), "{tool}");
        assert_ne!(one.plan(), two.plan(), "{tool}");
    }
    let other = agent.preview("notes.add", json!({"title": "One", "body": "other"}));
    assert_ne!(other.digest(), agent.preview("notes.add", json!({"title": "One", "body": "text"})).digest());
}

#[test]
fn r07_failed_trapped_and_over_limit_executions_leave_nothing_and_say_whose_fault_it_is() {
    let world = World::new();
    let before = world.snapshot();
    let mut agent = world.agent();
    for (tool, input, code) in [
        ("spin", json!({}), "out_of_fuel"),
        ("spin-long", json!({}), "deadline_exceeded"),
        ("trap", json!({}), "tool_trapped"),
        ("panic", json!({}), "tool_trapped"),
        ("exit", json!({}), "tool_trapped"),
        ("grow-memory", json!({}), "memory_exceeded"),
        ("giant-return", json!({"n": 2000}), "output_too_large"),
        ("million-files", json!({}), "memory_exceeded"),
        ("sparse-giant", json!({}), "memory_exceeded"),
        ("notes.add", json!({"title": "inside", "body": "x", "tags": ["NO"]}), "invalid_input"),
    ] {
        let reply = agent.execute(tool, input).must("failed", "none", code);
        assert!(reply.value["plan"].is_null(), "{tool}: {}", reply.value);
        assert_eq!(world.snapshot(), before, "{tool}");
    }
    world.verified();
}

#[test]
fn r12_a_tools_own_error_is_not_a_fault_of_the_host() {
    let world = World::new();
    let mut agent = world.agent();
    agent.execute("notes.add", json!({"title": "Same", "body": "x"})).must("ok", "committed", "");
    let again = agent.execute("notes.add", json!({"title": "Same", "body": "y"})).must("failed", "none", "tool_failed");
    assert!(again.text("/error/hint").contains("conflict"), "{}", again.value);
    let wrong = agent.execute("notes.add", json!({"title": 7})).must("failed", "none", "invalid_input");
    assert!(wrong.value.to_string().contains("/input/title"), "{}", wrong.value);
}

#[test]
fn r13_what_a_tool_wrote_is_thrown_away_when_its_output_is_not_what_its_schema_says() {
    let world = World::asleep(super::world::Plot::default());
    // The writer of the scenery, with a schema that its output does not meet: the section keeps its length.
    let path = world.path("tools/read-only-writer.wasm");
    let bytes = std::fs::read(&path).expect("component");
    let patched = replaced(
        &bytes,
        b"\"output_schema\": {}",
        b"\"output_schema\": {\"type\":\"null\"}",
        b"Whatever it gets away with.",
    );
    std::fs::write(world.path("tools/liar.wasm"), patched).expect("component");
    super::scenery::manifest(
        &world,
        ("liar", "liar", "tier = 1\n[[workspace]]\nname = \"notes\"\naccess = \"write\"\n"),
    );
    let mut world = world;
    world.start();
    let before = world.snapshot();
    let mut agent = world.agent();
    for (tool, input) in [("bad-output", json!({})), ("bad-output", json!({"text": true})), ("liar", json!({}))] {
        let reply = agent.execute(tool, input).must("failed", "none", "tool_trapped");
        assert!(reply.value["output"].is_null(), "{}", reply.value);
        assert_eq!(world.snapshot(), before, "{tool}");
    }
    agent.execute("writer", json!({})).must("ok", "committed", "");
    assert_eq!(world.text("notes/inside.txt"), "overwritten", "the same code with its own schema does write");
}

/// `bytes` with `from` made longer `to`, and `filler` made shorter by as much.
fn replaced(bytes: &[u8], from: &[u8], to: &[u8], filler: &[u8]) -> Vec<u8> {
    let at = |text: &[u8], wanted: &[u8]| text.windows(wanted.len()).rposition(|window| window == wanted);
    let mut out = bytes.to_vec();
    let place = at(&out, from).expect("the schema in the component");
    out.splice(place..place + from.len(), to.iter().copied());
    let place = at(&out, filler).expect("the filler in the component");
    out.drain(place..place + to.len() - from.len());
    assert_eq!(out.len(), bytes.len());
    out
}
