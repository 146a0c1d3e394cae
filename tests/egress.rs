//! Outgoing requests against real peers on loopback, most of them hostile, and the broker of secrets (T-N1 … T-N10, T-S1).
//!
//! A peer is a listener in this process that says exactly the bytes that a test wrote down and keeps exactly the bytes
//! that it was sent.

mod brokered;
pub(crate) mod echo;
mod guard;
mod hygiene;
pub(crate) mod peer;
mod sending;
mod slow;
mod ssrf;
mod tls;
mod world;
