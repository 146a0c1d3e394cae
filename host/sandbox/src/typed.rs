//! Components that export plain functions: each function is called with values that are made of JSON, and gives JSON.
//!
//! Which functions there are is read twice, by one set of rules: from the file, before anything is compiled ([`functions`]),
//! and from the compiled component when it is loaded. The second decides how values are made, so that nothing of a
//! schema or a manifest has to be believed. A call looks its function up and converts; it examines no type again.
//! There is no third way into a component: the other is the SDK's contract, and which one it is, is settled at load.

use std::collections::BTreeMap;

use toolkeep_core::wit::{Builder, FUNCTIONS_MAX, Function, Label, Node, Type};
use wasmtime::component::types::{ComponentFunc, ComponentItem, Type as Seen};
use wasmtime::component::{Component, ComponentExportIndex, InstancePre, Val};
use wasmtime::{Engine, Store};

use crate::bindings::{GuestPre, contract};
use crate::execution::CROSSING_MAX_BYTES;
use crate::fault::{self, Fault, HostFault, Stop};
use crate::prescreen;
use crate::state::State;

mod failure;
mod file;
mod input;
mod output;
mod spare;

pub use file::{Exported, functions};
use input::Made;
use spare::Spares;

/// How a component is called.
pub(crate) enum Door {
    /// Through the contract of the SDK.
    Tool(GuestPre<State>),
    /// Through its own functions.
    Functions(Typed),
}

impl Door {
    /// The door of a component: the contract's, if it exports that.
    pub(crate) fn of(ready: InstancePre<State>) -> Result<Self, HostFault> {
        let unfit = |error: wasmtime::Error| HostFault::Unfit(format!("{error:#}"));
        let exports = |name: &str| name.starts_with(prescreen::TOOL);
        let (component, engine) = (ready.component().component_type(), ready.engine());
        if component.exports(engine).any(|(name, _)| exports(name)) {
            return GuestPre::new(ready).map(Self::Tool).map_err(unfit);
        }
        Typed::new(ready).map(Self::Functions)
    }
}

/// How many times more memory than its name a flag takes here: a text of its own in a list.
const FLAG_WEIGHT: usize = 32;

/// What a result has too much of when reading it ends: not its JSON, which no limit makes smaller.
const VALUES_TEXT: &str = "values in one result";

/// A component whose functions are ready to be called.
pub(crate) struct Typed {
    ready: InstancePre<State>,
    functions: BTreeMap<Label, Callable>,
    spares: Spares,
}

struct Callable {
    index: ComponentExportIndex,
    function: Function,
}

impl Typed {
    fn new(ready: InstancePre<State>) -> Result<Self, HostFault> {
        let functions = callable(ready.component(), ready.engine());
        if functions.is_empty() {
            return Err(HostFault::Unfit("it exports no function that could be a tool".to_owned()));
        }
        Ok(Self { ready, functions, spares: Spares::default() })
    }

    /// Call a function. What it says itself about its failure comes as the contract's errors, and so does an input that it
    /// cannot take.
    pub(crate) async fn call(
        &self,
        store: &mut Store<State>,
        label: &Label,
        input: &str,
        output_bytes: u64,
    ) -> wasmtime::Result<Result<String, contract::Error>> {
        let Some(Callable { index, function }) = self.functions.get(label) else {
            return Err(stop(Fault::Trap(format!("the component exports no function `{label}` that could be a tool"))));
        };
        let Made { arguments, values } = match input::arguments(&function.params, input, self.spares.take(label)) {
            Ok(made) => made,
            Err(problem) => return Ok(Err(failure::of_input(function, problem))),
        };
        if function.result.as_ref().is_some_and(Type::holds_flags) {
            // What crosses is counted by the names of flags; each is a text of its own here.
            store.set_hostcall_fuel(CROSSING_MAX_BYTES / FLAG_WEIGHT);
        }
        let instance = self.ready.instantiate_async(&mut *store).await?;
        let called = instance.get_func(&mut *store, index);
        let called = called.ok_or_else(|| stop(Fault::Trap(format!("`{label}` is no function"))))?;
        let mut results = [Val::Bool(false)];
        let given = results.get_mut(..usize::from(function.result.is_some())).unwrap_or_default();
        called.call_async(&mut *store, &arguments, given).await.map_err(|error| {
            let too_many = store.data().books.returned && fault::is_crossing(&error);
            if too_many { stop(Fault::Memory { what: VALUES_TEXT }) } else { error }
        })?;
        self.spares.keep(label, arguments, values);
        let [result] = results;
        returned(function, &result, output_bytes)
    }
}

