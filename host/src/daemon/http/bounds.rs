//! Every bound of the HTTP door, with its unit and the reason for its size.
//!
//! Whoever reaches the door may be hostile: a page in a browser can send requests to a loopback address. Tests shorten the
//! times through [`HttpBounds`]; there is no configuration for them, because no operator could say what a better value
//! would be.

use std::time::Duration;

use toolkeep_core::limit::LINE_MAX_BYTES;

/// Connections at one time; the next one is told `503` and closed. A collector, a console and some clients need a few each.
pub const CONNECTIONS_MAX: usize = 128;
/// Header fields of one request: browsers send about twenty.
pub const FIELDS_MAX: usize = 64;
/// Bytes of the request line and all header fields.
pub const HEAD_MAX_BYTES: usize = 32 * 1024;
/// Bytes of a request's body: as long as a line of a socket may be.
pub const BODY_MAX_BYTES: usize = LINE_MAX_BYTES;
/// How long a connection may take until a request's head is there, from when it could be sent: idle time counts.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the body of a request may take from its head on.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a peer may take none of the bytes that wait for it.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an answer about the daemon itself may take: it reads a few rows.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes of TLS that are under way at one time; the next connection is closed. Half of them may be somebody's who never ends
/// one, and the connections that are open keep their places.
pub const HANDSHAKES_MAX: usize = 32;
/// How long a handshake may take: three round trips over a bad line.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a peer that is sent away may take to hear it, and how long a stop leaves a connection that is asking nothing.
pub const FAREWELL: Duration = Duration::from_secs(1);
/// Origins and hosts that the configuration may name, each.
pub const NAMES_MAX: usize = 100;

/// The bounds of one door.
#[derive(Debug, Clone, Copy)]
pub struct HttpBounds {
    /// See [`CONNECTIONS_MAX`].
    pub connections: usize,
    /// See [`HANDSHAKES_MAX`].
    pub handshakes: usize,
    /// See [`HANDSHAKE_TIMEOUT`].
    pub handshake: Duration,
    /// See [`BODY_MAX_BYTES`].
    pub body_bytes: usize,
    /// See [`HEAD_TIMEOUT`].
    pub head: Duration,
    /// See [`BODY_TIMEOUT`].
    pub body: Duration,
    /// See [`WRITE_TIMEOUT`].
    pub write: Duration,
    /// See [`ANSWER_TIMEOUT`].
    pub answer: Duration,
}

impl Default for HttpBounds {
    fn default() -> Self {
        Self {
            connections: CONNECTIONS_MAX,
            handshakes: HANDSHAKES_MAX,
            handshake: HANDSHAKE_TIMEOUT,
            body_bytes: BODY_MAX_BYTES,
            head: HEAD_TIMEOUT,
            body: BODY_TIMEOUT,
            write: WRITE_TIMEOUT,
            answer: ANSWER_TIMEOUT,
        }
    }
}
