//! Stage 5, execute: from a [`Ticket`] to [`Executed`], what one attempt in a fresh sandbox gave.
//!
//! Three failures are kept apart: the tool's own error is a result, the guest's fault (fuel, deadline, memory, trap) is a
//! result that says whose fault it was, and only the host's fault is an error of this stage. Whatever the end, a failed
//! execution stages nothing.

use std::sync::Arc;

use toolkeep_core::refusal::{Code, FieldProblem, Refusal};
use toolkeep_sandbox::execution::{Cancel, Context, Ended, Execution, GuestError, Order, Progress, Sandbox};
use toolkeep_sandbox::fault::{Fault, HostFault};

use crate::admit::Ticket;
use crate::ambient::Ambient;
use crate::load::Loader;
use crate::spool::SpoolRoom;

/// What an execution needs besides its ticket.
#[derive(Debug)]
pub struct Executor {
    /// Runs guests.
    pub sandbox: Arc<Sandbox>,
    /// Finds compiled code.
    pub loader: Loader,
    /// Where large staged contents go.
    pub spool: SpoolRoom,
    /// Time and randomness.
    pub ambient: Ambient,
}

/// Ends an execution early and hears of its progress.
#[derive(Debug)]
pub struct Line {
    /// Set when nobody waits for the call any more.
    cancel: Cancel,
    /// Where progress goes.
    progress: Option<tokio::sync::mpsc::Sender<Progress>>,
}

/// The caller's end of a [`Line`]: dropped while armed, it cancels the execution.
#[derive(Debug)]
pub struct LineGuard {
    cancel: Cancel,
    armed: bool,
}

impl Line {
    /// Both ends.
    #[must_use]
    pub fn new(progress: Option<tokio::sync::mpsc::Sender<Progress>>) -> (Self, LineGuard) {
        let cancel = Cancel::new();
        (Self { cancel: cancel.clone(), progress }, LineGuard { cancel, armed: true })
    }
}

impl LineGuard {
    /// What cancels the execution.
    #[must_use]
    pub fn cancel(&self) -> Cancel {
        self.cancel.clone()
    }

    /// The call ended: nothing to cancel.
    pub fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for LineGuard {
    fn drop(&mut self) {
        if self.armed {
            self.cancel.cancel();
        }
    }
}

/// Proof: one attempt ended, and how.
#[derive(Debug)]
pub struct Executed {
    ticket: Box<Ticket>,
    execution: Execution,
}

impl Executed {
    /// The ticket it ran on.
    #[must_use]
    pub const fn ticket(&self) -> &Ticket {
        &self.ticket
    }

    /// What happened.
    #[must_use]
    pub const fn execution(&self) -> &Execution {
        &self.execution
    }

    /// Take both apart.
    #[must_use]
    pub fn into_parts(self) -> (Box<Ticket>, Execution) {
        (self.ticket, self.execution)
    }
}

/// Run the tool once.
///
/// # Errors
/// The component cannot be loaded, or the host fails: `internal`, `overloaded`.
pub async fn execute(executor: &Executor, ticket: Box<Ticket>, line: Line) -> Result<Executed, Refusal> {
    let grant = ticket.grant();
    let call = grant.call();
    let tool = call.tool();
    let principal = call.caller().principal_shared();
    let loaded = executor.loader.load(&principal.tenant, &tool.component).await?;
    let order = Order {
        loaded,
        tool: tool.local.clone(),
        input: Arc::clone(call.input()),
        context: Context {
            principal,
            run: call.options().run.map(|run| run.to_string()).unwrap_or_default(),
            call: call.id(),
            mode: call.options().mode,
        },
        limits: grant.limits(),
        deadline: grant.deadline(),
        clock: tool.manifest.clock,
        wall_clock_ns: executor.ambient.now_ns(),
        seed: executor.ambient.random(),
        mounts: grant.mounts().to_vec(),
        spool: executor.spool.open(),
        cancel: line.cancel,
        progress: line.progress,
    };
    let execution = executor.sandbox.execute(order).await.map_err(|fault| {
        tracing::error!(call = %call.id(), tool = %tool.name, error = %fault, "the host failed while it ran a tool");
        if fault.overloaded() {
            Refusal::new(Code::Overloaded, "no sandbox became free in time").after_ms(1_000)
        } else {
            Refusal::new(Code::Internal, "the host failed while it ran the tool")
        }
    })?;
    Ok(Executed { ticket, execution })
}

/// The output of an execution that returned one.
///
/// # Errors
/// The refusal that its own error or fault gives.
pub fn output<'a>(ended: &'a Ended, tool: &str) -> Result<&'a str, Refusal> {
    match ended {
        Ended::Output(text) => Ok(text),
        Ended::Error(error) => Err(guest_error(error)),
        Ended::Fault(fault) => Err(guest_fault(fault, tool)),
    }
}

fn guest_error(error: &GuestError) -> Refusal {
    let (code, failure, retry) = match error {
        GuestError::InvalidInput(failure) => (Code::InvalidInput, failure, None),
        GuestError::NotFound(failure) => (Code::ToolFailed, failure, None),
        GuestError::Denied(failure) | GuestError::Conflict(failure) | GuestError::Failed(failure) => {
            (Code::ToolFailed, failure, None)
        }
        GuestError::Transient(failure, after_ms) => (Code::ToolFailed, failure, Some(*after_ms)),
    };
    let mut refusal = Refusal::new(code, failure.message.clone());
    refusal.hint = format!("the tool reports `{}`: {}", error.kind(), code.hint());
    refusal.detail = failure.detail.as_deref().and_then(|text| serde_json::from_str(text).ok());
    refusal.fields = failure
        .fields
        .iter()
        .map(|field| FieldProblem {
            pointer: format!("/input{}", field.pointer),
            problem: field.problem.clone(),
            expected: field.expected.clone(),
        })
        .collect();
    if let Some(after_ms) = retry {
        refusal.retryable = true;
        refusal.retry_after_ms = after_ms;
    }
    refusal
}

fn guest_fault(fault: &Fault, tool: &str) -> Refusal {
    match fault {
        Fault::OutOfFuel => Refusal::new(Code::OutOfFuel, format!("`{tool}` used all of its fuel")),
        Fault::Deadline => Refusal::new(Code::DeadlineExceeded, format!("`{tool}` passed its deadline and was stopped")),
        Fault::Memory { what } => {
            Refusal::new(Code::MemoryExceeded, format!("`{tool}` wanted more {what} than it may have"))
        }
        Fault::OutputTooLarge { limit, size } => Refusal::new(
            Code::OutputTooLarge,
            format!("`{tool}` returned {size} bytes; `limits.output_bytes` allows {limit}"),
        ),
        Fault::StageFull(what) => Refusal::new(Code::MemoryExceeded, format!("`{tool}` staged too much: {what}")),
        Fault::Stale(what) => Refusal::new(Code::StalePlan, format!("the world changed while `{tool}` ran: {what}")),
        Fault::Trap(what) => Refusal::new(Code::ToolTrapped, format!("`{tool}` broke: {what}")),
        Fault::Exit(code) => Refusal::new(Code::ToolTrapped, format!("`{tool}` exited with {code} instead of returning")),
        Fault::Cancelled => Refusal::new(Code::DeadlineExceeded, format!("`{tool}` was cancelled")),
    }
}
