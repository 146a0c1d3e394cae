//! One execution: a fresh store, one call into the guest, and everything that came of it as plain owned data.
//!
//! The order says what the guest gets; nothing else reaches it. The call ends by itself, by fuel, at its deadline or when
//! it is cancelled, also while the guest waits inside of the host. However it ends, the store is dropped before anything
//! else happens, and only an execution that returned an output has effects.

mod closing;
mod ending;
mod sealing;

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::Sender;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use toolkeep_core::call::Usage;
use toolkeep_core::capability::ClockGrant;
use toolkeep_core::digest::{DIGEST_BYTES, Digest};
use toolkeep_core::effect::Effect;
use toolkeep_core::event::{Depth, Recording};
use toolkeep_core::grant::{HttpGrant, KeysGrant, MessageGrant};
use toolkeep_core::id::ToolName;
use toolkeep_core::limit::ExecutionLimits;
use toolkeep_core::refusal::FieldProblem;
use toolkeep_core::wit::Label;
use wasmtime::component::ResourceTable;
use wasmtime::{Engine, Store, UpdateDeadline};

use crate::bindings::contract;
use crate::books::{self, Books};
use crate::capability::clock::{Clock, Timeline};
use crate::capability::context::{Context, PROGRESS_MAX, Progress};
use crate::capability::http::Engine as HttpEngine;
use crate::capability::log::{Log, LogLine};
use crate::capability::random::Random;
use crate::fault::{Fault, HostFault, Stop};
use crate::lane::Pace;
use crate::limiter::Limiter;
use crate::pool::Loaded;
use crate::port::{Exchange, HttpCall, Ports};
use crate::recording::{Frame, Kept, NotingKeys, Recorder};
use crate::stage::{Content, Mount, Spool, Stage, StageLimits, Staged};
use crate::state::State;
use crate::tape::{Matching, Tape, TapeKeys};
use crate::typed::Door;

/// Bytes that one call between guest and host may carry: the largest output with room for its encoding.
pub(crate) const CROSSING_MAX_BYTES: usize = 8 * 1024 * 1024;
/// Problems with fields that one error of a tool may name; a model cannot use more.
pub const FIELDS_MAX: usize = 100;

/// How many times its deadline a replay may really take: its fuel ends it, and it may run behind the calls of others.
const PATIENCE: u32 = 4;
/// And this, because a short deadline is none for a machine that is busy.
const PATIENCE_MORE: Duration = Duration::from_secs(20);

/// How long a replay may really take. One that took as long was cut off by the machine, and says nothing about its tool.
#[must_use]
pub const fn patience(deadline: Duration) -> Duration {
    deadline.saturating_mul(PATIENCE).saturating_add(PATIENCE_MORE)
}

/// Everything that one execution gets.
#[derive(Debug)]
pub struct Order {
    /// What runs.
    pub loaded: Arc<Loaded>,
    /// What is called inside of the component.
    pub entry: Entry,
    /// Its input: a JSON text that was checked against its schema.
    pub input: Arc<str>,
    /// What it learns about its call.
    pub context: Context,
    /// What it may use.
    pub limits: ExecutionLimits,
    /// How long it may take, from now; at most `limits.deadline_ms`, less if the caller asked for less.
    pub deadline: Duration,
    /// Which clock it sees.
    pub clock: ClockGrant,
    /// The wall clock at admission, nanoseconds since the Unix epoch.
    pub wall_clock_ns: u64,
    /// Seed of its randomness.
    pub seed: [u8; DIGEST_BYTES],
    /// The workspaces that it sees.
    pub mounts: Vec<Mount>,
    /// What it may reach beyond files.
    pub outward: Outward,
    /// Where large contents go.
    pub spool: Spool,
    /// How much of it is recorded.
    pub depth: Depth,
    /// What answers in the place of the world: this is a replay. `mounts` lie on it too, then.
    pub tape: Option<Playing>,
    /// Ends it early.
    pub cancel: Cancel,
    /// Who hears how far it has come.
    pub progress: Option<Sender<Progress>>,
}

/// What is called inside of a component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A tool of a component that was built with the SDK.
    Tool(ToolName),
    /// A function that the component exports.
    Function(Label),
}

