//! The engine: which WebAssembly is accepted, how it is metered, and how much memory a pool of instances may take.
//!
//! Every setting that matters is stated, also where it equals the default of this release. Two engines are made from one
//! configuration: pooled ones that run tools, and a plain one that only compiles; what the second compiles the
//! first accepts, because allocation is not part of the compile key. `fingerprint` names the configuration: compiled
//! artifacts are stored under it, and fuel of two recordings compares only under the same one.

use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use toolkeep_core::digest::Hasher as Sha256;
use toolkeep_core::limit::ExecutionLimits;
use wasmparser::WasmFeatures;
use wasmtime::{
    Config, Enabled, Engine, EngineWeak, InstanceAllocationStrategy, OperatorCost, OptLevel, PoolingAllocationConfig,
    RegallocAlgorithm, Strategy,
};

use crate::fault::HostFault;

/// Executions of one tenant at one time: each holds one slot of its pool.
pub const POOL_SLOTS: u32 = 64;
/// Time between two epochs: a spinning guest yields to its neighbours, and is cancelled, this often. Two of them are what
/// a call may have to wait for guests that only begin to spin.
pub const EPOCH: Duration = Duration::from_millis(2);
/// Epochs without anything that runs, after which the ticker rests: it must not be woken for each of many short calls.
const EPOCHS_WITHOUT_WORK: u32 = 50;
/// Linear memories of one component: tools have one; an adapter may bring a second.
pub const MEMORIES_MAX: u32 = 2;
/// Tables of one component: a Rust tool has two, a component linked from libraries a few more.
pub const TABLES_MAX: u32 = 8;
/// Tables of one core module.
const TABLES_PER_MODULE_MAX: u32 = 4;
/// Elements of one table; all tables together are limited per call.
pub const TABLE_ELEMENTS_MAX: usize = 262_144;
/// Core instances of one component: an interpreter with its libraries has about a hundred.
pub const CORE_INSTANCES_MAX: u32 = 200;
/// Bytes of metadata of one component instance with its core instances.
const INSTANCE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Stack of guest code, in bytes: deep enough for recursive parsers, small enough to end a runaway recursion.
const WASM_STACK_BYTES: usize = 512 * 1024;
/// Stack of one execution, in bytes: the guest's part and three times as much for the host functions that it calls.
const ASYNC_STACK_BYTES: usize = 2 * 1024 * 1024;
/// Bytes of a linear memory that stay resident between two executions: most tools touch less, so nothing is unmapped.
const MEMORY_KEEP_RESIDENT_BYTES: usize = 256 * 1024;
/// Bytes of a table that stay resident between two executions.
const TABLE_KEEP_RESIDENT_BYTES: usize = 16 * 1024;
/// Unused slots that keep an image of the component that they ran last.
const WARM_SLOTS_MAX: u32 = 32;
/// Fuel for one page of `memory.grow`: about the work of mapping and zeroing it.
const GROW_PAGE_FUEL: u8 = 255;

/// Everything that decides what compiled code looks like and means.
fn common() -> Config {
    let mut cost = OperatorCost::new();
    // Bulk operations are charged by the byte and the element already; growing would be free.
    cost.variable.memory_grow_per_page = GROW_PAGE_FUEL;
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .cranelift_opt_level(OptLevel::Speed)
        .cranelift_regalloc_algorithm(RegallocAlgorithm::Backtracking)
        .cranelift_nan_canonicalization(true)
        .consume_fuel(true)
        .operator_cost(cost)
        .epoch_interruption(true)
        .max_wasm_stack(WASM_STACK_BYTES)
        .async_stack_size(ASYNC_STACK_BYTES)
        .async_stack_zeroing(false)
        .memory_init_cow(true)
        .guard_before_linear_memory(true)
        // Tables for debuggers and for offsets in backtraces, an eighth of an artifact; names of functions stay.
        .native_unwind_info(false)
        .generate_address_map(false)
        .concurrency_support(false)
        .shared_memory(false);
    config
        .wasm_component_model(true)
        .wasm_bulk_memory(true)
        .wasm_multi_value(true)
        .wasm_simd(true)
        .wasm_extended_const(true)
        .relaxed_simd_deterministic(true)
        .wasm_features(refused_proposals(), false);
    config
}

