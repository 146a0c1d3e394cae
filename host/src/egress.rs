//! The egress: the only place that opens a connection to somewhere else.
//!
//! A request comes here after everything about it was decided. The name is resolved once, every answer must be an address
//! that may be reached, the connection goes to that very address, the peer is checked. Nothing is followed, negotiated,
//! unpacked or taken from the environment: no redirects, no proxies, no compression, no HTTP/2, no connection that two
//! requests share. Secrets are put in last and taken out of the answer first.
//!
//! What the caller learns of a failure is above all whether a byte of the request may have left: see [`SendError`].

mod dial;
mod exchange;
mod failure;
mod outgoing;
mod pace;
mod resolve;
mod stream;
mod tls;

use std::path::PathBuf;
use std::sync::Arc;

use http::HeaderMap;
use toolkeep_core::net::origin::{HostName, Scheme};
use toolkeep_core::net::reach::Network;

use crate::log;
use crate::secrets::Secrets;
pub use failure::{Reason, SendError};
pub use outgoing::{Clearance, Cut, Granted, Incoming, Limits, NotARequest, Outgoing, Purpose, REQUEST_MAX_BYTES};
pub use resolve::{Answer, Resolver, Script};
pub use stream::GuardedStream;
use tls::Tls;
pub use tls::TlsError;

/// What the operator says about outgoing connections.
#[derive(Debug, Clone, Default)]
pub struct EgressConfig {
    /// Certificates, PEM, of authorities that are trusted beside the public ones.
    pub ca_file: Option<PathBuf>,
}

/// Sends requests. Cheap to clone; clones share one configuration.
#[derive(Debug, Clone)]
pub struct Egress(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    resolver: Resolver,
    tls: Tls,
    secrets: Secrets,
}

/// A server that speaks something else than HTTP, such as a mail server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its host; where TLS is spoken, its certificate must name it.
    pub host: HostName,
    /// Its port.
    pub port: u16,
    /// Whether TLS is spoken from the first byte.
    pub protection: Protection,
    /// Which addresses it may have.
    pub network: Network,
}

/// Whether a connection is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// TLS from the first byte.
    Tls,
    /// Nothing.
    Plain,
}

impl Egress {
    /// Read the certificates of the configuration.
    ///
    /// # Errors
    /// The file of certificates cannot be used.
    pub fn new(config: &EgressConfig, resolver: Resolver, secrets: Secrets) -> Result<Self, TlsError> {
        Ok(Self(Arc::new(Parts { resolver, tls: Tls::new(config.ca_file.as_deref())?, secrets })))
    }

    /// The broker, to check what a grant names.
    #[must_use]
    pub fn secrets(&self) -> &Secrets {
        &self.0.secrets
    }

    /// Send one request, once, and take its answer.
    ///
    /// A read ends when its future is dropped. A write goes on in a task of its own: nobody who stops waiting can leave it
    /// half sent. Limits beyond [`Limits::CEILING`] are lowered to it.
    ///
    /// # Errors
    /// There is no complete answer; the variant says whether the request may have reached its peer.
    pub async fn send(&self, request: Outgoing, limits: Limits) -> Result<Incoming, SendError> {
        self.send_with(request, HeaderMap::new(), limits).await
    }

    /// The same with fields that the operator of the daemon wrote, a credential among them perhaps. They are never told to
    /// anybody, and never a guest's.
    ///
    /// # Errors
    /// As [`Egress::send`].
    pub async fn send_with(&self, request: Outgoing, own: HeaderMap, limits: Limits) -> Result<Incoming, SendError> {
        let limits = limits.lowered();
        match request.purpose {
            Purpose::Read => self.exchange(request, own, limits).await,
            Purpose::Write => {
                let egress = self.clone();
                let task = tokio::spawn(log::along(async move { egress.exchange(request, own, limits).await }));
                task.await.unwrap_or_else(|_| Err(SendError::Unknown(Reason::Interrupted)))
            }
        }
    }

    async fn exchange(&self, request: Outgoing, own: HeaderMap, limits: Limits) -> Result<Incoming, SendError> {
        let deadline = tokio::time::Instant::now() + limits.total;
        let late = SendError::NotSent(Reason::TotalTimeout);
        let prepared = tokio::time::timeout_at(deadline, exchange::prepare(&request, &self.0.secrets));
        let prepared = prepared.await.map_err(|_| late.clone())?.map_err(SendError::NotSent)?.with(own);
        let (origin, protection) = (&request.origin, protection(request.origin.scheme()));
        let endpoint =
            Endpoint { host: origin.host().clone(), port: origin.port(), protection, network: request.network };
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        let hurried = Limits { connect: limits.connect.min(left), ..limits };
        let stream = match self.dial(&endpoint, &hurried, self.0.tls.http()).await {
            Ok(stream) => stream,
            // What ran out was not the time to connect but that of the whole.
            Err(Reason::Resolve | Reason::ConnectTimeout) if tokio::time::Instant::now() >= deadline => {
                return Err(late);
            }
            Err(reason) => return Err(SendError::NotSent(reason)),
        };
        if !request.clearance.allows() {
            return Err(SendError::NotSent(Reason::Withheld));
        }
        let answer = exchange::run(prepared, stream, &limits, deadline).await;
        let bytes = answer.as_ref().map_or((0, 0), |answer| (answer.bytes_out, answer.bytes_in));
        tracing::debug!(
            tenant = %request.tenant, origin = %request.origin, method = %request.method, bytes_out = bytes.0,
            bytes_in = bytes.1, failed = answer.as_ref().err().map(tracing::field::display), "a request was sent"
        );
        answer
    }

    /// A connection for something else than HTTP, under the same guard. `limits.connect` bounds it.
    ///
    /// # Errors
    /// Always [`SendError::NotSent`]: there is no connection.
    pub async fn connect(&self, endpoint: &Endpoint, limits: &Limits) -> Result<GuardedStream, SendError> {
        self.dial(endpoint, limits, self.0.tls.plain()).await.map_err(SendError::NotSent)
    }

    /// Protect a connection that began without TLS, after its peer agreed; the certificate must name `host`. Bytes that were
    /// read before are the caller's to forget.
    ///
    /// # Errors
    /// The handshake failed: nothing was said under its protection.
    pub async fn protect(
        &self,
        stream: GuardedStream,
        host: &HostName,
        limits: &Limits,
    ) -> Result<GuardedStream, SendError> {
        self.upgrade(stream, host, limits, self.0.tls.plain()).await.map_err(SendError::NotSent)
    }
}

const fn protection(scheme: Scheme) -> Protection {
    match scheme {
        Scheme::Http => Protection::Plain,
        Scheme::Https => Protection::Tls,
    }
}
