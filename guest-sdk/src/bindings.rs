//! The contract in `wit/`, as Rust: generated, only in a component.
//!
//! Public for [`export!`](crate::export) alone. The contract is read from beside the SDK, so a tool's
//! own crate needs no WIT files.

#![expect(clippy::error_impl_error, reason = "generated: the contract calls its variant `error`")]

use crate::component::Component;
use crate::error::{Error, ErrorKind};
use exports::toolkeep::tool::tool as contract;

wit_bindgen::generate!({
    inline: "
        package toolkeep:sdk;
        world tool {
            include toolkeep:tool/guest@0.1.0;
            import wasi:http/outgoing-handler@0.2.1;
            import wasi:keyvalue/store@0.2.0-draft2;
            import wasi:keyvalue/atomics@0.2.0-draft2;
        }
    ",
    path: "../wit",
    world: "toolkeep:sdk/tool",
    generate_all,
    pub_export_macro: true,
    export_macro_name: "export_guest",
});

impl<C: Component> contract::Guest for C {
    fn describe() -> String {
        <C as Component>::describe()
    }

    fn invoke(name: String, input: String) -> Result<String, contract::Error> {
        <C as Component>::invoke(&name, &input).map_err(|error| lower(&error))
    }
}

fn lower(error: &Error) -> contract::Error {
    let kind = error.kind();
    let message = error.message().to_owned();
    let detail = error.detail().map(ToString::to_string);
    if kind == ErrorKind::Transient {
        let after_ms = error.retry_after().map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
        return contract::Error::Transient(contract::Retry { message, detail, after_ms });
    }
    let fields = error.fields().iter().map(|field| contract::FieldProblem {
        pointer: field.pointer.clone(),
        problem: field.problem.clone(),
        expected: field.expected.clone(),
    });
    let failure = contract::Failure { message, detail, fields: fields.collect() };
    match kind {
        ErrorKind::InvalidInput => contract::Error::InvalidInput(failure),
        ErrorKind::NotFound => contract::Error::NotFound(failure),
        ErrorKind::Denied => contract::Error::Denied(failure),
        ErrorKind::Conflict => contract::Error::Conflict(failure),
        ErrorKind::Transient | ErrorKind::Failed => contract::Error::Failed(failure),
    }
}
