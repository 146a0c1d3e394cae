//! What a tool learns about its call, and how it says how far it has come.
//!
//! Identity is what the host stamped; nothing of it comes from the input. The deadline is shown as the whole limit, and so
//! tells no time, unless the manifest grants the real clock.

use std::time::Duration;

use toolkeep_core::call::Mode;
use toolkeep_core::id::CallId;
use toolkeep_core::principal::{Origin, Principal};

use crate::bindings::toolkeep::tool::{context, progress};
use crate::state::State;

/// Reports of one call that are passed on; more are dropped.
pub const PROGRESS_MAX: u32 = 1_000;
/// Longest message of a report, in bytes; what exceeds it is cut off.
pub const PROGRESS_TEXT_MAX_BYTES: usize = 1_024;

/// Who calls, and in which call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// Who acts, as the host authenticated it.
    pub principal: Principal,
    /// How they came to act.
    pub origin: Origin,
    /// The run, as text; empty outside of one.
    pub run: String,
    /// The call, stable over re-executions.
    pub call: CallId,
    /// Whether the effects may be committed.
    pub mode: Mode,
}

/// How far a call has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Units done.
    pub done: u64,
    /// Units in all, if the tool knows.
    pub total: Option<u64>,
    /// Text of an untrusted author, at most [`PROGRESS_TEXT_MAX_BYTES`]: escape it before showing it.
    pub message: String,
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl context::Host for State {
    fn caller(&mut self) -> wasmtime::Result<context::Principal> {
        self.recorder.done("toolkeep:tool/context#caller", "");
        let principal = &self.context.principal;
        Ok(context::Principal {
            tenant: principal.tenant.as_str().to_owned(),
            user: principal.user.as_str().to_owned(),
            agent: principal.agent.as_str().to_owned(),
        })
    }

    fn session_id(&mut self) -> wasmtime::Result<String> {
        let session = self.context.origin.session.last().map(|session| session.to_string()).unwrap_or_default();
        self.recorder.value("toolkeep:tool/context#session-id", "", &*session);
        Ok(session)
    }

    fn authenticated_by(&mut self) -> wasmtime::Result<String> {
        let means = self.context.origin.credential.means().word();
        self.recorder.value("toolkeep:tool/context#authenticated-by", "", means);
        Ok(means.to_owned())
    }

    fn run_id(&mut self) -> wasmtime::Result<String> {
        self.recorder.value("toolkeep:tool/context#run-id", "", &*self.context.run);
        Ok(self.context.run.clone())
    }

    fn call_id(&mut self) -> wasmtime::Result<String> {
        let id = self.context.call.to_string();
        self.recorder.value("toolkeep:tool/context#call-id", "", &*id);
        Ok(id)
    }

    fn call_mode(&mut self) -> wasmtime::Result<context::Mode> {
        let mode = self.context.mode;
        self.recorder.value("toolkeep:tool/context#call-mode", "", mode.word());
        Ok(match mode {
            Mode::Preview => context::Mode::Preview,
            Mode::Commit => context::Mode::Commit,
        })
    }

    fn deadline_left_ms(&mut self) -> wasmtime::Result<u64> {
        let passed = if self.clock.is_real() { self.clock.elapsed() } else { Duration::ZERO };
        let left = milliseconds(self.deadline.saturating_sub(passed));
        self.recorder.value("toolkeep:tool/context#deadline-left-ms", "", left.to_string());
        Ok(left)
    }

    fn fuel_left(&mut self) -> wasmtime::Result<u64> {
        let left = self.books.fuel_left.saturating_add(self.books.withheld);
        self.recorder.value("toolkeep:tool/context#fuel-left", "", left.to_string());
        Ok(left)
    }
}

impl progress::Host for State {
    fn report(&mut self, done: u64, total: Option<u64>, mut message: String) -> wasmtime::Result<()> {
        let Some(sender) = self.progress.as_ref().filter(|_| self.progress_left > 0) else { return Ok(()) };
        self.progress_left -= 1;
        message.truncate(message.floor_char_boundary(PROGRESS_TEXT_MAX_BYTES));
        // A receiver that does not keep up misses reports: the tool never waits for it.
        let _missed = sender.try_send(Progress { done, total, message });
        Ok(())
    }
}
