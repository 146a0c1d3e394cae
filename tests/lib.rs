//! What tests and benches share: built guests, scratch directories, and one way to run a guest in the sandbox.

pub mod support;
