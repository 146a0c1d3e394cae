//! A component that was not built with the SDK, from its file to a commit: drafted, installed, listed, called, held, replayed.

use serde_json::{Value, json};

use super::approvals::approve;
use super::world::{World, component};
use crate::doors::running::run;

/// What a person makes of the draft: names, descriptions and a grant.
pub(super) const MANIFEST: &str = r#"
format = 1
name = "stock"
component = "inventory.wasm"
tier = 1

[tiers]
sum = 0
"stock.show" = 0
"stock.store" = 2

[amounts]
count = "/input/item/count"

[[workspace]]
name = "books"
access = "write"
write = ["stock", "stock/**"]

[[function]]
export = "acme:inventory/stock@1.0.0#summarize"
name = "sum"
title = "Sum up"
what = "Sums up items."
when = "For the totals of a list of items."
side_effects = "None."
errors = "None."

[[function]]
export = "acme:inventory/stock@1.0.0#store"
what = "Keeps an item as a file."
when = "When an item arrives."
side_effects = "Writes one file below stock/."
errors = "`conflict` if the item exists: set `replace`."
effects = ["file.write"]

[[function]]
export = "acme:inventory/stock@1.0.0#show"
what = "Shows what is kept of an item."
when = "To look an item up."
side_effects = "None."
errors = "`not-found` if there is none."
"#;

/// A world with the component beside it.
pub(super) fn world() -> World {
    let world = World::new();
    std::fs::create_dir(world.path("source")).expect("directory");
    std::fs::copy(component("inventory"), world.path("source/inventory.wasm")).expect("component");
    std::fs::copy(component("odd-types"), world.path("source/odd-types.wasm")).expect("component");
    world
}

fn refused(world: &World, manifest: &str) -> String {
    world.home.put("source/a.toml", manifest.as_bytes());
    let told = world.admin().no("tools.install", json!({"manifest": world.path("source/a.toml")}));
    assert_eq!(told["code"], "invalid_input", "{told}");
    told["message"].as_str().expect("a message").to_owned()
}

pub(super) fn installed(world: &World, manifest: &str) -> Value {
    world.home.put("source/a.toml", manifest.as_bytes());
    world.admin().ok("tools.install", json!({"manifest": world.path("source/a.toml")}))["installed"].take()
}

pub(super) fn item(sku: &str) -> Value {
    json!({"sku": sku, "name": "Tea", "count": 250, "unit": "gram", "care": ["dry"], "place": {"shelf": 7},
        "note": "green", "picture": "AQID"})
}

#[test]
fn r50_a_drafted_manifest_installs_as_it_is() {
    let world = world();
    let drafted = |file: &str| {
        let output = run(&world.path("source"), &["tools", "inspect", "--draft", file], "");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("a text")
    };
    let draft = drafted("inventory.wasm");
    assert!(draft.contains("# It may use files: [[workspace]]"), "{draft}");
    let names = ["shelf-label", "stock.summarize", "stock.store", "stock.show"].map(|name| format!("inventory.{name}"));
    let given = installed(&world, &draft);
    assert!(names.iter().all(|name| given.as_array().expect("names").contains(&json!(name))), "{given}");
    let reply =
        world.agent().execute("inventory.shelf-label", json!({"row": "B", "number": 12})).must("ok", "none", "");
    assert_eq!(reply.value["output"], "B-12");
    // Of the hostile one, what can be a tool is drafted and the rest is not.
    let draft = drafted("odd-types.wasm");
    assert!(!draft.contains("#open\"") && !draft.contains("#deep\""), "{draft}");
    assert_eq!(installed(&world, &draft).as_array().map(Vec::len), Some(9));
    let packed = run(&world.path("source"), &["tools", "inspect", "--draft", "notes.wasm"], "");
    assert_eq!(packed.status.code(), Some(5), "no such file");
    std::fs::copy(component("notes"), world.path("source/notes.wasm")).expect("component");
    assert!(installed(&world, &drafted("notes.wasm").replace("\"notes\"", "\"more-notes\"")).is_array());
}

#[test]
fn r14_functions_are_offered_only_as_the_manifest_describes_them() {
    let world = world();
    let says = |from: &str, to: &str, expected: &str| {
        assert!(MANIFEST.contains(from), "{from}");
        let told = refused(&world, &MANIFEST.replacen(from, to, 1));
        assert!(told.contains(expected), "{told}");
    };
    says("when = \"To look an item up.\"\n", "", "add `when` to its entry");
    says("#show\"", "#shown\"", "exports no function `acme:inventory/stock@1.0.0#shown`; it has `");
    says("name = \"sum\"", "name = \"stock.store\"", "give one of them a `name`");
    says(
        "[[function]]\nexport = \"acme:inventory/stock@1.0.0#show\"",
        "[[function]]\nexport = \"\"",
        "names no function",
    );
    says("what = \"Sums up items.\"", "what = \"Sums \\u202E items.\"", "nobody sees");
    let bare = "format = 1\nname = \"bare\"\ncomponent = \"inventory.wasm\"\ntier = 0\n";
    let told = refused(&world, bare);
    assert!(told.contains("`what`, `when`, `side_effects` and `errors`") && told.contains("--draft"), "{told}");
    let entry = |export: &str| {
        format!(
            "{}[[function]]\nexport = \"{export}\"\nwhat = \"w\"\nwhen = \"w\"\nside_effects = \"s\"\nerrors = \"e\"\n",
            bare.replace("inventory", "odd-types")
        )
    };
    assert!(refused(&world, &entry("odd:types/odd@1.0.0#open")).contains("`result` is a resource"));
    assert!(refused(&world, &entry("odd:types/odd@1.0.0#deep")).contains("nested deeper than 12 levels"));
    std::fs::copy(component("notes"), world.path("source/odd-types.wasm")).expect("component");
    assert!(refused(&world, &entry("toolkeep:tool/tool@0.1.0#describe")).contains("describes its tools itself"));
}

