//! The look at a component before it is compiled: is it one, does it ask for what exists, and is any part of it absurd.
//!
//! Compiling runs in a process of its own with limits of its own, so this is the first sieve, not the last: it turns away
//! what no toolchain makes and what costs a compiler much more than its size. The bounds are several times
//! what Rust, JavaScript and Python components have. Unknown imports are refused by name, so that the author learns which.

use toolkeep_core::limit::ExecutionLimits;
use wasmparser::{
    ComponentExportSectionReader, ComponentExternalKind, ComponentImportSectionReader, ComponentInstance, FunctionBody,
    MemorySectionReader, Operator, Parser, Payload, TableSectionReader,
};

use crate::component::BadComponent;
use crate::engine::TABLE_ELEMENTS_MAX;

/// Names the rules of this look: another text makes every component be looked at again. Change it with the rules.
pub const RULES: &str = "5";
/// Largest component, in bytes: an interpreter with its standard library has 12 to 18 MB.
pub const COMPONENT_MAX_BYTES: usize = 32 * 1024 * 1024;
/// Modules and components in a component, nested ones included.
pub const PARTS_MAX: u64 = 256;
/// Levels of components in components: bindings nest two.
pub const DEPTH_MAX: u64 = 8;
/// Most exports of inner components, times the components that are instantiated: what checks a component keeps a copy of its
/// exports for every instance. Interpreters have some thousands.
pub const COPIES_MAX: u64 = 250_000;
/// Instantiations written down in a component, nested ones included.
pub const INSTANCES_MAX: u64 = 1_000;
/// Imports of a component.
pub const IMPORTS_MAX: u64 = 100;
/// Exports of a component, those of its interfaces not counted.
pub const EXPORTS_MAX: u64 = 1_000;
/// Functions of a component; an interpreter has about 30,000.
pub const FUNCTIONS_MAX: u64 = 200_000;
/// Bytes of one function: the main loop of a Python interpreter has 420 KiB.
pub const BODY_MAX_BYTES: u64 = 1024 * 1024;
/// Locals of one function: register allocation grows with them.
pub const LOCALS_MAX: u64 = 10_000;
/// Loops inside of loops in one function.
pub const LOOP_DEPTH_MAX: u64 = 64;
/// Locals times loops of one function: each local may live across each loop. A Python interpreter stays under 10,000.
pub const LOCALS_BY_LOOPS_MAX: u64 = 1_000_000;
/// Blocks inside of blocks: a large `switch` nests one for each case; a Python interpreter has 800.
pub const BLOCK_DEPTH_MAX: u64 = 5_000;
/// Targets of all branch tables of one function; a Python interpreter has 16,000.
pub const BRANCH_TARGETS_MAX: u64 = 65_536;
/// Data and element segments of one module: snapshots are written with up to 10,000.
pub const SEGMENTS_MAX: u64 = 10_000;
/// Types, globals, tables, memories, imports and exports of one module, each.
pub const ITEMS_MAX: u64 = 50_000;

/// Bytes that say types, imports and adapters, of all modules and components together: a Python interpreter has 270 KiB. Who
/// looks up the functions of a component keeps every one of them in memory.
pub const TYPES_MAX_BYTES: u64 = 4 * 1024 * 1024;

/// Bytes of one page of linear memory (WebAssembly 2.0, section 4.2.8).
const PAGE_BYTES: u64 = 64 * 1024;

/// Which interfaces exist, by package. Versions are compared by [`offers`].
const OFFERED: [(&str, &str, &[&str]); 8] = [
    ("toolkeep:tool", "0.1.", &["context", "log", "messages", "progress"]),
    (
        "wasi:cli",
        "0.2.",
        &[
            "environment",
            "exit",
            "stdin",
            "stdout",
            "stderr",
            "terminal-input",
            "terminal-output",
            "terminal-stdin",
            "terminal-stdout",
            "terminal-stderr",
        ],
    ),
    ("wasi:clocks", "0.2.", &["monotonic-clock", "wall-clock"]),
    ("wasi:filesystem", "0.2.", &["types", "preopens"]),
    ("wasi:http", "0.2.", &["types", "outgoing-handler"]),
    ("wasi:io", "0.2.", &["error", "poll", "streams"]),
    ("wasi:random", "0.2.", &["random", "insecure", "insecure-seed"]),
    // Offered because interpreters import them unasked; every use is denied.
    (
        "wasi:sockets",
        "0.2.",
        &["network", "instance-network", "ip-name-lookup", "tcp", "tcp-create-socket", "udp", "udp-create-socket"],
    ),
];

