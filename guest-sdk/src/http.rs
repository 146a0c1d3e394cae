//! Requests to the origins that the manifest grants.
//!
//! What reads (`GET`, `HEAD`, `OPTIONS`) is sent while the tool runs. What writes is staged: it becomes part of the plan,
//! is sent when the plan is committed, and the tool gets the answer that the manifest declares, by default an empty one
//! with status 202 ([`Response::is_staged`]). Where the manifest says `delivery = "live"` the tool gets the real answer:
//! then the host stops the tool at the request, decides, sends it, and runs the tool again with the answer, so a tool must
//! ask for the same again when it is run again.
//!
//! Credentials are the host's to add: a tool neither has nor sets them. Redirects are answers like any other.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error as ToolFailure, ErrorKind};
use crate::host;

/// A request.
///
/// ```
/// use toolkeep_sdk::http::{self, Request, Response};
/// use toolkeep_sdk::testing::Harness;
///
/// let url = format!("https://api.example.com/tickets/{}", http::encode("a b"));
/// let harness = Harness::new().answers("GET", &url, Response::json(200, &serde_json::json!({"title": "Broken"})));
/// harness.inside(|| {
///     let ticket: serde_json::Value = Request::get(&url).send()?.success()?.parse()?;
///     assert_eq!(ticket["title"], "Broken");
///     Ok::<_, http::Error>(())
/// })?;
/// # Ok::<_, http::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a request does nothing before it is sent"]
pub struct Request {
    /// Its method, in upper case.
    pub method: String,
    /// Its whole URL, without a fragment. Whatever a model wrote goes through [`encode`] first.
    pub url: String,
    /// Its fields: `accept`, `content-type`, and those that the manifest lists.
    pub headers: Vec<(String, String)>,
    /// Its body; empty for none.
    pub body: Vec<u8>,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// Its fields, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Its body, as it came.
    pub body: Vec<u8>,
}

/// Why there is no response, or not the one that was needed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[expect(clippy::error_impl_error, reason = "authors write it as http::Error, like std::io::Error")]
pub enum Error {
    /// No grant allows it: origin, method, path, a header field, or the number of requests. The operator's log says which.
    Denied(String),
    /// The request makes no sense: its URL, a field, its size.
    Invalid(String),
    /// Nobody answers there; it may work later.
    Unreachable(String),
    /// It took longer than the grant allows; it may work later.
    Timeout,
    /// The answer is larger than the grant allows.
    TooLarge,
    /// The answer is no HTTP, or not what was expected.
    Broken(String),
    /// An answer with a status that is no success.
    Status {
        /// The status.
        status: u16,
        /// The start of the body, at most 200 characters.
        excerpt: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(why) => write!(out, "the request is not allowed: {why}"),
            Self::Invalid(why) => write!(out, "the request makes no sense: {why}"),
            Self::Unreachable(why) => write!(out, "nobody answers: {why}"),
            Self::Timeout => out.write_str("the answer took too long"),
            Self::TooLarge => out.write_str("the answer is too large"),
            Self::Broken(why) => write!(out, "the answer cannot be used: {why}"),
            Self::Status { status, excerpt } => write!(out, "the answer has status {status}: {excerpt}"),
        }
    }
}

impl std::error::Error for Error {}

/// `Denied` becomes denied, `Status(404)` not-found, what may work later transient, the rest failed.
impl From<Error> for ToolFailure {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Denied(_) => ErrorKind::Denied,
            Error::Unreachable(_) | Error::Timeout => ErrorKind::Transient,
            Error::Status { status: 404 | 410, .. } => ErrorKind::NotFound,
            Error::Status { status: 401 | 403, .. } => ErrorKind::Denied,
            Error::Status { status: 409 | 412, .. } => ErrorKind::Conflict,
            Error::Status { status: 429 | 502..=504, .. } => ErrorKind::Transient,
            Error::Invalid(_) | Error::TooLarge | Error::Broken(_) | Error::Status { .. } => ErrorKind::Failed,
        };
        Self::new(kind, error.to_string())
    }
}

impl Request {
    /// A request without fields and body.
    pub fn new(method: impl Into<String>, url: impl Into<String>) -> Self {
        Self { method: method.into(), url: url.into(), headers: Vec::new(), body: Vec::new() }
    }

    /// A `GET` request.
    pub fn get(url: impl Into<String>) -> Self {
        Self::new("GET", url)
    }

    /// A `POST` request.
    pub fn post(url: impl Into<String>) -> Self {
        Self::new("POST", url)
    }

