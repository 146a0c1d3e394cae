//! JSON Schemas of a tool's types, in the dialect 2020-12.
//!
//! Input schemas are closed: an object that lists its properties takes no others, so that a model that
//! invents a field is told so instead of being ignored. serde by itself ignores unknown fields; the host
//! validates before a tool runs. Outputs stay open, so that a later version may add to them.
//!
//! Schemas are written without `$ref` wherever the type does not contain itself: models read them.

use schemars::generate::SchemaSettings;
use schemars::transform::transform_subschemas;
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value};

/// The dialect of every schema.
pub(crate) const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// Keywords that apply further schemas to the same object.
const IN_PLACE: [&str; 8] = ["$ref", "allOf", "anyOf", "oneOf", "if", "then", "else", "dependentSchemas"];

/// The schema of what is read into `T`, closed.
pub(crate) fn of_input<T: JsonSchema>() -> Schema {
    let mut schema = settings().for_deserialize().into_generator().into_root_schema_for::<T>();
    if schema.get("type").is_none() && every_variant_is_an_object(&schema) {
        schema.insert("type".to_owned(), Value::String("object".to_owned()));
    }
    let is_object = schema.get("type").and_then(Value::as_str) == Some("object");
    let composed = IN_PLACE.iter().any(|keyword| schema.get(*keyword).is_some());
    if is_object && !composed && !says_about_others(&schema) && schema.get("properties").is_none() {
        schema.insert("properties".to_owned(), Value::Object(Map::new()));
    }
    close(&mut schema);
    without_title(schema)
}

/// An enum of structs has its type in each variant only; the host wants it said once for all.
fn every_variant_is_an_object(schema: &Schema) -> bool {
    let variants = ["oneOf", "anyOf"].into_iter().find_map(|keyword| schema.get(keyword)).and_then(Value::as_array);
    variants.is_some_and(|all| all.iter().all(|one| one.get("type").and_then(Value::as_str) == Some("object")))
}

/// The schema of what is written from `T`.
pub(crate) fn of_output<T: JsonSchema>() -> Schema {
    without_title(settings().for_serialize().into_generator().into_root_schema_for::<T>())
}

fn settings() -> SchemaSettings {
    SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true)
}

/// The title is the name of a Rust type, which says nothing to a model.
fn without_title(mut schema: Schema) -> Schema {
    schema.remove("title");
    schema
}

fn says_about_others(schema: &Schema) -> bool {
    schema.get("additionalProperties").is_some() || schema.get("unevaluatedProperties").is_some()
}

/// Close every object that lists properties and says nothing about others. Where several schemas
/// apply to one object, closing each would refuse the fields of the others: only the outermost is
/// closed, over what all of them evaluated.
fn close(schema: &mut Schema) {
    let composed = IN_PLACE.iter().any(|keyword| schema.get(*keyword).is_some());
    let lists = schema.get("properties").is_some();
    let joins = schema.get("allOf").is_some();
    let silent = !says_about_others(schema);
    if composed && (lists || joins) {
        if silent {
            schema.insert("unevaluatedProperties".to_owned(), Value::Bool(false));
        }
        transform_children(schema, true);
        return;
    }
    if lists && silent {
        schema.insert("additionalProperties".to_owned(), Value::Bool(false));
    }
    transform_children(schema, false);
}

/// Close what lies below. In an open place the schemas that apply to the same object stay open, but
/// the values of their properties are closed.
fn transform_children(schema: &mut Schema, open: bool) {
    if !open {
        transform_subschemas(&mut close, schema);
        return;
    }
    let Some(object) = schema.as_object_mut() else { return };
    for (keyword, value) in object.iter_mut() {
        match keyword.as_str() {
            "allOf" | "anyOf" | "oneOf" => {
                value.as_array_mut().into_iter().flatten().for_each(keep_open);
            }
            "if" | "then" | "else" => keep_open(value),
            "properties" | "patternProperties" | "$defs" => {
                value.as_object_mut().into_iter().flatten().for_each(|(_, value)| close_value(value));
            }
            _ => {}
        }
    }
}