/// A package without a final version: only this one is known.
const DRAFT: (&str, &str, &[&str]) = ("wasi:keyvalue", "0.2.0-draft2", &["store", "atomics", "batch"]);

/// The export that the SDK makes.
pub(crate) const TOOL: &str = "toolkeep:tool/tool@0.1.";
/// The same of any version.
const ANY_TOOL: &str = "toolkeep:tool/tool";

/// How a component is called.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Contract {
    /// It exports the interface of the SDK, and describes its tools itself.
    #[default]
    Tool,
    /// It exports functions of its own, which a manifest describes.
    Functions,
}

/// What was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ComponentFacts {
    /// How it is called.
    pub contract: Contract,
    /// Bytes of the file.
    pub size: u64,
    /// Names of what it imports.
    pub imports: Vec<String>,
    /// Functions of all modules.
    pub functions: u64,
    /// Bytes of the largest function.
    pub largest_body: u64,
    /// Most locals of a function.
    pub most_locals: u64,
    /// Deepest loop nesting of a function.
    pub deepest_loop: u64,
    /// Deepest block nesting of a function.
    pub deepest_block: u64,
    /// Most locals times loops of a function.
    pub locals_by_loops: u64,
    /// Most branch-table targets of a function.
    pub branch_targets: u64,
    /// Most data or element segments of a module.
    pub segments: u64,
}

/// Why a component is not compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Larger than [`COMPONENT_MAX_BYTES`].
    #[error("the component has {size} bytes; at most {limit} are accepted")]
    TooLarge {
        /// Bytes that it has.
        size: u64,
        /// Bytes that it may have.
        limit: u64,
    },
    /// Not a component.
    #[error(transparent)]
    Bad(#[from] BadComponent),
    /// It asks for something that does not exist here.
    #[error(
        "the component imports `{0}`, which does not exist here: a tool may import wasi 0.2 (io, cli, clocks, random, filesystem, http), wasi:keyvalue 0.2.0-draft2 and toolkeep:tool 0.1"
    )]
    UnknownImport(String),
    /// It was built with an SDK of another version.
    #[error(
        "the component exports `{0}`; tools are called through `toolkeep:tool/tool@0.1.0`: build it with the SDK of this version"
    )]
    OtherContract(String),
    /// It has nothing to call.
    #[error("the component exports neither `toolkeep:tool/tool@0.1.0`, as the SDK makes it, nor any function")]
    NoTool,
    /// Nothing in it describes it, and nothing has to.
    #[error(
        "the component exports functions and not `toolkeep:tool/tool@0.1.0`: its manifest describes them, see `toolkeep tools inspect`"
    )]
    NotDescribed,
    /// Absurd.
    #[error("the component has {count} {what}; at most {limit} are accepted")]
    Over {
        /// What there is too much of.
        what: &'static str,
        /// How much there is.
        count: u64,
        /// How much there may be.
        limit: u64,
    },
}

/// Whether an import of this name is offered.
#[must_use]
pub fn offers(import: &str) -> bool {
    let Some((interface, version)) = import.split_once('@') else { return false };
    let Some((package, interface)) = interface.split_once('/') else { return false };
    let (draft, exactly, interfaces) = DRAFT;
    if package == draft {
        return version == exactly && interfaces.contains(&interface);
    }
    OFFERED.iter().any(|(offered, prefix, interfaces)| {
        *offered == package
            && interfaces.contains(&interface)
            && version.strip_prefix(prefix).is_some_and(|patch| patch.parse::<u16>().is_ok())
    })
}

/// Look at a component without compiling it.
///
/// # Errors
/// The first rule that it breaks.
pub fn prescreen(wasm: &[u8]) -> Result<ComponentFacts, Refused> {
    if wasm.len() > COMPONENT_MAX_BYTES {
        return Err(Refused::TooLarge { size: wasm.len() as u64, limit: COMPONENT_MAX_BYTES as u64 });
    }
    let mut screen = Screen::default();
    screen.facts.size = wasm.len() as u64;
    for payload in Parser::new(0).parse_all(wasm) {
        screen.look(&payload.map_err(malformed)?)?;
    }
    screen.facts.contract = match (screen.has_tool, screen.has_function) {
        (true, _) => Contract::Tool,
        (false, true) => Contract::Functions,
        (false, false) => return Err(Refused::NoTool),
    };
    Ok(screen.facts)
}

#[expect(clippy::needless_pass_by_value, reason = "used as a function in map_err")]
fn malformed(error: wasmparser::BinaryReaderError) -> Refused {
    Refused::Bad(BadComponent::Malformed(error.to_string()))
}

const fn at_most(what: &'static str, count: u64, limit: u64) -> Result<(), Refused> {
    if count > limit { Err(Refused::Over { what, count, limit }) } else { Ok(()) }
}

