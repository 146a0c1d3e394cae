//! `calls.cancel`: a call that is known by its own id, or only by that of the request that made it.
//!
//! A client that changes its mind before it heard anything does not know the id of its call; the id of its request it has
//! given itself. That one means something on its own connection only.

use serde::Deserialize;
use serde_json::Value;
use toolkeep_core::id::CallId;

use super::bad;
use crate::daemon::envelope::{self, RequestId};
use crate::daemon::reply::Fault;

/// `calls.cancel`: a call, or the request of this connection that made it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::daemon) struct CancelCall {
    #[serde(default)]
    call: Option<CallId>,
    #[serde(default)]
    request: Option<Value>,
}

/// Which call is to be cancelled.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::daemon) enum Cancelled {
    /// By its id.
    Call(CallId),
    /// By that of the request that made it.
    Request(RequestId),
}

impl CancelCall {
    /// What to cancel.
    ///
    /// # Errors
    /// Neither or both are named, or a request has no such id.
    pub(in crate::daemon) fn target(self) -> Result<Cancelled, Fault> {
        match (self.call, self.request) {
            (Some(call), None) => Ok(Cancelled::Call(call)),
            (None, Some(request)) => envelope::read_id(Some(request))
                .map(Cancelled::Request)
                .map_err(|_| bad("`request` is the id of no request").map_field("/request", "the id of a request")),
            (None, None) | (Some(_), Some(_)) => {
                Err(bad("name either `call` or `request`").map_field("/call", "exactly one of `call` and `request`"))
            }
        }
    }
}
