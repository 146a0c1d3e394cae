//! Both readers of components against each other, over components that hold any type, and what neither takes.

use proptest::prelude::{ProptestConfig, prop_assert_eq, proptest};
use toolkeep_core::wit::{Builder, FUNCTIONS_MAX, Function, Label, Type, Unsuitable};
use wasm_encoder::{
    Component, ComponentExportKind, ComponentExportSection, ComponentImportSection, ComponentTypeRef,
    ComponentTypeSection, ComponentValType, CustomSection, InstanceType, PrimitiveValType, TypeBounds,
};
use wasmtime::component::types::ComponentItem;

use super::super::file::Documents;
use super::super::{functions, node};
use super::a_type;
use crate::component::BadComponent;
use crate::engine;

/// The type of an interface with functions, as it is written.
#[derive(Default)]
struct Interface {
    ty: InstanceType,
    named: u32,
}

impl Interface {
    /// Writes a type. What needs a name gets one.
    fn value(&mut self, ty: &Type) -> ComponentValType {
        let primitive = match ty {
            Type::Bool => PrimitiveValType::Bool,
            Type::S8 => PrimitiveValType::S8,
            Type::U8 => PrimitiveValType::U8,
            Type::S16 => PrimitiveValType::S16,
            Type::U16 => PrimitiveValType::U16,
            Type::S32 => PrimitiveValType::S32,
            Type::U32 => PrimitiveValType::U32,
            Type::S64 => PrimitiveValType::S64,
            Type::U64 => PrimitiveValType::U64,
            Type::F32 => PrimitiveValType::F32,
            Type::F64 => PrimitiveValType::F64,
            Type::Char => PrimitiveValType::Char,
            Type::String => PrimitiveValType::String,
            composed => return self.composed(composed),
        };
        ComponentValType::Primitive(primitive)
    }

    fn composed(&mut self, ty: &Type) -> ComponentValType {
        let (mut inner, mut named) = (Vec::new(), true);
        match ty {
            Type::List(of) | Type::Option(of) => inner.push(Some(self.value(of))),
            Type::Tuple(parts) => inner.extend(parts.iter().map(|part| Some(self.value(part)))),
            Type::Record(fields) => inner.extend(fields.iter().map(|field| Some(self.value(&field.ty)))),
            Type::Variant(cases) => inner.extend(cases.iter().map(|case| case.ty.as_ref().map(|ty| self.value(ty)))),
            Type::Result { ok, err } => inner.extend([ok, err].map(|ty| ty.as_ref().map(|ty| self.value(ty)))),
            _ => {}
        }
        let index = self.ty.type_count();
        let encoder = self.ty.ty().defined_type();
        let mut inner = inner.into_iter();
        let mut next = || inner.next().flatten();
        match ty {
            Type::Record(fields) => {
                encoder.record(fields.iter().map(|field| (&*field.name, next().expect("a type"))));
            }
            Type::Variant(cases) => encoder.variant(cases.iter().map(|case| (&*case.name, next()))),
            Type::Enum(names) => encoder.enum_type(names.iter().map(|name| &**name)),
            Type::Flags(names) => encoder.flags(names.iter().map(|name| &**name)),
            unnamed => {
                named = false;
                match unnamed {
                    Type::List(_) => encoder.list(next().expect("a type")),
                    Type::Option(_) => encoder.option(next().expect("a type")),
                    Type::Tuple(parts) => encoder.tuple(parts.iter().map(|_| next().expect("a type"))),
                    _ => encoder.result(next(), next()),
                }
            }
        }
        if !named {
            return ComponentValType::Type(index);
        }
        self.ty.export(format!("t{}", self.named), ComponentTypeRef::Type(TypeBounds::Eq(index)));
        self.named += 1;
        ComponentValType::Type(index + 1)
    }

    fn function(&mut self, name: &str, params: &[(&str, ComponentValType)], result: Option<ComponentValType>) {
        let index = self.ty.type_count();
        self.ty.ty().function().params(params.iter().copied()).result(result);
        self.ty.export(name, ComponentTypeRef::Func(index));
    }

    /// A component that imports it, and exports it under a name.
    fn component(&self, name: Option<&str>) -> Component {
        let (mut types, mut imports, mut exports) =
            (ComponentTypeSection::new(), ComponentImportSection::new(), ComponentExportSection::new());
        types.instance(&self.ty);
        imports.import("given:by/others", ComponentTypeRef::Instance(0));
        let mut component = Component::new();
        component.section(&types).section(&imports);
        if let Some(name) = name {
            exports.export(name, ComponentExportKind::Instance, 0, None);
            component.section(&exports);
        }
        component
    }
}

fn only(wasm: &[u8]) -> Result<Function, Unsuitable> {
    let mut exported = functions(wasm).expect("read");
    assert_eq!(exported.len(), 1);
    exported.remove(0).function
}

