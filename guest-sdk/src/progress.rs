//! How far a long call has come. Shown to agents and operators; never kept.
//!
//! At most 1,000 reports a call are passed on: report every hundredth step, not every step.

use crate::host;

/// Report that `done` units are done, of `total` if that is known.
pub fn report(done: u64, total: Option<u64>, message: &str) {
    host::report_progress(done, total, message);
}
