//! Components as files: what they say about their tools, what they ask for, and how a description gets into them.
//!
//! Nothing here runs guest code or compiles it. The description is the custom section `toolkeep-tools` at the top level of
//! the component; sections of nested modules and components are not ours and are never looked at. A component with two
//! such sections is refused, because two readers could then disagree about what it says.

use std::ops::Range;

use toolkeep_core::descriptor::{BadDescriptor, Descriptors, SECTION, SECTION_MAX_BYTES};
use wasm_encoder::{ComponentSection, CustomSection};
use wasmparser::{Chunk, ComponentImportSectionReader, Encoding, Parser, Payload};

use crate::prescreen::{Contract, TOOL};

/// Why a file cannot be read as a component with tools.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadComponent {
    /// Not WebAssembly, or cut off.
    #[error("the file is not a valid component: {0}")]
    Malformed(String),
    /// A core module.
    #[error("the file is a core module, not a component: build it for the target `wasm32-wasip2`")]
    NotAComponent,
    /// No description.
    #[error("the component does not describe its tools: run `toolkeep tools pack` on it")]
    NotPacked,
    /// More than one description.
    #[error("the component has {0} sections `toolkeep-tools`; it must have one: pack it again")]
    PackedTwice(usize),
    /// A description over [`SECTION_MAX_BYTES`].
    #[error("the section `toolkeep-tools` has {size} bytes; at most {limit} are allowed")]
    SectionTooLarge {
        /// Bytes that it has.
        size: usize,
        /// Bytes that it may have.
        limit: usize,
    },
    /// It exports more functions than anybody looks at.
    #[error("the component exports more than {0} functions")]
    Functions(usize),
    /// A description that breaks a rule.
    #[error(transparent)]
    Descriptors(#[from] BadDescriptor),
}

impl BadComponent {
    #[expect(clippy::needless_pass_by_value, reason = "used as a function in map_err")]
    fn malformed(error: wasmparser::BinaryReaderError) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// One section at the top level of a component.
struct Section<'a> {
    payload: Payload<'a>,
    /// Where it stands in the file, header included.
    range: Range<usize>,
}

/// The sections at the top level, in order; nested modules and components are stepped over.
fn top_level<'a>(wasm: &'a [u8], mut visit: impl FnMut(&Section<'a>)) -> Result<(), BadComponent> {
    let mut parser = Parser::new(0);
    let mut at = 0;
    loop {
        let rest = wasm.get(at..).unwrap_or_default();
        let Chunk::Parsed { consumed, payload } = parser.parse(rest, true).map_err(BadComponent::malformed)? else {
            return Err(BadComponent::Malformed("it ends in the middle of a section".to_owned()));
        };
        let mut end = at + consumed;
        match &payload {
            Payload::Version { encoding: Encoding::Module, .. } => return Err(BadComponent::NotAComponent),
            Payload::ModuleSection { unchecked_range, .. } | Payload::ComponentSection { unchecked_range, .. } => {
                end = unchecked_range.end;
                if end > wasm.len() || end < at {
                    return Err(BadComponent::Malformed("a nested section is longer than the file".to_owned()));
                }
            }
            Payload::End(_) => return Ok(()),
            _ => {}
        }
        visit(&Section { payload, range: at..end });
        at = end;
    }
}

/// The text of the one section `toolkeep-tools`.
///
/// # Errors
/// The file is no component, or it has no such section, several, or one that is too large or not UTF-8.
pub fn section(wasm: &[u8]) -> Result<&str, BadComponent> {
    let data = match custom_sections(wasm, SECTION)?.as_slice() {
        [] => return Err(BadComponent::NotPacked),
        [data] => *data,
        several => return Err(BadComponent::PackedTwice(several.len())),
    };
    if data.len() > SECTION_MAX_BYTES {
        return Err(BadComponent::SectionTooLarge { size: data.len(), limit: SECTION_MAX_BYTES });
    }
    std::str::from_utf8(data).map_err(|error| BadDescriptor::Shape(error.to_string()).into())
}

/// The contents of all sections of a name at the top level.
pub(crate) fn custom_sections<'a>(wasm: &'a [u8], name: &str) -> Result<Vec<&'a [u8]>, BadComponent> {
    let mut found = Vec::new();
    top_level(wasm, |section| {
        if let Payload::CustomSection(custom) = &section.payload
            && custom.name() == name
        {
            found.push(custom.data());
        }
    })?;
    Ok(found)
}

/// How a component is called, by the names of its exports alone.
///
/// # Errors
/// The file is no component.
pub fn contract(wasm: &[u8]) -> Result<Contract, BadComponent> {
    let (mut has_tool, mut broken) = (false, None);
    top_level(wasm, |section| {
        if let Payload::ComponentExportSection(reader) = &section.payload {
            for export in reader.clone() {
                match export {
                    Ok(export) => has_tool |= export.name.name.starts_with(TOOL),
                    Err(error) => broken = Some(error),
                }
            }
        }
    })?;
    match broken {
        Some(error) => Err(BadComponent::malformed(error)),
        None => Ok(if has_tool { Contract::Tool } else { Contract::Functions }),
    }
}

/// The descriptors of all tools of a component, checked.
///
/// # Errors
/// As [`section`], or a descriptor breaks a rule.
pub fn descriptors(wasm: &[u8]) -> Result<Descriptors, BadComponent> {
    parse(section(wasm)?)
}

