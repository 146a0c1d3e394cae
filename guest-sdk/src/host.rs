//! The host's side of the contract: the imports in a component, the test harness in a native build.
//!
//! This is the only place that tells the two apart; everything above calls the functions here.

#[cfg(not(target_family = "wasm"))]
mod native;
#[cfg(target_family = "wasm")]
mod wasm;

#[cfg(not(target_family = "wasm"))]
pub(crate) use native::{
    OpenBucket, authenticated_by, call_id, caller, deadline_left, fuel_left, mode, open_bucket, report_progress,
    run_id, send_message, send_request, session_id, workspace_root, write_log,
};
#[cfg(target_family = "wasm")]
pub(crate) use wasm::{
    OpenBucket, authenticated_by, call_id, caller, deadline_left, fuel_left, mode, open_bucket, report_progress,
    run_id, send_message, send_request, session_id, workspace_root, write_log,
};