fn keep_open(value: &mut Value) {
    if let Ok(schema) = <&mut Schema>::try_from(value) {
        transform_children(schema, true);
    }
}

fn close_value(value: &mut Value) {
    if let Ok(schema) = <&mut Schema>::try_from(value) {
        close(schema);
    }
}

#[cfg(test)]
#[expect(dead_code, reason = "the types are read by their schema alone")]
mod tests {
    use super::{of_input, of_output};
    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};
    use serde_json::{Value, json};
    use std::collections::BTreeMap;

    /// A point.
    #[derive(Serialize, Deserialize, JsonSchema)]
    struct Point {
        /// Across.
        x: u8,
    }

    #[derive(Deserialize, JsonSchema)]
    struct Nested {
        points: Vec<Point>,
        #[serde(default)]
        labels: BTreeMap<String, String>,
    }

    #[derive(Deserialize, JsonSchema)]
    struct Empty {}

    #[derive(Deserialize, JsonSchema)]
    #[serde(tag = "shape", rename_all = "snake_case")]
    enum Shape {
        Dot(Point),
        Line { from: Point, to: Point },
    }

    #[derive(Deserialize, JsonSchema)]
    struct Flat {
        name: String,
        #[serde(flatten)]
        shape: Shape,
    }

    #[derive(Deserialize, JsonSchema)]
    struct Tree {
        children: Vec<Self>,
    }

    fn takes<T: JsonSchema>(input: &Value) -> bool {
        jsonschema::validator_for(of_input::<T>().as_value()).unwrap().is_valid(input)
    }

    #[test]
    fn an_input_schema_is_closed_at_every_depth_and_maps_stay_maps() {
        assert_eq!(
            of_input::<Nested>().as_value(),
            &json!({
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                "type": "object",
                "additionalProperties": false,
                "required": ["points"],
                "properties": {
                    "labels": {"type": "object", "default": {}, "additionalProperties": {"type": "string"}},
                    "points": {"type": "array", "items": {
                        "type": "object",
                        "description": "A point.",
                        "additionalProperties": false,
                        "required": ["x"],
                        "properties": {"x": {
                            "description": "Across.", "type": "integer", "format": "uint8",
                            "minimum": 0, "maximum": 255
                        }}
                    }}
                }
            })
        );
    }

    #[test]
    fn an_input_without_fields_takes_no_field() {
        assert!(takes::<Empty>(&json!({})));
        assert!(!takes::<Empty>(&json!({"a": 1})));
    }

    #[test]
    fn a_tagged_enum_is_closed_without_refusing_its_tag() {
        assert!(takes::<Shape>(&json!({"shape": "dot", "x": 1})));
        assert!(takes::<Shape>(&json!({"shape": "line", "from": {"x": 1}, "to": {"x": 2}})));
        assert!(!takes::<Shape>(&json!({"shape": "dot", "x": 1, "y": 2})));
        assert!(!takes::<Shape>(&json!({"shape": "line", "from": {"x": 1, "y": 1}, "to": {"x": 2}})));
    }

    #[test]
    fn an_enum_of_structs_says_that_it_is_an_object() {
        assert_eq!(of_input::<Shape>().get("type"), Some(&json!("object")));
    }

    #[test]
    fn a_flattened_field_is_closed_over_all_of_its_parts() {
        assert!(takes::<Flat>(&json!({"name": "a", "shape": "dot", "x": 1})));
        assert!(!takes::<Flat>(&json!({"name": "a", "shape": "dot", "x": 1, "z": 1})));
        assert!(!takes::<Flat>(&json!({"name": "a", "shape": "line", "from": {"x": 1, "y": 1}, "to": {"x": 2}})));
    }

    #[test]
    fn a_type_that_contains_itself_is_closed_at_every_depth() {
        assert!(takes::<Tree>(&json!({"children": [{"children": []}]})));
        assert!(!takes::<Tree>(&json!({"children": [{"children": [], "more": 1}]})));
    }

    #[test]
    fn an_output_schema_stays_open() {
        let schema = of_output::<Point>();
        assert_eq!(schema.get("additionalProperties"), None);
        assert_eq!(schema.get("title"), None);
    }
}
