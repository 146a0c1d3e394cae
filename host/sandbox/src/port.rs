//! What an execution asks of the rest of the host: answers of other systems, and values of keys.
//!
//! The sandbox opens no connection and no database. It checks a request against the grants of the manifest, stages what
//! would change something, and asks a port only for what reads. Both ports are named traits, so that the sandbox can move
//! into a process of its own; everything that crosses them is plain owned data.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use toolkeep_core::digest::Digest;
use toolkeep_core::effect::{BodyState, Delivery, Header, HttpEffect};
use toolkeep_core::grant::HttpGrant;
use toolkeep_core::id::{BucketName, GrantName};

/// What a port answers with.
pub type PortFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A request that fits a grant: checked, normalised, without the fields that belong to the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpCall {
    /// The grant that allows it.
    pub grant: GrantName,
    /// Its method, in upper case.
    pub method: String,
    /// Its whole URL, normalised as WHATWG does.
    pub url: String,
    /// The fields that the tool set, names in lower case.
    pub headers: Vec<Header>,
    /// Its body.
    pub body: Bytes,
}

impl HttpCall {
    /// Names the request: same grant, method, URL, fields and body, same digest.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut parts: Vec<&[u8]> = vec![self.grant.as_str().as_bytes(), self.method.as_bytes(), self.url.as_bytes()];
        for header in &self.headers {
            parts.extend([header.name.as_bytes(), header.value.as_bytes()]);
        }
        parts.push(&self.body);
        Digest::of_parts("toolkeep.http-call.v1", &parts)
    }

    /// The request as an effect under its grant.
    #[must_use]
    pub fn effect(&self, grant: &HttpGrant, delivery: Delivery) -> HttpEffect {
        HttpEffect {
            grant: self.grant.clone(),
            method: self.method.clone(),
            url: self.url.clone(),
            headers: self.headers.clone(),
            credential: grant.credential.clone(),
            body: (!self.body.is_empty()).then(|| BodyState::of(&self.body)),
            delivery,
            reversal: grant.reversal,
        }
    }
}

/// The answer of another system, as the guest sees it: fields that carry credentials or belong to the connection are gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpAnswer {
    /// Its status.
    pub status: u16,
    /// Its fields, names in lower case.
    pub headers: Vec<Header>,
    /// Its body, as it came: nothing is decompressed.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "failure", content = "what", rename_all = "snake_case")]
pub enum HttpFailure {
    /// No grant, or an address that nobody may reach.
    #[error("denied: {0}")]
    Denied(String),
    /// The name has no address.
    #[error("the name cannot be resolved: {0}")]
    Resolve(String),
    /// No connection.
    #[error("no connection: {0}")]
    Connect(String),
    /// The peer's certificate, or the handshake.
    #[error("no secure connection: {0}")]
    Tls(String),
    /// Too slow, in this part of the exchange.
    #[error("too slow: {0}")]
    Timeout(String),
    /// More bytes than the grant allows.
    #[error("too large: {0}")]
    TooLarge(String),
    /// The peer does not speak HTTP as it should, or went away.
    #[error("the exchange broke: {0}")]
    Broken(String),
}

/// One exchange of an execution, in order, so that another execution can be given the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// Names the request.
    pub call: Digest,
    /// What came of it.
    pub answer: Result<HttpAnswer, HttpFailure>,
    /// Nanoseconds of the tool's monotonic clock from the request to the answer, so that another execution sees the same
    /// time pass; [`UNANSWERED`] for a request that reads whose answer the tool did not wait for.
    pub took_ns: u64,
}

/// Stands for the time of an exchange whose answer nobody waited for. Executed again, such a request is sent again if it
/// reads.
pub const UNANSWERED: u64 = u64::MAX;

/// Sends requests that read.
pub trait Requests: fmt::Debug + Send + Sync {
    /// Send a request that reads, once.
    fn fetch<'a>(&'a self, grant: &'a HttpGrant, call: &'a HttpCall)
    -> PortFuture<'a, Result<HttpAnswer, HttpFailure>>;
}

/// Why a bucket cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeysFailure {
    /// It fails.
    #[error("the bucket cannot be read: {0}")]
    Unreadable(String),
    /// The execution is a replay, and the recording does not hold this.
    #[error("{0}, which the recording does not hold")]
    Unrecorded(String),
}

/// Reads committed values of one tenant's keys.
pub trait Keys: fmt::Debug + Send + Sync {
    /// The value of a key; nothing if it does not exist.
    fn get<'a>(&'a self, bucket: &'a BucketName, key: &'a str) -> PortFuture<'a, Result<Option<Bytes>, KeysFailure>>;

    /// At most `limit` keys of a bucket in the order of their bytes, after `after`.
    fn list<'a>(
        &'a self,
        bucket: &'a BucketName,
        after: Option<&'a str>,
        limit: usize,
    ) -> PortFuture<'a, Result<Vec<String>, KeysFailure>>;
}

/// The ports of one execution. Without one, every use of it is refused.
#[derive(Debug, Clone, Default)]
pub struct Ports {
    /// Answers of other systems.
    pub requests: Option<Arc<dyn Requests>>,
    /// Values of keys.
    pub keys: Option<Arc<dyn Keys>>,
}
