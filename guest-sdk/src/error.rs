//! How a tool fails, in the six kinds that the host knows.
//!
//! An error is an ordinary result: the call leaves no effect, the agent reads the message and may try
//! something else. Only `transient` is retried by the host. [`Error`] is enough for most tools; a tool
//! whose callers need to tell its failures apart implements [`ToolError`] for an enum of its own, whose
//! value reaches the agent as JSON under a schema.
//!
//! Absent on purpose: causes and backtraces. What the reader cannot act on does not belong into a message.

use std::fmt;
use std::io;
use std::time::Duration;

use schemars::{JsonSchema, Schema, json_schema};
use serde::Serialize;
use serde_json::Value;

use crate::schema;

/// What kind of failure it is; decides what host and agent do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The input fits the schema but makes no sense to the tool.
    InvalidInput,
    /// Something that the input names does not exist.
    NotFound,
    /// The tool refuses, or the host refuses the tool.
    Denied,
    /// The world is in a state in which the request cannot be done.
    Conflict,
    /// It may work later; the host may retry by itself.
    Transient,
    /// Everything else.
    Failed,
}

impl ErrorKind {
    /// The word for it, as in the contract.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidInput => "invalid-input",
            Self::NotFound => "not-found",
            Self::Denied => "denied",
            Self::Conflict => "conflict",
            Self::Transient => "transient",
            Self::Failed => "failed",
        }
    }
}

/// One problem with one place of the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldProblem {
    /// JSON Pointer (RFC 6901) into the input, for example `/lines/3/amount`; empty for all of it.
    pub pointer: String,
    /// What is wrong, as a lower-case fragment.
    pub problem: String,
    /// What would have been right; may be empty.
    pub expected: String,
}

/// A failed call.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::error_impl_error, reason = "authors write it as toolkeep_sdk::Error, like std::io::Error")]
pub struct Error {
    kind: ErrorKind,
    message: String,
    detail: Option<Value>,
    fields: Vec<FieldProblem>,
    retry_after: Option<Duration>,
}

impl Error {
    /// An error of this kind. The message is one sentence, without secrets; the host keeps 4 KiB of it.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), detail: None, fields: Vec::new(), retry_after: None }
    }

    /// The input makes no sense. Say where with [`Self::at`].
    pub fn invalid_input(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput, message)
    }

    /// Something that the input names does not exist.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// The tool refuses.
    pub fn denied(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Denied, message)
    }

    /// The world is in a state in which the request cannot be done.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, message)
    }

    /// It may work later, not before `after` if that is known. Whole milliseconds are passed on.
    pub fn transient(message: impl Into<String>, after: Option<Duration>) -> Self {
        Self { retry_after: after, ..Self::new(ErrorKind::Transient, message) }
    }

    /// Everything else.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Failed, message)
    }

    /// Name the field of the input that caused it, as a JSON Pointer such as `/from`.
    #[must_use]
    pub fn at(self, pointer: impl Into<String>) -> Self {
        let problem = self.message.clone();
        self.with_field(FieldProblem { pointer: pointer.into(), problem, expected: String::new() })
    }

    /// Add one problem with one place of the input.
    #[must_use]
    pub fn with_field(mut self, field: FieldProblem) -> Self {
        self.fields.push(field);
        self
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The sentence.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The tool's own error value, if it has an error type of its own.
    #[must_use]
    pub fn detail(&self) -> Option<&Value> {
        self.detail.as_ref()
    }

    /// The places of the input that caused it.
    #[must_use]
    pub fn fields(&self) -> &[FieldProblem] {
        &self.fields
    }

    /// How long to wait before the next attempt.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// What was attempted when the file system refused; keeps the kind. The operating system's numbers
    /// stay out: they differ between a component and a native test.
    pub(crate) fn from_io(doing: &str, error: &io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::Denied,
            io::ErrorKind::AlreadyExists => ErrorKind::Conflict,
            _ => ErrorKind::Failed,
        };
        let text = error.to_string();
        let text = text.rsplit_once(" (os error ").map_or(text.as_str(), |(text, _)| text);
        if doing.is_empty() { Self::new(kind, text) } else { Self::new(kind, format!("{doing}: {text}")) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.kind.as_str(), self.message)
    }
}

