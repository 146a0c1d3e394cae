//! Origins: scheme, host and port of a server (RFC 6454), in one normal form.
//!
//! The text is read by the WHATWG URL parser, which folds every spelling of a host that a client somewhere accepts into
//! one: upper case, full-width digits, percent escapes, decimal, octal, hexadecimal and short IPv4 forms, IPv6 forms.
//! Grants, requests and secrets are compared after that, as values and never as texts.

use core::net::IpAddr;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use url::{Host, Url};

use super::target::{Target, TargetError};

/// Longest text of an origin or a URL's head, in bytes: a host has at most 253, and no scheme or port is long.
pub const ORIGIN_MAX_BYTES: usize = 512;
/// Longest host name, in bytes (RFC 1035, without the root's dot).
pub const HOST_MAX_BYTES: usize = 253;
/// Longest label of a host name, in bytes (RFC 1035).
pub const LABEL_MAX_BYTES: usize = 63;

/// What is spoken, and whether it is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
}

impl Scheme {
    /// The scheme as it stands in a URL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that needs no mention.
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// The host of an origin.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostName {
    /// A name: lower-case ASCII (punycode where it was Unicode), without the root's dot.
    Domain(String),
    /// An address, written as such. It is only ever granted explicitly: no name resolves to this variant.
    Address(IpAddr),
}

impl HostName {
    /// Read a host alone, as for a mail server.
    ///
    /// # Errors
    /// Not a host.
    pub fn parse(text: &str) -> Result<Self, OriginError> {
        Origin::from_authority(Scheme::Http, text).map_err(|error| error.of(text)).and_then(|origin| {
            let bare = if text.starts_with('[') { text.ends_with(']') } else { !text.contains(':') };
            if !bare {
                return Err(OriginError::new(text, Problem::Rest));
            }
            Ok(origin.host)
        })
    }

    /// The address, where it is one.
    #[must_use]
    pub const fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Domain(_) => None,
            Self::Address(address) => Some(*address),
        }
    }
}

impl fmt::Display for HostName {
    /// As in a URL: IPv6 addresses in brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Domain(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// Scheme, host and port. `https://api.example.com`, with the port where it is not the scheme's own.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Origin {
    scheme: Scheme,
    host: HostName,
    port: u16,
}

impl Origin {
    /// From the pieces that a request has: its scheme, and `host` or `host:port`.
    ///
    /// # Errors
    /// The authority is not a host with an optional port.
    pub fn from_authority(scheme: Scheme, authority: &str) -> Result<Self, OriginError> {
        if authority.contains(['/', '\\', '?', '#', '@']) {
            return Err(OriginError::new(authority, Problem::Rest));
        }
        Self::parse(&format!("{}://{authority}", scheme.as_str()))
    }

    /// An origin and what is asked of it, from a whole URL.
    ///
    /// # Errors
    /// The head is not an origin, the rest is not a target, or there is a fragment.
    pub fn split_url(text: &str) -> Result<(Self, Target), UrlError> {
        let from = text.find("://").map_or(0, |at| at + 3);
        let rest = text.get(from..).unwrap_or_default();
        let end = rest.find(['/', '?', '#', '\\']).map_or(text.len(), |at| from + at);
        let (head, tail) = text.split_at_checked(end).unwrap_or((text, ""));
        let target = if tail.is_empty() { "/" } else { tail };
        Ok((Self::parse(head)?, target.parse()?))
    }

    fn parse(text: &str) -> Result<Self, OriginError> {
        let refuse = |problem| OriginError::new(text, problem);
        if text.len() > ORIGIN_MAX_BYTES {
            return Err(refuse(Problem::TooLong));
        }
        // The URL standard drops some of these and reads others as a slash.
        if text.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\') {
            return Err(refuse(Problem::Character));
        }
        // The standard would also read `http:host` and `http:///host`; nobody means these.
        let (_, rest) = text.split_once("://").ok_or_else(|| refuse(Problem::Scheme))?;
        if rest.strip_suffix('/').unwrap_or(rest).contains(['/', '?', '#']) {
            return Err(refuse(Problem::Rest));
        }
        let url = Url::parse(text).map_err(|error| refuse(Problem::NotAUrl(error)))?;
        let scheme = match url.scheme() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return Err(refuse(Problem::Scheme)),
        };
        if !url.username().is_empty() || url.password().is_some() || text.contains('@') {
            return Err(refuse(Problem::UserInfo));
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(refuse(Problem::Rest));
        }
        let port = url.port().unwrap_or_else(|| scheme.default_port());
        if port == 0 {
            return Err(refuse(Problem::Port));
        }
        let host = match url.host() {
            Some(Host::Domain(name)) => HostName::Domain(domain(name).ok_or_else(|| refuse(Problem::Host))?),
            Some(Host::Ipv4(address)) => HostName::Address(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => HostName::Address(IpAddr::V6(address)),
            None => return Err(refuse(Problem::Host)),
        };
        Ok(Self { scheme, host, port })
    }

    /// The scheme.
    #[must_use]
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host.
    #[must_use]
    pub const fn host(&self) -> &HostName {
        &self.host
    }

    /// The port; never 0.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// `host`, or `host:port` where the port is not the scheme's own: the value of the `Host` field.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.port == self.scheme.default_port() {
            self.host.to_string()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// A host name in normal form; none where DNS could not carry it.
fn domain(name: &str) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    let label = |label: &str| (1..=LABEL_MAX_BYTES).contains(&label.len()) && label.bytes().all(letter);
    (name.len() <= HOST_MAX_BYTES && name.split('.').all(label)).then(|| name.to_owned())
}

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Origin {
    type Error = OriginError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<Origin> for String {
    fn from(origin: Origin) -> Self {
        origin.to_string()
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.authority())
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Origin({self})")
    }
}

/// Why a text is not an origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an origin: {problem}; write `https://host` or `https://host:port`")]
pub struct OriginError {
    /// The refused text, escaped and shortened to 80 characters.
    pub text: String,
    /// What is wrong with it.
    pub problem: Problem,
}

impl OriginError {
    fn new(text: &str, problem: Problem) -> Self {
        Self { text: text.escape_debug().take(80).collect(), problem }
    }

    fn of(self, text: &str) -> Self {
        Self::new(text, self.problem)
    }
}

/// What is wrong with the text of an origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// More than [`ORIGIN_MAX_BYTES`].
    #[error("it is longer than {ORIGIN_MAX_BYTES} bytes")]
    TooLong,
    /// A blank, a control character or a backslash.
    #[error("it has a blank, a control character or a backslash")]
    Character,
    /// The URL standard does not read it.
    #[error("{0}")]
    NotAUrl(url::ParseError),
    /// Neither http nor https.
    #[error("the scheme is neither http nor https")]
    Scheme,
    /// A user or a password before the host.
    #[error("it has a user name or a password")]
    UserInfo,
    /// A path, a query or a fragment.
    #[error("something follows or surrounds the host and its port")]
    Rest,
    /// Port 0.
    #[error("port 0 cannot be connected to")]
    Port,
    /// DNS could not carry the name.
    #[error("the host is not a DNS name or an address")]
    Host,
}

/// Why a text is not the URL of a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Its head is not an origin.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// Its rest is not a target.
    #[error(transparent)]
    Target(#[from] TargetError),
}

#[cfg(test)]
mod tests;