/// Proposals that no toolchain for tools needs: each is code of the engine that a hostile component would reach.
pub(crate) fn refused_proposals() -> WasmFeatures {
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
    let memory = usize::try_from(ExecutionLimits::CEILING.memory_bytes).unwrap_or(usize::MAX);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(POOL_SLOTS)
        .total_stacks(POOL_SLOTS)
        .total_memories(POOL_SLOTS * MEMORIES_MAX)
        .total_tables(POOL_SLOTS * TABLES_MAX)
        .total_core_instances(POOL_SLOTS * CORE_INSTANCES_MAX)
        .max_core_instances_per_component(CORE_INSTANCES_MAX)
        .max_memories_per_component(MEMORIES_MAX)
        .max_tables_per_component(TABLES_MAX)
        .max_memories_per_module(1)
        .max_tables_per_module(TABLES_PER_MODULE_MAX)
        .max_memory_size(memory)
        .table_elements(TABLE_ELEMENTS_MAX)
        .max_component_instance_size(INSTANCE_BYTES_MAX)
        .max_core_instance_size(INSTANCE_BYTES_MAX)
        .max_unused_warm_slots(WARM_SLOTS_MAX)
        .linear_memory_keep_resident(MEMORY_KEEP_RESIDENT_BYTES)
        .table_keep_resident(TABLE_KEEP_RESIDENT_BYTES)
        .pagemap_scan(Enabled::Auto);
    pool
}

/// An engine with a pool of its own.
pub(crate) fn pooled() -> Result<Engine, HostFault> {
    let mut config = common();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool()));
    Engine::new(&config).map_err(HostFault::engine)
}

/// An engine that compiles, and runs at most one execution at a time: without a pool, so that it lives
/// inside a small address space.
pub(crate) fn plain() -> Result<Engine, HostFault> {
    let mut config = common();
    config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
    Engine::new(&config).map_err(HostFault::engine)
}

/// What names the configuration of an engine, for example `wasmtime-48-` and 16 hexadecimal digits.
pub(crate) fn fingerprint(engine: &Engine) -> String {
    let mut hasher = Fingerprint(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut hasher);
    let digest: String = hasher.0.finish().to_hex().chars().take(16).collect();
    format!("wasmtime-48-{digest}")
}

/// Lets SHA-256 take what would go into a hash table's hasher, so that the result is stable between processes.
struct Fingerprint(Sha256);

impl Hasher for Fingerprint {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        0
    }
}

/// One thread that advances the epoch of every engine while anything runs, and sleeps while nothing does.
#[derive(Debug)]
pub(crate) struct Ticker(Arc<Clockwork>);

#[derive(Debug, Default)]
struct Clockwork {
    face: Mutex<Face>,
    /// Wakes the thread: there is something to tick for, or it is to end.
    wound: Condvar,
    running: AtomicUsize,
    /// Whether the thread sleeps, or is about to look once more before it does.
    resting: AtomicBool,
}

#[derive(Debug, Default)]
struct Face {
    engines: Vec<Tick>,
    stopped: bool,
}

struct Tick(EngineWeak);

impl std::fmt::Debug for Tick {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Engine")
    }
}

/// Epochs advance at least until this is dropped.
#[derive(Debug)]
pub(crate) struct Ticking(Arc<Clockwork>);

impl Clockwork {
    fn face(&self) -> MutexGuard<'_, Face> {
        self.face.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut quiet = 0_u32;
        let mut face = self.face();
        while !face.stopped {
            quiet = if self.running.load(Ordering::SeqCst) > 0 { 0 } else { quiet + 1 };
            face = if quiet > EPOCHS_WITHOUT_WORK {
                self.rest(face)
            } else {
                self.wound.wait_timeout(face, EPOCH).unwrap_or_else(PoisonError::into_inner).0
            };
            face.engines.retain(|tick| tick.0.upgrade().map(|engine| engine.increment_epoch()).is_some());
        }
    }

    /// Sleep until something runs. Whoever begins counts itself before it looks whether to wake the thread, and the thread
    /// says that it rests before it looks at the count: one of them sees the other.
    fn rest<'f>(&'f self, face: MutexGuard<'f, Face>) -> MutexGuard<'f, Face> {
        self.resting.store(true, Ordering::SeqCst);
        let idle = |face: &mut Face| !face.stopped && self.running.load(Ordering::SeqCst) == 0;
        let face = self.wound.wait_while(face, idle).unwrap_or_else(PoisonError::into_inner);
        self.resting.store(false, Ordering::SeqCst);
        face
    }
}

impl Ticker {
    pub(crate) fn start() -> Result<Self, HostFault> {
        let clockwork = Arc::new(Clockwork::default());
        let ticked = Arc::clone(&clockwork);
        let spawned = std::thread::Builder::new().name("epoch".to_owned()).spawn(move || ticked.run());
        spawned.map(|_| Self(clockwork)).map_err(|error| HostFault::Internal(error.to_string()))
    }

    pub(crate) fn add(&self, engine: &Engine) {
        self.0.face().engines.push(Tick(engine.weak()));
    }