/// Bytes of a section that says what there is, and is no content.
fn bytes_of_types(payload: &Payload<'_>) -> u64 {
    match payload {
        Payload::ModuleSection { .. } | Payload::ComponentSection { .. } | Payload::CustomSection(_) => 0,
        Payload::CodeSectionStart { .. } | Payload::FunctionSection(_) => 0,
        Payload::DataSection(_) | Payload::ElementSection(_) => 0,
        other => other.as_section().map_or(0, |(_, range)| range.len() as u64),
    }
}

/// No pool has room for more elements in one table, so nothing could ever run the component.
fn look_at_tables(reader: &TableSectionReader<'_>) -> Result<(), Refused> {
    at_most("tables in a module", reader.count().into(), ITEMS_MAX)?;
    for table in reader.clone() {
        at_most("elements in a table at the start", table.map_err(malformed)?.ty.initial, TABLE_ELEMENTS_MAX as u64)?;
    }
    Ok(())
}

/// As for tables: a memory may not begin larger than any may ever be.
fn look_at_memories(reader: &MemorySectionReader<'_>) -> Result<(), Refused> {
    at_most("memories in a module", reader.count().into(), ITEMS_MAX)?;
    for memory in reader.clone() {
        let pages = memory.map_err(malformed)?.initial;
        at_most("pages of memory at the start", pages, ExecutionLimits::CEILING.memory_bytes / PAGE_BYTES)?;
    }
    Ok(())
}

#[derive(Default)]
struct Screen {
    facts: ComponentFacts,
    /// Open modules and components; 1 is the component itself.
    depth: u64,
    parts: u64,
    instances: u64,
    /// Components that are instantiated, and exports of components within the component.
    instantiated: u64,
    inner_exports: u64,
    exports: u64,
    types: u64,
    has_tool: bool,
    has_function: bool,
}

impl Screen {
    fn look(&mut self, payload: &Payload<'_>) -> Result<(), Refused> {
        self.types += bytes_of_types(payload);
        at_most("bytes of types, imports and adapters", self.types, TYPES_MAX_BYTES)?;
        match payload {
            Payload::Version { encoding: wasmparser::Encoding::Module, .. } if self.depth == 0 => {
                Err(BadComponent::NotAComponent.into())
            }
            Payload::Version { .. } => {
                self.depth += 1;
                self.parts += 1;
                at_most("levels of components", self.depth, DEPTH_MAX)?;
                at_most("modules and components", self.parts, PARTS_MAX)
            }
            Payload::End(_) => {
                self.depth = self.depth.saturating_sub(1);
                Ok(())
            }
            Payload::ComponentImportSection(reader) if self.depth == 1 => self.look_at_imports(reader),
            Payload::ComponentExportSection(reader) if self.depth == 1 => self.look_at_exports(reader),
            Payload::ComponentExportSection(reader) => {
                self.inner_exports += u64::from(reader.count());
                self.bound_copies()
            }
            Payload::InstanceSection(reader) => self.count_instances(reader.count()),
            Payload::ComponentInstanceSection(reader) => {
                let made = reader.clone().into_iter().flatten();
                let made = made.filter(|instance| matches!(instance, ComponentInstance::Instantiate { .. })).count();
                self.instantiated += made as u64;
                self.bound_copies()?;
                self.count_instances(u32::try_from(made).unwrap_or(u32::MAX))
            }
            Payload::CodeSectionEntry(body) => self.look_at_function(body),
            Payload::DataSection(reader) => self.look_at_segments("data segments", reader.count()),
            Payload::ElementSection(reader) => self.look_at_segments("element segments", reader.count()),
            Payload::TypeSection(reader) => at_most("types in a module", reader.count().into(), ITEMS_MAX),
            Payload::GlobalSection(reader) => at_most("globals in a module", reader.count().into(), ITEMS_MAX),
            Payload::TableSection(reader) => look_at_tables(reader),
            Payload::MemorySection(reader) => look_at_memories(reader),
            Payload::ImportSection(reader) => at_most("imports of a module", reader.count().into(), ITEMS_MAX),
            Payload::ExportSection(reader) => at_most("exports of a module", reader.count().into(), ITEMS_MAX),
            Payload::ComponentTypeSection(reader) => at_most("types", reader.count().into(), ITEMS_MAX),
            Payload::ComponentAliasSection(reader) => at_most("aliases", reader.count().into(), ITEMS_MAX),
            Payload::ComponentCanonicalSection(reader) => at_most("adapters", reader.count().into(), ITEMS_MAX),
            _ => Ok(()),
        }
    }

