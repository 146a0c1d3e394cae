//! Every bound of the look at a component, at n and at n + 1.

use super::*;
use wasm_encoder::{
    BlockType, CodeSection, Component, ComponentExportKind, ComponentExportSection, ComponentImportSection,
    ComponentInstanceSection, ComponentTypeRef, ComponentTypeSection, DataSection, Function, FunctionSection,
    InstanceSection, MemorySection, MemoryType, Module, ModuleArg, ModuleSection, NestedComponentSection,
    PrimitiveValType, RefType, TableSection, TableType, TypeSection, ValType,
};

fn exporting_tool(component: &mut Component) {
    let mut exports = ComponentExportSection::new();
    exports.export("toolkeep:tool/tool@0.1.0", ComponentExportKind::Instance, 0, None);
    component.section(&exports);
}

fn component(module: &Module) -> Vec<u8> {
    let mut component = Component::new();
    component.section(&ModuleSection(module));
    exporting_tool(&mut component);
    component.finish()
}

fn with_function(function: &Function) -> Result<ComponentFacts, Refused> {
    let (mut types, mut functions, mut code) = (TypeSection::new(), FunctionSection::new(), CodeSection::new());
    types.ty().function([], []);
    functions.function(0);
    code.function(function);
    let mut module = Module::new();
    module.section(&types).section(&functions).section(&code);
    prescreen(&component(&module))
}

fn over(result: &Result<ComponentFacts, Refused>, expected: &str) -> bool {
    matches!(result, Err(Refused::Over { what, .. }) if *what == expected)
}

#[test]
fn t_r9_locals_hold_at_n_and_are_refused_at_n_plus_1() {
    let locals = |count: u64, loops: u64| {
        let mut function = Function::new([(u32::try_from(count).expect("count"), ValType::I32)]);
        for _ in 0..loops {
            function.instructions().loop_(BlockType::Empty).end();
        }
        function.instructions().end();
        with_function(&function)
    };
    assert_eq!(locals(LOCALS_MAX, 0).expect("n").most_locals, LOCALS_MAX);
    assert!(over(&locals(LOCALS_MAX + 1, 0), "locals in a function"));
    let loops = LOCALS_BY_LOOPS_MAX / LOCALS_MAX;
    assert!(locals(LOCALS_MAX, loops).is_ok());
    assert!(over(&locals(LOCALS_MAX, loops + 1), "locals times loops in a function"));
}

#[test]
fn t_r9_nesting_holds_at_n_and_is_refused_at_n_plus_1() {
    let nested = |count: u64, loops: bool| {
        let mut function = Function::new([]);
        for _ in 0..count {
            if loops {
                function.instructions().loop_(BlockType::Empty);
            } else {
                function.instructions().block(BlockType::Empty);
            }
        }
        for _ in 0..=count {
            function.instructions().end();
        }
        with_function(&function)
    };
    assert_eq!(nested(LOOP_DEPTH_MAX, true).expect("n").deepest_loop, LOOP_DEPTH_MAX);
    assert!(over(&nested(LOOP_DEPTH_MAX + 1, true), "loops inside of loops"));
    assert_eq!(nested(BLOCK_DEPTH_MAX, false).expect("n").deepest_block, BLOCK_DEPTH_MAX);
    assert!(over(&nested(BLOCK_DEPTH_MAX + 1, false), "blocks inside of blocks"));
}

#[test]
fn t_r9_branch_tables_bodies_and_segments_hold_at_n_and_are_refused_at_n_plus_1() {
    let branches = |count: u64| {
        let mut function = Function::new([]);
        let targets = vec![0; usize::try_from(count).expect("count")];
        function.instructions().i32_const(0).br_table(targets, 0).end();
        with_function(&function)
    };
    assert_eq!(branches(BRANCH_TARGETS_MAX).expect("n").branch_targets, BRANCH_TARGETS_MAX);
    assert!(over(&branches(BRANCH_TARGETS_MAX + 1), "branch targets in a function"));

    let body = |bytes: u64| {
        let mut function = Function::new([]);
        // One byte counts the groups of locals, one ends the function.
        for _ in 0..bytes - 2 {
            function.instructions().nop();
        }
        function.instructions().end();
        with_function(&function)
    };
    assert_eq!(body(BODY_MAX_BYTES).expect("n").largest_body, BODY_MAX_BYTES);
    assert!(over(&body(BODY_MAX_BYTES + 1), "bytes in a function"));

    let segments = |count: u64| {
        let mut data = DataSection::new();
        for _ in 0..count {
            data.passive([]);
        }
        let mut module = Module::new();
        module.section(&data);
        prescreen(&component(&module))
    };
    assert_eq!(segments(SEGMENTS_MAX).expect("n").segments, SEGMENTS_MAX);
    assert!(over(&segments(SEGMENTS_MAX + 1), "data segments"));
}

#[test]
fn t_r9_memories_and_tables_begin_at_n_and_are_refused_at_n_plus_1() {
    let memory = |pages: u64| {
        let mut memories = MemorySection::new();
        let (maximum, page_size_log2) = (None, None);
        memories.memory(MemoryType { minimum: pages, maximum, memory64: false, shared: false, page_size_log2 });
        let mut module = Module::new();
        module.section(&memories);
        prescreen(&component(&module))
    };
    let most = ExecutionLimits::CEILING.memory_bytes / PAGE_BYTES;
    assert!(memory(most).is_ok());
    assert!(over(&memory(most + 1), "pages of memory at the start"));
    let table = |elements: u64| {
        let mut tables = TableSection::new();
        let (element_type, maximum) = (RefType::FUNCREF, None);
        tables.table(TableType { element_type, minimum: elements, maximum, table64: false, shared: false });
        let mut module = Module::new();
        module.section(&tables);
        prescreen(&component(&module))
    };
    assert!(table(TABLE_ELEMENTS_MAX as u64).is_ok());
    assert!(over(&table(TABLE_ELEMENTS_MAX as u64 + 1), "elements in a table at the start"));
}

