//! The call that runs on this thread, as the host functions of the SDK see it.
//!
//! Thread-local, so that tests in parallel do not meet. It ends with its guard, also when a tool panics.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use crate::context::{Mode, Principal};
use crate::declaration::Declaration;
use crate::http::{Request, Response};
use crate::messages::Message;
use crate::testing::{LogLine, ProgressReport};

/// What the contract's `context` answers.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) caller: Principal,
    pub(crate) run_id: String,
    pub(crate) call_id: String,
    pub(crate) mode: Mode,
    pub(crate) deadline: Duration,
    pub(crate) fuel: u64,
}

/// Keys with their values, by bucket.
pub(crate) type Buckets = BTreeMap<String, BTreeMap<String, Vec<u8>>>;

/// One call in progress.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) context: Context,
    pub(crate) workspaces: BTreeMap<String, PathBuf>,
    /// Method, URL and what is answered.
    pub(crate) answers: Vec<(String, String, Response)>,
    pub(crate) requests: Vec<Request>,
    pub(crate) channels: BTreeSet<String>,
    pub(crate) messages: Vec<Message>,
    pub(crate) buckets: Buckets,
    /// Keys that were changed, and whether only by adding.
    pub(crate) keys_changed: BTreeMap<(String, String), bool>,
    pub(crate) log: Vec<LogLine>,
    pub(crate) progress: Vec<ProgressReport>,
    /// The tool whose function was entered first.
    pub(crate) declaration: Option<Declaration>,
}

thread_local! {
    static RUNNING: RefCell<Option<Running>> = const { RefCell::new(None) };
}

/// Read something of the call that runs on this thread; nothing outside of a harness.
pub(crate) fn read<T>(look: impl FnOnce(&Running) -> T) -> Option<T> {
    RUNNING.with_borrow(|running| running.as_ref().map(look))
}

/// Change something of the call that runs on this thread; nothing outside of a harness.
pub(crate) fn change<T>(act: impl FnOnce(&mut Running) -> T) -> Option<T> {
    RUNNING.with_borrow_mut(|running| running.as_mut().map(act))
}

/// Note which tool runs. `#[tool]` calls it in native builds; authors never need to.
pub fn entered(declaration: &Declaration) {
    change(|running| {
        running.declaration.get_or_insert(*declaration);
    });
}

/// Ends the call when it goes.
#[derive(Debug)]
pub(crate) struct Guard;

impl Guard {
    /// Start a call.
    ///
    /// # Panics
    /// If one runs already on this thread: a tool cannot call the harness.
    pub(crate) fn start(call: Running) -> Self {
        let before = RUNNING.replace(Some(call));
        assert!(before.is_none(), "a harness is running on this thread already; call tools one after another");
        Self
    }

    /// End the call and take what it left.
    pub(crate) fn finish(self) -> Option<Running> {
        RUNNING.take()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(RUNNING.take());
    }
}