    /// A `PUT` request.
    pub fn put(url: impl Into<String>) -> Self {
        Self::new("PUT", url)
    }

    /// A `PATCH` request.
    pub fn patch(url: impl Into<String>) -> Self {
        Self::new("PATCH", url)
    }

    /// A `DELETE` request.
    pub fn delete(url: impl Into<String>) -> Self {
        Self::new("DELETE", url)
    }

    /// With one more header field.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// With a body of this media type.
    pub fn body(mut self, media_type: &str, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self.header("content-type", media_type)
    }

    /// With a JSON body.
    ///
    /// # Errors
    /// The value cannot be written as JSON.
    pub fn json(self, value: &impl Serialize) -> Result<Self, Error> {
        let body = serde_json::to_vec(value).map_err(|error| Error::Invalid(error.to_string()))?;
        Ok(self.body("application/json", body))
    }

    /// Send it and wait for the answer. An answer with any status is an answer: see [`Response::success`].
    ///
    /// # Errors
    /// There is none.
    pub fn send(self) -> Result<Response, Error> {
        host::send_request(self)
    }
}

impl Response {
    /// A response, for tests.
    #[must_use]
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    /// A JSON response, for tests. What cannot be written as JSON gives an empty body.
    #[must_use]
    pub fn json(status: u16, value: &impl Serialize) -> Self {
        let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        Self { status, headers, body: serde_json::to_vec(value).unwrap_or_default() }
    }

    /// The first value of a header field; names are in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Whether the status says that it worked.
    #[must_use]
    pub const fn is_success(&self) -> bool {
        200 <= self.status && self.status < 300
    }

    /// Whether the request was staged: this is the answer that the manifest declares, and the real one comes after the
    /// tool ended.
    #[must_use]
    pub fn is_staged(&self) -> bool {
        self.header("x-toolkeep-staged").is_some()
    }

    /// The response itself if its status says that it worked.
    ///
    /// # Errors
    /// The status is another.
    pub fn success(self) -> Result<Self, Error> {
        if self.is_success() {
            return Ok(self);
        }
        let excerpt = String::from_utf8_lossy(&self.body).chars().take(200).collect();
        Err(Error::Status { status: self.status, excerpt })
    }

    /// Its body as text.
    ///
    /// # Errors
    /// It is not UTF-8.
    pub fn text(&self) -> Result<&str, Error> {
        std::str::from_utf8(&self.body).map_err(|error| Error::Broken(error.to_string()))
    }

    /// Its body as JSON.
    ///
    /// # Errors
    /// It is not JSON of that type.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|error| Error::Broken(error.to_string()))
    }
}

/// A text as one segment of a path or one value of a query: everything but letters, digits, `-`, `.`, `_` and `~` is escaped.
#[must_use]
pub fn encode(text: &str) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing into a string does not fail.
            let _written = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// The parts of a URL as the host takes them: scheme, host with port, path with query.
#[cfg(target_family = "wasm")]
pub(crate) fn split(url: &str) -> Result<(&str, &str, &str), Error> {
    let invalid = |why: &str| Error::Invalid(format!("`{url}`: {why}"));
    let (scheme, rest) = url.split_once("://").ok_or_else(|| invalid("write a whole URL"))?;
    if rest.contains('#') {
        return Err(invalid("write it without a fragment"));
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at_checked(end).unwrap_or((rest, ""));
    if authority.is_empty() { Err(invalid("it has no host")) } else { Ok((scheme, authority, target)) }
}

#[cfg(test)]
mod tests {
    use super::{Error, Response, encode};
    use crate::error::{Error as ToolFailure, ErrorKind};

    #[test]
    fn a_text_is_escaped_for_its_place_in_a_url() {
        assert_eq!(encode("a/b?c=d&e f%é~"), "a%2Fb%3Fc%3Dd%26e%20f%25%C3%A9~");
    }

    #[test]
    fn a_status_that_is_no_success_is_an_error_of_its_kind() {
        for (status, kind) in [
            (404, ErrorKind::NotFound),
            (403, ErrorKind::Denied),
            (409, ErrorKind::Conflict),
            (503, ErrorKind::Transient),
            (500, ErrorKind::Failed),
        ] {
            let error = Response::new(status, "x".repeat(300)).success().expect_err("an error");
            assert!(matches!(&error, Error::Status { excerpt, .. } if excerpt.len() == 200));
            assert_eq!(ToolFailure::from(error).kind(), kind, "{status}");
        }
        assert!(Response::new(204, "").success().is_ok());
    }
}
