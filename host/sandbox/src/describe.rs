//! Asking a component what its tools are, by running it: for the author's machine, never for the daemon.
//!
//! `toolkeep tools pack` calls `describe` once and writes the answer into the component. The daemon reads what was
//! written. The guest runs in an empty sandbox: no workspace, no log, a fixed clock and a fixed seed, so that the same
//! component always describes itself in the same words.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use toolkeep_core::call::Mode;
use toolkeep_core::capability::ClockGrant;
use toolkeep_core::descriptor::SECTION_MAX_BYTES;
use toolkeep_core::event::Depth;
use toolkeep_core::id::{CallId, NotAnId};
use toolkeep_core::limit::ExecutionLimits;
use toolkeep_core::principal::{Origin, Principal};
use wasmtime::component::Component;

use crate::bindings::GuestPre;
use crate::capability::clock::Timeline;
use crate::capability::context::Context;
use crate::compile::{Refused, prescreen};
use crate::engine::{self, Ticker};
use crate::execution::{self, Asked, Cancel, Ended, Ingredients, Outward, Place};
use crate::fault::{Fault, HostFault};
use crate::lane::Pace;
use crate::prescreen::Contract;
use crate::recording::Recorder;
use crate::state::{self, State};
use crate::typed::Door;

/// Fuel for describing 64 tools with large schemas.
const FUEL: u64 = 1_000_000_000;
/// Time for it.
const DEADLINE: Duration = Duration::from_secs(10);

/// What is said of a component that the compiler gives up on.
const NOT_COMPILED: &str = "the compiler gives up on it; a component that is composed of several, each with a memory of its own, is not \
                            supported";

/// Why there is no description.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoDescription {
    /// It is not a component that could run.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It does not compile, or does not fit the contract.
    #[error("the component cannot be run: {0}")]
    Unfit(String),
    /// It failed while it described itself.
    #[error("`describe` failed: {0}")]
    Fault(Fault),
    /// The host failed.
    #[error(transparent)]
    Host(#[from] HostFault),
}

/// What `describe` of the component answers: a JSON text, not yet checked.
///
/// # Errors
/// The component is refused, cannot run, or fails.
pub async fn describe(wasm: &[u8]) -> Result<String, NoDescription> {
    if prescreen(wasm)?.contract != Contract::Tool {
        return Err(Refused::NotDescribed.into());
    }
    let unfit = |error: wasmtime::Error| NoDescription::Unfit(format!("{error:#}"));
    let engine = engine::plain()?;
    let ticker = Ticker::start()?;
    ticker.add(&engine);
    // The compiler gives up, instead of saying no, on a component whose parts call each other with memories of their own.
    let compiled = catch_unwind(AssertUnwindSafe(|| Component::new(&engine, wasm)));
    let component = compiled.map_err(|_| NoDescription::Unfit(NOT_COMPILED.to_owned()))?.map_err(unfit)?;
    let door =
        state::linker(&engine)?.instantiate_pre(&component).and_then(GuestPre::new).map(Door::Tool).map_err(unfit)?;
    let limits = ExecutionLimits { fuel: FUEL, output_bytes: SECTION_MAX_BYTES as u64, ..ExecutionLimits::default() };
    let ingredients = Ingredients {
        context: nobody().map_err(|error| HostFault::Internal(error.to_string()))?,
        limits: &limits,
        deadline: DEADLINE,
        clock: ClockGrant::Frozen,
        wall_clock_ns: 0,
        seed: [0; 32],
        stage: None,
        outward: Outward::default(),
        recorder: Recorder::new(0, Depth::Off),
        timeline: Timeline::Noting(Recorder::new(0, Depth::Off)),
        withheld: 0,
        patience: DEADLINE,
        progress: None,
    };
    let state = State::new(ingredients, Instant::now());
    let _ticking = ticker.tick();
    let place = Place { fingerprint: engine::fingerprint(&engine).into(), engine, pace: Pace::default() };
    let ran = execution::run(&place, &door, Asked::Describe, &limits, state, &Cancel::new()).await?;
    match ran.ended {
        Ended::Output(text) => Ok(text),
        Ended::Fault(fault) => Err(NoDescription::Fault(fault)),
        Ended::Error(error) => Err(NoDescription::Fault(Fault::Trap(error.message))),
        Ended::Live(call) => {
            Err(NoDescription::Fault(Fault::Trap(format!("it asked for {} {}", call.method, call.url))))
        }
    }
}

/// The caller of a call that nobody made.
fn nobody() -> Result<Context, NotAnId> {
    let principal = Principal { tenant: "none".parse()?, user: "none".parse()?, agent: "none".parse()? };
    let call: CallId = "call_00000000-0000-0000-0000-000000000000".parse()?;
    Ok(Context { principal, origin: Origin::record(), run: String::new(), call, mode: Mode::Preview })
}
