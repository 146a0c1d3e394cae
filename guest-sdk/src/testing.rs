//! Run a tool in a plain `cargo test`, on workspaces of its own, and see what it would change.
//!
//! The harness plays the host: it checks the input against the tool's schema as the host does, lets the
//! tool work on a temporary copy, finds its effects by comparing before and after, and throws them away
//! where the host would. Tests that run in parallel have harnesses of their own and do not meet.
//!
//! It fails the test where the host would stop the tool: an effect that `#[tool]` does not declare, or an
//! output or error that its own schema refuses.
//!
//! Absent on purpose: limits (fuel, memory, deadline) and policy. Those need the daemon: `toolkeep preview`.

mod harness;
mod keys;
mod outcome;
pub(crate) mod running;
mod tree;

pub use harness::Harness;
pub use outcome::{Effect, LogLine, Outcome, ProgressReport};
pub use running::entered;