/// A replay.
#[derive(Debug, Clone)]
pub struct Playing {
    /// What answers.
    pub tape: Arc<Tape>,
    /// Where the recorded execution was stopped from outside, in fuel; nothing if it ended by itself.
    pub stopped_at: Option<u64>,
    /// Whether it goes on behind the calls of others.
    pub behind: bool,
}

/// What an execution may reach beyond files, and what is already staged there.
#[derive(Debug, Clone, Default)]
pub struct Outward {
    /// Origins that it may send requests to.
    pub http: Arc<[HttpGrant]>,
    /// Channels that it may send messages through.
    pub messages: Arc<[MessageGrant]>,
    /// Buckets of keys that it may use.
    pub keys: Arc<[KeysGrant]>,
    /// Where what it reads comes from.
    pub ports: Ports,
    /// Exchanges of an earlier execution of the same call, in order. A request is answered from here as long as it is
    /// the same as there; one that differs ends the execution with [`Fault::Diverged`], and nothing is sent.
    pub exchanges: Vec<Exchange>,
    /// Set in a replay, where nothing is sent: how requests find their exchanges. [`Order::tape`] sets it.
    pub offline: Option<Matching>,
    /// What earlier calls of the same transaction staged.
    pub layer: Option<Layer>,
}

/// Effects that lie over the world before an execution starts: those of earlier calls of its transaction.
#[derive(Debug, Clone, Default)]
pub struct Layer {
    /// The effects, as a stage seals them.
    pub effects: Vec<Effect>,
    /// What they write, by digest.
    pub contents: BTreeMap<Digest, Content>,
}

/// Everything that came of one execution.
#[derive(Debug)]
pub struct Execution {
    /// How it ended.
    pub ended: Ended,
    /// What it wants to change; nothing but the breaches unless it ended with an output.
    pub staged: Staged,
    /// What it saw.
    pub recording: Recording,
    /// Contents that are kept beside the recording.
    pub kept: Kept,
    /// The exchanges with other systems, in order; those that it was given are among them.
    pub exchanges: Vec<Exchange>,
    /// What it used. `wall_ms` is the time of the execution alone.
    pub usage: Usage,
    /// What it said and printed.
    pub log: Vec<LogLine>,
    /// Bytes of text that the log dropped.
    pub log_dropped: u64,
}

/// How an execution ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// With a text that the tool calls its output; whether it is valid is for the caller to check.
    Output(String),
    /// With an error of the tool's own.
    Error(GuestError),
    /// At a request that writes and whose answer the tool needs. What was staged so far is sealed with it; when the request
    /// was sent, the call is executed again with its exchange.
    Live(Box<HttpCall>),
    /// By a fault of the guest.
    Fault(Fault),
}

/// A tool's own error. All texts come from an untrusted author.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestError {
    /// Which kind it says it is.
    pub kind: GuestErrorKind,
    /// At most [`toolkeep_core::limit::MESSAGE_MAX_BYTES`].
    pub message: String,
    /// Its own error value as JSON text, not yet checked.
    pub detail: Option<String>,
    /// At most [`FIELDS_MAX`].
    pub fields: Vec<FieldProblem>,
    /// How long to wait before the next attempt, in milliseconds; only with [`GuestErrorKind::Transient`].
    pub after_ms: Option<u64>,
}

/// The kinds of a tool's own errors, as the contract has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestErrorKind {
    /// The input makes no sense to the tool.
    InvalidInput,
    /// Something that the input names does not exist.
    NotFound,
    /// The tool refuses.
    Denied,
    /// The world is in the wrong state.
    Conflict,
    /// It may work later.
    Transient,
    /// Everything else.
    Failed,
}

/// Ends an execution early, from anywhere. Cheap to clone; all clones are the same switch.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<Switch>);

#[derive(Debug, Default)]
struct Switch {
    set: AtomicBool,
    changed: Notify,
}

impl Cancel {
    /// A switch that is not set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Set it, for good.
    pub fn cancel(&self) {
        self.0.set.store(true, Ordering::Release);
        self.0.changed.notify_waiters();
    }

    /// Whether it is set.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.set.load(Ordering::Acquire)
    }

    /// Wait until it is set.
    pub async fn cancelled(&self) {
        let changed = self.0.changed.notified();
        if !self.is_cancelled() {
            changed.await;
        }
    }
}

/// Where an execution takes place.
pub(crate) struct Place {
    pub(crate) engine: Engine,
    pub(crate) fingerprint: Arc<str>,
    /// How often it was interrupted so far.
    pub(crate) pace: Pace,
}

