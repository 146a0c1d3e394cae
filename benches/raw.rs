//! The floor of a call: wasmtime and nothing else, with the settings of the daemon's engine.
//!
//! Instantiate from a pool, one typed call with fuel and epochs, drop. WASI is wasmtime's own; the imports of
//! Toolkeep's contract answer nothing, and no bench guest asks. The engine's settings are written out here, because
//! the sandbox does not give its engines away; [`check_settings`] says when they part.

use std::path::Path;
use std::time::Duration;

use wasmtime::component::{Component, ComponentExportIndex, HasSelf, InstancePre, Linker, ResourceTable, Val};
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, OperatorCost, PoolingAllocationConfig, Store, StoreLimits,
    StoreLimitsBuilder, UpdateDeadline, WasmFeatures,
};
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

wasmtime::component::bindgen!({
    path: "../wit",
    world: "guest",
    imports: { default: trappable },
    exports: { default: async },
});

use self::toolkeep::tool::{context, log, progress};

/// Fuel of one call, more than any bench guest needs.
const FUEL: u64 = 1_000_000_000_000;
/// Linear memory of one call, in bytes.
const MEMORY_BYTES: usize = 64 * 1024 * 1024;
/// Time between two epochs.
const EPOCH: Duration = Duration::from_millis(10);

struct State {
    wasi: WasiCtx,
    table: ResourceTable,
    limits: StoreLimits,
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl context::Host for State {
    fn caller(&mut self) -> wasmtime::Result<context::Principal> {
        let [tenant, user, agent] = [const { String::new() }; 3];
        Ok(context::Principal { tenant, user, agent })
    }

    fn session_id(&mut self) -> wasmtime::Result<String> {
        Ok(String::new())
    }

    fn authenticated_by(&mut self) -> wasmtime::Result<String> {
        Ok("record".to_owned())
    }

    fn run_id(&mut self) -> wasmtime::Result<String> {
        Ok(String::new())
    }

    fn call_id(&mut self) -> wasmtime::Result<String> {
        Ok(String::new())
    }

    fn call_mode(&mut self) -> wasmtime::Result<context::Mode> {
        Ok(context::Mode::Commit)
    }

    fn deadline_left_ms(&mut self) -> wasmtime::Result<u64> {
        Ok(0)
    }

    fn fuel_left(&mut self) -> wasmtime::Result<u64> {
        Ok(0)
    }
}

impl log::Host for State {
    fn write(&mut self, _: log::Level, _: String) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl progress::Host for State {
    fn report(&mut self, _: u64, _: Option<u64>, _: String) -> wasmtime::Result<()> {
        Ok(())
    }
}

/// A component, ready to be called.
pub struct Raw {
    engine: Engine,
    ready: GuestPre<State>,
}

impl std::fmt::Debug for Raw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Raw")
    }
}

fn own(state: &mut State) -> &mut State {
    state
}

fn config() -> Config {
    let mut cost = OperatorCost::new();
    cost.variable.memory_grow_per_page = 255;
    let mut config = Config::new();
    config
        .cranelift_nan_canonicalization(true)
        .consume_fuel(true)
        .operator_cost(cost)
        .epoch_interruption(true)
        .max_wasm_stack(512 * 1024)
        .async_stack_size(2 * 1024 * 1024)
        .async_stack_zeroing(false)
        .memory_init_cow(true)
        .guard_before_linear_memory(true)
        .native_unwind_info(false)
        .generate_address_map(false)
        .concurrency_support(false)
        .shared_memory(false)
        .relaxed_simd_deterministic(true)
        .wasm_features(refused(), false);
    config
}

fn refused() -> WasmFeatures {
    WasmFeatures::TAIL_CALL
        | WasmFeatures::RELAXED_SIMD
        | WasmFeatures::THREADS
        | WasmFeatures::SHARED_EVERYTHING_THREADS
        | WasmFeatures::MULTI_MEMORY
        | WasmFeatures::MEMORY64
        | WasmFeatures::CUSTOM_PAGE_SIZES
        | WasmFeatures::EXCEPTIONS
        | WasmFeatures::LEGACY_EXCEPTIONS
        | WasmFeatures::FUNCTION_REFERENCES
        | WasmFeatures::GC
        | WasmFeatures::GC_TYPES
        | WasmFeatures::STACK_SWITCHING
        | WasmFeatures::WIDE_ARITHMETIC
        | WasmFeatures::CM_ASYNC
        | WasmFeatures::CM_ASYNC_STACKFUL
        | WasmFeatures::CM_MORE_ASYNC_BUILTINS
        | WasmFeatures::CM_THREADING
        | WasmFeatures::CM_ERROR_CONTEXT
        | WasmFeatures::CM_GC
        | WasmFeatures::CM_MAP
        | WasmFeatures::CM64
        | WasmFeatures::CM_FIXED_LENGTH_LISTS
        | WasmFeatures::CM_IMPLEMENTS
}

