//! What goes out and what comes back, as plain owned data, and the bounds of both.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use toolkeep_core::effect::Header;
use toolkeep_core::grant::{HttpGrant, HttpTimes};
use toolkeep_core::id::{SecretName, TenantName};
use toolkeep_core::net::method::{Method, NotAMethod};
use toolkeep_core::net::origin::{Origin, UrlError};
use toolkeep_core::net::reach::Network;
use toolkeep_core::net::target::Target;

/// Largest body of a request, in bytes: what an answer may have at most as well. Grants set less.
pub const REQUEST_MAX_BYTES: usize = 32 * 1024 * 1024;

/// A request that was decided.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// For whom; secrets of other tenants do not exist for it.
    pub tenant: TenantName,
    /// Where to; the origin of the grant, which the request's own equalled.
    pub origin: Origin,
    /// The method.
    pub method: Method,
    /// Path and query.
    pub target: Target,
    /// What the guest set, as [`toolkeep_core::net::field::AllowedFields::check`] gave it. What is the host's alone is
    /// refused here once more.
    pub headers: Vec<Header>,
    /// The body; empty for none.
    pub body: Bytes,
    /// Sent as `Idempotency-Key`: visible ASCII.
    pub idempotency_key: Option<String>,
    /// Secrets that go along; each into the slot that the operator bound it to.
    pub secrets: Vec<SecretName>,
    /// Whether the grant opens private networks for this host.
    pub network: Network,
    /// Whether it may change something at its endpoint.
    pub purpose: Purpose,
    /// Asked when the connection stands, right before the first byte leaves.
    pub clearance: Clearance,
}

/// Says at the last moment whether something may leave. The answer must not wait for anything.
#[derive(Clone, Default)]
pub struct Clearance(Option<Arc<dyn Fn() -> bool + Send + Sync>>);

impl Clearance {
    /// One that asks.
    #[must_use]
    pub fn new(allows: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(allows)))
    }

    /// Whether it may leave; always, for one that does not ask.
    #[must_use]
    pub fn allows(&self) -> bool {
        self.0.as_ref().is_none_or(|allows| allows())
    }
}

impl fmt::Debug for Clearance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clearance({})", if self.0.is_some() { "asks" } else { "given" })
    }
}

impl Outgoing {
    /// A request without fields, body and secrets, to global addresses only. Its purpose follows from its method.
    ///
    /// # Errors
    /// The method is not offered, or the URL is not one of a request.
    pub fn new(tenant: TenantName, method: &str, url: &str) -> Result<Self, NotARequest> {
        let method: Method = method.parse()?;
        let (origin, target) = Origin::split_url(url)?;
        Ok(Self {
            tenant,
            origin,
            method,
            target,
            headers: Vec::new(),
            body: Bytes::new(),
            idempotency_key: None,
            secrets: Vec::new(),
            network: Network::Global,
            purpose: if method.is_read() { Purpose::Read } else { Purpose::Write },
            clearance: Clearance::default(),
        })
    }
}

/// What a grant says about where requests go and what goes along.
#[derive(Debug, Clone, Copy)]
pub struct Granted<'a> {
    /// The only origin, as written.
    pub origin: &'a str,
    /// The credential that the host adds.
    pub credential: Option<&'a SecretName>,
    /// Whether the host may be a loopback or private address.
    pub allow_private: bool,
}

impl Outgoing {
    /// A request under a grant, with these fields and this body. Its purpose follows from its method.
    ///
    /// # Errors
    /// It is no request, or its origin is another than the grant's.
    pub fn granted(
        tenant: TenantName,
        (method, url): (&str, &str),
        granted: Granted<'_>,
        headers: &[Header],
        body: Bytes,
    ) -> Result<Self, NotARequest> {
        let outgoing = Self::new(tenant, method, url)?;
        if !granted.origin.parse::<Origin>().is_ok_and(|origin| origin == outgoing.origin) {
            return Err(NotARequest::Origin(outgoing.origin));
        }
        Ok(Self {
            headers: headers.to_vec(),
            body,
            secrets: granted.credential.into_iter().cloned().collect(),
            network: if granted.allow_private { Network::Private } else { Network::Global },
            ..outgoing
        })
    }
}

/// Why method and URL are not those of a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotARequest {
    /// The method.
    #[error(transparent)]
    Method(#[from] NotAMethod),
    /// The URL.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// The origin.
    #[error("`{0}` is not the origin of its grant")]
    Origin(Origin),
}

/// Whether a request may change something at its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// It changes nothing: nobody minds if it is cut off.
    Read,
    /// It may: once begun it is never cut off by a caller that goes away, and a known status counts.
    Write,
}

/// Bounds of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Resolving, connecting and the handshake of TLS, together.
    pub connect: Duration,
    /// From the last byte of the request to the end of the answer's header fields.
    pub first_byte: Duration,
    /// Without a byte, while a body is sent or received.
    pub idle: Duration,
    /// Everything together.
    pub total: Duration,
    /// Bytes of the answer's body.
    pub response_bytes: u64,
    /// Bytes in a second, on the average over a body, that a peer must take or give.
    pub rate: u64,
    /// How long a body may go slower than `rate` at its start.
    pub rate_grace: Duration,
}