/// What is asked of the guest.
pub(crate) enum Asked<'a> {
    Invoke { entry: &'a Entry, input: &'a str, output_bytes: u64 },
    Describe,
}

/// What is known when the store is gone.
pub(crate) struct Ran {
    pub(crate) ended: Ended,
    pub(crate) fuel: u64,
    pub(crate) state: State,
}

/// How the call into the guest came to its end.
enum End {
    Returned(wasmtime::Result<Result<String, contract::Error>>),
    Panicked(String),
    Deadline,
    Cancelled,
}

/// The parts of an order that a state is made of.
pub(crate) struct Ingredients<'a> {
    pub(crate) context: Context,
    pub(crate) limits: &'a ExecutionLimits,
    pub(crate) deadline: Duration,
    pub(crate) clock: ClockGrant,
    pub(crate) wall_clock_ns: u64,
    pub(crate) seed: [u8; DIGEST_BYTES],
    pub(crate) stage: Option<Stage>,
    pub(crate) outward: Outward,
    pub(crate) recorder: Recorder,
    pub(crate) timeline: Timeline,
    pub(crate) withheld: u64,
    /// How long it may really take; the deadline, except in a replay.
    pub(crate) patience: Duration,
    pub(crate) progress: Option<Sender<Progress>>,
}

impl State {
    pub(crate) fn new(ingredients: Ingredients<'_>, started: Instant) -> Self {
        let Ingredients { context, limits, deadline, clock, wall_clock_ns, seed, stage, outward, progress, .. } =
            ingredients;
        let Ingredients { recorder, timeline, withheld, patience, .. } = ingredients;
        let mut table = ResourceTable::new();
        table.set_max_capacity(limits.handles as usize);
        Self {
            table,
            limiter: Limiter::new(limits.memory_bytes, limits.table_elements),
            recorder,
            log: Log::new(limits.log_bytes),
            clock: Clock::new(clock, wall_clock_ns, started, timeline),
            random: Random::new(seed, limits.random_bytes),
            context,
            deadline,
            patience,
            stage,
            stage_limits: stage_limits(limits),
            outward,
            outbound: None,
            http: HttpEngine::default(),
            progress,
            progress_left: PROGRESS_MAX,
            sockets: None,
            books: Books::new(limits.fuel, withheld),
        }
    }
}

/// Run one call to its end and drop its store.
pub(crate) async fn run(
    place: &Place,
    door: &Door,
    asked: Asked<'_>,
    limits: &ExecutionLimits,
    state: State,
    cancel: &Cancel,
) -> Result<Ran, HostFault> {
    let deadline = state.patience;
    let mut store = fresh_store(place, limits, state)?;
    let end = {
        let called = pin!(call(&mut store, door, asked));
        drive(called, deadline, cancel).await
    };
    let left = store.get_fuel().unwrap_or(0);
    let mut state = store.into_data();
    let ended = ending::judge(end, limits, &mut state)?;
    // Fuel is checked at functions and loops, so the last steps may have overdrawn it. What returned with nothing left
    // has not returned within its fuel.
    let ended = if left == 0 && matches!(ended, Ended::Output(_) | Ended::Error(_)) {
        Ended::Fault(Fault::OutOfFuel)
    } else {
        ended
    };
    Ok(Ran { ended, fuel: limits.fuel.saturating_sub(left), state })
}

fn fresh_store(place: &Place, limits: &ExecutionLimits, state: State) -> Result<Store<State>, HostFault> {
    let ends = Instant::now().checked_add(state.patience);
    let mut store = Store::new(&place.engine, state);
    store.limiter(|state| &mut state.limiter);
    store.set_fuel(limits.fuel).map_err(HostFault::engine)?;
    store.set_hostcall_fuel(CROSSING_MAX_BYTES);
    store.set_max_component_handles(limits.handles as usize);
    store.set_epoch_deadline(1);
    // Every epoch the guest lets others run, which is also when it can be cancelled; past its end it traps.
    let pace = place.pace.clone();
    store.epoch_deadline_callback(move |_| {
        pace.interrupted();
        let over = ends.is_some_and(|ends| Instant::now() >= ends);
        Ok(if over { UpdateDeadline::Interrupt } else { UpdateDeadline::Yield(1) })
    });
    books::keep(&mut store);
    Ok(store)
}

