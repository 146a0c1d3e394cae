//! Stage 5, execute: from a [`Ticket`] to [`Executed`], what one attempt in a fresh sandbox gave.
//!
//! Three failures are kept apart: the tool's own error is a result, the guest's fault (fuel, deadline, memory, trap) is a
//! result that says whose fault it was, and only the host's fault is an error of this stage. Whatever the end, a failed
//! execution stages nothing.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use toolkeep_core::call::Usage;
use toolkeep_core::digest::{DIGEST_BYTES, Digest};
use toolkeep_core::event::{Depth, LayerName, Recording};
use toolkeep_core::id::{RunId, TenantName};
use toolkeep_core::json;
use toolkeep_core::manifest::Manifest;
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_core::retry::Tried;
use toolkeep_sandbox::capability::context::{Context, Progress};
use toolkeep_sandbox::execution::{Cancel, Ended, Execution, GuestError, GuestErrorKind, Layer, Order, Outward};
use toolkeep_sandbox::fault::{Fault, HostFault};
use toolkeep_sandbox::pool::Loaded;
use toolkeep_sandbox::port::{Exchange, HttpCall, Ports};
use toolkeep_sandbox::sandbox::Sandbox;

use crate::admit::Ticket;
use crate::ambient::Ambient;
use crate::blobs::SpoolRoom;
use crate::breakers::Breakers;
use crate::catalog::Tool;
use crate::egress::Egress;
use crate::ledger::{Beside, InlineBlob, Ledger};
use crate::load::Loader;
use crate::port;
use crate::validate::Call;

/// How often a component is loaded again because its pool was released in between.
const RELOADS_MAX: u32 = 2;

/// What an execution needs besides its ticket.
#[derive(Debug)]
pub struct Executor {
    /// Runs guests.
    pub sandbox: Arc<Sandbox>,
    /// Finds compiled code.
    pub loader: Loader,
    /// Where large staged contents go.
    pub spool: SpoolRoom,
    /// How much is recorded where a manifest does not say.
    pub depth: Depth,
    /// Time and randomness.
    pub ambient: Ambient,
    /// Where answers of other systems come from.
    pub egress: Egress,
    /// Where values of keys come from.
    pub ledger: Ledger,
    /// What rests because it fails.
    pub breakers: Breakers,
}

/// A recording as it is kept.
fn written(recording: &Recording) -> Option<Arc<str>> {
    json::record_text(recording).ok().map(Into::into)
}

impl Executor {
    /// How much of the calls of a tool is recorded.
    #[must_use]
    pub fn depth_of(&self, tool: &Tool) -> Depth {
        tool.manifest.record.depth.unwrap_or(self.depth)
    }

    /// The ports of a tool: none where its manifest grants nothing that goes through one.
    fn ports(&self, tenant: &TenantName, manifest: &Manifest) -> Ports {
        if manifest.http.is_empty() && manifest.keys.is_empty() {
            return Ports::default();
        }
        port::ports(&self.egress, &self.ledger, &self.breakers, tenant)
    }
}

/// What all executions of one call have in common, so that a later one does the same as the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The wall clock at admission, nanoseconds since the Unix epoch.
    pub wall_clock_ns: u64,
    /// Seed of the guest's randomness.
    pub seed: [u8; DIGEST_BYTES],
    /// Exchanges of the execution before, in order, and what came of the request at which it ended.
    pub exchanges: Vec<Exchange>,
    /// How many requests were sent live so far.
    pub sent: u32,
}

impl Given {
    /// The same with another seed.
    #[must_use]
    pub fn with_seed(&self, seed: [u8; DIGEST_BYTES]) -> Self {
        Self { seed, ..self.clone() }
    }
}

impl Given {
    /// For the first execution of a call.
    #[must_use]
    pub fn fresh(ambient: &Ambient) -> Self {
        Self { wall_clock_ns: ambient.now_ns(), seed: ambient.random(), exchanges: Vec::new(), sent: 0 }
    }
}