#[test]
fn r42_what_the_manifest_calls_sensitive_is_hidden_as_if_a_schema_said_so() {
    const SAID: &str = "CANARY-NOTE";
    let world = world();
    let hides = |pointer: &str| {
        let line = format!("sensitive = [\"{pointer}\"]\nname = \"sum\"");
        MANIFEST.replacen("name = \"sum\"", &line, 1)
    };
    for (wrong, expected) in [
        ("/input/items/*/nota", "has nothing at `/input/items/*/nota`"),
        ("/input/items/0", "has nothing at"),
        ("/items", "is no part of a call"),
        ("/inputs", "is no part of a call"),
    ] {
        let told = refused(&world, &hides(wrong));
        assert!(told.contains(expected), "{told}");
    }
    installed(&world, &hides("/input/items/*/note\", \"/output/heaviest/note"));
    let mut agent = world.agent();
    let listed = agent.ok("tools.describe", json!({"tool": "stock.sum"}));
    let note = "/input_schema/properties/items/items/properties/note";
    assert_eq!(listed.pointer(note).map(|note| &note["x-sensitive"]), Some(&json!(true)));
    let mut one = item("a");
    one["note"] = json!(SAID);
    let run = agent.ok("runs.open", json!({}))["run"].clone();
    let summed = agent.reply("calls.execute", json!({"tool": "stock.sum", "input": {"items": [one]}, "run": run}));
    let call = summed.must("ok", "none", "").call().to_owned();
    one["note"] = json!([SAID]);
    let wrong = agent.execute("stock.sum", json!({"items": [one]})).must("failed", "none", "invalid_input");
    let said = wrong.value.to_string();
    assert!(said.contains("/input/items/0/note") && !said.contains(SAID), "{said}");
    let exported = world.cli(&["audit", "export", "--run", run.as_str().expect("a run")]);
    let exported = String::from_utf8_lossy(&exported.stdout).into_owned();
    assert!(exported.contains(&call) && exported.contains("\"Tea\""), "the rest is shown: {exported}");
    assert!(!exported.contains(SAID), "{exported}");
    assert!(!world.log().contains(SAID));
}

#[test]
fn r50_a_typed_tool_is_called_under_the_same_rules_as_any_other() {
    let world = world();
    assert_eq!(installed(&world, MANIFEST), json!(["stock.sum", "stock.stock.store", "stock.stock.show"]));
    let (mut agent, mut admin) = (world.agent(), world.admin());
    let listed = agent.ok("tools.describe", json!({"tool": "stock.stock.store"}));
    assert_eq!(
        listed["input_schema"]["properties"]["item"]["properties"]["care"]["items"]["enum"],
        json!(["cold", "dry", "fragile"])
    );
    assert_eq!((&listed["tier"], &listed["error_schema"]["maxProperties"]), (&json!(2), &json!(1)));

    let sum = agent.execute("stock.sum", json!({"items": [item("a")]})).must("ok", "none", "");
    assert_eq!(sum.value.pointer("/output/pieces"), Some(&json!(250)));
    let wrong = agent.execute("stock.sum", json!({"items": [{"sku": 1}]})).must("failed", "none", "invalid_input");
    assert!(wrong.value.to_string().contains("/input/items/0/sku"), "{}", wrong.value);
    let missing = agent.execute("stock.stock.show", json!({"sku": "tea-1"})).must("failed", "none", "tool_failed");
    assert_eq!(missing.value.pointer("/error/detail/not-found"), Some(&json!("there is no item `tea-1`")));

    let shown = agent.preview("stock.stock.store", json!({"item": item("tea-1")})).must("ok", "previewed", "");
    assert!(shown.value["plan"].to_string().contains("stock/tea-1.txt"), "{}", shown.value);
    let held = agent.execute("stock.stock.store", json!({"item": item("tea-1")}));
    let held = held.must("held", "pending", "approval_required");
    assert!(!world.path("books/stock").exists());
    approve(&mut admin, held.approval());
    assert!(world.text("books/stock/tea-1.txt").starts_with("tea-1: 250 gram of Tea\n"));
    let again =
        agent.execute("stock.stock.store", json!({"item": item("tea-1")})).must("failed", "none", "tool_failed");
    assert!(again.text("/error/hint").contains("`conflict`"), "{}", again.value);

    for reply in [&sum, &missing, &held] {
        let verdict = admin.ok("replay.call", json!({"call": reply.call()}));
        assert!(verdict.to_string().contains("\"identical\":true"), "{verdict}");
    }
    world.verified();
}