impl std::error::Error for Error {}

/// `NotFound` becomes not-found, `PermissionDenied` denied, `AlreadyExists` conflict, the rest failed.
impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::from_io("", &error)
    }
}

/// An author's own error type: what it says is its `Display`, what it is its JSON.
pub trait ToolError: Serialize + JsonSchema + fmt::Display {
    /// Which of the six kinds it is.
    fn kind(&self) -> ErrorKind {
        ErrorKind::Failed
    }

    /// The places of the input that caused it.
    fn fields(&self) -> Vec<FieldProblem> {
        Vec::new()
    }

    /// How long to wait before the next attempt; read only for [`ErrorKind::Transient`].
    fn retry_after(&self) -> Option<Duration> {
        None
    }
}

/// What `#[tool]` takes as the error of a function: [`Error`], or any type that implements [`ToolError`].
pub trait IntoError {
    /// The schema of the detail.
    fn detail_schema() -> Schema;

    /// The error as the host sees it.
    fn into_error(self) -> Error;
}

impl IntoError for Error {
    fn detail_schema() -> Schema {
        json_schema!({
            "$schema": schema::DIALECT,
            "description": "Errors of this tool carry no detail.",
            "not": {}
        })
    }

    fn into_error(self) -> Self {
        self
    }
}

impl<E: ToolError> IntoError for E {
    fn detail_schema() -> Schema {
        schema::of_output::<E>()
    }

    fn into_error(self) -> Error {
        let kind = self.kind();
        Error {
            kind,
            message: self.to_string(),
            detail: serde_json::to_value(&self).ok(),
            fields: self.fields(),
            retry_after: if kind == ErrorKind::Transient { self.retry_after() } else { None },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Error, ErrorKind, IntoError, ToolError};
    use schemars::JsonSchema;
    use serde::Serialize;
    use std::fmt;
    use std::io;
    use std::time::Duration;

    #[derive(Serialize, JsonSchema)]
    #[serde(tag = "code", rename_all = "snake_case")]
    enum Own {
        Busy { queue: u32 },
        Full,
    }

    impl fmt::Display for Own {
        fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str(match self {
                Self::Busy { .. } => "the queue is busy",
                Self::Full => "the disk is full",
            })
        }
    }

    impl ToolError for Own {
        fn kind(&self) -> ErrorKind {
            match self {
                Self::Busy { .. } => ErrorKind::Transient,
                Self::Full => ErrorKind::Conflict,
            }
        }

        fn retry_after(&self) -> Option<Duration> {
            Some(Duration::from_millis(250))
        }
    }

    #[test]
    fn errors_of_the_file_system_keep_their_kind() {
        let cases = [
            (io::ErrorKind::NotFound, ErrorKind::NotFound),
            (io::ErrorKind::PermissionDenied, ErrorKind::Denied),
            (io::ErrorKind::AlreadyExists, ErrorKind::Conflict),
            (io::ErrorKind::StorageFull, ErrorKind::Failed),
        ];
        for (io, expected) in cases {
            assert_eq!(Error::from(io::Error::from(io)).kind(), expected, "{io:?}");
        }
    }

    #[test]
    fn an_own_error_carries_its_json_as_detail() {
        let error = Own::Busy { queue: 7 }.into_error();
        assert_eq!(error.kind(), ErrorKind::Transient);
        assert_eq!(error.message(), "the queue is busy");
        assert_eq!(error.detail(), Some(&serde_json::json!({"code": "busy", "queue": 7})));
        assert_eq!(error.retry_after(), Some(Duration::from_millis(250)));
    }

    #[test]
    fn only_a_transient_error_has_a_time_to_wait() {
        assert_eq!(Own::Full.into_error().retry_after(), None);
    }

    #[test]
    fn a_field_is_named_with_the_message_as_its_problem() {
        let error = Error::invalid_input("`a b` is no identifier").at("/from");
        assert_eq!(error.fields().len(), 1);
        assert_eq!(error.fields()[0].pointer, "/from");
        assert_eq!(error.fields()[0].problem, "`a b` is no identifier");
        assert_eq!(error.to_string(), "invalid-input: `a b` is no identifier");
    }
}