/// The functions of a compiled component that can be called.
fn callable(component: &Component, engine: &Engine) -> BTreeMap<Label, Callable> {
    let mut found = Found { builder: Builder::new(node), functions: BTreeMap::new() };
    for (name, export) in component.component_type().exports(engine) {
        let at = || component.get_export_index(None, name);
        match export.ty {
            ComponentItem::ComponentFunc(function) => found.add(None, name, &function, at()),
            ComponentItem::ComponentInstance(instance) => {
                let within = at();
                for (function, export) in instance.exports(engine) {
                    if let ComponentItem::ComponentFunc(ty) = export.ty {
                        let index = component.get_export_index(within.as_ref(), function);
                        found.add(Some(name), function, &ty, index);
                    }
                }
            }
            _ => {}
        }
    }
    found.functions
}

/// What a function returned, as JSON.
fn returned(function: &Function, result: &Val, output_bytes: u64) -> wasmtime::Result<Result<String, contract::Error>> {
    let json = |ty: Option<&Type>, value: Option<&Val>| output::json(ty, value, output_bytes).map_err(stop);
    match (function.can_fail(), result) {
        (true, Val::Result(Ok(value))) => json(function.output(), value.as_deref()).map(Ok),
        (true, Val::Result(Err(value))) => {
            let detail = json(function.error(), value.as_deref())?;
            Ok(Err(failure::of_result(function, value.as_deref(), detail)))
        }
        _ => json(function.output(), Some(result)).map(Ok),
    }
}

fn stop(fault: Fault) -> wasmtime::Error {
    Stop::from(fault).into()
}

struct Found<L> {
    builder: Builder<L>,
    functions: BTreeMap<Label, Callable>,
}

impl<L: Fn(&Seen) -> Node<Seen>> Found<L> {
    /// A function that can be a tool. What cannot was named where the component was installed, and is not called.
    fn add(
        &mut self,
        interface: Option<&str>,
        name: &str,
        function: &ComponentFunc,
        index: Option<ComponentExportIndex>,
    ) {
        let (Some(label), Some(index)) = (Label::new(interface, name), index) else { return };
        if function.async_() || self.functions.len() >= FUNCTIONS_MAX {
            return;
        }
        let params = function.params().map(|(name, ty)| (name.to_owned(), ty)).collect();
        if let Ok(function) = self.builder.function(label.clone(), params, function.results().next()) {
            self.functions.insert(label, Callable { index, function });
        }
    }
}

/// One type as the engine knows it.
fn node(ty: &Seen) -> Node<Seen> {
    let names = |names: &mut dyn Iterator<Item = &str>| names.map(str::to_owned).collect();
    match ty {
        Seen::Bool => Node::Plain(Type::Bool),
        Seen::S8 => Node::Plain(Type::S8),
        Seen::U8 => Node::Plain(Type::U8),
        Seen::S16 => Node::Plain(Type::S16),
        Seen::U16 => Node::Plain(Type::U16),
        Seen::S32 => Node::Plain(Type::S32),
        Seen::U32 => Node::Plain(Type::U32),
        Seen::S64 => Node::Plain(Type::S64),
        Seen::U64 => Node::Plain(Type::U64),
        Seen::Float32 => Node::Plain(Type::F32),
        Seen::Float64 => Node::Plain(Type::F64),
        Seen::Char => Node::Plain(Type::Char),
        Seen::String => Node::Plain(Type::String),
        Seen::List(list) => Node::List(list.ty()),
        Seen::Record(record) => Node::Record(record.fields().map(|field| (field.name.to_owned(), field.ty)).collect()),
        Seen::Tuple(tuple) => Node::Tuple(tuple.types().collect()),
        Seen::Variant(variant) => Node::Variant(variant.cases().map(|case| (case.name.to_owned(), case.ty)).collect()),
        Seen::Enum(cases) => Node::Enum(names(&mut cases.names())),
        Seen::Option(option) => Node::Option(option.ty()),
        Seen::Result(result) => Node::Result(result.ok(), result.err()),
        Seen::Flags(flags) => Node::Flags(names(&mut flags.names())),
        Seen::Own(_) | Seen::Borrow(_) => Node::Refused(file::RESOURCE),
        Seen::Future(_) => Node::Refused(file::FUTURE),
        Seen::Stream(_) => Node::Refused(file::STREAM),
        Seen::ErrorContext => Node::Refused(file::ERROR_CONTEXT),
        Seen::Map(_) => Node::Refused(file::MAP),
        Seen::FixedLengthList(_) => Node::Refused(file::FIXED),
    }
}

#[cfg(test)]
mod tests;
