//! The one integration-test binary: every file beside this one is a module of it. One binary links the engine once.
//!
//! A file that is not listed here is not compiled; `tidy` says so.

mod cli;
mod commit;
mod daemon;
mod documentation;
mod doors;
mod egress;
mod hard;
mod ledger;
mod outbox;
mod policy;
mod sandbox;
mod screening;
mod stage;
mod tidy;
