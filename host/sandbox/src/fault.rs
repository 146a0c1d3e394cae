//! Who is to blame: the guest, for [`Fault`], or the host, for [`HostFault`].
//!
//! A guest's fault is an ordinary result of running untrusted code: it becomes a reply, and says nothing about the health
//! of the daemon. A host fault is logged and answered without its cause. The tool's own errors are neither: they are
//! [`crate::execution::Ended::Error`].

use wasmtime::component::ResourceTableError;
use wasmtime::{Trap, WasmBacktrace};

use crate::stage::StageError;

/// How an execution broke one of its bounds, or broke down by itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// All fuel is used.
    #[error("the tool used all of its fuel")]
    OutOfFuel,
    /// The deadline passed.
    #[error("the tool did not finish before its deadline")]
    Deadline,
    /// It wanted more of something than it may have.
    #[error("the tool wanted more {what} than it may have")]
    Memory {
        /// Of what: `linear memory`, `table elements`, `handles`, `random bytes`, …
        what: &'static str,
    },
    /// It returned more than it may.
    #[error("the tool returned more than {limit} bytes")]
    OutputTooLarge {
        /// Bytes that it may return.
        limit: u64,
        /// Bytes that it returned; where the host stopped reading before the end, the bytes read.
        size: u64,
    },
    /// It staged more than it may.
    #[error("the tool staged more than it may: {0}")]
    StageFull(String),
    /// Its code failed: a trap, or a call that the contract forbids.
    #[error("the tool failed: {0}")]
    Trap(String),
    /// It called `exit` instead of returning.
    #[error("the tool exited with status {0} instead of returning")]
    Exit(i32),
    /// The caller went away or an operator stopped it.
    #[error("the call was cancelled")]
    Cancelled,
    /// A file that it had read changed while it ran.
    #[error("the workspace changed while the tool ran: {0}")]
    Stale(String),
    /// Executed again with the exchanges of an earlier execution, it asked for something else.
    #[error("the tool asked for another request than before: {0}")]
    Diverged(String),
}

/// A fault of the host. Its text is for the log, never for a caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostFault {
    /// No slot became free in time, or all pools are busy.
    #[error("all slots of the pool are taken")]
    Overloaded,
    /// Cancelled while it waited for a slot: nothing of it ran.
    #[error("cancelled while it waited for a sandbox")]
    Cancelled,
    /// The tenant's pool was released since the component was loaded: load it again.
    #[error("the pool of this component was released; load it again")]
    Retired,
    /// The engine refused its configuration, the compiled component or the instance.
    #[error("engine: {0}")]
    Engine(String),
    /// The component lacks an export or an import that was checked before, or it wants more than a pool has: no
    /// execution of it can ever begin.
    #[error("component does not fit its contract: {0}")]
    Unfit(String),
    /// A host function panicked. The store is gone; the daemon goes on.
    #[error("a host function panicked: {0}")]
    Panicked(String),
    /// The stage could not be read or sealed.
    #[error("stage: {0}")]
    Stage(String),
    /// Something else.
    #[error("{0}")]
    Internal(String),
}

impl HostFault {
    #[expect(clippy::needless_pass_by_value, reason = "used as a function in map_err")]
    pub(crate) fn engine(error: wasmtime::Error) -> Self {
        Self::Engine(format!("{error:#}"))
    }
}

/// What a host function returns to end the execution with a fault of the guest.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Stop(#[from] pub Fault);

/// What ended a call into the guest.
pub(crate) enum Broken {
    Guest(Fault),
    Host(HostFault),
}

/// Texts by which the engine names two limits that have no type of their own.
const HANDLES_TEXT: &str = "store handle limit exceeded";
const HOSTCALL_TEXT: &str = "fuel allocated for hostcalls has been exhausted";

/// What is known about an execution when it ends with an error of the engine.
pub(crate) struct Circumstances {
    /// What the limiter refused last: a guest that traps after that ran out of it.
    pub(crate) refused: Option<&'static str>,
    /// Whether guest code had returned: the error came from reading its result.
    pub(crate) returned: bool,
    /// Bytes that the result may have.
    pub(crate) output_limit: u64,
}

/// Whether more crossed between guest and host in one call than may.
pub(crate) fn is_crossing(error: &wasmtime::Error) -> bool {
    error.chain().any(|cause| cause.to_string().contains(HOSTCALL_TEXT))
}

/// Sort an error of the engine.
pub(crate) fn sort(error: &wasmtime::Error, circumstances: &Circumstances) -> Broken {
    if let Some(Stop(fault)) = error.downcast_ref::<Stop>() {
        return Broken::Guest(fault.clone());
    }
    if let Some(fault) = error.downcast_ref::<StageError>().and_then(of_stage) {
        return Broken::Guest(fault);
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => return Broken::Guest(Fault::OutOfFuel),
        Some(Trap::Interrupt) => return Broken::Guest(Fault::Deadline),
        _ => {}
    }
    if let Some(what) = circumstances.refused {
        return Broken::Guest(Fault::Memory { what });
    }
    if let Some(ResourceTableError::Full) = error.downcast_ref::<ResourceTableError>() {
        return Broken::Guest(Fault::Memory { what: "handles" });
    }
    if error.downcast_ref::<wasmtime::PoolConcurrencyLimitError>().is_some() {
        return Broken::Host(HostFault::Overloaded);
    }
    let text = format!("{:#}", WithoutTrace(error));
    if text.contains(HANDLES_TEXT) {
        return Broken::Guest(Fault::Memory { what: "handles" });
    }
    if text.contains(HOSTCALL_TEXT) {
        let limit = circumstances.output_limit;
        return Broken::Guest(if circumstances.returned {
            Fault::OutputTooLarge { limit, size: limit }
        } else {
            Fault::Memory { what: "bytes in one call of the host" }
        });
    }
    Broken::Guest(Fault::Trap(text))
}

/// The guest's fault behind an error that ended a stage; none where the host failed.
pub(crate) fn of_stage(error: &StageError) -> Option<Fault> {
    match error {
        StageError::Full { .. } => Some(Fault::StageFull(error.to_string())),
        StageError::Stale { .. } => Some(Fault::Stale(error.to_string())),
        StageError::Unrecorded { .. } => Some(Fault::Diverged(error.to_string())),
        _ => None,
    }
}

/// The frames of the guest at the time of the error, for the operator's log.
pub(crate) fn frames(error: &wasmtime::Error) -> Option<String> {
    error.downcast_ref::<WasmBacktrace>().map(ToString::to_string)
}

/// An error without its backtrace: the causes that are not one, from the outermost to the innermost.
struct WithoutTrace<'a>(&'a wasmtime::Error);

impl std::fmt::Display for WithoutTrace<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut first = true;
        for cause in self.0.chain() {
            let text = cause.to_string();
            if text.starts_with("error while executing at wasm backtrace") {
                continue;
            }
            if !first {
                f.write_str(": ")?;
            }
            first = false;
            f.write_str(&text)?;
        }
        Ok(())
    }
}
