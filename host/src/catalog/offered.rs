//! What a component offers under a manifest: descriptors, and what is called for each.
//!
//! A component of the SDK describes its tools itself. Any other is described by its manifest, function by function, and its
//! schemas are made of its types; from there on nobody knows the difference. Descriptions are as complete for the one as
//! for the other: a part that is missing refuses the manifest and is named.

use serde_json::{Map, Value, json};
use toolkeep_core::descriptor::{BadDescriptor, Description, Descriptor, Descriptors, FORMAT, SECTION_MAX_BYTES};
use toolkeep_core::id::ToolName;
use toolkeep_core::manifest::{Manifest, Offer};
use toolkeep_core::redact;
use toolkeep_sandbox::component;
use toolkeep_sandbox::execution::Entry;
use toolkeep_sandbox::prescreen::Contract;
use toolkeep_sandbox::typed::{self, Exported};

use super::Unusable;

/// What writes the descriptors of functions.
const WRITTEN_BY: &str = "manifest";
/// Functions that an error lists.
const LISTED_MAX: usize = 8;

/// What a component has to offer, whatever its manifest says.
#[derive(Debug, Clone)]
pub enum Offering {
    /// Tools, which it describes itself.
    Tools(Descriptors),
    /// Functions, which manifests describe.
    Functions(Vec<Exported>),
}

impl Offering {
    /// Read a component.
    ///
    /// # Errors
    /// It, or its description of itself, is refused.
    pub fn read(wasm: &[u8]) -> Result<Self, Unusable> {
        let refused = |error: component::BadComponent| Unusable::Refused(error.to_string());
        match component::contract(wasm).map_err(refused)? {
            Contract::Tool => component::descriptors(wasm).map(Self::Tools).map_err(refused),
            Contract::Functions => typed::functions(wasm).map(Self::Functions).map_err(refused),
        }
    }

    /// The tools that it describes itself.
    #[must_use]
    pub fn tools(&self) -> &[Descriptor] {
        match self {
            Self::Tools(descriptors) => &descriptors.tools,
            Self::Functions(_) => &[],
        }
    }

    /// Everything that can be called in it.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        let functions: &[Exported] = if let Self::Functions(functions) = self { functions } else { &[] };
        let functions = functions.iter().filter(|export| export.function.is_ok());
        let tools = self.tools().iter().map(|tool| Entry::Tool(tool.name.clone()));
        tools.chain(functions.map(|export| Entry::Function(export.label.clone())))
    }

    /// The descriptors of the tools that it gives under a manifest.
    ///
    /// # Errors
    /// The manifest describes what the component does not have, or not as it has to.
    pub fn under(self, manifest: &Manifest) -> Result<Descriptors, Unusable> {
        match self {
            Self::Tools(descriptors) if manifest.functions.is_empty() => Ok(descriptors),
            Self::Tools(_) => {
                Err(Unusable::Functions("the component describes its tools itself; remove the entries".to_owned()))
            }
            Self::Functions(exported) => functions_under(&exported, manifest),
        }
    }
}

fn functions_under(exported: &[Exported], manifest: &Manifest) -> Result<Descriptors, Unusable> {
    if manifest.functions.is_empty() {
        return Err(Unusable::Functions(format!(
            "the component exports functions and the manifest names none; add one entry with `export`, `what`, `when`, \
             `side_effects` and `errors` for each that agents may call ({}); `toolkeep tools inspect --draft` writes them",
            listed(exported)
        )));
    }
    let mut tools = Vec::with_capacity(manifest.functions.len());
    let mut size = 0_usize;
    for offer in manifest.functions.iter() {
        let tool = described(offer, exported)?;
        let schemas = [&tool.input_schema, &tool.output_schema, &tool.error_schema];
        size = schemas.into_iter().fold(size, |size, schema| size.saturating_add(schema.to_string().len()));
        tools.push(tool);
    }
    if size > SECTION_MAX_BYTES {
        let problem = format!("their schemas have {size} bytes together; at most {SECTION_MAX_BYTES} are allowed");
        return Err(Unusable::Functions(problem));
    }
    let descriptors = Descriptors { format: FORMAT, sdk: WRITTEN_BY.to_owned(), tools };
    descriptors.check().map_err(|error: BadDescriptor| Unusable::Refused(error.to_string()))?;
    Ok(descriptors)
}

/// What is called for a tool of this name in a component of this manifest.
#[must_use]
pub fn entry(manifest: &Manifest, local: &ToolName) -> Entry {
    let offer = manifest.functions.iter().find(|offer| offer.name == *local);
    offer.map_or_else(|| Entry::Tool(local.clone()), |offer| Entry::Function(offer.text.export.clone()))
}

fn listed(exported: &[Exported]) -> String {
    let usable = exported.iter().filter(|export| export.function.is_ok());
    let mut names: Vec<String> = usable.clone().take(LISTED_MAX).map(|export| format!("`{}`", export.label)).collect();
    match usable.count().saturating_sub(LISTED_MAX) {
        0 => {}
        more => names.push(format!("{more} more")),
    }
    if names.is_empty() { "none that could be a tool".to_owned() } else { names.join(", ") }
}