/// Ends an execution early and hears of its progress.
#[derive(Debug)]
pub struct Line {
    aboard: Arc<Aboard>,
    /// Where progress goes.
    progress: Option<tokio::sync::mpsc::Sender<Progress>>,
}

/// What whoever ends a call from outside has to know of it.
#[derive(Debug, Default)]
pub struct Aboard {
    /// Set when nobody waits for the call any more, or it was stopped.
    pub cancel: Cancel,
    /// What it calls now, from the moment that this is known.
    calls: Mutex<Option<(Arc<Tool>, Option<RunId>)>>,
}

impl Aboard {
    /// What it calls, and the run that it belongs to, if that is known yet.
    #[must_use]
    pub fn calls(&self) -> Option<(Arc<Tool>, Option<RunId>)> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Line {
    /// A line that nobody has cancelled.
    #[must_use]
    pub fn new(progress: Option<tokio::sync::mpsc::Sender<Progress>>) -> Self {
        Self { aboard: Arc::default(), progress }
    }

    /// What whoever ends the call has to know.
    #[must_use]
    pub fn aboard(&self) -> Arc<Aboard> {
        Arc::clone(&self.aboard)
    }

    /// This is called from now on, maybe for a run.
    pub fn calls(&self, tool: &Arc<Tool>, run: Option<RunId>) {
        *self.aboard.calls.lock().unwrap_or_else(PoisonError::into_inner) = Some((Arc::clone(tool), run));
    }

    /// What is called, as far as that is known.
    #[must_use]
    pub fn tool(&self) -> Option<Arc<Tool>> {
        self.aboard.calls().map(|(tool, _)| tool)
    }

    /// What cancels the execution.
    #[must_use]
    pub fn cancel(&self) -> Cancel {
        self.aboard.cancel.clone()
    }
}

/// What earlier calls of a transaction staged, for an execution to start over.
#[derive(Debug, Clone)]
pub struct Ground {
    /// Effects and contents.
    pub layer: Layer,
    /// What recordings call it.
    pub digest: Digest,
    /// The text that it is kept as.
    pub text: Arc<str>,
}

impl Ground {
    /// What a recording needs of it: its text, and the contents that it names.
    fn beside(&self, execution: &mut Execution) -> Vec<Digest> {
        let text = Digest::of(self.text.as_bytes());
        execution.recording.layer = Some(LayerName { digest: self.digest, text });
        execution.kept.insert(text, self.text.as_bytes().into());
        self.layer.contents.keys().copied().collect()
    }
}

/// Proof: one attempt ended, and how.
#[derive(Debug)]
pub struct Executed {
    ticket: Box<Ticket>,
    execution: Execution,
    attempts: u32,
    exhausted: bool,
    repeated: u64,
    depth: Depth,
    /// Contents that the recording needs and that are kept already.
    others: Vec<Digest>,
}

/// Why there is no execution: the component cannot be loaded, or the host failed with every attempt.
#[derive(Debug)]
pub struct Unexecuted {
    /// What the caller is told.
    pub refusal: Refusal,
    /// How often it was tried.
    pub attempts: u32,
    /// Whether there are no more attempts.
    pub exhausted: bool,
}

impl Executed {
    /// A result that was kept, for a call that holds a ticket.
    #[must_use]
    pub const fn kept(ticket: Box<Ticket>, execution: Execution, depth: Depth) -> Self {
        Self { ticket, execution, attempts: 1, exhausted: false, repeated: 0, depth, others: Vec::new() }
    }

    /// Its recording, JSON, with what is kept beside it; nothing where nothing is recorded.
    #[must_use]
    pub fn recorded(&self) -> Option<(Arc<str>, Option<Box<Beside>>)> {
        let Execution { recording, kept, .. } = &self.execution;
        match self.depth {
            Depth::Off => None,
            Depth::Hashes => Some((written(&recording.clone().hashed())?, None)),
            Depth::Full => {
                let blob = |(digest, content): (&Digest, &Arc<[u8]>)| InlineBlob {
                    digest: *digest,
                    content: Arc::clone(content),
                };
                let contents: Vec<InlineBlob> = kept.iter().map(blob).collect();
                let none = contents.is_empty() && self.others.is_empty();
                let beside = (!none).then(|| Box::new(Beside { contents, others: self.others.clone() }));
                Some((written(recording)?, beside))
            }
        }
    }