    /// Something runs from now on, until the result is dropped.
    pub(crate) fn tick(&self) -> Ticking {
        self.0.running.fetch_add(1, Ordering::SeqCst);
        if self.0.resting.load(Ordering::SeqCst) {
            let _the_thread_waits_or_has_seen_it = self.0.face();
            self.0.wound.notify_one();
        }
        Ticking(Arc::clone(&self.0))
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.0.face().stopped = true;
        self.0.wound.notify_one();
    }
}

impl Drop for Ticking {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t_r10_what_the_plain_engine_compiles_the_pooled_one_accepts() {
        let (plain, pooled) = (plain().expect("plain"), pooled().expect("pooled"));
        assert_eq!(fingerprint(&plain), fingerprint(&pooled));
        let other = Engine::new(&Config::new()).expect("default");
        assert_ne!(fingerprint(&plain), fingerprint(&other));
    }

    #[test]
    fn the_ticker_advances_epochs_and_forgets_engines() {
        let ticker = Ticker::start().expect("ticker");
        let engine = plain().expect("engine");
        ticker.add(&engine);
        drop(engine);
        let _ticking = ticker.tick();
        while !ticker.0.face().engines.is_empty() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn the_ticker_rests_without_work_and_is_woken_by_it() {
        let ticker = Ticker::start().expect("ticker");
        for _ in 0..3 {
            while !ticker.0.resting.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            let _ticking = ticker.tick();
            while ticker.0.resting.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
        }
    }

    /// One module for each proposal that is switched off, and one that uses none of them.
    fn modules() -> Vec<(&'static str, Vec<u8>)> {
        use wasm_encoder::{
            CodeSection, FieldType, Function, FunctionSection, HeapType, InstructionSink, MemorySection, MemoryType,
            Module, RefType, StorageType, TableSection, TableType, TagKind, TagSection, TagType, TypeSection, ValType,
        };
        fn code(write: impl FnOnce(&mut InstructionSink<'_>)) -> Vec<u8> {
            let (mut types, mut functions, mut code) = (TypeSection::new(), FunctionSection::new(), CodeSection::new());
            types.ty().function([], []);
            functions.function(0);
            let mut function = Function::new([]);
            write(&mut function.instructions());
            function.instructions().end();
            code.function(&function);
            let mut module = Module::new();
            module.section(&types).section(&functions).section(&code);
            module.finish()
        }
        fn memories(count: usize, memory: MemoryType) -> Vec<u8> {
            let mut memories = MemorySection::new();
            for _ in 0..count {
                memories.memory(memory);
            }
            let mut module = Module::new();
            module.section(&memories);
            module.finish()
        }
        let memory = MemoryType { minimum: 1, maximum: Some(1), memory64: false, shared: false, page_size_log2: None };
        let mut structs = TypeSection::new();
        structs.ty().struct_([FieldType { element_type: StorageType::Val(ValType::I32), mutable: false }]);
        let mut gc = Module::new();
        gc.section(&structs);
        let (mut types, mut tags) = (TypeSection::new(), TagSection::new());
        types.ty().function([], []);
        tags.tag(TagType { kind: TagKind::Exception, func_type_idx: 0 });
        let mut exceptions = Module::new();
        exceptions.section(&types).section(&tags);
        let mut tables = TableSection::new();
        tables.table(TableType {
            element_type: RefType { nullable: true, heap_type: HeapType::Concrete(0) },
            table64: false,
            minimum: 0,
            maximum: None,
            shared: false,
        });
        let mut references = Module::new();
        references.section(&types).section(&tables);
        vec![
            ("nothing", code(|_| ())),
            ("one memory", memories(1, memory)),
            ("multi-memory", memories(2, memory)),
            ("memory64", memories(1, MemoryType { memory64: true, ..memory })),
            ("threads", memories(1, MemoryType { shared: true, ..memory })),
            ("custom-page-sizes", memories(1, MemoryType { page_size_log2: Some(0), ..memory })),
            ("gc", gc.finish()),
            ("exceptions", exceptions.finish()),
            ("function-references", references.finish()),
            ("tail-call", code(|i| _ = i.return_call(0))),
            ("relaxed-simd", code(|i| _ = i.v128_const(0).v128_const(0).i8x16_relaxed_swizzle().drop())),
            ("wide-arithmetic", code(|i| _ = i.i64_const(0).i64_const(0).i64_mul_wide_u().drop().drop())),
        ]
    }

    #[test]
    fn t_r12_what_no_toolchain_for_tools_needs_is_switched_off() {
        let engine = plain().expect("engine");
        for (name, module) in modules() {
            let accepted = engine.precompile_module(&module).is_ok();
            assert_eq!(accepted, matches!(name, "nothing" | "one memory"), "{name}");
        }
    }
}