fn parse(text: &str) -> Result<Descriptors, BadComponent> {
    let descriptors: Descriptors =
        serde_json::from_str(text).map_err(|error| BadDescriptor::Shape(error.to_string()))?;
    descriptors.check()?;
    Ok(descriptors)
}

/// The names of everything that a component imports, in its order, for example `wasi:clocks/wall-clock@0.2.6`.
///
/// # Errors
/// The file is no component.
pub fn imports(wasm: &[u8]) -> Result<Vec<String>, BadComponent> {
    let mut names = Vec::new();
    let mut broken = None;
    top_level(wasm, |section| {
        if let Payload::ComponentImportSection(reader) = &section.payload {
            broken = names_of(reader, &mut names).err().or(broken.take());
        }
    })?;
    broken.map_or(Ok(names), |error| Err(BadComponent::malformed(error)))
}

fn names_of(reader: &ComponentImportSectionReader<'_>, names: &mut Vec<String>) -> wasmparser::Result<()> {
    for import in reader.clone() {
        names.push(import?.name.name.to_owned());
    }
    Ok(())
}

/// The same component with `descriptors` as its only section `toolkeep-tools`.
///
/// # Errors
/// The file is no component, or the descriptors break a rule.
pub fn pack(wasm: &[u8], descriptors: &str) -> Result<Vec<u8>, BadComponent> {
    if descriptors.len() > SECTION_MAX_BYTES {
        return Err(BadComponent::SectionTooLarge { size: descriptors.len(), limit: SECTION_MAX_BYTES });
    }
    parse(descriptors)?;
    let mut packed = Vec::with_capacity(wasm.len() + descriptors.len() + 64);
    top_level(wasm, |section| {
        if !matches!(&section.payload, Payload::CustomSection(custom) if custom.name() == SECTION) {
            packed.extend_from_slice(wasm.get(section.range.clone()).unwrap_or_default());
        }
    })?;
    let section = CustomSection { name: SECTION.into(), data: descriptors.as_bytes().into() };
    section.append_to_component(&mut packed);
    Ok(packed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasm_encoder::{Component, ModuleSection, RawSection};

    const GOOD: &str = r#"{"format":1,"sdk":"s","tools":[{"name":"a","description":{"what":"w","when":"n","side_effects":"s",
        "errors":"e"},"input_schema":{"type":"object"},"output_schema":{},"error_schema":{}}]}"#;

    fn custom(text: &str) -> CustomSection<'_> {
        CustomSection { name: SECTION.into(), data: text.as_bytes().into() }
    }

    fn with(sections: &[&str]) -> Vec<u8> {
        let mut component = Component::new();
        for text in sections {
            component.section(&custom(text));
        }
        component.finish()
    }

    #[test]
    fn a_packed_component_says_what_was_packed_and_nothing_else_changes() {
        let plain = with(&[]);
        let packed = pack(&plain, GOOD).expect("packed");
        assert_eq!(section(&packed), Ok(GOOD));
        assert_eq!(descriptors(&packed).expect("read").tools.len(), 1);
        assert!(packed.starts_with(&plain));
        let again = pack(&packed, GOOD).expect("packed again");
        assert_eq!(again, packed, "packing replaces");
        assert_eq!(pack(&with(&["{}", "{}"]), GOOD).expect("repaired"), packed);
    }

    #[test]
    fn r14_a_component_has_exactly_one_description_of_bounded_size() {
        assert_eq!(section(&with(&[])), Err(BadComponent::NotPacked));
        assert_eq!(section(&with(&[GOOD, GOOD])), Err(BadComponent::PackedTwice(2)));
        let most = " ".repeat(SECTION_MAX_BYTES);
        assert_eq!(section(&with(&[&most])).map(str::len), Ok(SECTION_MAX_BYTES));
        let more = " ".repeat(SECTION_MAX_BYTES + 1);
        assert!(matches!(section(&with(&[&more])), Err(BadComponent::SectionTooLarge { .. })));
        assert!(matches!(pack(&with(&[]), &more), Err(BadComponent::SectionTooLarge { .. })));
        assert!(matches!(descriptors(&with(&["{}"])), Err(BadComponent::Descriptors(_))));
        assert!(matches!(pack(&with(&[]), "{}"), Err(BadComponent::Descriptors(_))));
    }

    #[test]
    fn a_section_of_a_nested_module_does_not_count() {
        let mut module = wasm_encoder::Module::new();
        module.section(&custom(GOOD));
        let mut component = Component::new();
        component.section(&ModuleSection(&module));
        let wasm = component.finish();
        assert_eq!(section(&wasm), Err(BadComponent::NotPacked));
        assert!(pack(&wasm, GOOD).expect("packed").starts_with(&wasm));
    }

    #[test]
    fn files_that_are_no_component_are_refused_whatever_they_hold() {
        assert_eq!(section(&wasm_encoder::Module::new().finish()), Err(BadComponent::NotAComponent));
        let whole = pack(&with(&[]), GOOD).expect("packed");
        for end in 0..whole.len() {
            let read = section(&whole[..end]);
            assert!(read.is_err(), "{end}");
        }
        for at in 0..8 {
            let mut flipped = whole.clone();
            flipped[at] ^= 0xff;
            assert!(section(&flipped).is_err(), "{at}");
        }
        let mut module = Component::new();
        module.section(&RawSection { id: 1, data: &[0; 3] });
        assert!(section(&module.finish()).is_err());
    }
}
