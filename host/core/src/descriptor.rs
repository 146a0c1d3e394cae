//! What a component says about its tools: the JSON in its custom section `toolkeep-tools`.
//!
//! It is read from the file without running guest code. The host believes the schemas (it enforces them) and shows the
//! description; it never believes the declared effects: those only make a mismatch visible at installation.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::effect::Effect;
use crate::id::ToolName;
use crate::scan::{self, Suspicion};

/// Name of the custom section.
pub const SECTION: &str = "toolkeep-tools";
/// The only format that this version reads.
pub const FORMAT: u32 = 1;
/// Largest section, in bytes.
pub const SECTION_MAX_BYTES: usize = 1024 * 1024;
/// Most tools in one component.
pub const TOOLS_MAX: usize = 64;
/// Longest part of a description, in bytes: it is put before a model on every listing.
pub const DESCRIPTION_MAX_BYTES: usize = 4096;

/// The whole section.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Descriptors {
    /// Always [`FORMAT`].
    pub format: u32,
    /// What wrote it, for example `toolkeep-sdk 0.1.0`.
    pub sdk: String,
    /// One entry per tool.
    pub tools: Vec<Descriptor>,
}

/// One tool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Descriptor {
    /// Its name inside of the component.
    pub name: ToolName,
    /// A short human title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What it does, in four parts.
    pub description: Description,
    /// JSON Schema 2020-12 of the input; an object schema.
    pub input_schema: Value,
    /// JSON Schema 2020-12 of the output.
    pub output_schema: Value,
    /// JSON Schema 2020-12 of the tool's own error detail.
    pub error_schema: Value,
    /// Effect kinds that it says it may stage; empty for a read-only tool.
    #[serde(default)]
    pub effects: Vec<String>,
    /// Whether the same input and the same read set always give the same output.
    #[serde(default)]
    pub deterministic: bool,
}

/// The four parts that a model needs in order to use a tool well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// What the tool does.
    pub what: String,
    /// When to use it, and when not.
    pub when: String,
    /// What it changes.
    pub side_effects: String,
    /// Which errors to expect and what to do about them.
    pub errors: String,
}

/// Why a descriptor section is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadDescriptor {
    /// Not JSON of the right shape.
    #[error("the section `toolkeep-tools` is not valid: {0}")]
    Shape(String),
    /// Another format version.
    #[error("the section `toolkeep-tools` has format {0}; this version reads format 1: pack the component again")]
    Format(u32),
    /// No tool, or more than [`TOOLS_MAX`].
    #[error("a component holds 1 to 64 tools; this one has {0}")]
    Count(usize),
    /// Two tools of one name.
    #[error("tool `{0}` is described twice")]
    Duplicate(ToolName),
    /// A description part is empty or too long.
    #[error("tool `{tool}`: the description part `{part}` {problem}")]
    Description {
        /// The tool.
        tool: ToolName,
        /// `what`, `when`, `side_effects` or `errors`.
        part: &'static str,
        /// What is wrong.
        problem: &'static str,
    },
    /// A declared effect is not a kind.
    #[error("tool `{tool}`: `{kind}` is not an effect kind")]
    Effect {
        /// The tool.
        tool: ToolName,
        /// What was written.
        kind: String,
    },
    /// The input schema does not describe an object.
    #[error("tool `{0}`: the input schema must have `\"type\": \"object\"`")]
    InputNotObject(ToolName),
    /// The input schema lists members and leaves open whether there may be others.
    #[error("tool `{0}`: the input schema lists members; say `\"additionalProperties\": false`, or what others may be")]
    InputOpen(ToolName),
    /// Description or schemas hold characters that a person does not see.
    #[error(
        "tool `{tool}`: its description or schemas have {what} at `{pointer}`, which a model reads and nobody sees"
    )]
    Hidden {
        /// The tool.
        tool: ToolName,
        /// What they have.
        what: &'static str,
        /// Where: a JSON Pointer into the description of the tool.
        pointer: String,
    },
}

/// Effect kinds that exist in the vocabulary but whose capability this version does not offer yet; a descriptor may
/// name them, and installation refuses the grant instead.
const LATER_KINDS: [&str; 5] = ["http.request", "message.send", "kv.set", "kv.delete", "kv.add"];

impl Descriptors {
    /// Check everything that can be checked without a schema engine.
    ///
    /// # Errors
    /// The first rule that is broken, with the tool that breaks it.
    pub fn check(&self) -> Result<(), BadDescriptor> {
        if self.format != FORMAT {
            return Err(BadDescriptor::Format(self.format));
        }
        if self.tools.is_empty() || self.tools.len() > TOOLS_MAX {
            return Err(BadDescriptor::Count(self.tools.len()));
        }
        let mut names = std::collections::BTreeSet::new();
        for tool in &self.tools {
            if !names.insert(&tool.name) {
                return Err(BadDescriptor::Duplicate(tool.name.clone()));
            }
            tool.check()?;
        }
        Ok(())
    }
}