    fn look_at_imports(&mut self, reader: &ComponentImportSectionReader<'_>) -> Result<(), Refused> {
        for import in reader.clone() {
            let name = import.map_err(malformed)?.name.name;
            if !offers(name) {
                return Err(Refused::UnknownImport(name.chars().take(128).collect()));
            }
            self.facts.imports.push(name.to_owned());
            at_most("imports", self.facts.imports.len() as u64, IMPORTS_MAX)?;
        }
        Ok(())
    }

    fn look_at_exports(&mut self, reader: &ComponentExportSectionReader<'_>) -> Result<(), Refused> {
        for export in reader.clone() {
            let export = export.map_err(malformed)?;
            let name = export.name.name;
            let path = name.split_once('@').map_or(name, |(path, _)| path);
            if path == ANY_TOOL && !name.starts_with(TOOL) {
                return Err(Refused::OtherContract(name.chars().take(128).collect()));
            }
            self.has_tool |= name.starts_with(TOOL);
            self.has_function |= matches!(export.kind, ComponentExternalKind::Func | ComponentExternalKind::Instance);
        }
        self.exports += u64::from(reader.count());
        at_most("exports", self.exports, EXPORTS_MAX)
    }

    const fn bound_copies(&self) -> Result<(), Refused> {
        at_most("exports of instances", self.inner_exports.saturating_mul(self.instantiated), COPIES_MAX)
    }

    const fn count_instances(&mut self, more: u32) -> Result<(), Refused> {
        self.instances += more as u64;
        at_most("instances", self.instances, INSTANCES_MAX)
    }

    fn look_at_segments(&mut self, what: &'static str, count: u32) -> Result<(), Refused> {
        self.facts.segments = self.facts.segments.max(count.into());
        at_most(what, count.into(), SEGMENTS_MAX)
    }

    fn look_at_function(&mut self, body: &FunctionBody<'_>) -> Result<(), Refused> {
        self.facts.functions += 1;
        at_most("functions", self.facts.functions, FUNCTIONS_MAX)?;
        let range = body.range();
        let size = (range.end - range.start) as u64;
        at_most("bytes in a function", size, BODY_MAX_BYTES)?;
        let mut locals = 0_u64;
        for group in body.get_locals_reader().map_err(malformed)? {
            locals = locals.saturating_add(group.map_err(malformed)?.0.into());
        }
        at_most("locals in a function", locals, LOCALS_MAX)?;
        let shape = Shape::of(body)?;
        let by_loops = locals.saturating_mul(shape.loops);
        at_most("locals times loops in a function", by_loops, LOCALS_BY_LOOPS_MAX)?;
        let facts = &mut self.facts;
        facts.largest_body = facts.largest_body.max(size);
        facts.most_locals = facts.most_locals.max(locals);
        facts.locals_by_loops = facts.locals_by_loops.max(by_loops);
        facts.deepest_loop = facts.deepest_loop.max(shape.deepest_loop);
        facts.deepest_block = facts.deepest_block.max(shape.deepest_block);
        facts.branch_targets = facts.branch_targets.max(shape.branch_targets);
        Ok(())
    }
}

/// How the blocks of one function lie in each other.
#[derive(Default)]
struct Shape {
    loops: u64,
    deepest_loop: u64,
    deepest_block: u64,
    branch_targets: u64,
}

impl Shape {
    fn of(body: &FunctionBody<'_>) -> Result<Self, Refused> {
        let mut shape = Self::default();
        // Whether each open block is a loop.
        let mut open: Vec<bool> = Vec::new();
        let mut loops_open = 0_u64;
        let mut operators = body.get_operators_reader().map_err(malformed)?;
        while !operators.eof() {
            match operators.read().map_err(malformed)? {
                Operator::Loop { .. } => {
                    shape.loops += 1;
                    loops_open += 1;
                    shape.deepest_loop = shape.deepest_loop.max(loops_open);
                    at_most("loops inside of loops", loops_open, LOOP_DEPTH_MAX)?;
                    open.push(true);
                }
                Operator::Block { .. } | Operator::If { .. } => open.push(false),
                Operator::End => loops_open -= u64::from(open.pop() == Some(true)),
                Operator::BrTable { targets } => {
                    shape.branch_targets = shape.branch_targets.saturating_add(targets.len().into());
                    at_most("branch targets in a function", shape.branch_targets, BRANCH_TARGETS_MAX)?;
                }
                _ => {}
            }
            shape.deepest_block = shape.deepest_block.max(open.len() as u64);
            at_most("blocks inside of blocks", open.len() as u64, BLOCK_DEPTH_MAX)?;
        }
        Ok(shape)
    }
}

#[cfg(test)]
mod tests;