fn described(offer: &Offer, exported: &[Exported]) -> Result<Descriptor, Unusable> {
    let (text, label) = (&offer.text, &offer.text.export);
    let found = exported.iter().find(|export| export.label == *label).ok_or_else(|| {
        Unusable::Functions(format!("the component exports no function `{label}`; it has {}", listed(exported)))
    })?;
    let function = found.function.as_ref();
    let function =
        function.map_err(|why| Unusable::Functions(format!("`{label}` cannot be a tool: {why}; remove the entry")))?;
    let what = text.what.clone().or_else(|| found.documentation.clone());
    let parts = [
        ("what", what),
        ("when", text.when.clone()),
        ("side_effects", text.side_effects.clone()),
        ("errors", text.errors.clone()),
    ];
    let missing: Vec<String> =
        parts.iter().filter(|(_, said)| said.is_none()).map(|(part, _)| format!("`{part}`")).collect();
    let [(_, Some(what)), (_, Some(when)), (_, Some(side_effects)), (_, Some(errors))] = parts else {
        return Err(Unusable::Functions(format!(
            "`{}` is not described: add {} to its entry, which a model reads; `toolkeep tools inspect --draft` writes a first \
             version",
            label,
            missing.join(", ")
        )));
    };
    let mut schemas = json!({"input": function.input_schema(), "output": function.output_schema()});
    for pointer in &text.sensitive {
        let part = part(&mut schemas, pointer).ok_or_else(|| {
            let problem = format!(
                "`{label}` has nothing at `{pointer}`, which its entry calls sensitive; begin with `/input` or `/output` and \
                 write members, cases, `*` for the items of a list"
            );
            Unusable::Functions(problem)
        })?;
        part.insert(redact::KEYWORD.to_owned(), Value::Bool(true));
    }
    let mut taken = |name: &str| schemas.get_mut(name).map(Value::take).unwrap_or_default();
    Ok(Descriptor {
        name: offer.name.clone(),
        title: text.title.clone(),
        description: Description { what, when, side_effects, errors },
        input_schema: taken("input"),
        output_schema: taken("output"),
        error_schema: function.error_schema(),
        effects: text.effects.clone(),
        deterministic: false,
    })
}

/// The schema of a part of the schemas: the same steps lead to it as to the part in a value.
fn part<'s>(schemas: &'s mut Value, pointer: &str) -> Option<&'s mut Map<String, Value>> {
    let mut steps = pointer.strip_prefix('/')?.split('/');
    let mut schema = schemas.get_mut(steps.next()?)?;
    for step in steps {
        schema = within(schema, step)?;
    }
    schema.as_object_mut()
}

fn within<'s>(schema: &'s mut Value, step: &str) -> Option<&'s mut Value> {
    let found = |schema: &Value| schema.pointer(&format!("/properties/{step}")).is_some();
    // A case with a value is a member of one of the choices.
    if let Some(at) = schema.get("anyOf").and_then(Value::as_array).and_then(|choices| choices.iter().position(found)) {
        return within(schema.get_mut("anyOf")?.get_mut(at)?, step);
    }
    match step {
        "*" => schema.get_mut("items").filter(|items| items.is_object()),
        _ if found(schema) => schema.get_mut("properties")?.get_mut(step),
        _ => schema.get_mut("prefixItems")?.get_mut(step.parse::<usize>().ok()?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r42_a_part_is_found_by_the_steps_that_lead_to_it_in_a_value() {
        let text = json!({"type": ["string", "null"]});
        let record = json!({"type": ["object", "null"], "properties": {"note": text, "size": {"type": "integer"}}});
        let choice = json!({"anyOf": [{"type": "string", "enum": ["none"]},
            {"type": "object", "properties": {"bin": text}}, {"type": "null"}]});
        let pair = json!({"type": "array", "prefixItems": [text, choice], "items": false});
        let input = json!({"type": "object", "properties": {"all": {"type": "array", "items": record}, "pair": pair}});
        let mut schemas = json!({"input": input, "output": text});
        for (pointer, ty) in [
            ("/input/all/*/note", &text["type"]),
            ("/input/pair/0", &text["type"]),
            ("/input/pair/1/bin", &text["type"]),
            ("/input/all/*", &record["type"]),
            ("/output", &text["type"]),
        ] {
            assert_eq!(part(&mut schemas, pointer).map(|part| part["type"].clone()).as_ref(), Some(ty), "{pointer}");
        }
        for none in [
            "",
            "input",
            "/",
            "/error",
            "/input/all/note",
            "/input/all/0",
            "/input/pair/2",
            "/input/pair/*",
            "/output/a",
        ] {
            assert!(part(&mut schemas, none).is_none(), "{none}");
        }
    }
}
