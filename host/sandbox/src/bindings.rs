//! The contract in `wit/`, as Rust: generated for the host's side of the world `guest`.
//!
//! The generated traits are implemented in `capability`; the generated [`GuestPre`] holds a component that is ready to be
//! instantiated. Nothing else in this crate knows the names of the contract's functions.

#![expect(clippy::error_impl_error, reason = "generated: the contract calls it so")]

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "guest",
    imports: { default: trappable },
    exports: { default: async },
});

pub(crate) use exports::toolkeep::tool::tool as contract;