    /// How often it was executed, and whether the last attempt failed as those before it.
    #[must_use]
    pub const fn attempts(&self) -> (u32, bool) {
        (self.attempts, self.exhausted)
    }

    /// How many requests its failed attempts made, which are not among the exchanges of the last one.
    #[must_use]
    pub const fn repeated(&self) -> u64 {
        self.repeated
    }

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

    /// The text that the tool returned.
    ///
    /// # Errors
    /// The refusal that its own error or its fault gives.
    pub fn output(&self) -> Result<&str, Refusal> {
        match &self.execution.ended {
            Ended::Output(text) => Ok(text),
            Ended::Error(error) => Err(guest_error(error)),
            Ended::Live(call) => Err(Refusal::new(
                Code::Denied,
                format!(
                    "`{}` needs the answer to {} {}",
                    self.ticket.grant().call().tool().name,
                    call.method,
                    call.url
                ),
            )),
            Ended::Fault(fault) => Err(guest_fault(fault, self.ticket.grant().call().tool().name.as_str())),
        }
    }

    /// Tell the circuit of the tool how it went. `unusable` says that its schema forbids what it returned.
    pub fn tell(&mut self, breakers: &Breakers, unusable: bool) {
        let hurried = self.ticket.grant().call().options().deadline_ms.is_some();
        let failed = match &self.execution.ended {
            Ended::Output(_) => Some(unusable),
            Ended::Error(error) => Some(error.kind == GuestErrorKind::Transient),
            Ended::Fault(
                Fault::OutOfFuel
                | Fault::Memory { .. }
                | Fault::OutputTooLarge { .. }
                | Fault::StageFull(_)
                | Fault::Trap(_)
                | Fault::Exit(_),
            ) => Some(true),
            Ended::Fault(Fault::Deadline) if !hurried => Some(true),
            Ended::Live(_)
            | Ended::Fault(Fault::Deadline | Fault::Stale(_) | Fault::Diverged(_) | Fault::Cancelled) => None,
        };
        self.ticket.tell(breakers, failed);
    }

    /// The request at which the execution ended because the tool needs its answer, if it did.
    #[must_use]
    pub fn live(&self) -> Option<&HttpCall> {
        match &self.execution.ended {
            Ended::Live(call) => Some(call),
            Ended::Output(_) | Ended::Error(_) | Ended::Fault(_) => None,
        }
    }

    /// Take both apart.
    #[must_use]
    pub fn into_parts(self) -> (Box<Ticket>, Execution) {
        (self.ticket, self.execution)
    }
}

/// Run the tool over what its transaction staged before, again where it or the host failed for a moment. Nothing was
/// committed in between, and what was sent live before is not sent again: `given` holds its answers.
///
/// # Errors
/// The component cannot be loaded, or the host fails: `internal`, `overloaded`.
pub async fn execute(
    executor: &Executor,
    ticket: Box<Ticket>,
    line: &Line,
    given: &Given,
    ground: Option<Ground>,
) -> Result<Executed, Unexecuted> {
    let rules = ticket.grant().call().tool().manifest.retry;
    let deadline_ms = u64::try_from(ticket.grant().deadline().as_millis()).unwrap_or(u64::MAX);
    let mut tried = Tried { attempts: 0, spent_ms: 0, deadline_ms, asked_ms: None };
    let mut failed = Usage::default();
    let (mut attempted, exhausted) = loop {
        let spent = Spent { wall_ms: tried.spent_ms, fuel: failed.fuel };
        let attempted = once(executor, &ticket, line, given, (ground.as_ref(), spent)).await;
        tried.attempts += 1;
        if !passing(&attempted, &mut tried) {
            break (attempted, false);
        }
        let draw = u64::from_le_bytes(executor.ambient.random());
        let Some(pause_ms) = rules.pause(tried, draw) else { break (attempted, true) };
        tracing::info!(call = %ticket.grant().call().id(), attempt = tried.attempts, pause_ms, "an attempt failed for a moment");
        let cancel = line.cancel();
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(pause_ms)) => {}
            () = cancel.cancelled() => break (attempted, false),
        }
        tried.spent_ms = tried.spent_ms.saturating_add(pause_ms);
        if let Ok(execution) = &attempted {
            let known = u64::try_from(given.exchanges.len()).unwrap_or(u64::MAX);
            let requests = execution.usage.http_requests.saturating_sub(known);
            failed = sum(&failed, &Usage { http_requests: requests, ..execution.usage });
        }
    };
    let mut others = Vec::new();
    if let Ok(execution) = &mut attempted {
        others = ground.as_ref().map(|ground| ground.beside(execution)).unwrap_or_default();
        execution.usage = sum(&failed, &execution.usage);
    }
    let (repeated, depth) = (failed.http_requests, executor.depth_of(ticket.grant().call().tool()));
    match attempted {
        Ok(execution) => {
            Ok(Executed { ticket, execution, attempts: tried.attempts, exhausted, repeated, depth, others })
        }
        Err(refusal) => Err(Unexecuted { refusal, attempts: tried.attempts, exhausted }),
    }
}

