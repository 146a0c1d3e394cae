//! The limiter: what all memories and tables of one execution may hold together.
//!
//! The engine asks before anything grows. A growth that is refused is a failure that the guest may handle (the instruction
//! answers -1); if it traps afterwards, the fault is that limit and not the trap. What the host allocates on
//! behalf of the guest is bounded where it is allocated.

use wasmtime::ResourceLimiter;

use crate::engine::{CORE_INSTANCES_MAX, MEMORIES_MAX, TABLES_MAX};

/// Counts what one execution holds.
#[derive(Debug)]
pub(crate) struct Limiter {
    memory_left: u64,
    memory_used: u64,
    memory_peak: u64,
    elements_left: u64,
    /// What was refused last.
    pub(crate) refused: Option<&'static str>,
}

impl Limiter {
    pub(crate) const fn new(memory_bytes: u64, table_elements: u64) -> Self {
        Self { memory_left: memory_bytes, memory_used: 0, memory_peak: 0, elements_left: table_elements, refused: None }
    }

    /// Most bytes of linear memory at one time. Memories never shrink, so it is also what is held now.
    pub(crate) const fn memory_peak(&self) -> u64 {
        self.memory_peak
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current) as u64;
        if more > self.memory_left {
            self.refused = Some("linear memory");
            return Ok(false);
        }
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        self.memory_left -= more;
        self.memory_used = self.memory_used.saturating_add(more);
        self.memory_peak = self.memory_peak.max(self.memory_used);
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current) as u64;
        if more > self.elements_left {
            self.refused = Some("table elements");
            return Ok(false);
        }
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        self.elements_left -= more;
        Ok(true)
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES_MAX as usize
    }

    fn tables(&self) -> usize {
        TABLES_MAX as usize
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r04_memories_and_tables_hold_at_n_and_are_refused_at_n_plus_1() {
        let mut limiter = Limiter::new(10, 3);
        assert!(limiter.memory_growing(0, 4, None).expect("asked"));
        assert!(limiter.memory_growing(0, 6, None).expect("asked"), "a second memory shares the limit");
        assert_eq!((limiter.memory_peak(), limiter.refused), (10, None));
        assert!(!limiter.memory_growing(6, 7, None).expect("asked"));
        assert_eq!(limiter.refused, Some("linear memory"));
        assert!(limiter.table_growing(0, 3, None).expect("asked"));
        assert!(!limiter.table_growing(3, 4, None).expect("asked"));
        assert_eq!(limiter.refused, Some("table elements"));
    }

    #[test]
    fn a_growth_over_the_guests_own_maximum_costs_nothing() {
        let mut limiter = Limiter::new(10, 10);
        assert!(!limiter.memory_growing(0, 8, Some(4)).expect("asked"));
        assert!(!limiter.table_growing(0, 8, Some(4)).expect("asked"));
        assert_eq!((limiter.refused, limiter.memory_peak()), (None, 0));
        assert!(limiter.memory_growing(0, 10, None).expect("asked"));
    }

    /// `grow(n)` grows a table by `n` elements, which no source language of tools can say.
    fn table_grower() -> Vec<u8> {
        use wasm_encoder::{
            CodeSection, ExportKind, ExportSection, Function, FunctionSection, HeapType, Module, RefType, TableSection,
            TableType, TypeSection, ValType,
        };
        let mut types = TypeSection::new();
        types.ty().function([ValType::I32], [ValType::I32]);
        let mut functions = FunctionSection::new();
        functions.function(0);
        let mut tables = TableSection::new();
        let table =
            TableType { element_type: RefType::FUNCREF, table64: false, minimum: 2, maximum: None, shared: false };
        tables.table(table);
        let mut exports = ExportSection::new();
        exports.export("grow", ExportKind::Func, 0);
        let mut grow = Function::new([]);
        grow.instructions().ref_null(HeapType::FUNC).local_get(0).table_grow(0).end();
        let mut code = CodeSection::new();
        code.function(&grow);
        let mut module = Module::new();
        module.section(&types).section(&functions).section(&tables).section(&exports).section(&code);
        module.finish()
    }

    #[test]
    fn t_r2_a_guest_that_grows_a_table_at_run_time_is_refused_at_n_plus_1() {
        let engine = crate::engine::plain().expect("engine");
        let module = wasmtime::Module::new(&engine, table_grower()).expect("module");
        let mut store = wasmtime::Store::new(&engine, Limiter::new(0, 5));
        store.limiter(|limiter| limiter);
        store.set_fuel(1_000_000).expect("fuel");
        store.set_epoch_deadline(1);
        let instance = wasmtime::Instance::new(&mut store, &module, &[]).expect("instance");
        let grow = instance.get_typed_func::<i32, i32>(&mut store, "grow").expect("function");
        assert_eq!(grow.call(&mut store, 3).expect("called"), 2);
        assert_eq!(grow.call(&mut store, 1).expect("called"), -1);
        assert_eq!(store.data().refused, Some("table elements"));
    }
}
