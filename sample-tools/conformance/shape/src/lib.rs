//! `shape`: a fixture of the MCP conformance suite. Its input has a schema with definitions and anchors, compositions and
//! conditions, which the suite wants to find again, whole, in the list of tools (`json_schema_2020_12_tool`).

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::json;
use toolkeep_sdk::{Result, tool};

/// Where somebody lives.
#[derive(Debug, Deserialize)]
pub struct Address {
    /// The street.
    #[serde(default)]
    pub street: String,
    /// The city.
    #[serde(default)]
    pub city: String,
}

/// Somebody, who can be reached in one way or another.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend(
    "$defs" = json!({"address": {"$anchor": "addressDef", "type": "object", "properties": {
        "street": {"type": "string"}, "city": {"type": "string"}}}}),
    "allOf" = json!([{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}]),
    "if" = json!({"properties": {"method": {"const": "phone"}}, "required": ["method"]}),
    "then" = json!({"required": ["phone"]}),
    "else" = json!({"required": ["email"]}),
))]
pub struct ShapeArgs {
    /// The name.
    #[serde(default)]
    pub name: String,
    /// Where.
    #[serde(default)]
    #[schemars(schema_with = "address")]
    pub address: Option<Address>,
    /// The preferred way: `phone` or `email`.
    #[serde(default)]
    pub method: String,
    /// A number.
    #[serde(default)]
    pub phone: String,
    /// An address of mail.
    #[serde(default)]
    pub email: String,
}

/// By its definition, as the suite looks for one.
fn address(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"$ref": "#/$defs/address"})
}

/// What was said.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ShapeOutput {
    /// Name, way, and city where there is one.
    pub line: String,
}

/// Says how somebody is reached.
///
/// When: a test wants to see a schema with everything in it.
/// Side effects: none.
/// Errors: none of its own.
#[tool(title = "Describe a contact", deterministic)]
pub fn shape(args: ShapeArgs) -> Result<ShapeOutput> {
    let way = if args.method == "phone" { args.phone } else { args.email };
    let place = args.address.map_or_else(String::new, |address| format!(", {} {}", address.street, address.city));
    Ok(ShapeOutput { line: format!("{}: {way}{place}", args.name) })
}

toolkeep_sdk::export!(shape);

#[cfg(test)]
mod tests {
    use serde_json::json;
    use toolkeep_sdk::testing::Harness;

    use super::shape;

    #[test]
    fn it_says_how_somebody_is_reached() {
        let outcome = Harness::new().call(shape, json!({"name": "A", "method": "phone", "phone": "1"}));
        assert_eq!(outcome.output()["line"], "A: 1");
    }
}
