//! All tools of one component: the table behind [`export!`](crate::export), the descriptor and the
//! way from a name and a JSON text to a call.
//!
//! The descriptor is made by running code (schemas come from types), but only on the author's machine:
//! `toolkeep tools pack` calls `describe` in an empty sandbox and stores its answer in the component.

use schemars::Schema;
use serde::Serialize;

use crate::declaration::{Declaration, EffectKind, Tool};
use crate::error::{Error, IntoError};
use crate::{input, schema};

/// Version of the descriptor's form.
const FORMAT: u32 = 1;

/// Who wrote the descriptor.
const SDK: &str = concat!("toolkeep-sdk ", env!("CARGO_PKG_VERSION"));

/// One row of the table of a component's tools.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    declaration: Declaration,
    schemas: fn() -> Schemas,
    invoke: fn(&str) -> Result<String, Error>,
}

impl Entry {
    /// The row of the tool `T`.
    #[must_use]
    pub const fn of<T: Tool>() -> Self {
        Self { declaration: T::DECLARATION, schemas: schemas::<T>, invoke: invoke::<T> }
    }
}

#[derive(Debug, Serialize)]
struct Schemas {
    input_schema: Schema,
    output_schema: Schema,
    error_schema: Schema,
}

fn schemas<T: Tool>() -> Schemas {
    Schemas {
        input_schema: schema::of_input::<T::Args>(),
        output_schema: schema::of_output::<T::Output>(),
        error_schema: <T::Error as IntoError>::detail_schema(),
    }
}

fn invoke<T: Tool>(text: &str) -> Result<String, Error> {
    let output = T::call(input::read(text)?).map_err(IntoError::into_error)?;
    serde_json::to_string(&output)
        .map_err(|error| Error::failed(format!("the output of `{}` is no JSON: {error}", T::DECLARATION.name)))
}

/// A component: its table of tools, and what the exports of the contract do with it.
///
/// Implemented by [`export!`](crate::export) for the type `ToolkeepComponent`.
pub trait Component {
    /// Its tools, in the order in which they were exported; names are distinct.
    const TOOLS: &'static [Entry];

    /// The descriptors of all tools, as one JSON text (format 1, see `docs/tool-authors.md`).
    #[must_use]
    fn describe() -> String {
        let tools = Self::TOOLS.iter().map(Descriptor::of).collect();
        // A schema is JSON already and the rest is text: this cannot fail.
        serde_json::to_string(&File { format: FORMAT, sdk: SDK, tools }).unwrap_or_default()
    }

    /// Run the tool `name` with `input`, a JSON text; the answer is a JSON text.
    ///
    /// # Errors
    /// Not-found for a name that is not in the table, invalid-input for an input that does not fit the
    /// argument type, else the tool's own.
    fn invoke(name: &str, input: &str) -> Result<String, Error> {
        let entry = Self::TOOLS.iter().find(|entry| entry.declaration.name == name);
        let entry = entry.ok_or_else(|| Error::not_found(format!("this component has no tool `{name}`")))?;
        (entry.invoke)(input)
    }
}

/// Most tools in one component: the host's bound.
const MAX_TOOLS: usize = 64;

/// Fails the build if two tools have one name or there are more than 64. Called by [`export!`](crate::export).
///
/// # Panics
/// At compile time, for these two reasons.
pub const fn assert_table(tools: &[Entry]) {
    assert!(tools.len() <= MAX_TOOLS, "a component has at most 64 tools; make two of it");
    let mut rest = tools;
    while let Some((first, others)) = rest.split_first() {
        let mut candidates = others;
        while let Some((candidate, more)) = candidates.split_first() {
            assert!(
                !same(first.declaration.name.as_bytes(), candidate.declaration.name.as_bytes()),
                "two exported tools have the same name; set another one with #[tool(name = \"...\")]"
            );
            candidates = more;
        }
        rest = others;
    }
}

const fn same(left: &[u8], right: &[u8]) -> bool {
    match (left.split_first(), right.split_first()) {
        (None, None) => true,
        (Some((a, left)), Some((b, right))) => *a == *b && same(left, right),
        _ => false,
    }
}

#[derive(Serialize)]
struct File {
    format: u32,
    sdk: &'static str,
    tools: Vec<Descriptor>,
}

#[derive(Serialize)]
struct Descriptor {
    name: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'static str>,
    description: Parts,
    #[serde(flatten)]
    schemas: Schemas,
    effects: Vec<&'static str>,
    deterministic: bool,
}

#[derive(Serialize)]
struct Parts {
    what: &'static str,
    when: &'static str,
    side_effects: &'static str,
    errors: &'static str,
}

impl Descriptor {
    fn of(entry: &Entry) -> Self {
        let Declaration { name, title, what, when, side_effects, errors, effects, deterministic } = entry.declaration;
        Self {
            name,
            title,
            description: Parts { what, when, side_effects, errors },
            schemas: (entry.schemas)(),
            effects: effects.iter().copied().map(EffectKind::as_str).collect(),
            deterministic,
        }
    }
}
