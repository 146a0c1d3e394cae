//! Typed tools over MCP: components that know nothing of Toolkeep, as an agent in the field finds them.

use serde_json::{Value, json};

use super::super::approvals::approve;
use super::super::typed::{MANIFEST, installed, item, world};
use super::Mcp;

/// Whether what a tool said fits the schema that the list has for it.
fn fits(mcp: &mut Mcp, name: &str, said: &Value) {
    let schema = mcp.tool(name)["outputSchema"].take();
    let validator = jsonschema::validator_for(&schema).unwrap_or_else(|error| panic!("{name}: {error}"));
    let wrong: Vec<String> = validator.iter_errors(said).map(|error| error.to_string()).collect();
    assert_eq!(wrong, Vec::<String>::new(), "{name}: {said}");
}

#[test]
fn r50_r51_a_typed_tool_is_listed_previewed_held_and_called_over_mcp_in_both_eras() {
    for stateless in [true, false] {
        let world = world();
        installed(&world, MANIFEST);
        let mut mcp = Mcp::connect(&world, stateless);
        let names: Vec<String> =
            mcp.tools().iter().filter_map(|tool| Some(tool["name"].as_str()?.to_owned())).collect();
        let own: Vec<&str> = names.iter().map(String::as_str).filter(|name| name.starts_with("stock.")).collect();
        assert_eq!(own, ["stock.stock.show", "stock.stock.store", "stock.stock.store.preview", "stock.sum"]);
        // What it takes is the type of its interface, what it may do is its grant.
        let store = mcp.tool("stock.stock.store");
        let care = &store["inputSchema"]["properties"]["item"]["properties"]["care"]["items"]["enum"];
        assert_eq!(care, &json!(["cold", "dry", "fragile"]));
        assert!(store["description"].as_str().is_some_and(|text| text.contains("Keeps an item as a file.")), "{store}");
        assert_eq!(
            (&store["annotations"]["readOnlyHint"], &store["annotations"]["destructiveHint"]),
            (&json!(false), &json!(true))
        );
        assert_eq!(mcp.tool("stock.sum")["annotations"]["readOnlyHint"], json!(true));
        assert_eq!(mcp.tool("stock.stock.store.preview")["annotations"]["readOnlyHint"], json!(true));

        let sum = mcp.said("stock.sum", json!({"items": [item("a"), item("b")]}));
        assert_eq!((&sum["status"], &sum["output"]["pieces"]), (&json!("ok"), &json!(500)), "{sum}");
        fits(&mut mcp, "stock.sum", &sum);
        // A wrong type points at its place; a case of its own error type comes as its detail.
        let wrong = mcp.call("stock.sum", json!({"items": [{"sku": 1}]}));
        assert_eq!(wrong["isError"], json!(true));
        let fields = wrong["structuredContent"]["error"]["fields"].to_string();
        assert!(fields.contains("/input/items/0/sku"), "{wrong}");
        let missing = mcp.call("stock.stock.show", json!({"sku": "tea-1"}));
        assert_eq!(missing["isError"], json!(true));
        let detail = &missing["structuredContent"]["error"]["detail"]["not-found"];
        assert_eq!(detail, &json!("there is no item `tea-1`"), "{missing}");

        let before = world.snapshot();
        let shown = mcp.said("stock.stock.store.preview", json!({"item": item("tea-1")}));
        assert_eq!(shown["outcome"], "previewed", "{shown}");
        fits(&mut mcp, "stock.stock.store.preview", &shown);
        assert_eq!(world.snapshot(), before);
        let held = mcp.said("toolkeep.commit", json!({"plan": shown["plan"]["digest"]}));
        assert_eq!(held["status"], "approval_required", "tier 2: {held}");
        fits(&mut mcp, "stock.stock.store", &held);
        approve(&mut world.admin(), held["approval_id"].as_str().expect("an approval"));
        let done = mcp.said("toolkeep.wait", json!({"approval_id": held["approval_id"]}));
        assert_eq!(done["outcome"], "committed", "{done}");
        assert!(world.text("books/stock/tea-1.txt").starts_with("tea-1: 250 gram of Tea\n"));
        let there = mcp.said("stock.stock.show", json!({"sku": "tea-1"}));
        fits(&mut mcp, "stock.stock.show", &there);
        world.verified();
    }
}
