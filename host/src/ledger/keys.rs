//! Idempotency keys: which call a key names, and what a retry is told (D8).
//!
//! Calls that run are remembered in memory only: a daemon that stops forgets them, which releases their keys, unless
//! an intent was made durable first. Calls that came to rest are rows. Between the two, a terminal reply that is
//! enqueued but not yet readable stays in memory until its batch is on disk, so that no retry falls into the gap.

use std::sync::Arc;

use toolkeep_core::digest::Digest;
use toolkeep_core::id::{CallId, ToolName};
use toolkeep_core::principal::Principal;

/// A call that wants to be known by a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyClaim {
    /// Who acts. Keys of different principals never meet.
    pub principal: Principal,
    /// Which tool.
    pub tool: ToolName,
    /// The key.
    pub key: Arc<str>,
    /// Digest of tool, input, mode and transaction.
    pub request: Digest,
    /// The call that would be made.
    pub call: CallId,
}

/// What a key names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// Nothing yet: the call may run. It ends by `record_call`, `propose`, `outcome`, or `release_key`.
    Fresh,
    /// A call that ended: this is its reply, byte for byte.
    Stored {
        /// The call.
        call: CallId,
        /// Its reply.
        reply: Arc<str>,
    },
    /// A call that runs now.
    InFlight {
        /// The call.
        call: CallId,
    },
    /// A call that waits for an approval, or for a commit of its preview: its reply as it stands.
    Unfinished {
        /// The call.
        call: CallId,
        /// Its reply so far.
        reply: Arc<str>,
    },
    /// Another request.
    Mismatch,
}
