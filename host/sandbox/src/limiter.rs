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
}
