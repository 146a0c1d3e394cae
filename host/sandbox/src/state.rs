//! The state behind one store: everything that the imports of one execution answer from, and the linker that joins both.
//!
//! A state is made per execution and dropped with its store. Parts that a component does not import stay empty: making
//! one costs a few small allocations. Each entry into the host is counted and charged ([`Books`]).

use std::time::Duration;

use tokio::sync::mpsc::Sender;
use wasmtime::Engine;
use wasmtime::component::{HasSelf, Linker, ResourceTable};
use wasmtime_wasi::p2::bindings::{cli, clocks, random as wasi_random, sockets};
use wasmtime_wasi::sockets::{WasiSockets, WasiSocketsCtx, WasiSocketsCtxView};
use wasmtime_wasi_io::bindings::wasi::io;

use crate::bindings::keyvalue::wasi::keyvalue;
use crate::bindings::toolkeep::tool as contract;
use crate::books::Books;
use crate::capability::clock::Clock;
use crate::capability::context::{Context, Progress};
use crate::capability::files::{self, FilesView};
use crate::capability::http::{self, Engine as HttpEngine};
use crate::capability::log::Log;
use crate::capability::random::Random;
use crate::execution::Outward;
use crate::fault::HostFault;
use crate::limiter::Limiter;
use crate::outbound::Outbound;
use crate::recording::Recorder;
use crate::stage::{Stage, StageLimits};

/// What the imports of one execution answer from.
pub(crate) struct State {
    pub(crate) table: ResourceTable,
    pub(crate) limiter: Limiter,
    pub(crate) recorder: Recorder,
    pub(crate) log: Log,
    pub(crate) clock: Clock,
    pub(crate) random: Random,
    pub(crate) context: Context,
    pub(crate) deadline: Duration,
    /// How long the execution may really take: the deadline, except in a replay.
    pub(crate) patience: Duration,
    /// None if the component does not import `wasi:filesystem`.
    pub(crate) stage: Option<Stage>,
    pub(crate) stage_limits: StageLimits,
    /// What may be reached beyond files; given to `outbound` when that is made.
    pub(crate) outward: Outward,
    /// Made when a component first reaches beyond files.
    pub(crate) outbound: Option<Box<Outbound>>,
    pub(crate) http: HttpEngine,
    pub(crate) progress: Option<Sender<Progress>>,
    pub(crate) progress_left: u32,
    /// Made when a component asks for a socket, which it then does not get.
    pub(crate) sockets: Option<WasiSocketsCtx>,
    /// What crossings between guest and host come to.
    pub(crate) books: Books,
}

impl State {
    /// Count and charge one call of an import.
    fn enter(&mut self) -> &mut Self {
        self.books.enter();
        self
    }

    fn files(&mut self) -> FilesView<'_> {
        let state = self.enter();
        FilesView { table: &mut state.table, stage: state.stage.as_ref(), recorder: &state.recorder }
    }

    /// What is staged beside files.
    ///
    /// # Errors
    /// The layer beneath cannot be read.
    pub(crate) fn outbound(&mut self) -> wasmtime::Result<&mut Outbound> {
        let outbound = match self.outbound.take() {
            Some(outbound) => outbound,
            None => Box::new(Outbound::new(std::mem::take(&mut self.outward), self.stage_limits)?),
        };
        Ok(self.outbound.insert(outbound))
    }

    fn sockets(&mut self) -> WasiSocketsCtxView<'_> {
        let state = self.enter();
        // The default context denies every use.
        let ctx = state.sockets.get_or_insert_with(WasiSocketsCtx::default);
        WasiSocketsCtxView { ctx, table: &mut state.table }
    }
}

/// Every import that exists. Whether one gives anything depends on the order of the execution.
pub(crate) fn linker(engine: &Engine) -> Result<Linker<State>, HostFault> {
    let mut linker = Linker::new(engine);
    let joined = add_own(&mut linker)
        .and_then(|()| add_io(&mut linker))
        .and_then(|()| add_command(&mut linker))
        .and_then(|()| files::add_to_linker(&mut linker, State::files))
        .and_then(|()| http::add_to_linker(&mut linker, State::enter))
        .and_then(|()| add_keys(&mut linker))
        .and_then(|()| add_sockets(&mut linker));
    joined.map(|()| linker).map_err(HostFault::engine)
}

fn add_own(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    contract::context::add_to_linker::<State, HasSelf<State>>(linker, State::enter)?;
    contract::log::add_to_linker::<State, HasSelf<State>>(linker, State::enter)?;
    contract::messages::add_to_linker::<State, HasSelf<State>>(linker, State::enter)?;
    contract::progress::add_to_linker::<State, HasSelf<State>>(linker, State::enter)
}

fn add_keys(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    keyvalue::store::add_to_linker::<State, HasSelf<State>>(linker, State::enter)?;
    keyvalue::atomics::add_to_linker::<State, HasSelf<State>>(linker, State::enter)?;
    keyvalue::batch::add_to_linker::<State, HasSelf<State>>(linker, State::enter)
}

fn add_io(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    io::error::add_to_linker::<State, HasSelf<State>>(linker, State::enter)?;
    io::poll::add_to_linker::<State, HasSelf<State>>(linker, State::enter)?;
    io::streams::add_to_linker::<State, HasSelf<State>>(linker, State::enter)?;
    clocks::monotonic_clock::add_to_linker::<State, HasSelf<State>>(linker, State::enter)?;
    clocks::wall_clock::add_to_linker::<State, HasSelf<State>>(linker, State::enter)?;
    wasi_random::random::add_to_linker::<State, HasSelf<State>>(linker, State::enter)?;
    wasi_random::insecure::add_to_linker::<State, HasSelf<State>>(linker, State::enter)?;
    wasi_random::insecure_seed::add_to_linker::<State, HasSelf<State>>(linker, State::enter)
}

fn add_command(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    cli::environment::add_to_linker::<State, HasSelf<State>>(linker, State::enter)?;
    cli::exit::add_to_linker::<State, HasSelf<State>>(linker, State::enter)?;
    cli::stdin::add_to_linker::<State, HasSelf<State>>(linker, State::enter)?;
    cli::stdout::add_to_linker::<State, HasSelf<State>>(linker, State::enter)?;
    cli::stderr::add_to_linker::<State, HasSelf<State>>(linker, State::enter)?;
    cli::terminal_input::add_to_linker::<State, HasSelf<State>>(linker, State::enter)?;
    cli::terminal_output::add_to_linker::<State, HasSelf<State>>(linker, State::enter)?;
    cli::terminal_stdin::add_to_linker::<State, HasSelf<State>>(linker, State::enter)?;
    cli::terminal_stdout::add_to_linker::<State, HasSelf<State>>(linker, State::enter)?;
    cli::terminal_stderr::add_to_linker::<State, HasSelf<State>>(linker, State::enter)
}

fn add_sockets(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let network = sockets::network::LinkOptions::default();
    sockets::network::add_to_linker::<State, WasiSockets>(linker, &network, State::sockets)?;
    sockets::instance_network::add_to_linker::<State, WasiSockets>(linker, State::sockets)?;
    sockets::ip_name_lookup::add_to_linker::<State, WasiSockets>(linker, State::sockets)?;
    sockets::tcp::add_to_linker::<State, WasiSockets>(linker, State::sockets)?;
    sockets::tcp_create_socket::add_to_linker::<State, WasiSockets>(linker, State::sockets)?;
    sockets::udp::add_to_linker::<State, WasiSockets>(linker, State::sockets)?;
    sockets::udp_create_socket::add_to_linker::<State, WasiSockets>(linker, State::sockets)
}
