//! What every request passes before a route sees it (T-I7).
//!
//! A page in somebody's browser can make requests to a loopback address, under a name that it lets point there. So the name
//! under which the door is asked must be one of its own or of the configuration, a page of another origin must be named by
//! the configuration, and a peer's address proves nothing. Answers are not for caches or guessing browsers.

use std::fmt;

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HOST, ORIGIN, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version};
use serde_json::json;
use toolkeep_core::net::origin::Origin;
use toolkeep_core::refusal::{Code, Refusal};

use super::bounds::HttpBounds;
use super::config::{HttpConfig, Listen};
use super::{Response, whole};

/// What a browser says about who asks.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Methods that a page of a named origin may use.
const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, DELETE");
/// Header fields that a page of a named origin may set.
const FIELDS: HeaderValue = HeaderValue::from_static(
    "authorization, content-type, last-event-id, mcp-protocol-version, mcp-session-id, mcp-method, mcp-name",
);
/// The port of a `Host` that names none, without TLS and with it.
const PORTS: [u16; 2] = [80, 443];
/// How long a browser may remember that, in seconds.
const REMEMBER_S: HeaderValue = HeaderValue::from_static("600");

/// Whether a request was made under a name of the machine itself: the only ones that no proxy has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::daemon) enum Named {
    /// `localhost`, or the address that the door listens on.
    Local,
    /// A name of the configuration.
    Configured,
}

/// Why a request ends at the front.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Turned {
    pub(super) status: StatusCode,
    pub(super) why: &'static str,
}

/// What is let in.
pub(super) struct Front {
    /// Names of the machine itself, each with the only port, where there is one.
    local: Vec<String>,
    port: Option<u16>,
    /// Whether the door itself has TLS.
    tls: bool,
    hosts: Vec<Authority>,
    origins: Vec<Origin>,
    body_bytes: usize,
}

impl fmt::Debug for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Front").field("hosts", &self.hosts).field("origins", &self.origins).finish_non_exhaustive()
    }
}

/// What is let through, and how its answer is to be marked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Passed {
    pub(super) named: Named,
    /// The page's origin, to be told that it may read the answer.
    pub(super) origin: Option<HeaderValue>,
    /// A browser only asks whether it may.
    pub(super) preflight: bool,
}

impl Front {
    /// The front of a door that listens on `port`.
    pub(super) fn new(config: &HttpConfig, port: Option<u16>, bounds: HttpBounds) -> Self {
        let mut local = vec!["localhost".to_owned()];
        if let Listen::Tcp(address) = config.listen {
            let ip = address.ip();
            // An address that stands for all of them is nobody's name.
            if !ip.is_unspecified() {
                local.push(if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() });
            }
        }
        Self {
            local,
            port,
            tls: config.tls.is_some(),
            hosts: config.hosts.clone(),
            origins: config.origins.clone(),
            body_bytes: bounds.body_bytes,
        }
    }

    /// Let a request in, or turn it away.
    ///
    /// # Errors
    /// Why not, and with which status.
    pub(super) fn check<B>(&self, request: &Request<B>) -> Result<Passed, Turned> {
        let turned = |status, why| Err(Turned { status, why });
        if request.version() != Version::HTTP_11 {
            return turned(StatusCode::HTTP_VERSION_NOT_SUPPORTED, "this door speaks HTTP/1.1");
        }
        if request.uri().authority().is_some() || !request.uri().path().starts_with('/') {
            return turned(StatusCode::BAD_REQUEST, "ask for a path that begins with `/`; this is no proxy");
        }
        let headers = request.headers();
        let (named, host) = self.named(headers)?;
        let origin = self.origin(headers, &host)?;
        let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if announced.is_some_and(|bytes| bytes > self.body_bytes as u64) {
            return turned(StatusCode::PAYLOAD_TOO_LARGE, "the body is too long");
        }
        let preflight = request.method() == Method::OPTIONS && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        Ok(Passed { named, preflight: preflight && origin.is_some(), origin })
    }

    /// The one `Host`, if it is a name of this door.
    fn named(&self, headers: &HeaderMap) -> Result<(Named, Authority), Turned> {
        let mut given = headers.get_all(HOST).iter();
        let one = given.next().filter(|_| given.next().is_none());
        let host: Option<Authority> = one.and_then(|host| host.to_str().ok()?.parse().ok());
        let Some(host) = host.filter(|host| !host.as_str().contains('@')) else {
            return Err(Turned { status: StatusCode::BAD_REQUEST, why: "one valid `Host` is wanted" });
        };
        let is = |name: &str| host.host().eq_ignore_ascii_case(name);
        let [http, https] = PORTS;
        let port = host.port_u16().unwrap_or(if self.tls { https } else { http });
        if self.local.iter().any(|name| is(name)) && self.port.is_none_or(|own| own == port) {
            return Ok((Named::Local, host));
        }
        let meant =
            |known: &&Authority| is(known.host()) && known.port_u16().is_none_or(|p| host.port_u16() == Some(p));
        match self.hosts.iter().find(meant) {
            Some(_) => Ok((Named::Configured, host)),
            None => Err(Turned {
                status: StatusCode::MISDIRECTED_REQUEST,
                why: "this door does not have the name in `Host`; an operator adds names to `http.hosts`",
            }),
        }
    }

    /// The origin of the page that asks, if one does and may. A page of this door itself is told nothing about origins.
    fn origin(&self, headers: &HeaderMap, host: &Authority) -> Result<Option<HeaderValue>, Turned> {
        const FOREIGN: &str = "pages of this origin may not ask; an operator adds origins to `http.origins`";
        let refused = || Turned { status: StatusCode::FORBIDDEN, why: FOREIGN };
        let mut given = headers.get_all(ORIGIN).iter();
        let Some(value) = given.next() else {
            // A browser that says so although it names no origin: another page's link, image or form.
            let cross = headers.get(SEC_FETCH_SITE).is_some_and(|site| site == "cross-site" || site == "same-site");
            return if cross { Err(refused()) } else { Ok(None) };
        };
        if given.next().is_some() {
            return Err(refused());
        }
        let origin: Origin = value.to_str().ok().and_then(|text| text.parse().ok()).ok_or_else(refused)?;
        if self.origins.contains(&origin) {
            return Ok(Some(value.clone()));
        }
        let scheme = if self.tls { "https" } else { "http" };
        let own = format!("{scheme}://{host}").parse::<Origin>().is_ok_and(|own| own == origin);
        if own { Ok(None) } else { Err(refused()) }
    }

    /// What every answer says about itself, and to the page that asked.
    pub(super) fn mark(response: &mut Response, origin: Option<HeaderValue>) {
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.append(VARY, HeaderValue::from_static("origin"));
        if let Some(origin) = origin {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        }
    }

    /// The answer to a browser that asks whether a named page may.
    pub(super) fn permission() -> Response {
        let mut response = Response::new(whole(""));
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, FIELDS);
        headers.insert(ACCESS_CONTROL_MAX_AGE, REMEMBER_S);
        response
    }
}

/// An answer that is an error, in the words of every other door.
pub(in crate::daemon) fn refused(status: StatusCode, code: Code, why: &str) -> Response {
    let body = json!({"error": Refusal::new(code, why)}).to_string();
    let mut response = Response::new(whole(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

impl From<Turned> for Response {
    fn from(turned: Turned) -> Self {
        let code = if turned.status == StatusCode::FORBIDDEN { Code::Denied } else { Code::InvalidInput };
        refused(turned.status, code, turned.why)
    }
}
