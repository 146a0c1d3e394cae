//! Why there is no answer, and whether the request may have had its effect nevertheless.

use toolkeep_core::net::field::FieldProblem;
use toolkeep_core::net::reach::OutOfReach;

use crate::secrets::{NotASecret, SecretError};

/// A request without a complete answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// No byte of the request left this machine: nothing can have happened at its peer.
    #[error("not sent: {0}")]
    NotSent(Reason),
    /// Some or all of the request was handed to the connection: what happened at the peer is not known.
    #[error("sent, without an answer: {0}")]
    Unknown(Reason),
}

impl SendError {
    /// Why.
    #[must_use]
    pub const fn reason(&self) -> &Reason {
        match self {
            Self::NotSent(reason) | Self::Unknown(reason) => reason,
        }
    }
}

/// Why there is no answer. The texts are fit for an agent: they name no address, no path, no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// An address of the host may not be reached.
    #[error(transparent)]
    OutOfReach(#[from] OutOfReach),
    /// The host has no address.
    #[error("the host has no address")]
    NoAddress,
    /// The host has more addresses than are looked at.
    #[error("the host has too many addresses")]
    TooManyAddresses,
    /// The resolver did not answer, or not in time.
    #[error("the host's name could not be resolved")]
    Resolve,
    /// Nobody accepts connections there.
    #[error("the connection was refused or broke off while it was made: {0}")]
    Connect(std::io::ErrorKind),
    /// The connection was not made in time.
    #[error("no connection within the time for it")]
    ConnectTimeout,
    /// The connection leads to another address than it was made to, or to itself.
    #[error("the connection does not lead to its address")]
    OtherPeer,
    /// TLS failed: a certificate that is not valid for the host, an unknown authority, an old version.
    #[error("TLS: {0}")]
    Tls(String),
    /// A secret cannot be sent.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The value of a secret does not fit its slot.
    #[error("the value of the secret does not fit its slot: {0}")]
    SecretValue(#[from] NotASecret),
    /// A field collides with one of the host's.
    #[error(transparent)]
    Field(#[from] FieldProblem),
    /// The body is larger than any request may be.
    #[error("the body is larger than {} bytes", super::REQUEST_MAX_BYTES)]
    RequestTooLarge,
    /// The whole took too long.
    #[error("no answer within the time for the whole request")]
    TotalTimeout,
    /// Nothing came after the request was sent.
    #[error("no answer began within the time for its first byte")]
    FirstByteTimeout,
    /// Nothing moved.
    #[error("nothing moved for as long as a request may idle")]
    IdleTimeout,
    /// Too little moved.
    #[error("the peer is slower than the lowest rate")]
    TooSlow,
    /// The body of the answer is larger than its cap.
    #[error("the answer is larger than {0} bytes; ask for less, or have the operator raise the cap of the grant")]
    ResponseTooLarge(u64),
    /// The fields of the answer are too many or too long.
    #[error("the answer has too many or too long header fields")]
    HeadTooLarge,
    /// The answer is not HTTP/1.1 as it should be.
    #[error("the answer is not valid HTTP: {0}")]
    Malformed(&'static str),
    /// The peer closed the connection, or it broke.
    #[error("the connection ended before the answer was complete")]
    Closed,
    /// The answer to a request with a secret is compressed, so that an echo of the secret could not be seen.
    #[error("the answer is encoded although it was asked not to be; one to a request with a secret must be readable")]
    Encoded,
    /// A kill switch was set while the connection was made.
    #[error("withheld: it was stopped before anything was sent")]
    Withheld,
    /// The daemon stopped while the request was under way.
    #[error("the daemon stopped while the request was under way")]
    Interrupted,
}

impl Reason {
    /// Whether it is this host that refuses, so that the same request would be refused again.
    #[must_use]
    pub const fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::OutOfReach(_)
                | Self::TooManyAddresses
                | Self::OtherPeer
                | Self::Secret(_)
                | Self::SecretValue(_)
                | Self::Field(_)
                | Self::RequestTooLarge
        )
    }
}
