//! What a client is told that has no token, or a wrong one: who gives tokens for `/mcp` (RFC 9728).
//!
//! Only where the configuration names an issuer by an `https` address: minted tokens come from an operator and need no server
//! that gives them. What the answer says the resource is called is the address under which it was asked, as a client has to
//! compare the two; the front has seen to it that this is one of the door's own names.

use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::json;
use toolkeep_core::refusal::{Code, Refusal};

use super::http::{JSON, PATH};
use crate::daemon::http::{Named, Response, refused, whole};
use crate::host::Host;

/// Where it is told: with the path of the resource, and for clients that look at the root.
pub(in crate::daemon) const METADATA: [&str; 2] =
    ["/.well-known/oauth-protected-resource/mcp", "/.well-known/oauth-protected-resource"];

/// Under which address somebody asked.
pub(super) struct Asked<'r> {
    pub(super) headers: &'r HeaderMap,
    pub(super) named: Named,
    /// Whether the door itself has TLS.
    pub(super) tls: bool,
}

impl Asked<'_> {
    /// Scheme and authority.
    fn base(&self) -> Option<String> {
        let host = self.headers.get(HOST)?.to_str().ok()?;
        // Without TLS here, a name of the configuration is that of a proxy, and proxies have TLS.
        let scheme = if self.tls || self.named == Named::Configured { "https" } else { "http" };
        Some(format!("{scheme}://{host}"))
    }
}

/// Who gives tokens for this resource, if anybody does.
pub(super) fn metadata(host: &Host, asked: &Asked<'_>) -> Response {
    let issuers = host.authorization_servers();
    let Some(resource) = asked.base().filter(|_| !issuers.is_empty()) else {
        return refused(StatusCode::NOT_FOUND, Code::NotFound, "there is nothing of this name");
    };
    let told = json!({"resource": format!("{resource}{PATH}"), "authorization_servers": issuers,
        "bearer_methods_supported": ["header"], "resource_name": "Toolkeep"});
    let mut response = Response::new(whole(told.to_string()));
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// The answer to a request without a token that stands. What was shown and is not taken is called so (RFC 6750, section 3.1).
pub(super) fn unauthorized(host: &Host, refusal: &Refusal, asked: &Asked<'_>) -> Response {
    let mut response = refused(StatusCode::UNAUTHORIZED, refusal.code, &refusal.message);
    let mut said = Vec::new();
    if asked.headers.contains_key(AUTHORIZATION) {
        said.push("error=\"invalid_token\"".to_owned());
    }
    let known = !host.authorization_servers().is_empty();
    if let Some(base) = asked.base().filter(|_| known) {
        said.push(format!("resource_metadata=\"{base}{}\"", METADATA[0]));
    }
    let challenge = format!("Bearer {}", said.join(", "));
    let challenge = HeaderValue::try_from(challenge.trim_end()).unwrap_or(HeaderValue::from_static("Bearer"));
    response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    response
}
