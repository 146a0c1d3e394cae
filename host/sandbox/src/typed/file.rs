//! Reading the functions of a component from its file, without compiling it.
//!
//! The types of exports are found by the validator of the WebAssembly tools, which follows aliases and bounds how large a
//! type may be; bodies of functions are stepped over. Components that were built with documentation in them carry it in
//! the section `package-docs`, a byte for its version and a JSON text, which is believed as much as any description.

use std::collections::BTreeMap;
use std::panic::catch_unwind;

use serde_json::{Map, Value};
use toolkeep_core::json;
use toolkeep_core::wit::{Builder, FUNCTIONS_MAX, Function, Label, Node, Type, Unsuitable};
use wasmparser::component_types::{ComponentDefinedType, ComponentEntityType, ComponentFuncTypeId, ComponentValType};
use wasmparser::types::{Types, TypesRef};
use wasmparser::{Parser, Payload, PrimitiveValType, ValidPayload, Validator, WasmFeatures};

use crate::component::{BadComponent, custom_sections};
use crate::engine;

pub(super) const RESOURCE: &str = "a resource";
pub(super) const FUTURE: &str = "a future";
pub(super) const STREAM: &str = "a stream";
pub(super) const ERROR_CONTEXT: &str = "an error context";
pub(super) const MAP: &str = "a map";
pub(super) const FIXED: &str = "a list of fixed length";

/// The section with documentation.
const DOCS: &str = "package-docs";
/// Largest documentation that is read, in bytes.
const DOCS_MAX_BYTES: usize = 1024 * 1024;

/// A function that a component exports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// What names it.
    pub label: Label,
    /// The function, or why it cannot be a tool.
    pub function: Result<Function, Unsuitable>,
    /// What the component itself says about it, if it was built with its documentation.
    pub documentation: Option<String>,
}

/// The functions that a component exports, at its top level and in its interfaces, in its order. It was looked at by
/// [`crate::prescreen::prescreen`] before.
///
/// # Errors
/// It is not valid, or it exports more than [`FUNCTIONS_MAX`] functions.
pub fn functions(wasm: &[u8]) -> Result<Vec<Exported>, BadComponent> {
    // A bug of the reader must not end who asks: others' components are read in the same thread.
    let read = catch_unwind(|| all(wasm));
    read.unwrap_or_else(|_| Err(BadComponent::Malformed("its reader gave up".to_owned())))
}

