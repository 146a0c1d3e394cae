//! The front doors from outside: a real daemon, raw bytes on its sockets.
//!
//! What one connection does alone (half lines, slow readers, replies out of order, panics) is tested beside the connection with
//! a double for the plane; here is what only the whole daemon shows.

mod flight;
mod life;
mod planes;
pub(crate) mod running;
mod strict;