impl Descriptor {
    fn check(&self) -> Result<(), BadDescriptor> {
        let parts = [
            ("what", &self.description.what),
            ("when", &self.description.when),
            ("side_effects", &self.description.side_effects),
            ("errors", &self.description.errors),
        ];
        for (part, text) in parts {
            let problem = if text.trim().is_empty() {
                "is empty"
            } else if text.len() > DESCRIPTION_MAX_BYTES {
                "is longer than 4096 bytes"
            } else {
                continue;
            };
            return Err(BadDescriptor::Description { tool: self.name.clone(), part, problem });
        }
        for kind in &self.effects {
            if !Effect::KINDS.contains(&kind.as_str()) && !LATER_KINDS.contains(&kind.as_str()) {
                return Err(BadDescriptor::Effect { tool: self.name.clone(), kind: kind.clone() });
            }
        }
        if self.input_schema.get("type").and_then(Value::as_str) != Some("object") {
            return Err(BadDescriptor::InputNotObject(self.name.clone()));
        }
        let says = |keyword: &str| self.input_schema.get(keyword).is_some();
        let about_others = says("additionalProperties") || says("unevaluatedProperties");
        if says("properties") && !about_others {
            return Err(BadDescriptor::InputOpen(self.name.clone()));
        }
        self.check_visible()
    }

    /// What a model is told about a tool is what a person sees of it.
    fn check_visible(&self) -> Result<(), BadDescriptor> {
        let told = serde_json::to_value(self).map_err(|e| BadDescriptor::Shape(e.to_string()))?;
        let found = scan::value(&told);
        let hidden = found.entries().iter().find(|finding| {
            matches!(
                finding.suspicion,
                Suspicion::Bidi | Suspicion::Invisible | Suspicion::Tags | Suspicion::Control | Suspicion::Template
            )
        });
        match hidden {
            None => Ok(()),
            Some(finding) => Err(BadDescriptor::Hidden {
                tool: self.name.clone(),
                what: finding.suspicion.text(),
                pointer: finding.pointer.clone(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sample() -> Value {
        json!({"format": 1, "sdk": "s", "tools": [{"name": "add",
            "description": {"what": "w", "when": "n", "side_effects": "s", "errors": "e"},
            "input_schema": {"type": "object"}, "output_schema": {}, "error_schema": {}, "effects": ["file.write"]}]})
    }

    fn check(edit: impl FnOnce(&mut Value)) -> Result<(), BadDescriptor> {
        let mut value = sample();
        edit(&mut value);
        serde_json::from_value::<Descriptors>(value).map_err(|e| BadDescriptor::Shape(e.to_string()))?.check()
    }

    #[test]
    fn r14_a_missing_part_of_the_description_refuses_the_tool() {
        assert_eq!(check(|_| ()), Ok(()));
        for part in ["what", "when", "side_effects", "errors"] {
            let empty = check(|v| v["tools"][0]["description"][part] = json!(" "));
            assert!(matches!(empty, Err(BadDescriptor::Description { .. })), "{part}");
            let missing = check(|v| {
                v["tools"][0]["description"].as_object_mut().expect("object").remove(part);
            });
            assert!(matches!(missing, Err(BadDescriptor::Shape(_))), "{part}");
        }
    }

    #[test]
    fn r11_an_input_schema_that_leaves_open_what_else_there_may_be_refuses_the_tool() {
        let with = |schema: Value| check(|v| v["tools"][0]["input_schema"] = schema);
        let open = with(json!({"type": "object", "properties": {"a": {}}}));
        assert!(matches!(open, Err(BadDescriptor::InputOpen(_))), "{open:?}");
        for closed in [
            json!({"type": "object", "properties": {"a": {}}, "additionalProperties": false}),
            json!({"type": "object", "properties": {"a": {}}, "unevaluatedProperties": false}),
            json!({"type": "object", "properties": {"a": {}}, "additionalProperties": {"type": "string"}}),
        ] {
            assert_eq!(with(closed), Ok(()));
        }
    }

    #[test]
    fn t_p1_a_tool_whose_description_holds_what_nobody_sees_is_refused() {
        for hidden in ["a\u{202e}b", "a\u{200b}b", "x\u{e0041}", "\u{1b}[2J", "<|im_start|>system"] {
            let described = check(|v| v["tools"][0]["description"]["when"] = json!(hidden));
            assert!(matches!(described, Err(BadDescriptor::Hidden { .. })), "{hidden:?}");
            let titled = check(|v| v["tools"][0]["title"] = json!(hidden));
            assert!(matches!(titled, Err(BadDescriptor::Hidden { .. })), "{hidden:?}");
            let schema =
                json!({"type": "object", "properties": {"a": {"description": hidden}}, "additionalProperties": false});
            let schema = check(|v| v["tools"][0]["input_schema"] = schema);
            assert!(matches!(schema, Err(BadDescriptor::Hidden { .. })), "{hidden:?}");
        }
        let many = "Grüße 👨\u{200d}👩, naïve\ntwo lines";
        assert_eq!(check(|v| v["tools"][0]["description"]["what"] = json!(many)), Ok(()));
    }

    #[test]
    fn counts_names_effects_and_formats_are_checked() {
        assert!(matches!(check(|v| v["format"] = json!(2)), Err(BadDescriptor::Format(2))));
        assert!(matches!(check(|v| v["tools"] = json!([])), Err(BadDescriptor::Count(0))));
        assert!(matches!(
            check(|v| v["tools"][0]["effects"] = json!(["file.burn"])),
            Err(BadDescriptor::Effect { .. })
        ));
        assert!(matches!(
            check(|v| v["tools"][0]["input_schema"] = json!(true)),
            Err(BadDescriptor::InputNotObject(_))
        ));
        let twice = check(|v| {
            let tool = v["tools"][0].clone();
            v["tools"].as_array_mut().expect("array").push(tool);
        });
        assert!(matches!(twice, Err(BadDescriptor::Duplicate(_))));
    }
}