fn pool() -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(64)
        .total_stacks(64)
        .total_memories(128)
        .total_tables(512)
        .total_core_instances(64 * 200)
        .max_core_instances_per_component(200)
        .max_memories_per_component(2)
        .max_tables_per_component(8)
        .max_memories_per_module(1)
        .max_tables_per_module(4)
        .max_memory_size(1024 * 1024 * 1024)
        .table_elements(262_144)
        .max_component_instance_size(4 * 1024 * 1024)
        .max_core_instance_size(4 * 1024 * 1024)
        .max_unused_warm_slots(32)
        .linear_memory_keep_resident(256 * 1024)
        .table_keep_resident(16 * 1024)
        .pagemap_scan(Enabled::Auto);
    pool
}

impl Raw {
    /// Compile a component.
    #[must_use]
    pub fn new(wasm: &[u8]) -> Self {
        let (engine, ready) = prepared(wasm);
        let ready = GuestPre::new(ready).expect("a tool");
        Self { engine, ready }
    }

    /// One call in an instance of its own.
    pub async fn call(&self, tool: &str, input: &str) -> String {
        self.run(tool, input, WasiCtx::builder()).await
    }

    /// The same with a folder, read only. `inline` lets WASI read in the calling thread.
    pub async fn call_with(&self, tool: &str, input: &str, (host, guest): (&Path, &str), inline: bool) -> String {
        let mut wasi = WasiCtx::builder();
        wasi.allow_blocking_current_thread(inline);
        wasi.preopened_dir(host, guest, FsPerms::ReadOnly).expect("a folder");
        self.run(tool, input, wasi).await
    }

    async fn run(&self, tool: &str, input: &str, mut wasi: WasiCtxBuilder) -> String {
        let mut store = store(&self.engine, wasi.build());
        let guest = self.ready.instantiate_async(&mut store).await.expect("an instance");
        let called = guest.toolkeep_tool_tool().call_invoke(&mut store, tool, input).await.expect("returned");
        called.unwrap_or_else(|error| panic!("{error:?}"))
    }
}

/// A component that is compiled and linked, in an engine whose epochs go on as long as it lives.
fn prepared(wasm: &[u8]) -> (Engine, InstancePre<State>) {
    let mut config = config();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool()));
    let engine = Engine::new(&config).expect("an engine");
    let component = Component::new(&engine, wasm).expect("a component");
    let mut linker = Linker::<State>::new(&engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker).expect("WASI");
    context::add_to_linker::<_, HasSelf<State>>(&mut linker, own).expect("context");
    log::add_to_linker::<_, HasSelf<State>>(&mut linker, own).expect("log");
    progress::add_to_linker::<_, HasSelf<State>>(&mut linker, own).expect("progress");
    let ready = linker.instantiate_pre(&component).expect("everything that it imports");
    let weak = engine.weak();
    std::thread::spawn(move || {
        while let Some(engine) = weak.upgrade() {
            engine.increment_epoch();
            drop(engine);
            std::thread::sleep(EPOCH);
        }
    });
    (engine, ready)
}

fn store(engine: &Engine, wasi: WasiCtx) -> Store<State> {
    let limits = StoreLimitsBuilder::new().memory_size(MEMORY_BYTES).build();
    let mut store = Store::new(engine, State { wasi, table: ResourceTable::new(), limits });
    store.limiter(|state| &mut state.limits);
    store.set_fuel(FUEL).expect("fuel");
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|_| Ok(UpdateDeadline::Yield(1)));
    store
}

/// A function that a component exports, ready to be called with values of the component model.
pub struct RawFunction {
    engine: Engine,
    ready: InstancePre<State>,
    index: ComponentExportIndex,
}

impl std::fmt::Debug for RawFunction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RawFunction")
    }
}

impl RawFunction {
    /// Compile a component and find the function in its interface.
    #[must_use]
    pub fn new(wasm: &[u8], interface: &str, function: &str) -> Self {
        let (engine, ready) = prepared(wasm);
        let within = ready.component().get_export_index(None, interface).expect("the interface");
        let index = ready.component().get_export_index(Some(&within), function).expect("the function");
        Self { engine, ready, index }
    }

    /// One call in an instance of its own.
    pub async fn call(&self, arguments: &[Val]) -> Val {
        let mut store = store(&self.engine, WasiCtx::builder().build());
        let instance = self.ready.instantiate_async(&mut store).await.expect("an instance");
        let function = instance.get_func(&mut store, self.index).expect("the function");
        let mut results = [Val::Bool(false)];
        function.call_async(&mut store, arguments, &mut results).await.expect("returned");
        let [result] = results;
        result
    }
}

/// Panics if the daemon's engine compiles for other settings than ours: then the floor has to be brought up to date.
pub fn check_settings(wasm: &[u8]) {
    use toolkeep_sandbox::sandbox::{Sandbox, SandboxConfig};
    let theirs = Sandbox::new(SandboxConfig::default()).expect("a sandbox").fingerprint().to_owned();
    let compiled = toolkeep_sandbox::compile::compile(wasm).expect("compiled");
    let engine = Engine::new(&config()).expect("an engine");
    let loaded = fits(&engine, &compiled);
    assert!(loaded, "benches/raw.rs does not have the settings of the engine {theirs}");
}

fn fits(engine: &Engine, native: &[u8]) -> bool {
    // SAFETY: the bytes were made by this process a moment ago, by the same version of the engine.
    unsafe { Component::deserialize(engine, native) }.is_ok()
}