#[test]
fn t_r9_parts_depth_instances_and_imports_hold_at_n_and_are_refused_at_n_plus_1() {
    let parts = |count: u64| {
        let mut component = Component::new();
        for _ in 1..count {
            component.section(&ModuleSection(&Module::new()));
        }
        exporting_tool(&mut component);
        prescreen(&component.finish())
    };
    assert!(parts(PARTS_MAX).is_ok());
    assert!(over(&parts(PARTS_MAX + 1), "modules and components"));

    let deep = |levels: u64| {
        let mut inner = Component::new();
        for _ in 1..levels {
            let mut outer = Component::new();
            outer.section(&NestedComponentSection(&inner));
            inner = outer;
        }
        exporting_tool(&mut inner);
        prescreen(&inner.finish())
    };
    assert!(deep(DEPTH_MAX).is_ok());
    assert!(over(&deep(DEPTH_MAX + 1), "levels of components"));

    let instances = |count: u64| {
        let (mut component, mut made) = (Component::new(), InstanceSection::new());
        for _ in 0..count {
            made.instantiate(0, Vec::<(&str, ModuleArg)>::new());
        }
        component.section(&made);
        exporting_tool(&mut component);
        prescreen(&component.finish())
    };
    assert!(instances(INSTANCES_MAX).is_ok());
    assert!(over(&instances(INSTANCES_MAX + 1), "instances"));

    let imports = |count: u64| {
        let (mut component, mut asked) = (Component::new(), ComponentImportSection::new());
        for _ in 0..count {
            asked.import("wasi:io/poll@0.2.6", ComponentTypeRef::Instance(0));
        }
        component.section(&asked);
        exporting_tool(&mut component);
        prescreen(&component.finish())
    };
    assert_eq!(imports(IMPORTS_MAX).expect("n").imports.len() as u64, IMPORTS_MAX);
    assert!(over(&imports(IMPORTS_MAX + 1), "imports"));
}

#[test]
fn t_r9_copies_of_exports_hold_at_n_and_are_refused_at_n_plus_1() {
    let copies = |exports: u64, instances: u64| {
        let (mut inner, mut given) = (Component::new(), ComponentExportSection::new());
        for number in 0..exports {
            given.export(format!("e{number}"), ComponentExportKind::Func, 0, None);
        }
        inner.section(&given);
        let (mut component, mut made) = (Component::new(), ComponentInstanceSection::new());
        component.section(&NestedComponentSection(&inner));
        for _ in 0..instances {
            made.instantiate(0, Vec::<(&str, ComponentExportKind, u32)>::new());
        }
        component.section(&made);
        exporting_tool(&mut component);
        prescreen(&component.finish())
    };
    assert!(copies(COPIES_MAX / 500, 500).is_ok());
    assert!(over(&copies(COPIES_MAX / 500 + 1, 500), "exports of instances"));
}

#[test]
fn t_r9_bytes_of_types_hold_at_n_and_are_refused_at_n_plus_1() {
    // One byte for each type, three for their number, and what the export of the tool takes.
    let types = |bytes: u64| {
        let mut component = Component::new();
        let mut left = bytes;
        while left > 0 {
            let count = left.min(ITEMS_MAX + 3) - 3;
            let mut section = ComponentTypeSection::new();
            (0..count).for_each(|_| section.defined_type().primitive(PrimitiveValType::U8));
            component.section(&section);
            left -= count + 3;
        }
        exporting_tool(&mut component);
        prescreen(&component.finish())
    };
    let mut one = Component::new();
    exporting_tool(&mut one);
    // Without the number of the section and its length.
    let export = (one.finish().len() - Component::new().finish().len() - 2) as u64;
    assert!(types(TYPES_MAX_BYTES - export).is_ok());
    assert!(over(&types(TYPES_MAX_BYTES - export + 1), "bytes of types, imports and adapters"));
}

#[test]
fn a_contract_of_another_version_is_named() {
    let mut exports = ComponentExportSection::new();
    exports.export("toolkeep:tool/tool@0.2.0", ComponentExportKind::Instance, 0, None);
    let mut component = Component::new();
    component.section(&exports);
    let refused = prescreen(&component.finish());
    assert_eq!(refused, Err(Refused::OtherContract("toolkeep:tool/tool@0.2.0".to_owned())));
}

#[test]
fn t_r9_size_is_looked_at_first_and_a_component_without_a_tool_is_refused() {
    let large = vec![0; COMPONENT_MAX_BYTES + 1];
    assert!(matches!(prescreen(&large), Err(Refused::TooLarge { .. })));
    assert!(matches!(prescreen(&large[1..]), Err(Refused::Bad(_))));
    assert_eq!(prescreen(&Component::new().finish()), Err(Refused::NoTool));
    assert_eq!(prescreen(&Module::new().finish()), Err(BadComponent::NotAComponent.into()));
}
