//! Toolkeep: a daemon that runs the tools of AI agents as WebAssembly components, stages what they want to change, decides
//! about the plan, and commits it atomically, once, on record.
//!
//! Modules stand in the order of the path that one call takes ([`call`] shows it on one screen), then what the stages
//! share, then the doors. `host/ARCHITECTURE.md` is the map.

// The path of one call.
pub mod call;

pub mod authenticate;
pub mod validate;
pub mod authorize;
pub mod admit;
pub mod execute;
pub mod screen;
pub mod seal;
pub mod decide;
pub mod approve;
pub mod commit;
pub mod record;

// What the stages share.
pub mod ambient;
pub mod artifacts;
pub mod blobs;
pub mod catalog;
pub mod config;
pub mod host;
pub mod install;
pub mod ledger;
pub mod load;

// The doors.
pub mod cli;
pub mod daemon;
