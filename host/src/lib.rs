//! Toolkeep: a daemon that runs the tools of AI agents as WebAssembly components, stages what they want to change, decides
//! about the plan, and commits it atomically, once, on record.
//!
//! Modules stand in the order of the path that one call takes ([`call`] shows it on one screen), then what the stages
//! share, then the doors. `host/ARCHITECTURE.md` is the map.

// The path of one call.
pub mod call;

pub mod admit;
pub mod approve;
pub mod authenticate;
pub mod authorize;
pub mod commit;
pub mod decide;
pub mod execute;
pub mod record;
pub mod replay;
pub mod screen;
pub mod seal;
pub mod validate;

// What the stages share.
pub mod alerts;
pub mod ambient;
pub mod artifacts;
pub mod autonomy;
pub mod blobs;
pub mod breakers;
pub mod budget;
pub mod catalog;
pub mod channel;
pub mod checkpoints;
pub mod config;
pub mod egress;
pub mod eval;
pub mod exposure;
pub mod host;
pub mod install;
pub mod kill;
pub mod ledger;
pub mod load;
pub mod log;
pub mod metrics;
pub mod notes;
pub mod notify;
pub mod outbox;
pub mod policy;
mod port;
pub mod proof;
pub mod quota;
pub mod redaction;
pub mod results;
pub mod run_record;
pub mod schema;
pub mod secrets;
pub mod standing;
pub mod throttle;
pub mod trace;
pub mod transaction;
pub mod vault;
pub mod workspaces;

// The doors.
pub mod cli;
pub mod daemon;