fn all(wasm: &[u8]) -> Result<Vec<Exported>, BadComponent> {
    let (types, names) = read(wasm)?;
    let types = types.as_ref();
    let (builder, docs) = (Builder::new(|ty: &ComponentValType| node(types, *ty)), Documents::of(wasm));
    let mut found = Found { types, builder, docs, all: Vec::new() };
    for name in &names {
        match types.component_item_for_export(name).map(|item| item.ty) {
            Some(ComponentEntityType::Func(function)) => found.add(None, name, function)?,
            Some(ComponentEntityType::Instance(instance)) => {
                let exports = types.get(instance).map(|instance| &instance.exports);
                for (function, item) in exports.into_iter().flatten() {
                    if let ComponentEntityType::Func(ty) = item.ty {
                        found.add(Some(name), function, ty)?;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(found.all)
}

/// What is read: what is run, and what is refused by its name. Everything else would be code that only a hostile component
/// reaches.
fn read_proposals() -> WasmFeatures {
    let named = WasmFeatures::CM_ASYNC
        | WasmFeatures::CM_ERROR_CONTEXT
        | WasmFeatures::CM_FIXED_LENGTH_LISTS
        | WasmFeatures::CM_MAP;
    WasmFeatures::default().difference(engine::refused_proposals()) | named
}

/// The types of a component, and the names of its exports.
fn read(wasm: &[u8]) -> Result<(Types, Vec<String>), BadComponent> {
    let malformed = |error: wasmparser::BinaryReaderError| BadComponent::Malformed(error.to_string());
    let mut validator = Validator::new_with_features(read_proposals());
    let (mut names, mut depth, mut whole) = (Vec::new(), 0_u32, None);
    for payload in Parser::new(0).parse_all(wasm) {
        let payload = payload.map_err(malformed)?;
        match &payload {
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentExportSection(exports) if depth == 1 => {
                for export in exports.clone() {
                    names.push(export.map_err(malformed)?.name.name.to_owned());
                }
            }
            _ => {}
        }
        if let ValidPayload::End(types) = validator.payload(&payload).map_err(malformed)? {
            whole = Some(types);
        }
    }
    whole.map(|types| (types, names)).ok_or_else(|| BadComponent::Malformed("it has no end".to_owned()))
}

struct Found<'t, L> {
    types: TypesRef<'t>,
    builder: Builder<L>,
    docs: Option<Documents>,
    all: Vec<Exported>,
}

impl<L: Fn(&ComponentValType) -> Node<ComponentValType>> Found<'_, L> {
    fn add(&mut self, interface: Option<&str>, name: &str, ty: ComponentFuncTypeId) -> Result<(), BadComponent> {
        if self.all.len() >= FUNCTIONS_MAX {
            return Err(BadComponent::Functions(FUNCTIONS_MAX));
        }
        let (Some(label), Some(ty)) = (Label::new(interface, name), self.types.get(ty)) else {
            return Err(BadComponent::Malformed("a name of an export is too long, or no name".to_owned()));
        };
        let function = if ty.async_ {
            Err(Unsuitable::Async)
        } else {
            let params = ty.params.iter().map(|(name, ty)| (name.to_string(), *ty)).collect();
            self.builder.function(label.clone(), params, ty.result)
        };
        let documentation = self.docs.as_ref().and_then(|docs| docs.of_function(&label));
        self.all.push(Exported { label, function, documentation });
        Ok(())
    }
}

/// One type as the validator knows it.
fn node(types: TypesRef<'_>, ty: ComponentValType) -> Node<ComponentValType> {
    let id = match ty {
        ComponentValType::Primitive(primitive) => return plain(primitive),
        ComponentValType::Type(id) => id,
    };
    match types.get(id) {
        None => Node::Refused("of an unknown type"),
        Some(ComponentDefinedType::Primitive(primitive)) => plain(*primitive),
        Some(ComponentDefinedType::Record(record)) => {
            Node::Record(record.fields.iter().map(|(name, ty)| (name.to_string(), *ty)).collect())
        }
        Some(ComponentDefinedType::Variant(variant)) => {
            Node::Variant(variant.cases.iter().map(|(name, case)| (name.to_string(), case.ty)).collect())
        }
        Some(ComponentDefinedType::List { element, .. }) => Node::List(*element),
        Some(ComponentDefinedType::Tuple(tuple)) => Node::Tuple(tuple.types.to_vec()),
        Some(ComponentDefinedType::Flags(names)) => Node::Flags(names.iter().map(ToString::to_string).collect()),
        Some(ComponentDefinedType::Enum(names)) => Node::Enum(names.iter().map(ToString::to_string).collect()),
        Some(ComponentDefinedType::Option { ty, .. }) => Node::Option(*ty),
        Some(ComponentDefinedType::Result { ok, err, .. }) => Node::Result(*ok, *err),
        Some(ComponentDefinedType::Own(_) | ComponentDefinedType::Borrow(_)) => Node::Refused(RESOURCE),
        Some(ComponentDefinedType::Future { .. }) => Node::Refused(FUTURE),
        Some(ComponentDefinedType::Stream { .. }) => Node::Refused(STREAM),
        Some(ComponentDefinedType::Map { .. }) => Node::Refused(MAP),
        Some(ComponentDefinedType::FixedLengthList { .. }) => Node::Refused(FIXED),
    }
}

const fn plain(primitive: PrimitiveValType) -> Node<ComponentValType> {
    Node::Plain(match primitive {
        PrimitiveValType::Bool => Type::Bool,
        PrimitiveValType::S8 => Type::S8,
        PrimitiveValType::U8 => Type::U8,
        PrimitiveValType::S16 => Type::S16,
        PrimitiveValType::U16 => Type::U16,
        PrimitiveValType::S32 => Type::S32,
        PrimitiveValType::U32 => Type::U32,
        PrimitiveValType::S64 => Type::S64,
        PrimitiveValType::U64 => Type::U64,
        PrimitiveValType::F32 => Type::F32,
        PrimitiveValType::F64 => Type::F64,
        PrimitiveValType::Char => Type::Char,
        PrimitiveValType::String => Type::String,
        PrimitiveValType::ErrorContext => return Node::Refused(ERROR_CONTEXT),
    })
}

/// What a component was documented with.
pub(super) struct Documents {
    whole: Value,
    /// That of functions at the top level, from whichever world has it first: there may be as many worlds as functions.
    top: BTreeMap<String, String>,
}

impl Documents {
    /// Read them, where the component has any.
    pub(super) fn of(wasm: &[u8]) -> Option<Self> {
        let sections = custom_sections(wasm, DOCS).ok()?;
        let [data] = sections.as_slice() else { return None };
        let (_version, text) = data.split_first().filter(|_| data.len() <= DOCS_MAX_BYTES)?;
        let whole = json::parse(text).ok()?;
        let mut top = BTreeMap::new();
        for world in whole.get("worlds").and_then(Value::as_object).into_iter().flat_map(Map::values) {
            for (name, said) in ["func_exports", "funcs"].iter().filter_map(|key| world.get(key)?.as_object()).flatten()
            {
                if let Some(said) = said_of(said).filter(|_| !top.contains_key(name)) {
                    top.insert(name.clone(), said.to_owned());
                }
            }
        }
        Some(Self { whole, top })
    }

    /// What they say about a function.
    pub(super) fn of_function(&self, label: &Label) -> Option<String> {
        let said = match label.interface() {
            Some(interface) => {
                let name = interface.rsplit('/').next()?.split('@').next()?;
                said_of(self.whole.get("interfaces")?.get(name)?.get("funcs")?.get(label.function())?)?
            }
            None => self.top.get(label.function())?,
        };
        Some(said.trim()).filter(|said| !said.is_empty()).map(str::to_owned)
    }
}

/// The documentation of one function: a text in the first version, an object in the next.
fn said_of(said: &Value) -> Option<&str> {
    said.as_str().or_else(|| said.get("docs")?.as_str())
}