/// What the attempts of a call used so far of what all of them share.
#[derive(Debug, Clone, Copy)]
struct Spent {
    wall_ms: u64,
    fuel: u64,
}

/// What several attempts used together.
fn sum(one: &Usage, other: &Usage) -> Usage {
    Usage {
        fuel: one.fuel.saturating_add(other.fuel),
        wall_ms: one.wall_ms.saturating_add(other.wall_ms),
        memory_peak: one.memory_peak.max(other.memory_peak),
        host_calls: one.host_calls.saturating_add(other.host_calls),
        http_requests: one.http_requests.saturating_add(other.http_requests),
        cost_usd: one.cost_usd.plus(other.cost_usd),
    }
}

/// Whether an attempt failed in a way that another one may not. Notes how long it took and what the tool asked for.
fn passing(attempted: &Result<Execution, Refusal>, tried: &mut Tried) -> bool {
    match attempted {
        Ok(execution) => {
            tried.spent_ms = tried.spent_ms.saturating_add(execution.usage.wall_ms);
            let Ended::Error(error) = &execution.ended else { return false };
            tried.asked_ms = error.after_ms;
            error.kind == GuestErrorKind::Transient
        }
        Err(refusal) => {
            tried.asked_ms = None;
            refusal.code == Code::Internal
        }
    }
}

/// One attempt, with what is left of the deadline and of the fuel.
async fn once(
    executor: &Executor,
    ticket: &Ticket,
    line: &Line,
    given: &Given,
    (ground, spent): (Option<&Ground>, Spent),
) -> Result<Execution, Refusal> {
    let call = ticket.grant().call();
    let tool = call.tool();
    let mut reloads = 0;
    loop {
        let loaded = executor.loader.load(&call.caller().principal().tenant, &tool.component).await?;
        let mut order = order(executor, ticket, line, given, loaded, ground);
        order.deadline = order.deadline.saturating_sub(Duration::from_millis(spent.wall_ms));
        order.limits.fuel = order.limits.fuel.saturating_sub(spent.fuel).max(1);
        match executor.sandbox.execute(order).await {
            Ok(execution) => return Ok(execution),
            // Another tenant needed the pool in this moment: load into a new one.
            Err(HostFault::Retired) if reloads < RELOADS_MAX => reloads += 1,
            Err(fault) => return Err(host_fault(call, &fault)),
        }
    }
}

