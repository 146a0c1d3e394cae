//! The nouns of the network: where a request goes, what it may carry, and which addresses it may reach.
//!
//! Everything is parsed once, by the rules of the WHATWG URL standard, and compared in its normal form only: a check that
//! read the text in one way and a connection that read it in another is how such guards fall. Nothing here resolves a
//! name or opens a connection; that is the egress of the host.

pub mod field;
pub mod method;
pub mod origin;
pub mod reach;
pub mod target;
