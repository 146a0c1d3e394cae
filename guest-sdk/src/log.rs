//! Lines for the operator's log. They never reach the agent.
//!
//! At most 4 KiB a line and 64 KiB a call are kept by the host; what exceeds them is counted and dropped.
//! Use `log::info(format_args!("..."))` to format without a string in between.

use std::fmt::Display;

use crate::host;

/// How important a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Only for the author.
    Debug,
    /// Normal operation.
    Info,
    /// Something unexpected that the tool handled.
    Warn,
    /// Something that the tool could not handle.
    Error,
}

/// Write a line that only the author needs.
pub fn debug(message: impl Display) {
    host::write_log(Level::Debug, &message.to_string());
}

/// Write a line about normal operation.
pub fn info(message: impl Display) {
    host::write_log(Level::Info, &message.to_string());
}

/// Write a line about something unexpected that the tool handled.
pub fn warn(message: impl Display) {
    host::write_log(Level::Warn, &message.to_string());
}

/// Write a line about something that the tool could not handle.
pub fn error(message: impl Display) {
    host::write_log(Level::Error, &message.to_string());
}
