//! Every bound of the doors, with its unit and the reason for its size.
//!
//! A peer of the agent socket may be hostile, so each thing that it can make grow has a bound here: connections, the
//! length and the age of a line, calls in flight, bytes that wait to be read. The longest line itself is a bound of the
//! whole project, [`toolkeep_core::limit::LINE_MAX_BYTES`]. Tests shorten the times through [`Bounds`];
//! there is no configuration for them, because no operator could say what a better value would be.

use std::time::Duration;

use toolkeep_core::limit::LINE_MAX_BYTES;

/// Calls of one connection that may run or wait at one time; the next one is answered `overloaded`. As many as the
/// executions of the daemon: one connection can keep it busy, and what waits for a slow reader stays small.
pub const IN_FLIGHT_MAX: usize = 64;
/// Bytes that may wait for a slow reader before its requests are no longer read: two of the largest replies.
pub const OUTBOUND_MAX_BYTES: usize = 8 * 1024 * 1024;
/// Progress notes of one connection that may wait to be written; more are dropped, because they are only news.
pub const NOTES_MAX: usize = 64;
/// How long a line may take from its first byte to its newline: 4 MiB on a local socket take milliseconds.
pub const LINE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a peer that is nobody by its uid may take to show a credential: it does so in its first line.
pub const PROOF_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a peer may take none of the bytes that wait for it.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a half-closed connection is asked whether the peer is gone: a cancelled call costs at most this much more.
pub const HANGUP_CHECK: Duration = Duration::from_millis(100);
/// Longest request id in bytes: a UUID with a prefix, not a document.
pub const ID_MAX_BYTES: usize = 128;
/// Largest integer that may be a request id, either side of zero: what every JSON reader keeps exactly (2^53 - 1).
pub const ID_MAX_INTEGER: i64 = 9_007_199_254_740_991;
/// Room made before each read, in bytes: an ordinary request in one system call.
pub const READ_CHUNK_BYTES: usize = 16 * 1024;
/// Capacity, in bytes, above which the buffers of a connection are given back when they are empty.
pub const BUFFER_KEPT_BYTES: usize = 256 * 1024;
/// The longest that `approvals.wait` waits, in milliseconds; a client asks again.
pub const WAIT_MAX_MS: u64 = 600_000;
/// How long `approvals.wait` waits if it does not say, in milliseconds.
pub const WAIT_DEFAULT_MS: u64 = 60_000;
/// What a refused call is told to wait, in milliseconds: about the time of a few calls.
pub const RETRY_AFTER_MS: u64 = 100;

/// The bounds of one daemon.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Connections of one socket at one time.
    pub connections: usize,
    /// See [`IN_FLIGHT_MAX`].
    pub in_flight: usize,
    /// See [`OUTBOUND_MAX_BYTES`].
    pub outbound_bytes: usize,
    /// Longest line in bytes, its newline not counted.
    pub line_bytes: usize,
    /// See [`LINE_TIMEOUT`].
    pub line_timeout: Duration,
    /// See [`PROOF_TIMEOUT`].
    pub proof_timeout: Duration,
    /// See [`WRITE_TIMEOUT`].
    pub write_timeout: Duration,
    /// How long a graceful stop waits for calls in flight.
    pub drain: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 256,
            in_flight: IN_FLIGHT_MAX,
            outbound_bytes: OUTBOUND_MAX_BYTES,
            line_bytes: LINE_MAX_BYTES,
            line_timeout: LINE_TIMEOUT,
            proof_timeout: PROOF_TIMEOUT,
            write_timeout: WRITE_TIMEOUT,
            drain: Duration::from_secs(20),
        }
    }
}