/// The functions of the interface that a component imports, as the engine sees them: it compiles none that only hands on
/// what it was given.
fn compiled(wasm: &[u8], interface: &str) -> Vec<Function> {
    let engine = engine::plain().expect("an engine");
    let component = wasmtime::component::Component::new(&engine, wasm).expect("compiled");
    let (ty, mut builder) = (component.component_type(), Builder::new(node));
    let mut found = Vec::new();
    for (_, import) in ty.imports(&engine) {
        let ComponentItem::ComponentInstance(instance) = import.ty else { continue };
        for (name, export) in instance.exports(&engine) {
            if let ComponentItem::ComponentFunc(function) = export.ty {
                let label = Label::new(Some(interface), name).expect("a label");
                let params = function.params().map(|(name, ty)| (name.to_owned(), ty)).collect();
                found.push(builder.function(label, params, function.results().next()).expect("plain values"));
            }
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn r50_file_and_compiled_component_say_the_same(param in a_type(4), result in a_type(3)) {
        let mut interface = Interface::default();
        let (given, returned) = (interface.value(&param), interface.value(&result));
        interface.function("f", &[("v", given)], Some(returned));
        let wasm = interface.component(Some("acme:a/b@1.2.3")).finish();
        let label: Label = "acme:a/b@1.2.3#f".parse().expect("a label");
        let expected = Function { label, result: Some(result), ..super::function(param) };
        let imported = interface.component(None).finish();
        prop_assert_eq!(compiled(&imported, "acme:a/b@1.2.3"), vec![expected.clone()]);
        prop_assert_eq!(only(&wasm), Ok(expected));
    }
}

#[test]
fn what_is_no_plain_value_is_named() {
    let refused = |write: &dyn Fn(&mut InstanceType)| {
        let mut interface = Interface::default();
        write(&mut interface.ty);
        let index = interface.ty.type_count() - 1;
        interface.function("f", &[("v", ComponentValType::Type(index))], None);
        only(&interface.component(Some("acme:a/b")).finish()).expect_err("refused").to_string()
    };
    let byte = ComponentValType::Primitive(PrimitiveValType::U8);
    let said = refused(&|ty| {
        ty.export("r", ComponentTypeRef::Type(TypeBounds::SubResource));
        ty.ty().defined_type().own(0);
    });
    assert!(said.starts_with("`v` is a resource"), "{said}");
    assert!(refused(&|ty| ty.ty().defined_type().stream(Some(byte))).contains("a stream"));
    assert!(refused(&|ty| ty.ty().defined_type().future(None)).contains("a future"));
    assert!(refused(&|ty| ty.ty().defined_type().fixed_length_list(byte, 4)).contains("a list of fixed length"));
    assert!(refused(&|ty| ty.ty().defined_type().map(byte, byte)).contains("a map"));
    let mut interface = Interface::default();
    let index = interface.ty.type_count();
    interface.ty.ty().function().async_(true).params([("v", byte)]).result(None);
    interface.ty.export("f", ComponentTypeRef::Func(index));
    assert_eq!(only(&interface.component(Some("acme:a/b")).finish()), Err(Unsuitable::Async));
}

#[test]
fn t_r9_n_functions_are_read_and_not_n_plus_1() {
    let many = |count: usize| {
        let mut interface = Interface::default();
        (0..count).for_each(|at| interface.function(&format!("f{at}"), &[], None));
        functions(&interface.component(Some("acme:a/b")).finish())
    };
    assert_eq!(many(FUNCTIONS_MAX).map(|all| all.len()), Ok(FUNCTIONS_MAX));
    assert_eq!(many(FUNCTIONS_MAX + 1), Err(BadComponent::Functions(FUNCTIONS_MAX)));
}

#[test]
fn t_r9_a_type_that_doubles_with_each_name_ends_at_the_bound() {
    let mut interface = Interface::default();
    let mut ty = ComponentValType::Primitive(PrimitiveValType::U8);
    for _ in 0..11 {
        let index = interface.ty.type_count();
        interface.ty.ty().defined_type().tuple([ty; 4]);
        ty = ComponentValType::Type(index);
    }
    interface.function("f", &[("v", ty)], None);
    interface.function("g", &[], None);
    let wasm = interface.component(Some("acme:a/b")).finish();
    match functions(&wasm) {
        // The reader of files may find it too large before it is anybody's type.
        Err(BadComponent::Malformed(why)) => assert!(why.contains("size"), "{why}"),
        read => assert_eq!(read.expect("read")[0].function, Err(Unsuitable::Large)),
    }
}

#[test]
fn names_and_documentation_of_functions_at_the_top_level_are_read() {
    let (mut types, mut imports, mut exports) =
        (ComponentTypeSection::new(), ComponentImportSection::new(), ComponentExportSection::new());
    types.function().params([("v", PrimitiveValType::String)]).result(None);
    imports.import("given", ComponentTypeRef::Func(0));
    exports.export("say", ComponentExportKind::Func, 0, None);
    let mut component = Component::new();
    component.section(&types).section(&imports).section(&exports);
    let docs = |text: &str| [b"\x01", text.as_bytes()].concat();
    let text = r#"{"worlds":{"w":{"func_exports":{"say":{"docs":" Says it. "}}}},
        "interfaces":{"b":{"funcs":{"f":"The old way.","g":{"docs":" "}}}}}"#;
    component.section(&CustomSection { name: "package-docs".into(), data: docs(text).into() });
    let wasm = component.finish();
    assert_eq!(only(&wasm).expect("a function").label.as_str(), "say");
    let docs = Documents::of(&wasm).expect("documents");
    let said = |label: &str| docs.of_function(&label.parse().expect("a label"));
    assert_eq!(functions(&wasm).expect("read")[0].documentation.as_deref(), Some("Says it."));
    assert_eq!(said("say").as_deref(), Some("Says it."));
    assert_eq!(said("acme:a/b@1.0.0#f").as_deref(), Some("The old way."));
    assert_eq!((said("acme:a/b#g"), said("acme:a/c#f"), said("other")), (None, None, None));
}