fn order(
    executor: &Executor,
    ticket: &Ticket,
    line: &Line,
    given: &Given,
    loaded: Arc<Loaded>,
    ground: Option<&Ground>,
) -> Order {
    let grant = ticket.grant();
    let call = grant.call();
    Order {
        loaded,
        entry: call.tool().entry.clone(),
        input: Arc::clone(call.input()),
        context: Context {
            principal: call.caller().principal().clone(),
            origin: call.caller().origin().clone(),
            run: call.options().run.map(|run| run.to_string()).unwrap_or_default(),
            call: call.id(),
            mode: call.options().mode,
        },
        limits: grant.limits(),
        deadline: grant.deadline(),
        clock: call.tool().manifest.clock,
        wall_clock_ns: given.wall_clock_ns,
        seed: given.seed,
        mounts: grant.mounts().to_vec(),
        outward: Outward {
            http: ticket.http(),
            messages: Arc::clone(&call.tool().manifest.messages),
            keys: Arc::clone(&call.tool().manifest.keys),
            ports: executor.ports(&call.caller().principal().tenant, &call.tool().manifest),
            exchanges: given.exchanges.clone(),
            offline: None,
            layer: ground.map(|ground| ground.layer.clone()),
        },
        spool: executor.spool.open(),
        depth: executor.depth_of(call.tool()),
        tape: None,
        cancel: line.cancel(),
        progress: line.progress.clone(),
    }
}

fn host_fault(call: &Call, fault: &HostFault) -> Refusal {
    tracing::error!(call = %call.id(), tool = %call.tool().name, error = %fault, "the host failed while it ran a tool");
    if matches!(fault, HostFault::Overloaded | HostFault::Retired | HostFault::Cancelled) {
        Refusal::new(Code::Overloaded, "no sandbox became free in time").after_ms(1_000)
    } else {
        Refusal::new(Code::Internal, "the host failed while it ran the tool")
    }
}

fn guest_error(error: &GuestError) -> Refusal {
    let (code, kind) = match error.kind {
        GuestErrorKind::InvalidInput => (Code::InvalidInput, "invalid-input"),
        GuestErrorKind::NotFound => (Code::ToolFailed, "not-found"),
        GuestErrorKind::Denied => (Code::ToolFailed, "denied"),
        GuestErrorKind::Conflict => (Code::ToolFailed, "conflict"),
        GuestErrorKind::Transient => (Code::ToolFailed, "transient"),
        GuestErrorKind::Failed => (Code::ToolFailed, "failed"),
    };
    let mut refusal = Refusal::new(code, error.message.clone());
    refusal.hint = format!("the tool reports `{kind}`: {}", code.hint());
    refusal.detail = error.detail.as_deref().and_then(|text| json::parse(text.as_bytes()).ok());
    refusal.fields = error.fields.clone();
    for field in &mut refusal.fields {
        field.pointer.insert_str(0, "/input");
    }
    refusal.retryable = error.kind == GuestErrorKind::Transient;
    refusal.retry_after_ms = error.after_ms;
    refusal
}

fn guest_fault(fault: &Fault, tool: &str) -> Refusal {
    match fault {
        Fault::OutOfFuel => Refusal::new(Code::OutOfFuel, format!("`{tool}` used all of its fuel")),
        Fault::Deadline => {
            Refusal::new(Code::DeadlineExceeded, format!("`{tool}` passed its deadline and was stopped"))
        }
        Fault::Memory { what } => {
            Refusal::new(Code::MemoryExceeded, format!("`{tool}` wanted more {what} than it may have"))
        }
        Fault::OutputTooLarge { limit, size } => Refusal::new(
            Code::OutputTooLarge,
            format!("`{tool}` returned {size} bytes; `limits.output_bytes` allows {limit}"),
        ),
        Fault::StageFull(what) => Refusal::new(Code::MemoryExceeded, format!("`{tool}` staged too much: {what}")),
        Fault::Stale(what) => Refusal::new(Code::StalePlan, format!("the world changed while `{tool}` ran: {what}")),
        Fault::Diverged(what) => Refusal::new(
            Code::PlanDiverged,
            format!("executed again, `{tool}` asked for something else than before: {what}; nothing more was sent"),
        ),
        Fault::Trap(what) => Refusal::new(Code::ToolTrapped, format!("`{tool}` broke: {what}")),
        Fault::Exit(code) => {
            Refusal::new(Code::ToolTrapped, format!("`{tool}` exited with {code} instead of returning"))
        }
        Fault::Cancelled => Refusal::new(Code::DeadlineExceeded, format!("`{tool}` was cancelled")),
    }
}
