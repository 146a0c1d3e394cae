//! Who calls, in which run, and what is left of the limits.
//!
//! Stamped by the host. A tool must take identity from here and never from its input, which a model
//! wrote. In a native test the values come from the [`Harness`](crate::testing::Harness).

use std::time::Duration;

use crate::host;

/// Who acts, as authenticated by the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The tenant that owns all state of this call.
    pub tenant: String,
    /// The person on whose behalf the agent acts.
    pub user: String,
    /// The agent.
    pub agent: String,
}

/// Whether the effects of this call may be committed. A tool should not behave differently because of
/// it: then the preview would not show what the commit does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The plan is made and shown; nothing will be committed.
    Preview,
    /// The plan is made, decided about, and then committed or held.
    Commit,
}

/// Who acts.
#[must_use]
pub fn caller() -> Principal {
    host::caller()
}

/// The session through which they act: an id, or empty where nobody delegated.
#[must_use]
pub fn session_id() -> String {
    host::session_id()
}

/// How they were authenticated: `uid`, `token` or `jwt`; `record` for a call that goes on by itself.
#[must_use]
pub fn authenticated_by() -> String {
    host::authenticated_by()
}

/// The run that this call belongs to; empty outside of a run.
#[must_use]
pub fn run_id() -> String {
    host::run_id()
}

/// The id of this call, stable over re-executions.
#[must_use]
pub fn call_id() -> String {
    host::call_id()
}

/// Whether effects may be committed.
#[must_use]
pub fn mode() -> Mode {
    host::mode()
}

/// Time left until the deadline. Constant (the whole limit) unless the manifest grants the real clock.
#[must_use]
pub fn deadline_left() -> Duration {
    host::deadline_left()
}

/// Units of fuel left at this moment. Using it makes a tool depend on the engine's version.
#[must_use]
pub fn fuel_left() -> u64 {
    host::fuel_left()
}
