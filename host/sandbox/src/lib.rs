//! Runs one execution of a component over a stage. The only crate that names wasmtime.
//!
//! A component is untrusted code. What it gets is a fresh store, fuel, a deadline, limits on everything that it can make
//! grow, and imports that answer from the stage, a frozen clock and a seed. What comes back is plain owned
//! data: an output or a fault, the staged effects, the recording and the usage. Nothing outside has
//! changed when it returns.
//!
//! Three kinds of failure stay apart to the end: the tool's own error ([`execution::Ended::Error`]), the guest's fault
//! ([`execution::Ended::Fault`]) and a fault of the host ([`fault::HostFault`]).

pub mod beneath;
mod bindings;
mod books;
pub mod capability;
pub mod compile;
pub mod component;
pub mod describe;
pub mod engine;
pub mod execution;
pub mod fault;
mod lane;
mod limiter;
pub mod outbound;
pub mod pool;
pub mod port;
pub mod prescreen;
pub mod recording;
pub mod sandbox;
pub mod stage;
mod state;
pub mod tape;
pub mod typed;
pub mod workspace;
