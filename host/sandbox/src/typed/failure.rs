//! The errors of functions in the words of the contract, so that nothing after the call knows two kinds of tools.
//!
//! A function says that it failed with the `err` of its `result`. Which kind of failure that is, a case of the same name as
//! a kind of the contract says; everything else has failed. The value itself travels as the detail.

use toolkeep_core::refusal::FieldProblem;
use toolkeep_core::wit::Function;
use wasmtime::component::Val;

use crate::bindings::contract::{Error, Failure, FieldProblem as Field, Retry};

/// The field of an error record that is for people.
const MESSAGE: &str = "message";

/// An input that a function cannot take.
pub(super) fn of_input(function: &Function, problem: FieldProblem) -> Error {
    let FieldProblem { pointer, problem, expected } = problem;
    Error::InvalidInput(Failure {
        message: format!("the input does not fit `{}`", function.label.function()),
        detail: None,
        fields: vec![Field { pointer, problem, expected }],
    })
}

/// An error that a function returned; `detail` is its JSON.
pub(super) fn of_result(function: &Function, value: Option<&Val>, detail: String) -> Error {
    let case = value.and_then(case_of);
    let said = value.and_then(|value| said_in(value, true));
    let name = function.label.function();
    let message = match (case, said) {
        (Some(case), Some(said)) => format!("{case}: {said}"),
        (None, Some(said)) => said.to_owned(),
        (Some(case), None) => format!("`{name}` returned the error `{case}`"),
        (None, None) => format!("`{name}` returned an error"),
    };
    let detail = value.map(|_| detail);
    let failure = |message| Failure { message, detail: detail.clone(), fields: Vec::new() };
    match case {
        Some("invalid-input") => Error::InvalidInput(failure(message)),
        Some("not-found") => Error::NotFound(failure(message)),
        Some("denied") => Error::Denied(failure(message)),
        Some("conflict") => Error::Conflict(failure(message)),
        Some("transient") => Error::Transient(Retry { message, detail, after_ms: None }),
        _ => Error::Failed(failure(message)),
    }
}

fn case_of(value: &Val) -> Option<&str> {
    match value {
        Val::Enum(case) | Val::Variant(case, _) => Some(case),
        _ => None,
    }
}

/// The words for people in an error: itself, its field `message`, or either in what its case carries.
fn said_in(value: &Val, outermost: bool) -> Option<&str> {
    match value {
        Val::String(text) => Some(text),
        Val::Record(fields) => fields.iter().find_map(|(name, value)| match value {
            Val::String(text) if name == MESSAGE => Some(text.as_str()),
            _ => None,
        }),
        Val::Variant(_, Some(carried)) if outermost => said_in(carried, false),
        _ => None,
    }
}
