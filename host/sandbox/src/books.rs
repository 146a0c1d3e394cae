//! The books of one execution: what crossings between guest and host come to.
//!
//! Each call of an import is counted and charged with fuel, so that a guest which spins inside of host calls runs out of
//! fuel like one that spins outside. The charge is taken when that very call returns to the guest, and at no other
//! crossing. The engine also crosses where a guest is interrupted at an epoch, which happens by the clock of the machine;
//! a guest that makes room for the answer of an import can be interrupted in the middle of it. There compiled code
//! holds its fuel in a register and does not look again, so what is taken then is given back when it goes on: fuel would
//! depend on the moment of the interruption, and a replay would not be the same.

use wasmtime::{CallHook, Store, StoreContextMut, Trap};

use crate::state::State;

/// Fuel for one call into the host: about the work of entering it, lifting a few values and recording the answer.
pub(crate) const HOST_CALL_FUEL: u64 = 1_000;

/// What crossings came to so far.
#[derive(Debug)]
pub(crate) struct Books {
    /// Fuel when the guest called the host last.
    pub(crate) fuel_left: u64,
    /// Fuel that the guest was given and a replay withholds, because the recorded execution was stopped before it.
    pub(crate) withheld: u64,
    /// Calls of imports.
    pub(crate) host_calls: u64,
    /// Whether guest code returned last, rather than called the host.
    pub(crate) returned: bool,
    /// How many calls into the host are open, one inside of the other.
    depth: u32,
    /// Fuel to take when the call of the import returns.
    due: u64,
    /// The depth of that call.
    due_at: u32,
}

impl Books {
    /// For an execution that has so much fuel.
    pub(crate) const fn new(fuel: u64, withheld: u64) -> Self {
        Self { fuel_left: fuel, withheld, host_calls: 0, returned: false, depth: 0, due: 0, due_at: 0 }
    }

    /// The host was entered by a call of an import: count and charge it.
    pub(crate) const fn enter(&mut self) {
        self.host_calls = self.host_calls.saturating_add(1);
        self.due = self.due.saturating_add(HOST_CALL_FUEL);
        self.due_at = self.depth;
    }

    /// The guest calls the host, or is interrupted.
    const fn called(&mut self, fuel: u64) {
        self.fuel_left = fuel;
        self.returned = false;
        self.depth = self.depth.saturating_add(1);
    }

    /// The host returns to the guest: the fuel to take now.
    const fn returns(&mut self) -> u64 {
        let due = if self.depth == self.due_at { std::mem::replace(&mut self.due, 0) } else { 0 };
        self.depth = self.depth.saturating_sub(1);
        due
    }
}

/// Keep the books at every crossing between guest and host.
pub(crate) fn keep(store: &mut Store<State>) {
    store.call_hook(|mut store: StoreContextMut<'_, State>, crossing| match crossing {
        CallHook::CallingHost => {
            let fuel = store.get_fuel()?;
            store.data_mut().books.called(fuel);
            Ok(())
        }
        CallHook::ReturningFromHost => {
            let due = store.data_mut().books.returns();
            if due == 0 {
                return Ok(());
            }
            let left = store.get_fuel()?.checked_sub(due);
            store.set_fuel(left.unwrap_or(0))?;
            left.map(|_| ()).ok_or_else(|| Trap::OutOfFuel.into())
        }
        CallHook::ReturningFromWasm => {
            store.data_mut().books.returned = true;
            Ok(())
        }
        CallHook::CallingWasm => Ok(()),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r41_an_import_is_charged_when_it_returns_and_not_at_an_interruption_inside_of_it() {
        let mut books = Books::new(5_000, 0);
        books.called(4_000);
        books.enter();
        // The guest makes room for the answer, and is interrupted there.
        books.called(3_000);
        assert_eq!(books.returns(), 0);
        assert_eq!(books.returns(), HOST_CALL_FUEL);
        // An interruption anywhere else costs nothing either.
        books.called(2_000);
        assert_eq!(books.returns(), 0);
        assert_eq!((books.host_calls, books.fuel_left, books.depth), (1, 2_000, 0));
    }

    #[test]
    fn an_import_that_enters_twice_is_charged_twice() {
        let mut books = Books::new(0, 0);
        books.called(0);
        books.enter();
        books.enter();
        assert_eq!((books.returns(), books.host_calls), (2 * HOST_CALL_FUEL, 2));
    }
}
