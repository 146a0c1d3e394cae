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

/// The host's side of `wasi:keyvalue`.
pub(crate) mod keyvalue {
    wasmtime::component::bindgen!({
        path: "../../wit",
        inline: "
            package toolkeep:keys;
            world keys {
                import wasi:keyvalue/store@0.2.0-draft2;
                import wasi:keyvalue/atomics@0.2.0-draft2;
                import wasi:keyvalue/batch@0.2.0-draft2;
            }
        ",
        world: "toolkeep:keys/keys",
        imports: { default: async | trappable },
        with: {
            "wasi:keyvalue/store.bucket": crate::capability::keys::Bucket,
            "wasi:keyvalue/atomics.cas": crate::capability::keys::Seen,
        },
    });
}

pub(crate) use exports::toolkeep::tool::tool as contract;
