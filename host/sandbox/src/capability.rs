//! What a guest may ask of the host: one file per interface family, all over the state of one execution.
//!
//! Everything is inert until an order grants it: no environment, no arguments, a closed standard input, a
//! frozen clock, seeded randomness, no workspace, no origin, no bucket, no channel. Nothing here holds a resource of the
//! kernel on behalf of the guest, except the stage behind `files`; what leaves the process goes through a port.

pub(crate) mod clock;
mod command;
pub mod context;
pub mod files;
pub(crate) mod http;
pub mod keys;
pub mod log;
pub mod messages;
mod poll;
pub(crate) mod random;
mod stream;
