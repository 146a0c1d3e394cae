//! The fields in the head of an MCP request, and whether they say what its body says.
//!
//! Whoever stands before the daemon may decide by the head, so a head that says something else than the body is refused
//! (-32020). Two fields of one name are two readings, and refused as well.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName};
use serde_json::{Map, Value, json};
use toolkeep_core::refusal::{Code, Refusal};

use super::era::{self, Era, HANDSHAKE, Meta, STATELESS, UNSUPPORTED_VERSION, VERSION_KEY};
use crate::daemon::reply::Fault;

/// Head and body disagree.
pub(super) const MISMATCH: i32 = -32_020;
/// The revision.
const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// The method.
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
/// What the method is about.
const NAME: HeaderName = HeaderName::from_static("mcp-name");
/// A session of the older era.
pub(super) const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
/// What a client heard of last on a stream that broke.
pub(super) const LAST_EVENT: HeaderName = HeaderName::from_static("last-event-id");

/// What the head of a request says.
#[derive(Debug)]
pub(super) struct Head {
    version: Option<String>,
    method: Option<String>,
    name: Option<String>,
    /// The session that the request belongs to.
    pub(super) session: Option<String>,
}

/// What the head must name, for the methods that have it.
pub(super) fn name_of(method: &str, params: &Map<String, Value>) -> Option<String> {
    let key = match method {
        "tools/call" | "prompts/get" => "name",
        "resources/read" => "uri",
        _ => return None,
    };
    params.get(key).and_then(Value::as_str).map(str::to_owned)
}

impl Head {
    /// Read the fields.
    ///
    /// # Errors
    /// One is there twice, or is no text.
    pub(super) fn read(headers: &HeaderMap) -> Result<Self, Fault> {
        let one = |name: &HeaderName| -> Result<Option<String>, Fault> {
            let mut given = headers.get_all(name).iter();
            let Some(first) = given.next() else { return Ok(None) };
            match (first.to_str(), given.next()) {
                (Ok(text), None) => Ok(Some(text.to_owned())),
                _ => Err(mismatch(name, "is there twice, or is no text")),
            }
        };
        Ok(Self { version: one(&VERSION)?, method: one(&METHOD)?, name: one(&NAME)?, session: one(&SESSION)? })
    }

    /// Whether the revision, where one is named, is the one that the session's handshake ended with.
    ///
    /// # Errors
    /// It is another one.
    pub(super) fn is_of(&self, version: &str) -> Result<(), Fault> {
        match self.version.as_deref() {
            Some(says) if says != version => Err(mismatch(&VERSION, "is not the revision of the session")),
            _ => Ok(()),
        }
    }

    /// Whether the revision that a body names, spoken here or not, is the one of the head.
    ///
    /// # Errors
    /// It is another one.
    pub(super) fn agrees(&self, params: &Map<String, Value>) -> Result<(), Fault> {
        let named = params.get("_meta").and_then(|meta| meta.get(VERSION_KEY)).and_then(Value::as_str);
        match (named, self.version.as_deref()) {
            (Some(named), Some(says)) if named != says => Err(mismatch(&VERSION, "is not what `_meta` says")),
            _ => Ok(()),
        }
    }

    /// The era of a request, if its head and its body agree, and with the revision of its session.
    ///
    /// # Errors
    /// They do not, or the revision is not spoken.
    pub(super) fn era(
        &self,
        (method, session): (&str, Option<&str>),
        named: Option<&str>,
        meta: &Meta,
    ) -> Result<Era, Fault> {
        if let Some(version) = session {
            if meta.stateless {
                return Err(mismatch(&SESSION, "is there, and the request is of the era without sessions"));
            }
            self.is_of(version)?;
        }
        let says = self.version.as_deref();
        match (meta.stateless, says) {
            (true, Some(STATELESS)) | (false, None) => {}
            (true, _) => return Err(mismatch(&VERSION, "is not what `_meta` says")),
            (false, Some(STATELESS)) => {
                return Err(era::bad(&era::pointer(VERSION_KEY), "is missing", "the revision that the head names"));
            }
            (false, Some(version)) if HANDSHAKE.contains(&version) => {}
            (false, Some(version)) => {
                let refusal = Refusal::new(Code::InvalidInput, "Unsupported protocol version");
                let told = json!({"supported": era::supported(), "requested": version});
                return Err(Fault::protocol(UNSUPPORTED_VERSION, refusal).telling(told));
            }
        }
        if self.method.as_deref().map_or(meta.stateless, |says| says != method) {
            return Err(mismatch(&METHOD, "is not the method of the body"));
        }
        let says = self.name.as_deref().map(decoded).transpose()?;
        let says = says.as_deref();
        let fits = if meta.stateless { says == named } else { says.is_none() || says == named };
        if !fits {
            return Err(mismatch(&NAME, "is not what the body is about"));
        }
        Ok(if meta.stateless { Era::Stateless } else { Era::Handshake })
    }
}

/// A name that may be spelled in Base64, because fields hold ASCII.
fn decoded(text: &str) -> Result<String, Fault> {
    let Some(inner) = text.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) else {
        return Ok(text.to_owned());
    };
    let bytes = STANDARD.decode(inner).ok();
    bytes
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| mismatch(&NAME, "is not valid Base64 of a text"))
}

fn mismatch(name: &HeaderName, problem: &str) -> Fault {
    Fault::protocol(MISMATCH, Refusal::new(Code::InvalidInput, format!("`{name}` {problem}")))
}