impl Default for Limits {
    /// For an ordinary API.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            first_byte: Duration::from_secs(30),
            idle: Duration::from_secs(15),
            total: Duration::from_secs(60),
            response_bytes: 1024 * 1024,
            rate: 128,
            rate_grace: Duration::from_secs(10),
        }
    }
}

impl From<&HttpGrant> for Limits {
    fn from(grant: &HttpGrant) -> Self {
        Self::granted(grant.times, grant.response_bytes)
    }
}

impl Limits {
    /// The most that a grant may ask for; of `rate` the least.
    pub const CEILING: Self = Self {
        connect: Duration::from_secs(60),
        first_byte: Duration::from_secs(300),
        idle: Duration::from_secs(300),
        total: Duration::from_secs(600),
        response_bytes: 32 * 1024 * 1024,
        rate: 1,
        rate_grace: Duration::from_secs(60),
    };

    /// What a grant says; the rates are the defaults.
    #[must_use]
    pub fn granted(times: HttpTimes, response_bytes: u64) -> Self {
        Self {
            connect: Duration::from_millis(times.connect_ms),
            first_byte: Duration::from_millis(times.first_byte_ms),
            idle: Duration::from_millis(times.idle_ms),
            total: Duration::from_millis(times.total_ms),
            response_bytes,
            ..Self::default()
        }
    }

    /// These limits, none beyond the ceiling.
    #[must_use]
    pub fn lowered(self) -> Self {
        let ceiling = Self::CEILING;
        Self {
            connect: self.connect.min(ceiling.connect),
            first_byte: self.first_byte.min(ceiling.first_byte),
            idle: self.idle.min(ceiling.idle),
            total: self.total.min(ceiling.total),
            response_bytes: self.response_bytes.min(ceiling.response_bytes),
            rate: self.rate.max(ceiling.rate),
            rate_grace: self.rate_grace.min(ceiling.rate_grace),
        }
    }
}

/// An answer, with every secret of its request taken out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    /// Status code, 200 to 599 and whatever else a server invents with three digits.
    pub status: u16,
    /// Header fields in the order of their arrival, names in lower case, without those of the connection and without
    /// cookies. A value that is not UTF-8 has each byte as the character of Latin-1 (RFC 9110, section 5.5).
    pub headers: Vec<Header>,
    /// The body as it came: still compressed where `content-encoding` says so. Trailers are dropped.
    pub body: Bytes,
    /// Where the body is only a beginning, why. Never for a read, which fails instead.
    pub cut: Option<Cut>,
    /// Bytes of the request, fields and body, before encryption.
    pub bytes_out: u64,
    /// Bytes of the answer, fields and body, before decryption counted as after.
    pub bytes_in: u64,
    /// Who answered: for the operator, never for the guest.
    pub peer: SocketAddr,
}

/// Why a body is only a beginning, although the status is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cut {
    /// It exceeds the cap.
    TooLarge,
    /// It came too slowly, or not on.
    Slow,
    /// The connection ended.
    Closed,
    /// It is encoded, so that an echo of a secret could not be seen; nothing of it was kept.
    Encoded,
}

#[cfg(test)]
mod tests {
    use super::*;
    use toolkeep_core::grant::HttpText;

    #[test]
    fn limits_follow_from_a_grant_and_never_exceed_the_ceiling() {
        let text = serde_json::json!({"name": "a", "origin": "https://a.example", "connect_ms": 1, "first_byte_ms": 2,
            "idle_ms": 3, "total_ms": 4, "response_bytes": 5});
        let text: HttpText = serde_json::from_value(text).expect("a grant");
        let limits = Limits::from(&text.check().expect("valid"));
        let parts = [limits.connect, limits.first_byte, limits.idle, limits.total].map(|part| part.as_millis());
        assert_eq!((parts, limits.response_bytes), ([1, 2, 3, 4], 5));
        assert_eq!(limits.lowered(), limits);
        let most = Duration::MAX;
        let beyond = Limits {
            connect: most,
            first_byte: most,
            idle: most,
            total: most,
            response_bytes: u64::MAX,
            rate: 0,
            rate_grace: most,
        };
        assert_eq!(beyond.lowered(), Limits::CEILING);
        assert_eq!(Limits::CEILING.lowered(), Limits::CEILING);
    }

    #[test]
    fn a_request_is_made_of_its_method_and_its_url() {
        let new = |method: &str, url: &str| Outgoing::new("local".parse().expect("a tenant"), method, url);
        let request = new("POST", "https://API.example.com:443/v1?a=b").expect("a request");
        assert_eq!(
            (request.origin.to_string().as_str(), request.target.as_str()),
            ("https://api.example.com", "/v1?a=b")
        );
        assert_eq!((request.purpose, request.network), (Purpose::Write, Network::Global));
        assert_eq!(new("HEAD", "https://a.example").expect("a request").purpose, Purpose::Read);
        for (method, url) in [("post", "https://a.example/"), ("GET", "https://a.example/../x"), ("GET", "/x")] {
            assert!(new(method, url).is_err(), "{method} {url}");
        }
    }
}
