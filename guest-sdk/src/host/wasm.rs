//! The imports of a component, in the types of the SDK.
//!
//! A function here that a tool never calls leaves no import in its component.

mod keys;
mod request;

use std::path::PathBuf;
use std::time::Duration;

use crate::bindings::toolkeep::tool::{context as imported, log, progress};
use crate::context::{Mode, Principal};
use crate::error::Error;
use crate::log::Level;
use crate::messages::Message;
pub(crate) use keys::{OpenBucket, open_bucket};
pub(crate) use request::send_request;

pub(crate) fn caller() -> Principal {
    let imported::Principal { tenant, user, agent } = imported::caller();
    Principal { tenant, user, agent }
}

pub(crate) fn session_id() -> String {
    imported::session_id()
}

pub(crate) fn authenticated_by() -> String {
    imported::authenticated_by()
}

pub(crate) fn run_id() -> String {
    imported::run_id()
}

pub(crate) fn call_id() -> String {
    imported::call_id()
}

pub(crate) fn mode() -> Mode {
    match imported::call_mode() {
        imported::Mode::Preview => Mode::Preview,
        imported::Mode::Commit => Mode::Commit,
    }
}

pub(crate) fn deadline_left() -> Duration {
    Duration::from_millis(imported::deadline_left_ms())
}

pub(crate) fn fuel_left() -> u64 {
    imported::fuel_left()
}

pub(crate) fn write_log(level: Level, message: &str) {
    let level = match level {
        Level::Debug => log::Level::Debug,
        Level::Info => log::Level::Info,
        Level::Warn => log::Level::Warn,
        Level::Error => log::Level::Error,
    };
    log::write(level, message);
}

pub(crate) fn report_progress(done: u64, total: Option<u64>, message: &str) {
    progress::report(done, total, message);
}

/// Workspaces are preopened at `/<name>`. Whether this one is granted shows at the first use.
#[expect(clippy::unnecessary_wraps, reason = "natively the harness knows which workspaces there are")]
pub(crate) fn workspace_root(name: &str) -> Option<PathBuf> {
    Some(PathBuf::from(format!("/{name}")))
}

pub(crate) fn send_message(message: Message) -> Result<(), Error> {
    use crate::bindings::toolkeep::tool::messages::{self, Error as Refused};
    let Message { channel, to, subject, media_type, body } = message;
    messages::send(&messages::Message { channel, to, subject, media_type, body }).map_err(|refused| match refused {
        Refused::Denied(why) => Error::denied(why),
        Refused::Invalid(why) => Error::invalid_input(why),
        Refused::TooMany => Error::denied("this call has sent as many messages as it may"),
    })
}
