//! Recordings: everything nondeterministic that an execution saw, import call by import call (event format 1).
//!
//! A guest is single-threaded and owns no descriptor, so the calls of its imports with their answers determine it. What is
//! large is content: bytes are kept up to the recording limit of the call, beyond it only their
//! digest. A recording that lost bytes says so, because it cannot be replayed.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// The only format that this version writes.
pub const FORMAT: u32 = 1;

/// What one execution saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recording {
    /// Always [`FORMAT`].
    pub format: u32,
    /// Engine fingerprint: fuel and faults compare only under the same one.
    pub engine: String,
    /// Seed of the guest's randomness, 64 hexadecimal digits.
    pub seed: String,
    /// The frozen wall clock, nanoseconds since the Unix epoch, decimal.
    pub wall_clock_ns: String,
    /// What earlier calls of the same transaction had staged when it started; absent outside of transactions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<Digest>,
    /// Calls of imports, in order.
    pub events: Vec<Event>,
    /// Bytes of content that were left out because of the limit; 0 for a replayable recording.
    pub dropped_bytes: u64,
    /// Events that were left out because of [`EVENTS_MAX`]; 0 for a replayable recording.
    pub dropped_events: u64,
}

/// Most events in one recording: a guest that polls in a loop must not fill the ledger.
pub const EVENTS_MAX: usize = 20_000;

/// One call of an import.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// Interface and function, for example `wasi:filesystem/types#descriptor.stat`.
    pub import: std::borrow::Cow<'static, str>,
    /// What it was asked about: a path, a length, a name. Short text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub about: String,
    /// What it answered.
    pub answer: Answer,
}

/// What an import answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Done, nothing to tell.
    Done,
    /// A short value as text: a number, a time, a stat tuple.
    Value(String),
    /// An error code of the interface.
    Error(String),
    /// Bytes that the guest got.
    Bytes {
        /// Their digest.
        sha256: Digest,
        /// How many.
        length: u64,
        /// Lower-case hexadecimal; absent where only the digest is kept.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        content: Option<String>,
    },
}