async fn call(
    store: &mut Store<State>,
    door: &Door,
    asked: Asked<'_>,
) -> wasmtime::Result<Result<String, contract::Error>> {
    match (door, asked) {
        (Door::Tool(ready), Asked::Invoke { entry: Entry::Tool(name), input, .. }) => {
            let guest = ready.instantiate_async(&mut *store).await?;
            guest.toolkeep_tool_tool().call_invoke(store, name.as_str(), input).await
        }
        (Door::Functions(typed), Asked::Invoke { entry: Entry::Function(label), input, output_bytes }) => {
            // Boxed, so that calls of the other kind are not moved about with room for this one.
            Box::pin(typed.call(store, label, input, output_bytes)).await
        }
        (Door::Tool(ready), Asked::Describe) => {
            let guest = ready.instantiate_async(&mut *store).await?;
            guest.toolkeep_tool_tool().call_describe(store).await.map(Ok)
        }
        (Door::Tool(_), Asked::Invoke { .. }) => Err(stop("the component is called by the names of its tools only")),
        (Door::Functions(_), _) => Err(stop("the component is called by its functions only")),
    }
}

fn stop(why: &str) -> wasmtime::Error {
    Stop::from(Fault::Trap(why.to_owned())).into()
}

/// Let the call run until it returns, panics, takes too long or is cancelled.
async fn drive(
    mut call: Pin<&mut impl Future<Output = wasmtime::Result<Result<String, contract::Error>>>>,
    deadline: Duration,
    cancel: &Cancel,
) -> End {
    let guarded = poll_fn(|context| {
        // A guest that is cancelled while it lets others run is not run again.
        if cancel.is_cancelled() {
            return Poll::Ready(End::Cancelled);
        }
        let polled = catch_unwind(AssertUnwindSafe(|| Pin::as_mut(&mut call).poll(context)));
        match polled {
            Ok(poll) => poll.map(End::Returned),
            Err(panic) => Poll::Ready(End::Panicked(panic_text(&*panic))),
        }
    });
    tokio::select! {
        biased;
        end = guarded => end,
        () = cancel.cancelled() => End::Cancelled,
        () = tokio::time::sleep(deadline) => End::Deadline,
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a text").to_owned()
}

/// Carry out an order on the engine that its component was loaded for.
pub(crate) async fn carry_out(
    mut order: Order,
    place: Place,
    slot: OwnedSemaphorePermit,
) -> Result<Execution, HostFault> {
    let started = Instant::now();
    let door = order.loaded.ready().ok_or(HostFault::Retired)?;
    let limits = stage_limits(&order.limits);
    let given = closing::given(&order);
    let source = Source::of(&mut order);
    let stage = order.loaded.uses_files().then(|| {
        let stage = Stage::new(order.mounts, limits, order.spool).with_wall_clock(order.wall_clock_ns);
        if source.notes { stage.noting(source.recorder.clone()) } else { stage }
    });
    let carried = match &order.outward.layer {
        None => sealing::Carried::default(),
        Some(layer) => sealing::Carried::beneath(layer, stage.as_ref())?,
    };
    let mut state = State::new(
        Ingredients {
            context: order.context,
            limits: &order.limits,
            deadline: order.deadline,
            clock: order.clock,
            wall_clock_ns: order.wall_clock_ns,
            seed: order.seed,
            stage: stage.clone(),
            outward: order.outward,
            recorder: source.recorder,
            timeline: source.timeline,
            withheld: source.withheld,
            patience: source.patience,
            progress: order.progress,
        },
        started,
    );
    if state.outward.layer.is_some() {
        state.outbound().map_err(|error| HostFault::Stage(format!("{error:#}")))?;
    }
    let asked = Asked::Invoke { entry: &order.entry, input: &order.input, output_bytes: order.limits.output_bytes };
    let Ran { ended, fuel, state } = run(&place, &door, asked, &order.limits, state, &order.cancel).await?;
    drop(slot);
    let (log, log_dropped) = state.log.finish();
    let (recorder, off) = (state.recorder.clone(), state.clock.is_off());
    let (memory_peak, host_calls) = (state.limiter.memory_peak(), state.books.host_calls);
    // Streams, descriptors and futures of the guest hold the stage and what is under way.
    let State { outbound, outward, .. } = state;
    let (http_requests, cost_usd) =
        outbound.as_deref().map(|outbound| outbound.exchanges.metered()).unwrap_or_default();
    // What was never asked for again is missing as well.
    let unasked = !outward.exchanges.is_empty();
    let unasked = unasked && outward.offline != Some(Matching::ByContent);
    let ended = sealing::diverged(ended, (unasked, off), outbound.as_deref());
    let (ended, staged, exchanges) = sealing::sealed(ended, stage, carried, outbound, limits).await?;
    let wall_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let usage = Usage { fuel, wall_ms, memory_peak, host_calls, http_requests, cost_usd };
    match ended {
        Ended::Fault(Fault::Stale(_)) => recorder.lose("the workspace changed while the tool ran"),
        Ended::Fault(Fault::Diverged(_)) => {
            recorder.lose("it asked for something else than an earlier execution of the call");
        }
        _ => {}
    }
    let end = closing::end(&ended, fuel, &staged.effects, (&log, log_dropped));
    let frame = Frame {
        engine: place.fingerprint.to_string(),
        seed: order.seed,
        wall_clock_ns: order.wall_clock_ns,
        given,
        end,
    };
    let (recording, kept) = recorder.finish(frame, &exchanges);
    Ok(Execution { ended, staged, recording, kept, exchanges, usage, log, log_dropped })
}

/// Where an execution gets its answers from, and whether they are noted.
struct Source {
    recorder: Recorder,
    timeline: Timeline,
    notes: bool,
    withheld: u64,
    /// How long it may really take.
    patience: Duration,
}

impl Source {
    /// The world, or the tape that the order brings, which takes the place of everything that the order could reach.
    fn of(order: &mut Order) -> Self {
        let Some(Playing { tape, stopped_at, .. }) = order.tape.take() else {
            let notes = order.depth == Depth::Full;
            let recorder = Recorder::new(order.limits.recording_bytes, order.depth);
            if let Some(keys) = order.outward.ports.keys.take_if(|_| notes) {
                order.outward.ports.keys = Some(Arc::new(NotingKeys { keys, recorder: recorder.clone() }));
            }
            let (timeline, patience) = (Timeline::Noting(recorder.clone()), order.deadline);
            return Self { timeline, recorder, notes, withheld: 0, patience };
        };
        let bounded = stopped_at.map_or(order.limits.fuel, |fuel| fuel.min(order.limits.fuel)).max(1);
        let withheld = order.limits.fuel.saturating_sub(bounded);
        order.limits.fuel = bounded;
        order.outward.exchanges = tape.exchanges();
        order.outward.offline = Some(tape.matching());
        let timeline = Timeline::told(tape.moments());
        order.outward.ports = Ports { requests: None, keys: Some(Arc::new(TapeKeys(tape))) };
        let patience = patience(order.deadline);
        Self { recorder: Recorder::new(0, Depth::Off), timeline, notes: false, withheld, patience }
    }
}

const fn stage_limits(limits: &ExecutionLimits) -> StageLimits {
    StageLimits { bytes: limits.stage_bytes, effects: limits.stage_effects }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3_600);

    #[tokio::test]
    async fn t_r11_a_panic_of_a_host_function_stops_at_the_job() {
        #[expect(clippy::unused_async, reason = "stands for a call into a guest")]
        async fn panics() -> wasmtime::Result<Result<String, contract::Error>> {
            panic!("on purpose")
        }
        let end = drive(pin!(panics()), LONG, &Cancel::new()).await;
        assert!(matches!(end, End::Panicked(text) if text == "on purpose"));
    }

    #[tokio::test]
    async fn r03_a_call_that_waits_inside_of_the_host_ends_at_its_deadline_or_when_cancelled() {
        let end = drive(pin!(std::future::pending()), Duration::ZERO, &Cancel::new()).await;
        assert!(matches!(end, End::Deadline));
        let cancel = Cancel::new();
        cancel.cancel();
        assert!(matches!(drive(pin!(std::future::pending()), LONG, &cancel).await, End::Cancelled));
        let cancel = Cancel::new();
        let never = pin!(std::future::pending());
        let (end, ()) = tokio::join!(drive(never, LONG, &cancel), async { cancel.clone().cancel() });
        assert!(matches!(end, End::Cancelled));
    }
}
