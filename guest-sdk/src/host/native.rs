//! The host as the test harness plays it.
//!
//! Outside of a harness (a tool's function called directly) there is a caller called `nobody`, no
//! workspace, and log and progress go nowhere.

use std::path::PathBuf;
use std::time::Duration;

use crate::context::{Mode, Principal};
use crate::log::Level;
use crate::testing::running;
use crate::testing::{LogLine, ProgressReport};

pub(crate) fn caller() -> Principal {
    running::read(|call| call.context.caller.clone()).unwrap_or_else(|| Principal {
        tenant: "nobody".to_owned(),
        user: "nobody".to_owned(),
        agent: "nobody".to_owned(),
    })
}

pub(crate) fn run_id() -> String {
    running::read(|call| call.context.run_id.clone()).unwrap_or_default()
}

pub(crate) fn call_id() -> String {
    running::read(|call| call.context.call_id.clone()).unwrap_or_default()
}

pub(crate) fn mode() -> Mode {
    running::read(|call| call.context.mode).unwrap_or(Mode::Preview)
}

pub(crate) fn deadline_left() -> Duration {
    running::read(|call| call.context.deadline).unwrap_or(Duration::MAX)
}

pub(crate) fn fuel_left() -> u64 {
    running::read(|call| call.context.fuel).unwrap_or(u64::MAX)
}

pub(crate) fn write_log(level: Level, message: &str) {
    running::change(|call| call.log.push(LogLine { level, message: message.to_owned() }));
}

pub(crate) fn report_progress(done: u64, total: Option<u64>, message: &str) {
    running::change(|call| call.progress.push(ProgressReport { done, total, message: message.to_owned() }));
}

pub(crate) fn workspace_root(name: &str) -> Option<PathBuf> {
    running::read(|call| call.workspaces.get(name).cloned()).flatten()
}
